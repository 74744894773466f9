//! People whom Open WebUI's own group sync (OAuth, LDAP, a trusted header) took out of our groups when they signed in: they are
//! back within seconds.
//!
//! Owns how far that was looked. Whoever used Open WebUI lately is compared with what they should have, beside the stream; only
//! who misses something becomes an order for the applier. Contains no SQL.

use std::collections::BTreeSet;
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

#[derive(Default)]
pub(super) struct Returning {
    through: Through,
    projection: Option<(Projection, Instant)>,
    /// When it may be asked again whether anybody was active: the question reads all people.
    due: Option<Instant>,
}

impl Returning {
    /// Up to which second people were looked at.
    pub(super) fn second(&self) -> Option<i64> {
        self.through.second()
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    /// The question took this long: a hundredth of the time is what it may cost.
    pub(super) fn took(&mut self, time: Duration) {
        self.due = Some(Instant::now() + time * 100);
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
        let sweep = Sweep::new(target, projection, lsn, None, true);
        let closely = |users| Touched { users, closely: true, ..Touched::default() };
        let people: Vec<String> = touched.users.into_iter().collect();
        let mut missed = BTreeSet::new();
        for chunk in people.chunks(AT_ONCE) {
            if !misses_something(&sweep.look(closely(chunk.iter().cloned().collect())).await?) {
                continue;
            }
            for user in chunk {
                if misses_something(&sweep.look(closely(BTreeSet::from([user.clone()]))).await?) {
                    missed.insert(user.clone());
                }
            }
        }
        if missed.is_empty() || orders.try_send(Order::Project(closely(missed), None)).is_ok() {
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
    let Outcome { departing, members_added, access, .. } = &slice.outcome;
    *departing == 0 && members_added + access.members_added + access.grants_added > 0
}
