//! What docker-compose.yml gives Postgres, run on a real one: databases, roles, and a daemon that has no right too many.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use litellm_webui_sync::catalog::TABLES;
use testbed::{Cluster, ClusterOptions, Schema, execute, load, open_webui_admin};

use crate::support::compare::assert_in_step;
use crate::support::daemon::{answer, run};
use crate::support::{Daemon, Pair, change, gone, key, people, rows, team};

const COMPOSE: &str = include_str!("../../docker-compose.yml");
const PREPARE: &str = include_str!("../../stack/postgres/prepare.sql");
const EXAMPLE: &str = include_str!("../../.env.example");

/// A file of the repository.
fn file(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).to_str().unwrap().to_owned()
}

/// Runs a script as its container does.
fn psql(cluster: &Cluster, script: &str) -> (i32, String) {
    let mut command = Command::new(testbed::psql::find().unwrap());
    command
        .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--dbname", &cluster.url("postgres")])
        .args(["--file", &file(script)]);
    for role in ["LITELLM", "WEBUI", "SYNC"] {
        command.env(format!("{role}_DB_PASSWORD"), "0123456789abcdef");
    }
    let (code, said, error) = answer(command.output().unwrap());
    (code, said + &error)
}

/// `database.table privilege` for everything a role was given in one database.
async fn privileges(url: &str, role: &str) -> Vec<String> {
    let sql = format!(
        "select table_schema || '.' || table_name || ' ' || privilege_type from information_schema.role_table_grants
          where grantee = '{role}' and table_schema = 'public' order by 1"
    );
    rows(url, &sql).await.into_iter().map(|mut row| row[0].take().unwrap()).collect()
}

/// The server's settings of docker-compose.yml.
fn settings() -> Vec<(String, String)> {
    let found: Vec<_> = COMPOSE
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- -c")?.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(found.iter().any(|(name, _)| name == "wal_level"), "{found:?}");
    found
}

#[tokio::test]
async fn the_roles_of_the_compose_file_are_enough_and_no_more_than_the_printed_ones() {
    let cluster = Cluster::start(ClusterOptions { settings: settings(), ..Default::default() }).unwrap();
    assert_eq!(psql(&cluster, "stack/postgres/init.sql"), (0, String::new()));
    // Both products make their tables with roles of their own.
    let owned = |name: &str| cluster.url(name).replace("postgres@", &format!("{name}@"));
    load(&owned("litellm"), Schema::LiteLlm1_110_2).await.unwrap();
    load(&owned("webui"), Schema::OpenWebUi0_12_4).await.unwrap();
    open_webui_admin(&owned("webui")).await.unwrap();
    for time in ["first", "second"] {
        let (code, said) = psql(&cluster, "stack/postgres/prepare.sql");
        assert_eq!(code, 0, "{time}: {said}");
    }

    let by_sync = |name: &str| cluster.url(name).replace("postgres@", "sync@");
    let pair = Pair {
        source: cluster.url("litellm"),
        target: cluster.url("webui"),
        daemon_source: by_sync("litellm"),
        daemon_target: by_sync("webui"),
        slot: "stack".to_owned(),
    };
    pair.litellm(&[people("a", 10), team("t", "T", None, &["a1", "a2"]), key("k", "a3")].concat()).await;
    let mut daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0, "{}", daemon.log());
    pair.litellm(&[gone("a1"), change("a2", "user_alias = 'Zwei'")].concat()).await;
    assert_eq!(pair.settle().await, 0, "{}", daemon.log());
    assert_in_step(&pair).await;
    let (code, said, error) = run(&pair, &["doctor"]);
    // Open WebUI's switches for API keys are turned on by its container, which is not here.
    let findings: Vec<&str> = said.lines().filter(|line| line.starts_with("finding")).collect();
    assert!(code == 0 || findings.iter().all(|line| line.contains("API keys")), "{code} {said}{error}");

    // Neither product reaches the other's database, nor the daemon what it has no business with.
    for (role, database) in [("litellm", "webui"), ("webui", "litellm"), ("sync", "postgres")] {
        let url = cluster.url(database).replace("postgres@", &format!("{role}@"));
        assert!(execute(&url, "select 1").await.is_err(), "{role} in {database}");
    }
    for (url, sql) in [
        (&pair.daemon_source, "update \"LiteLLM_UserTable\" set spend = 0"),
        (&pair.daemon_source, "create table t (x int)"),
        (&pair.daemon_target, "create table public.t (x int)"),
        (&pair.daemon_target, "delete from chat"),
        (&pair.daemon_target, "select * from chat"),
    ] {
        assert!(execute(url, sql).await.is_err(), "{sql}");
    }

    // What `setup --print-sql` gives, the compose file gives as well, and nothing else.
    execute(&cluster.url("postgres"), "create role printed login").await.unwrap();
    let asked = ["setup", "--print-sql", "--source-role", "printed", "--target-role", "printed"];
    let (code, sql, error) = run(&pair, &asked);
    assert_eq!(code, 0, "{error}");
    let at = sql.find("-- On Open WebUI's database").unwrap();
    for (url, part) in [(&pair.source, &sql[..at]), (&pair.target, &sql[at..])] {
        let grants: Vec<&str> = part.lines().filter(|line| !line.starts_with("create ")).collect();
        execute(url, &grants.join("\n")).await.unwrap();
        let (is, should) = (privileges(url, "sync").await, privileges(url, "printed").await);
        assert!(!is.is_empty());
        assert_eq!(is, should);
    }
    daemon.terminate();
}

#[test]
fn every_table_we_mirror_is_in_the_publication_of_the_stack() {
    for table in TABLES {
        assert!(PREPARE.contains(&format!("'{}'", table.source)), "{}", table.source);
    }
}

/// Variables of docker-compose.yml, and whether it insists on each.
fn variables() -> BTreeMap<&'static str, bool> {
    let mut found = BTreeMap::new();
    for part in COMPOSE.split("${").skip(1) {
        let name = part.split([':', '}']).next().unwrap();
        *found.entry(name).or_default() |= part[name.len()..].starts_with(":?");
    }
    found
}

#[test]
fn the_stack_insists_on_every_secret_and_the_example_has_none() {
    let example: BTreeMap<&str, &str> = EXAMPLE
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .collect();
    let variables = variables();
    assert_eq!(
        variables.keys().collect::<Vec<_>>(),
        example.keys().collect::<Vec<_>>(),
        "docker-compose.yml and .env.example"
    );
    for (name, insisted) in variables {
        assert_eq!(example[name], "", "{name}");
        assert_eq!(insisted, name != "OPENAI_API_KEY", "{name}");
    }
    for line in COMPOSE.lines().filter(|line| line.trim_start().starts_with("- \"") && line.contains(':')) {
        assert!(line.contains("\"127.0.0.1:"), "not on the loopback address: {line}");
    }
}

#[test]
fn new_secrets_fill_the_whole_example_and_differ_each_time() {
    let made = std::env::temp_dir().join(format!("env-{}", std::process::id()));
    let fill = |email: &str| {
        let mut command = Command::new("sh");
        answer(command.args([&file("stack/new-env"), email]).arg(&made).output().unwrap())
    };
    let read = || {
        let text = std::fs::read_to_string(&made).unwrap();
        let mode = std::fs::metadata(&made).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others can read it");
        text
    };
    assert_eq!(fill("admin@example.com"), (0, String::new(), String::new()));
    let text = read();
    // Not over one that is there: the salt in it is needed for ever.
    assert_ne!(fill("admin@example.com").0, 0);
    assert_eq!(read(), text);
    std::fs::remove_file(&made).unwrap();
    let values: BTreeMap<&str, &str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('=')).collect();
    assert_eq!(values["WEBUI_ADMIN_EMAIL"], "admin@example.com");
    assert_eq!(values["OPENAI_API_KEY"], "");
    let secrets: Vec<&str> = values
        .iter()
        .filter(|(name, _)| !["WEBUI_ADMIN_EMAIL", "OPENAI_API_KEY"].contains(*name))
        .map(|(_, value)| *value)
        .collect();
    assert_eq!(fill("admin@example.com").0, 0);
    let again = read();
    std::fs::remove_file(&made).unwrap();
    for (place, secret) in secrets.iter().enumerate() {
        // They stand in URLs.
        assert!(
            secret.len() >= 48 && secret.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'),
            "{secret}"
        );
        assert!(!secrets[..place].contains(secret) && !again.contains(secret));
    }
    for name in ["LITELLM_MASTER_KEY", "OPEN_WEBUI_LITELLM_KEY"] {
        assert!(values[name].starts_with("sk-"), "{name}");
    }
    for wrong in ["", "nobody", "a@b@c", "a b@c.d", "@b", "a@$(id)"] {
        assert_ne!(fill(wrong).0, 0, "{wrong}");
        assert!(!made.exists(), "{wrong}");
    }
}
