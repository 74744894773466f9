//! source → decode → stage: takes the stream in and hands batches on.
//!
//! Owns the replication session while it streams, and the feedback on it: the checkpoint, after
//! its commit, and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::own::Handed;
use crate::copy::still::{Hold, Still};
use crate::decode::Decoder;
use crate::decode::request::{Request, is_barrier};
use crate::error::{Error, Result, Side};
use crate::observe::metrics;
use crate::position::Lsn;

use crate::source::overlap::Overlap;
use crate::source::session::{Frame, Session, WAL_SENDER_TIMEOUT};
use crate::stage::signatures::Signatures;
use crate::stage::{Limits, Stage};

/// An idle position is written at most this often, unless somebody asks for it …
const IDLE_INTERVAL: Duration = Duration::from_secs(20);
/// … or this much WAL went by. Where both databases share a server, our own checkpoint makes WAL.
const IDLE_BYTES: u64 = 16 * 1024 * 1024;
/// How long the first batch after a brake gathers what came since: LiteLLM's data may have been repaired.
const LINGER: Duration = Duration::from_secs(3);
/// How long a batch with room waits for the position at which the budgets were read, while nothing comes: whoever waits for it is told of
/// nothing that is still to come.
const SETTLE: Duration = Duration::from_secs(3);
/// Frames taken in a row before anything else is looked at.
const AT_ONCE: usize = 2048;
pub(super) struct Receiver {
    daemon: Arc<Daemon>,
    session: Session,
    decoder: Decoder,
    stage: Stage,
    parts: mpsc::Sender<Handed>,
    committed: watch::Receiver<Lsn>,
    /// Somebody wants both ends to stand still at one point.
    holds: mpsc::Receiver<Hold>,
    hold: Option<Holding>,
    /// The frame at the point.
    parked: Option<Frame>,
    /// The last position handed on, and when.
    handed: (Lsn, Instant),
    /// After a brake the first batch waits for what may undo it.
    linger_until: Option<Instant>,
    /// While the budgets were read ahead of the stream.
    settle_until: Option<Instant>,
    /// Nothing that commits at or after this position is taken in: a copy made there is to be merged first.
    fence: Option<Lsn>,
    at_fence: bool,
    /// What the slot sends again, before the checkpoint.
    overlap: Option<Overlap>,
    /// Changes of a transaction in it; `None` outside of one.
    repeated: Option<u64>,
    /// Time spent on what is staged.
    worked: Duration,
    /// Since when nothing is read, because there is no room.
    full_since: Option<Instant>,
}

/// How far a hold is.
enum Holding {
    /// A transaction is being taken in.
    Asked(Hold),
    /// Nothing is read until the point is known.
    Held(oneshot::Receiver<Lsn>, Still),
    /// What commits before this is read.
    Until(Lsn, Still),
    /// The frame that waits is the first at or after the point.
    Reached(Still),
}

/// What the loop does next.
enum Next {
    Drain,
    Hold(Hold),
    Point(Option<Lsn>),
    Committed(bool),
    Room(bool),
    Frame(Frame),
    Tick,
}

impl Receiver {
    pub(super) fn new(
        daemon: Arc<Daemon>,
        session: Session,
        signatures: Option<Signatures>,
        limits: Limits,
        parts: mpsc::Sender<Handed>,
        committed: watch::Receiver<Lsn>,
        linger: bool,
    ) -> Self {
        let budgets_decide = daemon.config.policy.budgets_decide();
        let decoder = Decoder::new(&daemon.config.litellm_schema).budgets_decide(budgets_decide);
        let handed = (*committed.borrow(), Instant::now());
        Self {
            daemon,
            session,
            decoder,
            fence: None,
            at_fence: false,
            overlap: None,
            repeated: None,
            worked: Duration::ZERO,
            full_since: None,
            linger_until: linger.then(|| Instant::now() + LINGER),
            settle_until: Some(Instant::now() + SETTLE),
            stage: Stage::new(limits, signatures, handed.0),
            parts,
            committed,
            // Closed: nobody asks.
            holds: mpsc::channel(1).1,
            hold: None,
            parked: None,
            handed,
        }
    }

    /// Ends with [`Error::AtFence`] before the first transaction that commits at or after `fence`.
    pub(super) fn stop_at(mut self, fence: Option<Lsn>) -> Self {
        self.fence = fence;
        self
    }

    /// Stands still where somebody asks for it.
    pub(super) fn holding(mut self, holds: mpsc::Receiver<Hold>) -> Self {
        self.holds = holds;
        self
    }

    /// Takes nothing in before the checkpoint, and ends with [`Error::HistoryDiffers`] if that is not what was applied.
    pub(super) fn comparing(mut self, overlap: Option<Overlap>) -> Self {
        self.overlap = overlap;
        self
    }

    /// Runs until cancelled or until the stream ends. When cancelled, what is complete is handed on and its
    /// commit is awaited and acknowledged.
    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<()> {
        let mut tick = tokio::time::interval(Duration::from_millis(250));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // What is here already needs no waiting. Bounded, so that a stream that never pauses cannot keep
            // feedback, batches and a signal waiting.
            let begun = Instant::now();
            for _ in 0..AT_ONCE {
                self.meet_hold();
                if !self.may_read() {
                    break;
                }
                match self.session.next_now()? {
                    Some(frame) => self.accept(frame)?,
                    None => break,
                }
            }
            self.worked += begun.elapsed();
            self.show();
            if self.at_fence {
                self.drain().await?;
                return Err(Error::AtFence);
            }
            let (due, may_read) = (self.is_due(), self.may_read());
            let (may_hold, is_held) = (self.hold.is_none(), matches!(self.hold, Some(Holding::Held(..))));
            let next = tokio::select! {
                biased;

                // 1. Stop taking new WAL before anything else.
                () = cancel.cancelled() => Next::Drain,

                // 2. Feedback: it lets the source forget WAL, and shut down.
                changed = self.committed.changed() => Next::Committed(changed.is_ok()),

                // 3. A batch goes on as soon as there is room: no lingering.
                permit = self.parts.reserve(), if due => Next::Room(permit.is_ok()),

                // 4. New WAL, only while the batch has room.
                frame = self.session.next(), if may_read => Next::Frame(frame?),

                // 5. A look at both ends.
                Some(hold) = self.holds.recv(), if may_hold => Next::Hold(hold),
                point = point_of(&mut self.hold), if is_held => Next::Point(point),

                // 6. Nothing happened for a while.
                _ = tick.tick() => Next::Tick,
            };
            match next {
                Next::Drain => return self.drain().await,
                Next::Committed(true) => self.acknowledge(),
                // The applier has ended; its error says why.
                Next::Committed(false) | Next::Room(false) => return Ok(()),
                Next::Room(true) => self.hand_on()?,
                Next::Hold(hold) => self.hold = Some(Holding::Asked(hold)),
                Next::Point(point) => self.hold_until(point),
                Next::Frame(frame) => {
                    let begun = Instant::now();
                    self.accept(frame)?;
                    self.worked += begun.elapsed();
                }
                Next::Tick => self.look_around()?,
            }
        }
    }

    fn may_read(&self) -> bool {
        let stands = matches!(self.hold, Some(Holding::Held(..) | Holding::Reached(_)));
        !self.stage.is_full() && !self.at_fence && !stands
    }

    /// Holds where that was asked for, between two transactions.
    fn meet_hold(&mut self) {
        let is_between = !self.stage.in_transaction() && self.repeated.is_none();
        let asked = self.hold.take_if(|hold| is_between && matches!(hold, Holding::Asked(_)));
        if let Some(Holding::Asked(Hold { held, point, still })) = asked
            && held.send(()).is_ok()
        {
            self.hold = Some(Holding::Held(point, still));
        }
    }

    /// The point is known; `None`: nobody waits for it any more.
    fn hold_until(&mut self, point: Option<Lsn>) {
        if let (Some(Holding::Held(_, still)), Some(point)) = (self.hold.take(), point) {
            self.hold = Some(Holding::Until(point, still));
        }
    }

    /// What is complete, and then whoever stands still behind it.
    fn hand_on(&mut self) -> Result<()> {
        if !self.stage.is_full()
            && !self.stage.has_batch()
            && let Some(Holding::Reached(still)) =
                self.hold.take_if(|hold| matches!(hold, Holding::Reached(_)))
        {
            self.parts.try_send(Handed::Still(still)).map_err(|_| Error::Superseded)?;
            return self.parked.take().map_or(Ok(()), |frame| self.accept(frame));
        }
        let part = self.stage.take();
        let metrics = &self.daemon.metrics;
        metrics.unchanged_rows.inc_by(self.stage.take_unchanged());
        if let Some(end) = part.end {
            if end.transactions > 0 {
                metrics.took(metrics::Stage::Decode, std::mem::take(&mut self.worked));
            }
            self.handed = (end.end_lsn, Instant::now());
        }
        // There was room a moment ago, and nobody else sends.
        self.parts.try_send(Handed::Part(part)).map_err(|_| Error::Superseded)
    }

    /// Shows what waits, and that nothing is read while there is no room.
    fn show(&mut self) {
        let metrics = &self.daemon.metrics;
        let (rows, bytes) = self.stage.held();
        metrics.buffer_rows.set(rows);
        metrics.buffer_bytes.set(bytes);
        let now = Instant::now();
        if let Some(since) = self.full_since.take() {
            metrics.backpressure.inc_by(now.saturating_duration_since(since).as_secs_f64());
        }
        self.full_since = self.stage.is_full().then_some(now);
    }

    /// Whether there is something to hand on now.
    fn is_due(&self) -> bool {
        if self.stage.is_full() || matches!(self.hold, Some(Holding::Reached(_))) {
            return true;
        }
        if self.settle_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        if self.stage.has_batch() {
            return self.linger_until.is_none_or(|until| until <= Instant::now());
        }
        let Some(idle) = self.stage.idle_end() else { return false };
        let (handed, at) = self.handed;
        if idle <= handed {
            return false;
        }
        self.stage.is_urgent()
            || at.elapsed() >= IDLE_INTERVAL
            || u64::from(idle) - u64::from(handed) >= IDLE_BYTES
    }

    fn accept(&mut self, frame: Frame) -> Result<()> {
        let Some(frame) = self.compare(frame)? else { return Ok(()) };
        let progress = &self.daemon.progress;
        if let (Some(fence), Frame::Begin { final_lsn: lsn, .. } | Frame::KeepAlive { lsn, .. }) =
            (self.fence, &frame)
            && *lsn >= fence
        {
            self.at_fence = true;
            let moves = self.daemon.budgets.passed(fence);
            self.stage.budgets(moves);
            return Ok(());
        }
        if let (
            Some(Holding::Until(point, _)),
            Frame::Begin { final_lsn: lsn, .. } | Frame::KeepAlive { lsn, .. },
        ) = (&self.hold, &frame)
            && lsn >= point
            && !self.stage.in_transaction()
            && let Some(Holding::Until(_, still)) = self.hold.take()
        {
            // What a look finds is mended in the mirror, and a table may have been rewritten: neither is in the stream.
            self.stage.forget_rows();
            self.hold = Some(Holding::Reached(still));
            self.parked = Some(frame);
            return Ok(());
        }
        match frame {
            Frame::Begin { .. } => {
                progress.frame_arrived();
                self.stage.begin();
            }
            Frame::Data(data) => {
                let change = self.decoder.decode(&data)?;
                // Before the stage, which drops what changes nothing but spend.
                self.daemon.budgets.change(&change);
                self.stage.change(change, data.len())?;
            }
            Frame::Commit { end_lsn, committed_at } => {
                self.stage.commit(end_lsn, committed_at);
                let moves = self.daemon.budgets.committed(end_lsn, committed_at);
                self.stage.budgets(moves);
                self.settle();
                let progress = &self.daemon.progress;
                progress.frame_arrived();
                if self.stage.has_batch() {
                    progress.received(end_lsn);
                }
            }
            Frame::Message { prefix, content } => {
                if is_barrier(&prefix, &content) {
                    self.stage.set_urgent();
                } else if let Some(request) = Request::from_message(&prefix, &content) {
                    self.stage.request(request);
                }
            }
            Frame::KeepAlive { lsn, reply_requested } => {
                progress.frame_arrived();
                self.stage.keepalive(lsn);
                if !self.stage.in_transaction() {
                    let moves = self.daemon.budgets.passed(lsn);
                    self.stage.budgets(moves);
                    self.settle();
                }
                if reply_requested {
                    self.stage.set_urgent();
                }
            }
        }
        Ok(())
    }

    /// The stream moves on towards where the budgets were read.
    fn settle(&mut self) {
        if self.settle_until.is_some() {
            let is_settled = self.daemon.budgets.is_settled();
            self.settle_until = (!is_settled).then(|| Instant::now() + SETTLE);
        }
    }

    /// What is new in the stream; `None` for what was applied before and is only compared.
    fn compare(&mut self, frame: Frame) -> Result<Option<Frame>> {
        let Some(overlap) = &mut self.overlap else { return Ok(Some(frame)) };
        let differs = |_| Error::HistoryDiffers;
        match (&frame, self.repeated) {
            (Frame::Begin { final_lsn: lsn }, _) if overlap.covers(*lsn) => self.repeated = Some(0),
            // The decoder has to see it all: a table is described only once in a session.
            (Frame::Data(data), Some(changes)) => {
                self.repeated = Some(changes + self.decoder.decode(data)?.count());
            }
            (Frame::Commit { end_lsn, committed_at }, Some(changes)) => {
                if changes > 0 {
                    overlap.ended(*end_lsn, *committed_at).map_err(differs)?;
                }
                self.repeated = None;
            }
            (Frame::Message { .. }, Some(_)) => {}
            (Frame::Begin { final_lsn: lsn } | Frame::KeepAlive { lsn, .. }, None)
                if !overlap.covers(*lsn) =>
            {
                overlap.reached().map_err(differs)?;
                self.overlap = None;
                return Ok(Some(frame));
            }
            _ => return Ok(Some(frame)),
        }
        self.daemon.progress.frame_arrived();
        Ok(None)
    }

    fn acknowledge(&mut self) {
        let committed = *self.committed.borrow_and_update();
        self.session.acknowledge(committed);
    }

    /// Notices a dead link, and what time alone changed.
    fn look_around(&mut self) -> Result<()> {
        if !self.stage.in_transaction() && self.repeated.is_none() {
            let moves = self.daemon.budgets.passed(self.handed.0);
            self.stage.budgets(moves);
        }
        if !self.may_read() {
            // We are not reading, so nothing can arrive.
            self.session.not_reading();
        }
        if self.session.is_silent() {
            return Err(Error::Silent {
                side: Side::Source,
                action: "read the stream",
                seconds: WAL_SENDER_TIMEOUT.as_secs(),
            });
        }
        Ok(())
    }

    /// Hands on what is complete, waits for its commit, and acknowledges it.
    async fn drain(mut self) -> Result<()> {
        if (self.stage.has_batch() || self.stage.idle_end().is_some()) && !self.stage.in_transaction() {
            let part = self.stage.take();
            let _ = self.parts.send(Handed::Part(part)).await;
        }
        // The applier ends when it has worked off what was handed on.
        let Self { mut session, parts, mut committed, .. } = self;
        drop(parts);
        while committed.changed().await.is_ok() {
            session.acknowledge(*committed.borrow_and_update());
        }
        session.acknowledge(*committed.borrow());
        // One feedback interval, so that the source knows before we are gone.
        tokio::time::sleep(Duration::from_millis(250)).await;
        let _ = session.next_now();
        session.close().await;
        Ok(())
    }
}

/// The point of a hold, once it is known; `None` where nobody waits for it any more.
async fn point_of(hold: &mut Option<Holding>) -> Option<Lsn> {
    match hold {
        Some(Holding::Held(point, _)) => point.await.ok(),
        _ => std::future::pending().await,
    }
}
