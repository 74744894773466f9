//! Whose models are looked at, and in which parts.
//!
//! Owns the lists of people, which are as long as a company is large: at most [`PART`] of them are held at a time. Decides nothing
//! about models.

use tokio_postgres::types::Type;

use crate::error::Result;
use crate::project::{Scope, only};
use crate::target::{SLOW, Target};

/// How many people are listed, and written, at a time.
pub(super) const PART: usize = 10_000;

/// Who to look at.
#[derive(Debug)]
pub(super) struct People {
    pub(super) ids: Vec<String>,
    pub(super) look: Look,
}

/// How they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Who is to have what they had is left out.
    News,
    /// What they have in Open WebUI is looked at, also of those who are to have what they had.
    Closely,
    /// The same, as if everybody had an account: these are still to be written, in a transaction that whoever looks does not see.
    BeforeAccounts,
}

/// Whether everybody's models may have changed.
pub(super) async fn is_everybody(target: &Target, scope: Scope<'_>) -> Result<bool> {
    Ok(match scope {
        Scope::Everything => true,
        Scope::Models => false,
        Scope::These(touched) => touched.all_rights,
        Scope::Touched => {
            let text = "select exists (select from touched where kind = 'all_rights')";
            let statement = target.prepare(text, &[]).await?;
            only(target.query("look for changed models", SLOW, &statement, &[]).await?)?.get(0)
        }
    })
}

/// Who to look at. Who has neither an account nor models needs no look: there is nothing to give and nothing to take.
pub(super) async fn people(target: &Target, scope: Scope<'_>) -> Result<People> {
    if let Scope::These(touched) = scope {
        let ids = touched.rights_people().cloned().collect();
        return Ok(People { ids, look: if touched.closely { Look::Closely } else { Look::News } });
    }
    Ok(People { ids: next_touched(target, "").await?, look: Look::News })
}

/// The next people of all there are, after one of them: before accounts are written, LiteLLM's as well.
pub(super) async fn next_of_all(target: &Target, look: Look, last: &str) -> Result<People> {
    let tables: &[&str] = match look {
        Look::BeforeAccounts => &["litellm_user", "account", "effective_access"],
        Look::News | Look::Closely => &["account", "effective_access"],
    };
    let of_each = |table| format!("(select user_id from {table} where user_id > $1 order by 1 limit $2)");
    let known = tables.iter().map(of_each).collect::<Vec<_>>().join(" union ");
    let text = format!(
        "select coalesce(array_agg(user_id order by user_id), '{{}}')
           from (select user_id from ({known}) known order by 1 limit $2) next"
    );
    Ok(People { ids: next(target, &text, last).await?, look })
}

/// The next people of the temporary table `touched`, after one of them.
pub(super) async fn next_touched(target: &Target, last: &str) -> Result<Vec<String>> {
    let text = "select coalesce(array_agg(id order by id), '{}')
                  from (select distinct t.id from touched t
                         where t.kind in ('user', 'member', 'rights', 'models') and t.id > $1
                           and (exists (select from account a where a.user_id = t.id)
                                or exists (select from effective_access e where e.user_id = t.id))
                         order by t.id limit $2) next";
    next(target, text, last).await
}

/// One array: a row each would take several times the memory.
async fn next(target: &Target, text: &str, last: &str) -> Result<Vec<String>> {
    let statement = target.prepare(text, &[Type::TEXT, Type::INT8]).await?;
    let part = i64::try_from(PART).unwrap_or(i64::MAX);
    let rows = target.query("list whose access is touched", SLOW, &statement, &[&last, &part]).await?;
    Ok(only(rows)?.get(0))
}
