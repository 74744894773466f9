//! `report` says what helps, and nothing that strangers must not read: whatever the databases and the settings hold.

use serde_json::Value;
use testbed::{Cluster, ClusterOptions, Mode};

use crate::support::daemon::{DaemonOptions, answer, command, run};
use crate::support::{DEADLINE, Daemon, Pair, PairOptions, eventually, next_number, people, person, team};

/// In URLs, variables, the policy, tables, and messages of servers. Never shown.
const SECRETS: [&str; 5] = ["zqpass", "zqtoken-0123456789", "sk-zqkey", "zqmodel", "zqprefix"];
/// Shown only when asked for.
const PERSONAL: [&str; 9] =
    ["zqalice", "Zqalice", "zqcontoso", "zqbob", "Zqteam", "zqrole", "127.0.0.1", "10.9.8.7", "Zqpublic"];

const POLICY: &str = "[models]\nextra = [\"zqmodel\"]\nprefix = \"zqprefix\"\n[brake]\npeople = 7\n[access]\nkeys = \"required\"\n";

/// A report with everything planted.
fn report(pair: &Pair, arguments: &[&str]) -> String {
    let policy =
        std::env::temp_dir().join(format!("it-report-{}-{}.toml", std::process::id(), next_number()));
    std::fs::write(&policy, POLICY).unwrap();
    let mut command = command(pair);
    command
        .env("LITELLM_WEBUI_SYNC_HTTP_TOKEN", "zqtoken-0123456789")
        .env("LITELLM_WEBUI_SYNC_LITELLM_URL", "http://zqcontoso.example:4000")
        .env("LITELLM_WEBUI_SYNC_LITELLM_KEY", "sk-zqkey-1")
        .env("LITELLM_WEBUI_SYNC_CONFIG", &policy)
        .arg("report")
        .args(arguments);
    let (code, said, error) = answer(command.output().unwrap());
    drop(std::fs::remove_file(policy));
    assert_eq!((code, error.as_str()), (0, ""), "{said}");
    said
}

/// Another role's URL, with a password that nobody asks for.
fn as_role(url: &str) -> String {
    url.replace("postgres@", "zqrole:zqpass@")
}

#[tokio::test]
async fn nothing_that_strangers_must_not_read_is_in_a_report_wherever_it_was_put() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let mut pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm("create role zqrole superuser login").await;
    (pair.daemon_source, pair.daemon_target) = (as_role(&pair.source), as_role(&pair.target));
    pair.litellm(
        &[person("zqalice", "zqalice@zqcontoso.example"), people("a", 3), team("t", "Zqteam", None, &["a1"])]
            .concat(),
    )
    .await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    // A conflict of two people, and a trigger that says what it likes.
    pair.webui(
        "create function public.refuse() returns trigger language plpgsql as $$ begin
             if new.email like 'zqbob%' then
                 raise exception 'Zqalice Doe (zqalice@zqcontoso.example) says no to %', new.email
                       using errcode = '23514', constraint = 'Zqalice Doe, sk-zqkey-2', table = 'user';
             end if; return new; end $$;
         create trigger refuse before insert on \"user\" for each row execute function public.refuse()",
    )
    .await;
    pair.litellm(
        &[person("twin", "zqalice@zqcontoso.example"), person("zqbob", "zqbob@zqcontoso.example")].concat(),
    )
    .await;
    assert_eq!(pair.settle().await, 2);
    daemon.terminate();
    // Whatever else may hold text, in case somebody or something writes it there.
    let text = "could not connect to zqrole@127.0.0.1:5432/x: FATAL: Zqalice is out (SQLSTATE 28000); password=zqpass1, \
                10.9.8.7, zqalice@zqcontoso.example, \"Zqteam\", postgresql://zqrole:zqpass@127.0.0.1/x, sk-zqkey-3";
    pair.webui(&format!(
        "set search_path = litellm_webui_sync;
         insert into backfill (reason, slot, healing) values ('{text}', 'x', false);
         insert into brake (end_lsn, people, active, reason) values ('0/1', 1, 2, '{text}');
         insert into resnapshot (request, tables, dry_run, error) values (gen_random_uuid(), '{{}}', true, '{text}');
         insert into sync_audit (operation, record_id, sync_result, error_message, new_data, created_at)
         values ('SYNC_USER', 'zqalice', 'FAILED', '{text}', '{{\"email\": \"zqalice@zqcontoso.example\"}}', now());
         insert into dead_letter (kind, key, operation, reason, first_seen, last_seen)
         values ('account', 'zqalice', 'SYNC_USER', '{text}', now(), now());
         insert into skipped (user_id, reason, since) values ('zqalice', '{text}', now());
         insert into pause (reason) values ('Zqalice asked for it, sk-zqkey-4');
         update daemon set reason = '{text}'"
    ))
    .await;
    pair.webui("insert into model (id, user_id, name, meta, params, is_active, created_at, updated_at) values ('Zqpublic', '', 'Zqpublic', '{}', '{}', true, 1, 1)")
        .await;
    for form in [&[][..], &["--json"]] {
        let said = report(&pair, form);
        let databases = [&pair.source, &pair.target].map(|url| url.rsplit('/').next().unwrap());
        for word in SECRETS.into_iter().chain(PERSONAL).chain(databases).chain([pair.slot.as_str()]) {
            let line = said.lines().find(|line| line.contains(word)).unwrap_or_default();
            assert!(!said.contains(word), "{form:?}: {word} is in: {line}");
        }
        // And it is not empty for that.
        for word in [
            env!("CARGO_PKG_VERSION"),
            "brake.people",
            "required",
            "SQLSTATE 23514",
            "another LiteLLM user has a better claim to the e-mail",
            "LiteLLM_UserTable",
            "max_slot_wal_keep_size",
            "28000",
            "first run",
        ] {
            assert!(said.contains(word), "{form:?} has no {word}:\n{said}");
        }
    }
    for form in [&["--names"][..], &["--names", "--json"]] {
        let said = report(&pair, form);
        for word in SECRETS {
            assert!(!said.contains(word), "{form:?}: {word} is shown");
        }
        for word in ["zqalice@zqcontoso.example", "zqbob", "Zqteam", "zqrole", "127.0.0.1"] {
            assert!(said.contains(word), "{form:?} has no {word}:\n{said}");
        }
    }
}

#[tokio::test]
async fn what_can_be_had_is_there_when_an_end_is_out_of_reach() {
    let (source, target) = (
        Cluster::start(ClusterOptions::default()).unwrap(),
        Cluster::start(ClusterOptions::default()).unwrap(),
    );
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    let json = || -> Value {
        let (code, said, error) = run(&pair, &["report", "--json"]);
        assert_eq!(code, 0, "{said}{error}");
        serde_json::from_str(&said).unwrap()
    };
    // Before anything was set up.
    let fresh = json();
    assert_eq!(fresh["Open WebUI"]["books"], "not there yet");
    assert_eq!(fresh["policy"], serde_json::json!({}));
    pair.litellm(&people("a", 3)).await;
    pair.litellm(
        "create table if not exists _prisma_migrations (migration_name text, finished_at timestamptz, rolled_back_at timestamptz);
         insert into _prisma_migrations (migration_name, finished_at) values ('20990101_newest', now())",
    )
    .await;
    let daemon = Daemon::with(&pair, &DaemonOptions::default());
    pair.settle().await;
    let whole = json();
    assert_eq!(whole["LiteLLM"]["migrations"][0]["newest"], "20990101_newest");
    assert_eq!(whole["status"]["accounts_active"], 3);
    assert_eq!(whole["Open WebUI"]["books"]["checkpoint"][0]["epoch"], 2, "{whole:#}");
    assert!(whole["Open WebUI"]["layout"].as_str().unwrap().contains("access_grant"), "{whole:#}");
    drop(daemon);
    source.stop(Mode::Immediate, DEADLINE).unwrap();
    let half = json();
    assert!(half["LiteLLM"]["failed"].as_str().unwrap().contains("could not connect"), "{half:#}");
    assert!(half["status"]["failed"].is_string());
    assert_eq!(half["Open WebUI"]["books"]["copies"][0]["reason"], "first run");
    target.stop(Mode::Immediate, DEADLINE).unwrap();
    let none = json();
    assert!(none["Open WebUI"]["failed"].is_string() && none["report"]["version"].is_string());
    let file = std::env::temp_dir().join(format!("it-report-{}.txt", std::process::id()));
    let (code, said, error) = run(&pair, &["report", "--output", file.to_str().unwrap()]);
    assert_eq!((code, said.as_str()), (0, ""), "{error}");
    eventually("the file", || async { file.exists() }).await;
    let written = std::fs::read_to_string(&file).unwrap();
    drop(std::fs::remove_file(&file));
    assert!(error.contains("read it before") && written.starts_with("report\n"), "{error}{written}");
}
