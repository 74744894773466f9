//! The report as text: a heading for each part, and below it what it holds, a line each.
//!
//! Pure, and says no more than the JSON does.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::Report;

/// What comes first in a line; the rest follows by the alphabet.
const FIRST: [&str; 6] = ["verdict", "name", "kind", "operation", "result", "count"];

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        for (name, part) in &self.parts {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{}{name}", if out.is_empty() { "" } else { "\n" });
            below(&mut out, 2, part);
        }
        out
    }
}

fn below(out: &mut String, depth: usize, value: &Value) {
    let mut line = |text: String| {
        let _ = writeln!(out, "{:depth$}{text}", "");
    };
    match value {
        Value::Object(object) if object.is_empty() => line("none".to_owned()),
        Value::Array(list) if list.is_empty() => line("none".to_owned()),
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::Object(inner) if inner.values().all(is_plain) => {
                        let _ = writeln!(out, "{:depth$}{name}: {}", "", row(inner));
                    }
                    Value::Object(_) | Value::Array(_) => {
                        let _ = writeln!(out, "{:depth$}{name}:", "");
                        below(out, depth + 2, value);
                    }
                    _ => {
                        let _ = writeln!(out, "{:depth$}{name}: {}", "", plain(value));
                    }
                }
            }
        }
        Value::Array(list) => {
            for value in list {
                match value {
                    Value::Object(inner) => line(format!("- {}", row(inner))),
                    other => line(format!("- {}", plain(other))),
                }
            }
        }
        other => line(plain(other)),
    }
}

fn is_plain(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', " "),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

fn row(object: &Map<String, Value>) -> String {
    let place = |name: &String| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len());
    let mut entries: Vec<_> = object.iter().filter(|(_, value)| !value.is_null()).collect();
    entries.sort_by_key(|(name, _)| place(name));
    let entry = |(name, value): (&String, &Value)| format!("{name} {}", plain(value));
    entries.into_iter().map(entry).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_part_has_a_heading_and_each_row_a_line() {
        let report = Report {
            parts: vec![
                ("settings", json!({ "slot": "default", "url": { "hosts": 1, "tls": "Prefer" } })),
                ("doctor", json!([{ "found": "15", "name": "server", "verdict": "fine" }])),
                ("books", json!({ "copies": [], "paused": false, "gone": null })),
            ],
        };
        let expected = "settings\n  slot: default\n  url: hosts 1, tls Prefer\n\ndoctor\n  - verdict fine, name server, found 15\n\
                        \nbooks\n  copies:\n    none\n  gone: -\n  paused: false\n";
        assert_eq!(report.text(), expected);
    }
}
