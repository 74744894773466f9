//! LiteLLM's rows against the mirror, both at one point: read only.
//!
//! Owns its temporary tables, which go with the transaction. What differs is counted, named, and where it is little kept as
//! the rows the mirror should have ([`Mend`]), for the applier to write. Writes nothing itself.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use crate::catalog::{Kind, Table, TableId};
use crate::config::Config;
use crate::copy::backfill::{self, Drift};
use crate::copy::register::Copies;
use crate::copy::still::Frozen;
use crate::copy::verify::Difference;
use crate::decode::{RowKey, Value};
use crate::error::{Result, Side};
use crate::mirror::statements;
use crate::source::SourceTable;
use crate::stage::Entry;
use crate::target::{SLOW, Target, within};

/// More rows than this are not mended one by one: they are copied again.
const FEW: i64 = 1_000;

/// Nor are rows that are larger than this together.
const FEW_BYTES: i64 = 8 * 1024 * 1024;

/// What the mirror should have instead of what it has, by table.
pub type Mend = Vec<(TableId, RowKey, Entry)>;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// LiteLLM's table to how many rows differ.
    pub drift: BTreeMap<String, Drift>,
    /// Each of them by name, as far as they are few.
    pub differences: Vec<Difference>,
    pub mend: Mend,
    /// They are too many, or too large, to be mended one by one.
    pub is_much: bool,
}

impl Found {
    /// How many rows of the mirror differ.
    pub fn count(&self) -> i64 {
        self.drift.values().map(|drift| drift.inserted + drift.updated + drift.deleted).sum()
    }
}

/// Reads the tables of `scope` at the point, into temporary tables. Gives the number of rows. What it reads from is of no more use then.
pub async fn read(
    config: &Config,
    frozen: &Frozen,
    tables: &BTreeMap<String, SourceTable>,
    scope: &[TableId],
    copies: &Copies,
) -> Result<u64> {
    let Frozen { target, reader, .. } = frozen;
    let mut rows = 0;
    for id in scope.iter().copied() {
        let mirror = id.table().mirror;
        let make = format!("create temporary table stage_{mirror} (like {mirror}) on commit drop");
        target.execute("prepare to compare", &make).await?;
        rows += backfill::fill_staging(config, reader, target, id, tables, None, copies).await?;
    }
    Ok(rows)
}

/// Compares what was [`read`] with the mirror.
pub async fn compare(target: &Target, scope: &[TableId]) -> Result<Found> {
    let (mut found, mut bytes) = (Found::default(), 0_i64);
    target.plan_large().await?;
    for id in scope.iter().copied() {
        let table = id.table();
        target.execute("analyze what was read", &statements::analyze_stage(table)).await?;
        let text = statements::differing(table);
        let work = target.raw().query_one(&text, &[]);
        let row = within(Side::Target, "compare a table", SLOW, work).await?;
        let drift = Drift { inserted: row.get(0), updated: row.get(1), deleted: row.get(2) };
        if drift == Drift::default() {
            continue;
        }
        found.drift.insert(table.source.to_owned(), drift);
        bytes = bytes.saturating_add(row.get(3));
        found.is_much = found.count() > FEW || bytes > FEW_BYTES;
        if !found.is_much {
            let text = statements::differing_rows(table);
            let work = target.raw().query(&text, &[]);
            for row in within(Side::Target, "read what differs", SLOW, work).await? {
                let (key, entry) = should_be(table, &row);
                found.differences.push(named(table, &key, &row));
                found.mend.push((id, key, entry));
            }
        }
    }
    if found.is_much {
        found.mend.clear();
    }
    Ok(found)
}

/// The key of a row that differs, and what the mirror should have there. In order: what is wrong (text), the key, the columns.
fn should_be(table: &Table, row: &Row) -> (RowKey, Entry) {
    let key: Vec<&str> = (1..=table.key_len).map(|place| row.get(place)).collect();
    let key = RowKey::new(&key);
    if row.get::<_, &str>(0) == "too_many" {
        return (key, Entry::Delete);
    }
    let first = table.key_len + 1;
    let values = (first..first + table.columns.len()).map(|place| {
        row.get::<_, Option<String>>(place).map_or(Value::Null, |text| Value::Text(text.into()))
    });
    (key, Entry::Upsert(values.collect()))
}

/// Of a key, no more than tells it from others.
fn named(table: &Table, key: &RowKey, row: &Row) -> Difference {
    let is_secret = table.key().iter().any(|column| column.kind == Kind::Token);
    let parts = key.parts().map(|part| match is_secret {
        true => part.chars().take(10).chain(['…']).collect(),
        false => part.to_owned(),
    });
    Difference {
        operation: table.source.to_owned(),
        record_id: Some(parts.collect::<Vec<String>>().join("/")),
        result: row.get(0),
        old_data: None,
        new_data: None,
    }
}
