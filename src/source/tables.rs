//! LiteLLM's tables as they are, and whether they can be published without harm.
//!
//! Owns that judgement, which `doctor`, `plan`, `setup`, `run` and the monitor share: nothing is done to LiteLLM before it was
//! looked at. Reads catalogs only.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use super::Source;
use crate::catalog::{TABLES, Table, TableId};
use crate::config::Config;
use crate::error::{Error, Result, Side};
use crate::postgres::lossy::Text;
use crate::postgres::quote_ident;
use crate::sql;
use crate::target::{QUICK, within};

/// A mirrored table as LiteLLM has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTable {
    pub oid: u32,
    /// Column name to (number, type).
    pub columns: BTreeMap<String, (i16, String)>,
    /// `relfilenode`: another one after whatever rewrites the table.
    pub filenode: u32,
    /// `relreplident`.
    pub identity: String,
    /// The columns that UPDATE and DELETE tell a row by once it is published, sorted; none where there is no such key.
    pub identified_by: Option<Vec<String>>,
    /// Our publication holds it.
    pub published: bool,
    /// We may read it.
    pub readable: bool,
    /// `reltuples`: about how many rows it has; 0 where the server does not know.
    pub rows: i64,
}

/// How many tables a copy is about, and about how many rows they have, as far as the server knows.
pub fn to_copy(tables: &BTreeMap<String, SourceTable>) -> (usize, u64) {
    let mirrored = TableId::mirrored().filter_map(|id| tables.get(id.table().source));
    let rows = mirrored.map(|table| u64::try_from(table.rows).unwrap_or_default());
    rows.fold((0, 0), |(count, all), rows| (count + 1, all + rows))
}

/// Whether it is the name of a table that is mirrored.
pub(super) fn is_mirrored(name: &str) -> bool {
    TableId::of_source(name).is_some_and(|id| id.table().is_mirrored())
}

/// A table that must not be published as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    pub table: &'static str,
    pub problem: String,
    /// What mends it, on LiteLLM's database.
    pub sql: String,
}

impl Source {
    /// What we read of this LiteLLM: [`Self::all_tables`], without those that are not mirrored and that we were not granted, by an earlier
    /// release's grants: who needs them says so.
    ///
    /// # Errors
    /// As [`Self::all_tables`].
    pub async fn tables(&self, config: &Config) -> Result<BTreeMap<String, SourceTable>> {
        let mut tables = self.all_tables(config).await?;
        tables.retain(|name, found| found.readable || is_mirrored(name));
        Ok(tables)
    }

    /// The published tables this LiteLLM has, by LiteLLM's name. One that only newer releases have is not there yet for as long as
    /// their migrations are between making it and giving it its columns.
    ///
    /// # Errors
    /// [`Error::NoLiteLlm`] where there are none yet, [`Error::LiteLlmLacks`] where tables or columns are missing that every
    /// LiteLLM has: what is missing says nothing about anybody.
    pub async fn all_tables(&self, config: &Config) -> Result<BTreeMap<String, SourceTable>> {
        let names: Vec<&str> = TABLES.iter().map(|table| table.source).collect();
        let client = &self.connection.client;
        let parameters: [&(dyn ToSql + Sync); 3] = [&config.litellm_schema, &names, &config.publication];
        let work = client.query(sql::SOURCE_TABLES, &parameters);
        let rows = within(Side::Source, "look at LiteLLM's tables", QUICK, work).await?;
        let mut tables: BTreeMap<String, SourceTable> = BTreeMap::new();
        for row in rows {
            let table = tables.entry(row.get("table_name")).or_default();
            table.oid = row.get("table_oid");
            table.filenode = row.get("filenode");
            table.identity = row.get("identity");
            table.identified_by = row.get("identified_by");
            table.published = row.get("published");
            table.rows = row.get("rows");
            table.readable = row.get("readable");
            // Names of columns that LiteLLM never made may be anything.
            let (Text(column), Text(kind)) = (row.get("column_name"), row.get("type"));
            table.columns.insert(column, (row.get("attnum"), kind));
        }
        if !tables.contains_key("LiteLLM_UserTable") {
            return Err(Error::NoLiteLlm { schema: config.litellm_schema.clone() });
        }
        let budgets_decide = config.policy.budgets_decide();
        tables.retain(|name, found| !is_half_made(name, found, budgets_decide));
        let lacking = lacking(&tables, budgets_decide);
        if lacking.is_empty() { Ok(tables) } else { Err(Error::LiteLlmLacks { what: lacking.join(", ") }) }
    }

    /// How the tables and indexes of LiteLLM's schema look now, which any DDL changes, and whether somebody is at it.
    pub async fn ddl(&self, config: &Config) -> Result<(Option<String>, bool)> {
        let client = &self.connection.client;
        let parameters: [&(dyn ToSql + Sync); 1] = [&config.litellm_schema];
        let row =
            within(Side::Source, "look for DDL", QUICK, client.query_one(sql::DDL, &parameters)).await?;
        Ok((row.get("shape"), row.get("busy")))
    }
}

/// The columns that every LiteLLM with this table has, and this one lacks.
fn missing<'a>(
    table: &'a Table,
    found: &'a SourceTable,
    budgets_decide: bool,
) -> impl Iterator<Item = &'static str> + 'a {
    table.required(budgets_decide).filter(|column| !found.columns.contains_key(*column))
}

/// Whether it is a table on its way: nothing of it was ever read, so nothing is taken for missing.
fn is_half_made(name: &str, found: &SourceTable, budgets_decide: bool) -> bool {
    let table = TABLES.iter().find(|table| table.source == name);
    table.is_some_and(|table| {
        !table.always && !found.published && missing(table, found, budgets_decide).next().is_some()
    })
}

/// What is missing although every LiteLLM has it.
fn lacking(tables: &BTreeMap<String, SourceTable>, budgets_decide: bool) -> Vec<String> {
    let mut lacking = Vec::new();
    for table in TABLES {
        match tables.get(table.source) {
            Some(found) => lacking.extend(
                missing(table, found, budgets_decide)
                    .map(|column| format!("column {}.{column}", table.source)),
            ),
            None if table.always => lacking.push(format!("table {}", table.source)),
            None => {}
        }
    }
    lacking.dedup();
    lacking
}

/// The tables that must not be published as they are: LiteLLM's own UPDATE and DELETE fail on a published table without a
/// replica identity, and one by other columns than the primary key does not tell us whose row it is.
pub fn unfit(config: &Config, tables: &BTreeMap<String, SourceTable>) -> Vec<Unfit> {
    TABLES.iter().filter_map(|table| judge(config, table, tables.get(table.source)?)).collect()
}

fn judge(config: &Config, table: &'static Table, found: &SourceTable) -> Option<Unfit> {
    let mut key: Vec<&str> = table.key().iter().map(|column| column.source).collect();
    key.sort_unstable();
    let fits = found.identified_by.as_ref().is_some_and(|by| by.iter().eq(key.iter()));
    // Every column, so the key as well.
    if fits || found.identity == "f" {
        return None;
    }
    let name = format!("{}.{}", quote_ident(&config.litellm_schema), quote_ident(table.source));
    let columns = table.key().iter().map(|column| quote_ident(column.source)).collect::<Vec<_>>().join(", ");
    let add_key = format!("alter table {name} add primary key ({columns})");
    let default = format!("alter table {name} replica identity default");
    let (problem, sql) = match (found.identity.as_str(), &found.identified_by) {
        ("d", None) => ("has no primary key".to_owned(), add_key),
        ("d", Some(by)) => (format!("has another primary key ({}) than LiteLLM's", by.join(", ")), add_key),
        ("n", _) => ("has replica identity nothing".to_owned(), default),
        (_, Some(by)) => (format!("has a replica identity by other columns ({})", by.join(", ")), default),
        (_, None) => {
            ("has a replica identity by an index that is gone or cannot be used".to_owned(), default)
        }
    };
    Some(Unfit { table: table.source, problem, sql })
}

/// Refuses tables that must not be published.
///
/// # Errors
/// [`Error::ReplicaIdentity`] with the SQL that mends all of them.
pub fn refuse(unfit: &[Unfit]) -> Result<()> {
    if unfit.is_empty() {
        return Ok(());
    }
    let problem =
        unfit.iter().map(|one| format!("{} {}", one.table, one.problem)).collect::<Vec<_>>().join("; ");
    let sql = unfit.iter().map(|one| one.sql.as_str()).collect::<Vec<_>>().join("; ");
    Err(Error::ReplicaIdentity { problem, sql })
}
