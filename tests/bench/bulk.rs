//! Many people in one source transaction.
//!
//! Timed: from the source's COMMIT, when decoding can begin, until the batch is committed in Open WebUI. The baseline
//! writes the same two rows per person, in the order LiteLLM has them, out of a table that holds
//! nothing else: no reading of a stream, no mirror, no difference, no ledger, no audit.

use std::time::{Duration, Instant};

use anyhow::Result;
use testbed::{connect, execute};

use crate::Options;
use crate::report::{Figures, Goal, end, line, ratio, title};
use crate::rig::{Rig, copy_database, insert_people};

pub async fn run(rig: &Rig, options: &Options) -> Result<()> {
    let users = options.users.unwrap_or(200_000);
    let existing = options.existing.unwrap_or(0);
    title(&format!("bulk: {users} people in one transaction, {existing} before, {} runs", options.runs));
    let (mut product, mut bare, mut peak) = (Figures::default(), Figures::default(), Figures::default());
    for run in 0..options.runs {
        for turn in 0..2 {
            if (run + turn).is_multiple_of(2) {
                let (time, memory) = daemon(rig, existing, users).await?;
                product.add_seconds(time);
                peak.add(memory);
            } else {
                bare.add_seconds(bare_sql(rig, existing, users).await?);
            }
        }
    }
    line("product, commit to visible", &product.show("s"));
    line("bare SQL", &bare.show("s"));
    ratio("ratio", &product, &bare, Goal::AtMost(2.0));
    line("peak memory of the daemon", &peak.show("MiB"));
    end();
    Ok(())
}

async fn daemon(rig: &Rig, existing: usize, users: usize) -> Result<(Duration, f64)> {
    let pair = rig.pair(existing).await?;
    let mut daemon = pair.start_daemon()?;
    let meter = pair.meter().await?;
    let before = meter.applied().await?;
    let client = connect(&pair.source).await?;
    client.batch_execute("begin").await?;
    client.batch_execute(&insert_people(existing + 1, existing + users)).await?;
    rig.settle().await?;
    let started = Instant::now();
    client.batch_execute("commit").await?;
    let time = meter.wait(before + 1, &mut daemon).await? - started;
    let memory = daemon.memory().peak;
    daemon.stop()?;
    pair.check(existing + users, users).await?;
    pair.drop_slot().await?;
    Ok((time, memory))
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
