//! The first copy of a company: people, three keys each, teams of fifty.
//!
//! Timed: from the start of the daemon until everything is visible and it streams. The baseline moves the same rows by the
//! plainest means, in one transaction: COPY out of LiteLLM's tables (the columns we mirror), COPY into tables like the mirror's, and bare
//! INSERTs of the rows the daemon made of them in Open WebUI, which lie ready in a table beside. It reduces no roster, decides nothing, and keeps no
//! ledger. As it needs those rows, the daemon goes first in every run.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use litellm_webui_sync::catalog::TABLES;
use serde_json::{Value, json};
use testbed::{connect, execute};
use tokio_postgres::Client;

use crate::Options;
use crate::daemon::Daemon;
use crate::report::{Figures, Goal, Report};
use crate::rig::{PATIENCE, Pair, Rig, copy_database};

/// Open WebUI's tables that a first copy fills. The rows that were there before are the admin's.
const WEBUI: &[&str] = &["\"user\"", "auth", "\"group\"", "group_member", "api_key", "model", "access_grant"];

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let users = options.users.unwrap_or(100_000);
    let runs = options.runs;
    let mut report = Report::new(
        "first-copy",
        &format!("{users} people with three keys each, in teams of fifty, {runs} runs"),
        json!({ "users": users, "keys": users * 3, "teams": users.div_ceil(50), "runs": runs }),
    );
    let (mut product, mut bare, mut peak) = (Figures::default(), Figures::default(), Figures::default());
    let mut parts = [Figures::default(), Figures::default(), Figures::default()];
    for _ in 0..runs {
        let pair = rig.company(users).await?;
        rig.settle().await?;
        let started = Instant::now();
        let mut daemon = pair.spawn_daemon()?;
        wait_for_copy(&pair, &mut daemon).await?;
        pair.wait_until_ready(&mut daemon)?;
        product.add_seconds(started.elapsed());
        peak.add(daemon.memory().peak);
        daemon.stop()?;
        pair.check(users, 0).await?;
        let times = plain_copy(&pair).await?;
        bare.add_seconds(times.iter().sum());
        for (figures, time) in parts.iter_mut().zip(times) {
            figures.add_seconds(time);
        }
        pair.drop_slot().await?;
    }
    report.figure("product, from its start until ready", "s", &product);
    report.figure("the plain copy", "s", &bare);
    for (name, figures) in ["COPY out", "COPY in", "INSERTs into Open WebUI"].iter().zip(&parts) {
        report.figure(&format!("  of which {name}"), "s", figures);
    }
    report.ratio("ratio to the plain copy", &product, &bare, Goal::AtMost(2.5));
    report.limit("peak memory of the daemon", "MiB", &peak, Goal::Under(96.0));
    Ok(report.end())
}

/// Waits until Open WebUI's rows are made. Asking `status` all the time would take a processor from the copy.
async fn wait_for_copy(pair: &Pair<'_>, daemon: &mut Daemon) -> Result<()> {
    let client = connect(&pair.target).await?;
    let is_there = "select to_regclass('litellm_webui_sync.checkpoint') is not null";
    let is_made =
        "select exists (select from litellm_webui_sync.checkpoint where projected_with <> 'pending')";
    for text in [is_there, is_made] {
        let started = Instant::now();
        while !client.query_one(text, &[]).await?.get::<_, bool>(0) {
            daemon.check()?;
            ensure!(started.elapsed() < PATIENCE, "the first copy does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// How long each step of the baseline took.
async fn plain_copy(pair: &Pair<'_>) -> Result<[Duration; 3]> {
    let url = copy_database(&pair.rig().target, "webui", "webui_bare").await?;
    let target = connect(&url).await?;
    lay_ready(pair, &target).await?;
    let mirror = include_str!("../../sql/schema/0002_mirror.sql");
    target.batch_execute(&format!("create schema bare; set search_path = bare; {mirror}")).await?;
    let source = connect(&pair.source).await?;
    pair.rig().settle().await?;

    let started = Instant::now();
    let mut copies = Vec::new();
    for table in TABLES.iter().filter(|table| table.is_mirrored()) {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.source).collect();
        let text = format!("copy (select {} from \"{}\") to stdout", columns.join(", "), table.source);
        copies.push(copy_out(&source, &text).await.with_context(|| text.clone())?);
    }
    let read = Instant::now();
    target.batch_execute("begin").await?;
    for (table, rows) in TABLES.iter().filter(|table| table.is_mirrored()).zip(copies) {
        let columns: Vec<&str> = table.columns.iter().map(|column| column.name).collect();
        copy_in(&target, &format!("{} ({})", table.mirror, columns.join(", ")), rows).await?;
    }
    let copied = Instant::now();
    for table in WEBUI {
        target.batch_execute(&format!("insert into public.{table} select * from wanted.{table}")).await?;
    }
    target.batch_execute("commit").await?;
    let written = Instant::now();

    let text = "select count(*) filter (where id like 'usr%'), (select count(*) from litellm_user),
                       (select count(*) from public.api_key) from public.\"user\"";
    let row = target.query_one(text, &[]).await?;
    let counts: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    ensure!(counts == [counts[0]; 3], "accounts, LiteLLM's users and API keys are not as many: {counts:?}");
    drop(target);
    execute(&pair.rig().target.url("postgres"), "drop database webui_bare with (force)").await?;
    Ok([read - started, copied - read, written - copied])
}

/// The rows that the daemon made, in tables of their own beside Open WebUI's.
async fn lay_ready(pair: &Pair<'_>, target: &Client) -> Result<()> {
    let made = connect(&pair.target).await?;
    target.batch_execute("create schema wanted").await?;
    for table in WEBUI {
        let rows = copy_out(&made, &format!("copy {table} to stdout")).await?;
        target.batch_execute(&format!("create table wanted.{table} (like public.{table})")).await?;
        copy_in(target, &format!("wanted.{table}"), rows).await?;
        target
            .batch_execute(&format!("delete from wanted.{table} where id in (select id from public.{table})"))
            .await?;
    }
    target.batch_execute("vacuum analyze").await?;
    Ok(())
}

async fn copy_out(client: &Client, text: &str) -> Result<Vec<Bytes>> {
    Ok(client.copy_out(text).await?.try_collect().await?)
}

async fn copy_in(client: &Client, into: &str, rows: Vec<Bytes>) -> Result<()> {
    // A message a row, as COPY out hands them, would measure the client.
    let chunks: Vec<Bytes> = rows.chunks(500).map(|chunk| Bytes::from(chunk.concat())).collect();
    let sink = client.copy_in(&format!("copy {into} from stdin")).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send_all(&mut stream::iter(chunks).map(Ok)).await?;
    sink.finish().await?;
    Ok(())
}
