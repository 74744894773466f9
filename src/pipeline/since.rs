//! What the stream changed since both ends stood still: a row that was found to differ then is mended only where nothing came
//! after. Pure.

use std::collections::HashSet;

use crate::catalog::TableId;
use crate::decode::RowKey;
use crate::stage::Part;

/// More than this is not kept: a look that takes that long mends nothing.
const MOST: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct Since {
    rows: HashSet<(usize, RowKey)>,
    truncated: HashSet<usize>,
    is_over: bool,
}

impl Since {
    pub(super) fn note(&mut self, part: &Part) {
        for (id, changes) in TableId::all().zip(&part.tables) {
            for segment in &changes.segments {
                if segment.truncate {
                    self.truncated.insert(id.0);
                }
                let moved = segment.moves.iter().flat_map(|(old, new)| [old, new]);
                self.rows.extend(segment.rows.keys().chain(moved).map(|key| (id.0, key.clone())));
            }
        }
        if self.rows.len() > MOST {
            *self = Self { is_over: true, ..Self::default() };
        }
    }

    /// Whether nothing came after that says what this row is.
    pub(super) fn is_untouched(&self, id: TableId, key: &RowKey) -> bool {
        !self.is_over && !self.truncated.contains(&id.0) && !self.rows.contains(&(id.0, key.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::budget::Moves;
    use crate::stage::{Entry, Segment, TableChanges};

    fn part(segment: Segment) -> Part {
        let mut tables: Vec<TableChanges> = TableId::all().map(|_| TableChanges::default()).collect();
        tables[0].segments.push(segment);
        Part { tables, first: true, end: None, requests: Vec::new(), budgets: Moves::default() }
    }

    #[test]
    fn whatever_names_a_row_touches_it() {
        let key = |text: &str| RowKey::new(&[text]);
        let mut since = Since::default();
        let mut segment = Segment::default();
        segment.rows.insert(key("gone"), Entry::Delete);
        segment.moves.push((key("old"), key("new")));
        since.note(&part(segment));
        for touched in ["gone", "old", "new"] {
            assert!(!since.is_untouched(TableId(0), &key(touched)), "{touched}");
        }
        assert!(
            since.is_untouched(TableId(0), &key("other")) && since.is_untouched(TableId(1), &key("gone"))
        );
        let mut segment = Segment::default();
        segment.truncate = true;
        since.note(&part(segment));
        assert!(!since.is_untouched(TableId(0), &key("other")));
    }
}
