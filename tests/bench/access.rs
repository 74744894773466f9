//! Which models people may use, for 20,000 people, 40 models and 400 teams.
//!
//! Timed: the models of one team of 5,000 change, from the commit until everybody sees them; the same when half of its
//! people leave; and one model more, for which everybody's access is worked out anew. The baseline is the bare SQL
//! that moves as many people from one Open WebUI group to another: no reading of a stream, no rule, no books.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::lists::{BIG_TEAM, PEOPLE, many_with_lists};
use testbed::{connect, execute};
use tokio_postgres::Client;

use crate::Options;
use crate::report::{Figures, Goal, Report};
use crate::rig::{PATIENCE, Rig, copy_database};

const STEPS: &[(&str, &str, u32)] = &[
    (
        "one team of 5,000: models",
        "update \"LiteLLM_TeamTable\" set models = '{model-01,model-02}' where team_id = 't1'",
        BIG_TEAM,
    ),
    (
        "one team of 5,000: half leaves",
        "update \"LiteLLM_TeamTable\"
            set members_with_roles = (select jsonb_agg(e) from jsonb_array_elements(members_with_roles)
                                             with ordinality x (e, n) where n > 2500) where team_id = 't1'",
        BIG_TEAM / 2,
    ),
    (
        "everybody: one model more",
        "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, created_by, updated_by)
         values ('x', 'model-xx', '{}', '', '')",
        PEOPLE,
    ),
];

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let mut report = Report::new(
        "access",
        &format!("{PEOPLE} people, 40 models, 400 teams, {} runs", options.runs),
        json!({ "people": PEOPLE, "models": 40, "teams": 400, "runs": options.runs }),
    );
    let mut product = vec![Figures::default(); STEPS.len()];
    let mut bare = vec![Figures::default(); STEPS.len()];
    let mut peak = Figures::default();
    for _ in 0..options.runs {
        for (figures, time) in product.iter_mut().zip(daemon(rig, &mut peak).await?) {
            figures.add_seconds(time);
        }
        for (figures, (_, _, people)) in bare.iter_mut().zip(STEPS) {
            figures.add_seconds(bare_sql(rig, *people).await?);
        }
    }
    for (place, (name, _, people)) in STEPS.iter().enumerate() {
        let (ours, theirs) = (&product[place], &bare[place]);
        report.limit(name, "s", ours, goal_of(*people));
        report.figure(&format!("{name}, bare SQL"), "s", theirs);
        report.plain_ratio(&format!("{name}, ratio"), ours, theirs);
    }
    report.figure("peak memory of the daemon", "MiB", &peak);
    Ok(report.end())
}

/// Seconds: for a team of 5,000, and for everybody.
fn goal_of(people: u32) -> Goal {
    Goal::Under(if people == PEOPLE { 30.0 } else { 1.0 })
}

async fn daemon(rig: &Rig, peak: &mut Figures) -> Result<Vec<Duration>> {
    let pair = rig.pair(0).await?;
    execute(&pair.source, &many_with_lists()).await?;
    execute(&pair.source, "vacuum analyze").await?;
    let mut daemon = pair.start_daemon()?;
    let meter = pair.meter().await?;
    let (client, target) = (connect(&pair.source).await?, connect(&pair.target).await?);
    let mut times = Vec::new();
    for (_, sql, _) in STEPS {
        wait_for_statistics(&target).await?;
        rig.settle().await?;
        let before = meter.applied().await?;
        client.batch_execute(sql).await?;
        let started = Instant::now();
        times.push(meter.wait(before + 1, &mut daemon).await? - started);
    }
    peak.add(daemon.memory().peak);
    daemon.stop()?;
    pair.drop_slot().await?;
    Ok(times)
}

/// Waits until the planner's statistics are renewed after what was written before, which the daemon does beside the stream: what is measured
/// is a change that comes when nothing else goes on.
async fn wait_for_statistics(target: &Client) -> Result<()> {
    let is_over =
        "select bool_and(last_analyze is not null) and not exists (select from pg_stat_progress_analyze)
                     from pg_stat_user_tables where relname in ('group_member', 'effective_access')";
    let started = Instant::now();
    while !target.query_one(is_over, &[]).await?.get::<_, bool>(0) {
        ensure!(started.elapsed() < PATIENCE, "nobody renews the statistics");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Moves `people` from one group to another, in Open WebUI's own tables.
async fn bare_sql(rig: &Rig, people: u32) -> Result<Duration> {
    let url = copy_database(&rig.target, "webui", "webui_bare").await?;
    execute(
        &url,
        &format!(
            "insert into \"group\" (id, user_id, name, description, created_at, updated_at)
             values ('old', '', 'old', '', 1, 1), ('new', '', 'new', '', 1, 1);
             insert into \"user\" (id, email, name, role, profile_image_url, created_at, updated_at, last_active_at)
             select 'usr_' || i, i || '@example.com', i, 'user', '/user.png', 1, 1, 1 from generate_series(1, {people}) i;
             insert into group_member (id, group_id, user_id, created_at, updated_at)
             select i, 'old', 'usr_' || i, 1, 1 from generate_series(1, {people}) i"
        ),
    )
    .await?;
    execute(&url, "vacuum analyze").await?;
    rig.settle().await?;
    let client = connect(&url).await?;
    let started = Instant::now();
    client
        .batch_execute(
            "begin; delete from group_member where group_id = 'old';
             insert into group_member (id, group_id, user_id, created_at, updated_at)
             select 'new' || id, 'new', id, 1, 1 from \"user\" where id like 'usr%'; commit",
        )
        .await?;
    let time = started.elapsed();
    drop(client);
    execute(&rig.target.url("postgres"), "drop database webui_bare with (force)").await?;
    Ok(time)
}
