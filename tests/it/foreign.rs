//! What is another's: a slot of our name that cannot be ours, and a leader that is none of our Open WebUI's.

use std::time::Duration;

use litellm_webui_sync::source::Source;
use testbed::execute;

use crate::network::signal;
use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{Daemon, Pair, change, eventually, people, rows, within};
use crate::takeover::{a_batch_is_stuck, hold_account, stands_by};

/// The address of another database on the same server.
fn beside(url: &str, database: &str) -> String {
    format!("{}/{database}", url.rsplit_once('/').unwrap().0)
}

#[tokio::test]
async fn a_slot_that_is_none_of_ours_is_named_by_every_command_and_never_touched() {
    for (database, create, what) in [
        (None, "pg_create_physical_replication_slot('SLOT', true)", "is a physical slot"),
        (
            Some("postgres"),
            "pg_create_logical_replication_slot('SLOT', 'pgoutput')",
            "belongs to database \"postgres\"",
        ),
        (
            None,
            "pg_create_logical_replication_slot('SLOT', 'test_decoding')",
            "has the output plugin test_decoding",
        ),
    ] {
        let pair = Pair::new().await;
        let url = database.map_or_else(|| pair.source.clone(), |name| beside(&pair.source, name));
        execute(&url, &format!("select {}", create.replace("SLOT", &pair.slot))).await.unwrap();
        let text = format!(
            "select restart_lsn::text, confirmed_flush_lsn::text from pg_replication_slots where slot_name = '{}'",
            pair.slot
        );
        let before = rows(&pair.source, &text).await;
        for command in
            [&["run", "--http", "off"][..], &["setup"], &["plan"], &["doctor"], &["setup", "--accept-source"]]
        {
            let (code, out, err) = run(&pair, command);
            assert_ne!(code, 0, "{command:?}: {out}");
            let said = out + &err;
            assert!(said.contains(what) && said.contains("--slot"), "{command:?}: {said}");
        }
        let (code, out, err) = run(&pair, &["teardown"]);
        assert!(code == 0 && out.contains("kept slot") && out.contains(what), "{out} {err}");
        Source::open(&pair.config()).await.unwrap().drop_slot(&pair.slot).await.unwrap();
        assert_eq!(rows(&pair.source, &text).await, before, "{what}");
        let drop = format!("select pg_drop_replication_slot('{}')", pair.slot);
        execute(&url, &drop).await.unwrap();
    }
}

#[tokio::test]
async fn a_daemon_whose_slot_a_copy_of_open_webui_follows_says_so_and_goes_on_when_it_is_free() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 5)).await;
    let mut original = Daemon::start(&pair);
    pair.settle().await;
    original.terminate();
    let name = pair.target.rsplit('/').next().unwrap();
    let copy = beside(&pair.target, &format!("{name}_copy"));
    execute(&beside(&pair.target, "postgres"), &format!("create database {name}_copy template {name}"))
        .await
        .unwrap();
    let options =
        DaemonOptions { environment: vec![("WEBUI_DATABASE_URL", copy.clone())], ..DaemonOptions::default() };
    let mut foreigner = Daemon::with(&pair, &options);
    foreigner.ready().await;
    // One that stands by for the leader of its own Open WebUI, for as long as it takes.
    let second = Daemon::with(&pair, &options);
    let original = Daemon::start(&pair);
    stands_by(&original).await;
    let ready = || async { original.get("/readyz").1 };
    within(Duration::from_secs(60), "it says whose the slot is", || async {
        ready().await.contains("a daemon of another Open WebUI database")
    })
    .await;
    assert_eq!(original.get("/readyz").0, 503);
    assert!(original.get("/").1.contains("Nobody leads here"));
    assert!(original.log().contains("--slot"), "{}", original.log());
    within(Duration::from_secs(15), "`status` says so too", || async {
        run(&pair, &["status"]).1.contains("another Open WebUI")
    })
    .await;
    stands_by(&second).await;
    drop(second);
    pair.litellm(&change("a1", "user_alias = 'Only in the copy'")).await;
    foreigner.terminate();
    original.ready().await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_drains_says_so_until_the_end() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 5)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    let held = hold_account(&pair, "usr_a1").await;
    pair.litellm(&change("a1", "user_alias = 'Stuck'")).await;
    a_batch_is_stuck(&pair).await;
    signal(&daemon, "-TERM");
    eventually("it says so", || async {
        let (code, text) = daemon.get("/readyz");
        code == 503 && text.contains("draining")
    })
    .await;
    assert!(daemon.get("/").1.contains("Stopping"));
    assert_eq!(daemon.get("/healthz").0, 200);
    eventually("`status` says so", || async { run(&pair, &["status"]).1.contains("draining") }).await;
    assert!(daemon.get("/readyz").1.contains("draining"));
    drop(held);
    assert!(daemon.end().success());
    assert!(pair.account("a1@x.test").await.contains("Stuck"), "the batch in hand is finished");
    assert!(!run(&pair, &["status"]).1.contains("draining"));
}
