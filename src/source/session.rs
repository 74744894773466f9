//! The replication session: the only user of the replication client.
//!
//! Owns the connection that streams and the feedback on it. It knows nothing of tables or of the
//! target, and reports no position but the checkpoint it is handed.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use pgwire_replication::{
    Lsn as WireLsn, PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent, SslMode, TlsConfig,
};

use crate::config::Config;
use crate::config::url::{self, Endpoint, Host};
use crate::error::{Error, Result, Side};
use crate::position::{Identity, Lsn};
use crate::postgres::settings;

/// How long the source's walsender waits for us, set for our connection only. It pings at half of
/// it; a connection on which nothing arrives for the whole of it is dead.
pub const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(15);
/// How soon a raised position is told to the source. A fast shutdown of the source waits for it.
const FEEDBACK_INTERVAL: Duration = Duration::from_millis(200);
/// Above half of WAL_SENDER_TIMEOUT, so that the server pings: a server that hears from us
/// regularly sends nothing, and a silent link would look the same as a dead one.
const IDLE_WAKEUP: Duration = Duration::from_secs(20);
/// A larger message is refused before it takes memory, and everything is copied afresh instead: anybody who may connect
/// to LiteLLM's database may emit one.
const MAX_MESSAGE_SIZE: usize = 256 * 1024 * 1024;
/// Events buffered between the socket and us. Few, because any of them may be large: anybody's logical messages of many
/// megabytes come in as fast as the network brings them. What is small waits in the socket's own buffers just as well.
const BUFFER_EVENTS: usize = 4;
const CONNECT_PATIENCE: Duration = Duration::from_secs(15);

/// Of this session alone: it may wait for transactions of LiteLLM's while a slot is made, whose snapshot it then keeps, and
/// it waits for us.
const SETTINGS: &[(&str, &str)] = &[
    ("search_path", "pg_catalog"),
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("logical_decoding_work_mem", "64MB"),
];

/// One thing the stream says, in order.
#[derive(Debug)]
pub enum Frame {
    Begin {
        final_lsn: Lsn,
    },
    Data(Bytes),
    Commit {
        end_lsn: Lsn,
        committed_at: SystemTime,
    },
    /// `pg_logical_emit_message`. Anybody may emit one: untrusted.
    Message {
        prefix: String,
        content: Bytes,
    },
    /// The server has decoded everything before `lsn`.
    KeepAlive {
        lsn: Lsn,
        reply_requested: bool,
    },
}

/// A slot just made, with the snapshot of its consistent point. The snapshot lives until the next
/// command on the session that made it, or that session's end.
#[derive(Debug, Clone)]
pub struct NewSlot {
    pub consistent_point: Lsn,
    pub snapshot: String,
}

/// A replication session. It answers questions until it is started.
pub struct Session {
    client: ReplicationClient,
    last_event: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("last_event", &self.last_event).finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to the server `endpoint` leads to ([`super::Source::endpoint`]), without starting to stream. `start` is
    /// where streaming would begin and what the source is told we have: what the slot has confirmed, so that it loses nothing
    /// before it is known whose history this is.
    pub async fn open(
        config: &Config,
        endpoint: &Endpoint,
        application_name: &str,
        start: Lsn,
    ) -> Result<Self> {
        let wire = wire_config(config, endpoint, application_name, start)?;
        let work = ReplicationClient::connect_gated(wire);
        let mut client = patiently("connect for replication", CONNECT_PATIENCE, work).await?;
        let settings = client.simple_query(settings::AFTER_LOG_IN);
        patiently("connect for replication", CONNECT_PATIENCE, settings).await?;
        Ok(Self { client, last_event: Instant::now() })
    }

    /// `IDENTIFY_SYSTEM`.
    pub async fn identify(&mut self) -> Result<Identity> {
        let work = self.client.identify_system();
        let answer = patiently("identify the server", CONNECT_PATIENCE, work).await?;
        Ok(Identity {
            system_identifier: answer.system_id,
            timeline: i32::try_from(answer.timeline).unwrap_or(i32::MAX),
            wal_end: Lsn::from(answer.xlogpos.as_u64()),
        })
    }

    /// Where `timeline` was left for a newer one, if the history of `current` says so.
    pub async fn switch_point(&mut self, current: i32, timeline: i32) -> Result<Option<Lsn>> {
        let current = u32::try_from(current).unwrap_or(1);
        let work = self.client.timeline_history(current);
        let history = patiently("read the timeline history", CONNECT_PATIENCE, work).await?;
        Ok(parse_switch_point(&String::from_utf8_lossy(&history.content), timeline))
    }

    /// Creates the slot with an exported snapshot. `failover`: 17 and newer keep such a slot on a
    /// promoted standby.
    pub async fn create_slot(&mut self, name: &str, failover: bool, patience: Duration) -> Result<NewSlot> {
        let failover = if failover { ", FAILOVER true" } else { "" };
        self.new_slot(name, "", failover, patience).await
    }

    /// The same, of a slot that vanishes with this session: for its snapshot alone.
    pub async fn create_temporary_slot(&mut self, name: &str, patience: Duration) -> Result<NewSlot> {
        self.new_slot(name, " TEMPORARY", "", patience).await
    }

    async fn new_slot(
        &mut self,
        name: &str,
        temporary: &str,
        failover: &str,
        patience: Duration,
    ) -> Result<NewSlot> {
        let text = format!(
            "CREATE_REPLICATION_SLOT \"{name}\"{temporary} LOGICAL pgoutput (SNAPSHOT 'export'{failover})"
        );
        let rows = patiently("create the slot", patience, self.client.simple_query(&text)).await?;
        let nonsense = || Error::Replication {
            action: "create the slot",
            message: "the server's answer makes no sense".to_owned(),
            sqlstate: None,
            is_io: false,
        };
        let field = |index: usize| {
            let value = rows.first().and_then(|row| row.get(index)).cloned().flatten();
            value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).ok_or_else(nonsense)
        };
        // Never a made-up position: it becomes the checkpoint.
        let consistent_point = field(1)?.parse().map_err(|_| nonsense())?;
        Ok(NewSlot { consistent_point, snapshot: field(2)? })
    }

    /// Starts to stream; the slot is ours from then on.
    pub async fn start(&mut self) -> Result<()> {
        self.client.start().await.map_err(|error| wire_error("start the stream", &error))?;
        patiently("start the stream", CONNECT_PATIENCE, self.client.wait_started()).await?;
        self.last_event = Instant::now();
        Ok(())
    }

    /// The next frame. Cancel-safe.
    pub async fn next(&mut self) -> Result<Frame> {
        loop {
            let event = self.client.recv().await;
            if let Some(frame) = self.frame(event)? {
                return Ok(frame);
            }
        }
    }

    /// The next frame, if it is here already.
    pub fn next_now(&mut self) -> Result<Option<Frame>> {
        while let Some(event) = self.client.recv().now_or_never() {
            if let Some(frame) = self.frame(event)? {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn frame(&mut self, event: Result<Option<ReplicationEvent>, PgWireError>) -> Result<Option<Frame>> {
        self.last_event = Instant::now();
        let event = event.map_err(|error| wire_error("read the stream", &error))?;
        Ok(Some(match event {
            Some(ReplicationEvent::XLogData { data, .. }) => Frame::Data(data),
            Some(ReplicationEvent::Begin { final_lsn, .. }) => Frame::Begin { final_lsn: lsn(final_lsn) },
            Some(ReplicationEvent::Commit { end_lsn, commit_time_micros, .. }) => {
                Frame::Commit { end_lsn: lsn(end_lsn), committed_at: time(commit_time_micros) }
            }
            Some(ReplicationEvent::KeepAlive { wal_end, reply_requested, .. }) => {
                Frame::KeepAlive { lsn: lsn(wal_end), reply_requested }
            }
            Some(ReplicationEvent::Message { prefix, content, .. }) => Frame::Message { prefix, content },
            Some(ReplicationEvent::StoppedAt { .. }) => return Ok(None),
            None => {
                return Err(Error::Replication {
                    action: "read the stream",
                    message: "the server ended it".to_owned(),
                    sqlstate: None,
                    is_io: true,
                });
            }
        }))
    }

    /// Whether nothing at all has arrived for as long as a living server would never stay silent.
    pub fn is_silent(&self) -> bool {
        self.last_event.elapsed() > WAL_SENDER_TIMEOUT
    }

    /// While nobody reads, silence means nothing.
    pub fn not_reading(&mut self) {
        self.last_event = Instant::now();
    }

    /// Tells the source that everything before `checkpoint` is durable on the target.
    pub fn acknowledge(&self, checkpoint: Lsn) {
        self.client.update_applied_lsn(WireLsn::from_u64(u64::from(checkpoint)));
    }

    /// Ends the session; what was acknowledged is sent first.
    pub async fn close(mut self) {
        let patience = Duration::from_secs(2);
        let _ = tokio::time::timeout(patience, self.client.shutdown()).await;
    }
}

fn lsn(wire: WireLsn) -> Lsn {
    Lsn::from(wire.as_u64())
}

/// Microseconds since 2000-01-01, Postgres' epoch.
fn time(micros: i64) -> SystemTime {
    const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);
    SystemTime::UNIX_EPOCH + POSTGRES_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

fn wire_config(
    config: &Config,
    endpoint: &Endpoint,
    application_name: &str,
    start: Lsn,
) -> Result<ReplicationConfig> {
    let [address] = endpoint.addresses.as_slice() else {
        return Err(Error::Usage(format!("{endpoint} is more than one server")));
    };
    let host = match &address.host {
        Host::Tcp(name) => name.clone(),
        Host::Socket(directory) => directory.display().to_string(),
    };
    let password = endpoint.password.expose();
    let mut wire = ReplicationConfig::new(
        host,
        endpoint.user.as_str(),
        password,
        endpoint.database.as_str(),
        // Postgres takes names that begin with a digit; its replication grammar only in quotes.
        format!("\"{}\"", config.slot),
        config.publication.as_str(),
    );
    wire.port = address.port;
    wire.tls = TlsConfig {
        mode: match endpoint.tls.mode {
            url::SslMode::Disable => SslMode::Disable,
            url::SslMode::Prefer => SslMode::Prefer,
            url::SslMode::Require => SslMode::Require,
            url::SslMode::VerifyCa => SslMode::VerifyCa,
            url::SslMode::VerifyFull => SslMode::VerifyFull,
        },
        ca_pem_path: endpoint.tls.root_cert.clone(),
        // Without it the client refuses verify-full for an IP address the certificate does name.
        sni_hostname: match &address.host {
            Host::Tcp(name) => Some(name.clone()),
            Host::Socket(_) => None,
        },
        client_cert_pem_path: endpoint.tls.client_cert.clone(),
        client_key_pem_path: endpoint.tls.client_key.clone(),
    };
    wire.start_lsn = WireLsn::from_u64(u64::from(start));
    wire.status_interval = FEEDBACK_INTERVAL;
    wire.idle_wakeup_interval = IDLE_WAKEUP;
    wire.buffer_events = BUFFER_EVENTS;
    wire.max_message_size = MAX_MESSAGE_SIZE;
    wire.application_name = Some(application_name.to_owned());
    let timeout = format!("{}s", WAL_SENDER_TIMEOUT.as_secs());
    let of_the_side: Vec<(&str, &str)> =
        SETTINGS.iter().copied().chain([("wal_sender_timeout", timeout.as_str())]).collect();
    wire.options = Some(settings::options(&endpoint.options, &of_the_side));
    Ok(wire)
}

async fn patiently<T>(
    action: &'static str,
    patience: Duration,
    work: impl Future<Output = Result<T, PgWireError>>,
) -> Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result.map_err(|error| wire_error(action, &error)),
        Err(_) => Err(Error::Silent { side: Side::Source, action, seconds: patience.as_secs() }),
    }
}

/// The client reports a server's error as text that ends in "(SQLSTATE …)". This is the only place that reads it.
fn wire_error(action: &'static str, error: &PgWireError) -> Error {
    if let PgWireError::MessageTooLarge { payload_bytes, .. } = error {
        return Error::MessageTooLarge { bytes: *payload_bytes };
    }
    let message = error.to_string();
    let sqlstate = message
        .rsplit_once("SQLSTATE ")
        .map(|(_, code)| code.chars().take_while(char::is_ascii_alphanumeric).collect::<String>())
        .filter(|code| code.len() == 5);
    // Internal: the client was asked again after its worker had ended, whose own reason is lost by then.
    let is_io = matches!(error, PgWireError::Io(_) | PgWireError::Task(_) | PgWireError::Internal(_));
    Error::Replication { action, message, sqlstate, is_io }
}

/// A line of a history file: `<timeline> <switch point> <reason>`.
fn parse_switch_point(history: &str, timeline: i32) -> Option<Lsn> {
    history.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let number: i32 = words.next()?.parse().ok()?;
        (number == timeline).then(|| words.next()?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Reaction;

    #[test]
    fn the_sqlstate_is_read_from_the_end_of_the_text() {
        let error =
            PgWireError::Server("ERROR: replication slot \"s\" is active for PID 7 (SQLSTATE 55006)".into());
        let error = wire_error("start the stream", &error);
        assert_eq!(error.sqlstate(), Some("55006"));
        assert_eq!(error.reaction(), Reaction::Retry);
    }

    #[test]
    fn the_switch_point_of_a_timeline_is_found_in_its_history() {
        let history = "1\t0/3000148\tno recovery target specified\n2\t0/50000A0\tbefore\n";
        assert_eq!(parse_switch_point(history, 2), Some("0/50000A0".parse().unwrap()));
        assert_eq!(parse_switch_point(history, 3), None);
    }
}
