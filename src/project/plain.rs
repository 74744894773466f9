//! The short way: people who are simply new, or whose name alone changed, written together with the COMMIT of their batch.
//!
//! Owns the two statements of it, and when they may be tried: what they write is what the general way would write, and where somebody
//! is not as plain as that they fail, with an error about a row.

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};

use super::{Projection, Stamp, only};
use crate::error::Result;
use crate::sql::{self, fill};
use crate::target::open_webui::People;
use crate::target::{QUICK, Target};

#[derive(Debug)]
pub(super) struct Texts {
    new: String,
    renamed: String,
}

impl Texts {
    pub(super) fn new() -> Self {
        let new = fill(sql::PLAIN_NEW, ":new_user", sql::NEW_USER);
        let complete = |text: &str| fill(text, ":people", sql::OPEN_WEBUI);
        Self { new: complete(&new), renamed: complete(sql::PLAIN_RENAMED) }
    }
}

/// The statements, prepared: nothing that is sent together may wait for that.
#[derive(Debug)]
pub struct Plain {
    new: Statement,
    renamed: Statement,
}

const TYPES: &[Type] = &[Type::TIMESTAMPTZ, Type::PG_LSN, Type::TEXT_ARRAY, Type::INT8];

impl Projection {
    /// Whether the short way may be tried, `with_new` people or without: where this Open WebUI lets e-mails be looked up, and as long
    /// as nobody who is new gets a model.
    pub async fn prepare_plain(&self, target: &Target, with_new: bool) -> Result<Option<Plain>> {
        if !self.layout.email.unique || with_new && !self.access.is_unused(target).await? {
            return Ok(None);
        }
        let new = target.prepare(&self.plain.new, TYPES).await?;
        let renamed = target.prepare(&self.plain.renamed, TYPES).await?;
        Ok(Some(Plain { new, renamed }))
    }
}

impl Plain {
    /// Makes accounts for these LiteLLM users, while Open WebUI's `people` are where they were; gives how many.
    pub async fn create(&self, target: &Target, users: &[&str], people: People, stamp: Stamp) -> Result<i64> {
        run(target, &self.new, "make plain accounts", users, people, stamp).await
    }

    /// Renames the accounts of these LiteLLM users; gives how many had another name.
    pub async fn rename(&self, target: &Target, users: &[&str], people: People, stamp: Stamp) -> Result<i64> {
        run(target, &self.renamed, "rename plain accounts", users, people, stamp).await
    }
}

async fn run(
    target: &Target,
    statement: &Statement,
    action: &'static str,
    users: &[&str],
    people: People,
    stamp: Stamp,
) -> Result<i64> {
    if users.is_empty() {
        return Ok(0);
    }
    let parameters: &[&(dyn ToSql + Sync)] = &[&stamp.now, &stamp.lsn, &users, &people.oid];
    Ok(only(target.query(action, QUICK, statement, parameters).await?)?.get(0))
}
