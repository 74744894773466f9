//! The planner's statistics, after a large batch and after everything was projected.
//!
//! Owns the session beside the stream that renews them, for which nothing waits but what is planned for many rows next: it would be planned for
//! what there was before. What grows little by little is [`super::tend`]'s. Contains no SQL.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::Daemon;
use crate::config::Config;
use crate::error::Result;
use crate::postgres::error_chain;
use crate::target::Target;

/// How long after its begin it is waited for: a connection may have been cut silently, and whoever waits holds the stream.
const PATIENCE: Duration = Duration::from_secs(6);
/// How often it is tried again, and how long nothing is done before, twice as long each time: there may be no connection left.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_secs(10);

/// The last one, while it may be going on. Dropping it leaves it going on: what was written stays, whichever session reads it.
#[derive(Debug, Default)]
pub(super) struct Renewal(Option<Running>);

#[derive(Debug)]
struct Running {
    task: JoinHandle<()>,
    /// Nobody waits for it any longer than this.
    until: Instant,
}

impl Renewal {
    pub(super) fn begin(&mut self, daemon: &Arc<Daemon>) {
        let (before, daemon) = (self.0.take(), Arc::clone(daemon));
        // One that is still there was waited for in vain: it is not waited for once more by each that comes after it.
        let until = before.as_ref().map_or_else(|| Instant::now() + PATIENCE, |before| before.until);
        let aside = daemon.aside.clone();
        let task = aside.spawn(async move {
            // One after the other: each would skip the table that the one before is at.
            if let Some(before) = before {
                let _ = before.task.await;
            }
            if !renew(&daemon.config).await {
                // Nobody waits for that.
                tokio::spawn(try_again(daemon));
            }
        });
        self.0 = Some(Running { task, until });
    }

    /// Returns once it is over, or nobody waits for it any longer.
    pub(super) async fn wait(&mut self) {
        if let Some(Running { task, until }) = &mut self.0
            && timeout_at(*until, task).await.is_ok()
        {
            self.0 = None;
        }
    }
}

async fn try_again(daemon: Arc<Daemon>) {
    for time in 0..TRIES {
        sleep(PAUSE * 2_u32.pow(time)).await;
        if renew(&daemon.config).await {
            return;
        }
    }
}

/// Whether it went well.
async fn renew(config: &Config) -> bool {
    let renewed = once(config).await;
    if let Err(error) = &renewed {
        tracing::debug!(error = error_chain(error), "could not renew the statistics");
    }
    renewed.is_ok()
}

async fn once(config: &Config) -> Result<()> {
    Target::open(config).await?.analyze_all(&config.schema, Some(&config.webui_schema)).await
}
