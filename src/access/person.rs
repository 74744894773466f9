//! How the levels narrow each other: what one person may use, path by path. Pure.
//!
//! ```text
//! team path t:     Team_t ∧ Member_{u,t} ∧ Org_{of t} ∧ User_u        (t names u, or a key of u's is for it; not blocked)
//! personal path:   User_u ∧ (u in no organization ∨ Org_o of one of u's)
//! keys:            where u has keys on a path, it counts only through a usable one, narrowed by its lists
//! ```
//!
//! A used-up budget closes what it is for: the person every path, a team, its organization and the person's own budget in it the
//! team's path, a key itself; an organization on the personal path is as if it was not theirs.
//!
//! A person may use what some path allows. A level that is not there does not narrow. A key that opens nothing, because it is for a
//! team that is gone or must not chat, still is a key: its owner is not somebody without one, whom no key limits.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::bits::Bits;
use super::lists::{KnownModels, Place};

/// What of LiteLLM decides over one person.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    pub models: Vec<String>,
    pub organizations: Vec<Arc<Organization>>,
    pub teams: Vec<Member>,
    pub keys: Vec<Key>,
    /// Their own budget is used up.
    pub budget_closed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Organization {
    pub id: String,
    pub models: Vec<String>,
    /// Its budget is used up.
    pub budget_closed: bool,
}

/// The person in a team whose roster names them, or that one of their keys is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Member {
    pub team: Arc<Team>,
    /// The team's roster names the person. Otherwise all they get of it is through their keys.
    pub in_roster: bool,
    /// The person's own budget in the team: `allowed_models`.
    pub models: Vec<String>,
    /// That budget is used up.
    pub budget_closed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Team {
    pub id: String,
    pub blocked: bool,
    pub models: Vec<String>,
    /// The models of its `access_group_ids`.
    pub group_models: Vec<String>,
    pub organization: Option<Arc<Organization>>,
    /// Its budget is used up.
    pub budget_closed: bool,
}

/// A key of the person that is no UI session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    /// Only to tell keys apart: the stored token, a hash.
    pub token: String,
    /// Neither blocked nor expired.
    pub usable: bool,
    /// Its budget is used up.
    pub budget_closed: bool,
    pub rights: Arc<KeyRights>,
}

/// What a key's row says of models: the same for many keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRights {
    pub team: Option<String>,
    /// `allowed_routes` let it chat.
    pub fits: bool,
    /// Its list is NULL: not an empty one, but a row LiteLLM cannot read, and refuses.
    pub unreadable: bool,
    pub models: Vec<String>,
    /// The models of its `access_group_ids`, and of those that name its team or itself.
    pub group_models: Vec<String>,
    pub override_models: Vec<String>,
    pub aliases: HashMap<String, String>,
    pub project: Option<Project>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Project {
    pub id: String,
    pub blocked: bool,
    pub models: Vec<String>,
}

/// `access.keys` of the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRule {
    /// A path with keys counts through them; one without counts as it is.
    Narrow,
    /// Nothing without a usable key.
    Required,
}

/// One level of a path.
#[derive(Debug, Clone)]
pub struct Level<'a> {
    pub what: What,
    /// Which organization, team, key or project.
    pub id: &'a str,
    pub list: Cow<'a, [String]>,
    pub allowed: Arc<Bits>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Served,
    Organization,
    Team,
    Member,
    User,
}

/// One path, level by level.
#[derive(Debug, Clone)]
pub struct Path<'a> {
    /// `None`: the personal path.
    pub team: Option<&'a Team>,
    /// Why nothing comes of it, whatever the lists say.
    pub closed: Option<&'static str>,
    /// Each must allow a model, and so must a key where `keys` says so.
    pub levels: Vec<Level<'a>>,
    /// `None`: no key is asked for.
    pub keys: Option<Vec<KeyLevel<'a>>>,
    pub allowed: Bits,
}

/// What one key makes of a path.
#[derive(Debug, Clone)]
pub struct KeyLevel<'a> {
    pub key: &'a Key,
    pub closed: Option<&'static str>,
    /// By the key's own lists.
    pub own: Bits,
    /// By the key's project.
    pub project: Option<Bits>,
    /// By the team's list, or the key's access groups where these go beyond it.
    pub team: Bits,
    pub allowed: Bits,
}

const NO_DEFAULT: &str = "no-default-models";
const USED_UP: &str = "the person's budget is used up";

/// What the person may use.
pub fn decide(known_models: &KnownModels, person: &Person, rule: KeyRule) -> Bits {
    let mut may = known_models.none();
    for path in paths(known_models, person, rule) {
        may.widen(&path.allowed);
    }
    may
}

/// Every path of the person, the personal one first.
pub fn paths<'a>(known_models: &KnownModels, person: &'a Person, rule: KeyRule) -> Vec<Path<'a>> {
    let mut paths = vec![personal_path(known_models, person, rule)];
    paths.extend(person.teams.iter().map(|member| team_path(known_models, person, member, rule)));
    paths
}

fn personal_path<'a>(known_models: &KnownModels, person: &'a Person, rule: KeyRule) -> Path<'a> {
    let keys: Vec<&Key> = person.keys.iter().filter(|key| key.rights.team.is_none()).collect();
    let all_organizations_closed = !person.organizations.is_empty()
        && person.organizations.iter().all(|organization| organization.budget_closed);
    let closed = if person.budget_closed {
        Some(USED_UP)
    } else if all_organizations_closed {
        Some("the budget of every organization is used up")
    } else if person.models.iter().any(|model| model == NO_DEFAULT) {
        Some("the user's models say no-default-models")
    } else if person.teams.iter().any(|member| member.in_roster)
        && !keys.iter().any(|key| why_unusable(key).is_none())
    {
        Some("in a team, and no usable key outside of one")
    } else if keys.is_empty() && !person.keys.is_empty() {
        Some("has keys, and none outside of a team")
    } else {
        None
    };
    let anywhere = Place::Anywhere;
    let mut levels = vec![level(What::Served, "", &[], Arc::new(known_models.served(anywhere)))];
    for organization in person.organizations.iter().filter(|organization| !organization.budget_closed) {
        let allowed = known_models.allowed(&organization.models, anywhere);
        levels.push(level(What::Organization, &organization.id, &organization.models, allowed));
    }
    let allowed = known_models.allowed(&person.models, anywhere);
    levels.push(level(What::User, "", &person.models, allowed));
    let mut allowed = known_models.all();
    // One of the organizations is enough.
    let mut organizations = known_models.none();
    for level in &levels {
        if level.what == What::Organization {
            organizations.widen(&level.allowed);
        } else {
            allowed.narrow(&level.allowed);
        }
    }
    if !person.organizations.is_empty() {
        allowed.narrow(&organizations);
    }
    finish(known_models, Path { team: None, closed, levels, keys: None, allowed }, &keys, rule)
}

fn team_path<'a>(
    known_models: &KnownModels,
    person: &'a Person,
    member: &'a Member,
    rule: KeyRule,
) -> Path<'a> {
    let team = &*member.team;
    let (place, anywhere) = (Place::Team(&team.id), Place::Anywhere);
    let closed = if team.blocked {
        Some("the team is blocked")
    } else if person.budget_closed {
        Some(USED_UP)
    } else if team.budget_closed {
        Some("the team's budget is used up")
    } else if team.organization.as_ref().is_some_and(|organization| organization.budget_closed) {
        Some("the budget of the team's organization is used up")
    } else if member.budget_closed {
        Some("the budget of this member of the team is used up")
    } else {
        None
    };
    let mut levels = vec![level(What::Served, "", &[], Arc::new(known_models.served(place)))];
    if let Some(organization) = &team.organization {
        let allowed = known_models.allowed(&organization.models, anywhere);
        levels.push(level(What::Organization, &organization.id, &organization.models, allowed));
    }
    let list = team_list(team);
    let allowed = known_models.allowed(&list, place);
    levels.push(Level { what: What::Team, id: &team.id, list, allowed });
    if !member.models.is_empty() {
        let allowed = known_models.allowed(&member.models, anywhere);
        levels.push(level(What::Member, &team.id, &member.models, allowed));
    }
    // Says that there is nothing outside of teams, and nothing about teams.
    if !person.models.iter().any(|model| model == NO_DEFAULT) {
        let allowed = known_models.allowed(&person.models, anywhere);
        levels.push(level(What::User, "", &person.models, allowed));
    }
    let mut allowed = known_models.all();
    for level in levels.iter().filter(|level| level.what != What::Team) {
        allowed.narrow(&level.allowed);
    }
    let keys: Vec<&Key> =
        person.keys.iter().filter(|key| key.rights.team.as_ref() == Some(&team.id)).collect();
    finish(known_models, Path { team: Some(team), closed, levels, keys: None, allowed }, &keys, rule)
}

/// A team without a list is not limited, so its access groups add nothing to it.
fn team_list(team: &Team) -> Cow<'_, [String]> {
    if team.models.is_empty() || team.group_models.is_empty() {
        return Cow::Borrowed(&team.models);
    }
    team.models.iter().chain(&team.group_models).cloned().collect()
}

/// Puts the keys on top. Until here, `path.allowed` says nothing of the team's own list: a key's access groups may go
/// beyond it.
fn finish<'a>(known_models: &KnownModels, mut path: Path<'a>, keys: &[&'a Key], rule: KeyRule) -> Path<'a> {
    let by_team =
        path.levels.iter().find(|level| level.what == What::Team).map(|level| Arc::clone(&level.allowed));
    if keys.is_empty() && rule == KeyRule::Narrow {
        if let Some(by_team) = by_team {
            path.allowed.narrow(&by_team);
        }
    } else {
        let mut through = known_models.none();
        let mut levels = Vec::with_capacity(keys.len());
        for key in keys {
            let level = key_level(known_models, path.team, key, by_team.as_deref(), &path.levels);
            through.widen(&level.allowed);
            levels.push(level);
        }
        path.allowed.narrow(&through);
        path.keys = Some(levels);
    }
    if path.closed.is_some() {
        path.allowed = known_models.none();
    }
    path
}

fn why_unusable(key: &Key) -> Option<&'static str> {
    if !key.usable {
        Some("blocked or expired")
    } else if key.budget_closed {
        Some("its budget is used up")
    } else if !key.rights.fits {
        Some("its allowed_routes do not let it chat")
    } else if key.rights.unreadable {
        Some("its list is NULL, and LiteLLM refuses such a key")
    } else if key.rights.project.as_ref().is_some_and(|project| project.blocked) {
        Some("its project is blocked")
    } else {
        None
    }
}

fn key_level<'a>(
    known_models: &KnownModels,
    team: Option<&Team>,
    key: &'a Key,
    by_team: Option<&Bits>,
    levels: &[Level<'_>],
) -> KeyLevel<'a> {
    let place = team.map_or(Place::Anywhere, |team| Place::Team(&team.id));
    let rights = &*key.rights;
    let own = own_lists(known_models, team, rights, place, levels);
    let mut by_team = by_team.cloned().unwrap_or_else(|| known_models.all());
    if goes_beyond(known_models, team, rights, place) {
        by_team.widen(&known_models.allowed(&rights.override_models, place));
    }
    let project = rights.project.as_ref().filter(|project| !project.models.is_empty());
    let project = project.map(|project| (*known_models.allowed(&project.models, Place::Anywhere)).clone());
    let closed = why_unusable(key);
    let mut allowed = if closed.is_some() { known_models.none() } else { own.clone() };
    allowed.narrow(&by_team);
    if let Some(project) = &project {
        allowed.narrow(project);
    }
    KeyLevel { key, closed, own, project, team: by_team, allowed }
}

/// Whether a key may go beyond its team: not where LiteLLM fails at the team's list, and asks nothing else.
fn goes_beyond(known_models: &KnownModels, team: Option<&Team>, key: &KeyRights, place: Place<'_>) -> bool {
    !key.override_models.is_empty()
        && !team.is_some_and(|team| known_models.meaning(&team.models, place).is_spoiled)
}

/// The key's own list and that of its access groups. An alias grants nothing: Open WebUI's shared key does not know it, and whoever
/// asks for its name gets the real model. Where the key itself would be refused because of where the alias leads, so is its owner:
/// by its own lists, and by those of the path, which LiteLLM asks about the target as well.
fn own_lists(
    known_models: &KnownModels,
    team: Option<&Team>,
    key: &KeyRights,
    place: Place<'_>,
    levels: &[Level<'_>],
) -> Bits {
    let inherits = key.models.iter().any(|model| model == "all-team-models");
    // Where LiteLLM fails at the first list, it does not ask the second.
    let has_groups = !key.group_models.is_empty() && !known_models.meaning(&key.models, place).is_spoiled;
    let mut own =
        if inherits { known_models.all() } else { (*known_models.allowed(&key.models, place)).clone() };
    if has_groups {
        own.widen(&known_models.allowed(&key.group_models, place));
    }
    if key.aliases.is_empty() {
        return own;
    }
    // What a key without a list of its own may use is its team's.
    let by_list = |target: &str| match team {
        Some(team) if inherits => known_models.allows(&team_list(team), target, place),
        _ => inherits || known_models.allows(&key.models, target, place),
    };
    let leads_somewhere_allowed = |name: &String| {
        key.aliases.get(name).is_none_or(|target| {
            let by_key =
                by_list(target) || has_groups && known_models.allows(&key.group_models, target, place);
            by_key && path_allows(known_models, team, key, levels, target)
        })
    };
    let mut judged = known_models.none();
    for (at, name) in known_models.names().iter().enumerate() {
        if own.contains(at) && leads_somewhere_allowed(name) {
            judged.insert(at);
        }
    }
    judged
}

/// Whether the levels LiteLLM asks when somebody uses a key allow what its alias leads to.
fn path_allows(
    known_models: &KnownModels,
    team: Option<&Team>,
    key: &KeyRights,
    levels: &[Level<'_>],
    target: &str,
) -> bool {
    let place = team.map_or(Place::Anywhere, |team| Place::Team(&team.id));
    let beyond = || {
        goes_beyond(known_models, team, key, place)
            && known_models.allows(&key.override_models, target, place)
    };
    let by_project = key.project.as_ref().is_none_or(|project| {
        project.models.is_empty() || known_models.allows(&project.models, target, Place::Anywhere)
    });
    by_project
        && levels.iter().all(|level| match level.what {
            What::Served | What::Organization => true,
            What::Team => known_models.allows(&level.list, target, place) || beyond(),
            // LiteLLM does not ask somebody's own list about a team's key: there it is ours, and about the real model.
            What::User => team.is_some() || known_models.allows(&level.list, target, Place::Anywhere),
            What::Member => known_models.allows(&level.list, target, Place::Anywhere),
        })
}

fn level<'a>(what: What, id: &'a str, list: &'a [String], allowed: Arc<Bits>) -> Level<'a> {
    Level { what, id, list: Cow::Borrowed(list), allowed }
}

/// Whether `allowed_routes` let a key chat. `key_type` is what they were made from, and LiteLLM does not ask it again.
pub fn fits_for_chat(routes: &[String]) -> bool {
    const CHAT: &[&str] = &["/chat/completions", "/v1/chat/completions"];
    const GROUPS: &[&str] = &["llm_api_routes", "openai_routes", "*"];
    routes.is_empty()
        || routes.iter().any(|route| {
            GROUPS.contains(&route.as_str())
                || CHAT.contains(&route.as_str())
                || route
                    .strip_suffix('*')
                    .is_some_and(|start| CHAT.iter().any(|chat| chat.starts_with(start)))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_that_may_chat_count() {
        let fits = |routes: &[&str]| {
            let routes: Vec<String> = routes.iter().map(|route| (*route).to_owned()).collect();
            fits_for_chat(&routes)
        };
        assert!(fits(&[]) && fits(&["llm_api_routes"]) && fits(&["/v1/chat/completions"]));
        assert!(fits(&["/v1/*"]) && fits(&["x", "/*"]));
        assert!(!fits(&["management_routes"]) && !fits(&["/embeddings"]) && !fits(&["info_routes"]));
    }
}
