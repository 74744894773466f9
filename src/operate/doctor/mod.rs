//! `doctor`: everything that could keep the daemon from its work, all at once, with the exact fix.
//!
//! Reads catalogs and our own books; writes nothing anywhere. A check that cannot be made because an earlier one
//! failed is left out: the earlier one says what to do first. Judging is pure, reading is one query a side.

pub mod bridge;

use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Serialize;

use crate::catalog::TABLES;
use crate::config::Config;
use crate::config::policy::ApiKeys;
use crate::error::{Error, Result, Side, on};
use crate::observe::status;
use crate::position::Lsn;
use crate::postgres::{error_chain, quote_ident};
use crate::source::Source;
use crate::source::session::Session;
use crate::sql;
use crate::target::Target;
use crate::target::layout;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Fine,
    /// Works, but somebody should know.
    Warning,
    /// Keeps the daemon from its work, or will.
    Problem,
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub found: String,
    /// Why it matters; empty where all is fine.
    pub why: String,
    /// What to do, as exactly as we know; empty where all is fine.
    pub fix: String,
}

fn fine(name: &'static str, found: impl Into<String>) -> Check {
    Check { name, verdict: Verdict::Fine, found: found.into(), why: String::new(), fix: String::new() }
}

fn finding(
    verdict: Verdict,
    name: &'static str,
    found: impl Into<String>,
    why: &str,
    fix: impl Into<String>,
) -> Check {
    Check { name, verdict, found: found.into(), why: why.to_owned(), fix: fix.into() }
}

fn failed(name: &'static str, error: &Error) -> Check {
    let fix = error.remedy().unwrap_or_else(|| "see the message".to_owned());
    finding(Verdict::Problem, name, error_chain(error), "nothing works without it", fix)
}

/// Makes every check.
pub async fn examine(config: &Config) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Err(error) = source(config, &mut checks).await {
        checks.push(failed("LiteLLM's database", &error));
    }
    if let Err(error) = target(config, &mut checks).await {
        checks.push(failed("Open WebUI's database", &error));
    }
    checks
}

/// What the source's catalogs say.
#[derive(Debug, Clone)]
struct SourceFacts {
    version: i32,
    wal_level: String,
    slots: (i64, i64),
    senders: (i64, i64),
    /// Megabytes; below 0 is no limit.
    keep_mb: Option<i64>,
    wal_per_hour: Option<i64>,
    may_replicate: bool,
    tls: bool,
    local: bool,
    /// Seconds by which its clock is ahead of ours.
    clock_ahead: f64,
    standby: bool,
    has_standby: bool,
    synchronized_standby_slots: Option<String>,
    failover: Option<bool>,
    wal_status: Option<String>,
}

async fn source(config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let source = Source::open(config).await?;
    let client = &source.connection.client;
    let row = client.query_one(sql::DOCTOR_SOURCE, &[&config.slot]).await;
    let row = row.map_err(on(Side::Source, "examine the server"))?;
    let facts = SourceFacts {
        version: row.get("version"),
        wal_level: row.get("wal_level"),
        slots: (row.get("slots"), row.get("slots_used")),
        senders: (row.get("senders"), row.get("senders_used")),
        keep_mb: row.get("keep_mb"),
        wal_per_hour: row.get("wal_per_hour"),
        may_replicate: row.get::<_, Option<bool>>("may_replicate").unwrap_or_default(),
        tls: row.get("tls"),
        local: row.get("local"),
        clock_ahead: row.get::<_, f64>("clock") - seconds_now(),
        standby: row.get("standby"),
        has_standby: row.get("has_standby"),
        synchronized_standby_slots: row.get("synchronized_standby_slots"),
        failover: row.get::<_, Option<String>>("failover").map(|text| text == "true"),
        wal_status: row.get("wal_status"),
    };
    checks.extend(judge_source(&facts, config));
    // By doing: privileges, pg_hba.conf and poolers all show here, and nowhere else for certain.
    let replication = async {
        let mut session =
            Session::open(config, &source.endpoint, "litellm-webui-sync doctor", Lsn::from(0)).await?;
        let identity = session.identify().await?;
        session.close().await;
        Ok::<_, Error>(identity.timeline)
    };
    checks.push(match replication.await {
        Ok(timeline) => fine("replication connection", format!("works (timeline {timeline})")),
        Err(error) => finding(
            Verdict::Problem,
            "replication connection",
            error_chain(&error),
            "the stream is a replication connection; a pooler such as PgBouncer cannot pass one on",
            "let LITELLM_DATABASE_URL lead to Postgres itself; the role needs REPLICATION and a line in pg_hba.conf \
             (`litellm-webui-sync setup --print-sql source`)",
        ),
    });
    source_tables(&source, config, checks).await?;
    checks.extend(bridge::judge(&bridge::find(&source, config).await?));
    checks.extend(shared_emails(&source, config).await?);
    let blockers = source.blockers().await;
    if source.slot(&config.slot).await?.is_none() && blockers.contains("open for") {
        checks.push(finding(
            Verdict::Warning,
            "long transactions",
            blockers,
            "a slot can only be made once every transaction that runs now has ended",
            "end them, or wait",
        ));
    }
    Ok(())
}

fn judge_source(facts: &SourceFacts, config: &Config) -> Vec<Check> {
    let mut checks = vec![version("LiteLLM's server", facts.version)];
    if facts.standby {
        checks.push(finding(
            Verdict::Problem,
            "LiteLLM's server is a standby",
            "in recovery",
            "slots of a standby vanish with a promotion, and we follow primaries only",
            "let LITELLM_DATABASE_URL lead to the primary",
        ));
    }
    checks.push(match facts.wal_level.as_str() {
        "logical" => fine("wal_level", "logical"),
        other => finding(
            Verdict::Problem,
            "wal_level",
            other,
            "without it there is no stream of changes",
            "on LiteLLM's server: alter system set wal_level = 'logical'; then restart it",
        ),
    });
    for (name, setting, (limit, used)) in [
        ("free replication slots", "max_replication_slots", facts.slots),
        ("free WAL senders", "max_wal_senders", facts.senders),
    ] {
        // A copy takes a second one for a moment.
        checks.push(match limit - used {
            free if free >= 2 => fine(name, format!("{free} of {limit}")),
            free => finding(
                if free < 1 { Verdict::Problem } else { Verdict::Warning },
                name,
                format!("{free} of {limit}"),
                "the stream needs one of each, and copying afresh another one",
                format!("on LiteLLM's server: alter system set {setting} = {}; then restart it", limit + 10),
            ),
        });
    }
    checks.push(match facts.keep_mb {
        Some(megabytes) if megabytes >= 0 => {
            let hours = facts.wal_per_hour.filter(|rate| *rate > 0).map(|rate| megabytes * 1_048_576 / rate);
            let lasts =
                hours.map(|hours| format!(", about {hours} h of WAL at the usual rate")).unwrap_or_default();
            let found = format!("{megabytes} MB{lasts}");
            if hours.is_some_and(|hours| hours < 4) {
                finding(
                    Verdict::Warning,
                    "max_slot_wal_keep_size",
                    found,
                    "a daemon that is down longer than that has to copy everything afresh",
                    format!(
                        "on LiteLLM's server: alter system set max_slot_wal_keep_size = '{}MB'",
                        megabytes * 4
                    ),
                )
            } else {
                fine("max_slot_wal_keep_size", found)
            }
        }
        _ => finding(
            Verdict::Problem,
            "max_slot_wal_keep_size",
            "no limit",
            "while no daemon runs, the slot keeps WAL until LiteLLM's disk is full",
            "on LiteLLM's server: alter system set max_slot_wal_keep_size = '16GB'; select pg_reload_conf();",
        ),
    });
    if !facts.may_replicate {
        checks.push(finding(
            Verdict::Problem,
            "REPLICATION",
            format!("role {} lacks it", config.source.user),
            "the stream needs it",
            format!("as a superuser: alter role {} replication", quote_ident(&config.source.user)),
        ));
    }
    if let Some(status @ ("lost" | "unreserved")) = facts.wal_status.as_deref() {
        checks.push(finding(
            Verdict::Problem,
            "slot",
            format!("wal_status is {status}"),
            "WAL that the stream needs is gone or about to go",
            "start the daemon: it catches up, or copies afresh",
        ));
    }
    checks.extend(tls("LiteLLM's connection", facts.tls, facts.local));
    checks.extend(clock("LiteLLM's clock", facts.clock_ahead));
    if facts.version >= 170_000
        && facts.has_standby
        && facts.failover != Some(true)
        && facts.wal_status.is_some()
    {
        checks.push(finding(
            Verdict::Warning,
            "failover slot",
            "the slot is not synchronized to a standby",
            "after a failover everything is copied afresh",
            "teardown and run on 17 or newer make the slot with FAILOVER",
        ));
    }
    if facts.failover == Some(true)
        && facts.has_standby
        && facts.synchronized_standby_slots.as_deref().is_none_or(str::is_empty)
    {
        checks.push(finding(
            Verdict::Warning,
            "synchronized_standby_slots",
            "empty",
            "we may be told changes that a promoted standby never had, and then copy everything afresh",
            "on LiteLLM's server: set synchronized_standby_slots to the standby's slot, and sync_replication_slots = on there",
        ));
    }
    checks
}

async fn source_tables(source: &Source, config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let tables = source.tables(config).await?;
    let publication = source.publication(config).await?;
    checks.push(match Source::publication_repair(config, publication.as_ref(), &tables) {
        Ok(None) => {
            fine("publication", format!("{} tables", publication.map_or(0, |found| found.tables.len())))
        }
        Ok(Some(_)) if publication.is_none() => fine("publication", "not there yet: `run` makes it"),
        Ok(Some(repair)) => finding(
            Verdict::Warning,
            "publication",
            repair.problem,
            "what is not published as a whole never arrives, and column lists and row filters make LiteLLM's own writes \
             fail; `run` mends what it owns, and copies afresh",
            repair.sql,
        ),
        Err(error) => failed("publication", &error),
    });
    let names: Vec<&str> = TABLES.iter().map(|table| table.source).collect();
    let client = &source.connection.client;
    let rows = client.query(sql::DOCTOR_SOURCE_TABLES, &[&config.litellm_schema, &names]).await;
    let (mut unreadable, mut without_identity) = (Vec::new(), Vec::new());
    for row in rows.map_err(on(Side::Source, "examine LiteLLM's tables"))? {
        let name: String = row.get("table_name");
        if !row.get::<_, bool>("readable") {
            unreadable.push(name.clone());
        }
        if row.get::<_, String>("identity") == "n" {
            without_identity.push(name);
        }
    }
    if !unreadable.is_empty() {
        checks.push(finding(
            Verdict::Problem,
            "SELECT on LiteLLM's tables",
            format!("not on {}", unreadable.join(", ")),
            "existing rows cannot be copied",
            "`litellm-webui-sync setup --print-sql source` prints the grants",
        ));
    }
    for name in without_identity {
        checks.push(finding(
            Verdict::Problem,
            "replica identity",
            format!("{name} has none"),
            "LiteLLM's updates and deletes of a published table fail without one",
            format!("alter table {}.\"{name}\" replica identity default", config.litellm_schema),
        ));
    }
    Ok(())
}

/// Before a first copy; after it, our books say who lost out.
async fn shared_emails(source: &Source, config: &Config) -> Result<Option<Check>> {
    if source.slot(&config.slot).await?.is_some() {
        return Ok(None);
    }
    let table = format!("{}.\"LiteLLM_UserTable\"", quote_ident(&config.litellm_schema));
    let text = sql::fill(sql::DOCTOR_SHARED_EMAILS, ":user_table", &table);
    // Without a right to the table, another finding says so.
    let Ok(row) = source.connection.client.query_one(&text, &[]).await else { return Ok(None) };
    let people: i64 = row.get("people");
    Ok((people > 0).then(|| {
        finding(
            Verdict::Warning,
            "people who share an e-mail",
            format!("{people} LiteLLM users"),
            "only one of those with the same e-mail can have its account: the oldest",
            "`litellm-webui-sync plan` names the others; give each person an e-mail of their own in LiteLLM",
        )
    }))
}

async fn target(config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let target = Target::open(config).await?;
    let row = target.client().query_one(sql::DOCTOR_TARGET, &[&config.webui_schema]).await;
    let row = row.map_err(on(Side::Target, "examine the server"))?;
    checks.push(version("Open WebUI's server", row.get("version")));
    checks.extend(tls("Open WebUI's connection", row.get("tls"), row.get("local")));
    checks.extend(clock("Open WebUI's clock", row.get::<_, f64>("clock") - seconds_now()));
    if row.get::<_, bool>("standby") {
        checks.push(finding(
            Verdict::Problem,
            "Open WebUI's server is a standby",
            "in recovery",
            "nothing can be written there",
            "let WEBUI_DATABASE_URL lead to the primary",
        ));
    }
    if !row.get::<_, bool>("settings_kept") {
        checks.push(finding(
            Verdict::Problem,
            "Open WebUI's connection",
            "the settings we asked for are not there",
            "a pooler such as PgBouncer is in between: our lease, our settings and our temporary tables belong to a session",
            "let WEBUI_DATABASE_URL lead to Postgres itself",
        ));
    }
    let lacking: Option<Vec<String>> = row.get("lacking");
    let mut lacking = lacking.unwrap_or_default();
    if !row.get::<_, bool>("temporary") {
        lacking.push("temporary on the database".to_owned());
    }
    checks.push(if lacking.is_empty() {
        fine("privileges in Open WebUI's database", "all there")
    } else {
        finding(
            Verdict::Problem,
            "privileges in Open WebUI's database",
            format!("without {}", lacking.join(", ")),
            "rows could not be written",
            "`litellm-webui-sync setup --print-sql target` prints the grants",
        )
    });
    checks.push(match layout::find(&target, config).await {
        Ok(found) => fine("Open WebUI's tables", found.describe()),
        Err(error) => failed("Open WebUI's tables", &error),
    });
    // Where they cannot be read, another finding says so.
    if let Ok(row) = target.client().query_one(sql::DOCTOR_ADMINS, &[]).await {
        checks.push(admins(row.get("admins")));
    }
    if config.policy.api_keys == ApiKeys::Mint
        // Without a right to its settings we cannot tell, and need not.
        && let Ok(row) = target.client().query_one(sql::DOCTOR_API_KEYS, &[]).await
    {
        checks.extend(api_keys(row.get("enabled"), row.get("permitted"), row.get("by_group")));
    }
    let row = target.client().query_one(sql::DOCTOR_HAS_BOOKS, &[&config.schema]).await;
    let has_books = row.map_err(on(Side::Target, "look for our schema"))?.get(0);
    checks.extend(bridge::target(&target, config, has_books).await?);
    if !has_books {
        checks.push(fine("our schema", "not there yet: `run` makes it"));
        return Ok(());
    }
    books(&target, config, checks).await
}

fn admins(count: i64) -> Check {
    let name = "Open WebUI's admins";
    if count > 0 {
        return fine(name, format!("{count} can sign in; the last one is never taken away"));
    }
    finding(
        Verdict::Warning,
        name,
        "none can sign in",
        "Open WebUI makes its first account the admin, so nothing is written before; later, nobody could administer it",
        "sign up in Open WebUI, or make somebody an admin there",
    )
}

/// What Open WebUI's own switches do to the keys we mint. `None`: its environment decides, which we cannot see.
fn api_keys(enabled: Option<&str>, permitted: Option<&str>, by_group: bool) -> Option<Check> {
    let name = "Open WebUI's API keys";
    let why = "it refuses the personal API keys we make; with api_keys = \"off\" in the policy none are made";
    match (enabled, permitted) {
        (Some("false"), _) => Some(finding(
            Verdict::Warning,
            name,
            "switched off (auth.enable_api_keys)",
            why,
            "in Open WebUI: Admin Panel, Settings, General, Enable API Keys",
        )),
        (_, Some("false")) if !by_group => Some(finding(
            Verdict::Warning,
            name,
            "nobody but admins may use them (features.api_keys)",
            why,
            "in Open WebUI: Admin Panel, Users, Groups, default permissions or those of a group, API Keys",
        )),
        (Some(_), _) => Some(fine(name, "switched on")),
        _ => None,
    }
}

/// What our own tables say.
async fn books(target: &Target, config: &Config, checks: &mut Vec<Check>) -> Result<()> {
    let row = target.client().query_one(sql::DOCTOR_BOOKS, &[]).await;
    let row = row.map_err(on(Side::Target, "read our books"))?;
    let count = |name: &str| row.get::<_, i64>(name);
    // Books of an older release have no models yet.
    if let Ok(layout) = layout::find(target, config).await
        && let Ok(models) = status::models(target, &layout).await
        && !models.public.is_empty()
    {
        checks.push(finding(
            Verdict::Warning,
            "public models",
            models.public.join(", "),
            "everybody sees them in Open WebUI although LiteLLM limits them",
            "in Open WebUI: Admin Panel, Settings, Models, Access; or models.public = \"take\" in the policy",
        ));
    }
    if count("critical") > 0 {
        checks.push(finding(
            Verdict::Problem,
            "critical dead letters",
            count("critical").to_string(),
            "somebody keeps more access than LiteLLM gives them",
            "`litellm-webui-sync failures list`",
        ));
    }
    if count("last_admins") > 0 {
        checks.push(finding(
            Verdict::Problem,
            "last admin",
            "LiteLLM no longer has Open WebUI's last active admin as one",
            "it was kept, because nobody could administer Open WebUI any more",
            "make somebody else an admin, in LiteLLM (proxy_admin) or in Open WebUI",
        ));
    }
    if count("email_conflicts") > 0 {
        checks.push(finding(
            Verdict::Warning,
            "e-mail conflicts",
            format!("{} people", count("email_conflicts")),
            "they have no account, or keep an old e-mail, because somebody else has theirs",
            "`litellm-webui-sync failures list`; give each person an e-mail of their own in LiteLLM",
        ));
    }
    if count("brakes") > 0 {
        checks.push(finding(
            Verdict::Problem,
            "brake",
            "a batch is held",
            "it would take access from unusually many people",
            "`litellm-webui-sync status` names it",
        ));
    }
    if row.get::<_, bool>("paused") {
        let reason: Option<String> = row.get("pause_reason");
        checks.push(finding(
            Verdict::Warning,
            "pause",
            reason.unwrap_or_else(|| "no reason given".to_owned()),
            "nothing is applied",
            "`litellm-webui-sync resume`",
        ));
    }
    let others = count("dead_letters") - count("email_conflicts") - count("last_admins");
    checks.push(if others > 0 {
        finding(
            Verdict::Warning,
            "dead letters",
            others.to_string(),
            "these entities are not what LiteLLM says",
            "`litellm-webui-sync failures list`",
        )
    } else {
        fine("dead letters", "none but what is said above")
    });
    Ok(())
}

fn version(name: &'static str, number: i32) -> Check {
    let text = format!("PostgreSQL {}", number / 10_000);
    if (150_000..190_000).contains(&number) {
        return fine(name, text);
    }
    finding(Verdict::Warning, name, text, "only 15 to 18 are tested", "use one of these")
}

fn tls(name: &'static str, on: bool, local: bool) -> Option<Check> {
    if on || local {
        return None;
    }
    Some(finding(
        Verdict::Warning,
        name,
        "not encrypted, and not on this machine",
        "people's names and e-mails cross the network in the clear",
        "add sslmode=verify-full and sslrootcert=… to its URL",
    ))
}

fn clock(name: &'static str, ahead: f64) -> Option<Check> {
    // Less than this is the time the question took.
    if ahead.abs() < 5.0 {
        return None;
    }
    Some(finding(
        Verdict::Warning,
        name,
        format!("{ahead:+.0} s against this machine's"),
        "keys expire by this machine's clock, and the lag in seconds is wrong",
        "synchronize the clocks (NTP)",
    ))
}

fn seconds_now() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map(|since| since.as_secs_f64())
        .unwrap_or_default()
}

/// For people: what is fine in a line each, findings with why and what to do.
pub fn table(checks: &[Check]) -> String {
    let mut out = String::new();
    for Check { name, verdict, found, why, fix } in checks {
        let mark = match verdict {
            Verdict::Fine => "ok      ",
            Verdict::Warning => "warning ",
            Verdict::Problem => "PROBLEM ",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{mark} {name}: {found}");
        if *verdict != Verdict::Fine {
            let _ = writeln!(out, "           why: {why}\n           fix: {fix}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_and_connections_are_judged_by_what_matters() {
        assert_eq!(clock("c", 0.4), None);
        assert!(clock("c", -30.0).is_some());
        assert_eq!(tls("t", false, true), None);
        assert!(tls("t", false, false).is_some());
        assert_eq!(api_keys(None, None, false), None);
        assert!(api_keys(Some("false"), Some("true"), true).unwrap().found.contains("auth.enable_api_keys"));
        assert!(api_keys(Some("true"), Some("false"), false).unwrap().found.contains("features.api_keys"));
        assert_eq!(api_keys(Some("true"), Some("false"), true).unwrap().verdict, Verdict::Fine);
        assert_eq!(admins(1).verdict, Verdict::Fine);
        assert!(admins(0).fix.contains("sign up"));
        assert_eq!(version("v", 150_018).verdict, Verdict::Fine);
        assert_eq!(version("v", 130_000).verdict, Verdict::Warning);
    }
}
