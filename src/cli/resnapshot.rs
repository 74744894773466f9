//! `resnapshot` and `verify`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{code, terminal};
use crate::catalog::TableId;
use crate::config::Config;
use crate::copy::verify::differences;
use crate::decode::request::Request;
use crate::operate::resnapshot;
use crate::target::Target;

/// Copy LiteLLM's rows again while the daemon runs, and mend whatever differs
#[derive(Debug, Args)]
pub(super) struct Resnapshot {
    /// Only this table of LiteLLM; may be given several times
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<String>,
    /// Report what differs, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Wait for the end; ends with 3 if anything differed
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    output: Output,
}

/// Compare LiteLLM, the mirror and Open WebUI at one point; ends with 3 if anything differs
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Mend what differs
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
struct Output {
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    timeout: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn verify(config: &Config, Verify { repair, output }: Verify) -> anyhow::Result<ExitCode> {
    resnapshot(config, Resnapshot { tables: Vec::new(), dry_run: !repair, wait: true, output }).await
}

/// Asks the running daemon to copy and compare; with `wait`, shows how far it is and what came of it.
pub(super) async fn resnapshot(config: &Config, asked: Resnapshot) -> anyhow::Result<ExitCode> {
    let Resnapshot { tables, dry_run, wait, output: Output { timeout, json } } = asked;
    let known: Vec<&str> = TableId::mirrored().map(|id| id.table().source).collect();
    if let Some(unknown) = tables.iter().find(|name| !known.contains(&name.as_str())) {
        terminal::failure(&format!("{unknown} is not a table we copy; they are: {}", known.join(", ")), None);
        return Ok(ExitCode::from(2));
    }
    let target = Target::open(config).await?;
    let request = Request { id: uuid::Uuid::new_v4(), tables, dry_run };
    resnapshot::ask(config, &target, &request).await?;
    if !wait {
        let sentence = "asked for; `litellm-webui-sync status` and table resnapshot in our schema show what becomes of it";
        terminal::say(json, sentence, &serde_json::json!({ "request": request.id }));
        return Ok(ExitCode::SUCCESS);
    }
    let mut shown = String::new();
    let answer = resnapshot::wait(&target, &request, Duration::from_secs(timeout), |answer| {
        let line = format!("{}, {} rows", answer.phase, answer.rows_copied);
        if line != shown && !json {
            terminal::progress(&line);
            shown = line;
        }
    });
    let answer = answer.await;
    terminal::progress_ends();
    let answer = answer?;
    let differences = differences(&target, answer.id).await?;
    let differs = answer.drifts.as_ref().is_some_and(|drifts| !drifts.is_empty());
    if json {
        let drifts = answer.drifts.unwrap_or_default();
        terminal::json(&serde_json::json!({
            "lsn": answer.lsn, "rows_copied": answer.rows_copied, "mirror": drifts.mirror, "webui": drifts.webui,
            "differences": differences, "repaired": !dry_run,
        }))?;
    } else {
        for line in resnapshot::lines(&answer, &differences) {
            terminal::line(&line);
        }
        let end = match (differs, dry_run) {
            (false, _) => "nothing differs",
            (true, true) => "these differ; nothing was changed",
            (true, false) => "these differed and are mended",
        };
        terminal::line(&format!("{} rows compared: {end}", answer.rows_copied));
    }
    Ok(code(!differs))
}
