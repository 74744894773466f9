//! A LiteLLM database, an Open WebUI database, and the daemon between them.

pub(crate) mod compare;
pub(crate) mod daemon;
pub(crate) mod models;
mod sessions;
pub(crate) mod work;

use std::fmt::Write as _;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use litellm_webui_sync::config::{Config, Endpoint, Policy};
use litellm_webui_sync::observe::status::{self, Waited};
use testbed::{Binaries, Cluster, ClusterOptions, Schema, connect, execute, load, open_webui_admin};
use tokio::sync::OnceCell;
use tokio_postgres::SimpleQueryMessage;

pub(crate) use daemon::Daemon;

/// How long anything may take before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The id of the testbed's administrator, whom nobody of ours made.
pub(crate) const ADMIN: &str = "0a1b2c3d-0000-4000-8000-00000000ad01";

/// One server for the tests that do nothing to it. Each has databases and a slot of its own.
static SHARED: OnceCell<Shared> = OnceCell::const_new();

struct Shared {
    cluster: Cluster,
    /// Where Open WebUI is to be on another major version.
    target: Option<Cluster>,
}

/// What a pair is made of. `PairOptions::default()` is right for most tests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairOptions {
    pub(crate) litellm: Schema,
    pub(crate) webui: Schema,
    /// Whether somebody has signed up in Open WebUI.
    pub(crate) admin: bool,
}

impl Default for PairOptions {
    fn default() -> Self {
        Self { litellm: Schema::LiteLlm1_110_2, webui: Schema::OpenWebUi0_12_4, admin: true }
    }
}

/// Two databases, and what a daemon between them is called. Dropping it drops them, with their slots, unless the server goes anyway.
#[derive(Debug)]
pub(crate) struct Pair {
    /// Addresses the test itself uses.
    pub(crate) source: String,
    pub(crate) target: String,
    /// Addresses the daemon uses: a proxy may be in between.
    pub(crate) daemon_source: String,
    pub(crate) daemon_target: String,
    pub(crate) slot: String,
}

/// While no more numbers than this were given out, the pairs of one process may stay: a server has fifty slots.
const FEW: u32 = 10;

impl Pair {
    /// Two databases on the shared server.
    pub(crate) async fn new() -> Self {
        Self::with(PairOptions::default()).await
    }

    pub(crate) async fn with(options: PairOptions) -> Self {
        let shared = SHARED
            .get_or_init(|| async {
                let other = Binaries::of_the_target()
                    .unwrap()
                    .map(|binaries| ClusterOptions { binaries: Some(binaries), ..ClusterOptions::default() });
                Shared {
                    cluster: Cluster::start(ClusterOptions::default()).unwrap(),
                    target: other.map(|options| Cluster::start(options).unwrap()),
                }
            })
            .await;
        let target = shared.target.as_ref().unwrap_or(&shared.cluster);
        Self::on(&shared.cluster, target, options).await
    }

    /// Two databases, on one server or on two.
    pub(crate) async fn on(source: &Cluster, target: &Cluster, options: PairOptions) -> Self {
        let number = next_number();
        let litellm = filled(source, options.litellm, &format!("litellm_{number}"), false).await;
        let webui = filled(target, options.webui, &format!("webui_{number}"), options.admin).await;
        Self {
            daemon_source: litellm.clone(),
            daemon_target: webui.clone(),
            source: litellm,
            target: webui,
            slot: format!("it_{number}"),
        }
    }

    /// Runs statements in LiteLLM's database; several are one transaction.
    pub(crate) async fn litellm(&self, sql: &str) {
        execute(&self.source, sql).await.unwrap_or_else(|error| panic!("{error:#}: {sql:.300}"));
    }

    /// Runs statements in Open WebUI's database.
    pub(crate) async fn webui(&self, sql: &str) {
        execute(&self.target, sql).await.unwrap_or_else(|error| panic!("{error:#}: {sql:.300}"));
    }

    /// The first column of the first row of a query on Open WebUI's database; "" for NULL or no row.
    pub(crate) async fn ask(&self, sql: &str) -> String {
        first(rows(&self.target, sql).await)
    }

    pub(crate) async fn ask_litellm(&self, sql: &str) -> String {
        first(rows(&self.source, sql).await)
    }

    /// `id|name|role|active` of the account with this e-mail; "" if there is none.
    pub(crate) async fn account(&self, email: &str) -> String {
        let sql = format!(
            "select concat_ws('|', u.id, u.name, u.role, case when a.active then 'active' when not a.active then 'locked' else 'no auth' end) from \"user\" u left join auth a using (id)
              where lower(u.email) = {}",
            quote(email)
        );
        self.ask(&sql).await
    }

    /// Open WebUI ids of a group's members, in order, joined by a space.
    pub(crate) async fn members(&self, group: &str) -> String {
        let sql = format!(
            "select string_agg(user_id, ' ' order by user_id collate \"C\") from group_member where group_id = {}",
            quote(group)
        );
        self.ask(&sql).await
    }

    /// Dead letters as `kind:key`, in order, joined by a space.
    pub(crate) async fn dead_letters(&self) -> String {
        self.ask(
            "select string_agg(kind || ':' || key, ' ' order by kind, key) from litellm_webui_sync.dead_letter",
        )
        .await
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            source: Endpoint::parse(&self.source).unwrap(),
            target: Endpoint::parse(&self.target).unwrap(),
            slot: self.slot.clone(),
            publication: "litellm_webui_sync".to_owned(),
            schema: "litellm_webui_sync".to_owned(),
            litellm_schema: "public".to_owned(),
            webui_schema: "public".to_owned(),
            http: None,
            http_token: None,
            models_api: None,
            policy: Policy::default(),
        }
    }

    /// Waits until everything committed so far is in Open WebUI; returns the number of dead letters.
    pub(crate) async fn settle(&self) -> i64 {
        match self.wait().await {
            Waited::Reached { dead_letters } => dead_letters,
            Waited::Failed { reason } => panic!("never arrived: {reason}"),
        }
    }

    pub(crate) async fn wait(&self) -> Waited {
        status::wait_now(&self.config(), DEADLINE).await.unwrap()
    }

    /// `transactions_applied changes_applied`
    pub(crate) async fn applied(&self) -> (u64, u64) {
        let text = self
            .ask("select transactions_applied || ' ' || changes_applied from litellm_webui_sync.checkpoint")
            .await;
        let (transactions, changes) = text.split_once(' ').expect("a checkpoint");
        (transactions.parse().unwrap(), changes.parse().unwrap())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Where each test is a process, the server goes with it. Of many pairs of one test each leaves room for the next.
        let is_alone =
            std::env::var_os("NEXTEST_EXECUTION_MODE").is_some_and(|mode| mode == "process-per-test");
        if is_alone && NEXT.load(Ordering::Relaxed) <= FEW {
            return;
        }
        let (source, target) = (self.source.clone(), self.target.clone());
        // A test's runtime cannot wait here.
        let work = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.map(|runtime| runtime.block_on(forget(&source, &target)))
        });
        drop(work.join());
    }
}

/// A test's own server may be gone already, and then so is everything on it.
async fn forget(source: &str, target: &str) -> anyhow::Result<()> {
    let client = connect(source).await?;
    let slots = "select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots
                  where database = current_database() and not active";
    let left = "select count(*) from pg_replication_slots where database = current_database()";
    // A killed daemon's session ends a moment later.
    for _ in 0..100 {
        client.query(slots, &[]).await?;
        if client.query_one(left, &[]).await?.get::<_, i64>(0) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(client);
    for url in [source, target] {
        if let Some((server, name)) = url.rsplit_once('/') {
            execute(&format!("{server}/postgres"), &format!("drop database {name} with (force)")).await?;
        }
    }
    Ok(())
}

/// A fresh database with a release's tables. From the second on it is copied, which is quicker than the dump; most tests need one only.
pub(crate) async fn filled(cluster: &Cluster, schema: Schema, name: &str, admin: bool) -> String {
    static MAKING: tokio::sync::Mutex<Vec<(u16, Schema)>> = tokio::sync::Mutex::const_new(Vec::new());
    let mut made = MAKING.lock().await;
    let this = (cluster.port(), schema);
    let url = if made.contains(&this) {
        let template = format!("template_{schema}").replace([' ', '.'], "_").to_lowercase();
        let known = rows(
            &cluster.url("postgres"),
            &format!("select 1 from pg_database where datname = {}", quote(&template)),
        )
        .await;
        if known.is_empty() {
            load(&cluster.create_database(&template).await.unwrap(), schema).await.unwrap();
        }
        let sql = format!("create database {name} template {template}");
        execute(&cluster.url("postgres"), &sql).await.unwrap();
        cluster.url(name)
    } else {
        made.push(this);
        let url = cluster.create_database(name).await.unwrap();
        load(&url, schema).await.unwrap();
        url
    };
    drop(made);
    if admin {
        open_webui_admin(&url).await.unwrap();
    }
    url
}

/// Of databases, slots and files.
static NEXT: AtomicU32 = AtomicU32::new(1);

pub(crate) fn next_number() -> u32 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A literal.
pub(crate) fn quote(text: &str) -> String {
    let escaped = text.replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", escaped.replace('\\', "\\\\")) } else { format!("'{escaped}'") }
}

/// Every row of a query as text.
pub(crate) async fn rows(url: &str, sql: &str) -> Vec<Vec<Option<String>>> {
    let messages = sessions::ask(url, sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql:.300}"));
    messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect())
            }
            _ => None,
        })
        .collect()
}

fn first(rows: Vec<Vec<Option<String>>>) -> String {
    rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).unwrap_or_default()
}

/// Polls until `check` holds, less often the longer it takes; the panic names what never came.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, check: impl Fn() -> F) {
    within(DEADLINE, what, check).await;
}

pub(crate) async fn within<F: Future<Output = bool>>(limit: Duration, what: &str, check: impl Fn() -> F) {
    let start = Instant::now();
    while !check().await {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        let pause = start.elapsed() / 30;
        tokio::time::sleep(pause.clamp(Duration::from_millis(20), Duration::from_millis(200))).await;
    }
}

/// Statement: a person in LiteLLM.
pub(crate) fn person(user_id: &str, email: &str) -> String {
    format!(
        "insert into \"LiteLLM_UserTable\" (user_id, user_email, user_alias, user_role, models, created_at)
         values ({}, {}, null, 'internal_user', '{{}}', '2026-01-01');",
        quote(user_id),
        quote(email)
    )
}

/// Statements: people `{prefix}1` to `{prefix}{count}` with `{id}@x.test`.
pub(crate) fn people(prefix: &str, count: u32) -> String {
    format!(
        "insert into \"LiteLLM_UserTable\" (user_id, user_email, user_role, models, created_at)
         select '{prefix}' || i, '{prefix}' || i || '@x.test', 'internal_user', '{{}}', '2026-01-01'
           from generate_series(1, {count}) i;"
    )
}

/// Statement: changes columns of a person.
pub(crate) fn change(user_id: &str, set: &str) -> String {
    format!("update \"LiteLLM_UserTable\" set {set} where user_id = {};", quote(user_id))
}

pub(crate) fn gone(user_id: &str) -> String {
    format!("delete from \"LiteLLM_UserTable\" where user_id = {};", quote(user_id))
}

/// Statement: a LiteLLM key of somebody's, called `name`.
pub(crate) fn key(name: &str, user_id: &str) -> String {
    format!(
        "insert into \"LiteLLM_VerificationToken\" (token, key_name, user_id, models, created_at)
         values ({}, 'sk-...', {}, '{{}}', timezone('UTC', clock_timestamp()));",
        token(name),
        quote(user_id)
    )
}

/// Statement: changes columns of a key.
pub(crate) fn rekey(name: &str, set: &str) -> String {
    format!("update \"LiteLLM_VerificationToken\" set {set} where token = {};", token(name))
}

pub(crate) fn unkey(name: &str) -> String {
    format!("delete from \"LiteLLM_VerificationToken\" where token = {};", token(name))
}

/// The stored form of the key called `name`, as SQL.
pub(crate) fn token(name: &str) -> String {
    format!("encode(sha256({}::bytea), 'hex')", quote(name))
}

/// Statement: a team with these people, by user id.
pub(crate) fn team(team_id: &str, alias: &str, organization: Option<&str>, members: &[&str]) -> String {
    format!(
        "insert into \"LiteLLM_TeamTable\" (team_id, team_alias, organization_id, members_with_roles, models)
         values ({}, {}, {}, {}, '{{}}');",
        quote(team_id),
        quote(alias),
        organization.map_or("null".to_owned(), quote),
        quote(&roster(members))
    )
}

/// `members_with_roles` of these people.
pub(crate) fn roster(members: &[&str]) -> String {
    let mut text = String::from("[");
    for (place, member) in members.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        write!(text, "{comma}{{\"user_id\":{member:?},\"user_email\":null,\"role\":\"user\"}}").unwrap();
    }
    text + "]"
}

/// Statement: other members.
pub(crate) fn rostered(team_id: &str, members: &[&str]) -> String {
    format!(
        "update \"LiteLLM_TeamTable\" set members_with_roles = {} where team_id = {};",
        quote(&roster(members)),
        quote(team_id)
    )
}

/// Statements: an organization and its budget.
pub(crate) fn organization(id: &str, alias: &str) -> String {
    format!(
        "insert into \"LiteLLM_BudgetTable\" (budget_id, created_by, updated_by) values ('b-' || {0}, '', '');
         insert into \"LiteLLM_OrganizationTable\" (organization_id, organization_alias, budget_id, models, created_by, updated_by)
         values ({0}, {1}, 'b-' || {0}, '{{}}', '', '');",
        quote(id),
        quote(alias)
    )
}
