//! How long a change takes at a steady, low load: 200 transactions a second of one user each, half of them new users, half
//! renamed ones. How it is timed: [`crate::probe`].
//!
//! The goal is measured against the floor: a client that receives the transaction and writes the same two Open WebUI rows
//! with its position in one durable transaction ([`crate::floor`]). Nobody who is not to lose or repeat anything can do with less. Native
//! subscriptions, which write LiteLLM's one row as it is, are for information.
//!
//! The same once more in a company, whose people have keys, teams and models; there all are renamed, for what comes with a
//! new person is no part of the floor.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use testbed::execute;

use crate::Options;
use crate::floor::Floor;
use crate::native::Native;
use crate::probe::{LOOK_LITELLM, LOOK_WEBUI, Probe};
use crate::report::{Figures, Goal, Report, percentile};
use crate::rig::{Pair, Rig, insert_people};

const RATE: u64 = 200;
const NAMES: [&str; 4] =
    ["product", "floor", "native, synchronous_commit = on", "native, synchronous_commit = off"];

/// p50 and p99 of one go.
#[derive(Debug, Default)]
struct Latencies {
    p50: Figures,
    p99: Figures,
    slowest: Figures,
}

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let existing = options.existing.unwrap_or(20_000);
    let (runs, seconds) = (options.runs, options.seconds);
    let mut report = Report::new(
        "latency",
        &format!("{RATE} transactions a second for {seconds} s, {existing} users before, {runs} runs"),
        json!({ "rate": RATE, "seconds": seconds, "existing": existing, "runs": runs }),
    );
    let count = usize::try_from(RATE * seconds)?;
    ensure!(existing >= count, "--existing must be at least {count}: that many are renamed");
    let mut figures: [Latencies; 4] = Default::default();
    let mut peak = Figures::default();
    for run in 0..runs {
        let pair = rig.pair(existing).await?;
        pair.start_daemon()?.stop()?;
        let durable = Native::subscribe(&pair, "native_on", "on").await?;
        let default = Native::subscribe(&pair, "native_off", "off").await?;
        for turn in 0..NAMES.len() {
            let which = (run + turn) % NAMES.len();
            let probe = |target: &str, look| Probe {
                source: pair.source.clone(),
                target: target.to_owned(),
                look,
                go: which,
                rate: RATE,
                people: existing,
                new_people: true,
            };
            let measured = match which {
                0 => {
                    let daemon = pair.start_daemon()?;
                    rig.settle().await?;
                    let measured = probe(&pair.target, LOOK_WEBUI).measure(count).await?;
                    peak.add(daemon.memory().peak);
                    daemon.stop()?;
                    measured
                }
                1 => {
                    let floor = Floor::start(&pair, existing).await?;
                    rig.settle().await?;
                    let measured = probe(&floor.url, LOOK_WEBUI).measure(count).await?;
                    floor.end().await?;
                    measured
                }
                _ => {
                    let native = if which == 2 { &durable } else { &default };
                    native.enable().await?;
                    catch_up(&pair, native, existing + which).await?;
                    rig.settle().await?;
                    let measured = probe(&native.url, LOOK_LITELLM).measure(count).await?;
                    native.disable().await?;
                    measured
                }
            };
            figures[which].p50.add(percentile(&measured, 50.0));
            figures[which].p99.add(percentile(&measured, 99.0));
            figures[which].slowest.add(percentile(&measured, 100.0));
        }
        durable.end(rig).await?;
        default.end(rig).await?;
        pair.drop_slot().await?;
    }
    for (name, latencies) in NAMES.iter().zip(&figures) {
        report.figure(&format!("{name}, p50"), "ms", &latencies.p50);
        report.figure(&format!("{name}, p99"), "ms", &latencies.p99);
        report.figure(&format!("{name}, slowest"), "ms", &latencies.slowest);
    }
    let [product, floor, durable, _] = &figures;
    report.ratio("ratio of p50 to the floor", &product.p50, &floor.p50, Goal::AtMost(1.5));
    report.ratio("ratio of p99 to the floor", &product.p99, &floor.p99, Goal::AtMost(2.0));
    report.plain_ratio("ratio of p50 to native, on", &product.p50, &durable.p50);
    report.plain_ratio("ratio of p99 to native, on", &product.p99, &durable.p99);
    let [product, floor] = in_a_company(rig, existing, count, runs).await?;
    for (name, latencies) in [("product", &product), ("floor", &floor)] {
        report.figure(&format!("in a company, {name}, p50"), "ms", &latencies.p50);
        report.figure(&format!("in a company, {name}, p99"), "ms", &latencies.p99);
        report.figure(&format!("in a company, {name}, slowest"), "ms", &latencies.slowest);
    }
    report.ratio("in a company, ratio of p50 to the floor", &product.p50, &floor.p50, Goal::AtMost(1.5));
    report.ratio("in a company, ratio of p99 to the floor", &product.p99, &floor.p99, Goal::AtMost(2.0));
    report.figure("peak memory of the daemon", "MiB", &peak);
    Ok(report.end())
}

/// Product and floor, where people have keys, teams and models.
async fn in_a_company(rig: &Rig, people: usize, count: usize, runs: usize) -> Result<[Latencies; 2]> {
    let mut figures: [Latencies; 2] = Default::default();
    for run in 0..runs {
        let pair = rig.company(people).await?;
        pair.start_daemon()?.stop()?;
        for turn in 0..figures.len() {
            let which = (run + turn) % figures.len();
            let probe = |target: &str| Probe {
                source: pair.source.clone(),
                target: target.to_owned(),
                look: LOOK_WEBUI,
                go: which,
                rate: RATE,
                people,
                new_people: false,
            };
            let measured = if which == 0 {
                let daemon = pair.start_daemon()?;
                rig.settle().await?;
                let measured = probe(&pair.target).measure(count).await?;
                daemon.stop()?;
                measured
            } else {
                let floor = Floor::start(&pair, people).await?;
                rig.settle().await?;
                let measured = probe(&floor.url).measure(count).await?;
                floor.end().await?;
                measured
            };
            figures[which].p50.add(percentile(&measured, 50.0));
            figures[which].p99.add(percentile(&measured, 99.0));
            figures[which].slowest.add(percentile(&measured, 100.0));
        }
        pair.drop_slot().await?;
    }
    Ok(figures)
}

/// What the others' turns wrote comes first: waits for person `number`, who comes last.
async fn catch_up(pair: &Pair<'_>, native: &Native, number: usize) -> Result<()> {
    execute(&pair.source, &insert_people(number, number)).await?;
    native.wait_for_person(number).await?;
    Ok(())
}
