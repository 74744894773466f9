//! Faults of either side, at every moment of a daemon's life: one row is a cell, a test is a fault of a side.
//!
//! In each, while it lasts: who is not ready says so within [`TRUTH`], and names the side; LiteLLM's server stops fast; what it keeps
//! for us stays below the limit. When it ends, everybody recovers by themselves, and Open WebUI is what LiteLLM says.
//!
//! Not among them: a server that is read-only by its settings is written to all the same, because our sessions say that they mean
//! to; a full disk of LiteLLM's server ends that server, which is a link that is refused.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use testbed::{Cluster, End, Mode, connect, execute};
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::network::{Servers, signal};
use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{Daemon, Pair, change, eventually, people, rows, within};
use crate::takeover::{a_batch_is_stuck, hold_account};

/// How long it may take until who is not ready says so: 20 s, and half of that for a machine with other things to do.
const TRUTH: Duration = Duration::from_secs(30);
/// How long LiteLLM's server may take to stop while every link works, or is gone.
const FAST: Duration = Duration::from_secs(8);
/// The same while a link of its own to us is open and dead: it waits for its walsender, which waits for us.
const SILENT: Duration = Duration::from_secs(25);
/// How long everybody may take to recover, on a machine with other things to do.
const RECOVERED: Duration = Duration::from_secs(120);
/// WAL that may be kept for us.
const LIMIT: u32 = 32 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Source,
    Target,
}

impl Side {
    /// As a reason names it.
    fn name(self) -> &'static str {
        match self {
            Self::Source => "LiteLLM",
            Self::Target => "Open WebUI",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Connections are refused, and the open ones are gone.
    Refused,
    /// Connections are reset, again and again.
    Reset,
    /// Open connections are gone, new ones are accepted, and nothing passes.
    BlackBeforeLogin,
    /// Nothing passes any more through those that are open either.
    BlackAfterLogin,
    /// What is lost is lost for ever, in the midst of a copy.
    BlackMidCopy,
    /// Every process of the server stands still.
    Frozen,
    /// What we write is refused.
    DiskFull,
    /// Every connection the server has is taken.
    NoConnections,
    /// The server came back as a standby.
    InRecovery,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Starting,
    Copying,
    Streaming,
    Looking,
    Draining,
}

use Moment::{Copying, Draining, Looking, Starting, Streaming};

/// A daemon at its moment.
struct Cell {
    moment: Moment,
    pair: Pair,
    /// None: it is started once the fault is there.
    daemon: Option<Daemon>,
    held: Option<Client>,
}

fn options() -> DaemonOptions {
    DaemonOptions {
        // Long enough to be met by the fault.
        failpoints: Some("copied-not-merged=sleep(2500);mended-not-finished=sleep(2500)".to_owned()),
        policy: Some(format!("[source]\nmax_retained_wal = {LIMIT}\n")),
        ..DaemonOptions::default()
    }
}

impl Cell {
    async fn new(servers: &Servers, moment: Moment, fault: Fault) -> Self {
        let pair = servers.pair().await;
        let count = match (moment, fault) {
            (_, Fault::BlackMidCopy) => 10_000,
            (Copying, _) => 1_000,
            _ => 20,
        };
        pair.litellm(&people("a", count)).await;
        Self { moment, pair, daemon: None, held: None }
    }

    async fn prepare(&mut self) {
        if !matches!(self.moment, Starting | Copying) {
            self.daemon = Some(Daemon::with(&self.pair, &options()));
            self.pair.settle().await;
        }
    }

    /// Brings it to its moment.
    async fn arrive(&mut self) {
        let pair = &self.pair;
        match self.moment {
            Starting | Streaming => {}
            Copying => {
                let daemon = self.daemon.insert(Daemon::with(pair, &options()));
                eventually("it copies", || async { daemon.get("/readyz").1.contains("copying") }).await;
            }
            Looking => {
                assert_eq!(run(pair, &["resnapshot"]).0, 0);
                let phase = "select phase from litellm_webui_sync.resnapshot";
                eventually("it looks", || async { pair.ask(phase).await == "comparing" }).await;
            }
            Draining => {
                self.held = Some(hold_account(pair, "usr_a1").await);
                pair.litellm(&change("a1", "user_alias = 'Stuck'")).await;
                a_batch_is_stuck(pair).await;
            }
        }
    }

    /// What it says while the fault lasts, once it is true.
    async fn tells(&mut self, side: Side, fault: Fault) {
        let (moment, pair) = (self.moment, &self.pair);
        if moment == Draining {
            let daemon = self.daemon.as_mut().unwrap();
            signal(daemon, "-TERM");
            eventually("it drains", || async {
                let (code, text) = daemon.get("/readyz");
                code == 0 || code == 503 && text.contains("draining")
            })
            .await;
            let started = std::time::Instant::now();
            let status = tokio::task::block_in_place(|| daemon.end());
            assert!(
                status.success() && started.elapsed() < Duration::from_secs(12),
                "{:?}",
                started.elapsed()
            );
            self.held = None;
            return;
        }
        let daemon = self.daemon.get_or_insert_with(|| Daemon::with(pair, &options()));
        let what = format!("{moment:?} says what is wrong with {side:?} in {fault:?}");
        within(TRUTH, &what, || async {
            let (code, text) = daemon.get("/readyz");
            code == 503 && text.contains(side.name()) && daemon.get("/").0 == 200
        })
        .await;
        println!("{moment:?}: {}", daemon.get("/readyz").1.trim());
        assert_eq!(daemon.get("/healthz").0, 200);
    }

    async fn recovers(&mut self) {
        let pair = &self.pair;
        if self.moment == Draining {
            self.daemon = Some(Daemon::with(pair, &options()));
        }
        let daemon = self.daemon.as_ref().unwrap();
        let what = format!("{:?} is ready again", self.moment);
        within(RECOVERED, &what, || async { daemon.get("/readyz").0 == 200 }).await;
        pair.litellm(&people("z", 3)).await;
        pair.settle().await;
        assert_in_step(pair).await;
    }
}

/// A fault that is there; what has to be kept for it.
#[derive(Default)]
struct Held {
    _frozen: Option<Frozen>,
    _taken: JoinSet<()>,
}

/// Stopped processes. They go on when it is dropped, so that a test that fails can end its server.
struct Frozen(Vec<String>);

impl Frozen {
    fn new(cluster: &Cluster) -> Self {
        let postmaster = cluster.pid().unwrap().to_string();
        let children = std::process::Command::new("pgrep").args(["-P", &postmaster]).output().unwrap();
        let children = String::from_utf8(children.stdout).unwrap();
        let all = std::iter::once(postmaster).chain(children.lines().map(str::to_owned)).collect();
        let frozen = Self(all);
        frozen.signal("-STOP");
        frozen
    }

    fn signal(&self, name: &str) {
        drop(std::process::Command::new("kill").arg(name).args(&self.0).status());
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.signal("-CONT");
    }
}

/// Takes every connection there is, from ours too, and until it is dropped whichever becomes free: a server frees the place of a
/// session some time after it shows that session no more.
async fn take_all(cluster: &Cluster) -> JoinSet<()> {
    let url = cluster.url("postgres");
    let first = connect(&url).await.unwrap();
    let mut taken = Vec::new();
    let ours = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'litellm-webui-sync%'
                  and backend_type = 'client backend'";
    for _ in 0..30 {
        while let Ok(client) = connect(&url).await {
            taken.push(client);
        }
        if first.query(ours, &[]).await.unwrap().is_empty() {
            break;
        }
    }
    taken.push(first);
    let mut keeping = JoinSet::new();
    keeping.spawn(async move {
        loop {
            match connect(&url).await {
                Ok(client) => taken.push(client),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    });
    keeping
}

const FULL: &str = "
    create function public.full() returns trigger language plpgsql as
        $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
    create function public.full_too() returns event_trigger language plpgsql as
        $$ begin raise exception 'could not extend file: No space left on device' using errcode = '53100'; end $$;
    do $$ declare t text; begin
        for t in select format('%I.%I', schemaname, tablename) from pg_tables where schemaname = 'litellm_webui_sync' loop
            execute format('create trigger full_disk before insert or update on %s for each statement execute function public.full()', t);
        end loop;
    end $$;
    create event trigger full_disk on ddl_command_start execute function public.full_too()";
const ROOM: &str = "
    drop event trigger full_disk; drop function public.full_too; drop function public.full cascade";

async fn begin(servers: &mut Servers, side: Side, fault: Fault, cells: &[Cell]) -> Held {
    let mut held = Held::default();
    let (cluster, proxy) = match side {
        Side::Source => (&servers.source, &mut servers.source_proxy),
        Side::Target => (&servers.target, &mut servers.target_proxy),
    };
    match fault {
        Fault::Refused => {
            proxy.refuse(true).await.unwrap();
            proxy.cut().await;
        }
        Fault::Reset => proxy.end_each(Some((2_000, End::Reset))),
        Fault::BlackBeforeLogin => {
            proxy.blackhole(true);
            proxy.cut().await;
        }
        Fault::BlackAfterLogin => proxy.end_each(Some((3_000, End::Silence))),
        Fault::BlackMidCopy => {
            // What comes before the rows: LiteLLM's catalogs; the statements that make our schema.
            let before = if side == Side::Source { 100_000 } else { 300_000 };
            proxy.end_each(Some((before, End::Silence)));
        }
        Fault::Frozen => held._frozen = Some(Frozen::new(cluster)),
        Fault::DiskFull => {
            for cell in cells {
                execute(&cell.pair.target, FULL).await.unwrap();
            }
        }
        Fault::NoConnections => held._taken = take_all(cluster).await,
        Fault::InRecovery => {
            cluster.stop(Mode::Fast, SILENT).unwrap();
            cluster.stand_by().unwrap();
            cluster.start_again().unwrap();
        }
    }
    held
}

async fn end(servers: &mut Servers, side: Side, fault: Fault, held: Held, cells: &[Cell]) {
    let (cluster, proxy) = match side {
        Side::Source => (&servers.source, &mut servers.source_proxy),
        Side::Target => (&servers.target, &mut servers.target_proxy),
    };
    drop(held);
    match fault {
        Fault::Refused => proxy.refuse(false).await.unwrap(),
        Fault::BlackBeforeLogin => proxy.blackhole(false),
        Fault::Reset | Fault::BlackAfterLogin | Fault::BlackMidCopy => proxy.end_each(None),
        Fault::DiskFull => {
            for cell in cells {
                execute(&cell.pair.target, ROOM).await.unwrap();
            }
        }
        Fault::InRecovery => {
            execute(&cluster.url("postgres"), "select pg_promote(true, 60)").await.unwrap();
        }
        Fault::Frozen | Fault::NoConnections => {}
    }
}

/// One fault, met at all these moments at once.
async fn meets(side: Side, fault: Fault, moments: &[Moment]) {
    let mut servers = Servers::start(&[("max_connections", "60")]).await;
    let mut cells = Vec::new();
    for moment in moments {
        cells.push(Cell::new(&servers, *moment, fault).await);
    }
    futures_util::future::join_all(cells.iter_mut().map(Cell::prepare)).await;
    if fault == Fault::BlackMidCopy {
        // It has to be there first: a copy is quick.
        drop(begin(&mut servers, side, fault, &cells).await);
    }
    // Those that do not stay there come last.
    for passes in [false, true] {
        let these = cells.iter_mut().filter(|cell| matches!(cell.moment, Copying | Looking) == passes);
        futures_util::future::join_all(these.map(Cell::arrive)).await;
    }
    let held = begin(&mut servers, side, fault, &cells).await;
    let can_be_told =
        !(side == Side::Source && matches!(fault, Fault::Frozen | Fault::InRecovery | Fault::NoConnections));
    for cell in cells.iter().filter(|cell| can_be_told && cell.moment != Starting) {
        cell.pair.litellm(&change("a2", "user_alias = 'Meanwhile'")).await;
    }
    let mut telling = JoinSet::new();
    for mut cell in cells.drain(..) {
        telling.spawn(async move {
            let told = AssertUnwindSafe(cell.tells(side, fault)).catch_unwind().await;
            (cell, told)
        });
    }
    let (mut cells, told): (Vec<Cell>, Vec<_>) = telling.join_all().await.into_iter().unzip();
    if let Some(panic) = told.into_iter().find_map(Result::err) {
        // First: a frozen server would keep whoever cleans up waiting for ever.
        drop(held);
        std::panic::resume_unwind(panic);
    }
    if can_be_told {
        let is_silent = side == Side::Source && fault != Fault::Refused && fault != Fault::Reset;
        let took = servers.source.stop(Mode::Fast, if is_silent { SILENT } else { FAST }).unwrap();
        println!("LiteLLM's server stopped in {took:?}");
        servers.source.start_again().unwrap();
    }
    if side == Side::Target {
        keeps_little(&servers, &cells).await;
    }
    end(&mut servers, side, fault, held, &cells).await;
    futures_util::future::join_all(cells.iter_mut().map(Cell::recovers)).await;
}

/// LiteLLM writes more than it may keep for us, and keeps it for nobody who is there.
async fn keeps_little(servers: &Servers, cells: &[Cell]) {
    let more = "create table other as select repeat(md5(i::text), 20) from generate_series(1, 70000) i";
    let Some(cell) = cells.iter().find(|cell| cell.moment == Streaming) else { return };
    cell.pair.litellm(more).await;
    let slot = format!("select 1 from pg_replication_slots where slot_name = '{}'", cell.pair.slot);
    let url = servers.source.url("postgres");
    within(Duration::from_secs(40), "the slot is let go", || async { rows(&url, &slot).await.is_empty() })
        .await;
}

const ALL: &[Moment] = &[Starting, Copying, Streaming, Looking, Draining];

macro_rules! matrix {
    ($($name:ident: $side:ident, $fault:ident, $moments:expr;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            meets(Side::$side, Fault::$fault, $moments).await;
        }
    )*};
}

matrix! {
    litellm_refuses_connections: Source, Refused, ALL;
    open_webui_refuses_connections: Target, Refused, ALL;
    litellm_resets_connections: Source, Reset, ALL;
    open_webui_resets_connections: Target, Reset, ALL;
    litellm_is_silent_before_the_log_in: Source, BlackBeforeLogin, ALL;
    open_webui_is_silent_before_the_log_in: Target, BlackBeforeLogin, ALL;
    litellm_is_silent_after_the_log_in: Source, BlackAfterLogin, ALL;
    open_webui_is_silent_after_the_log_in: Target, BlackAfterLogin, ALL;
    litellm_falls_silent_in_a_copy: Source, BlackMidCopy, &[Copying];
    open_webui_falls_silent_in_a_copy: Target, BlackMidCopy, &[Copying];
    litellm_is_frozen: Source, Frozen, ALL;
    open_webui_is_frozen: Target, Frozen, ALL;
    // Writing is refused when there is something to write.
    open_webui_has_no_room: Target, DiskFull, &[Starting, Copying, Streaming, Draining];
    // Who streams has its connections, and keeps them.
    litellm_has_no_connection_left: Source, NoConnections, &[Starting, Streaming, Looking];
    open_webui_has_no_connection_left: Target, NoConnections, &[Starting, Copying, Streaming, Looking];
    litellm_is_a_standby_for_a_while: Source, InRecovery, ALL;
    open_webui_is_a_standby_for_a_while: Target, InRecovery, ALL;
}
