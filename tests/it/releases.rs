//! This program after an earlier release of itself, and before a later one.
//!
//! What an earlier release left in Open WebUI's database is a fixture, made by that release's own program: see its first lines. The
//! stream that release followed is one made here: its place in the checkpoint is put in.

use std::mem::ManuallyDrop;
use std::time::{Duration, Instant};

use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::{Daemon, Pair, PairOptions, change, eventually, gone, key, people, person, rows};
use litellm_webui_sync::source::Source;
use litellm_webui_sync::source::session::Session;
use litellm_webui_sync::sql::MIGRATIONS;
use litellm_webui_sync::target::Target;

const LITELLM: &str = include_str!("fixtures/0.1.0-litellm.sql");
const WEBUI: &str = include_str!("fixtures/0.1.0-webui.sql");
/// Of the fixture's checkpoint.
const APPLIED: (u64, u64) = (1, 4);

/// Everything of our schema, by name: what an upgrade leaves has to be what a new installation makes. (NOT NULL stands with the
/// columns; from 18 on it has a name besides, which says nothing.)
const SHAPE: &str = "
    select 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable || ' ' || coalesce(column_default, '')
           || ' ' || is_identity || coalesce(collation_name, '')
      from information_schema.columns where table_schema = 'litellm_webui_sync'
    union all select 'index ' || indexdef from pg_indexes where schemaname = 'litellm_webui_sync'
    union all select 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid)
      from pg_constraint where connamespace = 'litellm_webui_sync'::regnamespace and contype <> 'n'
    union all select 'view ' || viewname || ' ' || definition from pg_views where schemaname = 'litellm_webui_sync'
    union all select 'function ' || pg_get_functiondef(oid) from pg_proc where pronamespace = 'litellm_webui_sync'::regnamespace
    union all select 'storage ' || relname || ' ' || coalesce(reloptions::text, '') from pg_class
      where relnamespace = 'litellm_webui_sync'::regnamespace and relkind in ('r', 'i')
    order by 1";

async fn shape(pair: &Pair) -> Vec<String> {
    let lines = rows(&pair.target, SHAPE).await.into_iter().map(|mut row| row.remove(0).unwrap());
    // Postgres moves casts and brackets about when it reads its own words again, as the fixture's were.
    let plain = |line: String| match line.starts_with("constraint ") {
        true => line
            .replace("::text[]", "")
            .replace("::text", "")
            .replace("::character varying", "")
            .replace(['(', ')'], ""),
        false => line,
    };
    lines.map(plain).collect()
}

/// A pair that release 0.1.0 kept in step and left; and one whose Open WebUI is what this program alone made of the same LiteLLM.
async fn left_by_0_1_0() -> (Pair, Pair) {
    let pair = Pair::with(PairOptions { admin: false, ..PairOptions::default() }).await;
    pair.litellm(LITELLM).await;
    let new = Pair::new().await;
    // Dropped by those it is made of.
    let fresh = ManuallyDrop::new(Pair {
        source: pair.source.clone(),
        daemon_source: pair.daemon_source.clone(),
        target: new.target.clone(),
        daemon_target: new.daemon_target.clone(),
        slot: pair.slot.clone(),
    });
    let mut daemon = Daemon::start(&fresh);
    fresh.settle().await;
    daemon.terminate();
    pair.webui(WEBUI).await;
    // Where the old daemon was in this stream.
    let place = "select format('generation = %L, system_identifier = %L, timeline = %L, database_oid = %L, slot = %L, consistent_point = %L,
                                end_lsn = %L, committed_at = %L, committed_end = %L, columns_fingerprint = %L',
                               generation, system_identifier, timeline, database_oid, slot, consistent_point, end_lsn, committed_at,
                               committed_end, columns_fingerprint)
                   from litellm_webui_sync.checkpoint";
    let files =
        "select string_agg(format('(%L, %L)', name, filenode), ',') from litellm_webui_sync.table_file";
    pair.webui(&format!(
        "update litellm_webui_sync.checkpoint set {};
         delete from litellm_webui_sync.table_file;
         insert into litellm_webui_sync.table_file (name, filenode) values {}",
        new.ask(place).await,
        new.ask(files).await
    ))
    .await;
    (pair, new)
}

/// What LiteLLM writes while no daemon is there, and after: three transactions of five changes.
async fn go_on(pair: &Pair) {
    pair.litellm(&[gone("p7"), person("new", "new@x.test")].concat()).await;
    pair.litellm(&change("p6", "user_alias = 'Person Six'")).await;
    pair.litellm(&[key("late", "p5"), change("p9", "user_alias = 'Person Nine'")].concat()).await;
}

async fn assert_went_on(pair: &Pair) {
    assert_in_step(pair).await;
    assert_eq!(pair.account("p7@x.test").await, "usr_p7|Person 7|pending|locked");
    assert_eq!(pair.account("p6@x.test").await, "usr_p6|Person Six|user|active");
    assert_eq!(
        pair.account("p8@x.test").await,
        "usr_p8|Person 8|pending|locked",
        "locked by the old release"
    );
    assert_eq!(pair.dead_letters().await, "account:twin");
    // The counters go on where the old release left them.
    assert_eq!(pair.applied().await, (APPLIED.0 + 3, APPLIED.1 + 5));
    // Nothing was copied: it is the same generation.
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.backfill").await, "1");
}

#[tokio::test]
async fn what_0_1_0_left_is_migrated_with_all_its_data_and_the_stream_goes_on() {
    let (pair, new) = left_by_0_1_0().await;
    let keys = "select string_agg(user_id || key, ' ' order by user_id) from api_key";
    let before = pair.ask(keys).await;
    go_on(&pair).await;
    let daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 1);
    assert_went_on(&pair).await;
    assert!(pair.ask(keys).await.starts_with(&before), "{before}");
    let version =
        "select max(version) = count(*) and max(version) = {} from litellm_webui_sync.schema_version";
    assert_eq!(pair.ask(&version.replace("{}", &MIGRATIONS.len().to_string())).await, "t");
    let (ours, theirs) = (shape(&pair).await, shape(&new).await);
    let differ: Vec<&String> = ours
        .iter()
        .filter(|one| !theirs.contains(one))
        .chain(theirs.iter().filter(|one| !ours.contains(one)))
        .collect();
    assert!(differ.is_empty(), "an upgrade leaves something else than a new installation: {differ:#?}");
    daemon.ready().await;
}

/// Without a start of this release in between: its schema holds what this one does not make any more.
#[tokio::test]
async fn what_0_1_0_left_can_be_purged_by_this_release() {
    let (pair, _new) = left_by_0_1_0().await;
    let (code, said, error) = run(&pair, &["teardown", "--purge", "--dry-run"]);
    assert_eq!(code, 0, "{said}{error}");
    let (code, said, error) = run(&pair, &["teardown", "--purge"]);
    assert_eq!(code, 0, "{said}{error}");
    assert_eq!(pair.ask("select to_regnamespace('litellm_webui_sync') is null").await, "t");
}

#[tokio::test]
async fn a_daemon_of_0_1_0_that_runs_is_not_disturbed_and_is_replaced_when_it_ends() {
    let (pair, _new) = left_by_0_1_0().await;
    // As the old daemon is seen from outside: a session that follows the slot, and one that has the lease.
    let config = pair.config();
    let source = Source::open(&config).await.unwrap();
    let start = source.slot(&pair.slot).await.unwrap().unwrap().confirmed_flush_lsn.unwrap();
    let mut session =
        Session::open(&config, &source.endpoint, "litellm-webui-sync old", start).await.unwrap();
    session.start().await.unwrap();
    let lease = Target::open(&config).await.unwrap();
    assert!(lease.take_lease(&pair.config().schema).await.unwrap());
    let marks = "select (select max(version) from litellm_webui_sync.schema_version) || ' ' || digest from litellm_webui_sync.installed_views";
    pair.webui("update litellm_webui_sync.installed_views set digest = 'of the old release'").await;
    let before = pair.ask(marks).await;
    let daemon = Daemon::start(&pair);
    eventually("the new one to stand by", || async { daemon.get("/readyz").1.contains("standby") }).await;
    go_on(&pair).await;
    assert_eq!(pair.ask(marks).await, before, "it is the old daemon's as long as that leads");
    assert_eq!(pair.applied().await, APPLIED);
    drop(session);
    drop(lease);
    let since = Instant::now();
    assert_eq!(pair.settle().await, 1);
    assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    assert_ne!(pair.ask(marks).await, before);
    assert_went_on(&pair).await;
    daemon.ready().await;
}

#[tokio::test]
async fn a_schema_of_a_later_release_is_refused_with_the_remedy_and_left_as_it_is() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    pair.webui("insert into litellm_webui_sync.schema_version (version) values (999); alter table litellm_webui_sync.checkpoint add column later text")
        .await;
    let books = "select (select epoch || ' ' || end_lsn from litellm_webui_sync.checkpoint) || (select digest from litellm_webui_sync.installed_views)";
    let before = pair.ask(books).await;
    pair.litellm(&change("a1", "user_alias = 'Later'")).await;
    let mut old = Daemon::start(&pair);
    assert_eq!(old.end().code(), Some(1));
    let log = old.log();
    assert!(
        log.contains(&format!(
            "made by a newer release (version 999, this program knows {})",
            MIGRATIONS.len()
        )),
        "{log}"
    );
    assert!(log.contains("what to do: run the newer release of litellm-webui-sync"), "{log}");
    let refusal = "newer release";
    for arguments in [&["setup"][..], &["plan"]] {
        let (code, said, error) = run(&pair, arguments);
        assert!(code == 1 && error.contains(refusal), "{arguments:?}: {said}{error}");
    }
    let (code, said, _) = run(&pair, &["doctor"]);
    assert!(code == 3 && said.contains(refusal), "{said}");
    assert_eq!(pair.ask(books).await, before);
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|a1|user|active");
    // The slot keeps for the newer release what it has to follow.
    let slot = format!("select count(*) from pg_replication_slots where slot_name = '{}'", pair.slot);
    assert_eq!(pair.ask_litellm(&slot).await, "1");
}
