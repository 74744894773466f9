//! How much memory the daemon takes: with many users remembered, and during a very large transaction.

use anyhow::Result;
use serde_json::{Value, json};
use testbed::connect;

use crate::Options;
use crate::report::{Figures, Goal, Report};
use crate::rig::{Rig, insert_people};

pub async fn run(rig: &Rig, options: &Options) -> Result<Value> {
    let existing = options.existing.unwrap_or(100_000);
    let rows = options.users.unwrap_or(1_000_000);
    let mut report = Report::new(
        "memory",
        &format!("{existing} users, then a transaction of {rows} new ones"),
        json!({ "existing": existing, "users": rows }),
    );
    let pair = rig.pair(existing).await?;
    let mut daemon = pair.start_daemon()?;
    let (now, copied) = (Figures::one(daemon.memory().now), Figures::one(daemon.memory().peak));
    report.limit(&format!("with {existing} users, now"), "MiB", &now, Goal::Under(64.0));
    report.figure("peak so far", "MiB", &copied);
    let meter = pair.meter().await?;
    let before = meter.applied().await?;
    connect(&pair.source).await?.batch_execute(&insert_people(existing + 1, existing + rows)).await?;
    meter.wait(before + 1, &mut daemon).await?;
    let peak = Figures::one(daemon.memory().peak);
    report.limit(&format!("peak with a transaction of {rows} rows"), "MiB", &peak, Goal::Under(128.0));
    daemon.stop()?;
    pair.check(existing + rows, if rows > 10_000 { 0 } else { rows }).await?;
    pair.drop_slot().await?;
    Ok(report.end())
}
