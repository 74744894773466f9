//! pgoutput in, row changes out.
//!
//! Owns the relation cache and the meaning of each message. Pure: no I/O, no clock, no panic on
//! any bytes; it never learns where a change came from or goes to.
//!
//! Values stay the text Postgres sent. What must not leave (passwords, provider keys, free-form
//! metadata) is dropped here, because only the columns named in [`crate::catalog`] are ever read.

pub mod message;
pub mod reduce;
pub mod request;

use std::borrow::Cow;
use std::collections::HashMap;

use bytes::Bytes;

use crate::catalog::{Kind, TableId};
use crate::postgres::lossy;
use message::{DecodeError, Message, Tuple, TupleValue};

/// A value of one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    /// A TOASTed value the update did not touch: the mirror has it already.
    Unchanged,
    Text(Box<str>),
}

/// A primary key: its columns' values joined by NUL, which no Postgres text can hold.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowKey(Box<str>);

impl RowKey {
    pub fn new(parts: &[&str]) -> Self {
        Self(parts.join("\0").into_boxed_str())
    }

    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('\0')
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One row of the stream as it stands in the message: which mirrored column has which raw value.
/// Materialising it ([`Row::values`]) costs allocations, so the caller may first ask whether the
/// row says anything new ([`Row::signature`]).
#[derive(Debug)]
pub struct Row<'a> {
    table: TableId,
    /// The table's columns, then those of its `spending`.
    raw: Vec<TupleValue<'a>>,
}

impl<'a> Row<'a> {
    fn mirrored(&self) -> &[TupleValue<'a>] {
        self.raw.get(..self.table.table().columns.len()).unwrap_or(&self.raw)
    }

    /// The values of the table's [`spending`](crate::catalog::Table::spending) columns, as sent. Empty where only mirrored
    /// columns were read.
    pub fn spending(&self) -> &[TupleValue<'a>] {
        self.raw.get(self.table.table().columns.len()..).unwrap_or_default()
    }

    /// The parts of the primary key as [`Self::key`] holds them, without making one.
    pub fn key_parts(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.table.table().key().iter().zip(&self.raw).filter_map(|(column, value)| match value {
            TupleValue::Text(bytes) => Some(key_part(column.kind, lossy::text(bytes))),
            TupleValue::Null | TupleValue::Unchanged => None,
        })
    }

    /// Feeds everything that distinguishes this row from another into `hasher`. Two rows of one
    /// table and key with equal signatures leave the mirror the same: an unchanged TOAST value
    /// counts as "unchanged", so it only equals a row that said so too.
    pub fn signature(&self, hasher: &mut impl std::hash::Hasher) {
        for value in self.mirrored() {
            match value {
                TupleValue::Null => hasher.write_u8(0),
                TupleValue::Unchanged => hasher.write_u8(1),
                TupleValue::Text(text) => {
                    hasher.write_u8(2);
                    hasher.write_usize(text.len());
                    hasher.write(text);
                }
            }
        }
    }

    /// The primary key, in the form the mirror stores it.
    pub fn key(&self) -> Result<RowKey, DecodeError> {
        key_of(self.table, &self.raw)
    }

    /// The values of the table's columns, reduced to what we keep.
    pub fn values(&self) -> Result<Vec<Value>, DecodeError> {
        let columns = self.table.table().columns;
        columns
            .iter()
            .zip(&self.raw)
            .map(|(column, raw)| {
                Ok(match raw {
                    TupleValue::Null => Value::Null,
                    TupleValue::Unchanged => Value::Unchanged,
                    TupleValue::Text(bytes) => match reduce::reduce(column.kind, &lossy::text(bytes)) {
                        Some(kept) => Value::Text(kept.into()),
                        None => Value::Null,
                    },
                })
            })
            .collect()
    }
}

/// What one data message says.
#[derive(Debug)]
pub enum Change<'a> {
    Insert {
        table: TableId,
        row: Row<'a>,
    },
    /// `old_key` is there only when the primary key changed.
    Update {
        table: TableId,
        old_key: Option<RowKey>,
        row: Row<'a>,
    },
    Delete {
        table: TableId,
        key: RowKey,
    },
    /// `count` tables were emptied; those of them that are mirrored.
    Truncate {
        count: u64,
        tables: Vec<TableId>,
    },
    /// A row change of a published table that is not mirrored. It counts, nothing else.
    Other,
    /// Not a row change (relation, type, origin).
    Nothing,
}

impl Change<'_> {
    /// How many row changes this is for `changes_applied` (docs/src/design.md, "Invariants").
    pub fn count(&self) -> u64 {
        match self {
            Self::Insert { .. } | Self::Update { .. } | Self::Delete { .. } | Self::Other => 1,
            Self::Truncate { count, .. } => *count,
            Self::Nothing => 0,
        }
    }
}

#[derive(Debug)]
struct Relation {
    /// `None`: published, but not mirrored.
    table: Option<TableId>,
    /// For every mirrored and every spending column, which attribute of the tuple holds it. `None`: this LiteLLM has
    /// no such column.
    attributes: Vec<Option<usize>>,
}

/// Decodes the data messages of one replication session. Relations are announced again by the
/// server after every reconnect, so a new session needs a new decoder.
#[derive(Debug, Default)]
pub struct Decoder {
    /// LiteLLM's schema; tables of the same name elsewhere are not LiteLLM's.
    schema: String,
    /// What is read of budgets decides over people.
    budgets_decide: bool,
    relations: HashMap<u32, Relation>,
}

impl Decoder {
    pub fn new(schema: &str) -> Self {
        Self { schema: schema.to_owned(), budgets_decide: false, relations: HashMap::new() }
    }

    /// Nor may a column be missing then that says whose budget is used up.
    #[must_use]
    pub fn budgets_decide(mut self, budgets_decide: bool) -> Self {
        self.budgets_decide = budgets_decide;
        self
    }

    /// Decodes one data message (everything but Begin, Commit and logical messages).
    pub fn decode<'a>(&mut self, data: &'a Bytes) -> Result<Change<'a>, DecodeError> {
        Ok(match message::parse(data)? {
            Message::Relation { oid, namespace, name, columns } => {
                let table = (namespace == self.schema).then(|| TableId::of_source(&name)).flatten();
                let relation = bind(table, &columns, self.budgets_decide)?;
                self.relations.insert(oid, relation);
                Change::Nothing
            }
            Message::Insert { relation, new } => match self.row(relation, &new)? {
                Some((table, row)) => Change::Insert { table, row },
                None => Change::Other,
            },
            Message::Update { relation, old, new } => match self.row(relation, &new)? {
                Some((table, row)) => {
                    let old_key = match old {
                        Some(old) => self.key_if_moved(relation, &old, &row)?,
                        None => None,
                    };
                    Change::Update { table, old_key, row }
                }
                None => Change::Other,
            },
            Message::Delete { relation, old } => match self.row(relation, &old)? {
                Some((table, row)) => Change::Delete { table, key: row.key()? },
                None => Change::Other,
            },
            Message::Truncate { relations } => {
                let mut tables = Vec::new();
                for oid in &relations {
                    if let Some(table) = self.relation(*oid)?.table {
                        tables.push(table);
                    }
                }
                Change::Truncate { count: relations.len() as u64, tables }
            }
            Message::Ignored => Change::Nothing,
        })
    }

    fn relation(&self, oid: u32) -> Result<&Relation, DecodeError> {
        self.relations.get(&oid).ok_or(DecodeError::UnknownRelation(oid))
    }

    fn row<'a>(&self, oid: u32, tuple: &Tuple<'a>) -> Result<Option<(TableId, Row<'a>)>, DecodeError> {
        let relation = self.relation(oid)?;
        let Some(table) = relation.table else { return Ok(None) };
        let raw = relation
            .attributes
            .iter()
            .map(|attribute| match attribute {
                Some(index) => tuple.get(*index).copied().ok_or(DecodeError::ShortTuple { relation: oid }),
                None => Ok(TupleValue::Null),
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Some((table, Row { table, raw })))
    }

    /// An old tuple is sent when the key changed, and with `REPLICA IDENTITY FULL` always. Only
    /// its key columns are read: the others are "not sent", which looks like NULL.
    fn key_if_moved(&self, oid: u32, old: &Tuple<'_>, new: &Row<'_>) -> Result<Option<RowKey>, DecodeError> {
        let Some((_, old)) = self.row(oid, old)? else { return Ok(None) };
        let old = old.key()?;
        Ok((old != new.key()?).then_some(old))
    }
}

/// Binds the mirrored columns to a relation's attributes by name.
fn bind(
    table: Option<TableId>,
    names: &[Cow<'_, str>],
    budgets_decide: bool,
) -> Result<Relation, DecodeError> {
    let Some(id) = table else { return Ok(Relation { table: None, attributes: Vec::new() }) };
    let spec = id.table();
    let wanted = spec.columns.iter().map(|column| column.source).chain(spec.spending.iter().copied());
    let place = |wanted: &str| names.iter().position(|name| **name == *wanted);
    // Not NULL: nobody said so.
    if let Some(column) = spec.required(budgets_decide).find(|column| place(column).is_none()) {
        return Err(DecodeError::MissingColumn { table: spec.source, column });
    }
    let attributes = wanted.map(place).collect();
    Ok(Relation { table, attributes })
}

fn key_of(table: TableId, raw: &[TupleValue<'_>]) -> Result<RowKey, DecodeError> {
    let spec = table.table();
    let mut parts: Vec<String> = Vec::with_capacity(spec.key_len);
    for (column, value) in spec.key().iter().zip(raw) {
        let TupleValue::Text(bytes) = value else {
            return Err(DecodeError::NoKey { table: spec.source });
        };
        parts.push(key_part(column.kind, lossy::text(bytes)).into_owned());
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    Ok(RowKey::new(&parts))
}

/// One column of a key, in the form the mirror stores it.
fn key_part(kind: Kind, sent: Cow<'_, str>) -> Cow<'_, str> {
    match sent {
        sent if kind != Kind::Token => sent,
        Cow::Borrowed(sent) => reduce::token(sent),
        Cow::Owned(sent) => Cow::Owned(reduce::token(&sent).into_owned()),
    }
}

/// The row of a COPY line: same reduction and same signature as a streamed row, so the first copy
/// and the stream cannot disagree. `raw` has one value per column of the table, and may go on with those of its spending.
pub fn copied_row(table: TableId, raw: Vec<TupleValue<'_>>) -> Row<'_> {
    Row { table, raw }
}

#[cfg(test)]
mod tests {
    use super::message::builder as b;
    use super::*;

    /// A row of [`user_columns`]: what comes after the first four is NULL.
    fn padded(values: &[Vec<u8>]) -> Vec<Vec<u8>> {
        values.iter().cloned().chain(std::iter::repeat_with(b::null)).take(user_columns().len()).collect()
    }

    fn users(decoder: &mut Decoder) {
        let relation = b::relation(7, "public", "LiteLLM_UserTable", &user_columns());
        assert!(matches!(decoder.decode(&relation).unwrap(), Change::Nothing));
    }

    /// Four that the tests write, then whatever else every LiteLLM has.
    fn user_columns() -> Vec<&'static str> {
        let mut columns = vec!["password", "user_email", "user_id", "spend"];
        let mirrored = TableId::of_source("LiteLLM_UserTable").unwrap().table().columns;
        columns.extend(
            mirrored.iter().map(|column| column.source).filter(|name| !name.starts_with("user_email")),
        );
        columns.retain({
            let mut seen = std::collections::HashSet::new();
            move |name| seen.insert(*name)
        });
        columns
    }

    #[test]
    fn columns_are_found_by_name_and_secrets_are_not_read() {
        let mut decoder = Decoder::new("public");
        users(&mut decoder);
        let row = [b::text("scrypt:secret"), b::text(" Ann@Example.COM "), b::text("u1"), b::text("1.5")];
        let insert = b::insert(7, &padded(&row));
        let Change::Insert { row, .. } = decoder.decode(&insert).unwrap() else { panic!("not an insert") };
        assert_eq!(row.key().unwrap(), RowKey::new(&["u1"]));
        let values = row.values().unwrap();
        assert_eq!(values[2], Value::Text("ann@example.com".into()));
        assert!(!format!("{values:?}").contains("secret"));
    }

    #[test]
    fn with_replica_identity_full_only_a_changed_key_counts_as_a_move() {
        let mut decoder = Decoder::new("public");
        users(&mut decoder);
        let row = padded(&[b::null(), b::text("a@b"), b::text("u1"), b::text("2")]);
        let same = b::update(7, Some((b'O', &row)), &row);
        assert!(matches!(decoder.decode(&same).unwrap(), Change::Update { old_key: None, .. }));
        let old = padded(&[b::null(), b::null(), b::text("u0"), b::null()]);
        let moved = b::update(7, Some((b'K', &old)), &row);
        let Change::Update { old_key: Some(key), .. } = decoder.decode(&moved).unwrap() else {
            panic!("not a move")
        };
        assert_eq!(key, RowKey::new(&["u0"]));
    }

    #[test]
    fn a_spend_flush_has_the_signature_of_the_row_before_it() {
        let mut decoder = Decoder::new("public");
        users(&mut decoder);
        let sign = |decoder: &mut Decoder, bytes: &Bytes| {
            let Change::Update { row, .. } = decoder.decode(bytes).unwrap() else { panic!("not an update") };
            let mut hasher = siphasher::sip::SipHasher::new();
            row.signature(&mut hasher);
            std::hash::Hasher::finish(&hasher)
        };
        let one = b::update(7, None, &padded(&[b::null(), b::text("a@b"), b::text("u1"), b::text("1")]));
        let two = b::update(7, None, &padded(&[b::null(), b::text("a@b"), b::text("u1"), b::text("2")]));
        let other = b::update(7, None, &padded(&[b::null(), b::unchanged(), b::text("u1"), b::text("2")]));
        let first = sign(&mut decoder, &one);
        assert_eq!(first, sign(&mut decoder, &two));
        assert_ne!(first, sign(&mut decoder, &other));
    }

    #[test]
    fn a_column_of_newer_releases_may_be_missing_and_no_other() {
        let mut decoder = Decoder::new("public");
        let budgets = b::relation(8, "public", "LiteLLM_BudgetTable", &["budget_id"]);
        decoder.decode(&budgets).unwrap();
        let insert = b::insert(8, &[b::text("b")]);
        let Change::Insert { row, .. } = decoder.decode(&insert).unwrap() else { panic!("not an insert") };
        assert_eq!(row.values().unwrap(), [Value::Text("b".into()), Value::Null]);
        for gone in ["user_email", "user_role", "models"] {
            let columns: Vec<&str> = user_columns().into_iter().filter(|name| *name != gone).collect();
            let relation = b::relation(7, "public", "LiteLLM_UserTable", &columns);
            let missing = DecodeError::MissingColumn { table: "LiteLLM_UserTable", column: gone };
            assert_eq!(decoder.decode(&relation).unwrap_err(), missing);
        }
    }

    #[test]
    fn a_table_of_the_same_name_in_another_schema_is_not_litellms() {
        let mut decoder = Decoder::new("public");
        let relation = b::relation(9, "backup", "LiteLLM_UserTable", &["user_id"]);
        decoder.decode(&relation).unwrap();
        let insert = b::insert(9, &[b::text("u1")]);
        assert!(matches!(decoder.decode(&insert).unwrap(), Change::Other));
    }

    #[test]
    fn a_row_of_an_unannounced_relation_is_an_error_not_a_panic() {
        let mut decoder = Decoder::new("public");
        let insert = b::insert(1, &[b::text("u1")]);
        assert_eq!(decoder.decode(&insert).unwrap_err(), DecodeError::UnknownRelation(1));
    }
}
