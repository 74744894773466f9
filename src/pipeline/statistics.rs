//! The planner's statistics, after much was written at once.
//!
//! Owns the session beside the stream that renews them, for which nothing waits but the next large batch: what that plans would be planned for
//! what there was before. What grows little by little is [`super::tend`]'s. Contains no SQL.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Daemon;
use crate::config::Config;
use crate::error::Result;
use crate::postgres::error_chain;
use crate::target::Target;

/// How long a large batch waits for whoever is at it: a connection may have been cut silently.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is tried, and how long nothing is done in between: there may be no connection left.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(10);

/// One that may be going on. Dropping it leaves it going on: what was written stays, whichever session reads it.
#[derive(Debug, Default)]
pub(super) struct Renewal(Option<JoinHandle<()>>);

impl Renewal {
    pub(super) fn begin(&mut self, daemon: &Arc<Daemon>) {
        self.0 = Some(daemon.aside.spawn(renew(Arc::clone(daemon))));
    }

    pub(super) async fn wait(&mut self) {
        if let Some(running) = self.0.take() {
            // Of what takes longer there is no more to expect.
            let _ = tokio::time::timeout(PATIENCE, running).await;
        }
    }
}

async fn renew(daemon: Arc<Daemon>) {
    for tried in 1..=TRIES {
        match once(&daemon.config).await {
            Ok(()) => return,
            Err(error) => tracing::debug!(error = error_chain(&error), "could not renew the statistics"),
        }
        if tried < TRIES {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn once(config: &Config) -> Result<()> {
    Target::open(config).await?.analyze_all(&config.schema, Some(&config.webui_schema)).await
}
