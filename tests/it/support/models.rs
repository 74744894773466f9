//! The oracle for models: who may use what by LiteLLM's own rows, asked person by person and model by model; and what
//! Open WebUI shows to whom. Written from docs/src/design.md, "Models", and LiteLLM's rules, and nothing of the product: of its ledger
//! it reads only which account is whose.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Pair, rows};

/// Names LiteLLM serves without a row, as the test told the daemon.
pub(crate) type Extra<'a> = &'a [&'a str];

pub(crate) struct LiteLlm {
    /// By their id.
    users: BTreeMap<String, Value>,
    teams: Vec<Value>,
    organizations: Vec<Value>,
    organization_members: Vec<Value>,
    team_members: Vec<Value>,
    budgets: Vec<Value>,
    /// By user.
    keys: BTreeMap<String, Vec<Value>>,
    /// Of each team: user ids, and e-mails of entries without one.
    rosters: Vec<(BTreeSet<String>, BTreeSet<String>)>,
    models: Vec<Value>,
    groups: Vec<Value>,
    projects: Vec<Value>,
    extra: Vec<String>,
    now: String,
    /// Kind and id of budgets that are used up, where that closes anything.
    used_up: BTreeSet<(String, String)>,
}

async fn table(pair: &Pair, name: &str) -> Vec<Value> {
    if pair.ask_litellm(&format!("select to_regclass('public.\"{name}\"') is not null")).await != "t" {
        return Vec::new();
    }
    let sql = format!("select to_jsonb(t) from \"{name}\" t");
    rows(&pair.source, &sql)
        .await
        .iter()
        .map(|row| serde_json::from_str(row[0].as_ref().unwrap()).unwrap())
        .collect()
}

impl LiteLlm {
    pub(crate) async fn read(pair: &Pair, extra: Extra<'_>) -> Self {
        let teams = table(pair, "LiteLLM_TeamTable").await;
        let mut keys: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for key in table(pair, "LiteLLM_VerificationToken").await {
            keys.entry(text(&key["user_id"]).unwrap_or_default()).or_default().push(key);
        }
        Self {
            users: table(pair, "LiteLLM_UserTable")
                .await
                .into_iter()
                .map(|user| (user["user_id"].as_str().unwrap().to_owned(), user))
                .collect(),
            rosters: teams.iter().map(roster).collect(),
            teams,
            organizations: table(pair, "LiteLLM_OrganizationTable").await,
            organization_members: table(pair, "LiteLLM_OrganizationMembership").await,
            team_members: table(pair, "LiteLLM_TeamMembership").await,
            budgets: table(pair, "LiteLLM_BudgetTable").await,
            keys,
            models: table(pair, "LiteLLM_ProxyModelTable").await,
            groups: table(pair, "LiteLLM_AccessGroupTable").await,
            projects: table(pair, "LiteLLM_ProjectTable").await,
            extra: extra.iter().map(|name| (*name).to_owned()).collect(),
            used_up: BTreeSet::new(),
            now: pair
                .ask_litellm("select to_char(now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS')")
                .await,
        }
    }

    /// The same where used-up budgets close what they are for.
    pub(crate) async fn read_with_budgets(pair: &Pair, extra: Extra<'_>) -> Self {
        let mut read = Self::read(pair, extra).await;
        let sql = include_str!("../used_up.sql").replace(":now", "timezone('UTC', now())");
        let sql = format!("set timezone = 'UTC'; {sql}");
        read.used_up = rows(&pair.source, &sql)
            .await
            .iter()
            .map(|row| (row[0].clone().unwrap(), row[1].clone().unwrap()))
            .collect();
        read
    }

    fn is_used_up(&self, kind: &str, id: &Value) -> bool {
        text(id).is_some_and(|id| self.used_up.contains(&(kind.to_owned(), id)))
    }

    /// Every name anybody could be granted.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.extra.iter().cloned().collect();
        for model in &self.models {
            let info = unwrapped(&model["model_info"]);
            let public = text(&info["team_public_model_name"]).filter(|_| text(&info["team_id"]).is_some());
            names.insert(public.or(text(&model["model_name"])).unwrap_or_default());
        }
        names.retain(|name| !name.contains('*') && !name.is_empty());
        names
    }

    fn deployments(&self, model: &str, team: Option<&str>) -> Vec<(bool, Vec<String>)> {
        let mut found = Vec::new();
        for row in &self.models {
            let info = unwrapped(&row["model_info"]);
            let tags = strings(&info["access_groups"]);
            let is_it = match text(&info["team_id"]) {
                Some(owner) => {
                    team == Some(owner.as_str())
                        && text(&info["team_public_model_name"]).or(text(&row["model_name"])).as_deref()
                            == Some(model)
                }
                None => row["model_name"] == model,
            };
            if is_it {
                found.push((row["blocked"] == true, tags));
            }
        }
        found
    }

    fn is_served(&self, model: &str, team: Option<&str>) -> bool {
        let deployments = self.deployments(model, team);
        if deployments.iter().any(|(blocked, _)| !blocked) {
            return true;
        }
        let stopped = !self.deployments(model, None).is_empty();
        let internal = self.models.iter().any(|row| {
            let info = unwrapped(&row["model_info"]);
            text(&info["team_id"]).is_some()
                && (row["model_name"] == model || info["team_public_model_name"] == model)
        });
        self.extra.iter().any(|name| name == model) && !stopped && !internal
    }

    fn tags(&self, model: &str, team: Option<&str>) -> BTreeSet<String> {
        let of = |all: Vec<(bool, Vec<String>)>| {
            all.into_iter()
                .filter(|(blocked, _)| !blocked)
                .flat_map(|(_, tags)| tags)
                .collect::<BTreeSet<_>>()
        };
        let mut tags = of(self.deployments(model, team));
        if !self.deployments(model, None).iter().any(|(blocked, _)| !blocked) && self.is_served(model, None) {
            for row in &self.models {
                let name = text(&row["model_name"]).unwrap_or_default();
                let info = unwrapped(&row["model_info"]);
                if row["blocked"] != true
                    && text(&info["team_id"]).is_none()
                    && name.contains('*')
                    && fits(&name, model)
                {
                    tags.extend(strings(&info["access_groups"]));
                }
            }
        }
        tags
    }

    /// One list about one name.
    fn list(&self, list: &[String], model: &str, team: Option<&str>) -> bool {
        if list.is_empty() {
            return true;
        }
        let tags = self.tags(model, team);
        if list.iter().any(|item| tags.contains(item)) {
            return true;
        }
        // Patterns come next, in their order. LiteLLM fails at one that is none, and at a NULL.
        for item in list {
            if item == "*" {
                return true;
            }
            if item == NULL || item.contains('*') && is_broken(item) {
                return false;
            }
            if item.contains('*') && fits(item, model) {
                return true;
            }
        }
        list.iter().any(|item| match item.as_str() {
            "all-proxy-models" => true,
            "all-team-models" if team.is_some() => true,
            item => item == model,
        })
    }

    fn group_names(&self, ids: &[String], also: impl Fn(&Value) -> bool) -> Vec<String> {
        self.groups
            .iter()
            .filter(|group| ids.iter().any(|id| group["access_group_id"] == id.as_str()) && also(group))
            .flat_map(|group| strings(&group["access_model_names"]))
            .collect()
    }

    fn organization(&self, id: &Value, model: &str) -> Option<bool> {
        let organization = self.organizations.iter().find(|row| row["organization_id"] == *id)?;
        Some(self.list(&strings(&organization["models"]), model, None))
    }

    /// `path` says what the rest of the path makes of a name: LiteLLM asks it about where an alias leads, too.
    fn key_lets(&self, key: &Value, team: Option<&Value>, model: &str, path: &dyn Fn(&str) -> bool) -> bool {
        let token = text(&key["token"]).unwrap_or_default();
        let team_id = team.and_then(|team| text(&team["team_id"]));
        let expired = text(&key["expires"]).is_some_and(|at| at <= self.now);
        let project = self
            .projects
            .iter()
            .find(|row| !row["project_id"].is_null() && row["project_id"] == key["project_id"]);
        if key["blocked"] == true
            || self.is_used_up("key", &key["token"])
            || expired
            || !may_chat(key)
            || project.is_some_and(|project| project["blocked"] == true)
        {
            return false;
        }
        let list = strings(&key["models"]);
        let ids = strings(&key["access_group_ids"]);
        let aliases = unwrapped(&key["aliases"]);
        let asked = aliases[model].as_str().unwrap_or(model);
        if let Some(project) = project
            && [model, asked].iter().any(|name| !self.list(&strings(&project["models"]), name, None))
        {
            return false;
        }
        let through_groups = |names: Vec<String>, model: &str| {
            !names.is_empty() && self.list(&names, model, team_id.as_deref())
        };
        // An alias grants nothing, and may lead to what the key's lists deny.
        let inherits = list.iter().any(|item| item == "all-team-models");
        let lists = |name: &str| {
            let by_list = match team {
                Some(team) if inherits && name != model => self.team_lets(team, name),
                _ => inherits || self.list(&list, name, team_id.as_deref()),
            };
            by_list || !is_spoiled(&list) && through_groups(self.group_names(&ids, |_| true), name)
        };
        let own = lists(model) && lists(asked);
        let by_team = |name: &str| {
            let Some(team) = team else { return true };
            self.team_lets(team, name)
                || !is_spoiled(&strings(&team["models"]))
                    && through_groups(
                        self.group_names(&ids, |group| {
                            strings(&group["assigned_team_ids"])
                                .iter()
                                .any(|id| team["team_id"] == id.as_str())
                                || strings(&group["assigned_key_ids"])
                                    .iter()
                                    .any(|id| *id == token || super::compare::sha256(id) == token)
                        }),
                        name,
                    )
        };
        own && by_team(model) && by_team(asked) && path(asked)
    }

    fn team_lets(&self, team: &Value, model: &str) -> bool {
        let mut list = strings(&team["models"]);
        if list.is_empty() {
            return true;
        }
        list.extend(self.group_names(&strings(&team["access_group_ids"]), |_| true));
        self.list(&list, model, text(&team["team_id"]).as_deref())
    }

    fn teams_of(&self, user: &Value) -> Vec<&Value> {
        let id = text(&user["user_id"]).unwrap_or_default();
        let email = text(&user["user_email"]).map(|email| email.trim().to_lowercase()).unwrap_or_default();
        let names = |(ids, emails): &(BTreeSet<String>, BTreeSet<String>)| {
            ids.contains(&id) || emails.contains(&email)
        };
        self.teams
            .iter()
            .zip(&self.rosters)
            .filter(|(_, roster)| names(roster))
            .map(|(team, _)| team)
            .collect()
    }

    /// The keys that count on a path.
    fn keys_of(&self, user: &Value, team: Option<&Value>) -> Vec<&Value> {
        self.keys
            .get(user["user_id"].as_str().unwrap_or_default())
            .into_iter()
            .flatten()
            .filter(|key| key["team_id"] != "litellm-dashboard")
            .filter(|key| match team {
                Some(team) => key["team_id"] == team["team_id"],
                None => text(&key["team_id"]).is_none(),
            })
            .collect()
    }

    /// Teams that only a key of the person names.
    fn teams_of_keys(&self, user: &Value, roster: &[&Value]) -> Vec<&Value> {
        let keys = self.keys.get(user["user_id"].as_str().unwrap_or_default());
        let named = |team: &&Value| keys.into_iter().flatten().any(|key| key["team_id"] == team["team_id"]);
        let is_known = |team: &Value| roster.iter().any(|known| known["team_id"] == team["team_id"]);
        self.teams.iter().filter(named).filter(|team| !is_known(team)).collect()
    }

    fn open_organization(&self, id: &Value, model: &str) -> Option<bool> {
        self.organization(id, model).map(|lets| lets && !self.is_used_up("organization", id))
    }

    fn has_any_key(&self, user: &Value) -> bool {
        let keys = self.keys.get(user["user_id"].as_str().unwrap_or_default());
        keys.into_iter().flatten().any(|key| key["team_id"] != "litellm-dashboard")
    }

    fn through_keys(
        &self,
        user: &Value,
        team: Option<&Value>,
        model: &str,
        path: &dyn Fn(&str) -> bool,
    ) -> bool {
        let keys = self.keys_of(user, team);
        if keys.is_empty() {
            return team.is_none_or(|team| self.team_lets(team, model));
        }
        keys.iter().any(|key| self.key_lets(key, team, model, path))
    }

    pub(crate) fn may(&self, user: &Value, model: &str) -> bool {
        if self.is_used_up("user", &user["user_id"]) {
            return false;
        }
        let list = strings(&user["models"]);
        let no_default = list.iter().any(|item| item == "no-default-models");
        let teams = self.teams_of(user);
        for team in teams.iter().copied().chain(self.teams_of_keys(user, &teams)) {
            let id = text(&team["team_id"]);
            let link = self
                .team_members
                .iter()
                .find(|row| row["user_id"] == user["user_id"] && row["team_id"] == team["team_id"]);
            let member = link
                .and_then(|link| self.budgets.iter().find(|row| row["budget_id"] == link["budget_id"]))
                .map(|budget| strings(&budget["allowed_models"]))
                .unwrap_or_default();
            let member_id =
                format!("{}/{}", id.clone().unwrap_or_default(), text(&user["user_id"]).unwrap_or_default());
            if team["blocked"] != true
                && !self.is_used_up("team", &team["team_id"])
                && !self.is_used_up("organization", &team["organization_id"])
                && !self.used_up.contains(&("team_member".to_owned(), member_id))
                && self.is_served(model, id.as_deref())
                && self.organization(&team["organization_id"], model).unwrap_or(true)
                && self.list(&member, model, None)
                && (no_default || self.list(&list, model, None))
                && self.through_keys(user, Some(team), model, &|name| self.list(&member, name, None))
            {
                return true;
            }
        }
        let mut organizations = Vec::new();
        for row in &self.organization_members {
            if row["user_id"] == user["user_id"] {
                organizations.extend(self.open_organization(&row["organization_id"], model));
            }
        }
        organizations.extend(self.open_organization(&user["organization_id"], model));
        let has_key = || {
            self.keys_of(user, None).iter().any(|key| {
                let project = self
                    .projects
                    .iter()
                    .find(|row| !row["project_id"].is_null() && row["project_id"] == key["project_id"]);
                key["blocked"] != true
                    && may_chat(key)
                    && text(&key["expires"]).is_none_or(|at| at > self.now)
                    && project.is_none_or(|project| project["blocked"] != true)
            })
        };
        !no_default
            && (teams.is_empty() || has_key())
            && (!self.has_any_key(user) || !self.keys_of(user, None).is_empty())
            && self.is_served(model, None)
            && self.list(&list, model, None)
            && (organizations.is_empty() || organizations.contains(&true))
            && self.through_keys(user, None, model, &|name| self.list(&list, name, None))
    }

    pub(crate) fn user(&self, id: &str) -> Option<&Value> {
        self.users.get(id)
    }
}

/// What differs between what people may use and what Open WebUI shows them.
pub(crate) async fn differences(pair: &Pair, extra: Extra<'_>) -> Vec<String> {
    differences_of(pair, extra, |_| true).await
}

/// The same of some of LiteLLM's users alone: it takes long with thousands.
pub(crate) async fn differences_of(
    pair: &Pair,
    extra: Extra<'_>,
    are_meant: impl Fn(&str) -> bool,
) -> Vec<String> {
    compared(pair, LiteLlm::read(pair, extra).await, are_meant).await
}

/// The same where used-up budgets close what they are for.
pub(crate) async fn differences_with_budgets(pair: &Pair, extra: Extra<'_>) -> Vec<String> {
    compared(pair, LiteLlm::read_with_budgets(pair, extra).await, |_| true).await
}

async fn compared(pair: &Pair, litellm: LiteLlm, are_meant: impl Fn(&str) -> bool) -> Vec<String> {
    let names = litellm.names();
    let mut found = invalid_rows(pair).await;
    let shown = visible(pair).await;
    let sql = "select user_id, coalesce(webui_id, 'usr_' || user_id) from litellm_webui_sync.account";
    let ledger = rows(&pair.target, sql).await;
    let existing: BTreeSet<String> = rows(&pair.target, "select id from \"user\"")
        .await
        .into_iter()
        .map(|row| row[0].clone().unwrap())
        .collect();
    let mut owner: BTreeMap<String, String> = BTreeMap::new();
    for row in &ledger {
        let (user_id, account) = (row[0].clone().unwrap(), row[1].clone().unwrap());
        if litellm.user(&user_id).is_some() || !owner.contains_key(&account) {
            owner.insert(account, user_id);
        }
    }
    for (account, user_id) in owner.iter().filter(|(_, user_id)| are_meant(user_id)) {
        let sees = shown.get(account).cloned().unwrap_or_default();
        let may: BTreeSet<String> = match litellm.user(user_id) {
            Some(user) if user["user_role"] == "proxy_admin" => continue,
            Some(_) if !existing.contains(account) => continue,
            Some(user) => names.iter().filter(|name| litellm.may(user, name)).cloned().collect(),
            None => BTreeSet::new(),
        };
        if sees != may {
            found.push(format!("{user_id} sees {sees:?}, may use {may:?}"));
        }
    }
    found
}

/// The models each account sees in Open WebUI, by its own tables. Owners and public models count for everybody listed.
pub(crate) async fn visible(pair: &Pair) -> BTreeMap<String, BTreeSet<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (group, account) in super::compare::members(pair).await {
        groups.entry(group).or_default().push(account);
    }
    let people: Vec<String> = rows(&pair.target, "select id from \"user\"")
        .await
        .into_iter()
        .map(|row| row[0].clone().unwrap())
        .collect();
    let is_table = pair.ask("select to_regclass('access_grant') is not null").await == "t";
    let sql = if is_table {
        "select m.id, a.principal_type, a.principal_id from model m join access_grant a on a.resource_type = 'model' and a.resource_id = m.id
          where m.base_model_id is null and m.is_active and a.permission = 'read'"
    } else {
        "select m.id, 'user', '*' from model m where m.base_model_id is null and m.is_active and json_typeof(coalesce(m.access_control, 'null')) = 'null'
         union all
         select m.id, 'user', e from model m cross join json_array_elements_text(m.access_control #> '{read,user_ids}') e
          where m.base_model_id is null and m.is_active and json_typeof(m.access_control) = 'object'
         union all
         select m.id, 'group', e from model m cross join json_array_elements_text(m.access_control #> '{read,group_ids}') e
          where m.base_model_id is null and m.is_active and json_typeof(m.access_control) = 'object'"
    };
    let mut shown: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows(&pair.target, sql).await {
        let [model, kind, principal] = row.map_all();
        let everybody;
        let to = match (kind.as_str(), principal.as_str()) {
            ("user", "*") => &people,
            ("user", _) => {
                everybody = vec![principal];
                &everybody
            }
            _ => {
                everybody = groups.get(&principal).cloned().unwrap_or_default();
                &everybody
            }
        };
        for account in to {
            shown.entry(account.clone()).or_default().insert(model.clone());
        }
    }
    shown
}

trait MapAll {
    fn map_all(self) -> [String; 3];
}

impl MapAll for Vec<Option<String>> {
    fn map_all(self) -> [String; 3] {
        self.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().try_into().unwrap()
    }
}

/// Rows that break Open WebUI's pages for everybody.
async fn invalid_rows(pair: &Pair) -> Vec<String> {
    let checks = [
        (
            "a NULL in model",
            "select id from model where user_id is null or name is null or params is null or meta is null or created_at is null or updated_at is null",
        ),
        (
            "params or meta that is no object",
            "select id from model where jsonb_typeof(params::jsonb) <> 'object' or jsonb_typeof(meta::jsonb) <> 'object'",
        ),
        (
            "a group of ours nobody needs",
            "select id from \"group\" where id like 'grp\\_models\\_%'
                and not exists (select from litellm_webui_sync.effective_access where 'grp_models_' || set_hash = id)",
        ),
    ];
    let mut found = Vec::new();
    for (what, sql) in checks {
        for row in rows(&pair.target, sql).await.into_iter().take(5) {
            found.push(format!("{what}: {row:?}"));
        }
    }
    found
}

fn roster(team: &Value) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut ids, mut emails) = (BTreeSet::new(), BTreeSet::new());
    for entry in unwrapped(&team["members_with_roles"]).as_array().into_iter().flatten() {
        match (entry["user_id"].as_str(), entry["user_email"].as_str()) {
            (Some(id), _) => ids.insert(id.to_owned()),
            (None, Some(email)) if email.contains('@') => emails.insert(email.trim().to_lowercase()),
            _ => false,
        };
    }
    (ids, emails)
}

/// `*` is anything, `.` is any one character; nothing else is special in the tests' patterns.
const NULL: &str = "\0";

fn may_chat(key: &Value) -> bool {
    const ROUTES: [&str; 8] = [
        "llm_api_routes",
        "openai_routes",
        "*",
        "/*",
        "/v1/*",
        "/chat/completions",
        "/v1/chat/completions",
        "/chat/*",
    ];
    let routes = strings(&key["allowed_routes"]);
    // A key whose list is NULL is one LiteLLM cannot read.
    !key["models"].is_null()
        && (routes.is_empty() || routes.iter().any(|route| ROUTES.contains(&route.as_str())))
}

/// LiteLLM fails at it, and asks no other list.
fn is_spoiled(list: &[String]) -> bool {
    let fails = |item: &String| item == NULL || item.contains('*') && is_broken(item);
    list.iter().take_while(|item| *item != "*").any(fails)
}

fn is_broken(pattern: &str) -> bool {
    pattern.matches('(').count() != pattern.matches(')').count()
        || pattern.matches('[').count() != pattern.matches(']').count()
}

fn fits(pattern: &str, name: &str) -> bool {
    fn at(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), _) => {
                at(rest, name) || name.split_first().is_some_and(|(_, name)| at(pattern, name))
            }
            (Some((wanted, rest)), Some((is, name))) => (*wanted == '.' || wanted == is) && at(rest, name),
            _ => false,
        }
    }
    let chars = |text: &str| text.chars().collect::<Vec<_>>();
    !pattern.contains('(') && !pattern.contains('[') && at(&chars(pattern), &chars(name))
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn strings(value: &Value) -> Vec<String> {
    value
        .as_array()
        .map(|all| {
            let text =
                |item: &Value| if item.is_null() { Some(NULL) } else { item.as_str() }.map(str::to_owned);
            all.iter().filter_map(text).collect()
        })
        .unwrap_or_default()
}

/// JSON that LiteLLM kept inside a JSON string.
fn unwrapped(value: &Value) -> Value {
    match value {
        Value::String(inner) => serde_json::from_str(inner).unwrap_or_default(),
        other => other.clone(),
    }
}
