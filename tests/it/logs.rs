//! The log: a line for each thing, in the words and with the fields that the handbook lists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex::Regex;
use serde_json::{Map, Value};

use crate::support::daemon::{DaemonOptions, answer, command, run};
use crate::support::{Daemon, Pair, change, eventually, people, person};

const PAGE: &str = include_str!("../../docs/src/operating/logs.md");

/// Level and fields of each message in the handbook.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| level"));
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let fields = cells[2].split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (cells[1].to_owned(), (cells[0].to_owned(), fields))
    })
    .collect()
}

/// The lines as JSON; each has what the handbook says. `free`: sentences of a command are none of its messages.
fn checked(log: &str, free: bool) -> Vec<Map<String, Value>> {
    let known = documented();
    log.lines()
        .map(|line| {
            let event: Map<String, Value> =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("no JSON ({error}): {line}"));
            let text = |name: &str| event[name].as_str().unwrap_or_else(|| panic!("{name}: {line}"));
            let time = Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$").unwrap();
            assert!(time.is_match(text("timestamp")), "{line}");
            match known.get(text("message")) {
                Some((level, fields)) => {
                    assert_eq!(text("level"), level, "{line}");
                    for name in event
                        .keys()
                        .filter(|name| !["timestamp", "level", "message"].contains(&name.as_str()))
                    {
                        assert!(fields.contains(name), "{name} is not documented: {line}");
                    }
                }
                None => assert!(
                    free && text("level") == "INFO" && event.len() == 3,
                    "not in the handbook: {line}"
                ),
            }
            event
        })
        .collect()
}

fn messages(events: &[Map<String, Value>]) -> Vec<&str> {
    events.iter().map(|event| event["message"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn through_a_start_a_copy_a_dead_letter_a_brake_and_a_stop_each_line_is_json_with_documented_fields() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 30)).await;
    pair.webui("alter table \"user\" add constraint refused check (email not like 'bad%')").await;
    let options = DaemonOptions {
        environment: vec![("LITELLM_WEBUI_SYNC_LOG_FORMAT", "json".to_owned())],
        ..DaemonOptions::default()
    };
    let mut daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    pair.litellm(&person("bad", "bad@x.test")).await;
    pair.litellm(&person("twin", "a1@x.test")).await;
    assert_eq!(pair.settle().await, 2);
    pair.litellm("delete from \"LiteLLM_UserTable\" where user_id like 'a%'").await;
    eventually("the brake", || async { daemon.get("/readyz").1.contains("approve") }).await;
    let id = pair.ask("select max(id) from litellm_webui_sync.brake where used_at is null").await;
    assert_eq!(run(&pair, &["approve", &id]).0, 0);
    pair.settle().await;
    assert!(daemon.terminate().1.success());
    let log = daemon.log();
    let events = checked(&log, false);
    let said = messages(&events);
    for message in [
        "starting",
        "serving the status page, /metrics, /healthz and /readyz",
        "migrated our schema",
        "writing the publication",
        "copying LiteLLM's rows",
        "copied",
        "merged the copy",
        "took the lead",
        "projected everything",
        "an entity could not be written and is kept as a dead letter",
        "people could not be written as LiteLLM has them, and are kept as dead letters",
        "held back",
        "what was held is approved, and passes",
        "asked to end",
    ] {
        assert!(said.contains(&message), "{message} is not in:\n{log}");
    }
    // Said once.
    for message in ["starting", "copying LiteLLM's rows", "migrated our schema", "held back", "asked to end"]
    {
        assert_eq!(said.iter().filter(|one| **one == message).count(), 1, "{message}:\n{log}");
    }
    let states: Vec<&str> = events
        .iter()
        .filter(|event| event["message"] == "state")
        .map(|event| event["to"].as_str().unwrap())
        .collect();
    assert_eq!((states[0], states.last()), ("copying", Some(&"stopped")), "{states:?}");
    assert!(states.windows(2).all(|two| two[0] != two[1]), "{states:?}");
    assert!(!log.contains("@x.test"), "{log}");
}

#[tokio::test]
async fn why_it_ended_is_the_last_line_in_either_form_and_is_said_once() {
    let pair = Pair::new().await;
    pair.litellm(&person("a", "a@x.test")).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    pair.webui("insert into litellm_webui_sync.schema_version (version) values (999)").await;
    for form in ["json", "text"] {
        let options = DaemonOptions {
            environment: vec![("LITELLM_WEBUI_SYNC_LOG_FORMAT", form.to_owned())],
            ..DaemonOptions::default()
        };
        let mut stopped = Daemon::with(&pair, &options);
        assert_eq!(stopped.end().code(), Some(1));
        let log = stopped.log();
        assert_eq!(log.matches("newer release (version").count(), 1, "{log}");
        if form == "json" {
            let events = checked(&log, false);
            let last = events.last().unwrap();
            assert_eq!(last["message"], "ended", "{log}");
            assert!(last["error"].as_str().unwrap().contains("version 999"), "{log}");
            assert!(last["remedy"].as_str().unwrap().contains("run the newer release"), "{log}");
        } else {
            let lines: Vec<&str> = log.lines().rev().take(2).collect();
            assert!(lines[1].starts_with("error: ") && lines[0].starts_with("what to do: "), "{log}");
        }
    }
}

#[tokio::test]
async fn commands_that_fail_and_settings_that_cannot_be_used_are_json_too() {
    let mut pair = Pair::new().await;
    let said = |pair: &Pair, arguments: &[&str]| {
        let (code, out, error) =
            answer(command(pair).args(["--log-format", "json"]).args(arguments).output().unwrap());
        (code, out, checked(&error, true))
    };
    let (code, _, events) = said(&pair, &["run", "--http", "nonsense"]);
    assert_eq!((code, messages(&events)), (2, vec!["ended"]));
    assert!(events[0]["error"].as_str().unwrap().contains("--http \"nonsense\""), "{events:?}");
    let (code, _, events) = said(&pair, &["approve", "77"]);
    assert_eq!((code, messages(&events)), (1, vec!["ended"]), "{events:?}");
    let (code, _, events) = said(&pair, &["healthcheck", "--http", "off"]);
    assert_eq!((code, messages(&events)), (2, vec!["ended"]));
    let (code, _, events) = said(&pair, &["resnapshot", "--table", "NoSuchTable"]);
    assert!(code != 0 && messages(&events) == ["ended"], "{events:?}");
    pair.litellm(&people("a", 2)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&person("twin", "a1@x.test")).await;
    let (code, _, events) = said(&pair, &["status", "--wait", "now"]);
    assert_eq!(code, 3);
    assert!(events[0]["message"].as_str().unwrap().contains("could not be written"), "{events:?}");
    daemon.kill9();
    let (code, _, events) = said(&pair, &["status", "--wait", "now", "--timeout", "1"]);
    assert_eq!((code, messages(&events)), (1, vec!["ended"]), "{events:?}");
    pair.daemon_target = "postgresql://postgres:zqsecret@127.0.0.1:1/x".to_owned();
    for arguments in [&["status"][..], &["plan"], &["failures", "list"], &["teardown", "--yes"]] {
        let (code, _, events) = said(&pair, arguments);
        assert_eq!((code, messages(&events).last()), (1, Some(&"ended")), "{arguments:?}");
        assert!(!format!("{events:?}").contains("zqsecret"));
    }
}

#[tokio::test]
async fn a_panic_is_a_line_of_the_log() {
    let pair = Pair::new().await;
    pair.litellm(&person("a", "a@x.test")).await;
    let options = DaemonOptions {
        environment: vec![("LITELLM_WEBUI_SYNC_LOG_FORMAT", "json".to_owned())],
        failpoints: Some("copied-not-merged=panic".to_owned()),
        ..DaemonOptions::default()
    };
    let mut daemon = Daemon::with(&pair, &options);
    eventually("the panic", || async { daemon.log().contains("a task panicked") }).await;
    daemon.kill9();
    let log = daemon.log();
    let events = checked(&log, false);
    let panic = events.iter().find(|event| event["message"] == "a task panicked").unwrap();
    assert!(panic["error"].as_str().unwrap().contains("copied-not-merged"), "{log}");
    assert!(panic["place"].is_string(), "{log}");
    pair.litellm(&change("a", "user_alias = 'A'")).await;
}

/// What the macro calls of a file say: level, message, names of fields.
fn calls(text: &str) -> Vec<(String, String, BTreeSet<String>)> {
    let start = Regex::new(r"tracing::(info|warn|error)!\(").unwrap();
    let name = Regex::new(r"^[%?]?(\w+)(?: = .*)?$").unwrap();
    start
        .captures_iter(text)
        .map(|call| {
            let rest = &text[call.get(0).unwrap().end()..];
            // The message stands last, and is one text without quotes in it.
            let body = rest.split_once(");").unwrap().0.trim_end().trim_end_matches(',');
            let (before, message) = body.strip_suffix('"').unwrap().rsplit_once('"').unwrap();
            let fields = before.split(',').filter_map(|part| Some(name.captures(part.trim())?[1].to_owned()));
            (call[1].to_uppercase(), message.to_owned(), fields.collect())
        })
        .collect()
}

#[test]
fn the_handbook_lists_every_message_with_its_level_and_fields_and_no_other() {
    let known = documented();
    let mut said = BTreeSet::new();
    let mut wrong = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            for (level, message, fields) in calls(&std::fs::read_to_string(&path).unwrap()) {
                match known.get(&message) {
                    Some((listed, names)) if *listed == level && fields.is_subset(names) => {}
                    other => {
                        wrong.push(format!("{}: {level} {message:?} {fields:?}: {other:?}", path.display()));
                    }
                }
                said.insert(message);
            }
        }
    }
    // Written by hand, beside the log.
    said.insert("ended".to_owned());
    wrong.extend(
        known.keys().filter(|message| !said.contains(*message)).map(|one| format!("nobody says {one:?}")),
    );
    assert!(said.len() > 40, "only {} were found", said.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
