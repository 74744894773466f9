//! `run`: starts the daemon and its pages, and ends both on a signal.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use super::aside::Aside;
use crate::budgets::Budgets;
use crate::config::{Config, LogFormat};
use crate::observe::board::Board;
use crate::observe::guard::Guard;
use crate::observe::http::{self, Pages};
use crate::observe::metrics::Metrics;
use crate::observe::progress::Progress;
use crate::pipeline::Daemon;

/// Those who say less than they are asked to, whatever is asked: the clients of Postgres log statements with their parameters,
/// which are people and keys; what went wrong there we say ourselves.
const DISCREET: [(&str, &str); 4] =
    [("pgwire_replication", "off"), ("tokio_postgres", "warn"), ("hyper", "warn"), ("rustls", "warn")];

/// What is logged: as asked, but for the discreet.
fn directives(asked: &str) -> String {
    let is_discreet = |part: &&str| !DISCREET.iter().any(|(name, _)| part.contains(name));
    let kept = asked.split(',').map(str::trim).filter(is_discreet).filter(|part| !part.is_empty());
    let fixed = DISCREET.iter().map(|(name, level)| format!("{name}={level}"));
    kept.map(str::to_owned).chain(fixed).collect::<Vec<_>>().join(",")
}

/// Starts the log on standard error. `RUST_LOG` overrides the level. In JSON a panic is a line of it like any other.
pub(super) fn start_log(format: LogFormat, level: &str) {
    let asked = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = directives(asked.as_deref().unwrap_or(level));
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new(directives(level)));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
        LogFormat::Json => {
            builder.json().flatten_event(true).with_target(false).with_current_span(false).try_init()
        }
    };
    if format == LogFormat::Json {
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let error = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or_default();
            tracing::error!(error, place, "a task panicked");
        }));
    }
    // Only a second logger in one process fails here, and then the first one serves.
    let _ = started;
}

/// Runs until SIGTERM or SIGINT, or until the daemon stops by itself.
pub(super) async fn run(config: Config) -> anyhow::Result<ExitCode> {
    let cancel = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let on_signal = cancel.clone();
    tokio::spawn(async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "asked to end");
        on_signal.cancel();
    });
    serve(config, cancel).await?;
    Ok(ExitCode::SUCCESS)
}

/// The daemon with its pages, until cancelled.
pub(super) async fn serve(config: Config, cancel: CancellationToken) -> anyhow::Result<()> {
    let instance = uuid::Uuid::new_v4();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        instance = %instance.simple(),
        source = %config.source,
        target = %config.target,
        slot = config.slot,
        "starting"
    );
    let (_ends_with_us, aside) = Aside::start()?;
    let metrics = Arc::new(Metrics::new()?);
    let progress = Arc::new(Progress::default());
    let budgets = Arc::new(Budgets::new(config.policy.budgets));
    let board = Arc::new(Board::default());
    // The pages stay until the daemon is gone: it is asked how it is also while it drains.
    let gone = CancellationToken::new();
    let mut pages = None;
    if let Some(address) = config.http {
        // Where it is bound, whoever comes is waited for.
        let listener = aside.spawn(http::bind(address)).await??;
        tracing::info!(%address, "serving the status page, /metrics, /healthz and /readyz");
        if !address.ip().to_canonical().is_loopback() && config.http_token.is_none() {
            tracing::warn!(
                "the status page answers nobody: it can be reached from other machines, and has no token"
            );
        }
        let shown = Pages {
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
            budgets: Arc::clone(&budgets),
            board: Arc::clone(&board),
            names: config.policy.http.names,
            guard: Arc::new(Guard::new(address, config.http_token.clone())),
        };
        pages = Some(aside.spawn(http::serve(listener, shown, gone.clone())));
    }
    let daemon = Arc::new(Daemon {
        config,
        metrics,
        progress,
        budgets,
        board,
        instance,
        aside,
        remember_rows: std::env::var_os("LITELLM_WEBUI_SYNC_FORGET_ROWS").is_none(),
    });
    let result = daemon.run(cancel.clone()).await;
    cancel.cancel();
    gone.cancel();
    if let Some(pages) = pages {
        // A scrape that hangs must not keep us.
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), pages).await;
    }
    Ok(result?)
}
