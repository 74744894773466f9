//! mirror → project → checkpoint: one target transaction per batch.
//!
//! Owns the target session of the leader. Everything a batch does commits with its checkpoint, or
//! not at all; the source is told only after the commit.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use super::Daemon;
use super::models::Polled;
use crate::catalog::Lsn;
use crate::checkpoint::{self, Checkpoint, PENDING};
use crate::error::{Error, Result, Side, on};
use crate::failpoint;
use crate::mirror;
use crate::progress::{State, Status};
use crate::project::layout;
use crate::project::touched::Touched;
use crate::project::{MANY, Outcome, Projection, Scope, Stamp};
use crate::sql::Keys;
use crate::stage::{BatchEnd, Part};
use crate::target::Target;

const TICK: Duration = Duration::from_secs(1);
const DEAD_LETTERS_EVERY: u64 = 15;
/// Well within the patience of sql/target/break_lease.sql.
const HEARTBEAT_EVERY: u64 = 4;
const COUNTS_EVERY: u64 = 15;
const RECONCILE_EVERY: u64 = 600;
const RETENTION_EVERY: u64 = 3600;

pub(super) struct Applier {
    pub(super) daemon: Arc<Daemon>,
    pub(super) target: Target,
    pub(super) epoch: i64,
    pub(super) end_lsn: Lsn,
    /// What the Open WebUI rows were last made with.
    pub(super) projected_with: String,
    /// `None` while Open WebUI has no tables or no admin yet.
    pub(super) projection: Option<Projection>,
    pub(super) polled: Polled,
    acknowledge: watch::Sender<Lsn>,
    /// A brake was open when this session began.
    was_braked: bool,
    /// A batch that comes in parts has begun.
    large: bool,
    ticks: u64,
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
            projection: None,
            polled,
            acknowledge,
            was_braked: true,
            large: false,
            ticks: 0,
        }
    }

    /// Applies parts until the channel closes.
    pub(super) async fn run(mut self, mut parts: mpsc::Receiver<Part>) -> Result<()> {
        let text = "select exists (select from brake where used_at is null)";
        let row = self.target.client().query_one(text, &[]).await;
        self.was_braked = row.map_err(on(Side::Target, "look at the brake"))?.get(0);
        self.find_projection().await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                part = parts.recv() => match part {
                    Some(part) => self.apply(part).await?,
                    // A batch whose end never came is rolled back with the session.
                    None => return Ok(()),
                },
                () = self.polled.next(), if !self.large => self.models_answered().await?,
                _ = tick.tick(), if !self.large => self.housekeeping().await?,
            }
        }
    }

    async fn apply(&mut self, part: Part) -> Result<()> {
        let Some(end) = part.end else { return self.apply_piece(&part).await };
        let started = Instant::now();
        if self.large || !part.is_whole() {
            self.apply_piece(&part).await?;
            self.finish_large(end).await?;
        } else if part.has_rows() {
            self.apply_small(&part, end).await?;
        } else {
            checkpoint::advance(&self.target, self.epoch, self.end_lsn, end).await?;
        }
        self.committed(end, started);
        Ok(())
    }

    /// A batch that is in memory as a whole.
    async fn apply_small(&mut self, part: &Part, end: BatchEnd) -> Result<()> {
        let target = &self.target;
        let writes = mirror::prepare(target, part, Keys::Arrays).await?;
        checkpoint::prepare(target).await?;
        // Sent together: the lock comes before the first write, and nothing is committed unless every
        // answer was fine.
        let (begun, locked, touched) = tokio::join!(
            target.execute("begin a batch", "begin"),
            checkpoint::begin(target, self.epoch, self.end_lsn),
            writes.send(target),
        );
        begun?;
        locked?;
        let mut touched = touched?;
        mirror::propagate(target, &mut touched, Keys::Arrays).await?;
        failpoint::hit(failpoint::STAGED_NOT_PROJECTED)?;
        if touched.all_access {
            self.polled.ask_again();
        }
        if touched.len() > MANY {
            target.plan_large().await?;
        }
        let outcome = match &self.projection {
            Some(projection) => {
                let stamp = Stamp { now: SystemTime::now(), lsn: end.end_lsn, audit_each: true };
                projection.apply(target, Scope::These(&touched), stamp).await?
            }
            None => Outcome::default(),
        };
        self.hold_against_brake(&outcome, end.end_lsn).await?;
        failpoint::hit(failpoint::PROJECTED_NOT_COMMITTED)?;
        checkpoint::commit(target, self.epoch, end, &self.projected_with).await?;
        self.daemon.metrics.projected(&outcome);
        self.note(&outcome).await
    }

    /// One part of a batch that is too large to hold: only our own tables are written yet.
    async fn apply_piece(&mut self, part: &Part) -> Result<()> {
        let target = &self.target;
        if !self.large {
            // No index: whoever reads it sorts out the repetitions.
            let text = "create temporary table if not exists touched (kind text, id text collate \"C\")
                        on commit delete rows;
                        begin; set local plan_cache_mode = force_custom_plan";
            target.execute("prepare for a large batch", text).await?;
            checkpoint::begin(target, self.epoch, self.end_lsn).await?;
            self.large = true;
        }
        let writes = mirror::prepare(target, part, Keys::Touched).await?;
        writes.send(target).await?;
        Ok(())
    }

    async fn finish_large(&mut self, end: BatchEnd) -> Result<()> {
        let target = &self.target;
        // The pieces were written by look-ups, each small beside the tables. What follows is not.
        target.plan_large().await?;
        target.execute("analyze the touched keys", "analyze touched").await?;
        mirror::propagate(target, &mut Touched::default(), Keys::Touched).await?;
        mirror::check_missing(target).await?;
        failpoint::hit(failpoint::STAGED_NOT_PROJECTED)?;
        let outcome = match &self.projection {
            Some(projection) => {
                target.execute("analyze the touched keys", "analyze touched").await?;
                let stamp = Stamp { now: SystemTime::now(), lsn: end.end_lsn, audit_each: true };
                projection.apply(target, Scope::Touched, stamp).await?
            }
            None => Outcome::default(),
        };
        self.hold_against_brake(&outcome, end.end_lsn).await?;
        failpoint::hit(failpoint::PROJECTED_NOT_COMMITTED)?;
        checkpoint::commit(target, self.epoch, end, &self.projected_with).await?;
        self.large = false;
        self.daemon.metrics.projected(&outcome);
        self.note(&outcome).await
    }

    fn committed(&mut self, end: BatchEnd, started: Instant) {
        self.end_lsn = end.end_lsn;
        let Daemon { metrics, progress, .. } = &*self.daemon;
        metrics.transactions.inc_by(end.transactions);
        metrics.changes.inc_by(end.changes);
        metrics.batches.inc();
        metrics.batch_seconds.observe(started.elapsed().as_secs_f64());
        if end.transactions > 0
            && let Some(at) = end.committed_at
            && let Ok(age) = at.elapsed()
        {
            metrics.commit_to_visible_seconds.observe(age.as_secs_f64());
        }
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
        let stamp = Stamp { now: SystemTime::now(), lsn: self.end_lsn, audit_each };
        let outcome = projection.apply(target, Scope::Everything, stamp).await?;
        self.hold_against_brake(&outcome, self.end_lsn).await?;
        let end = BatchEnd { end_lsn: self.end_lsn, transactions: 0, changes: 0, committed_at: None };
        checkpoint::commit(target, self.epoch, end, projected_with).await?;
        projected_with.clone_into(&mut self.projected_with);
        self.daemon.metrics.projected(&outcome);
        Ok(outcome)
    }

    /// Stops before the commit when unusually many people would be locked out at once (DESIGN invariant 8).
    pub(super) async fn hold_against_brake(&self, outcome: &Outcome, end_lsn: Lsn) -> Result<()> {
        let policy = &self.daemon.config.policy.brake;
        // Locked out, or left without any group of ours or any model; most often the same people.
        let people = outcome.departing + outcome.stripped.max(outcome.access.stripped);
        let client = self.target.client();
        let action = "hold a batch against the brake";
        if people <= i64::from(policy.people) {
            return self.release_brake(end_lsn).await;
        }
        // Those who depart are marked already; before, they were active.
        let row = client.query_one("select count(*) from account where active", &[]).await;
        let active = row.map_err(on(Side::Target, action))?.get::<_, i64>(0) + outcome.departing;
        let limit = i64::from(policy.people).max(active * i64::from(policy.percent) / 100);
        if people <= limit {
            return self.release_brake(end_lsn).await;
        }
        // An approval lets as many pass as it was given for, and the usual number on top.
        let text = "update brake set used_at = now()
                     where id = (select id from brake where approved_at is not null and used_at is null
                                    and people + $2::bigint >= $1::bigint order by id limit 1) returning id";
        let row = client.query_opt(text, &[&people, &limit]).await.map_err(on(Side::Target, action))?;
        if row.is_some() {
            return Ok(());
        }
        client.batch_execute("rollback").await.map_err(on(Side::Target, action))?;
        // One open brake at a time, however often the batch is tried.
        let text = "with open as (
                        update brake set end_lsn = $1, people = $2::bigint::int, active = $3::bigint::int
                         where approved_at is null and used_at is null returning id
                    ), raised as (
                        insert into brake (end_lsn, people, active, reason)
                        select $1, $2::bigint::int, $3::bigint::int, 'accounts to be locked or left without groups or models'
                         where not exists (select from open) returning id
                    )
                    select id from open union all select id from raised";
        let row = client.query_one(text, &[&end_lsn, &people, &active]).await;
        let id = row.map_err(on(Side::Target, action))?.get(0);
        Err(Error::Brake { id, people, active })
    }

    /// A brake that this batch gets past without needing it is over: an approval given later must not be kept for
    /// some other accident.
    async fn release_brake(&self, end_lsn: Lsn) -> Result<()> {
        if !self.was_braked {
            return Ok(());
        }
        let text = "update brake set used_at = now() where used_at is null and end_lsn <= $1";
        let done = self.target.client().execute(text, &[&end_lsn]).await;
        done.map_err(on(Side::Target, "release the brake"))?;
        Ok(())
    }

    /// Finds the layout, and whether Open WebUI is ready to be written.
    async fn find_projection(&mut self) -> Result<()> {
        let Daemon { config, progress, .. } = &*self.daemon;
        let found = match layout::find(&self.target, config).await {
            Ok(found) => found,
            Err(error @ Error::NoOpenWebUi { .. }) => {
                progress.set_state(State::Waiting, Some(error.to_string()));
                return self.heartbeat().await;
            }
            Err(error) => return Err(error),
        };
        if self.projected_with == PENDING {
            // The first account to sign up becomes admin only if it is alone in the table.
            let text = "select exists (select from \"user\" where role = 'admin')";
            let row = self.target.client().query_one(text, &[]).await;
            if !row.map_err(on(Side::Target, "look for an admin"))?.get::<_, bool>(0) {
                let reason = "Open WebUI has no admin yet: sign up there first";
                progress.set_state(State::Waiting, Some(reason.to_owned()));
                return self.heartbeat().await;
            }
        }
        let models = super::models::rules(&self.target, config, &found).await?;
        let with = format!(
            "{}/{}/{}/{}",
            config.policy.fingerprint(),
            found.describe(),
            models.prefix,
            env!("CARGO_PKG_VERSION")
        );
        self.projection = Some(Projection::new(found, models));
        if self.projected_with != with {
            let first = self.projected_with == PENDING;
            tracing::info!(first, "projecting everything");
            let outcome = self.apply_everything(&with, !first).await?;
            tracing::info!(
                created = outcome.accounts_created,
                linked = outcome.accounts_linked,
                updated = outcome.accounts_updated,
                groups = outcome.groups_written,
                members = outcome.members_added,
                conflicts = outcome.conflicts,
                "projected everything"
            );
        }
        self.daemon.progress.set_state(State::Streaming, None);
        self.heartbeat().await?;
        self.count().await
    }

    async fn housekeeping(&mut self) -> Result<()> {
        self.ticks += 1;
        let every = |period: u64| self.ticks.is_multiple_of(period);
        let (letters, heartbeat, counts) =
            (every(DEAD_LETTERS_EVERY), every(HEARTBEAT_EVERY), every(COUNTS_EVERY));
        let (reconcile, retention) = (every(RECONCILE_EVERY), every(RETENTION_EVERY));
        if self.projection.is_none() {
            self.find_projection().await?;
        }
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
            let text = "delete from sync_audit where created_at < now() - make_interval(days => $1)";
            let done = self.target.client().execute(text, &[&days]).await;
            done.map_err(on(Side::Target, "delete old audit rows"))?;
        }
        if heartbeat {
            self.heartbeat().await?;
        }
        if counts {
            self.count().await?;
        }
        Ok(())
    }

    /// Retries what could not be written, less often the longer it fails: the difference for those entities.
    async fn retry_dead_letters(&mut self) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let text = "select kind, key from dead_letter
                     where last_seen < now() - least(3600, 10 * 2 ^ least(attempts, 10)) * interval '1 second'
                     order by last_seen limit 500";
        let rows =
            self.target.client().query(text, &[]).await.map_err(on(Side::Target, "list dead letters"))?;
        let mut touched = Touched::default();
        for row in &rows {
            let kind: &str = row.get(0);
            match kind {
                "account" | "last_admin" => touched.users.insert(row.get(1)),
                "access" => touched.access.insert(row.get(1)),
                "model" => !std::mem::replace(&mut touched.all_access, true),
                "team" => touched.teams.insert(row.get(1)),
                _ => touched.organizations.insert(row.get(1)),
            };
        }
        if touched.is_empty() && !touched.has_access() {
            return Ok(());
        }
        let target = &self.target;
        target.execute("begin a retry", "begin").await?;
        checkpoint::begin(target, self.epoch, self.end_lsn).await?;
        let stamp = Stamp { now: SystemTime::now(), lsn: self.end_lsn, audit_each: true };
        let outcome = projection.apply(target, Scope::These(&touched), stamp).await?;
        self.hold_against_brake(&outcome, self.end_lsn).await?;
        let end = BatchEnd { end_lsn: self.end_lsn, transactions: 0, changes: 0, committed_at: None };
        checkpoint::commit(target, self.epoch, end, &self.projected_with).await?;
        self.daemon.metrics.projected(&outcome);
        self.count().await
    }

    /// Counts at once when something went wrong; otherwise the timer does.
    pub(super) async fn note(&self, outcome: &Outcome) -> Result<()> {
        if outcome.failed + outcome.conflicts + outcome.kept_admins > 0 { self.count().await } else { Ok(()) }
    }

    async fn count(&self) -> Result<()> {
        let Daemon { metrics, progress, .. } = &*self.daemon;
        let text =
            "select (select count(*) from dead_letter), (select count(*) from dead_letter where critical),
                           (select count(*) from skipped), (select count(*) from account where active)";
        let row = self.target.client().query_one(text, &[]).await;
        let row = row.map_err(on(Side::Target, "count dead letters"))?;
        metrics.dead_letters.set(row.get(0));
        metrics.critical_dead_letters.set(row.get(1));
        metrics.skipped.set(row.get(2));
        metrics.active_accounts.set(row.get(3));
        progress.set_critical(u64::try_from(row.get::<_, i64>(1)).unwrap_or_default());
        if let Some(projection) = &self.projection {
            let report = crate::status::models(&self.target, projection.layout()).await?;
            metrics.models.set(report.known);
            metrics.public_models.set(i64::try_from(report.public.len()).unwrap_or(i64::MAX));
        }
        Ok(())
    }

    /// Tells `status` how we are.
    async fn heartbeat(&self) -> Result<()> {
        let layout = self.projection.as_ref().map(|projection| projection.layout().describe());
        heartbeat(&self.target, self.daemon.instance, &self.daemon.progress.status(), layout).await
    }
}

/// Writes what `status` reads when the daemon's own pages are out of reach.
pub(super) async fn heartbeat(
    target: &Target,
    instance: uuid::Uuid,
    status: &Status,
    layout: Option<String>,
) -> Result<()> {
    let text = "insert into daemon (instance, state, reason, layout) values ($1::text::uuid, $2, $3, $4)
                on conflict (one) do update set instance = excluded.instance, state = excluded.state,
                    reason = excluded.reason, layout = coalesce(excluded.layout, daemon.layout), heartbeat_at = now()";
    let done = target
        .client()
        .execute(text, &[&instance.to_string(), &status.state.name(), &status.reason, &layout])
        .await;
    done.map_err(on(Side::Target, "write the heartbeat"))?;
    Ok(())
}
