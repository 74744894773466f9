//! Copies LiteLLM's existing rows at a consistent point and merges them there.
//!
//! Owns the staging tables and table `backfill`. The first copy, a copy after a lost slot and `resnapshot` are
//! this one mechanism. It has no second way to write rows: the merge makes the mirror equal to the
//! staging tables, and the projection is the ordinary difference over everything.
//!
//! Never with watermarks: in Postgres, commits become visible in another order than they stand in
//! the WAL, so only a slot's exported snapshot is a point in the stream.
//!
//! A kill before the merge commits leaves the old state serving; the unfinished row of `backfill`
//! then explains the slot, and the copy starts over with a new one.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::catalog::{Kind, Table, TableId};
use crate::config::Config;
use crate::copy::register::{Copies, CopyPhase};
use crate::decode::message::TupleValue;
use crate::decode::{self, Value};
use crate::error::{Error, Result, Side, on};
use crate::failpoint;
use crate::mirror::statements;
use crate::position::Lsn;
use crate::source::pace::PIECE;
use crate::source::session::{NewSlot, Session};
use crate::source::{SLOT_PATIENCE, Source, SourceTable};
use crate::sql::{self, TouchedFrom};
use crate::stage::signatures::Signatures;
use crate::target::checkpoint::{self, Generation};
use crate::target::{SLOW, Target, within};

/// Why everything is copied, and where from.
#[derive(Debug)]
pub struct Occasion<'a> {
    pub reason: &'a str,
    /// Nobody asked for it.
    pub healing: bool,
    /// Drop our old slot first.
    pub drop_slot: bool,
    pub system_identifier: &'a str,
    pub timeline: i32,
    pub database_oid: i64,
    pub server_version: i32,
    pub tables: &'a BTreeMap<String, SourceTable>,
    pub columns_fingerprint: &'a str,
    pub application_name: &'a str,
    /// Where what happens is shown.
    pub copies: &'a Copies,
}

/// How much the merge changed: zero unless something was missing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    pub inserted: i64,
    pub updated: i64,
    pub deleted: i64,
}

/// Whether a copy of ours was begun and never finished.
pub async fn is_unfinished(target: &Target, slot: &str) -> Result<bool> {
    let text = "select exists (select from backfill where slot = $1 and finished_at is null)";
    let row = target.client().query_one(text, &[&slot]).await;
    Ok(row.map_err(on(Side::Target, "look for an unfinished copy"))?.get(0))
}

/// Whether nothing in our schema explains a slot of ours: there is none of it, or it is empty.
pub async fn knows_no_slot(target: &Target, config: &Config) -> Result<bool> {
    let text = "select to_regclass(format('%I.checkpoint', $1::text)) is null or to_regclass(format('%I.backfill', $1::text)) is null";
    let row = target.client().query_one(text, &[&config.schema]).await;
    let is_missing: bool = row.map_err(on(Side::Target, "look for our schema"))?.get(0);
    Ok(is_missing || !checkpoint::exists(target).await? && !is_unfinished(target, &config.slot).await?)
}

/// How often everything was copied to heal within the last hour, by whatever process.
pub async fn healed_lately(target: &Target) -> Result<i64> {
    let row = target.client().query_one(sql::HEALED_LATELY, &[]).await;
    Ok(row.map_err(on(Side::Target, "count copies"))?.get(0))
}

/// Copies everything and installs the checkpoint. The Open WebUI rows are `pending` after it. Primes `signatures` with what was copied.
pub async fn copy(
    config: &Config,
    source: &Source,
    target: &Target,
    occasion: &Occasion<'_>,
    signatures: Option<&mut Signatures>,
) -> Result<Drift> {
    tracing::info!(reason = occasion.reason, "copying LiteLLM's rows");
    let text = "insert into backfill (reason, slot, healing) values ($1, $2, $3) returning id";
    let row = target.client().query_one(text, &[&occasion.reason, &config.slot, &occasion.healing]).await;
    let id: i64 = row.map_err(on(Side::Target, "record the copy"))?.get(0);

    if occasion.drop_slot {
        source.drop_slot(&config.slot).await?;
    }
    // No transaction of ours is open on the target here: where both databases share a server, the
    // slot would wait for it for ever.
    let mut session =
        Session::open(config, &source.endpoint, occasion.application_name, Lsn::from(0)).await?;
    let failover = occasion.server_version >= 170_000;
    let slot = tokio::select! {
        slot = session.create_slot(&config.slot, failover, SLOT_PATIENCE) => slot,
        // Nothing else is asked of it meanwhile: a session that is lost would be noticed by nobody.
        error = stay_alive(target, IDLE_PATIENCE) => {
            source.terminate(occasion.application_name).await;
            return Err(error);
        }
    };
    let slot = match slot {
        Err(Error::Silent { seconds, .. }) => {
            let blocked = source.slot_blocked(seconds).await;
            source.terminate(occasion.application_name).await;
            return Err(blocked);
        }
        other => other?,
    };
    let copied = copy_at(config, source, target, occasion, (session, &slot), id, signatures).await;
    // A session that does not answer cannot be asked, and whoever waits for the truth has waited long enough.
    let is_mute = matches!(copied, Err(Error::Silent { side: Side::Target, .. }));
    if copied.is_err() && !is_mute {
        // Nothing uses it yet, and it would make LiteLLM's server keep WAL for nobody. Only while nobody else can have made one
        // of that name: where the lease is gone, or cannot be asked for, the next start does this, as after a kill.
        let dropped = match target.holds_lease(&config.schema).await {
            Ok(true) => source.drop_slot(&config.slot).await,
            Ok(false) => Err(Error::LeaseHeld),
            Err(error) => Err(error),
        };
        if let Err(error) = dropped {
            tracing::warn!(
                error = crate::postgres::error_chain(&error),
                "the slot of a failed copy stays for the next start"
            );
        }
    }
    copied
}

/// Shows that the holder of the lease is alive, whatever else its session waits for or does not do: it is ended after a while in
/// which it said nothing. Ends only with an error: where the session is gone, or does not answer for `patience`.
pub async fn stay_alive(target: &Target, patience: Duration) -> Error {
    const ACTION: &str = "stay alive";
    loop {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let silent = Error::Silent { side: Side::Target, action: ACTION, seconds: patience.as_secs() };
        match tokio::time::timeout(patience, target.ask_nothing(ACTION)).await.unwrap_or(Err(silent)) {
            // The server answers, if only that a transaction has failed.
            Err(error) if error.sqlstate().is_some_and(|code| !code.starts_with("57P")) => {}
            Err(error) => return error,
            Ok(()) => {}
        }
    }
}

/// Notices that the server heard nothing of the holder of the lease (backend `pid`) for a while, although [`stay_alive`] speaks to it: what
/// was sent last, or the answer, was lost on a link that looks alive, and what is waited for may take long. Ends only with that error.
pub async fn notice_silence(config: &Config, pid: i32) -> Error {
    const EVERY: Duration = Duration::from_secs(10);
    let text = "select state_change from pg_stat_activity where pid = $1 and state like 'idle%'";
    let (mut watch, mut idle_since) = (None, None);
    loop {
        tokio::time::sleep(EVERY).await;
        if watch.is_none() {
            watch = tokio::time::timeout(EVERY, Target::open(config)).await.ok().and_then(Result::ok);
        }
        let Some(target) = &watch else { continue };
        let look = async { target.client().query_opt(text, &[&pid]).await };
        match tokio::time::timeout(EVERY, look).await {
            Ok(Ok(row)) => {
                let since = row.map(|row| row.get::<_, SystemTime>(0));
                if since.is_some() && since == idle_since {
                    let seconds = 2 * EVERY.as_secs();
                    return Error::Silent { side: Side::Target, action: "work on the copy", seconds };
                }
                idle_since = since;
            }
            // Its own link may be the one that is lost.
            Ok(Err(_)) | Err(_) => watch = None,
        }
    }
}

/// Copies at the slot's snapshot, which `session` keeps alive until a reader has it, and merges.
async fn copy_at(
    config: &Config,
    source: &Source,
    target: &Target,
    occasion: &Occasion<'_>,
    (session, slot): (Session, &NewSlot),
    id: i64,
    mut signatures: Option<&mut Signatures>,
) -> Result<Drift> {
    let text = "update backfill set point = $2 where id = $1";
    let noted = target.client().execute(text, &[&id, &slot.consistent_point]).await;
    noted.map_err(on(Side::Target, "record the copy"))?;
    failpoint::hit(failpoint::SLOT_WITHOUT_COPY)?;
    let reader = open_snapshot(config, source, slot, occasion.tables).await?;
    // The reader has the snapshot from here on, and is the only one that LiteLLM's index builds may have to wait for.
    drop(session);
    let writer = open_writer(config).await?;
    let read = async {
        for id in TableId::mirrored() {
            // Unlogged is enough: a crash of the target ends the session that would merge them as well.
            make_staging(&writer, id, "unlogged").await?;
            let signatures = signatures.as_deref_mut();
            fill_staging(config, &reader, &writer, id, occasion.tables, signatures, occasion.copies).await?;
        }
        Ok(())
    };
    reader.giving_way(source, read).await?;
    failpoint::hit(failpoint::COPIED_NOT_MERGED)?;
    // The snapshot delays LiteLLM's own index builds: let it go before anything else.
    drop(reader);

    let generation = Generation {
        id: uuid::Uuid::new_v4(),
        system_identifier: occasion.system_identifier.to_owned(),
        timeline: occasion.timeline,
        database_oid: occasion.database_oid,
        slot: config.slot.clone(),
        consistent_point: slot.consistent_point,
    };
    occasion.copies.phase(CopyPhase::Merging);
    let drift = merge(config, target, &generation, occasion.columns_fingerprint, id).await?;
    let Drift { inserted, updated, deleted } = drift;
    tracing::info!(inserted, updated, deleted, lsn = %slot.consistent_point, "merged the copy");
    Ok(drift)
}

/// A reader at the snapshot of a slot, on the server that has it; the session that made the slot has to live until this
/// returns.
pub async fn open_snapshot(
    config: &Config,
    source: &Source,
    slot: &NewSlot,
    tables: &BTreeMap<String, SourceTable>,
) -> Result<Source> {
    let reader = source.beside().await?;
    reader.begin_reading(config, tables, Some(&slot.snapshot), SLOW).await?;
    Ok(reader)
}

/// A session of its own for the rows: the one with the lease stays free to show that its daemon is alive, and whoever takes the
/// lease over ends this one.
pub async fn open_writer(config: &Config) -> Result<Target> {
    let writer = Target::open(config).await?;
    let ended = writer.client().query(sql::END_LEFTOVERS, &[&config.schema]).await;
    if !ended.map_err(on(Side::Target, "end what is left of another copy"))?.is_empty() {
        tracing::warn!("ended a session that still filled a staging table");
    }
    Ok(writer)
}

/// Makes one staging table anew. `kind`: `unlogged`, or nothing for one that survives a crash of the target.
pub async fn make_staging(target: &Target, id: TableId, kind: &str) -> Result<()> {
    let mirror = id.table().mirror;
    let text =
        format!("drop table if exists stage_{mirror}; create {kind} table stage_{mirror} (like {mirror})");
    target.execute("prepare the staging tables", &text).await
}

/// Copies one table into its staging table. Gives the number of rows.
pub async fn fill_staging(
    config: &Config,
    reader: &Source,
    target: &Target,
    id: TableId,
    tables: &BTreeMap<String, SourceTable>,
    signatures: Option<&mut Signatures>,
    copies: &Copies,
) -> Result<u64> {
    let table = id.table();
    let Some(found) = tables.get(table.source) else { return Ok(0) };
    copies.table(table.source);
    let columns: Vec<String> = found.columns.keys().cloned().collect();
    let out = statements::copy_out(table, &config.litellm_schema, &columns);
    let work = copy_table(reader, target, id, &out, signatures, copies);
    // A target that no longer takes rows must not keep LiteLLM's snapshot open.
    let rows = tokio::time::timeout(SLOW, work).await.map_err(|_| Error::Silent {
        side: Side::Target,
        action: "copy a table",
        seconds: SLOW.as_secs(),
    })??;
    tracing::info!(table = table.source, rows, "copied");
    Ok(rows)
}

/// Makes one mirror table equal to its staging table, in the open transaction.
pub async fn merge_table(target: &Target, table: &Table) -> Result<Drift> {
    let analyze = statements::analyze_stage(table);
    target.execute("analyze the staging tables", &analyze).await?;
    let text = statements::merge(table);
    let work = target.raw().query_one(&text, &[]);
    let row = within(Side::Target, "merge a table", SLOW, work).await?;
    Ok(Drift { inserted: row.get(0), updated: row.get(1), deleted: row.get(2) })
}

/// What follows from the mirror tables: rosters, and who is in step.
pub async fn derive(target: &Target) -> Result<()> {
    for text in [sql::TEAM_ROSTER, sql::OUT_OF_STEP] {
        let text = sql::with_keys(text, TouchedFrom::Everything, 1);
        within(Side::Target, "derive from the copy", SLOW, target.raw().query(&text, &[])).await?;
    }
    Ok(())
}

async fn merge(
    config: &Config,
    target: &Target,
    generation: &Generation,
    fingerprint: &str,
    id: i64,
) -> Result<Drift> {
    target.begin_large().await?;
    let mut drift = Drift::default();
    for table in TableId::mirrored().map(TableId::table) {
        let Drift { inserted, updated, deleted } = merge_table(target, table).await?;
        drift.inserted += inserted;
        drift.updated += updated;
        drift.deleted += deleted;
    }
    derive(target).await?;
    checkpoint::install(target, generation, fingerprint).await?;
    let text = "update backfill set finished_at = now() where id = $1 or finished_at is null and slot = $2";
    let done = target.client().execute(text, &[&id, &generation.slot]).await;
    done.map_err(on(Side::Target, "finish the copy"))?;
    target.commit("commit the copy").await?;
    for table in TableId::mirrored().map(TableId::table) {
        let text = format!("truncate stage_{}", table.mirror);
        target.execute_quick("clean up after the copy", &text).await?;
    }
    target.analyze_all(&config.schema, None).await?;
    Ok(drift)
}

/// How long a session that has nothing to do may take to answer.
const IDLE_PATIENCE: Duration = Duration::from_secs(8);
/// How long a copy may go without a piece that moves: a link that was cut without a word never ends it.
pub const STALL: Duration = Duration::from_secs(30);

/// A step of filling a staging table.
async fn filled<T>(work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>) -> Result<T> {
    within(Side::Target, "fill a staging table", STALL, work).await
}

/// Streams one table through the same reduction as the stream, into its staging table.
async fn copy_table(
    reader: &Source,
    target: &Target,
    id: TableId,
    copy_out: &str,
    mut signatures: Option<&mut Signatures>,
    copies: &Copies,
) -> Result<u64> {
    let table = id.table();
    copies.waits_for(Side::Source);
    let work = reader.connection.client.copy_out(copy_out);
    let from = within(Side::Source, "copy a table", STALL, work).await?;
    copies.waits_for(Side::Target);
    let text = statements::copy_in(table);
    let into: tokio_postgres::CopyInSink<Bytes> = filled(target.raw().copy_in(&text)).await?;
    let (mut from, mut into) = (pin!(from), pin!(into));
    let (mut line, mut out, mut rows, mut told) = (BytesMut::new(), BytesMut::new(), 0_u64, 0_u64);
    let mut rests = reader.pace.begin();
    loop {
        copies.waits_for(Side::Source);
        let Some(chunk) = within(Side::Source, "copy a table", STALL, from.try_next()).await? else { break };
        line.extend_from_slice(&chunk);
        while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
            let row = line.split_to(end + 1);
            copy_row(id, table, row.get(..end).unwrap_or_default(), &mut out, signatures.as_deref_mut())?;
            rows += 1;
        }
        if out.len() >= PIECE {
            copies.rows(rows - told);
            told = rows;
            copies.waits_for(Side::Target);
            filled(into.send(out.split().freeze())).await?;
            rests.rest().await;
        }
    }
    copies.waits_for(Side::Target);
    filled(into.send(out.freeze())).await?;
    filled(into.finish()).await?;
    copies.rows(rows - told);
    Ok(rows)
}

fn copy_row(
    id: TableId,
    table: &Table,
    line: &[u8],
    out: &mut BytesMut,
    signatures: Option<&mut Signatures>,
) -> Result<()> {
    let fields: Vec<Option<Vec<u8>>> = line.split(|byte| *byte == b'\t').map(unescape).collect();
    let raw: Vec<TupleValue<'_>> = fields
        .iter()
        .map(|field| field.as_ref().map_or(TupleValue::Null, |bytes| TupleValue::Text(bytes)))
        .collect();
    debug_assert_eq!(raw.len(), table.columns.len());
    let row = decode::copied_row(id, raw);
    let key = row.key()?;
    if let Some(signatures) = signatures {
        signatures.is_known(id, &key, &row);
    }
    for (place, (value, column)) in row.values()?.iter().zip(table.columns).enumerate() {
        if place > 0 {
            out.extend_from_slice(b"\t");
        }
        match (value, column.kind) {
            (Value::Text(text), _) => escape(text.as_bytes(), out),
            (Value::Null | Value::Unchanged, Kind::Token) => escape(key.as_str().as_bytes(), out),
            (Value::Null | Value::Unchanged, _) => out.extend_from_slice(b"\\N"),
        }
    }
    out.extend_from_slice(b"\n");
    Ok(())
}

/// One field of COPY's text format; `None` is NULL.
pub fn unescape(field: &[u8]) -> Option<Vec<u8>> {
    if field == b"\\N" {
        return None;
    }
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        out.push(match bytes.next() {
            Some(b'b') => 8,
            Some(b'f') => 12,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'v') => 11,
            Some(other) => *other,
            None => b'\\',
        });
    }
    Some(out)
}

fn escape(value: &[u8], out: &mut BytesMut) {
    for byte in value {
        match byte {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => out.extend_from_slice(&[*other]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_text_survives_both_directions() {
        for text in ["", "\\N", "tab\tline\nback\\slash\r", "\u{8}\u{b}\u{c}", "plain"] {
            let mut out = BytesMut::new();
            escape(text.as_bytes(), &mut out);
            assert!(!out.contains(&b'\t') && !out.contains(&b'\n'));
            assert_eq!(unescape(&out).as_deref(), Some(text.as_bytes()), "{text:?}");
        }
        assert_eq!(unescape(b"\\N"), None);
        assert_eq!(unescape(b"a\\b"), Some(b"a\x08".to_vec()));
    }
}
