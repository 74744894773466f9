//! `access`.

use std::process::ExitCode;

use clap::Args;

use super::{code, terminal};
use crate::config::Config;
use crate::operate::access;

/// Explain which models a person may use and sees, level by level
#[derive(Debug, Args)]
pub(super) struct Access {
    /// The person's e-mail
    email: String,
    /// One model, with every path to it [default: all, in short]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the report. 0: Open WebUI shows what LiteLLM allows; 3: it shows something else.
pub(super) async fn access(
    config: &Config,
    Access { email, model, json }: Access,
) -> anyhow::Result<ExitCode> {
    let report = access::report(config, &email, model.as_deref()).await?;
    if json {
        terminal::json(&report)?;
    } else {
        terminal::out(&report.to_text(model.is_some()));
    }
    Ok(code(report.agrees))
}
