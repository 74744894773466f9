//! Counts what the source committed, with Postgres' own functions and nothing of the product.
//!
//! Make the slot before the first change of interest and after the publication: `pgoutput` looks
//! the publication up as of each change, and stops at one from before it existed. The slot holds
//! WAL until it is dropped, and with it the cluster's disk.

use anyhow::{Context, Result, bail, ensure};
use futures_util::{TryStreamExt, pin_mut};
use tokio_postgres::types::ToSql;

use crate::database::connect;

const CREATE_SLOT: &str = include_str!("../workload/reference-create-slot.sql");
const PEEK: &str = include_str!("../workload/reference-peek.sql");

/// What one publication saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counted {
    /// Transactions with at least one change.
    pub transactions: u64,
    /// Inserts, updates and deletes, and one for each table of a truncate.
    pub changes: u64,
}

/// Makes a slot that remembers everything from now on; returns its position.
pub async fn create_reference_slot(url: &str, name: &str) -> Result<String> {
    let row = connect(url)
        .await?
        .query_one(CREATE_SLOT, &[&name])
        .await
        .with_context(|| format!("could not make the slot {name}"))?;
    Ok(row.try_get(0)?)
}

/// Lets the source forget.
pub async fn drop_reference_slot(url: &str, name: &str) -> Result<()> {
    connect(url)
        .await?
        .execute("select pg_drop_replication_slot($1)", &[&name])
        .await
        .with_context(|| format!("could not drop the slot {name}"))?;
    Ok(())
}

/// Counts the transactions since the slot was made that ended at or before `upto`; `None` counts
/// all. Nothing is consumed: a second count starts from the same place.
pub async fn count(url: &str, slot: &str, publication: &str, upto: Option<&str>) -> Result<Counted> {
    let client = connect(url).await?;
    let params: [&(dyn ToSql + Sync); 3] = [&slot, &upto, &publication];
    let rows = client.query_raw(PEEK, params).await.context("could not read the slot")?;
    pin_mut!(rows);
    let limit = upto.map(parse_lsn).transpose()?;
    let mut counted = Counted::default();
    let mut open = None;
    while let Some(row) = rows.try_next().await.context("could not read the slot")? {
        match Message::parse(row.try_get(0)?)? {
            Message::Begin => {
                ensure!(open.replace(0).is_none(), "a begin inside a transaction");
            }
            Message::Changes(count) => {
                *open.as_mut().context("a change outside a transaction")? += u64::from(count);
            }
            Message::Commit { end_lsn } => {
                let changes = open.take().context("a commit outside a transaction")?;
                if changes > 0 && limit.is_none_or(|limit| end_lsn <= limit) {
                    counted.transactions += 1;
                    counted.changes += changes;
                }
            }
        }
    }
    Ok(counted)
}

/// The few facts of a pgoutput message that counting needs.
#[derive(Debug, PartialEq, Eq)]
enum Message {
    Begin,
    Changes(u32),
    Commit { end_lsn: u64 },
}

impl Message {
    fn parse(data: &[u8]) -> Result<Self> {
        Ok(match data.first().context("an empty message")? {
            b'B' => Self::Begin,
            b'I' | b'U' | b'D' => Self::Changes(1),
            b'T' => Self::Changes(u32::from_be_bytes(bytes_at(data, 1)?)),
            // Flags and the commit's own position come first.
            b'C' => Self::Commit { end_lsn: u64::from_be_bytes(bytes_at(data, 10)?) },
            // Relation, type, origin.
            b'R' | b'Y' | b'O' => Self::Changes(0),
            other => bail!("unknown message '{}'", char::from(*other)),
        })
    }
}

fn bytes_at<const N: usize>(data: &[u8], start: usize) -> Result<[u8; N]> {
    data.get(start..start + N).and_then(|bytes| bytes.try_into().ok()).context("a message is too short")
}

/// `16/B374D848`
fn parse_lsn(text: &str) -> Result<u64> {
    let parse = || {
        let (high, low) = text.split_once('/')?;
        let part = |hex| u32::from_str_radix(hex, 16).ok().map(u64::from);
        Some(part(high)? << 32 | part(low)?)
    };
    parse().with_context(|| format!("\"{text}\" is no position"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncate_counts_its_tables() {
        assert_eq!(Message::parse(b"T\0\0\0\x03\x01").unwrap(), Message::Changes(3));
        assert!(Message::parse(b"T\0\0").is_err());
        assert!(Message::parse(b"").is_err());
    }

    #[test]
    fn a_position_is_two_hexadecimal_halves() {
        assert_eq!(parse_lsn("16/B374D848").unwrap(), 0x16_B374_D848);
        assert!(parse_lsn("16").is_err());
    }
}
