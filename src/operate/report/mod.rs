//! `report`: what somebody else needs to know to help, in one file that may be shown to them.
//!
//! Owns what is in it, and that each part is there as far as its database answers: a part that cannot be had says why. Reads
//! both databases; changes nothing, and takes no lock that anybody waits for. What must not be read by strangers is
//! `veil`'s; how it looks as text is in `lines`.

mod lines;
mod veil;

use std::time::{Duration, SystemTime};

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Value, json};
use tokio_postgres::types::ToSql;

use crate::config::url::{Endpoint, Host};
use crate::config::{Config, Policy};
use crate::error::{Error, Result, Side, on};
use crate::observe::status;
use crate::operate::doctor;
use crate::postgres::{Limited, error_chain, quote_ident};
use crate::source::Source;
use crate::sql;
use crate::target::{Target, layout, pause, schema};
use veil::Veil;

/// How long one part may take: what answers nothing is left out.
const PATIENCE: Duration = Duration::from_secs(60);
const ACTION: &str = "collect the report";

/// Parts in the order in which they are read.
#[derive(Debug)]
pub struct Report {
    parts: Vec<(&'static str, Value)>,
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.parts.len()))?;
        for (name, part) in &self.parts {
            map.serialize_entry(name, part)?;
        }
        map.end()
    }
}

/// Collects it. `names`: people, places and models may be read in it. Secrets never.
pub async fn collect(config: &Config, names: bool) -> Report {
    let mut veil = Veil::new(config, names);
    let (status, checks, source, target) = tokio::join!(
        part(status(config)),
        part(async { Ok(checks(config, names).await) }),
        part(of_source(config)),
        part(of_target(config)),
    );
    let (mut source, mut target) = (source, target);
    veil.know([&mut source, &mut target].into_iter().flat_map(take_identifiers));
    let parts = [
        ("report", about(names)),
        ("settings", settings(config)),
        ("policy", policy(&config.policy)),
        ("status", status),
        ("doctor", checks),
        ("LiteLLM", source),
        ("Open WebUI", target),
    ];
    let parts = parts.map(|(name, part)| (name, veil.value(without_people(part, &veil)))).into();
    Report { parts }
}

/// What came of it, or why nothing did.
async fn part(work: impl Future<Output = Result<Value>>) -> Value {
    // Boxed: `status` and `doctor` are large.
    match tokio::time::timeout(PATIENCE, Box::pin(work)).await {
        Ok(Ok(part)) => part,
        Ok(Err(error)) => failed(&error),
        Err(_) => json!({ "failed": format!("no answer within {} s", PATIENCE.as_secs()) }),
    }
}

fn failed(error: &Error) -> Value {
    json!({ "failed": error_chain(error) })
}

/// One fact of a part, where another may be missing.
fn fact<T: Into<Value>>(asked: Result<T>) -> Value {
    asked.map_or_else(|error| failed(&error), Into::into)
}

fn about(names: bool) -> Value {
    let made_at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    json!({
        "made_at": made_at,
        "names": if names { "shown: people, hosts, roles and models" } else { "left out" },
        "version": env!("CARGO_PKG_VERSION"),
        "rules": &schema::views_digest()[..12],
        "platform": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Which settings are not what they are by default. Names and places are said as such only.
fn settings(config: &Config) -> Value {
    let own = |name: &str, default: &str| if name == default { "default" } else { "changed" };
    let http = match config.http {
        None => "off",
        Some(address) if address.ip().is_loopback() => "on this machine",
        Some(_) => "on the network",
    };
    json!({
        "LiteLLM's URL": endpoint(&config.source),
        "Open WebUI's URL": endpoint(&config.target),
        "one server": config.source.addresses == config.target.addresses,
        "slot": own(&config.slot, "litellm_webui_sync"),
        "publication": own(&config.publication, "litellm_webui_sync"),
        "schema": own(&config.schema, "litellm_webui_sync"),
        "litellm_schema": own(&config.litellm_schema, "public"),
        "webui_schema": own(&config.webui_schema, "public"),
        "http": http,
        "http_token": config.http_token.is_some(),
        "models_api": config.models_api.as_ref().map(|api| api.url.scheme_str()),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let sockets = endpoint.addresses.iter().filter(|address| matches!(address.host, Host::Socket(_))).count();
    json!({
        "hosts": endpoint.addresses.len(),
        "sockets": sockets,
        "password": !endpoint.password.is_empty(),
        "session": format!("{:?}", endpoint.session),
        "tls": format!("{:?}", endpoint.tls.mode),
        "root_cert": endpoint.tls.root_cert.is_some(),
        "client_cert": endpoint.tls.client_cert.is_some(),
        "options": !endpoint.options.is_empty(),
        "connect_timeout_seconds": endpoint.connect_timeout.as_secs(),
    })
}

/// What differs from the defaults. Of names, how many there are.
fn policy(policy: &Policy) -> Value {
    let shown = |key: &str, value: toml::Value| -> Value {
        match (key, value) {
            ("models.prefix", _) => "set".into(),
            (_, toml::Value::Array(list)) => format!("{} names", list.len()).into(),
            (_, toml::Value::String(word)) => word.into(),
            (_, other) => other.to_string().into(),
        }
    };
    let differences = policy.differences();
    differences.into_iter().map(|(key, value)| (key.clone(), shown(&key, value))).collect()
}

async fn status(config: &Config) -> Result<Value> {
    let report = status::report(config).await?;
    Ok(serde_json::to_value(report).unwrap_or_default())
}

/// What is wrong is said, and not how to mend it: whoever reads this knows, and the SQL would name things.
async fn checks(config: &Config, names: bool) -> Value {
    let checks = doctor::examine(config).await;
    let line = |check: &doctor::Check| {
        let found = if check.names && !names { "left out: it holds names" } else { &check.found };
        json!({ "verdict": check.verdict, "name": check.name, "found": found })
    };
    checks.iter().map(line).collect()
}

/// Rows as JSON.
async fn ask(
    client: &Limited<'_>,
    side: Side,
    text: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Value> {
    let text = format!("select coalesce(jsonb_agg(to_jsonb(answer)), '[]') from (\n{text}\n) answer");
    let row = client.query_one(&text, parameters).await.map_err(on(side, ACTION))?;
    Ok(row.get(0))
}

async fn of_source(config: &Config) -> Result<Value> {
    let source = Source::open(config).await?;
    let client = source.client();
    let row = client.query_one(sql::REPORT_SOURCE, &[&config.litellm_schema]).await;
    let row = row.map_err(on(Side::Source, ACTION))?;
    let migrations = if row.get("has_migrations") {
        let text = format!(
            "select count(*) filter (where finished_at is not null) as finished,
                    count(*) filter (where finished_at is null and rolled_back_at is null) as unfinished,
                    (array_agg(migration_name order by finished_at desc nulls last))[1] as newest
               from {}._prisma_migrations",
            quote_ident(&config.litellm_schema)
        );
        fact(ask(&client, Side::Source, &text, &[]).await)
    } else {
        "not readable, or not there".into()
    };
    let tables = match source.tables(config).await {
        Ok(tables) => tables
            .into_iter()
            .map(|(name, table)| {
                let columns = table.columns.len();
                let fact = json!({ "rows": table.rows, "columns": columns, "published": table.published, "readable": table.readable });
                (name, fact)
            })
            .collect(),
        Err(error) => failed(&error),
    };
    let slot = match source.slot(&config.slot).await {
        Ok(Some(slot)) => json!({
            "active": slot.active,
            "wal_status": slot.wal_status,
            "invalidation_reason": slot.invalidation_reason,
            "confirmed_flush_lsn": slot.confirmed_flush_lsn.map(|lsn| lsn.to_string()),
            "restart_lsn": slot.restart_lsn.map(|lsn| lsn.to_string()),
            "wal_end": slot.wal_end.to_string(),
            "retained_bytes": slot.retained_bytes,
        }),
        Ok(None) => Value::Null,
        Err(error) => failed(&error),
    };
    let schemas = vec![config.litellm_schema.as_str()];
    Ok(json!({
        "postgres": row.get::<_, String>("version"),
        "migrations": migrations,
        "tables": tables,
        "slot": slot,
        IDENTIFIERS: fact(ask(&client, Side::Source, sql::REPORT_IDENTIFIERS, &[&schemas]).await),
    }))
}

async fn of_target(config: &Config) -> Result<Value> {
    let target = Target::open(config).await?;
    let client = target.slow();
    let row = client.query_one(sql::REPORT_TARGET, &[&config.schema, &config.webui_schema]).await;
    let row = row.map_err(on(Side::Target, ACTION))?;
    let migration = if row.get("has_migration") {
        let text = format!(
            "select version_num from {}.alembic_version order by 1",
            quote_ident(&config.webui_schema)
        );
        fact(ask(&client, Side::Target, &text, &[]).await)
    } else {
        "not readable, or not there".into()
    };
    let books = if row.get("has_books") { of_books(&target).await } else { "not there yet".into() };
    let schemas = vec![config.webui_schema.as_str(), config.schema.as_str()];
    Ok(json!({
        "postgres": row.get::<_, String>("version"),
        "migration": migration,
        "layout": fact(layout::find(&target, config).await.map(|layout| layout.describe())),
        "books": books,
        IDENTIFIERS: fact(ask(&client, Side::Target, sql::REPORT_IDENTIFIERS, &[&schemas]).await),
    }))
}

/// Our own schema: what it is, and what happened last. Each part by itself: an older schema lacks some.
async fn of_books(target: &Target) -> Value {
    let client = target.slow();
    let mut books = serde_json::Map::new();
    for (name, text) in [
        (
            "schema",
            "select max(version) as version, max(installed_at)::text as installed_at,
                    (select left(digest, 12) from installed_views) as rules from schema_version",
        ),
        ("checkpoint", sql::STATUS),
        (
            "daemon",
            "select state, reason, layout, extract(epoch from now() - heartbeat_at)::int as seconds_ago from daemon",
        ),
        ("dead_letters", sql::REPORT_LETTERS),
        ("audit_of_a_day", sql::REPORT_AUDIT),
        ("failed_last", sql::REPORT_FAILED),
        ("copies", sql::REPORT_COPIES),
        ("looks", sql::REPORT_LOOKS),
        ("brakes", sql::REPORT_BRAKES),
    ] {
        books.insert(name.to_owned(), fact(ask(&client, Side::Target, text, &[]).await));
    }
    // What somebody wrote there is theirs.
    let paused = match pause::check(target).await {
        Ok(()) => false.into(),
        Err(Error::Paused { .. }) => true.into(),
        Err(error) => failed(&error),
    };
    books.insert("paused".to_owned(), paused);
    books.into()
}

/// Where a part keeps the names that may be read; they are no part of the report.
const IDENTIFIERS: &str = "identifiers";

fn take_identifiers(part: &mut Value) -> Vec<String> {
    let list = part.as_object_mut().and_then(|part| part.remove(IDENTIFIERS)).unwrap_or_default();
    let rows = list.as_array().into_iter().flatten();
    rows.filter_map(|row| row["name"].as_str().map(str::to_owned)).collect()
}

/// What holds ids, names, addresses, or a sentence of an operator's, by the key it stands under: how many of them there are
/// stays. A reason is freed of what whoever raised it chose.
fn without_people(value: Value, veil: &Veil) -> Value {
    if veil.shows_names() {
        return value;
    }
    match value {
        Value::Array(list) => list.into_iter().map(|one| without_people(one, veil)).collect(),
        Value::Object(object) => object
            .into_iter()
            .filter_map(|(name, value)| {
                let kept = match (name.as_str(), value) {
                    ("record_id" | "client", _) => return None,
                    ("public" | "inheriting" | "keys", Value::Array(list)) => list.len().into(),
                    ("reason" | "error" | "what", Value::String(text)) => {
                        match text.split_once("paused since ") {
                            Some((before, _)) => format!("{before}paused").into(),
                            None => veil.reason(&text).into(),
                        }
                    }
                    (_, other) => without_people(other, veil),
                };
                Some((name, kept))
            })
            .collect(),
        other => other,
    }
}
