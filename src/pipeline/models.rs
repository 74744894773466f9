//! What the daemon hears of models outside of the stream: the last answer of `/v1/models`.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_postgres::types::Type;

use super::apply::Applier;
use crate::error::{Result, Side, on};
use crate::pipeline::poll::Answer;
use crate::project::models::Rules;
use crate::project::touched::Touched;
use crate::project::{Outcome, Scope};
use crate::sql;
use crate::target::checkpoint;
use crate::target::{SLOW, Target};

/// Puts the rules where the `access` command finds them.
pub(super) async fn publish(target: &Target, rules: &Rules) -> Result<()> {
    let text = "update policy set model_prefix = $1, group_min = $2";
    let done = target.client().execute(text, &[&rules.prefix, &rules.group_min]).await;
    done.map_err(on(Side::Target, "write the policy"))?;
    Ok(())
}

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
        let names: Vec<&str> = answer.iter().map(String::as_str).collect();
        let target = &self.target;
        let statement = target.prepare(sql::STORE_POLLED, &[Type::TEXT_ARRAY]).await?;
        target.execute("begin with an answer", "begin").await?;
        checkpoint::begin(target, self.epoch, self.end_lsn).await?;
        let rows = target.query("keep the models LiteLLM named", SLOW, &statement, &[&names]).await?;
        let changed: i64 = rows.first().map_or(0, |row| row.get(0));
        if changed == 0 {
            return target.execute("end without news", "rollback").await;
        }
        tracing::info!(models = names.len(), changed, "LiteLLM serves other models than before");
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
