//! `setup`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::terminal;
use super::terminal::say;
use crate::config::Config;
use crate::operate::accept::{self, Accepted};
use crate::operate::setup::{self, Prepared, Publication};

/// Prepare both databases, or print the SQL for a DBA
#[derive(Debug, Args)]
pub(super) struct Setup {
    /// Print the SQL for a DBA, for one database or for both, and change nothing
    #[arg(long, value_name = "DATABASE", num_args = 0..=1, default_missing_value = "both")]
    print_sql: Option<Which>,
    /// The role that runs the daemon on LiteLLM's database, for --print-sql [default: the URL's user]
    #[arg(long, value_name = "ROLE")]
    source_role: Option<String>,
    /// The role that runs the daemon on Open WebUI's database, for --print-sql [default: the URL's user]
    #[arg(long, value_name = "ROLE")]
    target_role: Option<String>,
    /// Take the LiteLLM database at hand in place of the one that was followed; the next `run` copies it
    #[arg(long, conflicts_with = "print_sql")]
    accept_source: bool,
    /// Print JSON
    #[arg(long, conflicts_with = "print_sql")]
    json: bool,
}

/// Whose SQL is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    Source,
    Target,
    Both,
}

pub(super) async fn setup(config: &Config, asked: Setup) -> anyhow::Result<ExitCode> {
    let Setup { print_sql, source_role, target_role, accept_source: accept, json } = asked;
    match print_sql {
        Some(which) => print(config, which, source_role.as_deref(), target_role.as_deref()).await,
        None if accept => accept_source(config, json).await,
        None => prepare(config, json).await,
    }
}

async fn print(
    config: &Config,
    which: Which,
    source_role: Option<&str>,
    target_role: Option<&str>,
) -> anyhow::Result<ExitCode> {
    if which != Which::Target {
        terminal::out(&setup::source_sql(config, source_role).await?);
    }
    if which == Which::Both {
        terminal::line("");
    }
    if which != Which::Source {
        terminal::out(&setup::target_sql(config, target_role).await?);
    }
    Ok(ExitCode::SUCCESS)
}

async fn prepare(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let Prepared { publication, tables } = setup::prepare(config).await?;
    let (state, words) = match publication {
        Publication::Left => ("left", "left to `run`, because a slot exists already".to_owned()),
        Publication::Created => ("created", format!("created for {tables} tables")),
        Publication::Fine => ("fine", "fine".to_owned()),
    };
    let sentence = format!(
        "publication {}: {words}\nschema {}: ready\nthe slot is made by `run`, which copies at its snapshot",
        config.publication, config.schema
    );
    let value = serde_json::json!({
        "publication": { "name": config.publication, "state": state, "tables": tables },
        "schema": { "name": config.schema, "state": "ready" },
    });
    say(json, &sentence, &value);
    Ok(ExitCode::SUCCESS)
}

async fn accept_source(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let Some(Accepted { identity, same, former_slot }) = accept::accept(config).await? else {
        let sentence = "nothing was followed yet: `litellm-webui-sync run` copies what it finds";
        say(json, sentence, &serde_json::json!({ "accepted": false }));
        return Ok(ExitCode::SUCCESS);
    };
    let which =
        if same { "the LiteLLM database that was followed before" } else { "another LiteLLM database" };
    let (server, timeline) = (&identity.system_identifier, identity.timeline);
    let mut lines = vec![format!("accepted: {which}, on server {server} (timeline {timeline})")];
    let left = (!same || former_slot.is_some()).then(|| former_slot.unwrap_or_else(|| config.slot.clone()));
    if let Some(slot) = &left {
        lines.push(format!(
            "slot {slot} of what was followed before is left alone: drop it if that server lives on, or it keeps WAL there"
        ));
    }
    lines.push(
        "`litellm-webui-sync run` copies it; until then Open WebUI stays as it is, and the brake holds what would take \
         something from unusually many people"
            .to_owned(),
    );
    let accepted = serde_json::json!({
        "accepted": true, "same": same, "system_identifier": server, "timeline": timeline, "slot_left": left,
    });
    say(json, &lines.join("\n"), &accepted);
    Ok(ExitCode::SUCCESS)
}
