//! Keeps which set of models each person has, and says what follows for Open WebUI.
//!
//! Owns the parameters and the answer of `sql/project/store_access.sql`. Decides nothing, and writes no row of Open WebUI's.

use std::collections::BTreeSet;

use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::{Decided, MANY};
use crate::access::ModelSet;
use crate::error::Result;
use crate::project::Stamp;
use crate::sql;
use crate::target::{QUICK, SLOW, Target};

/// What `store_access.sql` says follows.
#[derive(Debug, Default)]
pub(super) struct Follows {
    pub(super) people: Vec<String>,
    /// Sets that have a group from now on, and those of them that are new; sets that have none.
    pub(super) grouped: Vec<String>,
    pub(super) new_groups: Vec<String>,
    pub(super) ungrouped: Vec<String>,
    pub(super) former_groups: Vec<String>,
    pub(super) stripped: Stripped,
}

/// Stores what these people are to have. `group_min`: how many people with the same models make a group.
pub(super) async fn store(
    target: &Target,
    decided: &[Decided],
    group_min: i32,
    asked: Asked,
    stamp: Stamp,
) -> Result<Follows> {
    let types = [
        Type::TIMESTAMPTZ,
        Type::PG_LSN,
        Type::BOOL,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::TEXT_ARRAY,
        Type::INT4,
        Type::TEXT,
    ];
    let statement = target.prepare(sql::STORE_ACCESS, &types).await?;
    let users: Vec<&str> = decided.iter().map(|(user, _)| user.as_str()).collect();
    let hashes: Vec<Option<&str>> =
        decided.iter().map(|(_, set)| set.as_ref().map(|set| set.hash.as_str())).collect();
    let sets: BTreeSet<&ModelSet> = decided.iter().filter_map(|(_, set)| set.as_deref()).collect();
    let set_hashes: Vec<&str> = sets.iter().map(|set| set.hash.as_str()).collect();
    let names: Vec<String> = sets.iter().map(|set| set.name()).collect();
    let models: Vec<String> =
        sets.iter().map(|set| serde_json::Value::from(set.models.as_slice()).to_string()).collect();
    let Stamp { now, lsn, audit_each, .. } = stamp;
    let answer = asked.name();
    let parameters: &[&(dyn ToSql + Sync)] =
        &[&now, &lsn, &audit_each, &users, &hashes, &set_hashes, &names, &models, &group_min, &answer];
    let patience = if decided.len() > MANY || asked != Asked::Changed { SLOW } else { QUICK };
    let rows = target.query("store who may use what", patience, &statement, parameters).await?;
    Ok(follows(&rows))
}

/// Who loses their last model: hashes of their Open WebUI ids.
#[derive(Debug, Default)]
pub(in crate::project) struct Stripped {
    pub(in crate::project) people: Vec<i64>,
    /// Those of whom a used-up budget takes some.
    pub(in crate::project) by_budget: Vec<i64>,
}

/// What `store_access.sql` is to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Changed,
    /// Every set there is, and nobody by name.
    Sets,
    Stripped,
}

impl Asked {
    fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Sets => "sets",
            Self::Stripped => "stripped",
        }
    }
}

fn follows(rows: &[Row]) -> Follows {
    let mut follows = Follows::default();
    for row in rows {
        let id: String = row.get(1);
        match row.get(0) {
            "person" => follows.people.push(id),
            "stripped" => {
                let by_budget: bool = row.get(2);
                let Stripped { people, by_budget: closed } = &mut follows.stripped;
                if by_budget { closed } else { people }.extend(row.get::<_, Option<i64>>(4));
            }
            _ => {
                let (wants, has): (bool, bool) = (row.get(2), row.get(3));
                if wants && !has {
                    follows.new_groups.push(id.clone());
                }
                if has && !wants {
                    follows.former_groups.push(id.clone());
                }
                if wants { follows.grouped.push(id) } else { follows.ungrouped.push(id) }
            }
        }
    }
    follows
}
