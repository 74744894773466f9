//! A part of a batch that holds nothing but users.
//!
//! Owns the question whether it does, and the statement that writes it and fails where it touches anything else: what
//! [`super::Writes::send`] says of others is known here before it is sent. Decides nothing about an account.

use std::sync::LazyLock;

use tokio_postgres::Statement;
use tokio_postgres::types::{ToSql, Type};

use super::{row_columns, statements};
use crate::catalog::{TABLES, Table, TableId};
use crate::decode::{RowKey, Value};
use crate::error::Result;
use crate::stage::{Entry, Part};
use crate::target::{QUICK, Target};

/// The users a part holds, each once.
#[derive(Debug)]
pub struct Users<'a> {
    rows: Vec<(&'a RowKey, &'a Vec<Value>)>,
    /// Those the source inserted.
    pub new: Vec<&'a str>,
    /// The others.
    pub changed: Vec<&'a str>,
}

/// The users of `part`, if it holds nothing else and nobody goes: whoever goes leaves an e-mail to others.
pub fn alone(part: &Part) -> Option<Users<'_>> {
    if !part.budgets.is_empty() {
        return None;
    }
    let mut changed = TableId::all().zip(&part.tables).filter(|(_, changes)| !changes.segments.is_empty());
    let (id, changes) = changed.next()?;
    let (table, [only]) = (id.table(), &*changes.segments) else { return None };
    if changed.next().is_some() || table.mirror != "litellm_user" || only.truncate || !only.moves.is_empty() {
        return None;
    }
    let mut users = Users { rows: Vec::with_capacity(only.rows.len()), new: Vec::new(), changed: Vec::new() };
    for (key, entry) in &only.rows {
        let id = key.parts().next()?;
        let values = match entry {
            Entry::Delete => return None,
            Entry::Insert(values) => {
                users.new.push(id);
                values
            }
            Entry::Upsert(values) => {
                users.changed.push(id);
                values
            }
        };
        users.rows.push((key, values));
    }
    users.new.sort_unstable();
    users.changed.sort_unstable();
    Some(users)
}

impl Users<'_> {
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes the mirror. An error about a row where anything is touched but these users, and the keys and models of those who are new.
    pub async fn write(&self, target: &Target, statement: &Statement) -> Result<()> {
        let (columns, unsent) = row_columns(table(), self.rows.clone());
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::with_capacity(columns.len() + 2);
        for column in &columns {
            parameters.push(column);
        }
        parameters.push(&unsent);
        parameters.push(&self.new);
        target.query("write the mirror", QUICK, statement, &parameters).await?;
        Ok(())
    }
}

/// Prepares [`Users::write`].
pub async fn prepare(target: &Target) -> Result<Statement> {
    let mut types = vec![Type::TEXT_ARRAY; table().columns.len()];
    types.extend([Type::INT8_ARRAY, Type::TEXT_ARRAY]);
    target.prepare(&TEXT, &types).await
}

/// [`statements::upsert`] of LiteLLM's users, with one more parameter: the ids of those whose keys and models may be touched (`text[]`).
/// Touched as users they may be all. Where anything else is, or one of the rows is `missing`, it fails with an error about a row.
static TEXT: LazyLock<String> = LazyLock::new(|| {
    let table = table();
    let others = format!(
        "select case when count(*) = 0 then 1
            -- No number: this fails, and says why in the server's log.
            else ('litellm-webui-sync: more than users are touched, goes the general way: ' || count(*))::bigint end
  from touching where kind <> 'user' and (kind <> 'rights' or id <> all (${}::text[]))",
        table.columns.len() + 2
    );
    // Never without it: what is not written here would be taken for applied.
    #[expect(clippy::expect_used, reason = "every statement of that kind ends so")]
    statements::wrapped(&statements::upsert(table), &others).expect("an upsert ends with who is touched")
});

/// LiteLLM's users, in the catalog.
fn table() -> &'static Table {
    #[expect(clippy::expect_used, reason = "the catalog has it")]
    TABLES.iter().find(|table| table.mirror == "litellm_user").expect("the catalog has users")
}
