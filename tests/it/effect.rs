//! The path of a batch follows from how many it touches, and one thing that goes wrong ends nothing.

use std::time::{Duration, Instant};

use litellm_webui_sync::copy::backfill::stay_alive;
use litellm_webui_sync::error::Error;
use litellm_webui_sync::observe::status::Waited;
use litellm_webui_sync::position::{BatchEnd, Lsn};
use litellm_webui_sync::target::{SLOW, Target, checkpoint};

use testbed::{Cluster, ClusterOptions, connect, execute, load};

use crate::support::daemon::run;
use crate::support::{Daemon, Pair, PairOptions, eventually, organization, people, person};

const ACTIVE: &str =
    "select count(*) from \"user\" u join auth a using (id) where u.role = 'user' and a.active";

/// As many as are no small batch's affair; a few seconds in a test.
const MANY: u32 = 20_000;

/// Statement: a team of the first `count` of [`people`].
fn team_of(count: u32) -> String {
    format!(
        "insert into \"LiteLLM_TeamTable\" (team_id, team_alias, members_with_roles, models)
         select 't', 'T', jsonb_agg(jsonb_build_object('user_id', 'a' || i, 'role', 'user')), '{{}}'
           from generate_series(1, {count}) i"
    )
}

#[tokio::test]
async fn a_truncate_of_twenty_thousand_people_reaches_the_brake() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", MANY)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    let start = Instant::now();
    pair.litellm("truncate \"LiteLLM_UserTable\" cascade").await;
    let waited = pair.wait().await;
    println!("held after {:?}", start.elapsed());
    let Waited::Failed { reason } = waited else { panic!("{waited:?}") };
    assert!(reason.contains("approve"), "{reason}");
    // At once, although it still has to look at the tables anew before its session ends.
    let (code, why) = daemon.get("/readyz");
    assert!(code == 503 && why.contains("20000 of 20000"), "{code} {why}");
    assert_eq!(pair.ask(ACTIVE).await, "20000");
    assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
    assert!(daemon.get("/api/status").1.contains("braked"));
}

#[tokio::test]
async fn one_row_that_touches_twenty_thousand_people_is_applied_as_what_it_is() {
    let pair = Pair::new().await;
    let half = MANY / 2;
    let roster = format!(
        "insert into \"LiteLLM_TeamTable\" (team_id, team_alias, organization_id, members_with_roles, models)
         select 't', 'T', 'o', jsonb_agg(jsonb_build_object('user_id', 'a' || i, 'role', 'user')), '{{}}'
           from generate_series(1, {half}) i;
         insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, model_info, created_by, updated_by)
         select m, m, '{{}}', '{{}}', 'x', 'x' from unnest('{{m1,m2}}'::text[]) m;"
    );
    let joined = format!(
        "update \"LiteLLM_TeamTable\" set members_with_roles =
             (select jsonb_agg(jsonb_build_object('user_id', 'a' || i, 'role', 'user')) from generate_series(1, {MANY}) i)"
    );
    pair.litellm(&[people("a", MANY), organization("o", "O")].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    // Somebody whose account an admin deleted is no less a member.
    pair.webui("delete from auth where id = 'usr_a19999'; delete from \"user\" where id = 'usr_a19999'")
        .await;
    let members = "select count(*) from group_member where group_id = 'grp_team_t'";
    let granted = "select count(distinct m.user_id) from group_member m join access_grant g
                       on g.principal_type = 'group' and g.principal_id = m.group_id and g.resource_id = 'm2'";
    for (what, row, count) in [
        ("a team of half of them", roster.as_str(), half),
        ("the other half joins", joined.as_str(), MANY),
        ("the team's models", "update \"LiteLLM_TeamTable\" set models = '{m1}'", MANY),
        ("the organization's models", "update \"LiteLLM_OrganizationTable\" set models = '{m1}'", MANY),
        ("the team's name", "update \"LiteLLM_TeamTable\" set team_alias = 'Team'", MANY),
    ] {
        let start = Instant::now();
        pair.litellm(row).await;
        assert_eq!(pair.settle().await, 0, "{what}");
        println!("{what}: {:?}; {} hold m2", start.elapsed(), pair.ask(granted).await);
        assert_eq!(pair.ask(members).await, count.to_string(), "{what}");
    }
    assert_eq!(pair.ask(granted).await, "0");
    assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
    pair.litellm("update \"LiteLLM_TeamTable\" set members_with_roles = '[]'").await;
    let waited = pair.wait().await;
    assert!(matches!(&waited, Waited::Failed { reason } if reason.contains("approve")), "{waited:?}");
}

/// Many in one transaction, and the next one needs to know how many there are by now.
#[tokio::test]
async fn what_comes_after_many_people_in_one_transaction_is_planned_for_as_many() {
    let pair = Pair::new().await;
    pair.litellm(&people("first", 3)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&people("a", MANY)).await;
    pair.settle().await;
    let stale = "select string_agg(relname, ' ') from pg_class c join pg_namespace n on n.oid = relnamespace
                  where nspname = 'litellm_webui_sync' and relname in ('litellm_user', 'account') and reltuples < 20000";
    eventually("statistics of what was written", || async { pair.ask(stale).await.is_empty() }).await;
    let start = Instant::now();
    pair.litellm(&team_of(MANY)).await;
    pair.settle().await;
    println!("a team of all of them: {:?}", start.elapsed());
    assert_eq!(pair.ask("select count(*) from group_member where group_id = 'grp_team_t'").await, "20000");
}

/// What a large batch plans after it changed much follows from what is counted then.
#[tokio::test]
async fn a_large_batch_waits_for_whoever_is_at_its_tables_and_then_goes_on_without() {
    let pair = Pair::new().await;
    pair.litellm(&people("first", 3)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    // As VACUUM and ANALYZE lock it.
    let client = connect(&pair.target).await.unwrap();
    let lock = "begin; lock table litellm_webui_sync.litellm_user in share update exclusive mode";
    client.batch_execute(lock).await.unwrap();
    // It waits for less than a second.
    let watch = connect(&pair.target).await.unwrap();
    let watch = tokio::spawn(async move {
        let waiting = "select from pg_stat_activity
                        where wait_event_type = 'Lock' and query like 'analyze %litellm_user%' and datname = current_database()";
        while watch.query(waiting, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    pair.litellm(&people("a", 6_000)).await;
    pair.settle().await;
    assert!(watch.is_finished(), "nobody waited for the table");
    client.batch_execute("commit").await.unwrap();
    assert_eq!(pair.ask("select count(*) from \"user\" where role = 'user'").await, "6003");
}

/// Nothing else counts them that soon: the tables do not grow any more.
#[tokio::test]
async fn whoever_a_first_copy_made_is_counted_beside_the_stream() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 30)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let believed = "select reltuples from pg_class where oid = 'public.user'::regclass";
    // With the admin.
    eventually("Open WebUI's people to be counted", || async { pair.ask(believed).await == "31" }).await;
}

/// One row of LiteLLM's, so nothing else counts them that soon.
#[tokio::test]
async fn whoever_a_large_batch_put_into_a_group_is_counted_beside_the_stream() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 6_000)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&team_of(6_000)).await;
    pair.settle().await;
    let believed = "select reltuples from pg_class where oid = 'public.group_member'::regclass";
    eventually("its members to be counted", || async { pair.ask(believed).await == "6000" }).await;
}

#[tokio::test]
async fn a_verify_that_cannot_fill_its_staging_tables_is_put_off_and_the_stream_goes_on() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    let client = connect(&pair.target).await.unwrap();
    client
        .batch_execute(
            "create function no_room() returns event_trigger language plpgsql as
             $$ begin raise exception 'could not extend file: no space left on device' using errcode = '53100'; end $$;
             create event trigger no_room on ddl_command_start when tag in ('CREATE TABLE') execute function no_room()",
        )
        .await
        .unwrap();
    let (code, _, error) = run(&pair, &["resnapshot", "--dry-run"]);
    assert_eq!(code, 0, "{error}");
    let put_off = "select phase || ': ' || coalesce(error, '') from litellm_webui_sync.resnapshot";
    eventually("the verify to be put off", || async {
        let text = pair.ask(put_off).await;
        text.starts_with("waiting: ") && text.contains("no space left")
    })
    .await;
    pair.litellm(&person("b", "b@x.test")).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("b@x.test").await, "usr_b|b|user|active");
    daemon.ready().await;
    client.batch_execute("drop event trigger no_room").await.unwrap();
    pair.litellm(&person("c", "c@x.test")).await;
    pair.settle().await;
}

#[tokio::test]
async fn a_leader_that_waits_for_something_else_keeps_its_lease_and_one_that_lost_it_knows() {
    let pair = Pair::new().await;
    let config = pair.config();
    let leader = Target::open(&config).await.unwrap();
    let other = Target::open(&config).await.unwrap();
    assert!(leader.take_lease(&config.schema).await.unwrap());
    leader.begin("wait for something else").await.unwrap();
    // More than the patience of whoever stands by.
    let long = Duration::from_secs(14);
    tokio::select! {
        error = stay_alive(&leader, SLOW) => panic!("{error}"),
        () = tokio::time::sleep(long) => {}
    }
    assert!(!other.take_lease(&config.schema).await.unwrap());
    assert!(leader.holds_lease(&config.schema).await.unwrap());
    tokio::time::sleep(long).await;
    assert!(other.take_lease(&config.schema).await.unwrap());
    assert!(!leader.holds_lease(&config.schema).await.unwrap_or(false));
}

/// Anybody may send messages of any size through LiteLLM's database.
#[tokio::test]
async fn many_large_messages_of_somebody_elses_take_little_memory() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    for _ in 0..30 {
        pair.litellm("select pg_logical_emit_message(true, 'somebody', repeat('x', 20 * 1024 * 1024))").await;
    }
    pair.settle().await;
    let peak = daemon.peak_memory();
    println!("peak memory {peak} MiB");
    assert!(peak < 200, "{peak} MiB");
}

/// Such a database takes any bytes and says that they are text.
#[tokio::test]
async fn text_that_is_no_utf8_ends_nothing_and_stays_apart() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    let name = pair.ask_litellm("select current_database()").await;
    let all = cluster.url("postgres");
    execute(&all, &format!("drop database {name} with (force)")).await.unwrap();
    let made = "encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'";
    execute(&all, &format!("create database {name} {made}")).await.unwrap();
    load(&pair.source, PairOptions::default().litellm).await.unwrap();
    // Through a function, because what a client sends is looked at.
    let client = connect(&pair.source).await.unwrap();
    client
        .batch_execute(
            "create function latin(text, integer) returns text language sql as
                 $$ select convert_from(convert_to($1, 'SQL_ASCII') || set_byte('\\x00', 0, $2), 'SQL_ASCII') $$",
        )
        .await
        .unwrap();
    let people = |prefix: &str| {
        format!(
            "insert into \"LiteLLM_UserTable\" (user_id, user_email, user_alias, user_role, models, max_budget)
             select latin('{prefix}', code), '{prefix}' || code || '@x.test', latin('J', code), 'internal_user',
                    array[latin('m', code)], 10
               from unnest('{{252,228}}'::integer[]) code;"
        )
    };
    pair.litellm(&people("a")).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&format!(
        "{} insert into \"LiteLLM_TeamTable\" (team_id, team_alias, members_with_roles, models)
            select 't', latin('Team ', 252), jsonb_build_array(jsonb_build_object('user_id', latin('b', 252))), '{{}}';
         alter table \"LiteLLM_UserTable\" add column \"x\" text",
        people("b")
    ))
    .await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(
        pair.ask("select string_agg(name, ' ' order by email) from \"user\" where email like '%@x.test'")
            .await,
        "J\u{fffd}e4 J\u{fffd}fc J\u{fffd}e4 J\u{fffd}fc"
    );
    assert_eq!(pair.ask("select name from \"group\" where id = 'grp_team_t'").await, "Team \u{fffd}fc");
    assert_eq!(pair.ask("select count(*) from group_member where group_id = 'grp_team_t'").await, "1");
    pair.litellm("delete from \"LiteLLM_UserTable\" where user_id = latin('a', 252)").await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("a252@x.test").await, "usr_a\u{fffd}fc|J\u{fffd}fc|pending|locked");
    assert!(daemon.is_running());
    daemon.ready().await;
}

/// Pages of the checkpoint's table and of its index that were read so far.
async fn blocks_of_the_checkpoint(pair: &Pair) -> i64 {
    let blocks = "select heap_blks_hit + heap_blks_read + coalesce(idx_blks_hit + idx_blks_read, 0)
                    from pg_statio_user_tables where schemaname = 'litellm_webui_sync' and relname = 'checkpoint'";
    pair.ask(blocks).await.parse().unwrap()
}

/// Somebody's long report, or a dump: no former version of the checkpoint can be removed while it lasts.
#[tokio::test]
async fn the_checkpoint_costs_the_same_however_many_versions_an_old_snapshot_keeps() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    let report = connect(&pair.target).await.unwrap();
    let old = "begin isolation level repeatable read; select count(*) from litellm_webui_sync.checkpoint";
    report.batch_execute(old).await.unwrap();
    let mut target = Target::open(&pair.config()).await.unwrap();
    let known = checkpoint::read(&target).await.unwrap().unwrap();
    let mut at = known.end_lsn;
    let mut read = Vec::new();
    for _ in 0..5 {
        let before = blocks_of_the_checkpoint(&pair).await;
        for _ in 0..2000 {
            let next = Lsn::from(u64::from(at) + 8);
            checkpoint::advance(&target, known.epoch, at, BatchEnd::at(next)).await.unwrap();
            at = next;
        }
        // What it read is told to everybody when it ends.
        let backend = target.backend_pid().await.unwrap();
        drop(std::mem::replace(&mut target, Target::open(&pair.config()).await.unwrap()));
        let gone = format!("select count(*) = 0 from pg_stat_activity where pid = {backend}");
        eventually("its session to end", || async { pair.ask(&gone).await == "t" }).await;
        eventually("what it read", || async { blocks_of_the_checkpoint(&pair).await >= before + 2000 }).await;
        read.push(blocks_of_the_checkpoint(&pair).await - before);
    }
    let size = "select pg_relation_size('litellm_webui_sync.checkpoint') / 8192";
    let pages: i64 = pair.ask(size).await.parse().unwrap();
    println!("blocks read by 2,000 each: {read:?}; {pages} pages of rows");
    // Nobody looks for the row through all that it was before. (Some more are read as they become more: of the index.)
    assert!(pages > 100 && read[4] < 2000 * pages / 10, "{read:?}, {pages}");
    // Somebody else moved it: where it was is no more than a hint.
    pair.webui("update litellm_webui_sync.checkpoint set epoch = epoch + 1").await;
    let stale =
        checkpoint::advance(&target, known.epoch, at, BatchEnd::at(Lsn::from(u64::from(at) + 8))).await;
    assert!(matches!(stale, Err(Error::Superseded)), "{stale:?}");
    let next = BatchEnd::at(Lsn::from(u64::from(at) + 8));
    checkpoint::advance(&target, known.epoch + 1, at, next).await.unwrap();
}
