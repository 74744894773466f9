//! Folds row changes per key into parts of a batch.
//!
//! Owns the batch: how changes of one key become one, when order matters, and when a batch is
//! full. Pure: it never sees a connection, and it does not know what the target looks like.
//!
//! Each mirror table depends only on its own changes, so order is kept per table. Within a table,
//! changes of different keys commute; what does not (a key that moves onto or away from one that
//! was changed before, a truncate) begins a new [`Segment`].

pub mod budget;
pub mod signatures;

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use crate::catalog::{TABLES, TableId};
use crate::decode::message::DecodeError;
use crate::decode::request::Request;
use crate::decode::{Change, Row, RowKey, Value};
use crate::position::{BatchEnd, Lsn};
use budget::{Gathered, Moves};
use signatures::Signatures;

/// What a batch makes of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A row that the source inserted after it had none, and never one with unchanged values.
    Insert(Vec<Value>),
    /// The row's values; [`Value::Unchanged`] keeps what the mirror has.
    Upsert(Vec<Value>),
    Delete,
}

/// Changes of one table that may be applied as sets: first the truncate, then the moves, then the rows.
#[derive(Debug, Default)]
pub struct Segment {
    pub truncate: bool,
    /// Primary-key changes, old to new. A rotated LiteLLM key is one: the row keeps its unsent
    /// values under the new key, so it is moved and not inserted.
    pub moves: Vec<(RowKey, RowKey)>,
    moved: HashSet<RowKey>,
    pub rows: HashMap<RowKey, Entry>,
}

/// The changes of one table, in segments to be applied in order.
#[derive(Debug, Default)]
pub struct TableChanges {
    pub segments: Vec<Segment>,
}

impl TableChanges {
    fn last(&mut self) -> &mut Segment {
        if self.segments.is_empty() {
            self.segments.push(Segment::default());
        }
        let last = self.segments.len() - 1;
        #[expect(clippy::indexing_slicing, reason = "there is one: pushed above")]
        &mut self.segments[last]
    }

    fn upsert(&mut self, key: RowKey, values: Vec<Value>, is_insert: bool) {
        let rows = &mut self.last().rows;
        // `u` adds nothing to what is already known of this key.
        let fold = |known: Vec<Value>, values: Vec<Value>| {
            let pairs = known.into_iter().zip(values);
            pairs.map(|(known, new)| if new == Value::Unchanged { known } else { new }).collect()
        };
        let entry = match rows.remove(&key) {
            Some(Entry::Insert(known)) => Entry::Insert(fold(known, values)),
            Some(Entry::Upsert(known)) => Entry::Upsert(fold(known, values)),
            None if is_insert && !values.contains(&Value::Unchanged) => Entry::Insert(values),
            None | Some(Entry::Delete) => Entry::Upsert(values),
        };
        rows.insert(key, entry);
    }

    fn delete(&mut self, key: RowKey) {
        self.last().rows.insert(key, Entry::Delete);
    }

    fn shift(&mut self, old: RowKey, new: RowKey) {
        let segment = self.last();
        let touched = |key: &RowKey| segment.rows.contains_key(key) || segment.moved.contains(key);
        if touched(&old) || touched(&new) {
            self.segments.push(Segment::default());
        }
        let segment = self.last();
        segment.moved.insert(old.clone());
        segment.moved.insert(new.clone());
        segment.moves.push((old, new));
    }

    fn truncate(&mut self) {
        // Nothing of this batch before it survives.
        self.segments = vec![Segment { truncate: true, ..Segment::default() }];
    }
}

/// A batch, or a piece of one that is too large to hold. Only the last part has an end.
#[derive(Debug)]
pub struct Part {
    /// By [`TableId`].
    pub tables: Vec<TableChanges>,
    pub first: bool,
    pub end: Option<BatchEnd>,
    /// Resnapshots asked for in the stream.
    pub requests: Vec<Request>,
    /// Who crossed the limit of a budget: in the last part.
    pub budgets: Moves,
}

impl Part {
    /// Rows that no transaction of the source brought: a whole part without an end yet.
    pub fn of_rows(rows: impl Iterator<Item = (TableId, RowKey, Entry)>) -> Self {
        let mut tables: Vec<TableChanges> = TABLES.iter().map(|_| TableChanges::default()).collect();
        for (id, key, entry) in rows {
            if let Some(table) = tables.get_mut(id.0) {
                table.last().rows.insert(key, entry);
            }
        }
        Self { tables, first: true, end: None, requests: Vec::new(), budgets: Moves::default() }
    }

    /// Whether the whole batch is in this one part.
    pub fn is_whole(&self) -> bool {
        self.first && self.end.is_some()
    }

    /// Nothing but what is to be said about budgets, at this position.
    pub fn of_budgets(budgets: Moves, end: BatchEnd) -> Self {
        Self { budgets, end: Some(end), ..Self::of_rows(std::iter::empty()) }
    }

    /// Whether anything is to be written but the position.
    pub fn has_rows(&self) -> bool {
        !self.budgets.is_empty() || self.tables.iter().any(|table| !table.segments.is_empty())
    }

    /// How many rows it says something of.
    pub fn rows(&self) -> usize {
        self.tables.iter().flat_map(|table| &table.segments).map(|segment| segment.rows.len()).sum()
    }

    /// Whether a table is emptied: one row of the source, and whoever was in it is touched.
    pub fn truncates(&self) -> bool {
        self.tables.iter().flat_map(|table| &table.segments).any(|segment| segment.truncate)
    }
}

/// When a batch is full, looked at between transactions.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub rows: usize,
    pub bytes: usize,
}

/// A transaction that outgrows its batch by this much is handed on in pieces, so that memory stays bounded. Well above
/// the limits of a batch: pieces cost more per row than a batch that is whole.
const PIECE_ROWS: usize = 10_000;
const PIECE_BYTES: usize = 8 * 1024 * 1024;

/// The batch being filled.
#[derive(Debug)]
pub struct Stage {
    limits: Limits,
    tables: Vec<TableChanges>,
    /// Parts of this batch that were handed on already.
    parts: u64,
    rows: usize,
    bytes: usize,
    transactions: u64,
    changes: u64,
    /// Changes of the source transaction being received.
    open: Option<u64>,
    end: Option<Lsn>,
    /// Where the last transaction with changes ended, and when it was committed.
    last: Option<(Lsn, SystemTime)>,
    /// Everything up to here was handed on already. A server that missed our last feedback says positions before
    /// the checkpoint when a session begins; they mean nothing.
    floor: Lsn,
    /// The end was asked for: by a reply request or a barrier. It is not delayed.
    urgent: bool,
    requests: Vec<Request>,
    budgets: Gathered,
    signatures: Option<Signatures>,
    /// Rows dropped because they said nothing new.
    unchanged: u64,
}

impl Stage {
    /// `signatures`: with or without the memory of rows that said nothing new. `floor`: the checkpoint.
    pub fn new(limits: Limits, signatures: Option<Signatures>, floor: Lsn) -> Self {
        Self {
            limits,
            tables: empty_tables(),
            parts: 0,
            rows: 0,
            bytes: 0,
            transactions: 0,
            changes: 0,
            open: None,
            end: None,
            last: None,
            floor,
            urgent: false,
            requests: Vec::new(),
            budgets: Gathered::default(),
            signatures,
            unchanged: 0,
        }
    }

    /// A source transaction begins.
    pub fn begin(&mut self) {
        self.open = Some(0);
    }

    /// One data message of the open transaction; `size` is its length in bytes.
    pub fn change(&mut self, change: Change<'_>, size: usize) -> Result<(), DecodeError> {
        if let Some(open) = &mut self.open {
            *open += change.count();
        }
        match change {
            Change::Insert { table, row } => self.row(table, None, &row, size, true)?,
            Change::Update { table, old_key, row } => self.row(table, old_key, &row, size, false)?,
            Change::Delete { table, .. } if !table.table().is_mirrored() => {}
            Change::Delete { table, key } => {
                if let Some(signatures) = &mut self.signatures {
                    signatures.forget(table, &key);
                }
                self.add(key.as_str().len());
                self.table(table).delete(key);
            }
            Change::Truncate { tables, .. } => {
                for table in tables.into_iter().filter(|table| table.table().is_mirrored()) {
                    if let Some(signatures) = &mut self.signatures {
                        signatures.clear();
                    }
                    self.rows += 1;
                    self.table(table).truncate();
                }
            }
            Change::Other | Change::Nothing => {}
        }
        Ok(())
    }

    fn row(
        &mut self,
        table: TableId,
        old_key: Option<RowKey>,
        row: &Row<'_>,
        size: usize,
        is_insert: bool,
    ) -> Result<(), DecodeError> {
        if !table.table().is_mirrored() {
            return Ok(());
        }
        let key = row.key()?;
        if let Some(signatures) = &mut self.signatures {
            if let Some(old) = &old_key {
                signatures.forget(table, old);
            }
            let known = signatures.is_known(table, &key, row);
            if known && old_key.is_none() {
                self.unchanged += 1;
                return Ok(());
            }
        }
        let values = row.values()?;
        self.add(size.min(held(&values)));
        let changes = self.table(table);
        if let Some(old) = old_key {
            changes.shift(old, key.clone());
        }
        changes.upsert(key, values, is_insert);
        Ok(())
    }

    fn add(&mut self, bytes: usize) {
        self.rows += 1;
        self.bytes += bytes;
    }

    fn table(&mut self, table: TableId) -> &mut TableChanges {
        #[expect(
            clippy::indexing_slicing,
            reason = "one entry per table, and a TableId is an index of TABLES"
        )]
        &mut self.tables[table.0]
    }

    /// The open transaction ends. `committed_at` is the source's clock.
    pub fn commit(&mut self, end_lsn: Lsn, committed_at: SystemTime) {
        if let Some(changes) = self.open.take()
            && changes > 0
        {
            self.transactions += 1;
            self.changes += changes;
            self.last = Some((end_lsn, committed_at));
        }
        self.end = Some(end_lsn);
    }

    /// The source has decoded everything before `lsn`. Only meaningful between transactions.
    pub fn keepalive(&mut self, lsn: Lsn) {
        if self.open.is_none() && lsn > self.floor && self.end.is_none_or(|end| end < lsn) {
            self.end = Some(lsn);
        }
    }

    /// Somebody waits for the checkpoint to reach the end of this batch.
    pub fn set_urgent(&mut self) {
        self.urgent = true;
    }

    /// Somebody asks for a resnapshot; few at a time, because anybody may ask.
    pub fn request(&mut self, request: Request) {
        if self.requests.len() < 10 {
            self.requests.push(request);
        }
        self.urgent = true;
    }

    /// What follows for budgets from what was taken in up to here, between two transactions, or from the time.
    pub fn budgets(&mut self, moves: Moves) {
        self.budgets.add(moves);
    }

    /// Rows dropped since this was last asked.
    pub fn take_unchanged(&mut self) -> u64 {
        std::mem::take(&mut self.unchanged)
    }

    /// Rows and bytes that wait to be taken.
    pub fn held(&self) -> (i64, i64) {
        let whole = |count| i64::try_from(count).unwrap_or(i64::MAX);
        (whole(self.rows), whole(self.bytes))
    }

    pub fn is_urgent(&self) -> bool {
        self.urgent
    }

    pub fn in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// No more should be added before a part was taken.
    pub fn is_full(&self) -> bool {
        let Limits { rows, bytes } = self.limits;
        if self.in_transaction() {
            self.rows >= PIECE_ROWS.max(rows) || self.bytes >= PIECE_BYTES.max(bytes)
        } else {
            self.rows >= rows || self.bytes >= bytes
        }
    }

    /// There is a batch that can be committed: whole transactions that did something.
    pub fn has_batch(&self) -> bool {
        self.open.is_none() && (self.transactions > 0 || self.parts > 0 || !self.budgets.is_empty())
    }

    /// From here on every row is taken in again: what the mirror holds may become something else than what the stream said last.
    pub fn forget_rows(&mut self) {
        if let Some(signatures) = &mut self.signatures {
            signatures.clear();
        }
    }

    /// Nothing but a position: the end of an idle stretch.
    pub fn idle_end(&self) -> Option<Lsn> {
        if self.has_batch() || self.open.is_some() { None } else { self.end }
    }

    /// Takes what was staged: the last part of the batch between transactions, a piece of it inside one.
    pub fn take(&mut self) -> Part {
        let first = self.parts == 0;
        // What only time brings about belongs to the position that was handed on last.
        let by_time = (!self.budgets.is_empty()).then_some(self.floor);
        let end = match (self.open, self.end.or(by_time)) {
            (None, Some(end_lsn)) => {
                let (committed_end, committed_at) = self.last.take().unzip();
                Some(BatchEnd {
                    end_lsn,
                    transactions: std::mem::take(&mut self.transactions),
                    changes: std::mem::take(&mut self.changes),
                    committed_at,
                    committed_end,
                })
            }
            _ => None,
        };
        if let Some(end) = end {
            self.floor = end.end_lsn;
            self.parts = 0;
            self.end = None;
            self.urgent = false;
        } else {
            self.parts += 1;
        }
        self.rows = 0;
        self.bytes = 0;
        let requests = std::mem::take(&mut self.requests);
        let budgets = if end.is_some() { self.budgets.take() } else { Moves::default() };
        Part { tables: std::mem::replace(&mut self.tables, empty_tables()), first, end, requests, budgets }
    }
}

fn empty_tables() -> Vec<TableChanges> {
    TABLES.iter().map(|_| TableChanges::default()).collect()
}

fn held(values: &[Value]) -> usize {
    values
        .iter()
        .map(|value| {
            std::mem::size_of::<Value>()
                + match value {
                    Value::Text(text) => text.len(),
                    Value::Null | Value::Unchanged => 0,
                }
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    fn key(value: &str) -> RowKey {
        RowKey::new(&[value])
    }

    #[test]
    fn an_unchanged_value_keeps_what_the_batch_already_knows() {
        let mut changes = TableChanges::default();
        changes.upsert(key("a"), vec![text("a"), text("roster"), text("1")], false);
        changes.upsert(key("a"), vec![text("a"), Value::Unchanged, text("2")], false);
        let expected = Entry::Upsert(vec![text("a"), text("roster"), text("2")]);
        assert_eq!(changes.segments[0].rows[&key("a")], expected);
    }

    #[test]
    fn delete_then_insert_is_the_inserted_row() {
        let mut changes = TableChanges::default();
        changes.upsert(key("a"), vec![text("a"), text("old")], false);
        changes.delete(key("a"));
        changes.upsert(key("a"), vec![text("a"), text("new")], false);
        assert_eq!(changes.segments.len(), 1);
        assert_eq!(changes.segments[0].rows[&key("a")], Entry::Upsert(vec![text("a"), text("new")]));
    }

    #[test]
    fn moves_of_untouched_keys_share_a_segment_and_others_begin_a_new_one() {
        let mut changes = TableChanges::default();
        for (old, new) in [("a", "b"), ("c", "d")] {
            changes.shift(key(old), key(new));
            changes.upsert(key(new), vec![text(new)], false);
        }
        assert_eq!(changes.segments.len(), 1);
        changes.shift(key("b"), key("e"));
        changes.upsert(key("e"), vec![text("e")], false);
        assert_eq!(changes.segments.len(), 2, "b was changed before it moved");
        changes.truncate();
        assert_eq!(changes.segments.len(), 1);
        assert!(changes.segments[0].truncate);
    }

    #[test]
    fn a_row_inserted_where_another_moved_away_waits_for_the_move() {
        let mut changes = TableChanges::default();
        changes.shift(key("a"), key("b"));
        changes.upsert(key("b"), vec![text("b")], false);
        changes.upsert(key("a"), vec![text("a")], false);
        // Moves of a segment run before its rows, so one segment is enough.
        assert_eq!(changes.segments.len(), 1);
        assert_eq!(changes.segments[0].rows.len(), 2);
    }

    #[test]
    fn a_batch_ends_only_between_transactions_and_counts_what_changed() {
        let mut stage = Stage::new(Limits { rows: 10, bytes: 1000 }, None, Lsn::from(0));
        stage.begin();
        stage.change(Change::Other, 1).unwrap();
        assert!(!stage.has_batch());
        assert!(stage.take().end.is_none());
        stage.change(Change::Truncate { count: 2, tables: vec![] }, 1).unwrap();
        stage.commit(Lsn::from(90), SystemTime::UNIX_EPOCH);
        let end = stage.take().end.unwrap();
        assert_eq!((end.transactions, end.changes, end.end_lsn), (1, 3, Lsn::from(90)));
    }

    #[test]
    fn a_position_before_the_checkpoint_is_not_an_end() {
        let mut stage = Stage::new(Limits { rows: 2, bytes: 1000 }, None, Lsn::from(100));
        stage.keepalive(Lsn::from(90));
        stage.keepalive(Lsn::from(100));
        assert_eq!(stage.idle_end(), None);
        stage.keepalive(Lsn::from(101));
        assert_eq!(stage.take().end.unwrap().end_lsn, Lsn::from(101));
        stage.keepalive(Lsn::from(101));
        assert_eq!(stage.idle_end(), None);
    }

    #[test]
    fn a_row_counts_as_inserted_only_if_there_was_none_before() {
        let mut changes = TableChanges::default();
        changes.upsert(key("new"), vec![text("new"), text("1")], true);
        changes.upsert(key("new"), vec![text("new"), text("2")], false);
        changes.upsert(key("old"), vec![text("old"), text("1")], false);
        changes.delete(key("again"));
        changes.upsert(key("again"), vec![text("again"), text("1")], true);
        let rows = &changes.segments[0].rows;
        assert_eq!(rows[&key("new")], Entry::Insert(vec![text("new"), text("2")]));
        assert_eq!(rows[&key("old")], Entry::Upsert(vec![text("old"), text("1")]));
        assert_eq!(rows[&key("again")], Entry::Upsert(vec![text("again"), text("1")]));
    }

    #[test]
    fn a_batch_is_not_cut_inside_a_transaction_that_is_nearly_done() {
        let mut stage = Stage::new(Limits { rows: 2, bytes: 1000 }, None, Lsn::from(0));
        stage.begin();
        stage.add(10);
        stage.add(10);
        assert!(!stage.is_full(), "its commit may be the next message");
        stage.rows = PIECE_ROWS;
        assert!(stage.is_full(), "memory is bounded all the same");
        stage.rows = 2;
        stage.commit(Lsn::from(9), SystemTime::UNIX_EPOCH);
        assert!(stage.is_full());
    }

    #[test]
    fn an_empty_transaction_moves_the_position_but_counts_as_nothing() {
        let mut stage = Stage::new(Limits { rows: 10, bytes: 1000 }, None, Lsn::from(0));
        stage.begin();
        stage.commit(Lsn::from(50), SystemTime::UNIX_EPOCH);
        assert_eq!(stage.idle_end(), Some(Lsn::from(50)));
        stage.keepalive(Lsn::from(40));
        assert_eq!(stage.idle_end(), Some(Lsn::from(50)), "positions never go back");
        stage.keepalive(Lsn::from(70));
        let end = stage.take().end.unwrap();
        assert_eq!((end.transactions, end.end_lsn), (0, Lsn::from(70)));
    }
}
