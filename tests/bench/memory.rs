//! How much memory the daemon takes: with many users remembered, and during a very large transaction.

use anyhow::Result;
use testbed::connect;

use crate::Options;
use crate::report::{end, limit, line, title};
use crate::rig::{Rig, insert_people};

pub async fn run(rig: &Rig, options: &Options) -> Result<()> {
    let existing = options.existing.unwrap_or(100_000);
    let rows = options.users.unwrap_or(1_000_000);
    title(&format!("memory: {existing} users, then a transaction of {rows} new ones"));
    let pair = rig.pair(existing).await?;
    let mut daemon = pair.start_daemon()?;
    limit(&format!("with {existing} users, now"), daemon.memory().now, 64.0);
    line("peak so far", &format!("{:.1} MiB", daemon.memory().peak));
    let meter = pair.meter().await?;
    let before = meter.applied().await?;
    connect(&pair.source).await?.batch_execute(&insert_people(existing + 1, existing + rows)).await?;
    meter.wait(before + 1, &mut daemon).await?;
    limit(&format!("peak with a transaction of {rows} rows"), daemon.memory().peak, 128.0);
    daemon.stop()?;
    pair.check(existing + rows, rows).await?;
    pair.drop_slot().await?;
    end();
    Ok(())
}
