//! Reads what decides over people's models out of our mirror.
//!
//! Four look-ups by user id (`sql/access/`), sent together, and one more for whoever has keys of teams that do not name them; and the
//! models LiteLLM serves.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;
use std::time::SystemTime;

use serde_json::value::RawValue;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::lists::{Deployment, KnownModels, NULL};
use super::person::{Key, Organization, Person, Project, Team, fits_for_chat};
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

/// The models LiteLLM serves, by its rows and by what else is known.
pub async fn known_models(target: &Target) -> Result<KnownModels> {
    let action = "read which models LiteLLM serves";
    let rows =
        target.prepare("select model_name, model_info::text, blocked from litellm_proxy_model", &[]).await?;
    let others = target.prepare("select name, tags from other_model", &[]).await?;
    let (rows, others) =
        tokio::join!(target.query(action, SLOW, &rows, &[]), target.query(action, SLOW, &others, &[]));
    let deployments: Vec<Deployment> = rows?
        .iter()
        .map(|row| deployment(row.get(0), row.get(1), row.get::<_, Option<&str>>(2) == Some("t")))
        .collect();
    let others: Vec<(String, Vec<String>)> = others?.iter().map(|row| (row.get(0), row.get(1))).collect();
    Ok(KnownModels::new(&deployments, &others))
}

fn deployment(name: Option<String>, info: Option<&str>, blocked: bool) -> Deployment {
    let info = info.and_then(json::object).unwrap_or_default();
    let text =
        |field: &str| info.get(field).and_then(|value| json::text(value)).filter(|text| !text.is_empty());
    let name = name.unwrap_or_default();
    let team = text("team_id").map(|team| {
        let public_name = text("team_public_model_name").unwrap_or_else(|| name.clone());
        (team, public_name)
    });
    let tags: Vec<Box<RawValue>> =
        info.get("access_groups").and_then(|tags| json::array(tags.get())).unwrap_or_default();
    let tags = tags.iter().filter_map(|tag| json::text(tag)).collect();
    Deployment { name, team, tags, blocked }
}

/// What the mirror says about some people, as it came.
#[derive(Debug, Default)]
pub struct Answers {
    people: Vec<Row>,
    organizations: Vec<Row>,
    teams: Vec<Row>,
    keys: Vec<Row>,
}

impl Answers {
    /// Asks about these people (LiteLLM's ids); their keys are judged by `now`.
    pub async fn about(target: &Target, ids: &[String], now: SystemTime) -> Result<Self> {
        Self::ask(target, sql::ACCESS_OF_PEOPLE, ids, now).await
    }

    /// The same as if each of them had an account: for who decides over everybody before accounts are written.
    pub async fn of_everybody(target: &Target, ids: &[String], now: SystemTime) -> Result<Self> {
        Self::ask(target, sql::ACCESS_OF_EVERYBODY, ids, now).await
    }

    async fn ask(target: &Target, of_people: &str, ids: &[String], now: SystemTime) -> Result<Self> {
        let action = "read what decides over people's models";
        let mut statements = Vec::with_capacity(4);
        for text in [of_people, sql::ACCESS_OF_ORGANIZATIONS, &OF_ROSTERS] {
            statements.push(target.prepare(text, &[Type::TEXT_ARRAY]).await?);
        }
        statements.push(target.prepare(sql::ACCESS_OF_KEYS, &[Type::TEXT_ARRAY, Type::TIMESTAMPTZ]).await?);
        let [people, organizations, teams, keys] = statements.as_slice() else { return Ok(Self::default()) };
        let (by_id, by_id_and_time): ([&(dyn ToSql + Sync); 1], [&(dyn ToSql + Sync); 2]) =
            ([&ids], [&ids, &now]);
        // In their order: after the first error, the others say no more than that there was one.
        let (people, organizations, teams, keys) = tokio::try_join!(
            biased;
            target.query(action, SLOW, people, &by_id),
            target.query(action, SLOW, organizations, &by_id),
            target.query(action, SLOW, teams, &by_id),
            target.query(action, SLOW, keys, &by_id_and_time),
        )?;
        let mut answers = Self { people, organizations, teams, keys };
        let (people, of_keys) = answers.teams_of_keys_alone();
        if !people.is_empty() {
            let statement = target.prepare(&OF_KEYS_ALONE, &[Type::TEXT_ARRAY; 2]).await?;
            let rows = target.query(action, SLOW, &statement, &[&people, &of_keys]).await?;
            answers.teams.extend(rows);
        }
        Ok(answers)
    }

    /// The teams that people have keys for, but whose roster does not name them: the people, and for each the team.
    fn teams_of_keys_alone(&self) -> (Vec<String>, Vec<String>) {
        fn pair(row: &Row) -> (&str, &str) {
            (row.get("user_id"), row.get("team_id"))
        }
        let in_roster: HashSet<(&str, &str)> = self.teams.iter().map(pair).collect();
        let keys = self.keys.iter().filter(|row| row.get::<_, Option<&str>>("team_id").is_some());
        let alone: BTreeSet<(&str, &str)> = keys.map(pair).filter(|pair| !in_roster.contains(pair)).collect();
        alone.into_iter().map(|(user, team)| (user.to_owned(), team.to_owned())).unzip()
    }

    /// What it comes to. Who has no account, or is an admin of LiteLLM, and never had a model is missing.
    pub fn read(&self) -> Result<HashMap<String, Known>> {
        let mut known: HashMap<String, Known> = self
            .people
            .iter()
            .map(|row| {
                let budget_closed = row.get("budget_closed");
                let person = Person { models: list(row, "models")?, budget_closed, ..Person::default() };
                let has = row.get::<_, Option<String>>("set_hash").zip(row.get("had_id"));
                let (webui_id, failed) = (row.get("webui_id"), row.get("failed"));
                Ok((row.get("user_id"), Known { person, webui_id, has, failed }))
            })
            .collect::<Result<_>>()?;
        for row in &self.organizations {
            if let Some(known) = known.get_mut(row.get::<_, &str>("user_id")) {
                let models = list(row, "models")?;
                let (id, budget_closed) = (row.get("organization_id"), row.get("budget_closed"));
                known.person.organizations.push(Organization { id, models, budget_closed });
            }
        }
        for row in &self.teams {
            let Some(known) = known.get_mut(row.get::<_, &str>("user_id")) else { continue };
            let (models, budget_closed) = (list(row, "organization_models")?, row.get("organization_closed"));
            let organization = row.get::<_, Option<String>>("organization_id").map(|id| Organization {
                id,
                models,
                budget_closed,
            });
            known.person.teams.push(Team {
                id: row.get("team_id"),
                in_roster: row.get("in_roster"),
                blocked: row.get("blocked"),
                models: list(row, "models")?,
                group_models: list(row, "group_models")?,
                organization,
                member_models: list(row, "member_models")?,
                budget_closed: row.get("budget_closed"),
                member_closed: row.get("member_closed"),
            });
        }
        for row in &self.keys {
            let Some(known) = known.get_mut(row.get::<_, &str>("user_id")) else { continue };
            let (models, blocked) = (list(row, "project_models")?, row.get("project_blocked"));
            let project =
                row.get::<_, Option<String>>("project_id").map(|id| Project { id, blocked, models });
            known.person.keys.push(Key {
                token: row.get("token"),
                team: row.get("team_id"),
                usable: row.get("usable"),
                fits: fits_for_chat(&list(row, "allowed_routes")?),
                unreadable: row.get::<_, Option<Vec<Option<String>>>>("models").is_none(),
                models: list(row, "models")?,
                group_models: list(row, "group_models")?,
                override_models: list(row, "override_models")?,
                aliases: aliases(row.get("aliases")),
                project,
                budget_closed: row.get("budget_closed"),
            });
        }
        Ok(known)
    }
}

/// `sql/access/of_teams.sql`, of the teams whose roster names somebody, and of those of keys.
static OF_ROSTERS: LazyLock<String> =
    LazyLock::new(|| fill(sql::ACCESS_OF_TEAMS, ":person_team", sql::ACCESS_ROSTER_TEAMS));
static OF_KEYS_ALONE: LazyLock<String> =
    LazyLock::new(|| fill(sql::ACCESS_OF_TEAMS, ":person_team", sql::ACCESS_KEY_TEAMS));

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
    fn rows_that_people_typed_are_read_leniently() {
        let team = deployment(
            Some("model_name_t_1".into()),
            Some(r#"{"team_id":"t","team_public_model_name":"p"}"#),
            false,
        );
        assert_eq!(team.team, Some(("t".into(), "p".into())));
        let odd = deployment(Some("m".into()), Some(r#"{"access_groups":["a",7],"team_id":null}"#), true);
        assert_eq!((odd.team, odd.tags, odd.blocked), (None, vec!["a".to_owned()], true));
        assert_eq!(deployment(None, Some("nonsense"), false), Deployment::default());
        assert_eq!(aliases(Some(r#""{\"a\":\"b\",\"c\":1}""#)), HashMap::from([("a".into(), "b".into())]));
        assert!(aliases(None).is_empty() && aliases(Some("7")).is_empty());
    }
}
