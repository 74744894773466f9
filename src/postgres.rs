//! A connection to a database, and names and values in SQL.
//!
//! Owns connecting (TLS, timeouts, keepalives, session settings), the task that drives a
//! connection, what a failed attempt means, and quoting. Must not retry, and must not know what
//! the statements mean. No error of this module repeats a password or a row.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::certificate::{self, Noting};
use crate::config::url::{Endpoint, Host, SslMode, Tls};

/// A peer that vanished without a word is noticed after idle + interval * retries = 11 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for data that was sent and never acknowledged, which keepalives do not watch.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a polite goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An open connection. Dropping it ends it at once, also when the server no longer answers.
#[derive(Debug)]
pub struct Connection {
    pub client: Client,
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
        let Self { client, certificates: _, mut driver, end: _ } = self;
        drop(client);
        // Either way it is over: the driver is dropped here.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut driver.0).await;
    }
}

/// Connects and starts the task that drives the connection.
///
/// `settings` are session settings that hold from the first statement on. Everything, from the
/// name look-up to the end of the log-in, happens within the endpoint's `connect_timeout`.
pub async fn connect(
    endpoint: &Endpoint,
    application_name: &str,
    settings: &[(&str, &str)],
) -> Result<Connection, ConnectError> {
    let config = client_config(endpoint, application_name, settings);
    let server_end = Arc::default();
    let tls = match endpoint.tls.mode {
        // Not a TLS connector that is switched off: it refuses the empty name of a socket.
        SslMode::Disable => None,
        SslMode::Prefer | SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            match tls_config(&endpoint.tls, &server_end) {
                Ok(tls) => Some(MakeRustlsConnect::new(tls)),
                Err(source) => {
                    return Err(ConnectError::TlsFile { endpoint: endpoint.to_string(), source });
                }
            }
        }
    };
    let attempt = async {
        Ok(match tls {
            None => {
                let (client, connection) = config.connect(NoTls).await?;
                Connection::start(client, connection)
            }
            Some(tls) => {
                let (client, connection) = config.connect(tls).await?;
                Connection::start(client, connection)
            }
        })
    };
    // Boxed: the states of a TLS handshake would make every caller's future large.
    match tokio::time::timeout(endpoint.connect_timeout, Box::pin(attempt)).await {
        Ok(Ok(mut connection)) => {
            connection.certificates.server = server_end.get().copied();
            connection.certificates.client =
                connection.certificates.server.and_then(|_| client_end(&endpoint.tls));
            Ok(connection)
        }
        Ok(Err(source)) => Err(ConnectError::Postgres { endpoint: endpoint.to_string(), source }),
        Err(_) => {
            Err(ConnectError::TimedOut { endpoint: endpoint.to_string(), after: endpoint.connect_timeout })
        }
    }
}

impl Connection {
    fn start<S>(client: Client, connection: tokio_postgres::Connection<Socket, S>) -> Self
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
        Self { client, certificates: certificate::Ends::default(), driver, end }
    }
}

fn client_config(endpoint: &Endpoint, application_name: &str, settings: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    match &endpoint.host {
        Host::Tcp(host) => config.host(host),
        Host::Socket(directory) => config.host_path(directory),
    };
    config
        .port(endpoint.port)
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
}

/// A certificate or key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {parameter} {}: {problem}", file.display())]
pub struct TlsFileError {
    parameter: &'static str,
    file: PathBuf,
    problem: String,
}

impl ConnectError {
    /// Whether the same attempt may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        let error = match self {
            Self::TimedOut { .. } => return true,
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
            Self::TlsFile { .. } | Self::TimedOut { .. } => None,
        }
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        let error = match self {
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

fn remedy_for_certificate(reason: &CertificateError) -> &'static str {
    use CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => "give the authority that signed the server's certificate as sslrootcert",
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            "use a host name that the certificate lists as subjectAltName; its common name does \
             not count"
        }
        Reason::Expired | Reason::ExpiredContext { .. } => "renew the server's certificate",
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => "check the clocks of both hosts",
        _ => {
            "issue the server an X.509 version 3 certificate, signed by an authority and with a \
             subjectAltName"
        }
    }
}

/// What rustls needs to know. The cryptography is named here: rustls panics when it has to
/// choose between several that happen to be compiled in.
///
/// `server_end` is told when the server's certificate ends.
fn tls_config(tls: &Tls, server_end: &Arc<OnceLock<u64>>) -> Result<ClientConfig, TlsFileError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .expect("ring knows TLS 1.2 and 1.3");
    let judge: Arc<dyn ServerCertVerifier> = match tls.mode {
        SslMode::VerifyFull => {
            let authorities = Arc::new(authorities(tls)?);
            let provider = Arc::clone(builder.crypto_provider());
            WebPkiServerVerifier::builder_with_provider(authorities, provider)
                .build()
                .expect("there are authorities, and no lists of revoked certificates")
        }
        SslMode::VerifyCa => Arc::new(Verifier { authorities: Some(authorities(tls)?), algorithms }),
        SslMode::Disable | SslMode::Prefer | SslMode::Require => {
            Arc::new(Verifier { authorities: None, algorithms })
        }
    };
    let noting = Noting { judge, end: Arc::clone(server_end) };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(noting));
    let (Some(cert_file), Some(key_file)) = (&tls.client_cert, &tls.client_key) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("sslcert", cert_file)?;
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| {
        let problem = match error {
            pem::Error::NoItemsFound => {
                "no unencrypted private key in it (PEM, PKCS#8, PKCS#1 or SEC1)".to_owned()
            }
            error => error.to_string(),
        };
        TlsFileError { parameter: "sslkey", file: key_file.clone(), problem }
    })?;
    builder.with_client_auth_cert(chain, key).map_err(|error| TlsFileError {
        parameter: "sslkey",
        file: key_file.clone(),
        problem: format!("it does not fit sslcert {}: {error}", cert_file.display()),
    })
}

/// When our own certificate ends.
fn client_end(tls: &Tls) -> Option<u64> {
    let chain = certificates("sslcert", tls.client_cert.as_ref()?).ok()?;
    certificate::end_of(chain.first()?)
}

/// TLS for a web server, believing the file's authorities or those Mozilla ships.
///
/// # Errors
/// When the file cannot be used.
pub fn https_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsFileError> {
    let tls = Tls { root_cert: ca_file.map(Path::to_owned), ..Tls::default() };
    Ok(ClientConfig::builder().with_root_certificates(authorities(&tls)?).with_no_client_auth())
}

/// Whom to believe: the file's authorities, or those Mozilla ships.
fn authorities(tls: &Tls) -> Result<RootCertStore, TlsFileError> {
    let Some(file) = &tls.root_cert else {
        return Ok(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()));
    };
    let mut store = RootCertStore::empty();
    // A system's bundle may hold one that rustls cannot read; the others still count.
    let (added, _) = store.add_parsable_certificates(certificates("sslrootcert", file)?);
    if added == 0 {
        return Err(TlsFileError {
            parameter: "sslrootcert",
            file: file.clone(),
            problem: "no certificate in it can be read as an authority".to_owned(),
        });
    }
    Ok(store)
}

fn certificates(parameter: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsFileError> {
    let error = |problem: String| TlsFileError { parameter, file: file.to_owned(), problem };
    let certificates: Vec<_> = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|cause| error(cause.to_string()))?;
    if certificates.is_empty() {
        return Err(error("no certificate in it (PEM)".to_owned()));
    }
    Ok(certificates)
}

/// Checks as much of the server's certificate as `sslmode` asks for, short of verify-full.
#[derive(Debug)]
struct Verifier {
    /// `None` believes every certificate, also one that rustls could not even read: the X.509
    /// version 1 certificates that come out of the recipe in PostgreSQL's own manual. Whoever
    /// could forge the handshake could present a certificate of their own just as well.
    authorities: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(authorities) = &self.authorities {
            verify_server_cert_signed_by_trust_anchor(
                &ParsedCertificate::try_from(end_entity)?,
                authorities,
                intermediates,
                now,
                self.algorithms.all,
            )?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.authorities {
            Some(_) => verify_tls12_signature(message, cert, dss, &self.algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.authorities {
            Some(_) => verify_tls13_signature(message, cert, dss, &self.algorithms),
            None => Ok(HandshakeSignatureValid::assertion()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
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
        let config = client_config(&tcp, "sync", &[("a", "b")]);
        assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Tcp("::1".to_owned())]);
        assert_eq!(config.get_ports(), [6000]);
        assert_eq!(config.get_user(), Some("u"));
        assert_eq!(config.get_password(), Some(b"zq".as_slice()));
        assert_eq!(config.get_options(), Some("-c a=b"));
        assert_eq!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(4)));
        let socket = endpoint("postgresql://u@%2Ftmp/d");
        let config = client_config(&socket, "sync", &[]);
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
}
