//! `status`, and the wait for everything to be visible.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::terminal;
use crate::config::Config;
use crate::observe::status::{self, Waited};

/// Show where everything stands
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Wait until everything committed in LiteLLM so far is visible in Open WebUI
    #[arg(long, value_name = "WHEN", value_parser = ["now"])]
    wait: Option<String>,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "wait")]
    timeout: u64,
}

pub(super) async fn status(config: &Config, asked: Status) -> anyhow::Result<ExitCode> {
    if asked.wait.is_some() {
        return wait(config, asked.json, Duration::from_secs(asked.timeout)).await;
    }
    let report = status::report(config).await?;
    if asked.json {
        terminal::json(&report)?;
    } else {
        terminal::status(&report);
    }
    Ok(ExitCode::SUCCESS)
}

async fn wait(config: &Config, json: bool, timeout: Duration) -> anyhow::Result<ExitCode> {
    let waited = status::wait_now(config, timeout).await?;
    if json {
        terminal::json(&status::report(config).await?)?;
    }
    Ok(match waited {
        Waited::Reached { dead_letters: 0 } => ExitCode::SUCCESS,
        Waited::Reached { dead_letters } => {
            let entities = if dead_letters == 1 { "entity" } else { "entities" };
            terminal::note(&format!(
                "up to date, but {dead_letters} {entities} could not be written: see `status`"
            ));
            ExitCode::from(3)
        }
        Waited::Failed { reason } => {
            terminal::failure(&reason, None);
            ExitCode::from(1)
        }
    })
}
