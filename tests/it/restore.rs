//! Databases that come back from a backup made with `pg_dump`, as other databases: with the daemon stopped, and under it while it runs.
//!
//! Whatever happens, nothing is missing in Open WebUI afterwards, nothing is applied or counted twice, and nobody is locked out
//! because a database was not there for a while. (Files of servers that come back are in `heal`.)

use testbed::{Cluster, ClusterOptions, dump_and_restore, dumpable, execute};

use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::work::{Workload, witness};
use crate::support::{Daemon, Pair, PairOptions, change, eventually, gone, people, person, rows, team};

struct Bench {
    cluster: Cluster,
    pair: Pair,
}

impl Bench {
    /// A pair in step. `witness`: of LiteLLM's database as it is now.
    async fn new() -> (Self, Daemon) {
        let binaries = Some(dumpable().unwrap());
        let cluster = Cluster::start(ClusterOptions { binaries, ..ClusterOptions::default() }).unwrap();
        let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
        pair.litellm(&[people("a", 30), team("t", "T", None, &["a1", "a2"])].concat()).await;
        witness::begin(&pair).await;
        let daemon = Daemon::start(&pair);
        pair.settle().await;
        (Self { cluster, pair }, daemon)
    }

    /// What LiteLLM writes after the backup.
    async fn go_on(&self) {
        let changes = [gone("a3"), person("n", "n@x.test"), change("a4", "user_alias = 'Four'")].concat();
        self.pair.litellm(&changes).await;
    }

    async fn assert_gone_on(&self) {
        assert_eq!(self.pair.account("a3@x.test").await, "usr_a3|a3|pending|locked");
        assert!(self.pair.account("n@x.test").await.ends_with("|user|active"));
        assert!(self.pair.account("a4@x.test").await.contains("Four"));
    }

    async fn server(&self, sql: &str) {
        execute(&self.cluster.url("postgres"), sql).await.unwrap();
    }

    /// Puts the database `name`_new in the place of `name`, whoever is there; the old one stays as `name`_old.
    async fn swap(&self, name: &str) {
        self.server(&format!("alter database {name} allow_connections false")).await;
        let end = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{name}'");
        let left = format!("select 1 from pg_stat_activity where datname = '{name}'");
        eventually("nobody to be left", || async {
            rows(&self.cluster.url("postgres"), &end).await;
            rows(&self.cluster.url("postgres"), &left).await.is_empty()
        })
        .await;
        self.server(&format!(
            "alter database {name} rename to {name}_old; alter database {name}_new rename to {name};
             alter database {name}_old allow_connections true"
        ))
        .await;
    }
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

/// How often everything was copied to heal.
async fn healed(pair: &Pair) -> String {
    pair.ask("select count(*) from litellm_webui_sync.backfill where healing and reason <> 'first run' and finished_at is not null").await
}

/// Open WebUI's database is restored to another one, which takes its place.
async fn a_restored_open_webui(is_running: bool) {
    let (bench, mut daemon) = Bench::new().await;
    let pair = &bench.pair;
    let webui = name(&pair.target).to_owned();
    if !is_running {
        daemon.terminate();
    }
    let restored = bench.cluster.create_database(&format!("{webui}_new")).await.unwrap();
    let after_the_backup = async {
        bench.go_on().await;
        if is_running {
            pair.settle().await;
            bench.assert_gone_on().await;
        } else {
            let mut daemon = Daemon::start(pair);
            pair.settle().await;
            daemon.terminate();
        }
    };
    dump_and_restore(&pair.target, &restored, after_the_backup).await.unwrap();
    let workload = Workload::start(&pair.source, "b");
    workload.go_on().await;
    bench.swap(&webui).await;
    if !is_running {
        daemon = Daemon::start(pair);
    }
    // What the restored database lacks was acknowledged, and is in no stream any more.
    eventually("the healing", || async { healed(pair).await == "1" }).await;
    workload.go_on().await;
    workload.end().await;
    assert_eq!(pair.settle().await, 0);
    bench.assert_gone_on().await;
    assert_in_step(pair).await;
    witness::assert_exactly_once(pair).await;
    assert_eq!(healed(pair).await, "1");
    let why = pair.ask("select reason from litellm_webui_sync.backfill order by id desc limit 1").await;
    assert!(why.contains("ahead of the checkpoint"), "{why}");
    daemon.ready().await;
}

#[tokio::test]
async fn open_webui_restored_from_a_dump_while_the_daemon_is_stopped_is_healed() {
    a_restored_open_webui(false).await;
}

#[tokio::test]
async fn open_webui_restored_from_a_dump_under_the_running_daemon_is_healed() {
    a_restored_open_webui(true).await;
}

#[tokio::test]
async fn open_webui_restored_as_it_was_needs_no_copy() {
    let (bench, mut daemon) = Bench::new().await;
    let pair = &bench.pair;
    daemon.terminate();
    let webui = name(&pair.target).to_owned();
    let restored = bench.cluster.create_database(&format!("{webui}_new")).await.unwrap();
    let while_it_is_away = bench.go_on();
    dump_and_restore(&pair.target, &restored, while_it_is_away).await.unwrap();
    bench.swap(&webui).await;
    let daemon = Daemon::start(pair);
    assert_eq!(pair.settle().await, 0);
    bench.assert_gone_on().await;
    assert_eq!(healed(pair).await, "0");
    assert_in_step(pair).await;
    witness::assert_exactly_once(pair).await;
    daemon.ready().await;
}

#[tokio::test]
async fn a_restore_into_the_database_itself_finds_nothing_of_ours_in_its_way() {
    let (bench, mut daemon) = Bench::new().await;
    let pair = &bench.pair;
    let webui = name(&pair.target).to_owned();
    let empty_again = async {
        bench.go_on().await;
        pair.settle().await;
        bench.server(&format!("drop database {webui} with (force)")).await;
        bench.cluster.create_database(&webui).await.unwrap();
        // Where it was not there for a moment, the daemon has ended; and so does one that meets an empty one.
        assert_eq!(daemon.end().code(), Some(1), "{}", daemon.log());
        let mut early = Daemon::start(pair);
        assert_eq!(early.end().code(), Some(1), "{}", early.log());
        assert!(early.log().contains("has no checkpoint for it"), "{}", early.log());
    };
    // `pg_restore` ends at its first error, and would meet what is ours if a daemon had begun anew.
    dump_and_restore(&pair.target, &pair.target, empty_again).await.unwrap();
    let daemon = Daemon::start(pair);
    eventually("the healing", || async { healed(pair).await == "1" }).await;
    assert_eq!(pair.settle().await, 0);
    bench.assert_gone_on().await;
    assert_in_step(pair).await;
    witness::assert_exactly_once(pair).await;
    daemon.ready().await;
}

/// LiteLLM's database is restored to another one, which takes its place: its slot stays with the old one.
async fn a_restored_litellm(is_running: bool) {
    let (bench, mut daemon) = Bench::new().await;
    let pair = &bench.pair;
    let litellm = name(&pair.source).to_owned();
    if !is_running {
        daemon.terminate();
    }
    let restored = bench.cluster.create_database(&format!("{litellm}_new")).await.unwrap();
    let after_the_backup = async {
        bench.go_on().await;
        if is_running {
            pair.settle().await;
        }
    };
    dump_and_restore(&pair.source, &restored, after_the_backup).await.unwrap();
    bench.swap(&litellm).await;
    if !is_running {
        daemon = Daemon::start(pair);
    }
    // Never taken for the one that was followed: there may be anything in it.
    assert_eq!(daemon.end().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("is none of ours: it belongs to database"), "{log}");
    let (code, _, error) = run(pair, &["setup", "--accept-source"]);
    assert!(code == 1 && error.contains("pg_drop_replication_slot"), "{error}");
    let old = bench.cluster.url(&format!("{litellm}_old"));
    for slot in [pair.slot.clone(), format!("{}_witness", pair.slot)] {
        rows(&old, &format!("select pg_drop_replication_slot('{slot}')")).await;
    }
    let mut refused = Daemon::start(pair);
    assert_eq!(refused.end().code(), Some(1));
    let log = refused.log();
    assert!(
        log.contains("not the LiteLLM database the checkpoint belongs to") && log.contains("--accept-source"),
        "{log}"
    );
    // Nothing was done to anybody, and nothing to the restored database.
    let state = pair.account("a3@x.test").await;
    assert_eq!(state, if is_running { "usr_a3|a3|pending|locked" } else { "usr_a3|a3|user|active" });
    let slots = "select count(*) from pg_replication_slots where database = current_database()";
    assert_eq!(pair.ask_litellm(slots).await, "0");
    // The publications came with the backup.
    witness::again(pair).await;
    let (code, said, error) = run(pair, &["setup", "--accept-source"]);
    assert_eq!(code, 0, "{said}{error}");
    let workload = Workload::start(&pair.source, "b");
    let daemon = Daemon::start(pair);
    workload.go_on().await;
    workload.end().await;
    assert_eq!(pair.settle().await, 0);
    // As the backup has it: who was deleted after it is back, and who came is gone again.
    assert_eq!(pair.account("a3@x.test").await, "usr_a3|a3|user|active");
    let newcomer = if is_running { "usr_n|n|pending|locked" } else { "" };
    assert_eq!(pair.account("n@x.test").await, newcomer);
    assert_in_step(pair).await;
    witness::assert_exactly_once(pair).await;
    assert_eq!(healed(pair).await, "0", "it was asked for");
    daemon.ready().await;
}

#[tokio::test]
async fn litellm_restored_from_a_dump_while_the_daemon_is_stopped_is_another_database_until_it_is_accepted() {
    a_restored_litellm(false).await;
}

#[tokio::test]
async fn litellm_restored_from_a_dump_under_the_running_daemon_is_another_database_until_it_is_accepted() {
    a_restored_litellm(true).await;
}
