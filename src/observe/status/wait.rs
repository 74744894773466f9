//! Waiting until everything committed in LiteLLM so far is visible in Open WebUI.
//!
//! Emits one barrier message into LiteLLM's WAL, and changes nothing else. Gives up where nobody is there to wait for.

use std::time::{Duration, Instant};

use super::facts;
use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::source::Source;
use crate::target::Target;
use crate::target::brake;
use crate::target::pause;

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// Everything committed before the call is visible.
    Reached { dead_letters: i64 },
    /// It cannot, or did not, get there.
    Failed { reason: String },
}

/// How long a daemon may be gone (restarting, reconnecting) before nobody can be waited for.
const ABSENCE: Duration = Duration::from_secs(20);

/// The daemon looks for Open WebUI's tables and its first admin every second: what it says may be that old.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// How often LiteLLM's server is asked whether somebody holds the slot.
const SLOT_LOOK: Duration = Duration::from_millis(500);

/// Waits until everything committed in LiteLLM before the call is visible in Open WebUI.
pub async fn wait_now(config: &Config, timeout: Duration) -> Result<Waited> {
    let source = Source::open(config).await?;
    let target = Target::open(config).await?;
    let before = facts(&target, config).await?.and_then(|facts| facts.checkpoint);
    let goal = source.emit_barrier().await?;
    // The checkpoint of a server that was since restored says nothing about this one.
    let void = before.filter(|known| known.end_lsn() > goal).map(|known| known.generation);
    // After a failover a position on the old timeline says nothing: it may be higher than any on the new one.
    let timeline = source.server().await?.timeline.unwrap_or_default();
    let started = Instant::now();
    let mut last_seen = Instant::now();
    let mut looked_at_slot = None;
    let mut daemon = String::new();
    loop {
        if let Some(facts) = facts(&target, config).await? {
            // While it copies, or waits between two attempts, it holds no slot.
            if let Some(row) = facts.daemon.as_ref().filter(|row| row.is_alive()) {
                last_seen = Instant::now();
                daemon = format!(": the daemon is {}", row.describe());
            }
            if let Some(checkpoint) =
                facts.checkpoint.as_ref().filter(|one| void.as_ref() != Some(&one.generation))
            {
                let end = checkpoint.end_lsn();
                let is_past = end > goal && checkpoint.timeline >= timeline;
                if is_past && checkpoint.projected {
                    let row = target.slow().query_one("select count(*) from dead_letter", &[]).await;
                    let dead_letters = row.map_err(on(Side::Target, "count dead letters"))?.get(0);
                    return Ok(Waited::Reached { dead_letters });
                }
                if is_past
                    && let Some(daemon) = &facts.daemon
                    && daemon.state == "waiting"
                    && started.elapsed() > SECOND_LOOK
                {
                    let reason = daemon.reason.clone().unwrap_or_else(|| "nothing is written yet".to_owned());
                    return Ok(Waited::Failed { reason });
                }
            }
            if let Err(paused @ Error::Paused { .. }) = pause::check(&target).await {
                return Ok(Waited::Failed { reason: paused.to_string() });
            }
            if let Some(held) = brake::waiting(&target).await? {
                return Ok(Waited::Failed { reason: held.remedy().unwrap_or_default() });
            }
        }
        if looked_at_slot.is_none_or(|at: Instant| at.elapsed() > SLOT_LOOK) {
            looked_at_slot = Some(Instant::now());
            if source.slot(&config.slot).await?.is_some_and(|slot| slot.active) {
                last_seen = Instant::now();
            }
        }
        if last_seen.elapsed() > ABSENCE {
            return Ok(Waited::Failed {
                reason: "no daemon is there: start `litellm-webui-sync run`".to_owned(),
            });
        }
        if started.elapsed() > timeout {
            let seconds = timeout.as_secs();
            return Ok(Waited::Failed { reason: format!("not there after {seconds} s{daemon}") });
        }
        // Whoever waits for long is in no hurry, and what they wait for needs the servers too.
        let pause = started.elapsed() / 20;
        tokio::time::sleep(pause.clamp(Duration::from_millis(10), Duration::from_millis(250))).await;
    }
}
