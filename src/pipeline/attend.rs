//! Whether both sides are there, while a session begins or a copy is merged: whatever waits for one of them may wait for long,
//! and a link that is open and says nothing is noticed by nobody else before the stream runs.
//!
//! Owns how often that is asked, each side on a session of its own, so that no long statement is in the way. A side that answers,
//! if only that it takes nobody, is there. Contains no SQL.

use std::time::{Duration, Instant};

use super::Daemon;
use super::monitor::soon;
use crate::error::{Error, Result, Side};
use crate::postgres::error_chain;
use crate::source::Source;
use crate::target::Target;

/// With the patience of [`soon`] less than whoever asks for our readiness waits for the truth.
const INTERVAL: Duration = Duration::from_secs(4);
/// How long nobody may answer.
const PATIENCE: Duration = Duration::from_secs(8);

/// A session for nothing but the question.
enum Ear {
    Source(Source),
    Target(Target),
}

impl Ear {
    async fn open(daemon: &Daemon, side: Side) -> Result<Self> {
        let config = &daemon.config;
        Ok(match side {
            Side::Source => Self::Source(Source::open_since(config, daemon.progress.timeline()).await?),
            Side::Target => Self::Target(Target::open(config).await?),
        })
    }

    async fn ask(&self) -> Result<()> {
        match self {
            Self::Source(source) => source.ask_nothing(ACTION).await,
            Self::Target(target) => target.ask_nothing(ACTION).await,
        }
    }
}

const ACTION: &str = "see whether it is there";

impl Daemon {
    /// Waits for `work` as long as both sides say something, whoever it waits for.
    pub(super) async fn attended<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            done = work => done,
            error = self.unheard(Side::Source) => Err(error),
            error = self.unheard(Side::Target) => Err(error),
        }
    }

    /// Ends once this side says nothing.
    async fn unheard(&self, side: Side) -> Error {
        let (mut ear, mut answered) = (None, Instant::now());
        loop {
            tokio::time::sleep(INTERVAL).await;
            let question = async {
                if ear.is_none() {
                    ear = Some(Ear::open(self, side).await?);
                }
                match &ear {
                    Some(ear) => ear.ask().await,
                    None => Ok(()),
                }
            };
            match soon(&self.progress, side, ACTION, question).await {
                Ok(()) => answered = Instant::now(),
                Err(silent @ Error::Silent { .. }) => return silent,
                Err(error) => {
                    // Those who work there meet it as well, or are better off.
                    tracing::debug!(error = error_chain(&error), "no answer to the simplest question");
                    if error.sqlstate().is_some() {
                        self.progress.heard(side);
                        answered = Instant::now();
                    }
                    // Whoever works there may still wait for a new connection, and no connection is no answer either.
                    if answered.elapsed() > PATIENCE {
                        let seconds = answered.elapsed().as_secs();
                        return Error::Silent { side, action: ACTION, seconds };
                    }
                    ear = None;
                }
            }
        }
    }
}
