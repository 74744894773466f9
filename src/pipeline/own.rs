//! Batches of our own: what no transaction of LiteLLM's led to, between two of the stream.
//!
//! Owns what each [`Order`] becomes: one target transaction with the position as it was, past the brake like any
//! other. Who asks for one, and when, stands in [`super::housekeeping`] and [`super::models`]. Contains no SQL.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{Notify, mpsc};

use super::Daemon;
use super::apply::Applier;
use crate::error::{Error, Result};
use crate::mirror;
use crate::position::BatchEnd;
use crate::project::touched::Touched;
use crate::project::{MANY, Outcome, Scope, Stamp};
use crate::target::audit;
use crate::target::checkpoint;

/// What the applier is asked for, between two batches.
#[derive(Debug)]
pub(super) enum Order {
    /// Open WebUI had no tables or no admin: look again.
    FindProjection,
    /// The difference for these: what could not be written, what was found to differ.
    Project(Touched),
    /// Keys expired.
    ExpireKeys,
    /// The difference over everything.
    Reconcile,
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
            Order::Project(touched) => self.project_again(&touched).await,
            Order::ExpireKeys => self.expire_keys().await,
            Order::Reconcile => self.reconcile().await,
            Order::End(reason) => Err(reason),
        }
    }

    /// The difference for what is touched already, although nothing in LiteLLM changed.
    async fn project_again(&mut self, touched: &Touched) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let target = &self.target;
        target.begin("begin a retry").await?;
        checkpoint::begin(target, self.epoch, self.end_lsn).await?;
        let stamp = self.stamp(self.end_lsn);
        let outcome = projection.apply(target, Scope::These(touched), stamp).await?;
        self.commit_own(&outcome, &self.projected_with).await?;
        self.show_soon();
        self.count().await
    }

    async fn reconcile(&mut self) -> Result<()> {
        let with = self.projected_with.clone();
        // Open WebUI's connections may have got another prefix, and then this projects everything.
        self.find_projection().await?;
        if self.projection.is_some() && self.projected_with == with {
            self.apply_everything(&with, true).await?;
        }
        let days = i32::try_from(self.daemon.config.policy.audit.retention_days).unwrap_or(i32::MAX);
        audit::forget_old(&self.target, days).await
    }

    /// Keys expire without a row in the stream. The owners of those that did since we last looked are projected in a batch
    /// of their own, together with the moment up to which that is done.
    pub(super) async fn expire_keys(&mut self) -> Result<()> {
        let Some(projection) = &self.projection else { return Ok(()) };
        let target = &self.target;
        let now = SystemTime::now();
        if self.expired_through.is_some_and(|through| through > now) {
            // The clock was set back, and some keys live once more: they must expire once more too.
            checkpoint::expired_through(target, self.epoch, now).await?;
            self.expired_through = Some(now);
        }
        let touched = mirror::expired(target, self.expired_through, now).await?;
        if !touched.has_rights() {
            return Ok(());
        }
        target.begin("begin a batch for expired keys").await?;
        checkpoint::begin(target, self.epoch, self.end_lsn).await?;
        if touched.rights.len() > MANY {
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
