//! A backlog of spend flushes: row updates that change nothing Open WebUI shows, of people who all have a budget. With `--policy` the
//! budgets may close something.
//!
//! The daemon remembers within a session what rows look like, so it cannot be stopped to let a
//! backlog grow. It is paused instead (SIGSTOP), for less time than the source's patience with it (15 s), with what
//! the socket buffers hold as a head start. The baseline is treated alike: a process of the same replication client
//! with the same settings that receives, counts and acknowledges at commits, paused while the same flushes are
//! written. Timed: from SIGCONT until the last flush is in the checkpoint, or received.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::Signal;
use serde_json::{Value, json};
use testbed::{connect, execute};

use crate::Options;
use crate::daemon::send;
use crate::receiver::Receiver;
use crate::report::{Figures, Goal, Report};
use crate::rig::{Pair, Rig};

/// Rows of one flush.
const FLUSH: usize = 1000;
const FLUSHES: usize = 200;
/// The source gives up a client that says nothing for 15 s.
const PAUSE_MAX: Duration = Duration::from_secs(12);

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let users = options.users.unwrap_or(100_000).max(FLUSH);
    let rows = FLUSH * FLUSHES;
    let mut report = Report::new(
        "spend",
        &format!(
            "a backlog of {rows} updates in transactions of {FLUSH}, {users} users, {} runs",
            options.runs
        ),
        json!({ "rows": rows, "flush": FLUSH, "users": users, "runs": options.runs }),
    );
    let (mut product, mut bare, mut peak) = (Figures::default(), Figures::default(), Figures::default());
    for run in 0..options.runs {
        let pair = rig.pair(users).await?;
        // Limits that nobody reaches: where a policy lets budgets close anything, each row may.
        execute(&pair.source, "update \"LiteLLM_UserTable\" set max_budget = 1000000, spend = 1").await?;
        execute(&pair.source, "vacuum full analyze \"LiteLLM_UserTable\"").await?;
        for turn in 0..2 {
            if (run + turn).is_multiple_of(2) {
                let mut daemon = pair.start_daemon()?;
                let meter = pair.meter().await?;
                let before = meter.applied().await?;
                rig.settle().await?;
                daemon.signal(Signal::STOP)?;
                flush(&pair, users).await?;
                let started = Instant::now();
                daemon.signal(Signal::CONT)?;
                let drained = meter.wait(before + i64::try_from(FLUSHES)?, &mut daemon).await?;
                product.add(rows as f64 / (drained - started).as_secs_f64());
                peak.add(daemon.memory().peak);
                daemon.stop()?;
                pair.check(users, 0).await?;
                pair.drop_slot().await?;
            } else {
                bare.add(rows as f64 / receive_only(&pair, users, rows).await?.as_secs_f64());
            }
        }
    }
    report.figure("product", "rows/s", &product);
    report.figure("client that only receives", "rows/s", &bare);
    report.ratio("ratio", &product, &bare, Goal::AtLeast(0.8));
    report.figure("peak memory of the daemon", "MiB", &peak);
    Ok(report.end())
}

/// What LiteLLM's jobs write: spend and nothing else.
async fn flush(pair: &Pair<'_>, users: usize) -> Result<()> {
    let client = connect(&pair.source).await?;
    client.batch_execute("set synchronous_commit = off").await?;
    let started = Instant::now();
    let text = format!(
        "do $$ begin
             for f in 0 .. {last} loop
                 update \"LiteLLM_UserTable\" u set spend = spend + 0.25, updated_at = clock_timestamp()
                   from generate_series(1, {FLUSH}) r
                  where u.user_id = md5('person ' || (f * {FLUSH} + r - 1) % {users} + 1)::uuid::text;
                 commit;
             end loop;
         end $$",
        last = FLUSHES - 1
    );
    client.batch_execute(&text).await?;
    // A commit that waits for the disk, so that everything before it can be sent.
    client.batch_execute("set synchronous_commit = on; create table if not exists flushed ()").await?;
    client.batch_execute("drop table flushed").await?;
    ensure!(
        started.elapsed() < PAUSE_MAX,
        "writing the backlog took longer than the source waits for a client"
    );
    Ok(())
}

/// The baseline.
async fn receive_only(pair: &Pair<'_>, users: usize, rows: usize) -> Result<Duration> {
    let mut receiver = Receiver::start(pair, rows).await?;
    pair.rig().settle().await?;
    send(&receiver.child.process, Signal::STOP)?;
    flush(pair, users).await?;
    let started = Instant::now();
    send(&receiver.child.process, Signal::CONT)?;
    let time = receiver.received()? - started;
    receiver.end().await?;
    Ok(time)
}
