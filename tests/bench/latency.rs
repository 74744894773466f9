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

impl Latencies {
    fn add(&mut self, measured: &[f64]) {
        self.p50.add(percentile(measured, 50.0));
        self.p99.add(percentile(measured, 99.0));
        self.slowest.add(percentile(measured, 100.0));
    }

    fn show(&self, name: &str, report: &mut Report) {
        report.figure(&format!("{name}, p50"), "ms", &self.p50);
        report.figure(&format!("{name}, p99"), "ms", &self.p99);
        report.figure(&format!("{name}, slowest"), "ms", &self.slowest);
    }

    /// The goals; `at` says where it was measured.
    fn judge(&self, floor: &Self, at: &str, report: &mut Report) {
        report.ratio(&format!("{at}ratio of p50 to the floor"), &self.p50, &floor.p50, Goal::AtMost(1.5));
        report.ratio(&format!("{at}ratio of p99 to the floor"), &self.p99, &floor.p99, Goal::AtMost(2.0));
    }
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
            let probe = probe(&pair, which, existing, true);
            let measured = match which {
                0 => product(&pair, probe, count, &mut peak).await?,
                1 => floor(&pair, probe, count).await?,
                _ => {
                    let native = if which == 2 { &durable } else { &default };
                    native.enable().await?;
                    catch_up(&pair, native, existing + which).await?;
                    rig.settle().await?;
                    let probe = Probe { target: native.url.clone(), look: LOOK_LITELLM, ..probe };
                    let measured = probe.measure(count).await?;
                    native.disable().await?;
                    measured
                }
            };
            figures[which].add(&measured);
        }
        durable.end(rig).await?;
        default.end(rig).await?;
        pair.drop_slot().await?;
    }
    for (name, latencies) in NAMES.iter().zip(&figures) {
        latencies.show(name, &mut report);
    }
    let [product, floor, durable, _] = &figures;
    product.judge(floor, "", &mut report);
    report.plain_ratio("ratio of p50 to native, on", &product.p50, &durable.p50);
    report.plain_ratio("ratio of p99 to native, on", &product.p99, &durable.p99);
    let [product, floor] = in_a_company(rig, existing, count, runs).await?;
    product.show("in a company, product", &mut report);
    floor.show("in a company, floor", &mut report);
    product.judge(&floor, "in a company, ", &mut report);
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
            let probe = probe(&pair, which, people, false);
            let measured = match which {
                0 => product(&pair, probe, count, &mut Figures::default()).await?,
                _ => floor(&pair, probe, count).await?,
            };
            figures[which].add(&measured);
        }
        pair.drop_slot().await?;
    }
    Ok(figures)
}

/// Changes of `people` that are there, and of new ones if wanted, looked for in Open WebUI.
fn probe(pair: &Pair<'_>, go: usize, people: usize, new_people: bool) -> Probe {
    let (source, target) = (pair.source.clone(), pair.target.clone());
    Probe { source, target, look: LOOK_WEBUI, go, rate: RATE, people, new_people }
}

async fn product(pair: &Pair<'_>, probe: Probe, count: usize, peak: &mut Figures) -> Result<Vec<f64>> {
    let daemon = pair.start_daemon()?;
    pair.rig().settle().await?;
    let measured = probe.measure(count).await?;
    peak.add(daemon.memory().peak);
    daemon.stop()?;
    Ok(measured)
}

async fn floor(pair: &Pair<'_>, probe: Probe, count: usize) -> Result<Vec<f64>> {
    let floor = Floor::start(pair, probe.people).await?;
    pair.rig().settle().await?;
    let measured = Probe { target: floor.url.clone(), ..probe }.measure(count).await?;
    floor.end().await?;
    Ok(measured)
}

/// What the others' turns wrote comes first: waits for person `number`, who comes last.
async fn catch_up(pair: &Pair<'_>, native: &Native, number: usize) -> Result<()> {
    execute(&pair.source, &insert_people(number, number)).await?;
    native.wait_for_person(number).await?;
    Ok(())
}
