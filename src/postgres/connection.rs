//! An open connection: the task that drives it, what its server is, and how it ends.
//!
//! Opens none itself, and must not know what the statements mean.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage, Socket};

use super::{certificate, error_chain};
use crate::config::url::{Address, SessionAttrs};

/// How long a polite goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An open connection. Dropping it ends it at once, also when the server no longer answers.
#[derive(Debug)]
pub struct Connection {
    pub client: Client,
    /// Where it leads, of several.
    pub address: Address,
    /// Of PostgreSQL; `None` where it does not say.
    pub major: Option<u32>,
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

/// `15.18 (Debian 15.18-1)` and `19beta1` begin with it.
fn major(version: &str) -> Option<u32> {
    version.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Connection {
    pub(super) fn start<S>(
        client: Client,
        connection: tokio_postgres::Connection<Socket, S>,
        address: &Address,
    ) -> Self
    where
        S: tokio_postgres::tls::TlsStream + Unpin + Send + 'static,
    {
        let major = connection.parameter("server_version").and_then(major);
        let (sender, end) = watch::channel(None);
        let driver = Driver(tokio::spawn(async move {
            let reason = match connection.await {
                Ok(()) => "connection closed".to_owned(),
                Err(error) => error_chain(&error),
            };
            sender.send_replace(Some(reason));
        }));
        let certificates = certificate::Ends::default();
        Self { client, address: address.clone(), major, certificates, driver, end }
    }

    /// What this server is, if it is not what was wanted.
    pub(super) async fn refuse(
        &self,
        wanted: SessionAttrs,
    ) -> Result<Option<&'static str>, tokio_postgres::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_comes_first() {
        assert_eq!(major("15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("19beta1"), Some(19));
        assert_eq!(major("EnterpriseDB"), None);
    }
}
