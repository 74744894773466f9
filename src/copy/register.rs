//! Copies of LiteLLM's rows, as they are shown: the one that runs, and how the last ones ended.
//!
//! Owns the numbers of this process; what is owed over restarts stands in the target ([`crate::copy::backfill`],
//! [`crate::copy::resnapshot`]). Written by whoever copies, read by the pages and the metrics; knows no database.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::error::Side;

/// How often a copy that takes long says how far it is, in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Why LiteLLM's rows are copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum CopyKind {
    /// Nothing was copied before.
    First,
    /// The stream could not be continued.
    Again,
    /// `resnapshot`, or a verify that mends what it finds.
    Resnapshot,
    /// A verify that changes nothing.
    Verify,
}

/// What a copy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyPhase {
    Idle,
    /// Waiting for a snapshot: LiteLLM's own transactions may be in the way.
    Snapshot,
    Copying,
    /// Following the stream up to the snapshot.
    CatchingUp,
    Merging,
    /// Writing Open WebUI's rows for the first time.
    Projecting,
}

impl CopyPhase {
    pub const ALL: [Self; 6] =
        [Self::Idle, Self::Snapshot, Self::Copying, Self::CatchingUp, Self::Merging, Self::Projecting];

    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Snapshot => "snapshot",
            Self::Copying => "copying",
            Self::CatchingUp => "catching_up",
            Self::Merging => "merging",
            Self::Projecting => "projecting",
        }
    }

    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Idle => "nothing to do",
            Self::Snapshot => "making a snapshot",
            Self::Copying => "copying",
            Self::CatchingUp => "catching up",
            Self::Merging => "merging",
            Self::Projecting => "writing Open WebUI's rows",
        }
    }
}

/// A copy on its way, or the last one that was.
#[derive(Debug, Clone)]
pub struct Copy {
    pub kind: CopyKind,
    pub reason: String,
    /// `Idle`: it has ended.
    pub phase: CopyPhase,
    /// LiteLLM's name of the table being copied.
    pub table: Option<&'static str>,
    pub tables_done: usize,
    pub tables: usize,
    /// Copied so far, of all tables.
    pub rows: u64,
    /// About how many there are, by LiteLLM's statistics; 0: unknown.
    pub expected: u64,
    /// How long the tables took to copy, once they are.
    copied_in: Option<Duration>,
    pub since: SystemTime,
    started: Instant,
    /// When the stream began to wait for it; none while it goes on beside it.
    held: Option<Instant>,
    /// Whom the next piece of a table is waited for, and since when.
    waits: Option<(Side, Instant)>,
    logged: Instant,
}

impl Copy {
    /// Who has kept it waiting for a piece of a table, and for how long.
    pub fn kept_waiting(&self) -> Option<(Side, Duration)> {
        self.waits.map(|(side, since)| (side, since.elapsed()))
    }

    /// Whether it was asked for. Then the stream could go on without it.
    pub fn is_request(&self) -> bool {
        matches!(self.kind, CopyKind::Resnapshot | CopyKind::Verify)
    }

    /// About how long it still takes, guessed from how fast it was so far and from what usually follows. `None` where nothing can be
    /// said yet, or no more: it takes longer than that.
    pub fn left(&self) -> Option<Duration> {
        let elapsed = self.started.elapsed();
        let copying = match (self.phase, self.copied_in) {
            (CopyPhase::Copying, _) if self.rows > 0 && self.expected > 0 => {
                let rows = self.rows.max(self.expected);
                elapsed.mul_f64(rows as f64 / self.rows as f64)
            }
            (CopyPhase::Merging | CopyPhase::Projecting, Some(copied_in)) => copied_in,
            _ => return None,
        };
        // What follows the copying of the rows, in multiples of it: a first copy also writes all of Open WebUI's rows, where
        // 100,000 people with three keys each were copied in 2 s and there after 22; another one finds most of them there.
        let then = match self.kind {
            CopyKind::First => 10.0,
            CopyKind::Again | CopyKind::Resnapshot | CopyKind::Verify => 3.0,
        };
        copying.mul_f64(1.0 + then).checked_sub(elapsed)
    }

    /// For how long the stream has waited for this one, if it does: most looks at everything are made beside it.
    pub fn holds_the_stream(&self) -> Option<Duration> {
        self.held.map(|since| since.elapsed())
    }
}

/// A copy that ended well since this process started.
#[derive(Debug, Clone)]
pub struct FinishedCopy {
    pub kind: CopyKind,
    pub rows: u64,
    pub took: Duration,
    pub at: SystemTime,
}

/// What is known of them.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// A look that found too much: it is to become a copy.
    escalated: Option<i64>,
    /// The one that runs, or ran last.
    pub latest: Option<Copy>,
    /// The last that ended did not end well.
    pub failed: bool,
    pub last_good: Option<FinishedCopy>,
}

impl Known {
    pub fn running(&self) -> Option<&Copy> {
        self.latest.as_ref().filter(|copy| copy.phase != CopyPhase::Idle)
    }
}

#[derive(Debug, Default)]
pub struct Copies(Mutex<Known>);

impl Copies {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Copy)) {
        if let Some(copy) = &mut self.lock().latest
            && copy.phase != CopyPhase::Idle
        {
            change(copy);
        }
    }

    pub fn known(&self) -> Known {
        self.lock().clone()
    }

    /// The look `id` found too much to mend it row by row.
    pub fn escalate(&self, id: i64) {
        self.lock().escalated = Some(id);
    }

    /// Whether the look `id` is to become a copy.
    pub fn is_escalated(&self, id: i64) -> bool {
        self.lock().escalated == Some(id)
    }

    /// A copy begins; it has to read this many tables, with about so many rows (0: unknown).
    pub fn begin(&self, kind: CopyKind, reason: &str, tables: usize, expected: u64) {
        let now = Instant::now();
        self.lock().latest = Some(Copy {
            kind,
            reason: reason.to_owned(),
            phase: CopyPhase::Snapshot,
            table: None,
            tables_done: 0,
            tables,
            rows: 0,
            expected,
            copied_in: None,
            since: SystemTime::now(),
            started: now,
            held: None,
            waits: None,
            logged: now,
        });
    }

    /// The stream has waited for the one that runs since then.
    pub fn holds(&self, since: Instant) {
        self.change(|copy| copy.held = Some(since));
    }

    /// The next piece of the table is waited for.
    pub fn waits_for(&self, side: Side) {
        self.change(|copy| copy.waits = Some((side, Instant::now())));
    }

    /// The next of the tables is copied.
    pub fn table(&self, table: &'static str) {
        self.change(|copy| {
            copy.phase = CopyPhase::Copying;
            copy.tables_done += usize::from(copy.table.is_some());
            copy.table = Some(table);
        });
    }

    /// So many more rows of the table are copied. Says so in the log now and then.
    pub fn rows(&self, more: u64) {
        self.change(|copy| {
            copy.rows += more;
            if copy.logged.elapsed() < LOG_INTERVAL {
                return;
            }
            copy.logged = Instant::now();
            let seconds_left = copy.left().map(|left| left.as_secs());
            let Copy { table, tables_done, tables, rows, expected, started, .. } = copy;
            let per_second = *rows / started.elapsed().as_secs().max(1);
            tracing::info!(
                table = table.unwrap_or_default(),
                tables_done,
                tables,
                rows,
                expected,
                per_second,
                seconds_left,
                "still copying"
            );
        });
    }

    /// The tables are copied; what follows takes as long as it takes.
    pub fn phase(&self, phase: CopyPhase) {
        self.change(|copy| {
            if copy.phase == CopyPhase::CatchingUp {
                copy.held = Some(Instant::now());
            } else if phase == CopyPhase::CatchingUp {
                copy.held = None;
            }
            if copy.phase == CopyPhase::Copying {
                copy.copied_in = Some(copy.started.elapsed());
            }
            copy.phase = phase;
            copy.waits = None;
            copy.table = None;
            copy.tables_done = copy.tables;
        });
    }

    /// The one that runs is over, if one does. `done`: as it should be.
    pub fn end(&self, done: bool) {
        let mut known = self.lock();
        let Some(copy) = known.latest.as_mut().filter(|copy| copy.phase != CopyPhase::Idle) else { return };
        copy.phase = CopyPhase::Idle;
        let Copy { kind, rows, started, .. } = *copy;
        known.failed = !done;
        if done {
            let (took, at) = (started.elapsed(), SystemTime::now());
            known.last_good = Some(FinishedCopy { kind, rows, took, at });
        }
    }
}
