//! The oracle: what Open WebUI should hold, worked out again from LiteLLM's own tables.
//!
//! Written from docs/src/design.md, "Mapping", and nothing of the product: it reads none of its views, and of its
//! ledger only which account is whose, because that is history. Where history decides which of two
//! people with one e-mail has the account, it accepts either of them.

use std::collections::{BTreeMap, BTreeSet};

use super::{ADMIN, Pair, rows};

/// What is not ours in Open WebUI.
#[derive(Debug, Clone, Default)]
pub(crate) struct Foreign {
    /// Accounts made by somebody else and not adopted, besides the administrator.
    pub(crate) accounts: BTreeSet<String>,
    /// Members put in by somebody else: (group, account).
    pub(crate) members: BTreeSet<(String, String)>,
    /// Accounts whose person deleted the API key we gave them.
    pub(crate) keyless: BTreeSet<String>,
    /// Used-up budgets close what they are for.
    pub(crate) budgets: bool,
}

#[derive(Debug, Clone)]
struct User {
    id: String,
    email: Option<String>,
    alias: String,
    role: String,
    team_id: Option<String>,
    teams: Vec<String>,
    organization: Option<String>,
    eligible: bool,
    born: (bool, String),
}

/// One entry of a roster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Entry {
    Id(String),
    Email(String),
}

struct Team {
    alias: String,
    organization: Option<String>,
    roster: BTreeSet<Entry>,
}

struct LiteLlm {
    users: Vec<User>,
    teams: BTreeMap<String, Team>,
    organizations: BTreeMap<String, String>,
    memberships: BTreeSet<(String, String)>,
}

/// Panics, with every difference, unless Open WebUI is what LiteLLM says.
pub(crate) async fn assert_in_step(pair: &Pair) {
    assert_in_step_with(pair, &Foreign::default()).await;
}

pub(crate) async fn assert_in_step_with(pair: &Pair, foreign: &Foreign) {
    let differences = differences(pair, foreign).await;
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.iter().take(30).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// Also that the older of two people with one e-mail has the account: true of a first copy only.
pub(crate) async fn assert_oldest_first(pair: &Pair) {
    let litellm = LiteLlm::read(pair).await;
    for (email, claimants) in litellm.claimants() {
        let oldest = claimants.iter().min_by_key(|user| (&user.born, &user.id)).unwrap();
        let id = pair.ask(&format!("select id from \"user\" where email = {}", super::quote(&email))).await;
        assert_eq!(id, account_id(&oldest.id), "{email}");
    }
}

pub(crate) async fn differences(pair: &Pair, foreign: &Foreign) -> Vec<String> {
    let mut found = invalid_rows(pair).await;
    let litellm = LiteLlm::read(pair).await;
    let claimants = litellm.claimants();

    let mut accounts: BTreeMap<String, (String, String, String)> = BTreeMap::new();
    let mut holder: BTreeMap<String, String> = BTreeMap::new();
    let mut owner: BTreeMap<String, &User> = BTreeMap::new();
    let mut by_account: BTreeMap<String, &User> = BTreeMap::new();
    let eligible: BTreeMap<&str, &User> =
        litellm.users.iter().filter(|user| user.eligible).map(|user| (user.id.as_str(), user)).collect();
    let sql = "select coalesce(webui_id, 'usr_' || user_id), user_id from litellm_webui_sync.account";
    for row in rows(&pair.target, sql).await {
        let [id, user_id] = texts(row);
        if let Some(&user) = eligible.get(user_id.as_str())
            && by_account.insert(id.clone(), user).is_some()
        {
            found.push(format!("account {id} belongs to two people"));
        }
    }
    let sql =
        "select u.id, lower(u.email), u.name, u.role, a.active from \"user\" u left join auth a using (id)";
    for row in rows(&pair.target, sql).await {
        let [id, email, name, role, active] = texts(row);
        let is_active = role != "pending" && active == "t";
        let is_locked = role == "pending" && active == "f";
        if is_active {
            holder.insert(email.clone(), id.clone());
        }
        if id == ADMIN || foreign.accounts.contains(&id) {
            continue;
        }
        if !is_active && !is_locked {
            found.push(format!("account {id} is half locked: role {role}, active {active}"));
        }
        if is_active {
            let here = accounts.insert(email.clone(), (id.clone(), name, role));
            if let Some((other, ..)) = here {
                found.push(format!("accounts {other} and {id} are active with one e-mail, {email}"));
            }
        }
    }
    // Somebody whose new e-mail is held by another keeps the account under the old one, unless they
    // only wait for each other.
    let is_stuck = |id: &String| {
        let mut walker = id.clone();
        let mut seen = BTreeSet::new();
        while let Some(user) = by_account.get(&walker) {
            let wanted = user.email.as_ref().unwrap();
            match holder.get(wanted) {
                None => return false,
                Some(other) if *other == walker => return true,
                Some(_) if claimants[wanted].len() > 1 => return true,
                Some(other) => walker = other.clone(),
            }
            if !seen.insert(walker.clone()) {
                return false;
            }
        }
        true
    };
    let is_parked = |id: &String| {
        by_account.get(id).is_some_and(|user| holder.get(user.email.as_ref().unwrap()) != Some(id))
            && is_stuck(id)
    };
    for (email, users) in &claimants {
        let Some(id) = holder.get(email) else {
            let ids: Vec<&str> = users.iter().map(|user| user.id.as_str()).collect();
            found.push(format!("no active account for {email} ({ids:?})"));
            continue;
        };
        let own = users.iter().find(|user| by_account.get(id).is_some_and(|owner| owner.id == user.id));
        if own.is_none() && is_parked(id) {
            continue;
        }
        if let Some((id, name, role)) = accounts.remove(email) {
            let fits = |user: &&&User| name == litellm.name(user) && role == role_of(user);
            match own.or_else(|| users.iter().find(fits)) {
                Some(user) if fits(&user) => {
                    owner.insert(id, user);
                }
                Some(user) => found.push(format!(
                    "account {id} of {email}: is {name:?}, {role}; should be {:?}, {}",
                    litellm.name(user),
                    role_of(user)
                )),
                None => {
                    found.push(format!("account {id} of {email} fits none of its people: {name:?}, {role}"));
                }
            }
        }
    }
    for (email, (id, _, _)) in &accounts {
        match by_account.get(id) {
            Some(user) if is_parked(id) => {
                owner.insert(id.clone(), user);
            }
            _ => found.push(format!("account {id} of {email} should not be active")),
        }
    }
    found.extend(group_differences(pair, &litellm, &owner, foreign).await);
    found.extend(if foreign.budgets {
        super::models::differences_with_budgets(pair, &[]).await
    } else {
        super::models::differences(pair, &[]).await
    });
    found.extend(key_differences(pair, &litellm, foreign).await);
    found
}

/// API keys, by presence (docs/src/design.md, "Log-in and API keys"): whoever has a usable LiteLLM key has exactly one, of ours unless they made it
/// themselves; nobody else has one of ours. Of the ledger it reads which key is ours, because that is history.
async fn key_differences(pair: &Pair, litellm: &LiteLlm, foreign: &Foreign) -> Vec<String> {
    let mut found = Vec::new();
    let mut usable: BTreeSet<String> = BTreeSet::new();
    let sql = "select user_id, team_id, blocked, expires < timezone('UTC', clock_timestamp()), metadata
                 from \"LiteLLM_VerificationToken\" where user_id is not null";
    for row in rows(&pair.source, sql).await {
        let [user_id, team_id, blocked, expired, metadata] = texts(row);
        let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap_or_default();
        let opens = blocked != "t" && expired != "t" && team_id != "litellm-dashboard";
        if opens && metadata["service_account_id"].is_null() {
            usable.insert(user_id);
        }
    }
    let mut ours: BTreeSet<(String, String)> = BTreeSet::new();
    for row in
        rows(&pair.target, "select webui_id, encode(sha256, 'hex') from litellm_webui_sync.minted_key").await
    {
        let [account, hash] = texts(row);
        ours.insert((account, hash));
    }
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (account, key) in api_keys(pair).await {
        held.entry(account).or_default().push(key);
    }
    let everybody: BTreeSet<&str> = litellm.users.iter().map(|user| user.id.as_str()).collect();
    let sql = "select coalesce(webui_id, 'usr_' || user_id), user_id from litellm_webui_sync.account
                where exists (select from \"user\" u where u.id = coalesce(webui_id, 'usr_' || user_id))";
    for row in rows(&pair.target, sql).await {
        let [account, user_id] = texts(row);
        let keys = held.remove(&account).unwrap_or_default();
        let (minted, own): (Vec<&String>, Vec<&String>) =
            keys.iter().partition(|key| ours.contains(&(account.clone(), sha256(key))));
        let should = usable.contains(&user_id) && everybody.contains(user_id.as_str());
        match (should, minted.as_slice(), own.is_empty()) {
            (true, [], true) if !foreign.keyless.contains(&account) => {
                found.push(format!("account {account} has no API key"));
            }
            (false, [_, ..], _) => found.push(format!("account {account} should have no API key of ours")),
            (true, [_, _, ..], _) => found.push(format!("account {account} has several API keys of ours")),
            _ => {}
        }
        if minted.iter().any(|key| key.len() != 67 || !key.starts_with("sk-")) {
            found.push(format!("the API key of account {account} is odd"));
        }
    }
    for (account, keys) in held {
        if keys.iter().any(|key| ours.contains(&(account.clone(), sha256(key)))) {
            found.push(format!("account {account} is nobody's and has an API key of ours"));
        }
    }
    found
}

/// (account, key), whatever the layout.
pub(crate) async fn api_keys(pair: &Pair) -> Vec<(String, String)> {
    let is_table = pair.ask("select to_regclass('api_key') is not null").await == "t";
    let sql = if is_table {
        "select user_id, key from api_key order by user_id, id"
    } else {
        "select id, api_key from \"user\" where api_key is not null order by id"
    };
    rows(&pair.target, sql)
        .await
        .into_iter()
        .map(|row| {
            let [account, key] = texts(row);
            (account, key)
        })
        .collect()
}

async fn group_differences(
    pair: &Pair,
    litellm: &LiteLlm,
    owner: &BTreeMap<String, &User>,
    foreign: &Foreign,
) -> Vec<String> {
    let mut found = Vec::new();
    let mut wanted: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    let of = |people: &dyn Fn(&User) -> bool| -> BTreeSet<String> {
        owner.iter().filter(|(_, user)| people(user)).map(|(id, _)| id.clone()).collect()
    };
    for (id, team) in &litellm.teams {
        let members = of(&|user| team.names(user));
        wanted.insert(group_id("team", id), (named(&team.alias, id), members));
    }
    for (id, alias) in &litellm.organizations {
        let members = of(&|user| {
            litellm.memberships.contains(&(user.id.clone(), id.clone()))
                || user.organization.as_ref() == Some(id)
                || litellm
                    .teams
                    .values()
                    .any(|team| team.organization.as_ref() == Some(id) && team.names(user))
        });
        wanted.insert(group_id("organization", id), (named(alias, id), members));
    }
    let mut actual: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for row in rows(
        &pair.target,
        "select id, name from \"group\" where id like 'grp\\_%' and id not like 'grp\\_models\\_%'",
    )
    .await
    {
        let [id, name] = texts(row);
        actual.insert(id, (name, BTreeSet::new()));
    }
    for (group, account) in members(pair).await {
        let is_foreign = account == ADMIN || foreign.members.contains(&(group.clone(), account.clone()));
        // Locked people may stay in their groups.
        let counts = owner.contains_key(&account) || is_active(pair, &account).await;
        if counts
            && !is_foreign
            && let Some((_, members)) = actual.get_mut(&group)
        {
            members.insert(account);
        }
    }
    for (id, (name, members)) in &wanted {
        match actual.remove(id) {
            None => found.push(format!("no group {id}")),
            Some((is, _)) if is != *name => {
                found.push(format!("group {id} is called {is:.60?}, should be {name:.60?}"));
            }
            Some((_, is)) if is != *members => {
                let missing: Vec<_> = members.difference(&is).take(5).collect();
                let extra: Vec<_> = is.difference(members).take(5).collect();
                found.push(format!("group {id}: missing {missing:?}, too many {extra:?}"));
            }
            Some(_) => {}
        }
    }
    found.extend(actual.into_keys().map(|id| format!("group {id} should be gone")));
    found
}

async fn is_active(pair: &Pair, account: &str) -> bool {
    let sql = format!("select role <> 'pending' from \"user\" where id = {}", super::quote(account));
    pair.ask(&sql).await == "t"
}

/// (group, account), whatever the layout.
pub(crate) async fn members(pair: &Pair) -> BTreeSet<(String, String)> {
    let is_table = pair.ask("select to_regclass('group_member') is not null").await == "t";
    let sql = if is_table {
        "select group_id, user_id from group_member"
    } else {
        "select g.id, m.id from \"group\" g cross join json_array_elements_text(g.user_ids) m (id)"
    };
    rows(&pair.target, sql)
        .await
        .into_iter()
        .map(|row| {
            let [group, account] = texts(row);
            (group, account)
        })
        .collect()
}

/// Rows that break a page of Open WebUI for everybody (docs/src/design.md, "Mapping"), and what its
/// later migrations refuse.
async fn invalid_rows(pair: &Pair) -> Vec<String> {
    let checks = [
        (
            "a NULL in user",
            "select id from \"user\" where id is null or name is null or email is null or role is null
                or profile_image_url is null or created_at is null or updated_at is null or last_active_at is null",
        ),
        ("an unknown role", "select id from \"user\" where role not in ('admin', 'user', 'pending')"),
        (
            "settings or info that is no object",
            "select id from \"user\" where jsonb_typeof(settings::text::jsonb) not in ('object', 'null')
                or jsonb_typeof(info::text::jsonb) not in ('object', 'null')",
        ),
        ("an e-mail twice", "select lower(email) from \"user\" group by 1 having count(*) > 1"),
        ("an e-mail that is not lower case", "select id from \"user\" where email <> lower(btrim(email))"),
        ("a temporary e-mail", "select id from \"user\" where email not like '%@%'"),
        ("a NULL in auth", "select id from auth where email is null or password is null or active is null"),
        (
            "user and auth that do not fit",
            "select coalesce(u.id, a.id) from \"user\" u full join auth a using (id)
              where u.id is null or a.id is null or u.email <> a.email",
        ),
        (
            "a NULL in group",
            "select id from \"group\" where user_id is null or name is null or description is null
                or created_at is null or updated_at is null",
        ),
        (
            "JSON in group that is no object",
            "select id from \"group\" where json_typeof(data) not in ('object', 'null')
                or json_typeof(meta) not in ('object', 'null') or json_typeof(permissions) not in ('object', 'null')",
        ),
        (
            "a group of ours that shows its name to everybody",
            "select id from \"group\" where id like 'grp\\_%' and data #>> '{config,share}' is distinct from 'members'
                and user_id = ''",
        ),
    ];
    let mut found = Vec::new();
    for (what, sql) in checks {
        for row in rows(&pair.target, sql).await.into_iter().take(5) {
            let [id] = texts(row);
            found.push(format!("{what}: {id}"));
        }
    }
    if pair.ask("select to_regclass('group_member') is not null").await == "f" {
        let sql =
            "select g.id from \"group\" g where json_typeof(g.user_ids) is distinct from 'array' or exists (
            select from json_array_elements_text(g.user_ids) m (id)
             group by id having count(*) > 1 or not exists (select from \"user\" u where u.id = m.id))";
        for row in rows(&pair.target, sql).await {
            found.push(format!("user_ids that stop the next upgrade: {row:?}"));
        }
    }
    found
}

impl LiteLlm {
    async fn read(pair: &Pair) -> Self {
        let sql =
            "select user_id, user_email, user_alias, user_role, team_id, to_json(teams), organization_id,
                          metadata, coalesce(to_char(created_at, 'YYYY-MM-DD HH24:MI:SS.MS'), '')
                     from \"LiteLLM_UserTable\"";
        let mut users = Vec::new();
        for row in rows(&pair.source, sql).await {
            let optional = row.clone();
            let [id, email, alias, role, _, teams, _, metadata, born] = texts(row);
            let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
            let email = usable(&email).filter(|email| !email.ends_with("@departed.invalid"));
            let is_person = !["default_user_id", "litellm-proxy-budget"].contains(&id.as_str());
            users.push(User {
                eligible: is_person && email.is_some() && metadata["scim_active"] != false,
                email,
                alias,
                role,
                team_id: optional[4].clone(),
                teams: serde_json::from_str::<Option<Vec<String>>>(if teams.is_empty() {
                    "null"
                } else {
                    &teams
                })
                .unwrap()
                .unwrap_or_default(),
                organization: optional[6].clone(),
                born: (born.is_empty(), born),
                id,
            });
        }
        let mut teams = BTreeMap::new();
        let sql =
            "select team_id, team_alias, organization_id, members_with_roles from \"LiteLLM_TeamTable\"";
        for row in rows(&pair.source, sql).await {
            let organization = row[2].clone();
            let [id, alias, _, roster] = texts(row);
            let entries: serde_json::Value = serde_json::from_str(&roster).unwrap();
            let entries = match &entries {
                serde_json::Value::String(inner) => serde_json::from_str(inner).unwrap_or_default(),
                other => other.clone(),
            };
            let entry = |entry: &serde_json::Value| match entry["user_id"].as_str() {
                Some(id) => Some(Entry::Id(id.to_owned())),
                None => entry["user_email"].as_str().and_then(usable).map(Entry::Email),
            };
            let roster = entries.as_array().map(|all| all.iter().filter_map(entry).collect());
            teams.insert(id, Team { alias, organization, roster: roster.unwrap_or_default() });
        }
        let sql = "select organization_id, organization_alias from \"LiteLLM_OrganizationTable\"";
        let organizations = rows(&pair.source, sql).await.into_iter().map(|row| {
            let [id, alias] = texts(row);
            (id, alias)
        });
        let sql = "select user_id, organization_id from \"LiteLLM_OrganizationMembership\"";
        let memberships = rows(&pair.source, sql).await.into_iter().map(|row| {
            let [user, organization] = texts(row);
            (user, organization)
        });
        Self { users, teams, organizations: organizations.collect(), memberships: memberships.collect() }
    }

    /// Everybody who should have an account, by e-mail.
    fn claimants(&self) -> BTreeMap<String, Vec<&User>> {
        let mut claimants: BTreeMap<String, Vec<&User>> = BTreeMap::new();
        for user in self.users.iter().filter(|user| user.eligible) {
            claimants.entry(user.email.clone().unwrap()).or_default().push(user);
        }
        claimants
    }

    fn name(&self, user: &User) -> String {
        let own_alias = visible(&user.alias);
        let name = if own_alias.is_empty() {
            user.email.as_ref().unwrap().split('@').next().unwrap().to_owned()
        } else {
            let own = user.team_id.iter().filter_map(|id| self.teams.get(id));
            let mut listed =
                user.teams.iter().filter_map(|id| self.teams.get(id)).filter(|team| team.names(user));
            let team = own.into_iter().next().or_else(|| listed.next());
            match team.map(|team| visible(&team.alias)) {
                None | Some("") => own_alias.to_owned(),
                Some(team) => format!("{team}-{own_alias}"),
            }
        };
        name.chars().take(255).collect()
    }
}

impl Team {
    fn names(&self, user: &User) -> bool {
        let by_email = || user.email.clone().is_some_and(|email| self.roster.contains(&Entry::Email(email)));
        self.roster.contains(&Entry::Id(user.id.clone())) || by_email()
    }
}

fn role_of(user: &User) -> &'static str {
    if user.role == "proxy_admin" { "admin" } else { "user" }
}

fn named(alias: &str, id: &str) -> String {
    let alias = visible(alias);
    if alias.is_empty() { id.to_owned() } else { alias.to_owned() }
}

/// Without what nobody sees around it.
fn visible(alias: &str) -> &str {
    alias.trim_matches(|c: char| c.is_whitespace() || matches!(c, '\u{200b}' | '\u{feff}'))
}

/// The e-mail as it is written, if it can be used.
fn usable(email: &str) -> Option<String> {
    let email = email.trim().to_lowercase();
    let parts: Vec<&str> = email.split('@').collect();
    let fits = parts.len() == 2 && parts.iter().all(|part| !part.is_empty());
    (fits && !email.contains(char::is_whitespace) && email.chars().count() <= 255).then_some(email)
}

fn is_odd(id: &str) -> bool {
    id.chars().any(|c| "/?#%".contains(c) || c.is_control())
}

/// The account's id, where it can be the plain one; a hash elsewhere.
pub(crate) fn account_id(user_id: &str) -> String {
    if is_odd(user_id) || user_id.chars().count() > 251 || user_id.starts_with("h_") {
        return format!("usr_h_{}", sha256(user_id));
    }
    format!("usr_{user_id}")
}

fn group_id(kind: &str, id: &str) -> String {
    let collides = ["team_", "h_", "models_"].iter().any(|prefix| id.starts_with(prefix));
    if is_odd(id) || id.chars().count() > 246 || (kind == "organization" && collides) {
        return format!("grp_h_{}", sha256(&format!("{kind}:{id}")));
    }
    format!("grp_{}{id}", if kind == "team" { "team_" } else { "" })
}

pub(crate) fn sha256(text: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The columns of a row, NULL as "".
fn texts<const N: usize>(row: Vec<Option<String>>) -> [String; N] {
    row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>().try_into().unwrap()
}
