//! Reading LiteLLM's rows in one transaction.
//!
//! Owns how such a transaction begins: all its table locks at once, or not at all. One that collects them table by table waits
//! behind a migration with some of them in hand, and Postgres ends the migration.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Source;
use super::publication::table_list;
use super::tables::SourceTable;
use crate::config::Config;
use crate::error::Result;
use crate::error::Side;
use crate::postgres::quote_literal;
use crate::target::{QUICK, within};

/// How often the locks are asked for, and how long between: a migration that holds one for longer is not waited for.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(500);

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
}
