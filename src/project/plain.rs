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
    keyless: BTreeSet<String>,
}

const TYPES: &[Type] = &[Type::TIMESTAMPTZ, Type::PG_LSN, Type::TEXT_ARRAY];

impl Projection {
    /// Whether this Open WebUI lets e-mails be looked up; prepares the statement if so.
    pub async fn prepare_plain(&self, target: &Target) -> Result<bool> {
        if !self.layout.email.unique {
            return Ok(false);
        }
        target.prepare(&self.plain, TYPES).await?;
        Ok(true)
    }

    /// Tries the short way for `users`. Meant to be sent together with the statements before it: they write the mirror, and
    /// whether the answer may be used ([`may_stand`]) is only known from theirs.
    pub async fn plain(&self, target: &Target, users: &[&str], stamp: Stamp) -> Result<Plain> {
        let statement = target.prepare(&self.plain, TYPES).await?;
        let parameters: &[&(dyn ToSql + Sync)] = &[&stamp.now, &stamp.lsn, &users];
        let rows = target.query("write plain accounts", QUICK, &statement, parameters).await;
        let row = only(rows?)?;
        let outcome = Outcome {
            accounts_created: row.get("created"),
            accounts_updated: row.get("renamed"),
            ..Outcome::default()
        };
        let ids = |column| row.get::<_, Vec<String>>(column).into_iter().collect();
        Ok(Plain { outcome, rest: ids("rest"), keyless: ids("keyless") })
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
        let Plain { mut outcome, rest, keyless } = plain;
        touched.users = rest;
        touched.keyless = keyless;
        outcome.add(Box::pin(self.apply(target, Scope::These(&touched), stamp)).await?);
        Ok(outcome)
    }
}

/// Whether what the short way did may stand. Not where a row could not be written, nor where more is `touched` than the
/// users it knew of: then the batch is to be rolled back, and everybody goes the general way.
pub fn may_stand(plain: Result<Plain>, touched: &Touched) -> Result<Option<Plain>> {
    match plain {
        Ok(plain) => Ok(touched.is_only_users().then_some(plain)),
        Err(error) if error.is_about_a_row() => Ok(None),
        Err(error) => Err(error),
    }
}
