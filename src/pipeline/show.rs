//! What the leader shows of its work: gauges, the board behind the pages, the heartbeat.
//!
//! Owns when and how much is read for it: tables are counted by the timer, never by a batch. Writes nothing but the
//! heartbeat. Contains no SQL.

use std::time::{Duration, Instant};

use super::Daemon;
use super::apply::Applier;
use crate::copy::verify;
use crate::error::Result;
use crate::observe::board::SHOWN;
use crate::observe::status;
use crate::project::Outcome;
use crate::target::audit;
use crate::target::failures;
use crate::target::heartbeat;

/// How old what the status page shows may be.
const BOARD_INTERVAL: Duration = Duration::from_secs(3);

/// What the board has from this session.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// When it is to be brought up to date; `None`: at once.
    due: Option<Instant>,
    /// The newest audit row it has.
    audit_seen: Option<i64>,
}

impl Shown {
    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }
}

impl Applier {
    /// Everything there is to show, at the beginning of a session.
    pub(super) async fn show_all(&mut self) -> Result<()> {
        self.count().await?;
        self.count_skipped().await?;
        self.show_last_verify().await?;
        self.pin_up(true).await?;
        self.count_models().await
    }

    /// Counts at once when something went wrong; otherwise the timer does.
    pub(super) async fn note(&self, outcome: &Outcome) -> Result<()> {
        if outcome.failed + outcome.conflicts + outcome.kept_admins == 0 {
            return Ok(());
        }
        self.daemon.board.mark_stale();
        self.count().await
    }

    pub(super) async fn count(&self) -> Result<()> {
        let Daemon { metrics, progress, .. } = &*self.daemon;
        let counts = failures::count(&self.target).await?;
        metrics.dead_letters.set(counts.letters);
        metrics.critical_dead_letters.set(counts.critical);
        metrics.skipped.set(counts.skipped);
        metrics.active_accounts.set(counts.active_accounts);
        progress.set_critical(u64::try_from(counts.critical).unwrap_or_default());
        metrics.set_counts(&metrics.dead_letters_by_class, &failures::by_class(&self.target).await?);
        Ok(())
    }

    /// Why people are skipped: the table is read, so only the timer does this.
    pub(super) async fn count_skipped(&self) -> Result<()> {
        let metrics = &self.daemon.metrics;
        metrics.set_counts(&metrics.skipped_by_reason, &failures::skipped_by_reason(&self.target).await?);
        Ok(())
    }

    /// What the last look at everything found, whoever asked for it.
    async fn show_last_verify(&self) -> Result<()> {
        if let Some(last) = verify::last_verify(&self.target).await? {
            self.daemon.metrics.drift.verified(last.at, last.result, last.drifts.rows());
        }
        Ok(())
    }

    /// The gauges about models: they read whole tables, so only the timer does this, never a batch.
    pub(super) async fn count_models(&self) -> Result<()> {
        let metrics = &self.daemon.metrics;
        if let Some(projection) = &self.projection {
            let report = status::models(&self.target, projection.layout()).await?;
            metrics.models.set(report.known);
            metrics.public_models.set(i64::try_from(report.public.len()).unwrap_or(i64::MAX));
            self.daemon.board.set_models(report);
        }
        Ok(())
    }

    /// Brings the board up to date; `counts`: with what takes reading whole tables. Never more than a small part of our
    /// time, however slow the database.
    pub(super) async fn pin_up(&mut self, counts: bool) -> Result<()> {
        let started = Instant::now();
        let (board, target) = (&self.daemon.board, &self.target);
        let limit = i64::try_from(SHOWN).unwrap_or(i64::MAX);
        let mut report = board.status();
        report.locate(target).await?;
        report.look_for_trouble(target).await?;
        if counts {
            report.count(target).await?;
        }
        let failures = failures::list(target, Some(limit)).await?;
        let audit = audit::tail(target, self.shown.audit_seen, limit).await?;
        let newest = audit.first().map(|entry| entry.id);
        board.read(report, failures, audit, self.shown.audit_seen.is_none());
        self.shown.audit_seen = newest.or(self.shown.audit_seen);
        self.shown.due = Some(Instant::now() + BOARD_INTERVAL.max(started.elapsed() * 100));
        Ok(())
    }

    /// Tells `status` how we are.
    pub(super) async fn heartbeat(&self) -> Result<()> {
        let status = self.daemon.progress.status();
        let layout = self.projection.as_ref().map(|projection| projection.layout().describe());
        let (state, reason) = (status.state.name(), status.reason.as_deref());
        let write = heartbeat::write(&self.target, self.daemon.instance, state, reason, layout.as_deref());
        self.target.alone("write the heartbeat", write).await
    }
}
