//! What can go wrong, and what the daemon does about it: try again, or stop and say what to do.
//!
//! Owns the meaning of every SQLSTATE. Nobody matches on message texts, and no error carries a row's contents,
//! a password or a connection string.

use std::io;

use tokio_postgres::error::SqlState;

use crate::position::Lsn;
use crate::postgres::{Cause, ConnectError};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// LiteLLM's database.
    Source,
    /// Open WebUI's database.
    Target,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Source => "LiteLLM",
            Self::Target => "Open WebUI",
        })
    }
}

/// What the daemon does about an error. There is no third answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    Retry,
    Stop,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("could not connect to the {side} database")]
    Connect { side: Side, source: ConnectError },
    #[error("could not {action} on the {side} database")]
    Postgres { side: Side, action: &'static str, source: tokio_postgres::Error },
    #[error("could not {action} on the LiteLLM database: {message}")]
    Replication { action: &'static str, message: String, sqlstate: Option<String>, is_io: bool },
    #[error("the {side} database did not answer within {seconds} s while we tried to {action}")]
    Silent { side: Side, action: &'static str, seconds: u64 },
    #[error("LiteLLM's server is a standby, which has no stream for us: a primary is waited for")]
    Standby,
    #[error(
        "{host} writes an older timeline than the one we followed: a primary that was replaced, and came back"
    )]
    OldTimeline { host: String },
    #[error("the {side} database is on PostgreSQL {found}: {oldest} is the oldest that is enough")]
    OldServer { side: Side, found: u32, oldest: u32 },
    #[error("slot \"{slot}\" is in use by another session")]
    SlotHeld { slot: String },
    #[error("another daemon took over (the checkpoint was changed by somebody else)")]
    Superseded,
    #[error("another daemon is at work on this Open WebUI database")]
    LeaseHeld,
    #[error("cannot understand the stream from LiteLLM")]
    Decode(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the mirror of {table} has lost a row that LiteLLM updates")]
    MirrorLost { table: &'static str },
    #[error("the stream cannot be continued: {reason}")]
    Gap { reason: String },
    #[error(
        "everything would have to be copied again ({reason}), more often than the {limit} times an hour that are allowed"
    )]
    HealingLimit { reason: String, limit: u32 },
    #[error("{found}")]
    WrongSource { found: String },
    #[error("slot \"{slot}\" exists on LiteLLM's server, but Open WebUI's database has no checkpoint for it")]
    StraySlot { slot: String },
    #[error("slot \"{slot}\" on LiteLLM's server is none of ours: it {what}")]
    ForeignSlot { slot: String, what: String },
    #[error("slot \"{slot}\" is followed by a daemon of another Open WebUI database: nobody leads on ours")]
    ForeignLeader { slot: String },
    #[error("no slot could be created within {seconds} s: {blockers}")]
    SlotBlocked { seconds: u64, blockers: String },
    #[error("publication \"{publication}\" {problem}")]
    Publication { publication: String, problem: String, sql: String },
    #[error("LiteLLM's database has no LiteLLM_UserTable in schema \"{schema}\"")]
    NoLiteLlm { schema: String },
    #[error("LiteLLM's database lacks what every LiteLLM has: {what}")]
    LiteLlmLacks { what: String },
    #[error("a transaction of LiteLLM's came without column {table}.{column}, which every LiteLLM has")]
    ColumnGone { table: &'static str, column: &'static str },
    #[error("LiteLLM's updates and deletes would fail, or could not be followed: {problem}")]
    ReplicaIdentity { problem: String, sql: String },
    #[error("Open WebUI has not created its tables yet (looked for {looked_for} in schema \"{schema}\")")]
    NoOpenWebUi { schema: String, looked_for: &'static str },
    #[error("this Open WebUI database has a layout we do not know: {missing}")]
    UnknownLayout { missing: String },
    #[error("row level security hides rows of Open WebUI's tables from our role: {tables}")]
    HiddenRows { tables: String, sql: String },
    #[error("Open WebUI's tables lack unique keys that every release of it has: {what}")]
    NoUniqueKey { what: String, sql: String },
    #[error("Open WebUI's database has encoding {found}, which cannot hold every name: it has to be UTF8")]
    Encoding { found: String },
    #[error("schema \"{schema}\" is not ours alone: it holds {found}")]
    ForeignSchema { schema: String, found: String },
    #[error("our schema was made by a newer release (version {found}, this program knows {known})")]
    NewerSchema { found: i32, known: i32 },
    #[error("our schema was made by an older release (version {found}, this program needs {known})")]
    OlderSchema { found: i32, known: i32 },
    #[error(
        "held back: {people} of {active} active people would be locked out, or lose groups, models or keys, at once (brake {id})"
    )]
    Brake { id: i64, people: i64, active: i64 },
    #[error("paused since {since}{}", .reason.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Paused { reason: Option<String>, since: String },
    #[error("the role of the {side} database lacks {what}")]
    Lacking { side: Side, what: String },
    #[error("{failed} entities could not be written within an hour, the last with SQLSTATE {sqlstate}")]
    Systemic { failed: i64, sqlstate: String },
    #[error("the source's wal_level is \"{found}\", logical replication needs \"logical\"")]
    WalLevel { found: String },
    #[error("the stream holds a message of {bytes} bytes, more than we take")]
    MessageTooLarge { bytes: usize },
    #[error("the slot keeps {bytes} bytes of WAL on LiteLLM's server, more than source.max_retained_wal")]
    TooMuchWal { bytes: i64 },
    #[error("a resnapshot was asked for")]
    Resnapshot,
    #[error("the stream has reached the point of a copy")]
    AtFence,
    #[error("LiteLLM's tables or the publication changed")]
    SourceChanged,
    #[error("{because}")]
    Upgraded { because: String },
    #[error("somebody waited on LiteLLM's server for what was being read there, and went first")]
    GaveWay,
    #[error("Open WebUI's tables are gone, were emptied, or were made anew")]
    OpenWebUiChanged,
    #[error("LiteLLM's server has another history than the one that was followed")]
    HistoryDiffers,
    #[error("the slot was moved past the checkpoint")]
    SlotAhead,
    #[error("{0}")]
    Usage(String),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn reaction(&self) -> Reaction {
        match self {
            Self::Connect { source, .. } => {
                if source.is_transient() {
                    Reaction::Retry
                } else {
                    Reaction::Stop
                }
            }
            Self::Postgres { source, .. } => match source.code() {
                Some(code) => sqlstate_reaction(code.code()),
                None if connection_lost(source) => Reaction::Retry,
                // A value that would not convert: our own mistake.
                None => Reaction::Stop,
            },
            Self::Replication { sqlstate: Some(code), .. } => sqlstate_reaction(code),
            Self::Replication { is_io, .. } => {
                if *is_io {
                    Reaction::Retry
                } else {
                    Reaction::Stop
                }
            }
            Self::Silent { .. }
            | Self::Standby
            | Self::OldTimeline { .. }
            | Self::SlotHeld { .. }
            | Self::ForeignLeader { .. }
            | Self::Superseded
            | Self::LeaseHeld
            | Self::SlotBlocked { .. }
            | Self::SourceChanged
            | Self::Upgraded { .. }
            | Self::GaveWay
            | Self::OpenWebUiChanged
            | Self::HistoryDiffers
            | Self::MirrorLost { .. }
            | Self::SlotAhead
            | Self::TooMuchWal { .. }
            | Self::Resnapshot
            | Self::AtFence
            | Self::Paused { .. }
            | Self::MessageTooLarge { .. }
            | Self::NoLiteLlm { .. }
            | Self::LiteLlmLacks { .. }
            | Self::ColumnGone { .. }
            | Self::ReplicaIdentity { .. }
            | Self::HiddenRows { .. }
            | Self::NoOpenWebUi { .. } => Reaction::Retry,
            Self::Decode(_)
            | Self::Gap { .. }
            | Self::HealingLimit { .. }
            | Self::OldServer { .. }
            | Self::WrongSource { .. }
            | Self::StraySlot { .. }
            | Self::ForeignSlot { .. }
            | Self::Publication { .. }
            | Self::UnknownLayout { .. }
            | Self::NoUniqueKey { .. }
            | Self::Encoding { .. }
            | Self::ForeignSchema { .. }
            | Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::Brake { .. }
            | Self::Lacking { .. }
            | Self::Systemic { .. }
            | Self::WalLevel { .. }
            | Self::Usage(_) => Reaction::Stop,
        }
    }

    /// What the operator should do next.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Connect { source, .. } => source.remedy().to_owned(),
            Self::Postgres { side, source, .. } => match source.code() {
                Some(&SqlState::INSUFFICIENT_PRIVILEGE) => format!(
                    "grant what is missing on the {side} database: `litellm-webui-sync setup --print-sql` lists it"
                ),
                Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => format!(
                    "the {side} database takes no writes: promote that standby, end its read-only mode, or name the \
                     primary's host in the URL"
                ),
                _ => "this was not expected; please report it with the log around it".to_owned(),
            },
            Self::Replication { sqlstate, .. } => match sqlstate.as_deref() {
                Some("42501") => {
                    "the LiteLLM role needs REPLICATION (`litellm-webui-sync setup --print-sql`)".to_owned()
                }
                Some("53400") => "raise max_replication_slots on LiteLLM's server, or drop unused slots".to_owned(),
                _ => "this was not expected; please report it with the log around it".to_owned(),
            },
            Self::Decode(_) => "this was not expected; please report it with the versions of Postgres and LiteLLM".to_owned(),
            Self::Gap { .. } => {
                "run `litellm-webui-sync setup --accept-source`, then `run`, to copy afresh".to_owned()
            }
            Self::HealingLimit { .. } => {
                "find out what does that (the reasons are in table backfill of our schema) and stop it; then run `litellm-webui-sync setup --accept-source` and `run`, or let the hour pass".to_owned()
            }
            Self::WrongSource { .. } => {
                "check LITELLM_DATABASE_URL; if LiteLLM's database really was replaced (pg_upgrade, a restore, another server), run `litellm-webui-sync setup --accept-source`, then `run`".to_owned()
            }
            Self::StraySlot { slot } => format!(
                "if nothing else uses it, drop it: select pg_drop_replication_slot('{slot}'); or choose another name with --slot"
            ),
            Self::ForeignSlot { slot, .. } => format!(
                "choose another name with --slot (LITELLM_WEBUI_SYNC_SLOT), for every command and daemon of this Open WebUI; that slot is left as it is. If nobody needs it any more, its owner drops it there: select pg_drop_replication_slot('{slot}');"
            ),
            Self::ForeignLeader { slot } => format!(
                "if Open WebUI's database was copied with its daemon: give one of the two another --slot, or stop the other daemon; who follows it: select a.client_addr, a.application_name from pg_replication_slots s join pg_stat_activity a on a.pid = s.active_pid where s.slot_name = '{slot}'"
            ),
            Self::Publication { sql, .. } => format!("let its owner run: {sql}"),
            Self::ReplicaIdentity { sql, .. } => format!("on LiteLLM's database: {sql}"),
            Self::LiteLlmLacks { .. } => {
                "let the migrations of the LiteLLM release that runs finish (a migration failed half-way, or two releases share the database); the daemon goes on by itself".to_owned()
            }
            Self::UnknownLayout { .. } => {
                "this release does not fit this Open WebUI; upgrade litellm-webui-sync".to_owned()
            }
            Self::HiddenRows { sql, .. } => format!(
                "on Open WebUI's database: {sql}; or, as a superuser, give our role the attribute bypassrls"
            ),
            Self::NoUniqueKey { sql, .. } => format!(
                "on Open WebUI's database: {sql}; where that finds duplicates, they have to be sorted out first"
            ),
            Self::Encoding { .. } => {
                "move Open WebUI to a database made with `create database … encoding 'UTF8' template template0` (pg_dump, pg_restore)".to_owned()
            }
            Self::ForeignSchema { .. } => "choose another name with --schema, or none: litellm_webui_sync is the default".to_owned(),
            Self::NewerSchema { .. } => "run the newer release of litellm-webui-sync".to_owned(),
            Self::OlderSchema { .. } => "`litellm-webui-sync setup` (or the next `run`) brings it up to date".to_owned(),
            Self::Brake { id, .. } => format!(
                "if this is right, run `litellm-webui-sync approve {id}`; otherwise repair LiteLLM's data first"
            ),
            Self::Paused { .. } => "run `litellm-webui-sync resume`".to_owned(),
            Self::Lacking { .. } => {
                "grant it, or use the URL of a role that has it: `litellm-webui-sync setup --print-sql` prints the grants".to_owned()
            }
            Self::Systemic { .. } => {
                "see `litellm-webui-sync failures list`: something in Open WebUI's database refuses what is written (a trigger, a constraint); remove it, then `run`".to_owned()
            }
            Self::Standby => "promote it, or name the primary's host in LITELLM_DATABASE_URL".to_owned(),
            Self::OldTimeline { .. } => "stop that server, or make it a standby of the new primary".to_owned(),
            Self::OldServer { .. } => "upgrade that server: PostgreSQL 15 to 18 are tested".to_owned(),
            Self::WalLevel { .. } => {
                "set wal_level = logical on LiteLLM's server and restart it".to_owned()
            }
            Self::Silent { .. }
            | Self::SlotHeld { .. }
            | Self::Superseded
            | Self::LeaseHeld
            | Self::SlotBlocked { .. }
            | Self::SourceChanged
            | Self::Upgraded { .. }
            | Self::GaveWay
            | Self::OpenWebUiChanged
            | Self::HistoryDiffers
            | Self::MirrorLost { .. }
            | Self::SlotAhead
            | Self::TooMuchWal { .. }
            | Self::Resnapshot
            | Self::AtFence
            | Self::MessageTooLarge { .. }
            | Self::NoLiteLlm { .. }
            | Self::ColumnGone { .. }
            | Self::NoOpenWebUi { .. }
            | Self::Usage(_) => return None,
        })
    }

    /// A short label for metrics: few values, no data.
    pub fn label(&self) -> String {
        match self {
            Self::Connect { .. } => "connect".to_owned(),
            Self::Postgres { source, .. } => {
                source.code().map_or_else(|| "connection_lost".to_owned(), |code| code.code().to_owned())
            }
            Self::Replication { sqlstate, .. } => {
                sqlstate.clone().unwrap_or_else(|| "connection_lost".to_owned())
            }
            Self::Silent { .. } => "silent".to_owned(),
            Self::Standby | Self::OldTimeline { .. } => "standby".to_owned(),
            Self::SlotHeld { .. } => "slot_held".to_owned(),
            Self::ForeignLeader { .. } => "foreign_leader".to_owned(),
            Self::Superseded => "superseded".to_owned(),
            Self::LeaseHeld => "lease_held".to_owned(),
            Self::Brake { .. } => "brake".to_owned(),
            Self::TooMuchWal { .. } => "too_much_wal".to_owned(),
            Self::SourceChanged | Self::Upgraded { .. } => "source_changed".to_owned(),
            Self::GaveWay => "gave_way".to_owned(),
            Self::OpenWebUiChanged => "open_webui_changed".to_owned(),
            Self::HistoryDiffers | Self::SlotAhead | Self::MirrorLost { .. } => "history_differs".to_owned(),
            Self::LiteLlmLacks { .. } | Self::ColumnGone { .. } => "litellm_lacks".to_owned(),
            Self::ReplicaIdentity { .. } => "replica_identity".to_owned(),
            Self::HiddenRows { .. } => "hidden_rows".to_owned(),
            Self::Paused { .. } => "paused".to_owned(),
            Self::Resnapshot | Self::AtFence => "resnapshot".to_owned(),
            _ => "other".to_owned(),
        }
    }

    /// Whether all that is missing is that somebody promotes a standby.
    pub fn is_waiting_for_a_primary(&self) -> bool {
        match self {
            Self::Standby | Self::OldTimeline { .. } => true,
            Self::Connect { source, .. } => source.is_waiting_for_a_primary(),
            _ => false,
        }
    }

    /// Whether something is wrong. Others end a session as well: a daemon that stands by, a pause, a copy that is asked for.
    pub fn is_failure(&self) -> bool {
        !matches!(
            self,
            Self::SlotHeld { .. }
                | Self::Superseded
                | Self::LeaseHeld
                | Self::Standby
                | Self::SourceChanged
                | Self::Upgraded { .. }
                | Self::GaveWay
                | Self::OpenWebUiChanged
                | Self::Brake { .. }
                | Self::Paused { .. }
                | Self::Resnapshot
                | Self::AtFence
        ) && self.sqlstate() != Some("55006")
    }

    /// The SQLSTATE, where a server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres { source, .. } => source.code().map(SqlState::code),
            Self::Replication { sqlstate, .. } => sqlstate.as_deref(),
            _ => None,
        }
    }

    /// Whether Open WebUI's database says that our role may not.
    pub fn is_a_refusal_of_the_target(&self) -> bool {
        matches!(self, Self::Postgres { side: Side::Target, .. }) && self.sqlstate() == Some("42501")
    }

    /// Whether the stream would meet it again for ever, so that everything has to be copied.
    pub fn needs_a_copy(&self) -> bool {
        matches!(
            self,
            Self::MessageTooLarge { .. }
                | Self::ColumnGone { .. }
                | Self::Upgraded { .. }
                | Self::HistoryDiffers
                | Self::SlotAhead
                | Self::MirrorLost { .. }
        )
    }

    /// Whether the fault may lie with one row: then the batch is bisected to find it (docs/src/design.md, "Failures").
    pub fn is_about_a_row(&self) -> bool {
        // 22 data exception, 23 integrity constraint, 44 check option, P0 raised by somebody's trigger.
        // 54 is a limit: an index row that is too long.
        let of_a_row =
            |code: &str| ["22", "23", "44", "P0", "54"].iter().any(|class| code.starts_with(class));
        self.sqlstate().is_some_and(of_a_row)
    }

    /// Whether it only says that something before it, in the same transaction, failed.
    pub fn is_of_one_before(&self) -> bool {
        self.sqlstate() == Some("25P02")
    }
}

/// `map_err` for a call on one side: names the side where the call is made.
pub fn on<C: Into<Cause>>(side: Side, action: &'static str) -> impl FnOnce(C) -> Error {
    move |cause| match cause.into() {
        Cause::Postgres(source) => Error::Postgres { side, action, source },
        Cause::Silence(patience) => Error::Silent { side, action, seconds: patience.as_secs() },
    }
}

fn connection_lost(error: &tokio_postgres::Error) -> bool {
    error.is_closed()
        || std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<io::Error>)
}

/// The only place that reads meaning into a SQLSTATE.
fn sqlstate_reaction(code: &str) -> Reaction {
    match code {
        // The slot is still held by an earlier session; it will let go.
        "55006" => Reaction::Retry,
        // The slot or the publication is gone, or the slot was invalidated: the catalogs tell, at the next start.
        "42704" | "55000" | "58P01" => Reaction::Retry,
        // Somebody else's lock; a timeout of ours, or of whoever set one for our role.
        "55P03" | "57014" | "25P03" | "25P04" => Reaction::Retry,
        // A prepared statement that the session no longer has, a snapshot that grew too old: a new session has its own.
        "26000" | "72000" => Reaction::Retry,
        // What was sent after a statement that failed: whatever that was shows itself again.
        "25P02" => Reaction::Retry,
        // A standby, or a server somebody made read-only for a while.
        "25006" => Reaction::Retry,
        // Every slot is taken, or the database is gone: waiting will not help.
        "53400" | "57P04" => Reaction::Stop,
        // The tables changed under us: look again.
        "42P01" | "42703" | "0A000" => Reaction::Retry,
        // Connection, deadlock, out of resources, shutting down or starting up; a disk that is full or fails, and what a
        // server says of itself where it knows no better. It says the same of a moment and of a fault that stays, and a
        // daemon that waits goes on by itself after either.
        code if ["08", "40", "53", "57", "58", "XX"].iter().any(|class| code.starts_with(class)) => {
            Reaction::Retry
        }
        _ => Reaction::Stop,
    }
}

/// What is left of a row's error once its values are taken out: enough to act on, nothing to leak.
pub fn describe_row_error(error: &Error) -> String {
    let Error::Postgres { source, .. } = error else { return error.to_string() };
    let Some(db) = source.as_db_error() else { return error.to_string() };
    let mut out = format!("SQLSTATE {}", db.code().code());
    for (what, value) in [("constraint", db.constraint()), ("table", db.table()), ("column", db.column())] {
        if let Some(value) = value {
            out.push_str(&format!(", {what} {value}"));
        }
    }
    out
}

/// A gap error for a position that cannot be reached.
pub fn gap(reason: impl Into<String>) -> Error {
    Error::Gap { reason: reason.into() }
}

/// Used in messages about positions.
pub fn lsn_text(lsn: Lsn) -> String {
    lsn.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_slot_is_retried_and_a_full_server_is_not() {
        assert_eq!(sqlstate_reaction("55006"), Reaction::Retry);
        assert_eq!(sqlstate_reaction("57P01"), Reaction::Retry);
        assert_eq!(sqlstate_reaction("53400"), Reaction::Stop);
        assert_eq!(sqlstate_reaction("42501"), Reaction::Stop);
    }

    #[test]
    fn what_a_server_gets_over_by_itself_is_waited_for() {
        for code in [
            "53100", "58030", "58P01", "XX000", "XX001", "XX002", "25P03", "25P04", "57014", "25P02",
            "26000", "72000",
        ] {
            assert_eq!(sqlstate_reaction(code), Reaction::Retry, "{code}");
        }
        for code in ["42501", "42601", "22P02", "23505", "P0001", "57P04"] {
            assert_eq!(sqlstate_reaction(code), Reaction::Stop, "{code}");
        }
    }

    #[test]
    fn every_stop_says_what_to_do() {
        let stops = [
            Error::Gap { reason: "x".into() },
            Error::HealingLimit { reason: "x".into(), limit: 3 },
            Error::StraySlot { slot: "s".into() },
            Error::ForeignSlot { slot: "s".into(), what: "is a physical slot".into() },
            Error::UnknownLayout { missing: "x".into() },
            Error::Brake { id: 1, people: 30, active: 40 },
            Error::WalLevel { found: "replica".into() },
            Error::NewerSchema { found: 9, known: 2 },
        ];
        for error in stops {
            assert_eq!(error.reaction(), Reaction::Stop, "{error}");
            assert!(error.remedy().is_some(), "{error}");
        }
    }
}
