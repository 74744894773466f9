//! Keeps a leader running: attempts, the delays between them, and what is waited for where waiting is all there is to do.
//!
//! Owns what an error means for the next attempt. What an attempt does is in `lead`; nothing held in memory outlives it but
//! what the pages show.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Daemon, monitor, pulse};
use crate::error::{Error, Reaction, Result};
use crate::observe::board::Board;
use crate::observe::progress::{Progress, State};
use crate::position::Lsn;
use crate::postgres::error_chain;
use crate::target::Target;
use crate::target::brake;
use crate::target::pause;

/// Delays between attempts: growing, jittered, bounded.
#[derive(Debug)]
struct Backoff {
    attempt: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let base = Duration::from_millis(300) * 2_u32.saturating_pow(self.attempt.min(7));
        self.attempt += 1;
        base.min(Duration::from_secs(30)).mul_f64(rand::random_range(0.7..1.3))
    }
}

/// A session that lasted this long was fine: the next failure starts with a short delay again.
const STABLE: Duration = Duration::from_secs(20);
/// How often a batch held by the brake is tried again without an approval.
const BRAKE_RETRY: Duration = Duration::from_secs(15);
/// How often a daemon that cannot apply looks at what its slot costs LiteLLM's server.
const WAL_LOOK: Duration = Duration::from_secs(5);
/// How soon a waiting daemon looks whether the slot is free.
const STANDBY_DELAY: Duration = Duration::from_secs(1);
/// How long nobody may lead on our Open WebUI while the slot is in use: a leader that begins, or one that lost its way there and
/// has not noticed yet, looks like that for a while.
const FOREIGN_PATIENCE: Duration = Duration::from_secs(35);
/// How soon we look again whether a leader of another Open WebUI let our slot go.
const FOREIGN_DELAY: Duration = Duration::from_secs(5);
/// How soon we look again whether a standby of ours was promoted, at the latest.
const PROMOTION_DELAY: Duration = Duration::from_secs(2);

impl Daemon {
    /// Runs until cancelled, or until something stops it that waiting cannot cure.
    ///
    /// # Errors
    /// An error whose reaction is [`Reaction::Stop`].
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<()> {
        // Also while we drain somebody may ask how things stand.
        let ended = CancellationToken::new();
        let end = ended.clone().drop_guard();
        self.aside.spawn(watch_lag(Arc::clone(&self.progress), Arc::clone(&self.board), ended.clone()));
        self.aside.spawn(pulse::run(Arc::clone(&self), ended.clone()));
        tokio::spawn(say_draining(Arc::clone(&self.progress), cancel.clone(), ended));
        let outcome = Arc::clone(&self).attempt(cancel).await;
        drop(end);
        pulse::last(&self).await;
        outcome
    }

    /// One attempt after the other.
    async fn attempt(self: Arc<Self>, cancel: CancellationToken) -> Result<()> {
        let mut backoff = Backoff { attempt: 0 };
        let mut braked_at: Option<Instant> = None;
        let mut foreign_since: Option<Instant> = None;
        let mut looked_at_wal = None;
        loop {
            let started = Instant::now();
            let before = (self.metrics.sessions.get(), self.progress.checkpoint());
            let attempt = async {
                self.still_paused().await?;
                match self.open_brake().await? {
                    // LiteLLM's data may have been repaired since: now and then the batch is tried again.
                    Some(brake) if braked_at.is_some_and(|at| at.elapsed() < BRAKE_RETRY) => Err(brake),
                    _ => Box::pin(Arc::clone(&self).lead(cancel.clone())).await,
                }
            };
            let result = tokio::select! {
                result = attempt => result,
                // A leader drains by itself; this is for everything before and between.
                () = drained_too_long(&cancel) => Ok(()),
            };
            let error = match result {
                Ok(()) => {
                    self.progress.set_state(State::Stopped, None);
                    return Ok(());
                }
                Err(error) if cancel.is_cancelled() => {
                    tracing::debug!(error = error_chain(&error), "ended while draining");
                    self.progress.set_state(State::Stopped, None);
                    return Ok(());
                }
                Err(Error::ForeignLeader { slot })
                    if foreign_since.get_or_insert_with(Instant::now).elapsed() < FOREIGN_PATIENCE =>
                {
                    Error::SlotHeld { slot }
                }
                Err(error) => error,
            };
            if !matches!(error, Error::SlotHeld { .. } | Error::ForeignLeader { .. }) {
                foreign_since = None;
            }
            self.metrics.reconnects.with_label_values(&[&error.label()]).inc();
            self.count_restart(&error, before);
            if started.elapsed() > STABLE {
                backoff.attempt = 0;
            }
            match (&error, braked_at) {
                (Error::Brake { .. }, None) => braked_at = Some(Instant::now()),
                (Error::Brake { .. }, Some(at)) if at.elapsed() >= BRAKE_RETRY => {
                    braked_at = Some(Instant::now());
                }
                (Error::Brake { .. }, Some(_)) => {}
                _ => braked_at = None,
            }
            let Some(delay) = self.react(&error, &mut backoff) else { return Err(error) };
            let pause = async {
                // Once the checkpoint said that the slot is ours, it is, also while Open WebUI's database is out of reach.
                let due = looked_at_wal.is_none_or(|at: Instant| at.elapsed() > WAL_LOOK);
                let standby = self.progress.status().state == State::Standby;
                if due && !standby && self.progress.owns_slot() {
                    looked_at_wal = Some(Instant::now());
                } else {
                    return tokio::time::sleep(delay).await;
                }
                if let Err(error) = monitor::release_wal(&self).await {
                    tracing::debug!(error = error_chain(&error), "could not look at the slot");
                }
                tokio::time::sleep(delay).await;
            };
            tokio::select! {
                () = cancel.cancelled() => {
                    self.progress.set_state(State::Stopped, None);
                    return Ok(());
                }
                () = pause => {}
            }
        }
    }

    /// Counts sessions in a row that failed at one position: something there may be what fails.
    /// `before`: sessions and checkpoint when the attempt began.
    fn count_restart(&self, error: &Error, before: (u64, Lsn)) {
        let streamed = self.metrics.sessions.get() > before.0;
        if self.progress.checkpoint() != before.1 {
            self.metrics.same_position_restarts.set(0);
        } else if streamed && error.is_failure() {
            self.metrics.same_position_restarts.inc();
        }
    }

    /// How long to wait before the next attempt; `None` to stop.
    fn react(&self, error: &Error, backoff: &mut Backoff) -> Option<Duration> {
        let reason = error_chain(error);
        self.board.set_trouble(error);
        if !matches!(error, Error::AtFence) {
            self.progress.copies.end(false);
        }
        match (error, error.reaction()) {
            (Error::SlotHeld { .. } | Error::Superseded | Error::LeaseHeld, _) => {
                // It looked, and all was well: an old failure must not delay a takeover.
                backoff.attempt = 0;
                self.progress.stands_by();
                self.progress.set_state(State::Standby, Some(reason));
                Some(STANDBY_DELAY)
            }
            (_, _) if error.sqlstate() == Some("55006") => {
                self.progress
                    .set_state(State::Standby, Some("the slot is in use by another session".to_owned()));
                Some(STANDBY_DELAY)
            }
            // Held until somebody approves; looked at again regularly.
            (Error::Brake { .. }, _) => {
                self.say_held_back(error);
                Some(Duration::from_secs(2))
            }
            (Error::ForeignLeader { .. }, _) => {
                if self.progress.status().reason.as_ref() != Some(&reason) {
                    let remedy = error.remedy().unwrap_or_default();
                    tracing::error!(error = reason, remedy, "nobody leads here");
                }
                self.progress.set_state(State::Reconnecting, Some(reason));
                Some(FOREIGN_DELAY)
            }
            (Error::Resnapshot | Error::AtFence, _) => Some(Duration::ZERO),
            (Error::Paused { .. }, _) => {
                self.progress.set_state(State::Paused, Some(reason));
                Some(Duration::from_secs(1))
            }
            (_, Reaction::Retry) => {
                let mut delay = backoff.next();
                if error.is_waiting_for_a_primary() {
                    delay = delay.min(PROMOTION_DELAY);
                }
                tracing::warn!(error = reason, delay_ms = delay.as_millis(), "trying again");
                self.progress.set_state(State::Reconnecting, Some(reason));
                Some(delay)
            }
            // Whoever runs the daemon says so, once it is gone.
            (_, Reaction::Stop) => {
                self.progress.set_state(State::Stopped, Some(reason));
                None
            }
        }
    }

    /// Says that `brake` holds us, in the log once. Nothing is applied from here on, whatever is still to be done before the session ends.
    pub(super) fn say_held_back(&self, brake: &Error) {
        let (reason, remedy) = (error_chain(brake), brake.remedy().unwrap_or_default());
        self.board.set_trouble(brake);
        if self.progress.status().state != State::Braked {
            tracing::error!(error = reason, remedy, "held back");
        }
        self.progress.set_state(State::Braked, Some(format!("{reason}; {remedy}")));
    }

    /// Fails while the pause that ended the last attempt goes on.
    async fn still_paused(&self) -> Result<()> {
        let status = self.progress.status();
        if status.state != State::Paused {
            return Ok(());
        }
        let target = Target::open(&self.config).await?;
        pause::check(&target).await
    }

    /// The brake that holds us, as long as it is not approved.
    async fn open_brake(&self) -> Result<Option<Error>> {
        let status = self.progress.status();
        if status.state != State::Braked {
            return Ok(None);
        }
        let target = Target::open(&self.config).await?;
        brake::waiting(&target).await
    }
}

/// Remembers how far behind we are, also while nothing arrives.
async fn watch_lag(progress: Arc<Progress>, board: Arc<Board>, ended: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            _ = tick.tick() => {}
        }
        // A standby has no lag of its own.
        if progress.has_led() && progress.status().state != State::Standby {
            board.note_lag(progress.lag());
        }
    }
}

/// Says that we are on our way to the end, from the moment somebody asks for it.
async fn say_draining(progress: Arc<Progress>, cancel: CancellationToken, ended: CancellationToken) {
    tokio::select! {
        biased;
        () = cancel.cancelled() => progress.set_state(State::Draining, None),
        () = ended.cancelled() => {}
    }
}

/// Ends a drain that takes too long.
async fn drained_too_long(cancel: &CancellationToken) {
    cancel.cancelled().await;
    tokio::time::sleep(Duration::from_secs(8)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stay_bounded() {
        let mut backoff = Backoff { attempt: 0 };
        let delays: Vec<Duration> = (0..20).map(|_| backoff.next()).collect();
        assert!(delays[0] < Duration::from_millis(500));
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(40)));
        assert!(delays[19] >= Duration::from_secs(20));
    }
}
