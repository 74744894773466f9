//! Open WebUI and LiteLLM are upgraded while we are there.

use testbed::{Cluster, ClusterOptions, Schema, connect, execute, load};

use crate::support::compare::{Foreign, api_keys, assert_in_step, assert_in_step_with};
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{
    Daemon, Pair, PairOptions, change, eventually, gone, key, people, person, rostered, rows, team, unkey,
};

#[tokio::test]
async fn nothing_of_ours_depends_on_an_object_of_open_webui() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    drop(daemon);
    let client = connect(&pair.target).await.unwrap();
    let count = "select (select count(*) from pg_class where relnamespace = 'litellm_webui_sync'::regnamespace)
                      + (select count(*) from pg_proc where pronamespace = 'litellm_webui_sync'::regnamespace)
                      + (select count(*) from pg_constraint where connamespace = 'litellm_webui_sync'::regnamespace)";
    let before: i64 = client.query_one(count, &[]).await.unwrap().get(0);
    client.batch_execute("begin; drop schema public cascade").await.unwrap();
    let after: i64 = client.query_one(count, &[]).await.unwrap().get(0);
    client.batch_execute("rollback").await.unwrap();
    assert_eq!(before, after);
    assert!(before > 20, "{before}");
    let triggers = "select count(*) from pg_trigger t join pg_class c on c.oid = t.tgrelid
                     where c.relnamespace = 'public'::regnamespace and not t.tgisinternal
                       and t.tgfoid in (select oid from pg_proc where pronamespace = 'litellm_webui_sync'::regnamespace)";
    assert_eq!(pair.ask(triggers).await, "0");
}

#[tokio::test]
async fn open_webui_0_6_30_becomes_0_12_4_under_the_running_daemon() {
    let pair = Pair::with(PairOptions { webui: Schema::OpenWebUi0_6_30, ..PairOptions::default() }).await;
    pair.litellm(
        &[
            crate::access::served(),
            people("a", 10),
            team("t", "T", None, &["a1", "a2"]),
            "update \"LiteLLM_UserTable\" set models = '{gpt-4}' where user_id in ('a3', 'a4');".to_owned(),
        ]
        .concat(),
    )
    .await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    // What Open WebUI's own migrations do, in short: every object of theirs goes or changes, by plain statements.
    execute(&pair.target, "create schema keep; create table keep.u as table \"user\"; create table keep.a as table auth; create table keep.g as table \"group\"")
        .await
        .unwrap();
    let tables = rows(
        &pair.target,
        "select string_agg(format('%I', tablename), ', ') from pg_tables where schemaname = 'public'",
    )
    .await;
    let tables = tables[0][0].clone().unwrap();
    execute(
        &pair.target,
        "alter table \"user\" drop column api_key; alter table \"group\" alter column name type varchar",
    )
    .await
    .unwrap();
    execute(&pair.target, &format!("drop table {tables}")).await.unwrap();
    pair.litellm(&person("during", "during@x.test")).await;
    load(&pair.target, Schema::OpenWebUi0_12_4).await.unwrap();
    execute(
        &pair.target,
        "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at)
         select id, name, email, role, profile_image_url, created_at, updated_at, last_active_at from keep.u
             on conflict do nothing;
         insert into auth (id, email, password, active) select id, email, password, active from keep.a on conflict do nothing;
         insert into \"group\" (id, user_id, name, description, data, meta, created_at, updated_at)
         select id, user_id, name, description, data, meta, created_at, updated_at from keep.g on conflict do nothing;
         insert into group_member (id, group_id, user_id) select g.id || m.id, g.id, m.id
           from keep.g g cross join json_array_elements_text(g.user_ids) m (id) on conflict do nothing",
    )
    .await
    .unwrap();
    pair.litellm(&[gone("a1"), rostered("t", &["a2", "a3"])].concat()).await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    daemon.ready().await;
}

/// What Open WebUI's own migrations come to, in one transaction as theirs: the tables of `next`, with the rows there were.
/// `user.api_key` becomes table `api_key`, `group.user_ids` becomes `group_member`.
async fn step_up(pair: &Pair, next: Schema) {
    let sql = format!(
        "alter schema public rename to before; create schema public; {tables}; set search_path = pg_catalog;
         insert into public.alembic_version values ('{version}');
         do $$
         declare t text;
         begin
             foreach t in array array['user', 'auth', 'group', 'group_member', 'api_key', 'model', 'access_grant', 'chat'] loop
                 if to_regclass(format('before.%I', t)) is not null and to_regclass(format('public.%I', t)) is not null then
                     execute format(
                         'insert into public.%1$I select p.* from before.%1$I b cross join lateral
                          jsonb_populate_record(null::public.%1$I, to_jsonb(b) || case when %1$L = ''user'' then
                              jsonb_build_object(''settings'', (to_jsonb(b) ->> ''settings'')::jsonb,
                                                 ''info'', (to_jsonb(b) ->> ''info'')::jsonb) else ''{{}}'' end) p', t);
                 end if;
             end loop;
             if to_regclass('before.api_key') is null then
                 insert into public.api_key (id, user_id, key, created_at, updated_at)
                 select 'key_' || b.id, b.id, to_jsonb(b) ->> 'api_key', 1, 1
                   from before.\"user\" b where to_jsonb(b) ->> 'api_key' is not null;
             end if;
             if to_regclass('before.group_member') is null then
                 insert into public.group_member (id, group_id, user_id, created_at, updated_at)
                 select g.id || m.id, g.id, m.id, 1, 1 from before.\"group\" g
                  cross join lateral jsonb_array_elements_text(to_jsonb(g) -> 'user_ids') m (id);
             end if;
         end $$;
         drop schema before cascade",
        tables = next.sql(),
        version = next.alembic_version().unwrap(),
    );
    execute(&pair.target, &sql).await.unwrap();
}

#[tokio::test]
async fn keys_and_members_stay_what_they_are_from_release_to_release() {
    let pair = Pair::with(PairOptions { webui: Schema::OpenWebUi0_6_30, ..PairOptions::default() }).await;
    let keys: String = (1..=6).map(|number| key(&format!("k{number}"), &format!("a{number}"))).collect();
    pair.litellm(&[people("a", 10), team("t", "T", None, &["a1", "a2"]), keys].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui(
        "update \"user\" set api_key = 'sk-own' where id = 'usr_a6';
         update \"user\" set api_key = null where id = 'usr_a5'",
    )
    .await;
    let foreign = Foreign { keyless: ["usr_a5".to_owned()].into(), ..Foreign::default() };
    let mut before = api_keys(&pair).await;
    for (round, next) in
        [Schema::OpenWebUi0_6_43, Schema::OpenWebUi0_8_12, Schema::OpenWebUi0_12_4].into_iter().enumerate()
    {
        step_up(&pair, next).await;
        // One leaves with their key, one comes with theirs.
        let (gone, new) = (round + 1, round + 7);
        pair.litellm(
            &[
                unkey(&format!("k{gone}")),
                key(&format!("k{new}"), &format!("a{new}")),
                rostered("t", &["a1", &format!("a{new}")]),
            ]
            .concat(),
        )
        .await;
        assert_eq!(pair.settle().await, 0, "{next}");
        assert_in_step_with(&pair, &foreign).await;
        let after = api_keys(&pair).await;
        before.retain(|(account, _)| *account != format!("usr_a{gone}"));
        let kept: Vec<_> =
            after.iter().filter(|(account, _)| *account != format!("usr_a{new}")).cloned().collect();
        assert_eq!(kept, before, "{next}");
        assert_eq!(after.len(), before.len() + 1, "{next}");
        before = after;
    }
    assert!(before.contains(&("usr_a6".to_owned(), "sk-own".to_owned())));
    daemon.ready().await;
}

#[tokio::test]
async fn a_table_litellm_adds_is_followed_and_a_column_made_anew_is_copied_again() {
    let pair = Pair::with(PairOptions { litellm: Schema::LiteLlm1_77_3, ..PairOptions::default() }).await;
    pair.litellm(&people("a", 5)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    // Values change with no row in the stream.
    pair.litellm("alter table \"LiteLLM_UserTable\" drop column user_alias; alter table \"LiteLLM_UserTable\" add column user_alias text default 'Everybody'").await;
    eventually("the new values", || async {
        pair.ask("select count(*) from \"user\" where name = 'Everybody'").await == "5"
    })
    .await;
    pair.litellm("create table \"LiteLLM_AccessGroupTable\" (access_group_id text primary key, access_group_name text, access_model_names text[], assigned_team_ids text[])").await;
    let published = "select count(*) from pg_publication_tables where tablename = 'LiteLLM_AccessGroupTable'";
    eventually("the table to be published", || async { pair.ask_litellm(published).await == "1" }).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}

async fn renamed_by_hand(pair: &Pair) {
    pair.webui("update \"user\" set name = 'By hand' where id = 'usr_a2'").await;
}

/// What only a projection of everything finds.
async fn name(pair: &Pair) -> String {
    pair.ask("select name from \"user\" where id = 'usr_a2'").await
}

#[tokio::test]
async fn changed_rules_reach_everybody_at_the_next_start_and_unchanged_ones_nobody() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let made_with = || pair.ask("select projected_with from litellm_webui_sync.checkpoint");
    {
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
    }
    let before = made_with().await;
    // The same program with the same rules.
    renamed_by_hand(&pair).await;
    {
        let daemon = Daemon::start(&pair);
        daemon.ready().await;
        pair.litellm(&change("a1", "user_alias = 'One'")).await;
        pair.settle().await;
        assert!(!daemon.log().contains("projecting everything"), "{}", daemon.log());
        assert_eq!(name(&pair).await, "By hand");
        assert_eq!(made_with().await, before);
    }
    // The views of another build of the same version; and its statements.
    for other in [
        "update litellm_webui_sync.checkpoint set projected_with = replace(projected_with, digest, 'd1e')
           from litellm_webui_sync.installed_views;
         update litellm_webui_sync.installed_views set digest = 'd1e'",
        "update litellm_webui_sync.checkpoint set projected_with = regexp_replace(projected_with, '[0-9a-f]+$', 'd1e')",
    ] {
        renamed_by_hand(&pair).await;
        pair.webui(other).await;
        assert_ne!(made_with().await, before);
        let daemon = Daemon::start(&pair);
        daemon.ready().await;
        assert_eq!(name(&pair).await, "a2", "{other}");
        assert_eq!(made_with().await, before);
    }
    assert_in_step(&pair).await;
}

/// LiteLLM's migrations, one after the other.
mod migrations {
    use std::time::Duration;

    use testbed::connect;

    use crate::support::{Pair, people};

    const ALL: &str = include_str!("litellm_upgrade.sql");
    /// Between two of them.
    const GAP: Duration = Duration::from_millis(200);

    /// Up to the index that takes long, and after it.
    pub(super) fn halves() -> (Vec<&'static str>, Vec<&'static str>) {
        let all: Vec<&str> = ALL.split("\n\n").collect();
        let pause = all.iter().position(|text| text.contains("takes long")).unwrap();
        (all[1..pause].to_vec(), all[pause + 1..].to_vec())
    }

    /// Runs some. None may wait for a lock for long, and none may be ended by the server.
    pub(super) async fn run(pair: &Pair, some: &[&str]) {
        for migration in some {
            let sql = format!("set lock_timeout = '3s'; begin; {migration} ; commit");
            let client = connect(&pair.source).await.unwrap();
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{error:?}: {migration}"));
            tokio::time::sleep(GAP).await;
        }
    }

    /// An index that takes this long to build without keeping anybody from writing.
    pub(super) async fn build_slowly(pair: &Pair, seconds: f64) {
        pair.litellm(&people("slow", 10)).await;
        let client = connect(&pair.source).await.unwrap();
        client
            .batch_execute(&format!(
                "create function slowly(text) returns text immutable language plpgsql as
                 $$ begin if $1 like 'slow%' then perform pg_sleep({seconds} / 10.0); end if; return $1; end $$",
            ))
            .await
            .unwrap();
        let build = "create index concurrently slowly on \"LiteLLM_UserTable\" (slowly(user_id))";
        client.batch_execute(build).await.unwrap();
        client.batch_execute("drop index slowly").await.unwrap();
    }
}

/// LiteLLM at work, a statement at a time: no two of its own transactions wait for each other. Ends when it is told to.
async fn work(url: String, mut told: tokio::sync::oneshot::Receiver<()>) {
    let client = connect(&url).await.unwrap();
    let mut number = 0;
    while told.try_recv().is_err() {
        number += 1;
        for statement in [
            person(&format!("w{number}"), &format!("w{number}@x.test")),
            key(&format!("w{number}"), &format!("w{number}")),
            change("a1", &format!("user_alias = 'Round {number}', spend = spend + 1")),
            rostered("t", &["a1", &format!("w{number}")]),
            gone(&format!("w{}", number - number % 7)),
        ] {
            client.batch_execute(&statement).await.unwrap_or_else(|error| panic!("{error:?}: {statement}"));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// How often everything was copied.
async fn copies(pair: &Pair) -> String {
    pair.ask("select count(*) from litellm_webui_sync.backfill").await
}

/// LiteLLM 1.77.3 with some people.
async fn old_litellm() -> Pair {
    let pair = Pair::with(PairOptions { litellm: Schema::LiteLlm1_77_3, ..PairOptions::default() }).await;
    let keys: String = (1..=6).map(|number| key(&format!("k{number}"), &format!("a{number}"))).collect();
    let model = "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, created_by, updated_by)
                 values ('1', 'gpt-4', '{}', '', '');";
    let parts = [model.to_owned(), people("a", 30), team("t", "T", None, &["a1", "a2"]), keys];
    pair.litellm(&parts.concat()).await;
    pair
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_of_litellm_is_one_copy_when_it_is_over_and_the_stream_goes_on_meanwhile() {
    let pair = old_litellm().await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.ready().await;
    let (enough, told) = tokio::sync::oneshot::channel();
    let working = tokio::spawn(work(pair.source.clone(), told));
    let (first, second) = migrations::halves();
    let upgrade = async {
        migrations::run(&pair, &first).await;
        eventually("it is seen", || async {
            daemon.get("/metrics").1.contains("publication_status{status=\"changed\"} 1")
        })
        .await;
        migrations::build_slowly(&pair, 8.0).await;
        migrations::run(&pair, &second).await;
    };
    // Nobody is without the stream while it goes on.
    let watch = async {
        loop {
            let (code, said) = daemon.get("/readyz");
            assert_eq!(code, 200, "{said}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::select! {
        () = upgrade => {}
        () = watch => {}
    }
    assert_eq!(copies(&pair).await, "1");
    eventually("the copy", || async { copies(&pair).await == "2" }).await;
    enough.send(()).unwrap();
    working.await.unwrap();
    daemon.ready().await;
    pair.litellm(
        "insert into \"LiteLLM_AccessGroupTable\" (access_group_id, access_group_name, access_model_names) values ('g', 'G', '{gpt-4}');
         update \"LiteLLM_TeamTable\" set access_group_ids = '{g}' where team_id = 't'",
    )
    .await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    assert_eq!(copies(&pair).await, "2");
}

#[tokio::test]
async fn a_daemon_that_starts_in_the_middle_of_an_upgrade_streams_on_and_copies_when_it_is_over() {
    let pair = old_litellm().await;
    {
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
    }
    // Prisma has this lock from the first migration to the last.
    let prisma = connect(&pair.source).await.unwrap();
    prisma.batch_execute("select pg_advisory_lock(72707369)").await.unwrap();
    let (first, second) = migrations::halves();
    migrations::run(&pair, &first).await;
    let daemon = Daemon::start(&pair);
    pair.litellm(&person("during", "during@x.test")).await;
    pair.settle().await;
    assert_eq!(pair.account("during@x.test").await, "usr_during|during|user|active");
    daemon.ready().await;
    assert_eq!(copies(&pair).await, "1");
    migrations::run(&pair, &second).await;
    drop(prisma);
    eventually("the copy", || async { copies(&pair).await == "2" }).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
    assert_eq!(copies(&pair).await, "2");
}

/// A lock on the one server must not keep the other from making a slot.
async fn on_two_servers() -> (Pair, [Cluster; 2]) {
    let servers = [(); 2].map(|()| Cluster::start(ClusterOptions::default()).unwrap());
    let pair = Pair::on(&servers[0], &servers[1], PairOptions::default()).await;
    pair.litellm(&[people("a", 5), team("t", "T", None, &["a1"])].concat()).await;
    (pair, servers)
}

/// Whoever copies or compares teams hangs in Open WebUI's database.
async fn hold_teams(pair: &Pair) -> tokio_postgres::Client {
    let holder = connect(&pair.target).await.unwrap();
    let lock = "begin; lock table litellm_webui_sync.litellm_team in access exclusive mode";
    holder.batch_execute(lock).await.unwrap();
    holder
}

#[tokio::test]
async fn a_migration_does_not_wait_for_a_copy() {
    let (pair, _servers) = on_two_servers().await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    // With locks on LiteLLM's tables.
    let holder = hold_teams(&pair).await;
    let asked = run(&pair, &["resnapshot"]);
    assert_eq!(asked.0, 0, "{asked:?}");
    let reads =
        "select count(*) from pg_locks where mode = 'AccessShareLock' and granted and pid <> pg_backend_pid()
                    and relation = '\"LiteLLM_TeamTable\"'::regclass";
    eventually("the copy to read", || async { pair.ask_litellm(reads).await == "1" }).await;
    migrations::run(&pair, &["alter table \"LiteLLM_TeamTable\" add column newest text"]).await;
    eventually("it says so", || async { daemon.log().contains("went first") }).await;
    holder.batch_execute("rollback").await.unwrap();
    pair.litellm(&person("after", "after@x.test")).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}

#[tokio::test]
async fn a_copy_for_an_upgrade_that_failed_half_way_is_no_healing_the_next_time() {
    let pair = old_litellm().await;
    {
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
    }
    pair.litellm("alter table \"LiteLLM_VerificationToken\" add column key_type text").await;
    let failpoints = Some("copied-not-merged=panic".to_owned());
    Daemon::with(&pair, &DaemonOptions { failpoints, ..DaemonOptions::default() }).end();
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(copies(&pair).await, "3");
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.backfill where healing").await, "0");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn an_index_that_is_built_does_not_wait_for_a_copy_at_a_new_slot() {
    let (pair, _servers) = on_two_servers().await;
    {
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
    }
    let holder = hold_teams(&pair).await;
    pair.litellm(
        "alter table \"LiteLLM_BudgetTable\" drop column allowed_models; alter table \"LiteLLM_BudgetTable\" add column allowed_models text[]",
    )
    .await;
    let daemon = Daemon::start(&pair);
    eventually("the copy to read", || async { daemon.log().contains("copied table=\"LiteLLM_UserTable\"") })
        .await;
    // Waits for every snapshot that is older: the reader's, and that of whoever made the slot.
    let client = connect(&pair.source).await.unwrap();
    client.batch_execute("set statement_timeout = '5s'").await.unwrap();
    client
        .batch_execute("create index concurrently newest on \"LiteLLM_TeamTable\" (team_alias)")
        .await
        .unwrap();
    eventually("it says so", || async { daemon.log().contains("went first") }).await;
    holder.batch_execute("rollback").await.unwrap();
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}
