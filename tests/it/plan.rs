//! `plan` says exactly what `run` then does, and does nothing itself.

use std::collections::BTreeSet;

use serde_json::Value;
use testbed::{Cluster, ClusterOptions, Schema, execute, seed};

use crate::support::compare::{Foreign, assert_in_step_with};
use crate::support::daemon::{DaemonOptions, command, run};
use crate::support::{
    Daemon, Pair, PairOptions, change, gone, key, organization, people, person, rows, team,
};

fn plan(pair: &Pair, policy: &str) -> Value {
    let file = std::env::temp_dir().join(format!("it-{}-{}.toml", std::process::id(), pair.slot));
    std::fs::write(&file, policy).unwrap();
    let output = command(pair).args(["plan", "--json", "--config"]).arg(&file).output().unwrap();
    std::fs::remove_file(&file).unwrap();
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{error}");
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"))
}

type Lines = BTreeSet<String>;

/// One line for each row of a list, of some of its fields.
fn lines(plan: &Value, list: &str, fields: &[&str]) -> Lines {
    let field = |row: &Value, name: &str| match &row[name] {
        Value::String(text) => text.clone(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let line = |row: &Value| fields.iter().map(|name| field(row, name)).collect::<Vec<_>>().join("|");
    plan[list].as_array().unwrap().iter().map(line).collect()
}

async fn ask(pair: &Pair, sql: &str) -> Lines {
    rows(&pair.target, sql).await.into_iter().map(|mut row| row.remove(0).unwrap_or_default()).collect()
}

/// What Open WebUI holds: accounts, groups, members, who has which key, models, grants.
struct Seen {
    accounts: Lines,
    groups: Lines,
    members: Lines,
    keys: Lines,
    models: Lines,
    grants: Lines,
}

impl Seen {
    async fn look(pair: &Pair) -> Self {
        let has = async |table: &str| {
            pair.ask(&format!("select to_regclass('public.{table}') is not null")).await == "t"
        };
        let members = if has("group_member").await {
            "select group_id || '|' || user_id from group_member"
        } else {
            "select g.id || '|' || e from \"group\" g cross join json_array_elements_text(g.user_ids) e"
        };
        let keys = if has("api_key").await {
            "select user_id || '|' || key from api_key"
        } else {
            "select id || '|' || api_key from \"user\" where api_key is not null"
        };
        let grants = if has("access_grant").await {
            "select resource_id || '|' || principal_type || '|' || principal_id from access_grant where resource_type = 'model'"
        } else {
            "select m.id || '|' || p.type || '|' || e from model m cross join (values ('user'), ('group')) p(type)
              cross join json_array_elements_text(coalesce(m.access_control #> array['read', p.type || '_ids'], '[]')) e"
        };
        Self {
            accounts: ask(
                pair,
                "select concat_ws('|', u.id, u.email, u.name, u.role, a.active) from \"user\" u left join auth a using (id)",
            )
            .await,
            groups: ask(pair, "select id || '|' || name from \"group\"").await,
            members: ask(pair, members).await,
            keys: ask(pair, keys).await,
            models: ask(pair, "select id || '|' || is_active from model").await,
            grants: ask(pair, grants).await,
        }
    }
}

fn without_last(lines: impl IntoIterator<Item = String>) -> Lines {
    lines.into_iter().filter_map(|line| line.rsplit_once('|').map(|(first, _)| first.to_owned())).collect()
}

fn difference(more: &Lines, less: &Lines) -> Lines {
    more.difference(less).cloned().collect()
}

/// Every row the plan names is what came of it, and nothing else came.
async fn assert_came_true(pair: &Pair, plan: &Value, before: &Seen) {
    let after = Seen::look(pair).await;
    let account = |line: &String| line.rsplit_once('|').map(|(first, _)| first.to_owned());
    let now: Lines = difference(&after.accounts, &before.accounts).iter().filter_map(account).collect();
    let changed: Lines = plan["accounts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| {
            // An adopted account that is right already is not written.
            row["action"] != "adopt"
                || ["old_email", "old_name", "old_role"].iter().any(|old| !row[*old].is_null())
        })
        .map(|row| {
            ["webui_id", "email", "name", "role"]
                .map(|field| row[field].as_str().unwrap_or_default())
                .join("|")
        })
        .collect();
    assert_eq!(now, changed, "accounts");
    let lists = |list: &str, action: &str, fields: &[&str]| -> Lines {
        let with_action: Vec<&str> = [&["action"], fields].concat();
        lines(plan, list, &with_action)
            .into_iter()
            .filter_map(|line| line.strip_prefix(&format!("{action}|")).map(str::to_owned))
            .collect()
    };
    let created: Lines = difference(&after.groups, &before.groups);
    let planned: Lines = lists("groups", "create", &["webui_id", "name"])
        .into_iter()
        .chain(lists("groups", "rename", &["webui_id", "name"]))
        .collect();
    assert_eq!(created, planned, "groups");
    assert_eq!(
        difference(&after.members, &before.members),
        lists("members", "join", &["group_id", "webui_id"]),
        "members"
    );
    assert_eq!(
        difference(&before.members, &after.members),
        lists("members", "leave", &["group_id", "webui_id"]),
        "members"
    );
    let minted = without_last(difference(&after.keys, &before.keys));
    assert_eq!(minted, lists("keys", "mint", &["webui_id"]), "keys");
    let models = without_last(difference(&after.models, &before.models));
    let planned: Lines = ["create", "activate", "retire"]
        .iter()
        .flat_map(|action| lists("models", action, &["model_id"]))
        .collect();
    assert_eq!(models, planned, "models");
    let fields = &["model_id", "principal_type", "principal_id"];
    let public = |lines: Lines| -> Lines { lines.into_iter().filter(|line| !line.ends_with("|*")).collect() };
    assert_eq!(public(difference(&after.grants, &before.grants)), lists("grants", "grant", fields), "grants");
    assert_eq!(
        public(difference(&before.grants, &after.grants)),
        lists("grants", "revoke", fields),
        "grants"
    );
    let skipped = ask(pair, "select user_id || '|' || reason from litellm_webui_sync.skipped").await;
    assert_eq!(skipped, lines(plan, "skipped", &["user_id", "reason"]));
    let letters =
        ask(pair, "select concat_ws('|', kind, key, reason) from litellm_webui_sync.dead_letter").await;
    assert_eq!(letters, lines(plan, "failures", &["kind", "key", "reason"]));
}

/// Rows of Open WebUI's own that a plan has to reckon with.
fn found_before() -> String {
    "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at) values
        ('x1', 'Found', 'a1@x.test', 'user', 'p', 1, 1, 1), ('x2', 'Waiting', 'a2@x.test', 'pending', 'p', 1, 1, 1),
        ('x3', 'Boss', 'a3@x.test', 'admin', 'p', 1, 1, 1), ('usr_a4', 'Earlier', 'a4@x.test', 'user', 'p', 1, 1, 1);
     insert into auth (id, email, password, active) values ('x1', 'a1@x.test', 'secret', true), ('x2', 'a2@x.test', 'secret', true),
        ('x3', 'a3@x.test', 'secret', true), ('usr_a4', 'a4@x.test', 'secret', true);
     insert into \"group\" (id, user_id, name, description, created_at, updated_at) values ('grp_team_t', 'x1', 'By hand', '', 1, 1);
     insert into model (id, user_id, base_model_id, name, params, meta, is_active, created_at, updated_at) values
        ('gpt-4', 'x1', null, 'Mine', '{}', '{}', true, 1, 1);"
        .to_owned()
}

fn litellm() -> String {
    [
        crate::access::served(),
        people("a", 20),
        person("same", "a5@x.test"),
        person("none", ""),
        person("bad", "not an e-mail"),
        organization("o", "O"),
        team("t", "T", Some("o"), &["a1", "a2", "a3"]),
        team("u", "U", None, &["a4", "a5", "same"]),
        key("1", "a1"),
        key("2", "a6"),
        "update \"LiteLLM_UserTable\" set models = '{gpt-4}' where user_id in ('a1', 'a4');
         update \"LiteLLM_UserTable\" set user_role = 'proxy_admin' where user_id in ('a1', 'a7');"
            .to_owned(),
    ]
    .concat()
}

async fn comes_true(webui: Schema, policy: &str) -> (Value, Pair, Daemon) {
    let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
    pair.webui(&found_before()).await;
    pair.litellm(&litellm()).await;
    let before = Seen::look(&pair).await;
    let objects = "select count(*) from pg_class where relnamespace not in
                     (select oid from pg_namespace where nspname ~ '^pg_temp' or nspname ~ '^pg_toast_temp')";
    let (here, there) = (pair.ask(objects).await, pair.ask_litellm(objects).await);
    let planned = plan(&pair, policy);
    // It left nothing behind, in either database.
    assert_eq!((pair.ask(objects).await, pair.ask_litellm(objects).await), (here, there), "{webui}");
    assert_eq!(pair.ask("select count(*) from pg_namespace where nspname = 'litellm_webui_sync'").await, "0");
    assert_eq!(pair.ask_litellm("select count(*) from pg_publication").await, "0");
    assert!(difference(&Seen::look(&pair).await.accounts, &before.accounts).is_empty());
    let options = DaemonOptions { policy: Some(policy.to_owned()), ..DaemonOptions::default() };
    let daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    assert_came_true(&pair, &planned, &before).await;
    // And then there is nothing left to do, nor to plan.
    let later = plan(&pair, policy);
    assert_eq!(later["has_run"], true);
    for list in ["accounts", "groups", "members", "keys", "models", "grants"] {
        assert_eq!(later[list], Value::Array(Vec::new()), "{webui} {list}");
    }
    (planned, pair, daemon)
}

#[tokio::test]
async fn on_a_quiet_source_run_does_exactly_what_plan_said_on_every_layout() {
    for webui in Schema::open_webui() {
        let (planned, _, _) = comes_true(webui, "").await;
        let actions = lines(&planned, "accounts", &["action", "webui_id"]);
        for expected in ["adopt|x1", "adopt|x2", "adopt|usr_a4", "create|usr_a5", "create|usr_a7"] {
            assert!(actions.contains(expected), "{webui}: {expected} is not in {actions:?}");
        }
        // Adopting an admin is the policy's to allow; one e-mail has one account.
        let failures = lines(&planned, "failures", &["key"]);
        assert_eq!(failures, ["a3", "same"].map(str::to_owned).into(), "{webui}");
        assert_eq!(planned["skipped"].as_array().unwrap().len(), 2);
        let x1 = planned["accounts"].as_array().unwrap().iter().find(|row| row["webui_id"] == "x1").unwrap();
        assert_eq!((&x1["old_role"], &x1["role"]), (&"user".into(), &"admin".into()), "{webui}");
        assert!(lines(&planned, "groups", &["action", "webui_id"]).contains("use|grp_team_t"));
        assert_eq!(planned["keys"].as_array().unwrap().len(), 2);
        assert!(!planned["grants"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn every_policy_is_in_the_plan() {
    for policy in [
        "api_keys = \"off\"\n[accounts]\nadopt = \"skip\"\nname = \"user\"\n",
        "[accounts]\nadopt_admins = true\ndemote = \"always\"\n[models]\nextra = [\"from-config\"]\n[grants]\ngroup_min = 1\n",
        "[access]\nkeys = \"required\"\n[models]\npublic = \"take\"\nprefix = \"p\"\n",
    ] {
        for webui in [Schema::OpenWebUi0_6_30, Schema::OpenWebUi0_12_4] {
            comes_true(webui, policy).await;
        }
    }
}

#[tokio::test]
async fn awkward_rows_are_planned_as_they_are_written() {
    let pair = Pair::new().await;
    seed(&pair.source, 120, 8, 3, 150).await.unwrap();
    let before = Seen::look(&pair).await;
    let planned = plan(&pair, "");
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_came_true(&pair, &planned, &before).await;
}

#[tokio::test]
async fn where_a_daemon_has_run_it_says_what_another_policy_would_change() {
    let (_, pair, _daemon) = comes_true(Schema::OpenWebUi0_12_4, "").await;
    pair.litellm(&[gone("a8"), change("a9", "user_alias = 'New'"), person("late", "late@x.test")].concat())
        .await;
    pair.settle().await;
    let before = Seen::look(&pair).await;
    let policy = "[accounts]\nadopt_admins = true\n[models]\nextra = [\"more\"]\n";
    let planned = plan(&pair, policy);
    assert_eq!(lines(&planned, "accounts", &["action", "webui_id"]), ["adopt|x3".to_owned()].into());
    assert_eq!(lines(&planned, "models", &["action", "model_id"]), ["create|more".to_owned()].into());
    assert_eq!(Seen::look(&pair).await.accounts, before.accounts);
    // What somebody edited shows, too.
    pair.webui("update \"user\" set name = 'Edited' where id = 'usr_a9'").await;
    let edited = plan(&pair, "");
    assert_eq!(
        lines(&edited, "accounts", &["action", "webui_id", "name", "old_name"]),
        ["update|usr_a9|New|Edited".to_owned()].into()
    );
    pair.webui("update \"user\" set name = 'New' where id = 'usr_a9'").await;
}

#[tokio::test]
async fn who_may_only_read_can_plan_and_what_is_missing_is_said() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let mut pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm(&litellm()).await;
    execute(&pair.source, "create role looks login").await.unwrap();
    let (source, target) = (pair.daemon_source.clone(), pair.daemon_target.clone());
    pair.daemon_source = source.replace("postgres@", "looks@");
    let (code, _, error) = run(&pair, &["plan"]);
    assert!(
        code == 1 && error.contains("lacks select on LiteLLM_") && error.contains("what to do"),
        "{error}"
    );
    pair.litellm("grant select on all tables in schema public to looks").await;
    pair.daemon_target = target.replace("postgres@", "looks@");
    let (code, _, error) = run(&pair, &["plan"]);
    assert!(
        code == 1 && error.contains("select on access_grant") && error.contains("select on user"),
        "{error}"
    );
    pair.webui("grant select on all tables in schema public to looks").await;
    let (code, out, error) = run(&pair, &["plan"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("accounts  20 create") && !out.contains('\u{1b}'), "{out}");
    let database = pair.target.rsplit('/').next().unwrap();
    execute(&pair.target, &format!("revoke temporary on database {database} from public")).await.unwrap();
    let (code, _, error) = run(&pair, &["plan"]);
    assert!(code == 1 && error.contains("temporary on the database"), "{error}");
    assert_eq!(run(&pair, &["plan", "--nonsense"]).0, 2);
}

#[tokio::test]
async fn nobody_waits_for_a_plan_and_without_an_admin_it_says_so() {
    let pair = Pair::with(PairOptions { admin: false, ..PairOptions::default() }).await;
    pair.litellm(&people("a", 3)).await;
    // Locks of others on Open WebUI's rows are nothing to it.
    let client = testbed::connect(&pair.target).await.unwrap();
    client
        .batch_execute(
            "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at)
             values ('x', 'X', 'x@x.test', 'user', 'p', 1, 1, 1);
             insert into auth (id, email, password, active) values ('x', 'x@x.test', '', true)",
        )
        .await
        .unwrap();
    client
        .batch_execute(
            "begin; lock table \"user\", auth, \"group\", model in row exclusive mode;
             update \"user\" set name = name",
        )
        .await
        .unwrap();
    let (code, out, error) = run(&pair, &["plan"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("no admin yet") && out.contains("3 create"), "{out}");
    client.batch_execute("rollback; update \"user\" set role = 'admin'").await.unwrap();
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let foreign = Foreign { accounts: ["x".to_owned()].into(), ..Foreign::default() };
    assert_in_step_with(&pair, &foreign).await;
}
