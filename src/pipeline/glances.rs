//! What follows from each glance of the housekeeper, on a session of its own.
//!
//! Owns that session: it is opened when there is something to do, and thrown away after an error, because what was asked may still
//! be running. Whatever goes wrong ends nothing and is tried again. Contains no SQL.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Daemon;
use crate::error::Result;
use crate::postgres::error_chain;
use crate::target::Target;
use crate::target::heartbeat::Glance;

/// What is done for each of them.
pub(super) trait Follow: Send {
    /// What it is, for the log.
    const ACTION: &'static str;
    /// How long nothing is done after something went wrong.
    const PAUSE: Duration;

    fn follow(&mut self, target: &Target, glance: &Glance) -> impl Future<Output = Result<()>> + Send;

    /// Something went wrong: what was found before may be otherwise by now.
    fn failed(&mut self) {}
}

/// Follows until cancelled, or until nobody looks any more.
pub(super) async fn run<W: Follow>(
    daemon: Arc<Daemon>,
    mut glances: watch::Receiver<Option<Arc<Glance>>>,
    mut work: W,
    cancel: CancellationToken,
) {
    let mut session = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = glances.changed() => if changed.is_err() { return },
        }
        let Some(glance) = glances.borrow_and_update().clone() else { continue };
        let Err(error) = once(&daemon, &mut session, &mut work, &glance).await else { continue };
        tracing::debug!(error = error_chain(&error), "could not {}", W::ACTION);
        session = None;
        work.failed();
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(W::PAUSE) => {}
        }
    }
}

async fn once<W: Follow>(
    daemon: &Daemon,
    session: &mut Option<Target>,
    work: &mut W,
    glance: &Glance,
) -> Result<()> {
    let target = match session {
        Some(target) => target,
        None => session.insert(Target::open(&daemon.config).await?),
    };
    work.follow(target, glance).await
}
