//! mirror → project → checkpoint: one target transaction per batch.
//!
//! Owns the target session of the leader. Everything a batch does commits with its checkpoint, or
//! not at all; the source is told only after the commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use super::Daemon;
use super::models::Polled;
use crate::copy::register::CopyPhase;
use crate::copy::request;
use crate::copy::verify;
use crate::error::{Error, Result, Side, on};
use crate::failpoint;
use crate::mirror;
use crate::observe::board::SHOWN;
use crate::observe::metrics::{self, Metrics};
use crate::observe::progress::{State, Status};
use crate::position::BatchEnd;
use crate::position::Lsn;
use crate::project::models::Rules;
use crate::project::touched::Touched;
use crate::project::{self, MANY, Outcome, Projection, Scope, Stamp};
use crate::sql::{self, TouchedFrom};
use crate::stage::Part;
use crate::target::Target;
use crate::target::audit;
use crate::target::brake;
use crate::target::checkpoint::{self, Checkpoint, PENDING};
use crate::target::failures;
use crate::target::layout;
use crate::target::pause;
use crate::target::policy;

const TICK: Duration = Duration::from_secs(1);
const DEAD_LETTERS_EVERY: u64 = 5;
/// Well within the patience of sql/target/break_lease.sql.
const HEARTBEAT_EVERY: u64 = 4;
const COUNTS_EVERY: u64 = 15;
const RECONCILE_EVERY: u64 = 600;
/// How old what the status page shows may be.
const BOARD_INTERVAL: Duration = Duration::from_secs(3);
const RETENTION_EVERY: u64 = 3600;
const VERIFY_LOOK_EVERY: u64 = 5;
/// A verify holds the stream for a moment: not on top of being behind.
const BEHIND: Duration = Duration::from_secs(30);

pub(super) struct Applier {
    pub(super) daemon: Arc<Daemon>,
    pub(super) target: Target,
    pub(super) epoch: i64,
    pub(super) end_lsn: Lsn,
    /// What the Open WebUI rows were last made with.
    pub(super) projected_with: String,
    /// Keys that expired before this have had their effect.
    expired_through: Option<SystemTime>,
    /// When we last looked for others.
    looked_for_expired: Instant,
    /// `None` while Open WebUI has no tables or no admin yet.
    pub(super) projection: Option<Projection>,
    pub(super) polled: Polled,
    acknowledge: watch::Sender<Lsn>,
    /// A brake was open when this session began.
    was_braked: bool,
    /// This session only catches up with a copy that was just made.
    fenced: bool,
    /// A batch that comes in parts has begun.
    large: bool,
    ticks: u64,
    /// When the board is to be brought up to date.
    board_due: Instant,
    /// The newest audit row the board has from this session.
    audit_seen: Option<i64>,
    /// Kinds of dead letters that were found and not understood.
    left_alone: BTreeSet<String>,
}

impl Applier {
    pub(super) fn new(
        daemon: Arc<Daemon>,
        target: Target,
        known: &Checkpoint,
        epoch: i64,
        acknowledge: watch::Sender<Lsn>,
        polled: Polled,
    ) -> Self {
        Self {
            daemon,
            target,
            epoch,
            end_lsn: known.end_lsn,
            projected_with: known.projected_with.clone(),
            expired_through: known.expired_through,
            looked_for_expired: Instant::now(),
            projection: None,
            polled,
            acknowledge,
            was_braked: true,
            fenced: false,
            large: false,
            ticks: 0,
            board_due: Instant::now(),
            audit_seen: None,
            left_alone: BTreeSet::new(),
        }
    }

    /// For a session that ends at the point of a copy: the request for it is being worked on.
    pub(super) fn fenced(mut self, fenced: bool) -> Self {
        self.fenced = fenced;
        self
    }

    /// Applies parts until the channel closes.
    pub(super) async fn run(mut self, mut parts: mpsc::Receiver<Part>) -> Result<()> {
        self.was_braked = brake::is_open(&self.target).await?;
        self.find_projection().await?;
        // Before anything new: what expired while nobody was here.
        self.expire_keys().await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                part = parts.recv() => match part {
                    Some(part) => {
                        Box::pin(self.apply(part)).await?;
                        // Under load the timer below may never have its turn.
                        if !self.large && self.looked_for_expired.elapsed() > TICK {
                            self.expire_keys().await?;
                        }
                        if !self.large && self.board_due <= Instant::now() {
                            self.pin_up(false).await?;
                        }
                    }
                    // A batch whose end never came is rolled back with the session.
                    None => return Ok(()),
                },
                () = self.polled.next(), if !self.large => self.models_answered().await?,
                _ = tick.tick(), if !self.large => self.housekeeping().await?,
            }
        }
    }

    async fn apply(&mut self, part: Part) -> Result<()> {
        for request in &part.requests {
            request::record(&self.target, request).await?;
        }
        let Some(end) = part.end else { return self.apply_piece(&part).await };
        let started = Instant::now();
        if self.large || !part.is_whole() {
            self.apply_piece(&part).await?;
            self.finish_large(end).await?;
        } else if part.has_rows() {
            Box::pin(self.apply_small(&part, end, true)).await?;
        } else {
            checkpoint::advance(&self.target, self.epoch, self.end_lsn, end).await?;
        }
        self.committed(end, started);
        Ok(())
    }

    /// A batch that is in memory as a whole. `maybe_plain`: the short way may be tried.
    async fn apply_small(&mut self, part: &Part, end: BatchEnd, maybe_plain: bool) -> Result<()> {
        let target = &self.target;
        let mut watch = Watch::start(&self.daemon.metrics);
        let stamp = self.stamp(end.end_lsn);
        let writes = mirror::prepare(target, part, TouchedFrom::Arrays).await?;
        checkpoint::prepare(target).await?;
        let short = if maybe_plain { self.short_way(part).await? } else { None };
        // Sent together: the lock comes before the first write, and nothing is committed unless every
        // answer was fine.
        let (begun, locked, touched, plain) = tokio::join!(
            target.execute("begin a batch", "begin"),
            checkpoint::begin(target, self.epoch, self.end_lsn),
            writes.send(target),
            async {
                let (projection, users) = short.as_ref()?;
                Some(projection.plain(target, users, stamp).await)
            },
        );
        begun?;
        locked?;
        let mut touched = touched?;
        let plain = match plain {
            Some(plain) => {
                let plain = project::may_stand(plain, &touched)?;
                if plain.is_none() {
                    target.execute("roll a batch back", "rollback").await?;
                    return Box::pin(self.apply_small(part, end, false)).await;
                }
                plain
            }
            None => None,
        };
        mirror::propagate(target, &mut touched).await?;
        watch.took(metrics::Stage::Mirror);
        failpoint::hit(failpoint::STAGED_NOT_PROJECTED)?;
        if touched.all_rights {
            self.polled.ask_again();
        }
        let outcome = match (&self.projection, plain) {
            (Some(projection), Some(plain)) => projection.after_plain(target, plain, touched, stamp).await?,
            (Some(projection), None) => {
                if touched.len() > MANY {
                    target.plan_large().await?;
                }
                Box::pin(projection.apply(target, Scope::These(&touched), stamp)).await?
            }
            (None, _) => Outcome::default(),
        };
        self.hold_against_brake(&outcome, end.end_lsn).await?;
        failpoint::hit(failpoint::PROJECTED_NOT_COMMITTED)?;
        watch.took(metrics::Stage::Project);
        checkpoint::commit(target, self.epoch, end, &self.projected_with).await?;
        watch.took(metrics::Stage::Commit);
        self.daemon.metrics.projected(&outcome);
        self.note(&outcome).await
    }

    /// The projection and the users of a batch that may be plain enough for `Projection::plain`.
    async fn short_way<'a>(&'a self, part: &'a Part) -> Result<Option<(&'a Projection, Vec<&'a str>)>> {
        let Some(projection) = &self.projection else { return Ok(None) };
        let users = mirror::users_alone(part).filter(|users| users.len() <= MANY);
        let Some(users) = users else { return Ok(None) };
        Ok(projection.prepare_plain(&self.target).await?.then_some((projection, users)))
    }

    /// One part of a batch that is too large to hold: only our own tables are written yet.
    async fn apply_piece(&mut self, part: &Part) -> Result<()> {
        let target = &self.target;
        if !self.large {
            target.execute("prepare for a large batch", sql::CREATE_TOUCHED).await?;
            let text = "begin; set local plan_cache_mode = force_custom_plan";
            target.execute("begin a large batch", text).await?;
            checkpoint::begin(target, self.epoch, self.end_lsn).await?;
            self.large = true;
        }
        let writes = mirror::prepare(target, part, TouchedFrom::Table).await?;
        writes.send(target).await?;
        Ok(())
    }

    async fn finish_large(&mut self, end: BatchEnd) -> Result<()> {
        let target = &self.target;
        let mut watch = Watch::start(&self.daemon.metrics);
        // The pieces were written by look-ups, each small beside the tables. What follows is not.
        target.plan_large().await?;
        target.execute("analyze the touched keys", "analyze touched").await?;
        let noted = mirror::propagate_noted(target).await?;
        if noted.more {
            target.execute("analyze the touched keys", "analyze touched").await?;
        }
        if noted.all_rights {
            self.polled.ask_again();
        }
        watch.took(metrics::Stage::Mirror);
        failpoint::hit(failpoint::STAGED_NOT_PROJECTED)?;
        let outcome = match &self.projection {
            Some(projection) => {
                let stamp = self.stamp(end.end_lsn);
                projection.apply(target, Scope::Touched, stamp).await?
            }
            None => Outcome::default(),
        };
        self.hold_against_brake(&outcome, end.end_lsn).await?;
        failpoint::hit(failpoint::PROJECTED_NOT_COMMITTED)?;
        watch.took(metrics::Stage::Project);
        checkpoint::commit(target, self.epoch, end, &self.projected_with).await?;
        watch.took(metrics::Stage::Commit);
        self.large = false;
        self.daemon.metrics.projected(&outcome);
        self.note(&outcome).await
    }

    /// Now, for a batch that ends at `lsn`.
    pub(super) fn stamp(&self, lsn: Lsn) -> Stamp {
        let failures = self.daemon.config.policy.failures.per_hour;
        Stamp { now: SystemTime::now(), lsn, audit_each: true, failures }
    }

    fn committed(&mut self, end: BatchEnd, started: Instant) {
        self.end_lsn = end.end_lsn;
        let Daemon { metrics, progress, board, .. } = &*self.daemon;
        metrics.transactions.inc_by(end.transactions);
        metrics.changes.inc_by(end.changes);
        metrics.batches.inc();
        metrics.same_position_restarts.set(0);
        #[expect(clippy::cast_precision_loss, reason = "a histogram needs no more than 53 bits")]
        metrics.batch_changes.observe(end.changes as f64);
        metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
        if end.transactions > 0
            && let Some(at) = end.committed_at
            && let Ok(age) = at.elapsed()
        {
            metrics.commit_to_visible_seconds.observe(age.as_secs_f64());
        }
        // At its worst just before it ends.
        board.note_lag(progress.lag());
        progress.checkpoint_committed(end.end_lsn);
        if failpoint::hit(failpoint::COMMITTED_NOT_ACKNOWLEDGED).is_ok() {
            self.acknowledge.send_replace(end.end_lsn);
        }
    }

    /// Applies the difference over everything: the first projection, a changed policy, a reconcile.
    async fn apply_everything(&mut self, projected_with: &str, audit_each: bool) -> Result<Outcome> {
        let Some(projection) = &self.projection else { return Ok(Outcome::default()) };
        let target = &self.target;
        target.begin_large().await?;
        checkpoint::begin(target, self.epoch, self.end_lsn).await?;
        let stamp = Stamp { audit_each, ..self.stamp(self.end_lsn) };
        let outcome = projection.apply(target, Scope::Everything, stamp).await?;
        checkpoint::expired_through(target, self.epoch, stamp.now).await?;
        self.commit_own(&outcome, projected_with).await?;
        projected_with.clone_into(&mut self.projected_with);
        self.expired_through = Some(stamp.now);
        Ok(outcome)
    }

    /// Ends a batch of our own, which no transaction of the source led to: past the brake, with the position as it was.
    pub(super) async fn commit_own(&self, outcome: &Outcome, projected_with: &str) -> Result<()> {
        self.hold_against_brake(outcome, self.end_lsn).await?;
        checkpoint::commit(&self.target, self.epoch, BatchEnd::at(self.end_lsn), projected_with).await?;
        self.daemon.metrics.projected(outcome);
        Ok(())
    }

    /// Keys expire without a row in the stream. The owners of those that did since we last looked are projected in a batch
    /// of their own, together with the moment up to which that is done.
    async fn expire_keys(&mut self) -> Result<()> {
        self.looked_for_expired = Instant::now();
        let Some(projection) = &self.projection else { return Ok(()) };
        let target = &self.target;
        let now = SystemTime::now();
        if self.expired_through.is_some_and(|through| through > now) {
            // The clock was set back, and some keys live once more: they must expire once more too.
            checkpoint::expired_through(target, self.epoch, now).await?;
            self.expired_through = Some(now);
        }
        let touched = mirror::expired(target, self.expired_through, now).await?;
        if !touched.has_rights() {
            return Ok(());
        }
        target.execute("begin a batch for expired keys", "begin").await?;
        checkpoint::begin(target, self.epoch, self.end_lsn).await?;
        if touched.rights.len() > MANY {
            target.plan_large().await?;
        }
        let stamp = Stamp { now, ..self.stamp(self.end_lsn) };
        let outcome = projection.apply(target, Scope::These(&touched), stamp).await?;
        checkpoint::expired_through(target, self.epoch, now).await?;
        self.commit_own(&outcome, &self.projected_with).await?;
        self.expired_through = Some(now);
        self.note(&outcome).await
    }

    /// Stops before the commit when unusually many people would lose something at once.
    async fn hold_against_brake(&self, outcome: &Outcome, end_lsn: Lsn) -> Result<()> {
        brake::hold(
            &self.target,
            &self.daemon.config.policy.brake,
            outcome.losing(),
            end_lsn,
            self.was_braked,
            None,
        )
        .await
    }

    /// Finds the layout, and whether Open WebUI is ready to be written.
    async fn find_projection(&mut self) -> Result<()> {
        let Daemon { config, progress, board, .. } = &*self.daemon;
        let found = match layout::find(&self.target, config).await {
            Ok(found) => found,
            Err(error @ Error::NoOpenWebUi { .. }) => {
                progress.set_state(State::Waiting, Some(error.to_string()));
                if !self.fenced {
                    progress.copies.end(true);
                }
                return self.heartbeat().await;
            }
            Err(error) => return Err(error),
        };
        board.set_layout(&found);
        if self.projected_with == PENDING {
            // The first account to sign up becomes admin only if it is alone in the table.
            let text = "select exists (select from \"user\" where role = 'admin')";
            let row = self.target.client().query_one(text, &[]).await;
            if !row.map_err(on(Side::Target, "look for an admin"))?.get::<_, bool>(0) {
                let reason = "Open WebUI has no admin yet: sign up there first";
                progress.set_state(State::Waiting, Some(reason.to_owned()));
                if !self.fenced {
                    progress.copies.end(true);
                }
                return self.heartbeat().await;
            }
        }
        let models = Rules::find(&self.target, config, &found).await?;
        policy::write_models(&self.target, &models.prefix, models.group_min).await?;
        let with = format!(
            "{}/{}/{}/{}/{}",
            config.policy.fingerprint(),
            found.describe(),
            models.prefix,
            if config.models_api.is_some() { "polled" } else { "" },
            env!("CARGO_PKG_VERSION")
        );
        self.daemon.metrics.set_layout(&found.describe());
        self.projection = Some(Projection::new(found, config.policy.api_keys, models));
        if self.projected_with != with {
            let first = self.projected_with == PENDING;
            tracing::info!(first, "projecting everything");
            progress.copies.phase(CopyPhase::Projecting);
            let outcome = self.apply_everything(&with, !first).await?;
            tracing::info!(
                created = outcome.accounts_created,
                linked = outcome.accounts_linked,
                updated = outcome.accounts_updated,
                groups = outcome.groups_written,
                members = outcome.members_added,
                keys = outcome.keys_minted,
                conflicts = outcome.conflicts,
                "projected everything"
            );
        }
        self.count().await?;
        self.count_skipped().await?;
        self.show_last_verify().await?;
        self.pin_up(true).await?;
        self.count_models().await?;
        if !self.fenced {
            self.daemon.progress.copies.end(true);
        }
        self.daemon.progress.set_state(State::Streaming, None);
        self.heartbeat().await
    }

    async fn housekeeping(&mut self) -> Result<()> {
        self.ticks += 1;
        let every = |period: u64| self.ticks.is_multiple_of(period);
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
            let done = self.target.client().execute(sql::OLD_AUDIT, &[&days]).await;
            done.map_err(on(Side::Target, "delete old audit rows"))?;
        }
        if heartbeat {
            self.heartbeat().await?;
        }
        if counts {
            self.count().await?;
            self.count_skipped().await?;
        }
        if counts || self.daemon.board.take_stale() || self.board_due <= Instant::now() {
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
        verify::ask_on_schedule(&self.target, &config.policy.verify).await
    }

    /// Retries what could not be written, less often the longer it fails: the difference for those entities.
    async fn retry_dead_letters(&mut self) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let due = failures::due(&self.target).await?;
        for kind in due.unknown {
            // Said once a session: it stays as it is, and is due for ever.
            if self.left_alone.insert(kind.clone()) {
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
        target.execute("begin a retry", "begin").await?;
        checkpoint::begin(target, self.epoch, self.end_lsn).await?;
        let stamp = self.stamp(self.end_lsn);
        let outcome = projection.apply(target, Scope::These(&touched), stamp).await?;
        self.commit_own(&outcome, &self.projected_with).await?;
        self.daemon.board.mark_stale();
        self.count().await
    }

    /// Counts at once when something went wrong; otherwise the timer does.
    pub(super) async fn note(&self, outcome: &Outcome) -> Result<()> {
        if outcome.failed + outcome.conflicts + outcome.kept_admins == 0 {
            return Ok(());
        }
        self.daemon.board.mark_stale();
        self.count().await
    }

    async fn count(&self) -> Result<()> {
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
    async fn count_skipped(&self) -> Result<()> {
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
    async fn count_models(&self) -> Result<()> {
        let metrics = &self.daemon.metrics;
        if let Some(projection) = &self.projection {
            let report = crate::observe::status::models(&self.target, projection.layout()).await?;
            metrics.models.set(report.known);
            metrics.public_models.set(i64::try_from(report.public.len()).unwrap_or(i64::MAX));
            self.daemon.board.set_models(report);
        }
        Ok(())
    }

    /// Brings the board up to date; `counts`: with what takes reading whole tables. Never more than a small part of our
    /// time, however slow the database.
    async fn pin_up(&mut self, counts: bool) -> Result<()> {
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
        let audit = audit::tail(target, self.audit_seen, limit).await?;
        let newest = audit.first().map(|entry| entry.id);
        board.read(report, failures, audit, self.audit_seen.is_none());
        self.audit_seen = newest.or(self.audit_seen);
        self.board_due = Instant::now() + BOARD_INTERVAL.max(started.elapsed() * 100);
        Ok(())
    }

    /// Tells `status` how we are.
    async fn heartbeat(&self) -> Result<()> {
        let layout = self.projection.as_ref().map(|projection| projection.layout().describe());
        heartbeat(&self.target, self.daemon.instance, &self.daemon.progress.status(), layout).await
    }
}

/// Takes the time of the stages of a batch, one after the other.
struct Watch<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl<'a> Watch<'a> {
    fn start(metrics: &'a Metrics) -> Self {
        Self { metrics, since: Instant::now() }
    }

    fn took(&mut self, stage: metrics::Stage) {
        let now = Instant::now();
        self.metrics.took(stage, now - self.since);
        self.since = now;
    }
}

/// Writes what `status` reads when the daemon's own pages are out of reach.
pub(super) async fn heartbeat(
    target: &Target,
    instance: uuid::Uuid,
    status: &Status,
    layout: Option<String>,
) -> Result<()> {
    let done = target
        .client()
        .execute(sql::HEARTBEAT, &[&instance.to_string(), &status.state.name(), &status.reason, &layout])
        .await;
    done.map_err(on(Side::Target, "write the heartbeat"))?;
    Ok(())
}
