//! One session as leader: from the first connection to the first error.
//!
//! Owns the order in which both sides are looked at before anything is written, the decision carried out (stream on, or
//! copy first), and what follows from how the stream ended. What decides is pure ([`crate::source::start`]); what copies is
//! [`crate::copy`]; the tasks of the stream are wired beside this file. Contains no SQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Daemon, Leader};
use crate::budgets;
use crate::config::policy::Chats;
use crate::copy::backfill::{self, Occasion};
use crate::copy::register::{CopyKind, CopyPhase};
use crate::copy::request;
use crate::copy::resnapshot;
use crate::error::{Error, Result, Side};
use crate::observe::metrics::Publication;
use crate::observe::progress::State;
use crate::position::{Identity, Lsn};
use crate::postgres::error_chain;
use crate::source::overlap::Overlap;
use crate::source::publication::columns_fingerprint;
use crate::source::session::Session;
use crate::source::start::{Facts, Start, UPGRADED, check, decide};
use crate::source::{Server, SlotState, Source, SourceTable, tables};
use crate::stage::budget::Moves;
use crate::stage::signatures::Signatures;
use crate::target::checkpoint::{self, Checkpoint};
use crate::target::layout;
use crate::target::pause;
use crate::target::policy;
use crate::target::schema;
use crate::target::{QUICK, SLOW, Target};

/// How long a phase of a beginning session may take, whatever it waits for: a link that is open and says nothing is noticed by
/// nobody else yet.
const MEET_PATIENCE: Duration = Duration::from_secs(30);
const DECIDE_PATIENCE: Duration = Duration::from_secs(30);
const LEAD_PATIENCE: Duration = Duration::from_secs(10);

/// How many repairs of the publication may follow each other.
const REPAIRS: usize = 3;

/// Waits for `work`, but not for ever. `side` is the one that is waited for most.
async fn phase<T>(
    action: &'static str,
    side: Side,
    patience: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    // Boxed: what is done in a phase would make the future of a session large.
    let silent = Error::Silent { side, action, seconds: patience.as_secs() };
    tokio::time::timeout(patience, Box::pin(work)).await.unwrap_or(Err(silent))
}

/// Both sides, as they were when the lease became ours.
struct Sides {
    source: Source,
    target: Target,
    server: Server,
    slot: Option<SlotState>,
    known: Option<Checkpoint>,
    tables: BTreeMap<String, SourceTable>,
    /// What our replication sessions are called.
    name: String,
}

/// All that a stream begins with.
struct Ready {
    session: Session,
    signatures: Option<Signatures>,
    known: Checkpoint,
    decided: Decided,
    copied: Option<resnapshot::Copied>,
    overlap: Option<Overlap>,
    /// What is to be said of budgets before the stream.
    budgets: Moves,
}

/// What was decided, and what it was decided from.
struct Decided {
    start: Start,
    identity: Identity,
    /// Of the mirrored columns.
    fingerprint: String,
}

impl Daemon {
    /// One session as leader: everything from the first connection to the first error.
    pub(super) async fn lead(self: Arc<Self>, cancel: CancellationToken) -> Result<()> {
        let config = &self.config;
        let sides = Box::pin(self.attended(self.meet())).await?;
        let backend = sides.target.backend_pid().await?;
        // The lease is only for those who show that they work, and what comes before the stream waits for LiteLLM too.
        let ready = tokio::select! {
            biased;
            ready = Box::pin(self.attended(self.get_ready(&sides, &cancel))) => ready?,
            error = backfill::stay_alive(&sides.target, SLOW) => return Err(error),
            error = backfill::notice_silence(config, backend) => return Err(error),
        };
        let Some(ready) = ready else { return Ok(()) };
        let Ready { mut session, signatures, known, decided, copied, overlap, budgets } = ready;
        let Sides { source, target, tables, .. } = sides;
        let Decided { identity, .. } = decided;
        // From here on LiteLLM's server waits for us when it shuts down: nobody may keep us from listening to it.
        let take_lead = async {
            session.start().await?;
            // Copies may have taken long since we looked at it; from here on nobody else can move it.
            let slot = source.slot(&config.slot).await?;
            let confirmed = slot.and_then(|slot| slot.confirmed_flush_lsn);
            if confirmed.is_some_and(|confirmed| confirmed > known.end_lsn) {
                return Err(Error::SlotAhead);
            }
            self.progress.set_timeline(identity.timeline);
            let epoch = checkpoint::take_lead(&target, &known, identity.timeline).await?;
            policy::write(&target, config).await?;
            Ok(epoch)
        };
        let epoch = phase("take the lead", Side::Target, LEAD_PATIENCE, take_lead).await?;
        self.progress.session_begins(known.end_lsn);
        self.metrics.sessions.inc();
        tracing::info!(lsn = %known.end_lsn, epoch, "took the lead");

        let generation = known.generation.id;
        let fence = copied.as_ref().map(|copied| copied.point);
        let leader =
            Leader { source, target, session, signatures, known, epoch, tables, fence, overlap, budgets };
        let mut outcome = Box::pin(self.stream(leader, &cancel)).await;
        if outcome.as_ref().is_err_and(Error::is_a_refusal_of_the_target)
            && let Ok(target) = Target::open(config).await
            && let Err(hidden @ Error::HiddenRows { .. }) = layout::find(&target, config).await
        {
            // Not a right that somebody took away: this ends by itself when the rows are shown again.
            outcome = Err(hidden);
        }
        if let (Err(Error::AtFence), Some(copied)) = (&outcome, &copied) {
            let target = self.take_lease().await?;
            self.progress.copies.phase(CopyPhase::Merging);
            let merge = resnapshot::merge(config, &target, copied, epoch);
            let merged = Box::pin(self.attended(merge)).await?;
            self.progress.copies.end(merged.is_some());
            self.progress.touch_caught_up();
        }
        if let Err(error) = &outcome
            && error.needs_a_copy()
        {
            // The stream would meet it again for ever: go around it.
            let target = Target::open(config).await?;
            let because = match error {
                Error::ColumnGone { .. } => format!("{UPGRADED}: {error}"),
                _ => error.to_string(),
            };
            checkpoint::distrust(&target, generation, &because).await?;
        }
        outcome
    }

    /// Everything up to the stream: the decision, the copies it asks for, the budgets. `None`: cancelled.
    async fn get_ready(&self, sides: &Sides, cancel: &CancellationToken) -> Result<Option<Ready>> {
        let config = &self.config;
        // Not from the checkpoint: what the slot sends again before it tells whether the history is ours. Where it must not
        // be streamed from, `decide` says so.
        let mut start = sides.slot.as_ref().and_then(|slot| slot.confirmed_flush_lsn).unwrap_or(Lsn::from(0));
        let mut session = Session::open(config, &sides.source.endpoint, &sides.name, start).await?;
        let decision = self.decide_start(sides, &mut session);
        let decided = phase("decide how to start", Side::Source, DECIDE_PATIENCE, decision).await?;
        let mut known = sides.known.clone();
        let mut signatures = self.remember_rows.then(Signatures::new);
        if let Start::Copy { reason, drop_slot, healing } = &decided.start {
            if *healing {
                self.may_heal(sides, reason, *drop_slot).await?;
            }
            if let Some(known) = &known {
                // The slot is dropped first, and a copy may fail: why it was needed is known at the next start as well.
                checkpoint::distrust(&sides.target, known.generation.id, reason).await?;
            }
            self.progress.set_state(State::Copying, Some(reason.clone()));
            self.metrics.copies.inc();
            let kind = if known.is_some() { CopyKind::Again } else { CopyKind::First };
            let (tables, expected) = tables::to_copy(&sides.tables);
            self.progress.copies.begin(kind, reason, tables, expected);
            // Not started: dropping it ends it.
            drop(session);
            let occasion = Occasion {
                reason,
                healing: *healing,
                drop_slot: *drop_slot,
                system_identifier: &decided.identity.system_identifier,
                timeline: decided.identity.timeline,
                database_oid: sides.server.database_oid,
                server_version: sides.server.version,
                tables: &sides.tables,
                columns_fingerprint: &decided.fingerprint,
                application_name: &sides.name,
                copies: &self.progress.copies,
            };
            // There was none, or it was ours: `check` would have stopped.
            self.progress.slot_is_ours();
            let copy = backfill::copy(config, &sides.source, &sides.target, &occasion, signatures.as_mut());
            tokio::select! {
                copied = copy => {
                    copied?;
                }
                () = cancel.cancelled() => return Ok(None),
            }
            known = checkpoint::read(&sides.target).await?;
            start = known.as_ref().map_or(Lsn::from(0), |known| known.end_lsn);
            session = Session::open(config, &sides.source.endpoint, &sides.name, start).await?;
        }
        let Some(known) = known else {
            return Err(Error::Gap { reason: "the copy left no checkpoint".to_owned() });
        };
        let Sides { source, target, tables, .. } = sides;
        let overlap = Overlap::new(start, known.end_lsn, known.committed_end.zip(known.committed_at));
        let just_copied = matches!(decided.start, Start::Copy { .. });
        request::look_at_files(target, tables, config.policy.verify.repair, just_copied).await?;
        let copied = match request::pending(target).await? {
            // Beside the stream, once there is one.
            Some(pending) if !self.progress.copies.is_escalated(pending.id()) => None,
            Some(pending) => {
                let copies = &self.progress.copies;
                let copy = resnapshot::copy(config, source, target, pending, tables, self.instance, copies);
                tokio::select! {
                    copied = copy => copied?,
                    () = cancel.cancelled() => return Ok(None),
                }
            }
            None => None,
        };
        let stored = budgets::load::stored(target).await?;
        tokio::select! {
            loaded = self.load_budgets(source, &known, decided.identity.timeline, tables, stored.chats.is_empty()) => loaded?,
            () = cancel.cancelled() => return Ok(None),
        }
        let budgets = self.budgets.resume(&stored, !just_copied);
        Ok(Some(Ready { session, signatures, known, decided, copied, overlap, budgets }))
    }

    /// Opens both sides and looks at them. Nothing of whoever leads is touched; where nobody does, the lease and our schema
    /// are made ours.
    async fn meet(&self) -> Result<Sides> {
        let config = &self.config;
        let meet = async {
            let source = Source::open_since(config, self.progress.timeline()).await?;
            let server = source.server().await?;
            if server.timeline.is_none() {
                return Err(Error::Standby);
            }
            let slot = source.slot(&config.slot).await?;
            Ok((source, server, slot))
        };
        let (source, server, slot) = phase("look at the server", Side::Source, MEET_PATIENCE, meet).await?;
        self.progress.heard(Side::Source);
        if slot.as_ref().is_some_and(|slot| slot.active) {
            // Somebody else leads. Nothing of theirs is touched: not their schema, not their views, not their policy.
            return Err(self.whose_leader().await);
        }
        let target = self.take_lease().await?;
        self.progress.heard(Side::Target);
        // Before anything is made or copied: what cannot be written is known now.
        match layout::find(&target, config).await {
            Ok(_) | Err(Error::NoOpenWebUi { .. }) => {}
            Err(error) => return Err(error),
        }
        // Before our schema is made: a database that is being restored right now must find nothing of ours in its way.
        if slot.is_some() && backfill::knows_no_slot(&target, config).await? {
            return Err(Error::StraySlot { slot: config.slot.clone() });
        }
        let migrating = if schema::is_current(&target).await { QUICK } else { SLOW };
        phase("prepare our schema", Side::Target, migrating, schema::ensure(&target, config)).await?;
        let known = checkpoint::read(&target).await?;

        if server.wal_level != "logical" {
            return Err(Error::WalLevel { found: server.wal_level });
        }
        let tables = source.tables(config).await?;
        self.board.set_servers(server.version, target.server_version().await?, tables.len());
        let name = self.name();
        Ok(Sides { source, target, server, slot, known, tables, name })
    }

    /// A session on the target that has the lease. One that this process lost its way to is ended for it.
    async fn take_lease(&self) -> Result<Target> {
        let target = Target::open(&self.config).await?;
        target.go_by(&self.name()).await?;
        if target.take_lease(&self.config.schema).await? { Ok(target) } else { Err(Error::LeaseHeld) }
    }

    /// What sessions are called that only one process has.
    fn name(&self) -> String {
        format!("litellm-webui-sync {}", self.instance.simple())
    }

    /// Why we cannot lead while the slot is in use: whoever leads for our Open WebUI holds the lease there.
    async fn whose_leader(&self) -> Error {
        let config = &self.config;
        let slot = config.slot.clone();
        let look = async { Target::open(config).await?.is_lease_held(&config.schema).await };
        match phase("look at the lease", Side::Target, MEET_PATIENCE, look).await {
            Ok(false) => Error::ForeignLeader { slot },
            Ok(true) => Error::SlotHeld { slot },
            Err(error) => {
                tracing::debug!(error = error_chain(&error), "could not look whether somebody leads");
                Error::SlotHeld { slot }
            }
        }
    }

    /// Whether this is our source, and whether the stream may go on from where it was. What is missing in a publication of
    /// ours is mended on the way.
    async fn decide_start(&self, sides: &Sides, session: &mut Session) -> Result<Decided> {
        let config = &self.config;
        let Sides { source, target, server, slot, known, tables, .. } = sides;
        let identity = session.identify().await?;
        let unfinished_copy = backfill::is_unfinished(target, &config.slot).await?;
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
            database_oid: server.database_oid,
            switch_point,
            columns_fingerprint: "",
            // A stream that failed here once would fail until all of it is over.
            upgrading: self.metrics.same_position_restarts.get() == 0 && source.ddl(config).await?.1,
        };
        check(&facts)?;
        if known.is_some() {
            self.progress.slot_is_ours();
        }
        pause::check(target).await?;
        // This is our source and nobody else leads, so it is ours to repair what is missing. Distrusting the mirror
        // first: a crash in between must not leave a gap that nobody remembers.
        let mut publication = source.publication(config).await?;
        let mut distrusted = None;
        // What harms LiteLLM is taken out before anything else is judged, so one repair may follow another.
        for _ in 0..REPAIRS {
            let repair = Source::publication_repair(config, publication.as_ref(), tables)
                .inspect_err(|_| self.metrics.set_publication(Publication::Changed))?;
            let Some(repair) = repair else { break };
            let streams_on = known.as_ref().is_some_and(|known| known.copy_because.is_none());
            if streams_on && facts.upgrading && repair.can_wait() {
                break;
            }
            if let Some(known) = known {
                checkpoint::distrust(target, known.generation.id, &repair.because()).await?;
            }
            tracing::info!(problem = repair.problem, "writing the publication");
            source.repair_publication(config, &repair).await?;
            publication = source.publication(config).await?;
            distrusted = checkpoint::read(target).await?;
        }
        self.metrics.set_publication(Publication::Ok);
        let fingerprint = columns_fingerprint(tables, &publication.unwrap_or_default());
        facts.columns_fingerprint = &fingerprint;
        facts.checkpoint = distrusted.as_ref().or(facts.checkpoint);
        let start = decide(&facts)?;
        Ok(Decided { start, identity, fingerprint })
    }

    /// Whether everything may be copied again without being asked to: only so often, counted where a restart does not
    /// forget it.
    async fn may_heal(&self, sides: &Sides, reason: &str, drop_slot: bool) -> Result<()> {
        let Sides { source, target, known, .. } = sides;
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

    /// Reads the budgets, unless the stream from here continues what is known of them, on a connection of their own. Where they are only for
    /// looking at, what goes wrong stops nothing.
    async fn load_budgets(
        &self,
        source: &Source,
        known: &Checkpoint,
        timeline: i32,
        tables: &BTreeMap<String, SourceTable>,
        nothing_stored: bool,
    ) -> Result<()> {
        let (config, policy) = (&self.config, &self.config.policy);
        let decides = policy.budgets_decide();
        // Behind a brake nothing of the stream is seen, and what holds it may have been repaired since.
        let is_braked = decides && self.progress.status().state == State::Braked;
        if self.budgets.continues(known, timeline) && !is_braked {
            return Ok(());
        }
        if policy.budgets.chats == Chats::Customer
            && !budgets::load::follows(source, config, tables, budgets::load::CUSTOMERS).await?
        {
            let what = "LiteLLM_EndUserTable in reach: select on it, and a publication that has it (budgets.chats = \"customer\")";
            return Err(Error::Lacking { side: Side::Source, what: what.to_owned() });
        }
        let started = Instant::now();
        let loaded = async {
            let mut loaded = budgets::load::read(source, config, tables).await?;
            if policy.budgets.chats == Chats::Customer && nothing_stored {
                loaded.look_back(source, config).await?;
            }
            Ok((loaded, source.position().await?))
        };
        match loaded.await {
            Ok((loaded, ahead)) => {
                let millis = started.elapsed().as_millis();
                tracing::info!(entities = loaded.book.len(), millis, "read the budgets");
                if decides
                    && loaded.book.has_windows()
                    && !budgets::load::follows(source, config, tables, budgets::load::WINDOWS).await?
                {
                    tracing::warn!(
                        table = budgets::load::WINDOWS,
                        "budget_limits close nothing: what is spent in their windows is not known; grant select on this table, and publish it"
                    );
                }
                self.budgets.begin(loaded, known, timeline, ahead);
            }
            Err(error) if decides => return Err(error),
            Err(error) => {
                let error = error_chain(&error);
                tracing::warn!(error, "the budgets could not be read, and are not shown in this session");
                self.budgets.forget();
            }
        }
        Ok(())
    }
}
