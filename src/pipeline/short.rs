//! The short way of a small batch: all of it, with its COMMIT, in one round trip.
//!
//! Owns when it is tried, and what is sent. Whatever could speak against the batch is an error of one of its statements, after which
//! the server commits nothing; then the batch goes the general way ([`Applier::apply_small`]), as if this had not been tried. Contains no SQL.

use std::time::Instant;

use super::apply::Applier;
use crate::error::{Error, Result};
use crate::failpoint;
use crate::mirror::users::{self, Users};
use crate::observe::metrics::Stage;
use crate::position::BatchEnd;
use crate::project::{MANY, Outcome};
use crate::stage::Part;
use crate::target::checkpoint;

/// After a batch that was not plain, so many go the general way at once: a try that fails costs about what it saves, and the server
/// notes it in its log. Twice as many after each one that follows, up to the second.
const PAUSE: u32 = 16;
const PAUSE_MAX: u32 = 1024;

/// Whether the short way is worth a try.
#[derive(Debug, Default)]
pub(super) struct Short {
    /// So many batches are not tried …
    left: u32,
    /// … of so many, since the last one failed.
    pause: u32,
}

impl Short {
    fn may_be_tried(&mut self) -> bool {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or_default();
        left.is_none()
    }

    fn failed(&mut self) {
        self.pause = (self.pause * 2).clamp(PAUSE, PAUSE_MAX);
        self.left = self.pause;
    }
}

impl Applier {
    /// Tries it. `false`: nothing was written, and the batch is to go the general way.
    pub(super) async fn apply_short(&mut self, part: &Part, end: BatchEnd) -> Result<bool> {
        // What is held against a brake is looked at before anything is committed.
        if self.was_braked {
            return Ok(false);
        }
        let Some(users) = users::alone(part).filter(|users| users.len() <= MANY) else { return Ok(false) };
        if !self.short.may_be_tried() {
            return Ok(false);
        }
        let outcome = match self.send_short(&users, end).await {
            Ok(Some(outcome)) => outcome,
            Ok(None) => return Ok(false),
            Err(error) if is_general(&error) => {
                tracing::debug!(
                    sqlstate = error.sqlstate(),
                    "a batch is no plain one and goes the general way"
                );
                self.short.failed();
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.short.pause = 0;
        self.daemon.metrics.projected(&outcome);
        self.note(&outcome).await?;
        Ok(true)
    }

    /// `None` where it may not be tried at all.
    async fn send_short(&self, users: &Users<'_>, end: BatchEnd) -> Result<Option<Outcome>> {
        let (Some(projection), Some(people)) = (&self.projection, self.people) else { return Ok(None) };
        let target = &self.target;
        let Some(plain) = projection.prepare_plain(target, !users.new.is_empty()).await? else {
            return Ok(None);
        };
        let mirror = users::prepare(target).await?;
        let first = checkpoint::prepare_first(target).await?;
        let stamp = self.stamp(end.end_lsn);
        let metrics = &self.daemon.metrics;
        let started = Instant::now();
        // The server works them off in this order, and they are looked at in it: the first error is why, and those after it say no more
        // than that there was one. Without the BEGIN nothing can be written: see `run`.
        let ((), moved, mirrored, created, renamed, ()) = tokio::try_join!(
            biased;
            target.begin_small(),
            checkpoint::advance_first(target, &first, self.epoch, self.end_lsn, end),
            async {
                users.write(target, &mirror).await?;
                failpoint::hit(failpoint::SENT_NOT_ANSWERED)?;
                Ok(Instant::now())
            },
            async { Ok((plain.create(target, &users.new, people, stamp).await?, Instant::now())) },
            async { Ok((plain.rename(target, &users.changed, people, stamp).await?, Instant::now())) },
            target.commit("commit a batch"),
        )?;
        moved.remember(target)?;
        let ((accounts_created, one), (accounts_updated, other)) = (created, renamed);
        let projected = mirrored.max(one).max(other);
        metrics.took(Stage::Mirror, mirrored - started);
        metrics.took(Stage::Project, projected - mirrored);
        metrics.took(Stage::Commit, projected.elapsed());
        Ok(Some(Outcome { accounts_created, accounts_updated, ..Outcome::default() }))
    }
}

/// Whether an error says no more than that the batch is no plain one, or that Open WebUI's tables are not what they were (42 and 0A:
/// a statement does not fit them), which the general way finds out too, and says what of it. (25P02: some other one of them failed.)
fn is_general(error: &Error) -> bool {
    let of_the_tables = |code: &str| code.starts_with("42") || code.starts_with("0A");
    error.is_about_a_row() || error.is_of_one_before() || error.sqlstate().is_some_and(of_the_tables)
}
