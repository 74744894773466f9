//! How long a change takes at a steady, low load.
//!
//! Transactions of one user each, half of them new users, half renamed ones, at a fixed rate on one connection.
//! Timed: from the return of the client's commit until a reader on the target sees the row. The reader asks for
//! one row after the other, by primary key, as fast as it can while one is awaited: every look is itself timed by
//! the look before it, so a figure is at most one look (about 0.1 ms) too high. It costs the same on both sides.
//! A row seen before the client heard of its own commit counts as 0.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use testbed::connect;

use crate::Options;
use crate::report::{Figures, Goal, end, line, percentile, ratio, title};
use crate::rig::{Native, Rig};

const RATE: u64 = 200;

/// p50 and p99 of one go.
#[derive(Debug, Default)]
struct Latencies {
    p50: Figures,
    p99: Figures,
    slowest: Figures,
}

pub async fn run(rig: &Rig, options: &Options) -> Result<()> {
    let existing = options.existing.unwrap_or(20_000);
    let seconds = options.seconds;
    title(&format!(
        "latency: {RATE} transactions a second for {seconds} s, {existing} users before, {} runs",
        options.runs
    ));
    let count = usize::try_from(RATE * seconds)?;
    ensure!(existing >= count, "--existing must be at least {count}: that many are renamed");
    let mut figures = [Latencies::default(), Latencies::default(), Latencies::default()];
    let mut peak = Figures::default();
    for run in 0..options.runs {
        let pair = rig.pair(existing).await?;
        pair.start_daemon()?.stop()?;
        let durable = Native::subscribe(&pair, "native_on", "on").await?;
        let default = Native::subscribe(&pair, "native_off", "off").await?;
        for turn in 0..3 {
            let which = (run + turn) % 3;
            let measured = if which == 0 {
                let daemon = pair.start_daemon()?;
                rig.settle().await?;
                let look = "select 1 from \"user\" where id = 'usr_' || $1::text and name = $2";
                let measured = measure(&pair.source, &pair.target, look, which, count).await?;
                peak.add(daemon.memory().peak);
                daemon.stop()?;
                measured
            } else {
                let native = if which == 1 { &durable } else { &default };
                native.enable().await?;
                // What the others' turns wrote comes first.
                testbed::execute(
                    &pair.source,
                    &crate::rig::insert_people(existing + 1 + which, existing + 1 + which),
                )
                .await?;
                native.wait_for_person(existing + 1 + which).await?;
                rig.settle().await?;
                let look = "select 1 from \"LiteLLM_UserTable\" where user_id = $1 and user_alias = $2";
                let measured = measure(&pair.source, &native.url, look, which, count).await?;
                native.disable().await?;
                measured
            };
            figures[which].p50.add(percentile(&measured, 50.0));
            figures[which].p99.add(percentile(&measured, 99.0));
            figures[which].slowest.add(percentile(&measured, 100.0));
        }
        durable.end(rig).await?;
        default.end(rig).await?;
        pair.drop_slot().await?;
    }
    let names = ["product", "native, synchronous_commit = on", "native, synchronous_commit = off"];
    for (name, latencies) in names.iter().zip(&figures) {
        line(&format!("{name}, p50"), &latencies.p50.show("ms"));
        line(&format!("{name}, p99"), &latencies.p99.show("ms"));
        line(&format!("{name}, slowest"), &latencies.slowest.show("ms"));
    }
    let [product, durable, _] = &figures;
    ratio("ratio of p50 to on", &product.p50, &durable.p50, Goal::AtMost(2.0));
    ratio("ratio of p99 to on", &product.p99, &durable.p99, Goal::AtMost(3.0));
    line("peak memory of the daemon", &peak.show("MiB"));
    end();
    Ok(())
}

/// One change: which row it makes, and what its name will be.
#[derive(Debug, Clone)]
struct Change {
    id: String,
    name: String,
}

/// Milliseconds from commit to visible, of `count` changes.
async fn measure(
    source: &str,
    target: &str,
    look: &'static str,
    go: usize,
    count: usize,
) -> Result<Vec<f64>> {
    let ids = connect(source).await?;
    let text = "select md5('person ' || i)::uuid::text from generate_series(1, $1::int) i";
    let ids = ids.query(text, &[&i32::try_from(count)?]).await?;
    let changes: Vec<Change> = ids
        .iter()
        .enumerate()
        .map(|(n, row)| {
            let id = if n.is_multiple_of(2) { format!("new-{go}-{n}") } else { row.get(0) };
            Change { id, name: format!("Name {go} {n}") }
        })
        .collect();
    let (announce, announced) = mpsc::channel();
    let (source, target) = (source.to_owned(), target.to_owned());
    // Threads with runtimes of their own: neither waits for the other's work.
    let writer = thread::spawn(move || alone(write(&source, changes, announce)));
    let reader = thread::spawn(move || alone(read(&target, look, announced)));
    let join = |thread: thread::JoinHandle<Result<Vec<Instant>>>| {
        tokio::task::spawn_blocking(move || thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    };
    let (committed, seen) = tokio::try_join!(join(writer), join(reader))?;
    let (committed, seen) = (committed?, seen?);
    ensure!(committed.len() == count && seen.len() == count, "{} changes were seen", seen.len());
    Ok(committed
        .iter()
        .zip(&seen)
        .map(|(committed, seen)| seen.saturating_duration_since(*committed).as_secs_f64() * 1000.0)
        .collect())
}

fn alone<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Commits the changes at the rate; says when each commit returned.
async fn write(source: &str, changes: Vec<Change>, announce: mpsc::Sender<Change>) -> Result<Vec<Instant>> {
    let client = connect(source).await?;
    let insert = client
        .prepare(
            "insert into \"LiteLLM_UserTable\" (user_id, user_alias, user_email, user_role, teams, models)
             values ($1, $2, $1 || '@example.com', 'internal_user', '{}', '{}')",
        )
        .await?;
    let rename =
        client.prepare("update \"LiteLLM_UserTable\" set user_alias = $2 where user_id = $1").await?;
    let mut committed = Vec::with_capacity(changes.len());
    let started = Instant::now();
    for (n, change) in changes.into_iter().enumerate() {
        let due = started + Duration::from_micros(1_000_000 / RATE) * u32::try_from(n)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let statement = if change.id.starts_with("new-") { &insert } else { &rename };
        announce.send(change.clone()).context("the reader has ended")?;
        client.execute(statement, &[&change.id, &change.name]).await?;
        committed.push(Instant::now());
    }
    Ok(committed)
}

/// Looks for one change after the other; says when each was seen first.
async fn read(target: &str, look: &str, announced: mpsc::Receiver<Change>) -> Result<Vec<Instant>> {
    let client = connect(target).await?;
    let statement = client.prepare(look).await?;
    let mut seen = Vec::new();
    while let Ok(change) = announced.recv() {
        let started = Instant::now();
        while client.query_opt(&statement, &[&change.id, &change.name]).await?.is_none() {
            ensure!(started.elapsed() < Duration::from_secs(60), "{} does not arrive", change.id);
        }
        seen.push(Instant::now());
    }
    Ok(seen)
}
