//! Watches the slot, the publication and the link to LiteLLM's server from outside the stream.
//!
//! PostgreSQL 18 skips a missing publication silently, a column dropped and added again leaves no
//! row in the stream, and an invalidated slot ends it like a shutdown: the catalogs tell. A link that was cut
//! without a word looks like a slow statement: a question that costs nothing tells.
//!
//! Owns when a change of the tables is over. Ends the session where it must; a table that was only rewritten becomes a request for a look.
//! Touches no mirror and no row of Open WebUI's. Contains no SQL.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Daemon;
use crate::copy::request;
use crate::error::{Error, Result, Side};
use crate::observe::metrics::{Publication, WalRate};
use crate::observe::progress::Progress;
use crate::observe::status::SlotReport;
use crate::source::publication::columns_fingerprint;
use crate::source::start::UPGRADED;
use crate::source::{SlotState, Source, SourceTable};
use crate::target::Target;

/// How often LiteLLM's server is asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same while its tables are being changed.
const BURST_INTERVAL: Duration = Duration::from_secs(2);
/// How often the tables and the publication are read in full although nothing about them seems to have moved.
const TABLES: Duration = Duration::from_secs(60);
/// How long either side may take to answer the simplest question. With the time between two it is less than WAL_SENDER_TIMEOUT:
/// a leader that lost either side lets go before its slot is taken from it.
const LINK_PATIENCE: Duration = Duration::from_secs(8);

/// How long LiteLLM's tables stay as they are before they are copied: as long as they were being changed, within these.
const CALM_MIN: Duration = Duration::from_secs(5);
const CALM_MAX: Duration = Duration::from_secs(60);
/// Nothing is waited for longer: an index that is built for hours, or a lock that somebody forgot, would keep new columns from
/// being read for as long.
const BURST_MAX: Duration = Duration::from_secs(15 * 60);

fn keeps_too_much(daemon: &Daemon, retained_bytes: i64) -> bool {
    let limit = daemon.config.policy.source.max_retained_wal;
    limit > 0 && u64::try_from(retained_bytes).unwrap_or_default() > limit
}

/// Drops our slot if LiteLLM's server keeps too much WAL for it: LiteLLM's disk matters more than a second copy
/// (docs/src/design.md, "Invariants"). For a daemon that led before, between two attempts; the next one finds the slot gone, and copies.
pub(super) async fn release_wal(daemon: &Daemon) -> Result<()> {
    let config = &daemon.config;
    let source = Source::open_since(config, daemon.progress.timeline()).await?;
    let Some(slot) = source.slot(&config.slot).await? else { return Ok(()) };
    daemon.progress.set_source_wal_end(slot.wal_end);
    daemon.metrics.slot_retained_bytes.set(slot.retained_bytes);
    daemon.board.set_slot(SlotReport::new(&config.slot, slot.clone()));
    // In use: whoever follows it looks after it.
    if slot.active || !keeps_too_much(daemon, slot.retained_bytes) {
        return Ok(());
    }
    source.drop_slot(&config.slot).await?;
    daemon.metrics.set_slot_status("missing");
    tracing::error!(
        retained_bytes = slot.retained_bytes,
        "dropped the slot: it kept more WAL on LiteLLM's server than source.max_retained_wal"
    );
    Ok(())
}

pub(super) struct Monitor {
    daemon: Arc<Daemon>,
    source: Source,
    /// What the mirror was made with.
    fingerprint: String,
    /// Of LiteLLM's tables, as they were last noted.
    files: BTreeMap<String, u32>,
    /// Changes of tables that are going on.
    burst: Option<Burst>,
    wal_rate: WalRate,
}

/// LiteLLM's tables are being changed. An upgrade changes one after the other for as long as it takes, with index builds and
/// pauses in between, and one copy is enough for all of it.
#[derive(Debug)]
struct Burst {
    began: Instant,
    /// When the last change was seen.
    last: Instant,
    /// How all tables of the schema looked then.
    shape: Option<String>,
}

impl Burst {
    /// Whether nothing has moved for as long as it lasted, at `now`; or for how long it lasts already.
    fn is_over(&self, now: Instant) -> bool {
        let calm = now - self.last >= (self.last - self.began).clamp(CALM_MIN, CALM_MAX);
        calm || now - self.began >= BURST_MAX
    }
}

impl Monitor {
    pub(super) fn new(
        daemon: Arc<Daemon>,
        source: Source,
        fingerprint: String,
        tables: &BTreeMap<String, SourceTable>,
    ) -> Self {
        let files = files(tables);
        Self { daemon, source, fingerprint, files, burst: None, wal_rate: WalRate::default() }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<()> {
        // When the tables were last read in full, and what the glance said of them then.
        let mut read: Option<(Instant, String)> = None;
        let mut patience = Duration::ZERO;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                () = tokio::time::sleep(patience) => {}
            }
            let progress = Arc::clone(&self.daemon.progress);
            let question = self.source.glance(&self.daemon.config);
            let (slot, moved) = soon(&progress, Side::Source, "look at the slot", question).await?;
            self.look_at_slot(slot)?;
            let is_known = read.as_ref().is_some_and(|(at, then)| *then == moved && at.elapsed() < TABLES);
            if !is_known || self.burst.is_some() {
                match self.look_at_tables().await {
                    // Somebody has a catalog locked, or what is noted of it: put off.
                    Err(error) if error.sqlstate() == Some("55P03") => {}
                    looked => {
                        looked?;
                        read = Some((Instant::now(), moved));
                    }
                }
            }
            patience = if self.burst.is_some() { BURST_INTERVAL } else { INTERVAL };
        }
    }

    fn look_at_slot(&mut self, slot: Option<SlotState>) -> Result<()> {
        let Daemon { metrics, progress, board, config, .. } = &*self.daemon;
        let Some(slot) = slot else {
            metrics.set_slot_status("missing");
            return Ok(());
        };
        progress.set_source_wal_end(slot.wal_end);
        metrics.set_slot(&slot, self.wal_rate.see(slot.wal_end, Instant::now()));
        // Nobody can move it while we hold it, but somebody may have between our last look and the start of the stream.
        if slot.confirmed_flush_lsn.is_some_and(|confirmed| confirmed > progress.checkpoint()) {
            return Err(Error::SlotAhead);
        }
        // The session has to end before the slot can be dropped.
        let retained_bytes = slot.retained_bytes;
        board.set_slot(SlotReport::new(&config.slot, slot));
        if keeps_too_much(&self.daemon, retained_bytes) {
            return Err(Error::TooMuchWal { bytes: retained_bytes });
        }
        Ok(())
    }

    async fn look_at_tables(&mut self) -> Result<()> {
        let config = &self.daemon.config;
        self.daemon.metrics.set_failover(self.source.failover_synced(&config.slot).await?);
        let tables = self.source.tables(config).await?;
        let publication = self.source.publication(config).await?;
        let changed = if publication.is_none() { Publication::Missing } else { Publication::Changed };
        let repair = Source::publication_repair(config, publication.as_ref(), &tables)
            .inspect_err(|_| self.daemon.metrics.set_publication(changed))?;
        let fingerprint = columns_fingerprint(&tables, &publication.unwrap_or_default());
        let same = fingerprint == self.fingerprint;
        let files = files(&tables);
        let rewritten = files != self.files;
        if repair.is_none() && same && !rewritten {
            self.burst = None;
            self.daemon.metrics.set_publication(Publication::Ok);
            return Ok(());
        }
        self.daemon.metrics.set_publication(changed);
        // LiteLLM cannot write for as long as such a table is published.
        if repair.as_ref().is_some_and(|repair| repair.is_urgent) {
            return Err(Error::SourceChanged);
        }
        let (shape, busy) = self.source.ddl(config).await?;
        let now = Instant::now();
        let burst = self.burst.get_or_insert(Burst { began: now, last: now, shape: None });
        if busy || burst.shape != shape {
            (burst.last, burst.shape) = (now, shape);
        }
        if !burst.is_over(now) {
            return Ok(());
        }
        if repair.is_none() && same {
            // One more or fewer that is not published: whoever looks beside the stream has to know which there are.
            if !files.keys().eq(self.files.keys()) {
                return Err(Error::SourceChanged);
            }
            // The rows are others, and the stream goes on with whatever it is at: a batch that takes long is not begun again.
            let note = async {
                let target = Target::open(config).await?;
                target.wait_for_locks_briefly().await?;
                request::look_at_files(&target, &tables, config.policy.verify.repair, false).await
            };
            soon(&self.daemon.progress, Side::Target, "note the files of LiteLLM's tables", note).await?;
            self.files = files;
            self.burst = None;
            self.daemon.metrics.set_publication(Publication::Ok);
            return Ok(());
        }
        // Kept with the checkpoint: from here on it is not asked again whether somebody is at it.
        let because = repair.map_or_else(|| UPGRADED.to_owned(), |repair| repair.because());
        Err(Error::Upgraded { because })
    }
}

/// The file of each of LiteLLM's tables: another one means that its rows were written anew, which the stream does not tell.
fn files(tables: &BTreeMap<String, SourceTable>) -> BTreeMap<String, u32> {
    tables.iter().map(|(name, table)| (name.clone(), table.filenode)).collect()
}

/// A link that does not answer soon counts as cut.
pub(super) async fn soon<T>(
    progress: &Progress,
    side: Side,
    action: &'static str,
    question: impl Future<Output = Result<T>>,
) -> Result<T> {
    let silent = Error::Silent { side, action, seconds: LINK_PATIENCE.as_secs() };
    let answer = tokio::time::timeout(LINK_PATIENCE, question).await.unwrap_or(Err(silent));
    if answer.is_ok() {
        progress.heard(side);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_over_when_it_was_calm_for_as_long_as_it_lasted() {
        let began = Instant::now();
        let at = |seconds: u64| began + Duration::from_secs(seconds);
        for (lasted, calm) in [(0, 5), (3, 5), (20, 20), (60, 60), (600, 60)] {
            let burst = Burst { began, last: at(lasted), shape: None };
            assert!(!burst.is_over(at(lasted + calm - 1)), "{lasted}");
            assert!(burst.is_over(at(lasted + calm)), "{lasted}");
        }
        let forgotten = Burst { began, last: at(14 * 60), shape: None };
        assert!(!forgotten.is_over(at(14 * 60)));
        let forgotten = Burst { last: at(15 * 60), ..forgotten };
        assert!(forgotten.is_over(at(15 * 60)), "somebody is still at it");
    }
}
