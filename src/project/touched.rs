//! Who is touched by a batch: the one place that says how a touched key reaches others.
//!
//! | changed in LiteLLM | touches |
//! |---|---|
//! | a user | the user; and whoever may now get the e-mail it freed (`emails`) |
//! | a team's name or organization | its group; everybody in it (`team_people`) |
//! | a team's roster | groups and models of whoever joined or left (`rosters`, `members`), and where it may be part of it their name |
//! | an organization's name | its group |
//! | an organization membership | the user |
//! | a key | its owner's API key and models (`rights`) |
//! | a member's budget, a project, an access group, a used-up budget | the models of whoever it is about (`models`) |
//! | a team's models, state, aliases or access groups | the models of everybody in it (`team_rights`) |
//! | an organization's models | the models of everybody under it (`organization_rights`) |
//! | which models LiteLLM serves, or their tags | everybody's access (`all_rights`) |
//!
//! Whoever is touched as a user is touched in their access too ([`Touched::rights_people`]). A spend flush changes no
//! mirrored column and touches nobody.
//!
//! The first step is the `touches` query of each table in [`crate::catalog`], the second one file each in
//! `sql/mirror/`. Holds LiteLLM's ids; knows no Open WebUI table.

use std::collections::BTreeSet;

use crate::catalog::TABLES;
use crate::error::{Error, Result};
use crate::target::dead_letter::Kind;

/// Touched keys, by kind. Sorted, so that statements insert in key order.
#[derive(Debug, Default, Clone)]
pub struct Touched {
    pub users: BTreeSet<String>,
    pub teams: BTreeSet<String>,
    pub organizations: BTreeSet<String>,
    /// E-mails that an account held and its person gave up.
    pub emails: BTreeSet<String>,
    /// Teams whose roster changed.
    pub rosters: BTreeSet<String>,
    /// Teams that matter to everybody in them.
    pub team_people: BTreeSet<String>,
    /// LiteLLM users whose groups and models may have changed, although account, name and API key have not.
    pub members: BTreeSet<String>,
    /// LiteLLM users whose API key or model access may have changed, although account, name and membership have not.
    pub rights: BTreeSet<String>,
    /// LiteLLM users whose models may have changed, and nothing else.
    pub models: BTreeSet<String>,
    /// Teams whose people's access may have changed.
    pub team_rights: BTreeSet<String>,
    /// Organizations whose people's access may have changed.
    pub organization_rights: BTreeSet<String>,
    /// Everybody's model access may have changed.
    pub all_rights: bool,
    /// What people share is looked at: models, access groups, and what is granted to them; not whose they are.
    pub shared: bool,
    /// Nothing in LiteLLM changed: what these people have in Open WebUI may have been changed there.
    pub closely: bool,
}

impl Touched {
    /// Adds one key a statement reported. `table` names it in the error for a lost row.
    pub fn add(&mut self, table: usize, kind: &str, id: String) -> Result<()> {
        match kind {
            "user" => self.users.insert(id),
            "member" => self.members.insert(id),
            "team" => self.teams.insert(id),
            "organization" => self.organizations.insert(id),
            "email" => self.emails.insert(id),
            "roster" => self.rosters.insert(id),
            "team_people" => self.team_people.insert(id),
            "rights" => self.rights.insert(id),
            "models" => self.models.insert(id),
            "team_rights" => self.team_rights.insert(id),
            "organization_rights" => self.organization_rights.insert(id),
            "all_rights" => !std::mem::replace(&mut self.all_rights, true),
            "missing" => {
                let table = TABLES.get(table).map_or("a table", |table| table.source);
                return Err(Error::MirrorLost { table });
            }
            // The kinds are written in our own SQL.
            other => return Err(Error::Usage(format!("unknown kind of touched key: {other}"))),
        };
        Ok(())
    }

    /// Adds whose access follows from something else that the same batch says.
    pub fn add_rights(&mut self, other: Self) {
        self.rights.extend(other.rights);
        self.models.extend(other.models);
        self.team_rights.extend(other.team_rights);
        self.organization_rights.extend(other.organization_rights);
    }

    /// Adds what is to be looked at for a dead letter to be tried again.
    pub fn try_again(&mut self, kind: Kind, key: String) {
        match kind {
            Kind::Account | Kind::LastAdmin => self.users.insert(key),
            Kind::Access | Kind::ApiKey => self.rights.insert(key),
            // The rows of models are written all at once, when anybody may get another one.
            Kind::Model => !std::mem::replace(&mut self.all_rights, true),
            Kind::Team => self.teams.insert(key),
            Kind::Organization => self.organizations.insert(key),
        };
    }

    /// Whether no account, group or membership is touched. Access may be all the same.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.members.is_empty() && !self.has_groups()
    }

    pub fn has_groups(&self) -> bool {
        !self.teams.is_empty() || !self.organizations.is_empty()
    }

    /// Whether anybody's API key or models may have changed.
    pub fn has_rights(&self) -> bool {
        let people = [&self.users, &self.members, &self.rights, &self.models];
        self.all_rights || self.shared || people.iter().any(|keys| !keys.is_empty())
    }

    /// Everybody whose API key or models may have changed, each once, in order: those touched in their access and
    /// those touched at all. With `all_rights` set it is everybody there is, and this is not the whole list.
    pub fn rights_people(&self) -> impl Iterator<Item = &String> {
        let people = [&self.users, &self.members, &self.rights, &self.models];
        let mut people: Vec<&String> = people.into_iter().flatten().collect();
        people.sort_unstable();
        people.dedup();
        people.into_iter()
    }

    /// Everybody whose groups may have changed, as [`Self::rights_people`].
    pub fn group_people(&self) -> impl Iterator<Item = &String> {
        self.users.union(&self.members)
    }

    /// Everybody whose API key may have changed, as [`Self::rights_people`].
    pub fn key_people(&self) -> impl Iterator<Item = &String> {
        self.users.union(&self.rights)
    }

    /// Whether nothing but models may have changed, and not everybody's.
    pub fn is_only_models(&self) -> bool {
        let others = [&self.emails, &self.rosters, &self.team_people, &self.rights];
        self.is_empty() && !self.all_rights && !self.shared && others.iter().all(|keys| keys.is_empty())
    }

    /// How many accounts and groups the projection has to look at.
    pub fn len(&self) -> usize {
        self.group_people().count() + self.teams.len() + self.organizations.len()
    }

    /// How many there are whose account, group, key or models may change: by it statements are planned, and waited for.
    /// (Everybody, where `all_rights` says so, is the models' own affair.)
    pub fn reach(&self) -> usize {
        let others = self.rights.union(&self.models);
        let is_counted = |user: &String| self.users.contains(user) || self.members.contains(user);
        self.len() + others.filter(|user| !is_counted(user)).count()
    }

    /// Whether what is noted here leads on to people who are not noted yet.
    pub fn leads_on(&self) -> bool {
        let leading = [&self.rosters, &self.team_people, &self.team_rights, &self.organization_rights];
        leading.iter().any(|ids| !ids.is_empty())
    }

    /// The same, where nobody's account is known to be what it was: whoever cannot be written is found among the accounts.
    pub fn with_accounts(mut self) -> Self {
        self.users.append(&mut self.members);
        self
    }

    /// Splits into two halves, or `None` for a single entity: to find the one that cannot be written. Of [`Self::with_accounts`].
    pub fn split(&self) -> Option<(Self, Self)> {
        if self.len() < 2 {
            return None;
        }
        let (mut left, mut right) = (Self::default(), Self::default());
        let half = self.len().div_ceil(2);
        let mut place = 0;
        for (from, kind) in [(&self.users, 0), (&self.teams, 1), (&self.organizations, 2)] {
            for id in from {
                let side = if place < half { &mut left } else { &mut right };
                match kind {
                    0 => side.users.insert(id.clone()),
                    1 => side.teams.insert(id.clone()),
                    _ => side.organizations.insert(id.clone()),
                };
                place += 1;
            }
        }
        Some((left, right))
    }

    /// The only entity, as the dead letter it would be.
    pub fn single(&self) -> Option<(Kind, &str)> {
        let user = self.users.iter().map(|id| (Kind::Account, id.as_str()));
        let team = self.teams.iter().map(|id| (Kind::Team, id.as_str()));
        let org = self.organizations.iter().map(|id| (Kind::Organization, id.as_str()));
        let mut every = user.chain(team).chain(org);
        match (every.next(), every.next()) {
            (Some(one), None) => Some(one),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_only_have_other_models_is_looked_at_for_them_alone() {
        let mut touched = Touched::default();
        for (kind, id) in [("models", "a"), ("models", "b"), ("team_rights", "t")] {
            touched.add(0, kind, id.to_owned()).unwrap();
        }
        assert!(touched.is_only_models() && touched.has_rights() && touched.is_empty());
        assert_eq!(
            (touched.key_people().count(), touched.rights_people().count(), touched.reach()),
            (0, 2, 2)
        );
        touched.add(0, "member", "d".to_owned()).unwrap();
        assert!(!touched.is_only_models() && !touched.is_empty());
        assert_eq!((touched.key_people().count(), touched.len(), touched.reach()), (0, 1, 3));
        touched.add(0, "rights", "b".to_owned()).unwrap();
        touched.add(0, "user", "c".to_owned()).unwrap();
        assert!(!touched.is_only_models());
        assert!(touched.rights_people().eq(["a", "b", "c", "d"]) && touched.key_people().eq(["b", "c"]));
        assert!(touched.group_people().eq(["c", "d"]));
        assert_eq!(touched.reach(), 4);
        assert!(touched.with_accounts().users.iter().eq(["c", "d"]));
    }

    #[test]
    fn splitting_ends_at_single_entities_and_loses_none() {
        let mut touched = Touched::default();
        for id in ["a", "b", "c"] {
            touched.users.insert(id.to_owned());
        }
        touched.teams.insert("t".to_owned());
        let mut queue = vec![touched];
        let mut found = Vec::new();
        while let Some(next) = queue.pop() {
            match next.split() {
                Some((left, right)) => queue.extend([left, right]),
                None => found.push(next.single().unwrap().1.to_owned()),
            }
        }
        found.sort();
        assert_eq!(found, ["a", "b", "c", "t"]);
    }
}
