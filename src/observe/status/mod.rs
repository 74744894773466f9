//! `status`: one report of where everything stands, as a table and as JSON.
//!
//! Reads both databases; changes nothing. Waiting for a point in LiteLLM's WAL is in `wait`,
//! the table in `lines`.

mod lines;
mod wait;

use serde::Serialize;
use tokio_postgres::Row;

use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::position::Lsn;
use crate::source::{Leader, SlotState, Source};
use crate::sql;
use crate::target::failures;
use crate::target::heartbeat::{self, Place, Said};
use crate::target::layout::{self, Layout};
use crate::target::open_webui;
use crate::target::pause;
use crate::target::{QUICK, Target};

pub use wait::{Waited, wait_now};

/// Where everything stands. The JSON of `status --json` is this struct.
#[derive(Debug, Clone, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StatusReport {
    /// What the daemon last said it was doing; `not running` when it said nothing lately and nobody holds the slot.
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
    /// E-mails that several accounts of Open WebUI have.
    pub shared_emails: i64,
    /// People whom a used-up budget takes models from.
    pub budget_closed: i64,
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

impl From<Place> for CheckpointReport {
    fn from(place: Place) -> Self {
        let Place { end_lsn, transactions_applied, changes_applied, epoch, generation, .. } = place;
        let Place { consistent_point, projected, timeline, age_seconds, .. } = place;
        let (end_lsn, consistent_point) = (end_lsn.to_string(), consistent_point.to_string());
        Self {
            end_lsn,
            transactions_applied,
            changes_applied,
            epoch,
            generation,
            timeline,
            consistent_point,
            projected,
            age_seconds,
        }
    }
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
    /// Groups of Open WebUI's own under our access groups: their members have models LiteLLM does not give them.
    pub inheriting: Vec<String>,
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
    daemon: Option<Said>,
}

async fn installed(target: &Target, config: &Config) -> Result<bool> {
    let text =
        "select exists (select from pg_catalog.pg_tables where schemaname = $1 and tablename = 'checkpoint')";
    let row = target.slow().query_one(text, &[&config.schema]).await;
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

async fn ask(target: &Target, text: &str) -> Result<Vec<Row>> {
    let statement = target.prepare(text, &[]).await?;
    target.query("read the status", QUICK, &statement, &[]).await
}

async fn target_facts(target: &Target) -> Result<TargetFacts> {
    let checkpoint = heartbeat::place(target).await?.map(CheckpointReport::from);
    let daemon = heartbeat::last(target).await?;
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
    let is_there = report.leader.is_some() || facts.daemon.as_ref().is_some_and(Said::is_there);
    if let Some(daemon) = facts.daemon {
        report.layout.clone_from(&daemon.layout);
        if daemon.is_alive() && (report.leader.is_some() || !daemon.streams()) {
            report.state = daemon.state;
            report.reason = daemon.reason;
        } else if report.leader.is_some() {
            report.state = "starting".to_owned();
            report.reason = Some(format!("it has not said how it is for {:.0} s", daemon.age));
        } else {
            report.reason = daemon.reason.or_else(|| Some(format!("last seen {}", daemon.state)));
        }
    }
    match pause::check(&target).await {
        // True as soon as somebody asked for it, whatever is still on its way. Whoever lets go of the slot for it says so only with their
        // next word.
        Err(paused @ Error::Paused { .. }) if is_there => {
            report.state = "paused".to_owned();
            report.reason = Some(paused.to_string());
        }
        Err(paused @ Error::Paused { .. }) => report.reason = Some(paused.to_string()),
        other => other?,
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
        Ok(layout) => {
            report.shared_emails = open_webui::shared_emails(&target).await?;
            Some(models(&target, &layout).await?)
        }
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
    let row = target.slow().query_one(text, &[]).await.map_err(on(Side::Target, action))?;
    let public =
        target.slow().query(layout.model_access.public, &[]).await.map_err(on(Side::Target, action))?;
    let inheriting = if layout.has_parents() { ask(target, sql::CHILD_GROUPS).await? } else { Vec::new() };
    Ok(ModelsReport {
        inheriting: inheriting.iter().map(|row| row.get(0)).collect(),
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
            self.budget_closed = if row.get(6) { failures::budget_closed_people(target).await? } else { 0 };
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
    pub fn locate(&mut self, place: Option<&Place>) {
        self.checkpoint = place.cloned().map(CheckpointReport::from);
    }
}
