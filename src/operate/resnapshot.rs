//! `resnapshot` and `verify`: the running daemon is asked to copy and compare, and waited for.
//!
//! Compares nothing itself: that is the daemon's (`copy`).

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::config::Config;
use crate::copy::ask::{self, Answer};
use crate::copy::verify::Difference;
use crate::decode::request::Request;
use crate::target::Target;

/// How long a daemon may take to meet a request.
const ABSENCE: Duration = Duration::from_secs(60);

/// Asks the running daemon.
///
/// # Errors
/// Also when there is none: the request waits in LiteLLM's WAL.
pub async fn ask(config: &Config, target: &Target, request: &Request) -> anyhow::Result<()> {
    if !ask::ask(config, target, request).await? {
        bail!(
            "no daemon is there: the request waits in LiteLLM's WAL, and the next `litellm-webui-sync run` meets it"
        );
    }
    Ok(())
}

/// Waits for what comes of it; `on_the_way` hears how far it is.
pub async fn wait(
    target: &Target,
    request: &Request,
    patience: Duration,
    mut on_the_way: impl FnMut(&Answer),
) -> anyhow::Result<Answer> {
    let started = Instant::now();
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
            on_the_way(&answer);
        }
        if !met && started.elapsed() >= ABSENCE {
            bail!(
                "the daemon has not met the request in a minute: it is behind, or too many requests wait already"
            );
        }
        if started.elapsed() >= patience {
            bail!("not done after {} s; it goes on without us", patience.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What differed, a line each.
pub fn lines(answer: &Answer, differences: &[Difference]) -> Vec<String> {
    let mirror = answer.drifts.iter().flat_map(|drifts| &drifts.mirror).map(|(table, drift)| {
        format!(
            "mirror  {table}: {} missing, {} different, {} too many",
            drift.inserted, drift.updated, drift.deleted
        )
    });
    let webui = differences.iter().map(|one| {
        let (old, new) = (one.old_data.as_deref().unwrap_or("-"), one.new_data.as_deref().unwrap_or("-"));
        let id = one.record_id.as_deref().unwrap_or_default();
        format!("webui   {} {id}: {old} → {new}", one.operation)
    });
    mirror.chain(webui).collect()
}
