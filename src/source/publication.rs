//! The publication: what it must hold, how it is repaired, and how we notice that it changed.
//!
//! Whole tables, without column lists or row filters: those make LiteLLM's own writes and migrations fail.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::start::UPGRADED;
use super::{Source, SourceTable, tables};
use crate::catalog::TableId;
use crate::config::Config;
use crate::error::{Error, Result, Side};
use crate::postgres::lossy::Text;
use crate::postgres::quote_ident;
use crate::sql;
use crate::target::{QUICK, within};

/// What the publication looks like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationState {
    pub all_operations: bool,
    pub ours: bool,
    /// Published tables of LiteLLM's schema.
    pub tables: Vec<String>,
    /// Published tables with a column list or a row filter: these make LiteLLM's own writes fail.
    pub narrowed: Vec<String>,
    /// Row versions of the publication and its entries in the catalog, by table: whatever was altered, or dropped and
    /// made again, has another one.
    pub identity: BTreeMap<String, String>,
}

impl PublicationState {
    /// Adding tables is tried even where somebody else owns the publication; their decisions are theirs to change.
    fn is_only_incomplete(&self) -> bool {
        self.narrowed.is_empty() && self.all_operations
    }
}

const LACKS_TABLES: &str = "lacks tables of LiteLLM";

/// Tables the people and groups come from.
const ESSENTIAL: &[&str] = &[
    "LiteLLM_UserTable",
    "LiteLLM_TeamTable",
    "LiteLLM_OrganizationTable",
    "LiteLLM_OrganizationMembership",
];

/// SQL that makes the publication what we need, and what is wrong with it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationRepair {
    pub problem: &'static str,
    pub sql: String,
    /// It follows from what LiteLLM did to its tables, and not from what somebody did to the publication.
    pub of_an_upgrade: bool,
    /// LiteLLM's writes fail until it is done.
    pub is_urgent: bool,
}

impl PublicationRepair {
    /// Nothing is lost or harmed until it is done.
    pub fn can_wait(&self) -> bool {
        self.of_an_upgrade && !self.is_urgent
    }

    /// Why everything is copied again after it.
    pub fn because(&self) -> String {
        let Self { problem, .. } = self;
        if self.of_an_upgrade {
            format!("{UPGRADED}: it {problem}")
        } else {
            format!("the publication {problem}")
        }
    }
}

impl Source {
    pub async fn publication(&self, config: &Config) -> Result<Option<PublicationState>> {
        let client = &self.connection.client;
        let action = "look at the publication";
        let rows =
            within(Side::Source, action, QUICK, client.query(sql::PUBLICATION, &[&config.publication]))
                .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let mut state = PublicationState {
            all_operations: first.get("all_operations"),
            ours: first.get("ours"),
            ..PublicationState::default()
        };
        state.identity.insert(String::new(), first.get("publication_version"));
        for row in &rows {
            let (schema, table): (Option<Text>, Option<Text>) = (row.get("schemaname"), row.get("tablename"));
            if let (Some(Text(schema)), Some(Text(table))) = (schema, table)
                && schema == config.litellm_schema
            {
                let entry: Option<String> = row.get("entry_version");
                state.identity.insert(table.clone(), entry.unwrap_or_default());
                if row.get("narrowed") {
                    state.narrowed.push(table.clone());
                }
                state.tables.push(table);
            }
        }
        Ok(Some(state))
    }

    /// What has to be run so that the publication exists and holds every table we mirror. `None`: nothing.
    ///
    /// # Errors
    /// [`Error::Publication`] when it is there in a form that would harm LiteLLM or lose changes, and is somebody else's;
    /// [`Error::ReplicaIdentity`] when it would have to publish a table that must not be. One that is published already is
    /// taken out first: LiteLLM's writes fail for as long as it is in.
    pub fn publication_repair(
        config: &Config,
        state: Option<&PublicationState>,
        tables: &BTreeMap<String, SourceTable>,
    ) -> Result<Option<PublicationRepair>> {
        let wanted: Vec<&String> = tables.keys().collect();
        let name = quote_ident(&config.publication);
        let unfit = tables::unfit(config, tables);
        if let Some(state) = state {
            let harmful: Vec<&String> = wanted
                .iter()
                .copied()
                .filter(|table| unfit.iter().any(|one| one.table == *table) && state.tables.contains(table))
                .collect();
            if !harmful.is_empty() && state.ours {
                return Ok(Some(PublicationRepair {
                    problem: "holds a table without the replica identity that LiteLLM's updates and deletes need",
                    sql: format!("alter publication {name} drop table {}", table_list(config, &harmful)),
                    of_an_upgrade: true,
                    is_urgent: true,
                }));
            }
        }
        tables::refuse(&unfit)?;
        let Some(state) = state else {
            let sql = format!("create publication {name} for table {}", table_list(config, &wanted));
            return Ok(Some(PublicationRepair {
                problem: "does not exist",
                sql,
                of_an_upgrade: false,
                is_urgent: false,
            }));
        };
        let mut repairs: Vec<(&'static str, String)> = Vec::new();
        let narrowed: Vec<&String> = wanted.iter().copied().filter(|t| state.narrowed.contains(t)).collect();
        if !narrowed.is_empty() {
            let list = table_list(config, &narrowed);
            repairs.push((
                "has a column list or row filter, which makes LiteLLM's writes fail",
                // Both or neither: sent together they are one transaction.
                format!(
                    "alter publication {name} drop table {list}; alter publication {name} add table {list}"
                ),
            ));
        }
        if !state.all_operations {
            repairs.push((
                "does not publish insert, update, delete and truncate",
                format!("alter publication {name} set (publish = 'insert, update, delete, truncate')"),
            ));
        }
        let missing: Vec<&String> = wanted.into_iter().filter(|t| !state.tables.contains(t)).collect();
        // Without these there is nothing to do. Others may wait for whoever owns the publication: their SQL is
        // what `setup --print-sql` prints, and a table that is added later is copied then.
        let essential = missing.iter().any(|name| ESSENTIAL.contains(&name.as_str()));
        if !missing.is_empty() && (state.ours || essential || !repairs.is_empty()) {
            let sql = format!("alter publication {name} add table {}", table_list(config, &missing));
            repairs.push((LACKS_TABLES, sql));
        }
        let Some((problem, _)) = repairs.first() else { return Ok(None) };
        let sql = repairs.iter().map(|(_, sql)| sql.as_str()).collect::<Vec<_>>().join("; ");
        if state.ours || state.is_only_incomplete() {
            let of_an_upgrade = *problem == LACKS_TABLES;
            return Ok(Some(PublicationRepair { problem, sql, of_an_upgrade, is_urgent: false }));
        }
        Err(Error::Publication {
            publication: config.publication.clone(),
            problem: (*problem).to_owned(),
            sql,
        })
    }

    /// Creates or completes the publication.
    pub async fn repair_publication(&self, config: &Config, repair: &PublicationRepair) -> Result<()> {
        self.change_publication(config, repair.problem, &repair.sql).await
    }

    async fn change_publication(&self, config: &Config, problem: &str, sql: &str) -> Result<()> {
        // The session's lock_timeout keeps us from waiting behind LiteLLM's own migrations.
        let work = self.connection.client.batch_execute(sql);
        match within(Side::Source, "write the publication", QUICK, work).await {
            Err(error) if error.sqlstate() == Some("42501") => Err(Error::Publication {
                publication: config.publication.clone(),
                problem: problem.to_owned(),
                sql: sql.to_owned(),
            }),
            other => other,
        }
    }
}

/// The mirrored columns as they are: table oid, and number and type of each column we read. Dropping a column and
/// adding it again rewrites values with no row in the stream; only the number tells. The same for the publication and its
/// entries: changes made while a table was not published are in no stream.
pub fn columns_fingerprint(tables: &BTreeMap<String, SourceTable>, publication: &PublicationState) -> String {
    let mut hasher = Sha256::new();
    for (table, oid) in &publication.identity {
        if table.is_empty() || tables.contains_key(table) && tables::is_mirrored(table) {
            hasher.update(format!("{table}:{oid};"));
        }
    }
    for table in TableId::mirrored().map(TableId::table) {
        let Some(found) = tables.get(table.source) else { continue };
        hasher.update(format!("{}={};", table.source, found.oid));
        let columns = table.columns.iter().map(|column| column.source).chain(table.spending.iter().copied());
        for column in columns {
            if let Some((number, kind)) = found.columns.get(column) {
                hasher.update(format!("{column}={number}:{kind};"));
            }
        }
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn table_list(config: &Config, names: &[&String]) -> String {
    let qualified =
        |name: &&String| format!("only {}.{}", quote_ident(&config.litellm_schema), quote_ident(name));
    names.iter().map(qualified).collect::<Vec<_>>().join(", ")
}

/// The SQL that takes the publication away.
pub fn drop_publication_sql(publication: &str) -> String {
    format!("drop publication if exists {}", quote_ident(publication))
}
