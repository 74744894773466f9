//! What the daemon hears of models outside of the stream: the last answer of LiteLLM itself.

use std::sync::Arc;

use tokio::sync::{Notify, watch};

use super::apply::Applier;
use crate::error::Result;
use crate::pipeline::poll::Answer;
use crate::project::touched::Touched;
use crate::project::{Outcome, Scope};
use crate::target::policy;

/// The applier's end of [`crate::pipeline::poll`].
#[derive(Debug)]
pub(super) struct Polled {
    answers: watch::Receiver<Answer>,
    again: Arc<Notify>,
}

impl Polled {
    pub(super) fn new(answers: watch::Receiver<Answer>, again: Arc<Notify>) -> Self {
        Self { answers, again }
    }

    /// Returns when there is another answer; never where nobody asks.
    pub(super) async fn next(&mut self) {
        if self.answers.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// LiteLLM's own rows changed: what it serves may have, too.
    pub(super) fn ask_again(&self) {
        self.again.notify_one();
    }
}

impl Applier {
    /// Keeps the new answer and gives everybody the models that follow from it.
    pub(super) async fn models_answered(&mut self) -> Result<()> {
        let Some(answer) = self.polled.answers.borrow_and_update().clone() else { return Ok(()) };
        let target = &self.target;
        policy::prepare_polled(target).await?;
        target.begin("begin with an answer").await?;
        self.begin_own().await?;
        let changed = policy::store_polled(target, &answer).await?;
        if changed == 0 {
            return target.roll_back("end without news").await;
        }
        self.renewal.wait().await;
        tracing::info!(models = answer.len(), changed, "LiteLLM serves other models than before");
        let stamp = self.stamp(self.end_lsn);
        let touched = Touched { all_rights: true, ..Touched::default() };
        let outcome = match &self.projection {
            Some(projection) => projection.apply(target, Scope::These(&touched), stamp).await?,
            None => Outcome::default(),
        };
        self.commit_own(&outcome, &self.projected_with).await?;
        self.note(&outcome).await
    }
}
