//! `failures`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;

use super::code;
use super::terminal::{self, say};
use crate::config::Config;
use crate::target::Target;
use crate::target::failures;

#[derive(Debug, Subcommand)]
pub(super) enum Failures {
    /// Everything that could not be written; ends with 3 if there is anything
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// One of them, with what happened to it lately
    Show {
        /// As `failures list` shows it: account, team, organization, …
        kind: String,
        /// LiteLLM's id
        key: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the daemon try again now
    Retry {
        /// As `failures list` shows it
        #[arg(required_unless_present = "all", requires = "key")]
        kind: Option<String>,
        /// LiteLLM's id
        key: Option<String>,
        /// All of them
        #[arg(long, conflicts_with = "kind")]
        all: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget one; it comes back if it is touched and still cannot be written
    Discard {
        /// As `failures list` shows it
        kind: String,
        /// LiteLLM's id
        key: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

pub(super) async fn failures(config: &Config, action: Failures) -> anyhow::Result<ExitCode> {
    let target = Target::open(config).await?;
    match action {
        Failures::List { json } => {
            let found = failures::list(&target, None).await?;
            if json {
                terminal::json(&found)?;
            } else {
                terminal::out(&failures::table(&found));
            }
            Ok(code(found.is_empty()))
        }
        Failures::Show { kind, key, json } => {
            let found = failures::list(&target, None).await?;
            let Some(failure) = found.into_iter().find(|one| one.kind == kind && one.key == key) else {
                bail!("there is no dead letter {kind} {key}: see `litellm-webui-sync failures list`");
            };
            let history = failures::history(&target, &key).await?;
            if json {
                terminal::json(&serde_json::json!({ "failure": failure, "history": history }))?;
            } else {
                terminal::out(&failures::table(&[failure]));
                for event in history {
                    let error = event.error.unwrap_or_default();
                    terminal::line(&format!("  {}  {} {}  {error}", event.at, event.operation, event.result));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Failures::Retry { kind, key, json, .. } => {
            let which = kind.as_deref().zip(key.as_deref());
            let count = failures::retry(&target, which).await?;
            if count == 0 && which.is_some() {
                bail!("there is no such dead letter: see `litellm-webui-sync failures list`");
            }
            let sentence = format!("{count} will be tried again within seconds by the running daemon");
            say(json, &sentence, &serde_json::json!({ "retried": count }));
            Ok(ExitCode::SUCCESS)
        }
        Failures::Discard { kind, key, json } => {
            if failures::discard(&target, &kind, &key).await? == 0 {
                bail!("there is no dead letter {kind} {key}: see `litellm-webui-sync failures list`");
            }
            say(json, "forgotten", &serde_json::json!({ "discarded": { "kind": kind, "key": key } }));
            Ok(ExitCode::SUCCESS)
        }
    }
}
