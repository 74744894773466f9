//! LiteLLM at work while a test breaks something, and a witness of what it did.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use testbed::connect;
use tokio::task::JoinHandle;

use super::{change, eventually, gone, key, person, rostered};

/// A reader that is no part of the product, and that nothing done to the product's publication concerns.
pub(crate) mod witness {
    use litellm_webui_sync::catalog::TABLES;
    use testbed::reference::{count, create_reference_slot};

    use crate::support::{Pair, rows};

    pub(crate) const PUBLICATION: &str = "witness";

    pub(crate) async fn begin(pair: &Pair) {
        let have = rows(&pair.source, "select tablename from pg_tables where schemaname = 'public'").await;
        let tables: Vec<String> = TABLES
            .iter()
            .filter(|table| have.iter().any(|row| row[0].as_deref() == Some(table.source)))
            .map(|table| format!("public.\"{}\"", table.source))
            .collect();
        pair.litellm(&format!("create publication {PUBLICATION} for table {}", tables.join(", "))).await;
        again(pair).await;
    }

    /// With what happens from now on: before the copy of the next generation.
    pub(crate) async fn again(pair: &Pair) {
        let slot = slot(pair);
        let drop = format!(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{slot}'"
        );
        rows(&pair.source, &drop).await;
        create_reference_slot(&pair.source, &slot).await.unwrap();
    }

    /// The counters are what was committed between the consistent point and the checkpoint.
    pub(crate) async fn assert_exactly_once(pair: &Pair) {
        let sql = "select consistent_point::text, end_lsn::text from litellm_webui_sync.checkpoint";
        let row = rows(&pair.target, sql).await.remove(0);
        let (from, to) = (row[0].clone().unwrap(), row[1].clone().unwrap());
        let before = count(&pair.source, &slot(pair), PUBLICATION, Some(&from)).await.unwrap();
        let until = count(&pair.source, &slot(pair), PUBLICATION, Some(&to)).await.unwrap();
        let expected = (until.transactions - before.transactions, until.changes - before.changes);
        assert_eq!(
            pair.applied().await,
            expected,
            "transactions and changes applied, since {from} up to {to}"
        );
    }

    fn slot(pair: &Pair) -> String {
        format!("{}_witness", pair.slot)
    }
}

/// LiteLLM at work, until it is told to end: small transactions, one after the other, whatever happens to the server.
pub(crate) struct Workload {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    task: JoinHandle<()>,
}

impl Workload {
    pub(crate) fn start(url: &str, prefix: &str) -> Self {
        let (url, prefix) = (url.to_owned(), prefix.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU32::new(0));
        let (told, count) = (Arc::clone(&stop), Arc::clone(&done));
        let task = tokio::spawn(async move {
            let (mut client, mut number) = (None, 0);
            while !told.load(Ordering::Relaxed) {
                number += 1;
                let open = match client.take() {
                    Some(open) => open,
                    None => match connect(&url).await {
                        Ok(open) => open,
                        Err(_) => {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            continue;
                        }
                    },
                };
                let open: tokio_postgres::Client = open;
                if open.batch_execute(&Self::transaction(&prefix, number)).await.is_ok() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                // A statement that failed leaves nothing open: together they are one transaction.
                if !open.is_closed() {
                    client = Some(open);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { stop, done, task }
    }

    fn transaction(prefix: &str, number: u32) -> String {
        let id = |back: u32| format!("{prefix}{}", number.saturating_sub(back));
        let mut sql = [
            person(&id(0), &format!("{}@x.test", id(0))),
            key(&id(0), &id(0)),
            change(&id(1), &format!("user_alias = 'Round {number}'")),
            rostered("t", &["a1", &id(0), &id(1), &id(2)]),
            "update \"LiteLLM_UserTable\" set spend = spend + 1 where user_id like 'a%';".to_owned(),
        ]
        .concat();
        if number.is_multiple_of(4) {
            sql.push_str(&gone(&id(3)));
        }
        sql
    }

    /// Lets it do some more.
    pub(crate) async fn go_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        eventually("some work", || async { self.done.load(Ordering::Relaxed) >= before + 8 }).await;
    }

    pub(crate) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
    }
}
