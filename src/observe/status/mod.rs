//! `status`: one report of where everything stands, as a table and as JSON; and the wait for a barrier.
//!
//! Reads both databases; changes nothing but the barrier message it emits when asked to wait.

use std::time::{Duration, Instant};

use serde::Serialize;
use tokio_postgres::Row;

use crate::config::Config;
use crate::copy::resnapshot;
use crate::error::{Error, Result, Side, on};
use crate::position::Lsn;
use crate::source::{Leader, SlotState, Source};
use crate::sql;
use crate::target::brake;
use crate::target::layout::{self, Layout, ModelAccess};
use crate::target::pause;
use crate::target::{QUICK, Target};

/// Where everything stands. The JSON of `status --json` is this struct.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatusReport {
    /// What the daemon last said it was doing; `not running` when it holds no slot.
    pub state: String,
    /// Why, where there is something to say.
    pub reason: Option<String>,
    /// Bytes of LiteLLM's WAL after the checkpoint.
    pub lag_bytes: Option<i64>,
    /// Time since the checkpoint moved, while there is WAL after it.
    pub lag_seconds: Option<f64>,
    /// How far LiteLLM's changes are applied; null before the first copy.
    pub checkpoint: Option<CheckpointReport>,
    /// Our replication slot on LiteLLM's server.
    pub slot: Option<SlotReport>,
    /// The daemon that follows the slot. Others may stand by: nobody but they know.
    pub leader: Option<Leader>,
    /// The shape of Open WebUI's tables.
    pub layout: Option<String>,
    /// Open WebUI accounts of people who are active in LiteLLM.
    pub accounts_active: i64,
    /// Accounts of people who left LiteLLM.
    pub accounts_locked: i64,
    /// Groups that stand for an organization or a team, and how many of each.
    pub groups: i64,
    pub organizations: i64,
    pub teams: i64,
    /// Memberships of these groups that we wrote.
    pub members: i64,
    pub models: Option<ModelsReport>,
    /// LiteLLM users who get no account, by reason.
    pub skipped: Vec<Counted>,
    /// What could not be written, by reason.
    pub dead_letters: Vec<Counted>,
    /// A batch that is held until it is approved.
    pub brake: Option<BrakeReport>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CheckpointReport {
    /// Everything LiteLLM committed before this position of its WAL is applied.
    pub end_lsn: String,
    /// LiteLLM's transactions and row changes applied since the last copy, exactly.
    pub transactions_applied: i64,
    pub changes_applied: i64,
    /// Raised by each leader.
    pub epoch: i64,
    /// Identity of one life of the slot, and where it began.
    pub generation: String,
    /// Of LiteLLM's server, as last followed.
    pub timeline: i32,
    pub consistent_point: String,
    /// Whether Open WebUI's rows were made.
    pub projected: bool,
    /// Since the checkpoint was last written.
    pub age_seconds: f64,
}

impl CheckpointReport {
    fn end_lsn(&self) -> Lsn {
        self.end_lsn.parse().unwrap_or(Lsn::from(0))
    }
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SlotReport {
    pub name: String,
    /// Whether a daemon follows it.
    pub active: bool,
    /// `reserved`, `extended`, `unreserved` or `lost`, as Postgres says.
    pub wal_status: Option<String>,
    pub confirmed_flush_lsn: Option<String>,
    pub restart_lsn: Option<String>,
    /// WAL that LiteLLM's server keeps for it.
    pub retained_bytes: i64,
    /// WAL that may still be written before it is lost; null without max_slot_wal_keep_size.
    pub safe_wal_bytes: Option<i64>,
}

impl SlotReport {
    /// The slot as the catalogs show it.
    pub fn new(name: &str, slot: SlotState) -> Self {
        Self {
            name: name.to_owned(),
            active: slot.active,
            wal_status: slot.wal_status,
            confirmed_flush_lsn: slot.confirmed_flush_lsn.map(|lsn| lsn.to_string()),
            restart_lsn: slot.restart_lsn.map(|lsn| lsn.to_string()),
            retained_bytes: slot.retained_bytes,
            safe_wal_bytes: slot.safe_wal_size,
        }
    }
}

/// Who sees which models, in short.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ModelsReport {
    /// Models LiteLLM serves, as far as known.
    pub known: i64,
    /// People with at least one of them, the different sets they have, and how these are granted.
    pub people: i64,
    pub sets: i64,
    pub access_groups: i64,
    pub grants: i64,
    /// Models that everybody sees in Open WebUI although LiteLLM limits them.
    pub public: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counted {
    pub what: String,
    pub count: i64,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BrakeReport {
    /// For `litellm-webui-sync approve`.
    pub id: i64,
    /// How many of the active people would lose something.
    pub people: i32,
    pub active: i32,
    pub approved: bool,
}

/// What we know of the target.
#[derive(Debug)]
struct TargetFacts {
    checkpoint: Option<CheckpointReport>,
    daemon: Option<DaemonRow>,
}

/// What the daemon last said of itself.
#[derive(Debug)]
struct DaemonRow {
    state: String,
    reason: Option<String>,
    layout: Option<String>,
    /// It said so within the last seconds.
    is_fresh: bool,
}

async fn installed(target: &Target, config: &Config) -> Result<bool> {
    let text =
        "select exists (select from pg_catalog.pg_tables where schemaname = $1 and tablename = 'checkpoint')";
    let row = target.client().query_one(text, &[&config.schema]).await;
    Ok(row.map_err(on(Side::Target, "look at our schema"))?.get(0))
}

/// `None` while the first `run` is still making our schema.
async fn facts(target: &Target, config: &Config) -> Result<Option<TargetFacts>> {
    if !installed(target, config).await? {
        return Ok(None);
    }
    match target_facts(target).await {
        Err(error) if matches!(error.sqlstate(), Some("42P01" | "3F000")) => Ok(None),
        other => other.map(Some),
    }
}

async fn checkpoint(target: &Target) -> Result<Option<CheckpointReport>> {
    let rows = ask(target, sql::STATUS).await?;
    Ok(rows.first().map(|row| CheckpointReport {
        end_lsn: row.get::<_, Lsn>("end_lsn").to_string(),
        transactions_applied: row.get("transactions_applied"),
        changes_applied: row.get("changes_applied"),
        epoch: row.get("epoch"),
        generation: row.get("generation"),
        timeline: row.get("timeline"),
        consistent_point: row.get::<_, Lsn>("consistent_point").to_string(),
        projected: row.get("projected"),
        age_seconds: row.get("age_seconds"),
    }))
}

async fn ask(target: &Target, text: &str) -> Result<Vec<Row>> {
    let statement = target.prepare(text, &[]).await?;
    target.query("read the status", QUICK, &statement, &[]).await
}

async fn target_facts(target: &Target) -> Result<TargetFacts> {
    let checkpoint = checkpoint(target).await?;
    let action = "read the status";
    let text = "select state, reason, layout, heartbeat_at > now() - interval '25 seconds' from daemon";
    let row = target.client().query_opt(text, &[]).await.map_err(on(Side::Target, action))?;
    let daemon = row.map(|row| DaemonRow {
        state: row.get(0),
        reason: row.get(1),
        layout: row.get(2),
        is_fresh: row.get(3),
    });
    Ok(TargetFacts { checkpoint, daemon })
}

/// Collects the report.
pub async fn report(config: &Config) -> Result<StatusReport> {
    let target = Target::open(config).await?;
    let source = Source::open(config).await?;
    let slot = source.slot(&config.slot).await?;
    let mut report = StatusReport {
        state: "not installed".to_owned(),
        leader: source.leader(&config.slot).await?,
        ..StatusReport::default()
    };
    let Some(facts) = facts(&target, config).await? else {
        report.reason = Some("nothing was set up yet: start `litellm-webui-sync run`".to_owned());
        return Ok(report);
    };
    report.state = "not running".to_owned();
    if let Some(daemon) = facts.daemon {
        report.layout = daemon.layout;
        let is_active = slot.as_ref().is_some_and(|slot| slot.active);
        // Held by the brake, it has let go of the slot but still says so.
        if is_active || (daemon.is_fresh && daemon.state == "braked") {
            report.state = daemon.state;
            report.reason = daemon.reason;
        } else {
            report.reason = daemon.reason.or_else(|| Some(format!("last seen {}", daemon.state)));
        }
    }
    if let (Some(slot), Some(checkpoint)) = (&slot, &facts.checkpoint) {
        let end = u64::from(checkpoint.end_lsn());
        let behind = u64::from(slot.wal_end).saturating_sub(end);
        report.lag_bytes = i64::try_from(behind).ok();
        report.lag_seconds = Some(if behind == 0 { 0.0 } else { checkpoint.age_seconds });
    }
    report.slot = slot.map(|slot| SlotReport::new(&config.slot, slot));
    report.checkpoint = facts.checkpoint;
    report.count(&target).await?;
    report.models = match layout::find(&target, config).await {
        Ok(layout) => Some(models(&target, &layout).await?),
        Err(Error::NoOpenWebUi { .. } | Error::UnknownLayout { .. }) => None,
        Err(error) => return Err(error),
    };
    report.look_for_trouble(&target).await?;
    Ok(report)
}

/// What is known of models, and which of them Open WebUI shows to everybody although LiteLLM does not.
pub async fn models(target: &Target, layout: &Layout) -> Result<ModelsReport> {
    let action = "read the models";
    let text =
        "select (select count(*) from model_row where active), (select count(*) from effective_access),
                       (select count(*) from model_set where people > 0), (select count(*) from access_group),
                       (select count(*) from model_grant)";
    let row = target.client().query_one(text, &[]).await.map_err(on(Side::Target, action))?;
    let text = match layout.model_access {
        ModelAccess::Table => sql::PUBLIC_MODELS_TABLE,
        ModelAccess::Json => sql::PUBLIC_MODELS_JSON,
    };
    let public = target.client().query(text, &[]).await.map_err(on(Side::Target, action))?;
    Ok(ModelsReport {
        known: row.get(0),
        people: row.get(1),
        sets: row.get(2),
        access_groups: row.get(3),
        grants: row.get(4),
        public: public.iter().map(|row| row.get(0)).collect(),
    })
}

async fn counted(target: &Target, text: &str) -> Result<Vec<Counted>> {
    let rows = ask(target, text).await?;
    Ok(rows.iter().map(|row| Counted { what: row.get(0), count: row.get(1) }).collect())
}

impl StatusReport {
    /// How many of everything there is. Reads whole tables.
    pub async fn count(&mut self, target: &Target) -> Result<()> {
        if let Some(row) = ask(target, sql::ENTITIES).await?.first() {
            self.accounts_active = row.get(0);
            self.accounts_locked = row.get(1);
            self.groups = row.get(2);
            self.members = row.get(3);
            self.organizations = row.get(4);
            self.teams = row.get(5);
        }
        let text = "select reason, count(*) from skipped group by reason order by 2 desc, 1";
        self.skipped = counted(target, text).await?;
        Ok(())
    }

    /// What could not be written, and what is held.
    pub async fn look_for_trouble(&mut self, target: &Target) -> Result<()> {
        let text = "select reason, count(*) from dead_letter group by reason order by 2 desc, 1";
        self.dead_letters = counted(target, text).await?;
        let text = "select id, people, active, approved_at is not null from brake where used_at is null order by id desc limit 1";
        self.brake = ask(target, text).await?.first().map(|row| BrakeReport {
            id: row.get(0),
            people: row.get(1),
            active: row.get(2),
            approved: row.get(3),
        });
        Ok(())
    }

    /// How far it is.
    pub async fn locate(&mut self, target: &Target) -> Result<()> {
        self.checkpoint = checkpoint(target).await?;
        Ok(())
    }

    /// The report as lines for a person: what, and how it is.
    pub fn lines(&self) -> Vec<(String, String)> {
        let mut lines: Vec<(String, String)> = Vec::new();
        let mut line = |name: &str, value: String| lines.push((name.to_owned(), value));
        let with_reason = |text: &str| match &self.reason {
            Some(reason) => format!("{text} ({reason})"),
            None => text.to_owned(),
        };
        line("state", with_reason(&self.state));
        if let (Some(bytes), Some(seconds)) = (self.lag_bytes, self.lag_seconds) {
            line("lag", format!("{bytes} bytes, {seconds:.1} s"));
        }
        if let Some(checkpoint) = &self.checkpoint {
            line("checkpoint", format!("{} (epoch {})", checkpoint.end_lsn, checkpoint.epoch));
            line("transactions applied", checkpoint.transactions_applied.to_string());
            line("changes applied", checkpoint.changes_applied.to_string());
            if !checkpoint.projected {
                line("projected", "not yet".to_owned());
            }
        }
        if let Some(slot) = &self.slot {
            let status = slot.wal_status.as_deref().unwrap_or("?");
            let active = if slot.active { "active" } else { "not active" };
            line("slot", format!("{} ({active}, {status}, {} bytes kept)", slot.name, slot.retained_bytes));
        } else {
            line("slot", "none".to_owned());
        }
        if let Some(Leader { session, client, seconds }) = &self.leader {
            let client = client.as_deref().unwrap_or("a local socket");
            line("leader", format!("{session} at {client}, for {:.0} s", seconds.unwrap_or_default()));
        }
        if let Some(layout) = &self.layout {
            line("layout", layout.clone());
        }
        line("accounts", format!("{} active, {} locked", self.accounts_active, self.accounts_locked));
        line("groups", format!("{} with {} members", self.groups, self.members));
        if let Some(models) = &self.models {
            let ModelsReport { known, people, sets, access_groups, grants, public } = models;
            line(
                "models",
                format!(
                    "{known}; {people} people have {sets} sets of them: {access_groups} access groups, {grants} grants"
                ),
            );
            for model in public {
                line("public model", format!("{model}: everybody sees it, although LiteLLM limits it"));
            }
        }
        for skipped in &self.skipped {
            line("skipped", format!("{} {}", skipped.count, skipped.what));
        }
        for letter in &self.dead_letters {
            line("failed", format!("{} {}", letter.count, letter.what));
        }
        if let Some(brake) = &self.brake {
            let what = if brake.approved {
                "approved".to_owned()
            } else {
                format!("run `litellm-webui-sync approve {}` to let it pass", brake.id)
            };
            line("brake", format!("{} of {} people would be locked: {what}", brake.people, brake.active));
        }
        lines
    }
}

/// How a wait ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waited {
    /// Everything committed before the call is visible.
    Reached { dead_letters: i64 },
    /// It cannot, or did not, get there.
    Failed { reason: String },
}

/// How long a daemon may be gone (restarting, reconnecting) before nobody can be waited for.
const ABSENCE: Duration = Duration::from_secs(20);

/// The daemon looks for Open WebUI's tables and its first admin every second: what it says may be that old.
const SECOND_LOOK: Duration = Duration::from_secs(3);

/// Waits until everything committed in LiteLLM before the call is visible in Open WebUI.
pub async fn wait_now(config: &Config, timeout: Duration) -> Result<Waited> {
    let source = Source::open(config).await?;
    let target = Target::open(config).await?;
    let before = facts(&target, config).await?.and_then(|facts| facts.checkpoint);
    let goal = source.emit_barrier().await?;
    // The checkpoint of a server that was since restored says nothing about this one.
    let void = before.filter(|known| known.end_lsn() > goal).map(|known| known.generation);
    // After a failover a position on the old timeline says nothing: it may be higher than any on the new one.
    let timeline = source.server().await?.timeline.unwrap_or_default();
    let started = Instant::now();
    let mut last_seen = Instant::now();
    let mut looks = 0_u32;
    loop {
        if let Some(facts) = facts(&target, config).await? {
            if let Some(checkpoint) =
                facts.checkpoint.as_ref().filter(|one| void.as_ref() != Some(&one.generation))
            {
                let end = checkpoint.end_lsn();
                let is_past = end > goal && checkpoint.timeline >= timeline;
                if is_past && checkpoint.projected {
                    let row = target.client().query_one("select count(*) from dead_letter", &[]).await;
                    let dead_letters = row.map_err(on(Side::Target, "count dead letters"))?.get(0);
                    return Ok(Waited::Reached { dead_letters });
                }
                if is_past
                    && let Some(daemon) = &facts.daemon
                    && daemon.state == "waiting"
                    && started.elapsed() > SECOND_LOOK
                {
                    let reason = daemon.reason.clone().unwrap_or_else(|| "nothing is written yet".to_owned());
                    return Ok(Waited::Failed { reason });
                }
            }
            if let Err(paused @ Error::Paused { .. }) = pause::check(&target).await {
                return Ok(Waited::Failed { reason: paused.to_string() });
            }
            if let Some(held) = brake::waiting(&target).await? {
                return Ok(Waited::Failed { reason: held.remedy().unwrap_or_default() });
            }
        }
        looks += 1;
        if looks % 20 == 1 {
            let active = source.slot(&config.slot).await?.is_some_and(|slot| slot.active);
            // A daemon that copies holds no slot.
            let alive = active || resnapshot::is_copying(&target).await.unwrap_or_default();
            if alive {
                last_seen = Instant::now();
            }
        }
        if last_seen.elapsed() > ABSENCE {
            return Ok(Waited::Failed {
                reason: "no daemon holds the slot: start `litellm-webui-sync run`".to_owned(),
            });
        }
        if started.elapsed() > timeout {
            return Ok(Waited::Failed { reason: format!("not there after {} s", timeout.as_secs()) });
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
