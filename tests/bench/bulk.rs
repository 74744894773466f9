//! Many people in one source transaction.
//!
//! Timed: from the source's COMMIT, when decoding can begin, until the batch is committed in Open WebUI. The baseline
//! writes the same two rows per person, in the order LiteLLM has them, out of a table that holds
//! nothing else: no reading of a stream, no mirror, no difference, no ledger, no audit.
//!
//! Nothing can be visible before it is received and written: a second baseline receives this transaction with the daemon's own
//! replication client, and then runs that SQL. A native subscription, which copies LiteLLM's rows as they are, is for information.

use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};
use testbed::{connect, execute};

use crate::Options;
use crate::native::Native;
use crate::receiver::Receiver;
use crate::report::{Figures, Goal, Report};
use crate::rig::{Pair, Rig, copy_database, insert_people};

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let users = options.users.unwrap_or(200_000);
    let existing = options.existing.unwrap_or(0);
    let runs = options.runs;
    let mut report = Report::new(
        "bulk",
        &format!("{users} people in one transaction, {existing} before, {runs} runs"),
        json!({ "users": users, "existing": existing, "runs": runs }),
    );
    let (mut product, mut bare, mut peak) = (Figures::default(), Figures::default(), Figures::default());
    let (mut received, mut written, mut native) =
        (Figures::default(), Figures::default(), Figures::default());
    for run in 0..runs {
        for turn in 0..4 {
            match (run + turn) % 4 {
                0 => {
                    let (time, memory) = daemon(rig, existing, users).await?;
                    product.add_seconds(time);
                    peak.add(memory);
                }
                1 => bare.add_seconds(Bare::new(rig, existing, users).await?.write().await?),
                2 => {
                    let (receive, both) = receive_then_write(rig, existing, users).await?;
                    received.add_seconds(receive);
                    written.add_seconds(both);
                }
                _ => native.add_seconds(subscription(rig, existing, users).await?),
            }
        }
    }
    report.figure("product, commit to visible", "s", &product);
    report.figure("receive, then bare SQL", "s", &written);
    report.figure("  of which receiving", "s", &received);
    report.figure("bare SQL", "s", &bare);
    report.figure("native subscription", "s", &native);
    report.ratio("ratio to receive, then bare SQL", &product, &written, Goal::AtMost(1.5));
    report.ratio("ratio to bare SQL", &product, &bare, Goal::AtMost(2.0));
    report.plain_ratio("ratio to native", &product, &native);
    report.figure("peak memory of the daemon", "MiB", &peak);
    Ok(report.end())
}

async fn daemon(rig: &Rig, existing: usize, users: usize) -> Result<(Duration, f64)> {
    let pair = rig.pair(existing).await?;
    let mut daemon = pair.start_daemon()?;
    let meter = pair.meter().await?;
    let before = meter.applied().await?;
    let started = commit_people(&pair, existing, users).await?;
    let time = meter.wait(before + 1, &mut daemon).await? - started;
    let memory = daemon.memory().peak;
    daemon.stop()?;
    pair.check(existing + users, if users > 10_000 { 0 } else { users }).await?;
    pair.drop_slot().await?;
    Ok((time, memory))
}

/// Writes the people and commits; gives the moment before the commit.
async fn commit_people(pair: &Pair<'_>, existing: usize, users: usize) -> Result<Instant> {
    let client = connect(&pair.source).await?;
    client.batch_execute("begin").await?;
    client.batch_execute(&insert_people(existing + 1, existing + users)).await?;
    pair.rig().settle().await?;
    let started = Instant::now();
    client.batch_execute("commit").await?;
    Ok(started)
}

/// How long a client took to receive the transaction, and until it had written the rows as well.
async fn receive_then_write(rig: &Rig, existing: usize, users: usize) -> Result<(Duration, Duration)> {
    let pair = rig.pair(existing).await?;
    let bare = Bare::new(rig, existing, users).await?;
    let mut receiver = Receiver::start(&pair, users).await?;
    let started = commit_people(&pair, existing, users).await?;
    let received = receiver.received()? - started;
    bare.write().await?;
    let both = started.elapsed();
    receiver.end().await?;
    Ok((received, both))
}

async fn subscription(rig: &Rig, existing: usize, users: usize) -> Result<Duration> {
    let pair = rig.pair(existing).await?;
    let native = Native::subscribe(&pair, "native_on", "on").await?;
    native.enable().await?;
    let started = commit_people(&pair, existing, users).await?;
    let time = native.wait_for_person(existing + users).await? - started;
    native.end(rig).await?;
    Ok(time)
}

/// An Open WebUI beside a table of the people who are to be written to it.
struct Bare {
    client: tokio_postgres::Client,
    write: String,
}

impl Bare {
    async fn new(rig: &Rig, existing: usize, users: usize) -> Result<Self> {
        let url = copy_database(&rig.target, "webui", "webui_bare").await?;
        execute(
            &url,
            &format!(
                "create table people as
                 select i, 'usr_' || md5('person ' || i)::uuid as id, 'person' || i || '@example.com' as email,
                        'Person ' || i as name
                   from generate_series(1, {}) i",
                existing + users
            ),
        )
        .await?;
        let write = |condition: String| {
            format!(
                "insert into \"user\" (id, email, name, role, profile_image_url, created_at, updated_at, last_active_at)
                 select id, email, name, 'user', '/user.png', at, at, at
                   from people, (select extract(epoch from now())::bigint as at) t where {condition};
                 insert into auth (id, email, password, active) select id, email, '', true from people where {condition}"
            )
        };
        if existing > 0 {
            execute(&url, &write(format!("i <= {existing}"))).await?;
        }
        execute(&url, "vacuum analyze").await?;
        rig.settle().await?;
        Ok(Self { client: connect(&url).await?, write: write(format!("i > {existing}")) })
    }

    async fn write(&self) -> Result<Duration> {
        let started = Instant::now();
        self.client.batch_execute(&format!("begin; {}; commit", self.write)).await?;
        Ok(started.elapsed())
    }
}
