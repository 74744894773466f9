//! `resnapshot` and `verify`: drift that was made on purpose is found exactly, mended when asked, and never while a
//! kill is in the way.

use litellm_webui_sync::decode::request::Request;
use litellm_webui_sync::observe::status::Waited;
use serde_json::{Value, json};
use testbed::{Cluster, ClusterOptions, connect};

use crate::churn::{assert_audited_once, reference};
use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::work::Workload;
use crate::support::{
    Daemon, Pair, PairOptions, change, eventually, gone, organization, people, person, quote, team,
};

fn answer(pair: &Pair, arguments: &[&str]) -> (i32, Value) {
    let (code, out, error) = run(pair, arguments);
    (code, serde_json::from_str(&out).unwrap_or_else(|_| panic!("{arguments:?}: {out}{error}")))
}

/// Some people, a team and a daemon that is up to date.
async fn begin() -> (Pair, Daemon) {
    begin_with(&DaemonOptions::default()).await
}

async fn begin_with(options: &DaemonOptions) -> (Pair, Daemon) {
    let pair = Pair::new().await;
    pair.litellm(
        &[people("a", 30), organization("o", "O"), team("t", "T", Some("o"), &["a1", "a2"])].concat(),
    )
    .await;
    reference::begin(&pair).await;
    let daemon = Daemon::with(&pair, options);
    pair.settle().await;
    (pair, daemon)
}

/// What nothing but a look at everything can find: rows lost from the mirror and edited in Open WebUI.
async fn make_drift(pair: &Pair) {
    pair.webui(
        "delete from litellm_webui_sync.litellm_organization;
         update litellm_webui_sync.litellm_user set user_alias = 'Wrong' where user_id = 'a3';
         insert into litellm_webui_sync.litellm_user (user_id, user_email, email) values ('ghost', 'g@x.test', 'g@x.test');
         update \"user\" set name = 'Edited' where id = 'usr_a4';
         delete from group_member where user_id = 'usr_a1' and group_id = 'grp_team_t'",
    )
    .await;
}

#[tokio::test]
async fn drift_is_found_exactly_and_mended_only_when_asked() {
    let (pair, daemon) = begin().await;
    assert_eq!(answer(&pair, &["verify", "--json"]).0, 0);
    make_drift(&pair).await;
    let (code, found) = answer(&pair, &["verify", "--json"]);
    assert_eq!(code, 3);
    assert_eq!(
        found["mirror"],
        json!({
            "LiteLLM_OrganizationTable": { "inserted": 1, "updated": 0, "deleted": 0 },
            "LiteLLM_UserTable": { "inserted": 0, "updated": 1, "deleted": 1 },
        })
    );
    assert_eq!(found["webui"], json!({ "SYNC_TEAM_MEMBERS": 1, "SYNC_USER": 1 }), "{found}");
    // Nothing was changed by looking.
    assert_eq!(pair.ask("select name from \"user\" where id = 'usr_a4'").await, "Edited");
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.litellm_organization").await, "0");
    let (code, again) = answer(&pair, &["resnapshot", "--wait", "--dry-run", "--json"]);
    assert_eq!((code, &again["webui"]), (3, &found["webui"]));
    // One table at a time.
    let (code, one) =
        answer(&pair, &["resnapshot", "--wait", "--json", "--table", "LiteLLM_OrganizationTable"]);
    assert_eq!(code, 3);
    assert_eq!(one["mirror"].as_object().unwrap().len(), 1, "{one}");
    assert_eq!(answer(&pair, &["verify", "--repair", "--json"]).0, 3);
    let (code, clean) = answer(&pair, &["verify", "--json"]);
    assert_eq!((code, &clean["mirror"], &clean["webui"]), (0, &json!({}), &json!({})), "{clean}");
    daemon.ready().await;
    pair.litellm(&change("a5", "user_alias = 'Later'")).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_go_on_while_it_runs_and_none_is_lost_or_repeated() {
    // Many leave, and what arrives while a copy is made arrives at once.
    let policy = Some("[brake]\npeople = 1000\n".to_owned());
    let (pair, _daemon) = begin_with(&DaemonOptions { policy, ..DaemonOptions::default() }).await;
    let writing = {
        let source = pair.source.clone();
        tokio::spawn(async move {
            let client = testbed::connect(&source).await.unwrap();
            for number in 0..300 {
                let sql = [
                    person(&format!("n{number}"), &format!("n{number}@x.test")),
                    change("a1", &format!("user_alias = 'Round {number}'")),
                    if number % 3 == 0 { gone(&format!("n{}", number / 2)) } else { String::new() },
                ];
                client.batch_execute(&sql.concat()).await.unwrap();
            }
        })
    };
    let mut rounds = 0;
    while !writing.is_finished() {
        let arguments: &[&str] =
            if rounds % 2 == 0 { &["verify", "--json"] } else { &["resnapshot", "--wait", "--json"] };
        let (code, found) = answer(&pair, arguments);
        assert_eq!(
            (code, &found["mirror"], &found["webui"]),
            (0, &json!({}), &json!({})),
            "round {rounds}: {found}"
        );
        rounds += 1;
    }
    writing.await.unwrap();
    assert!(rounds > 0);
    pair.settle().await;
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

#[tokio::test]
async fn a_kill_before_the_merge_changes_nothing_and_it_runs_again() {
    let pair = Pair::new().await;
    // More than is mended row by row: it becomes a copy.
    pair.litellm(&people("a", 1_500)).await;
    {
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
    }
    let options =
        DaemonOptions { failpoints: Some("copied-not-merged=panic".to_owned()), ..DaemonOptions::default() };
    let daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    pair.webui("delete from litellm_webui_sync.litellm_user where user_id not in ('a1', 'a2')").await;
    assert_eq!(run(&pair, &["resnapshot"]).0, 0);
    eventually("the crash", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "catching up"
    })
    .await;
    drop(daemon);
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.litellm_user").await, "2");
    let _daemon = Daemon::start(&pair);
    eventually("the second attempt", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "done"
    })
    .await;
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.litellm_user").await, "1500");
    assert_in_step(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stream_goes_on_while_everything_is_looked_at() {
    // A lock on the target must not keep the source from making a slot.
    let [source, target] = [(); 2].map(|()| Cluster::start(ClusterOptions::default()).unwrap());
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    pair.litellm(
        &[people("a", 30), organization("o", "O"), team("t", "T", Some("o"), &["a1", "a2"])].concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let load = Workload::start(&pair.source, "w");
    make_drift(&pair).await;
    // Nobody can read this table for now, so the look cannot end; nor is anybody else about to.
    let locked = testbed::connect(&pair.target).await.unwrap();
    locked
        .batch_execute("begin; lock litellm_webui_sync.litellm_project in access exclusive mode")
        .await
        .unwrap();
    assert_eq!(run(&pair, &["verify", "--timeout", "0"]).0, 1);
    eventually("a look", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "comparing"
    })
    .await;
    for round in 0..3 {
        load.go_on().await;
        pair.litellm(&change("a5", &format!("user_alias = 'Meanwhile {round}'"))).await;
        pair.settle().await;
        assert!(pair.account("a5@x.test").await.contains(&format!("Meanwhile {round}")));
    }
    assert_eq!(pair.ask("select finished_at is null from litellm_webui_sync.resnapshot").await, "t");
    locked.batch_execute("rollback").await.unwrap();
    eventually("its end", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "done"
    })
    .await;
    // Under the same load: what was made to differ is found, and then nothing.
    let (code, found) = answer(&pair, &["verify", "--repair", "--json"]);
    assert_eq!((code, found["mirror"].as_object().unwrap().len()), (3, 2), "{found}");
    for _ in 0..3 {
        let (code, clean) = answer(&pair, &["verify", "--json"]);
        assert_eq!((code, &clean["mirror"], &clean["webui"]), (0, &json!({}), &json!({})), "{clean}");
    }
    load.end().await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_repair_that_would_lock_many_out_is_held_while_the_stream_goes_on() {
    let (pair, _daemon) = begin().await;
    // People only the mirror knows.
    pair.webui(
        "insert into litellm_webui_sync.litellm_user (user_id, user_email, email, created_at)
         select 'ghost' || i, 'g' || i || '@x.test', 'g' || i || '@x.test', '2026-01-01' from generate_series(1, 40) i",
    )
    .await;
    // A changed policy projects them all.
    drop(_daemon);
    let options = DaemonOptions {
        policy: Some("[accounts]\nrelink = \"skip\"\n".to_owned()),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from \"user\" where id like 'usr_ghost%'").await, "40");
    let (code, _, error) = run(&pair, &["resnapshot", "--wait"]);
    assert_eq!(code, 1);
    assert!(error.contains("approve 1"), "{error}");
    daemon.ready().await;
    pair.litellm(&change("a5", "user_alias = 'Meanwhile'")).await;
    pair.settle().await;
    assert!(pair.account("a5@x.test").await.contains("Meanwhile"));
    assert_eq!(run(&pair, &["approve", "1"]).0, 0);
    eventually("the merge", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "done"
    })
    .await;
    pair.settle().await;
    assert_eq!(
        pair.ask("select count(*) from \"user\" where id like 'usr_ghost%' and role = 'pending'").await,
        "40"
    );
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn without_a_daemon_the_request_waits_and_nonsense_is_refused() {
    let (pair, mut daemon) = begin().await;
    daemon.terminate();
    let (code, _, error) = run(&pair, &["resnapshot", "--wait"]);
    assert!(code == 1 && error.contains("no daemon is there"), "{error}");
    let (code, _, error) = run(&pair, &["resnapshot", "--table", "nobody"]);
    assert!(code == 2 && error.contains("LiteLLM_UserTable"), "{error}");
    // Anybody may send messages.
    pair.litellm("select pg_logical_emit_message(true, 'litellm_webui_sync', 'resnapshot {\"id\": 1}')")
        .await;
    make_drift(&pair).await;
    let _daemon = Daemon::start(&pair);
    eventually("the request", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "done"
    })
    .await;
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.resnapshot").await, "1");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn what_lies_before_the_copy_is_applied_first_however_long_that_takes() {
    let (pair, _daemon) = begin().await;
    assert_eq!(run(&pair, &["pause"]).0, 0);
    eventually("the pause", || async { pair.wait().await != Waited::Reached { dead_letters: 0 } }).await;
    let request = Request { id: uuid::Uuid::new_v4(), tables: Vec::new(), dry_run: true };
    pair.litellm(&format!(
        "select pg_logical_emit_message(true, 'litellm_webui_sync', {})",
        quote(&request.to_message())
    ))
    .await;
    // Met together: the copy is made after these, and they take longer than a look at the requests.
    pair.litellm(&people("n", 20_000)).await;
    pair.litellm("update \"LiteLLM_UserTable\" set user_alias = user_id").await;
    assert_eq!(run(&pair, &["resume"]).0, 0);
    eventually("the end", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "done"
    })
    .await;
    assert_eq!(
        pair.ask("select drift from litellm_webui_sync.resnapshot").await,
        r#"{"webui": {}, "mirror": {}}"#
    );
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from \"user\" where name like 'n%'").await, "20000");
    reference::assert_exactly_once(&pair).await;
}

#[tokio::test]
async fn a_copy_that_cannot_be_made_is_put_off_and_the_stream_goes_on() {
    let options = ClusterOptions {
        settings: vec![("max_replication_slots".to_owned(), "1".to_owned())],
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm(&people("a", 3)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(run(&pair, &["resnapshot"]).0, 0);
    eventually("the failure", || async {
        pair.ask("select error from litellm_webui_sync.resnapshot where phase = 'waiting'")
            .await
            .contains("slot")
    })
    .await;
    pair.litellm(&change("a1", "user_alias = 'Still here'")).await;
    pair.settle().await;
    assert!(pair.account("a1@x.test").await.contains("Still here"));
}

#[tokio::test]
async fn missing_grants_are_found_as_well() {
    let (pair, _daemon) = begin().await;
    pair.litellm("insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, created_by, updated_by) values ('1', 'gpt-4', '{}', '', '')")
        .await;
    pair.settle().await;
    assert_eq!(answer(&pair, &["verify", "--json"]).0, 0);
    pair.webui("delete from access_grant where resource_id = 'gpt-4'").await;
    let (code, found) = answer(&pair, &["verify", "--json"]);
    assert_eq!((code, &found["webui"]["SYNC_GRANTS"]), (3, &json!(1)), "{found}");
    assert_eq!(answer(&pair, &["verify", "--repair", "--json"]).0, 3);
    assert_eq!(answer(&pair, &["verify", "--json"]).0, 0);
    assert_in_step(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_it_keeps_the_stream_waiting_for_long_that_is_the_state() {
    let (pair, daemon) = begin().await;
    // More than is mended row by row: it becomes a copy.
    pair.webui(
        "insert into litellm_webui_sync.litellm_user (user_id, user_email, email)
         select 'ghost' || i, 'g' || i || '@x.test', 'g' || i || '@x.test' from generate_series(1, 1200) i",
    )
    .await;
    let held = connect(&pair.target).await.unwrap();
    held.batch_execute("begin; lock table litellm_webui_sync.stage_litellm_user in access share mode")
        .await
        .unwrap();
    assert_eq!(run(&pair, &["resnapshot"]).0, 0);
    eventually("it says so", || async {
        let (code, text) = daemon.get("/readyz");
        code == 503 && text.contains("copying: the stream waits")
    })
    .await;
    let report: Value = serde_json::from_str(&daemon.get("/api/status").1).unwrap();
    assert_eq!(report["status"]["state"], "copying", "{report}");
    assert!(report["lag"]["seconds"].as_f64().unwrap() >= 4.0, "{}", report["lag"]);
    assert!(daemon.get("/metrics").1.contains("_state{state=\"copying\"} 1"));
    eventually("`status` says so", || async { run(&pair, &["status"]).1.contains("copying") }).await;
    drop(held);
    daemon.ready().await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_request_in_the_midst_of_a_large_transaction_does_not_split_it() {
    let (pair, daemon) = begin().await;
    let request = |dry_run| {
        let request = Request { id: uuid::Uuid::new_v4(), tables: Vec::new(), dry_run };
        format!(
            "select pg_logical_emit_message(true, 'litellm_webui_sync', {});",
            quote(&request.to_message())
        )
    };
    // More than one piece, with requests in it and right behind it.
    let sql = [people("m", 10_500), request(true), people("n", 500), request(true)].concat();
    pair.litellm(&sql).await;
    pair.litellm(&request(true)).await;
    pair.settle().await;
    eventually("the looks", || async {
        pair.ask("select count(*) from litellm_webui_sync.resnapshot where finished_at is not null and drift = '{\"mirror\": {}, \"webui\": {}}'").await == "3"
    })
    .await;
    assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
    assert_eq!(pair.ask("select count(*) from auth where active and id like 'usr\\_%'").await, "11030");
    reference::assert_exactly_once(&pair).await;
}

#[tokio::test]
async fn a_row_that_the_stream_spoke_of_since_is_what_the_stream_said() {
    let [source, target] = [(); 2].map(|()| Cluster::start(ClusterOptions::default()).unwrap());
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    pair.litellm(&people("a", 10)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui(
        "delete from litellm_webui_sync.litellm_user where user_id in ('a3', 'a4');
         update litellm_webui_sync.litellm_user set user_alias = 'Wrong' where user_id = 'a5'",
    )
    .await;
    let locked = connect(&pair.target).await.unwrap();
    locked
        .batch_execute("begin; lock litellm_webui_sync.litellm_project in access exclusive mode")
        .await
        .unwrap();
    assert_eq!(run(&pair, &["resnapshot"]).0, 0);
    eventually("a look", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "comparing"
    })
    .await;
    // What the look has read is no longer so: one is gone, and one has got another name.
    pair.litellm(&[gone("a3"), change("a5", "user_alias = 'Newer'")].concat()).await;
    pair.settle().await;
    locked.batch_execute("rollback").await.unwrap();
    eventually("it to be looked at again", || async {
        pair.ask("select error from litellm_webui_sync.resnapshot")
            .await
            .contains("the stream changed 2 of the rows")
    })
    .await;
    let mirror = "select string_agg(user_id || coalesce(user_alias, ''), ' ' order by user_id)
                    from litellm_webui_sync.litellm_user where user_id in ('a3', 'a4', 'a5')";
    assert_eq!(pair.ask(mirror).await, "a4 a5Newer");
    pair.webui("update litellm_webui_sync.resnapshot set not_before = now()").await;
    eventually("its end", || async {
        pair.ask("select phase from litellm_webui_sync.resnapshot").await == "done"
    })
    .await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(pair.account("a3@x.test").await.split('|').next_back().unwrap_or_default(), "locked");
}
