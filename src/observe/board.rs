//! What the status page shows besides positions and the state: one picture, in memory.
//!
//! Owns the picture. The pipeline pins up what it knows anyway; the page takes it down as a whole and never waits for a
//! database. What is pinned is as old as it says: a daemon that lost its databases shows what it last knew.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::budgets::rules::State;
use crate::error::Error;
use crate::observe::status::{BrakeReport, ModelsReport, SlotReport, StatusReport};
use crate::target::audit;
use crate::target::failures::Failure;
use crate::target::heartbeat::Place;
use crate::target::layout::Layout;

/// How many audit rows and dead letters a page shows.
pub const SHOWN: usize = 20;
const MINUTES: usize = 60;

/// Everything that is known, as of different moments.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// As the leader last read it. State and lag in it are not kept up; `None` before the first look.
    pub status: Option<StatusReport>,
    pub read_at: Option<SystemTime>,
    /// The slot, as it was seconds ago.
    pub slot: Option<SlotReport>,
    /// At most [`SHOWN`], the critical ones first.
    pub failures: Vec<Failure>,
    /// At most [`SHOWN`], newest first.
    pub audit: VecDeque<audit::Entry>,
    /// The fullest budgets, fullest first; `None` where spending is not followed.
    pub budgets: Option<Vec<Budget>>,
    /// People whom a used-up budget takes models from.
    pub budget_closed: i64,
    pub servers: Servers,
    /// What ended the last attempt, or is about to end this one.
    pub trouble: Option<Trouble>,
}

/// What was found on both sides.
#[derive(Debug, Clone, Default)]
pub struct Servers {
    /// `server_version_num`.
    pub source_version: Option<i32>,
    pub target_version: Option<i32>,
    /// How many of the tables we mirror LiteLLM has.
    pub source_tables: Option<usize>,
    pub layout: Option<Layout>,
}

/// Somebody's spending, against what they may spend.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Budget {
    /// `user`, `key`, `team`, `organization` or `team_member`.
    pub kind: String,
    /// LiteLLM's id; of a key, the beginning of a hash.
    pub id: String,
    pub alias: Option<String>,
    /// In US dollars.
    pub spend: f64,
    /// In US dollars; null without a limit.
    pub limit: Option<f64>,
    /// Spend by limit; null without a limit.
    pub ratio: Option<f64>,
    pub state: State,
}

/// An error, for an operator.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// Nobody leads here, and somebody of another Open WebUI follows our slot.
    pub is_foreign_leader: bool,
    pub remedy: Option<String>,
    /// The batch that is held.
    pub brake: Option<BrakeReport>,
}

/// The picture, and who may change what of it.
#[derive(Debug)]
pub struct Board {
    pub started: SystemTime,
    facts: Mutex<Facts>,
    /// Something went wrong since the leader last looked.
    is_stale: AtomicBool,
    lag: Mutex<LagHistory>,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            started: SystemTime::now(),
            facts: Mutex::default(),
            is_stale: AtomicBool::new(false),
            lag: Mutex::new(LagHistory::new(Instant::now())),
        }
    }
}

impl Board {
    /// Everything, as it is now.
    pub fn facts(&self) -> Facts {
        lock(&self.facts).clone()
    }

    /// Worst lag of each of the last 60 minutes, in seconds, oldest first; `None` for minutes without one.
    pub fn lag_by_minute(&self) -> Vec<Option<f64>> {
        lock(&self.lag).minutes(Instant::now())
    }

    pub fn note_lag(&self, lag: Duration) {
        lock(&self.lag).note(Instant::now(), lag);
    }

    /// What is shown is no longer true: to be looked at soon.
    pub fn mark_stale(&self) {
        self.is_stale.store(true, Ordering::Relaxed);
    }

    /// Whether it was marked since this was last asked.
    pub fn take_stale(&self) -> bool {
        self.is_stale.swap(false, Ordering::Relaxed)
    }

    /// The report as last pinned up, to be brought up to date.
    pub fn status(&self) -> StatusReport {
        lock(&self.facts).status.clone().unwrap_or_default()
    }

    /// What the leader read: `audit` newest first; `anew`: not only what is newer than the rows shown.
    pub fn read(&self, status: StatusReport, failures: Vec<Failure>, audit: Vec<audit::Entry>, anew: bool) {
        let mut facts = lock(&self.facts);
        if anew && !audit.is_empty() {
            facts.audit.clear();
        }
        facts.status = Some(status);
        facts.failures = failures;
        for entry in audit.into_iter().rev() {
            facts.audit.push_front(entry);
        }
        facts.audit.truncate(SHOWN);
        facts.read_at = Some(SystemTime::now());
    }

    /// How far the leader is.
    pub fn locate(&self, place: Option<&Place>) {
        let mut facts = lock(&self.facts);
        if let Some(status) = &mut facts.status {
            status.locate(place);
            facts.read_at = Some(SystemTime::now());
        }
    }

    pub fn set_models(&self, models: ModelsReport) {
        if let Some(status) = &mut lock(&self.facts).status {
            status.models = Some(models);
        }
    }

    pub fn set_slot(&self, slot: SlotReport) {
        lock(&self.facts).slot = Some(slot);
    }

    pub fn set_budget_closed(&self, people: i64) {
        lock(&self.facts).budget_closed = people;
    }

    /// `None`: spending is not followed at the moment.
    pub fn set_budgets(&self, budgets: Option<Vec<Budget>>) {
        lock(&self.facts).budgets = budgets;
    }

    pub fn set_servers(&self, source_version: i32, target_version: i32, source_tables: usize) {
        let servers = &mut lock(&self.facts).servers;
        servers.source_version = Some(source_version);
        servers.target_version = Some(target_version);
        servers.source_tables = Some(source_tables);
    }

    pub fn set_layout(&self, layout: &Layout) {
        lock(&self.facts).servers.layout = Some(layout.clone());
    }

    /// An attempt ended with `error`, or will.
    pub fn set_trouble(&self, error: &Error) {
        let brake = match *error {
            Error::Brake { id, people, active } => {
                let small = |number: i64| i32::try_from(number).unwrap_or(i32::MAX);
                Some(BrakeReport { id, people: small(people), active: small(active), approved: false })
            }
            _ => None,
        };
        let is_foreign_leader = matches!(error, Error::ForeignLeader { .. });
        lock(&self.facts).trouble = Some(Trouble { is_foreign_leader, remedy: error.remedy(), brake });
    }
}

/// The worst lag of each minute, for an hour.
#[derive(Debug)]
struct LagHistory {
    /// The last one is the current minute.
    minutes: VecDeque<Option<Duration>>,
    /// Where the current minute began.
    current: Instant,
}

impl LagHistory {
    fn new(now: Instant) -> Self {
        Self { minutes: std::iter::repeat_n(None, MINUTES).collect(), current: now }
    }

    fn note(&mut self, now: Instant, lag: Duration) {
        self.turn(now);
        if let Some(worst) = self.minutes.back_mut() {
            *worst = Some(worst.unwrap_or_default().max(lag));
        }
    }

    fn minutes(&mut self, now: Instant) -> Vec<Option<f64>> {
        self.turn(now);
        self.minutes.iter().map(|worst| worst.map(|lag| lag.as_secs_f64())).collect()
    }

    /// Begins as many minutes as have passed.
    fn turn(&mut self, now: Instant) {
        const MINUTE: Duration = Duration::from_secs(60);
        let mut turned = 0;
        while now.saturating_duration_since(self.current) >= MINUTE && turned < MINUTES {
            self.minutes.pop_front();
            self.minutes.push_back(None);
            self.current += MINUTE;
            turned += 1;
        }
        if now.saturating_duration_since(self.current) >= MINUTE {
            // Asleep for more than an hour.
            self.current = now;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while holding one of these leaves a plain value behind: still good to show.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_minute_keeps_its_worst_lag_for_an_hour() {
        let begin = Instant::now();
        let mut history = LagHistory::new(begin);
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        history.note(at(1), Duration::from_secs(3));
        history.note(at(59), Duration::from_secs(1));
        history.note(at(61), Duration::from_millis(500));
        let minutes = history.minutes(at(180));
        assert_eq!(minutes.len(), 60);
        assert_eq!(minutes[56..], [Some(3.0), Some(0.5), None, None]);
        assert_eq!(history.minutes(at(59 * 60))[0], Some(3.0));
        assert_eq!(history.minutes(at(60 * 60 + 1))[0], Some(0.5));
        assert_eq!(history.minutes(at(60 * 60 * 24)), vec![None; 60]);
        history.note(at(60 * 60 * 24 + 5), Duration::from_secs(2));
        assert_eq!(history.minutes(at(60 * 60 * 24 + 6))[59], Some(2.0));
    }

    #[test]
    fn the_board_keeps_the_newest_audit_rows_in_order() {
        let board = Board::default();
        let entry = |id: i64| audit::Entry {
            id,
            at: SystemTime::UNIX_EPOCH,
            operation: "SYNC_USER".to_owned(),
            record_id: None,
            result: "SUCCESS".to_owned(),
            error: None,
            email: None,
            name: None,
            count: None,
            added: None,
            removed: None,
        };
        board.read(StatusReport::default(), Vec::new(), (1..=5).rev().map(entry).collect(), true);
        board.read(StatusReport::default(), Vec::new(), (6..=23).rev().map(entry).collect(), false);
        let ids: Vec<i64> = board.facts().audit.iter().map(|entry| entry.id).collect();
        assert_eq!(ids, (4..=23).rev().collect::<Vec<_>>());
        board.read(StatusReport::default(), Vec::new(), vec![entry(3)], true);
        assert_eq!(board.facts().audit.len(), 1);
        board.read(StatusReport::default(), Vec::new(), Vec::new(), true);
        assert_eq!(board.facts().audit.len(), 1);
    }
}
