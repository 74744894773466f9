//! Wires the stages together and keeps them running: start, retry, stand by, drain.
//!
//! Owns the order of things. Contains no SQL and parses no bytes.
//!
//! One leader runs three tasks: `receive` (source → decode → stage), `apply` (mirror → project →
//! checkpoint) and `monitor` (the slot and the publication). The first to end ends the session; nothing held in memory
//! outlives it, because the checkpoint says where to go on.

mod apply;
mod looks;
mod models;
mod monitor;
pub mod poll;
mod receive;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::budgets::{self, Budgets};
use crate::config::Config;
use crate::copy::backfill::{self, Occasion};
use crate::copy::register::{CopyKind, CopyPhase};
use crate::copy::request;
use crate::copy::resnapshot;
use crate::error::{Error, Reaction, Result};
use crate::observe::board::Board;
use crate::observe::metrics::{Metrics, Publication};
use crate::observe::progress::{Progress, State};
use crate::position::Lsn;
use crate::postgres::error_chain;
use crate::source::overlap::Overlap;
use crate::source::publication::columns_fingerprint;
use crate::source::session::Session;
use crate::source::start::{Facts, Start, check, decide};
use crate::source::{Source, SourceTable};
use crate::stage::signatures::Signatures;
use crate::target::Target;
use crate::target::brake;
use crate::target::checkpoint::{self, Checkpoint};
use crate::target::pause;
use crate::target::policy;
use crate::target::schema;

/// What every task of the daemon shares.
#[derive(Debug)]
pub struct Daemon {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub budgets: Arc<Budgets>,
    pub board: Arc<Board>,
    /// This process, for `status` and for telling sessions apart.
    pub instance: uuid::Uuid,
    /// Drop rows that say nothing new before they cost a round trip. On unless a test says otherwise.
    pub remember_rows: bool,
}

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
/// How soon we look again whether a standby of ours was promoted, at the latest.
const PROMOTION_DELAY: Duration = Duration::from_secs(2);

impl Daemon {
    /// Runs until cancelled, or until something stops it that waiting cannot cure.
    ///
    /// # Errors
    /// An error whose reaction is [`Reaction::Stop`].
    pub async fn run(self: Arc<Self>, cancel: CancellationToken) -> Result<()> {
        let ended = cancel.child_token();
        let _end = ended.clone().drop_guard();
        tokio::spawn(watch_lag(Arc::clone(&self.progress), Arc::clone(&self.board), ended));
        let mut backoff = Backoff { attempt: 0 };
        let mut braked_at: Option<Instant> = None;
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
                    return Ok(());
                }
                Err(error) => error,
            };
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
                () = cancel.cancelled() => return Ok(()),
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
                let remedy = error.remedy().unwrap_or_default();
                if self.progress.status().state != State::Braked {
                    tracing::error!(error = reason, remedy, "held back");
                }
                self.progress.set_state(State::Braked, Some(format!("{reason}; {remedy}")));
                Some(Duration::from_secs(2))
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
            (_, Reaction::Stop) => {
                let remedy = error.remedy().unwrap_or_default();
                tracing::error!(error = reason, remedy, "stopped");
                self.progress.set_state(State::Stopped, Some(reason));
                None
            }
        }
    }

    /// One session as leader: everything from the first connection to the first error.
    async fn lead(self: Arc<Self>, cancel: CancellationToken) -> Result<()> {
        let config = &self.config;
        let source = Source::open_since(config, self.progress.timeline()).await?;
        let server = source.server().await?;
        if server.timeline.is_none() {
            return Err(Error::Standby);
        }
        let slot = source.slot(&config.slot).await?;
        if slot.as_ref().is_some_and(|slot| slot.active) {
            // Somebody else leads. Nothing of theirs is touched: not their schema, not their views, not their policy.
            return Err(Error::SlotHeld { slot: config.slot.clone() });
        }
        let target = Target::open(config).await?;
        if !target.take_lease(&config.schema).await? {
            return Err(Error::LeaseHeld);
        }
        schema::ensure(&target, config).await?;
        let mut known = checkpoint::read(&target).await?;

        if server.wal_level != "logical" {
            return Err(Error::WalLevel { found: server.wal_level });
        }
        let tables = source.tables(config).await?;
        self.board.set_servers(server.version, target.server_version().await?, tables.len());
        let name = format!("litellm-webui-sync {}", self.instance.simple());
        // Not from the checkpoint: what the slot sends again before it tells whether the history is ours. Where it must not
        // be streamed from, `decide` says so.
        let mut start = slot.as_ref().and_then(|slot| slot.confirmed_flush_lsn).unwrap_or(Lsn::from(0));
        let mut session = Session::open(config, &source.endpoint, &name, start).await?;
        let identity = session.identify().await?;
        let unfinished_copy = backfill::is_unfinished(&target, &config.slot).await?;
        let followed = known.as_ref().map_or(identity.timeline, |known| known.generation.timeline);
        self.progress.set_timeline(followed);
        if identity.timeline < followed && config.source.addresses.len() > 1 {
            // The next attempt passes it by.
            return Err(Error::OldTimeline { host: source.connection.address.to_string() });
        }
        let switch_point = if identity.timeline > followed {
            session.switch_point(identity.timeline, followed).await?
        } else {
            None
        };
        let mut facts = Facts {
            checkpoint: known.as_ref(),
            unfinished_copy,
            slot: slot.as_ref(),
            slot_name: &config.slot,
            identity: &identity,
            database: &config.source.database,
            database_oid: server.database_oid,
            switch_point,
            columns_fingerprint: "",
        };
        check(&facts)?;
        if known.is_some() {
            self.progress.slot_is_ours();
        }
        pause::check(&target).await?;
        // This is our source and nobody else leads, so it is ours to repair what is missing. Distrusting the mirror
        // first: a crash in between must not leave a gap that nobody remembers.
        let mut publication = source.publication(config).await?;
        let mut distrusted = None;
        let repair = Source::publication_repair(config, publication.as_ref(), &tables)
            .inspect_err(|_| self.metrics.set_publication(Publication::Changed))?;
        if let Some(repair) = repair {
            if let Some(known) = &known {
                let because = format!("the publication {}", repair.problem);
                checkpoint::distrust(&target, known.generation.id, &because).await?;
            }
            tracing::info!(problem = repair.problem, "writing the publication");
            source.repair_publication(config, &repair).await?;
            publication = source.publication(config).await?;
            distrusted = checkpoint::read(&target).await?;
        }
        self.metrics.set_publication(Publication::Ok);
        let fingerprint = columns_fingerprint(&tables, &publication.unwrap_or_default());
        facts.columns_fingerprint = &fingerprint;
        facts.checkpoint = distrusted.as_ref().or(facts.checkpoint);
        let decision = decide(&facts)?;
        let mut signatures = self.remember_rows.then(Signatures::new);
        if let Start::Copy { reason, drop_slot, healing } = decision {
            if healing {
                self.may_heal(&source, &target, known.as_ref(), &reason, drop_slot).await?;
            }
            self.progress.set_state(State::Copying, Some(reason.clone()));
            self.metrics.copies.inc();
            let kind = if known.is_some() { CopyKind::Again } else { CopyKind::First };
            self.progress.copies.begin(kind, &reason, tables.len());
            // Not started: dropping it ends it.
            drop(session);
            let occasion = Occasion {
                reason: &reason,
                healing,
                drop_slot,
                system_identifier: &identity.system_identifier,
                timeline: identity.timeline,
                database_oid: server.database_oid,
                server_version: server.version,
                tables: &tables,
                columns_fingerprint: &fingerprint,
                application_name: &name,
                copies: &self.progress.copies,
            };
            // There was none, or it was ours: `check` would have stopped.
            self.progress.slot_is_ours();
            let copy = backfill::copy(config, &source, &target, &occasion, signatures.as_mut());
            tokio::select! {
                copied = copy => {
                    copied?;
                }
                () = cancel.cancelled() => return Ok(()),
            }
            known = checkpoint::read(&target).await?;
            start = known.as_ref().map_or(Lsn::from(0), |known| known.end_lsn);
            session = Session::open(config, &source.endpoint, &name, start).await?;
        }
        let Some(known) = known else {
            return Err(Error::Gap { reason: "the copy left no checkpoint".to_owned() });
        };
        let overlap = Overlap::new(start, known.end_lsn, known.committed_end.zip(known.committed_at));
        let copied = match request::pending(&target).await? {
            Some(pending) => {
                let copy = resnapshot::copy(
                    config,
                    &source,
                    &target,
                    pending,
                    &tables,
                    self.instance,
                    &self.progress.copies,
                );
                tokio::select! {
                    copied = copy => copied?,
                    () = cancel.cancelled() => return Ok(()),
                }
            }
            None => None,
        };
        tokio::select! {
            () = self.load_budgets(&source, &known, identity.timeline, &tables) => {}
            error = backfill::stay_alive(&target) => return Err(error),
            () = cancel.cancelled() => return Ok(()),
        }
        session.start().await?;
        // Copies may have taken long since we looked at it; from here on nobody else can move it.
        let slot = source.slot(&config.slot).await?;
        if slot.and_then(|slot| slot.confirmed_flush_lsn).is_some_and(|confirmed| confirmed > known.end_lsn) {
            return Err(Error::SlotAhead);
        }
        self.progress.set_timeline(identity.timeline);
        let epoch = checkpoint::take_lead(&target, &known, identity.timeline).await?;
        policy::write(&target, config).await?;
        self.progress.session_begins(known.end_lsn);
        self.metrics.sessions.inc();
        tracing::info!(lsn = %known.end_lsn, epoch, "streaming");

        let linger = self.progress.status().state == State::Braked;
        let fence = copied.as_ref().map(|copied| copied.point);
        let (parts, received) = mpsc::channel(1);
        let (acknowledge, committed) = watch::channel(known.end_lsn);
        let (answers, answered) = watch::channel(None);
        let again = Arc::new(Notify::new());
        let polled = models::Polled::new(answered, Arc::clone(&again));
        let applier = apply::Applier::new(Arc::clone(&self), target, &known, epoch, acknowledge, polled)
            .fenced(fence.is_some());
        let limits =
            crate::stage::Limits { rows: config.policy.batch.changes, bytes: config.policy.batch.bytes };
        let receiver =
            receive::Receiver::new(Arc::clone(&self), session, signatures, limits, parts, committed, linger)
                .stop_at(fence)
                .comparing(overlap);
        let endpoint = source.endpoint.clone();
        let watcher = monitor::Monitor::new(Arc::clone(&self), source, fingerprint).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(receiver.run(cancel.clone()));
        tasks.spawn(applier.run(received));
        tasks.spawn(watcher.run(cancel.clone()));
        let looks = looks::run(Arc::clone(&self), endpoint, cancel.clone());
        tasks.spawn(async move {
            looks.await;
            Ok(())
        });
        if let Some(api) = config.models_api.clone() {
            let period = Duration::from_secs(config.policy.models.poll_seconds);
            let poll = poll::run(api, period, Arc::clone(&self.metrics), answers, again, cancel.clone());
            tasks.spawn(async move {
                poll.await;
                Ok(())
            });
        }
        let mut outcome = Ok(());
        while let Some(ended) = first_ended(&mut tasks, outcome.is_ok()).await {
            match ended {
                // While draining, everybody ends by itself.
                Ok(Ok(())) if cancel.is_cancelled() => {}
                // Somebody's end ended this one: the reason is still to come.
                Ok(Ok(())) => outcome = Err(Error::Superseded),
                Ok(Err(error)) => {
                    outcome = Err(error);
                    break;
                }
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        tasks.shutdown().await;
        if let (Err(Error::AtFence), Some(copied)) = (&outcome, &copied) {
            let target = Target::open(config).await?;
            if !target.take_lease(&config.schema).await? {
                return Err(Error::LeaseHeld);
            }
            self.progress.copies.phase(CopyPhase::Merging);
            let merged = Box::pin(resnapshot::merge(config, &target, copied, epoch)).await?;
            self.progress.copies.end(merged.is_some());
            self.progress.touch_caught_up();
        }
        if let Err(error) = &outcome
            && error.needs_a_copy()
        {
            // The stream would meet it again for ever: go around it.
            let target = Target::open(config).await?;
            checkpoint::distrust(&target, known.generation.id, &error.to_string()).await?;
        }
        outcome
    }

    /// Whether everything may be copied again without being asked to: only so often, counted where a restart does not
    /// forget it.
    async fn may_heal(
        &self,
        source: &Source,
        target: &Target,
        known: Option<&Checkpoint>,
        reason: &str,
        drop_slot: bool,
    ) -> Result<()> {
        let limit = self.config.policy.source.healing_per_hour;
        if backfill::healed_lately(target).await? < i64::from(limit) {
            return Ok(());
        }
        if let Some(known) = known {
            checkpoint::distrust(target, known.generation.id, reason).await?;
        }
        if drop_slot {
            // Nobody will ever stream from it: it must not keep WAL while nobody is here.
            source.drop_slot(&self.config.slot).await?;
        }
        Err(Error::HealingLimit { reason: reason.to_owned(), limit })
    }

    /// Reads the budgets, unless the stream from here continues what is known of them. They are for looking at: what goes
    /// wrong stops nothing, so they have a connection of their own.
    async fn load_budgets(
        &self,
        source: &Source,
        known: &Checkpoint,
        timeline: i32,
        tables: &BTreeMap<String, SourceTable>,
    ) {
        if self.budgets.continues(known, timeline) {
            return;
        }
        let started = Instant::now();
        let read = async {
            let source = source.beside().await?;
            // What locks LiteLLM's tables must not keep a new leader from streaming.
            source.limit("set lock_timeout = '2s'").await?;
            budgets::load::read(&source, &self.config, tables).await
        };
        match read.await {
            Ok(book) => {
                let millis = started.elapsed().as_millis();
                tracing::info!(entities = book.len(), millis, "read the budgets");
                self.budgets.begin(book, known, timeline);
            }
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(error, "the budgets could not be read, and are not shown in this session");
                self.budgets.forget();
            }
        }
    }

    /// Fails while the pause that ended the last attempt goes on. Tells `status` that we wait.
    async fn still_paused(&self) -> Result<()> {
        let status = self.progress.status();
        if status.state != State::Paused {
            return Ok(());
        }
        let target = Target::open(&self.config).await?;
        apply::heartbeat(&target, self.instance, &status, None).await?;
        pause::check(&target).await
    }

    /// The brake that holds us, as long as it is not approved. Tells `status` that we wait.
    async fn open_brake(&self) -> Result<Option<Error>> {
        let status = self.progress.status();
        if status.state != State::Braked {
            return Ok(None);
        }
        let target = Target::open(&self.config).await?;
        apply::heartbeat(&target, self.instance, &status, None).await?;
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

/// The next task to end; once one has ended, the others are not waited for long.
async fn first_ended<T: 'static>(
    tasks: &mut JoinSet<T>,
    patiently: bool,
) -> Option<std::result::Result<T, tokio::task::JoinError>> {
    if patiently {
        return tasks.join_next().await;
    }
    tokio::time::timeout(Duration::from_millis(500), tasks.join_next()).await.ok().flatten()
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
