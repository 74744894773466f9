//! Every metric the daemon exports, in one struct.
//!
//! Owns names, labels and help texts; nothing else uses the metrics library. Passed in, never global. Whatever is made is
//! registered, and stands in the handbook's table ([`Metrics::markdown`]).

mod drift;
mod make;
mod rate;
mod spend;
mod words;

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use prometheus::{
    Counter, Encoder, Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Registry, TextEncoder,
};

use crate::budgets::Budgets;
use crate::copy::register::CopyPhase;
use crate::mirror::budgets::Crossed;
use crate::observe::progress::{LAG_LIMIT, Progress, State};
use crate::postgres::certificate::Ends;
use crate::project::Outcome;
use crate::project::models::Changes;
use crate::source::SlotState;
use drift::Drift;
pub use make::Described;
use make::Maker;
pub use rate::WalRate;
use spend::Spend;
pub use words::{Publication, Stage};

const PREFIX: &str = "litellm_webui_sync";

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    table: Vec<Described>,
    /// One at a time fills the gauges that are filled anew.
    rendering: Mutex<()>,
    /// The headroom, and when it was found.
    headroom: Mutex<(f64, Instant)>,
    pub ready: IntGauge,
    pub state: GaugeVec,
    pub transactions: IntCounter,
    pub changes: IntCounter,
    pub unchanged_rows: IntCounter,
    pub batches: IntCounter,
    pub batch_changes: Histogram,
    pub batch_seconds: Histogram,
    pub stage_seconds: HistogramVec,
    pub commit_to_visible_seconds: Histogram,
    pub rows_written: IntCounterVec,
    pub buffer_rows: IntGauge,
    pub buffer_bytes: IntGauge,
    pub backpressure: Counter,
    pub failures: IntCounter,
    pub reconnects: IntCounterVec,
    pub sessions: IntCounter,
    pub same_position_restarts: IntGauge,
    pub copies: IntCounter,
    pub copy_phase: IntGaugeVec,
    pub copy_rows: IntGauge,
    pub copy_tables: IntGauge,
    pub copy_tables_done: IntGauge,
    pub last_copy_failed: IntGauge,
    pub last_copy_timestamp: Gauge,
    pub dead_letters: IntGauge,
    pub dead_letters_by_class: IntGaugeVec,
    pub critical_dead_letters: IntGauge,
    pub skipped: IntGauge,
    pub skipped_by_reason: IntGaugeVec,
    pub active_accounts: IntGauge,
    pub layout: IntGaugeVec,
    pub model_polls: IntCounterVec,
    pub looks: IntCounterVec,
    pub put_back: IntCounter,
    pub models: IntGauge,
    pub public_models: IntGauge,
    pub lag_bytes: Gauge,
    pub lag_seconds: Gauge,
    pub checkpoint_position: Gauge,
    pub checkpoint_age: Gauge,
    pub last_message_age_seconds: Gauge,
    pub slot_status: IntGaugeVec,
    pub slot_retained_bytes: IntGauge,
    pub slot_confirmed_lag: Gauge,
    pub slot_restart_position: Gauge,
    pub slot_safe_wal_bytes: Gauge,
    pub slot_headroom: Gauge,
    pub source_wal_rate: Gauge,
    pub failover_synced: IntGaugeVec,
    pub certificate_expiry: IntGaugeVec,
    pub publication: IntGaugeVec,
    pub drift: Drift,
    pub spend: Spend,
}

/// From half a millisecond to ten minutes.
const FAST: [f64; 19] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0,
    300.0, 600.0,
];
const SIZES: [f64; 9] = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10_000.0];

impl Metrics {
    /// # Errors
    /// When two metrics have one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let mut make = Maker::default();
        let about = make.int_gauges("build_info", &["version"], "1 for the version of this program")?;
        about.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let started = make.gauge("process_start_time_seconds", "When this process started (Unix time)")?;
        started.set(unix(SystemTime::now()));
        let ready = make.int_gauge("ready", "1 while /readyz says so")?;
        let state = make.gauges("state", &["state"], "1 for the state the daemon is in")?;
        let transactions =
            make.counter("transactions_total", "LiteLLM transactions applied since this process started")?;
        let changes =
            make.counter("changes_total", "LiteLLM row changes applied since this process started")?;
        let unchanged_rows = make.counter(
            "unchanged_rows_total",
            "Rows of the stream that were dropped early, because nothing that is mirrored had changed",
        )?;
        let batches = make.counter("batches_total", "Batches committed to Open WebUI's database")?;
        let batch_changes = make.histogram("batch_changes", &SIZES, "LiteLLM row changes in a batch")?;
        let batch_seconds =
            make.histogram("batch_seconds", &FAST, "Time from the first statement of a batch to its commit")?;
        let stage_seconds = make.histograms(
            "stage_seconds",
            &["stage"],
            &FAST,
            "Time a batch spent in a stage: decode (what came in for it), mirror, project, commit",
        )?;
        let commit_to_visible_seconds = make.histogram("commit_to_visible_seconds", &FAST, "Time from a commit in LiteLLM's database until it is visible in Open WebUI's (newest of each batch; compares two clocks)")?;
        let rows_written = make.counters(
            "rows_written_total",
            &["table", "operation"],
            "Rows written in Open WebUI, by what and how",
        )?;
        let buffer_rows =
            make.int_gauge("buffer_rows", "Rows that are staged and wait for the batch before them")?;
        let buffer_bytes = make.int_gauge("buffer_bytes", "Memory they take, about")?;
        let backpressure = make.seconds_counter(
            "backpressure_seconds_total",
            "Time in which nothing was read from LiteLLM's server, because a batch was full",
        )?;
        let failures =
            make.counter("failures_total", "Entities that could not be written and became dead letters")?;
        let reconnects = make.counters(
            "reconnects_total",
            &["reason"],
            "Sessions that ended and were begun anew, by cause (SQLSTATE or kind)",
        )?;
        let sessions = make.counter("sessions_total", "Sessions that began to stream")?;
        let same_position_restarts = make.int_gauge(
            "same_position_restarts",
            "Sessions in a row that streamed, and failed before the checkpoint had moved",
        )?;
        let copies = make.counter("copies_total", "Copies of LiteLLM's existing rows that were begun")?;
        let copy_phase = make.int_gauges(
            "copy_phase",
            &["phase"],
            "1 for what a copy is doing: idle, snapshot, copying, catching_up, merging, projecting",
        )?;
        let copy_rows = make.int_gauge("copy_rows", "Rows read by the copy that runs, or ran last")?;
        let copy_tables = make.int_gauge("copy_tables", "Tables it has to read")?;
        let copy_tables_done = make.int_gauge("copy_tables_done", "Tables it has read")?;
        let last_copy_failed = make.int_gauge("last_copy_failed", "1 if the last copy did not end well")?;
        let last_copy_timestamp = make.gauge(
            "last_copy_timestamp_seconds",
            "When a copy last ended well (Unix time); 0 if none did in this process",
        )?;
        let dead_letters = make.int_gauge("dead_letters", "Entities that cannot be written at the moment")?;
        let dead_letters_by_class = make.int_gauges("dead_letters_by_class", &["kind", "class"], "The same by what they are (account, team, …) and why: conflict, constraint, data, limit, permission, other")?;
        let critical_dead_letters = make.int_gauge(
            "critical_dead_letters",
            "Dead letters that leave somebody with more access than LiteLLM gives them",
        )?;
        let skipped = make.int_gauge(
            "skipped_users",
            "LiteLLM users who get no account (no usable e-mail, pseudo users)",
        )?;
        let skipped_by_reason =
            make.int_gauges("skipped_users_by_reason", &["reason"], "The same by reason")?;
        let active_accounts =
            make.int_gauge("active_accounts", "Open WebUI accounts of active LiteLLM users")?;
        let layout = make.int_gauges(
            "layout_info",
            &["layout"],
            "1 for the shape of Open WebUI's tables that was found",
        )?;
        let model_polls = make.counters(
            "model_polls_total",
            &["result"],
            "Questions to LiteLLM's /v1/models, by result (ok, failed)",
        )?;
        let looks = make.counters(
            "looks_total",
            &["look", "result"],
            "Looks at everything beside the stream (verify: asked for or by the schedule; reconcile), by result: ok, put_off (it comes again, or became a copy), failed",
        )?;
        let put_back = make.counter(
            "people_put_back_total",
            "People who missed groups, models or grants after they used Open WebUI, and were given them back",
        )?;
        let models = make.int_gauge("models", "Models LiteLLM serves, as far as known")?;
        let public_models = make
            .int_gauge("public_models", "Models everybody sees in Open WebUI although LiteLLM limits them")?;
        let lag_bytes = make.gauge("lag_bytes", "LiteLLM's WAL after the checkpoint")?;
        let lag_seconds =
            make.gauge("lag_seconds", "For how long Open WebUI has lacked something; 0 when caught up")?;
        let checkpoint_position =
            make.gauge("checkpoint_position_bytes", "The checkpoint's position in LiteLLM's WAL")?;
        let checkpoint_age = make.gauge("checkpoint_age_seconds", "Time since the checkpoint last moved")?;
        let last_message_age_seconds =
            make.gauge("last_message_age_seconds", "Time since LiteLLM's server last said anything")?;
        let slot_status = make.int_gauges(
            "slot_status",
            &["status"],
            "1 for the wal_status our slot has (reserved, extended, unreserved, lost, missing)",
        )?;
        let slot_retained_bytes = make.int_gauge(
            "slot_retained_bytes",
            "WAL that LiteLLM's server keeps for our slot: what comes after its restart position",
        )?;
        let slot_confirmed_lag =
            make.gauge("slot_confirmed_lag_bytes", "WAL after the position our slot was last told")?;
        let slot_restart_position =
            make.gauge("slot_restart_position_bytes", "The slot's restart position in LiteLLM's WAL")?;
        let slot_safe_wal_bytes = make.gauge(
            "slot_safe_wal_bytes",
            "WAL that may still be written before the slot is lost; +Inf without max_slot_wal_keep_size",
        )?;
        let slot_headroom = make.gauge(
            "slot_headroom_seconds",
            "When that will be, at the present rate of WAL; +Inf without a limit or without WAL",
        )?;
        let source_wal_rate = make.gauge(
            "source_wal_bytes_per_second",
            "WAL that LiteLLM's server writes, smoothed over a minute",
        )?;
        let failover_synced = make.int_gauges(
            "failover_slot_synced",
            &[],
            "1 if a standby could take our slot over, 0 if not; none before PostgreSQL 17 and where nothing stands by",
        )?;
        let certificate_expiry = make.int_gauges(
            "certificate_expiry_timestamp_seconds",
            &["side", "certificate"],
            "When a certificate ends (Unix time): of the source's or the target's connection, the server's or ours (client); none without TLS",
        )?;
        let publication = make.int_gauges(
            "publication_status",
            &["status"],
            "1 for how the publication looked: ok, changed (a table or column is missing or new), missing",
        )?;
        let drift = Drift::new(&mut make)?;
        let spend = Spend::new(&mut make)?;
        let Maker { registry, table } = make;
        let metrics = Self {
            registry,
            table,
            rendering: Mutex::default(),
            headroom: Mutex::new((f64::INFINITY, Instant::now())),
            ready,
            state,
            transactions,
            changes,
            unchanged_rows,
            batches,
            batch_changes,
            batch_seconds,
            stage_seconds,
            commit_to_visible_seconds,
            rows_written,
            buffer_rows,
            buffer_bytes,
            backpressure,
            failures,
            reconnects,
            sessions,
            same_position_restarts,
            copies,
            copy_phase,
            copy_rows,
            copy_tables,
            copy_tables_done,
            last_copy_failed,
            last_copy_timestamp,
            dead_letters,
            dead_letters_by_class,
            critical_dead_letters,
            skipped,
            skipped_by_reason,
            active_accounts,
            layout,
            model_polls,
            looks,
            put_back,
            models,
            public_models,
            lag_bytes,
            lag_seconds,
            checkpoint_position,
            checkpoint_age,
            last_message_age_seconds,
            slot_status,
            slot_retained_bytes,
            slot_confirmed_lag,
            slot_restart_position,
            slot_safe_wal_bytes,
            slot_headroom,
            source_wal_rate,
            failover_synced,
            certificate_expiry,
            publication,
            drift,
            spend,
        };
        for status in SLOT_STATUSES {
            metrics.slot_status.with_label_values(&[status]).set(0);
        }
        for result in ["ok", "failed"] {
            metrics.model_polls.with_label_values(&[result]);
        }
        for look in ["verify", "reconcile"] {
            for result in ["ok", "put_off", "failed"] {
                metrics.looks.with_label_values(&[look, result]);
            }
        }
        for stage in Stage::ALL {
            metrics.stage_seconds.with_label_values(&[stage.name()]);
        }
        metrics.slot_safe_wal_bytes.set(f64::INFINITY);
        Ok(metrics)
    }

    /// Counts budgets that a batch closed and opened.
    pub fn crossed(&self, crossed: &Crossed) {
        for (direction, kinds) in [("closed", &crossed.closed), ("opened", &crossed.opened)] {
            for (kind, count) in kinds {
                self.spend.crossings.with_label_values(&[kind.as_str(), direction]).inc_by(*count);
            }
        }
    }

    /// Counts a look at everything; `Ok(false)` is one that comes again.
    pub fn looked<E>(&self, look: &str, outcome: &Result<bool, E>) {
        let result = match outcome {
            Ok(true) => "ok",
            Ok(false) => "put_off",
            Err(_) => "failed",
        };
        self.looks.with_label_values(&[look, result]).inc();
    }

    /// Counts what a projection wrote.
    pub fn projected(&self, outcome: &Outcome) {
        let Outcome {
            accounts_created,
            accounts_updated,
            accounts_linked,
            groups_written,
            groups_removed,
            members_added,
            members_removed,
            conflicts: _,
            departing: _,
            stripped: _,
            closed: _,
            keys_minted,
            keys_deleted,
            failed,
            kept_admins: _,
            access,
        } = *outcome;
        let Changes {
            people: _,
            models,
            groups,
            members_added: joined,
            members_removed: left,
            grants_added,
            grants_removed,
        } = access;
        for (table, operation, count) in [
            ("user", "insert", accounts_created),
            ("user", "update", accounts_updated),
            ("user", "link", accounts_linked),
            ("group", "write", groups_written + groups),
            ("group", "delete", groups_removed),
            ("group_member", "insert", members_added + joined),
            ("group_member", "delete", members_removed + left),
            ("model", "write", models),
            ("access_grant", "insert", grants_added),
            ("access_grant", "delete", grants_removed),
            ("api_key", "insert", keys_minted),
            ("api_key", "delete", keys_deleted),
        ] {
            let counter = self.rows_written.with_label_values(&[table, operation]);
            counter.inc_by(u64::try_from(count).unwrap_or_default());
        }
        self.failures.inc_by(u64::try_from(failed).unwrap_or_default());
    }

    /// Marks the status our slot has.
    pub fn set_slot_status(&self, status: &str) {
        for known in SLOT_STATUSES {
            self.slot_status.with_label_values(&[known]).set(i64::from(known == status));
        }
    }

    /// Adds to a stage's time.
    pub fn took(&self, stage: Stage, time: Duration) {
        self.stage_seconds.with_label_values(&[stage.name()]).observe(time.as_secs_f64());
    }

    /// Shows a slot, and when it will be lost at a rate of `wal_rate` bytes a second.
    pub fn set_slot(&self, slot: &SlotState, wal_rate: f64) {
        self.set_slot_status(slot.wal_status.as_deref().unwrap_or("missing"));
        self.slot_retained_bytes.set(slot.retained_bytes);
        if let Some(confirmed) = slot.confirmed_flush_lsn {
            self.slot_confirmed_lag.set(float(u64::from(slot.wal_end).saturating_sub(confirmed.into())));
        }
        if let Some(restart) = slot.restart_lsn {
            self.slot_restart_position.set(float(restart.into()));
        }
        let safe =
            slot.safe_wal_size.map_or(f64::INFINITY, |bytes| float(u64::try_from(bytes).unwrap_or_default()));
        self.slot_safe_wal_bytes.set(safe);
        self.source_wal_rate.set(wal_rate);
        // No slower than a byte a second: an idle server is no division by nothing.
        let headroom = if wal_rate < 1.0 && safe > 0.0 { f64::INFINITY } else { safe / wal_rate.max(1.0) };
        *lock(&self.headroom) = (headroom, Instant::now());
    }

    /// Marks how the publication looks.
    pub fn set_publication(&self, now: Publication) {
        for status in Publication::ALL {
            self.publication.with_label_values(&[status.name()]).set(i64::from(status == now));
        }
    }

    /// Marks whether a standby could take our slot over; `None`: there is none.
    pub fn set_failover(&self, synced: Option<bool>) {
        let _one_at_a_time = lock(&self.rendering);
        self.failover_synced.reset();
        if let Some(synced) = synced {
            self.failover_synced.with_label_values::<&str>(&[]).set(i64::from(synced));
        }
    }

    /// Shows when the certificates of a side end.
    pub fn set_certificates(&self, side: &str, ends: Ends) {
        for (certificate, end) in [("server", ends.server), ("client", ends.client)] {
            if let Some(end) = end.and_then(|end| i64::try_from(end).ok()) {
                self.certificate_expiry.with_label_values(&[side, certificate]).set(end);
            }
        }
    }

    /// Names the layout that was found.
    pub fn set_layout(&self, layout: &str) {
        let _one_at_a_time = lock(&self.rendering);
        self.layout.reset();
        self.layout.with_label_values(&[layout]).set(1);
    }

    /// Shows counts by their labels, and no others.
    pub fn set_counts<const N: usize>(&self, gauges: &IntGaugeVec, counts: &[([String; N], i64)]) {
        let _one_at_a_time = lock(&self.rendering);
        gauges.reset();
        for (labels, count) in counts {
            gauges.with_label_values(labels).set(*count);
        }
    }

    /// The exposition text. What depends on time is computed here, so it moves while the stream stands still.
    pub fn render(&self, progress: &Progress, budgets: &Budgets) -> String {
        let _one_at_a_time = lock(&self.rendering);
        self.ready.set(i64::from(progress.readiness(LAG_LIMIT).is_ok()));
        self.lag_bytes.set(float(progress.lag_bytes()));
        self.lag_seconds.set(progress.lag().as_secs_f64());
        self.checkpoint_position.set(float(progress.checkpoint().into()));
        self.checkpoint_age.set(progress.checkpoint_age().as_secs_f64());
        self.last_message_age_seconds.set(progress.last_frame_age().as_secs_f64());
        let (headroom, found) = *lock(&self.headroom);
        self.slot_headroom.set((headroom - found.elapsed().as_secs_f64()).max(0.0));
        let now = progress.status().state;
        for state in State::ALL {
            self.state.with_label_values(&[state.name()]).set(f64::from(u8::from(state == now)));
        }
        let copies = progress.copies.known();
        let copy = copies.latest.as_ref();
        let phase_now = copy.map_or(CopyPhase::Idle, |copy| copy.phase);
        for phase in CopyPhase::ALL {
            self.copy_phase.with_label_values(&[phase.name()]).set(i64::from(phase == phase_now));
        }
        let tables = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.copy_rows.set(copy.map_or(0, |copy| i64::try_from(copy.rows).unwrap_or(i64::MAX)));
        self.copy_tables.set(copy.map_or(0, |copy| tables(copy.tables)));
        self.copy_tables_done.set(copy.map_or(0, |copy| tables(copy.tables_done)));
        self.last_copy_failed.set(i64::from(copies.failed));
        self.last_copy_timestamp.set(copies.last_good.map_or(0.0, |copy| unix(copy.at)));
        // Who stands by sees no stream, and what it once knew is old.
        self.spend.fill(budgets.ranking().filter(|_| now != State::Standby), budgets);
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "could not render the metrics");
        }
        // The library writes infinity as Rust does. Nothing but a value can end a line like this.
        String::from_utf8_lossy(&out).replace(" inf\n", " +Inf\n").replace(" -inf\n", " -Inf\n")
    }

    /// Every metric there is.
    pub fn described(&self) -> &[Described] {
        &self.table
    }

    /// The table of them in `docs/src/metrics.md`.
    pub fn markdown(&self) -> String {
        let mut out = String::from("| name | type | labels | help |\n|---|---|---|---|\n");
        for one in &self.table {
            let name = one.name.trim_start_matches(PREFIX).trim_start_matches('_');
            let labels: Vec<String> = one.labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(out, "| `{name}` | {} | {} | {} |", one.kind, labels.join(", "), one.help);
        }
        out
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix(moment: SystemTime) -> f64 {
    moment.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "a gauge of bytes needs no more than 53 bits")]
fn float(bytes: u64) -> f64 {
    bytes as f64
}

const SLOT_STATUSES: [&str; 5] = ["reserved", "extended", "unreserved", "lost", "missing"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::policy;
    use crate::position::Lsn;

    fn budgets() -> Budgets {
        Budgets::new(policy::Budgets::default())
    }

    #[test]
    fn every_name_starts_with_ours_and_every_state_is_shown() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render(&Progress::default(), &budgets());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("litellm_webui_sync_"), "{line}");
        }
        for state in State::ALL {
            assert!(text.contains(&format!("state=\"{}\"", state.name())), "{}", state.name());
        }
    }

    #[test]
    fn counters_end_in_total_and_gauges_do_not() {
        for one in Metrics::new().unwrap().described() {
            assert_eq!(one.kind == "counter", one.name.ends_with("_total"), "{}", one.name);
            assert!(
                !one.help.is_empty() && !one.help.ends_with('.') && !one.help.contains('|'),
                "{}",
                one.name
            );
        }
    }

    #[test]
    fn headroom_shrinks_by_itself_and_is_endless_without_a_limit() {
        let metrics = Metrics::new().unwrap();
        let slot = SlotState {
            plugin: None,
            database: None,
            active: true,
            restart_lsn: Some(Lsn::from(10)),
            confirmed_flush_lsn: Some(Lsn::from(20)),
            wal_status: Some("reserved".into()),
            safe_wal_size: Some(1000),
            invalidation_reason: None,
            wal_end: Lsn::from(50),
            retained_bytes: 40,
        };
        metrics.set_slot(&slot, 100.0);
        metrics.render(&Progress::default(), &budgets());
        let first = metrics.slot_headroom.get();
        assert!(first <= 10.0 && first > 5.0, "{first}");
        assert!((metrics.slot_confirmed_lag.get() - 30.0).abs() < 0.1);
        std::thread::sleep(Duration::from_millis(5));
        metrics.render(&Progress::default(), &budgets());
        assert!(metrics.slot_headroom.get() < first);
        metrics.set_slot(&SlotState { safe_wal_size: None, ..slot }, 100.0);
        let text = metrics.render(&Progress::default(), &budgets());
        assert!(text.contains("\nlitellm_webui_sync_slot_headroom_seconds +Inf\n"), "{text}");
    }
}
