//! Real primaries and standbys: the primary dies, the standby is promoted, and the daemon follows by itself.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use testbed::{Cluster, ClusterOptions, Mode, execute};

use crate::churn::{assert_audited_once, reference};
use crate::support::compare::assert_in_step;
use crate::support::{DEADLINE, Daemon, Pair, PairOptions, change, eventually, gone, people, person, rows};

/// The physical slot of the standby.
const STANDBY_SLOT: &str = "standby";

/// From here on slots survive a failover.
const FAILOVER_SLOTS: u32 = 17;

fn start() -> Cluster {
    Cluster::start(ClusterOptions::default()).unwrap()
}

/// The address of one database on the first of these servers that takes writes.
fn several(url: &str, servers: &[&Cluster]) -> String {
    let hosts: Vec<String> = servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
    format!("postgresql://postgres@{}/{}", hosts.join(","), url.rsplit('/').next().unwrap())
}

fn on(server: &Cluster, url: &str) -> String {
    server.url(url.rsplit('/').next().unwrap())
}

/// LiteLLM on a primary with a standby, Open WebUI on a server of its own.
struct Servers {
    primary: Cluster,
    standby: Cluster,
    /// Held: it ends with this.
    _target: Cluster,
    pair: Pair,
}

impl Servers {
    /// `synced`: the standby keeps copies of failover slots, where there are such.
    async fn start(synced: bool) -> Self {
        let (primary, target) = (start(), start());
        let mut pair = Pair::on(&primary, &target, PairOptions::default()).await;
        let sync = [("sync_replication_slots", "on")];
        let has_sync = synced && primary.major() >= FAILOVER_SLOTS;
        let standby = primary.standby(STANDBY_SLOT, if has_sync { &sync } else { &[] }).await.unwrap();
        // The standby first: it has to be passed by.
        pair.daemon_source = several(&pair.source, &[&standby, &primary]);
        pair.litellm(&people("a", 20)).await;
        reference::publish(&pair).await;
        Self { primary, standby, _target: target, pair }
    }

    /// A slot that counts, and that the standby has too.
    async fn count_on_both(&self) {
        let slot = reference::slot(&self.pair);
        let create =
            format!("select pg_create_logical_replication_slot('{slot}', 'pgoutput', false, false, true)");
        // It is never advanced, so it can only be copied while the standby is where the slot began.
        for _ in 0..20 {
            self.pair.litellm(&create).await;
            for _ in 0..100 {
                if self.is_synced(&slot).await {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            self.pair.litellm(&format!("select pg_drop_replication_slot('{slot}')")).await;
        }
        panic!("the standby never had the slot: {}", self.standby.log_tail());
    }

    async fn is_synced(&self, slot: &str) -> bool {
        let text = format!(
            "select 1 from pg_replication_slots where slot_name = '{slot}' and synced and not temporary
                and invalidation_reason is null"
        );
        !rows(&self.standby.url("postgres"), &text).await.is_empty()
    }

    /// The standby could follow now.
    async fn synced(&self) {
        eventually("the daemon's slot on the standby", || async {
            // Moves what the slot holds on to.
            execute(&self.primary.url("postgres"), "select pg_log_standby_snapshot()").await.unwrap();
            self.is_synced(&self.pair.slot).await
        })
        .await;
    }

    /// Kills the primary and promotes the standby.
    async fn fail_over(&mut self) {
        self.primary.stop(Mode::Immediate, DEADLINE).unwrap();
        execute(&self.standby.url("postgres"), "select pg_promote(true, 60)").await.unwrap();
        self.pair.source = on(&self.standby, &self.pair.source);
    }

    /// Waits until the daemon follows the promoted server, then for everything committed there.
    async fn followed(&self) {
        let timeline = "select timeline from litellm_webui_sync.checkpoint";
        eventually("the new timeline", || async { self.pair.ask(timeline).await == "2" }).await;
        assert_eq!(self.pair.settle().await, 0);
    }

    async fn copies(&self) -> Vec<String> {
        let reasons =
            rows(&self.pair.target, "select reason from litellm_webui_sync.backfill order by id").await;
        reasons.into_iter().flatten().flatten().collect()
    }
}

/// LiteLLM as it goes on: a person a moment, on the server `url` leads to.
pub(crate) struct Work {
    task: tokio::task::JoinHandle<()>,
    done: Arc<AtomicU32>,
}

impl Work {
    pub(crate) fn begin(url: String) -> Self {
        let done = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&done);
        let task = tokio::spawn(async move {
            for number in 1.. {
                let id = format!("w{number}");
                let sql = [
                    person(&id, &format!("{id}@x.test")),
                    change("a1", &format!("user_alias = 'Round {number}'")),
                ];
                // While nobody can be written, LiteLLM's own requests fail; then they go on.
                if execute(&url, &sql.concat()).await.is_ok() {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        Self { task, done }
    }

    pub(crate) async fn at_least(&self, more: u32) {
        let goal = self.done.load(Ordering::Relaxed) + more;
        eventually("work to be done", || async { self.done.load(Ordering::Relaxed) >= goal }).await;
    }

    pub(crate) async fn end(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_is_followed() {
    let mut servers = Servers::start(true).await;
    let keeps = servers.primary.major() >= FAILOVER_SLOTS;
    if keeps {
        servers.count_on_both().await;
        // Nothing is sent to us that the standby does not have.
        servers.primary.configure(&[("synchronized_standby_slots", STANDBY_SLOT)]).unwrap();
    }
    let daemon = Daemon::start(&servers.pair);
    servers.pair.settle().await;
    if keeps {
        servers.synced().await;
        // A copy of the slot is of no use before the promotion, and whoever is led there waits.
        let environment = vec![("LITELLM_DATABASE_URL", on(&servers.standby, &servers.pair.source))];
        let lost = Daemon::with(
            &servers.pair,
            &crate::support::daemon::DaemonOptions { environment, ..Default::default() },
        );
        eventually("a daemon on a standby to say so", || async {
            let (code, text) = lost.get("/readyz");
            code == 503 && text.contains("is a standby")
        })
        .await;
        assert_eq!(lost.get("/healthz").0, 200);
    }
    let work = Work::begin(servers.pair.source.clone());
    work.at_least(30).await;
    servers.fail_over().await;
    work.end().await;
    let began = std::time::Instant::now();
    let work = Work::begin(servers.pair.source.clone());
    servers.followed().await;
    println!("followed the promoted standby in {:?}", began.elapsed());
    work.at_least(30).await;
    work.end().await;
    assert_eq!(servers.pair.settle().await, 0);
    daemon.ready().await;
    assert_in_step(&servers.pair).await;
    if keeps {
        assert_eq!(servers.copies().await, ["first run"]);
        reference::assert_exactly_once(&servers.pair).await;
    } else {
        assert_eq!(servers.copies().await, ["first run", "the slot is gone"]);
    }
    assert_audited_once(&servers.pair).await;

    // The old primary comes back, and nobody tells it that it was replaced: the first in the list, it takes writes, and has
    // our slot.
    drop(daemon);
    servers.primary.start_again().unwrap();
    servers.pair.daemon_source = several(&servers.pair.source, &[&servers.primary, &servers.standby]);
    let daemon = Daemon::start(&servers.pair);
    daemon.ready().await;
    servers.pair.litellm(&change("a2", "user_alias = 'On the new one'")).await;
    assert_eq!(servers.pair.settle().await, 0);
    assert_in_step(&servers.pair).await;
    assert_eq!(servers.copies().await.len(), if keeps { 1 } else { 2 });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_without_the_slot_is_copied_from() {
    let mut servers = Servers::start(false).await;
    let daemon = Daemon::start(&servers.pair);
    servers.pair.settle().await;
    let work = Work::begin(servers.pair.source.clone());
    work.at_least(10).await;
    servers.fail_over().await;
    work.end().await;
    servers.pair.litellm(&[change("a1", "user_alias = 'After'"), gone("a2")].concat()).await;
    servers.followed().await;
    assert_in_step(&servers.pair).await;
    daemon.ready().await;
    // How much of the work reached the standby is chance; the second reason is told where some did not.
    let copies = servers.copies().await;
    assert_eq!(copies.len(), 2, "{copies:?}");
    assert!(copies[1] == "the slot is gone" || copies[1].contains("failed over"), "{copies:?}");
    assert_audited_once(&servers.pair).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_promoted_standby_never_had_is_taken_back() {
    let mut servers = Servers::start(true).await;
    let keeps = servers.primary.major() >= FAILOVER_SLOTS;
    let daemon = Daemon::start(&servers.pair);
    servers.pair.settle().await;
    if keeps {
        servers.synced().await;
    }
    // The tail: committed, applied here, and never on the standby.
    servers.standby.stop(Mode::Fast, DEADLINE).unwrap();
    servers
        .pair
        .litellm(&[person("tail", "tail@x.test"), change("a1", "user_alias = 'Tail'")].concat())
        .await;
    assert_eq!(servers.pair.settle().await, 0);
    assert_eq!(servers.pair.account("tail@x.test").await, "usr_tail|tail|user|active");
    servers.primary.stop(Mode::Immediate, DEADLINE).unwrap();
    servers.standby.start_again().unwrap();
    servers.fail_over().await;
    servers.pair.litellm(&change("a3", "user_alias = 'After'")).await;
    servers.followed().await;
    let copies = servers.copies().await;
    assert_eq!(copies.len(), 2, "{copies:?}");
    assert!(copies[1].contains("failed over and lost changes"), "{copies:?}");
    assert!(servers.pair.account("tail@x.test").await.ends_with("|pending|locked"));
    assert_eq!(servers.pair.account("a1@x.test").await, "usr_a1|a1|user|active");
    assert_in_step(&servers.pair).await;
    daemon.ready().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_of_open_webui_is_followed() {
    let (source, primary) = (start(), start());
    let mut pair = Pair::on(&source, &primary, PairOptions::default()).await;
    let standby = primary.standby(STANDBY_SLOT, &[]).await.unwrap();
    // Open WebUI's own choice: nothing is committed there that the standby does not have.
    primary.configure(&[("synchronous_standby_names", "*")]).unwrap();
    standby.configure(&[("synchronous_standby_names", "")]).unwrap();
    // A host that accepts connections and never says anything does not hold us up.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("127.0.0.1:{}", silent.local_addr().unwrap().port());
    pair.daemon_target = several(&pair.target, &[&primary, &standby]).replace('@', &format!("@{silent},"));
    pair.litellm(&people("a", 20)).await;
    reference::begin(&pair).await;
    let daemon = Daemon::start(&pair);
    daemon.ready().await;
    let work = Work::begin(pair.source.clone());
    work.at_least(30).await;
    primary.stop(Mode::Immediate, DEADLINE).unwrap();
    execute(&standby.url("postgres"), "select pg_promote(true, 60)").await.unwrap();
    pair.target = on(&standby, &pair.target);
    work.at_least(30).await;
    work.end().await;
    assert_eq!(pair.settle().await, 0);
    daemon.ready().await;
    let copies = rows(&pair.target, "select reason from litellm_webui_sync.backfill").await;
    assert_eq!(copies.len(), 1, "{copies:?}");
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

/// Elsewhere than on Linux, 127.0.0.2 is nobody.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn each_host_is_checked_by_its_own_name() {
    let options = ClusterOptions {
        settings: vec![("listen_addresses".to_owned(), "127.0.0.1,127.0.0.2".to_owned())],
        tls: true,
        ..ClusterOptions::default()
    };
    let cluster = Cluster::start(options).unwrap();
    let mut pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    let ca = cluster.tls().unwrap().ca;
    for url in [&mut pair.daemon_source, &mut pair.daemon_target] {
        let database = url.rsplit('/').next().unwrap().to_owned();
        *url = format!(
            "postgresql://postgres@127.0.0.2,127.0.0.1/{database}?port={}&sslmode=verify-full&sslrootcert={}",
            cluster.port(),
            ca.display()
        );
    }
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    daemon.ready().await;
    assert_eq!(pair.settle().await, 0);
    // The certificate does not name 127.0.0.2: alone, it is of no use.
    let alone = pair.daemon_source.replace(",127.0.0.1", "");
    let environment = vec![("LITELLM_DATABASE_URL", alone)];
    let options = crate::support::daemon::DaemonOptions { environment, ..Default::default() };
    let mut stopped = Daemon::with(&pair, &options);
    assert!(!stopped.end().success());
    assert!(stopped.log().contains("subjectAltName"), "{}", stopped.log());
}
