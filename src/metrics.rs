//! Every metric the daemon exports, in one struct.
//!
//! Owns names, labels and help texts; nothing else uses the metrics library. Passed in, never global. A new field
//! that `new` does not register is a compile error.

use std::time::Duration;

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder,
};

use crate::progress::{Progress, State};
use crate::project::Outcome;
use crate::project::access::Changes;

const PREFIX: &str = "litellm_webui_sync";

#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub transactions: IntCounter,
    pub changes: IntCounter,
    pub batches: IntCounter,
    pub batch_seconds: Histogram,
    pub commit_to_visible_seconds: Histogram,
    pub rows_written: IntCounterVec,
    pub failures: IntCounter,
    pub reconnects: IntCounterVec,
    pub copies: IntCounter,
    pub dead_letters: IntGauge,
    pub critical_dead_letters: IntGauge,
    pub skipped: IntGauge,
    pub active_accounts: IntGauge,
    pub model_polls: IntCounterVec,
    pub models: IntGauge,
    pub public_models: IntGauge,
    pub drift_rows: IntGaugeVec,
    pub last_verify_timestamp_seconds: Gauge,
    pub last_verify: IntGaugeVec,
    pub lag_bytes: Gauge,
    pub lag_seconds: Gauge,
    pub last_message_age_seconds: Gauge,
    pub slot_retained_bytes: IntGauge,
    pub slot_safe_wal_bytes: Gauge,
    pub slot_status: IntGaugeVec,
    pub state: GaugeVec,
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}_{name}"), help)
}

impl Metrics {
    /// # Errors
    /// When two metrics have one name: a mistake in this file.
    pub fn new() -> Result<Self, prometheus::Error> {
        let seconds = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(vec![
                0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
            ]))
        };
        let counter = |name: &str, help: &str| IntCounter::with_opts(opts(name, help));
        let gauge = |name: &str, help: &str| Gauge::with_opts(opts(name, help));
        let int_gauge = |name: &str, help: &str| IntGauge::with_opts(opts(name, help));
        let metrics = Self {
            registry: Registry::new(),
            transactions: counter(
                "transactions_total",
                "LiteLLM transactions applied since this process started",
            )?,
            changes: counter("changes_total", "LiteLLM row changes applied since this process started")?,
            batches: counter("batches_total", "Batches committed to Open WebUI's database")?,
            batch_seconds: seconds(
                "batch_seconds",
                "Time from the first statement of a batch to its commit",
            )?,
            commit_to_visible_seconds: seconds(
                "commit_to_visible_seconds",
                "Time from a commit in LiteLLM's database until it is visible in Open WebUI's (newest of each batch; compares two clocks)",
            )?,
            rows_written: IntCounterVec::new(
                opts("rows_written_total", "Rows written in Open WebUI, by what and how"),
                &["table", "operation"],
            )?,
            failures: counter(
                "failures_total",
                "Entities that could not be written and became dead letters",
            )?,
            reconnects: IntCounterVec::new(
                opts(
                    "reconnects_total",
                    "Sessions that ended and were begun anew, by cause (SQLSTATE or kind)",
                ),
                &["reason"],
            )?,
            copies: counter("copies_total", "Copies of LiteLLM's existing rows")?,
            dead_letters: int_gauge("dead_letters", "Entities that cannot be written at the moment")?,
            critical_dead_letters: int_gauge(
                "critical_dead_letters",
                "Dead letters that leave somebody with more access than LiteLLM gives them",
            )?,
            skipped: int_gauge(
                "skipped_users",
                "LiteLLM users who get no account (no usable e-mail, pseudo users)",
            )?,
            active_accounts: int_gauge("active_accounts", "Open WebUI accounts of active LiteLLM users")?,
            model_polls: IntCounterVec::new(
                opts("model_polls_total", "Questions to LiteLLM's /v1/models, by result (ok, failed)"),
                &["result"],
            )?,
            models: int_gauge("models", "Models LiteLLM serves, as far as known")?,
            public_models: int_gauge(
                "public_models",
                "Models everybody sees in Open WebUI although LiteLLM limits them",
            )?,
            drift_rows: IntGaugeVec::new(
                opts("drift_rows", "Rows that differed at the last verify or resnapshot of everything"),
                &["table", "kind"],
            )?,
            last_verify_timestamp_seconds: gauge(
                "last_verify_timestamp_seconds",
                "When the last verify or resnapshot of everything ended; 0 before the first",
            )?,
            last_verify: IntGaugeVec::new(
                opts(
                    "last_verify",
                    "1 for what came of the last verify or resnapshot of everything (clean, differed, repaired, failed)",
                ),
                &["result"],
            )?,
            lag_bytes: gauge("lag_bytes", "LiteLLM's WAL after the checkpoint")?,
            lag_seconds: gauge(
                "lag_seconds",
                "For how long Open WebUI has lacked something; 0 when caught up",
            )?,
            last_message_age_seconds: gauge(
                "last_message_age_seconds",
                "Time since LiteLLM's server last said anything",
            )?,
            slot_retained_bytes: int_gauge(
                "slot_retained_bytes",
                "WAL that LiteLLM's server keeps for our slot",
            )?,
            slot_safe_wal_bytes: gauge(
                "slot_safe_wal_bytes",
                "WAL that may still be written before the slot is lost; +Inf without max_slot_wal_keep_size",
            )?,
            slot_status: IntGaugeVec::new(
                opts(
                    "slot_status",
                    "1 for the wal_status our slot has (reserved, extended, unreserved, lost, missing)",
                ),
                &["status"],
            )?,
            state: GaugeVec::new(opts("state", "1 for the state the daemon is in"), &["state"])?,
        };
        metrics.register()?;
        for status in SLOT_STATUSES {
            metrics.slot_status.with_label_values(&[status]).set(0);
        }
        for result in VERIFY_RESULTS {
            metrics.last_verify.with_label_values(&[result]).set(0);
        }
        for result in ["ok", "failed"] {
            metrics.model_polls.with_label_values(&[result]);
        }
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let Self {
            registry,
            transactions,
            changes,
            batches,
            batch_seconds,
            commit_to_visible_seconds,
            rows_written,
            failures,
            reconnects,
            copies,
            dead_letters,
            critical_dead_letters,
            skipped,
            active_accounts,
            model_polls,
            models,
            public_models,
            drift_rows,
            last_verify_timestamp_seconds,
            last_verify,
            lag_bytes,
            lag_seconds,
            last_message_age_seconds,
            slot_retained_bytes,
            slot_safe_wal_bytes,
            slot_status,
            state,
        } = self;
        registry.register(Box::new(transactions.clone()))?;
        registry.register(Box::new(changes.clone()))?;
        registry.register(Box::new(batches.clone()))?;
        registry.register(Box::new(batch_seconds.clone()))?;
        registry.register(Box::new(commit_to_visible_seconds.clone()))?;
        registry.register(Box::new(rows_written.clone()))?;
        registry.register(Box::new(failures.clone()))?;
        registry.register(Box::new(reconnects.clone()))?;
        registry.register(Box::new(copies.clone()))?;
        registry.register(Box::new(dead_letters.clone()))?;
        registry.register(Box::new(critical_dead_letters.clone()))?;
        registry.register(Box::new(skipped.clone()))?;
        registry.register(Box::new(active_accounts.clone()))?;
        registry.register(Box::new(model_polls.clone()))?;
        registry.register(Box::new(models.clone()))?;
        registry.register(Box::new(public_models.clone()))?;
        registry.register(Box::new(drift_rows.clone()))?;
        registry.register(Box::new(last_verify_timestamp_seconds.clone()))?;
        registry.register(Box::new(last_verify.clone()))?;
        registry.register(Box::new(lag_bytes.clone()))?;
        registry.register(Box::new(lag_seconds.clone()))?;
        registry.register(Box::new(last_message_age_seconds.clone()))?;
        registry.register(Box::new(slot_retained_bytes.clone()))?;
        registry.register(Box::new(slot_safe_wal_bytes.clone()))?;
        registry.register(Box::new(slot_status.clone()))?;
        registry.register(Box::new(state.clone()))
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
            keys_minted,
            keys_deleted,
            unkeyed: _,
            failed,
            kept_admins: _,
            access,
        } = *outcome;
        let Changes {
            people: _,
            stripped: _,
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

    /// Shows what the last look at everything found, and when it ended (seconds since 1970).
    pub fn verified(&self, at: f64, result: &str, drift: impl IntoIterator<Item = (String, String, i64)>) {
        self.drift_rows.reset();
        for (table, kind, rows) in drift {
            self.drift_rows.with_label_values(&[&table, &kind]).add(rows);
        }
        self.last_verify_timestamp_seconds.set(at);
        for known in VERIFY_RESULTS {
            self.last_verify.with_label_values(&[known]).set(i64::from(known == result));
        }
    }

    /// The exposition text. What depends on time is computed here, so it moves while the stream stands still.
    pub fn render(&self, progress: &Progress) -> String {
        let float = |duration: Duration| duration.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a gauge of bytes needs no more than 53 bits")]
        self.lag_bytes.set(progress.lag_bytes() as f64);
        self.lag_seconds.set(float(progress.lag()));
        self.last_message_age_seconds.set(float(progress.last_frame_age()));
        let now = progress.status().state;
        for state in State::ALL {
            self.state.with_label_values(&[state.name()]).set(f64::from(u8::from(state == now)));
        }
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "could not render the metrics");
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

const VERIFY_RESULTS: [&str; 4] = ["clean", "differed", "repaired", "failed"];

const SLOT_STATUSES: [&str; 5] = ["reserved", "extended", "unreserved", "lost", "missing"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_starts_with_ours_and_every_state_is_shown() {
        let metrics = Metrics::new().unwrap();
        let text = metrics.render(&Progress::default());
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("litellm_webui_sync_"), "{line}");
        }
        for state in State::ALL {
            assert!(text.contains(&format!("state=\"{}\"", state.name())), "{}", state.name());
        }
    }
}
