//! The chart and the kustomize manifests: what stands in them twice is the same, and a daemon works with what they give it.
//! Rendering them takes other programs: packaging/check-chart.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use litellm_webui_sync::config::reference;
use regex::Regex;

use crate::support::daemon::{DaemonOptions, fetch};
use crate::support::{Daemon, Pair, people};
use crate::takeover::stands_by;

const CHART: &str = "packaging/helm/litellm-webui-sync";
const KUSTOMIZE: &str = "packaging/kustomize";
const RULE_HEAD: &str = "\
# Made from grafana/prometheus/rules.yml: see docs/src/contributing.md.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: litellm-webui-sync
  labels:
    app.kubernetes.io/name: litellm-webui-sync
    app.kubernetes.io/instance: litellm-webui-sync
spec:
";

const DEPLOYMENT: &str = include_str!("../../packaging/kustomize/base/deployment.yaml");
const TOKEN: &str = "0123456789abcdef";

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Says that a file is not what it is made from, or makes it.
fn hold(path: &str, wanted: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(file(path), wanted).unwrap();
    }
    assert!(
        read(path) == wanted,
        "{path} is not up to date. Run:\n    UPDATE_DOCS=1 cargo nextest run chart::"
    );
}

#[test]
fn rules_and_dashboard_are_those_of_the_grafana_folder() {
    let rules = read("grafana/prometheus/rules.yml");
    let dashboard = read("grafana/dashboards/litellm-webui-sync.json");
    hold(&format!("{CHART}/files/rules.yml"), &rules);
    for folder in [format!("{CHART}/files"), format!("{KUSTOMIZE}/monitoring")] {
        hold(&format!("{folder}/litellm-webui-sync.json"), &dashboard);
    }
    let indented: String = rules
        .lines()
        .map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") })
        .collect();
    hold(&format!("{KUSTOMIZE}/monitoring/prometheusrule.yaml"), &format!("{RULE_HEAD}{indented}"));
    // What the chart's template replaces is there to be replaced.
    assert!(rules.contains("job=\"litellm-webui-sync\"") && rules.contains("runbook_url: docs/"));
}

/// `path, default, what it is` of every value, from values.yaml: the comment above a key describes it.
fn values() -> Vec<(String, String, String)> {
    let key = Regex::new(r"^( *)([A-Za-z]+):(?: (.+))?$").unwrap();
    let (mut parents, mut comment, mut found) = (Vec::<String>::new(), Vec::new(), Vec::new());
    let text = read(&format!("{CHART}/values.yaml"));
    // What the file says of itself ends with the first empty line.
    for line in text.split_once("\n\n").unwrap().1.lines().filter(|line| !line.is_empty()) {
        if let Some(said) = line.trim().strip_prefix("# ") {
            comment.push(said.to_owned());
            continue;
        }
        let parts =
            key.captures(line).unwrap_or_else(|| panic!("values.yaml: neither a key nor a comment: {line}"));
        parents.truncate(parts[1].len() / 2);
        parents.push(parts[2].to_owned());
        let said = comment.join(" ");
        comment.clear();
        if let Some(default) = parts.get(3) {
            assert!(!said.is_empty(), "{} has no comment", parents.join("."));
            found.push((parents.join("."), default.as_str().to_owned(), said));
        }
    }
    assert!(found.len() > 40);
    found
}

#[test]
fn the_charts_readme_has_every_value() {
    let path = format!("{CHART}/README.md");
    let (begin, end) = ("<!-- values: made from values.yaml -->\n", "<!-- values: end -->");
    let mut table = "| value | default | |\n|---|---|---|\n".to_owned();
    for (name, default, said) in values() {
        table.push_str(&format!("| `{name}` | `{default}` | {said} |\n"));
    }
    let text = read(&path);
    let (before, rest) = text.split_once(begin).unwrap();
    let after = rest.split_once(end).unwrap().1;
    hold(&path, &format!("{before}{begin}\n{table}\n{end}{after}"));
}

/// Variables that a file sets: the chart has some as keys of dictionaries.
fn variables(text: &str) -> BTreeSet<String> {
    let variable = Regex::new(
        r"\b(?:LITELLM_DATABASE|WEBUI_DATABASE|LITELLM_WEBUI_SYNC|DATABASE_SCHEMA|RUST_LOG)[A-Z_]*\b",
    )
    .unwrap();
    variable.find_iter(text).map(|found| found.as_str().trim_end_matches("_FILE").to_owned()).collect()
}

#[test]
fn the_chart_can_set_every_variable_and_no_other() {
    let known = variables(&reference::settings());
    assert!(known.len() > 10);
    assert_eq!(variables(&read(&format!("{CHART}/templates/_helpers.tpl"))), known);
    let ours = variables(DEPLOYMENT);
    assert!(ours.len() > 5 && ours.is_subset(&known), "{ours:?}");
}

#[test]
fn the_chart_is_of_this_version_and_listens_where_the_image_does() {
    let chart = read(&format!("{CHART}/Chart.yaml"));
    assert!(chart.contains(&format!("\nappVersion: \"{}\"\n", env!("CARGO_PKG_VERSION"))));
    let image = read("Dockerfile");
    let user = Regex::new(r"\nUSER (\d+):(\d+)\n").unwrap().captures(&image).unwrap();
    assert_eq!(user[1], user[2]);
    let values = values();
    for name in ["runAsUser", "runAsGroup", "fsGroup"] {
        let default = values.iter().find(|(path, _, _)| *path == format!("securityContext.{name}"));
        assert_eq!(default.unwrap().1, user[1], "{name}");
    }
    let port = Regex::new(r"\nEXPOSE (\d+)\n").unwrap().captures(&image).unwrap()[1].to_owned();
    for path in [format!("{CHART}/templates/deployment.yaml"), format!("{KUSTOMIZE}/base/deployment.yaml")] {
        assert!(read(&path).contains(&format!("containerPort: {port}\n")), "{path}");
    }
}

/// The daemon's variables in the Deployment, with `folder` for the one its files are mounted in.
fn environment(folder: &Path) -> Vec<(&'static str, String)> {
    let variable = Regex::new(r"- name: ([A-Z_]+)\n +value: (\S+)").unwrap();
    let folder = folder.to_str().unwrap();
    let found = variable.captures_iter(DEPLOYMENT).map(|found| {
        let (_, [name, value]) = found.extract();
        (name, value.replace("/etc/litellm-webui-sync", folder))
    });
    // The addresses come from the mounted files alone.
    let unset = ["LITELLM_DATABASE_URL", "WEBUI_DATABASE_URL"].map(|name| (name, String::new()));
    found.chain(unset).collect()
}

#[tokio::test]
async fn the_deployments_variables_files_and_probes_are_right_for_a_leader_and_a_standby() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let folder = std::env::temp_dir().join(format!("it-{}-chart", std::process::id()));
    for (name, text) in [
        ("secrets/LITELLM_DATABASE_URL", pair.daemon_source.as_str()),
        ("secrets/WEBUI_DATABASE_URL", &pair.daemon_target),
        ("secrets/LITELLM_WEBUI_SYNC_HTTP_TOKEN", TOKEN),
        ("policy/sync.toml", &read(&format!("{KUSTOMIZE}/base/sync.toml"))),
    ] {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let options = DaemonOptions { environment: environment(&folder), ..DaemonOptions::default() };
    let start = || Daemon::listening(&pair, Ipv4Addr::UNSPECIFIED, &options);
    let mut leader = start();
    leader.ready().await;
    let standby = start();
    stands_by(&standby).await;

    let probe = Regex::new(r"httpGet:\n +path: (\S+)\n").unwrap();
    let probes: Vec<&str> = probe.captures_iter(DEPLOYMENT).map(|found| found.extract::<1>().1[0]).collect();
    assert_eq!(probes.len(), 2);
    for daemon in [&leader, &standby] {
        // The kubelet and Prometheus ask by the pod's address.
        let ask = |path: &str| fetch(daemon.http(), "GET", path, &[("Host", "10.1.2.3:9466")]).unwrap().code;
        for path in &probes {
            assert_eq!(ask(path), 200, "{path}");
        }
        assert_eq!((ask("/metrics"), ask("/api/status")), (200, 401));
        let headers = [("Host", "10.1.2.3:9466"), ("Authorization", &format!("Bearer {TOKEN}"))];
        assert_eq!(fetch(daemon.http(), "GET", "/api/status", &headers).unwrap().code, 200);
    }
    // What the pod's end does: SIGTERM, and time to drain.
    let grace = Regex::new(r"terminationGracePeriodSeconds: (\d+)").unwrap();
    let grace: u64 = grace.captures(DEPLOYMENT).unwrap()[1].parse().unwrap();
    let (took, status) = leader.terminate();
    assert!(status.success() && took.as_secs() < grace, "{took:?} {status}");
    standby.ready().await;
    assert_eq!(pair.settle().await, 0);
    drop(std::fs::remove_dir_all(&folder));
}
