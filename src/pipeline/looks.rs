//! What is only for looking at: whose budgets are shown, and when certificates end.
//!
//! On connections of its own, with short patience: whatever goes wrong here ends nothing, keeps nothing waiting, and leaves no long
//! statement behind on LiteLLM's server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Daemon;
use crate::budgets::load::Namer;
use crate::budgets::rules::Kind;
use crate::budgets::{Budgets, Shown};
use crate::config::Endpoint;
use crate::error::Result;
use crate::observe::board::Budget;
use crate::postgres::{self, error_chain};
use crate::source::Source;

const INTERVAL: Duration = Duration::from_secs(2);
/// After something went wrong.
const PAUSE: Duration = Duration::from_secs(30);
/// How long a question may take on LiteLLM's server, and how long it may wait there for a lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// A server that read a new certificate shows it to new connections only.
const CERTIFICATES_INTERVAL: Duration = Duration::from_secs(3600);

/// Looks until cancelled. `endpoint` is the very server that is followed.
pub(super) async fn run(daemon: Arc<Daemon>, endpoint: Endpoint, cancel: CancellationToken) {
    tokio::select! {
        () = cancel.cancelled() => {}
        () = look(&daemon, &endpoint) => {}
    }
}

async fn look(daemon: &Daemon, endpoint: &Endpoint) {
    let mut namer = Namer::default();
    let mut source = None;
    let mut certificates: Option<Instant> = None;
    loop {
        if certificates.is_none_or(|at| at.elapsed() >= CERTIFICATES_INTERVAL) {
            certificates = Some(Instant::now());
            look_at_certificates(daemon).await;
        }
        let named = look_at_names(daemon, endpoint, &mut source, &mut namer).await;
        daemon.board.set_budgets(shown_budgets(&daemon.budgets));
        match named {
            Ok(()) => tokio::time::sleep(INTERVAL).await,
            Err(error) => {
                tracing::debug!(error = error_chain(&error), "could not look up whose budgets are shown");
                // What it asked may still be running.
                source = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn look_at_names(
    daemon: &Daemon,
    endpoint: &Endpoint,
    source: &mut Option<Source>,
    namer: &mut Namer,
) -> Result<()> {
    let source = match source {
        Some(source) => source,
        None => {
            let opened = Source::open_at(endpoint).await?;
            opened.limit(PATIENCE).await?;
            source.insert(opened)
        }
    };
    namer.look(&daemon.budgets, source, &daemon.config).await
}

async fn look_at_certificates(daemon: &Daemon) {
    let Daemon { config, metrics, .. } = daemon;
    for (side, endpoint) in [("source", &config.source), ("target", &config.target)] {
        match postgres::connect(endpoint, "litellm-webui-sync", &[]).await {
            Ok(connection) => {
                metrics.set_certificates(side, connection.certificates);
                connection.close().await;
            }
            Err(error) => {
                tracing::debug!(error = error_chain(&error), side, "could not look at the certificates");
            }
        }
    }
}

/// The shown budgets of every kind, fullest first.
fn shown_budgets(budgets: &Budgets) -> Option<Vec<Budget>> {
    let ranking = budgets.ranking()?;
    let of_kind = |kind| budgets.shown(&ranking, kind);
    let mut all: Vec<Budget> = Kind::ALL
        .into_iter()
        .flat_map(of_kind)
        .map(|Shown { id, alias, standing }| Budget {
            kind: standing.kind.name().to_owned(),
            id,
            alias: Some(alias).filter(|alias| !alias.is_empty()),
            spend: standing.spend,
            limit: standing.limit,
            ratio: standing.utilization(),
            state: standing.state(),
        })
        .collect();
    let full = |budget: &Budget| budget.ratio.unwrap_or(f64::NEG_INFINITY);
    all.sort_by(|one, other| full(other).total_cmp(&full(one)));
    Some(all)
}
