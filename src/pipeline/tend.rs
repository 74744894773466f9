//! What follows from a glance and may take its time: the planner's statistics, and whoever used Open WebUI lately.
//!
//! Owns when the statistics are renewed. Contains no SQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Daemon;
use super::apply::GROWTH;
use super::glances::Follow;
use super::own::Order;
use super::returning::Returning;
use crate::config::Config;
use crate::error::Result;
use crate::observe::progress::State;
use crate::target::Target;
use crate::target::heartbeat::Glance;

/// Statistics are renewed no sooner than this many times as long as it took.
const SHARE: u32 = 20;

pub(super) struct Tend {
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

impl Tend {
    pub(super) fn new(daemon: Arc<Daemon>, orders: mpsc::Sender<Order>, returning: Returning) -> Self {
        Self { daemon, orders, returning, statistics: None }
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
        target.analyze_all(schema, Some(webui_schema)).await?;
        known.rows = target.believed_rows(schema).await?;
        known.changes = place.changes_applied;
        known.calm = Instant::now() + begun.elapsed() * SHARE;
        Ok(())
    }
}

impl Follow for Tend {
    const ACTION: &'static str = "do what is to be done by the clock";
    const PAUSE: Duration = Duration::from_secs(3);

    async fn follow(&mut self, target: &Target, glance: &Glance) -> Result<()> {
        if self.daemon.progress.status().state != State::Streaming {
            return Ok(());
        }
        self.renew_statistics(target, glance).await?;
        if glance.was_active {
            self.returning.look(&self.daemon, target, &self.orders).await?;
        }
        Ok(())
    }

    fn failed(&mut self) {
        self.returning.forget();
    }
}
