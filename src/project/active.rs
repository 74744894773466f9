//! Who used Open WebUI since it was last looked at: its own group sync (OAuth, LDAP, a trusted header) takes people out of our
//! groups when they sign in, and the reconcile would put them back minutes later.
//!
//! Owns how far that was looked. What is found is projected like anybody who is touched. Writes nothing.

use tokio_postgres::types::{ToSql, Type};

use super::touched::Touched;
use crate::error::Result;
use crate::sql;
use crate::target::{QUICK, Target};

/// How many at a time; the others are found the next time.
const MOST: i64 = 1_000;

/// Up to where: whoever was active in that very second may still be joined by others.
#[derive(Debug, Clone, Default)]
pub struct Through {
    second: Option<i64>,
    accounts: Vec<String>,
}

impl Through {
    pub fn second(&self) -> Option<i64> {
        self.second
    }
}

/// Who was active after `through`, and what that becomes once they were looked at.
pub async fn since(target: &Target, through: &Through) -> Result<(Touched, Through)> {
    let statement = target.prepare(sql::ACTIVE_PEOPLE, &[Type::INT8, Type::TEXT_ARRAY, Type::INT8]).await?;
    let parameters: [&(dyn ToSql + Sync); 3] = [&through.second, &through.accounts, &MOST];
    let rows = target.query("look who used Open WebUI", QUICK, &statement, &parameters).await?;
    let mut touched = Touched { closely: true, ..Touched::default() };
    let mut next = through.clone();
    for row in rows {
        let (account, user, at): (String, Option<String>, i64) = (row.get(0), row.get(1), row.get(2));
        if next.second != Some(at) {
            next = Through { second: Some(at), accounts: Vec::new() };
        }
        next.accounts.push(account);
        touched.users.extend(user);
    }
    Ok((touched, next))
}
