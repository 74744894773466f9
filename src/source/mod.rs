//! LiteLLM's side: the publication, the slot, who the server is, and whether we can go on.
//!
//! Owns everything we have in LiteLLM's database (a publication and a slot) and the decision how to start. It never
//! writes a row there, and it does not know what the rows mean.

pub mod overlap;
pub mod pace;
pub mod publication;
mod reading;
pub mod session;
pub mod start;
pub mod tables;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::catalog::TABLES;
use crate::config::{Config, Endpoint};
use crate::decode::request::MESSAGE_PREFIX;
use crate::error::{Error, Result, Side, on};
use crate::position::Lsn;
use crate::postgres::lossy::Text;
use crate::postgres::{self, Connection, Limited, quote_ident};
use crate::sql;
use crate::target::{QUICK, within};
use pace::Pace;
use publication::table_list;
pub use tables::SourceTable;

/// Major version: before it nothing says which part of a table a publication holds.
const OLDEST: u32 = 15;

/// Of every ordinary session in LiteLLM's database, beside those of [`postgres::settings`].
const SETTINGS: &[(&str, &str)] = &[
    // Only what is qualified is LiteLLM's.
    ("search_path", "pg_catalog"),
    // Far below `deadlock_timeout`: we are never the reason for somebody's deadlock, and nobody queues behind us for long.
    ("lock_timeout", "200ms"),
    // A little more than [`QUICK`]: what we gave up on ends there too. Who reads whole tables says so ([`Source::begin_reading`]).
    ("statement_timeout", "20s"),
    ("idle_in_transaction_session_timeout", "60s"),
];

/// An ordinary connection to LiteLLM's database: catalogs, copies, barriers.
#[derive(Debug)]
pub struct Source {
    pub connection: Connection,
    /// Where it leads: what belongs together (a slot, its snapshot, the stream) has to be on one server.
    pub endpoint: Endpoint,
    /// Of whoever reads many rows through it.
    pub pace: Pace,
}

/// What kind of server it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `server_version_num`
    pub version: i32,
    pub wal_level: String,
    pub database_oid: i64,
    /// The timeline it writes. A standby writes none.
    pub timeline: Option<i32>,
}

/// Who follows our slot, as LiteLLM's server sees it.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Leader {
    /// The session's name: it ends with the daemon's instance.
    pub session: String,
    /// Its address; none when it came through a socket.
    pub client: Option<String>,
    /// For how long.
    pub seconds: Option<f64>,
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
    fn from_row(row: &Row) -> Self {
        Self {
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
        }
    }

    /// What it is, where it cannot be a slot of this program for `database`.
    fn foreign_to(&self, database: &str) -> Option<String> {
        match (self.database.as_deref(), self.plugin.as_deref()) {
            (None, _) | (_, None) => Some("is a physical slot".to_owned()),
            (Some(found), _) if found != database => Some(format!("belongs to database \"{found}\"")),
            (_, Some("pgoutput")) => None,
            (_, Some(plugin)) => Some(format!("has the output plugin {plugin}")),
        }
    }

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

impl Source {
    pub async fn open(config: &Config) -> Result<Self> {
        Self::open_at(&config.source).await
    }

    /// A second session on the very same server.
    pub async fn beside(&self) -> Result<Self> {
        Self::open_at(&self.endpoint).await
    }

    /// Opens the first host that writes `timeline` or a newer one. A primary that failed, and came back when nobody had
    /// told it that it was replaced, writes an older one: nothing is to be read there.
    pub async fn open_since(config: &Config, timeline: i32) -> Result<Self> {
        let mut hosts = config.source.clone();
        loop {
            let source = Self::open_at(&hosts).await?;
            let [_, _, ..] = config.source.addresses.as_slice() else { return Ok(source) };
            let Some(found) = source.server().await?.timeline.filter(|found| *found < timeline) else {
                return Ok(source);
            };
            let address = source.connection.address.clone();
            tracing::warn!(host = %address, timeline = found, followed = timeline, "passing by a primary of the past");
            hosts.addresses.retain(|known| *known != address);
            if hosts.addresses.is_empty() {
                return Err(Error::OldTimeline { host: address.to_string() });
            }
        }
    }

    /// A session on this endpoint, for what is not part of the stream.
    pub async fn open_at(endpoint: &Endpoint) -> Result<Self> {
        let connection = postgres::connect(endpoint, "litellm-webui-sync", SETTINGS)
            .await
            .map_err(|source| Error::Connect { side: Side::Source, source })?;
        if let Some(found) = connection.major.filter(|major| *major < OLDEST) {
            return Err(Error::OldServer { side: Side::Source, found, oldest: OLDEST });
        }
        let endpoint = endpoint.at(&connection.address);
        Ok(Self { connection, endpoint, pace: Pace::Full })
    }

    /// For what is answered at once: nothing that is asked through it waits longer than [`QUICK`].
    pub fn client(&self) -> Limited<'_> {
        Limited::new(&self.connection.client, QUICK)
    }

    /// How long a statement of this session may take from here on.
    pub async fn limit(&self, statement: Duration) -> Result<()> {
        let text = format!("set statement_timeout = {}", statement.as_millis());
        within(Side::Source, "limit statements", QUICK, self.connection.client.batch_execute(&text)).await
    }

    /// Where its WAL is by now: whatever is committed already lies before it.
    pub async fn position(&self) -> Result<Lsn> {
        /// Of a page, and of what stands before the first record in it.
        const PAGE: u64 = 8192;
        const HEADER: u64 = 40;
        let text = "select pg_current_wal_insert_lsn()";
        let work = self.connection.client.query_one(text, &[]);
        let position: Lsn = within(Side::Source, "ask for the position", QUICK, work).await?.get(0);
        // The next record is to come after the header of a page that is not there yet; the server never says that it has sent that.
        let in_page = u64::from(position) % PAGE;
        Ok(if in_page <= HEADER { Lsn::from(u64::from(position) - in_page) } else { position })
    }

    /// Our slot. One of that name that cannot be ours is an error: nobody takes it for ours, whatever he wanted to know.
    pub async fn slot(&self, name: &str) -> Result<Option<SlotState>> {
        let client = &self.connection.client;
        let row =
            within(Side::Source, "look at the slot", QUICK, client.query_opt(sql::SLOT_STATE, &[&name]))
                .await?;
        row.map(|row| self.ours(name, &row)).transpose()
    }

    fn ours(&self, name: &str, row: &Row) -> Result<SlotState> {
        let slot = SlotState::from_row(row);
        match slot.foreign_to(&self.endpoint.database) {
            Some(what) => Err(Error::ForeignSlot { slot: name.to_owned(), what }),
            None => Ok(slot),
        }
    }

    /// The slot, and a text that is another one after whatever may have changed LiteLLM's tables or the publication.
    pub async fn glance(&self, config: &Config) -> Result<(Option<SlotState>, String)> {
        let names: Vec<&str> = TABLES.iter().map(|table| table.source).collect();
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&config.slot, &config.litellm_schema, &names, &config.publication];
        let types = [Type::TEXT, Type::TEXT, Type::TEXT_ARRAY, Type::TEXT];
        let typed: Vec<(&(dyn ToSql + Sync), Type)> = parameters.into_iter().zip(types).collect();
        let work = self.connection.client.query_typed(sql::SOURCE_GLANCE, &typed);
        let rows = within(Side::Source, "look at the slot", QUICK, work).await?;
        let Some(row) = rows.first() else { return Ok((None, String::new())) };
        let has_slot: bool = row.get("has_slot");
        let moved: Option<String> = row.get("moved");
        let slot = has_slot.then(|| self.ours(&config.slot, row)).transpose()?;
        Ok((slot, moved.unwrap_or_default()))
    }

    /// Whether a standby could take our slot over; `None` where none stands by, or before PostgreSQL 17.
    pub async fn failover_synced(&self, name: &str) -> Result<Option<bool>> {
        let client = &self.connection.client;
        let parameters: [&(dyn ToSql + Sync); 1] = [&name];
        let work = client.query_opt(sql::FAILOVER_SLOT, &parameters);
        let row = within(Side::Source, "look at the failover slot", QUICK, work).await?;
        Ok(row.and_then(|row| row.get(0)))
    }

    /// Answers if the server does: the simplest question there is.
    pub async fn ask_nothing(&self, action: &'static str) -> Result<()> {
        within(Side::Source, action, QUICK, self.connection.client.batch_execute("select 1")).await
    }

    /// Drops our slot, and none of that name that cannot be ours.
    pub async fn drop_slot(&self, name: &str) -> Result<()> {
        let client = &self.connection.client;
        within(Side::Source, "drop the slot", QUICK, client.execute(sql::DROP_SLOT, &[&name]))
            .await
            .map(|_| ())
    }

    pub async fn server(&self) -> Result<Server> {
        let work = self.connection.client.query_one(sql::SERVER, &[]);
        let row = within(Side::Source, "ask for the server's version", QUICK, work).await?;
        Ok(Server {
            version: row.get(0),
            wal_level: row.get(1),
            database_oid: row.get(2),
            timeline: row.get(3),
        })
    }

    /// Who holds the slot.
    pub async fn leader(&self, slot: &str) -> Result<Option<Leader>> {
        let client = &self.connection.client;
        let row =
            within(Side::Source, "look who leads", QUICK, client.query_opt(sql::LEADER, &[&slot])).await?;
        Ok(row.map(|row| Leader { session: row.get(0), client: row.get(1), seconds: row.get(2) }))
    }

    /// Who keeps a slot from being created, each in words. Of other roles' sessions only what we may see.
    pub async fn blockers(&self) -> Result<Vec<String>> {
        let work = self.connection.client.query(sql::BLOCKERS, &[]);
        let rows = within(Side::Source, "list the open transactions", QUICK, work).await?;
        let words = rows.iter().map(|row| {
            let (Text(who), seconds): (Text, Option<i64>) = (row.get(0), row.get(1));
            let open = seconds
                .map_or_else(|| "since when is not ours to see".to_owned(), |s| format!("open for {s} s"));
            format!("{who} {open}")
        });
        Ok(words.collect())
    }

    /// The error of a slot that could not be made in time, with what stands in the way.
    pub async fn slot_blocked(&self, seconds: u64) -> Error {
        let blockers = match self.blockers().await {
            Ok(list) if list.is_empty() => {
                "no open transaction is visible to us (those of other roles are once our role has pg_read_all_stats)"
                    .to_owned()
            }
            Ok(list) => list.join(", "),
            Err(_) => "the open transactions could not be listed".to_owned(),
        };
        Error::SlotBlocked { seconds, blockers }
    }

    /// Ends a session of ours that hangs in a command, found by its application name.
    pub async fn terminate(&self, application_name: &str) {
        let text =
            "select pg_terminate_backend(pid) from pg_catalog.pg_stat_activity where application_name = $1";
        let _ = self.client().execute(text, &[&application_name]).await;
    }

    /// Emits a barrier: a transactional message. Returns its position; the checkpoint is past it once everything
    /// committed before is applied.
    pub async fn emit_barrier(&self) -> Result<Lsn> {
        self.emit("barrier").await
    }

    /// Emits a transactional message of ours. Returns its position.
    pub async fn emit(&self, content: &str) -> Result<Lsn> {
        let text = "select pg_logical_emit_message(true, $1, $2)";
        let row = self.client().query_one(text, &[&MESSAGE_PREFIX, &content]).await;
        Ok(row.map_err(on(Side::Source, "emit a message"))?.get(0))
    }
}

/// The SQL that prepares LiteLLM's database, for a DBA: least privileges for `role`.
pub fn setup_sql(config: &Config, tables: &BTreeMap<String, SourceTable>, role: &str) -> String {
    let names: Vec<&String> = tables.keys().collect();
    let qualified: Vec<String> = names
        .iter()
        .map(|name| format!("{}.{}", quote_ident(&config.litellm_schema), quote_ident(name)))
        .collect();
    format!(
        "-- On LiteLLM's database \"{database}\", as a superuser. wal_level must be logical (needs a restart).
-- If the role does not exist yet: create role {role} login password '…';
do $$ begin
    -- Amazon RDS and Aurora have this role in place of the attribute.
    if exists (select from pg_roles where rolname = 'rds_replication') then
        grant rds_replication to {role};
    else
        alter role {role} replication;
    end if;
end $$;
grant connect on database {database_ident} to {role};
grant usage on schema {schema} to {role};
-- For the copies of existing rows; the stream itself needs only REPLICATION.
grant select on {tables} to {role};
-- To tell, once, what people had chatted before the present windows of their budgets (budgets.chats); it is not published.
do $$ begin
    if to_regclass('{daily}') is not null then
        grant select on {daily} to {role};
    end if;
end $$;
create publication {publication} for table {list};
-- Recommended, so that an outage of ours can never fill the disk:
-- alter system set max_slot_wal_keep_size = '16GB'; select pg_reload_conf();
",
        database = config.source.database,
        database_ident = quote_ident(&config.source.database),
        role = quote_ident(role),
        schema = quote_ident(&config.litellm_schema),
        tables = qualified.join(", "),
        daily = format!("{}.\"LiteLLM_DailyEndUserSpend\"", quote_ident(&config.litellm_schema)),
        publication = quote_ident(&config.publication),
        list = table_list(config, &names),
    )
}

/// How long a slot may take to be created before we name who is in the way.
pub const SLOT_PATIENCE: Duration = Duration::from_secs(30);
