//! `doctor`, `pause`, `resume` and `failures`.

use std::process::ExitCode;

use anyhow::bail;
use clap::Subcommand;

use crate::config::Config;
use crate::doctor::{self, Verdict};
use crate::failures;
use crate::pause;
use crate::target::Target;

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
    },
    /// Forget one; it comes back if it is touched and still cannot be written
    Discard {
        /// As `failures list` shows it
        kind: String,
        /// LiteLLM's id
        key: String,
    },
}

pub(super) async fn doctor(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let checks = doctor::examine(config).await;
    if json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        print!("{}", doctor::table(&checks));
    }
    let fine = checks.iter().all(|check| check.verdict == Verdict::Fine);
    Ok(ExitCode::from(if fine { 0 } else { 3 }))
}

pub(super) async fn pause(config: &Config, reason: Option<&str>) -> anyhow::Result<()> {
    let target = Target::open(config).await?;
    if pause::pause(&target, reason).await? {
        println!("paused: nothing is applied until `litellm-webui-sync resume`");
    } else {
        println!("it is paused already");
    }
    Ok(())
}

pub(super) async fn resume(config: &Config) -> anyhow::Result<()> {
    let target = Target::open(config).await?;
    println!("{}", if pause::resume(&target).await? { "resumed" } else { "it is not paused" });
    Ok(())
}

pub(super) async fn failures(config: &Config, action: Failures) -> anyhow::Result<ExitCode> {
    let target = Target::open(config).await?;
    match action {
        Failures::List { json } => {
            let found = failures::list(&target).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&found)?);
            } else {
                print!("{}", failures::table(&found));
            }
            Ok(ExitCode::from(if found.is_empty() { 0 } else { 3 }))
        }
        Failures::Show { kind, key, json } => {
            let found = failures::list(&target).await?;
            let Some(failure) = found.into_iter().find(|one| one.kind == kind && one.key == key) else {
                bail!("there is no dead letter {kind} {key}: see `litellm-webui-sync failures list`");
            };
            let history = failures::history(&target, &key).await?;
            if json {
                let whole = serde_json::json!({ "failure": failure, "history": history });
                println!("{}", serde_json::to_string_pretty(&whole)?);
            } else {
                print!("{}", failures::table(&[failure]));
                for event in history {
                    let error = event.error.unwrap_or_default();
                    println!("  {}  {} {}  {error}", event.at, event.operation, event.result);
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        Failures::Retry { kind, key, .. } => {
            let which = kind.as_deref().zip(key.as_deref());
            let count = failures::retry(&target, which).await?;
            if count == 0 && which.is_some() {
                bail!("there is no such dead letter: see `litellm-webui-sync failures list`");
            }
            println!("{count} will be tried again within 15 s by the running daemon");
            Ok(ExitCode::SUCCESS)
        }
        Failures::Discard { kind, key } => {
            if failures::discard(&target, &kind, &key).await? == 0 {
                bail!("there is no dead letter {kind} {key}: see `litellm-webui-sync failures list`");
            }
            println!("forgotten");
            Ok(ExitCode::SUCCESS)
        }
    }
}
