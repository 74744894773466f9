//! Many people in one source transaction.
//!
//! Timed: from the source's COMMIT, when decoding can begin, until the batch is committed in Open WebUI. The baseline
//! writes the same two rows per person, in the order LiteLLM has them, out of a table that holds
//! nothing else: no reading of a stream, no mirror, no difference, no ledger, no audit.
//!
//! Two more say what the rest costs anybody: a client that only receives this transaction, and a native subscription
//! that copies LiteLLM's rows as they are. Nothing can be visible before it is received and written.

use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::{connect, execute};

use crate::Options;
use crate::receiver::Receiver;
use crate::report::{Figures, Goal, end, line, plain_ratio, ratio, title};
use crate::rig::{Native, Pair, Rig, copy_database, insert_people};

pub async fn run(rig: &Rig, options: &Options) -> Result<()> {
    let users = options.users.unwrap_or(200_000);
    let existing = options.existing.unwrap_or(0);
    title(&format!("bulk: {users} people in one transaction, {existing} before, {} runs", options.runs));
    let (mut product, mut bare, mut peak) = (Figures::default(), Figures::default(), Figures::default());
    let (mut received, mut native) = (Figures::default(), Figures::default());
    for run in 0..options.runs {
        for turn in 0..4 {
            match (run + turn) % 4 {
                0 => {
                    let (time, memory) = daemon(rig, existing, users).await?;
                    product.add_seconds(time);
                    peak.add(memory);
                }
                1 => bare.add_seconds(bare_sql(rig, existing, users).await?),
                2 => received.add_seconds(receive_only(rig, existing, users).await?),
                _ => native.add_seconds(subscription(rig, existing, users).await?),
            }
        }
    }
    line("product, commit to visible", &product.show("s"));
    line("bare SQL", &bare.show("s"));
    line("client that only receives", &received.show("s"));
    line("native subscription", &native.show("s"));
    ratio("ratio to bare SQL", &product, &bare, Goal::AtMost(2.0));
    plain_ratio("receive, then bare SQL, to bare SQL", &received.plus(&bare), &bare);
    plain_ratio("ratio to receive, then bare SQL", &product, &received.plus(&bare));
    plain_ratio("ratio to native", &product, &native);
    line("peak memory of the daemon", &peak.show("MiB"));
    end();
    Ok(())
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
    pair.check(existing + users, users).await?;
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

async fn receive_only(rig: &Rig, existing: usize, users: usize) -> Result<Duration> {
    let pair = rig.pair(existing).await?;
    let receiver = Receiver::start(&pair, users).await?;
    let started = commit_people(&pair, existing, users).await?;
    Ok(receiver.finish().await? - started)
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

async fn bare_sql(rig: &Rig, existing: usize, users: usize) -> Result<Duration> {
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
    let client = connect(&url).await?;
    let started = Instant::now();
    client.batch_execute(&format!("begin; {}; commit", write(format!("i > {existing}")))).await?;
    let time = started.elapsed();
    drop(client);
    execute(&rig.target.url("postgres"), "drop database webui_bare with (force)").await?;
    Ok(time)
}
