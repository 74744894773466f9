//! What the page shows, as one value: its JSON is `/api/status` (docs/status.schema.json).
//!
//! Owns which facts are shown, masked or not, and the words for what happened. A unit test keeps the schema file true to
//! these structs; their comments are its descriptions.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::mask;
use super::verdict::{Level, Now, judge};
use crate::catalog::TABLES;
use crate::config::policy::Names;
use crate::copy::register::{Copy, CopyKind};
use crate::observe::board::{Board, Budget, Facts};
use crate::observe::progress::{Progress, State};
use crate::observe::status::StatusReport;
use crate::target::audit::Entry;
use crate::target::failures::Failure;
use crate::target::layout::Layout;

/// The answer of `/api/status`. Moments are RFC 3339 in UTC. Fields may be added in a later release; none changes its meaning.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Report {
    /// When this was put together.
    pub at: String,
    pub health: Health,
    pub lag: Lag,
    /// As `litellm-webui-sync status --json`; null before this daemon has looked for the first time, as on a standby.
    pub status: Option<StatusReport>,
    /// How old the counts in `status` are.
    pub status_age_seconds: Option<f64>,
    /// What could not be written, critical ones first; at most 20.
    pub failures: Vec<FailureReport>,
    /// How many there are of them in all.
    pub failures_total: i64,
    /// What was done lately, newest first; at most 20.
    pub audit: Vec<Event>,
    /// The fullest budgets, fullest first; null where spending is not followed.
    pub budgets: Option<Vec<Budget>>,
    /// People whom a used-up budget takes models from; 0 unless access.budgets is "enforce".
    pub budget_closed_people: i64,
    /// The copy of LiteLLM's rows that runs now.
    pub copy: Option<CopyReport>,
    /// The last one that ended well since this process started.
    pub last_copy: Option<LastCopy>,
    pub versions: Versions,
    /// Whether people are masked (`http.names`).
    pub names_masked: bool,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    /// As `/readyz`: it does its work, is not far behind, and nobody has too much access.
    pub healthy: bool,
    pub level: Level,
    /// `streaming` is normal; `docs/src/operating/states/` has all.
    pub state: String,
    /// Since when it is in this state.
    pub since: String,
    /// A few words.
    pub headline: String,
    /// One or two sentences.
    pub why: String,
    /// What an operator can do; commands stand between backquotes.
    pub what_to_do: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Lag {
    /// For how long Open WebUI has lacked something; 0 when caught up, null before this process has led.
    pub seconds: Option<f64>,
    /// LiteLLM's WAL after the checkpoint; counts the whole server's.
    pub bytes: Option<u64>,
    /// The worst within the last hour.
    pub worst_seconds: Option<f64>,
    /// The worst of each of the last 60 minutes, oldest first; null for minutes before this process led.
    pub worst_by_minute: Vec<Option<f64>>,
    /// Since LiteLLM's server last said anything.
    pub last_message_seconds: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FailureReport {
    #[serde(flatten)]
    pub failure: Failure,
    pub what_to_do: String,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Event {
    pub at: String,
    /// As in table `sync_audit`.
    pub operation: String,
    /// The same in words.
    pub what: String,
    /// Whom or what it is about.
    pub who: String,
    /// `SUCCESS`, `FAILED` or `SKIPPED`.
    pub result: String,
    /// How many, or why not.
    pub detail: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CopyReport {
    pub kind: CopyKind,
    pub reason: String,
    pub phase: String,
    /// LiteLLM's table that is being copied.
    pub table: Option<String>,
    pub tables_done: usize,
    pub tables: usize,
    /// Copied so far.
    pub rows: u64,
    /// About how many there are; 0 where LiteLLM's server does not know.
    pub rows_expected: u64,
    pub seconds: f64,
    /// About how long it still takes; none while nothing can be said.
    pub seconds_left: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastCopy {
    pub kind: CopyKind,
    pub rows: u64,
    pub seconds: f64,
    pub at: String,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Versions {
    /// This program's.
    pub program: String,
    pub started_at: String,
    /// Postgres under LiteLLM and under Open WebUI.
    pub litellm_postgres: Option<String>,
    pub webui_postgres: Option<String>,
    /// How many of the tables we know LiteLLM has, and how many we know.
    pub litellm_tables: Option<usize>,
    pub litellm_tables_known: usize,
    /// The shape of Open WebUI's tables, which tells its age.
    pub webui_layout: Vec<Found>,
}

#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Found {
    pub what: String,
    pub found: String,
}

/// Puts everything together, as it is now.
pub fn report(board: &Board, progress: &Progress, names: Names, lag_limit: Duration) -> Report {
    let facts = board.facts();
    let status = progress.status();
    let lag = progress.lag();
    let copies = progress.copies.known();
    let copying = copies.running();
    let now = Now {
        status: &status,
        lag,
        lag_limit,
        critical: progress.critical(),
        standstill: progress.standstill(),
        copying,
    };
    let verdict = judge(&now, &facts);
    let masked = names == Names::Mask;
    let has_led = progress.has_led();
    let by_minute = board.lag_by_minute();
    let live = has_led.then_some(lag.as_secs_f64());
    let mut known = facts.status.clone();
    if let Some(known) = &mut known {
        status.state.name().clone_into(&mut known.state);
        known.reason.clone_from(&status.reason);
        known.lag_seconds = live;
        known.lag_bytes = has_led.then(|| i64::try_from(progress.lag_bytes()).unwrap_or(i64::MAX));
        known.slot.clone_from(&facts.slot);
        known.layout = facts.servers.layout.as_ref().map(Layout::describe);
        if status.state == State::Braked {
            known.brake = facts.trouble.as_ref().and_then(|trouble| trouble.brake.clone());
        }
    }
    Report {
        at: moment(SystemTime::now()),
        health: Health {
            healthy: progress.readiness(lag_limit).is_ok(),
            level: verdict.level,
            state: status.state.name().to_owned(),
            since: moment(status.since),
            headline: verdict.headline,
            why: verdict.why,
            what_to_do: verdict.what_to_do,
        },
        lag: Lag {
            seconds: live,
            bytes: has_led.then(|| progress.lag_bytes()),
            worst_seconds: by_minute
                .iter()
                .flatten()
                .copied()
                .reduce(f64::max)
                .map(|worst| worst.max(lag_now(live))),
            worst_by_minute: by_minute,
            last_message_seconds: has_led.then(|| progress.last_frame_age().as_secs_f64()),
        },
        failures_total: known
            .as_ref()
            .map_or(0, |known| known.dead_letters.iter().map(|one| one.count).sum()),
        status: known,
        status_age_seconds: facts.read_at.map(age),
        failures: facts.failures.iter().map(|failure| failure_report(failure, masked)).collect(),
        audit: facts.audit.iter().map(|entry| event(entry, masked)).collect(),
        budget_closed_people: facts.budget_closed,
        budgets: facts.budgets.as_ref().map(|all| all.iter().map(|one| budget(one, masked)).collect()),
        copy: copying.map(copy),
        last_copy: copies.last_good.as_ref().map(|copy| LastCopy {
            kind: copy.kind,
            rows: copy.rows,
            seconds: copy.took.as_secs_f64(),
            at: moment(copy.at),
        }),
        versions: versions(&facts, board.started),
        names_masked: masked,
    }
}

fn lag_now(live: Option<f64>) -> f64 {
    live.unwrap_or_default()
}

/// RFC 3339, in UTC, to the second.
fn moment(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

fn age(at: SystemTime) -> f64 {
    at.elapsed().unwrap_or_default().as_secs_f64()
}

fn failure_report(failure: &Failure, masked: bool) -> FailureReport {
    let mut shown = failure.clone();
    if masked {
        shown.key =
            if failure.is_about_a_person() { mask::id(&failure.key) } else { mask::sentence(&failure.key) };
        shown.reason = mask::sentence(&failure.reason);
    }
    FailureReport { what_to_do: failure.remedy().to_owned(), failure: shown }
}

/// The operations of `sync_audit` in words, and whether they are about a person.
const OPERATIONS: &[(&str, &str, bool)] = &[
    ("SYNC_USER", "account written", true),
    ("SYNC_PROFILE", "name and role written", true),
    ("DEACTIVATE_USER", "account locked", true),
    ("REACTIVATE_USER", "account active again", true),
    ("ADOPT_USER", "account adopted", true),
    ("RELINK_USER", "account linked again", true),
    ("SYNC_API_KEY", "API key made", true),
    ("DELETE_API_KEY", "API key removed", true),
    ("SYNC_MODELS", "models changed", true),
    ("SYNC_TEAM", "team written", false),
    ("DELETE_TEAM", "team removed", false),
    ("SYNC_TEAM_MEMBERS", "team members changed", false),
    ("SYNC_ORG", "organization written", false),
    ("DELETE_ORG", "organization removed", false),
    ("SYNC_ORG_MEMBERS", "organization members changed", false),
    ("SYNC_MEMBERS", "group members written", false),
    ("SYNC_MODEL", "model written", false),
    ("RETIRE_MODEL", "model retired", false),
    ("SYNC_ACCESS_GROUP", "access group written", false),
    ("DELETE_ACCESS_GROUP", "access group removed", false),
];

fn event(entry: &Entry, masked: bool) -> Event {
    let known = OPERATIONS.iter().find(|(operation, ..)| *operation == entry.operation);
    // What we do not know may be about a person.
    let person = known.is_none_or(|(.., person)| *person);
    let what = known.map_or_else(
        || entry.operation.to_lowercase().replace('_', " "),
        |(_, words, _)| (*words).to_owned(),
    );
    // Of models, the name is that of the set.
    let of_set = entry.operation == "SYNC_MODELS";
    let own_name = entry.name.as_deref().filter(|name| !of_set && !name.is_empty());
    let hide = |text: &str, how: fn(&str) -> String| if masked { how(text) } else { text.to_owned() };
    let who = if person {
        let name = own_name.map(|name| hide(name, mask::name));
        let email = entry.email.as_deref().map(|email| hide(email, mask::email));
        match (name, email) {
            (Some(name), Some(email)) => format!("{name}, {email}"),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => entry.record_id.as_deref().map(|id| hide(id, mask::id)).unwrap_or_default(),
        }
    } else {
        hide(own_name.or(entry.record_id.as_deref()).unwrap_or_default(), mask::sentence)
    };
    let mut details = Vec::new();
    if let Some(name) = entry.name.as_deref().filter(|_| of_set) {
        details.push(name.to_owned());
    }
    details.extend(entry.count.map(|count| format!("{count} at once")));
    details.extend(entry.added.filter(|count| *count > 0).map(|count| format!("{count} joined")));
    details.extend(entry.removed.filter(|count| *count > 0).map(|count| format!("{count} left")));
    details.extend(entry.error.as_deref().map(|error| hide(error, mask::sentence)));
    Event {
        at: moment(entry.at),
        operation: entry.operation.clone(),
        what,
        who,
        result: entry.result.clone(),
        detail: Some(details.join(", ")).filter(|detail| !detail.is_empty()),
    }
}

fn budget(budget: &Budget, masked: bool) -> Budget {
    let mut shown = budget.clone();
    if masked {
        let of_a_person = matches!(budget.kind.as_str(), "user" | "team_member" | "key");
        let hide =
            |text: &str, how: fn(&str) -> String| if of_a_person { how(text) } else { mask::sentence(text) };
        shown.id = hide(&budget.id, mask::id);
        shown.alias = budget.alias.as_deref().map(|alias| hide(alias, mask::email));
    }
    shown
}

fn copy(copy: &Copy) -> CopyReport {
    CopyReport {
        kind: copy.kind,
        reason: mask::sentence(&copy.reason),
        phase: copy.phase.describe().to_owned(),
        table: copy.table.map(str::to_owned),
        tables_done: copy.tables_done,
        tables: copy.tables,
        rows: copy.rows,
        rows_expected: copy.expected,
        seconds: age(copy.since),
        seconds_left: copy.left().map(|left| left.as_secs_f64()),
    }
}

fn versions(facts: &Facts, started: SystemTime) -> Versions {
    // 150017 is 15.17.
    let postgres = |number: i32| format!("{}.{}", number / 10_000, number % 10_000);
    let servers = &facts.servers;
    let found = |(what, found): (&str, &str)| Found { what: what.to_owned(), found: found.to_owned() };
    Versions {
        program: env!("CARGO_PKG_VERSION").to_owned(),
        started_at: moment(started),
        litellm_postgres: servers.source_version.map(postgres),
        webui_postgres: servers.target_version.map(postgres),
        litellm_tables: servers.source_tables,
        litellm_tables_known: TABLES.len(),
        webui_layout: servers.layout.iter().flat_map(Layout::found).map(found).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE_SCHEMA=1 cargo test schema_file` writes it anew.
    #[test]
    fn the_schema_file_says_what_the_report_is() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.schema.json");
        let schema = schemars::schema_for!(Report);
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text, "UPDATE_SCHEMA=1 cargo test schema_file");
    }

    #[test]
    fn events_name_nobody_unless_told_to() {
        let entry = Entry {
            id: 1,
            at: SystemTime::UNIX_EPOCH,
            operation: "SYNC_USER".to_owned(),
            record_id: Some("carlos.echeverria".to_owned()),
            result: "FAILED".to_owned(),
            error: Some("held by x@y.test".to_owned()),
            email: Some("carlos@contoso.example".to_owned()),
            name: Some("Data-Carlos Echeverría".to_owned()),
            count: None,
            added: None,
            removed: None,
        };
        let masked = event(&entry, true);
        assert_eq!(
            (masked.who.as_str(), masked.detail.as_deref()),
            ("D… C… E…, c…@c…", Some("held by x…@y…"))
        );
        let shown = event(&entry, false);
        assert_eq!(shown.who, "Data-Carlos Echeverría, carlos@contoso.example");
        let unknown =
            Entry { operation: "SOMETHING_NEW".to_owned(), email: None, name: None, ..entry.clone() };
        assert_eq!(
            (event(&unknown, true).who.as_str(), event(&unknown, true).what.as_str()),
            ("c…", "something new")
        );
        let of_set = Entry {
            operation: "SYNC_MODELS".to_owned(),
            name: Some("Models: gpt-4".to_owned()),
            email: None,
            error: None,
            ..entry
        };
        assert_eq!(
            (event(&of_set, true).who.as_str(), event(&of_set, true).detail.as_deref()),
            ("c…", Some("Models: gpt-4"))
        );
    }
}
