//! Asking a server, never for ever.
//!
//! Owns the limit on each question. An open link on which nothing comes back looks like a slow statement; without a limit
//! whoever waits for it waits until the process ends. Does not know what a statement means.

use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, ToStatement};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error(transparent)]
    Postgres(tokio_postgres::Error),
    /// It did not come within this.
    #[error("no answer within {0:?}")]
    Silence(Duration),
}

impl Cause {
    /// The SQLSTATE, where the server gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Postgres(error) => error.code().map(tokio_postgres::error::SqlState::code),
            Self::Silence(_) => None,
        }
    }
}

impl From<tokio_postgres::Error> for Cause {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error)
    }
}

/// A client whose every question has a limit. The methods are those of [`Client`].
#[derive(Debug, Clone, Copy)]
pub struct Limited<'a> {
    client: &'a Client,
    patience: Duration,
}

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

impl<'a> Limited<'a> {
    pub fn new(client: &'a Client, patience: Duration) -> Self {
        Self { client, patience }
    }

    async fn wait<T>(
        self,
        question: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Cause> {
        match tokio::time::timeout(self.patience, question).await {
            Ok(answer) => answer.map_err(Cause::Postgres),
            Err(_) => Err(Cause::Silence(self.patience)),
        }
    }

    pub async fn query<T>(self, text: &T, parameters: Parameters<'_>) -> Result<Vec<Row>, Cause>
    where
        T: ?Sized + ToStatement,
    {
        self.wait(self.client.query(text, parameters)).await
    }

    pub async fn query_one<T>(self, text: &T, parameters: Parameters<'_>) -> Result<Row, Cause>
    where
        T: ?Sized + ToStatement,
    {
        self.wait(self.client.query_one(text, parameters)).await
    }

    pub async fn query_opt<T>(self, text: &T, parameters: Parameters<'_>) -> Result<Option<Row>, Cause>
    where
        T: ?Sized + ToStatement,
    {
        self.wait(self.client.query_opt(text, parameters)).await
    }

    pub async fn execute<T>(self, text: &T, parameters: Parameters<'_>) -> Result<u64, Cause>
    where
        T: ?Sized + ToStatement,
    {
        self.wait(self.client.execute(text, parameters)).await
    }

    pub async fn batch_execute(self, text: &str) -> Result<(), Cause> {
        self.wait(self.client.batch_execute(text)).await
    }
}
