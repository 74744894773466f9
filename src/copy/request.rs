//! What a request for a copy becomes in the target: noted once, run when it is its turn, put off, ended.
//!
//! Owns the table `resnapshot`. Knows who asked, a person or the schedule; what a copy is, and what it finds, is in
//! [`super::resnapshot`] and [`super::verify`]. Never touches a mirror table.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use crate::catalog::TableId;
use crate::copy::register::CopyKind;
use crate::copy::verify::Drifts;
use crate::decode::request::Request;
use crate::error::{Result, Side, on};
use crate::position::Lsn;
use crate::source::SourceTable;
use crate::sql;
use crate::target::{QUICK, Target, within};

/// Notes a request, once.
pub async fn record(target: &Target, request: &Request) -> Result<()> {
    let Request { id, tables, dry_run } = request;
    let done = target.client().execute(sql::RESNAPSHOT_RECORD, &[&id.to_string(), tables, dry_run]).await;
    done.map_err(on(Side::Target, "note a resnapshot"))?;
    Ok(())
}

/// Notes the files of LiteLLM's tables, and asks for a look at those that were rewritten since they were last noted, unless
/// everything was just copied.
pub async fn look_at_files(
    target: &Target,
    tables: &BTreeMap<String, SourceTable>,
    repair: bool,
    just_copied: bool,
) -> Result<()> {
    let names: Vec<&str> = tables.keys().map(String::as_str).collect();
    let files: Vec<i64> = tables.values().map(|table| i64::from(table.filenode)).collect();
    let (id, dry_run, ask) = (uuid::Uuid::new_v4().to_string(), !repair, !just_copied);
    let parameters: [&(dyn ToSql + Sync); 5] = [&names, &files, &id, &dry_run, &ask];
    let work = target.raw().query(sql::REWRITTEN, &parameters);
    for row in within(Side::Target, "note the files of LiteLLM's tables", QUICK, work).await? {
        tracing::warn!(table = row.get::<_, &str>(0), "LiteLLM's table was rewritten: it is looked at again");
    }
    Ok(())
}

/// A request that is to run now.
#[derive(Debug, Clone)]
pub struct Pending {
    pub(super) id: i64,
    tables: Vec<String>,
    pub(super) dry_run: bool,
    /// The schedule asked for it, and nobody in particular.
    scheduled: bool,
    /// Neither did: what happened.
    because: Option<String>,
}

impl Pending {
    pub fn kind(&self) -> CopyKind {
        if self.dry_run { CopyKind::Verify } else { CopyKind::Resnapshot }
    }

    pub fn id(&self) -> i64 {
        self.id
    }

    /// Whether what is found is mended.
    pub fn mends(&self) -> bool {
        !self.dry_run
    }

    /// Why it runs, for people.
    pub fn reason(&self) -> &str {
        match &self.because {
            Some(because) => because,
            None if self.scheduled => "the scheduled verify is due",
            None => "somebody asked for it",
        }
    }

    pub fn concerns(&self, id: TableId) -> bool {
        self.tables.is_empty() || self.tables.iter().any(|name| name == id.table().source)
    }
}

/// The oldest request that is to run now.
pub async fn pending(target: &Target) -> Result<Option<Pending>> {
    let statement = target.prepare(sql::RESNAPSHOT_PENDING, &[]).await?;
    let rows = target.query("look for a resnapshot", QUICK, &statement, &[]).await?;
    Ok(rows.first().map(|row| Pending {
        id: row.get("id"),
        tables: row.get("tables"),
        dry_run: row.get("dry_run"),
        scheduled: row.get("scheduled"),
        because: row.get("because"),
    }))
}

/// `held`: until it is approved; otherwise for a while, longer each time.
pub async fn put_off(target: &Target, id: i64, phase: &str, reason: &str, held: bool) -> Result<()> {
    let done = target.client().execute(sql::RESNAPSHOT_LATER, &[&id, &phase, &reason, &held]).await;
    done.map_err(on(Side::Target, "put a resnapshot off"))?;
    Ok(())
}

/// Says how far it is; `rows` copied so far, `None` as it was.
pub async fn progress(target: &Target, id: i64, phase: &str, rows: Option<i64>) -> Result<()> {
    let done = target.client().execute(sql::RESNAPSHOT_PROGRESS, &[&id, &phase, &rows]).await;
    done.map_err(on(Side::Target, "note the progress of a resnapshot"))?;
    Ok(())
}

/// Ends it, with what was found at its point.
pub async fn finish(target: &Target, id: i64, point: Lsn, drifts: &Drifts) -> Result<()> {
    let drifts = serde_json::to_string(drifts).unwrap_or_default();
    let done = target.client().execute(sql::RESNAPSHOT_FINISH, &[&id, &point, &drifts]).await;
    done.map_err(on(Side::Target, "end a resnapshot"))?;
    Ok(())
}
