//! `plan`.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;

use super::terminal;
use crate::config::Config;
use crate::operate::plan::{self, table};

/// Show what `run` would do, and do nothing
#[derive(Debug, Args)]
pub(super) struct Plan {
    /// Show every row, not some of each kind
    #[arg(long)]
    all: bool,
    /// Print JSON, with every row
    #[arg(long)]
    json: bool,
}

pub(super) async fn plan(config: &Config, Plan { all, json }: Plan) -> anyhow::Result<ExitCode> {
    let plan = Box::pin(plan::make(config)).await?;
    if json {
        terminal::json(&plan)?;
    } else {
        let bold = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        terminal::out(&table::text(&plan, all, bold));
    }
    Ok(ExitCode::SUCCESS)
}
