//! The short way for small batches: people who are simply new, or whose name alone changed.
//!
//! Owns the decision when it may be taken, and nothing else: what it writes is what the general way would
//! write (`sql/project/plain_accounts.sql`), and whom it leaves goes that way.

use std::collections::BTreeSet;

use tokio_postgres::types::{ToSql, Type};

use super::touched::Touched;
use super::{Outcome, Projection, Scope, Stamp, only};
use crate::error::Result;
use crate::target::{QUICK, Target};

/// What was done, and who is left.
#[derive(Debug)]
pub struct Plain {
    outcome: Outcome,
    rest: BTreeSet<String>,
}

const TYPES: &[Type] = &[Type::TIMESTAMPTZ, Type::PG_LSN, Type::TEXT_ARRAY];

impl Projection {
    /// Whether this Open WebUI lets e-mails be looked up; prepares the statement if so.
    pub async fn prepare_plain(&self, target: &Target) -> Result<bool> {
        if !self.layout.unique_email {
            return Ok(false);
        }
        target.prepare(&self.plain, TYPES).await?;
        Ok(true)
    }

    /// Tries the short way for `users`, behind a savepoint. Meant to be sent together with the statements before it: they
    /// write the mirror, and whether the answer may be used is only known from theirs.
    pub async fn plain(&self, target: &Target, users: &[&str], stamp: Stamp) -> Result<Plain> {
        let statement = target.prepare(&self.plain, TYPES).await?;
        let parameters: &[&(dyn ToSql + Sync)] = &[&stamp.now, &stamp.lsn, &users];
        let (savepoint, rows) = tokio::join!(
            target.execute("set a savepoint", "savepoint plain"),
            target.query("write plain accounts", QUICK, &statement, parameters),
        );
        savepoint?;
        let row = only(rows?)?;
        let outcome = Outcome {
            accounts_created: row.get("created"),
            accounts_updated: row.get("renamed"),
            ..Outcome::default()
        };
        Ok(Plain { outcome, rest: row.get::<_, Vec<String>>("rest").into_iter().collect() })
    }

    /// Goes on where the short way ended: with whom it left, and with the API keys and models of those whose are touched
    /// (the `touches` of LiteLLM's users in [`crate::catalog`] say when a change of a user is).
    pub async fn after_plain(
        &self,
        target: &Target,
        plain: Plain,
        mut touched: Touched,
        stamp: Stamp,
    ) -> Result<Outcome> {
        let Plain { mut outcome, rest } = plain;
        touched.users = rest;
        outcome.add(Box::pin(self.apply(target, Scope::These(&touched), stamp)).await?);
        Ok(outcome)
    }

    /// Keeps what the short way did, or undoes it: where a row could not be written, and where more is `touched` than
    /// the users it knew of. Then everybody goes the general way.
    pub async fn keep_plain(
        &self,
        target: &Target,
        plain: Result<Plain>,
        touched: &Touched,
    ) -> Result<Option<Plain>> {
        match plain {
            Ok(plain) if touched.is_only_users() => return Ok(Some(plain)),
            Err(error) if !error.is_about_a_row() => return Err(error),
            Ok(_) | Err(_) => {}
        }
        let back = "rollback to savepoint plain; release savepoint plain";
        target.execute("go back to a savepoint", back).await?;
        Ok(None)
    }
}
