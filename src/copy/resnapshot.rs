//! `resnapshot` and `verify`: copying LiteLLM's rows at a consistent point while the stream lives (docs/src/design.md, "Copies").
//!
//! Owns the tables `resnapshot` and `resnapshot_difference`. The copy and the merge are those of [`crate::copy::backfill`];
//! the projection is the ordinary one over everything. A request arrives as a logical message, so it waits in the WAL
//! while no daemon runs; noted in the target, it outlives a crash, and runs again if it was not finished.
//!
//! 1. The stream stops, and a temporary slot gives a snapshot at `S`: nothing after `S` can have been applied.
//! 2. LiteLLM's rows are copied out of it into staging tables.
//! 3. The stream goes on up to `S`, exactly: to the first transaction that commits at or after it.
//! 4. One transaction: mirror := staging, the difference over everything, checkpoint `S`. What changed is the drift,
//!    zero unless something was lost or edited. A dry run rolls it back.
//! 5. The stream goes on from there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use crate::catalog::TableId;
use crate::config::{Config, policy};
use crate::copy::backfill::{self, Drift};
use crate::copy::register::{Copies, CopyKind, CopyPhase};
use crate::decode::request::Request;
use crate::error::{Error, Result, Side, on};
use crate::failpoint;
use crate::position::BatchEnd;
use crate::position::Lsn;
use crate::postgres::error_chain;
use crate::project::models::Rules;
use crate::project::{Projection, Scope, Stamp};
use crate::source::session::Session;
use crate::source::{Source, SourceTable};
use crate::sql;
use crate::target::brake;
use crate::target::checkpoint::{self, Checkpoint, PENDING};
use crate::target::layout;
use crate::target::{QUICK, Target};

/// How long nobody may hold the slot before a daemon counts as absent.
const ABSENCE: Duration = Duration::from_secs(6);

/// How long LiteLLM's own transactions may keep a snapshot from being made: the stream waits as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Notes a request, once.
pub async fn record(target: &Target, request: &Request) -> Result<()> {
    let Request { id, tables, dry_run } = request;
    let done = target.client().execute(sql::RESNAPSHOT_RECORD, &[&id.to_string(), tables, dry_run]).await;
    done.map_err(on(Side::Target, "note a resnapshot"))?;
    Ok(())
}

/// A request that is to run now.
#[derive(Debug, Clone)]
pub struct Pending {
    id: i64,
    tables: Vec<String>,
    dry_run: bool,
}

impl Pending {
    fn concerns(&self, id: TableId) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|name| name == id.table().source)
    }
}

/// The oldest request that is to run now.
pub async fn pending(target: &Target) -> Result<Option<Pending>> {
    let statement = target.prepare(sql::RESNAPSHOT_PENDING, &[]).await?;
    let rows = target.query("look for a resnapshot", QUICK, &statement, &[]).await?;
    Ok(rows.first().map(|row| Pending {
        id: row.get("id"),
        tables: row.get("tables"),
        dry_run: row.get("dry_run"),
    }))
}

/// Rows in the staging tables, and the point they are from.
#[derive(Debug, Clone)]
pub struct Copied {
    request: Pending,
    /// `S`: exactly the transactions that committed before it are in the copy.
    pub point: Lsn,
}

/// Steps 1 and 2, while nothing streams. `None`: it could not be made, and is put off; the stream goes on. Only trouble
/// with the target, which the stream would have as well, is an error.
pub async fn copy(
    config: &Config,
    source: &Source,
    target: &Target,
    request: Pending,
    tables: &BTreeMap<String, SourceTable>,
    instance: uuid::Uuid,
    copies: &Copies,
) -> Result<Option<Copied>> {
    tracing::info!(
        request = request.id,
        dry_run = request.dry_run,
        "copying LiteLLM's rows while the stream waits"
    );
    let id = request.id;
    let kind = if request.dry_run { CopyKind::Verify } else { CopyKind::Resnapshot };
    let scope =
        TableId::all().filter(|id| request.concerns(*id) && tables.contains_key(id.table().source)).count();
    copies.begin(kind, "somebody asked for it", scope);
    match copy_now(config, source, target, request, tables, instance, copies).await {
        Ok(copied) => Ok(Some(copied)),
        Err(error) if is_of_the_target(&error) => Err(error),
        Err(error) => {
            let reason = error_chain(&error);
            tracing::warn!(reason, request = id, "no copy could be made; it is put off");
            put_off(target, id, "waiting", &reason, false).await?;
            copies.end(false);
            Ok(None)
        }
    }
}

fn is_of_the_target(error: &Error) -> bool {
    matches!(
        error,
        Error::Postgres { side: Side::Target, .. }
            | Error::Connect { side: Side::Target, .. }
            | Error::Silent { side: Side::Target, .. }
            // A failpoint.
            | Error::Usage(_)
    )
}

async fn copy_now(
    config: &Config,
    source: &Source,
    target: &Target,
    request: Pending,
    tables: &BTreeMap<String, SourceTable>,
    instance: uuid::Uuid,
    copies: &Copies,
) -> Result<Copied> {
    progress(target, request.id, "making a snapshot", None).await?;
    let name = format!("litellm-webui-sync copy {}", instance.simple());
    let mut session = Session::open(config, &source.endpoint, &name, Lsn::from(0)).await?;
    // Of this process alone, whatever another one left behind.
    let suffix: String = instance.simple().to_string().chars().take(8).collect();
    let slot_name = format!("{}_{suffix}", config.slot.chars().take(50).collect::<String>());
    let created = tokio::select! {
        created = session.create_temporary_slot(&slot_name, PATIENCE) => created,
        // The lease is only for those who show that they work.
        error = backfill::stay_alive(target) => Err(error),
    };
    let slot = match created {
        Err(Error::Silent { side: Side::Source, seconds, .. }) => {
            let blocked = source.slot_blocked(seconds).await;
            source.terminate(&name).await;
            return Err(blocked);
        }
        other => other?,
    };
    let reader = backfill::open_snapshot(config, source, &slot, tables).await?;
    drop(session);
    let mut rows = 0_i64;
    for id in TableId::all().filter(|id| request.concerns(*id)) {
        progress(target, request.id, &format!("copying {}", id.table().source), Some(rows)).await?;
        // Logged: they are merged on another session, and a crash in between would empty unlogged ones.
        backfill::make_staging(target, id, "").await?;
        let copied = backfill::fill_staging(config, &reader, target, id, tables, None, copies).await?;
        rows += i64::try_from(copied).unwrap_or_default();
    }
    drop(reader);
    progress(target, request.id, "catching up", Some(rows)).await?;
    copies.phase(CopyPhase::CatchingUp);
    // Something to see at or after `S`, on a source where nothing happens.
    source.emit_barrier().await?;
    failpoint::hit(failpoint::COPIED_NOT_MERGED)?;
    Ok(Copied { request, point: slot.consistent_point })
}

/// What was found to differ.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drifts {
    /// LiteLLM's table to what its mirror lacked, had wrong, or had too much of. Only tables with a difference.
    pub mirror: BTreeMap<String, Drift>,
    /// Operation to how many Open WebUI entities it was needed for; `SYNC_GRANTS` and `SYNC_ACCESS_MEMBERS` count rows.
    pub webui: BTreeMap<String, i64>,
}

impl Drifts {
    /// By table and kind: LiteLLM's tables for what their mirror lacked, had wrong or had too much of, Open WebUI's for
    /// the operations that were needed there.
    pub fn rows(&self) -> Vec<(String, String, i64)> {
        let mut rows = Vec::new();
        for (table, drift) in &self.mirror {
            let Drift { inserted, updated, deleted } = *drift;
            for (kind, count) in [("missing", inserted), ("different", updated), ("too_many", deleted)] {
                if count > 0 {
                    rows.push((table.clone(), kind.to_owned(), count));
                }
            }
        }
        let webui = self
            .webui
            .iter()
            .map(|(operation, count)| (webui_table(operation).to_owned(), operation.to_lowercase(), *count));
        rows.extend(webui);
        rows
    }

    pub fn is_empty(&self) -> bool {
        self.mirror.is_empty() && self.webui.is_empty()
    }
}

/// The table of Open WebUI an operation is about.
fn webui_table(operation: &str) -> &'static str {
    match operation {
        "SYNC_API_KEY" | "DELETE_API_KEY" => "api_key",
        "SYNC_TEAM" | "SYNC_ORG" | "DELETE_TEAM" | "DELETE_ORG" | "SYNC_ACCESS_GROUP" => "group",
        "SYNC_TEAM_MEMBERS" | "SYNC_ORG_MEMBERS" | "SYNC_MEMBERS" | "SYNC_ACCESS_MEMBERS" => "group_member",
        "SYNC_MODEL" | "RETIRE_MODEL" => "model",
        "SYNC_GRANTS" | "SYNC_MODELS" => "access_grant",
        _ => "user",
    }
}

/// What the last look at everything found.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// Seconds since 1970.
    pub at: f64,
    /// clean, differed, repaired or failed.
    pub result: &'static str,
    pub drifts: Drifts,
}

/// The last verify or resnapshot of everything, if there was one.
pub async fn last_verify(target: &Target) -> Result<Option<Verified>> {
    let row = target.client().query_opt(sql::LAST_VERIFY, &[]).await;
    let Some(row) = row.map_err(on(Side::Target, "look at the last verify"))? else { return Ok(None) };
    let drift: Option<&str> = row.get("drift");
    let drifts: Drifts = drift.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let result = match (row.get("failed"), drifts.is_empty(), row.get("repaired")) {
        (true, _, _) => "failed",
        (false, true, _) => "clean",
        (false, false, true) => "repaired",
        (false, false, false) => "differed",
    };
    Ok(Some(Verified { at: row.get("at"), result, drifts }))
}

/// Asks for a verify where the schedule says so: noted like a request of somebody's, and met like one. To be called while
/// nothing else is going on.
pub async fn ask_on_schedule(target: &Target, policy: &policy::Verify) -> Result<()> {
    if policy.interval_hours == 0 {
        return Ok(());
    }
    let statement =
        target.prepare(sql::VERIFY_DUE, &[Type::INT4, Type::INT4, Type::BOOL, Type::TEXT]).await?;
    let (request, dry_run) = (uuid::Uuid::new_v4().to_string(), !policy.repair);
    let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
        &[&policy.interval_hours, &policy.jitter_percent, &dry_run, &request];
    let rows = target.query("look whether a verify is due", QUICK, &statement, parameters).await?;
    if !rows.is_empty() {
        tracing::info!(repair = policy.repair, "the scheduled verify is due");
    }
    Ok(())
}

/// One Open WebUI entity that was not what it should be: the audit row of what brings it in line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    pub operation: String,
    pub record_id: Option<String>,
    pub result: String,
    pub old_data: Option<String>,
    pub new_data: Option<String>,
}

/// Step 4, once everything before `S` is applied. `epoch` is ours: nobody else may have led since. `None`: the brake
/// holds it.
pub async fn merge(config: &Config, target: &Target, copied: &Copied, epoch: i64) -> Result<Option<Drifts>> {
    let id = copied.request.id;
    let now = SystemTime::now();
    progress(target, id, "merging", None).await?;
    let known =
        checkpoint::read(target).await?.filter(|known| known.epoch == epoch).ok_or(Error::Superseded)?;
    let projection = match known.projected_with.as_str() {
        PENDING => None,
        _ => {
            let layout = layout::find(target, config).await?;
            let models = Rules::find(target, config, &layout).await?;
            Some(Projection::new(layout, config.policy.api_keys, models))
        }
    };
    let outcome = merge_at(config, target, copied, &known, projection.as_ref(), now).await;
    let drifts = match outcome {
        Ok(found) => found,
        // Rolled back. It runs again once it is approved; the stream goes on.
        Err(error @ Error::Brake { .. }) => {
            let reason = format!("{error}: {}", error.remedy().unwrap_or_default());
            tracing::error!(reason, "a resnapshot is held back");
            put_off(target, id, "held", &reason, true).await?;
            return Ok(None);
        }
        // The server answered, so this is about the merge and not about the stream.
        Err(error) if error.sqlstate().is_some() => {
            let reason = error_chain(&error);
            tracing::error!(reason, "a resnapshot could not be merged");
            target.execute("roll a merge back", "rollback").await?;
            put_off(target, id, "waiting", &reason, false).await?;
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    tracing::info!(request = id, mirror = ?drifts.mirror, webui = ?drifts.webui, lsn = %copied.point, "resnapshot done");
    Ok(Some(drifts))
}

async fn merge_at(
    config: &Config,
    target: &Target,
    copied: &Copied,
    known: &Checkpoint,
    projection: Option<&Projection>,
    now: SystemTime,
) -> Result<Drifts> {
    target.begin_large().await?;
    checkpoint::begin(target, known.epoch, known.end_lsn).await?;
    let mut drifts = Drifts::default();
    for table in TableId::all().filter(|id| copied.request.concerns(*id)).map(TableId::table) {
        let drift = backfill::merge_table(target, table).await?;
        if drift != Drift::default() {
            drifts.mirror.insert(table.source.to_owned(), drift);
        }
    }
    backfill::derive(target).await?;
    let mut differences = Vec::new();
    // These have no audit rows of their own.
    let mut webui_access = Vec::new();
    if let Some(projection) = projection {
        let failures = config.policy.failures.per_hour;
        let stamp = Stamp { now, lsn: copied.point, audit_each: true, failures };
        let outcome = projection.apply(target, Scope::Everything, stamp).await?;
        let rows = target.client().query(sql::RESNAPSHOT_FOUND, &[&now, &copied.point]).await;
        differences = rows.map_err(on(Side::Target, "read what differed"))?.iter().map(difference).collect();
        let access = outcome.access;
        webui_access = vec![
            ("SYNC_GRANTS", access.grants_added + access.grants_removed),
            ("SYNC_ACCESS_MEMBERS", access.members_added + access.members_removed),
        ];
        if !copied.request.dry_run {
            let people = outcome.losing();
            brake::hold(target, &config.policy.brake, people, copied.point, false, Some(copied.request.id))
                .await?;
        }
    }
    for (what, count) in webui_access {
        if count > 0 {
            drifts.webui.insert(what.to_owned(), count);
        }
    }
    for one in &differences {
        *drifts.webui.entry(one.operation.clone()).or_default() += 1;
    }
    let id = copied.request.id;
    if copied.request.dry_run {
        target.execute("roll a dry run back", "rollback").await?;
        keep(target, id, &differences).await?;
        finish(target, copied, None, Some(&drifts)).await?;
    } else {
        // Known together with the merge: asked again after a crash, it would find nothing.
        keep(target, id, &differences).await?;
        finish(target, copied, None, Some(&drifts)).await?;
        let end = BatchEnd::at(copied.point.max(known.end_lsn));
        checkpoint::commit(target, known.epoch, end, &known.projected_with).await?;
    }
    for table in TableId::all().filter(|id| copied.request.concerns(*id)).map(TableId::table) {
        target.execute("clean up after the copy", &format!("drop table stage_{}", table.mirror)).await?;
    }
    Ok(drifts)
}

/// `held`: until it is approved; otherwise for a while, longer each time.
async fn put_off(target: &Target, id: i64, phase: &str, reason: &str, held: bool) -> Result<()> {
    let done = target.client().execute(sql::RESNAPSHOT_LATER, &[&id, &phase, &reason, &held]).await;
    done.map_err(on(Side::Target, "put a resnapshot off"))?;
    Ok(())
}

async fn progress(target: &Target, id: i64, phase: &str, rows: Option<i64>) -> Result<()> {
    let done = target.client().execute(sql::RESNAPSHOT_PROGRESS, &[&id, &phase, &rows]).await;
    done.map_err(on(Side::Target, "note the progress of a resnapshot"))?;
    Ok(())
}

async fn finish(
    target: &Target,
    copied: &Copied,
    error: Option<&str>,
    drifts: Option<&Drifts>,
) -> Result<()> {
    let drifts = drifts.map(|drifts| serde_json::to_string(drifts).unwrap_or_default());
    let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
        &[&copied.request.id, &copied.point, &error, &drifts];
    let done = target.client().execute(sql::RESNAPSHOT_FINISH, parameters).await;
    done.map_err(on(Side::Target, "end a resnapshot"))?;
    Ok(())
}

async fn keep(target: &Target, id: i64, differences: &[Difference]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let column = |pick: fn(&Difference) -> Option<&str>| differences.iter().map(pick).collect::<Vec<_>>();
    let operations = column(|one| Some(&one.operation));
    let records = column(|one| one.record_id.as_deref());
    let results = column(|one| Some(&one.result));
    let (old, new) = (column(|one| one.old_data.as_deref()), column(|one| one.new_data.as_deref()));
    let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
        &[&id, &operations, &records, &results, &old, &new];
    let done = target.client().execute(sql::RESNAPSHOT_KEEP_DIFFERENCE, parameters).await;
    done.map_err(on(Side::Target, "keep what differed"))?;
    Ok(())
}

fn difference(row: &tokio_postgres::Row) -> Difference {
    Difference {
        operation: row.get("operation"),
        record_id: row.get("record_id"),
        result: row.get("sync_result"),
        old_data: row.get("old_data"),
        new_data: row.get("new_data"),
    }
}

/// How far a request is, for whoever asked.
#[derive(Debug, Clone)]
pub struct Answer {
    pub id: i64,
    pub phase: String,
    pub rows_copied: i64,
    pub error: Option<String>,
    pub drifts: Option<Drifts>,
    pub lsn: Option<String>,
    pub finished: bool,
}

/// Asks the running daemon. `false`: none is there, and the request waits in LiteLLM's WAL.
pub async fn ask(config: &Config, target: &Target, request: &Request) -> Result<bool> {
    let source = Source::open(config).await?;
    source.emit(&request.to_message()).await?;
    let asked = Instant::now();
    // Between two sessions nobody holds the slot for a moment.
    while asked.elapsed() < ABSENCE {
        let active = source.slot(&config.slot).await?.is_some_and(|slot| slot.active);
        if active || look(target, request).await?.is_some() || is_copying(target).await? {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(false)
}

/// Whether a daemon is copying right now: then it does not hold the slot.
pub async fn is_copying(target: &Target) -> Result<bool> {
    let row = target.client().query_one(sql::RESNAPSHOT_RUNS, &[]).await;
    Ok(row.map_err(on(Side::Target, "look for a resnapshot"))?.get(0))
}

/// What became of a request; `None` while the daemon has not met it.
pub async fn look(target: &Target, request: &Request) -> Result<Option<Answer>> {
    let row = target.client().query_opt(sql::RESNAPSHOT_RESULT, &[&request.id.to_string()]).await;
    let row = row.map_err(on(Side::Target, "look at a resnapshot"))?;
    Ok(row.map(|row| Answer {
        id: row.get("id"),
        phase: row.get("phase"),
        rows_copied: row.get("rows_copied"),
        error: row.get("error"),
        drifts: row.get::<_, Option<String>>("drift").and_then(|text| serde_json::from_str(&text).ok()),
        lsn: row.get("lsn"),
        finished: row.get("finished"),
    }))
}

/// The Open WebUI rows a finished request found to differ, at most 10,000.
pub async fn differences(target: &Target, id: i64) -> Result<Vec<Difference>> {
    let rows = target.client().query(sql::RESNAPSHOT_DIFFERENCES, &[&id]).await;
    Ok(rows.map_err(on(Side::Target, "list what differed"))?.iter().map(difference).collect())
}
