//! People whom Open WebUI's own group sync (OAuth, LDAP, a trusted header) took out of our groups when they signed in: they are
//! back within seconds.
//!
//! Owns how far that was looked. Whoever used Open WebUI lately is compared with what they should have, beside the stream; only
//! who differs becomes an order for the applier. Whatever goes wrong here ends nothing but a lost link. Contains no SQL.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Daemon;
use super::own::Order;
use crate::copy::sweep::Sweep;
use crate::error::Result;
use crate::postgres::error_chain;
use crate::project::Projection;
use crate::project::active::{self, Through};
use crate::project::models::Rules;
use crate::project::touched::Touched;
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
}

impl Returning {
    /// Up to which second people were looked at.
    pub(super) fn second(&self) -> Option<i64> {
        self.through.second()
    }

    /// Looks at whoever was active since.
    ///
    /// # Errors
    /// Only where the link to the target is gone.
    pub(super) async fn look(
        &mut self,
        daemon: &Daemon,
        target: &Target,
        orders: &mpsc::Sender<Order>,
    ) -> Result<()> {
        match self.look_now(daemon, target, orders).await {
            Err(error) if error.sqlstate().is_some() => {
                tracing::debug!(error = error_chain(&error), "could not look at who was active");
                self.projection = None;
                target.roll_back("end a look").await
            }
            other => other,
        }
    }

    async fn look_now(
        &mut self,
        daemon: &Daemon,
        target: &Target,
        orders: &mpsc::Sender<Order>,
    ) -> Result<()> {
        let (touched, through) = active::since(target, &self.through).await?;
        let people: Vec<String> = touched.users.into_iter().collect();
        for chunk in people.chunks(AT_ONCE) {
            let users = chunk.iter().cloned().collect();
            let touched = Touched { users, closely: true, ..Touched::default() };
            let lsn = daemon.progress.checkpoint();
            let projection = self.projection(daemon, target).await?;
            let slice = Sweep::new(target, projection, lsn, None, true).look(touched).await?;
            if !slice.is_clean() && orders.try_send(Order::Project(slice.touched, None)).is_err() {
                // The applier has something to do still: they are found again.
                return Ok(());
            }
        }
        self.through = through;
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
