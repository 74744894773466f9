//! Exit codes, pages and signals.

use std::time::Duration;

use testbed::{Cluster, ClusterOptions, Mode};

use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, answer, command, run};
use crate::support::{DEADLINE, Daemon, Pair, PairOptions, change, eventually, key, people, person};

fn nowhere() -> Pair {
    let url = |name: &str| format!("postgresql://postgres:zqsecret@127.0.0.1:1/{name}");
    Pair {
        source: url("a"),
        target: url("b"),
        daemon_source: url("a"),
        daemon_target: url("b"),
        slot: "nowhere".to_owned(),
    }
}

#[test]
fn a_configuration_that_cannot_be_used_is_exit_code_2_with_every_problem() {
    let pair = nowhere();
    let mut without = command(&pair);
    without.env_remove("LITELLM_DATABASE_URL").env("WEBUI_DATABASE_URL", "mysql://x/y");
    let (code, said, error) = answer(without.args(["run", "--http", "nonsense"]).output().unwrap());
    assert_eq!((code, said.as_str()), (2, ""));
    for word in ["LITELLM_DATABASE_URL", "WEBUI_DATABASE_URL", "--http"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert_eq!(run(&pair, &["no-such-command"]).0, 2);
    assert_eq!(run(&pair, &["status", "--wait", "tomorrow"]).0, 2);
    assert_eq!(run(&pair, &["--help"]).0, 0);
    assert_eq!(run(&pair, &["--version"]).0, 0);
}

#[test]
fn a_server_that_is_not_there_is_exit_code_1_and_no_password_is_shown() {
    let pair = nowhere();
    let (code, said, error) = run(&pair, &["status"]);
    assert_eq!(code, 1);
    assert!(!error.is_empty() && !(said + &error).contains("zqsecret"), "{error}");
}

#[tokio::test]
async fn a_daemon_whose_servers_are_not_there_keeps_trying_and_answers() {
    let mut daemon = Daemon::start(&nowhere());
    eventually("an answer", || async { daemon.get("/healthz").0 == 200 }).await;
    assert_eq!(healthcheck(&daemon.http().to_string()), (0, String::new()));
    // The container's default: every address.
    assert_eq!(healthcheck(&format!("0.0.0.0:{}", daemon.http().port())).0, 0);
    eventually("a try", || async { daemon.get("/readyz").1.contains("reconnecting") }).await;
    assert!(!daemon.log().contains("zqsecret") && !daemon.get("/readyz").1.contains("zqsecret"));
    let (_, status) = daemon.terminate();
    assert!(status.success(), "{status}");
    let (code, error) = healthcheck(&daemon.http().to_string());
    assert!(code == 1 && error.contains("does not answer"), "{code} {error}");
    assert_eq!((healthcheck("off").0, healthcheck("nonsense").0), (2, 2));
}

/// Asks as a container does: without any other setting.
fn healthcheck(address: &str) -> (i32, String) {
    let mut command = command(&nowhere());
    command.env_clear().env("LITELLM_WEBUI_SYNC_HTTP", address).arg("healthcheck");
    let (code, said, error) = answer(command.output().unwrap());
    assert_eq!(said, "");
    (code, error)
}

#[tokio::test]
async fn waiting_for_now_ends_with_the_right_exit_code() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let (code, _, error) = run(&pair, &["status", "--wait", "now", "--timeout", "1"]);
    assert_eq!(code, 1, "{error}");
    let (code, said, _) = run(&pair, &["status"]);
    assert!(code == 0 && said.contains("not installed"), "{said}");
    let mut daemon = Daemon::start(&pair);
    assert_eq!(run(&pair, &["status", "--wait", "now"]).0, 0);
    pair.litellm(&person("b", "a1@x.test")).await;
    assert_eq!(run(&pair, &["status", "--wait", "now"]).0, 3);
    let (code, json, _) = run(&pair, &["status", "--json"]);
    assert_eq!(code, 0);
    let report: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["accounts_active"], 3);
    assert_eq!(report["checkpoint"]["transactions_applied"], 1);
    assert_eq!(report["slot"]["active"], true);
    daemon.kill9();
    let (code, said, _) = run(&pair, &["status"]);
    assert!(code == 0 && said.contains("not running"), "{said}");
}

#[tokio::test]
async fn the_pages_tell_what_goes_on() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.ready().await;
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.get("/nothing").0, 404);
    pair.litellm(&person("b", "b@x.test")).await;
    pair.settle().await;
    let (code, metrics) = daemon.get("/metrics");
    assert_eq!(code, 200);
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("litellm_webui_sync_"), "{line}");
    }
    for line in metrics.lines().filter(|line| line.starts_with("# HELP")) {
        assert!(line.split(' ').count() > 4, "{line}");
    }
    assert!(metrics.contains("transactions"), "{metrics}");
    assert!(!metrics.contains("@x.test"));
}

#[tokio::test]
async fn pages_answer_while_both_databases_are_down() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    cluster.stop(Mode::Immediate, DEADLINE).unwrap();
    eventually("readiness to end", || async { daemon.get("/readyz").0 == 503 }).await;
    assert_eq!((daemon.get("/healthz").0, daemon.get("/metrics").0), (200, 200));
}

#[tokio::test]
async fn a_daemon_asked_to_end_finishes_its_work_and_leaves_nothing_to_repeat() {
    let pair = Pair::new().await;
    crate::churn::reference::begin(&pair).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    for number in 0..30 {
        pair.litellm(&person(&format!("a{number}"), &format!("a{number}@x.test"))).await;
    }
    let start = std::time::Instant::now();
    let (_, status) = daemon.terminate();
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    crate::churn::reference::assert_exactly_once(&pair).await;
}

#[test]
fn completions_need_no_configuration_and_know_every_command() {
    let pair = nowhere();
    for shell in ["bash", "zsh", "fish"] {
        let mut without = command(&pair);
        without.env_remove("LITELLM_DATABASE_URL").env_remove("WEBUI_DATABASE_URL");
        let (code, said, error) = answer(without.args(["completions", shell]).output().unwrap());
        assert_eq!((code, error.as_str()), (0, ""), "{shell}");
        for word in ["resnapshot", "failures", "approve", "completions", "--json", "print-sql"] {
            assert!(said.contains(word.trim_start_matches('-')), "{shell}: {word}");
        }
    }
    assert_eq!(run(&pair, &["completions", "klingon"]).0, 2);
}

#[tokio::test]
async fn every_command_that_says_something_says_it_as_json_too_and_piped_text_is_plain() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 30)).await;
    let json = |arguments: &[&str]| -> serde_json::Value {
        let (code, said, error) = run(&pair, arguments);
        assert!(code == 0 || code == 3, "{arguments:?}: {said} {error}");
        serde_json::from_str(&said).unwrap_or_else(|_| panic!("{arguments:?}: {said}"))
    };
    assert_eq!(json(&["setup", "--json"])["publication"]["state"], "created");
    assert_eq!(json(&["setup", "--json"])["publication"]["state"], "fine");
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(json(&["pause", "--json"]), serde_json::json!({ "paused": true, "changed": true }));
    assert_eq!(json(&["pause", "--json"])["changed"], false);
    assert_eq!(json(&["resume", "--json"]), serde_json::json!({ "paused": false, "changed": true }));
    daemon.ready().await;
    assert_eq!(json(&["failures", "retry", "--all", "--json"])["retried"], 0);
    assert_eq!(json(&["verify", "--json"])["differences"], serde_json::json!([]));
    assert!(json(&["resnapshot", "--json"])["request"].is_string());
    pair.settle().await;
    pair.litellm(&person("b", "a1@x.test")).await;
    pair.settle().await;
    assert_eq!(json(&["failures", "discard", "account", "b", "--json"])["discarded"]["key"], "b");
    pair.litellm("delete from \"LiteLLM_UserTable\"").await;
    eventually("the brake", || async { daemon.get("/readyz").1.contains("approve") }).await;
    let id = pair.ask("select max(id) from litellm_webui_sync.brake where used_at is null").await;
    assert_eq!(json(&["approve", &id, "--json"])["people"], 30);
    pair.settle().await;
    for arguments in [&["status"][..], &["doctor"], &["failures", "list"], &["verify"]] {
        let (_, said, error) = run(&pair, arguments);
        assert!(!said.contains('\x1b') && !error.contains(['\x1b', '\r']), "{arguments:?}: {said} {error}");
    }
    daemon.kill9();
    eventually("the slot to be free", || async {
        pair.ask_litellm(
            "select count(*) from pg_replication_slots where active and database = current_database()",
        )
        .await
            == "0"
    })
    .await;
    let done = json(&["teardown", "--json"]);
    assert!(done["complete"] == true && done["done"].as_array().unwrap().len() >= 2, "{done}");
}

#[tokio::test]
async fn no_level_of_the_log_shows_people_or_keys() {
    let pair = Pair::new().await;
    pair.litellm(&[people("secret", 3), key("1", "secret1")].concat()).await;
    let options = DaemonOptions {
        environment: vec![(
            "RUST_LOG",
            "trace,tokio_postgres::query=trace,tokio_postgres=trace,pgwire_replication=trace".to_owned(),
        )],
        ..DaemonOptions::default()
    };
    let daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    pair.litellm(&change("secret2", "user_email = 'renamed@x.test'")).await;
    pair.settle().await;
    let log = daemon.log();
    assert!(log.contains("streaming"), "{log}");
    for word in ["@x.test", "secret1", "sk-"] {
        assert!(
            !log.contains(word),
            "{word} is logged: {}",
            log.lines().find(|line| line.contains(word)).unwrap()
        );
    }
}

#[tokio::test]
async fn what_litellm_holds_does_nothing_to_a_terminal_and_a_closed_pipe_is_no_crash() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 2)).await;
    pair.litellm("update \"LiteLLM_UserTable\" set models = array[E'x\\x1b]0;pwned\\x07', E'y\\u202e\\u009b2J'] where user_id = 'a1'").await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    for command in [
        &["access", "a1@x.test", "gpt-4"][..],
        &["access", "a1@x.test", "gpt-4", "--json"],
        &["plan", "--all"],
    ] {
        let (_, out, err) = run(&pair, command);
        let said = out + &err;
        let odd = said.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
        assert_eq!(odd, None, "{command:?}: {said:?}");
    }
    daemon.terminate();
    let mut child = command(&pair)
        .args(["setup", "--print-sql"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert!(!String::from_utf8_lossy(&ended.stderr).contains("panicked"), "{ended:?}");
}
