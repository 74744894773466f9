//! Personal API keys: who gets one, the minting, and who loses theirs.
//!
//! Never sees the value of a key: the target's server makes it from its own strong randomness inside the statement that
//! writes it, because a server that logs slow statements logs their parameters as well. Our ledger gets its SHA-256. Who is to have a key is SQL
//! (`sql/project/key_difference.sql`), how Open WebUI keeps it too (`sql/layout/`). Never begins or commits.

use std::time::Duration;

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};

use super::{Outcome, Stamp, bury, only, within_budget};
use crate::error::{Result, Side, on};
use crate::sql::{self, TouchedFrom, fill};
use crate::target::dead_letter::Kind;
use crate::target::layout::Layout;
use crate::target::{SLOW, Target};

/// What was done about keys.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) minted: i64,
    pub(super) deleted: i64,
    /// Active people whose key LiteLLM took back, not those whose LiteLLM key expired: hashes of their Open WebUI ids.
    pub(super) unkeyed: Vec<i64>,
}

/// The statements of one layout and one source of keys.
#[derive(Debug)]
pub(super) struct KeyTexts {
    keys: TouchedFrom,
    owners: &'static str,
    difference: String,
    mint: String,
}

impl KeyTexts {
    pub(super) fn new(layout: &Layout, keys: TouchedFrom) -> Self {
        let kept = layout.api_keys;
        let owners = match keys {
            TouchedFrom::Arrays => "unnest($4::text[])",
            // Whoever is new waits for a key as well.
            TouchedFrom::Table | TouchedFrom::Remaining => {
                "(select distinct id from touched where kind in ('rights', 'user') and id in (select user_id from key_concern))"
            }
            TouchedFrom::Everything => "(select user_id as id from key_concern)",
        };
        let (later, in_memory, waiting) = if keys == TouchedFrom::Arrays {
            ("", "true", "unnest($4::text[], $5::text[], $6::text[])")
        } else {
            (sql::MINT_LATER, "false", "minting")
        };
        let states =
            if keys == TouchedFrom::Everything { sql::KEY_STATES_OF_ALL } else { sql::KEY_STATES_OF_ONE };
        let mut difference = sql::KEY_DIFFERENCE.to_owned();
        for (place, with) in [
            (":key_owners", owners),
            (":key_states", states),
            (":held_keys", kept.held),
            (":delete_keys", kept.delete),
            (":mint_later", later),
            (":in_memory", in_memory),
        ] {
            difference = fill(&difference, place, with);
        }
        Self {
            keys,
            owners,
            difference,
            mint: [(":mint_books", sql::MINT_BOOKS), (":new_key", sql::NEW_KEY), (":waiting", waiting)]
                .into_iter()
                .fold(kept.mint.to_owned(), |text, (place, with)| fill(&text, place, with)),
        }
    }

    /// To be called before the statements are sent together with others: one that still had to be prepared would be
    /// overtaken by them.
    pub(super) async fn prepare(&self, target: &Target) -> Result<Statement> {
        if self.keys != TouchedFrom::Arrays {
            target.execute("prepare for many keys", sql::CREATE_MINTING).await?;
        }
        target.prepare(&self.difference, &[Type::TIMESTAMPTZ, Type::PG_LSN]).await
    }

    /// Applies the difference for `people` (LiteLLM's ids), or for all that the texts name.
    pub(super) async fn apply(
        &self,
        target: &Target,
        people: &[&str],
        stamp: Stamp,
        patience: Duration,
    ) -> Result<Counts> {
        let statement = self.prepare(target).await?;
        let Stamp { now, lsn, audit_each, .. } = stamp;
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&now, &lsn, &audit_each];
        if self.keys == TouchedFrom::Arrays {
            parameters.push(&people);
        }
        let row = only(target.query("compare API keys", patience, &statement, &parameters).await?)?;
        let mut counts = Counts { minted: 0, deleted: row.get("deleted"), unkeyed: row.get("unkeyed") };
        let ids: Vec<String> = row.get("ids");
        let (user_ids, newest): (Vec<String>, Vec<String>) = (row.get("user_ids"), row.get("newest"));
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&now, &lsn, &audit_each];
        if self.keys == TouchedFrom::Arrays {
            if ids.is_empty() {
                return Ok(counts);
            }
            parameters.extend([&ids as &(dyn ToSql + Sync), &user_ids, &newest]);
        }
        let statement = target.prepare(&self.mint, &[Type::TIMESTAMPTZ, Type::PG_LSN]).await?;
        let row = only(target.query("write API keys", patience, &statement, &parameters).await?)?;
        counts.minted = row.get("minted");
        Ok(counts)
    }

    /// The same where something failed: halves `people` until what fails is one person's key, which becomes a dead
    /// letter. Apart from their accounts, because it must not keep anybody from being locked.
    pub(super) async fn apply_each(
        &self,
        target: &Target,
        people: &[&str],
        stamp: Stamp,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let mut queue = vec![people];
        while let Some(next) = queue.pop() {
            target.execute("set a savepoint", "savepoint project").await?;
            let error = match self.apply(target, next, stamp, SLOW).await {
                Ok(counts) => {
                    target.execute("release a savepoint", "release savepoint project").await?;
                    outcome.count_keys(counts);
                    continue;
                }
                Err(error) if error.is_about_a_row() => error,
                Err(error) => return Err(error),
            };
            let back = "rollback to savepoint project; release savepoint project";
            target.execute("go back to a savepoint", back).await?;
            match next {
                [] => {}
                [one] => {
                    bury(target, Kind::ApiKey, one, &error, stamp).await?;
                    outcome.failed += 1;
                    within_budget(outcome, &error, stamp)?;
                }
                more => {
                    let (left, right) = more.split_at(more.len() / 2);
                    queue.extend([right, left]);
                }
            }
        }
        Ok(())
    }

    /// Whom the texts name, where they are not in memory: for the search of a key that cannot be written.
    pub(super) async fn people(&self, target: &Target) -> Result<Vec<String>> {
        let text = format!("select distinct id from {} as g(id)", self.owners);
        let rows =
            target.client().query(&text, &[]).await.map_err(on(Side::Target, "list owners of keys"))?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
