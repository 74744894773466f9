//! `plan`: what `run` would do, worked out without doing it.
//!
//! LiteLLM's rows are read in one read-only transaction, Open WebUI's are copied into temporary tables, and the ordinary
//! projection runs on the copies (`shadow`). What differs afterwards is the plan: there is no second set of rules that
//! could say something else than what is done. Owns nothing in either database, and writes no row of anybody's: it needs
//! to read both, and to make temporary tables in Open WebUI's.
//!
//! Where a daemon has run before, its books are copied as well, and the plan is what a full difference would change with
//! the policy that was given: the way to try a policy out.

mod shadow;
pub mod table;

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::{Json, ToSql};

use crate::budgets::load::{self, Loaded};
use crate::catalog::TableId;
use crate::config::Config;
use crate::copy::backfill;
use crate::copy::register::Copies;
use crate::error::{Error, Result, Side, on};
use crate::mirror;
use crate::observe::status;
use crate::operate::doctor::bridge;
use crate::pipeline::poll;
use crate::position::Lsn;
use crate::project::models::Rules;
use crate::project::{Outcome, Projection, Scope, Stamp};
use crate::source::Source;
use crate::source::tables::{refuse, unfit};
use crate::sql;
use crate::stage::budget::Moves;
use crate::target::layout;
use crate::target::policy;
use crate::target::{QUICK, SLOW, Target, within};

/// What would be done. The JSON of `plan --json` is this struct.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Plan {
    /// A daemon has run here before.
    pub has_run: bool,
    /// The shape of Open WebUI's tables.
    pub layout: String,
    /// What somebody should know before.
    pub notes: Vec<String>,
    /// Rows read of LiteLLM's tables.
    pub litellm: Vec<Copied>,
    pub accounts: Vec<Account>,
    pub skipped: Vec<Skipped>,
    /// Dead letters: who or what could not be written.
    pub failures: Vec<Failure>,
    pub groups: Vec<Group>,
    pub members: Vec<Member>,
    pub keys: Vec<Key>,
    pub models: Vec<Model>,
    pub grants: Vec<Grant>,
    /// Models everybody sees in Open WebUI although LiteLLM limits them.
    pub public_models: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copied {
    pub table: &'static str,
    pub rows: u64,
}

/// An account that would be made or changed. What would differ has an `old_…`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// create, adopt, link, update, lock or unlock.
    pub action: String,
    /// LiteLLM's id.
    pub user_id: Option<String>,
    pub webui_id: String,
    pub email: Option<String>,
    pub name: Option<String>,
    pub role: Option<String>,
    pub old_email: Option<String>,
    pub old_name: Option<String>,
    pub old_role: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    pub user_id: String,
    pub email: Option<String>,
    pub reason: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// account, team, organization, api_key, access, model or last_admin.
    pub kind: String,
    pub key: String,
    pub email: Option<String>,
    pub reason: String,
    /// It would leave somebody with more access than LiteLLM gives them.
    pub critical: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// create, use (it was there before us), rename or remove.
    pub action: String,
    /// organization, team or models.
    pub kind: String,
    pub webui_id: String,
    pub name: Option<String>,
    pub old_name: Option<String>,
    /// How many we would have there.
    pub members: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// join or leave.
    pub action: String,
    pub group_id: String,
    #[serde(rename(deserialize = "group_name"))]
    pub group: Option<String>,
    pub webui_id: String,
    pub email: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// mint or delete.
    pub action: String,
    pub webui_id: String,
    pub email: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// create, activate, retire or take (it is public, and would not be).
    pub action: String,
    pub model_id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// grant or revoke.
    pub action: String,
    pub model_id: String,
    /// user or group.
    pub principal_type: String,
    pub principal_id: String,
    /// The account's e-mail or the group's name.
    pub principal: Option<String>,
}

impl Plan {
    /// Whether nothing would be written in Open WebUI.
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
            && self.groups.iter().all(|group| group.action == "use")
            && self.members.is_empty()
            && self.keys.is_empty()
            && self.models.is_empty()
            && self.grants.is_empty()
    }
}

/// Works out what `run` would do.
///
/// # Errors
/// When a database cannot be reached or read, or the projection would stop.
pub async fn make(config: &Config) -> Result<Plan> {
    let mut plan = Plan::default();
    let source = Source::open(config).await?;
    let target = Target::open_temporary(config).await?;
    check_rights(config, &source, &target).await?;
    if bridge::find(&source, config).await?.is_at_work() {
        plan.notes.push(
            "a trigger bridge writes to Open WebUI from LiteLLM's database: `litellm-webui-sync doctor` says how to remove it first"
                .to_owned(),
        );
    }
    let layout = layout::find(&target, config).await?;
    plan.layout = layout.describe();
    shadow::make(&target, config, &layout, &mut plan).await?;
    let budgets = copy(config, &source, &target, &mut plan).await?;
    drop(source);
    policy::write(&target, config).await?;
    ask_for_models(config, &target, &mut plan).await?;

    let rules = Rules::find(&target, config, &layout).await?;
    policy::write_models(&target, &rules.prefix, rules.group_min).await?;
    let projection = Projection::new(layout.clone(), config.policy.api_keys, rules);
    target.begin_large().await?;
    // Nothing is written, so what fails is shown, however much it is.
    let stamp = Stamp { now: SystemTime::now(), lsn: Lsn::from(0), audit_each: false, failures: u32::MAX };
    let stored = load::stored(&target).await?;
    let moves = Moves { crossings: budgets.should(&stored, true), ..Moves::default() };
    mirror::budgets::write(&target, &moves, stamp.now, stamp.lsn).await?;
    let outcome = projection.apply(&target, Scope::Everything, stamp).await?;
    shadow::note(&target, &layout, "is").await?;
    read(&target, &mut plan).await?;
    plan.public_models = status::models(&target, &layout).await?.public;
    look_ahead(config, &target, &outcome, &mut plan).await?;
    // The temporary tables would go with the session anyway.
    target.roll_back("end the plan").await?;
    Ok(plan)
}

/// Everything that is missing, at once; and that what is there under our slot's name can be ours.
async fn check_rights(config: &Config, source: &Source, target: &Target) -> Result<()> {
    source.slot(&config.slot).await?;
    let tables = source.tables(config).await?;
    let names: Vec<&str> = tables.keys().map(String::as_str).collect();
    let client = &source.connection.client;
    let rows = client.query(sql::DOCTOR_SOURCE_TABLES, &[&config.litellm_schema, &names]).await;
    let lacking: Vec<String> = rows
        .map_err(on(Side::Source, "examine LiteLLM's tables"))?
        .iter()
        .filter(|row| !row.get::<_, bool>("readable"))
        .map(|row| format!("select on {}", row.get::<_, &str>("table_name")))
        .collect();
    if !lacking.is_empty() {
        return Err(Error::Lacking { side: Side::Source, what: lacking.join(", ") });
    }
    refuse(&unfit(config, &tables))?;
    let tables = layout::all_tables();
    let parameters: &[&(dyn ToSql + Sync)] = &[&config.webui_schema, &tables];
    let work = target.raw().query(sql::PLAN_TARGET_LACKS, parameters);
    let rows = within(Side::Target, "examine Open WebUI's tables", QUICK, work).await?;
    let lacking: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    Err(Error::Lacking { side: Side::Target, what: lacking.join(", ") })
}

/// LiteLLM's rows at one point in time, through the same reduction as a first copy.
async fn copy(config: &Config, source: &Source, target: &Target, plan: &mut Plan) -> Result<Loaded> {
    // An old snapshot keeps LiteLLM's server from cleaning up: not for long.
    let client = &source.connection.client;
    let tables = source.tables(config).await?;
    source.begin_reading(config, &tables, None, Duration::from_secs(300)).await?;
    // Nobody looks at this one.
    let copies = Copies::default();
    let mut budgets = load::nothing(config);
    let read = async {
        for id in TableId::mirrored() {
            let mirror = id.table().mirror;
            let text = format!("create temporary table stage_{mirror} (like {mirror})");
            target.execute("prepare the staging tables", &text).await?;
            let rows = backfill::fill_staging(config, source, target, id, &tables, None, &copies).await?;
            plan.litellm.push(Copied { table: id.table().source, rows });
        }
        load::read_at(source, config, &tables, &mut budgets).await
    };
    source.giving_way(&source.beside().await?, read).await?;
    within(Side::Source, "end reading", QUICK, client.batch_execute("rollback")).await?;
    for table in TableId::mirrored().map(TableId::table) {
        backfill::merge_table(target, table).await?;
        target.execute("analyze the copies", &format!("analyze {}", table.mirror)).await?;
    }
    backfill::derive(target).await?;
    target.execute("analyze the copies", "analyze team_roster").await?;
    Ok(budgets)
}

/// What LiteLLM's `/v1/models` names, where `run` would ask it.
async fn ask_for_models(config: &Config, target: &Target, plan: &mut Plan) -> Result<()> {
    let Some(api) = &config.models_api else { return Ok(()) };
    let models = match poll::once(api).await {
        Ok(models) => models,
        Err(reason) => {
            plan.notes.push(format!(
                "LiteLLM's /v1/models gave no answer ({reason}): models that are only in its config.yaml are missing here"
            ));
            return Ok(());
        }
    };
    policy::store_polled(target, &models).await?;
    Ok(())
}

/// What would keep `run` from doing it.
async fn look_ahead(config: &Config, target: &Target, outcome: &Outcome, plan: &mut Plan) -> Result<()> {
    let text = "select exists (select from was_account where role = 'admin'), (select count(*) from account where active)";
    let row = target.slow().query_one(text, &[]).await;
    let row = row.map_err(on(Side::Target, "look for an admin"))?;
    if !plan.has_run && !row.get::<_, bool>(0) {
        plan.notes.push(
            "Open WebUI has no admin yet: `run` writes nothing before somebody has signed up there"
                .to_owned(),
        );
    }
    let losing = outcome.losing();
    let limits = &config.policy.brake;
    let share = (row.get::<_, i64>(1) + losing.departing) * i64::from(limits.percent) / 100;
    let people = losing.people();
    if people > share.max(i64::from(limits.people)) {
        plan.notes.push(format!(
            "{people} people would be locked out, or lose groups, models or keys: the brake would hold this until it is approved"
        ));
    }
    Ok(())
}

async fn read(target: &Target, plan: &mut Plan) -> Result<()> {
    plan.accounts = rows(target, sql::PLAN_ACCOUNTS).await?;
    plan.skipped = rows(target, sql::PLAN_SKIPPED).await?;
    plan.failures = rows(target, sql::PLAN_FAILURES).await?;
    plan.groups = rows(target, sql::PLAN_GROUPS).await?;
    plan.members = rows(target, sql::PLAN_MEMBERS).await?;
    plan.keys = rows(target, sql::PLAN_KEYS).await?;
    plan.models = rows(target, sql::PLAN_MODELS).await?;
    plan.grants = rows(target, sql::PLAN_GRANTS).await?;
    Ok(())
}

/// What a statement returns, column by column as the struct names them.
async fn rows<T: DeserializeOwned>(target: &Target, text: &str) -> Result<Vec<T>> {
    let text = format!("select to_json(found) from ({text}) found");
    let rows = within(Side::Target, "read the plan", SLOW, target.raw().query(&text, &[])).await?;
    Ok(rows.iter().map(|row| row.get::<_, Json<T>>(0).0).collect())
}
