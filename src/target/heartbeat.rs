//! What the running daemon says of itself, for `status` where its own pages are out of reach.
//!
//! Owns the writing of table `daemon`. Nothing is decided from it: who leads is told by the slot, the lease and the epoch.

use crate::error::{Result, Side, on};
use crate::sql;
use crate::target::Target;

/// Says how we are. `layout`: of Open WebUI's tables; `None` leaves what was said of it.
pub async fn write(
    target: &Target,
    instance: uuid::Uuid,
    state: &str,
    reason: Option<&str>,
    layout: Option<&str>,
) -> Result<()> {
    let instance = instance.to_string();
    let done = target.client().execute(sql::HEARTBEAT, &[&instance, &state, &reason, &layout]).await;
    done.map_err(on(Side::Target, "write the heartbeat"))?;
    Ok(())
}
