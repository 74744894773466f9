//! How far the stream has travelled, and in what state the daemon is: what the pages and metrics show.
//!
//! Owns the state and its transitions. Written by the pipeline, read by everybody; knows no database.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::Lsn;

/// What the daemon is doing. The names are those `status` and `/readyz` show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Starting,
    /// Another daemon holds the slot.
    Standby,
    Copying,
    /// Mirroring, but Open WebUI has no admin (or no tables) yet, so nothing is written there.
    Waiting,
    Streaming,
    /// A connection was lost; trying again.
    Reconnecting,
    /// Held back by the brake until approved.
    Braked,
    /// Somebody ran `pause`.
    Paused,
    Draining,
    Stopped,
}

impl State {
    pub const ALL: [Self; 10] = [
        Self::Starting,
        Self::Standby,
        Self::Copying,
        Self::Waiting,
        Self::Streaming,
        Self::Reconnecting,
        Self::Braked,
        Self::Paused,
        Self::Draining,
        Self::Stopped,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Standby => "standby",
            Self::Copying => "copying",
            Self::Waiting => "waiting",
            Self::Streaming => "streaming",
            Self::Reconnecting => "reconnecting",
            Self::Braked => "braked",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Status {
    pub state: State,
    pub reason: Option<String>,
    pub since: SystemTime,
}

/// What a copy of LiteLLM's rows is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyPhase {
    Idle,
    /// Waiting for a snapshot: LiteLLM's own transactions may be in the way.
    Snapshot,
    Copying,
    /// Following the stream up to the snapshot.
    CatchingUp,
    Merging,
}

impl CopyPhase {
    pub const ALL: [Self; 5] = [Self::Idle, Self::Snapshot, Self::Copying, Self::CatchingUp, Self::Merging];

    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Snapshot => "snapshot",
            Self::Copying => "copying",
            Self::CatchingUp => "catching_up",
            Self::Merging => "merging",
        }
    }
}

/// The copy that runs, or ran last: the first one, a healing one, or a resnapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    pub phase: CopyPhase,
    pub tables: u64,
    pub tables_done: u64,
    pub rows: u64,
    /// The last one that ended did not end well.
    pub failed: bool,
    /// When the last one ended well, as far as this process knows.
    pub succeeded_at: Option<SystemTime>,
}

/// Positions, always `checkpoint <= received`. Only the checkpoint is ever reported to the source.
#[derive(Debug)]
pub struct Progress {
    /// The newest position the source told us about: the end of a transaction, or a keepalive.
    received: AtomicU64,
    checkpoint: AtomicU64,
    /// The end of the source's WAL, as last asked.
    source_wal_end: AtomicU64,
    status: Mutex<Status>,
    /// When the target last had everything we knew of.
    caught_up: Mutex<Instant>,
    last_frame: Mutex<Instant>,
    /// When the checkpoint last moved.
    moved: Mutex<Instant>,
    critical: AtomicU64,
    copy: Mutex<CopyProgress>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            received: AtomicU64::new(0),
            checkpoint: AtomicU64::new(0),
            source_wal_end: AtomicU64::new(0),
            status: Mutex::new(Status { state: State::Starting, reason: None, since: SystemTime::now() }),
            caught_up: Mutex::new(Instant::now()),
            last_frame: Mutex::new(Instant::now()),
            moved: Mutex::new(Instant::now()),
            critical: AtomicU64::new(0),
            copy: Mutex::new(CopyProgress {
                phase: CopyPhase::Idle,
                tables: 0,
                tables_done: 0,
                rows: 0,
                failed: false,
                succeeded_at: None,
            }),
        }
    }
}

/// Not ready when Open WebUI has lacked something for longer than this.
pub const LAG_LIMIT: Duration = Duration::from_secs(60);

impl Progress {
    pub fn received(&self, lsn: Lsn) {
        self.received.fetch_max(lsn.into(), Ordering::Relaxed);
    }

    /// A session begins at `lsn`: nothing after it is received yet.
    pub fn session_begins(&self, lsn: Lsn) {
        self.received.store(lsn.into(), Ordering::Relaxed);
        self.checkpoint.store(lsn.into(), Ordering::Relaxed);
    }

    pub fn checkpoint_committed(&self, lsn: Lsn) {
        let before = self.checkpoint.fetch_max(lsn.into(), Ordering::Relaxed);
        if before < u64::from(lsn) {
            *lock(&self.moved) = Instant::now();
        }
        if self.is_caught_up() {
            self.touch_caught_up();
        }
    }

    pub fn touch_caught_up(&self) {
        *lock(&self.caught_up) = Instant::now();
    }

    pub fn frame_arrived(&self) {
        *lock(&self.last_frame) = Instant::now();
    }

    pub fn last_frame_age(&self) -> Duration {
        lock(&self.last_frame).elapsed()
    }

    /// Time since the checkpoint last moved.
    pub fn checkpoint_age(&self) -> Duration {
        lock(&self.moved).elapsed()
    }

    pub fn copy(&self) -> CopyProgress {
        *lock(&self.copy)
    }

    /// A copy begins; it has to read this many tables.
    pub fn copy_begins(&self, tables: u64) {
        let mut copy = lock(&self.copy);
        *copy = CopyProgress { phase: CopyPhase::Snapshot, tables, tables_done: 0, rows: 0, ..*copy };
    }

    pub fn set_copy_phase(&self, phase: CopyPhase) {
        lock(&self.copy).phase = phase;
    }

    pub fn copied_rows(&self, rows: u64) {
        lock(&self.copy).rows += rows;
    }

    pub fn copied_table(&self) {
        lock(&self.copy).tables_done += 1;
    }

    pub fn copy_ended(&self, well: bool) {
        let mut copy = lock(&self.copy);
        copy.phase = CopyPhase::Idle;
        copy.failed = !well;
        if well {
            copy.succeeded_at = Some(SystemTime::now());
        }
    }

    pub fn set_source_wal_end(&self, lsn: Lsn) {
        self.source_wal_end.store(lsn.into(), Ordering::Relaxed);
    }

    pub fn checkpoint(&self) -> Lsn {
        Lsn::from(self.checkpoint.load(Ordering::Relaxed))
    }

    /// Whether a session of this process followed the slot.
    pub fn has_led(&self) -> bool {
        self.checkpoint() > Lsn::from(0)
    }

    pub fn is_caught_up(&self) -> bool {
        self.checkpoint.load(Ordering::Relaxed) >= self.received.load(Ordering::Relaxed)
    }

    /// Bytes of the source's WAL after the checkpoint.
    pub fn lag_bytes(&self) -> u64 {
        let end = self.source_wal_end.load(Ordering::Relaxed).max(self.received.load(Ordering::Relaxed));
        end.saturating_sub(self.checkpoint.load(Ordering::Relaxed))
    }

    /// How long the target has lacked something. It keeps growing while the stream stands still.
    pub fn lag(&self) -> Duration {
        let streaming = matches!(self.status().state, State::Streaming | State::Waiting);
        if streaming && self.is_caught_up() { Duration::ZERO } else { lock(&self.caught_up).elapsed() }
    }

    pub fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// Changes the state; says so in the log, once.
    pub fn set_state(&self, state: State, reason: Option<String>) {
        let mut status = lock(&self.status);
        if status.state == state && status.reason == reason {
            return;
        }
        tracing::info!(from = status.state.name(), to = state.name(), reason = reason.as_deref(), "state");
        *status = Status { state, reason, since: SystemTime::now() };
    }

    /// Dead letters that left somebody with more access than LiteLLM gives them.
    pub fn set_critical(&self, count: u64) {
        self.critical.store(count, Ordering::Relaxed);
    }

    /// Whether the daemon does its work, and if not, why not.
    pub fn readiness(&self, lag_limit: Duration) -> Result<(), String> {
        let status = self.status();
        let why = |reason: &str| {
            let detail = status.reason.as_deref().map(|text| format!(": {text}")).unwrap_or_default();
            Err(format!("{reason}{detail}"))
        };
        match status.state {
            State::Streaming => {}
            other => return why(other.name()),
        }
        if self.lag() > lag_limit {
            return Err(format!("behind by {} s", self.lag().as_secs()));
        }
        match self.critical.load(Ordering::Relaxed) {
            0 => Ok(()),
            count => Err(format!("{count} critical findings: see dead letters")),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // A panic while holding one of these leaves a plain value behind: still good to show.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_grows_while_nothing_happens_and_is_zero_when_caught_up() {
        let progress = Progress::default();
        progress.session_begins(Lsn::from(10));
        progress.set_state(State::Streaming, None);
        progress.received(Lsn::from(50));
        assert!(!progress.is_caught_up());
        assert_eq!(progress.lag_bytes(), 40);
        progress.checkpoint_committed(Lsn::from(50));
        assert_eq!(progress.lag(), Duration::ZERO);
        assert!(progress.readiness(Duration::from_secs(60)).is_ok());
        progress.set_state(State::Reconnecting, Some("gone".into()));
        let reason = progress.readiness(Duration::from_secs(60)).unwrap_err();
        assert_eq!(reason, "reconnecting: gone");
    }
}
