//! The page as HTML: one document, its style inside, nothing from elsewhere, no script.
//!
//! Owns the markup and how numbers are written. The template escapes every text.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::report::{CopyReport, Event, FailureReport, Found, Lag, LastCopy, Report};
use super::verdict::Level;
use crate::budgets::rules::State;
use crate::copy::register::CopyKind;
use crate::observe::board::Budget;
use crate::observe::status::{Counted, SlotReport, StatusReport};

const STYLE: &str = include_str!("style.css");
const REFRESH_SECONDS: u32 = 10;
/// Of a limit: from here a budget is shown.
const NEAR: f64 = 0.8;

/// What the browser may load: this document and its own style.
pub static POLICY: LazyLock<String> = LazyLock::new(|| {
    let digest = STANDARD.encode(Sha256::digest(STYLE));
    format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The page. `refresh`: it asks for itself again every few seconds.
pub fn page(report: &Report, refresh: bool) -> String {
    let health = &report.health;
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if refresh { meta http-equiv="refresh" content=(REFRESH_SECONDS); }
                title { (mark(health.level)) " " (health.headline) " · litellm-webui-sync" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.product { "litellm-webui-sync" span { "LiteLLM → Open WebUI" } }
                    p.refresh {
                        time datetime=(report.at) { (clock(&report.at)) " UTC" }
                        @if refresh { " · " a href="/?refresh=off" { "pause" } }
                        @else { " · paused · " a href="/" { "resume" } }
                    }
                }
                main {
                    (verdict(report))
                    (figures(report))
                    @if let Some(copy) = &report.copy { (copying(copy)) }
                    @if !report.failures.is_empty() { (failures(report)) }
                    @if let Some(budgets) = &report.budgets { (near_limit(budgets, report.budget_closed_people)) }
                    div.columns {
                        div { (lag(&report.lag)) (lately(report)) }
                        div {
                            @if let Some(status) = &report.status { (people(status)) }
                            @if let Some(slot) = report.status.as_ref().and_then(|status| status.slot.as_ref()) { (disk(slot)) }
                            (versions(report))
                        }
                    }
                }
                footer {
                    p {
                        a href="/api/status" { "JSON" } " · " a href="/metrics" { "metrics" } " · " a href="/readyz" { "readiness" }
                    }
                    @if report.names_masked {
                        p { "People are masked. To show them, set " code { "[http] names = \"show\"" } " in the policy file." }
                    }
                }
            }
        }
    };
    markup.into_string()
}

fn verdict(report: &Report) -> Markup {
    let health = &report.health;
    html! {
        section.verdict.(class(health.level)) aria-labelledby="verdict" {
            (sign(health.level))
            h1 #verdict { (health.headline) }
            div {
                p.why { (health.why) }
                @for line in &health.what_to_do { p.todo { (with_commands(line)) } }
                p.quiet { code { (health.state) } " since " time datetime=(health.since) { (day_and_clock(&health.since)) " UTC" } }
            }
        }
    }
}

/// A sign of its own for each level: colours alone would not do.
fn sign(level: Level) -> Markup {
    let path = match level {
        Level::Fine => "M7 12.5l3.5 3.5L17 9",
        Level::Attention => "M12 6.5v7M12 17v.5",
        Level::Trouble => "M8 8l8 8M16 8l-8 8",
        Level::Waiting => "M12 7v5l3.5 2",
    };
    html! {
        svg.sign viewBox="0 0 24 24" aria-hidden="true" focusable="false" {
            circle cx="12" cy="12" r="12" {}
            path d=(path) {}
        }
    }
}

/// The same for the title, where there is no picture.
fn mark(level: Level) -> &'static str {
    match level {
        Level::Fine => "✓",
        Level::Attention => "!",
        Level::Trouble => "✕",
        Level::Waiting => "…",
    }
}

fn class(level: Level) -> &'static str {
    match level {
        Level::Fine => "fine",
        Level::Attention => "attention",
        Level::Trouble => "trouble",
        Level::Waiting => "waiting",
    }
}

fn figures(report: &Report) -> Markup {
    let figure = |name: &str, value: &str| html! { div { dt { (name) } dd { (value) } } };
    let lag = &report.lag;
    html! {
        dl.figures {
            @if let Some(seconds) = lag.seconds { (figure("behind now", &span(seconds))) }
            @if let Some(seconds) = lag.worst_seconds { (figure("worst in an hour", &span(seconds))) }
            @if let Some(status) = &report.status {
                (figure("people active", &thousands(status.accounts_active)))
                (figure("groups", &thousands(status.groups)))
                (figure("not written", &thousands(report.failures_total)))
            }
        }
        @if report.health.state != "streaming" && report.status.is_some() {
            @if let Some(age) = report.status_age_seconds { p.quiet { "Counts as of " (ago(age)) "." } }
        }
    }
}

fn copying(copy: &CopyReport) -> Markup {
    let what = match copy.kind {
        CopyKind::First => "First copy",
        CopyKind::Again => "Copy of everything",
        CopyKind::Resnapshot => "Resnapshot",
        CopyKind::Verify => "Verify",
    };
    html! {
        section aria-labelledby="copy" {
            h2 #copy { (what) " on its way" }
            progress max=(copy.tables.max(1)) value=(copy.tables_done) aria-label="tables copied" {}
            p {
                (copy.phase) @if let Some(table) = &copy.table { " " code { (table) } } ": "
                (copy.tables_done) " of " (copy.tables) " tables, " (thousands(copy.rows))
                @if copy.rows_expected > copy.rows { " of about " (thousands(copy.rows_expected)) }
                " rows in " (span(copy.seconds)) "."
                @if let Some(left) = copy.seconds_left { " About " (span(left)) " left." }
            }
            p.quiet { "Why: " (copy.reason) "." }
        }
    }
}

/// Those with one reason are told together.
fn failures(report: &Report) -> Markup {
    let more = report.failures_total - i64::try_from(report.failures.len()).unwrap_or_default();
    let mut kinds: Vec<(&FailureReport, Vec<&str>)> = Vec::new();
    for one in &report.failures {
        let is_same = |(first, _): &&mut (&FailureReport, Vec<&str>)| {
            let (first, one) = (&first.failure, &one.failure);
            (&first.kind, &first.reason, first.critical) == (&one.kind, &one.reason, one.critical)
        };
        match kinds.iter_mut().find(is_same) {
            Some((_, keys)) => keys.push(&one.failure.key),
            None => kinds.push((one, vec![&one.failure.key])),
        }
    }
    html! {
        section aria-labelledby="failures" {
            h2 #failures { "Could not be written" }
            ul.failures {
                @for (FailureReport { failure, what_to_do }, keys) in &kinds {
                    li.critical[failure.critical] {
                        p {
                            @if failure.critical { strong.tag { "too much access" } " " }
                            strong { (failure.kind.replace('_', " ")) ": " (failure.reason) }
                        }
                        p.todo { (with_commands(what_to_do)) }
                        p.quiet {
                            @for (place, key) in keys.iter().enumerate() { @if place > 0 { ", " } code { (key) } }
                            " · " (count(failure.attempts.into(), "attempt", "attempts")) ", last " (day_and_clock(&failure.last_seen)) " UTC"
                        }
                    }
                }
            }
            p.quiet {
                @if more > 0 { "And " (thousands(more)) " more. " }
                "In full: " code { "litellm-webui-sync failures list" }
            }
        }
    }
}

fn near_limit(budgets: &[Budget], closed: i64) -> Markup {
    let near = |budget: &&Budget| {
        matches!(budget.state, State::Soft | State::Warning | State::Exceeded)
            || budget.ratio.is_some_and(|ratio| ratio >= NEAR)
    };
    let near: Vec<&Budget> = budgets.iter().filter(near).collect();
    html! {
        section aria-labelledby="budgets" {
            h2 #budgets { "Budgets near their limit" }
            @if closed > 0 {
                p { strong { (closed) } @if closed == 1 { " person has" } @else { " people have" } " fewer models because a budget is used up." }
            }
            @if near.is_empty() { p.quiet { "None." } }
            @else {
                table {
                    caption { "The fullest first, in US dollars" }
                    thead { tr { th scope="col" { "whose" } th.number scope="col" { "spent" } th.number scope="col" { "limit" } th.number scope="col" { "used" } th scope="col" { "state" } } }
                    tbody {
                        @for budget in near {
                            tr {
                                th scope="row" { (budget.kind) " " (budget.alias.as_ref().unwrap_or(&budget.id)) }
                                td.number { (dollars(budget.spend)) }
                                td.number { (budget.limit.map_or_else(|| "–".to_owned(), dollars)) }
                                td.number { (budget.ratio.map_or_else(|| "–".to_owned(), percent)) }
                                td { span.tag.(budget_class(budget.state)) { (budget_word(budget.state)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn budget_word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Soft => "over soft limit",
        State::Warning => "nearly used up",
        State::Exceeded => "used up",
        State::Unlimited => "unlimited",
    }
}

fn budget_class(state: State) -> &'static str {
    match state {
        State::Exceeded => "trouble",
        State::Soft | State::Warning => "attention",
        State::Ok | State::Unlimited => "",
    }
}

fn lately(report: &Report) -> Markup {
    html! {
        section aria-labelledby="lately" {
            h2 #lately { "Synced lately" }
            @if report.audit.is_empty() {
                p.quiet { @if report.status.is_some() { "Nothing lately." } @else { "Not known here yet." } }
            } @else {
                table.lately role="table" {
                    caption { "Newest first, times in UTC" }
                    thead { tr { th scope="col" { "when" } th scope="col" { "what" } th scope="col" { "whom or what" } } }
                    tbody {
                        @for Event { at, what, who, result, detail, .. } in &report.audit {
                            tr {
                                td.time { time datetime=(at) { (if same_day(at, &report.at) { clock(at) } else { day_and_clock(at) }) } }
                                td { (what) @if result != "SUCCESS" { " " span.tag.attention[result == "FAILED"] { (result.to_lowercase()) } } }
                                td { (short(who)) @if let Some(detail) = detail { small { (detail) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A bar for each minute, drawn to the worst of them; the sentence says the same.
fn lag(lag: &Lag) -> Markup {
    let Some(worst) = lag.worst_seconds else { return html! {} };
    // Seconds are nothing to worry about: the scale does not make mountains of milliseconds.
    let top = worst.max(1.0);
    let height = |seconds: f64| ((seconds / top).clamp(0.0, 1.0) * 36.0).max(1.5);
    html! {
        section aria-labelledby="lag" {
            h2 #lag { "How far behind, in the last hour" }
            svg.lag viewBox="0 0 240 40" preserveAspectRatio="none" role="img" aria-label=(format!("Worst lag by minute; at most {}", span(worst))) {
                @for (minute, seconds) in lag.worst_by_minute.iter().enumerate() {
                    @if let Some(seconds) = seconds {
                        rect.late[*seconds > 60.0] x=(minute * 4) y=(format!("{:.1}", 40.0 - height(*seconds))) width="3" height=(format!("{:.1}", height(*seconds))) {}
                    }
                }
            }
            p.axis.quiet aria-hidden="true" { span { "1 h ago" } span { "now" } }
            p.quiet { "The worst of each minute; at most " (span(worst)) "." }
        }
    }
}

fn people(status: &StatusReport) -> Markup {
    let row = |name: &str, number: i64| html! { tr { th scope="row" { (name) } td.number { (thousands(number)) } } };
    html! {
        section aria-labelledby="people" {
            h2 #people { "People and groups" }
            table {
                caption.unseen { "People and groups by state" }
                tbody {
                    (row("accounts, active", status.accounts_active))
                    (row("accounts, locked: left LiteLLM", status.accounts_locked))
                    @for Counted { what, count } in &status.skipped { (row(&format!("no account: {what}"), *count)) }
                    @for Counted { what, count } in &status.dead_letters { (row(&format!("not written: {what}"), *count)) }
                    (row("groups of organizations", status.organizations))
                    (row("groups of teams", status.teams))
                    (row("members of them", status.members))
                    @if let Some(models) = &status.models {
                        (row("models", models.known))
                        (row("people with models", models.people))
                        (row("access groups", models.access_groups))
                    }
                }
            }
            @if let Some(models) = status.models.as_ref().filter(|models| !models.public.is_empty()) {
                p { "Public although LiteLLM limits them: " (models.public.join(", ")) }
            }
        }
    }
}

fn disk(slot: &SlotReport) -> Markup {
    html! {
        section aria-labelledby="disk" {
            h2 #disk { "LiteLLM's disk" }
            table {
                caption.unseen { "What our replication slot costs LiteLLM's server" }
                tbody {
                    tr { th scope="row" { "WAL kept for us" } td.number { (bytes(slot.retained_bytes)) } }
                    tr {
                        th scope="row" { "room before the slot is lost" }
                        td.number { @if let Some(safe) = slot.safe_wal_bytes { (bytes(safe)) } @else { "no limit set" } }
                    }
                    tr { th scope="row" { "slot " code { (slot.name) } } td.number { (slot.wal_status.as_deref().unwrap_or("?")) } }
                }
            }
            @if slot.safe_wal_bytes.is_none() {
                p.todo { "Set " code { "max_slot_wal_keep_size" } " there, so that its disk cannot fill while no daemon runs." }
            }
        }
    }
}

fn versions(report: &Report) -> Markup {
    let versions = &report.versions;
    html! {
        section aria-labelledby="versions" {
            h2 #versions { "Versions and layout" }
            table {
                caption.unseen { "Versions and layouts that were found" }
                tbody {
                    tr { th scope="row" { "litellm-webui-sync" } td { (versions.program) } }
                    tr { th scope="row" { "running since" } td { (day_and_clock(&versions.started_at)) " UTC" } }
                    @if let Some(version) = &versions.litellm_postgres { tr { th scope="row" { "LiteLLM's Postgres" } td { (version) } } }
                    @if let Some(tables) = versions.litellm_tables { tr { th scope="row" { "LiteLLM's tables" } td { (tables) " of " (versions.litellm_tables_known) " known" } } }
                    @if let Some(version) = &versions.webui_postgres { tr { th scope="row" { "Open WebUI's Postgres" } td { (version) } } }
                    @for Found { what, found } in &versions.webui_layout { tr { th scope="row" { "Open WebUI: " (what) } td { (found) } } }
                    @if let Some(LastCopy { kind: _, rows, seconds, at }) = &report.last_copy {
                        tr { th scope="row" { "last copy" } td { (thousands(*rows)) " rows in " (span(*seconds)) ", " (day_and_clock(at)) " UTC" } }
                    }
                }
            }
        }
    }
}

/// The beginning of a long id is enough to tell it by; the JSON has all of it.
fn short(id: &str) -> String {
    let is_long = id.len() >= 16 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    if is_long { format!("{}…", id.chars().take(8).collect::<String>()) } else { id.to_owned() }
}

/// Commands stand between backquotes.
fn with_commands(line: &str) -> Markup {
    html! {
        @for (place, part) in line.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// `18:41:02` of `2026-11-23T18:41:02Z`, and of what Postgres writes.
fn clock(moment: &str) -> String {
    moment.get(11..19).unwrap_or(moment).to_owned()
}

fn day_and_clock(moment: &str) -> String {
    moment.get(0..19).unwrap_or(moment).replace('T', " ")
}

fn same_day(one: &str, other: &str) -> bool {
    one.get(..10) == other.get(..10)
}

/// A time, in the unit it is read in.
fn span(seconds: f64) -> String {
    match seconds {
        ..0.0005 => "0 s".to_owned(),
        ..1.0 => format!("{:.0} ms", seconds * 1000.0),
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

fn ago(seconds: f64) -> String {
    if seconds < 2.0 { "now".to_owned() } else { format!("{} ago", span(seconds)) }
}

fn bytes(number: i64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = number as f64;
    let mut unit = UNITS[0];
    for next in UNITS.iter().skip(1) {
        if value.abs() < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == UNITS[0] || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn thousands(number: impl TryInto<i64>) -> String {
    let number = number.try_into().unwrap_or(i64::MAX);
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("−{out}") } else { out }
}

fn count(number: i64, one: &str, many: &str) -> String {
    format!("{} {}", thousands(number), if number == 1 { one } else { many })
}

fn dollars(amount: f64) -> String {
    if amount.is_finite() { format!("{amount:.2}") } else { "?".to_owned() }
}

fn percent(ratio: f64) -> String {
    if ratio.is_finite() { format!("{:.0} %", ratio * 100.0) } else { "?".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [0.0, 0.0421, 1.25, 73.4, 600.0, 10_000.0].map(span),
            ["0 s", "42 ms", "1.2 s", "73 s", "10 min", "3 h"]
        );
        assert_eq!(
            [0_i64, 999, 1000, 1_234_567, -5].map(thousands),
            ["0", "999", "1,000", "1,234,567", "−5"]
        );
        assert_eq!(
            [0, 1023, 2048, 150 << 20, 3 << 40].map(bytes),
            ["0 bytes", "1023 bytes", "2.0 KiB", "150 MiB", "3.0 TiB"]
        );
        assert_eq!(
            ["0a1b2c3d-0000-4000-8000-00000000ad01", "a-team-of-people"].map(short),
            ["0a1b2c3d…", "a-team-of-people"]
        );
        assert_eq!(clock("2026-11-23T18:41:02Z"), "18:41:02");
        assert_eq!(day_and_clock("2026-11-23 18:41:02.123+00"), "2026-11-23 18:41:02");
        assert_eq!(with_commands("run `a <b>` now").into_string(), "run <code>a &lt;b&gt;</code> now");
    }
}
