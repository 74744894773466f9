//! What the planner knows of the target's tables, and whether that is what was written.
//!
//! Owns who renews it: a session beside the stream ([`super::tend`]), which nothing waits for but a large batch. Contains no SQL.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// How long a large batch waits for whoever is at it: a connection may have been cut silently.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Much was written, and the planner may take it for nothing.
    are_due: AtomicBool,
    renewing: Mutex<()>,
}

impl Statistics {
    /// To be renewed soon.
    pub(super) fn ask(&self) {
        self.are_due.store(true, Ordering::Release);
    }

    pub(super) fn are_due(&self) -> bool {
        self.are_due.load(Ordering::Acquire)
    }

    /// Begins to renew them, to be held until that is done; where it fails, [`Self::ask`] again. What is asked for from here on may be of
    /// what is written from here on.
    pub(super) async fn renew(&self) -> MutexGuard<'_, ()> {
        let renewing = self.renewing.lock().await;
        self.are_due.store(false, Ordering::Release);
        renewing
    }

    /// Waits for whoever renews them: Postgres would skip the table somebody else is at.
    pub(super) async fn wait(&self) {
        // Of what takes longer there is no more to expect.
        drop(tokio::time::timeout(PATIENCE, self.renewing.lock()).await);
    }
}
