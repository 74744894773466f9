//! Open WebUI's database as we meet it, and all that is ours in it.
//!
//! This file owns the session: its settings and the cache of prepared statements. It does not know what any statement
//! means; retries nothing. Each file beside it owns one table or one question: the checkpoint, our schema, the layout of
//! Open WebUI's tables, whether they are still those, the brake, pauses, the policy, the audit, dead letters, the heartbeat. None of them decides who
//! should have what.

pub mod audit;
pub mod brake;
pub mod checkpoint;
pub mod dead_letter;
pub mod failures;
pub mod heartbeat;
pub mod layout;
pub mod open_webui;
pub mod pause;
pub mod policy;
pub mod schema;
pub mod setup;

use std::borrow::Cow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use rustc_hash::FxHashMap;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Statement};

use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::failpoint;
use crate::postgres::{self, Connection, Limited, quote_ident};
use crate::sql;

/// Settings of every session of ours on the target, beside those of [`postgres::settings`].
///
/// `plan_cache_mode` and the `enable_*` switches are for batches: a plan that looks rows up by
/// index, made once, whatever the tables held at that moment. A plan made while the tables were
/// empty would otherwise scan them for ever after. Large work resets them ([`Target::begin_large`]).
fn settings(config: &Config, our_schema: &str) -> Vec<(&'static str, String)> {
    let path = format!("{our_schema},{}", quote_ident(&config.webui_schema));
    [
        ("search_path", path.as_str()),
        ("client_min_messages", "warning"),
        ("synchronous_commit", "on"),
        // A dead leader's locks end in bounded time.
        ("idle_in_transaction_session_timeout", "120s"),
        ("lock_timeout", "10s"),
        // More than [`SLOW`]: whoever asks has given up by then.
        ("statement_timeout", "905s"),
        ("jit", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_material", "off"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .to_vec()
}

/// One session.
#[derive(Debug)]
pub struct Target {
    connection: Connection,
    prepared: Mutex<Prepared>,
    /// Statements are planned for many rows ([`Self::plan_large`]).
    is_large: AtomicBool,
    /// Everything of ours is temporary here.
    temporary: bool,
    /// Where the checkpoint's row was last seen: a hint, which is [`checkpoint`]'s own.
    place: Mutex<Option<String>>,
}

/// Statements by their texts, which are long and looked up in each batch. Those that are planned for many rows are kept apart: the server
/// keeps plans, and one of them is no good for the others.
#[derive(Debug, Default)]
struct Prepared {
    small: FxHashMap<String, Statement>,
    large: FxHashMap<String, Statement>,
}

impl Prepared {
    fn of(&mut self, is_large: bool) -> &mut FxHashMap<String, Statement> {
        if is_large { &mut self.large } else { &mut self.small }
    }
}

impl Target {
    pub async fn open(config: &Config) -> Result<Self> {
        Self::open_with(config, &quote_ident(&config.schema), false).await
    }

    /// A session in which everything of ours is temporary, and every unqualified name means a temporary object first: what
    /// is made here goes with the session.
    pub async fn open_temporary(config: &Config) -> Result<Self> {
        Self::open_with(config, "pg_temp", true).await
    }

    async fn open_with(config: &Config, our_schema: &str, temporary: bool) -> Result<Self> {
        let settings = settings(config, our_schema);
        let settings: Vec<(&str, &str)> = settings.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let connection = postgres::connect(&config.target, "litellm-webui-sync", &settings)
            .await
            .map_err(|source| Error::Connect { side: Side::Target, source })?;
        Ok(Self {
            connection,
            prepared: Mutex::default(),
            is_large: AtomicBool::new(false),
            temporary,
            place: Mutex::default(),
        })
    }

    /// For what is answered at once: nothing that is asked through it waits longer than [`QUICK`].
    pub fn client(&self) -> Limited<'_> {
        Limited::new(&self.connection.client, QUICK)
    }

    /// The same for what reads whole tables: [`SLOW`].
    pub fn slow(&self) -> Limited<'_> {
        Limited::new(&self.connection.client, SLOW)
    }

    /// Without a limit: for [`within`], and for COPY, which limits each piece.
    pub fn raw(&self) -> &Client {
        &self.connection.client
    }

    fn prepared(&self) -> MutexGuard<'_, Prepared> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares `text` once per session, or where it is planned for many rows once per transaction. `types` are needed where the
    /// server cannot infer them.
    pub async fn prepare(&self, text: &str, types: &[Type]) -> Result<Statement> {
        let is_large = self.is_large.load(Ordering::Relaxed);
        let known = self.prepared().of(is_large).get(text).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let there = self.text(text);
        let work = self.connection.client.prepare_typed(&there, types);
        let statement = within(Side::Target, "prepare a statement", QUICK, work).await?;
        self.prepared().of(is_large).insert(text.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Whether [`Self::prepare`] has nothing to ask.
    pub fn is_prepared(&self, text: &str) -> bool {
        let is_large = self.is_large.load(Ordering::Relaxed);
        self.prepared().of(is_large).contains_key(text)
    }

    /// From here on this session goes by another name, which tells processes apart.
    pub async fn go_by(&self, name: &str) -> Result<()> {
        let text = "select set_config('application_name', $1, false)";
        let named = self.client().query(text, &[&name]).await;
        named.map_err(on(Side::Target, "name a session"))?;
        Ok(())
    }

    /// Takes the lease, for the life of this session: only one daemon at a time prepares, copies or leads. The slot
    /// alone does not say so, because nobody holds it while rows are copied. To be asked only while the slot is free: a
    /// holder that has done nothing for a while is ended, with its transaction and its locks; so is one that goes by our own name.
    pub async fn take_lease(&self, schema: &str) -> Result<bool> {
        if self.try_lease(schema).await? {
            return Ok(true);
        }
        let client = &self.connection.client;
        let ended =
            within(Side::Target, "take the lease", QUICK, client.query(sql::BREAK_LEASE, &[&schema])).await?;
        if ended.is_empty() {
            return Ok(false);
        }
        tracing::warn!("ended the session of a leader that had stopped working");
        for _ in 0..LEASE_TRIES {
            if self.try_lease(schema).await? {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(false)
    }

    /// Whether the lease is still this session's: it goes with the session, and whoever took it may have made everything anew.
    pub async fn holds_lease(&self, schema: &str) -> Result<bool> {
        let client = &self.connection.client;
        let parameters: &[&(dyn ToSql + Sync)] = &[&schema];
        let work = client.query_one(sql::HOLDS_LEASE, parameters);
        Ok(within(Side::Target, "look at the lease", QUICK, work).await?.get(0))
    }

    /// Whether anybody holds it.
    pub async fn is_lease_held(&self, schema: &str) -> Result<bool> {
        let client = &self.connection.client;
        let parameters: &[&(dyn ToSql + Sync)] = &[&schema];
        let work = client.query_one(sql::IS_LEASE_HELD, parameters);
        Ok(within(Side::Target, "look at the lease", QUICK, work).await?.get(0))
    }

    async fn try_lease(&self, schema: &str) -> Result<bool> {
        let text = "select pg_try_advisory_lock(hashtext('litellm_webui_sync'), hashtext($1))";
        let client = &self.connection.client;
        let row = within(Side::Target, "take the lease", QUICK, client.query_one(text, &[&schema])).await?;
        Ok(row.get(0))
    }

    /// `server_version_num`.
    pub async fn server_version(&self) -> Result<i32> {
        let text = "select current_setting('server_version_num')::int";
        let work = self.connection.client.query_one(text, &[]);
        Ok(within(Side::Target, "ask for the server's version", QUICK, work).await?.get(0))
    }

    /// Runs a statement without parameters.
    pub async fn execute(&self, action: &'static str, text: &str) -> Result<()> {
        let text = self.text(text);
        let run = self.connection.client.batch_execute(&text);
        within(Side::Target, action, SLOW, run).await
    }

    /// The same of what is done at once, whatever there is: a link that was cut meanwhile is noticed soon.
    pub async fn execute_quick(&self, action: &'static str, text: &str) -> Result<()> {
        let text = self.text(text);
        within(Side::Target, action, QUICK, self.connection.client.batch_execute(&text)).await
    }

    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if self.temporary { Cow::Owned(sql::among_temporary(text)) } else { Cow::Borrowed(text) }
    }

    /// Runs a prepared statement and returns its rows.
    pub async fn query(
        &self,
        action: &'static str,
        patience: Duration,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        within(Side::Target, action, patience, self.connection.client.query(statement, parameters)).await
    }

    /// The same row by row, of many: `work` takes each as it comes, and few are held.
    pub async fn each(
        &self,
        action: &'static str,
        patience: Duration,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
        mut work: impl FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        let rows = async {
            let client = &self.connection.client;
            let mut rows = pin!(client.query_raw(statement, parameters.iter().copied()).await?);
            while let Some(row) = rows.try_next().await? {
                if let Err(error) = work(&row) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        };
        within(Side::Target, action, patience, rows).await?
    }

    /// The server's process for this session, as pg_stat_activity names it.
    pub async fn backend_pid(&self) -> Result<i32> {
        let work = self.connection.client.query_one("select pg_backend_pid()", &[]);
        Ok(within(Side::Target, "ask for the session's process", QUICK, work).await?.get(0))
    }

    /// Answers if the server does: the simplest question there is.
    pub async fn ask_nothing(&self, action: &'static str) -> Result<()> {
        self.execute(action, "select 1").await
    }

    /// From here on nothing is written outside of a transaction that [`Self::begin`] and the like began. For a session that
    /// sends writes together with the BEGIN before them: where that alone fails (it was cancelled, say), each of them would
    /// otherwise be a transaction of its own, and commit without its checkpoint.
    pub async fn write_in_transactions_only(&self) -> Result<()> {
        let text = "set default_transaction_read_only = on";
        let work = self.connection.client.batch_execute(text);
        within(Side::Target, "allow no write outside of a transaction", QUICK, work).await
    }

    /// From here on nobody's lock is waited for longer than a moment.
    pub async fn wait_for_locks_briefly(&self) -> Result<()> {
        self.execute("wait for nobody", "set lock_timeout = '1s'").await
    }

    /// Begins a transaction.
    pub async fn begin(&self, action: &'static str) -> Result<()> {
        self.begin_with(action, BEGIN).await
    }

    /// Begins the transaction of a small batch. Meant to be sent together with what is written in it.
    pub async fn begin_small(&self) -> Result<()> {
        let is_lost = failpoint::hit(failpoint::BEGIN_LOST).is_err();
        let text = if is_lost { "do $$ begin raise query_canceled; end $$" } else { BEGIN };
        self.begin_with("begin a batch", text).await
    }

    async fn begin_with(&self, action: &'static str, text: &str) -> Result<()> {
        within(Side::Target, action, QUICK, self.connection.client.batch_execute(text)).await
    }

    /// Does `work`, which belongs to no batch, in a transaction of its own.
    pub async fn alone<T>(&self, action: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.begin(action).await?;
        match work.await {
            Ok(done) => {
                self.commit(action).await?;
                Ok(done)
            }
            Err(error) => {
                // Where the server still answers, whoever goes on with this session finds it as it was.
                if error.sqlstate().is_some() {
                    self.roll_back(action).await?;
                }
                Err(error)
            }
        }
    }

    /// Undoes the open transaction.
    pub async fn roll_back(&self, action: &'static str) -> Result<()> {
        self.end(action, "rollback").await
    }

    /// Ends the open transaction for good.
    pub async fn commit(&self, action: &'static str) -> Result<()> {
        self.end(action, "commit").await
    }

    async fn end(&self, action: &'static str, text: &str) -> Result<()> {
        self.is_large.store(false, Ordering::Relaxed);
        within(Side::Target, action, END, self.connection.client.batch_execute(text)).await
    }

    /// Begins a transaction that is written in many pieces: look-ups still, but planned for what each of them holds.
    pub async fn begin_pieces(&self) -> Result<()> {
        let text = format!("{BEGIN}; set local plan_cache_mode = force_custom_plan");
        self.begin_with("begin a large batch", &text).await
    }

    /// Begins a transaction whose statements handle many rows: planned for what the tables hold now.
    pub async fn begin_large(&self) -> Result<()> {
        self.begin("begin a large batch").await?;
        self.plan_large().await
    }

    /// From here to the end of the transaction, statements are planned for many rows, and for those that are there now: each is
    /// prepared anew, and a new one's first plans are always made for its parameters. Not by `force_custom_plan`: Postgres would
    /// plan its own look-up of a foreign key anew for each row as well, which costs more than writing the row.
    pub async fn plan_large(&self) -> Result<()> {
        self.prepared().large.clear();
        self.is_large.store(true, Ordering::Relaxed);
        self.execute_quick(
            "plan for many rows",
            "set local plan_cache_mode = auto; set local enable_nestloop = on; set local enable_seqscan = on;
             set local enable_hashjoin = on; set local enable_mergejoin = on; set local enable_material = on;
             set local work_mem = '256MB'",
        )
        .await
    }

    /// The same for a session that only reads, in no transaction, and as long as it lasts.
    pub async fn plan_reading(&self) -> Result<()> {
        self.execute_quick(
            "plan for many rows",
            "set plan_cache_mode = force_custom_plan; set enable_seqscan = on; set enable_hashjoin = on;
             set enable_mergejoin = on; set enable_material = on; set work_mem = '64MB'",
        )
        .await
    }

    /// From here to the next [`Self::plan_large`], statements are planned for all there is: nothing of it is looked up one by one, few
    /// as the planner may expect of it.
    pub async fn plan_everything(&self) -> Result<()> {
        self.execute_quick("plan for everything", "set local enable_nestloop = off").await
    }

    /// Renews the statistics of our own tables within a transaction that changed much of them: what it plans next would otherwise be
    /// planned for what there was before. One that emptied the mirror compared everybody with everybody.
    ///
    /// So whoever is at one of them is waited for, but for less than the second after which Postgres ends an autovacuum for us; what one is at
    /// is left out then.
    pub async fn analyze_ours(&self, schema: &str) -> Result<()> {
        let Some(tables) = self.to_analyze(schema, None).await? else { return Ok(()) };
        self.execute_quick("set a savepoint", "savepoint statistics; set local lock_timeout = '900ms'")
            .await?;
        match self.execute("analyze what was written", &format!("analyze {tables}")).await {
            Ok(()) => {
                let restore = "release savepoint statistics; set local lock_timeout to default";
                self.execute_quick("release a savepoint", restore).await
            }
            // Nobody who waits for us is waited for by us (40P01).
            Err(error) if matches!(error.sqlstate(), Some("55P03" | "40P01")) => {
                let back = "rollback to savepoint statistics; release savepoint statistics";
                self.execute_quick("go back to a savepoint", back).await?;
                self.analyze_free(&tables).await
            }
            Err(error) => Err(error),
        }
    }

    /// Renews the statistics of our own tables, and of those of Open WebUI's (`webui_schema`) that we may analyze; what is locked is left
    /// out. Between transactions: it keeps a lock on them.
    pub async fn analyze_all(&self, schema: &str, webui_schema: Option<&str>) -> Result<()> {
        match self.to_analyze(schema, webui_schema).await? {
            Some(tables) => self.analyze_free(&tables).await,
            None => Ok(()),
        }
    }

    async fn analyze_free(&self, tables: &str) -> Result<()> {
        self.execute("analyze what was written", &format!("analyze (skip_locked) {tables}")).await
    }

    async fn to_analyze(&self, schema: &str, webui_schema: Option<&str>) -> Result<Option<String>> {
        let statement = self.prepare(sql::TO_ANALYZE, &[Type::TEXT, Type::TEXT]).await?;
        let rows = self.query("list what to analyze", QUICK, &statement, &[&schema, &webui_schema]).await?;
        Ok(rows.first().and_then(|row| row.get(0)))
    }

    /// How many rows our tables have, as the planner believes.
    pub async fn believed_rows(&self, schema: &str) -> Result<i64> {
        let row = self.client().query_one(sql::SIZE, &[&schema]).await;
        Ok(row.map_err(on(Side::Target, "look at the statistics"))?.get(0))
    }

    /// From here on, statements are planned as ever again: undoes [`Self::plan_large`].
    pub async fn plan_small(&self) -> Result<()> {
        self.is_large.store(false, Ordering::Relaxed);
        self.execute_quick(
            "plan for few rows",
            "set local plan_cache_mode to default; set local enable_seqscan to default;
             set local enable_hashjoin to default; set local enable_mergejoin to default;
             set local enable_material to default; set local enable_nestloop to default;
             set local work_mem to default",
        )
        .await
    }
}

/// Also where a session may write in transactions only.
const BEGIN: &str = "begin read write";
/// How often a lease is asked for again while the session that held it ends.
const LEASE_TRIES: u32 = 20;
/// How long a statement of a small batch may take before the connection counts as dead: a link that was cut
/// silently never answers.
pub const QUICK: Duration = Duration::from_secs(15);
/// The same for the end of a transaction of any size: nearly all of what is to be flushed was written before. What became of one
/// whose answer is lost, the checkpoint says.
const END: Duration = Duration::from_secs(60);
/// The same for statements over everything there is.
pub const SLOW: Duration = Duration::from_secs(900);

/// Waits for `work`, but not for ever.
pub async fn within<T>(
    side: Side,
    action: &'static str,
    patience: Duration,
    work: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(patience, work).await {
        Ok(result) => result.map_err(on(side, action)),
        Err(_) => Err(Error::Silent { side, action, seconds: patience.as_secs() }),
    }
}
