//! What a daemon says of itself, for `status` where its own pages are out of reach; and what the leader looks for by the clock.
//!
//! Owns the writing of table `daemon`. Who leads is told by the slot, the lease and the epoch, never by it. Both are one
//! statement for the leader ([`glance`]): Open WebUI's database has better things to do than to be asked.

use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::error::{Error, Result, Side, on};
use crate::position::Lsn;
use crate::sql;
use crate::target::{QUICK, Target};

/// Says how we are, as somebody who does not lead at the moment: what a leader says of itself stays, and then it was not said (`false`).
pub async fn write(target: &Target, instance: uuid::Uuid, state: &str, reason: Option<&str>) -> Result<bool> {
    let instance = instance.to_string();
    let done = target.client().execute(sql::HEARTBEAT, &[&instance, &state, &reason]).await;
    Ok(done.map_err(on(Side::Target, "write the heartbeat"))? > 0)
}

/// The daemon of this process, as it tells others.
#[derive(Debug, Clone)]
pub struct Beat {
    pub instance: uuid::Uuid,
    pub state: &'static str,
    pub reason: Option<String>,
    /// Of Open WebUI's tables; `None` leaves what was said of it.
    pub layout: Option<String>,
}

/// What a daemon last said of itself.
#[derive(Debug)]
pub struct Said {
    pub state: String,
    pub reason: Option<String>,
    pub layout: Option<String>,
    /// Seconds since it said so.
    pub age: f64,
}

/// A daemon beats every few seconds, whatever it does.
const FRESH_SECONDS: f64 = 15.0;
/// A leader beats every two to three, and says at once that it is none any more.
const LEADER_SECONDS: f64 = 8.0;

impl Said {
    /// Whether it is there, as far as its own word goes: it may hold no slot while it copies or waits.
    pub fn is_alive(&self) -> bool {
        self.age < FRESH_SECONDS && self.state != "stopped"
    }

    /// The same where nobody holds the slot: whoever says that they stream has just let go of it, or died.
    pub fn is_there(&self) -> bool {
        self.is_alive() && (!self.streams() || self.age < LEADER_SECONDS)
    }

    /// Whether it says that it streams: then it holds the slot.
    pub fn streams(&self) -> bool {
        matches!(self.state.as_str(), "streaming" | "waiting")
    }

    /// What it is doing, for people.
    pub fn describe(&self) -> String {
        let reason = self.reason.as_deref().map(|text| format!(" ({text})")).unwrap_or_default();
        format!("{}{reason}", self.state)
    }
}

/// The last word of whichever daemon spoke last.
pub async fn last(target: &Target) -> Result<Option<Said>> {
    let text = "select state, reason, layout, extract(epoch from now() - heartbeat_at)::float8 from daemon";
    let row = target.client().query_opt(text, &[]).await;
    let row = row.map_err(on(Side::Target, "look for a heartbeat"))?;
    Ok(row.map(|row| Said { state: row.get(0), reason: row.get(1), layout: row.get(2), age: row.get(3) }))
}

/// What there is to do.
#[derive(Debug)]
pub struct Glance {
    /// A copy was asked for and is to run now.
    pub is_requested: bool,
    /// The schedule has to be asked whether a verify is due.
    pub may_verify: bool,
    /// A dead letter is due for a retry.
    pub has_letters: bool,
    /// Keys expired since that was last looked for …
    pub has_expired: bool,
    /// … or will within seconds.
    pub expires_soon: bool,
    /// People used Open WebUI since that was last looked at.
    pub was_active: bool,
    /// Another text once there is something else to show.
    pub moved: String,
    pub checkpoint: Option<Place>,
}

/// The checkpoint, for people.
#[derive(Debug, Clone)]
pub struct Place {
    pub end_lsn: Lsn,
    pub transactions_applied: i64,
    pub changes_applied: i64,
    pub epoch: i64,
    pub generation: String,
    pub consistent_point: Lsn,
    pub projected: bool,
    pub timeline: i32,
    pub age_seconds: f64,
}

impl Place {
    /// From a row of sql/observe/status.sql or sql/target/glance.sql; `None` where there is no checkpoint.
    pub fn from_row(row: &Row) -> Option<Self> {
        Some(Self {
            end_lsn: row.get::<_, Option<Lsn>>("end_lsn")?,
            transactions_applied: row.get("transactions_applied"),
            changes_applied: row.get("changes_applied"),
            epoch: row.get("epoch"),
            generation: row.get("generation"),
            consistent_point: row.get("consistent_point"),
            projected: row.get("projected"),
            timeline: row.get("timeline"),
            age_seconds: row.get("age_seconds"),
        })
    }
}

/// How far the leader is; `None` before the first copy.
pub async fn place(target: &Target) -> Result<Option<Place>> {
    let statement = target.prepare(sql::STATUS, &[]).await?;
    let rows = target.query("read the checkpoint", QUICK, &statement, &[]).await?;
    Ok(rows.first().and_then(Place::from_row))
}

/// Says how we are, as the leader, and looks what there is to do at `now`; also whether people used Open WebUI since the second
/// `people`, where that was asked for.
///
/// # Errors
/// [`Error::Paused`] while somebody has paused the daemon.
pub async fn glance(
    target: &Target,
    beat: &Beat,
    now: SystemTime,
    people: Option<Option<i64>>,
) -> Result<Glance> {
    let types = [Type::TEXT, Type::TEXT, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::INT8];
    // Before Open WebUI has its tables, they cannot be named.
    let was_active = if people.is_some() { sql::WAS_ACTIVE } else { "false" };
    let statement = target.prepare(&sql::fill(sql::GLANCE, ":was_active", was_active), &types).await?;
    let since = people.flatten();
    let instance = beat.instance.to_string();
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&instance, &beat.state, &beat.reason, &beat.layout, &now, &since];
    let rows = target.query("look what there is to do", QUICK, &statement, &parameters).await?;
    let row = rows
        .first()
        .ok_or_else(|| Error::Usage("a statement that always returns a row returned none".to_owned()))?;
    if let Some(since) = row.get("paused_since") {
        return Err(Error::Paused { reason: row.get("pause_reason"), since });
    }
    Ok(Glance {
        is_requested: row.get("is_requested"),
        may_verify: row.get("may_verify"),
        has_letters: row.get("has_letters"),
        has_expired: row.get("has_expired"),
        expires_soon: row.get("expires_soon"),
        was_active: row.get("was_active"),
        moved: row.get("moved"),
        checkpoint: Place::from_row(row),
    })
}
