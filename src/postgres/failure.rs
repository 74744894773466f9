//! What a failed attempt to connect means: in words, whether waiting helps, and what to do.
//!
//! Owns what SQLSTATEs, the network's errors and rustls's verdicts say about it. Must not retry, and must not repeat a
//! password or a row.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio_postgres::error::{DbError, SqlState};

use super::tls::{TlsFileError, remedy_for_certificate};

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

/// Only what people have to change is not: who may connect, and to what. Everything else a server says of itself, and most
/// of it passes (a full disk says XX000 here), so that an unknown code is waited for too.
fn is_transient_code(code: &str) -> bool {
    // The database was dropped; a limit that somebody configured; a feature this server does not have.
    !matches!(code, "57P04" | "53400" | "0A000")
        // Parameters it does not take; the role, its password and pg_hba.conf; the database; rights and names.
        && !["22", "28", "3D", "42"].iter().any(|class| code.starts_with(class))
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
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use rustls::CertificateError;

    use super::*;

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
        for code in [
            "08006", "08P01", "53300", "53200", "53100", "57P01", "57P03", "58030", "XX000", "XX001", "55000",
        ] {
            assert!(is_transient_code(code), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "53400", "57P04", "22023", "0A000"] {
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
