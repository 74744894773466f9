//! `doctor`.

use std::process::ExitCode;

use clap::Args;

use super::{code, terminal};
use crate::config::Config;
use crate::operate::doctor::{self, Verdict};

/// Check everything the daemon needs, and say how to mend what is not right; ends with 3 if there is anything
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn doctor(config: &Config, Doctor { json }: Doctor) -> anyhow::Result<ExitCode> {
    let checks = doctor::examine(config).await;
    if json {
        terminal::json(&checks)?;
    } else {
        terminal::doctor(&doctor::table(&checks));
    }
    Ok(code(checks.iter().all(|check| check.verdict == Verdict::Fine)))
}
