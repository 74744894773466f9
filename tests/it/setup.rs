//! Rights, connections, and going away again.

use testbed::{Cluster, ClusterOptions, Schema, execute};

use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::{
    ADMIN, Daemon, Pair, PairOptions, change, eventually, gone, key, organization, people, person, rostered,
    rows, team, unkey,
};

#[tokio::test]
async fn roles_made_from_the_printed_sql_are_enough() {
    for webui in [Schema::OpenWebUi0_12_4, Schema::OpenWebUi0_6_30] {
        least_privileges(webui).await;
    }
}

async fn least_privileges(webui: Schema) {
    let (source, target) = (
        Cluster::start(ClusterOptions::default()).unwrap(),
        Cluster::start(ClusterOptions::default()).unwrap(),
    );
    let mut pair = Pair::on(&source, &target, PairOptions { webui, ..PairOptions::default() }).await;
    // No right comes from PUBLIC.
    for (url, name) in [(&pair.source, "litellm"), (&pair.target, "webui")] {
        let database = url.rsplit('/').next().unwrap();
        execute(
            url,
            &format!(
                "revoke all on database {database} from public; revoke all on schema public from public;
                 create role {name}_sync login"
            ),
        )
        .await
        .unwrap();
    }
    let (code, sql, error) =
        run(&pair, &["setup", "--print-sql", "--source-role", "litellm_sync", "--target-role", "webui_sync"]);
    assert_eq!(code, 0, "{error}");
    let at = sql.find("-- On Open WebUI's database").unwrap();
    let (for_source, for_target) = sql.split_at(at);
    execute(&pair.source, for_source).await.unwrap_or_else(|error| panic!("{error:#}:\n{for_source}"));
    execute(&pair.target, for_target).await.unwrap_or_else(|error| panic!("{error:#}:\n{for_target}"));
    pair.daemon_source = pair.source.replace("postgres@", "litellm_sync@");
    pair.daemon_target = pair.target.replace("postgres@", "webui_sync@");
    assert_eq!(
        pair.ask("select bool_or(rolsuper or rolcreatedb or rolcreaterole or rolreplication) from pg_roles where rolname = 'webui_sync'").await,
        "f"
    );
    let keys = [key("1", "a1"), key("2", "a2")].concat();
    pair.litellm(
        &[people("a", 10), organization("o", "O"), team("t", "T", Some("o"), &["a1"]), keys].concat(),
    )
    .await;
    let mut daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0, "{}", daemon.log());
    assert_in_step(&pair).await;
    pair.litellm(
        &[
            gone("a1"),
            unkey("2"),
            key("3", "a3"),
            change("a2", "user_email = 'a3@x.test'"),
            change("a3", "user_email = 'a2@x.test'"),
            rostered("t", &["a4"]),
        ]
        .concat(),
    )
    .await;
    assert_eq!(pair.settle().await, 0);
    pair.litellm("delete from \"LiteLLM_TeamTable\"").await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    // It cannot read what it has no business with.
    let denied =
        execute(&pair.daemon_source, "insert into \"LiteLLM_UserTable\" (user_id) values ('x')").await;
    assert!(denied.is_err());
    let (code, _, error) = run(&pair, &["status", "--wait", "now"]);
    assert_eq!(code, 0, "{error}");
    daemon.terminate();
}

/// Every row of the tables we write, column by column.
async fn dump(pair: &Pair) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["\"user\"", "auth", "\"group\"", "group_member", "api_key"] {
        let sql = format!("select to_jsonb(t) - 'updated_at' from {table} t order by t.id");
        all.extend(rows(&pair.target, &sql).await.into_iter().map(|row| format!("{table} {row:?}")));
    }
    all
}

fn assert_same(is: &[String], should: &[String]) {
    let lines = |these: &[String], others: &[String], sign: &str| -> Vec<String> {
        these.iter().filter(|row| !others.contains(row)).map(|row| format!("{sign} {row}")).collect()
    };
    let (more, less) = (lines(is, should, "+"), lines(should, is, "-"));
    assert!(more.is_empty() && less.is_empty(), "{}", [more, less].concat().join("\n").replace('\\', ""));
}

#[tokio::test]
async fn a_purge_leaves_open_webui_as_it_was() {
    let pair = Pair::new().await;
    pair.webui(
        "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at) values
            ('x1', 'Found', 'Found@X.test', 'user', '/a.png', 1, 1, 1), ('x2', 'Waiting', 'waiting@x.test', 'pending', '/a.png', 1, 1, 1),
            ('x3', 'Off', 'off@x.test', 'user', '/a.png', 1, 1, 1);
         insert into auth (id, email, password, active) values ('x1', 'Found@X.test', 'p', true), ('x2', 'waiting@x.test', 'p', true),
            ('x3', 'off@x.test', 'p', false);
         insert into \"group\" (id, user_id, name, description, created_at, updated_at) values
            ('grp_team_t', 'x1', 'Hand-made', '', 1, 1), ('own', 'x1', 'Own', '', 1, 1);
         insert into group_member (id, group_id, user_id) values ('1', 'grp_team_t', 'x2'), ('2', 'own', 'x1');
         insert into api_key (id, user_id, key, created_at, updated_at) values ('key_x1', 'x1', 'sk-own', 1, 1);
         insert into model (id, user_id, base_model_id, name, params, meta, is_active, created_at, updated_at) values
            ('gpt-4', 'x1', null, 'Mine', '{\"a\": 1}', '{}', true, 1, 1), ('preset', 'x1', 'gpt-4', 'Preset', '{}', '{}', true, 1, 1);
         insert into access_grant (id, resource_type, resource_id, principal_type, principal_id, permission, created_at) values
            ('1', 'model', 'gpt-4', 'user', 'x2', 'read', 1), ('2', 'model', 'preset', 'user', '*', 'read', 1)",
    )
    .await;
    let before = dump(&pair).await;
    pair.litellm(
        &[
            crate::access::served(),
            people("a", 10),
            person("f", "found@x.test"),
            person("w", "waiting@x.test"),
            person("o", "off@x.test"),
            organization("org", "O"),
            team("t", "T", Some("org"), &["a1", "f", "w"]),
            team("u", "U", None, &["a2", "f"]),
            [key("1", "a1"), key("2", "f"), key("3", "w"), key("4", "a3")].concat(),
            "update \"LiteLLM_UserTable\" set user_role = 'proxy_admin' where user_id in ('f', 'a1');"
                .to_owned(),
        ]
        .concat(),
    )
    .await;
    let mut daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.ask("select count(*) from api_key where key <> 'sk-own'").await, "3");
    assert_eq!(run(&pair, &["teardown", "--purge"]).0, 1, "a daemon runs");
    pair.litellm(&[gone("a3"), gone("f"), change("w", "user_email = 'elsewhere@x.test'")].concat()).await;
    pair.settle().await;
    daemon.terminate();
    let there = dump(&pair).await;
    let (code, said, error) = run(&pair, &["teardown", "--purge", "--dry-run"]);
    assert!(code == 0 && said.contains("deleted 10 accounts, locked 0"), "{said}{error}");
    assert_same(&dump(&pair).await, &there);
    let (code, said, error) = run(&pair, &["teardown", "--purge"]);
    assert_eq!(code, 0, "{said}{error}");
    // Who left LiteLLM is not let in again.
    assert_eq!(pair.account("found@x.test").await, "x1|Found|pending|locked");
    pair.webui(
        "update \"user\" set role = 'user' where id = 'x1'; update auth set active = true where id = 'x1'",
    )
    .await;
    assert_same(&dump(&pair).await, &before);
    assert_eq!(pair.ask("select count(*) from pg_namespace where nspname = 'litellm_webui_sync'").await, "0");
    let ours = "select (select count(*) from pg_publication where pubname = 'litellm_webui_sync')
                     + (select count(*) from pg_replication_slots where database = current_database())";
    assert_eq!(pair.ask_litellm(ours).await, "0");
    // And it can start all over.
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|a1|admin|active");
    assert_eq!(pair.members("grp_team_t").await, "usr_a1 usr_w x2");
}

#[tokio::test]
async fn a_purge_keeps_people_with_chats_unless_told_otherwise() {
    let pair = Pair::new().await;
    pair.litellm(&[people("a", 3), key("1", "a1")].concat()).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    assert_eq!(pair.ask("select count(*) from api_key").await, "1");
    pair.webui(
        "insert into chat (id, user_id, title, created_at, updated_at) values ('c', 'usr_a1', 't', 1, 1)",
    )
    .await;
    let (code, said, error) = run(&pair, &["teardown", "--purge"]);
    assert_eq!(code, 0, "{said}{error}");
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|a1|pending|locked");
    assert_eq!(pair.ask("select count(*) from \"user\"").await, "2");
    assert_eq!(pair.ask("select count(*) from api_key").await, "0");
    let mut daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    daemon.terminate();
    let (code, said, error) = run(&pair, &["teardown", "--purge", "--purge-people"]);
    assert_eq!(code, 0, "{said}{error}");
    assert_eq!(pair.ask("select count(*) from \"user\" where id <> 'usr_a1'").await, "1");
}

#[tokio::test]
async fn a_purge_keeps_what_people_made_whom_an_admin_keeps_out_and_an_admin() {
    for webui in [Schema::OpenWebUi0_6_30, Schema::OpenWebUi0_12_4] {
        let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
        pair.webui(
            "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at) values
                ('x', 'X', 'x@x.test', 'user', '/a.png', 1, 1, 1);
             insert into auth (id, email, password, active) values ('x', 'x@x.test', 'p', true)",
        )
        .await;
        pair.litellm(
            &[
                people("a", 3),
                person("x", "x@x.test"),
                "update \"LiteLLM_UserTable\" set user_role = 'proxy_admin' where user_id = 'a2'".to_owned(),
            ]
            .concat(),
        )
        .await;
        let mut daemon = Daemon::start(&pair);
        pair.settle().await;
        daemon.terminate();
        pair.webui(&format!(
            "update \"user\" set role = 'pending' where id = 'x';
             create table keepsake (id text, user_id varchar);
             insert into keepsake values ('k', 'usr_a1');
             update auth set active = false where id = '{ADMIN}'"
        ))
        .await;
        let (code, said, error) = run(&pair, &["teardown", "--purge", "--purge-people", "--dry-run"]);
        assert!(code == 0 && said.contains("dropped slot"), "{webui}: {said}{error}");
        let (code, said, error) = run(&pair, &["teardown", "--purge"]);
        assert!(code == 0 && said.contains("kept account usr_a2"), "{webui}: {said}{error}");
        assert_eq!(pair.account("a1@x.test").await, "usr_a1|a1|pending|locked", "{webui}");
        assert_eq!(pair.account("a2@x.test").await, "usr_a2|a2|admin|active", "{webui}");
        assert_eq!(pair.account("x@x.test").await, "x|X|pending|active", "{webui}");
        assert_eq!(pair.ask("select count(*) from \"user\" where id = 'usr_a3'").await, "0");
    }
}

#[tokio::test]
async fn a_purge_that_fails_leaves_everything_as_it_was() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    pair.webui(
        "create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
         create trigger no before delete on auth for each row execute function no()",
    )
    .await;
    let before = dump(&pair).await;
    let (code, said, _) = run(&pair, &["teardown", "--purge"]);
    assert!(code != 0 && !said.contains("dropped slot"), "{said}");
    assert_same(&dump(&pair).await, &before);
    let there = "select (select count(*) from pg_publication where pubname = 'litellm_webui_sync')
                      + (select count(*) from pg_replication_slots where database = current_database())";
    assert_eq!(pair.ask_litellm(there).await, "2");
    // And the daemon goes on where it was.
    pair.webui("drop trigger no on auth; drop function no()").await;
    pair.litellm(&person("b", "b@x.test")).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_teardown_keeps_every_row_and_the_next_run_goes_on() {
    let pair = Pair::new().await;
    pair.litellm(&[people("a", 10), team("t", "T", None, &["a1"])].concat()).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    let before = dump(&pair).await;
    let (code, _, error) = run(&pair, &["teardown"]);
    assert_eq!(code, 0, "{error}");
    assert_same(&dump(&pair).await, &before);
    assert_eq!(run(&pair, &["teardown"]).0, 0);
    pair.litellm(&[gone("a2"), change("a3", "user_alias = 'Three'")].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(pair.account("a2@x.test").await, "usr_a2|a2|pending|locked");
    daemon.ready().await;
}

#[tokio::test]
async fn tls_is_verified_in_full_and_a_client_certificate_is_shown_on_both_sides() {
    let start = || Cluster::start(ClusterOptions { tls: true, ..ClusterOptions::default() }).unwrap();
    let (source, target) = (start(), start());
    let mut pair = Pair::on(&source, &target, PairOptions::default()).await;
    let tls = |cluster: &Cluster, url: &str, ca: &Cluster| {
        cluster
            .add_hba(&["hostssl all all 127.0.0.1/32 cert", "hostnossl all all 127.0.0.1/32 reject"])
            .unwrap();
        let files = cluster.tls().unwrap();
        format!(
            "{url}?sslmode=verify-full&sslrootcert={}&sslcert={}&sslkey={}",
            ca.tls().unwrap().ca.display(),
            files.client_certificate.display(),
            files.client_key.display()
        )
    };
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    pair.daemon_source = tls(&source, &pair.source, &source);
    pair.daemon_target = tls(&target, &pair.target, &target);
    let wrong = tls(&target, &pair.target, &source);
    pair.source = source.socket_url(&name(&pair.source));
    pair.target = target.socket_url(&name(&pair.target));
    pair.litellm(&people("a", 10)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    let plain = "select count(*) from pg_stat_activity a join pg_stat_ssl s using (pid)
                  where a.application_name like 'litellm-webui-sync%' and client_addr is not null and not s.ssl";
    assert_eq!(pair.ask(plain).await, "0");
    assert_eq!(pair.ask_litellm(plain).await, "0");
    let encrypted = "select count(*) > 0 from pg_stat_activity a join pg_stat_ssl s using (pid)
                      where a.application_name like 'litellm-webui-sync%' and s.ssl and s.client_dn like '%postgres%'";
    assert_eq!(pair.ask(encrypted).await, "t");
    assert_eq!(pair.ask_litellm(encrypted).await, "t");
    // Another authority's certificate is refused.
    pair.daemon_target = wrong;
    let (code, _, error) = run(&pair, &["status"]);
    assert_eq!(code, 1);
    assert!(error.to_lowercase().contains("certificate"), "{error}");
}

#[tokio::test]
async fn unix_sockets_and_the_products_own_spellings_of_urls_work() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let mut pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    pair.daemon_source = cluster.socket_url(&name(&pair.source));
    pair.daemon_target = cluster.socket_url(&name(&pair.target));
    pair.litellm(&people("a", 10)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.terminate();
    pair.daemon_source = format!("{}?schema=public&connection_limit=10&pool_timeout=60", pair.source);
    pair.daemon_target = pair.target.replace("postgresql://", "postgresql+psycopg2://");
    let daemon = Daemon::start(&pair);
    pair.litellm(&gone("a1")).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}

#[tokio::test]
async fn setup_prepares_and_may_be_run_again() {
    let pair = Pair::new().await;
    for _ in 0..2 {
        let (code, said, error) = run(&pair, &["setup"]);
        assert_eq!(code, 0, "{said}{error}");
    }
    pair.litellm(&people("a", 3)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    eventually("status", || async { run(&pair, &["status"]).1.contains("streaming") }).await;
}
