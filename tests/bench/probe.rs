//! How long single changes take, while something else may go on.
//!
//! Transactions of one user each at a fixed rate on one connection. Timed: from the return of the client's commit until a
//! reader on the target sees the row. The reader asks for one row after the other, by primary key, as fast as it can
//! while one is awaited: every look is itself timed by the look before it, so a figure is at most one look (about
//! 0.1 ms) too high. It costs the same on every side. A row seen before the client heard of its own commit counts as 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use testbed::connect;

/// How to see a person's new name in Open WebUI.
pub const LOOK_WEBUI: &str = "select 1 from \"user\" where id = 'usr_' || $1::text and name = $2";
/// How to see it in a copy of LiteLLM's table.
pub const LOOK_LITELLM: &str = "select 1 from \"LiteLLM_UserTable\" where user_id = $1 and user_alias = $2";

/// What is changed, and where it is looked for.
#[derive(Debug, Clone)]
pub struct Probe {
    pub source: String,
    pub target: String,
    pub look: &'static str,
    /// Goes of one database have names of their own.
    pub go: usize,
    /// Transactions a second.
    pub rate: u64,
    /// People 1 to this are renamed, one after the other.
    pub people: usize,
    /// Whether every second change is a new person instead.
    pub new_people: bool,
}

/// One change: which row it makes, and what its name will be.
#[derive(Debug, Clone)]
struct Change {
    id: String,
    name: String,
    is_new: bool,
}

/// A probe that goes on until it is told to stop.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    result: tokio::task::JoinHandle<Result<Vec<f64>>>,
}

impl Running {
    /// Milliseconds from commit to visible, of every change.
    pub async fn stop(self) -> Result<Vec<f64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.result.await?
    }
}

impl Probe {
    /// Milliseconds from commit to visible, of `count` changes.
    pub async fn measure(self, count: usize) -> Result<Vec<f64>> {
        let measured = self.run(count, Arc::default()).await?;
        ensure!(measured.len() == count, "{} of {count} changes were seen", measured.len());
        Ok(measured)
    }

    pub fn start(self) -> Running {
        let stop = Arc::new(AtomicBool::new(false));
        let result = tokio::spawn(self.run(usize::MAX, Arc::clone(&stop)));
        Running { stop, result }
    }

    async fn run(self, count: usize, stop: Arc<AtomicBool>) -> Result<Vec<f64>> {
        let (announce, announced) = mpsc::channel();
        let (target, look) = (self.target.clone(), self.look);
        // Threads with runtimes of their own: neither waits for the other's work.
        let writer = thread::spawn(move || alone(write(&self, count, &stop, announce)));
        let reader = thread::spawn(move || alone(read(&target, look, announced)));
        let (committed, seen) = tokio::try_join!(join(writer), join(reader))?;
        let (committed, seen) = (committed?, seen?);
        ensure!(committed.len() == seen.len(), "{} of {} changes were seen", seen.len(), committed.len());
        Ok(committed
            .iter()
            .zip(&seen)
            .map(|(committed, seen)| seen.saturating_duration_since(*committed).as_secs_f64() * 1000.0)
            .collect())
    }

    /// Change number `n`; `ids` are those of the people that are there.
    fn change(&self, n: usize, ids: &[String]) -> Change {
        let is_new = self.new_people && n.is_multiple_of(2);
        let id = if is_new { format!("new-{}-{n}", self.go) } else { ids[n % ids.len()].clone() };
        Change { id, name: format!("Name {} {n}", self.go), is_new }
    }
}

fn join<T: Send + 'static>(thread: thread::JoinHandle<Result<T>>) -> tokio::task::JoinHandle<Result<T>> {
    tokio::task::spawn_blocking(move || thread.join().map_err(|_| anyhow!("a thread panicked"))?)
}

/// On a thread of its own, with a runtime of its own.
pub fn alone<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Commits the changes at the rate; says when each commit returned.
async fn write(
    probe: &Probe,
    count: usize,
    stop: &AtomicBool,
    announce: mpsc::Sender<Change>,
) -> Result<Vec<Instant>> {
    let client = connect(&probe.source).await?;
    let text = "select md5('person ' || i)::uuid::text from generate_series(1, $1::int) i";
    let rows = client.query(text, &[&i32::try_from(probe.people)?]).await?;
    let ids: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let insert = client
        .prepare(
            "insert into \"LiteLLM_UserTable\" (user_id, user_alias, user_email, user_role, teams, models)
             values ($1, $2, $1 || '@example.com', 'internal_user', '{}', '{}')",
        )
        .await?;
    let rename =
        client.prepare("update \"LiteLLM_UserTable\" set user_alias = $2 where user_id = $1").await?;
    let mut committed = Vec::new();
    let started = Instant::now();
    for n in 0..count {
        let due = started + Duration::from_micros(1_000_000 / probe.rate) * u32::try_from(n)?;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let change = probe.change(n, &ids);
        announce.send(change.clone()).context("the reader has ended")?;
        let statement = if change.is_new { &insert } else { &rename };
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
