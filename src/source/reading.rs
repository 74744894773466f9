//! Reading LiteLLM's rows in one transaction.
//!
//! Owns how such a transaction begins: all its table locks at once, or not at all. One that collects them table by table waits
//! behind a migration with some of them in hand, and Postgres ends the migration. Owns how it ends early as well: what LiteLLM
//! wants to do to its tables goes first, and everything LiteLLM does would queue up behind it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Source;
use super::publication::table_list;
use super::tables::SourceTable;
use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::postgres::quote_literal;
use crate::sql;
use crate::target::{QUICK, within};

/// How often the locks are asked for, and how long between: a migration that holds one for longer is not waited for.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);
/// How often a reader looks whether it is in the way. Somebody who is met twice in a row has waited for as long.
const LOOK: Duration = Duration::from_millis(400);

impl Source {
    /// Begins a read-only transaction over `tables` at one snapshot: `snapshot`, exported by another session, or a new one. No
    /// statement in it may take longer than `patience`.
    ///
    /// # Errors
    /// SQLSTATE 55P03 where somebody keeps a table locked for more than some seconds.
    pub async fn begin_reading(
        &self,
        config: &Config,
        tables: &BTreeMap<String, SourceTable>,
        snapshot: Option<&str>,
        patience: Duration,
    ) -> Result<()> {
        let snapshot = snapshot
            .map_or_else(String::new, |name| format!("set transaction snapshot {};", quote_literal(name)));
        let names: Vec<&String> = tables.keys().collect();
        let begin = format!(
            "begin isolation level repeatable read read only; {snapshot}
             set local statement_timeout = {}; lock table {} in access share mode nowait",
            patience.as_millis(),
            table_list(config, &names)
        );
        let client = &self.connection.client;
        let mut tries = 1;
        loop {
            match within(Side::Source, "begin to read", QUICK, client.batch_execute(&begin)).await {
                Err(error) if error.sqlstate() == Some("55P03") && tries < TRIES => {
                    within(Side::Source, "begin to read", QUICK, client.batch_execute("rollback")).await?;
                    tries += 1;
                    tokio::time::sleep(PAUSE).await;
                }
                done => return done,
            }
        }
    }

    /// Does `work`, which reads on this session in a transaction of [`Self::begin_reading`], unless somebody waits for what that holds:
    /// then the session is ended. `beside` is another one on the same server.
    ///
    /// # Errors
    /// [`Error::GaveWay`]; whatever `work` fails with.
    pub async fn giving_way<T>(&self, beside: &Self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let row = self.client().query_one("select pg_backend_pid()", &[]).await;
        let pid: i32 = row.map_err(on(Side::Source, "begin to read"))?.get(0);
        tokio::select! {
            done = work => done,
            error = beside.held_up_by(pid) => {
                // Dropping it would read to the end of the table first.
                let ended = beside.client().execute("select pg_terminate_backend($1)", &[&pid]).await;
                ended.map_err(on(Side::Source, "end a session of ours"))?;
                Err(error)
            }
        }
    }

    /// Ends once somebody has waited for session `pid` of ours for a moment.
    async fn held_up_by(&self, pid: i32) -> Error {
        let mut waited = false;
        loop {
            tokio::time::sleep(LOOK).await;
            match self.client().query_one(sql::HELD_UP, &[&pid]).await {
                Ok(row) if !row.get::<_, bool>("held_up") => waited = false,
                Ok(_) if waited => return Error::GaveWay,
                Ok(_) => waited = true,
                Err(cause) => return on(Side::Source, "look who waits for us")(cause),
            }
        }
    }
}
