//! LiteLLM's side: the publication, the slot, who the server is, and whether we can go on.
//!
//! Owns everything we have in LiteLLM's database (a publication and a slot) and the decision how to start. It never
//! writes a row there, and it does not know what the rows mean.

pub mod session;

use std::collections::BTreeMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::catalog::{Lsn, TABLES};
use crate::checkpoint::Checkpoint;
use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::postgres::{self, Connection, quote_ident, quote_literal};
use crate::sql;
use crate::target::{QUICK, within};
use session::{Identity, TEXT_SETTINGS};

/// An ordinary connection to LiteLLM's database: catalogs, copies, barriers.
#[derive(Debug)]
pub struct Source {
    pub connection: Connection,
}

/// A mirrored table as LiteLLM has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceTable {
    pub oid: u32,
    /// Column name to (number, type).
    pub columns: BTreeMap<String, (i16, String)>,
}

/// What our slot looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotState {
    pub plugin: Option<String>,
    pub database: Option<String>,
    pub active: bool,
    pub restart_lsn: Option<Lsn>,
    pub confirmed_flush_lsn: Option<Lsn>,
    pub wal_status: Option<String>,
    pub safe_wal_size: Option<i64>,
    pub invalidation_reason: Option<String>,
    pub wal_end: Lsn,
    pub retained_bytes: i64,
}

impl SlotState {
    /// Why the slot can never be used again, if so. Read from the catalog, never from an error text: an invalidated
    /// slot ends the stream like a shutdown does.
    pub fn lost_because(&self) -> Option<String> {
        match (&self.invalidation_reason, self.wal_status.as_deref()) {
            (Some(reason), _) => Some(reason.clone()),
            (None, Some("lost")) => Some("its WAL was removed".to_owned()),
            _ => None,
        }
    }
}

/// What the publication looks like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublicationState {
    pub all_operations: bool,
    pub ours: bool,
    /// Published tables of LiteLLM's schema.
    pub tables: Vec<String>,
    /// Tables with a column list or a row filter: these make LiteLLM's own writes fail.
    pub narrowed: Vec<String>,
    /// The catalog's ids of the publication and its entries, by table: one that was dropped and made again is another one.
    pub identity: BTreeMap<String, u32>,
}

impl Source {
    pub async fn open(config: &Config) -> Result<Self> {
        let connection = postgres::connect(&config.source, "litellm-webui-sync", TEXT_SETTINGS)
            .await
            .map_err(|source| Error::Connect { side: Side::Source, source })?;
        Ok(Self { connection })
    }

    /// The mirrored tables this LiteLLM has, by LiteLLM's name.
    pub async fn tables(&self, config: &Config) -> Result<BTreeMap<String, SourceTable>> {
        let names: Vec<&str> = TABLES.iter().map(|table| table.source).collect();
        let client = &self.connection.client;
        let action = "look at LiteLLM's tables";
        let rows = within(
            Side::Source,
            action,
            QUICK,
            client.query(sql::COLUMNS, &[&config.litellm_schema, &names]),
        )
        .await?;
        let mut tables: BTreeMap<String, SourceTable> = BTreeMap::new();
        for row in rows {
            let table = tables.entry(row.get("table_name")).or_default();
            table.oid = row.get("table_oid");
            table.columns.insert(row.get("column_name"), (row.get("attnum"), row.get("type")));
        }
        if !tables.contains_key("LiteLLM_UserTable") {
            return Err(Error::NoLiteLlm { schema: config.litellm_schema.clone() });
        }
        Ok(tables)
    }

    pub async fn slot(&self, name: &str) -> Result<Option<SlotState>> {
        let client = &self.connection.client;
        let row =
            within(Side::Source, "look at the slot", QUICK, client.query_opt(sql::SLOT_STATE, &[&name]))
                .await?;
        Ok(row.map(|row| SlotState {
            plugin: row.get("plugin"),
            database: row.get("database"),
            active: row.get("active"),
            restart_lsn: row.get("restart_lsn"),
            confirmed_flush_lsn: row.get("confirmed_flush_lsn"),
            wal_status: row.get("wal_status"),
            safe_wal_size: row.get("safe_wal_size"),
            invalidation_reason: row.get("invalidation_reason"),
            wal_end: row.get("wal_end"),
            retained_bytes: row.get("retained_bytes"),
        }))
    }

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
        state.identity.insert(String::new(), first.get("publication_oid"));
        for row in &rows {
            let (schema, table): (Option<String>, Option<String>) =
                (row.get("schemaname"), row.get("tablename"));
            if let (Some(schema), Some(table)) = (schema, table)
                && schema == config.litellm_schema
            {
                let entry: Option<u32> = row.get("entry_oid");
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
    /// [`Error::Publication`] when it is there in a form that would harm LiteLLM or lose changes.
    pub fn publication_repair(
        config: &Config,
        state: Option<&PublicationState>,
        tables: &BTreeMap<String, SourceTable>,
    ) -> Result<Option<PublicationRepair>> {
        let wanted: Vec<&String> = tables.keys().collect();
        let name = quote_ident(&config.publication);
        let Some(state) = state else {
            let sql = format!("create publication {name} for table {}", table_list(config, &wanted));
            return Ok(Some(PublicationRepair { problem: "does not exist", sql }));
        };
        let wrong = |problem: String, sql: String| {
            Err(Error::Publication { publication: config.publication.clone(), problem, sql })
        };
        if let Some(table) = state.narrowed.first() {
            return wrong(
                format!("has a column list or row filter on {table}, which makes LiteLLM's writes fail"),
                format!("alter publication {name} set table {}", table_list(config, &wanted)),
            );
        }
        if !state.all_operations {
            return wrong(
                "does not publish insert, update, delete and truncate".to_owned(),
                format!("alter publication {name} set (publish = 'insert, update, delete, truncate')"),
            );
        }
        let missing: Vec<&String> = wanted.into_iter().filter(|t| !state.tables.contains(t)).collect();
        // Without these there is nothing to do. Others may wait for whoever owns the publication: their SQL is
        // what `setup --print-sql` prints, and a table that is added later is copied then.
        let essential = |name: &&&String| ESSENTIAL.contains(&name.as_str());
        if missing.is_empty() || (!state.ours && !missing.iter().any(|name| essential(&name))) {
            return Ok(None);
        }
        let sql = format!("alter publication {name} add table {}", table_list(config, &missing));
        Ok(Some(PublicationRepair { problem: "lacks tables of LiteLLM", sql }))
    }

    /// Creates or completes the publication.
    pub async fn repair_publication(&self, config: &Config, repair: &PublicationRepair) -> Result<()> {
        self.change_publication(config, repair.problem, &repair.sql).await
    }

    async fn change_publication(&self, config: &Config, problem: &str, sql: &str) -> Result<()> {
        // Never wait behind LiteLLM's own migrations, and never make it wait behind us.
        let text = format!("set lock_timeout = '2s'; {sql}; reset lock_timeout");
        let work = self.connection.client.batch_execute(&text);
        match within(Side::Source, "write the publication", QUICK, work).await {
            Err(error) if error.sqlstate() == Some("42501") => Err(Error::Publication {
                publication: config.publication.clone(),
                problem: problem.to_owned(),
                sql: sql.to_owned(),
            }),
            other => other,
        }
    }

    /// Drops our slot.
    pub async fn drop_slot(&self, name: &str) -> Result<()> {
        let text = "select pg_drop_replication_slot($1::text::name)";
        let client = &self.connection.client;
        within(Side::Source, "drop the slot", QUICK, client.execute(text, &[&name])).await.map(|_| ())
    }

    /// Server version (`server_version_num`), wal_level and the database's oid.
    pub async fn server(&self) -> Result<(i32, String, i64)> {
        let text = "select current_setting('server_version_num')::int, current_setting('wal_level'),
                           (select oid::bigint from pg_catalog.pg_database where datname = current_database())";
        let work = self.connection.client.query_one(text, &[]);
        let row = within(Side::Source, "ask for the server's version", QUICK, work).await?;
        Ok((row.get(0), row.get(1), row.get(2)))
    }

    /// Who keeps a slot from being created, for a message.
    pub async fn blockers(&self) -> String {
        let Ok(rows) = self.connection.client.query(sql::BLOCKERS, &[]).await else {
            return "the open transactions could not be listed".to_owned();
        };
        let list: Vec<String> = rows
            .iter()
            .map(|row| {
                let (pid, role, application): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
                let seconds: Option<i64> = row.get(3);
                format!("pid {pid} (role {role}, {application}) open for {} s", seconds.unwrap_or_default())
            })
            .collect();
        if list.is_empty() { "no open transaction is visible to us".to_owned() } else { list.join(", ") }
    }

    /// Ends a session of ours that hangs in a command, found by its application name.
    pub async fn terminate(&self, application_name: &str) {
        let text =
            "select pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where application_name = $1";
        let _ = self.connection.client.execute(text, &[&application_name]).await;
    }

    /// Emits a barrier: a transactional message. Returns its position; the checkpoint is past it once everything
    /// committed before is applied.
    pub async fn emit_barrier(&self) -> Result<Lsn> {
        let text = "select pg_logical_emit_message(true, $1, 'barrier')";
        let row = self
            .connection
            .client
            .query_one(text, &[&MESSAGE_PREFIX])
            .await
            .map_err(on(Side::Source, "emit a barrier"))?;
        Ok(row.get(0))
    }
}

/// Tables the people and groups come from.
const ESSENTIAL: &[&str] = &[
    "LiteLLM_UserTable",
    "LiteLLM_TeamTable",
    "LiteLLM_OrganizationTable",
    "LiteLLM_OrganizationMembership",
];

/// Prefix of our logical messages.
pub const MESSAGE_PREFIX: &str = "litellm_webui_sync";

/// Whether a message is a barrier: strictly parsed, because anybody may emit messages.
pub fn is_barrier(prefix: &str, content: &[u8]) -> bool {
    prefix == MESSAGE_PREFIX && content == b"barrier"
}

fn table_list(config: &Config, names: &[&String]) -> String {
    let qualified =
        |name: &&String| format!("only {}.{}", quote_ident(&config.litellm_schema), quote_ident(name));
    names.iter().map(qualified).collect::<Vec<_>>().join(", ")
}

/// The SQL that prepares LiteLLM's database, for a DBA: least privileges for `role`.
pub fn setup_sql(config: &Config, tables: &BTreeMap<String, SourceTable>, role: &str) -> String {
    let names: Vec<&String> = tables.keys().collect();
    let qualified: Vec<String> = names
        .iter()
        .map(|name| format!("{}.{}", quote_ident(&config.litellm_schema), quote_ident(name)))
        .collect();
    format!(
        "-- On LiteLLM's database \"{database}\", as its owner. wal_level must be logical (needs a restart).
-- create role {role} login replication password '…';
alter role {role} replication;
grant connect on database {database_ident} to {role};
grant usage on schema {schema} to {role};
-- For the copies of existing rows; the stream itself needs only REPLICATION.
grant select on {tables} to {role};
create publication {publication} for table {list};
-- Recommended, so that an outage of ours can never fill the disk:
-- alter system set max_slot_wal_keep_size = '16GB'; select pg_reload_conf();
",
        database = config.source.database,
        database_ident = quote_ident(&config.source.database),
        role = quote_ident(role),
        schema = quote_ident(&config.litellm_schema),
        tables = qualified.join(", "),
        publication = quote_ident(&config.publication),
        list = table_list(config, &names),
    )
}

/// The mirrored columns as they are: table oid, and number and type of each column we read. Dropping a column and
/// adding it again rewrites values with no row in the stream; only the number tells. The same for the publication and its
/// entries: changes made while a table was not published are in no stream.
pub fn columns_fingerprint(tables: &BTreeMap<String, SourceTable>, publication: &PublicationState) -> String {
    let mut hasher = Sha256::new();
    for (table, oid) in &publication.identity {
        if table.is_empty() || tables.contains_key(table) {
            hasher.update(format!("{table}:{oid};"));
        }
    }
    for table in TABLES {
        let Some(found) = tables.get(table.source) else { continue };
        hasher.update(format!("{}={};", table.source, found.oid));
        for column in table.columns {
            if let Some((number, kind)) = found.columns.get(column.source) {
                hasher.update(format!("{}={number}:{kind};", column.source));
            }
        }
    }
    hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// SQL that makes the publication what we need, and what is wrong with it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationRepair {
    pub problem: &'static str,
    pub sql: String,
}

/// How to start, from what was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Stream from the checkpoint.
    Stream,
    /// Copy LiteLLM's rows at a new slot's consistent point, then stream. `drop_slot`: ours is there and of no use.
    Copy { reason: String, drop_slot: bool },
}

/// Everything the decision depends on.
#[derive(Debug)]
pub struct Facts<'a> {
    pub checkpoint: Option<&'a Checkpoint>,
    /// A copy of ours was begun and never finished.
    pub unfinished_copy: bool,
    pub slot: Option<&'a SlotState>,
    pub slot_name: &'a str,
    pub identity: &'a Identity,
    pub database: &'a str,
    pub database_oid: i64,
    /// Where the checkpoint's timeline was left, if the server is on a newer one.
    pub switch_point: Option<Lsn>,
    pub columns_fingerprint: &'a str,
}

/// The start-up decision. Pure.
///
/// `confirmed_flush_lsn <= checkpoint` always holds while only we move the slot, because we acknowledge nothing before
/// it is committed. A server asked to stream from before `confirmed_flush_lsn` skips silently to it, so anything else
/// is a gap.
pub fn decide(facts: &Facts<'_>) -> Result<Start> {
    if let Some(slot) = facts.slot {
        let foreign =
            slot.plugin.as_deref() != Some("pgoutput") || slot.database.as_deref() != Some(facts.database);
        if foreign {
            return Err(Error::StraySlot { slot: facts.slot_name.to_owned() });
        }
        if slot.active {
            return Err(Error::SlotHeld { slot: facts.slot_name.to_owned() });
        }
    }
    let copy = |reason: &str| Ok(Start::Copy { reason: reason.to_owned(), drop_slot: facts.slot.is_some() });
    let Some(checkpoint) = facts.checkpoint else {
        return match facts.slot {
            None => copy("first run"),
            Some(_) if facts.unfinished_copy => copy("the first copy did not finish"),
            Some(_) => Err(Error::StraySlot { slot: facts.slot_name.to_owned() }),
        };
    };
    let generation = &checkpoint.generation;
    if generation.system_identifier != facts.identity.system_identifier
        || generation.database_oid != facts.database_oid
    {
        return Err(Error::WrongSource {
            found: "this is not the LiteLLM database the checkpoint belongs to (another server or database)"
                .to_owned(),
        });
    }
    if generation.slot != facts.slot_name {
        return Err(Error::WrongSource {
            found: format!("the checkpoint belongs to slot \"{}\"", generation.slot),
        });
    }
    if facts.identity.timeline < generation.timeline {
        return Err(Error::WrongSource {
            found: "the server is on an older timeline than the one we followed".to_owned(),
        });
    }
    if facts.identity.timeline > generation.timeline
        && facts.switch_point.is_none_or(|point| checkpoint.end_lsn > point)
    {
        return copy("LiteLLM's server failed over and lost changes that were applied here");
    }
    let Some(slot) = facts.slot else { return copy("the slot is gone") };
    if let Some(reason) = slot.lost_because() {
        return copy(&format!("the slot was invalidated: {reason}"));
    }
    match slot.confirmed_flush_lsn {
        Some(confirmed) if confirmed > checkpoint.end_lsn => {
            return copy("the slot is ahead of the checkpoint (was Open WebUI's database restored?)");
        }
        None => return copy("the slot never reached a consistent point"),
        Some(_) => {}
    }
    if checkpoint.end_lsn > facts.identity.wal_end && facts.identity.timeline == generation.timeline {
        return copy("LiteLLM's server is behind the checkpoint (was it restored?)");
    }
    if checkpoint.columns_fingerprint != facts.columns_fingerprint {
        return copy("LiteLLM's tables or the publication changed");
    }
    Ok(Start::Stream)
}

/// How long a slot may take to be created before we name who is in the way.
pub const SLOT_PATIENCE: Duration = Duration::from_secs(30);

/// Used by messages that name a database object in SQL.
pub fn drop_publication_sql(publication: &str) -> String {
    format!("drop publication if exists {}", quote_ident(publication))
}

/// For `setup --print-sql` of the target.
pub fn password_placeholder() -> String {
    quote_literal("…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Generation;

    fn checkpoint(end: u64) -> Checkpoint {
        Checkpoint {
            generation: Generation {
                id: uuid::Uuid::nil(),
                system_identifier: "1".into(),
                timeline: 1,
                database_oid: 5,
                slot: "s".into(),
                consistent_point: Lsn::from(10),
            },
            end_lsn: Lsn::from(end),
            transactions_applied: 0,
            changes_applied: 0,
            epoch: 1,
            projected_with: String::new(),
            committed_at: None,
            columns_fingerprint: "f".into(),
        }
    }

    fn slot(confirmed: u64) -> SlotState {
        SlotState {
            plugin: Some("pgoutput".into()),
            database: Some("litellm".into()),
            active: false,
            restart_lsn: Some(Lsn::from(1)),
            confirmed_flush_lsn: Some(Lsn::from(confirmed)),
            wal_status: Some("reserved".into()),
            safe_wal_size: None,
            invalidation_reason: None,
            wal_end: Lsn::from(1000),
            retained_bytes: 0,
        }
    }

    fn identity(timeline: i32) -> Identity {
        Identity { system_identifier: "1".into(), timeline, wal_end: Lsn::from(1000) }
    }

    fn facts<'a>(
        checkpoint: Option<&'a Checkpoint>,
        slot: Option<&'a SlotState>,
        identity: &'a Identity,
    ) -> Facts<'a> {
        Facts {
            checkpoint,
            unfinished_copy: false,
            slot,
            slot_name: "s",
            identity,
            database: "litellm",
            database_oid: 5,
            switch_point: None,
            columns_fingerprint: "f",
        }
    }

    fn reason(result: Result<Start>) -> String {
        match result.unwrap() {
            Start::Copy { reason, .. } => reason,
            Start::Stream => "stream".to_owned(),
        }
    }

    #[test]
    fn nothing_there_is_a_first_copy_and_a_stray_slot_is_not_touched() {
        let identity = identity(1);
        assert_eq!(reason(decide(&facts(None, None, &identity))), "first run");
        let stray = slot(5);
        assert!(matches!(decide(&facts(None, Some(&stray), &identity)), Err(Error::StraySlot { .. })));
        let again = Facts { unfinished_copy: true, ..facts(None, Some(&stray), &identity) };
        assert_eq!(
            decide(&again).unwrap(),
            Start::Copy { reason: "the first copy did not finish".into(), drop_slot: true }
        );
    }

    #[test]
    fn a_slot_ahead_of_the_checkpoint_is_a_gap_never_a_stream() {
        let (c, identity) = (checkpoint(100), identity(1));
        assert_eq!(decide(&facts(Some(&c), Some(&slot(100)), &identity)).unwrap(), Start::Stream);
        assert_eq!(decide(&facts(Some(&c), Some(&slot(90)), &identity)).unwrap(), Start::Stream);
        assert!(reason(decide(&facts(Some(&c), Some(&slot(101)), &identity))).contains("ahead"));
    }

    #[test]
    fn a_lost_slot_is_seen_in_the_catalog() {
        let (c, identity) = (checkpoint(100), identity(1));
        let mut lost = slot(100);
        lost.wal_status = Some("lost".into());
        assert!(reason(decide(&facts(Some(&c), Some(&lost), &identity))).contains("WAL was removed"));
        assert_eq!(reason(decide(&facts(Some(&c), None, &identity))), "the slot is gone");
    }

    #[test]
    fn another_server_stops_and_a_failover_asks_its_history() {
        let c = checkpoint(100);
        let mut other = identity(1);
        other.system_identifier = "2".into();
        assert!(matches!(decide(&facts(Some(&c), Some(&slot(90)), &other)), Err(Error::WrongSource { .. })));
        let newer = identity(2);
        let kept = Facts { switch_point: Some(Lsn::from(100)), ..facts(Some(&c), None, &newer) };
        assert_eq!(reason(decide(&kept)), "the slot is gone");
        let slot = slot(90);
        let kept = Facts { switch_point: Some(Lsn::from(100)), ..facts(Some(&c), Some(&slot), &newer) };
        assert_eq!(decide(&kept).unwrap(), Start::Stream);
        let lost = Facts { switch_point: Some(Lsn::from(99)), ..facts(Some(&c), Some(&slot), &newer) };
        assert!(reason(decide(&lost)).contains("failed over"));
    }

    #[test]
    fn a_held_slot_means_waiting() {
        let (c, identity) = (checkpoint(100), identity(1));
        let mut held = slot(90);
        held.active = true;
        assert!(matches!(decide(&facts(Some(&c), Some(&held), &identity)), Err(Error::SlotHeld { .. })));
    }
}
