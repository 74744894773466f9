//! The chart and the kustomize manifests: what stands in them twice is the same, and the variables they set are the daemon's.
//! Rendering them takes other programs: packaging/check-chart.

use std::collections::BTreeSet;
use std::path::Path;

use litellm_webui_sync::config::reference;
use regex::Regex;

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

fn file(path: &str) -> std::path::PathBuf {
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
        "{path} is not up to date. Run:\n    UPDATE_DOCS=1 cargo nextest run packaging"
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
        let parts = key.captures(line).unwrap_or_else(|| panic!("values.yaml: neither a key nor a comment: {line}"));
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
    let (begin, end) = ("<!-- values: made from values.yaml -->\n\n", "\n<!-- values: end -->");
    let mut table = "| value | default | |\n|---|---|---|\n".to_owned();
    for (name, default, said) in values() {
        table.push_str(&format!("| `{name}` | `{default}` | {said} |\n"));
    }
    let text = read(&path);
    let (before, rest) = text.split_once(begin).unwrap();
    let after = rest.split_once(end).unwrap().1;
    hold(&path, &format!("{before}{begin}{table}{end}{after}"));
}

/// Variables that a file sets: the chart has some as keys of dictionaries.
fn variables(text: &str) -> BTreeSet<String> {
    let variable = Regex::new(r"\b(?:LITELLM_DATABASE|WEBUI_DATABASE|LITELLM_WEBUI_SYNC|DATABASE_SCHEMA|RUST_LOG)[A-Z_]*\b").unwrap();
    variable.find_iter(text).map(|found| found.as_str().trim_end_matches("_FILE").to_owned()).collect()
}

#[test]
fn the_chart_can_set_every_variable_and_no_other() {
    let known = variables(&reference::settings());
    assert!(known.len() > 10);
    assert_eq!(variables(&read(&format!("{CHART}/templates/_helpers.tpl"))), known);
    let ours = variables(&read(&format!("{KUSTOMIZE}/base/deployment.yaml")));
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
