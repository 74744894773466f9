//! A connection to a database, and names and values in SQL.
//!
//! Owns connecting (hosts, timeouts, keepalives, session settings; TLS in `tls`), the task that drives a
//! connection, what a failed attempt means, and quoting. Must not retry, and must not know what
//! the statements mean. No error of this module repeats a password or a row.

pub mod certificate;
mod tls;

use std::error::Error;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::url::{Address, Endpoint, Host, SessionAttrs, SslMode};

pub use tls::{TlsFileError, https_config};
use tls::{client_end, remedy_for_certificate, tls_config};

/// A peer that vanished without a word is noticed after idle + interval * retries = 11 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for data that was sent and never acknowledged, which keepalives do not watch.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// How much sooner a host is asked than the next of the list: one that is silent must not cost its whole timeout.
const HEAD_START: Duration = Duration::from_millis(300);
/// How long a polite goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An open connection. Dropping it ends it at once, also when the server no longer answers.
#[derive(Debug)]
pub struct Connection {
    pub client: Client,
    /// Where it leads, of several.
    pub address: Address,
    /// When the certificates of this connection end.
    pub certificates: certificate::Ends,
    driver: Driver,
    end: watch::Receiver<Option<String>>,
}

/// The task that moves bytes; tokio-postgres leaves it to its caller.
#[derive(Debug)]
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    /// Dropping the client alone would let the task wait for the answer to a running statement,
    /// for ever if the server hangs.
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Waits until the connection is over and says why. The future borrows nothing, so it can
    /// stand in a `select!` beside work on the client.
    pub fn closed(&self) -> impl Future<Output = String> + Send + use<> {
        let mut end = self.end.clone();
        async move {
            match end.wait_for(Option::is_some).await {
                Ok(reason) => reason.clone().unwrap_or_default(),
                Err(_) => "connection dropped".to_owned(),
            }
        }
    }

    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Says goodbye, so that the server does not log a lost client. Optional; bounded in time.
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        // Either way it is over: the driver is dropped here.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut driver.0).await;
    }
}

/// Connects and starts the task that drives the connection. Of several hosts, the first of the list that is what
/// `target_session_attrs` asks for; one that does not answer soon is not waited for.
///
/// `settings` are session settings that hold from the first statement on. Everything on one host, from the name look-up
/// to the end of the log-in, happens within the endpoint's `connect_timeout`.
pub async fn connect(
    endpoint: &Endpoint,
    application_name: &str,
    settings: &[(&str, &str)],
) -> Result<Connection, ConnectError> {
    let mut waiting = endpoint.addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            running.push(connect_at(endpoint.at(address), address, application_name, settings));
        }
        let ended = tokio::select! {
            ended = running.next() => ended,
            () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => continue,
        };
        match ended {
            Some(Ok(connection)) => return Ok(connection),
            Some(Err(failure)) => failures.push(failure),
            None => {}
        }
        if running.is_empty() && waiting.len() == 0 {
            break;
        }
    }
    match <[_; 1]>::try_from(failures) {
        Ok([only]) => Err(only),
        Err(failures) => Err(ConnectError::NoHost { endpoint: endpoint.to_string(), failures }),
    }
}

/// Connects to an endpoint that has one address.
async fn connect_at(
    endpoint: Endpoint,
    address: &Address,
    application_name: &str,
    settings: &[(&str, &str)],
) -> Result<Connection, ConnectError> {
    let config = client_config(&endpoint, address, application_name, settings);
    let name = endpoint.to_string();
    let server_end: Arc<OnceLock<u64>> = Arc::default();
    let tls = match endpoint.tls.mode {
        // Not a TLS connector that is switched off: it refuses the empty name of a socket.
        SslMode::Disable => None,
        SslMode::Prefer | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            match tls_config(&endpoint.tls, &server_end) {
                Ok(tls) => Some(MakeRustlsConnect::new(tls)),
                Err(source) => return Err(ConnectError::TlsFile { endpoint: name, source }),
            }
        }
    };
    let attempt = async {
        let connection = match tls {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                Connection::start(client, connection, address)
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls).await?;
                Connection::start(client, connection, address)
            }
        };
        let refused = match endpoint.session {
            SessionAttrs::Any => None,
            wanted => connection.refuse(wanted).await?,
        };
        Ok((connection, refused))
    };
    // Boxed: a TLS handshake would make every caller's future large.
    match tokio::time::timeout(endpoint.connect_timeout, Box::pin(attempt)).await {
        Ok(Ok((mut connection, None))) => {
            let certificates = &mut connection.certificates;
            certificates.server = server_end.get().copied();
            certificates.client = certificates.server.and_then(|_| client_end(&endpoint.tls));
            Ok(connection)
        }
        Ok(Ok((_, Some(is)))) => Err(ConnectError::NotPrimary { endpoint: name, is }),
        Ok(Err(source)) => Err(ConnectError::Postgres { endpoint: name, source }),
        Err(_) => Err(ConnectError::TimedOut { endpoint: name, after: endpoint.connect_timeout }),
    }
}

impl Connection {
    fn start<S>(client: Client, connection: tokio_postgres::Connection<Socket, S>, address: &Address) -> Self
    where
        S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
    {
        let (sender, end) = watch::channel(None);
        let driver = Driver(tokio::spawn(async move {
            let reason = match connection.await {
                Ok(()) => "connection closed".to_owned(),
                Err(error) => error_chain(&error),
            };
            sender.send_replace(Some(reason));
        }));
        let certificates = certificate::Ends::default();
        Self { client, address: address.clone(), certificates, driver, end }
    }

    /// What this server is, if it is not what was wanted.
    async fn refuse(&self, wanted: SessionAttrs) -> Result<Option<&'static str>, tokio_postgres::Error> {
        let text = "select pg_is_in_recovery(), current_setting('transaction_read_only')";
        let answer = self.client.simple_query(text).await?;
        let is = |column: usize, value: &str| {
            answer.iter().any(|message| match message {
                SimpleQueryMessage::Row(row) => row.get(column) == Some(value),
                _ => false,
            })
        };
        Ok(match wanted {
            SessionAttrs::Any => None,
            SessionAttrs::ReadWrite | SessionAttrs::Primary if is(0, "t") => Some("a standby"),
            SessionAttrs::ReadWrite if is(1, "on") => Some("read-only"),
            SessionAttrs::ReadWrite | SessionAttrs::Primary => None,
        })
    }
}

fn client_config(
    endpoint: &Endpoint,
    address: &Address,
    application_name: &str,
    settings: &[(&str, &str)],
) -> Config {
    let mut config = Config::new();
    match &address.host {
        Host::Tcp(host) => config.host(host),
        Host::Socket(directory) => config.host_path(directory),
    };
    config
        .port(address.port)
        .user(&endpoint.user)
        .dbname(&endpoint.database)
        .application_name(application_name)
        // Per address. Half, so that a name whose first address is dead (IPv6 without a route)
        // leaves time for the second.
        .connect_timeout(endpoint.connect_timeout / 2)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .tcp_user_timeout(TCP_USER_TIMEOUT)
        .ssl_mode(match endpoint.tls.mode {
            SslMode::Disable => tokio_postgres::config::SslMode::Disable,
            SslMode::Prefer => tokio_postgres::config::SslMode::Prefer,
            // How strictly is up to the verifier.
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
                tokio_postgres::config::SslMode::Require
            }
        });
    if !endpoint.password.is_empty() {
        config.password(endpoint.password.expose());
    }
    if !settings.is_empty() {
        config.options(startup_options(settings));
    }
    config
}

/// Session settings as the start-up packet's `options`: `-c name=value`, escaped as the server
/// reads them.
pub fn startup_options(settings: &[(&str, &str)]) -> String {
    let mut options = String::new();
    for (name, value) in settings {
        if !options.is_empty() {
            options.push(' ');
        }
        options.push_str("-c ");
        for c in name.chars().chain(['=']).chain(value.chars()) {
            if c == '\\' || c.is_ascii_whitespace() || c == '\x0b' {
                options.push('\\');
            }
            options.push(c);
        }
    }
    options
}

/// A name as SQL, whatever it holds.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL, whatever it holds and whatever `standard_conforming_strings` says.
pub fn quote_literal(text: &str) -> String {
    let text = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

/// An error and its causes in one line, joined by `: `.
///
/// A server error's DETAIL and context are left out, because they quote rows: a failed check
/// says `Failing row contains (…)`, and such a row may hold an API key.
pub fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut chain = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = match error.downcast_ref::<DbError>() {
            Some(error) => server_error(error),
            None => error.to_string(),
        };
        // Some errors already repeat their cause, and "db error" says nothing.
        if text != "db error" && !chain.ends_with(&text) {
            if !chain.is_empty() {
                chain.push_str(": ");
            }
            chain.push_str(&text);
        }
        next = error.source();
    }
    chain.replace('\n', " ")
}

fn server_error(error: &DbError) -> String {
    let mut text = format!("{}: {} (SQLSTATE {})", error.severity(), error.message(), error.code().code());
    if let Some(hint) = error.hint() {
        text.push_str("; hint: ");
        text.push_str(hint);
    }
    text
}

/// Why there is no connection. `endpoint` says who, where and which database; no password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("could not connect to {endpoint}")]
    Postgres { endpoint: String, source: tokio_postgres::Error },
    #[error("could not connect to {endpoint}")]
    TlsFile { endpoint: String, source: TlsFileError },
    #[error("could not connect to {endpoint} within {after:?}")]
    TimedOut { endpoint: String, after: Duration },
    #[error("{endpoint} is {is}")]
    NotPrimary { endpoint: String, is: &'static str },
    #[error("none of {endpoint} is a server to work on ({})", list(.failures))]
    NoHost { endpoint: String, failures: Vec<Self> },
}

fn list(failures: &[ConnectError]) -> String {
    let texts: Vec<String> = failures.iter().map(|failure| error_chain(failure)).collect();
    texts.join("; ")
}

impl ConnectError {
    /// Whether the same attempt may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        let error = match self {
            // A standby may be promoted, and the host that is down may be the right one.
            Self::TimedOut { .. } | Self::NotPrimary { .. } => return true,
            Self::NoHost { failures, .. } => return failures.iter().any(Self::is_transient),
            Self::TlsFile { .. } => return false,
            Self::Postgres { source, .. } => source,
        };
        match error.code() {
            Some(code) => is_transient_code(code.code()),
            // The server hung up, as it does while it stops.
            None if error.is_closed() => true,
            None => io_error(error).is_some_and(is_transient_io),
        }
    }

    /// The server's SQLSTATE, if it got as far as answering.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Postgres { source, .. } => source.code().map(SqlState::code),
            Self::NoHost { failures, .. } => failures.iter().find_map(Self::code),
            Self::TlsFile { .. } | Self::TimedOut { .. } | Self::NotPrimary { .. } => None,
        }
    }

    /// Whether a server answered that it is not the one to work on, as standbys do until one is promoted.
    pub fn is_waiting_for_a_primary(&self) -> bool {
        match self {
            Self::NotPrimary { .. } => true,
            Self::NoHost { failures, .. } => failures.iter().any(Self::is_waiting_for_a_primary),
            Self::Postgres { .. } | Self::TlsFile { .. } | Self::TimedOut { .. } => false,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        let error = match self {
            Self::NotPrimary { .. } => return "promote a standby, or name the primary's host in the URL",
            Self::NoHost { failures, .. } => {
                // What stops us, if anything does; else what was asked first.
                let worst = failures.iter().find(|failure| !failure.is_transient()).or(failures.first());
                return worst.map_or("name a host in the URL", Self::remedy);
            }
            Self::TlsFile { .. } => return "correct the file or its path in the URL",
            Self::TimedOut { .. } => {
                return "check the host, the port and what stands between, or raise \
                        connect_timeout in the URL";
            }
            Self::Postgres { source, .. } => source,
        };
        match error.code() {
            Some(code) => remedy_for_code(code.code()),
            None => remedy_without_code(error),
        }
    }
}

fn io_error(error: &tokio_postgres::Error) -> Option<&io::Error> {
    error.source()?.downcast_ref()
}

fn is_transient_code(code: &str) -> bool {
    match code {
        // The database was dropped; a limit that somebody configured.
        "57P04" | "53400" => false,
        // Connection trouble, out of connections or memory, stopping or starting up.
        _ => ["08", "53", "57"].iter().any(|class| code.starts_with(class)),
    }
}

fn is_transient_io(error: &io::Error) -> bool {
    // rustls hides its verdict in an io::Error: a bad certificate stays bad.
    if tls_error(error).is_some() {
        return false;
    }
    // Everything else may pass, an unknown host name too: in a compose file names appear when
    // their containers start.
    !matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput)
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn remedy_for_code(code: &str) -> &'static str {
    match code {
        "28P01" => "correct the user name or the password in the URL",
        "28000" => {
            "check that the role exists and may log in, and that the server's pg_hba.conf has a \
             line for this host, database, user and kind of encryption"
        }
        "3D000" => "correct the database name in the URL, or create the database",
        "42501" => "grant this role the right to connect to the database",
        "53300" => "wait, or raise the connection limit of the server, the database or the role",
        "57P03" => "wait until the server has started",
        "57P04" => "the database was dropped; correct the database name in the URL",
        // What PgBouncer answers to start-up options, and to whatever its own server says.
        "08P01" => "connect to PostgreSQL itself and not through a connection pooler",
        code if is_transient_code(code) => "wait, or look into the server's log",
        _ => "look into the server's log",
    }
}

fn remedy_without_code(error: &tokio_postgres::Error) -> &'static str {
    let io = io_error(error);
    match io.and_then(tls_error) {
        Some(rustls::Error::InvalidCertificate(reason)) => remedy_for_certificate(reason),
        Some(rustls::Error::AlertReceived(_)) => {
            "the server did not accept our side of TLS; check sslcert and sslkey, and which \
             authority the server trusts (ssl_ca_file)"
        }
        Some(_) => "check the server's TLS settings; TLS 1.2 or newer is needed",
        None if error.is_closed() => "wait, or look into the server's log",
        None if io.is_some() => "check that the server runs and that the host and port are right",
        // Our own library's texts say what is missing: a password, TLS, channel binding.
        None => "correct the password or the TLS parameters in the URL",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use rustls::CertificateError;

    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).unwrap()
    }

    #[test]
    fn names_and_values_are_quoted() {
        assert_eq!(quote_ident("user"), "\"user\"");
        assert_eq!(quote_ident("a\"b; --"), "\"a\"\"b; --\"");
        assert_eq!(quote_literal(""), "''");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }

    #[test]
    fn settings_are_escaped_as_the_server_splits_them() {
        assert_eq!(startup_options(&[]), "");
        assert_eq!(
            startup_options(&[("timezone", "UTC"), ("search_path", "a, \"b\\c\""), ("x.y", "")]),
            "-c timezone=UTC -c search_path=a,\\ \"b\\\\c\" -c x.y="
        );
        assert_eq!(startup_options(&[("a", "\t\n\x0b")]), "-c a=\\\t\\\n\\\x0b");
    }

    #[test]
    fn the_driver_gets_what_the_endpoint_says() {
        let tcp = endpoint("postgresql://u:zq@[::1]:6000/d?connect_timeout=8&sslmode=verify-ca");
        let config = client_config(&tcp, &tcp.addresses[0], "sync", &[("a", "b")]);
        assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Tcp("::1".to_owned())]);
        assert_eq!(config.get_ports(), [6000]);
        assert_eq!(config.get_user(), Some("u"));
        assert_eq!(config.get_password(), Some(b"zq".as_slice()));
        assert_eq!(config.get_options(), Some("-c a=b"));
        assert_eq!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(4)));
        let socket = endpoint("postgresql://u@%2Ftmp/d");
        let config = client_config(&socket, &socket.addresses[0], "sync", &[]);
        assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Unix("/tmp".into())]);
        assert_eq!(config.get_options(), None);
        assert_eq!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Disable);
    }

    #[test]
    fn a_chain_names_every_cause_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{text}")]
        struct Link {
            text: &'static str,
            source: Option<Box<Self>>,
        }
        let chain = |texts: &[&'static str]| {
            let link = texts.iter().rev().fold(None, |source, text| Some(Box::new(Link { text, source })));
            error_chain(&*link.unwrap())
        };
        assert_eq!(chain(&["a", "b", "c"]), "a: b: c");
        assert_eq!(chain(&["a", "db error", "c"]), "a: c");
        assert_eq!(chain(&["a: b", "b", "c\nd"]), "a: b: c d");
    }

    #[test]
    fn a_code_says_whether_waiting_helps() {
        for code in ["08006", "08P01", "53300", "53200", "57P01", "57P03"] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "53400", "57P04", "XX000", ""] {
            assert!(!is_transient_code(code), "{code}");
        }
    }

    #[test]
    fn a_bad_certificate_is_not_retried_and_a_lost_connection_is() {
        let bad = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        assert!(!is_transient_io(&io::Error::new(io::ErrorKind::InvalidData, bad)));
        for kind in [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::ConnectionReset,
            io::ErrorKind::TimedOut,
            io::ErrorKind::UnexpectedEof,
            io::ErrorKind::NotFound,
            io::ErrorKind::Other,
        ] {
            assert!(is_transient_io(&kind.into()), "{kind}");
        }
        assert!(!is_transient_io(&io::ErrorKind::PermissionDenied.into()));
    }

    #[test]
    fn every_tls_mode_has_a_configuration() {
        for mode in ["prefer", "require", "verify-ca", "verify-full"] {
            let tls = endpoint(&format!("postgresql://u@h/d?sslmode={mode}")).tls;
            assert!(tls_config(&tls, &Arc::default()).is_ok(), "{mode}");
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_used_is_named() {
        for (query, parameter) in [
            ("sslmode=verify-ca&sslrootcert=no-such.pem", "sslrootcert"),
            ("sslmode=require&sslcert=no-such.pem&sslkey=no-such.key", "sslcert"),
        ] {
            let endpoint = endpoint(&format!("postgresql://u:zq@127.0.0.1:1/d?{query}"));
            let error = connect(&endpoint, "test", &[]).await.unwrap_err();
            let text = error_chain(&error);
            assert!(text.contains(&format!("cannot use {parameter} no-such.pem")), "{text}");
            assert!(!format!("{text} {error:?}").contains("zq"));
            assert!(!error.is_transient());
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_is_given_up_in_time() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut endpoint = endpoint(&format!("postgresql://u:zq@127.0.0.1:{port}/d"));
        endpoint.connect_timeout = Duration::from_millis(20);
        let error = connect(&endpoint, "test", &[]).await.unwrap_err();
        assert_eq!(error.to_string(), format!("could not connect to {endpoint} within 20ms"));
        assert!(error.is_transient());
        assert!(!format!("{error:?}").contains("zq"));
    }

    #[tokio::test]
    async fn when_no_host_will_do_each_says_why() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        let mut endpoint = endpoint(&format!("postgresql://u:zq@127.0.0.1:{port},127.0.0.1:1/d"));
        endpoint.connect_timeout = Duration::from_millis(500);
        let error = connect(&endpoint, "test", &[]).await.unwrap_err();
        let text = error_chain(&error);
        assert!(text.contains(&format!("none of u@127.0.0.1:{port},127.0.0.1:1/d is a server")), "{text}");
        assert!(text.contains(&format!("could not connect to u@127.0.0.1:{port}/d within 500ms")), "{text}");
        assert!(text.contains("could not connect to u@127.0.0.1:1/d: "), "{text}");
        assert!(error.is_transient() && !text.contains("zq"), "{text}");
    }

    #[test]
    fn one_host_that_may_come_back_is_reason_to_wait() {
        let standby = || ConnectError::NotPrimary { endpoint: "b".into(), is: "a standby" };
        let file = || ConnectError::TlsFile {
            endpoint: "a".into(),
            source: TlsFileError { parameter: "sslcert", file: "f".into(), problem: "gone".into() },
        };
        let of = |failures| ConnectError::NoHost { endpoint: "a,b".into(), failures };
        assert!(of(vec![file(), standby()]).is_transient());
        assert!(of(vec![file(), standby()]).is_waiting_for_a_primary());
        assert!(!of(vec![file(), file()]).is_transient());
        assert_eq!(of(vec![standby(), file()]).remedy(), file().remedy());
    }
}
