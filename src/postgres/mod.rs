//! Connecting to a database.
//!
//! Owns which host is asked when, timeouts, keepalives and session settings; below it are what an attempt gives
//! (`connection`, `failure`), TLS, and names and values in SQL (`quote`). Must not retry, and must not know what
//! the statements mean. No error of this module repeats a password or a row.

pub mod certificate;
mod connection;
mod failure;
mod limited;
pub mod lossy;
mod quote;
pub mod settings;
mod tls;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::url::{Address, Endpoint, Host, SessionAttrs, SslMode};

pub use connection::Connection;
pub use failure::{ConnectError, error_chain};
pub use limited::{Cause, Limited};
pub use quote::{quote_ident, quote_literal};
pub use tls::{TlsFileError, https_config};
use tls::{client_end, tls_config};

/// A peer that vanished without a word is noticed after idle + interval * retries = 11 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
/// The same for data that was sent and never acknowledged, which keepalives do not watch.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(15);
/// How much sooner a host is asked than the next of the list: one that is silent must not cost its whole timeout.
const HEAD_START: Duration = Duration::from_millis(300);

/// Connects and starts the task that drives the connection. Of several hosts, the first of the list that is what
/// `target_session_attrs` asks for; one that does not answer soon is not waited for.
///
/// `of_the_side` are session settings beside those of [`settings`]; they hold from the first statement on. Everything on one host, from the name look-up
/// to the end of the log-in, happens within the endpoint's `connect_timeout`.
pub async fn connect(
    endpoint: &Endpoint,
    application_name: &str,
    of_the_side: &[(&str, &str)],
) -> Result<Connection, ConnectError> {
    let mut waiting = endpoint.addresses.iter();
    let mut running = FuturesUnordered::new();
    let mut failures = Vec::new();
    loop {
        if let Some(address) = waiting.next() {
            running.push(connect_at(endpoint.at(address), address, application_name, of_the_side));
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
    of_the_side: &[(&str, &str)],
) -> Result<Connection, ConnectError> {
    let config = client_config(&endpoint, address, application_name, of_the_side);
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
        if refused.is_none() {
            connection.client.batch_execute(settings::AFTER_LOG_IN).await?;
        }
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

fn client_config(
    endpoint: &Endpoint,
    address: &Address,
    application_name: &str,
    of_the_side: &[(&str, &str)],
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
    config.options(settings::options(&endpoint.options, of_the_side));
    config
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn endpoint(url: &str) -> Endpoint {
        Endpoint::parse(url).unwrap()
    }

    #[test]
    fn the_driver_gets_what_the_endpoint_says() {
        let tcp = endpoint("postgresql://u:zq@[::1]:6000/d?connect_timeout=8&sslmode=verify-ca");
        let config = client_config(&tcp, &tcp.addresses[0], "sync", &[("a", "b")]);
        assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Tcp("::1".to_owned())]);
        assert_eq!(config.get_ports(), [6000]);
        assert_eq!(config.get_user(), Some("u"));
        assert_eq!(config.get_password(), Some(b"zq".as_slice()));
        assert!(config.get_options().unwrap().ends_with(" -c a=b"));
        assert_eq!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Require);
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(4)));
        let socket = endpoint("postgresql://u@%2Ftmp/d");
        let config = client_config(&socket, &socket.addresses[0], "sync", &[]);
        assert_eq!(config.get_hosts(), [tokio_postgres::config::Host::Unix("/tmp".into())]);
        assert_eq!(config.get_ssl_mode(), tokio_postgres::config::SslMode::Disable);
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
}
