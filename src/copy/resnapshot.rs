//! `resnapshot` and `verify`: copying LiteLLM's rows at a consistent point while the stream lives (docs/src/design.md, "Copies").
//!
//! Owns the order of it, and no table but its staging tables: the copy and the merge are those of
//! [`crate::copy::backfill`], the projection is the ordinary one over everything. A request arrives as a logical message, so
//! it waits in the WAL while no daemon runs; noted in the target ([`super::request`]), it outlives a crash, and runs again
//! if it was not finished. What is found has its form in [`super::verify`].
//!
//! 1. The stream stops, and a temporary slot gives a snapshot at `S`: nothing after `S` can have been applied.
//! 2. LiteLLM's rows are copied out of it into staging tables.
//! 3. The stream goes on up to `S`, exactly: to the first transaction that commits at or after it.
//! 4. One transaction: mirror := staging, the difference over everything, checkpoint `S`. What changed is the drift,
//!    zero unless something was lost or edited. A dry run rolls it back.
//! 5. The stream goes on from there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::catalog::TableId;
use crate::config::Config;
use crate::copy::backfill::{self, Drift};
use crate::copy::register::{Copies, CopyPhase};
use crate::copy::request::{self, Pending};
use crate::copy::verify::{self, Drifts};
use crate::error::{Error, Result, Side};
use crate::failpoint;
use crate::position::BatchEnd;
use crate::position::Lsn;
use crate::postgres::error_chain;
use crate::project::models::Rules;
use crate::project::{self, Projection, Scope, Stamp};
use crate::source::session::Session;
use crate::source::{Source, SourceTable};
use crate::target::Target;
use crate::target::brake;
use crate::target::checkpoint::{self, Checkpoint, PENDING};
use crate::target::layout;

/// How long LiteLLM's own transactions may keep a snapshot from being made: the stream waits as long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Rows in the staging tables, and the point they are from.
#[derive(Debug, Clone)]
pub struct Copied {
    request: Pending,
    /// `S`: exactly the transactions that committed before it are in the copy.
    pub point: Lsn,
}

/// Steps 1 and 2, while nothing streams. `None`: it could not be made, and is put off with its reason; the stream goes on. Only
/// a lost connection to the target, which the stream would have lost as well, is an error: then it runs again.
pub async fn copy(
    config: &Config,
    source: &Source,
    target: &Target,
    pending: Pending,
    tables: &BTreeMap<String, SourceTable>,
    instance: uuid::Uuid,
    copies: &Copies,
) -> Result<Option<Copied>> {
    let (id, reason) = (pending.id, pending.reason().to_owned());
    tracing::info!(
        request = id,
        dry_run = pending.dry_run,
        reason,
        "copying LiteLLM's rows while the stream waits"
    );
    let scope = TableId::mirrored()
        .filter(|id| pending.concerns(*id) && tables.contains_key(id.table().source))
        .count();
    // Of single keys, a few.
    copies.begin(pending.kind(), &reason, scope, 0);
    copies.holds(Instant::now());
    let concerned: Vec<TableId> = TableId::mirrored().filter(|id| pending.concerns(*id)).collect();
    match copy_now(config, source, target, pending, tables, instance, copies).await {
        Ok(copied) => Ok(Some(copied)),
        Err(error) if is_of_the_stream(&error) => Err(error),
        Err(error) => {
            let reason = error_chain(&error);
            tracing::warn!(reason, request = id, "no copy could be made; it is put off");
            copies.end(false);
            if matches!(error, Error::Silent { side: Side::Target, .. }) {
                // Whatever that session waits for, it is of no use any more; the next attempt has another one, and the stream.
                let target = Target::open(config).await?;
                request::put_off(&target, id, "waiting", &reason, false).await?;
                return Err(error);
            }
            // What is there of it takes room, and room may be what was missing.
            for table in concerned.into_iter().map(TableId::table) {
                let text = format!("drop table if exists stage_{}", table.mirror);
                if let Err(error) = target.execute_quick("clean up after the copy", &text).await {
                    tracing::warn!(error = error_chain(&error), "a staging table stays for now");
                }
            }
            request::put_off(target, id, "waiting", &reason, false).await?;
            Ok(None)
        }
    }
}

/// Whether it is none of the copy's own: no server said that it will not do this.
fn is_of_the_stream(error: &Error) -> bool {
    match error {
        // The server ends the session, or all of them.
        Error::Postgres { side: Side::Target, source, .. } => {
            source.code().is_none_or(|code| ["08", "57P"].iter().any(|class| code.code().starts_with(class)))
        }
        Error::Connect { side: Side::Target, .. } => true,
        // A failpoint.
        Error::Usage(_) => true,
        _ => false,
    }
}

async fn copy_now(
    config: &Config,
    source: &Source,
    target: &Target,
    pending: Pending,
    tables: &BTreeMap<String, SourceTable>,
    instance: uuid::Uuid,
    copies: &Copies,
) -> Result<Copied> {
    request::progress(target, pending.id, "making a snapshot", None).await?;
    let name = format!("litellm-webui-sync copy {}", instance.simple());
    let mut session = Session::open(config, &source.endpoint, &name, Lsn::from(0)).await?;
    // Of this process alone, whatever another one left behind.
    let suffix: String = instance.simple().to_string().chars().take(8).collect();
    let slot_name = format!("{}_{suffix}", config.slot.chars().take(50).collect::<String>());
    let slot = match session.create_temporary_slot(&slot_name, PATIENCE).await {
        Err(Error::Silent { side: Side::Source, seconds, .. }) => {
            let blocked = source.slot_blocked(seconds).await;
            source.terminate(&name).await;
            return Err(blocked);
        }
        other => other?,
    };
    let reader = backfill::open_snapshot(config, source, &slot, tables).await?;
    drop(session);
    let writer = backfill::open_writer(config).await?;
    let read = async {
        let mut rows = 0_i64;
        for id in TableId::mirrored().filter(|id| pending.concerns(*id)) {
            let phase = format!("copying {}", id.table().source);
            request::progress(target, pending.id, &phase, Some(rows)).await?;
            // Logged: they are merged on another session, and a crash in between would empty unlogged ones.
            backfill::make_staging(&writer, id, "").await?;
            let copied = backfill::fill_staging(config, &reader, &writer, id, tables, None, copies).await?;
            rows += i64::try_from(copied).unwrap_or_default();
        }
        Ok(rows)
    };
    let rows = reader.giving_way(source, read).await?;
    drop(reader);
    request::progress(target, pending.id, "catching up", Some(rows)).await?;
    copies.phase(CopyPhase::CatchingUp);
    // Something to see at or after `S`, on a source where nothing happens.
    source.emit_barrier().await?;
    failpoint::hit(failpoint::COPIED_NOT_MERGED)?;
    Ok(Copied { request: pending, point: slot.consistent_point })
}

/// Step 4, once everything before `S` is applied. `epoch` is ours: nobody else may have led since. `None`: the brake
/// holds it.
pub async fn merge(config: &Config, target: &Target, copied: &Copied, epoch: i64) -> Result<Option<Drifts>> {
    let id = copied.request.id;
    let now = SystemTime::now();
    request::progress(target, id, "merging", None).await?;
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
            request::put_off(target, id, "held", &reason, true).await?;
            return Ok(None);
        }
        // The server answered, so this is about the merge and not about the stream.
        Err(error) if error.sqlstate().is_some() => {
            let reason = error_chain(&error);
            tracing::error!(reason, "a resnapshot could not be merged");
            target.roll_back("roll a merge back").await?;
            request::put_off(target, id, "waiting", &reason, false).await?;
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
    // Made anew meanwhile, with nobody in it: whoever signs up first has to find it empty, and the next session waits for that.
    let projection = match projection {
        Some(projection) if project::may_begin(target, true).await? => Some(projection),
        _ => None,
    };
    let mut drifts = Drifts::default();
    for table in TableId::mirrored().filter(|id| copied.request.concerns(*id)).map(TableId::table) {
        let drift = backfill::merge_table(target, table).await?;
        if drift != Drift::default() {
            drifts.mirror.insert(table.source.to_owned(), drift);
        }
    }
    backfill::derive(target).await?;
    target.analyze_ours(&config.schema).await?;
    let mut differences = Vec::new();
    // These have no audit rows of their own.
    let mut webui_access = Vec::new();
    if let Some(projection) = projection {
        let failures = config.policy.failures.per_hour;
        let stamp = Stamp { now, lsn: copied.point, audit_each: true, failures };
        let outcome = projection.apply(target, Scope::Everything, stamp).await?;
        differences = verify::found(target, now, copied.point).await?;
        let access = outcome.access;
        webui_access = vec![
            ("SYNC_GRANTS", access.grants_added + access.grants_removed),
            ("SYNC_ACCESS_MEMBERS", access.members_added + access.members_removed),
        ];
        if !copied.request.dry_run {
            let (limits, people) = (&config.policy.brake, outcome.losing());
            // The stream goes on without it: the daemon is as ready as it was.
            let held = |_: &Error| ();
            brake::hold(target, limits, people, copied.point, false, Some(copied.request.id), held).await?;
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
        target.roll_back("roll a dry run back").await?;
        verify::keep(target, id, &differences).await?;
        request::finish(target, id, copied.point, &drifts).await?;
    } else {
        // Known together with the merge: asked again after a crash, it would find nothing.
        verify::keep(target, id, &differences).await?;
        request::finish(target, id, copied.point, &drifts).await?;
        let end = BatchEnd::at(copied.point.max(known.end_lsn));
        checkpoint::commit(target, known.epoch, end, &known.projected_with).await?;
    }
    for table in TableId::mirrored().filter(|id| copied.request.concerns(*id)).map(TableId::table) {
        target
            .execute_quick("clean up after the copy", &format!("drop table stage_{}", table.mirror))
            .await?;
    }
    Ok(drifts)
}
