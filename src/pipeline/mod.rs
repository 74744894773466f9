//! Wires the stages together: what the tasks of the daemon share, and which of them run side by side.
//!
//! Owns the order of things. Contains no SQL and parses no bytes.
//!
//! `supervise` makes attempts, one after the other; `lead` is one of them, up to the moment when the stream begins. Then
//! three tasks do the work: `receive` (source → decode → stage), `apply` (mirror → project → checkpoint) and `monitor` (the
//! slot and the publication). They share one thread; what may take long runs on others ([`Daemon::aside`]). The first to
//! end ends the session; nothing held in memory outlives it, because the checkpoint says where to go on.

mod apply;
mod attend;
mod beside;
mod glances;
mod housekeeping;
mod lead;
mod looks;
mod models;
mod monitor;
mod own;
mod pieces;
pub mod poll;
mod projection;
mod pulse;
mod receive;
mod returning;
mod short;
mod show;
mod since;
mod statistics;
mod supervise;
mod tend;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::budgets::Budgets;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::observe::board::Board;
use crate::observe::metrics::Metrics;
use crate::observe::progress::{Progress, State};
use crate::position::Lsn;
use crate::source::overlap::Overlap;
use crate::source::session::Session;
use crate::source::{Source, SourceTable};
use crate::stage::budget::Moves;
use crate::stage::signatures::Signatures;
use crate::target::Target;
use crate::target::checkpoint::Checkpoint;

/// What every task of the daemon shares.
#[derive(Debug)]
pub struct Daemon {
    pub config: Config,
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub budgets: Arc<Budgets>,
    pub board: Arc<Board>,
    /// This process, for `status` and for telling sessions apart.
    pub instance: uuid::Uuid,
    /// Where whatever runs that the stream must not wait for.
    pub aside: Handle,
    /// Drop rows that say nothing new before they cost a round trip. On unless a test says otherwise.
    pub remember_rows: bool,
}

/// A leader whose stream has begun.
struct Leader {
    source: Source,
    target: Target,
    session: Session,
    signatures: Option<Signatures>,
    known: Checkpoint,
    epoch: i64,
    tables: BTreeMap<String, SourceTable>,
    /// Where a copy that was just made is to be merged: this session only catches up with it.
    fence: Option<Lsn>,
    overlap: Option<Overlap>,
    budgets: Moves,
}

impl Daemon {
    /// Runs the tasks of a leader until the first of them ends; the error is why. Without one, all was drained.
    async fn stream(self: &Arc<Self>, leader: Leader, cancel: &CancellationToken) -> Result<()> {
        let Leader { source, target, session, signatures, known, epoch, tables, fence, overlap, budgets } =
            leader;
        let config = &self.config;
        let linger = self.progress.status().state == State::Braked;
        let (parts, received) = mpsc::channel(1);
        let (acknowledge, committed) = watch::channel(known.end_lsn);
        let (answers, answered) = watch::channel(None);
        let again = Arc::new(Notify::new());
        let polled = models::Polled::new(answered, Arc::clone(&again));
        let (orders, look, ordered) = own::Orders::channel();
        let (glances, glanced) = watch::channel(None);
        let applier =
            apply::Applier::new(Arc::clone(self), target, &known, epoch, acknowledge, polled, ordered)
                .fenced(fence.is_some())
                .saying(budgets);
        let (holds, held) = mpsc::channel(1);
        let endpoint = source.endpoint.clone();
        let watcher = monitor::Monitor::new(Arc::clone(self), source, known.columns_fingerprint, &tables);
        let beside = beside::Beside::new(Arc::clone(self), endpoint.clone(), tables, orders.clone(), holds);
        let active = returning::Watch::default();
        let returning = returning::Returning::new(active.clone());
        let tend = tend::Tend::new(Arc::clone(self), orders.clone(), returning);
        let housekeeper = housekeeping::Housekeeper::new(
            Arc::clone(self),
            orders,
            beside.work(),
            look,
            glances,
            active,
            fence.is_some(),
        )
        .await?;
        let limits =
            crate::stage::Limits { rows: config.policy.batch.changes, bytes: config.policy.batch.bytes };
        let receiver =
            receive::Receiver::new(Arc::clone(self), session, signatures, limits, parts, committed, linger)
                .holding(held)
                .stop_at(fence)
                .comparing(overlap);
        let mut tasks = JoinSet::new();
        tasks.spawn(receiver.run(cancel.clone()));
        tasks.spawn(applier.run(received));
        tasks.spawn(watcher.run(cancel.clone()));
        tasks.spawn(housekeeper.run(cancel.clone()));
        let tend = glances::run(Arc::clone(self), glanced.clone(), tend, cancel.clone());
        let show = glances::run(Arc::clone(self), glanced, show::Show::new(Arc::clone(self)), cancel.clone());
        self.spawn_aside(&mut tasks, async move {
            tokio::join!(show, tend);
        });
        self.spawn_aside(&mut tasks, beside.run(cancel.clone()));
        self.spawn_aside(&mut tasks, looks::run(Arc::clone(self), endpoint, cancel.clone()));
        if let Some(api) = config.models_api.clone() {
            let period = Duration::from_secs(config.policy.models.poll_seconds);
            let poll = poll::run(api, period, Arc::clone(&self.metrics), answers, again, cancel.clone());
            self.spawn_aside(&mut tasks, poll);
        }
        let mut outcome = Ok(());
        while let Some(ended) = first_ended(&mut tasks, outcome.is_ok()).await {
            match ended {
                // While draining, everybody ends by itself.
                Ok(Ok(())) if cancel.is_cancelled() => {}
                // Somebody's end ended this one: the reason is still to come.
                Ok(Ok(())) => outcome = Err(Error::Superseded),
                Ok(Err(error)) => {
                    outcome = Err(error);
                    break;
                }
                Err(panic) => std::panic::resume_unwind(panic.into_panic()),
            }
        }
        tasks.shutdown().await;
        outcome
    }

    /// Runs beside the stream what ends only with it.
    fn spawn_aside(&self, tasks: &mut JoinSet<Result<()>>, work: impl Future<Output = ()> + Send + 'static) {
        let work = async move {
            work.await;
            Ok(())
        };
        tasks.spawn_on(work, &self.aside);
    }
}

/// The next task to end; once one has ended, the others are not waited for long.
async fn first_ended<T: 'static>(
    tasks: &mut JoinSet<T>,
    patiently: bool,
) -> Option<std::result::Result<T, tokio::task::JoinError>> {
    if patiently {
        return tasks.join_next().await;
    }
    tokio::time::timeout(Duration::from_millis(500), tasks.join_next()).await.ok().flatten()
}
