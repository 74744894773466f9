//! Both ends at one point, while the stream goes on (docs/src/design.md, "Copies").
//!
//! Owns the order of it: the stream is held, which takes milliseconds, while a temporary slot gives a snapshot of LiteLLM's rows at
//! its consistent point `S`; then it goes on up to `S` exactly, where a session on the target takes a snapshot too; then
//! it goes on. Whoever takes the stream in and whoever applies it have an end each ([`Hold`], [`Still`]). Compares nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::copy::backfill;
use crate::error::{Error, Result, Side};
use crate::position::Lsn;
use crate::source::pace::Pace;
use crate::source::session::Session;
use crate::source::{Source, SourceTable};
use crate::target::Target;

/// How long the stream may be held for a slot to be made: LiteLLM's own transactions may be in the way of it.
const HOLD: Duration = Duration::from_millis(100);
/// How often that is tried, and how long between the first two; longer each time.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);
/// How long a transaction that is being taken in may keep the stream from being held.
const MEETING: Duration = Duration::from_secs(60);
/// How long it may take to get to the point: as long as we are behind.
const CATCH_UP: Duration = Duration::from_secs(60);
/// How long the applier stands still at the most.
pub const STANDSTILL: Duration = Duration::from_secs(1);

/// For whoever takes the stream in: take no other transaction until `point` says up to where, then all that commit before it,
/// and hand `still` on in its place. Where `point` is dropped: go on.
#[derive(Debug)]
pub struct Hold {
    pub held: oneshot::Sender<()>,
    pub point: oneshot::Receiver<Lsn>,
    pub still: Still,
}

/// For whoever applies: everything before the point is committed. Say so, and wait for `go_on`, which may be dropped.
#[derive(Debug)]
pub struct Still {
    pub reached: oneshot::Sender<()>,
    pub go_on: oneshot::Receiver<()>,
}

/// Both ends as they were at `point`.
#[derive(Debug)]
pub struct Frozen {
    pub point: Lsn,
    /// In a transaction that only reads, at its snapshot.
    pub reader: Source,
    /// In a transaction at its snapshot: for temporary tables, and to be rolled back.
    pub target: Target,
}

/// Freezes both ends.
///
/// # Errors
/// [`Error::SlotBlocked`] where LiteLLM's own transactions are in the way, [`Error::Silent`] where the stream does not get there.
pub async fn freeze(
    config: &Config,
    source: &Source,
    tables: &BTreeMap<String, SourceTable>,
    instance: uuid::Uuid,
    holds: &mpsc::Sender<Hold>,
) -> Result<Frozen> {
    let target = Target::open(config).await?;
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        match freeze_once(config, source, tables, instance, holds, &target).await {
            Ok((point, reader)) => return Ok(Frozen { point, reader, target }),
            Err(error) if tries >= TRIES || !matches!(error, Error::SlotBlocked { .. }) => return Err(error),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
        tries += 1;
    }
}

async fn freeze_once(
    config: &Config,
    source: &Source,
    tables: &BTreeMap<String, SourceTable>,
    instance: uuid::Uuid,
    holds: &mpsc::Sender<Hold>,
    target: &Target,
) -> Result<(Lsn, Source)> {
    let name = format!("litellm-webui-sync look {}", instance.simple());
    let suffix: String = instance.simple().to_string().chars().take(8).collect();
    let slot_name = format!("{}_{suffix}", config.slot.chars().take(50).collect::<String>());
    // One that was cut off may still wait for LiteLLM's transactions.
    source.terminate(&name).await;
    let mut session = Session::open(config, &source.endpoint, &name, Lsn::from(0)).await?;
    let (held, is_held) = oneshot::channel();
    let (point, point_known) = oneshot::channel();
    let (reached, is_reached) = oneshot::channel();
    let (go_on, may_go_on) = oneshot::channel();
    let still = Still { reached, go_on: may_go_on };
    let hold = Hold { held, point: point_known, still };
    // Everything that can be done before is: the stream stands still for what follows.
    target.execute("freeze the target", "rollback; begin isolation level repeatable read").await?;
    let asked = tokio::time::timeout(MEETING, holds.send(hold)).await;
    asked.map_err(|_| silent(MEETING))?.map_err(|_| Error::Superseded)?;
    wait_for(is_held, MEETING).await?;
    let slot = match session.create_temporary_slot(&slot_name, HOLD).await {
        Err(Error::Silent { side: Side::Source, .. }) => {
            // From here on the stream is held no more.
            drop(point);
            let blocked = source.slot_blocked(0).await;
            source.terminate(&name).await;
            return Err(blocked);
        }
        // What is left of a look before this one goes by itself.
        Err(error) if matches!(error.sqlstate(), Some("42710" | "55006")) => {
            return Err(source.slot_blocked(0).await);
        }
        other => other?,
    };
    point.send(slot.consistent_point).map_err(|_| Error::Superseded)?;
    let (emitted, reached) = tokio::join!(
        // Something to see at or after the point, on a source where nothing happens.
        source.emit_barrier(),
        async {
            wait_for(is_reached, CATCH_UP).await?;
            target.ask_nothing("take a snapshot").await?;
            // It may have gone on without us: then the snapshot is of some other moment.
            go_on.send(()).map_err(|()| silent(STANDSTILL))
        },
    );
    reached?;
    emitted?;
    // Only now: whoever reads has locks.
    let reader = backfill::open_snapshot(config, source, &slot, tables).await?;
    drop(session);
    // The stream goes on meanwhile.
    Ok((slot.consistent_point, Source { pace: Pace::Half, ..reader }))
}

/// Waits for a word from the stream.
async fn wait_for(word: oneshot::Receiver<()>, patience: Duration) -> Result<()> {
    match tokio::time::timeout(patience, word).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Error::Superseded),
        Err(_) => Err(silent(patience)),
    }
}

fn silent(patience: Duration) -> Error {
    Error::Silent { side: Side::Target, action: "get to the point of a look", seconds: patience.as_secs() }
}
