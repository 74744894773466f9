//! `report`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::terminal;
use crate::config::Config;
use crate::operate::report;

/// Collect what somebody else needs to know to help: versions, settings, status, doctor, what failed; without secrets and people
#[derive(Debug, Args)]
pub(super) struct Report {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Write it to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Also show people, hosts, roles and models; secrets never
    #[arg(long)]
    names: bool,
}

pub(super) async fn report(
    config: &Config,
    Report { json, output, names }: Report,
) -> anyhow::Result<ExitCode> {
    let report = report::collect(config, names).await;
    let text = if json { terminal::json_text(&report)? } else { report.text() };
    match output {
        Some(file) => {
            std::fs::write(&file, terminal::clean(&text))
                .with_context(|| format!("could not write {}", file.display()))?;
            terminal::note(&format!("written to {}: read it before you show it to somebody", file.display()));
        }
        None => terminal::out(&text),
    }
    Ok(ExitCode::SUCCESS)
}
