//! A standby daemon takes over: after SIGKILL, and after a network that swallows everything without a word.

use std::time::{Duration, Instant};

use testbed::{End, connect};

use crate::churn::{assert_audited_once, reference};
use crate::failover::Work;
use crate::network::{Bench, signal};
use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{Daemon, Pair, change, eventually, people, person, rows};

/// Servers forget a silent leader after 15 s (`wal_sender_timeout` of our session), and 5 s more are promised. What lies
/// beyond is for slow machines; the time is printed.
const AFTER_SILENCE: Duration = Duration::from_secs(15 + 5 + 10);
/// 5 s are promised.
const AFTER_DEATH: Duration = Duration::from_secs(5 + 10);

pub(crate) async fn stands_by(daemon: &Daemon) {
    eventually("a daemon to stand by", || async { daemon.get("/readyz").1.contains("standby") }).await;
    assert_eq!(daemon.get("/readyz").0, 503);
    assert_eq!(daemon.get("/healthz").0, 200);
}

/// How long after `start` the daemon leads.
async fn leads(daemon: &Daemon, start: Instant) -> Duration {
    eventually("the standby to lead", || async { daemon.get("/readyz").0 == 200 }).await;
    start.elapsed()
}

/// Holds the account's row, so that a batch about it waits with the checkpoint locked, until dropped.
pub(crate) async fn hold_account(pair: &Pair, id: &str) -> tokio_postgres::Client {
    let client = connect(&pair.target).await.unwrap();
    client
        .batch_execute(&format!("begin; select 1 from \"user\" where id = '{id}' for update"))
        .await
        .unwrap();
    client
}

pub(crate) async fn a_batch_is_stuck(pair: &Pair) {
    let waiting = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and application_name like 'litellm-webui-sync%'";
    eventually("a batch to wait for a lock", || async { !rows(&pair.target, waiting).await.is_empty() })
        .await;
}

#[tokio::test]
async fn a_killed_leader_is_replaced_within_seconds() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 20)).await;
    reference::begin(&pair).await;
    let mut leader = Daemon::start(&pair);
    pair.settle().await;
    for round in 1..=4 {
        let second = Daemon::start(&pair);
        stands_by(&second).await;
        let (code, out, _) = run(&pair, &["status"]);
        assert!(code == 0 && out.contains("leader "), "{code} {out}");
        // Every other time in the middle of a batch, with its locks held.
        let stuck = if round % 2 == 0 { Some(hold_account(&pair, "usr_a1").await) } else { None };
        pair.litellm(&change("a1", &format!("user_alias = 'Round {round}'"))).await;
        if stuck.is_some() {
            a_batch_is_stuck(&pair).await;
        }
        leader.kill9();
        let start = Instant::now();
        pair.litellm(&person(&format!("n{round}"), &format!("n{round}@x.test"))).await;
        // Its server process still waits there, with the checkpoint locked.
        let took = leads(&second, start).await;
        drop(stuck);
        println!("took over in {took:?} after SIGKILL");
        assert!(took < AFTER_DEATH, "{took:?}");
        assert_eq!(pair.settle().await, 0);
        leader = second;
    }
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_three_daemons_one_leads_whoever_dies() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 20)).await;
    reference::begin(&pair).await;
    let mut daemons: Vec<Daemon> = (0..3).map(|_| Daemon::start(&pair)).collect();
    pair.settle().await;
    let work = Work::begin(pair.source.clone());
    for _ in 0..7 {
        work.at_least(20).await;
        let leader = |daemons: &[Daemon]| daemons.iter().position(|daemon| daemon.get("/readyz").0 == 200);
        eventually("somebody to lead", || async { leader(&daemons).is_some() }).await;
        let ready = daemons.iter().filter(|daemon| daemon.get("/readyz").0 == 200).count();
        assert!(ready <= 1, "one at a time");
        let Some(leader) = leader(&daemons) else { continue };
        let mut dead = std::mem::replace(&mut daemons[leader], Daemon::start(&pair));
        dead.kill9();
    }
    work.end().await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

#[tokio::test]
async fn a_frozen_leader_is_replaced_and_thaws_as_the_standby() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 20)).await;
    reference::begin(&pair).await;
    let leader = Daemon::start(&pair);
    pair.settle().await;
    let second = Daemon::start(&pair);
    stands_by(&second).await;
    let held = hold_account(&pair, "usr_a1").await;
    pair.litellm(&change("a1", "user_alias = 'Stuck'")).await;
    a_batch_is_stuck(&pair).await;
    signal(&leader, "-STOP");
    let start = Instant::now();
    drop(held);
    let took = leads(&second, start).await;
    println!("took over in {took:?} after a freeze");
    assert!(took < AFTER_SILENCE, "{took:?}");
    pair.litellm(&change("a1", "user_alias = 'Later'")).await;
    pair.settle().await;
    signal(&leader, "-CONT");
    stands_by(&leader).await;
    pair.litellm(&change("a2", "user_alias = 'Thawed'")).await;
    pair.settle().await;
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|Later|user|active");
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

/// The leader is cut off in the middle of a batch; the other daemon is not.
async fn cut_off(from_source: bool, from_target: bool) {
    let bench = Bench::new().await;
    let leader = Daemon::start(&bench.pair);
    bench.pair.settle().await;
    let environment = vec![
        ("LITELLM_DATABASE_URL", bench.pair.source.clone()),
        ("WEBUI_DATABASE_URL", bench.pair.target.clone()),
    ];
    let second = Daemon::with(&bench.pair, &DaemonOptions { environment, ..Default::default() });
    stands_by(&second).await;
    let held = hold_account(&bench.pair, "usr_a1").await;
    bench.pair.litellm(&change("a1", "user_alias = 'Stuck'")).await;
    a_batch_is_stuck(&bench.pair).await;
    bench.source_proxy.blackhole(from_source);
    bench.target_proxy.blackhole(from_target);
    let start = Instant::now();
    // The batch goes on without anybody hearing of it, and so does LiteLLM.
    drop(held);
    let work = Work::begin(bench.pair.source.clone());
    let took = leads(&second, start).await;
    println!("took over in {took:?} after a cut from source: {from_source}, from target: {from_target}");
    assert!(took < AFTER_SILENCE, "{took:?}");
    work.at_least(10).await;
    work.end().await;
    bench.pair.settle().await;
    bench.pair.litellm(&change("a1", "user_alias = 'Later'")).await;
    bench.pair.settle().await;
    let epoch = "select epoch from litellm_webui_sync.checkpoint";
    let before = bench.pair.ask(epoch).await;
    // Now everything the old leader said meanwhile arrives.
    bench.source_proxy.blackhole(false);
    bench.target_proxy.blackhole(false);
    stands_by(&leader).await;
    bench.pair.litellm(&change("a2", "user_alias = 'Healed'")).await;
    bench.assert_right().await;
    assert_eq!(bench.pair.account("a1@x.test").await, "usr_a1|Later|user|active");
    assert_eq!(bench.pair.ask(epoch).await, before, "somebody took the lead again");
    second.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_from_litellm_is_replaced() {
    cut_off(true, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_from_open_webui_is_replaced_and_its_locks_end() {
    cut_off(false, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_cut_off_from_both_is_replaced_and_its_locks_end() {
    cut_off(true, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_freezes_in_the_midst_of_a_copy_is_replaced() {
    let bench = Bench::new().await;
    bench.pair.litellm(&people("b", 3_000)).await;
    // Its rows stop coming, so that it is met while it fills a table in Open WebUI's database.
    bench.source_proxy.end_each(Some((100_000, End::Silence)));
    let leader = Daemon::start(&bench.pair);
    let filling =
        "select 1 from pg_stat_activity where query ilike 'copy %stage_%' and wait_event = 'ClientRead'
                      and query_start < now() - interval '1 second'";
    eventually("it fills a table", || async { !rows(&bench.pair.target, filling).await.is_empty() }).await;
    signal(&leader, "-STOP");
    let start = Instant::now();
    let environment = vec![
        ("LITELLM_DATABASE_URL", bench.pair.source.clone()),
        ("WEBUI_DATABASE_URL", bench.pair.target.clone()),
    ];
    let second = Daemon::with(&bench.pair, &DaemonOptions { environment, ..Default::default() });
    let took = leads(&second, start).await;
    println!("took over in {took:?} after a freeze in a copy");
    bench.source_proxy.end_each(None);
    signal(&leader, "-CONT");
    stands_by(&leader).await;
    bench.pair.settle().await;
    assert_in_step(&bench.pair).await;
}
