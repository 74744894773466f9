//! What the leader does by the clock, between two batches.
//!
//! Owns how often each of it is done: looking for a pause and for requests, expired keys, dead letters that are due, the
//! reconcile, old audit rows, the scheduled verify. Whatever writes does so in a batch of its own ([`Applier::commit_own`]).
//! Contains no SQL.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use super::Daemon;
use super::apply::{Applier, TICK};
use crate::copy::request;
use crate::copy::verify;
use crate::error::{Error, Result};
use crate::mirror;
use crate::project::touched::Touched;
use crate::project::{MANY, Scope, Stamp};
use crate::target::audit;
use crate::target::checkpoint::{self, Checkpoint};
use crate::target::failures;
use crate::target::pause;

// In ticks.
const DEAD_LETTERS_EVERY: u64 = 5;
/// Well within the patience of sql/target/break_lease.sql.
const HEARTBEAT_EVERY: u64 = 4;
const COUNTS_EVERY: u64 = 15;
const RECONCILE_EVERY: u64 = 600;
const RETENTION_EVERY: u64 = 3600;
const VERIFY_LOOK_EVERY: u64 = 5;
/// A verify holds the stream for a moment: not on top of being behind.
const BEHIND: Duration = Duration::from_secs(30);

/// What the timer remembers of a session.
pub(super) struct Chores {
    ticks: u64,
    /// Keys that expired before this have had their effect.
    pub(super) expired_through: Option<SystemTime>,
    /// When we last looked for others.
    looked_for_expired: Instant,
    /// Kinds of dead letters that were found and not understood.
    left_alone: BTreeSet<String>,
}

impl Chores {
    pub(super) fn new(known: &Checkpoint) -> Self {
        Self {
            ticks: 0,
            expired_through: known.expired_through,
            looked_for_expired: Instant::now(),
            left_alone: BTreeSet::new(),
        }
    }

    /// Whether it is time to look for keys that expired.
    pub(super) fn keys_are_due(&self) -> bool {
        self.looked_for_expired.elapsed() > TICK
    }
}

impl Applier {
    /// One turn of the timer.
    pub(super) async fn housekeeping(&mut self) -> Result<()> {
        self.chores.ticks += 1;
        let every = |period: u64| self.chores.ticks.is_multiple_of(period);
        let (letters, heartbeat, counts) =
            (every(DEAD_LETTERS_EVERY), every(HEARTBEAT_EVERY), every(COUNTS_EVERY));
        let (reconcile, retention) = (every(RECONCILE_EVERY), every(RETENTION_EVERY));
        let verify = every(VERIFY_LOOK_EVERY);
        pause::check(&self.target).await?;
        if !self.fenced && request::pending(&self.target).await?.is_some() {
            // The next session begins with it.
            return Err(Error::Resnapshot);
        }
        if self.projection.is_none() {
            self.find_projection().await?;
        }
        if verify {
            self.verify_on_schedule().await?;
        }
        self.expire_keys().await?;
        if letters {
            self.retry_dead_letters().await?;
        }
        if reconcile && self.projection.is_some() {
            let with = self.projected_with.clone();
            // Open WebUI's connections may have got another prefix, and then this projects everything.
            self.find_projection().await?;
            if self.projected_with == with {
                self.apply_everything(&with, true).await?;
            }
        }
        if retention {
            let days = i32::try_from(self.daemon.config.policy.audit.retention_days).unwrap_or(i32::MAX);
            self.target.alone("delete old audit rows", audit::forget_old(&self.target, days)).await?;
        }
        if heartbeat {
            self.heartbeat().await?;
        }
        if counts {
            self.count().await?;
            self.count_skipped().await?;
        }
        if counts || self.daemon.board.take_stale() || self.shown.is_due() {
            self.pin_up(counts).await?;
        }
        if counts {
            self.count_models().await?;
        }
        Ok(())
    }

    /// Never in the middle of something else: the next session begins with it, like with one that somebody asked for.
    async fn verify_on_schedule(&self) -> Result<()> {
        let Daemon { config, progress, .. } = &*self.daemon;
        if self.fenced || self.projection.is_none() || progress.lag() > BEHIND {
            return Ok(());
        }
        let ask = verify::ask_on_schedule(&self.target, &config.policy.verify);
        self.target.alone("look whether a verify is due", ask).await
    }

    /// Retries what could not be written, less often the longer it fails: the difference for those entities.
    async fn retry_dead_letters(&mut self) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let due = failures::due(&self.target).await?;
        for kind in due.unknown {
            // Said once a session: it stays as it is, and is due for ever.
            if self.chores.left_alone.insert(kind.clone()) {
                tracing::warn!(kind, "dead letters of a kind this program does not know are left alone");
            }
        }
        let mut touched = Touched::default();
        for (kind, key) in due.letters {
            touched.try_again(kind, key);
        }
        if touched.is_empty() && !touched.has_rights() {
            return Ok(());
        }
        let target = &self.target;
        target.begin("begin a retry").await?;
        self.begin_own().await?;
        let stamp = self.stamp(self.end_lsn);
        let outcome = projection.apply(target, Scope::These(&touched), stamp).await?;
        self.commit_own(&outcome, &self.projected_with).await?;
        self.daemon.board.mark_stale();
        self.count().await
    }

    /// Keys expire without a row in the stream. The owners of those that did since we last looked are projected in a batch
    /// of their own, together with the moment up to which that is done.
    pub(super) async fn expire_keys(&mut self) -> Result<()> {
        self.chores.looked_for_expired = Instant::now();
        let Some(projection) = &self.projection else { return Ok(()) };
        let target = &self.target;
        let now = SystemTime::now();
        if self.chores.expired_through.is_some_and(|through| through > now) {
            // The clock was set back, and some keys live once more: they must expire once more too.
            let write = checkpoint::expired_through(target, self.epoch, now);
            target.alone("write up to when keys expired", write).await?;
            self.chores.expired_through = Some(now);
        }
        let touched = mirror::expired(target, self.chores.expired_through, now).await?;
        if !touched.has_rights() {
            return Ok(());
        }
        target.begin("begin a batch for expired keys").await?;
        self.begin_own().await?;
        if touched.rights.len() > MANY {
            target.plan_large().await?;
        }
        let stamp = Stamp { now, ..self.stamp(self.end_lsn) };
        let outcome = projection.apply(target, Scope::These(&touched), stamp).await?;
        checkpoint::expired_through(target, self.epoch, now).await?;
        self.commit_own(&outcome, &self.projected_with).await?;
        self.chores.expired_through = Some(now);
        self.note(&outcome).await
    }
}
