//! Open WebUI's accounts and groups at one moment, and what is different at another.
//!
//! Reads Open WebUI's own tables, and nothing of ours.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use tokio_postgres::Client;

/// A change of a team touches everybody in it; so many rows show what happens.
const ROWS_SHOWN: usize = 4;

/// The accounts and groups of Open WebUI 0.12.4 at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    accounts: BTreeMap<String, Account>,
    pub(super) groups: BTreeMap<String, Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    email: String,
    name: String,
    role: String,
    is_active: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) members: BTreeSet<String>,
}

impl Picture {
    pub(super) async fn take(webui: &Client) -> Result<Self> {
        let text = "select u.id, u.email, u.name, u.role, coalesce(a.active, false)
                      from \"user\" u left join auth a using (id)";
        let rows = webui.query(text, &[]).await.context("could not read Open WebUI's accounts")?;
        let accounts = rows.iter().map(|row| {
            let account =
                Account { email: row.get(1), name: row.get(2), role: row.get(3), is_active: row.get(4) };
            (row.get(0), account)
        });
        let text = "select g.id, g.name, array(select m.user_id from group_member m where m.group_id = g.id)
                      from \"group\" g";
        let rows = webui.query(text, &[]).await.context("could not read Open WebUI's groups")?;
        let groups = rows.iter().map(|row| {
            let members: Vec<String> = row.get(2);
            let group = Group { name: row.get(1), members: members.into_iter().collect() };
            (row.get(0), group)
        });
        Ok(Self { accounts: accounts.collect(), groups: groups.collect() })
    }

    /// What is different in `after`, a line per row, for a person.
    pub(super) fn differences(&self, after: &Self) -> Vec<String> {
        let mut lines = self.account_differences(after);
        if lines.len() > ROWS_SHOWN {
            let more = lines.len() - ROWS_SHOWN + 1;
            lines.truncate(ROWS_SHOWN - 1);
            lines.push(format!("account  … and {more} more"));
        }
        lines.extend(self.group_differences(after));
        if lines.is_empty() {
            lines.push("nothing was written to Open WebUI's tables".to_owned());
        }
        lines
    }

    fn account_differences(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (id, new) in &after.accounts {
            match self.accounts.get(id) {
                None => {
                    lines.push(format!("account  {}: new, \"{}\", role {}", new.email, new.name, new.role));
                }
                Some(old) if old != new => {
                    let log_in = |account: &Account| if account.is_active { "on" } else { "off" };
                    let fields = [
                        ("e-mail", old.email.as_str(), new.email.as_str()),
                        ("name", &old.name, &new.name),
                        ("role", &old.role, &new.role),
                        ("log-in", log_in(old), log_in(new)),
                    ];
                    let changed: Vec<String> = fields
                        .iter()
                        .filter(|(_, old, new)| old != new)
                        .map(|(field, old, new)| format!("{field} {old} → {new}"))
                        .collect();
                    lines.push(format!("account  {}: {}", old.email, changed.join(", ")));
                }
                Some(_) => {}
            }
        }
        let gone = self.accounts.iter().filter(|(id, _)| !after.accounts.contains_key(*id));
        lines.extend(gone.map(|(_, old)| format!("account  {}: deleted", old.email)));
        lines
    }

    fn group_differences(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let people = |ids: &mut dyn Iterator<Item = &String>| -> String {
            let names: Vec<&str> = ids
                .map(|id| after.accounts.get(id).map_or(id.as_str(), |account| account.email.as_str()))
                .collect();
            names.join(", ")
        };
        for (id, new) in &after.groups {
            let Some(old) = self.groups.get(id) else {
                lines.push(format!("group    {}: new, {} members", new.name, new.members.len()));
                continue;
            };
            let mut changed = Vec::new();
            if old.name != new.name {
                changed.push(format!("name {} → {}", old.name, new.name));
            }
            if old.members != new.members {
                changed.push(format!("{} → {} members", old.members.len(), new.members.len()));
            }
            let joined = people(&mut new.members.difference(&old.members));
            if !joined.is_empty() {
                changed.push(format!("joined: {joined}"));
            }
            let left = people(&mut old.members.difference(&new.members));
            if !left.is_empty() {
                changed.push(format!("left: {left}"));
            }
            if !changed.is_empty() {
                lines.push(format!("group    {}: {}", old.name, changed.join(", ")));
            }
        }
        let gone = self.groups.iter().filter(|(id, _)| !after.groups.contains_key(*id));
        lines.extend(gone.map(|(_, old)| format!("group    {}: deleted", old.name)));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture() -> Picture {
        let account = |email: &str| Account {
            email: email.to_owned(),
            name: "N".to_owned(),
            role: "user".to_owned(),
            is_active: true,
        };
        let accounts = ["a", "b", "c", "d", "e"].map(|id| (id.to_owned(), account(&format!("{id}@x"))));
        let group = Group { name: "G".to_owned(), members: BTreeSet::new() };
        Picture { accounts: accounts.into(), groups: [("g".to_owned(), group)].into() }
    }

    #[test]
    fn a_difference_names_the_fields_before_and_after() {
        let mut after = picture();
        let account = after.accounts.get_mut("a").unwrap();
        (account.role, account.is_active) = ("pending".to_owned(), false);
        after.groups.get_mut("g").unwrap().members.insert("b".to_owned());
        assert_eq!(
            picture().differences(&after),
            ["account  a@x: role user → pending, log-in on → off", "group    G: 0 → 1 members, joined: b@x"]
        );
        assert_eq!(picture().differences(&picture()), ["nothing was written to Open WebUI's tables"]);
    }

    #[test]
    fn many_accounts_are_cut_to_a_few_lines() {
        let mut after = picture();
        after.accounts.values_mut().for_each(|account| account.name = "M".to_owned());
        let lines = picture().differences(&after);
        assert_eq!(lines.len(), ROWS_SHOWN);
        assert_eq!(lines.last().unwrap(), "account  … and 2 more");
    }
}
