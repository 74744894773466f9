//! What is different between two pictures of Open WebUI, a line per row, for a person.
//!
//! Pure: takes two pictures, and knows no database.

use std::collections::{BTreeMap, BTreeSet};

use super::picture::{Account, Picture};

/// A change of a team touches everybody in it; so many rows show what happens.
const ROWS_SHOWN: usize = 4;
/// How many people are named before they are counted.
const NAMES_SHOWN: usize = 2;

/// The lines, accounts first.
pub(super) fn lines(before: &Picture, after: &Picture) -> Vec<String> {
    let mut lines = accounts(before, after);
    if lines.len() > ROWS_SHOWN {
        let more = lines.len() - ROWS_SHOWN + 1;
        lines.truncate(ROWS_SHOWN - 1);
        lines.push(format!("account  … and {more} more"));
    }
    lines.extend(groups(before, after));
    lines.extend(keys(before, after));
    lines.extend(models(before, after));
    if lines.is_empty() {
        lines.push("nothing was written to Open WebUI's tables".to_owned());
    }
    lines
}

fn accounts(before: &Picture, after: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, new) in &after.accounts {
        let Some(old) = before.accounts.get(id) else {
            lines.push(format!("account  {}: new, \"{}\", role {}", new.email, new.name, new.role));
            continue;
        };
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
        if !changed.is_empty() {
            lines.push(format!("account  {}: {}", old.email, changed.join(", ")));
        }
    }
    let gone = before.accounts.iter().filter(|(id, _)| !after.accounts.contains_key(*id));
    lines.extend(gone.map(|(_, old)| format!("account  {}: deleted", old.email)));
    lines
}

fn groups(before: &Picture, after: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    let people = |ids: &mut dyn Iterator<Item = &String>| -> String {
        let names: Vec<&str> = ids
            .map(|id| after.accounts.get(id).map_or(id.as_str(), |account| account.email.as_str()))
            .collect();
        names.join(", ")
    };
    for (id, new) in after.groups.iter().filter(|(_, group)| !group.has_models) {
        let Some(old) = before.groups.get(id) else {
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
    let is_gone = |id: &String| !after.groups.contains_key(id);
    let gone = before.groups.iter().filter(|(id, group)| is_gone(id) && !group.has_models);
    lines.extend(gone.map(|(_, old)| format!("group    {}: deleted", old.name)));
    lines
}

fn keys(before: &Picture, after: &Picture) -> Vec<String> {
    let had = |id: &String| before.accounts.get(id).is_some_and(|old| old.has_key);
    let changed = after.accounts.iter().filter(|(id, new)| new.has_key != had(id));
    changed
        .map(|(_, new)| {
            let what = if new.has_key { "a personal one, minted" } else { "deleted" };
            format!("API key  {}: {what}", new.email)
        })
        .collect()
}

/// Whoever gained and lost the same is on one line.
fn models(before: &Picture, after: &Picture) -> Vec<String> {
    let nothing = BTreeSet::new();
    let mut alike: BTreeMap<(Vec<&str>, Vec<&str>), Vec<&str>> = BTreeMap::new();
    for (id, new) in &after.accounts {
        let saw = before.accounts.get(id).map_or(&nothing, |old| &old.sees);
        let gained = new.sees.difference(saw).map(String::as_str).collect();
        let lost = saw.difference(&new.sees).map(String::as_str).collect();
        alike.entry((gained, lost)).or_default().push(&new.email);
    }
    alike.remove(&(Vec::new(), Vec::new()));
    let line = |((gained, lost), people): ((Vec<&str>, Vec<&str>), Vec<&str>)| {
        let (named, others) = people.split_at(people.len().min(NAMES_SHOWN));
        let mut who = named.join(", ");
        if !others.is_empty() {
            who = format!("{who} and {} more", others.len());
        }
        let changes = [("gained", gained), ("lost", lost)];
        let changes: Vec<String> = changes
            .iter()
            .filter(|(_, models)| !models.is_empty())
            .map(|(what, models)| format!("{what} {}", models.join(", ")))
            .collect();
        format!("models   {who}: {}", changes.join("; "))
    };
    alike.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::super::picture::Group;
    use super::*;

    fn picture() -> Picture {
        let account = |email: &str| Account {
            email: email.to_owned(),
            name: "N".to_owned(),
            role: "user".to_owned(),
            is_active: true,
            has_key: false,
            sees: ["m".to_owned()].into(),
        };
        let accounts = ["a", "b", "c", "d", "e"].map(|id| (id.to_owned(), account(&format!("{id}@x"))));
        let group = |has_models| Group { name: "G".to_owned(), members: BTreeSet::new(), has_models };
        let groups = [("g".to_owned(), group(false)), ("h".to_owned(), group(true))];
        Picture { accounts: accounts.into(), groups: groups.into() }
    }

    #[test]
    fn a_difference_names_the_fields_before_and_after() {
        let mut after = picture();
        let account = after.accounts.get_mut("a").unwrap();
        (account.role, account.is_active, account.has_key) = ("pending".to_owned(), false, true);
        for group in after.groups.values_mut() {
            group.members.insert("b".to_owned());
        }
        assert_eq!(
            lines(&picture(), &after),
            [
                "account  a@x: role user → pending, log-in on → off",
                "group    G: 0 → 1 members, joined: b@x",
                "API key  a@x: a personal one, minted"
            ]
        );
        assert_eq!(lines(&picture(), &picture()), ["nothing was written to Open WebUI's tables"]);
    }

    #[test]
    fn many_accounts_are_cut_to_a_few_lines() {
        let mut after = picture();
        after.accounts.values_mut().for_each(|account| account.name = "M".to_owned());
        let lines = lines(&picture(), &after);
        assert_eq!(lines.len(), ROWS_SHOWN);
        assert_eq!(lines.last().unwrap(), "account  … and 2 more");
    }

    #[test]
    fn people_whose_models_change_alike_share_a_line() {
        let mut after = picture();
        for (id, account) in &mut after.accounts {
            match id.as_str() {
                "e" => account.sees = BTreeSet::new(),
                "d" => {}
                _ => account.sees.extend(["n".to_owned(), "o".to_owned()]),
            }
        }
        assert_eq!(
            lines(&picture(), &after),
            ["models   e@x: lost m", "models   a@x, b@x and 1 more: gained n, o"]
        );
    }
}
