//! Open WebUI's accounts, groups, models and API keys at one moment.
//!
//! Reads Open WebUI's own tables by Open WebUI's own rules, and nothing of ours. What is different at another moment is for
//! `difference` to say.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use tokio_postgres::Client;

const ACCOUNTS: &str = "select u.id, u.email, u.name, u.role, coalesce(a.active, false),
                               exists (select from api_key k where k.user_id = u.id)
                          from \"user\" u left join auth a using (id)";
/// A group that a model is granted to is shown by what its members see.
const GROUPS: &str =
    "select g.id, g.name, array(select m.user_id from group_member m where m.group_id = g.id),
                             exists (select from access_grant a where a.resource_type = 'model'
                                        and a.principal_type = 'group' and a.principal_id = g.id)
                        from \"group\" g";
/// An admin sees every active model, somebody pending none.
const MODELS: &str = "select u.id, m.id from \"user\" u, model m
                       where m.is_active and u.role <> 'pending'
                         and (u.role = 'admin' or m.user_id = u.id
                              or exists (select from access_grant a
                                          where a.resource_type = 'model' and a.resource_id = m.id and a.permission = 'read'
                                            and (a.principal_type = 'user' and a.principal_id in (u.id, '*')
                                                 or a.principal_type = 'group' and exists (
                                                     select from group_member g
                                                      where g.group_id = a.principal_id and g.user_id = u.id))))";

/// Open WebUI 0.12.4 at one moment. Accounts and groups by their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) accounts: BTreeMap<String, Account>,
    pub(super) groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) email: String,
    pub(super) name: String,
    pub(super) role: String,
    pub(super) is_active: bool,
    pub(super) has_key: bool,
    /// What they find in the list of models.
    pub(super) sees: BTreeSet<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) members: BTreeSet<String>,
    pub(super) has_models: bool,
}

impl Picture {
    pub(super) async fn take(webui: &Client) -> Result<Self> {
        let rows = webui.query(ACCOUNTS, &[]).await.context("could not read Open WebUI's accounts")?;
        let accounts = rows.iter().map(|row| {
            let account = Account {
                email: row.get(1),
                name: row.get(2),
                role: row.get(3),
                is_active: row.get(4),
                has_key: row.get(5),
                sees: BTreeSet::new(),
            };
            (row.get(0), account)
        });
        let mut accounts: BTreeMap<String, Account> = accounts.collect();
        let rows = webui.query(GROUPS, &[]).await.context("could not read Open WebUI's groups")?;
        let groups = rows.iter().map(|row| {
            let members: Vec<String> = row.get(2);
            let group =
                Group { name: row.get(1), members: members.into_iter().collect(), has_models: row.get(3) };
            (row.get(0), group)
        });
        let groups = groups.collect();
        for row in webui.query(MODELS, &[]).await.context("could not read who sees which model")? {
            if let Some(account) = accounts.get_mut(row.get::<_, &str>(0)) {
                account.sees.insert(row.get(1));
            }
        }
        Ok(Self { accounts, groups })
    }

    /// How many people see the same models, most first. Admins, who see all, are left out.
    pub(super) fn audiences(&self) -> Vec<(usize, &BTreeSet<String>)> {
        let mut found: BTreeMap<&BTreeSet<String>, usize> = BTreeMap::new();
        for account in self.accounts.values().filter(|account| account.role == "user") {
            *found.entry(&account.sees).or_default() += 1;
        }
        let mut found: Vec<_> = found.into_iter().map(|(models, people)| (people, models)).collect();
        found.sort_by_key(|(people, _)| std::cmp::Reverse(*people));
        found
    }
}
