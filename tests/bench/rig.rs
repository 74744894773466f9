//! What every workload stands on: two clusters, fresh databases, the daemon as a child process, and a native
//! subscription to compare with.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use testbed::{Cluster, ClusterOptions, Schema, connect, execute, load, open_webui_admin};
use tokio_postgres::{Client, Statement};

/// The daemon's binary, built with the same profile as this benchmark.
const DAEMON: &str = env!("CARGO_BIN_EXE_litellm-webui-sync");
/// The daemon's default slot and publication.
pub const SLOT: &str = "litellm_webui_sync";
pub const PUBLICATION: &str = "litellm_webui_sync";
/// Longer than this nothing may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// LiteLLM's server and Open WebUI's.
#[derive(Debug)]
pub struct Rig {
    pub source: Cluster,
    pub target: Cluster,
}

impl Rig {
    pub async fn start(settings: &[String]) -> Result<Self> {
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
        let rig = Self { source: Cluster::start(options.clone())?, target: Cluster::start(options)? };
        for (cluster, name, schema) in [
            (&rig.source, "litellm", Schema::LiteLlm1_109_1),
            (&rig.target, "litellm", Schema::LiteLlm1_109_1),
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
            Schema::LiteLlm1_109_1,
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

/// The databases of one run.
#[derive(Debug)]
pub struct Pair<'a> {
    rig: &'a Rig,
    pub source: String,
    pub target: String,
}

impl Pair<'_> {
    /// Starts the daemon and waits until it has copied everything and streams.
    pub fn start_daemon(&self) -> Result<Daemon> {
        let mut daemon = self.spawn_daemon()?;
        let started = Instant::now();
        loop {
            let status = self.command().args(["status", "--wait", "now"]).stderr(Stdio::null()).status()?;
            if status.success() {
                return Ok(daemon);
            }
            daemon.check()?;
            ensure!(started.elapsed() < PATIENCE, "the daemon does not get ready:\n{}", daemon.log());
        }
    }

    /// Starts the daemon and does not wait.
    pub fn spawn_daemon(&self) -> Result<Daemon> {
        let mut child = self.command().arg("run").stderr(Stdio::piped()).spawn()?;
        let log = Arc::new(Mutex::new(String::new()));
        let writer = Arc::clone(&log);
        let stderr = child.stderr.take().context("no standard error")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = writer.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        Ok(Daemon { child, log })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(DAEMON);
        command
            .env("LITELLM_DATABASE_URL", format!("{}?sslmode=disable", self.source))
            .env("WEBUI_DATABASE_URL", format!("{}?sslmode=disable", self.target))
            .env("LITELLM_WEBUI_SYNC_HTTP", "off")
            .env_remove("DATABASE_SCHEMA")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    pub async fn meter(&self) -> Result<Meter> {
        let client = connect(&self.target).await?;
        let text = "select transactions_applied, changes_applied from litellm_webui_sync.checkpoint";
        let statement = client.prepare(text).await?;
        Ok(Meter { client, statement })
    }

    /// Proves that every one of `people` has exactly one account, with one audit row unless it was copied.
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

/// Reads how far the daemon is.
#[derive(Debug)]
pub struct Meter {
    client: Client,
    statement: Statement,
}

impl Meter {
    /// Transactions applied so far.
    pub async fn applied(&self) -> Result<i64> {
        Ok(self.client.query_one(&self.statement, &[]).await?.get(0))
    }

    /// Waits until `transactions` are applied: not one more.
    pub async fn wait(&self, transactions: i64, daemon: &mut Daemon) -> Result<Instant> {
        let started = Instant::now();
        loop {
            let applied = self.applied().await?;
            if applied >= transactions {
                let now = Instant::now();
                ensure!(applied == transactions, "{applied} transactions were applied, not {transactions}");
                return Ok(now);
            }
            daemon.check()?;
            ensure!(
                started.elapsed() < PATIENCE,
                "{applied} of {transactions} transactions:\n{}",
                daemon.log()
            );
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// The daemon, a child process.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

/// Memory of a process, in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub now: f64,
    pub peak: f64,
}

impl Daemon {
    pub fn signal(&self, signal: Signal) -> Result<()> {
        send(&self.child, signal)
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// An error if it has ended.
    fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the daemon ended ({status}):\n{}", self.log()),
            None => Ok(()),
        }
    }

    /// As Linux says it; unknown elsewhere.
    pub fn memory(&self) -> Memory {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kibibytes.map_or(f64::NAN, |kibibytes| kibibytes / 1024.0)
        };
        Memory { now: field("VmRSS:"), peak: field("VmHWM:") }
    }

    /// Lets it drain and end.
    pub fn stop(mut self) -> Result<()> {
        self.check()?;
        self.signal(Signal::TERM)?;
        let started = Instant::now();
        while self.child.try_wait()?.is_none() {
            ensure!(started.elapsed() < Duration::from_secs(20), "the daemon does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already gone when it was stopped.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn send(child: &Child, signal: Signal) -> Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, signal).context("could not signal the process")
}

/// A native subscription to LiteLLM's users, in a database of its own on the target.
#[derive(Debug)]
pub struct Native {
    pub name: &'static str,
    pub url: String,
    source: String,
}

impl Native {
    /// Publishes and subscribes, waits for the copy of what is there, and stops.
    pub async fn subscribe(pair: &Pair<'_>, name: &'static str, synchronous_commit: &str) -> Result<Self> {
        let rig = pair.rig();
        let (host, database) =
            (format!("host=127.0.0.1 port={} user=postgres", rig.source.port()), "litellm_run");
        execute(
            &pair.source,
            "do $$ begin create publication native for table \"LiteLLM_UserTable\";
             exception when duplicate_object then null; end $$",
        )
        .await?;
        let url = copy_database(&rig.target, "litellm", name).await?;
        let subscribe = format!(
            "create subscription {name} connection '{host} dbname={database}' publication native
             with (synchronous_commit = '{synchronous_commit}')"
        );
        execute(&url, &subscribe).await?;
        let client = connect(&url).await?;
        let text = "select count(*) from pg_subscription_rel where srsubstate <> 'r'";
        let started = Instant::now();
        while client.query_one(text, &[]).await?.get::<_, i64>(0) > 0 {
            ensure!(started.elapsed() < PATIENCE, "the native subscription does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let native = Self { name, url, source: pair.source.clone() };
        native.disable().await?;
        execute(&native.url, "vacuum analyze \"LiteLLM_UserTable\"").await?;
        Ok(native)
    }

    /// Starts to stream; returns when the source saw it.
    pub async fn enable(&self) -> Result<Instant> {
        execute(&self.url, &format!("alter subscription {} enable", self.name)).await?;
        wait_for_slot(&self.source, self.name, true).await
    }

    pub async fn disable(&self) -> Result<()> {
        execute(&self.url, &format!("alter subscription {} disable", self.name)).await?;
        wait_for_slot(&self.source, self.name, false).await?;
        Ok(())
    }

    /// Waits until person `i` is there.
    pub async fn wait_for_person(&self, i: usize) -> Result<Instant> {
        let client = connect(&self.url).await?;
        let text = format!("select 1 from \"LiteLLM_UserTable\" where user_id = {}", person_id(i));
        let statement = client.prepare(&text).await?;
        let started = Instant::now();
        while client.query_opt(&statement, &[]).await?.is_none() {
            ensure!(started.elapsed() < PATIENCE, "the native subscription does not get there");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Instant::now())
    }

    /// Ends it, with its slot and database.
    pub async fn end(self, rig: &Rig) -> Result<()> {
        self.disable().await?;
        execute(&self.url, &format!("drop subscription {}", self.name)).await?;
        execute(&rig.target.url("postgres"), &format!("drop database {} with (force)", self.name)).await
    }
}
