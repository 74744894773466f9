//! Fail closed: what cannot be read narrows and says so, and nothing LiteLLM's database can hold ends the daemon.

use testbed::{Cluster, ClusterOptions, execute};

use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::models::visible;
use crate::support::{
    Daemon, Pair, PairOptions, change, eventually, gone, key, organization, people, quote, rekey, rostered,
    team,
};

async fn sees(pair: &Pair, account: &str) -> String {
    let shown = visible(pair).await.remove(account).unwrap_or_default();
    shown.into_iter().collect::<Vec<_>>().join(" ")
}

/// Statement: a row of LiteLLM's models with this `model_info`.
fn model(id: &str, name: &str, info: &str) -> String {
    format!(
        "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, model_info, created_by, updated_by)
         values ({}, {}, '{{}}', {}, '', '');",
        quote(id),
        quote(name),
        quote(info)
    )
}

/// Statements: LiteLLM serves these.
fn served(names: &[&str]) -> String {
    names.iter().map(|name| model(&format!("id-{name}"), name, "{}")).collect()
}

fn deep() -> String {
    format!("{}{}", "[".repeat(130), "]".repeat(130))
}

#[tokio::test]
async fn json_too_deep_or_too_large_for_a_parser_still_says_what_it_says() {
    let pair = Pair::new().await;
    let odd = [deep(), "1e400".to_owned()];
    pair.litellm(&[people("a", 6), team("t", "T", None, &["a1", "a2"]), served(&["common"])].concat()).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(
        &[
            change("a3", "metadata = '{\"scim_active\": false}'"),
            change("a4", "metadata = '{\"scim_active\": false}'"),
        ]
        .concat(),
    )
    .await;
    pair.settle().await;
    for (user, odd) in ["a3", "a4"].into_iter().zip(&odd) {
        pair.litellm(&change(user, &format!("metadata = '{{\"scim_active\": false, \"x\": {odd}}}'"))).await;
    }
    let info =
        format!(r#"{{"team_id": "t", "team_public_model_name": "own", "cost": 1e400, "x": {}}}"#, deep());
    pair.litellm(&model("m9", "model_name_t_x", &info)).await;
    pair.litellm(&format!(
        "update \"LiteLLM_TeamTable\" set members_with_roles = '[{{\"user_id\": \"a1\", \"n\": 1e400}}, {}, {{\"user_id\": \"a2\"}}]'",
        deep()
    ))
    .await;
    pair.settle().await;
    for user in ["a3", "a4"] {
        assert_eq!(
            pair.account(&format!("{user}@x.test")).await,
            format!("usr_{user}|{user}|pending|locked")
        );
    }
    assert_eq!(pair.members("grp_team_t").await, "usr_a1 usr_a2");
    assert_eq!(
        (sees(&pair, "usr_a1").await.as_str(), sees(&pair, "usr_a5").await.as_str()),
        ("common own", "common")
    );
    // A copy reads the same.
    daemon.terminate();
    pair.webui("update litellm_webui_sync.checkpoint set copy_because = 'the test says so'").await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(pair.account("a3@x.test").await, "usr_a3|a3|pending|locked");
    assert_eq!(pair.members("grp_team_t").await, "usr_a1 usr_a2");
    // The oracle reads whole documents.
    pair.litellm("update \"LiteLLM_UserTable\" set metadata = metadata - 'x'").await;
    pair.litellm("update \"LiteLLM_ProxyModelTable\" set model_info = model_info - 'x' - 'cost'").await;
    pair.litellm(&rostered("t", &["a1", "a2"])).await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn lists_of_any_dimension_are_read_and_a_list_of_nulls_allows_nothing() {
    let pair = Pair::new().await;
    let every_list = "models = '{{gpt-4o},{claude}}'";
    pair.litellm(
        &[
            people("a", 5),
            organization("o", "O"),
            team("t", "T", Some("o"), &["a4"]),
            key("1", "a2"),
            served(&["claude", "gpt-4o", "other"]),
            change("a1", every_list),
        ]
        .concat(),
    )
    .await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_a1").await, "claude gpt-4o");
    pair.litellm(
        &[
            rekey("1", every_list),
            rekey("1", "allowed_routes = '{{/chat/completions}}', access_group_ids = '{{x},{y}}'"),
            change("a3", "models = '{NULL}'"),
            change("a5", "models = '[0:1]={gpt-4o,NULL}'"),
            format!("update \"LiteLLM_TeamTable\" set {every_list};"),
            "update \"LiteLLM_OrganizationTable\" set models = '{{claude},{NULL}}';".to_owned(),
        ]
        .concat(),
    )
    .await;
    pair.settle().await;
    let mut seen = Vec::new();
    for user in 1..=5 {
        seen.push(sees(&pair, &format!("usr_a{user}")).await);
    }
    // What stands beside a NULL goes with it: LiteLLM fails at it before it looks at names.
    assert_eq!(seen, ["claude gpt-4o", "claude gpt-4o", "", "", ""], "{}", daemon.log());
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

/// What a missing column would change if it counted as NULL.
async fn state(pair: &Pair) -> String {
    pair.ask(
        "select concat_ws(' ', (select count(*) from \"user\" where role = 'pending'), (select count(*) from \"user\" where role = 'admin'),
                          (select count(*) from group_member), (select count(*) from api_key))",
    )
    .await
}

#[tokio::test]
async fn a_column_that_every_litellm_has_is_waited_for_and_never_taken_for_null() {
    let pair = Pair::new().await;
    pair.litellm(
        &[
            people("a", 6),
            team("t", "T", None, &["a1", "a2"]),
            key("1", "a1"),
            key("2", "a2"),
            rekey("2", "blocked = true"),
            change("a3", "user_role = 'proxy_admin'"),
        ]
        .concat(),
    )
    .await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    let before = state(&pair).await;
    for (table, column, write) in [
        ("LiteLLM_UserTable", "user_email", change("a4", "spend = spend + 1, user_alias = 'x'")),
        ("LiteLLM_UserTable", "user_role", change("a3", "user_alias = 'y'")),
        (
            "LiteLLM_TeamTable",
            "members_with_roles",
            "update \"LiteLLM_TeamTable\" set team_alias = 'U';".to_owned(),
        ),
        ("LiteLLM_VerificationToken", "blocked", rekey("2", "key_name = 'z'")),
    ] {
        pair.litellm(&format!("alter table \"{table}\" rename \"{column}\" to \"{column}_\"")).await;
        // In the stream, with the column away.
        pair.litellm(&write).await;
        let name = format!("{table}.{column}");
        eventually(&format!("it says that {name} is missing"), || async {
            let (ready, why) = daemon.get("/readyz");
            ready == 503 && why.contains(&name)
        })
        .await;
        assert_eq!(state(&pair).await, before, "{name}");
        // The same at a start.
        if column == "blocked" {
            daemon.kill9();
            daemon = Daemon::start(&pair);
            eventually("it says so after a start", || async { daemon.get("/readyz").1.contains(&name) })
                .await;
            assert_eq!(state(&pair).await, before, "{name} after a start");
        }
        pair.litellm(&format!("alter table \"{table}\" rename \"{column}_\" to \"{column}\"")).await;
        eventually("it is ready again", || async { daemon.get("/readyz").0 == 200 }).await;
        pair.settle().await;
        assert_eq!(state(&pair).await, before, "{name} is back");
    }
    pair.litellm(&rostered("t", &["a1"])).await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

/// The daemon's role on Open WebUI's database owns nothing there, so row level security counts for it.
async fn with_a_role_of_its_own(pair: &mut Pair, role: &str) {
    execute(&pair.target, &format!("create role {role} login")).await.unwrap();
    let (code, sql, error) = run(pair, &["setup", "--print-sql", "target", "--target-role", role]);
    assert_eq!(code, 0, "{error}");
    execute(&pair.target, &sql).await.unwrap();
    pair.daemon_target = pair.target.replace("postgres@", &format!("{role}@"));
}

#[tokio::test]
async fn a_hidden_row_is_not_a_row_that_is_gone() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let mut pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    with_a_role_of_its_own(&mut pair, "hidden_sync").await;
    pair.litellm(&[people("a", 4), team("t", "T", None, &["a1", "a2"]), key("1", "a1")].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    for (table, write) in [
        ("\"user\"", gone("a3")),
        ("group_member", rostered("t", &["a1"])),
        ("api_key", rekey("1", "blocked = true")),
    ] {
        pair.webui(&format!("alter table {table} enable row level security")).await;
        pair.litellm(&write).await;
        eventually(&format!("it says that {table} hides rows"), || async {
            let (code, why) = daemon.get("/readyz");
            code == 503 && why.contains("row level security") && why.contains(table.trim_matches('"'))
        })
        .await;
        for command in ["doctor", "plan", "setup"] {
            let (code, out, err) = run(&pair, &[command]);
            assert!(code != 0 && (out + &err).contains("row level security"), "{command}");
        }
        pair.webui(&format!("alter table {table} disable row level security")).await;
        eventually("it goes on", || async { daemon.get("/readyz").0 == 200 }).await;
        pair.settle().await;
        assert_in_step(&pair).await;
    }
    assert_eq!(pair.account("a3@x.test").await, "usr_a3|a3|pending|locked");
}

#[tokio::test]
async fn an_open_webui_that_could_not_be_written_exactly_is_refused_before_anything_is_made() {
    let spoils = [
        (
            "alter table group_member drop constraint uq_group_member_group_user",
            "group_member (group_id, user_id)",
        ),
        ("alter table model drop constraint model_pkey cascade", "model (id)"),
        (
            "alter table access_grant drop constraint uq_access_grant_grant",
            "access_grant (permission, principal_id, principal_type, resource_id, resource_type)",
        ),
    ];
    for (spoil, word) in spoils {
        let pair = Pair::new().await;
        pair.litellm(&people("a", 2)).await;
        pair.webui(spoil).await;
        for command in [&["doctor"][..], &["plan"], &["setup"], &["run", "--http", "off"]] {
            let (code, out, err) = run(&pair, command);
            let said = out + &err;
            assert!(code != 0 && said.contains(word), "{command:?}: {said}");
            assert!(said.contains(" add "), "{command:?} says what to do: {said}");
        }
        let left = "select (select count(*) from pg_publication) + (select count(*) from pg_replication_slots where database = current_database())";
        assert_eq!(pair.ask_litellm(left).await, "0");
        assert_eq!(pair.ask("select to_regnamespace('litellm_webui_sync')").await, "");
    }
}

#[tokio::test]
async fn somebody_elses_schema_is_neither_used_nor_dropped() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 2)).await;
    pair.webui("create schema theirs; create table theirs.precious (id int)").await;
    let kept =
        "select to_regclass('theirs.precious') is not null and to_regclass('public.\"user\"') is not null";
    for schema in ["theirs"] {
        for command in [&["setup"][..], &["run", "--http", "off"], &["teardown", "--purge"]] {
            let (code, out, err) = run(&pair, &[command, &["--schema", schema]].concat());
            assert!(
                code == 1 && (out.clone() + &err).contains("is not ours"),
                "{schema} {command:?}: {out}{err}"
            );
        }
        assert_eq!(pair.ask(kept).await, "t");
    }
    // Ours, but not alone any more.
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    pair.webui("create table litellm_webui_sync.precious (id int)").await;
    let (code, out, err) = run(&pair, &["teardown", "--purge"]);
    assert!(code == 1 && (out.clone() + &err).contains("precious"), "{out}{err}");
    assert_eq!(pair.ask_litellm("select count(*) from pg_publication").await, "1");
    pair.webui("drop table litellm_webui_sync.precious").await;
    let (code, out, err) = run(&pair, &["teardown", "--purge"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(pair.ask("select to_regnamespace('litellm_webui_sync')").await, "");
}

#[tokio::test]
async fn a_table_that_is_rewritten_in_place_is_looked_at_again() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    let rewrite =
        |with: &str| format!("alter table \"LiteLLM_UserTable\" alter user_alias type text using '{with}'");
    let named = |name: &'static str| {
        let pair = &pair;
        eventually("the new values", move || async move {
            pair.ask(&format!("select count(*) from \"user\" where name = '{name}'")).await == "3"
        })
    };
    pair.litellm(&rewrite("While it runs")).await;
    named("While it runs").await;
    // What the stream said last is not what there is: to be called so again is a change.
    eventually("the look to be over", || async {
        pair.ask("select count(*) from litellm_webui_sync.resnapshot where finished_at is null").await == "0"
    })
    .await;
    pair.litellm("update \"LiteLLM_UserTable\" set user_alias = 'Said before'").await;
    named("Said before").await;
    pair.litellm(&rewrite("Rewritten")).await;
    named("Rewritten").await;
    pair.litellm("update \"LiteLLM_UserTable\" set user_alias = 'Said before'").await;
    named("Said before").await;
    daemon.terminate();
    pair.litellm(&rewrite("While it is away")).await;
    let daemon = Daemon::start(&pair);
    named("While it is away").await;
    // It costs a look where nothing changed, and no copy of everything.
    pair.litellm("vacuum full \"LiteLLM_UserTable\"").await;
    let looks = "select count(*) from litellm_webui_sync.resnapshot where because like '%rewritten: LiteLLM_UserTable' and finished_at is not null";
    eventually("a fourth look", || async { pair.ask(looks).await == "4" }).await;
    assert_eq!(
        pair.ask("select drift::text from litellm_webui_sync.resnapshot order by id desc limit 1").await,
        "{\"webui\": {}, \"mirror\": {}}"
    );
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.backfill").await, "1");
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
    // Nor an end of what the stream was at.
    assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
}

#[tokio::test]
async fn a_table_that_is_read_and_not_mirrored_may_go_and_what_is_looked_at_goes_without_it() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("drop table \"LiteLLM_EndUserTable\" cascade").await;
    eventually("the session to know", || async { daemon.log().contains("trying again") }).await;
    pair.litellm("vacuum full \"LiteLLM_UserTable\"").await;
    let looks = "select string_agg(phase, ' ') from litellm_webui_sync.resnapshot where because like '%rewritten: LiteLLM_UserTable'";
    eventually("the look", || async { pair.ask(looks).await == "done" }).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}

/// Statements: Open WebUI's first admin signs up: the one of [`crate::support::ADMIN`].
const SIGN_UP: &str = "
    insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at)
    values ('0a1b2c3d-0000-4000-8000-00000000ad01', 'First', 'first@webui.test', 'admin', '/user.png', 1, 1, 1);
    insert into auth (id, email, password, active) values ('0a1b2c3d-0000-4000-8000-00000000ad01', 'first@webui.test', '', true);";

/// Statements: Open WebUI's people are gone, and their table is another one.
const REMAKE: &str = "
    create table another (like \"user\" including all);
    drop table \"user\" cascade;
    alter table another rename to \"user\";
    truncate auth, \"group\" cascade;";

#[tokio::test]
async fn an_open_webui_made_anew_between_two_batches_gets_its_first_admin_before_anybody_is_written() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    let large = format!("truncate \"LiteLLM_TeamTable\" cascade; {}", people("c", 1));
    let emptied = "truncate \"user\", auth, \"group\" cascade";
    for (how, change) in [(emptied, people("b", 1)), (emptied, large), (REMAKE, people("d", 1))] {
        pair.webui(how).await;
        pair.litellm(&change).await;
        eventually("it waits", || async { daemon.get("/readyz").1.contains("sign up there first") }).await;
        assert_eq!(pair.ask("select count(*) from \"user\"").await, "0", "{how}");
        pair.webui(SIGN_UP).await;
        eventually("it goes on", || async { daemon.get("/readyz").0 == 200 }).await;
        pair.settle().await;
        assert_in_step(&pair).await;
    }
    // With its admin already, and nobody else.
    pair.webui(&[REMAKE, SIGN_UP].concat()).await;
    pair.litellm(&people("e", 1)).await;
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from \"user\" where id like 'usr_%'").await, "7");
    assert_in_step(&pair).await;
    // All of it is known for what it is. Only a look beside the stream may have stood in a table that went, and comes again.
    let log = daemon.log();
    let stumbled = log
        .lines()
        .any(|line| line.contains("could not") && !line.contains("a look came to nothing; it is put off"));
    assert!(!stumbled, "{log}");
}

#[tokio::test]
async fn an_open_webui_made_anew_gets_its_first_admin_before_anybody_is_written() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    pair.webui("truncate \"user\", auth, \"group\" cascade").await;
    let daemon = Daemon::start(&pair);
    eventually("it waits", || async { daemon.get("/readyz").1.contains("sign up there first") }).await;
    pair.litellm(&people("b", 1)).await;
    assert_eq!(pair.ask("select count(*) from \"user\"").await, "0");
    pair.webui(SIGN_UP).await;
    eventually("it goes on", || async { daemon.get("/readyz").0 == 200 }).await;
    pair.settle().await;
    for user in ["a1", "b1"] {
        assert_eq!(pair.account(&format!("{user}@x.test")).await, format!("usr_{user}|{user}|user|active"));
    }
}
