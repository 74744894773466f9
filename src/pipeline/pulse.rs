//! The heartbeat while no stream runs: in a first copy, between two attempts, held by the brake or a pause.
//!
//! Owns when one is due, which is at once where the state is another: nobody shall read that a daemon streams which has just lost a server.
//! The leader's own comes with its look at what there is to do ([`super::housekeeping`]), and a standby has nothing to say. Best effort: a
//! database that is out of reach is the affair of the attempts, which say so. Contains no SQL.

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
/// The least time between two.
const SHORTEST: Duration = Duration::from_secs(1);
/// How long one may take, and how long whoever leads may have said nothing.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the last one may keep a process from ending.
const LAST: Duration = Duration::from_secs(1);

/// Beats until ended.
pub(super) async fn run(daemon: Arc<Daemon>, ended: CancellationToken) {
    let mut session = None;
    // The state is another, and nobody was told yet.
    let mut is_news = false;
    loop {
        let progress = &daemon.progress;
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(INTERVAL - SHORTEST) => {}
            () = progress.news() => is_news = true,
        }
        if !is_due(progress.status().state, progress.beat_age(), is_news) {
            (session, is_news) = (None, false);
            continue;
        }
        let beat = tokio::time::timeout(PATIENCE, beat(&daemon, &mut session));
        let beat = tokio::select! {
            () = ended.cancelled() => return,
            beat = beat => beat,
        };
        match beat {
            Ok(Ok(told)) => {
                progress.heard(Side::Target);
                is_news &= !told;
            }
            Ok(Err(error)) => {
                tracing::debug!(error = error_chain(&error), "could not tell `status` how we are");
                session = None;
            }
            Err(_) => session = None,
        }
        tokio::select! {
            () = ended.cancelled() => return,
            () = tokio::time::sleep(SHORTEST) => {}
        }
    }
}

/// Whether to beat, `beat_age` after the leader last did; `is_news`: the state is another than before.
fn is_due(state: State, beat_age: Duration, is_news: bool) -> bool {
    match state {
        State::Standby | State::Stopped => false,
        // The leader's own has ended.
        State::Draining => true,
        // The leader's next says it.
        State::Streaming | State::Waiting => beat_age >= PATIENCE,
        State::Starting | State::Copying | State::Reconnecting | State::Braked | State::Paused => {
            is_news || beat_age >= PATIENCE
        }
    }
}

/// Whether it was said: another daemon may lead.
async fn beat(daemon: &Daemon, session: &mut Option<Target>) -> Result<bool> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_stopped_streaming_says_so_at_once() {
        for state in [State::Reconnecting, State::Braked, State::Paused, State::Copying, State::Draining] {
            assert!(is_due(state, Duration::ZERO, true), "{state:?}");
        }
        // It stands in the row already, as long as that is young.
        assert!(!is_due(State::Reconnecting, Duration::ZERO, false));
        assert!(is_due(State::Reconnecting, PATIENCE, false));
    }

    #[test]
    fn whoever_leads_says_it_there_and_a_standby_nothing() {
        assert!(!is_due(State::Streaming, Duration::ZERO, true) && is_due(State::Streaming, PATIENCE, false));
        assert!(!is_due(State::Standby, PATIENCE, true) && !is_due(State::Stopped, PATIENCE, true));
    }
}
