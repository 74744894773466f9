//! The checkpoint row: where we are, exactly.
//!
//! Owns table `checkpoint`; no other module names it. The row is written in the transaction that
//! applies what it covers, and locked and compared at the start of each batch: a stale leader,
//! whose epoch is old, finds no row and cannot commit.

use std::sync::{LazyLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Statement};

use crate::error::{Error, Result, Side, on};
use crate::position::{BatchEnd, Identity, Lsn};
use crate::sql::{self, fill};
use crate::target::{QUICK, Target, within};

/// How long writing nothing but an idle position may take.
const IDLE_PATIENCE: Duration = Duration::from_secs(2);

/// `projected_with` of a target whose Open WebUI rows were not made yet.
pub const PENDING: &str = "pending";

/// Identity of the source and of one life of the slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    pub id: uuid::Uuid,
    pub system_identifier: String,
    pub timeline: i32,
    pub database_oid: i64,
    pub slot: String,
    pub consistent_point: Lsn,
}

#[derive(Debug, Clone)]
pub struct Checkpoint {
    pub generation: Generation,
    /// Everything committed before this is applied.
    pub end_lsn: Lsn,
    pub transactions_applied: i64,
    pub changes_applied: i64,
    pub epoch: i64,
    pub projected_with: String,
    pub committed_at: Option<SystemTime>,
    /// Where that transaction ended.
    pub committed_end: Option<Lsn>,
    /// Keys that expired before this have had their effect.
    pub expired_through: Option<SystemTime>,
    /// The mirrored columns of the source as they were (see [`crate::source`]).
    pub columns_fingerprint: String,
    /// Why the stream must not go on from here.
    pub copy_because: Option<String>,
}

fn from_row(row: &Row) -> Checkpoint {
    let id: String = row.get("generation");
    Checkpoint {
        generation: Generation {
            id: id.parse().unwrap_or_default(),
            system_identifier: row.get("system_identifier"),
            timeline: row.get("timeline"),
            database_oid: row.get("database_oid"),
            slot: row.get("slot"),
            consistent_point: row.get("consistent_point"),
        },
        end_lsn: row.get("end_lsn"),
        transactions_applied: row.get("transactions_applied"),
        changes_applied: row.get("changes_applied"),
        epoch: row.get("epoch"),
        projected_with: row.get("projected_with"),
        committed_at: row.get("committed_at"),
        committed_end: row.get("committed_end"),
        expired_through: row.get("expired_through"),
        columns_fingerprint: row.get("columns_fingerprint"),
        copy_because: row.get("copy_because"),
    }
}

/// Reads the checkpoint, after whoever may still be writing it has finished.
pub async fn read(target: &Target) -> Result<Option<Checkpoint>> {
    let rows = crate::target::within(
        Side::Target,
        "read the checkpoint",
        QUICK,
        target.raw().query(sql::READ_CHECKPOINT, &[]),
    )
    .await?;
    Ok(rows.first().map(from_row))
}

/// Whether there is one, in a schema of whatever release.
pub async fn exists(target: &Target) -> Result<bool> {
    let row = target.client().query_one("select exists (select from checkpoint)", &[]).await;
    Ok(row.map_err(on(Side::Target, "look for a checkpoint"))?.get(0))
}

/// Whether `target` sees the checkpoint of this leader at this position, and with it all that was committed before: a session of its
/// own may have come to another server. Waits for nobody.
pub async fn is_at(target: &Target, epoch: i64, end_lsn: Lsn) -> Result<bool> {
    let text = "select exists (select from checkpoint where epoch = $1 and end_lsn = $2)";
    let row = target.client().query_one(text, &[&epoch, &end_lsn]).await;
    Ok(row.map_err(on(Side::Target, "compare the checkpoint"))?.get(0))
}

/// Makes us the leader, once the slot is ours. Whoever led before cannot commit any more.
pub async fn take_lead(target: &Target, known: &Checkpoint, timeline: i32) -> Result<i64> {
    let row = target
        .client()
        .query_opt(sql::TAKE_LEAD, &[&known.epoch, &known.end_lsn, &timeline])
        .await
        .map_err(on(Side::Target, "take the lead"))?;
    row.map(|row| row.get(0)).ok_or(Error::Superseded)
}

/// Forgets the position: the next start copies everything into a new generation.
pub async fn forget(target: &Target) -> Result<()> {
    target.execute("forget the position", "delete from checkpoint").await
}

/// Makes the next start copy everything, and says why: called before the publication is changed, so that a crash in
/// between cannot leave a gap that nobody remembers.
/// Only this generation: whoever led in between may have made a new one.
pub async fn distrust(target: &Target, generation: uuid::Uuid, because: &str) -> Result<()> {
    let text =
        "update checkpoint set copy_because = coalesce(copy_because, $2) where generation = $1::text::uuid";
    let done = target.client().execute(text, &[&generation.to_string(), &because]).await;
    done.map_err(on(Side::Target, "mark the mirror as outdated"))?;
    Ok(())
}

/// Open WebUI's rows are to be made once more, all of them: its tables are gone, or were made anew.
pub async fn forget_projection(target: &Target, epoch: i64) -> Result<()> {
    let text = "update checkpoint set projected_with = $2 where epoch = $1";
    let parameters: [&(dyn ToSql + Sync); 2] = [&epoch, &PENDING];
    let work = target.raw().execute(text, &parameters);
    let changed = within(Side::Target, "note that nothing is projected", QUICK, work).await?;
    if changed == 1 { Ok(()) } else { Err(Error::Superseded) }
}

/// Takes another source as ours, to be copied by the next start. `false`: there is no checkpoint, so nothing to replace.
pub async fn accept(
    target: &Target,
    identity: &Identity,
    database_oid: i64,
    slot: &str,
    because: &str,
) -> Result<bool> {
    let Identity { system_identifier, timeline, .. } = identity;
    let parameters: &[&(dyn ToSql + Sync)] = &[system_identifier, timeline, &database_oid, &slot, &because];
    let done = target.client().execute(sql::ACCEPT_SOURCE, parameters).await;
    Ok(done.map_err(on(Side::Target, "accept another source"))? == 1)
}

/// Moves the position of an idle or uneventful stretch, in a transaction of its own: nothing but the checkpoint.
pub async fn advance(target: &Target, epoch: i64, from: Lsn, end: BatchEnd) -> Result<()> {
    let statement = target.prepare(sql::ADVANCE, ADVANCE).await?;
    let action = "advance the checkpoint";
    // An idle position is often asked for by a source that shuts down and waits for us: where the target cannot be
    // written, get out of its way.
    let patience = if end.transactions == 0 { IDLE_PATIENCE } else { QUICK };
    // Sent together, and looked at in this order: where the first fails the second does, and then the third commits nothing.
    let ((), rows, ()) = tokio::try_join!(
        biased;
        target.begin(action),
        send_advance(target, &statement, (action, patience), epoch, from, end),
        target.commit(action),
    )?;
    found(target, &rows)
}

/// Prepares [`advance_first`].
pub async fn prepare_first(target: &Target) -> Result<Statement> {
    static TEXT: LazyLock<String> = LazyLock::new(|| fill(sql::ADVANCE_FIRST, ":advance", sql::ADVANCE));
    target.prepare(&TEXT, ADVANCE).await
}

/// Moves the position as the first thing of a batch that is sent together with its COMMIT. Where another daemon took over it fails,
/// with an error about a row, and nothing after it can commit. Once that is done, [`Moved::remember`].
pub async fn advance_first(
    target: &Target,
    statement: &Statement,
    epoch: i64,
    from: Lsn,
    end: BatchEnd,
) -> Result<Moved> {
    let rows = send_advance(target, statement, ("advance the checkpoint", QUICK), epoch, from, end).await?;
    Ok(Moved(rows))
}

/// Where the row is, should its transaction commit.
#[derive(Debug)]
pub struct Moved(Vec<Row>);

impl Moved {
    pub fn remember(&self, target: &Target) -> Result<()> {
        found(target, &self.0)
    }
}

const ADVANCE: &[Type] = &[
    Type::INT8,
    Type::PG_LSN,
    Type::PG_LSN,
    Type::INT8,
    Type::INT8,
    Type::TIMESTAMPTZ,
    Type::PG_LSN,
    Type::TEXT,
];

async fn send_advance(
    target: &Target,
    statement: &Statement,
    (action, patience): (&'static str, Duration),
    epoch: i64,
    from: Lsn,
    end: BatchEnd,
) -> Result<Vec<Row>> {
    let place = last_place(target);
    let (transactions, changes) = totals(end);
    let parameters: &[&(dyn ToSql + Sync)] = &[
        &epoch,
        &from,
        &end.end_lsn,
        &transactions,
        &changes,
        &end.committed_at,
        &end.committed_end,
        &place,
    ];
    target.query(action, patience, statement, parameters).await
}

/// Prepares the lock, so that [`begin`] sends it at once and in its place.
pub async fn prepare(target: &Target) -> Result<()> {
    target.prepare(sql::BEGIN_BATCH, &[]).await.map(|_| ())
}

/// Begins a batch: locks the row and proves that we still lead. Meant to be sent together with the
/// batch's first statements; the result must be looked at before anything is committed.
pub async fn begin(target: &Target, epoch: i64, end_lsn: Lsn) -> Result<()> {
    let statement = target.prepare(sql::BEGIN_BATCH, &[]).await?;
    let place = last_place(target);
    let rows = target.query("lock the checkpoint", QUICK, &statement, &[&epoch, &end_lsn, &place]).await?;
    found(target, &rows)
}

/// What a batch adds to the totals of transactions and changes.
fn totals(end: BatchEnd) -> (i64, i64) {
    let as_written = |count| i64::try_from(count).unwrap_or(i64::MAX);
    (as_written(end.transactions), as_written(end.changes))
}

/// Where this session last saw the row.
fn last_place(target: &Target) -> Option<String> {
    target.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Remembers where the row is; without one, somebody else leads.
fn found(target: &Target, rows: &[Row]) -> Result<()> {
    let row = rows.first().ok_or(Error::Superseded)?;
    *target.place.lock().unwrap_or_else(PoisonError::into_inner) = Some(row.get(0));
    Ok(())
}

/// Writes up to when expired keys were looked for, in the transaction that projects their owners.
pub async fn expired_through(target: &Target, epoch: i64, now: SystemTime) -> Result<()> {
    let done = target.client().execute(sql::EXPIRED_THROUGH, &[&epoch, &now]).await;
    done.map_err(on(Side::Target, "write up to when keys expired"))?;
    Ok(())
}

/// Writes the checkpoint of the batch, in its transaction, and commits.
pub async fn commit(target: &Target, epoch: i64, end: BatchEnd, projected_with: &str) -> Result<()> {
    let types = [
        Type::INT8,
        Type::PG_LSN,
        Type::INT8,
        Type::INT8,
        Type::TIMESTAMPTZ,
        Type::PG_LSN,
        Type::TEXT,
        Type::TEXT,
    ];
    let statement = target.prepare(sql::END_BATCH, &types).await?;
    let (transactions, changes) = totals(end);
    let BatchEnd { committed_at, committed_end, .. } = end;
    let place = last_place(target);
    let write = async {
        let client = target.client();
        client
            .query(
                &statement,
                &[
                    &epoch,
                    &end.end_lsn,
                    &transactions,
                    &changes,
                    &committed_at,
                    &committed_end,
                    &projected_with,
                    &place,
                ],
            )
            .await
            .map_err(on(Side::Target, "write the checkpoint"))
    };
    // Sent together. COMMIT of a failed transaction answers "ROLLBACK" and no error, so it counts
    // only if the statement before it was fine.
    let (written, committed) = tokio::join!(write, target.commit("commit a batch"));
    found(target, &written?)?;
    committed
}

/// Installs the checkpoint of a copy at its consistent point, in the transaction of the merge.
pub async fn install(target: &Target, generation: &Generation, fingerprint: &str) -> Result<i64> {
    let row = target
        .client()
        .query_one(
            sql::NEW_GENERATION,
            &[
                &generation.id.to_string(),
                &generation.system_identifier,
                &generation.timeline,
                &generation.database_oid,
                &generation.slot,
                &generation.consistent_point,
                &fingerprint,
            ],
        )
        .await
        .map_err(on(Side::Target, "install the checkpoint"))?;
    Ok(row.get(0))
}

/// What Open WebUI's rows were last made with; `None` before the first copy.
pub async fn projected_with(target: &Target) -> Result<Option<String>> {
    let row = target.client().query_opt("select projected_with from checkpoint", &[]).await;
    Ok(row.map_err(on(Side::Target, "read the checkpoint"))?.map(|row| row.get(0)))
}
