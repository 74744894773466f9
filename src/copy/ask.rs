//! The side of whoever asks for a `resnapshot` or a `verify`: asking, and looking what became of it.
//!
//! Owns the waiting for a daemon that may not be there. Writes nothing in the target: the request goes through LiteLLM's
//! WAL like everything else, so that it is met in order.

use std::time::{Duration, Instant};

use crate::config::Config;
use crate::copy::verify::Drifts;
use crate::decode::request::Request;
use crate::error::{Result, Side, on};
use crate::source::Source;
use crate::sql;
use crate::target::Target;
use crate::target::heartbeat;

/// How long nobody may hold the slot before a daemon counts as absent.
const ABSENCE: Duration = Duration::from_secs(6);

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
        // While it copies, or waits between two attempts, it holds no slot.
        let is_alive = heartbeat::last(target).await?.is_some_and(|said| said.is_alive());
        if active || is_alive || look(target, request).await?.is_some() {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(false)
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
