//! mirror → project → checkpoint: one target transaction per batch.
//!
//! Owns the target session of the leader. Everything a batch does commits with its checkpoint, or
//! not at all; the source is told only after the commit. What the session does between batches stands in files beside
//! this one: finding the projection, batches of our own, the last answer of `/v1/models`. Contains no SQL.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{mpsc, watch};

use super::Daemon;
use super::models::Polled;
use super::own::{Handed, Orders};
use super::pieces::Next;
use super::short::Short;
use super::since::Since;
use super::statistics::Renewal;
use crate::config::Config;
use crate::copy::request;
use crate::error::Result;
use crate::failpoint;
use crate::mirror;
use crate::mirror::budgets::Crossed;
use crate::observe::metrics::{self, Metrics};
use crate::observe::progress::State;
use crate::position::{BatchEnd, Lsn};
use crate::postgres::error_chain;
use crate::project::{MANY, Outcome, Projection, Scope, Stamp};
use crate::sql::TouchedFrom;
use crate::stage::Part;
use crate::stage::budget::Moves;
use crate::target::Target;
use crate::target::brake;
use crate::target::checkpoint::{self, Checkpoint};
use crate::target::open_webui::{self, People};

/// So many changes let tables that were next to empty look quite different.
pub(super) const GROWTH: u64 = 100;
/// How often a session with nothing to do shows that it lives: well within the patience of sql/target/break_lease.sql.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);
/// Up to so many keys of one batch, each entity has an audit row of its own; above, each operation has one with their number, as in
/// a copy.
const AUDIT_EACH: i64 = 10_000;

pub(super) struct Applier {
    pub(super) daemon: Arc<Daemon>,
    pub(super) target: Target,
    pub(super) epoch: i64,
    pub(super) end_lsn: Lsn,
    /// What the Open WebUI rows were last made with.
    pub(super) projected_with: String,
    /// `None` while Open WebUI has no tables or no admin yet.
    pub(super) projection: Option<Projection>,
    /// Whom the projection was found for.
    pub(super) people: Option<People>,
    pub(super) polled: Polled,
    acknowledge: watch::Sender<Lsn>,
    /// A brake was open when this session began.
    pub(super) was_braked: bool,
    /// This session only catches up with a copy that was just made.
    pub(super) fenced: bool,
    /// A batch that comes in parts has begun.
    pub(super) large: bool,
    pub(super) short: Short,
    /// Keys that expired before this have had their effect.
    pub(super) expired_through: Option<SystemTime>,
    pub(super) orders: Orders,
    /// Since both ends last stood still, while somebody looks at what there was.
    pub(super) since: Option<Since>,
    /// What is to be said of budgets before the stream.
    budgets: Moves,
    /// Changes of this session, and at how many the planner's statistics may be too old.
    changes: u64,
    renew_at: u64,
    pub(super) renewal: Renewal,
}

impl Applier {
    pub(super) fn new(
        daemon: Arc<Daemon>,
        target: Target,
        known: &Checkpoint,
        epoch: i64,
        acknowledge: watch::Sender<Lsn>,
        polled: Polled,
        orders: Orders,
    ) -> Self {
        Self {
            daemon,
            target,
            epoch,
            end_lsn: known.end_lsn,
            projected_with: known.projected_with.clone(),
            projection: None,
            people: None,
            polled,
            acknowledge,
            was_braked: true,
            fenced: false,
            large: false,
            short: Short::default(),
            expired_through: known.expired_through,
            orders,
            since: None,
            budgets: Moves::default(),
            changes: 0,
            renew_at: GROWTH,
            renewal: Renewal::default(),
        }
    }

    /// For a session that ends at the point of a copy: the request for it is being worked on.
    pub(super) fn fenced(mut self, fenced: bool) -> Self {
        self.fenced = fenced;
        self
    }

    /// Says this of budgets before anything of the stream.
    pub(super) fn saying(mut self, budgets: Moves) -> Self {
        self.budgets = budgets;
        self
    }

    /// Applies parts until the channel closes.
    pub(super) async fn run(mut self, mut parts: mpsc::Receiver<Handed>) -> Result<()> {
        self.target.write_in_transactions_only().await?;
        self.was_braked = brake::is_open(&self.target).await?;
        if self.projected_with == checkpoint::PENDING {
            // Everybody is about to be given what they may use: not what a used-up budget takes.
            self.resume_budgets().await?;
        }
        self.find_projection().await?;
        // Before anything new: what expired while nobody was here, and whose budget was used up or raised.
        self.expire_keys().await?;
        self.resume_budgets().await?;
        loop {
            // Whatever is ready has the same chance: a stream that never pauses starves nobody.
            tokio::select! {
                handed = parts.recv() => {
                    // A batch whose end never came is rolled back with the session.
                    let handed = match handed.map(Next::from) {
                        Some(Next::Piece(piece)) => Box::pin(self.apply_pieces(piece, &mut parts)).await?,
                        Some(Next::Other(other)) => Some(other),
                        None => None,
                    };
                    match handed {
                        None => return Ok(()),
                        Some(Handed::Part(part)) => Box::pin(self.apply(part)).await?,
                        Some(Handed::Still(still)) => self.stand_still(still).await,
                    }
                },
                Some(order) = self.orders.next(), if !self.large => Box::pin(self.follow(order)).await?,
                () = self.polled.next(), if !self.large => self.models_answered().await?,
                () = tokio::time::sleep(SIGN_OF_LIFE), if !self.large => {
                    self.target.ask_nothing("show that we live").await?;
                }
            }
        }
    }

    /// What the budgets are by now, ahead of the stream that tells how they came to be that.
    async fn resume_budgets(&mut self) -> Result<()> {
        let moves = std::mem::take(&mut self.budgets);
        if moves.is_empty() {
            return Ok(());
        }
        let end = BatchEnd::at(self.end_lsn);
        Box::pin(self.apply_small(&Part::of_budgets(moves, end), end)).await
    }

    async fn apply(&mut self, part: Part) -> Result<()> {
        for request in &part.requests {
            let note = request::record(&self.target, request);
            if self.large {
                // In the transaction that is open: ending it would commit the pieces that are written.
                note.await?;
            } else {
                self.target.alone("note a resnapshot", note).await?;
            }
            self.orders.look_soon();
        }
        if let Some(since) = &mut self.since {
            since.note(&part);
        }
        let Some(end) = part.end else { return self.apply_piece(&part).await };
        let started = Instant::now();
        if self.large || !part.is_whole() {
            self.apply_large(&part, end).await?;
        } else if part.has_rows() {
            if part.truncates() || self.has_failed_here() {
                self.apply_large(&part, end).await?;
            } else if !Box::pin(self.apply_short(&part, end)).await? {
                Box::pin(self.apply_small(&part, end)).await?;
            }
        } else if self.was_braked {
            // What was held may have been repaired without a row that is mirrored: only a batch that is held against the brake releases it.
            Box::pin(self.apply_small(&part, end)).await?;
        } else {
            checkpoint::advance(&self.target, self.epoch, self.end_lsn, end).await?;
        }
        if self.was_braked {
            self.was_braked = brake::is_open(&self.target).await?;
            if !self.was_braked && self.projection.is_some() {
                self.daemon.progress.set_state(State::Streaming, None);
                self.orders.look_soon();
            }
        }
        self.committed(end, started);
        Ok(())
    }

    /// Whether a session before this one failed at this position: what is short of patience there is not tried again so.
    fn has_failed_here(&self) -> bool {
        self.daemon.metrics.same_position_restarts.get() > 0
    }

    /// A batch that is in memory as a whole, and touches so many that it is no small one all the same.
    async fn apply_large(&mut self, part: &Part, end: BatchEnd) -> Result<()> {
        self.apply_piece(part).await?;
        self.finish_large(part, end).await
    }

    /// A batch that is in memory as a whole.
    pub(super) async fn apply_small(&mut self, part: &Part, end: BatchEnd) -> Result<()> {
        let target = &self.target;
        let mut watch = Watch::start(&self.daemon.metrics);
        let stamp = self.stamp(end.end_lsn);
        let writes = mirror::prepare(target, part, TouchedFrom::Arrays).await?;
        mirror::budgets::prepare(target, &part.budgets).await?;
        checkpoint::prepare(target).await?;
        // Sent together: the lock comes before the first write, and nothing is committed unless every
        // answer was fine. Without the first nothing can be written: see `run`.
        let (begun, locked, held, touched, budgets) = tokio::join!(
            target.begin_small(),
            checkpoint::begin(target, self.epoch, self.end_lsn),
            self.hold_open_webui(),
            writes.send(target),
            mirror::budgets::write(target, &part.budgets, stamp.now, stamp.lsn),
        );
        begun?;
        locked?;
        held?;
        let mut touched = touched?;
        let (by_budget, crossed) = budgets?;
        touched.add_rights(by_budget);
        // How few the rows are says nothing of how many they touch.
        if mirror::reach(target, &touched, MANY).await? > MANY {
            target.roll_back("roll a batch back").await?;
            return Box::pin(self.apply_large(part, end)).await;
        }
        mirror::propagate(target, &mut touched).await?;
        if touched.reach() > MANY {
            target.roll_back("roll a batch back").await?;
            return Box::pin(self.apply_large(part, end)).await;
        }
        watch.took(metrics::Stage::Mirror);
        failpoint::hit(failpoint::STAGED_NOT_PROJECTED)?;
        if touched.all_rights {
            self.polled.ask_again();
        }
        if touched.all_rights || touched.shared {
            self.renewal.wait().await;
        }
        let outcome = match &self.projection {
            Some(projection) => Box::pin(projection.apply(target, Scope::These(&touched), stamp)).await?,
            None => Outcome::default(),
        };
        self.hold_against_brake(&outcome, end.end_lsn).await?;
        failpoint::hit(failpoint::PROJECTED_NOT_COMMITTED)?;
        watch.took(metrics::Stage::Project);
        checkpoint::commit(target, self.epoch, end, &self.projected_with).await?;
        watch.took(metrics::Stage::Commit);
        self.count_crossed(&crossed);
        self.daemon.metrics.projected(&outcome);
        self.note(&outcome).await
    }

    fn count_crossed(&self, crossed: &Crossed) {
        self.daemon.metrics.crossed(crossed);
        if *crossed != Crossed::default() {
            tracing::info!(closed = ?crossed.closed, opened = ?crossed.opened, "budgets were crossed");
            self.show_soon();
        }
    }

    /// Where this batch is projected: proves that Open WebUI's tables are those that were found, and keeps them so.
    async fn hold_open_webui(&self) -> Result<()> {
        if self.projection.is_none() {
            return Ok(());
        }
        open_webui::hold(&self.target, self.people).await
    }

    /// Locks the checkpoint for a batch of our own, whose transaction has begun.
    pub(super) async fn begin_own(&self) -> Result<()> {
        checkpoint::begin(&self.target, self.epoch, self.end_lsn).await?;
        self.hold_open_webui().await
    }

    async fn finish_large(&mut self, part: &Part, end: BatchEnd) -> Result<()> {
        self.renewal.wait().await;
        let target = &self.target;
        let mut watch = Watch::start(&self.daemon.metrics);
        // The pieces were written by look-ups, each small beside the tables. What follows is not.
        target.plan_large().await?;
        self.hold_open_webui().await?;
        let stamp = self.stamp(end.end_lsn);
        let (touched, crossed) = mirror::budgets::write(target, &part.budgets, stamp.now, stamp.lsn).await?;
        mirror::note(target, &touched).await?;
        let noted = mirror::propagate_noted(target).await?;
        if noted.all_rights {
            self.polled.ask_again();
        }
        // A team's models are one row, and the tables are what they were.
        let many = u64::try_from(MANY).unwrap_or(u64::MAX);
        let is_much = end.changes > many || !noted.only_models && noted.keys.unsigned_abs() > many;
        if is_much {
            target.analyze_ours(&self.daemon.config.schema).await?;
        }
        watch.took(metrics::Stage::Mirror);
        failpoint::hit(failpoint::STAGED_NOT_PROJECTED)?;
        let outcome = match &self.projection {
            Some(projection) => {
                let stamp = Stamp { audit_each: noted.keys <= AUDIT_EACH, ..stamp };
                let scope = if noted.only_models { Scope::Models } else { Scope::Touched };
                projection.apply(target, scope, stamp).await?
            }
            None => Outcome::default(),
        };
        let held = self.hold_against_brake(&outcome, end.end_lsn).await;
        if held.is_err() && is_much {
            // Rolled back, and part of what was just analyzed is not.
            let Config { schema, webui_schema, .. } = &self.daemon.config;
            if let Err(error) = target.analyze_all(schema, Some(webui_schema)).await {
                // What holds the batch is what has to be said.
                tracing::debug!(error = error_chain(&error), "could not renew the statistics");
            }
        }
        held?;
        failpoint::hit(failpoint::PROJECTED_NOT_COMMITTED)?;
        watch.took(metrics::Stage::Project);
        checkpoint::commit(target, self.epoch, end, &self.projected_with).await?;
        watch.took(metrics::Stage::Commit);
        self.large = false;
        if is_much {
            self.renewal.begin(&self.daemon);
        }
        self.count_crossed(&crossed);
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
        self.changes += end.changes;
        if self.changes >= self.renew_at {
            self.renew_at = self.changes + self.changes / 5 + GROWTH;
            self.orders.look_soon();
        }
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

    /// Stops before the commit when unusually many people would lose something at once.
    pub(super) async fn hold_against_brake(&self, outcome: &Outcome, end_lsn: Lsn) -> Result<()> {
        brake::hold(
            &self.target,
            &self.daemon.config.policy.brake,
            outcome.losing(),
            end_lsn,
            self.was_braked,
            None,
            |brake| self.daemon.say_held_back(brake),
        )
        .await
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
