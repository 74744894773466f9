//! Remembers the last image of each row, to drop rows that say nothing new.
//!
//! More than 99 % of LiteLLM's stream is spend flushes, which alter nothing we mirror. This is an
//! optimisation: the daemon is correct without it (the tests run both ways).
//!
//! A row may be dropped when the row before it, of the same table and key, had the same signature:
//! the mirror has that state, or will have it when the part it is in commits. Should that commit
//! fail, the session ends and takes this memory with it; nothing survives a reconnect. Deletes, moved keys
//! and truncates forget.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::catalog::TableId;
use crate::decode::{Row, RowKey};

/// Rows remembered at most, at 25 bytes each and a table that is at most seven eighths full.
const CAPACITY: usize = 900_000;

/// The map's keys are already hashes.
#[derive(Debug, Default)]
pub struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[derive(Debug)]
pub struct Signatures {
    /// Random per session: nobody can prepare rows that collide.
    keys: (u64, u64),
    /// By a hash of table and key. Two keys that share a place cannot be taken for one another: the
    /// signature covers the key.
    last: HashMap<u64, [u8; 16], BuildHasherDefault<Identity>>,
}

impl Signatures {
    pub fn new() -> Self {
        Self { keys: (rand::random(), rand::random()), last: HashMap::default() }
    }

    fn hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.keys.0, self.keys.1)
    }

    fn place(&self, table: TableId, key: &RowKey) -> u64 {
        let mut hasher = self.hasher();
        hasher.write_usize(table.0);
        hasher.write(key.as_str().as_bytes());
        hasher.finish()
    }

    /// Whether the last row of this key looked exactly like `row`; remembers `row`.
    pub fn is_known(&mut self, table: TableId, key: &RowKey, row: &Row<'_>) -> bool {
        let mut hasher = self.hasher();
        row.signature(&mut hasher);
        hasher.write_usize(table.0);
        let signature = hasher.finish128().as_bytes();
        let place = self.place(table, key);
        if self.last.len() >= CAPACITY && !self.last.contains_key(&place) {
            return false;
        }
        self.last.insert(place, signature) == Some(signature)
    }

    pub fn forget(&mut self, table: TableId, key: &RowKey) {
        let place = self.place(table, key);
        self.last.remove(&place);
    }

    pub fn clear(&mut self) {
        self.last.clear();
    }

    pub fn len(&self) -> usize {
        self.last.len()
    }

    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }
}

impl Default for Signatures {
    fn default() -> Self {
        Self::new()
    }
}
