//! How far the stream has travelled, and in what state the daemon is: what the pages and metrics show.
//!
//! Owns the state and its transitions. Written by the pipeline, read by everybody; knows no database.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use crate::copy::register::{Copies, Copy};
use crate::error::Side;
use crate::position::Lsn;

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

/// Positions, always `checkpoint <= received`. Only the checkpoint is ever reported to the source.
#[derive(Debug)]
pub struct Progress {
    /// The newest position the source told us about: the end of a transaction, or a keepalive.
    received: AtomicU64,
    checkpoint: AtomicU64,
    /// The end of the source's WAL, as last asked.
    source_wal_end: AtomicU64,
    /// The newest timeline of the source we know of, 0 before the first.
    timeline: AtomicI32,
    status: Mutex<Status>,
    waiting: Mutex<Waiting>,
    last_frame: Mutex<Instant>,
    /// When each side last answered us, whatever it was asked.
    heard: [Mutex<Instant>; 2],
    /// When the leader of this process last told others how it is.
    told: Mutex<Instant>,
    /// The state is another.
    news: Notify,
    /// When the checkpoint last moved.
    moved: Mutex<Instant>,
    critical: AtomicU64,
    owns_slot: AtomicBool,
    pub copies: Copies,
}

/// What was received and is not in the target yet. It says how long the target has lacked something, also under a load
/// that never pauses, when there is always something on its way.
#[derive(Debug)]
struct Waiting {
    /// When the target last had everything we knew of.
    caught_up: Instant,
    /// Ends of received transactions, with the moment the first of each was received. Gathered over [`GATHER`] each.
    ends: VecDeque<(u64, Instant)>,
    /// Nothing was caught up with in this session yet: what arrives first may have waited for us since `caught_up`.
    is_new_session: bool,
}

const GATHER: Duration = Duration::from_millis(100);
/// Beyond that many, the last one takes in the rest.
const MOST_ENDS: usize = 10_000;

impl Waiting {
    fn received(&mut self, end: u64) {
        let is_full = self.ends.len() >= MOST_ENDS;
        match self.ends.back_mut() {
            Some((last, since)) if is_full || since.elapsed() < GATHER => *last = end,
            None if self.is_new_session => self.ends.push_back((end, self.caught_up)),
            Some(_) | None => self.ends.push_back((end, Instant::now())),
        }
    }

    fn committed(&mut self, checkpoint: u64) {
        while self.ends.front().is_some_and(|(end, _)| *end <= checkpoint) {
            self.ends.pop_front();
        }
        if self.ends.is_empty() {
            self.touch();
        }
    }

    fn touch(&mut self) {
        self.caught_up = Instant::now();
        self.is_new_session = false;
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            received: AtomicU64::new(0),
            checkpoint: AtomicU64::new(0),
            source_wal_end: AtomicU64::new(0),
            timeline: AtomicI32::new(0),
            status: Mutex::new(Status { state: State::Starting, reason: None, since: SystemTime::now() }),
            waiting: Mutex::new(Waiting {
                caught_up: Instant::now(),
                ends: VecDeque::new(),
                is_new_session: true,
            }),
            last_frame: Mutex::new(Instant::now()),
            heard: [Mutex::new(Instant::now()), Mutex::new(Instant::now())],
            told: Mutex::new(Instant::now()),
            news: Notify::new(),
            moved: Mutex::new(Instant::now()),
            critical: AtomicU64::new(0),
            owns_slot: AtomicBool::new(false),
            copies: Copies::default(),
        }
    }
}

/// Not ready when a side has not answered for longer than this. Both are asked every few seconds while the stream runs.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// When the stream has waited for a copy for longer than this, that is what the daemon is doing.
const HOLD_LIMIT: Duration = Duration::from_secs(5);

/// Not ready when Open WebUI has lacked something for longer than this.
pub const LAG_LIMIT: Duration = Duration::from_secs(60);

impl Progress {
    pub fn received(&self, lsn: Lsn) {
        let lsn = u64::from(lsn);
        if self.received.fetch_max(lsn, Ordering::Relaxed) < lsn {
            lock(&self.waiting).received(lsn);
        }
    }

    /// A session begins at `lsn`: nothing after it is received yet.
    pub fn session_begins(&self, lsn: Lsn) {
        self.slot_is_ours();
        // Both were just asked whether the stream may begin.
        self.heard(Side::Source);
        self.heard(Side::Target);
        let is_first = !self.has_led();
        self.received.store(lsn.into(), Ordering::Relaxed);
        self.checkpoint.store(lsn.into(), Ordering::Relaxed);
        let mut waiting = lock(&self.waiting);
        if is_first {
            // How long nobody followed, or the first copy took, is no lag of ours.
            waiting.caught_up = Instant::now();
        }
        if let Some((_, since)) = waiting.ends.front() {
            // It comes again, but it has waited since then.
            waiting.caught_up = *since;
        }
        waiting.ends.clear();
        waiting.is_new_session = true;
    }

    pub fn checkpoint_committed(&self, lsn: Lsn) {
        let known = self.checkpoint.fetch_max(lsn.into(), Ordering::Relaxed);
        if known < u64::from(lsn) {
            *lock(&self.moved) = Instant::now();
        }
        lock(&self.waiting).committed(known.max(lsn.into()));
    }

    /// Another daemon leads: what Open WebUI lacks is its business.
    pub fn stands_by(&self) {
        let mut waiting = lock(&self.waiting);
        waiting.ends.clear();
        waiting.caught_up = Instant::now();
    }

    pub fn touch_caught_up(&self) {
        lock(&self.waiting).touch();
    }

    /// A side answered.
    pub fn heard(&self, side: Side) {
        *lock(self.ear(side)) = Instant::now();
    }

    fn ear(&self, side: Side) -> &Mutex<Instant> {
        let [source, target] = &self.heard;
        match side {
            Side::Source => source,
            Side::Target => target,
        }
    }

    /// The leader told others how it is.
    pub fn beats(&self) {
        *lock(&self.told) = Instant::now();
    }

    /// Time since it last did.
    pub fn beat_age(&self) -> Duration {
        lock(&self.told).elapsed()
    }

    /// Why nothing can be moving although the state says that all is well. Judged from what moved last, when somebody asks:
    /// nothing that waits for a database has to run for it.
    pub fn standstill(&self) -> Option<String> {
        // Elsewhere the reason says it, or nobody is asked.
        let state = self.status().state;
        if !matches!(state, State::Starting | State::Copying | State::Streaming) {
            return None;
        }
        let copies = self.copies.known();
        let piece = copies.running().filter(|_| state == State::Copying).and_then(Copy::kept_waiting);
        let silent = [Side::Source, Side::Target]
            .map(|side| (side, lock(self.ear(side)).elapsed()))
            .into_iter()
            .chain(piece)
            .find(|(_, age)| *age > SILENCE_LIMIT);
        silent.map(|(side, age)| format!("the {side} database has not answered for {} s", age.as_secs()))
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

    pub fn set_source_wal_end(&self, lsn: Lsn) {
        self.source_wal_end.store(lsn.into(), Ordering::Relaxed);
    }

    pub fn set_timeline(&self, timeline: i32) {
        self.timeline.fetch_max(timeline, Ordering::Relaxed);
    }

    /// No server on an older timeline is the source any more.
    pub fn timeline(&self) -> i32 {
        self.timeline.load(Ordering::Relaxed)
    }

    pub fn checkpoint(&self) -> Lsn {
        Lsn::from(self.checkpoint.load(Ordering::Relaxed))
    }

    /// The checkpoint, or a copy of this process, says that the slot is ours.
    pub fn slot_is_ours(&self) {
        self.owns_slot.store(true, Ordering::Relaxed);
    }

    pub fn owns_slot(&self) -> bool {
        self.owns_slot.load(Ordering::Relaxed)
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
        let streaming = matches!(self.status().state, State::Streaming | State::Waiting | State::Draining);
        let waiting = lock(&self.waiting);
        match waiting.ends.front() {
            Some((_, since)) => since.elapsed(),
            None if streaming => Duration::ZERO,
            None => waiting.caught_up.elapsed(),
        }
    }

    pub fn status(&self) -> Status {
        let status = lock(&self.status).clone();
        // What is asked for begins while the stream was well, or while a new session begins. Judged when somebody asks.
        let may_copy = matches!(status.state, State::Starting | State::Streaming | State::Reconnecting);
        match self.copies.known().running() {
            Some(copy) if may_copy => Self::held_by(copy).unwrap_or(status),
            _ => status,
        }
    }

    /// The state while a copy that was asked for keeps the stream waiting for long.
    fn held_by(copy: &Copy) -> Option<Status> {
        let held = copy.holds_the_stream().filter(|held| *held > HOLD_LIMIT)?;
        let reason = format!("the stream waits while LiteLLM's rows are copied ({})", copy.reason);
        let since = SystemTime::now().checked_sub(held).unwrap_or(copy.since);
        Some(Status { state: State::Copying, reason: Some(reason), since })
    }

    /// Changes the state; says so in the log, once. Whoever drains does nothing else before the end, whatever is still found
    /// on the way there.
    pub fn set_state(&self, state: State, reason: Option<String>) {
        let mut status = lock(&self.status);
        let is_final = match status.state {
            State::Draining => state != State::Stopped,
            State::Stopped => true,
            _ => false,
        };
        if is_final || status.state == state && status.reason == reason {
            return;
        }
        // Of the others a line of their own says why, with what is known of it besides.
        let says_why =
            !matches!(state, State::Copying | State::Reconnecting | State::Braked | State::Stopped);
        let why = reason.as_deref().filter(|_| says_why);
        if status.state != state || why.is_some() {
            tracing::info!(from = status.state.name(), to = state.name(), reason = why, "state");
        }
        *status = Status { state, reason, since: SystemTime::now() };
        self.news.notify_one();
    }

    /// Returns as soon as the state is another than when this last returned. For one who asks.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    pub fn critical(&self) -> u64 {
        self.critical.load(Ordering::Relaxed)
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
        match (status.state, self.standstill()) {
            (State::Streaming, None) => {}
            (State::Streaming, Some(standstill)) => return Err(standstill),
            (other, Some(standstill)) => return Err(format!("{}: {standstill}", other.name())),
            (other, None) => return why(other.name()),
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
    use crate::copy::register::{CopyKind, CopyPhase};

    #[test]
    fn a_load_that_never_pauses_is_no_growing_lag() {
        let progress = Progress::default();
        progress.session_begins(Lsn::from(10));
        progress.set_state(State::Streaming, None);
        progress.checkpoint_committed(Lsn::from(11));
        let start = Instant::now();
        for lsn in 12..40 {
            progress.received(Lsn::from(lsn));
            std::thread::sleep(Duration::from_millis(15));
            // Always one behind.
            progress.checkpoint_committed(Lsn::from(lsn - 1));
            assert!(!progress.is_caught_up());
        }
        assert!(start.elapsed() > Duration::from_millis(400));
        assert!(progress.lag() < Duration::from_millis(300), "{:?}", progress.lag());
        progress.checkpoint_committed(Lsn::from(39));
        assert_eq!(progress.lag(), Duration::ZERO);
    }

    #[test]
    fn a_side_that_says_nothing_is_named_although_nobody_noticed_yet() {
        let progress = Progress::default();
        progress.session_begins(Lsn::from(10));
        progress.set_state(State::Streaming, None);
        assert_eq!(progress.readiness(LAG_LIMIT), Ok(()));
        let Some(past) = Instant::now().checked_sub(Duration::from_secs(17)) else { return };
        *lock(progress.ear(Side::Target)) = past;
        let why = progress.readiness(LAG_LIMIT).unwrap_err();
        assert_eq!(why, "the Open WebUI database has not answered for 17 s");
        progress.heard(Side::Target);
        assert_eq!(progress.readiness(LAG_LIMIT), Ok(()));
    }

    #[test]
    fn what_keeps_the_stream_waiting_is_the_state_and_a_look_beside_it_is_not() {
        let progress = Progress::default();
        progress.session_begins(Lsn::from(10));
        progress.set_state(State::Streaming, None);
        progress.copies.begin(CopyKind::Verify, "somebody asked for it", 3, 0);
        let Some(past) = Instant::now().checked_sub(Duration::from_secs(17)) else { return };
        assert_eq!(progress.readiness(LAG_LIMIT), Ok(()));
        progress.copies.holds(past);
        let why = progress.readiness(LAG_LIMIT).unwrap_err();
        assert_eq!(why, "copying: the stream waits while LiteLLM's rows are copied (somebody asked for it)");
        progress.copies.phase(CopyPhase::CatchingUp);
        assert_eq!(progress.readiness(LAG_LIMIT), Ok(()));
        // What it waited for before is over.
        progress.copies.phase(CopyPhase::Merging);
        assert_eq!(progress.status().state, State::Streaming);
        progress.copies.holds(past);
        assert_eq!(progress.status().state, State::Copying);
        progress.copies.end(true);
        assert_eq!(progress.readiness(LAG_LIMIT), Ok(()));
    }

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
