//! `teardown`.

use std::process::ExitCode;

use clap::Args;

use super::terminal::say;
use crate::config::Config;
use crate::operate::teardown::{self, Purge};

/// Drop the slot and the publication; with --purge also our rows and our schema
#[derive(Debug, Args)]
pub(super) struct Teardown {
    /// Also remove exactly the Open WebUI rows we made, and our schema
    #[arg(long)]
    purge: bool,
    /// Also delete accounts that have chats
    #[arg(long, requires = "purge")]
    purge_people: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Says what was done, also when not all of it could be.
pub(super) async fn teardown(config: &Config, asked: Teardown) -> anyhow::Result<ExitCode> {
    let purge = match (asked.purge, asked.purge_people) {
        (_, true) => Purge::People,
        (true, false) => Purge::Rows,
        (false, false) => Purge::Nothing,
    };
    let mut lines = teardown::Lines::new();
    let result = teardown::teardown(config, purge, &mut lines).await;
    if !lines.is_empty() || asked.json {
        let value = serde_json::json!({ "done": lines, "complete": result.is_ok() });
        say(asked.json, &lines.join("\n"), &value);
    }
    result?;
    Ok(ExitCode::SUCCESS)
}
