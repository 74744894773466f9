//! Reads what decides over some people out of our mirror.
//!
//! Owns the look-ups by user id (`sql/access/`): four, sent together, and one more for whoever has keys of teams that do not name them.
//! Each row is taken apart as it comes, and what many of them say is kept once: some people have hundreds of keys. Decides nothing.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use super::lists::NULL;
use super::person::{Key, KeyRights, Member, Organization, Person, Project, Team, fits_for_chat};
use crate::error::{Result, Side, on};
use crate::json;
use crate::sql::{self, fill};
use crate::target::{SLOW, Target};

/// What is known of one person.
#[derive(Debug)]
pub struct Known {
    pub person: Person,
    /// Their Open WebUI account. `None`: not to have any model, whatever the lists say.
    pub webui_id: Option<String>,
    /// The set they have by now, and the account it was given to.
    pub has: Option<(String, String)>,
    /// They could not be written before.
    pub failed: bool,
}

/// How people are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// Each by index, whatever the planner thinks of it: they are few of all there are.
    OneByOne,
    /// As the planner has it: they are a good part of all there are, and reading everybody is less. The session must let it
    /// ([`Target::plan_large`], [`Target::plan_reading`]).
    Together,
}

/// Whether accounts are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accounts {
    Written,
    /// As if each of them had one, and no set of models.
    ToBeWritten,
}

const ACTION: &str = "read what decides over people's models";

/// What the mirror says about these people (LiteLLM's ids), in their order; their keys are judged by `now`. Who has no account, or is an
/// admin of LiteLLM, and never had a model is missing.
///
/// # Errors
/// Where the target does not answer, or with something else than lists.
pub async fn about(
    target: &Target,
    ids: &[String],
    accounts: Accounts,
    lookup: Lookup,
    now: SystemTime,
) -> Result<Vec<(String, Known)>> {
    let texts = Texts::of(lookup);
    let people = match accounts {
        Accounts::Written => &texts.people,
        Accounts::ToBeWritten => &texts.everybody,
    };
    let people = target.prepare(people, &[Type::TEXT_ARRAY]).await?;
    let organizations = target.prepare(sql::ACCESS_OF_ORGANIZATIONS, &[Type::TEXT_ARRAY]).await?;
    let teams = target.prepare(&texts.roster_teams, &[Type::TEXT_ARRAY]).await?;
    let keys = target.prepare(&texts.keys, &[Type::TEXT_ARRAY, Type::TIMESTAMPTZ]).await?;
    let (by_id, by_id_and_time): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 2]) =
        ([&ids], [&ids, &now]);

    let places = Places(ids.iter().enumerate().map(|(place, id)| (id.as_str(), place)).collect());
    let mut known: Vec<Option<Known>> = Vec::new();
    known.resize_with(ids.len(), || None);
    let mut of_organizations: Vec<(usize, Arc<Organization>)> = Vec::new();
    let (mut members, mut held) = (Members::default(), Keys::default());
    // In their order: after the first error, the others say no more than that there was one.
    tokio::try_join!(
        biased;
        target.each(ACTION, SLOW, &people, &by_id, |row| {
            if let Some(known) = places.of(row).and_then(|place| known.get_mut(place)) {
                *known = Some(person(row)?);
            }
            Ok(())
        }),
        target.each(ACTION, SLOW, &organizations, &by_id, |row| {
            if let Some(place) = places.of(row) {
                of_organizations.push((place, Arc::new(organization(row)?)));
            }
            Ok(())
        }),
        target.each(ACTION, SLOW, &teams, &by_id, |row| members.take(&places, row)),
        target.each(ACTION, SLOW, &keys, &by_id_and_time, |row| held.take(&places, row)),
    )?;
    let (people, teams) = held.teams_without(&members, ids);
    if !people.is_empty() {
        let statement = target.prepare(&texts.key_teams, &[Type::TEXT_ARRAY; 2]).await?;
        target.each(ACTION, SLOW, &statement, &[&people, &teams], |row| members.take(&places, row)).await?;
    }
    for (place, organization) in of_organizations {
        if let Some(Some(known)) = known.get_mut(place) {
            known.person.organizations.push(organization);
        }
    }
    for (place, member) in members.in_order() {
        if let Some(Some(known)) = known.get_mut(place) {
            known.person.teams.push(member);
        }
    }
    for (place, key) in held.in_order() {
        if let Some(Some(known)) = known.get_mut(place) {
            known.person.keys.push(key);
        }
    }
    Ok(ids.iter().zip(known).filter_map(|(id, known)| Some((id.clone(), known?))).collect())
}

#[derive(Debug)]
struct Texts {
    people: String,
    everybody: String,
    roster_teams: String,
    key_teams: String,
    keys: String,
}

impl Texts {
    fn new(given: &str, one_by_one: &str) -> Self {
        let of = |text: &str| fill(&fill(text, ":one_by_one", one_by_one), ":given_people", given);
        let of_teams = |people: &str| fill(&of(sql::ACCESS_OF_TEAMS), ":person_team", &of(people));
        Self {
            people: of(sql::ACCESS_OF_PEOPLE),
            everybody: of(sql::ACCESS_OF_EVERYBODY),
            roster_teams: of_teams(sql::ACCESS_ROSTER_TEAMS),
            key_teams: of_teams(sql::ACCESS_KEY_TEAMS),
            keys: of(sql::ACCESS_OF_KEYS),
        }
    }

    fn of(lookup: Lookup) -> &'static Self {
        static ONE_BY_ONE: LazyLock<Texts> = LazyLock::new(|| Texts::new(sql::ACCESS_GIVEN, "offset 0"));
        static TOGETHER: LazyLock<Texts> = LazyLock::new(|| Texts::new(sql::ACCESS_GIVEN_TOGETHER, ""));
        match lookup {
            Lookup::OneByOne => &ONE_BY_ONE,
            Lookup::Together => &TOGETHER,
        }
    }
}

/// The places of those who were asked about.
#[derive(Debug)]
struct Places<'a>(HashMap<&'a str, usize>);

impl Places<'_> {
    /// Whom a row is about: its first column.
    fn of(&self, row: &Row) -> Option<usize> {
        self.0.get(row.get::<_, &str>(0)).copied()
    }
}

/// The teams of people, by their places.
#[derive(Debug, Default)]
struct Members {
    teams: Said<Team>,
    taken: Vec<(usize, Member)>,
}

impl Members {
    /// A row of `of_teams.sql`.
    fn take(&mut self, places: &Places<'_>, row: &Row) -> Result<()> {
        let Some(place) = places.of(row) else { return Ok(()) };
        let member = Member {
            in_roster: row.get(1),
            models: list(row, "member_models")?,
            budget_closed: row.get(3),
            team: self.teams.take(row, 4, team)?,
        };
        self.taken.push((place, member));
        Ok(())
    }

    fn in_order(mut self) -> Vec<(usize, Member)> {
        self.taken
            .sort_unstable_by(|(place, one), (of, other)| (place, &one.team.id).cmp(&(of, &other.team.id)));
        self.taken
    }
}

/// The keys of people, by their places: of those of one person that say the same, one.
#[derive(Debug, Default)]
struct Keys {
    rights: Said<KeyRights>,
    taken: Vec<(usize, Key)>,
    /// Where each is, by all that is said of it.
    same: HashMap<(usize, usize, bool, bool), usize>,
}

impl Keys {
    /// A row of `of_keys.sql`.
    fn take(&mut self, places: &Places<'_>, row: &Row) -> Result<()> {
        let Some(place) = places.of(row) else { return Ok(()) };
        let (token, usable, budget_closed): (&str, bool, bool) = (row.get(1), row.get(2), row.get(3));
        let rights = self.rights.take(row, 4, key_rights)?;
        let said = (place, Arc::as_ptr(&rights).addr(), usable, budget_closed);
        let at = *self.same.entry(said).or_insert(self.taken.len());
        match self.taken.get_mut(at) {
            Some((_, known)) if token < known.token.as_str() => token.clone_into(&mut known.token),
            Some(_) => {}
            None => self.taken.push((place, Key { token: token.to_owned(), usable, budget_closed, rights })),
        }
        Ok(())
    }

    /// The teams that people have keys for, but whose roster does not name them: of `ids` the people, and for each the team.
    fn teams_without(&self, members: &Members, ids: &[String]) -> (Vec<String>, Vec<String>) {
        let mut seen: HashSet<(usize, &str)> =
            members.taken.iter().map(|(place, member)| (*place, member.team.id.as_str())).collect();
        let mut alone = Vec::new();
        for (place, key) in &self.taken {
            if let Some(team) = &key.rights.team
                && seen.insert((*place, team))
                && let Some(id) = ids.get(*place)
            {
                alone.push((id.clone(), team.clone()));
            }
        }
        alone.into_iter().unzip()
    }

    fn in_order(mut self) -> Vec<(usize, Key)> {
        self.taken.sort_unstable_by(|(place, one), (of, other)| (place, &one.token).cmp(&(of, &other.token)));
        self.taken
    }
}

/// What rows say from some column on, by the bytes they say it with.
#[derive(Debug)]
struct Said<T> {
    by_bytes: HashMap<Vec<u8>, Arc<T>>,
    bytes: Vec<u8>,
}

impl<T> Default for Said<T> {
    fn default() -> Self {
        Self { by_bytes: HashMap::new(), bytes: Vec::new() }
    }
}

impl<T> Said<T> {
    fn take(&mut self, row: &Row, from: usize, read: impl FnOnce(&Row) -> Result<T>) -> Result<Arc<T>> {
        self.bytes.clear();
        for column in from..row.len() {
            // Its length before it, and one more than any value has for NULL: no two rows give the same bytes.
            let value = row.get::<_, Option<Sent<'_>>>(column);
            let length = value.as_ref().map_or(u64::MAX, |value| value.0.len() as u64);
            self.bytes.extend_from_slice(&length.to_ne_bytes());
            self.bytes.extend_from_slice(value.map_or(&[], |value| value.0));
        }
        if let Some(known) = self.by_bytes.get(self.bytes.as_slice()) {
            return Ok(Arc::clone(known));
        }
        let said = Arc::new(read(row)?);
        self.by_bytes.insert(self.bytes.clone(), Arc::clone(&said));
        Ok(said)
    }
}

/// A value as it was sent, whatever its type.
struct Sent<'a>(&'a [u8]);

impl<'a> FromSql<'a> for Sent<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> std::result::Result<Self, Box<dyn Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn person(row: &Row) -> Result<Known> {
    let person =
        Person { models: list(row, "models")?, budget_closed: row.get("budget_closed"), ..Person::default() };
    let has = row.get::<_, Option<String>>("set_hash").zip(row.get("had_id"));
    Ok(Known { person, webui_id: row.get("webui_id"), has, failed: row.get("failed") })
}

fn organization(row: &Row) -> Result<Organization> {
    let (id, budget_closed) = (row.get("organization_id"), row.get("budget_closed"));
    Ok(Organization { id, models: list(row, "models")?, budget_closed })
}

fn team(row: &Row) -> Result<Team> {
    let (models, budget_closed) = (list(row, "organization_models")?, row.get("organization_closed"));
    let organization = row
        .get::<_, Option<String>>("organization_id")
        .map(|id| Arc::new(Organization { id, models, budget_closed }));
    Ok(Team {
        id: row.get("team_id"),
        blocked: row.get("blocked"),
        models: list(row, "models")?,
        group_models: list(row, "group_models")?,
        organization,
        budget_closed: row.get("budget_closed"),
    })
}

fn key_rights(row: &Row) -> Result<KeyRights> {
    let (models, blocked) = (list(row, "project_models")?, row.get("project_blocked"));
    let project = row.get::<_, Option<String>>("project_id").map(|id| Project { id, blocked, models });
    Ok(KeyRights {
        team: row.get("team_id"),
        fits: fits_for_chat(&list(row, "allowed_routes")?),
        unreadable: row.get::<_, Option<Vec<Option<String>>>>("models").is_none(),
        models: list(row, "models")?,
        group_models: list(row, "group_models")?,
        override_models: list(row, "override_models")?,
        aliases: aliases(row.get("aliases")),
        project,
    })
}

/// NULL is the same as empty, and no limit (but for a key's list). A NULL in a list is an element, as it is to LiteLLM.
fn list(row: &Row, column: &str) -> Result<Vec<String>> {
    let models: Option<Vec<Option<String>>> =
        row.try_get(column).map_err(on(Side::Target, "read a list of models"))?;
    Ok(models.unwrap_or_default().into_iter().map(|model| model.unwrap_or_else(|| NULL.to_owned())).collect())
}

/// An object of names, which LiteLLM sometimes keeps as JSON inside a JSON string.
fn aliases(sent: Option<&str>) -> HashMap<String, String> {
    let object = sent.and_then(json::object).unwrap_or_default();
    object.into_iter().filter_map(|(name, target)| Some((name, json::text(&target)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_that_people_typed_are_read_leniently() {
        assert_eq!(aliases(Some(r#""{\"a\":\"b\",\"c\":1}""#)), HashMap::from([("a".into(), "b".into())]));
        assert!(aliases(None).is_empty() && aliases(Some("7")).is_empty());
    }
}
