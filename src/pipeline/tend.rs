//! What follows from a glance and may take its time, on a session of its own: the planner's statistics, and whoever used Open WebUI
//! lately.
//!
//! Owns when the statistics are renewed. Whatever goes wrong here ends nothing: it is tried again. Contains no SQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::apply::GROWTH;
use super::own::Order;
use super::returning::Returning;
use crate::config::Config;
use crate::error::Result;
use crate::observe::progress::State;
use crate::postgres::error_chain;
use crate::target::Target;
use crate::target::heartbeat::Glance;

/// Statistics are renewed no sooner than this many times as long as it took.
const SHARE: u32 = 20;
/// After something went wrong.
const PAUSE: Duration = Duration::from_secs(3);

struct Tend {
    daemon: Arc<Daemon>,
    orders: mpsc::Sender<Order>,
    returning: Returning,
    statistics: Option<Statistics>,
}

/// What the planner knows. Plans are made for look-ups by index, and which index that is follows from how large it believes a
/// table to be: of a table it takes for empty, it reads any index as a whole, for each of the rows it looks up.
struct Statistics {
    /// Of the checkpoint, when they were renewed.
    changes: i64,
    /// Rows of our tables, as it believes.
    rows: i64,
    /// When they may be renewed again.
    calm: Instant,
}

/// Tends until cancelled.
pub(super) async fn run(
    daemon: Arc<Daemon>,
    mut glances: watch::Receiver<Option<Arc<Glance>>>,
    orders: mpsc::Sender<Order>,
    returning: Returning,
    cancel: CancellationToken,
) {
    let mut tend = Tend { daemon, orders, returning, statistics: None };
    let mut session = None;
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = glances.changed() => if changed.is_err() { return },
        }
        let Some(glance) = glances.borrow_and_update().clone() else { continue };
        if tend.daemon.progress.status().state != State::Streaming {
            continue;
        }
        if let Err(error) = tend.follow(&mut session, &glance).await {
            tracing::debug!(error = error_chain(&error), "something to be done by the clock is put off");
            // What it asked may still be running.
            session = None;
            tend.returning.forget();
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

impl Tend {
    async fn follow(&mut self, session: &mut Option<Target>, glance: &Glance) -> Result<()> {
        let target = match session {
            Some(target) => target,
            None => session.insert(Target::open(&self.daemon.config).await?),
        };
        self.renew_statistics(target, glance).await?;
        if glance.was_active {
            self.returning.look(&self.daemon, target, &self.orders).await?;
        }
        Ok(())
    }

    /// After the tables grew by a fifth: nothing else does it in time where people come in by the thousand.
    async fn renew_statistics(&mut self, target: &Target, glance: &Glance) -> Result<()> {
        let Some(place) = &glance.checkpoint else { return Ok(()) };
        let Config { schema, webui_schema, .. } = &self.daemon.config;
        let known = match &mut self.statistics {
            Some(known) => known,
            None => {
                let rows = target.believed_rows(schema).await?;
                let changes = place.changes_applied;
                self.statistics.insert(Statistics { changes, rows, calm: Instant::now() })
            }
        };
        let changed = place.changes_applied.saturating_sub(known.changes);
        let is_much = changed >= (known.rows / 5).max(i64::try_from(GROWTH).unwrap_or(i64::MAX));
        if !is_much || known.calm > Instant::now() {
            return Ok(());
        }
        let begun = Instant::now();
        target.analyze_all(schema, webui_schema).await?;
        known.rows = target.believed_rows(schema).await?;
        known.changes = place.changes_applied;
        known.calm = Instant::now() + begun.elapsed() * SHARE;
        Ok(())
    }
}
