//! The newest rows of `sync_audit`, for people to look at, and the end of the old ones.
//!
//! Reads that table and deletes from it; never writes a row (the projection does, in the transaction that did the work).

use std::time::SystemTime;

use tokio_postgres::types::Type;

use crate::error::{Result, Side, on};
use crate::sql;
use crate::target::{QUICK, Target};

/// One thing that was done, or that could not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: i64,
    pub at: SystemTime,
    /// As in the table: `SYNC_USER`, `DELETE_TEAM`, …
    pub operation: String,
    /// LiteLLM's id; `None` in the summary of a copy.
    pub record_id: Option<String>,
    /// `SUCCESS`, `FAILED`, `SKIPPED`.
    pub result: String,
    pub error: Option<String>,
    pub email: Option<String>,
    pub name: Option<String>,
    /// How many, in a summary.
    pub count: Option<i64>,
    /// Members of a group.
    pub added: Option<i64>,
    pub removed: Option<i64>,
}

/// At most `limit` rows after the id `after`, newest first. `None`: the newest there are.
pub async fn tail(target: &Target, after: Option<i64>, limit: i64) -> Result<Vec<Entry>> {
    let statement = target.prepare(sql::AUDIT_TAIL, &[Type::INT8, Type::INT8]).await?;
    let rows = target.query("read the audit", QUICK, &statement, &[&after, &limit]).await?;
    Ok(rows
        .iter()
        .map(|row| Entry {
            id: row.get("id"),
            at: row.get("created_at"),
            operation: row.get("operation"),
            record_id: row.get("record_id"),
            result: row.get("sync_result"),
            error: row.get("error_message"),
            email: row.get("email"),
            name: row.get("name"),
            count: row.get("count"),
            added: row.get("added"),
            removed: row.get("removed"),
        })
        .collect())
}

/// Forgets what is older than `days`: audit rows, and what finished resnapshots found.
pub async fn forget_old(target: &Target, days: i32) -> Result<()> {
    let done = target.client().execute(sql::OLD_AUDIT, &[&days]).await;
    done.map_err(on(Side::Target, "delete old audit rows"))?;
    Ok(())
}
