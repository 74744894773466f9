//! Watches the slot and the publication from outside the stream.
//!
//! PostgreSQL 18 skips a missing publication silently, a column dropped and added again leaves no
//! row in the stream, and an invalidated slot ends it like a shutdown: the catalogs tell.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::Daemon;
use crate::budgets::load::Namer;
use crate::error::{Error, Result};
use crate::metrics::{Publication, WalRate};
use crate::postgres::{self, error_chain};
use crate::source::Source;
use crate::source::publication::columns_fingerprint;

const SLOT_INTERVAL: Duration = Duration::from_secs(2);
/// How many looks at the slot to one at the publication and the tables.
const TABLES_EVERY: u32 = 5;
/// How many to one at the certificates: a server that read a new one shows it to new connections only.
const CERTIFICATES_EVERY: u32 = 1800;

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
    wal_rate: WalRate,
    namer: Namer,
}

impl Monitor {
    pub(super) fn new(daemon: Arc<Daemon>, source: Source, fingerprint: String) -> Self {
        Self { daemon, source, fingerprint, wal_rate: WalRate::default(), namer: Namer::default() }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) -> Result<()> {
        let mut tick = tokio::time::interval(SLOT_INTERVAL);
        let mut looks = 0_u32;
        loop {
            tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                _ = tick.tick() => {}
            }
            self.look_at_slot().await?;
            self.look_at_budgets().await;
            if looks.is_multiple_of(CERTIFICATES_EVERY) {
                self.look_at_certificates().await;
            }
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(TABLES_EVERY) {
                self.look_at_tables().await?;
            }
        }
    }

    async fn look_at_slot(&mut self) -> Result<()> {
        let Daemon { config, metrics, progress, .. } = &*self.daemon;
        let Some(slot) = self.source.slot(&config.slot).await? else {
            metrics.set_slot_status("missing");
            return Ok(());
        };
        progress.set_source_wal_end(slot.wal_end);
        metrics.set_slot(&slot, self.wal_rate.see(slot.wal_end, Instant::now()));
        // The session has to end before the slot can be dropped.
        if keeps_too_much(&self.daemon, slot.retained_bytes) {
            return Err(Error::TooMuchWal { bytes: slot.retained_bytes });
        }
        Ok(())
    }

    /// Looks the names of shown budgets up. They are for looking at: that it fails is nobody's end.
    async fn look_at_budgets(&mut self) {
        let Daemon { config, budgets, .. } = &*self.daemon;
        if let Err(error) = self.namer.look(budgets, &self.source, config).await {
            tracing::debug!(error = error_chain(&error), "could not look up whose budgets are shown");
        }
    }

    /// They are for looking at as well, and whether a connection can be had is for others to say.
    async fn look_at_certificates(&self) {
        let Daemon { config, metrics, .. } = &*self.daemon;
        for (side, endpoint) in [("source", &config.source), ("target", &config.target)] {
            match postgres::connect(endpoint, "litellm-webui-sync", &[]).await {
                Ok(connection) => {
                    metrics.set_certificates(side, connection.certificates);
                    connection.close().await;
                }
                Err(error) => {
                    tracing::debug!(error = error_chain(&error), side, "could not look at the certificates");
                }
            }
        }
    }

    async fn look_at_tables(&self) -> Result<()> {
        let config = &self.daemon.config;
        self.daemon.metrics.set_failover(self.source.failover_synced(&config.slot).await?);
        let tables = self.source.tables(config).await?;
        let publication = self.source.publication(config).await?;
        let changed = if publication.is_none() { Publication::Missing } else { Publication::Changed };
        let repair = Source::publication_repair(config, publication.as_ref(), &tables)
            .inspect_err(|_| self.daemon.metrics.set_publication(changed))?;
        let now = columns_fingerprint(&tables, &publication.unwrap_or_default());
        if repair.is_some() || now != self.fingerprint {
            self.daemon.metrics.set_publication(changed);
            return Err(Error::SourceChanged);
        }
        Ok(())
    }
}
