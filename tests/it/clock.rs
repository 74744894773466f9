//! What the leader does by the clock: it has its turn under any load, costs next to nothing while nothing happens, and says how
//! the daemon is, whatever it does.

use std::time::Duration;

use testbed::{Cluster, ClusterOptions, connect};

use crate::support::daemon::run;
use crate::support::work::Workload;
use crate::support::{Daemon, Pair, PairOptions, eventually, person, rostered, within};

/// Statements in the server's log that the daemon sent to this database: everything but what a walsender is asked for.
fn statements(log: &str, database: &str) -> usize {
    let of_ours = format!("{database}/litellm-webui-sync");
    log.lines()
        .filter(|line| {
            line.contains(&of_ours) && (line.contains("LOG:  statement:") || line.contains("LOG:  execute "))
        })
        .count()
}

#[tokio::test]
async fn an_idle_minute_costs_either_database_next_to_nothing() {
    let settings = [("log_statement", "all"), ("log_line_prefix", "%d/%a ")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let cluster = Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm(&[person("a", "a@x.test"), person("b", "b@x.test"), rostered("t", &["a", "b"])].concat())
        .await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.ready().await;
    let name = |url: &str| url.rsplit('/').next().unwrap().split('?').next().unwrap().to_owned();
    let count =
        || [name(&pair.source), name(&pair.target)].map(|database| statements(&cluster.log(), &database));
    // What follows a start is through when a quarter of a minute brought no more than a quarter of what is allowed.
    let mut quiet = false;
    for _ in 0..6 {
        let before = count();
        tokio::time::sleep(Duration::from_secs(15)).await;
        let after = count();
        quiet = after[0] - before[0] <= 5 && after[1] - before[1] <= 15;
        if quiet {
            break;
        }
    }
    assert!(quiet, "it does not become quiet:\n{}", cluster.log_tail());
    let before = count();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = count();
    let (source, target) = (after[0] - before[0], after[1] - before[1]);
    println!("in a minute: {source} statements to LiteLLM's database, {target} to Open WebUI's");
    assert!(source > 0 && source < 20, "{source} statements to LiteLLM's database in a minute");
    assert!(target > 0 && target < 60, "{target} statements to Open WebUI's database in a minute");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_a_load_that_never_pauses_everything_by_the_clock_has_its_turn() {
    let pair = Pair::new().await;
    pair.litellm(&[person("a1", "a1@x.test"), rostered("t", &["a1"])].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    // A dead letter: the account of somebody whose e-mail Open WebUI's database refuses.
    pair.webui(
        "create function no() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '23514'; end $$;
         create trigger no before insert on \"user\" for each row when (new.email = 'odd@x.test') execute function no()",
    )
    .await;
    pair.litellm(&person("odd", "odd@x.test")).await;
    pair.settle().await;
    assert_ne!(pair.dead_letters().await, "");
    let load: Vec<Workload> =
        (0..4).map(|number| Workload::start(&pair.source, &format!("w{number}_"))).collect();
    load[0].go_on().await;
    pair.webui("drop trigger no on \"user\"").await;
    let (code, _, error) = run(&pair, &["failures", "retry", "--all"]);
    assert_eq!(code, 0, "{error}");
    within(Duration::from_secs(15), "the dead letter to be tried again", || async {
        !pair.account("odd@x.test").await.is_empty()
    })
    .await;
    let age = "select extract(epoch from now() - heartbeat_at)::int < 10 from litellm_webui_sync.daemon";
    for _ in 0..3 {
        load[0].go_on().await;
        assert_eq!(pair.ask(age).await, "t", "the heartbeat is old");
    }
    let (code, _, error) = run(&pair, &["pause", "--reason", "a look"]);
    assert_eq!(code, 0, "{error}");
    // Whoever asks is told at once, and the daemon follows.
    let (_, status, _) = run(&pair, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["state"], "paused", "{status}");
    within(Duration::from_secs(15), "the daemon to pause", || async {
        daemon.get("/readyz").1.contains("paused")
    })
    .await;
    // It let go of the slot, and its last word to others may be that it streams.
    let (_, status, _) = run(&pair, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["state"], "paused", "{status}");
    assert_eq!(run(&pair, &["resume"]).0, 0);
    for one in load {
        one.end().await;
    }
    pair.settle().await;
    crate::support::compare::assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_daemon_that_begins_while_paused_says_so_although_another_had_the_last_word() {
    let pair = Pair::new().await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(run(&pair, &["pause"]).0, 0);
    daemon.terminate();
    let last = "select state || ' ' || extract(epoch from heartbeat_at) from litellm_webui_sync.daemon";
    let stopped = pair.ask(last).await;
    let _daemon = Daemon::start(&pair);
    eventually("it to say that it is paused", || async { pair.ask(last).await.starts_with("paused ") }).await;
    let paused = pair.ask(last).await;
    let at = |said: &str| said.split(' ').nth(1).unwrap().parse::<f64>().unwrap();
    assert!(stopped.starts_with("stopped "), "{stopped}");
    // What another said otherwise stands for ten seconds.
    assert!(at(&paused) - at(&stopped) < 10.0, "{stopped}, {paused}");
}

#[tokio::test]
async fn a_daemon_without_the_slot_is_not_taken_for_none() {
    let pair = Pair::new().await;
    pair.litellm(&person("a", "a@x.test")).await;
    // Keeps the slot of the first copy from being made.
    let open = connect(&pair.source).await.unwrap();
    open.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    let daemon = Daemon::start(&pair);
    eventually("it copies", || async { daemon.get("/readyz").1.contains("copying") }).await;
    // Longer than nobody may be there.
    let (code, _, error) = run(&pair, &["status", "--wait", "now", "--timeout", "23"]);
    assert!(code == 1 && error.contains("the daemon is copying"), "{error}");
    let (_, status, _) = run(&pair, &["status"]);
    assert!(status.contains("copying"), "{status}");
    open.batch_execute("rollback").await.unwrap();
    pair.settle().await;
}

#[tokio::test]
async fn one_that_ended_says_so_and_one_that_waits_for_litellm_says_that() {
    let source = Cluster::start(ClusterOptions::default()).unwrap();
    let target = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    source.stop(testbed::Mode::Fast, Duration::from_secs(20)).unwrap();
    eventually("it says that it reconnects", || async {
        pair.ask(
            "select state from litellm_webui_sync.daemon where heartbeat_at > now() - interval '6 seconds'",
        )
        .await
            == "reconnecting"
    })
    .await;
    source.start_again().unwrap();
    eventually("it streams again", || async {
        pair.ask(
            "select state from litellm_webui_sync.daemon where heartbeat_at > now() - interval '6 seconds'",
        )
        .await
            == "streaming"
    })
    .await;
    daemon.terminate();
    let (_, status, _) = run(&pair, &["status"]);
    assert!(status.contains("not running"), "{status}");
    let (code, _, error) = run(&pair, &["status", "--wait", "now", "--timeout", "40"]);
    assert!(code == 1 && error.contains("no daemon is there"), "{error}");
}
