//! How output looks: colours where a person reads it, the same text without them everywhere else.
//!
//! Colours only repeat what the words say. `NO_COLOR` and a pipe turn them off. Everything a command prints for people goes
//! through here: LiteLLM's names and lists may hold anything, and must do nothing to a terminal.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use serde::Serialize;

use crate::config::LogFormat;
use crate::observe::status::StatusReport;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const OFF: &str = "\x1b[0m";

/// What we paint with. Nothing else that is no text gets through.
const PAINT: [&str; 6] = [BOLD, DIM, GREEN, YELLOW, RED, OFF];

/// Prints to standard output as it stands. Whoever closes the pipe early has seen enough.
pub(super) fn out(text: &str) {
    let _ = anstream::stdout().write_all(clean(text).as_bytes());
}

/// The same, as a line.
pub(super) fn line(text: &str) {
    out(&format!("{text}\n"));
}

/// Whether standard error is for machines.
static IS_JSON: AtomicBool = AtomicBool::new(false);

/// In which form everything goes to standard error, from the first word on.
pub(super) fn speak(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// A line on standard error.
pub(super) fn note(text: &str) {
    say_on_stderr("INFO", text, &[]);
}

/// Why a command, or the daemon, ended, and what to do about it.
pub(super) fn failure(error: &str, remedy: Option<&str>) {
    if IS_JSON.load(Ordering::Relaxed) {
        let remedy = remedy.map(|remedy| ("remedy", remedy));
        let fields: Vec<_> = [("error", error)].into_iter().chain(remedy).collect();
        return say_on_stderr("ERROR", "ended", &fields);
    }
    note(&format!("error: {error}"));
    if let Some(remedy) = remedy {
        note(&format!("what to do: {remedy}"));
    }
}

/// As the log has it.
fn say_on_stderr(level: &str, text: &str, fields: &[(&str, &str)]) {
    if IS_JSON.load(Ordering::Relaxed) {
        let mut event = serde_json::Map::new();
        let timestamp = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let first = [("timestamp", timestamp.as_str()), ("level", level), ("message", text)];
        event.extend(first.iter().chain(fields).map(|(name, value)| ((*name).to_owned(), (*value).into())));
        let line = format!("{}\n", serde_json::Value::Object(event));
        let _ = std::io::stderr().write_all(escaped(&line).as_bytes());
        return;
    }
    let _ = anstream::stderr().write_all(clean(&format!("{text}\n")).as_bytes());
}

/// Text without what a terminal would obey: control characters, and those that turn the direction of writing around.
pub(super) fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(paint) = PAINT.iter().find(|paint| rest.starts_with(**paint)) {
            out.push_str(paint);
            rest = rest.split_at(paint.len()).1;
            continue;
        }
        let is_odd = c.is_control() && c != '\n'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        out.push(if is_odd { '\u{fffd}' } else { c });
        rest = rest.split_at(c.len_utf8()).1;
    }
    out
}

/// JSON with its odd characters escaped: they stand in strings only, and mean the same there.
fn escaped(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && clean(c.encode_utf8(&mut [0; 4])) == "\u{fffd}" && c != '\u{fffd}' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Says what a command did: a sentence for people, or a value for machines.
pub(super) fn say(json: bool, sentence: &str, value: &serde_json::Value) {
    if json { line(&escaped(&format!("{value:#}"))) } else { line(sentence) }
}

/// An answer for machines.
pub(super) fn json(answer: &impl Serialize) -> anyhow::Result<()> {
    out(&json_text(answer)?);
    Ok(())
}

/// The same as text, with the end of its last line.
pub(super) fn json_text(answer: &impl Serialize) -> anyhow::Result<String> {
    Ok(escaped(&serde_json::to_string_pretty(answer)?) + "\n")
}

/// Prints the report: names dim, the state in its colour, what needs somebody in yellow.
pub(super) fn status(report: &StatusReport) {
    let colour = match report.state.as_str() {
        "streaming" => GREEN,
        "braked" | "stopped" | "reconnecting" | "not running" => RED,
        _ => YELLOW,
    };
    let lines = report.lines();
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in lines {
        let value = match name.as_str() {
            "state" => format!("{BOLD}{colour}{value}{OFF}"),
            "failed" | "brake" | "public model" => format!("{YELLOW}{value}{OFF}"),
            _ => value,
        };
        line(&format!("{DIM}{name:width$}{OFF}  {value}"));
    }
}

/// Prints the checks: the verdict of each in its colour.
pub(super) fn doctor(table: &str) {
    for line in table.lines() {
        let painted =
            [("ok ", GREEN), ("warning ", YELLOW), ("PROBLEM ", RED)].iter().find_map(|(word, colour)| {
                let rest = line.strip_prefix(word)?;
                Some(format!("{BOLD}{colour}{word}{OFF}{rest}"))
            });
        self::line(&painted.unwrap_or_else(|| line.to_owned()));
    }
}

fn is_changing_line() -> bool {
    std::io::stderr().is_terminal() && !IS_JSON.load(Ordering::Relaxed)
}

/// How far something long is, on standard error: one line that changes, or a line each where it goes to a file.
pub(super) fn progress(line: &str) {
    if is_changing_line() {
        let _ = write!(std::io::stderr(), "\r\x1b[K{}", clean(line));
    } else {
        note(line);
    }
}

/// Clears the line that changes.
pub(super) fn progress_ends() {
    if is_changing_line() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_do_nothing_to_a_terminal() {
        let evil = "a\x1b]0;title\x07b\x1b[2Jc\rd\u{9b}31me\u{202e}f\u{8}";
        let shown = clean(&format!("{BOLD}x{OFF} {evil}\n"));
        assert!(shown.starts_with("\x1b[1mx\x1b[0m a") && shown.ends_with('\n'), "{shown:?}");
        let rest = shown.replace(BOLD, "").replace(OFF, "");
        assert!(
            !rest.contains(|c: char| c.is_control() && c != '\n') && !rest.contains('\u{202e}'),
            "{shown:?}"
        );
        let json = escaped(&serde_json::to_string_pretty(&serde_json::json!({ "id": evil })).unwrap());
        assert!(
            !json.contains(|c: char| c.is_control() && c != '\n') && !json.contains('\u{202e}'),
            "{json:?}"
        );
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["id"], evil);
    }
}
