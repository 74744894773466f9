//! What every workload stands on: two clusters, and fresh databases with people in them.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use testbed::{Cluster, ClusterOptions, Schema, connect, execute, load, open_webui_admin};

/// The daemon's default slot and publication.
pub const SLOT: &str = "litellm_webui_sync";
pub const PUBLICATION: &str = "litellm_webui_sync";
/// Longer than this nothing may take.
pub const PATIENCE: Duration = Duration::from_secs(900);

/// LiteLLM's server and Open WebUI's.
#[derive(Debug)]
pub struct Rig {
    pub source: Cluster,
    pub target: Cluster,
    /// The daemon's policy file.
    pub policy: Option<PathBuf>,
}

impl Rig {
    pub async fn start(settings: &[String], policy: Option<PathBuf>) -> Result<Self> {
        let mut all: Vec<(String, String)> = [
            ("shared_buffers", "512MB"),
            ("max_wal_size", "8GB"),
            ("checkpoint_timeout", "1h"),
            ("autovacuum", "off"),
            ("synchronous_commit", "on"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        for setting in settings {
            let (name, value) = setting.split_once('=').context("--set takes NAME=VALUE")?;
            all.push((name.to_owned(), value.to_owned()));
        }
        let options = ClusterOptions { settings: all, durable: true, ..ClusterOptions::default() };
        let rig = Self { source: Cluster::start(options.clone())?, target: Cluster::start(options)?, policy };
        for (cluster, name, schema) in [
            (&rig.source, "litellm", Schema::LiteLlm1_110_2),
            (&rig.target, "litellm", Schema::LiteLlm1_110_2),
            (&rig.target, "webui", Schema::OpenWebUi0_12_4),
        ] {
            let url = cluster.create_database(name).await?;
            load(&url, schema).await?;
            if name == "webui" {
                open_webui_admin(&url).await?;
            }
        }
        Ok(rig)
    }

    pub fn describe(&self) -> String {
        format!(
            "PostgreSQL {}, {} and {}, {} cores, two durable clusters",
            self.source.binaries().version(),
            Schema::LiteLlm1_110_2,
            Schema::OpenWebUi0_12_4,
            std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        )
    }

    /// A LiteLLM database with `existing` people and an Open WebUI with its admin.
    pub async fn pair(&self, existing: usize) -> Result<Pair<'_>> {
        let source = copy_database(&self.source, "litellm", "litellm_run").await?;
        let target = copy_database(&self.target, "webui", "webui_run").await?;
        let pair = Pair { rig: self, source, target };
        if existing > 0 {
            execute(&pair.source, &insert_people(1, existing)).await?;
            execute(&pair.source, "vacuum analyze").await?;
        }
        Ok(pair)
    }

    /// A LiteLLM database with a company of `people` ([`insert_company`]) and an Open WebUI with its admin.
    pub async fn company(&self, people: usize) -> Result<Pair<'_>> {
        let pair = self.pair(0).await?;
        execute(&pair.source, &insert_company(people)).await?;
        execute(&pair.source, "vacuum analyze").await?;
        Ok(pair)
    }

    /// Forces a checkpoint on both servers: none of what was done before is paid for later.
    pub async fn settle(&self) -> Result<()> {
        execute(&self.source.url("postgres"), "checkpoint").await?;
        execute(&self.target.url("postgres"), "checkpoint").await
    }
}

/// A fresh copy of a template database, in place of the one of the last run.
pub async fn copy_database(cluster: &Cluster, template: &str, name: &str) -> Result<String> {
    let postgres = cluster.url("postgres");
    execute(&postgres, &format!("drop database if exists {name} with (force)")).await?;
    execute(&postgres, &format!("create database {name} template {template}")).await?;
    Ok(cluster.url(name))
}

/// Person `i`'s id, like those LiteLLM makes: in no order.
pub fn person_id(i: usize) -> String {
    format!("md5('person ' || {i})::uuid::text")
}

/// LiteLLM users number `first` to `last`, as `/user/new` writes them.
pub fn insert_people(first: usize, last: usize) -> String {
    format!(
        r#"insert into "LiteLLM_UserTable" (user_id, user_alias, user_email, user_role, teams, models, metadata, spend)
           select md5('person ' || i)::uuid::text, 'Person ' || i, 'person' || i || '@example.com', 'internal_user',
                  '{{}}', '{{}}', '{{}}', 0
             from generate_series({first}, {last}) i"#
    )
}

/// People number 1 to `people` as an organisation has them: three keys each, teams of fifty, ten models.
pub fn insert_company(people: usize) -> String {
    format!(
        r#"{};
           insert into "LiteLLM_ProxyModelTable" (model_id, model_name, litellm_params, created_by, updated_by)
           select i::text, 'model-' || i, '{{}}', '', '' from generate_series(1, 10) i;
           insert into "LiteLLM_VerificationToken" (token, user_id, models)
           select encode(sha256(('key ' || k || ' of ' || i)::bytea), 'hex'), md5('person ' || i)::uuid::text, '{{}}'
             from generate_series(1, {people}) i, generate_series(1, 3) k;
           insert into "LiteLLM_TeamTable" (team_id, team_alias, models, members_with_roles)
           select 'team-' || t, 'Team ' || t, array['model-' || 1 + t % 10, 'model-' || 1 + t % 7],
                  (select jsonb_agg(jsonb_build_object('user_id', md5('person ' || i)::uuid::text, 'role', 'user'))
                     from generate_series(t * 50 + 1, least(t * 50 + 50, {people})) i)
             from generate_series(0, ({people} - 1) / 50) t"#,
        insert_people(1, people)
    )
}

/// The two rows of each person `i` of `people` (a relation), in Open WebUI.
pub fn webui_rows(people: &str) -> String {
    format!(
        "insert into \"user\" (id, email, name, role, profile_image_url, created_at, updated_at, last_active_at)
         select 'usr_' || md5('person ' || i)::uuid, 'person' || i || '@example.com', 'Person ' || i, 'user',
                '/user.png', at, at, at
           from {people} i, (select extract(epoch from now())::bigint as at) t;
         insert into auth (id, email, password, active)
         select 'usr_' || md5('person ' || i)::uuid, 'person' || i || '@example.com', '', true from {people} i"
    )
}

/// The databases of one run.
#[derive(Debug)]
pub struct Pair<'a> {
    rig: &'a Rig,
    pub source: String,
    pub target: String,
}

impl Pair<'_> {
    /// Proves that every one of `people` has exactly one account, and `streamed` of them an audit row of their own: not who was copied, or
    /// came in a batch of more than 10,000.
    pub async fn check(&self, people: usize, streamed: usize) -> Result<()> {
        let client = connect(&self.target).await?;
        let text = "select (select count(*) from \"user\" where id like 'usr%'),
                           (select count(*) from auth where id like 'usr%'),
                           (select count(*) from litellm_webui_sync.account),
                           (select count(*) from litellm_webui_sync.sync_audit where record_id is not null),
                           (select count(*) from litellm_webui_sync.dead_letter)";
        let row = client.query_one(text, &[]).await?;
        let found: Vec<i64> = (0..5).map(|column| row.get(column)).collect();
        let people = i64::try_from(people)?;
        let expected = [people, people, people, i64::try_from(streamed)?, 0];
        ensure!(found == expected, "user, auth, ledger, audit, dead letters: {found:?}, not {expected:?}");
        Ok(())
    }

    /// Lets the slot of a stopped daemon go.
    pub async fn drop_slot(&self) -> Result<()> {
        drop_slot(&self.source, SLOT).await
    }

    pub fn rig(&self) -> &Rig {
        self.rig
    }
}

pub async fn drop_slot(source: &str, name: &str) -> Result<()> {
    wait_for_slot(source, name, false).await?;
    execute(source, &format!("select pg_drop_replication_slot('{name}')")).await
}

/// Waits until somebody streams from the slot, or nobody does. Returns when that was seen.
pub async fn wait_for_slot(source: &str, name: &str, active: bool) -> Result<Instant> {
    let client = connect(source).await?;
    let text =
        "select coalesce((select active from pg_replication_slots where slot_name = $1::text::name), false)";
    let statement = client.prepare(text).await?;
    let started = Instant::now();
    while client.query_one(&statement, &[&name]).await?.get::<_, bool>(0) != active {
        ensure!(started.elapsed() < PATIENCE, "the slot {name} does not become active: {active}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(Instant::now())
}
