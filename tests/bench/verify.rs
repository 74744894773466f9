//! Whether the stream goes on while everything is looked at.
//!
//! One person is changed every 50 ms ([`crate::probe`]): in quiet, then while `verify` runs, then while `verify --repair` runs,
//! which is the sweep of the reconcile with everything it would mend. Each look is repeated for `--seconds`, and none is cut short.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Options;
use crate::probe::{LOOK_WEBUI, Probe};
use crate::report::{Figures, Goal, Report, percentile};
use crate::rig::{Pair, Rig};

const RATE: u64 = 20;
/// Milliseconds that a change may wait longer than it ever did in quiet.
const STALL_MAX: f64 = 100.0;
const PHASES: [(&str, &[&str]); 3] =
    [("quiet", &[]), ("verify", &["verify"]), ("verify --repair", &["verify", "--repair"])];

/// Of one phase, over all runs.
#[derive(Debug, Default)]
struct Phase {
    p50: Figures,
    p99: Figures,
    longest: Figures,
    look: Figures,
}

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let existing = options.existing.unwrap_or(50_000);
    let (runs, seconds) = (options.runs, options.seconds);
    let mut report = Report::new(
        "verify",
        &format!("one change in 50 ms, {existing} people with three keys each, {seconds} s, {runs} runs"),
        json!({ "rate": RATE, "existing": existing, "seconds": seconds, "runs": runs }),
    );
    let mut phases: [Phase; 3] = Default::default();
    for _ in 0..runs {
        let pair = rig.company(existing).await?;
        let daemon = pair.start_daemon()?;
        // All is visible; what the daemon does once after a first copy is over after this.
        keep_looking(&pair, &["verify"], Duration::ZERO).await?;
        for (go, (phase, (_, arguments))) in phases.iter_mut().zip(PHASES).enumerate() {
            rig.settle().await?;
            let probe = Probe {
                source: pair.source.clone(),
                target: pair.target.clone(),
                look: LOOK_WEBUI,
                go,
                rate: RATE,
                people: existing,
                new_people: false,
            };
            let running = probe.start();
            let looks = keep_looking(&pair, arguments, Duration::from_secs(seconds)).await;
            let measured = running.stop().await?;
            for look in looks? {
                phase.look.add_seconds(look);
            }
            phase.p50.add(percentile(&measured, 50.0));
            phase.p99.add(percentile(&measured, 99.0));
            phase.longest.add(percentile(&measured, 100.0));
        }
        daemon.stop()?;
        pair.drop_slot().await?;
    }
    let [quiet, looks @ ..] = &phases;
    for ((name, arguments), phase) in PHASES.iter().zip(&phases) {
        if !arguments.is_empty() {
            report.figure(&format!("{name}, how long it takes"), "s", &phase.look);
        }
        report.figure(&format!("{name}, p50"), "ms", &phase.p50);
        report.figure(&format!("{name}, p99"), "ms", &phase.p99);
        report.figure(&format!("{name}, longest stall"), "ms", &phase.longest);
    }
    for ((name, _), phase) in PHASES.iter().skip(1).zip(looks) {
        report.plain_ratio(&format!("{name}, ratio of p50 to quiet"), &phase.p50, &quiet.p50);
        report.plain_ratio(&format!("{name}, ratio of p99 to quiet"), &phase.p99, &quiet.p99);
        let above = phase.longest.minus(&quiet.longest);
        report.limit(&format!("{name}, longest stall above quiet's"), "ms", &above, Goal::AtMost(STALL_MAX));
    }
    Ok(report.end())
}

/// Runs this command again and again, and says how long each took. Without a command, waits.
async fn keep_looking(pair: &Pair<'_>, arguments: &[&str], duration: Duration) -> Result<Vec<Duration>> {
    if arguments.is_empty() {
        tokio::time::sleep(duration).await;
        return Ok(Vec::new());
    }
    let started = Instant::now();
    let mut looks = Vec::new();
    while looks.is_empty() || started.elapsed() < duration {
        let mut command = pair.command();
        // With `--json` it shows no progress.
        command.args(arguments).arg("--json");
        let look = Instant::now();
        let status = tokio::task::spawn_blocking(move || command.status()).await?.context("verify")?;
        ensure!(status.success(), "{arguments:?} ended with {status}: something differs, or it failed");
        looks.push(look.elapsed());
    }
    Ok(looks)
}
