//! Dead letters, once written: counted, due for a retry, and for an operator to look at and forget (`failures`).
//!
//! Reads and marks the table `dead_letter`; never writes an Open WebUI row. A retry is the daemon's: it projects the
//! entity again, from the newest state in the mirror. Nothing is queued, so discarding loses nothing but the note. What
//! a letter may be about is in [`super::dead_letter`].

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Result, Side, on};
use crate::sql;
use crate::target::dead_letter::Kind;
use crate::target::{QUICK, Target};

/// One entity that could not be written.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Failure {
    /// `account`, `team`, `organization`, …
    pub kind: String,
    /// LiteLLM's id.
    pub key: String,
    pub operation: String,
    pub sqlstate: Option<String>,
    pub reason: String,
    /// Somebody keeps more access than LiteLLM gives them.
    pub critical: bool,
    pub attempts: i32,
    pub first_seen: String,
    pub last_seen: String,
}

/// One line of what happened to an entity.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    pub at: String,
    pub operation: String,
    pub result: String,
    pub error: Option<String>,
    pub lsn: Option<String>,
}

/// Why something cannot be written, in a word; `None` is a clash that we saw before the database did.
pub fn class(sqlstate: Option<&str>) -> &'static str {
    match sqlstate.and_then(|code| code.get(..2)) {
        None => "conflict",
        Some("23" | "44") => "constraint",
        Some("22") => "data",
        Some("54") => "limit",
        Some("42") => "permission",
        Some(_) => "other",
    }
}

/// Dead letters, the critical ones first: all of them, or at most `limit`.
pub async fn list(target: &Target, limit: Option<i64>) -> Result<Vec<Failure>> {
    let statement = target.prepare(sql::FAILURES_LIST, &[]).await?;
    let rows = target.query("list dead letters", QUICK, &statement, &[&limit]).await?;
    Ok(rows
        .iter()
        .map(|row| Failure {
            kind: row.get("kind"),
            key: row.get("key"),
            operation: row.get("operation"),
            sqlstate: row.get("sqlstate"),
            reason: row.get("reason"),
            critical: row.get("critical"),
            attempts: row.get("attempts"),
            first_seen: row.get("first_seen"),
            last_seen: row.get("last_seen"),
        })
        .collect())
}

impl Failure {
    /// Whether `key` is a LiteLLM user, or may be one.
    pub fn is_about_a_person(&self) -> bool {
        Kind::from_name(&self.kind).is_none_or(Kind::is_about_a_person)
    }

    /// What an operator can do about it.
    pub fn remedy(&self) -> &'static str {
        match (Kind::from_name(&self.kind), self.sqlstate.as_deref()) {
            (Some(Kind::LastAdmin), _) => {
                "Give somebody else the admin role in LiteLLM or Open WebUI; then this one is taken back by itself."
            }
            (Some(Kind::Account), None) => {
                "Two people claim one e-mail address or account. Change or remove one of them, in LiteLLM or in \
                 Open WebUI; the rest follows by itself."
            }
            (_, None) => {
                "Look at the reason, mend it in LiteLLM or Open WebUI, and it is tried again by itself."
            }
            (_, Some("42501")) => {
                "A permission is missing in Open WebUI's database: `litellm-webui-sync setup --print-sql target` lists \
                 what is needed."
            }
            (_, Some(code)) if code.starts_with("23") => {
                "Open WebUI's database refuses the row. Mend the value in LiteLLM, or the constraint in Open WebUI's \
                 database; then `litellm-webui-sync failures retry --all`."
            }
            (_, Some(code)) if code.starts_with("22") => {
                "Open WebUI's database cannot hold a value. Shorten or correct it in LiteLLM; it is tried again then."
            }
            (_, Some(code)) if code.starts_with("P0") => {
                "A trigger in Open WebUI's database refuses the row: look at what it asks for."
            }
            (_, Some(_)) => {
                "Look at Open WebUI's database server's log; then `litellm-webui-sync failures retry --all`."
            }
        }
    }
}

/// What is due for a retry: the less often the longer it fails.
#[derive(Debug, Default)]
pub struct Due {
    /// Kind and key.
    pub letters: Vec<(Kind, String)>,
    /// The kinds of others that nobody here knows how to try.
    pub unknown: Vec<String>,
}

pub async fn due(target: &Target) -> Result<Due> {
    let known: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
    let rows = target.client().query(sql::DEAD_LETTERS_DUE, &[&known]).await;
    let mut due = Due::default();
    for row in rows.map_err(on(Side::Target, "list dead letters"))? {
        let name: &str = row.get("kind");
        match Kind::from_name(name) {
            Some(kind) => due.letters.push((kind, row.get("key"))),
            None => due.unknown.push(name.to_owned()),
        }
    }
    Ok(due)
}

/// How many people a used-up budget takes models from, where one is used up.
pub async fn budget_closed_people(target: &Target) -> Result<i64> {
    let row = target.client().query_one(sql::BUDGET_CLOSED_PEOPLE, &[]).await;
    Ok(row.map_err(on(Side::Target, "count whom used-up budgets concern"))?.get(0))
}

/// The counts that gauges show.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub letters: i64,
    pub critical: i64,
    /// People who get no account.
    pub skipped: i64,
    pub active_accounts: i64,
    /// Whom a used-up budget takes models from.
    pub budget_closed: i64,
}

pub async fn count(target: &Target) -> Result<Counts> {
    let row = target.client().query_one(sql::COUNTS, &[]).await;
    let row = row.map_err(on(Side::Target, "count dead letters"))?;
    let budget_closed = if row.get(4) { budget_closed_people(target).await? } else { 0 };
    Ok(Counts {
        letters: row.get(0),
        critical: row.get(1),
        skipped: row.get(2),
        active_accounts: row.get(3),
        budget_closed,
    })
}

/// How many dead letters there are by kind and [`class`]. A kind that we do not know is `unknown`: the labels of a gauge
/// are a list that ends.
pub async fn by_class(target: &Target) -> Result<Vec<([String; 2], i64)>> {
    let rows = target.client().query(sql::DEAD_LETTER_CLASSES, &[]).await;
    let rows = rows.map_err(on(Side::Target, "count dead letters"))?;
    let mut classes: BTreeMap<[String; 2], i64> = BTreeMap::new();
    for row in &rows {
        let kind = Kind::from_name(row.get("kind")).map_or("unknown", Kind::name);
        let class = class(row.get("sqlstate"));
        *classes.entry([kind, class].map(str::to_owned)).or_default() += row.get::<_, i64>("count");
    }
    Ok(classes.into_iter().collect())
}

/// How many people get no account, by reason. Reads the whole table.
pub async fn skipped_by_reason(target: &Target) -> Result<Vec<([String; 1], i64)>> {
    let rows = target.client().query(sql::SKIPPED_REASONS, &[]).await;
    let rows = rows.map_err(on(Side::Target, "count skipped people"))?;
    Ok(rows.iter().map(|row| ([row.get("reason")], row.get("count"))).collect())
}

/// What happened to the entity `key` lately, newest first.
pub async fn history(target: &Target, key: &str) -> Result<Vec<Event>> {
    let rows = target.client().query(sql::FAILURES_HISTORY, &[&key]).await;
    let rows = rows.map_err(on(Side::Target, "read the audit"))?;
    Ok(rows
        .iter()
        .map(|row| Event {
            at: row.get("at"),
            operation: row.get("operation"),
            result: row.get("sync_result"),
            error: row.get("error_message"),
            lsn: row.get("lsn"),
        })
        .collect())
}

/// Has the daemon try again now: one entity, or all of them. Gives how many.
pub async fn retry(target: &Target, which: Option<(&str, &str)>) -> Result<i64> {
    let (kind, key) = which.unzip();
    let row = target.client().query_one(sql::FAILURES_RETRY, &[&kind, &key]).await;
    Ok(row.map_err(on(Side::Target, "retry dead letters"))?.get(0))
}

/// Forgets a note. It comes back if the entity is touched and still cannot be written. Gives how many there were.
pub async fn discard(target: &Target, kind: &str, key: &str) -> Result<i64> {
    let row = target.client().query_one(sql::FAILURES_DISCARD, &[&kind, &key]).await;
    Ok(row.map_err(on(Side::Target, "discard a dead letter"))?.get(0))
}

/// A line for each, for people.
pub fn table(failures: &[Failure]) -> String {
    let mut out = String::new();
    for failure in failures {
        let Failure { kind, key, reason, attempts, last_seen, critical, .. } = failure;
        let critical = if *critical { "CRITICAL " } else { "" };
        let line = format!("{kind} {key}  {critical}{reason}  ({attempts} attempts, last {last_seen})");
        // An id may hold anything, and must do nothing to the terminal.
        out.extend(line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        out.push('\n');
    }
    out
}
