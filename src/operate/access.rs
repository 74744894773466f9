//! Why somebody may use a model or may not, level by level, and whether Open WebUI agrees: the command `access`.
//!
//! Reads our mirror and Open WebUI's rows; changes nothing. Keys are named by a hash of their stored hash.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;

use crate::access::people::{self, Accounts, Lookup};
use crate::access::person::{KeyLevel, KeyRule, Path, What, paths};
use crate::access::read;
use crate::config::Config;
use crate::config::policy::KeyPolicy;
use crate::decode::reduce;
use crate::error::{Error, Result, Side, on};
use crate::sql::{self, fill};
use crate::target::layout::{self, Layout};
use crate::target::{QUICK, Target};

/// Everything `access` says. The JSON of `access --json` is this struct.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub email: String,
    pub user_id: String,
    pub user_role: Option<String>,
    /// The Open WebUI account, and its role there.
    pub webui_id: Option<String>,
    pub webui_role: Option<String>,
    /// What decides over what they see besides models: no account, a locked one, a role.
    pub note: Option<String>,
    /// The used-up budgets that take models from them; none unless `access.budgets` is "enforce".
    pub budgets: Vec<BudgetReport>,
    pub models: Vec<ModelReport>,
    /// Open WebUI shows exactly what they may use.
    pub agrees: bool,
}

/// A budget that is used up. Money in US dollars, moments in seconds since 1970.
#[derive(Debug, Clone, Serialize)]
pub struct BudgetReport {
    /// user, key, team, organization, team_member or customer.
    pub kind: String,
    /// LiteLLM's id; `team/user` of a member, a hash of a key's stored token.
    pub id: String,
    /// When it was closed, or its limit changed last: what was spent since is not in it.
    pub spend_usd: f64,
    /// `null`: LiteLLM blocks it.
    pub limit_usd: Option<f64>,
    /// When LiteLLM resets it. `null`: never.
    pub resets_at: Option<f64>,
    pub closed_at: f64,
    #[serde(skip)]
    reset_text: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ModelReport {
    pub model: String,
    /// LiteLLM serves it, as far as known.
    pub known: bool,
    pub may: bool,
    pub sees: bool,
    /// What in Open WebUI shows it: `user`, a group's id, `public`, `owner`.
    pub through: Vec<String>,
    pub paths: Vec<PathReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct PathReport {
    pub path: String,
    pub allows: bool,
    pub closed: Option<&'static str>,
    pub levels: Vec<LevelReport>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LevelReport {
    pub level: String,
    pub allows: bool,
    pub list: Vec<String>,
    pub because: Option<&'static str>,
}

/// Explains `model`, or every model, for the person with this e-mail.
///
/// # Errors
/// When nobody has it, or a database cannot be read.
pub async fn report(config: &Config, email: &str, model: Option<&str>) -> Result<Report> {
    let target = Target::open(config).await?;
    let layout = layout::find(&target, config).await?;
    let action = "look for the person";
    let wanted = reduce::email(email).unwrap_or_default();
    let row = target
        .client()
        .query_opt(sql::ACCESS_OF_EMAIL, &[&wanted])
        .await
        .map_err(on(Side::Target, action))?;
    let Some(row) = row else {
        return Err(Error::Usage(format!("nobody in LiteLLM has the e-mail \"{email}\"")));
    };
    let user_id: String = row.get("user_id");
    let webui_id: Option<String> = row.get("webui_id");
    let prefix: String = row.get("model_prefix");
    let user_role: Option<String> = row.get("user_role");
    let sees = match &webui_id {
        Some(id) => shown(&target, &layout, id).await?,
        None => BTreeMap::new(),
    };
    let text = "select u.role, a.active from \"user\" u left join auth a using (id) where u.id = $1";
    let account = match &webui_id {
        Some(id) => target.slow().query_opt(text, &[id]).await.map_err(on(Side::Target, action))?,
        None => None,
    };
    let webui_role: Option<String> = account.as_ref().and_then(|row| row.get("role"));
    let is_active = account.as_ref().is_some_and(|row| row.get::<_, Option<bool>>("active") == Some(true));
    let known_models = read::known_models(&target).await?;
    let ids = std::slice::from_ref(&user_id);
    let known =
        people::about(&target, ids, Accounts::Written, Lookup::OneByOne, SystemTime::now()).await?.pop();
    let known = known.map(|(_, known)| known).filter(|known| known.webui_id.is_some());
    let rule = match config.policy.access.keys {
        KeyPolicy::Narrow => KeyRule::Narrow,
        KeyPolicy::Required => KeyRule::Required,
    };
    // Only LiteLLM's admins have an account and are none of those whose models we look after.
    let is_litellm_admin = known.is_none() && webui_id.is_some();
    let standing = match &webui_id {
        None => Standing::Without,
        Some(_) if account.is_none() => Standing::Deleted,
        Some(_) if webui_role.as_deref() == Some("pending") || !is_active => Standing::Locked,
        Some(_) if webui_role.as_deref() == Some("admin") => Standing::Admin,
        Some(_) => Standing::Usual,
    };
    let note = match standing {
        Standing::Without => {
            let because =
                row.get::<_, Option<String>>("because").unwrap_or_else(|| "see `status`".to_owned());
            Some(format!("has no account in Open WebUI: {because}"))
        }
        Standing::Deleted => Some(
            "has no account in Open WebUI any more: somebody deleted it there; it is made again at the next look at everything, or by \
             `litellm-webui-sync resnapshot`"
                .to_owned(),
        ),
        Standing::Locked => Some("cannot sign in to Open WebUI: the account is locked, or pending".to_owned()),
        Standing::Admin => Some("is an admin of Open WebUI, who sees every model that is active there".to_owned()),
        Standing::Usual if is_litellm_admin => {
            Some("is an admin of LiteLLM, who may use everything, and not yet one of Open WebUI".to_owned())
        }
        Standing::Usual => None,
    };
    let person = known.map(|known| known.person).unwrap_or_default();
    let budgets = used_up(&target, &user_id).await?;
    let all_paths = if webui_id.is_some() && !is_litellm_admin {
        paths(&known_models, &person, rule)
    } else {
        Vec::new()
    };
    let names: Vec<String> = match model {
        Some(model) => vec![model.strip_prefix(prefix.as_str()).unwrap_or(model).to_owned()],
        None => known_models.names().to_vec(),
    };
    let judge = |name: &str| {
        let id = format!("{prefix}{name}");
        let through = sees.get(&id).cloned().unwrap_or_default();
        let at = known_models.find(name);
        let may =
            at.is_some_and(|at| is_litellm_admin || all_paths.iter().any(|path| path.allowed.contains(at)));
        // What the rows say is one thing, whether they can look at it another.
        let (sees, through) = match standing {
            Standing::Without | Standing::Deleted | Standing::Locked => (false, through),
            Standing::Admin => (at.is_some(), vec!["the role".to_owned()]),
            Standing::Usual => (!through.is_empty(), through),
        };
        let paths = all_paths.iter().map(|path| path_report(path, at)).collect();
        ModelReport { model: name.to_owned(), known: at.is_some(), may, sees, through, paths }
    };
    let models: Vec<ModelReport> = names.iter().map(|name| judge(name)).collect();
    // Whether it agrees is about everything, whichever model was asked for.
    let may: BTreeSet<String> = all_paths
        .iter()
        .flat_map(|path| known_models.named(&path.allowed))
        .map(|name| format!("{prefix}{name}"))
        .collect();
    let is_ours =
        |id: &&String| id.strip_prefix(prefix.as_str()).is_some_and(|name| known_models.find(name).is_some());
    let shown: BTreeSet<String> = sees.keys().filter(is_ours).cloned().collect();
    let agrees = match standing {
        Standing::Without => true,
        Standing::Deleted => false,
        Standing::Admin if is_litellm_admin => true,
        // By their rows: an admin of Open WebUI's own sees more than these, and nobody can help it.
        Standing::Locked | Standing::Admin | Standing::Usual => !is_litellm_admin && shown == may,
    };
    Ok(Report { email: wanted, user_id, user_role, webui_id, webui_role, note, budgets, models, agrees })
}

async fn used_up(target: &Target, user_id: &str) -> Result<Vec<BudgetReport>> {
    let rows = target.slow().query(sql::ACCESS_BUDGETS, &[&user_id]).await;
    let rows = rows.map_err(on(Side::Target, "look at used-up budgets"))?;
    let report = |row: &tokio_postgres::Row| BudgetReport {
        kind: row.get("kind"),
        id: row.get("id"),
        spend_usd: row.get("spend_usd"),
        limit_usd: row.get("limit_usd"),
        resets_at: row.get("resets_at"),
        closed_at: row.get("closed_at"),
        reset_text: row.get("reset_text"),
    };
    Ok(rows.iter().map(report).collect())
}

/// How somebody stands in Open WebUI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// They were never given an account.
    Without,
    /// Theirs is gone.
    Deleted,
    /// They cannot sign in.
    Locked,
    Admin,
    Usual,
}

/// The models an account sees by its rows, and through what.
async fn shown(target: &Target, layout: &Layout, webui_id: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let text = fill(layout.model_access.sees, ":groups", &layout.groups_of());
    let statement = target.prepare(&text, &[Type::TEXT]).await?;
    let rows = target.query("look at what Open WebUI shows", QUICK, &statement, &[&webui_id]).await?;
    let mut shown: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        shown.entry(row.get(0)).or_default().push(row.get(1));
    }
    Ok(shown)
}

fn path_report(path: &Path<'_>, at: Option<usize>) -> PathReport {
    let has = |bits: &crate::access::bits::Bits| at.is_some_and(|at| bits.contains(at));
    let mut levels: Vec<LevelReport> = path
        .levels
        .iter()
        .map(|level| LevelReport {
            level: match level.what {
                What::Served => "served by LiteLLM".to_owned(),
                What::Organization => format!("organization {}", level.id),
                What::Team => format!("team {}", level.id),
                What::Member => format!("member budget in team {}", level.id),
                What::User => "user".to_owned(),
            },
            allows: has(&level.allowed),
            list: level.list.to_vec(),
            because: (level.what == What::Organization && path.team.is_none())
                .then_some("one of the user's organizations is enough"),
        })
        .collect();
    match &path.keys {
        Some(keys) if keys.is_empty() => levels.push(LevelReport {
            level: "key".to_owned(),
            allows: false,
            list: Vec::new(),
            because: Some("access.keys is \"required\", and there is no key"),
        }),
        Some(keys) => levels.extend(keys.iter().map(|key| key_report(key, at))),
        None => {}
    }
    PathReport {
        path: path.team.map_or_else(|| "personal".to_owned(), |team| format!("team {}", team.id)),
        allows: has(&path.allowed),
        closed: path.closed,
        levels,
    }
}

fn key_report(level: &KeyLevel<'_>, at: Option<usize>) -> LevelReport {
    let has = |bits: &crate::access::bits::Bits| at.is_some_and(|at| bits.contains(at));
    let because = match level.closed {
        Some(closed) => Some(closed),
        None if !has(&level.own) => Some("the key's list"),
        None if !has(&level.team) => Some("the key does not go beyond its team"),
        None if level.project.as_ref().is_some_and(|project| !has(project)) => Some("the key's project"),
        None => None,
    };
    let list = level.key.rights.models.iter().chain(&level.key.rights.group_models).cloned().collect();
    LevelReport {
        level: format!("key {}", key_label(&level.key.token)),
        allows: has(&level.allowed),
        list,
        because,
    }
}

/// Tells keys apart without naming them.
fn key_label(token: &str) -> String {
    Sha256::digest(token.as_bytes()).iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

/// Whether the known_models was any help: for a model nobody knows.
fn unknown(model: &ModelReport) -> &'static str {
    if model.known { "" } else { ", not a model LiteLLM is known to serve" }
}

impl Report {
    /// The report for a terminal.
    pub fn to_text(&self, every_path: bool) -> String {
        let mut out = String::new();
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        let _ = writeln!(
            out,
            "{}: LiteLLM user {} ({}), Open WebUI account {} ({})",
            self.email,
            self.user_id,
            text(&self.user_role),
            text(&self.webui_id),
            text(&self.webui_role)
        );
        if let Some(note) = &self.note {
            let _ = writeln!(out, "{note}");
        }
        for budget in &self.budgets {
            let spent = match budget.limit_usd {
                Some(limit) => format!("{:.2} of {limit:.2} USD", budget.spend_usd),
                None => "blocked".to_owned(),
            };
            let resets = match &budget.reset_text {
                Some(at) => format!("LiteLLM resets it at {at} UTC"),
                None => "LiteLLM does not reset it".to_owned(),
            };
            let _ = writeln!(out, "used up: budget of {} {}: {spent}; {resets}", budget.kind, budget.id);
        }
        for model in &self.models {
            let may = if model.may { "may use it" } else { "may not use it" };
            let sees = match (model.sees, model.through.join(", ")) {
                (true, through) => format!("sees it (through {through})"),
                (false, _) => "does not see it".to_owned(),
            };
            let differs = if model.may == model.sees || self.note.is_some() { "" } else { "  <-- differs" };
            let _ = writeln!(out, "{}: {may}, {sees}{}{differs}", model.model, unknown(model));
            if !every_path {
                continue;
            }
            for path in &model.paths {
                let verdict = if path.allows { "allows" } else { "denies" };
                let closed = path.closed.map(|closed| format!(" ({closed})")).unwrap_or_default();
                let _ = writeln!(out, "  {} path: {verdict}{closed}", path.path);
                for level in &path.levels {
                    let verdict = if level.allows { "allows" } else { "denies" };
                    let list = match level.list.is_empty() {
                        true => String::new(),
                        false => format!("  [{}]", level.list.join(", ")),
                    };
                    let because = level.because.map(|because| format!("  ({because})")).unwrap_or_default();
                    let _ = writeln!(out, "    {verdict}  {}{list}{because}", level.level);
                }
            }
        }
        let agrees = match (self.agrees, &self.note) {
            (true, Some(_)) => return out,
            (true, None) => "Open WebUI agrees",
            (false, _) => "Open WebUI has something else",
        };
        let _ = writeln!(out, "{agrees}");
        out
    }
}
