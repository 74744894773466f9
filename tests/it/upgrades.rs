//! Open WebUI and LiteLLM are upgraded while we are there.

use testbed::{Schema, connect, execute, load};

use crate::support::compare::assert_in_step;
use crate::support::{Daemon, Pair, PairOptions, gone, people, person, rostered, rows, team};

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
    pair.litellm(&[people("a", 10), team("t", "T", None, &["a1", "a2"])].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
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

#[tokio::test]
async fn a_table_litellm_adds_is_followed_and_a_column_made_anew_is_copied_again() {
    let pair = Pair::with(PairOptions { litellm: Schema::LiteLlm1_77_3, ..PairOptions::default() }).await;
    pair.litellm(&people("a", 5)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    // Values change with no row in the stream.
    pair.litellm("alter table \"LiteLLM_UserTable\" drop column user_alias; alter table \"LiteLLM_UserTable\" add column user_alias text default 'Everybody'").await;
    crate::support::eventually("the new values", || async {
        pair.ask("select count(*) from \"user\" where name = 'Everybody'").await == "5"
    })
    .await;
    pair.litellm("create table \"LiteLLM_AccessGroupTable\" (access_group_id text primary key, access_group_name text, access_model_names text[], assigned_team_ids text[])").await;
    let published = "select count(*) from pg_publication_tables where tablename = 'LiteLLM_AccessGroupTable'";
    crate::support::eventually("the table to be published", || async {
        pair.ask_litellm(published).await == "1"
    })
    .await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}
