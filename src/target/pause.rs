//! `pause` and `resume`: a row in the target that keeps every daemon of this schema from applying anything.
//!
//! Owns the table `pause`. It is in the target, so it outlives the daemon and holds a standby as well. The stream is
//! left alone: LiteLLM's server keeps the WAL for the slot, up to `source.max_retained_wal`.

use crate::error::{Error, Result, Side, on};
use crate::sql;
use crate::target::{QUICK, Target};

/// Fails with [`Error::Paused`] while somebody has paused the daemon.
pub async fn check(target: &Target) -> Result<()> {
    let statement = target.prepare(sql::PAUSE_REASON, &[]).await?;
    match target.query("look for a pause", QUICK, &statement, &[]).await?.first() {
        Some(row) => Err(Error::Paused { reason: row.get(0), since: row.get(1) }),
        None => Ok(()),
    }
}

/// Pauses. A pause that is there already stays as it is: `false`.
pub async fn pause(target: &Target, reason: Option<&str>) -> Result<bool> {
    let done = target.client().execute(sql::PAUSE, &[&reason]).await;
    Ok(done.map_err(on(Side::Target, "pause"))? == 1)
}

/// Ends a pause; `false` if there was none.
pub async fn resume(target: &Target) -> Result<bool> {
    let done = target.client().execute("delete from pause", &[]).await;
    Ok(done.map_err(on(Side::Target, "resume"))? == 1)
}
