//! What following LiteLLM costs LiteLLM.
//!
//! Four clients do what LiteLLM does, as fast as its server lets them: mostly a flush (spend logs, and the spend of twenty people and their
//! keys), and one rename in twenty. Counted: transactions a second with nobody following, with the daemon, and with its predecessor
//! (`trigger_bridge.sql`). All runs on one machine, so what the daemon and Open WebUI's server take of its processors counts
//! against the daemon as well; the processor time of LiteLLM's server for each transaction is what it would be anywhere. Nobody
//! following has `wal_level = logical` all the same.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{connect, execute};
use tokio_postgres::{Client, Statement};

use crate::Options;
use crate::probe::alone;
use crate::processes;
use crate::report::{Figures, Goal, Report};
use crate::rig::{Pair, Rig, copy_database, webui_rows};

const CLIENTS: usize = 4;
/// People of one flush.
const FLUSH: usize = 20;
/// One transaction in so many renames somebody.
const RENAME_EVERY: usize = 20;
const NAMES: [&str; 3] = ["alone", "followed by the daemon", "with triggers over dblink"];

/// Of one way of following, over all runs.
#[derive(Debug, Default)]
struct Cost {
    rate: Figures,
    processor: Figures,
}

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let existing = options.existing.unwrap_or(20_000);
    let (runs, seconds) = (options.runs, options.seconds);
    let mut report = Report::new(
        "source-cost",
        &format!("{CLIENTS} clients for {seconds} s, {existing} people with three keys each, {runs} runs"),
        json!({ "clients": CLIENTS, "seconds": seconds, "existing": existing, "runs": runs }),
    );
    let mut costs: [Cost; 3] = Default::default();
    let mut behind = Figures::default();
    let mut bridge_is_missing = false;
    for run in 0..runs {
        for turn in 0..NAMES.len() {
            let which = (run + turn) % NAMES.len();
            let pair = rig.company(existing).await?;
            if which == 2 && !install_bridge(&pair, existing).await? {
                bridge_is_missing = true;
                continue;
            }
            let daemon = if which == 1 { Some(pair.start_daemon()?) } else { None };
            rig.settle().await?;
            let done = work(&pair, existing, Duration::from_secs(seconds))?;
            costs[which].rate.add(done.transactions as f64 / done.time.as_secs_f64());
            costs[which].processor.add(done.processor * 1000.0 / done.transactions as f64);
            if let Some(mut daemon) = daemon {
                let ended = Instant::now();
                pair.wait_until_ready(&mut daemon)?;
                behind.add_seconds(ended.elapsed());
                daemon.stop()?;
                pair.drop_slot().await?;
            }
        }
    }
    let [nobody, followed, bridge] = &costs;
    for (name, cost) in NAMES.iter().zip(&costs) {
        if !(bridge_is_missing && std::ptr::eq(cost, bridge)) {
            report.figure(name, "transactions/s", &cost.rate);
            report.figure(&format!("{name}, processor time of LiteLLM's server each"), "ms", &cost.processor);
        }
    }
    report.figure("the daemon has the rest after", "s", &behind);
    report.ratio("ratio to alone", &followed.rate, &nobody.rate, Goal::AtLeast(0.97));
    report.plain_ratio("ratio of processor time to alone", &followed.processor, &nobody.processor);
    if bridge_is_missing {
        report.note("dblink cannot be installed on this server: the predecessor was not measured");
    } else {
        report.plain_ratio("ratio of the predecessor to alone", &bridge.rate, &nobody.rate);
    }
    Ok(report.end())
}

/// Everybody's account is there, as the predecessor would have made it. Whether the server has dblink.
async fn install_bridge(pair: &Pair<'_>, existing: usize) -> Result<bool> {
    let text = "select exists (select from pg_available_extensions where name = 'dblink')";
    if !connect(&pair.source).await?.query_one(text, &[]).await?.get::<_, bool>(0) {
        return Ok(false);
    }
    let target = &pair.rig().target;
    let url = copy_database(target, "webui", "webui_bridge").await?;
    execute(&url, &webui_rows(&format!("generate_series(1, {existing})"))).await?;
    execute(&url, "vacuum analyze").await?;
    let address = format!("host=127.0.0.1 port={} user=postgres dbname=webui_bridge", target.port());
    execute(&pair.source, &include_str!("trigger_bridge.sql").replace(":address", &address)).await?;
    Ok(true)
}

/// What [`work`] came to.
struct Work {
    transactions: usize,
    time: Duration,
    /// Seconds of processor time of LiteLLM's server.
    processor: f64,
}

fn work(pair: &Pair<'_>, people: usize, duration: Duration) -> Result<Work> {
    let server = pair.rig().source.pid().context("LiteLLM's server is not there")?;
    let (done, all_done) = mpsc::channel();
    let before = processes::of_family(server);
    let started = Instant::now();
    let mut held = Vec::new();
    for number in 0..CLIENTS {
        let (hold, release) = mpsc::channel::<()>();
        held.push(hold);
        let (source, done) = (pair.source.clone(), done.clone());
        thread::spawn(move || {
            let worked = alone(async {
                let mut client = LiteLlm::connect(&source, number, people).await?;
                while started.elapsed() < duration {
                    client.transaction().await?;
                }
                done.send(Ok(client.transactions))?;
                // What a backend took can be read as long as it is there.
                let _ = release.recv();
                Ok(())
            });
            // An answer that nobody waits for any more is of no interest.
            let _ = worked.or_else(|error| done.send(Err(error)));
        });
    }
    tokio::task::block_in_place(|| {
        let mut transactions = 0;
        for _ in 0..CLIENTS {
            transactions += all_done.recv()??;
        }
        let time = started.elapsed();
        Ok(Work { transactions, time, processor: processes::of_family(server) - before })
    })
}

/// One client. People are shared out among the clients: none waits for another's row.
struct LiteLlm {
    client: Client,
    log: Statement,
    bill_people: Statement,
    bill_keys: Statement,
    rename: Statement,
    ids: Vec<String>,
    tokens: Vec<String>,
    transactions: usize,
}

impl LiteLlm {
    async fn connect(source: &str, number: usize, people: usize) -> Result<Self> {
        let client = connect(source).await?;
        let text = "select md5('person ' || i)::uuid::text, encode(sha256(('key 1 of ' || i)::bytea), 'hex')
                      from generate_series(1, $1::int) i where i % $2 = $3";
        let numbers = [people, CLIENTS, number].map(|number| number as i32);
        let rows = client.query(text, &[&numbers[0], &numbers[1], &numbers[2]]).await?;
        Ok(Self {
            log: client
                .prepare(
                    "insert into \"LiteLLM_SpendLogs\" (request_id, call_type, spend, \"startTime\", \"endTime\", \"user\")
                     select gen_random_uuid()::text, 'acompletion', 0.01, now(), now(), id from unnest($1::text[]) id",
                )
                .await?,
            bill_people: client
                .prepare(
                    "update \"LiteLLM_UserTable\" set spend = spend + 0.01, updated_at = clock_timestamp()
                      where user_id = any ($1)",
                )
                .await?,
            bill_keys: client
                .prepare(
                    "update \"LiteLLM_VerificationToken\" set spend = spend + 0.01, last_active = clock_timestamp()
                      where token = any ($1)",
                )
                .await?,
            rename: client
                .prepare("update \"LiteLLM_UserTable\" set user_alias = $2 where user_id = $1")
                .await?,
            ids: rows.iter().map(|row| row.get(0)).collect(),
            tokens: rows.iter().map(|row| row.get(1)).collect(),
            client,
            transactions: 0,
        })
    }

    async fn transaction(&mut self) -> Result<()> {
        let first = self.transactions * FLUSH % self.ids.len();
        if self.transactions.is_multiple_of(RENAME_EVERY) {
            let name = format!("Name {}", self.transactions);
            self.client.execute(&self.rename, &[&self.ids[first], &name]).await?;
        } else {
            let last = (first + FLUSH).min(self.ids.len());
            let (ids, tokens) = (&self.ids[first..last], &self.tokens[first..last]);
            self.client.batch_execute("begin").await?;
            self.client.execute(&self.log, &[&ids]).await?;
            self.client.execute(&self.bill_people, &[&ids]).await?;
            self.client.execute(&self.bill_keys, &[&tokens]).await?;
            self.client.batch_execute("commit").await?;
        }
        self.transactions += 1;
        Ok(())
    }
}
