//! `approve`.

use std::process::ExitCode;

use clap::Args;

use super::terminal::say;
use crate::config::Config;
use crate::target::Target;
use crate::target::brake;

/// Let a batch pass that would lock out unusually many people
#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The brake's number, as `status` shows it
    id: i64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) async fn approve(config: &Config, Approve { id, json }: Approve) -> anyhow::Result<ExitCode> {
    let target = Target::open(config).await?;
    let Some(people) = brake::approve(&target, id).await? else {
        anyhow::bail!("there is no open brake {id}: see `litellm-webui-sync status`");
    };
    let sentence = format!("approved: {people} people may be locked out at once, this time");
    say(json, &sentence, &serde_json::json!({ "approved": id, "people": people }));
    Ok(ExitCode::SUCCESS)
}
