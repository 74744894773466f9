//! Bad networks, servers that stop, and two daemons.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use testbed::{Cluster, ClusterOptions, Mode, Proxy, execute};

use crate::churn::{assert_audited_once, reference};
use crate::support::compare::assert_in_step;
use crate::support::daemon::DaemonOptions;
use crate::support::{DEADLINE, Daemon, Pair, PairOptions, change, eventually, people, person, rows};

/// Two servers, each behind a proxy.
pub(crate) struct Servers {
    pub(crate) source: Cluster,
    pub(crate) target: Cluster,
    pub(crate) source_proxy: Proxy,
    pub(crate) target_proxy: Proxy,
}

impl Servers {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let start = || {
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Cluster::start(ClusterOptions { settings: settings.collect(), ..ClusterOptions::default() })
                .unwrap()
        };
        let (source, target) = (start(), start());
        let proxy = async |cluster: &Cluster| {
            Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, cluster.port()))).await.unwrap()
        };
        let (source_proxy, target_proxy) = (proxy(&source).await, proxy(&target).await);
        Self { source, target, source_proxy, target_proxy }
    }

    /// Two more databases, between which a daemon goes through the proxies.
    pub(crate) async fn pair(&self) -> Pair {
        let mut pair = Pair::on(&self.source, &self.target, PairOptions::default()).await;
        let through = |proxy: &Proxy, url: &str| proxy.url(url.rsplit('/').next().unwrap());
        pair.daemon_source = through(&self.source_proxy, &pair.source);
        pair.daemon_target = through(&self.target_proxy, &pair.target);
        pair
    }
}

/// The same, with one pair on them.
pub(crate) struct Bench {
    source: Cluster,
    target: Cluster,
    pub(crate) source_proxy: Proxy,
    pub(crate) target_proxy: Proxy,
    pub(crate) pair: Pair,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let servers = Servers::start(&[]).await;
        let pair = servers.pair().await;
        pair.litellm(&people("a", 20)).await;
        reference::begin(&pair).await;
        let Servers { source, target, source_proxy, target_proxy } = servers;
        Self { source, target, source_proxy, target_proxy, pair }
    }

    /// LiteLLM's server is stopped as its administrator would, and started again.
    pub(crate) fn stop_source_fast(&self) {
        self.source.stop(Mode::Fast, Duration::from_secs(25)).unwrap();
        self.source.start_again().unwrap();
    }

    pub(crate) async fn assert_right(&self) {
        self.pair.settle().await;
        assert_in_step(&self.pair).await;
        reference::assert_exactly_once(&self.pair).await;
        assert_audited_once(&self.pair).await;
    }
}

/// Statement: everybody's name, over and over.
fn renamed(number: u32) -> String {
    format!("update \"LiteLLM_UserTable\" set user_alias = 'Round {number}'")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_on_either_side_lose_and_repeat_nothing() {
    let bench = Bench::new().await;
    let _daemon = Daemon::start(&bench.pair);
    bench.pair.settle().await;
    for round in 1..=6 {
        match round % 3 {
            0 => bench.source_proxy.cut().await,
            1 => bench.target_proxy.cut().await,
            _ => {
                bench.target_proxy.cut_after_bytes(2_000 * u64::from(round));
                bench.source_proxy.cut_after_bytes(1_500 * u64::from(round));
            }
        }
        bench.pair.litellm(&renamed(round)).await;
        bench.pair.litellm(&person(&format!("n{round}"), &format!("n{round}@x.test"))).await;
    }
    bench.assert_right().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_that_falls_silent_is_noticed_and_found_again() {
    let bench = Bench::new().await;
    let daemon = Daemon::start(&bench.pair);
    bench.pair.settle().await;
    bench.source_proxy.blackhole(true);
    bench.pair.litellm(&renamed(1)).await;
    eventually("the silence to be noticed", || async { daemon.get("/readyz").0 == 503 }).await;
    assert_eq!(daemon.get("/healthz").0, 200);
    bench.source_proxy.blackhole(false);
    bench.assert_right().await;
    daemon.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_falls_silent_is_noticed_and_found_again() {
    let bench = Bench::new().await;
    let daemon = Daemon::start(&bench.pair);
    bench.pair.settle().await;
    bench.target_proxy.blackhole(true);
    bench.pair.litellm(&renamed(1)).await;
    eventually("the silence to be noticed", || async { daemon.get("/readyz").0 == 503 }).await;
    assert_eq!(daemon.get("/healthz").0, 200);
    bench.target_proxy.blackhole(false);
    bench.assert_right().await;
    daemon.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_of_either_server_are_survived_and_a_fast_stop_is_fast() {
    let bench = Bench::new().await;
    let daemon = Daemon::start(&bench.pair);
    bench.pair.settle().await;
    for (round, mode) in (1..).zip([Mode::Fast, Mode::Immediate]) {
        bench.pair.litellm(&renamed(round)).await;
        let took = bench.source.stop(mode, DEADLINE).unwrap();
        assert!(took < Duration::from_secs(3), "{mode:?} took {took:?}");
        bench.source.start_again().unwrap();
        bench.pair.litellm(&renamed(round + 10)).await;
        bench.target.restart(mode).unwrap();
        bench.pair.litellm(&renamed(round + 20)).await;
        bench.pair.settle().await;
    }
    // Idle.
    let took = bench.source.stop(Mode::Fast, DEADLINE).unwrap();
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(daemon.get("/healthz").0, 200);
    eventually("readiness to end", || async { daemon.get("/readyz").0 == 503 }).await;
    bench.target.stop(Mode::Fast, DEADLINE).unwrap();
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(daemon.get("/metrics").0, 200);
    bench.source.start_again().unwrap();
    bench.target.start_again().unwrap();
    bench.assert_right().await;
}

#[tokio::test]
async fn one_server_with_both_databases_stops_fast_under_load_and_idle() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm(&people("a", 300)).await;
    reference::begin(&pair).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let took = cluster.stop(Mode::Fast, DEADLINE).unwrap();
    assert!(took < Duration::from_secs(5), "idle: {took:?}");
    cluster.start_again().unwrap();
    pair.settle().await;
    for round in 0..20 {
        pair.litellm(&renamed(round)).await;
    }
    let took = cluster.stop(Mode::Fast, DEADLINE).unwrap();
    assert!(took < Duration::from_secs(5), "under load: {took:?}");
    cluster.start_again().unwrap();
    pair.settle().await;
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
}

#[tokio::test]
async fn a_second_daemon_stands_by_and_takes_over() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 20)).await;
    reference::begin(&pair).await;
    let mut first = Daemon::start(&pair);
    pair.settle().await;
    let second = Daemon::start(&pair);
    eventually("the second to stand by", || async { second.get("/readyz").1.contains("standby") }).await;
    assert_eq!(second.get("/readyz").0, 503);
    first.ready().await;
    pair.litellm(&change("a1", "user_alias = 'One'")).await;
    pair.settle().await;
    first.ready().await;
    first.kill9();
    pair.litellm(&change("a2", "user_alias = 'Two'")).await;
    assert_eq!(pair.settle().await, 0);
    second.ready().await;
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
}

pub(crate) fn signal(daemon: &Daemon, name: &str) {
    assert!(Command::new("kill").args([name, &daemon.pid().to_string()]).status().unwrap().success());
}

#[tokio::test]
async fn a_leader_that_slept_through_its_replacement_cannot_commit() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 20)).await;
    reference::begin(&pair).await;
    let sleeper = Daemon::start(&pair);
    pair.settle().await;
    signal(&sleeper, "-STOP");
    // Sent to the sleeper before it loses its session.
    pair.litellm(&change("a1", "user_alias = 'Asleep'")).await;
    let active = format!("from pg_replication_slots where slot_name = '{}' and active", pair.slot);
    rows(&pair.source, &format!("select pg_terminate_backend(active_pid) {active}")).await;
    eventually("the slot to be free", || async {
        rows(&pair.source, &format!("select 1 {active}")).await.is_empty()
    })
    .await;
    let _second = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&change("a1", "user_alias = 'Awake'")).await;
    pair.settle().await;
    signal(&sleeper, "-CONT");
    eventually("the sleeper to stand by", || async { sleeper.get("/readyz").1.contains("standby") }).await;
    pair.litellm(&change("a2", "user_alias = 'Later'")).await;
    pair.settle().await;
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|Awake|user|active");
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

#[tokio::test]
async fn a_lost_slot_is_noticed_and_healed_by_a_copy() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 20)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    execute(&pair.source, &format!("select pg_drop_replication_slot('{}')", pair.slot)).await.unwrap();
    pair.litellm("delete from \"LiteLLM_UserTable\" where user_id = 'a3'; update \"LiteLLM_UserTable\" set user_alias = 'Unseen'").await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    // While it runs: the slot is dropped under its feet.
    rows(
        &pair.source,
        &format!(
            "select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = '{}'",
            pair.slot
        ),
    )
    .await;
    let drop = format!(
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{}' and not active",
        pair.slot
    );
    drop_when_free(&pair, &drop).await;
    pair.litellm("delete from \"LiteLLM_UserTable\" where user_id = 'a4'").await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}

/// The daemon may be quicker and take the slot again: then it is not dropped, which is fine too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_stays_away_does_not_fill_the_disk_of_the_source() {
    let bench = Bench::new().await;
    let options = DaemonOptions {
        policy: Some("[source]\nmax_retained_wal = 8388608\n".to_owned()),
        ..Default::default()
    };
    let _daemon = Daemon::with(&bench.pair, &options);
    bench.pair.settle().await;
    bench.target.stop(Mode::Immediate, DEADLINE).unwrap();
    let pair = &bench.pair;
    let slots = format!("select count(*) from pg_replication_slots where slot_name = '{}'", pair.slot);
    pair.litellm("create table other as select repeat(md5(i::text), 20) from generate_series(1, 40000) i")
        .await;
    pair.litellm(&change("a1", "user_alias = 'While away'")).await;
    eventually("the slot to be dropped", || async { pair.ask_litellm(&slots).await == "0" }).await;
    bench.target.start_again().unwrap();
    eventually("everything is copied again", || async {
        rows(&pair.target, "select 1 from litellm_webui_sync.checkpoint where end_lsn is not null")
            .await
            .len()
            == 1
            && pair.ask_litellm("select count(*) from pg_replication_slots").await == "1"
    })
    .await;
    pair.settle().await;
    assert!(pair.account("a1@x.test").await.contains("While away"));
    assert_in_step(pair).await;
}

async fn drop_when_free(pair: &Pair, sql: &str) {
    for _ in 0..50 {
        if !rows(&pair.source, sql).await.is_empty() {
            return;
        }
    }
}

#[tokio::test]
async fn a_dropped_publication_is_made_again_and_nothing_is_missed() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 20)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("drop publication litellm_webui_sync").await;
    pair.litellm("delete from \"LiteLLM_UserTable\" where user_id = 'a4'").await;
    pair.litellm(&change("a5", "user_alias = 'Five'")).await;
    let is_back = "select count(*) from pg_publication where pubname = 'litellm_webui_sync'";
    eventually("the publication", || async { pair.ask_litellm(is_back).await == "1" }).await;
    eventually("the lock", || async { pair.account("a4@x.test").await.ends_with("|pending|locked") }).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}
