//! Batches of our own: what no transaction of LiteLLM's led to, between two of the stream.
//!
//! Owns what each [`Order`] becomes: one target transaction with the position as it was, past the brake like any
//! other. Who asks for one, and when, stands in [`super::housekeeping`] and [`super::models`]. Contains no SQL.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Notify, mpsc, oneshot};

use super::Daemon;
use super::apply::Applier;
use super::since::Since;
use crate::copy::compare::Mend;
use crate::copy::still::{STANDSTILL, Still};
use crate::error::{Error, Result};
use crate::mirror;
use crate::position::BatchEnd;
use crate::project::touched::Touched;
use crate::project::{MANY, Outcome, Scope, Stamp};
use crate::stage::Part;
use crate::target::checkpoint;

/// What whoever takes the stream in hands to the applier.
#[derive(Debug)]
pub(super) enum Handed {
    Part(Part),
    /// Everything before the point of a look was handed on.
    Still(Still),
}

/// What the applier is asked for, between two batches.
#[derive(Debug)]
pub(super) enum Order {
    /// Open WebUI had no tables or no admin: look again.
    FindProjection,
    /// The difference for these: what could not be written, what was found to differ. Told once it is done.
    Project(Touched, Option<oneshot::Sender<()>>),
    /// Rows that the mirror should have had when both ends last stood still. Told once it is done, and how many were left out.
    Mend(Mend, oneshot::Sender<usize>),
    /// Keys expired.
    ExpireKeys,
    /// The difference over everything, as one batch. Told once it is done.
    Reconcile(oneshot::Sender<()>),
    /// End the session, for this reason.
    End(Error),
}

/// The applier's end of what is asked of it.
#[derive(Debug)]
pub(super) struct Orders {
    given: mpsc::Receiver<Order>,
    look: Arc<Notify>,
}

impl Orders {
    /// Both ends, and what tells the other one that there is something to look at.
    pub(super) fn channel() -> (mpsc::Sender<Order>, Arc<Notify>, Self) {
        let (orders, given) = mpsc::channel(1);
        let look = Arc::new(Notify::new());
        (orders, Arc::clone(&look), Self { given, look })
    }

    /// The next one; `None` once nobody gives any.
    pub(super) async fn next(&mut self) -> Option<Order> {
        self.given.recv().await
    }

    /// There is something to look at, or to show.
    pub(super) fn look_soon(&self) {
        self.look.notify_one();
    }
}

impl Applier {
    pub(super) async fn follow(&mut self, order: Order) -> Result<()> {
        match order {
            Order::FindProjection if self.projection.is_none() => self.find_projection().await,
            Order::FindProjection => Ok(()),
            Order::Project(touched, done) => {
                self.project_again(&touched).await?;
                tell(done);
                Ok(())
            }
            Order::Mend(rows, done) => {
                let left_out = Box::pin(self.mend(rows)).await?;
                // They may have given up.
                let _ = done.send(left_out);
                Ok(())
            }
            Order::ExpireKeys => self.expire_keys().await,
            Order::Reconcile(done) => {
                self.reconcile().await?;
                tell(Some(done));
                Ok(())
            }
            Order::End(reason) => Err(reason),
        }
    }

    /// The difference for what is touched already, although nothing in LiteLLM changed.
    async fn project_again(&mut self, touched: &Touched) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let target = &self.target;
        target.begin("begin a retry").await?;
        self.begin_own().await?;
        let stamp = self.stamp(self.end_lsn);
        let outcome = projection.apply(target, Scope::These(touched), stamp).await?;
        self.commit_own(&outcome, &self.projected_with).await?;
        self.show_soon();
        self.count().await
    }

    /// Stands still at the point of a look, for a moment, and remembers from here on what the stream changes.
    pub(super) async fn stand_still(&mut self, still: Still) {
        if still.reached.send(()).is_ok() {
            self.since = Some(Since::default());
            // However it ends, the stream goes on.
            let _ = tokio::time::timeout(STANDSTILL, still.go_on).await;
        }
    }

    /// Writes rows that the mirror has lost, and what follows from them. Where the stream has said since what a row is, it is that.
    async fn mend(&mut self, rows: Mend) -> Result<usize> {
        let count = rows.len();
        let Some(since) = self.since.take() else { return Ok(count) };
        let mut part = Part::of_rows(rows.into_iter().filter(|(id, key, _)| since.is_untouched(*id, key)));
        let mended = part.rows();
        if mended > 0 {
            let end = BatchEnd::at(self.end_lsn);
            part.end = Some(end);
            Box::pin(self.apply_small(&part, end)).await?;
            self.show_soon();
        }
        Ok(count - mended)
    }

    async fn reconcile(&mut self) -> Result<()> {
        let with = self.projected_with.clone();
        // Open WebUI's connections may have got another prefix, and then this projects everything.
        self.find_projection().await?;
        if self.projection.is_some() && self.projected_with == with {
            self.apply_everything(&with, true).await?;
        }
        Ok(())
    }

    /// Keys expire without a row in the stream. The owners of those that did since we last looked are projected in a batch
    /// of their own, together with the moment up to which that is done.
    pub(super) async fn expire_keys(&mut self) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let target = &self.target;
        let now = SystemTime::now();
        if self.expired_through.is_some_and(|through| through > now) {
            // The clock was set back, and some keys live once more: they must expire once more too.
            let write = checkpoint::expired_through(target, self.epoch, now);
            target.alone("write up to when keys expired", write).await?;
            self.expired_through = Some(now);
        }
        let touched = mirror::expired(target, self.expired_through, now).await?;
        if !touched.has_rights() {
            return Ok(());
        }
        let is_much = touched.rights.len() > MANY;
        if is_much {
            self.renewal.wait().await;
        }
        target.begin("begin a batch for expired keys").await?;
        self.begin_own().await?;
        if is_much {
            target.plan_large().await?;
        }
        let stamp = Stamp { now, ..self.stamp(self.end_lsn) };
        let outcome = projection.apply(target, Scope::These(&touched), stamp).await?;
        checkpoint::expired_through(target, self.epoch, now).await?;
        self.commit_own(&outcome, &self.projected_with).await?;
        self.expired_through = Some(now);
        self.note(&outcome).await
    }

    /// Ends a batch of our own: past the brake, with the position as it was.
    pub(super) async fn commit_own(&self, outcome: &Outcome, projected_with: &str) -> Result<()> {
        self.hold_against_brake(outcome, self.end_lsn).await?;
        checkpoint::commit(&self.target, self.epoch, BatchEnd::at(self.end_lsn), projected_with).await?;
        let Daemon { metrics, .. } = &*self.daemon;
        metrics.projected(outcome);
        Ok(())
    }
}

/// Tells whoever waits for it.
fn tell(done: Option<oneshot::Sender<()>>) {
    if let Some(done) = done {
        // They may have given up.
        let _ = done.send(());
    }
}
