//! `pause` and `resume`.

use std::process::ExitCode;

use clap::Args;

use super::terminal::say;
use crate::config::Config;
use crate::target::Target;
use crate::target::pause;

/// Stop applying, on every daemon of this schema, until `resume`; LiteLLM's server keeps the WAL meanwhile
#[derive(Debug, Args)]
pub(super) struct Pause {
    /// Why, for `status`
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Go on after `pause`
#[derive(Debug, Args)]
pub(super) struct Resume {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn pause(config: &Config, Pause { reason, json }: Pause) -> anyhow::Result<ExitCode> {
    let target = Target::open(config).await?;
    let changed = pause::pause(&target, reason.as_deref()).await?;
    let sentence = if changed {
        "paused: nothing is applied until `litellm-webui-sync resume`"
    } else {
        "it is paused already"
    };
    say(json, sentence, &serde_json::json!({ "paused": true, "changed": changed }));
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn resume(config: &Config, Resume { json }: Resume) -> anyhow::Result<ExitCode> {
    let target = Target::open(config).await?;
    let changed = pause::resume(&target).await?;
    let sentence = if changed { "resumed" } else { "it is not paused" };
    say(json, sentence, &serde_json::json!({ "paused": false, "changed": changed }));
    Ok(ExitCode::SUCCESS)
}
