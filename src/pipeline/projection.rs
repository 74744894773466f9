//! The projection of this session: finding what it is made from, and applying it to everything.
//!
//! Owns when everything is projected: at first, when what it is made from is other than last time, and when the timer asks
//! for it. The difference itself is [`crate::project`]. Contains no SQL.

use std::sync::Arc;

use super::Daemon;
use super::apply::Applier;
use super::show;
use crate::config::Config;
use crate::copy::register::CopyPhase;
use crate::error::{Error, Result};
use crate::observe::progress::State;
use crate::postgres::error_chain;
use crate::project::models::Rules;
use crate::project::rules;
use crate::project::{self, Outcome, Projection, Scope, Stamp};
use crate::target::Target;
use crate::target::checkpoint::{self, PENDING};
use crate::target::layout::{self, Layout};
use crate::target::open_webui::{self, People};
use crate::target::policy;
use crate::target::schema;

impl Applier {
    /// Finds the layout, and whether Open WebUI is ready to be written.
    pub(super) async fn find_projection(&mut self) -> Result<()> {
        let Daemon { config, progress, board, .. } = &*self.daemon;
        let found = match layout::find(&self.target, config).await {
            Ok(found) => found,
            Err(error @ Error::NoOpenWebUi { .. }) => {
                self.begin_anew().await?;
                self.waits_for(&error.to_string());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        board.set_layout(&found);
        let people = open_webui::find(&self.target).await?;
        let may_begin = project::may_begin(&self.target, self.projected_with != PENDING).await?;
        let Some(people) = people.filter(|_| may_begin) else {
            self.begin_anew().await?;
            self.waits_for("Open WebUI has no admin yet: sign up there first");
            return Ok(());
        };
        let models = Rules::find(&self.target, config, &found).await?;
        let write = policy::write_models(&self.target, &models.prefix, models.group_min);
        self.target.alone("write the policy", write).await?;
        let with = made_with(config, &found, people, &models);
        self.daemon.metrics.set_layout(&found.describe());
        self.projection = Some(Projection::new(found, config.policy.api_keys, models));
        self.people = Some(people);
        if self.projected_with != with {
            let first = self.projected_with == PENDING;
            tracing::info!(first, "projecting everything");
            progress.copies.phase(CopyPhase::Projecting);
            let outcome = self.apply_everything(&with, !first).await?;
            // What is planned for many rows next waits for it; everything else need not.
            self.renewal.begin(&self.daemon);
            tracing::info!(
                created = outcome.accounts_created,
                linked = outcome.accounts_linked,
                updated = outcome.accounts_updated,
                groups = outcome.groups_written,
                members = outcome.members_added,
                keys = outcome.keys_minted,
                conflicts = outcome.conflicts,
                "projected everything"
            );
        }
        show::everything(&self.daemon, &self.target).await?;
        if !self.fenced {
            self.daemon.progress.copies.end(true);
        }
        // What was held back is still to come: nobody may be told that all is well before it has passed.
        if !self.was_braked {
            self.daemon.progress.set_state(State::Streaming, None);
        }
        self.orders.look_soon();
        Ok(())
    }

    /// What was written is not there any more: everything is written once more when it can be, as at first, however often
    /// this program was started meanwhile.
    async fn begin_anew(&mut self) -> Result<()> {
        if self.projected_with != PENDING {
            tracing::warn!(
                "Open WebUI's tables are gone, or were made anew: everything is written again once it is ready"
            );
            let forget = checkpoint::forget_projection(&self.target, self.epoch);
            self.target.alone("note that nothing is projected", forget).await?;
            PENDING.clone_into(&mut self.projected_with);
        }
        self.projection = None;
        Ok(())
    }

    /// Nothing can be written yet; what is copied stays in the mirror until then.
    fn waits_for(&self, what: &str) {
        let progress = &self.daemon.progress;
        progress.set_state(State::Waiting, Some(what.to_owned()));
        if !self.fenced {
            progress.copies.end(true);
        }
        self.orders.look_soon();
    }

    /// A session of its own that sees what we have committed, and is driven beside the stream; `None` where there is none: it may have come
    /// to a standby that is behind.
    async fn open_reader(&self) -> Option<Target> {
        let (daemon, epoch, end_lsn) = (Arc::clone(&self.daemon), self.epoch, self.end_lsn);
        let open = async move {
            let reader = Target::open(&daemon.config).await?;
            reader.plan_reading().await?;
            let is_ours = checkpoint::is_at(&reader, epoch, end_lsn).await?;
            Ok::<_, Error>(is_ours.then_some(reader))
        };
        match self.daemon.aside.spawn(open).await {
            Ok(Ok(reader)) => reader,
            Ok(Err(error)) => {
                tracing::debug!(error = error_chain(&error), "nobody reads ahead: it takes longer");
                None
            }
            // Without a panic it is all over.
            Err(end) => end.try_into_panic().map_or(None, |panic| std::panic::resume_unwind(panic)),
        }
    }

    /// Applies the difference over everything: the first projection, a changed policy, a reconcile.
    pub(super) async fn apply_everything(
        &mut self,
        projected_with: &str,
        audit_each: bool,
    ) -> Result<Outcome> {
        self.renewal.wait().await;
        let Some(projection) = &self.projection else { return Ok(Outcome::default()) };
        let target = &self.target;
        let reader = self.open_reader().await;
        target.begin_large().await?;
        target.plan_everything().await?;
        self.begin_own().await?;
        let stamp = Stamp { audit_each, ..self.stamp(self.end_lsn) };
        // Half of the work is reading, and needs nothing of what is written before.
        if let Some(reader) = reader {
            projection.look_ahead(target, reader, &self.daemon.aside, stamp.now).await?;
        }
        let outcome = projection.apply(target, Scope::Everything, stamp).await?;
        checkpoint::expired_through(target, self.epoch, stamp.now).await?;
        self.commit_own(&outcome, projected_with).await?;
        projected_with.clone_into(&mut self.projected_with);
        self.expired_through = Some(stamp.now);
        Ok(outcome)
    }
}

/// All that Open WebUI's rows follow from besides LiteLLM's: where it is other than what the checkpoint says, everything is
/// projected anew. The rules are in it by their texts: a changed one that waited for its version, or for the reconcile,
/// would meanwhile hold for whoever is touched and for nobody else.
pub(super) fn made_with(config: &Config, layout: &Layout, people: People, models: &Rules) -> String {
    format!(
        "{}/{}/{}/{}/{}/{}/{}/{}",
        config.policy.fingerprint(),
        layout.describe(),
        people.oid,
        models.prefix,
        if config.models_api.is_some() { "polled" } else { "" },
        env!("CARGO_PKG_VERSION"),
        schema::views_digest(),
        rules::digest()
    )
}
