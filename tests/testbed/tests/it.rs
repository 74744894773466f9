//! The testbed on a real Postgres: what the other tests stand on.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that panics points at its line")]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use testbed::database::current_lsn;
use testbed::reference::{Counted, count, create_reference_slot, drop_reference_slot};
use testbed::{
    Cluster, ClusterOptions, Mode, Proxy, Schema, churn, connect, demo_live_changes, demo_people, execute,
    load, open_webui_admin, seed,
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// One server for the tests that do nothing to it.
fn shared() -> &'static Cluster {
    static SHARED: OnceLock<Cluster> = OnceLock::new();
    SHARED.get_or_init(|| Cluster::start(ClusterOptions::default()).unwrap())
}

async fn number(url: &str, sql: &str) -> i64 {
    connect(url).await.unwrap().query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn a_cluster_survives_every_way_of_stopping() {
    let settings = vec![("work_mem".to_owned(), "5MB".to_owned())];
    let cluster = Cluster::start(ClusterOptions { settings, ..Default::default() }).unwrap();
    let url = cluster.create_database("it's \"one\"").await.unwrap();
    execute(&url, "create table t (n int)").await.unwrap();
    for mode in [Mode::Smart, Mode::Fast, Mode::Immediate] {
        execute(&url, "insert into t values (1)").await.unwrap();
        cluster.stop(mode, TIMEOUT).unwrap();
        assert_eq!(cluster.pid(), None);
        assert!(connect(&url).await.is_err());
        cluster.start_again().unwrap();
    }
    assert_eq!(number(&url, "select count(*) from t").await, 3);
    let socket = cluster.socket_url("it's \"one\"");
    let client = connect(&socket).await.unwrap();
    let setting = |name| {
        let sql = format!("show {name}");
        let client = &client;
        async move { client.query_one(&sql, &[]).await.unwrap().get::<_, String>(0) }
    };
    assert_eq!(setting("wal_level").await, "logical");
    assert_eq!(setting("work_mem").await, "5MB");
    assert_eq!(setting("server_encoding").await, "UTF8");
    assert!(setting("server_version").await.starts_with(cluster.binaries().version()));
}

#[tokio::test]
async fn a_smart_stop_waits_for_the_last_client_and_says_so() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let client = connect(&cluster.url("postgres")).await.unwrap();
    let error = cluster.stop(Mode::Smart, Duration::from_millis(200)).unwrap_err().to_string();
    assert!(error.contains("did not stop"), "{error}");
    assert!(cluster.pid().is_some());
    drop(client);
    cluster.stop(Mode::Fast, TIMEOUT).unwrap();
}

#[test]
fn a_dropped_cluster_leaves_nothing_behind() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let (pid, dir) = (cluster.pid().unwrap(), cluster.data_dir());
    drop(cluster);
    assert!(!dir.parent().unwrap().exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

/// Starts itself again with only [`the_victim_of_a_kill`], kills that, and waits for the end of
/// the server the victim had started.
#[test]
fn a_server_does_not_outlive_a_killed_test() {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_victim_of_a_kill", "--nocapture"])
        .env("TESTBED_VICTIM", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = std::io::BufReader::new(victim.stdout.take().unwrap());
    let dir = loop {
        let mut line = String::new();
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut line).unwrap(), 0, "no victim");
        if let Some((_, dir)) = line.split_once("victim: ") {
            break dir.trim().to_owned();
        }
    };
    assert!(Path::new(&dir).join("postmaster.pid").exists());
    victim.kill().unwrap();
    victim.wait().unwrap();
    let start = Instant::now();
    while Path::new(&dir).parent().unwrap().exists() {
        assert!(start.elapsed() < TIMEOUT, "{dir} is still there");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Does nothing unless the test above asks.
#[test]
fn the_victim_of_a_kill() {
    if std::env::var_os("TESTBED_VICTIM").is_none() {
        return;
    }
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    #[allow(clippy::print_stdout, reason = "the test that kills this one reads it")]
    {
        println!("victim: {}", cluster.data_dir().display());
    }
    loop {
        std::thread::park();
    }
}

#[tokio::test]
async fn every_schema_loads_and_leaves_later_sessions_alone() {
    for (number, schema) in Schema::ALL.iter().copied().enumerate() {
        let url = shared().create_database(&format!("schema_{number}")).await.unwrap();
        load(&url, schema).await.unwrap();
        let client = connect(&url).await.unwrap();
        let path: String = client.query_one("show search_path", &[]).await.unwrap().get(0);
        assert_eq!(path, "\"$user\", public", "{schema}");
        if schema.is_litellm() {
            client.query_one("select count(*) from \"LiteLLM_UserTable\"", &[]).await.unwrap();
            assert_eq!(schema.alembic_version(), None);
            continue;
        }
        open_webui_admin(&url).await.unwrap();
        let version: String =
            client.query_one("select version_num from alembic_version", &[]).await.unwrap().get(0);
        assert_eq!(Some(version.as_str()), schema.alembic_version(), "{schema}");
        let row = client
            .query_one("select u.role, a.active from \"user\" u join auth a using (id, email)", &[])
            .await
            .unwrap();
        assert_eq!((row.get(0), row.get(1)), ("admin", true), "{schema}");
    }
    assert_eq!(Schema::open_webui().count(), 9);
}

#[tokio::test]
async fn seed_and_churn_run_and_a_failure_is_told() {
    let url = shared().create_database("seeded").await.unwrap();
    load(&url, Schema::LiteLlm1_110_2).await.unwrap();
    seed(&url, 200, 12, 4, 300).await.unwrap();
    assert!(number(&url, "select count(*) from \"LiteLLM_UserTable\"").await >= 200);
    for round in 1..=2 {
        churn(&url, round, 100, 2, round == 2).await.unwrap();
    }
    let error = seed(&url, 1, 1, 1, 1).await.unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    let empty = shared().create_database("not_litellm").await.unwrap();
    let error = format!("{:#}", churn(&empty, 1, 1, 1, false).await.unwrap_err());
    assert!(error.contains("LiteLLM_TeamTable\" does not exist"), "{error}");
}

#[tokio::test]
async fn the_demo_fits_together() {
    let url = shared().create_database("demo").await.unwrap();
    load(&url, Schema::LiteLlm1_110_2).await.unwrap();
    demo_people(&url).await.unwrap();
    let rows = |table| format!("select count(*) from \"LiteLLM_{table}\"");
    assert_eq!(number(&url, &rows("UserTable")).await, 40);
    assert_eq!(number(&url, &rows("TeamTable")).await, 6);
    assert_eq!(number(&url, &rows("OrganizationTable")).await, 3);
    execute(&url, "create publication p for all tables").await.unwrap();
    create_reference_slot(&url, "demo").await.unwrap();
    let changes = demo_live_changes();
    for change in &changes {
        change.apply(&url).await.unwrap();
    }
    // 40 people, one came and one left; everybody on a roster by id has that team and back.
    assert_eq!(number(&url, &rows("UserTable")).await, 40);
    let mismatches = "select count(*) from
        (select u.user_id, t.team_id from \"LiteLLM_UserTable\" u, unnest(u.teams) t (team_id)) a
        full join
        (select e ->> 'user_id' as user_id, team_id from \"LiteLLM_TeamTable\",
             jsonb_array_elements(members_with_roles) e
          where e ->> 'user_id' like 'demo-user-%') b using (user_id, team_id)
        where a is null or b is null";
    assert_eq!(number(&url, mismatches).await, 0);
    let counted = count(&url, "demo", "p", None).await.unwrap();
    // Nobody has a key to unblock or to delete: some transactions change nothing.
    let written: usize = changes.iter().map(|change| change.transactions.len()).sum();
    assert!(counted.transactions as usize <= written, "{counted:?} of {written}");
    assert!(counted.changes > 150, "{counted:?}");
    drop_reference_slot(&url, "demo").await.unwrap();
}

#[tokio::test]
async fn the_reference_counts_what_was_committed() {
    let url = shared().create_database("counted").await.unwrap();
    execute(
        &url,
        "create table a (n int primary key); create table b (n int primary key);
         create table unseen (n int); create publication p for table a, b",
    )
    .await
    .unwrap();
    create_reference_slot(&url, "counted").await.unwrap();
    execute(&url, "insert into a select generate_series(1, 10)").await.unwrap();
    execute(&url, "update a set n = n + 100 where n < 4; delete from a where n = 5").await.unwrap();
    execute(&url, "insert into unseen values (1)").await.unwrap();
    execute(&url, "begin; insert into b values (1); rollback").await.unwrap();
    let lsn = current_lsn(&url).await.unwrap();
    execute(&url, "truncate a, b").await.unwrap();
    let until_lsn = count(&url, "counted", "p", Some(&lsn)).await.unwrap();
    assert_eq!(until_lsn, Counted { transactions: 2, changes: 14 });
    let all = count(&url, "counted", "p", None).await.unwrap();
    assert_eq!(all, Counted { transactions: 3, changes: 16 });
    drop_reference_slot(&url, "counted").await.unwrap();
}

#[tokio::test]
async fn a_proxy_cuts_refuses_and_goes_silent() {
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, shared().port()));
    let mut proxy = Proxy::start(target).await.unwrap();
    let url = proxy.url("postgres");

    let client = connect(&url).await.unwrap();
    client.batch_execute("select 1").await.unwrap();
    assert_eq!(proxy.connections(), 1);
    proxy.cut().await;
    assert_eq!(proxy.connections(), 0);
    assert!(client.batch_execute("select 1").await.is_err());

    let client = connect(&url).await.unwrap();
    proxy.refuse(true).await.unwrap();
    assert!(connect(&url).await.is_err());
    client.batch_execute("select 1").await.unwrap();
    proxy.refuse(false).await.unwrap();
    connect(&url).await.unwrap();

    proxy.blackhole(true);
    let short = Duration::from_millis(100);
    let mut silent = Box::pin(client.batch_execute("select 1"));
    assert!(tokio::time::timeout(short, &mut silent).await.is_err());
    let mut newcomer = Box::pin(connect(&url));
    assert!(tokio::time::timeout(short, &mut newcomer).await.is_err());
    proxy.blackhole(false);
    silent.await.unwrap();
    newcomer.await.unwrap();

    proxy.cut_after_bytes(10_000);
    assert!(client.batch_execute("select repeat('x', 100000)").await.is_err());
    let client = connect(&url).await.unwrap();
    client.batch_execute("select repeat('x', 100000)").await.unwrap();

    proxy.blackhole(true);
    proxy.cut().await;
    assert!(client.batch_execute("select 1").await.is_err());
}

#[tokio::test]
async fn tls_and_its_rules_are_in_force_at_once() {
    let cluster = Cluster::start(ClusterOptions { tls: true, ..Default::default() }).unwrap();
    let files = cluster.tls().unwrap();
    let url = cluster.url("postgres");
    connect(&url).await.unwrap();
    cluster.add_hba(&["hostssl all all 127.0.0.1/32 cert", "hostnossl all all 127.0.0.1/32 reject"]).unwrap();
    assert!(connect(&url).await.is_err());
    // The socket has kept its rule.
    connect(&cluster.socket_url("postgres")).await.unwrap();
    let with = |client_files: String| {
        let (url, ca) = (url.clone(), files.ca.display().to_string());
        async move {
            let url = format!("{url}?sslmode=verify-full&sslrootcert={ca}{client_files}");
            testbed::psql::run(&url, "select ssl from pg_stat_ssl where pid = pg_backend_pid();", &[]).await
        }
    };
    let certificate =
        format!("&sslcert={}&sslkey={}", files.client_certificate.display(), files.client_key.display());
    assert!(with(certificate).await.unwrap().contains('t'));
    let error = with("&sslcert=/nonexistent".to_owned()).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}
