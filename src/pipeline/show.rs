//! What the leader shows of its work: gauges, and the board behind the pages.
//!
//! Owns when and how much is read for it: beside the stream, on a session of its own, only when something moved, and never
//! for more than a small part of the time. Whatever goes wrong here ends nothing. Writes nothing. Contains no SQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Daemon;
use super::apply::Applier;
use super::glances::Follow;
use crate::copy::verify;
use crate::error::Result;
use crate::observe::board::SHOWN;
use crate::observe::status;
use crate::project::Outcome;
use crate::target::Target;
use crate::target::audit;
use crate::target::failures;
use crate::target::heartbeat::{self, Glance, Place};

/// How old what takes reading whole tables may be while something moves …
const COUNTS: Duration = Duration::from_secs(15);
/// … and while nothing seems to.
const COUNTS_IDLE: Duration = Duration::from_secs(300);
/// What is read is read again no sooner than this many times as long as it took.
const SHARE: u32 = 50;

/// What the board has from this session.
pub(super) struct Show {
    daemon: Arc<Daemon>,
    /// The newest audit row it has.
    audit_seen: Option<i64>,
    /// When it is to be brought up to date at the earliest, and what of.
    pinned: (Instant, String),
    /// The same of the counts.
    counted: Option<(Instant, Duration, String)>,
}

impl Show {
    pub(super) fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon, audit_seen: None, pinned: (Instant::now(), String::new()), counted: None }
    }
}

impl Follow for Show {
    const ACTION: &'static str = "read what is shown";
    const PAUSE: Duration = Duration::from_secs(10);

    async fn follow(&mut self, target: &Target, glance: &Glance) -> Result<()> {
        let now = Instant::now();
        let is_stale = self.daemon.board.take_stale();
        let counts = is_stale
            || self.counted.as_ref().is_none_or(|(at, took, moved)| {
                let least = if *moved == glance.moved { COUNTS_IDLE } else { COUNTS };
                at.elapsed() > least.max(*took * SHARE)
            });
        let (due, moved) = &self.pinned;
        if counts || *due <= now && *moved != glance.moved {
            self.audit_seen =
                pin_up(&self.daemon, target, glance.checkpoint.as_ref(), counts, self.audit_seen).await?;
            self.pinned = (now + now.elapsed() * SHARE, glance.moved.clone());
        } else {
            self.daemon.board.locate(glance.checkpoint.as_ref());
        }
        if counts {
            count_all(&self.daemon, target).await?;
            self.counted = Some((Instant::now(), now.elapsed(), glance.moved.clone()));
        }
        Ok(())
    }
}

/// All there is to show, at the beginning of a session: nobody is told that all is well before it is known what there is.
pub(super) async fn everything(daemon: &Daemon, target: &Target) -> Result<()> {
    if let Some(last) = verify::last_verify(target).await? {
        daemon.metrics.drift.verified(last.at, last.result, last.drifts.rows());
    }
    let place = heartbeat::place(target).await?;
    pin_up(daemon, target, place.as_ref(), true, None).await?;
    count_all(daemon, target).await
}

/// Brings the board up to date; `counts`: with what takes reading whole tables. `seen`: the newest audit row it has; gives
/// the newest it has then.
async fn pin_up(
    daemon: &Daemon,
    target: &Target,
    place: Option<&Place>,
    counts: bool,
    seen: Option<i64>,
) -> Result<Option<i64>> {
    let board = &daemon.board;
    let limit = i64::try_from(SHOWN).unwrap_or(i64::MAX);
    let mut report = board.status();
    report.locate(place);
    report.look_for_trouble(target).await?;
    if counts {
        report.count(target).await?;
    }
    let failures = failures::list(target, Some(limit)).await?;
    let audit = audit::tail(target, seen, limit).await?;
    let newest = audit.first().map(|entry| entry.id);
    board.read(report, failures, audit, seen.is_none());
    Ok(newest.or(seen))
}

/// All gauges that take reading whole tables.
async fn count_all(daemon: &Daemon, target: &Target) -> Result<()> {
    let Daemon { metrics, board, .. } = daemon;
    count(daemon, target).await?;
    metrics.set_counts(&metrics.skipped_by_reason, &failures::skipped_by_reason(target).await?);
    if let Some(layout) = board.facts().servers.layout {
        let report = status::models(target, &layout).await?;
        metrics.models.set(report.known);
        metrics.public_models.set(i64::try_from(report.public.len()).unwrap_or(i64::MAX));
        board.set_models(report);
    }
    Ok(())
}

/// Dead letters and accounts, as gauges, and what readiness depends on.
async fn count(daemon: &Daemon, target: &Target) -> Result<()> {
    let Daemon { metrics, progress, .. } = daemon;
    let counts = failures::count(target).await?;
    metrics.dead_letters.set(counts.letters);
    metrics.critical_dead_letters.set(counts.critical);
    metrics.skipped.set(counts.skipped);
    metrics.active_accounts.set(counts.active_accounts);
    metrics.spend.closed_people.set(counts.budget_closed);
    daemon.board.set_budget_closed(counts.budget_closed);
    progress.set_critical(u64::try_from(counts.critical).unwrap_or_default());
    metrics.set_counts(&metrics.dead_letters_by_class, &failures::by_class(target).await?);
    Ok(())
}

impl Applier {
    /// Counts at once when something went wrong: nobody may be told that all is well.
    pub(super) async fn note(&self, outcome: &Outcome) -> Result<()> {
        if outcome.failed + outcome.conflicts + outcome.kept_admins == 0 {
            return Ok(());
        }
        let Outcome { conflicts, kept_admins, .. } = outcome;
        if conflicts + kept_admins > 0 {
            tracing::warn!(
                conflicts,
                kept_admins,
                "people could not be written as LiteLLM has them, and are kept as dead letters"
            );
        }
        self.show_soon();
        self.count().await
    }

    pub(super) async fn count(&self) -> Result<()> {
        count(&self.daemon, &self.target).await
    }

    /// What is shown is no longer true.
    pub(super) fn show_soon(&self) {
        self.daemon.board.mark_stale();
        self.orders.look_soon();
    }
}
