//! What the leader looks for by the clock, beside the stream and on a session of its own: a pause, requests, keys that expire,
//! dead letters that are due, who used Open WebUI, the scheduled verify.
//!
//! Owns how often each of it is looked for, and the leader's heartbeat. Writes no row of Open WebUI's and no mirror: what is
//! found becomes an [`Order`] for the applier, which has a batch of its own for it between two of the stream. Its answers are
//! also what tells that Open WebUI's database is there. Contains no SQL.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::beside::{Desk, Work};
use super::monitor::soon;
use super::own::Order;
use super::returning::Watch;
use crate::copy::{request, verify};
use crate::error::{Error, Result, Side};
use crate::observe::progress::State;
use crate::postgres::error_chain;
use crate::project::touched::Touched;
use crate::target::Target;
use crate::target::failures;
use crate::target::heartbeat::{self, Beat, Glance};
use crate::target::layout::Layout;

/// Well within the patience of sql/target/heartbeat.sql.
const INTERVAL: Duration = Duration::from_millis(2_500);
/// While there is something to wait for: a key that expires, Open WebUI's first admin.
const SOON: Duration = Duration::from_secs(1);
/// Between two looks that somebody asked for.
const CALM: Duration = Duration::from_millis(100);
/// How often everything is compared with what it should be: people and Open WebUI itself change it too.
const RECONCILE: Duration = Duration::from_secs(600);
/// How often the schedule is asked although it said that nothing is due: the policy may have changed.
const SCHEDULE: Duration = Duration::from_secs(60);
/// A verify costs both servers something: not on top of being behind.
const BEHIND: Duration = Duration::from_secs(30);

pub(super) struct Housekeeper {
    daemon: Arc<Daemon>,
    target: Target,
    orders: mpsc::Sender<Order>,
    work: Desk,
    /// Somebody knows that there is something to look at.
    look: Arc<Notify>,
    /// What the last look found, for whoever shows it.
    glances: watch::Sender<Option<Arc<Glance>>>,
    /// This session only catches up with a copy that was just made: the request for it is being worked on.
    fenced: bool,
    /// Kinds of dead letters that were found and not understood.
    left_alone: BTreeSet<String>,
    reconciled: Instant,
    /// Whether it is time to ask who used Open WebUI.
    active: Watch,
    scheduled: Option<Instant>,
}

impl Housekeeper {
    pub(super) async fn new(
        daemon: Arc<Daemon>,
        orders: mpsc::Sender<Order>,
        work: Desk,
        look: Arc<Notify>,
        glances: watch::Sender<Option<Arc<Glance>>>,
        active: Watch,
        fenced: bool,
    ) -> Result<Self> {
        let target = Target::open(&daemon.config).await?;
        // Whoever has Open WebUI's tables locked is waited for elsewhere.
        target.wait_for_locks_briefly().await?;
        Ok(Self {
            daemon,
            target,
            orders,
            work,
            look,
            glances,
            fenced,
            left_alone: BTreeSet::new(),
            reconciled: Instant::now(),
            active,
            scheduled: None,
        })
    }

    /// Looks until cancelled, or until the session has to end: for a pause, for a copy, for a link that is gone.
    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<()> {
        let mut patience = Duration::ZERO;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(patience) => {}
                () = async { self.look.notified().await; tokio::time::sleep(CALM).await } => {}
            }
            let glance = match self.glance().await {
                // Between two batches.
                Err(paused @ Error::Paused { .. }) => {
                    self.order(Order::End(paused));
                    patience = SOON;
                    continue;
                }
                other => other?,
            };
            if glance.is_requested && !self.fenced && !self.work.is_busy() {
                self.meet_request().await?;
            }
            match self.follow(&glance).await {
                // The server answers: what it will not do now is found again, and no look ends the stream.
                Err(error) if error.sqlstate().is_some() => {
                    tracing::debug!(
                        error = error_chain(&error),
                        "something to be done by the clock is put off"
                    );
                }
                done => done?,
            }
            let is_waiting = self.daemon.progress.status().state == State::Waiting;
            patience = if glance.expires_soon || is_waiting { SOON } else { INTERVAL };
            self.glances.send_replace(Some(Arc::new(glance)));
        }
    }

    async fn glance(&mut self) -> Result<Glance> {
        let Daemon { progress, board, instance, .. } = &*self.daemon;
        let status = progress.status();
        let layout = board.facts().servers.layout.as_ref().map(Layout::describe);
        let beat = Beat { instance: *instance, state: status.state.name(), reason: status.reason, layout };
        let begun = Instant::now();
        let is_due = progress.status().state == State::Streaming && self.active.is_due();
        let people = is_due.then(|| self.active.second());
        let question = heartbeat::glance(&self.target, &beat, SystemTime::now(), people);
        let glance = match soon(progress, Side::Target, "look what there is to do", question).await {
            Err(error) if is_due && error.sqlstate().is_some() => {
                // About Open WebUI's own table: everything else is looked for all the same.
                let question = heartbeat::glance(&self.target, &beat, SystemTime::now(), None);
                soon(progress, Side::Target, "look what there is to do", question).await?
            }
            other => other?,
        };
        if is_due {
            self.active.took(begun.elapsed());
        }
        progress.beats();
        Ok(glance)
    }

    /// It is a look beside the stream first. For what became a copy the session ends, between two batches: the next one begins
    /// with it.
    async fn meet_request(&mut self) -> Result<()> {
        let Some(pending) = request::pending(&self.target).await? else { return Ok(()) };
        if self.daemon.progress.copies.is_escalated(pending.id()) {
            self.order(Order::End(Error::Resnapshot));
        } else if self.daemon.progress.status().state == State::Streaming {
            self.work.begin(Work::Look(pending));
        }
        Ok(())
    }

    async fn follow(&mut self, glance: &Glance) -> Result<()> {
        let daemon = Arc::clone(&self.daemon);
        let Daemon { config, progress, .. } = &*daemon;
        match progress.status().state {
            State::Waiting => {
                self.order(Order::FindProjection);
                return Ok(());
            }
            State::Streaming => {}
            _ => return Ok(()),
        }
        if glance.has_expired {
            self.order(Order::ExpireKeys);
        }
        if glance.has_letters {
            let due = failures::due(&self.target).await?;
            for kind in due.unknown {
                // Said once a session: it stays as it is, and is due for ever.
                if self.left_alone.insert(kind.clone()) {
                    tracing::warn!(kind, "dead letters of a kind this program does not know are left alone");
                }
            }
            let mut touched = Touched::default();
            for (kind, key) in due.letters {
                touched.try_again(kind, key);
            }
            if !touched.is_empty() || touched.has_rights() {
                self.order(Order::Project(touched, None));
            }
        }
        if self.reconciled.elapsed() > RECONCILE && self.work.begin(Work::Reconcile) {
            self.reconciled = Instant::now();
        }
        let ask = glance.may_verify || self.scheduled.is_none_or(|at| at.elapsed() > SCHEDULE);
        if ask && !self.fenced && progress.lag() <= BEHIND {
            self.scheduled = Some(Instant::now());
            verify::ask_on_schedule(&self.target, &config.policy.verify).await?;
        }
        Ok(())
    }

    /// Where the applier still has one to do, it is found again at the next look.
    fn order(&self, order: Order) {
        let _ = self.orders.try_send(order);
    }
}
