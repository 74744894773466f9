//! What the last comparison with LiteLLM's own rows found.

use prometheus::{Gauge, IntGaugeVec, Result};

use super::make::Maker;
use crate::catalog::TableId;

const RESULTS: [&str; 4] = ["clean", "differed", "repaired", "failed"];

/// The gauges about verify and resnapshot.
#[derive(Debug)]
pub struct Drift {
    rows: IntGaugeVec,
    ended: Gauge,
    result: IntGaugeVec,
}

impl Drift {
    pub(super) fn new(make: &mut Maker) -> Result<Self> {
        let rows = make.int_gauges(
            "drift_rows",
            &["table", "kind"],
            "Rows that differed at the last verify or resnapshot of everything",
        )?;
        let ended = make.gauge(
            "last_verify_timestamp_seconds",
            "When the last verify or resnapshot of everything ended (Unix time); 0 before the first",
        )?;
        let result = make.int_gauges(
            "last_verify",
            &["result"],
            "1 for what came of it (clean, differed, repaired, failed)",
        )?;
        for known in RESULTS {
            result.with_label_values(&[known]).set(0);
        }
        Ok(Self { rows, ended, result })
    }

    /// Shows what the last look at everything found, and when it ended (seconds since 1970).
    pub fn verified(&self, at: f64, result: &str, drift: impl IntoIterator<Item = (String, String, i64)>) {
        self.rows.reset();
        for table in TableId::mirrored().map(TableId::table) {
            for kind in ["missing", "different", "too_many"] {
                self.rows.with_label_values(&[table.source, kind]);
            }
        }
        for (table, kind, rows) in drift {
            self.rows.with_label_values(&[&table, &kind]).add(rows);
        }
        self.ended.set(at);
        for known in RESULTS {
            self.result.with_label_values(&[known]).set(i64::from(known == result));
        }
    }
}
