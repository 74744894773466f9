//! How output looks: colours where a person reads it, the same text without them everywhere else.
//!
//! Colours only repeat what the words say. `NO_COLOR` and a pipe turn them off.

use std::io::IsTerminal;

use serde::Serialize;

use crate::observe::status::StatusReport;

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const OFF: &str = "\x1b[0m";

/// Says what a command did: a sentence for people, or a value for machines.
pub(super) fn say(json: bool, sentence: &str, value: &serde_json::Value) {
    if json { println!("{value:#}") } else { println!("{sentence}") }
}

/// An answer for machines.
pub(super) fn json(answer: &impl Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(answer)?);
    Ok(())
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
        anstream::println!("{DIM}{name:width$}{OFF}  {value}");
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
        anstream::println!("{}", painted.unwrap_or_else(|| line.to_owned()));
    }
}

/// How far something long is, on standard error: one line that changes, or a line each where it goes to a file.
pub(super) fn progress(line: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{line}");
    } else {
        eprintln!("{line}");
    }
}

/// Clears the line that changes.
pub(super) fn progress_ends() {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
}
