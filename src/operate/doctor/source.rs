//! What LiteLLM's server is asked: whether it streams to us, keeps what we need, and has nothing in our way.
//!
//! Reads catalogs and settings, and makes one replication connection. Writes nothing. LiteLLM's tables are in `tables`.

use super::{Check, Verdict, failed, finding, fine};
use super::{bridge, server, tables};
use crate::config::Config;
use crate::error::{Error, Result, Side, on};
use crate::position::Lsn;
use crate::postgres::error_chain;
use crate::source::Source;
use crate::source::session::Session;
use crate::sql;

pub(super) async fn examine(config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let source = Source::open(config).await?;
    let facts = Facts::ask(&source, config).await?;
    checks.push(server::version("LiteLLM's server", facts.version));
    checks.extend(standby(&facts));
    checks.push(wal_level(&facts));
    checks.push(free("free replication slots", "max_replication_slots", facts.slots));
    checks.push(free("free WAL senders", "max_wal_senders", facts.senders));
    checks.push(kept_wal(&facts));
    // Whatever it is, nobody waits for a slot to be made.
    let (has_slot, foreign) = match source.slot(&config.slot).await {
        Ok(slot) => (slot.is_some(), false),
        Err(error @ Error::ForeignSlot { .. }) => {
            checks.push(failed("slot", &error));
            (true, true)
        }
        Err(error) => return Err(error),
    };
    checks.extend(slot(&facts).filter(|_| !foreign));
    checks.extend(server::tls("LiteLLM's connection", facts.tls, facts.local));
    checks.extend(server::clock("LiteLLM's clock", facts.clock));
    checks.extend(failover_slot(&facts).filter(|_| !foreign));
    checks.extend(synchronized_standby_slots(&facts));
    checks.push(replication(&source, config).await);
    checks.extend(tables::publication(&source, config).await?);
    checks.extend(tables::rights_and_identities(&source, config).await?);
    checks.extend(bridge::judge(&bridge::find(&source, config).await?));
    checks.extend(tables::shared_emails(&source, config, has_slot).await?);
    checks.extend(long_transactions(&source, has_slot).await?);
    Ok(())
}

/// What its catalogs and settings say.
#[derive(Debug)]
struct Facts {
    version: i32,
    wal_level: String,
    slots: (i64, i64),
    senders: (i64, i64),
    /// Megabytes; below 0 is no limit.
    keep_mb: Option<i64>,
    wal_per_hour: Option<i64>,
    tls: bool,
    local: bool,
    /// Seconds since 1970.
    clock: f64,
    standby: bool,
    has_standby: bool,
    synchronized_standby_slots: Option<String>,
    failover: Option<bool>,
    wal_status: Option<String>,
}

impl Facts {
    async fn ask(source: &Source, config: &Config) -> Result<Self> {
        let row = source.client().query_one(sql::DOCTOR_SOURCE, &[&config.slot]).await;
        let row = row.map_err(on(Side::Source, "examine the server"))?;
        Ok(Self {
            version: row.get("version"),
            wal_level: row.get("wal_level"),
            slots: (row.get("slots"), row.get("slots_used")),
            senders: (row.get("senders"), row.get("senders_used")),
            keep_mb: row.get("keep_mb"),
            wal_per_hour: row.get("wal_per_hour"),
            tls: row.get("tls"),
            local: row.get("local"),
            clock: row.get("clock"),
            standby: row.get("standby"),
            has_standby: row.get("has_standby"),
            synchronized_standby_slots: row.get("synchronized_standby_slots"),
            failover: row.get::<_, Option<String>>("failover").map(|text| text == "true"),
            wal_status: row.get("wal_status"),
        })
    }
}

fn standby(facts: &Facts) -> Option<Check> {
    facts.standby.then(|| {
        finding(
            Verdict::Problem,
            "LiteLLM's server is a standby",
            "in recovery",
            "slots of a standby vanish with a promotion, and we follow primaries only",
            "let LITELLM_DATABASE_URL lead to the primary",
        )
    })
}

fn wal_level(facts: &Facts) -> Check {
    match facts.wal_level.as_str() {
        "logical" => fine("wal_level", "logical"),
        other => finding(
            Verdict::Problem,
            "wal_level",
            other,
            "without it there is no stream of changes",
            "on LiteLLM's server: alter system set wal_level = 'logical'; then restart it",
        ),
    }
}

/// How many slots or senders are left. A copy takes a second one for a moment.
fn free(name: &'static str, setting: &str, (limit, used): (i64, i64)) -> Check {
    match limit - used {
        free if free >= 2 => fine(name, format!("{free} of {limit}")),
        free => finding(
            if free < 1 { Verdict::Problem } else { Verdict::Warning },
            name,
            format!("{free} of {limit}"),
            "the stream needs one of each, and copying afresh another one",
            format!("on LiteLLM's server: alter system set {setting} = {}; then restart it", limit + 10),
        ),
    }
}

fn kept_wal(facts: &Facts) -> Check {
    let name = "max_slot_wal_keep_size";
    let Some(megabytes) = facts.keep_mb.filter(|megabytes| *megabytes >= 0) else {
        return finding(
            Verdict::Problem,
            name,
            "no limit",
            "while no daemon runs, the slot keeps WAL until LiteLLM's disk is full",
            "on LiteLLM's server: alter system set max_slot_wal_keep_size = '16GB'; select pg_reload_conf();",
        );
    };
    let hours = facts.wal_per_hour.filter(|rate| *rate > 0).map(|rate| megabytes * 1_048_576 / rate);
    let lasts = hours.map(|hours| format!(", about {hours} h of WAL at the usual rate")).unwrap_or_default();
    let found = format!("{megabytes} MB{lasts}");
    if hours.is_none_or(|hours| hours >= 4) {
        return fine(name, found);
    }
    finding(
        Verdict::Warning,
        name,
        found,
        "a daemon that is down longer than that has to copy everything afresh",
        format!("on LiteLLM's server: alter system set max_slot_wal_keep_size = '{}MB'", megabytes * 4),
    )
}

fn slot(facts: &Facts) -> Option<Check> {
    let status = facts.wal_status.as_deref().filter(|status| matches!(*status, "lost" | "unreserved"))?;
    Some(finding(
        Verdict::Problem,
        "slot",
        format!("wal_status is {status}"),
        "WAL that the stream needs is gone or about to go",
        "start the daemon: it catches up, or copies afresh",
    ))
}

fn failover_slot(facts: &Facts) -> Option<Check> {
    let is_at_risk = facts.version >= 170_000
        && facts.has_standby
        && facts.failover != Some(true)
        && facts.wal_status.is_some();
    is_at_risk.then(|| {
        finding(
            Verdict::Warning,
            "failover slot",
            "the slot is not synchronized to a standby",
            "after a failover everything is copied afresh",
            "teardown and run on 17 or newer make the slot with FAILOVER",
        )
    })
}

fn synchronized_standby_slots(facts: &Facts) -> Option<Check> {
    let is_empty = facts.synchronized_standby_slots.as_deref().is_none_or(str::is_empty);
    (facts.failover == Some(true) && facts.has_standby && is_empty).then(|| {
        finding(
            Verdict::Warning,
            "synchronized_standby_slots",
            "empty",
            "we may be told changes that a promoted standby never had, and then copy everything afresh",
            "on LiteLLM's server: set synchronized_standby_slots to the standby's slot, and sync_replication_slots = on there",
        )
    })
}

/// By doing: privileges, pg_hba.conf and poolers all show here, and nowhere else for certain.
async fn replication(source: &Source, config: &Config) -> Check {
    let name = "replication connection";
    let attempt = async {
        let mut session =
            Session::open(config, &source.endpoint, "litellm-webui-sync doctor", Lsn::from(0)).await?;
        let identity = session.identify().await?;
        session.close().await;
        Ok::<_, Error>(identity.timeline)
    };
    match attempt.await {
        Ok(timeline) => fine(name, format!("works (timeline {timeline})")),
        Err(error) => finding(
            Verdict::Problem,
            name,
            error_chain(&error),
            "the stream is a replication connection; a pooler such as PgBouncer cannot pass one on",
            "let LITELLM_DATABASE_URL lead to Postgres itself; the role needs REPLICATION and a line in pg_hba.conf \
             (`litellm-webui-sync setup --print-sql source`)",
        ),
    }
}

/// Only a slot that is yet to be made waits for them.
async fn long_transactions(source: &Source, has_slot: bool) -> Result<Option<Check>> {
    let blockers = source.blockers().await?;
    Ok((!has_slot && !blockers.is_empty()).then(|| {
        finding(
            Verdict::Warning,
            "long transactions",
            blockers.join(", "),
            "a slot can only be made once every transaction that runs now has ended",
            "end them, or wait",
        )
        .naming()
    }))
}
