//! pgoutput bytes into messages. Pure.
//!
//! Protocol version 1, text format (PostgreSQL documentation, "Logical Replication Message
//! Formats"). Begin, Commit and logical messages are parsed by the replication client and never
//! arrive here.

use std::borrow::Cow;

use crate::postgres::lossy;

/// One column of a tuple.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TupleValue<'a> {
    Null,
    /// `u`: a TOASTed value the update did not touch. It is not NULL.
    Unchanged,
    Text(&'a [u8]),
}

pub type Tuple<'a> = Vec<TupleValue<'a>>;

#[derive(Debug)]
pub enum Message<'a> {
    Relation {
        oid: u32,
        namespace: Cow<'a, str>,
        name: Cow<'a, str>,
        columns: Vec<Cow<'a, str>>,
    },
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    /// `old` is the old key (`K`) or, with REPLICA IDENTITY FULL, the old row (`O`).
    Update {
        relation: u32,
        old: Option<Tuple<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Tuple<'a>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Type and origin announcements: nothing we keep depends on them.
    Ignored,
}

/// What is wrong with a message. All of these mean that we misunderstand the source, so the
/// daemon stops rather than guess.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("message ends inside its {what}: {needed} bytes missing")]
    UnexpectedEnd { what: &'static str, needed: usize },
    #[error("unknown message type {0:#04x}")]
    UnknownMessage(u8),
    #[error("unknown value kind {0:#04x}")]
    UnknownValueKind(u8),
    #[error("binary value in a text stream")]
    BinaryValue,
    #[error("negative length in {0}")]
    NegativeLength(&'static str),
    #[error("row of relation {0}, which was never announced")]
    UnknownRelation(u32),
    #[error("row of relation {relation} has fewer columns than the relation")]
    ShortTuple { relation: u32 },
    #[error("table {table} has no column {column}, which every LiteLLM has")]
    MissingColumn { table: &'static str, column: &'static str },
    #[error("row of {table} without its primary key")]
    NoKey { table: &'static str },
}

impl From<DecodeError> for crate::error::Error {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::MissingColumn { table, column } => Self::ColumnGone { table, column },
            error => Self::Decode(Box::new(error)),
        }
    }
}

/// Parses one pgoutput message.
pub fn parse(data: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut buf = Cursor { data };
    Ok(match buf.u8("message type")? {
        b'R' => {
            let oid = buf.u32("relation id")?;
            let namespace = buf.string("namespace")?;
            let name = buf.string("relation name")?;
            buf.u8("replica identity")?;
            let count = buf.count("column count")?;
            let mut columns = Vec::with_capacity(count.min(data.len()));
            for _ in 0..count {
                buf.u8("column flags")?;
                columns.push(buf.string("column name")?);
                buf.u32("column type")?;
                buf.u32("column type modifier")?;
            }
            // An empty namespace stands for pg_catalog.
            let namespace = if namespace.is_empty() { Cow::Borrowed("pg_catalog") } else { namespace };
            Message::Relation { oid, namespace, name, columns }
        }
        b'I' => {
            let relation = buf.u32("relation id")?;
            buf.tag(b"N")?;
            Message::Insert { relation, new: buf.tuple()? }
        }
        b'U' => {
            let relation = buf.u32("relation id")?;
            let old = match buf.tag(b"KON")? {
                b'N' => None,
                _ => {
                    let old = buf.tuple()?;
                    buf.tag(b"N")?;
                    Some(old)
                }
            };
            Message::Update { relation, old, new: buf.tuple()? }
        }
        b'D' => {
            let relation = buf.u32("relation id")?;
            buf.tag(b"KO")?;
            Message::Delete { relation, old: buf.tuple()? }
        }
        b'T' => {
            let count = buf.u32("relation count")?;
            buf.u8("truncate options")?;
            let mut relations = Vec::new();
            for _ in 0..count {
                relations.push(buf.u32("relation id")?);
            }
            Message::Truncate { relations }
        }
        b'Y' | b'O' => Message::Ignored,
        other => return Err(DecodeError::UnknownMessage(other)),
    })
}

struct Cursor<'a> {
    data: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        match self.data.split_at_checked(len) {
            Some((head, rest)) => {
                self.data = rest;
                Ok(head)
            }
            None => Err(DecodeError::UnexpectedEnd { what, needed: len - self.data.len() }),
        }
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let bytes = self.take(N, what)?;
        bytes.try_into().map_err(|_| DecodeError::UnexpectedEnd { what, needed: N })
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_be_bytes(self.array(what)?))
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_be_bytes(self.array(what)?))
    }

    /// A 16-bit count.
    fn count(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        usize::try_from(i16::from_be_bytes(self.array(what)?)).map_err(|_| DecodeError::NegativeLength(what))
    }

    fn tag(&mut self, expected: &[u8]) -> Result<u8, DecodeError> {
        let tag = self.u8("tuple kind")?;
        if expected.contains(&tag) { Ok(tag) } else { Err(DecodeError::UnknownMessage(tag)) }
    }

    fn string(&mut self, what: &'static str) -> Result<Cow<'a, str>, DecodeError> {
        let end = self
            .data
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(DecodeError::UnexpectedEnd { what, needed: 1 })?;
        let bytes = self.take(end, what)?;
        self.u8(what)?;
        Ok(lossy::text(bytes))
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, DecodeError> {
        let count = self.count("tuple")?;
        // At least one byte per column: never reserve more than the message can hold.
        let mut values = Vec::with_capacity(count.min(self.data.len()));
        for _ in 0..count {
            values.push(match self.u8("value kind")? {
                b'n' => TupleValue::Null,
                b'u' => TupleValue::Unchanged,
                b't' => {
                    let len = i32::from_be_bytes(self.array("value length")?);
                    let len = usize::try_from(len).map_err(|_| DecodeError::NegativeLength("value"))?;
                    TupleValue::Text(self.take(len, "value")?)
                }
                b'b' => return Err(DecodeError::BinaryValue),
                kind => return Err(DecodeError::UnknownValueKind(kind)),
            });
        }
        Ok(values)
    }
}

/// Builds messages for tests.
#[cfg(test)]
pub mod builder {
    use bytes::{BufMut, Bytes, BytesMut};

    pub fn null() -> Vec<u8> {
        b"n".to_vec()
    }
    pub fn unchanged() -> Vec<u8> {
        b"u".to_vec()
    }
    pub fn text(value: &str) -> Vec<u8> {
        let mut out = b"t".to_vec();
        out.extend_from_slice(&u32::try_from(value.len()).unwrap().to_be_bytes());
        out.extend_from_slice(value.as_bytes());
        out
    }
    fn tuple(out: &mut BytesMut, values: &[Vec<u8>]) {
        out.put_i16(i16::try_from(values.len()).unwrap());
        for value in values {
            out.put_slice(value);
        }
    }
    pub fn relation(oid: u32, namespace: &str, name: &str, columns: &[&str]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(b'R');
        out.put_u32(oid);
        out.put_slice(namespace.as_bytes());
        out.put_u8(0);
        out.put_slice(name.as_bytes());
        out.put_u8(0);
        out.put_u8(b'd');
        out.put_i16(i16::try_from(columns.len()).unwrap());
        for column in columns {
            out.put_u8(1);
            out.put_slice(column.as_bytes());
            out.put_u8(0);
            out.put_u32(25);
            out.put_i32(-1);
        }
        out.freeze()
    }
    pub fn insert(oid: u32, values: &[Vec<u8>]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(b'I');
        out.put_u32(oid);
        out.put_u8(b'N');
        tuple(&mut out, values);
        out.freeze()
    }
    pub fn update(oid: u32, old: Option<(u8, &[Vec<u8>])>, new: &[Vec<u8>]) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(b'U');
        out.put_u32(oid);
        if let Some((kind, values)) = old {
            out.put_u8(kind);
            tuple(&mut out, values);
        }
        out.put_u8(b'N');
        tuple(&mut out, new);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_message_is_an_error_at_every_length() {
        let whole = builder::update(
            3,
            Some((b'K', &[builder::text("a"), builder::null()])),
            &[builder::text("b"), builder::unchanged()],
        );
        assert!(parse(&whole).is_ok());
        for len in 0..whole.len() {
            assert!(parse(&whole[..len]).is_err(), "{len} of {} bytes parsed", whole.len());
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        use rand::{Rng, SeedableRng};
        let seed = std::env::var("PROPERTY_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
        println!("PROPERTY_TEST_SEED={seed}");
        let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
        for _ in 0..20_000 {
            let len = rng.random_range(0..64);
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.random()).collect();
            if let Some(first) = bytes.first_mut() {
                *first = b"RIUDTYO"[rng.random_range(0..7)];
            }
            let _ = parse(&bytes);
        }
    }

    #[test]
    fn a_length_that_lies_is_an_error() {
        let data = b"I\0\0\0\x01N\0\x01t\x7f\xff\xff\xffab";
        assert!(matches!(parse(data), Err(DecodeError::UnexpectedEnd { what: "value", .. })));
        let data = b"I\0\0\0\x01N\0\x01t\xff\xff\xff\xff";
        assert!(matches!(parse(data), Err(DecodeError::NegativeLength("value"))));
    }
}
