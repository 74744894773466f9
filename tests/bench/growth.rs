//! What the same work costs with 1, 4 and 16 times as many people: it should cost the same.
//!
//! Three things: one change at a time ([`crate::probe`]); a spend flush of a thousand rows, which changes nothing Open WebUI shows, and comes
//! back with the same people; and an idle minute, for which both servers log every statement.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use testbed::{Cluster, connect};

use crate::Options;
use crate::daemon::{Daemon, Meter};
use crate::probe::{LOOK_WEBUI, Probe};
use crate::processes;
use crate::report::{Figures, Report, percentile};
use crate::rig::{Pair, Rig};

const TIMES: [usize; 3] = [1, 4, 16];
/// Changes a second.
const RATE: u64 = 20;
/// Rows of one flush, and how often it comes. The first ones teach the daemon what the rows look like.
const FLUSH: usize = 1000;
const FLUSHES: usize = 20;
const FLUSHES_BEFORE: usize = 3;

/// What is measured, with its unit.
const COSTS: [(&str, &str); 9] = [
    ("change, p50", "ms"),
    ("spend flush, p50", "ms"),
    ("spend flush, processor time of the daemon", "ms"),
    ("idle minute, statements to LiteLLM", "statements"),
    ("idle minute, statements to Open WebUI", "statements"),
    ("idle minute, processor time of the daemon", "ms"),
    ("idle minute, that of LiteLLM's server", "ms"),
    ("idle minute, that of Open WebUI's server", "ms"),
    ("memory of the daemon", "MiB"),
];

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let base = options.existing.unwrap_or(5_000);
    let (runs, seconds) = (options.runs, options.seconds);
    let mut report = Report::new(
        "growth",
        &format!("{base} people with three keys each, 4 times and 16 times as many, {runs} runs"),
        json!({ "existing": base, "times": TIMES, "seconds": seconds, "idle_seconds": seconds * 3, "runs": runs }),
    );
    let mut figures: [[Figures; COSTS.len()]; TIMES.len()] = Default::default();
    for _ in 0..runs {
        for (costs, times) in figures.iter_mut().zip(TIMES) {
            let measured = measure(rig, base * times, seconds).await?;
            for (figures, cost) in costs.iter_mut().zip(measured) {
                figures.add(cost);
            }
        }
    }
    for (place, (name, unit)) in COSTS.iter().enumerate() {
        for (costs, times) in figures.iter().zip(TIMES) {
            report.figure(&format!("{times}x people: {name}"), unit, &costs[place]);
        }
        for (costs, times) in figures.iter().zip(TIMES).skip(1) {
            report.plain_ratio(&format!("{times}x to 1x people: {name}"), &costs[place], &figures[0][place]);
        }
    }
    Ok(report.end())
}

/// In the order of [`COSTS`].
async fn measure(rig: &Rig, people: usize, seconds: u64) -> Result<[f64; COSTS.len()]> {
    let pair = rig.company(people).await?;
    let mut daemon = pair.start_daemon()?;
    let meter = pair.meter().await?;
    rig.settle().await?;
    let probe = Probe {
        source: pair.source.clone(),
        target: pair.target.clone(),
        look: LOOK_WEBUI,
        go: 0,
        rate: RATE,
        people,
        new_people: false,
    };
    let changes = probe.measure(usize::try_from(RATE * seconds)?).await?;
    let (flush, flush_processor) = spend(&pair, people, &meter, &mut daemon).await?;
    let idle = idle(rig, &daemon, Duration::from_secs(seconds * 3)).await?;
    let memory = daemon.memory().now;
    daemon.stop()?;
    pair.drop_slot().await?;
    let [to_source, to_target, of_daemon, of_source, of_target] = idle;
    Ok([
        percentile(&changes, 50.0),
        flush,
        flush_processor,
        to_source,
        to_target,
        of_daemon,
        of_source,
        of_target,
        memory,
    ])
}

/// Milliseconds from the commit of a flush until it is in the checkpoint, and of processor time.
async fn spend(pair: &Pair<'_>, people: usize, meter: &Meter, daemon: &mut Daemon) -> Result<(f64, f64)> {
    let client = connect(&pair.source).await?;
    let text = format!(
        "update \"LiteLLM_UserTable\" u set spend = spend + 0.25, updated_at = clock_timestamp()
           from generate_series(1, {}) r where u.user_id = md5('person ' || r)::uuid::text",
        FLUSH.min(people)
    );
    let mut times = Vec::new();
    let mut before = 0.0;
    for flush in 0..FLUSHES_BEFORE + FLUSHES {
        if flush == FLUSHES_BEFORE {
            before = processes::of_process(daemon.pid());
            times.clear();
        }
        let applied = meter.applied().await?;
        client.batch_execute(&text).await?;
        let started = Instant::now();
        let seen = meter.wait(applied + 1, daemon).await?;
        times.push((seen - started).as_secs_f64() * 1000.0);
    }
    let processor = (processes::of_process(daemon.pid()) - before) * 1000.0 / FLUSHES as f64;
    Ok((percentile(&times, 50.0), processor))
}

/// For each minute: statements to LiteLLM and to Open WebUI; milliseconds of processor time of the daemon and of both servers.
async fn idle(rig: &Rig, daemon: &Daemon, duration: Duration) -> Result<[f64; 5]> {
    let servers = [&rig.source, &rig.target];
    for server in servers {
        server.configure(&[("log_statement", "all")])?;
    }
    // What the work before left to do ends in these.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let now = || -> Result<[f64; 5]> {
        let [source, target] = servers;
        Ok([
            statements(source),
            statements(target),
            processes::of_process(daemon.pid()) * 1000.0,
            processes::of_family(source.pid().context("LiteLLM's server is not there")?) * 1000.0,
            processes::of_family(target.pid().context("Open WebUI's server is not there")?) * 1000.0,
        ])
    };
    let before = now()?;
    tokio::time::sleep(duration).await;
    let after = now()?;
    for server in servers {
        server.configure(&[("log_statement", "none")])?;
    }
    let minutes = duration.as_secs_f64() / 60.0;
    let mut each = [0.0; 5];
    for (place, value) in each.iter_mut().enumerate() {
        *value = (after[place] - before[place]) / minutes;
    }
    Ok(each)
}

/// How many statements this server has logged.
fn statements(server: &Cluster) -> f64 {
    let log = server.log();
    let logged = ["LOG:  statement: ", "LOG:  execute "];
    log.lines().filter(|line| logged.iter().any(|mark| line.contains(mark))).count() as f64
}
