//! Dashboard and alert rules: sound, complete, and evaluated by a real Prometheus against a real daemon under load.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use regex::Regex;
use serde_json::Value;
use testbed::{Cluster, ClusterOptions, connect};

use crate::support::daemon::{answer, free_port, run};
use crate::support::{
    DEADLINE, Daemon, Pair, PairOptions, key, next_number, organization, people, person, team, within,
};

const DASHBOARD: &str = include_str!("../../grafana/dashboards/litellm-webui-sync.json");
const RULES: &str = include_str!("../../grafana/prometheus/rules.yml");
const RULE_TESTS: &str = include_str!("../../grafana/prometheus/rules_test.yml");
const DATA_SOURCE: &str = include_str!("../../grafana/provisioning/datasources/prometheus.yml");
const METRICS: &str = include_str!("../../docs/src/metrics.md");
const PREFIX: &str = "litellm_webui_sync_";

/// Metrics that have no series where nothing is wrong, or nothing to say.
const MAY_BE_SILENT: &[(&str, &str)] =
    &[("failover_slot_synced", "nothing stands by for the server of the tests")];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder() -> PathBuf {
    repository().join("grafana/prometheus")
}

/// A program of Prometheus: from `TESTBED_PROMETHEUS_BIN`, where `tests/run` puts it, or from PATH.
fn program(name: &str) -> PathBuf {
    let named = std::env::var_os("TESTBED_PROMETHEUS_BIN").map(|dir| PathBuf::from(dir).join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        named.or_else(|| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file()));
    found.unwrap_or_else(|| {
        panic!("no {name} here: run tests/run, or install Prometheus (Debian: prometheus)")
    })
}

#[derive(Debug)]
struct Panel {
    title: String,
    /// As it stands in the file, with variables.
    expressions: Vec<String>,
}

fn dashboard() -> Value {
    serde_json::from_str(DASHBOARD).unwrap()
}

fn panels() -> Vec<Panel> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let all = dashboard()["panels"].as_array().unwrap().clone();
    all.iter()
        .filter(|panel| panel["type"] != "row")
        .map(|panel| Panel {
            title: text(&panel["title"]),
            expressions: panel["targets"]
                .as_array()
                .unwrap()
                .iter()
                .map(|target| text(&target["expr"]))
                .collect(),
        })
        .collect()
}

/// Names of our metrics in some text, without the prefix and without what a histogram adds to its own.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let (name, known) = (Regex::new(&format!("{PREFIX}([a-z_]+)")).unwrap(), known());
    name.captures_iter(text)
        .map(|found| {
            let name = &found[1];
            let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            histogram.filter(|name| known.contains(*name)).unwrap_or(name).to_owned()
        })
        .collect()
}

fn in_backticks(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// Every metric the daemon has, without the prefix.
fn known() -> BTreeSet<String> {
    let metrics = litellm_webui_sync::observe::metrics::Metrics::new().unwrap();
    metrics.described().iter().map(|one| one.name.trim_start_matches(PREFIX).to_owned()).collect()
}

/// Names and runbooks of the rules.
fn rules() -> BTreeMap<&'static str, &'static str> {
    let mut found = BTreeMap::new();
    let mut name = "";
    for line in RULES.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            name = alert;
        } else if let Some(runbook) = line.strip_prefix("runbook_url: ") {
            assert!(found.insert(name, runbook).is_none(), "{name} twice");
        }
    }
    assert_eq!(found.len(), RULES.matches("- alert: ").count());
    found
}

#[test]
fn configuration_rules_and_their_cases_hold() {
    for arguments in [
        &["check", "config", "prometheus.yml"],
        &["check", "rules", "rules.yml"],
        &["test", "rules", "rules_test.yml"],
    ] {
        let output =
            Command::new(program("promtool")).args(*arguments).current_dir(folder()).output().unwrap();
        let (code, said, error) = answer(output);
        assert_eq!(code, 0, "promtool {arguments:?}:\n{said}{error}");
    }
}

#[test]
fn each_rule_has_a_runbook_and_cases_that_fire_and_that_do_not() {
    for (name, runbook) in rules() {
        assert_eq!(runbook, format!("docs/src/alerts/{name}.md"));
        assert!(repository().join(runbook).is_file(), "{name} has no page");
        let quiet = format!("- {{alertname: {name}, eval_time: ");
        assert!(
            RULE_TESTS
                .lines()
                .any(|line| line.trim().starts_with(&quiet) && line.ends_with("exp_alerts: []}")),
            "{name} has no case in which it does not fire"
        );
        let loud = RULE_TESTS.split(&format!("- alertname: {name}\n")).nth(1).unwrap_or_default();
        assert!(
            loud.split("alertname: ").next().unwrap().contains("exp_labels"),
            "{name} has no case in which it fires"
        );
    }
}

#[test]
fn the_dashboard_is_sound() {
    let dashboard = dashboard();
    let variables: BTreeSet<&str> = dashboard["templating"]["list"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    let source = dashboard["templating"]["list"][0]["current"]["value"].as_str().unwrap();
    assert!(
        DATA_SOURCE.contains(&format!("uid: {source}\n")),
        "the data source that is provisioned has another uid"
    );
    let panels = dashboard["panels"].as_array().unwrap();
    let (mut ids, mut taken, mut rows) = (BTreeSet::new(), BTreeMap::new(), 0);
    let variable = Regex::new(r"\$\{?(\w+)").unwrap();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
        let place = |side: &str| panel["gridPos"][side].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{title} is wider than the page");
        for cell in (place("x")..place("x") + place("w"))
            .flat_map(|x| (place("y")..place("y") + place("h")).map(move |y| (x, y)))
        {
            if let Some(other) = taken.insert(cell, title) {
                panic!("{title} lies over {other}");
            }
        }
        if panel["type"] == "row" {
            rows += 1;
            assert!(title.ends_with('?'), "the row {title} asks nothing");
            continue;
        }
        assert!(panel["description"].as_str().unwrap().len() > 15, "{title} has no description");
        assert!(panel["fieldConfig"]["defaults"]["unit"].is_string(), "{title} has no unit");
        let mut letters = BTreeSet::new();
        for target in panel["targets"].as_array().unwrap() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            assert!(letters.insert(target["refId"].as_str().unwrap()), "{title}");
            let expression = target["expr"].as_str().unwrap();
            for used in variable.captures_iter(expression) {
                let name = used.get(1).unwrap().as_str();
                assert!(name == "__rate_interval" || variables.contains(name), "{title} uses ${name}");
            }
            assert!(
                expression.contains("$instance") || expression.starts_with("ALERTS"),
                "{title} ignores $instance"
            );
        }
    }
    assert_eq!(rows, 5);
    for name in variables {
        let uses = format!("${name}");
        assert!(
            DASHBOARD.contains(&uses) || DASHBOARD.contains(&format!("${{{name}}}")),
            "{name} does nothing"
        );
    }
}

#[test]
fn every_metric_is_on_a_panel_or_in_a_rule_or_for_debugging() {
    let expressions: String =
        panels().iter().flat_map(|panel| panel.expressions.clone()).collect::<Vec<_>>().join("\n");
    let used = &metrics_in(&expressions) | &metrics_in(RULES);
    let line = METRICS.lines().find(|line| line.starts_with("Only for debugging, on no panel: "));
    let debugging: BTreeSet<String> = line.map(|line| in_backticks(line).collect()).unwrap_or_default();
    let known = known();
    let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(list(&used - &known), "", "used, but unknown");
    assert_eq!(list(&(&known - &used) - &debugging), "", "on no panel and in no rule");
    assert_eq!(list(&debugging - &(&known - &used)), "", "used, or unknown, but listed as for debugging");
}

/// A Prometheus with the repository's own configuration, asking one daemon every second.
struct Prometheus {
    child: Child,
    port: u16,
    work: PathBuf,
}

impl Prometheus {
    fn start(daemon: &Daemon) -> Self {
        let work = std::env::temp_dir().join(format!("prometheus-{}-{}", std::process::id(), next_number()));
        std::fs::create_dir_all(&work).unwrap();
        let text = std::fs::read_to_string(folder().join("prometheus.yml")).unwrap();
        assert!(text.contains("sync:9466") && text.contains(": 15s"));
        let text = text.replace("sync:9466", &daemon.http().to_string()).replace(": 15s", ": 1s");
        std::fs::write(work.join("prometheus.yml"), text).unwrap();
        std::fs::write(work.join("rules.yml"), RULES).unwrap();
        let port = free_port();
        let child = Command::new(program("prometheus"))
            .current_dir(&work)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(work.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, port, work }
    }

    /// The JSON of an API's answer; null when there is none.
    fn api(&self, path: &str) -> Value {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            write!(stream, "GET /api/v1/{path} HTTP/1.0\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = ask().unwrap_or_default();
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    /// Values of an expression now; NaN is none. An error is one.
    fn query(&self, expression: &str) -> Result<Vec<f64>, String> {
        let answer = self.api(&format!("query?query={}", utf8_percent_encode(expression, NON_ALPHANUMERIC)));
        if answer["status"] != "success" {
            return Err(answer.to_string());
        }
        let result = answer["data"]["result"].as_array().cloned().unwrap_or_default();
        let values = result.iter().filter_map(|one| one["value"][1].as_str()?.parse::<f64>().ok());
        Ok(values.filter(|value| !value.is_nan()).collect())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.work.join("log")).unwrap_or_default());
        }
        drop(std::fs::remove_dir_all(&self.work));
    }
}

/// What LiteLLM does all day: spends, and now and then changes somebody.
async fn busy(source: String) {
    let client = connect(&source).await.unwrap();
    for round in 0.. {
        let sql = format!(
            "update \"LiteLLM_UserTable\" set spend = spend + 0.01 where user_id in ('a1', 'a2', 'a3');
             update \"LiteLLM_UserTable\" set user_alias = 'Round {round}' where user_id = 'a{}'",
            4 + round % 7
        );
        client.batch_execute(&sql).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An expression as Grafana would send it.
fn filled_in(expression: &str) -> String {
    [("$__rate_interval", "10s"), ("$instance", ".*"), ("$kind", ".*"), ("$top", "20")]
        .iter()
        .fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value))
}

#[tokio::test]
async fn every_panel_and_every_rule_evaluates_and_finds_data() {
    let options = ClusterOptions {
        tls: true,
        settings: vec![("max_slot_wal_keep_size".to_owned(), "16GB".to_owned())],
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).unwrap();
    let mut pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.daemon_source += "?sslmode=require";
    pair.daemon_target += "?sslmode=require";
    // Somebody for each state: budgets, nobody's e-mail, an e-mail twice.
    pair.litellm(
        &[
            people("a", 12),
            person("twice", "A1@x.test"),
            person("nowhere", "no e-mail"),
            organization("o", "O"),
            team("t", "T", Some("o"), &["a1", "a2"]),
            key("k", "a1"),
            "update \"LiteLLM_UserTable\" set max_budget = 1000, spend = 850, budget_reset_at = now() + interval '1 day' where user_id = 'a1';
             update \"LiteLLM_UserTable\" set max_budget = 10, spend = 11 where user_id = 'a2';
             update \"LiteLLM_TeamTable\" set max_budget = 10, spend = 5;
             insert into \"LiteLLM_EndUserTable\" (user_id, alias, spend) values ('somebody', 'Chats', 1)".to_owned(),
        ]
        .concat(),
    )
    .await;
    let mut daemon = Daemon::start(&pair);
    let prometheus = Prometheus::start(&daemon);
    pair.settle().await;
    // Somebody who was edited by hand, found by a comparison.
    pair.webui("update \"user\" set name = 'By hand' where id = 'usr_a12'").await;
    assert_eq!(run(&pair, &["verify"]).0, 3);
    let load = tokio::spawn(busy(pair.source.clone()));
    // One session lost, as every restart of a server loses it.
    let ended =
        "select pg_terminate_backend(active_pid) from pg_replication_slots where active_pid is not null";
    pair.ask_litellm(ended).await;

    let mut missing = Vec::new();
    let is_silent = |expression: &str| {
        MAY_BE_SILENT.iter().any(|(name, _)| expression.contains(&format!("{PREFIX}{name}")))
            || expression.starts_with("ALERTS")
    };
    let panels = panels();
    let questions = panels
        .iter()
        .flat_map(|panel| panel.expressions.iter().map(|one| (panel.title.clone(), filled_in(one))));
    let in_rules =
        metrics_in(RULES).into_iter().map(|name| (format!("rules: {name}"), format!("{PREFIX}{name}")));
    let questions: Vec<(String, String)> = questions.chain(in_rules).collect();
    // Rates need a few scrapes under load, some gauges their timers; what is there once need not be asked again.
    let mut open: Vec<&(String, String)> = questions.iter().collect();
    let start = Instant::now();
    while !open.is_empty() && start.elapsed() < DEADLINE {
        missing.clear();
        open.retain(|(title, expression)| match prometheus.query(expression) {
            Ok(values) if !values.is_empty() => false,
            found => {
                if found.is_err() || !is_silent(expression) {
                    missing.push(format!("{title}: {expression}: {found:?}"));
                }
                true
            }
        });
        if missing.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(missing.is_empty(), "no data:\n{}", missing.join("\n"));

    // Prometheus evaluates the rules itself as well.
    let all_rules = || -> Vec<Value> {
        let answer = prometheus.api("rules");
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect()
    };
    within(DEADLINE, "an evaluation of each rule", || async {
        let found = all_rules();
        found.len() == rules().len() && found.iter().all(|rule| rule["health"] != "unknown")
    })
    .await;
    for rule in all_rules() {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    // Pending or firing: what was arranged, and nothing that would wake somebody up about a daemon that is well.
    let arranged = ["BudgetExceeded", "BudgetWarning", "DeadLetters", "Drift"];
    let alerting = || -> Vec<String> {
        let active = all_rules().into_iter().filter(|rule| rule["state"] != "inactive");
        let names = active.map(|rule| rule["name"].as_str().unwrap().replace("LitellmWebuiSync", ""));
        names.collect::<BTreeSet<_>>().into_iter().collect()
    };
    let start = Instant::now();
    while alerting() != arranged && start.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(alerting(), arranged);
    assert!(!load.is_finished(), "the load ended: {:?}", load.await);
    load.abort();

    daemon.kill9();
    within(DEADLINE, "the alert that the daemon is down", || async {
        all_rules().iter().any(|rule| rule["name"] == "LitellmWebuiSyncDown" && rule["state"] != "inactive")
    })
    .await;
}
