//! `teardown`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::terminal::{self, say};
use crate::config::Config;
use crate::operate::teardown::{self, Purge};

/// Drop the slot and the publication; with --purge also our rows and our schema
#[derive(Debug, Args)]
pub(super) struct Teardown {
    /// Also remove exactly the Open WebUI rows we made, and our schema
    #[arg(long)]
    purge: bool,
    /// Also delete accounts that have chats, notes, files or anything else of their own
    #[arg(long, requires = "purge")]
    purge_people: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
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
    // Whoever sits at a terminal is asked before anything is taken away.
    let is_asked = !asked.yes && !asked.json && std::io::stdin().is_terminal();
    if asked.dry_run || is_asked {
        let mut lines = teardown::Lines::new();
        teardown::teardown(config, purge, true, &mut lines).await?;
        let value = serde_json::json!({ "would": lines });
        say(asked.json, &format!("This is what it comes to:\n{}", lines.join("\n")), &value);
        if asked.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        terminal::out("Do it? Type yes: ");
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
        if answer.trim() != "yes" {
            terminal::line("nothing was done");
            return Ok(ExitCode::FAILURE);
        }
    }
    let mut lines = teardown::Lines::new();
    let result = teardown::teardown(config, purge, false, &mut lines).await;
    if !lines.is_empty() || asked.json {
        let value = serde_json::json!({ "done": lines, "complete": result.is_ok() });
        say(asked.json, &lines.join("\n"), &value);
    }
    result?;
    Ok(ExitCode::SUCCESS)
}
