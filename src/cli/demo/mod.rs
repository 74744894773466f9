//! `demo`: a throwaway Postgres with both products' databases, people, the daemon, and live changes.
//!
//! Owns what is started and taken down: nothing survives this process, however it ends. What is told meanwhile is in `story`
//! and `summary`. What it prints about Open WebUI it reads there itself, from Open WebUI's tables; of the daemon it uses what
//! any operator has, and it knows none of the product's rules.

mod difference;
mod picture;
mod screen;
mod servers;
mod story;
mod summary;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use testbed::Cluster;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::run;
use screen::Screen;
use story::Show;

/// Of whom and of which model it is explained who sees it: she is in a team that has it, and in one that has not.
const WHO_AND_WHY: (&str, &str) = ("chloe.marchand@northwind.example", "gpt-4o");

/// Watch it work: a throwaway Postgres with both databases, people, and live changes
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Exit when the live changes have arrived
    #[arg(long)]
    once: bool,
}

/// Shows the product at work.
///
/// # Errors
/// When there is no Postgres, when the daemon stops, and when anything has not arrived.
pub(super) async fn demo(Demo { once }: Demo) -> Result<ExitCode> {
    let cancel = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let screen = Screen::new();
    let mut stage = None;
    let outcome = tokio::select! {
        outcome = Box::pin(perform(once, &screen, &mut stage, &cancel)) => Some(outcome),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    // Whatever happened: the daemon drains, then the server goes. A signal in here changes nothing,
    // and after a signal while the server was starting its guard cleans up.
    cancel.cancel();
    if let Some(Stage { cluster, daemon }) = stage.take() {
        if let Some(daemon) = daemon {
            let _ = tokio::time::timeout(Duration::from_secs(5), daemon).await;
        }
        spawn_blocking(move || drop(cluster)).await?;
        screen.line("");
        screen.line("The throwaway server and its files are gone.");
    }
    match outcome {
        Some(outcome) => outcome?,
        None if once => bail!("interrupted before everything was shown"),
        None => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// What has to be taken down again.
#[derive(Debug)]
struct Stage {
    cluster: Cluster,
    daemon: Option<JoinHandle<Result<()>>>,
}

async fn perform(
    once: bool,
    screen: &Screen,
    stage: &mut Option<Stage>,
    cancel: &CancellationToken,
) -> Result<()> {
    let started = Instant::now();
    let cluster = servers::start(screen).await?;
    let Stage { cluster, daemon } = stage.insert(Stage { cluster, daemon: None });
    let config = servers::prepare(cluster).await?;
    screen.line("Two databases, made by LiteLLM 1.110.2 and Open WebUI 0.12.4, and LiteLLM's people.");
    screen.line(
        "The daemon's policy: [access] budgets = \"enforce\", [http] names = \"show\", the rest by default.",
    );

    let mut show = Show::new(screen, cluster, config).await?;
    let running = daemon.insert(tokio::spawn(run::serve(show.config.clone(), cancel.clone())));
    let story = async {
        show.first_copy(started).await?;
        show.access(WHO_AND_WHY.0, Some(WHO_AND_WHY.1)).await?;
        show.live_changes(once).await?;
        show.summary().await?;
        if !once {
            show.how_to_look();
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = story => outcome,
        ended = &mut *running => Err(stopped(ended)),
    };
    if outcome.is_err() || once {
        return outcome;
    }
    // The caller ends this on a signal.
    Err(stopped(running.await))
}

/// The daemon ended while it should run.
fn stopped(ended: Result<Result<()>, tokio::task::JoinError>) -> anyhow::Error {
    match ended {
        Ok(Ok(())) => anyhow!("the daemon ended"),
        Ok(Err(error)) => error,
        Err(panic) => anyhow!(panic).context("the daemon panicked"),
    }
}
