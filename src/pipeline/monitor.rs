//! Watches the slot and the publication from outside the stream.
//!
//! PostgreSQL 18 skips a missing publication silently, a column dropped and added again leaves no
//! row in the stream, and an invalidated slot ends it like a shutdown: the catalogs tell.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Daemon;
use crate::error::{Error, Result};
use crate::source::Source;
use crate::source::publication::columns_fingerprint;
use crate::status::SlotReport;

const SLOT_INTERVAL: Duration = Duration::from_secs(2);
/// How many looks at the slot to one at the publication and the tables.
const TABLES_EVERY: u32 = 5;

fn keeps_too_much(daemon: &Daemon, retained_bytes: i64) -> bool {
    let limit = daemon.config.policy.source.max_retained_wal;
    limit > 0 && u64::try_from(retained_bytes).unwrap_or_default() > limit
}

/// Drops our slot if LiteLLM's server keeps too much WAL for it: LiteLLM's disk matters more than a second copy
/// (DESIGN invariant 7). For a daemon that led before, between two attempts; the next one finds the slot gone, and copies.
pub(super) async fn release_wal(daemon: &Daemon) -> Result<()> {
    let config = &daemon.config;
    let source = Source::open(config).await?;
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
        "dropped the slot: it kept more WAL on LiteLLM's server than source.max_retained_wal; everything is copied again \
         once Open WebUI's database takes it"
    );
    Ok(())
}

pub(super) struct Monitor {
    daemon: Arc<Daemon>,
    source: Source,
    fingerprint: String,
}

impl Monitor {
    pub(super) fn new(daemon: Arc<Daemon>, source: Source, fingerprint: String) -> Self {
        Self { daemon, source, fingerprint }
    }

    pub(super) async fn run(self, cancel: CancellationToken) -> Result<()> {
        let mut tick = tokio::time::interval(SLOT_INTERVAL);
        let mut looks = 0_u32;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                _ = tick.tick() => {}
            }
            self.look_at_slot().await?;
            looks += 1;
            if looks.is_multiple_of(TABLES_EVERY) {
                self.look_at_tables().await?;
            }
        }
    }

    async fn look_at_slot(&self) -> Result<()> {
        let Daemon { config, metrics, progress, board, .. } = &*self.daemon;
        let Some(slot) = self.source.slot(&config.slot).await? else {
            metrics.set_slot_status("missing");
            return Ok(());
        };
        progress.set_source_wal_end(slot.wal_end);
        metrics.slot_retained_bytes.set(slot.retained_bytes);
        #[expect(clippy::cast_precision_loss, reason = "a gauge of bytes needs no more than 53 bits")]
        metrics.slot_safe_wal_bytes.set(slot.safe_wal_size.map_or(f64::INFINITY, |bytes| bytes as f64));
        metrics.set_slot_status(slot.wal_status.as_deref().unwrap_or("missing"));
        // The session has to end before the slot can be dropped.
        let retained_bytes = slot.retained_bytes;
        board.set_slot(SlotReport::new(&config.slot, slot));
        if keeps_too_much(&self.daemon, retained_bytes) {
            return Err(Error::TooMuchWal { bytes: retained_bytes });
        }
        Ok(())
    }

    async fn look_at_tables(&self) -> Result<()> {
        let config = &self.daemon.config;
        let tables = self.source.tables(config).await?;
        let publication = self.source.publication(config).await?;
        let repair = Source::publication_repair(config, publication.as_ref(), &tables)?;
        let now = columns_fingerprint(&tables, &publication.unwrap_or_default());
        if repair.is_some() || now != self.fingerprint {
            return Err(Error::SourceChanged);
        }
        Ok(())
    }
}
