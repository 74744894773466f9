//! People whom Open WebUI's own group sync (OAuth, LDAP, a trusted header) took out of our groups when they signed in: they are
//! back within seconds.
//!
//! Owns how far that was looked. Whoever used Open WebUI lately is compared with what they should have, beside the stream; only
//! who misses something becomes an order for the applier. Contains no SQL.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Daemon;
use super::own::Order;
use crate::copy::sweep::{Slice, Sweep};
use crate::error::Result;
use crate::project::active::{self, Through};
use crate::project::models::Rules;
use crate::project::touched::Touched;
use crate::project::{Outcome, Projection};
use crate::target::Target;
use crate::target::layout;

/// As many at a time as one short transaction is made of.
const AT_ONCE: usize = 200;
/// How long what the policy and Open WebUI's settings say may be used.
const AGAIN: Duration = Duration::from_secs(600);

/// When to ask whether anybody was active, and since when: shared with whoever asks.
#[derive(Debug, Default, Clone)]
pub(super) struct Watch(Arc<Mutex<(Option<i64>, Option<Instant>)>>);

impl Watch {
    fn lock(&self) -> MutexGuard<'_, (Option<i64>, Option<Instant>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to which second people were looked at.
    pub(super) fn second(&self) -> Option<i64> {
        self.lock().0
    }

    pub(super) fn is_due(&self) -> bool {
        self.lock().1.is_none_or(|due| due <= Instant::now())
    }

    /// The question, which reads all people, took this long: a hundredth of the time is what it may cost.
    pub(super) fn took(&self, time: Duration) {
        self.lock().1 = Some(Instant::now() + time * 100);
    }
}

#[derive(Default)]
pub(super) struct Returning {
    through: Through,
    watch: Watch,
    projection: Option<(Projection, Instant)>,
}

impl Returning {
    pub(super) fn new(watch: Watch) -> Self {
        Self { watch, ..Self::default() }
    }

    /// What was found of Open WebUI may be otherwise by now.
    pub(super) fn forget(&mut self) {
        self.projection = None;
    }

    /// Looks at whoever was active since.
    ///
    /// # Errors
    /// Where the server does not do it: it is tried again.
    pub(super) async fn look(
        &mut self,
        daemon: &Daemon,
        target: &Target,
        orders: &mpsc::Sender<Order>,
    ) -> Result<()> {
        let (touched, through) = active::since(target, &self.through).await?;
        let lsn = daemon.progress.checkpoint();
        let projection = self.projection(daemon, target).await?;
        projection.forget_models();
        let sweep = Sweep::new(target, projection, lsn, None, true);
        let closely = |users| Touched { users, closely: true, ..Touched::default() };
        let people: Vec<String> = touched.users.into_iter().collect();
        let mut missed = BTreeSet::new();
        for chunk in people.chunks(AT_ONCE) {
            if !misses_something(&sweep.look(closely(chunk.iter().cloned().collect())).await?) {
                continue;
            }
            for user in chunk {
                let slice = sweep.look(closely(BTreeSet::from([user.clone()]))).await?;
                if misses_something(&slice) && slice.outcome.departing == 0 {
                    missed.insert(user.clone());
                }
            }
        }
        let count = u64::try_from(missed.len()).unwrap_or_default();
        if missed.is_empty() || orders.try_send(Order::Project(closely(missed), None)).is_ok() {
            daemon.metrics.put_back.inc_by(count);
            self.watch.lock().0 = through.second();
            self.through = through;
        }
        // Otherwise the applier has something to do still, and they are found again.
        Ok(())
    }

    async fn projection(&mut self, daemon: &Daemon, target: &Target) -> Result<&Projection> {
        let config = &daemon.config;
        let made = match self.projection.take().filter(|(_, at)| at.elapsed() < AGAIN) {
            Some(made) => made,
            None => {
                let layout = layout::find(target, config).await?;
                let rules = Rules::find(target, config, &layout).await?;
                (Projection::new(layout, config.policy.api_keys, rules), Instant::now())
            }
        };
        Ok(&self.projection.insert(made).0)
    }
}

/// Whether somebody is to get back what they should have. Whatever else differs is the affair of the reconcile.
fn misses_something(slice: &Slice) -> bool {
    let Outcome { members_added, access, .. } = &slice.outcome;
    members_added + access.members_added + access.grants_added > 0
}
