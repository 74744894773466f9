//! The heartbeat while no stream runs: in a first copy, between two attempts, held by the brake or a pause.
//!
//! Owns when one is due: the leader's own comes with its look at what there is to do ([`super::housekeeping`]), and a standby
//! has nothing to say. Best effort: a database that is out of reach is the affair of the attempts, which say so. Contains no SQL.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Daemon;
use crate::error::{Result, Side};
use crate::observe::progress::State;
use crate::postgres::error_chain;
use crate::target::Target;
use crate::target::heartbeat;

const INTERVAL: Duration = Duration::from_secs(3);
/// How long one may take, and how long whoever leads may have said nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last one may keep a process from ending.
const LAST: Duration = Duration::from_secs(1);

/// Beats until ended.
pub(super) async fn run(daemon: Arc<Daemon>, ended: CancellationToken) {
    let mut session = None;
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let progress = &daemon.progress;
        let has_nothing_to_say = matches!(progress.status().state, State::Standby | State::Stopped);
        // Whoever drains beats here: the leader's own has ended.
        let is_draining = progress.status().state == State::Draining;
        if has_nothing_to_say || !is_draining && progress.beat_age() < PATIENCE {
            session = None;
            continue;
        }
        let beat = tokio::time::timeout(PATIENCE, beat(&daemon, &mut session));
        let beat = tokio::select! {
            () = ended.cancelled() => return,
            beat = beat => beat,
        };
        match beat {
            Ok(Ok(())) => progress.heard(Side::Target),
            Ok(Err(error)) => {
                tracing::debug!(error = error_chain(&error), "could not tell `status` how we are");
                session = None;
            }
            Err(_) => session = None,
        }
    }
}

async fn beat(daemon: &Daemon, session: &mut Option<Target>) -> Result<()> {
    let target = match session {
        Some(target) => target,
        None => session.insert(Target::open(&daemon.config).await?),
    };
    let status = daemon.progress.status();
    heartbeat::write(target, daemon.instance, status.state.name(), status.reason.as_deref()).await
}

/// Says that this daemon has ended, and why, if anybody listens.
pub(super) async fn last(daemon: &Daemon) {
    if daemon.progress.owns_slot() {
        let _ = tokio::time::timeout(LAST, beat(daemon, &mut None)).await;
    }
}
