//! What a look at everything finds to differ, and when the schedule asks for one.
//!
//! Owns the form of what was found (in `resnapshot.drift` and the table `resnapshot_difference`) and the table
//! `verify_schedule`. Finds nothing itself: the merge of [`super::resnapshot`] does, in its transaction.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;

use crate::config::policy;
use crate::copy::backfill::Drift;
use crate::error::{Result, Side, on};
use crate::position::Lsn;
use crate::sql;
use crate::target::{QUICK, Target};

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
        "BUDGET_CLOSED" | "BUDGET_OPENED" | "CHAT_SPEND" => "budget",
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
    let row = target.slow().query_opt(sql::LAST_VERIFY, &[]).await;
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

/// What the projection of a merge did, in its transaction: the audit rows it stamped with this moment and this point.
pub(super) async fn found(target: &Target, now: SystemTime, point: Lsn) -> Result<Vec<Difference>> {
    let rows = target.slow().query(sql::RESNAPSHOT_FOUND, &[&now, &point]).await;
    Ok(rows.map_err(on(Side::Target, "read what differed"))?.iter().map(difference).collect())
}

/// Keeps what was found for whoever asked.
pub async fn keep(target: &Target, id: i64, differences: &[Difference]) -> Result<()> {
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
    let done = target.slow().execute(sql::RESNAPSHOT_KEEP_DIFFERENCE, parameters).await;
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

/// The Open WebUI rows a finished request found to differ, at most 10,000.
pub async fn differences(target: &Target, id: i64) -> Result<Vec<Difference>> {
    let rows = target.slow().query(sql::RESNAPSHOT_DIFFERENCES, &[&id]).await;
    Ok(rows.map_err(on(Side::Target, "list what differed"))?.iter().map(difference).collect())
}
