//! What breaks the stream is noticed from the catalogs and healed by a copy, while LiteLLM works on.
//!
//! Each case is provoked on a real server. Afterwards the counters of the new generation are what a witness saw, which is a
//! slot with a publication of its own, and Open WebUI is what the oracle says.

use std::net::{Ipv4Addr, SocketAddr};

use testbed::{Cluster, ClusterOptions, Mode, Proxy, connect};

use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::work::{Workload, witness};
use crate::support::{
    DEADLINE, Daemon, Pair, PairOptions, change, eventually, gone, organization, people, person, quote, rows,
    team,
};

async fn fill(pair: &Pair) {
    pair.litellm(
        &[people("a", 30), organization("o", "O"), team("t", "T", Some("o"), &["a1", "a2"])].concat(),
    )
    .await;
    witness::begin(pair).await;
}

/// Why everything was copied again, in order.
async fn reasons(pair: &Pair) -> Vec<String> {
    let sql = "select reason from litellm_webui_sync.backfill where reason <> 'first run' and reason not like 'this LiteLLM database was accepted%'
                 and finished_at is not null order by id";
    rows(&pair.target, sql).await.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

/// Healed once more, for this reason, and nothing is missing or counted twice.
async fn assert_healed(pair: &Pair, times: usize, because: &str, workload: Workload) {
    eventually(&format!("healing number {times}"), || async { reasons(pair).await.len() >= times }).await;
    workload.go_on().await;
    workload.end().await;
    assert_eq!(pair.settle().await, 0);
    let reasons = reasons(pair).await;
    assert_eq!(reasons.len(), times, "{reasons:?}");
    assert!(reasons[times - 1].contains(because), "{reasons:?}");
    assert_in_step(pair).await;
    witness::assert_exactly_once(pair).await;
}

async fn generation(pair: &Pair) -> String {
    pair.ask("select generation from litellm_webui_sync.checkpoint").await
}

fn start() -> Cluster {
    // A standby that has slots must not be asked to forget what they may need.
    let settings = vec![("autovacuum".to_owned(), "off".to_owned())];
    Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).unwrap()
}

/// Fills some WAL segments and removes what nobody may keep.
async fn burn_wal(url: &str) {
    for _ in 0..4 {
        rows(url, "select pg_logical_emit_message(false, 'burn', 'x')").await;
        rows(url, "select pg_switch_wal()").await;
    }
    rows(url, "checkpoint").await;
}

#[tokio::test]
async fn a_slot_that_was_dropped_or_moved_is_healed() {
    let pair = Pair::new().await;
    fill(&pair).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    let workload = Workload::start(&pair.source, "b");
    workload.go_on().await;
    daemon.terminate();
    rows(&pair.source, &format!("select pg_drop_replication_slot('{}')", pair.slot)).await;
    pair.litellm(&[gone("a3"), change("a4", "user_alias = 'Unseen'")].concat()).await;
    let mut daemon = Daemon::start(&pair);
    assert_healed(&pair, 1, "the slot is gone", workload).await;
    assert_eq!(pair.account("a3@x.test").await, "usr_a3|a3|pending|locked");

    let workload = Workload::start(&pair.source, "c");
    daemon.kill9();
    workload.go_on().await;
    pair.litellm(&change("a5", "user_alias = 'Skipped'")).await;
    let advance = format!("select pg_replication_slot_advance('{}', pg_current_wal_lsn())", pair.slot);
    let held = format!("select 1 from pg_replication_slots where slot_name = '{}' and active", pair.slot);
    eventually("the slot to be free", || async { rows(&pair.source, &held).await.is_empty() }).await;
    rows(&pair.source, &advance).await;
    let daemon = Daemon::start(&pair);
    assert_healed(&pair, 2, "ahead of the checkpoint", workload).await;
    assert!(pair.account("a5@x.test").await.contains("Skipped"));
    daemon.ready().await;
}

#[tokio::test]
async fn a_slot_whose_wal_was_removed_is_healed_also_in_the_middle_of_the_stream() {
    let source = start();
    let target = start();
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    fill(&pair).await;
    let lost = format!("select wal_status from pg_replication_slots where slot_name = '{}'", pair.slot);
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    let workload = Workload::start(&pair.source, "b");
    pair.litellm(&gone("a3")).await;
    source.configure(&[("max_slot_wal_keep_size", "1MB")]).unwrap();
    burn_wal(&pair.source).await;
    assert_eq!(pair.ask_litellm(&lost).await, "lost");
    source.configure(&[("max_slot_wal_keep_size", "-1")]).unwrap();
    witness::again(&pair).await;
    let daemon = Daemon::start(&pair);
    assert_healed(&pair, 1, "invalidated", workload).await;

    // Open WebUI's database does not let us go on, so we acknowledge nothing; the server ends us as in a shutdown.
    let workload = Workload::start(&pair.source, "c");
    let holder = connect(&pair.target).await.unwrap();
    holder.batch_execute("begin; lock table \"user\" in access exclusive mode").await.unwrap();
    workload.go_on().await;
    source.configure(&[("max_slot_wal_keep_size", "1MB")]).unwrap();
    burn_wal(&pair.source).await;
    eventually("the loss", || async { pair.ask_litellm(&lost).await == "lost" }).await;
    source.configure(&[("max_slot_wal_keep_size", "-1")]).unwrap();
    witness::again(&pair).await;
    assert!(source.log().contains("terminating process"), "{}", source.log_tail());
    holder.batch_execute("rollback").await.unwrap();
    assert_healed(&pair, 2, "invalidated", workload).await;
    daemon.ready().await;
}

#[tokio::test]
async fn an_open_webui_database_restored_from_a_backup_is_healed_under_the_running_daemon() {
    let (source, target) = (start(), start());
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    fill(&pair).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    target.stop(Mode::Fast, DEADLINE).unwrap();
    target.back_up().unwrap();
    target.start_again().unwrap();
    pair.litellm(&[gone("a3"), person("n", "n@x.test"), change("a4", "user_alias = 'Four'")].concat()).await;
    pair.settle().await;
    assert!(pair.account("n@x.test").await.ends_with("|user|active"));
    let workload = Workload::start(&pair.source, "b");
    workload.go_on().await;
    target.stop(Mode::Immediate, DEADLINE).unwrap();
    target.restore().unwrap();
    target.start_again().unwrap();
    assert_healed(&pair, 1, "ahead of the checkpoint", workload).await;
    assert_eq!(pair.account("a3@x.test").await, "usr_a3|a3|pending|locked");
    assert!(pair.account("n@x.test").await.ends_with("|user|active"));
    daemon.ready().await;
}

#[tokio::test]
async fn a_litellm_database_restored_from_its_files_is_healed_even_when_its_wal_is_as_long_again() {
    let (source, target) = (start(), start());
    let pair = Pair::on(&source, &target, PairOptions::default()).await;
    fill(&pair).await;
    // All who came since the backup are gone at once; the brake has tests of its own.
    let options =
        DaemonOptions { policy: Some("[brake]\npeople = 1000\n".to_owned()), ..DaemonOptions::default() };
    let mut daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    source.stop(Mode::Fast, DEADLINE).unwrap();
    source.back_up().unwrap();
    source.start_again().unwrap();
    let workload = Workload::start(&pair.source, "b");
    workload.go_on().await;
    workload.end().await;
    pair.litellm(&person("undone", "undone@x.test")).await;
    burn_wal(&pair.source).await;
    pair.settle().await;
    // Shorter than what was applied.
    source.stop(Mode::Fast, DEADLINE).unwrap();
    source.restore().unwrap();
    source.start_again().unwrap();
    // The position that was reached says nothing about this server: nobody is told that all is there already.
    pair.settle().await;
    assert_eq!(reasons(&pair).await.len(), 1);
    let workload = Workload::start(&pair.source, "c");
    assert_healed(&pair, 1, "behind the checkpoint", workload).await;
    assert_eq!(pair.account("undone@x.test").await, "usr_undone|undone|pending|locked");

    // As long as what was applied, and longer.
    let workload = Workload::start(&pair.source, "d");
    workload.go_on().await;
    workload.end().await;
    pair.litellm(&person("undone2", "undone2@x.test")).await;
    pair.settle().await;
    daemon.terminate();
    let before = pair.ask("select end_lsn from litellm_webui_sync.checkpoint").await;
    source.stop(Mode::Fast, DEADLINE).unwrap();
    source.restore().unwrap();
    source.start_again().unwrap();
    pair.litellm(&[person("missed", "missed@x.test"), change("a5", "user_alias = 'Missed'")].concat()).await;
    burn_wal(&pair.source).await;
    burn_wal(&pair.source).await;
    let longer = format!("select pg_current_wal_lsn() > '{before}'");
    assert_eq!(pair.ask_litellm(&longer).await, "t", "{before}");
    let workload = Workload::start(&pair.source, "e");
    let daemon = Daemon::with(&pair, &options);
    assert_healed(&pair, 2, "another history", workload).await;
    assert_eq!(pair.account("undone2@x.test").await, "usr_undone2|undone2|pending|locked");
    assert!(pair.account("missed@x.test").await.ends_with("|user|active"));
    assert!(pair.account("a5@x.test").await.contains("Missed"));
    daemon.ready().await;
}

/// A primary, a standby and Open WebUI's server; the daemon reaches LiteLLM's through an address that moves.
struct Failover {
    primary: Cluster,
    standby: Cluster,
    _target: Cluster,
    proxy: Proxy,
    pair: Pair,
}

impl Failover {
    async fn new(slots: bool) -> (Self, Daemon) {
        let (primary, target) = (start(), start());
        let mut pair = Pair::on(&primary, &target, PairOptions::default()).await;
        fill(&pair).await;
        let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, primary.port()))).await.unwrap();
        pair.daemon_source = proxy.url(pair.source.rsplit('/').next().unwrap());
        let daemon = Daemon::start(&pair);
        pair.settle().await;
        primary.stop(Mode::Fast, DEADLINE).unwrap();
        let standby = primary.cold_standby(slots).unwrap();
        primary.start_again().unwrap();
        (Self { primary, standby, _target: target, proxy, pair }, daemon)
    }

    async fn catch_up(&self) {
        let end = self.pair.ask_litellm("select pg_current_wal_lsn()").await;
        let url = self.standby_url();
        let sql = format!("select 1 where pg_last_wal_replay_lsn() >= '{end}'");
        eventually("the standby to catch up", || async { !rows(&url, &sql).await.is_empty() }).await;
    }

    fn standby_url(&self) -> String {
        self.standby.url(self.pair.source.rsplit('/').next().unwrap())
    }

    /// The primary is gone for good, and the address leads to the standby.
    async fn promote(&mut self, witness: bool) {
        self.primary.stop(Mode::Immediate, DEADLINE).unwrap();
        self.pair.source = self.standby_url();
        rows(&self.pair.source, "select pg_promote()").await;
        assert_eq!(self.pair.ask_litellm("select pg_is_in_recovery()").await, "f");
        if witness {
            witness::again(&self.pair).await;
        }
        let standby = SocketAddr::from((Ipv4Addr::LOCALHOST, self.standby.port()));
        self.proxy.lead_to(standby).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_lost_what_was_applied_is_healed() {
    let (mut failover, daemon) = Failover::new(false).await;
    let workload = Workload::start(&failover.pair.source, "b");
    workload.go_on().await;
    failover.catch_up().await;
    failover.standby.stop(Mode::Fast, DEADLINE).unwrap();
    workload.end().await;
    failover.pair.litellm(&[person("lost", "lost@x.test"), gone("a3")].concat()).await;
    failover.pair.settle().await;
    assert_eq!(failover.pair.account("a3@x.test").await, "usr_a3|a3|pending|locked");
    failover.primary.stop(Mode::Immediate, DEADLINE).unwrap();
    failover.standby.start_again().unwrap();
    failover.promote(true).await;
    let workload = Workload::start(&failover.pair.source, "c");
    assert_healed(&failover.pair, 1, "failed over and lost changes", workload).await;
    assert_eq!(failover.pair.account("lost@x.test").await, "usr_lost|lost|pending|locked");
    assert_eq!(failover.pair.account("a3@x.test").await, "usr_a3|a3|user|active");
    assert_eq!(failover.pair.ask("select timeline from litellm_webui_sync.checkpoint").await, "2");
    daemon.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_lost_nothing_goes_on_where_the_slot_is_there_and_is_healed_where_it_is_not() {
    for slots in [true, false] {
        let (mut failover, daemon) = Failover::new(slots).await;
        let workload = Workload::start(&failover.pair.source, "b");
        workload.go_on().await;
        workload.end().await;
        failover.pair.settle().await;
        let before = generation(&failover.pair).await;
        failover.pair.litellm(&person("kept", "kept@x.test")).await;
        failover.catch_up().await;
        failover.promote(!slots).await;
        let workload = Workload::start(&failover.pair.source, "c");
        if slots {
            workload.go_on().await;
            workload.end().await;
            assert_eq!(failover.pair.settle().await, 0);
            assert_eq!(reasons(&failover.pair).await, Vec::<String>::new());
            assert_eq!(generation(&failover.pair).await, before);
            assert_in_step(&failover.pair).await;
            witness::assert_exactly_once(&failover.pair).await;
        } else {
            assert_healed(&failover.pair, 1, "the slot is gone", workload).await;
        }
        assert!(failover.pair.account("kept@x.test").await.ends_with("|user|active"));
        daemon.ready().await;
    }
}

#[tokio::test]
async fn another_server_stops_the_daemon_until_somebody_accepts_it() {
    let target = start();
    let source = start();
    let other = Cluster::start(ClusterOptions { own_identity: true, ..ClusterOptions::default() }).unwrap();
    let mut pair = Pair::on(&source, &target, PairOptions::default()).await;
    fill(&pair).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    let identifier = "select system_identifier from pg_control_system()";
    let (code, _, error) = run(&pair, &["setup", "--accept-source"]);
    assert!(code == 1 && error.contains("stop the daemon first"), "{error}");
    daemon.terminate();

    // Half the way to another server: the same people but three, and somebody new.
    let first = Pair::on(&other, &target, PairOptions { admin: false, ..PairOptions::default() }).await;
    assert_ne!(pair.ask_litellm(identifier).await, first.ask_litellm(identifier).await);
    first
        .litellm(&[people("a", 27), organization("o", "O"), team("t", "T", Some("o"), &["a1"])].concat())
        .await;
    first.litellm(&person("new", "new@x.test")).await;
    let known = pair.source.clone();
    pair.source.clone_from(&first.source);
    pair.daemon_source.clone_from(&first.source);
    witness::begin(&pair).await;
    for _ in 0..2 {
        let mut refused = Daemon::start(&pair);
        assert!(!refused.end().success());
        assert!(refused.log().contains("--accept-source"), "{}", refused.log());
    }
    let traces = format!(
        "select (select count(*) from pg_replication_slots where slot_name = '{}')
              + (select count(*) from pg_publication where pubname = 'litellm_webui_sync')",
        pair.slot
    );
    assert_eq!(pair.ask_litellm(&traces).await, "0");
    assert_eq!(pair.account("a30@x.test").await, "usr_a30|a30|user|active");
    let (code, said, error) = run(&pair, &["setup", "--accept-source"]);
    assert_eq!(code, 0, "{said}{error}");
    assert!(said.contains("another LiteLLM database"), "{said}");
    assert_eq!(pair.account("a30@x.test").await, "usr_a30|a30|user|active", "only `run` copies");
    let workload = Workload::start(&pair.source, "b");
    let mut daemon = Daemon::start(&pair);
    assert_healed_by_order(&pair, workload).await;
    assert_eq!(pair.account("a30@x.test").await, "usr_a30|a30|pending|locked");
    daemon.terminate();

    // Another database of the same server, with nobody in it: the brake.
    let empty = Pair::on(&other, &target, PairOptions { admin: false, ..PairOptions::default() }).await;
    pair.source.clone_from(&empty.source);
    pair.daemon_source.clone_from(&empty.source);
    let mut refused = Daemon::start(&pair);
    assert!(!refused.end().success());
    // Here a slot of that name is left on the server, but of the database before.
    let (code, _, error) = run(&pair, &["setup", "--accept-source"]);
    assert!(code == 1 && error.contains("pg_drop_replication_slot"), "{error}");
    rows(&first.source, &format!("select pg_drop_replication_slot('{}')", pair.slot)).await;
    assert_eq!(run(&pair, &["setup", "--accept-source"]).0, 0);
    let daemon = Daemon::start(&pair);
    eventually("the brake", || async { daemon.get("/readyz").1.contains("approve") }).await;
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|a1|user|active");
    let id = pair.ask("select id from litellm_webui_sync.brake where used_at is null").await;
    assert_eq!(run(&pair, &["approve", &id]).0, 0);
    eventually("the lock", || async { pair.account("a1@x.test").await.ends_with("|pending|locked") }).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    drop(daemon);
    // Nothing on the first server was touched.
    let left = format!("select count(*) from pg_replication_slots where slot_name = '{}'", pair.slot);
    assert_eq!(rows(&known, &left).await[0][0].as_deref(), Some("1"));
}

/// Copied because somebody asked for it, which is no healing.
async fn assert_healed_by_order(pair: &Pair, workload: Workload) {
    workload.go_on().await;
    workload.end().await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(reasons(pair).await, Vec::<String>::new());
    assert_in_step(pair).await;
    witness::assert_exactly_once(pair).await;
}

#[tokio::test]
async fn whatever_is_done_to_the_publication_and_its_tables_is_healed() {
    let pair = Pair::new().await;
    fill(&pair).await;
    let options = DaemonOptions {
        policy: Some("[source]\nhealing_per_hour = 100\n".to_owned()),
        ..DaemonOptions::default()
    };
    let mut daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    let user = "public.\"LiteLLM_UserTable\"";
    let unpublished = format!("alter publication litellm_webui_sync drop table {user}");
    let listed = format!("{unpublished}; alter publication litellm_webui_sync add table {user}");
    let created_anew = format!(
        "create table keep as table \"LiteLLM_AccessGroupTable\"; drop table \"LiteLLM_AccessGroupTable\" cascade;
         create table \"LiteLLM_AccessGroupTable\" as table keep; drop table keep;
         alter table \"LiteLLM_AccessGroupTable\" add primary key (access_group_id);
         alter publication {} add table \"LiteLLM_AccessGroupTable\"",
        witness::PUBLICATION
    );
    // Written while nobody published it, and then met by the stream: half of it is not sent again.
    let missed = format!(
        "{unpublished}; insert into \"LiteLLM_UserTable\" (user_id, user_email, models, metadata)
             select 'missed', 'missed@x.test', '{{}}', jsonb_build_object('x', string_agg(md5(i::text), ''))
               from generate_series(1, 400) i;
         alter publication litellm_webui_sync add table {user};
         commit; update \"LiteLLM_UserTable\" set spend = 1 where user_id = 'missed'"
    );
    let ways = [
        // While it runs; the others while it is away, where nothing else than the catalogs can tell.
        (true, missed, "lost a row"),
        (true, "drop publication litellm_webui_sync".to_owned(), "does not exist"),
        (true, format!("{listed} (user_id, user_email, user_alias)"), "came without column"),
        (false, "drop publication litellm_webui_sync".to_owned(), "does not exist"),
        (
            false,
            "alter publication litellm_webui_sync rename to other; drop publication other".to_owned(),
            "does not exist",
        ),
        (false, unpublished.clone(), "lacks tables"),
        (false, listed.clone(), "changed"),
        (false, format!("{listed} where (user_id <> 'a5')"), "row filter"),
        (
            false,
            "alter publication litellm_webui_sync set (publish = 'insert')".to_owned(),
            "does not publish",
        ),
        (
            false,
            "alter table \"LiteLLM_UserTable\" drop column user_alias;
             alter table \"LiteLLM_UserTable\" add column user_alias text default 'Everybody'"
                .to_owned(),
            "changed",
        ),
        (false, created_anew, "lacks tables"),
    ];
    for (round, (running, sql, because)) in ways.into_iter().enumerate() {
        let workload = Workload::start(&pair.source, &format!("w{round}x"));
        if !running {
            daemon.terminate();
        }
        pair.litellm(&sql).await;
        // Nobody publishes this, or not all of it, or not as it was.
        pair.litellm(&change("a5", &format!("user_alias = 'Five {round}'"))).await;
        workload.go_on().await;
        if !running {
            daemon = Daemon::with(&pair, &options);
        }
        assert_healed(&pair, round + 1, because, workload).await;
        assert!(pair.account("a5@x.test").await.contains(&format!("Five {round}")), "{sql}");
    }
    daemon.ready().await;
}

#[tokio::test]
async fn a_publication_of_somebody_else_is_not_changed_and_the_sql_is_said() {
    let pair = Pair::new().await;
    fill(&pair).await;
    let role = format!("owner_{}", pair.slot);
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    let database = pair.source.rsplit('/').next().unwrap();
    pair.litellm(&format!(
        "create role {role}; grant create on database {database} to {role};
         alter publication litellm_webui_sync owner to {role};
         alter publication litellm_webui_sync drop table \"LiteLLM_TeamTable\";
         alter publication litellm_webui_sync add table \"LiteLLM_TeamTable\" (team_id, team_alias)"
    ))
    .await;
    let mut refused = Daemon::start(&pair);
    assert!(!refused.end().success());
    let log = refused.log();
    assert!(log.contains("column list") && log.contains("let its owner run: alter publication"), "{log}");
    let remedy = "alter publication litellm_webui_sync drop table only public.\"LiteLLM_TeamTable\";
                  alter publication litellm_webui_sync add table only public.\"LiteLLM_TeamTable\"";
    pair.litellm(remedy).await;
    let workload = Workload::start(&pair.source, "b");
    let daemon = Daemon::start(&pair);
    assert_healed(&pair, 1, "changed", workload).await;
    daemon.ready().await;
    pair.litellm(&format!(
        "alter publication litellm_webui_sync owner to postgres; drop owned by {role}; drop role {role}"
    ))
    .await;
}

#[tokio::test]
async fn healing_too_often_stops_and_a_restart_does_not_evade_it() {
    let pair = Pair::new().await;
    fill(&pair).await;
    let options = DaemonOptions {
        policy: Some("[source]\nhealing_per_hour = 1\n".to_owned()),
        ..DaemonOptions::default()
    };
    let mut daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    daemon.terminate();
    rows(&pair.source, &format!("select pg_drop_replication_slot('{}')", pair.slot)).await;
    let workload = Workload::start(&pair.source, "b");
    let mut daemon = Daemon::with(&pair, &options);
    assert_healed(&pair, 1, "the slot is gone", workload).await;
    daemon.terminate();
    pair.litellm(&change("a5", "user_alias = 'Skipped'")).await;
    let advance = format!("select pg_replication_slot_advance({}, pg_current_wal_lsn())", quote(&pair.slot));
    rows(&pair.source, &advance).await;
    for _ in 0..3 {
        let mut stopped = Daemon::with(&pair, &options);
        assert_eq!(stopped.end().code(), Some(1));
        let log = stopped.log();
        assert!(log.contains("ahead of the checkpoint") && log.contains("1 times an hour"), "{log}");
        assert!(log.contains("--accept-source"), "{log}");
    }
    // It would be of no use, so it keeps no WAL either.
    let slots = format!("select count(*) from pg_replication_slots where slot_name = '{}'", pair.slot);
    assert_eq!(pair.ask_litellm(&slots).await, "0");
    // An hour later.
    pair.webui("update litellm_webui_sync.backfill set finished_at = finished_at - interval '61 minutes'")
        .await;
    let workload = Workload::start(&pair.source, "c");
    let mut daemon = Daemon::with(&pair, &options);
    assert_healed(&pair, 2, "ahead of the checkpoint", workload).await;
    daemon.terminate();
    // Or because somebody says so.
    rows(&pair.source, &format!("select pg_drop_replication_slot('{}')", pair.slot)).await;
    assert_eq!(Daemon::with(&pair, &options).end().code(), Some(1));
    let (code, said, error) = run(&pair, &["setup", "--accept-source"]);
    assert!(code == 0 && said.contains("was followed before"), "{said}{error}");
    let daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    assert_in_step(&pair).await;
    witness::assert_exactly_once(&pair).await;
    assert_eq!(reasons(&pair).await.len(), 2);
    daemon.ready().await;
}

#[tokio::test]
async fn a_paused_daemon_that_never_led_drops_its_slot_before_the_disk_is_full() {
    let source = start();
    let pair = Pair::on(&source, &source, PairOptions::default()).await;
    fill(&pair).await;
    let options = DaemonOptions {
        policy: Some("[source]\nmax_retained_wal = 33554432\n".to_owned()),
        ..DaemonOptions::default()
    };
    let mut daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    assert_eq!(run(&pair, &["pause"]).0, 0);
    daemon.terminate();
    let daemon = Daemon::with(&pair, &options);
    eventually("the pause", || async { daemon.get("/readyz").1.contains("paused") }).await;
    let workload = Workload::start(&pair.source, "b");
    burn_wal(&pair.source).await;
    let slots = format!("select count(*) from pg_replication_slots where slot_name = '{}'", pair.slot);
    eventually("the slot to be dropped", || async { pair.ask_litellm(&slots).await == "0" }).await;
    eventually("the reason in the log", || async { daemon.log().contains("max_retained_wal") }).await;
    assert_eq!(run(&pair, &["resume"]).0, 0);
    assert_healed(&pair, 1, "the slot is gone", workload).await;
}
