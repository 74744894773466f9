//! `doctor` finds what would keep the daemon from its work, and says the exact fix.

use serde_json::Value;
use testbed::{Cluster, ClusterOptions, Mode};

use crate::support::daemon::{command, run};
use crate::support::{DEADLINE, Daemon, Pair, PairOptions, person};

/// Names of what is not fine, in order.
fn findings(pair: &Pair) -> (i32, Vec<String>, Vec<Value>) {
    let (code, out, error) = run(pair, &["doctor", "--json"]);
    let checks: Vec<Value> = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
    let found: Vec<Value> = checks.into_iter().filter(|check| check["verdict"] != "fine").collect();
    (code, found.iter().map(|check| check["name"].as_str().unwrap().to_owned()).collect(), found)
}

#[tokio::test]
async fn a_healthy_pair_has_no_finding_and_each_ailment_is_named_with_its_fix() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    // Never set up, never run: what a first-time user sees. Only the limit is missing.
    let (code, names, found) = findings(&pair);
    assert_eq!((code, names), (3, vec!["max_slot_wal_keep_size".to_owned()]), "{found:?}");
    assert!(found[0]["fix"].as_str().unwrap().contains("alter system set max_slot_wal_keep_size"));
    cluster.configure(&[("max_slot_wal_keep_size", "4GB")]).unwrap();
    assert_eq!(findings(&pair).0, 0);
    pair.litellm(&[person("a", "a@x.test"), person("b", " A@x.test")].concat()).await;
    pair.webui("update auth set active = false").await;
    let (_, names, found) = findings(&pair);
    assert_eq!(names, ["people who share an e-mail", "Open WebUI's admins"], "{found:?}");
    assert_eq!(found[0]["found"], "2 LiteLLM users");
    pair.litellm("delete from \"LiteLLM_UserTable\"").await;
    pair.webui("update auth set active = true").await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(findings(&pair).1, Vec::<String>::new());
    // Open WebUI's own switches, in the shape of 0.12.4.
    pair.webui("insert into config (key, value) values ('auth.enable_api_keys', 'false'), ('user.permissions', '{\"features\": {\"api_keys\": false}}')").await;
    let (code, names, found) = findings(&pair);
    assert_eq!((code, names), (3, vec!["Open WebUI's API keys".to_owned()]), "{found:?}");
    pair.webui("update config set value = 'true' where key = 'auth.enable_api_keys'").await;
    assert!(findings(&pair).2[0]["found"].as_str().unwrap().contains("features.api_keys"));
    pair.webui("delete from config").await;
    pair.webui("insert into config (key, value) values ('oauth.enable_group_mapping', 'true')").await;
    let (_, names, found) = findings(&pair);
    assert_eq!(names, ["Open WebUI's groups at sign-in"], "{found:?}");
    assert!(found[0]["fix"].as_str().unwrap().contains("ENABLE_OAUTH_GROUP_MANAGEMENT=false"));
    pair.webui("delete from config").await;
    // Two people with one e-mail, and a row filter somebody added.
    pair.litellm(&[person("a", "a@x.test"), person("b", "a@x.test")].concat()).await;
    pair.settle().await;
    drop(daemon);
    // A table that loses its replica identity comes first: nothing else is done to LiteLLM before that is mended.
    pair.litellm("alter table \"LiteLLM_TeamTable\" replica identity nothing").await;
    let (code, names, found) = findings(&pair);
    assert_eq!(code, 3);
    assert_eq!(names, ["publication", "replica identity", "e-mail conflicts"], "{found:?}");
    assert!(found[0]["fix"].as_str().unwrap().contains("drop table"), "{found:?}");
    let fix = found[1]["fix"].as_str().unwrap();
    pair.litellm(fix.strip_prefix("on LiteLLM's database: ").unwrap()).await;
    pair.litellm(
        "alter publication litellm_webui_sync set table \"LiteLLM_UserTable\" where (user_id <> 'x')",
    )
    .await;
    let (_, names, found) = findings(&pair);
    assert_eq!(names, ["publication", "e-mail conflicts"], "{found:?}");
    assert!(found[0]["found"].as_str().unwrap().contains("row filter"), "{found:?}");
    pair.litellm(found[0]["fix"].as_str().unwrap()).await;
    assert_eq!(findings(&pair).1, ["e-mail conflicts"]);
}

#[tokio::test]
async fn missing_privileges_and_servers_are_findings_not_crashes() {
    let source = Cluster::start(ClusterOptions::default()).unwrap();
    let target = Cluster::start(ClusterOptions::default()).unwrap();
    source.configure(&[("max_slot_wal_keep_size", "4GB")]).unwrap();
    let mut pair = Pair::on(&source, &target, PairOptions::default()).await;
    pair.litellm("create role weak login").await;
    pair.webui("create role weak login").await;
    let (own_source, own_target) = (pair.daemon_source.clone(), pair.daemon_target.clone());
    pair.daemon_source = own_source.replace("postgres@", "weak@");
    pair.daemon_target = own_target.replace("postgres@", "weak@");
    let (code, names, found) = findings(&pair);
    assert_eq!(code, 3);
    for name in
        ["replication connection", "SELECT on LiteLLM's tables", "privileges in Open WebUI's database"]
    {
        assert!(names.iter().any(|found| found == name), "{name} is not in {found:?}");
    }
    (pair.daemon_source, pair.daemon_target) = (own_source, own_target);
    target.stop(Mode::Immediate, DEADLINE).unwrap();
    let (code, names, _) = findings(&pair);
    assert_eq!((code, names), (3, vec!["Open WebUI's database".to_owned()]));
    target.start_again().unwrap();
    // For people: every finding with why and fix.
    let out = command(&pair).args(["doctor"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stdout).contains("ok       wal_level: logical"));
}
