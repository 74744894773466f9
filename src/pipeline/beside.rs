//! Looks at everything, beside the stream: a verify, and the reconcile.
//!
//! Owns the order of a look: freeze both ends, compare LiteLLM's rows with the mirror, then Open WebUI's with what they should be; and
//! that what differs is mended by the applier, in batches of its own, or becomes a copy where it is too much. The looks
//! themselves are [`crate::copy`]'s. Whatever goes wrong in one ends nothing: it is put off. Contains no SQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::Daemon;
use super::own::Order;
use super::projection::made_with;
use crate::budgets::{self, load};
use crate::catalog::TableId;
use crate::config::Endpoint;
use crate::copy::compare::{self, Mend};
use crate::copy::register::CopyPhase;
use crate::copy::request::{self, Pending};
use crate::copy::still::{self, Frozen, Hold};
use crate::copy::sweep::{Differences, Slice, Sweep};
use crate::copy::verify::{self, Difference, Drifts};
use crate::error::{Error, Result};
use crate::failpoint;
use crate::position::Lsn;
use crate::postgres::error_chain;
use crate::project::Projection;
use crate::project::models::Rules;
use crate::project::touched::Touched;
use crate::source::{Source, SourceTable};
use crate::stage::Part;
use crate::stage::budget::Crossing;
use crate::target::Target;
use crate::target::audit;
use crate::target::brake;
use crate::target::checkpoint;
use crate::target::layout;
use crate::target::open_webui;

/// What there is to look at.
#[derive(Debug)]
pub(super) enum Work {
    Look(Pending),
    Reconcile,
}

/// Where work is left.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    given: mpsc::Sender<Work>,
    is_busy: Arc<AtomicBool>,
}

impl Desk {
    pub(super) fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Acquire)
    }

    /// Whether it is begun: there is only one look at a time.
    pub(super) fn begin(&self, work: Work) -> bool {
        if self.is_busy.swap(true, Ordering::AcqRel) {
            return false;
        }
        self.given.try_send(work).is_ok()
    }
}

pub(super) struct Beside {
    daemon: Arc<Daemon>,
    /// The very server that is followed.
    endpoint: Endpoint,
    tables: BTreeMap<String, SourceTable>,
    orders: mpsc::Sender<Order>,
    holds: mpsc::Sender<Hold>,
    desk: Desk,
    work: mpsc::Receiver<Work>,
}

impl Beside {
    pub(super) fn new(
        daemon: Arc<Daemon>,
        endpoint: Endpoint,
        tables: BTreeMap<String, SourceTable>,
        orders: mpsc::Sender<Order>,
        holds: mpsc::Sender<Hold>,
    ) -> Self {
        let (given, work) = mpsc::channel(1);
        let desk = Desk { given, is_busy: Arc::default() };
        Self { daemon, endpoint, tables, orders, holds, desk, work }
    }

    /// Where to leave work.
    pub(super) fn work(&self) -> Desk {
        self.desk.clone()
    }

    /// Looks at what it is given until cancelled.
    pub(super) async fn run(mut self, cancel: CancellationToken) {
        loop {
            let work = tokio::select! {
                () = cancel.cancelled() => return,
                work = self.work.recv() => work,
            };
            let Some(work) = work else { return };
            let look = async {
                match work {
                    Work::Look(pending) => self.look(&pending).await,
                    Work::Reconcile => {
                        let done = self.reconcile().await;
                        self.daemon.metrics.looked("reconcile", &done);
                        if let Err(error) = done {
                            tracing::warn!(
                                error = error_chain(&error),
                                "a reconcile came to nothing; it is tried again"
                            );
                        }
                    }
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = look => {}
            }
            self.desk.is_busy.store(false, Ordering::Release);
        }
    }

    /// A look that was asked for, by somebody or by the schedule.
    async fn look(&self, pending: &Pending) {
        let Daemon { config, progress, metrics, .. } = &*self.daemon;
        let (id, reason) = (pending.id(), pending.reason());
        tracing::info!(
            request = id,
            mends = pending.mends(),
            reason,
            "looking at everything beside the stream"
        );
        let scope = TableId::mirrored().filter(|id| self.concerns(pending, *id)).count();
        progress.copies.begin(pending.kind(), reason, scope, 0);
        let notes = match Target::open(config).await {
            Ok(notes) => notes,
            Err(error) => {
                tracing::warn!(error = error_chain(&error), "could not look");
                metrics.looked("verify", &Err(error));
                return progress.copies.end(false);
            }
        };
        let looked = self.look_and_note(pending, &notes).await;
        progress.copies.end(matches!(looked, Ok(true)));
        metrics.looked("verify", &looked);
        if !matches!(looked, Ok(true)) {
            // Nobody has to remember any more what the stream changed since.
            let (done, is_done) = oneshot::channel();
            let _ = self.orders.send(Order::Mend(Vec::new(), done)).await;
            let _ = is_done.await;
        }
        if let Err(error) = looked {
            let reason = error_chain(&error);
            tracing::warn!(reason, request = id, "a look came to nothing; it is put off");
            if let Err(error) = request::put_off(&notes, id, "waiting", &reason, false).await {
                tracing::warn!(error = error_chain(&error), request = id, "a look could not even be put off");
            }
        }
    }

    fn concerns(&self, pending: &Pending, id: TableId) -> bool {
        pending.concerns(id) && self.tables.contains_key(id.table().source)
    }

    /// `false`: it became a copy, or is held.
    async fn look_and_note(&self, pending: &Pending, notes: &Target) -> Result<bool> {
        let Daemon { config, progress, metrics, .. } = &*self.daemon;
        let id = pending.id();
        request::progress(notes, id, "making a snapshot", None).await?;
        let source = Source::open_at(&self.endpoint).await?;
        let frozen = still::freeze(config, &source, &self.tables, self.daemon.instance, &self.holds).await?;
        let point = frozen.point;
        request::progress(notes, id, "comparing", None).await?;
        let scope: Vec<TableId> = TableId::mirrored().filter(|id| self.concerns(pending, *id)).collect();
        // What follows from all of LiteLLM's rows is only looked at with all of them.
        let with_budgets = scope.len()
            == TableId::mirrored().filter(|id| self.tables.contains_key(id.table().source)).count();
        let mut loaded = load::nothing(config);
        let read = async {
            let rows = compare::read(config, &frozen, &self.tables, &scope, &progress.copies).await?;
            if with_budgets {
                load::read_at(&frozen.reader, config, &self.tables, &mut loaded).await?;
            }
            Ok(rows)
        };
        let rows = frozen.reader.giving_way(&source, read).await?;
        let Frozen { target, reader, .. } = frozen;
        drop(reader);
        let found = compare::compare(&target, &scope).await?;
        let budgets = if with_budgets { Some(load::stored(&target).await?) } else { None };
        let (crossings, customers) =
            budgets.as_ref().map(|stored| load::compare(loaded, stored)).unwrap_or_default();
        if pending.mends()
            && let Some(stored) = &budgets
            && !(crossings.is_empty() && customers.is_empty())
        {
            self.daemon.budgets.correct(stored);
        }
        drop(target);
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        request::progress(notes, id, "comparing", Some(rows)).await?;
        if found.is_much {
            tracing::warn!(
                rows = found.count(),
                "the mirror differs in too many rows to mend each: they are copied"
            );
            progress.copies.escalate(id);
            return Ok(false);
        }
        progress.copies.phase(CopyPhase::Merging);
        let part = (!found.mend.is_empty()).then(|| Part::of_rows(found.mend.clone().into_iter()));
        let sweep = self.sweep(pending.mends(), point, part.as_ref(), Some(found.mend));
        let Some(webui) = sweep.await? else {
            tracing::warn!(
                "mending it takes something from too many people at once for a look: it becomes a copy"
            );
            progress.copies.escalate(id);
            return Ok(false);
        };
        failpoint::hit(failpoint::MENDED_NOT_FINISHED)?;
        if webui.left_out > 0 {
            let reason = format!(
                "the stream changed {} of the rows meanwhile: they are looked at again",
                webui.left_out
            );
            request::put_off(notes, id, "waiting", &reason, false).await?;
            return Ok(false);
        }
        let mut drifts = Drifts { mirror: found.drift, webui: webui.counts() };
        let by_budget: Vec<Difference> = crossings
            .iter()
            .map(differing_budget)
            .chain(customers.iter().map(|id| differing_chats(id)))
            .collect();
        for one in &by_budget {
            *drifts.webui.entry(one.operation.clone()).or_default() += 1;
        }
        let differences: Vec<Difference> =
            found.differences.into_iter().chain(webui.named()).chain(by_budget).collect();
        verify::keep(notes, id, &differences).await?;
        request::finish(notes, id, point, &drifts).await?;
        if let Some(last) = verify::last_verify(notes).await? {
            metrics.drift.verified(last.at, last.result, last.drifts.rows());
        }
        tracing::info!(request = id, mirror = ?drifts.mirror, webui = ?drifts.webui, lsn = %point, "looked at everything");
        Ok(true)
    }

    /// `false`: it would take something from too many, and is left to a batch.
    async fn reconcile(&self) -> Result<bool> {
        let lsn = self.daemon.progress.checkpoint();
        let is_mended = self.sweep(true, lsn, None, None).await?.is_some();
        if !is_mended {
            // As one batch, which the brake holds.
            self.order(Order::Reconcile).await?;
        }
        let target = Target::open(&self.daemon.config).await?;
        let days = i32::try_from(self.daemon.config.policy.audit.retention_days).unwrap_or(i32::MAX);
        audit::forget_old(&target, days).await?;
        Ok(is_mended)
    }

    /// Open WebUI's rows against what they should be once the mirror has `part`. With `mends`, that is `rows`, and what differs is
    /// mended. `None`: it would take something from too many, and nothing was done.
    async fn sweep(
        &self,
        mends: bool,
        lsn: Lsn,
        part: Option<&Part>,
        rows: Option<Mend>,
    ) -> Result<Option<Differences>> {
        let config = &self.daemon.config;
        let target = Target::open(config).await?;
        let layout = layout::find(&target, config).await?;
        let rules = Rules::find(&target, config, &layout).await?;
        let Some(people) = open_webui::find(&target).await? else { return Err(Error::OpenWebUiChanged) };
        let with = made_with(config, &layout, people, &rules);
        if mends && checkpoint::projected_with(&target).await?.as_ref() != Some(&with) {
            // Open WebUI's connections have got another prefix: everything is projected anew.
            self.order(Order::Reconcile).await?;
        }
        let projection = Projection::new(layout, config.policy.api_keys, rules);
        let mut sweep = Sweep::new(&target, &projection, lsn, part, mends);
        let (mut differences, mut found) = (Differences::default(), Vec::new());
        while let Some(slice) = sweep.next().await? {
            differences.add(&slice);
            if mends {
                found.push(Slice { differences: Vec::new(), ..slice });
            }
        }
        if !mends {
            differences.add(&sweep.shared().await?);
            differences.add(&sweep.shared_emails().await?);
        } else if self.is_too_much(&target, &found).await? {
            return Ok(None);
        }
        if let Some(rows) = rows {
            // Also with nothing to mend: nobody has to remember any more what the stream changed since.
            let rows = if mends { rows } else { Vec::new() };
            let (done, is_done) = oneshot::channel();
            self.orders.send(Order::Mend(rows, done)).await.map_err(|_| Error::Superseded)?;
            differences.left_out = is_done.await.map_err(|_| Error::Superseded)?;
        }
        if mends {
            for slice in found {
                self.project(slice.touched).await?;
            }
            let slice = Sweep::new(&target, &projection, lsn, None, true).shared().await?;
            differences.add(&slice);
            if !slice.is_clean() {
                self.project(slice.touched).await?;
            }
        }
        Ok(Some(differences))
    }

    /// Whether mending all this would take something from more people than one batch may.
    async fn is_too_much(&self, target: &Target, found: &[Slice]) -> Result<bool> {
        let losing = found.iter().map(|slice| slice.outcome.losing()).sum();
        brake::is_too_much(target, &self.daemon.config.policy.brake, losing).await
    }

    async fn project(&self, touched: Touched) -> Result<()> {
        self.order(|done| Order::Project(touched, Some(done))).await
    }

    /// Asks the applier, and waits until it is done.
    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) -> Result<()> {
        let (done, is_done) = oneshot::channel();
        self.orders.send(order(done)).await.map_err(|_| Error::Superseded)?;
        is_done.await.map_err(|_| Error::Superseded)
    }
}

/// What brings `budget_closed` in line.
fn differing_budget(crossing: &Crossing) -> Difference {
    let Crossing { kind, id, team, closed } = crossing;
    let id = match *kind {
        "key" => budgets::short(&budgets::book::hash([id])),
        "team_member" => format!("{team}/{id}"),
        _ => id.clone(),
    };
    let operation = if closed.is_some() { "BUDGET_CLOSED" } else { "BUDGET_OPENED" };
    differing(operation, format!("{kind} {id}"))
}

fn differing_chats(customer: &str) -> Difference {
    differing("CHAT_SPEND", customer.to_owned())
}

fn differing(operation: &str, record: String) -> Difference {
    Difference {
        operation: operation.to_owned(),
        record_id: Some(record),
        result: "SUCCESS".to_owned(),
        old_data: None,
        new_data: None,
    }
}
