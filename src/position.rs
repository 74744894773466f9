//! Positions in the source's WAL, and whose WAL it is.
//!
//! Owns nothing but the types: a bare number never crosses a module's boundary. Knows no connection and compares nothing
//! with a clock.

use std::time::SystemTime;

/// A position in the source's WAL. The same type the target stores (`pg_lsn`).
pub use tokio_postgres::types::PgLsn as Lsn;

/// Who the source's server says it is (`IDENTIFY_SYSTEM`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub system_identifier: String,
    pub timeline: i32,
    pub wal_end: Lsn,
}

/// The end of a batch: everything up to `end_lsn` is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchEnd {
    pub end_lsn: Lsn,
    /// Source transactions with at least one row change, and their row changes.
    pub transactions: u64,
    pub changes: u64,
    /// When the source committed the last of them, and where it ended.
    pub committed_at: Option<SystemTime>,
    pub committed_end: Option<Lsn>,
}

impl BatchEnd {
    /// Of a batch of our own, which no transaction of the source led to.
    pub fn at(end_lsn: Lsn) -> Self {
        Self { end_lsn, transactions: 0, changes: 0, committed_at: None, committed_end: None }
    }
}
