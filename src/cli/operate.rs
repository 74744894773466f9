//! `resnapshot`, `verify`, `doctor`, `pause`, `resume` and `failures`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Subcommand;

use super::{say, terminal};
use crate::catalog::TABLES;
use crate::config::Config;
use crate::copy::ask::{self, Answer};
use crate::copy::verify;
use crate::decode::request::Request;
use crate::operate::doctor::{self, Verdict};
use crate::target::Target;
use crate::target::failures;
use crate::target::pause;

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

#[derive(Debug, clap::Args)]
pub(super) struct Output {
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Asks the running daemon to copy and compare; with `wait`, shows how far it is and what came of it.
pub(super) async fn resnapshot(
    config: &Config,
    tables: Vec<String>,
    dry_run: bool,
    wait: bool,
    output: &Output,
) -> anyhow::Result<ExitCode> {
    let known: Vec<&str> = TABLES.iter().map(|table| table.source).collect();
    if let Some(unknown) = tables.iter().find(|name| !known.contains(&name.as_str())) {
        eprintln!("error: {unknown} is not a table we copy; they are: {}", known.join(", "));
        return Ok(ExitCode::from(2));
    }
    let target = Target::open(config).await?;
    let request = Request { id: uuid::Uuid::new_v4(), tables, dry_run };
    if !ask::ask(config, &target, &request).await? {
        bail!(
            "no daemon holds the slot: the request waits in LiteLLM's WAL, and the next `litellm-webui-sync run` meets it"
        );
    }
    if !wait {
        let sentence = "asked for; `litellm-webui-sync status` and table resnapshot in our schema show what becomes of it";
        say(output.json, sentence, &serde_json::json!({ "request": request.id }));
        return Ok(ExitCode::SUCCESS);
    }
    let answer = wait_for(&target, &request, output).await;
    terminal::progress_ends();
    let answer = answer?;
    let differences = verify::differences(&target, answer.id).await?;
    let drifts = answer.drifts.unwrap_or_default();
    if output.json {
        let whole = serde_json::json!({
            "lsn": answer.lsn, "rows_copied": answer.rows_copied, "mirror": drifts.mirror, "webui": drifts.webui,
            "differences": differences, "repaired": !dry_run,
        });
        println!("{}", serde_json::to_string_pretty(&whole)?);
    } else {
        for (table, drift) in &drifts.mirror {
            println!(
                "mirror  {table}: {} missing, {} different, {} too many",
                drift.inserted, drift.updated, drift.deleted
            );
        }
        for one in &differences {
            let (old, new) = (one.old_data.as_deref().unwrap_or("-"), one.new_data.as_deref().unwrap_or("-"));
            println!(
                "webui   {} {}: {old} → {new}",
                one.operation,
                one.record_id.as_deref().unwrap_or_default()
            );
        }
        let end = match (drifts.is_empty(), dry_run) {
            (true, _) => "nothing differs",
            (false, true) => "these differ; nothing was changed",
            (false, false) => "these differed and are mended",
        };
        println!("{} rows compared: {end}", answer.rows_copied);
    }
    Ok(ExitCode::from(if drifts.is_empty() { 0 } else { 3 }))
}

async fn wait_for(target: &Target, request: &Request, output: &Output) -> anyhow::Result<Answer> {
    let started = Instant::now();
    let mut shown = String::new();
    let mut met = false;
    loop {
        if let Some(answer) = ask::look(target, request).await? {
            if answer.finished || answer.phase == "held" {
                return match &answer.error {
                    Some(error) => bail!("{error}"),
                    None => Ok(answer),
                };
            }
            met = true;
            let line = format!("{}, {} rows", answer.phase, answer.rows_copied);
            if line != shown && !output.json {
                terminal::progress(&line);
                shown = line;
            }
        }
        if !met && started.elapsed().as_secs() >= 60 {
            bail!(
                "the daemon has not met the request in a minute: it is behind, or too many requests wait already"
            );
        }
        if started.elapsed().as_secs() >= output.timeout {
            bail!("not done after {} s; it goes on without us", output.timeout);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(super) async fn doctor(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let checks = doctor::examine(config).await;
    if json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        terminal::doctor(&doctor::table(&checks));
    }
    let fine = checks.iter().all(|check| check.verdict == Verdict::Fine);
    Ok(ExitCode::from(if fine { 0 } else { 3 }))
}

pub(super) async fn pause(config: &Config, reason: Option<&str>, json: bool) -> anyhow::Result<()> {
    let target = Target::open(config).await?;
    let (sentence, changed) = match pause::pause(&target, reason).await? {
        true => ("paused: nothing is applied until `litellm-webui-sync resume`", true),
        false => ("it is paused already", false),
    };
    say(json, sentence, &serde_json::json!({ "paused": true, "changed": changed }));
    Ok(())
}

pub(super) async fn resume(config: &Config, json: bool) -> anyhow::Result<()> {
    let target = Target::open(config).await?;
    let changed = pause::resume(&target).await?;
    let sentence = if changed { "resumed" } else { "it is not paused" };
    say(json, sentence, &serde_json::json!({ "paused": false, "changed": changed }));
    Ok(())
}

pub(super) async fn failures(config: &Config, action: Failures) -> anyhow::Result<ExitCode> {
    let target = Target::open(config).await?;
    match action {
        Failures::List { json } => {
            let found = failures::list(&target, None).await?;
            if json {
                println!("{}", serde_json::to_string_pretty(&found)?);
            } else {
                print!("{}", failures::table(&found));
            }
            Ok(ExitCode::from(if found.is_empty() { 0 } else { 3 }))
        }
        Failures::Show { kind, key, json } => {
            let found = failures::list(&target, None).await?;
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
