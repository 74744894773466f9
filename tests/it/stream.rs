//! What comes out of the WAL: unchanged values, moved keys, truncates, huge and failed transactions.

use testbed::{Cluster, ClusterOptions, connect};

use crate::churn::{assert_audited_once, reference};
use crate::support::compare::assert_in_step;
use crate::support::daemon::DaemonOptions;
use crate::support::{
    Daemon, Pair, PairOptions, change, eventually, gone, key, organization, people, person, rows, team,
};
use litellm_webui_sync::failpoint;
use litellm_webui_sync::observe::status::Waited;

/// Too large for its page and not compressible: unchanged, it is not in the stream.
const NOISE: &str = "(select string_agg(md5(i::text), '') from generate_series(1, 300) i)";

#[tokio::test]
async fn a_roster_too_large_to_be_sent_again_keeps_its_members() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 60)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&format!(
        "{} insert into \"LiteLLM_TeamTable\" (team_id, team_alias, members_with_roles, models)
         select 't', 'T', jsonb_agg(jsonb_build_object('user_id', user_id, 'user_email', user_email || md5(user_id) || md5(user_id || 'x'))), '{{}}'
           from \"LiteLLM_UserTable\"",
        ""
    ))
    .await;
    pair.settle().await;
    let count = "select count(*) from group_member";
    assert_eq!(pair.ask(count).await, "60");
    assert_eq!(
        pair.ask_litellm("select pg_column_size(members_with_roles) > 2000 from \"LiteLLM_TeamTable\"").await,
        "t"
    );
    pair.litellm("update \"LiteLLM_TeamTable\" set spend = spend + 1").await;
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'T2'").await;
    // Moved with its key, unchanged.
    pair.litellm("update \"LiteLLM_TeamTable\" set team_id = 't2'").await;
    pair.settle().await;
    assert_eq!(pair.ask(count).await, "60");
    assert_in_step(&pair).await;
    // As the first change after a start, when nothing is remembered.
    drop(daemon);
    pair.litellm("update \"LiteLLM_TeamTable\" set spend = spend + 1, organization_id = null").await;
    let _daemon = Daemon::start(&pair);
    pair.litellm(&gone("a7")).await;
    pair.settle().await;
    // Whoever is gone from LiteLLM is in no group, whatever a roster still says.
    assert_eq!(pair.members("grp_team_t2").await.split(' ').count(), 59);
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn replica_identity_full_may_be_switched_on_and_off_at_any_time() {
    let pair = Pair::new().await;
    pair.litellm(&[people("a", 5), organization("o", "O"), team("t", "T", None, &["a1"])].concat()).await;
    reference::begin(&pair).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    for (identity, number) in [("full", 1), ("default", 2), ("full", 3)] {
        for table in ["UserTable", "TeamTable", "OrganizationMembership"] {
            pair.litellm(&format!("alter table \"LiteLLM_{table}\" replica identity {identity}")).await;
        }
        pair.litellm(&format!(
            "{} update \"LiteLLM_UserTable\" set user_id = 'moved{number}' where user_id = 'a{number}';
             insert into \"LiteLLM_OrganizationMembership\" (user_id, organization_id) values ('a4', 'o'), ('a5', 'o');
             delete from \"LiteLLM_OrganizationMembership\" where user_id = 'a4';
             update \"LiteLLM_TeamTable\" set metadata = jsonb_build_object('x', {NOISE}), spend = {number};",
            change("a4", &format!("user_alias = 'A{number}'")),
        ))
        .await;
        pair.litellm("update \"LiteLLM_TeamTable\" set spend = spend + 1").await;
        pair.litellm("delete from \"LiteLLM_OrganizationMembership\"").await;
        pair.settle().await;
        assert_in_step(&pair).await;
    }
    reference::assert_exactly_once(&pair).await;
}

#[tokio::test]
async fn a_rotated_key_keeps_the_metadata_that_is_not_sent_again() {
    let pair = Pair::new().await;
    pair.litellm(&format!(
        "{} insert into \"LiteLLM_VerificationToken\" (token, user_id, metadata, models)
         select repeat('a', 64), 'a', jsonb_build_object('service_account_id', 's', 'x', {NOISE}), '{{m}}'",
        person("a", "a@x.test")
    ))
    .await;
    reference::begin(&pair).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("update \"LiteLLM_VerificationToken\" set token = repeat('b', 64), spend = 1").await;
    pair.settle().await;
    let sql = "select token || metadata::text || models::text from litellm_webui_sync.litellm_key";
    let rotated = format!("{}{{\"service_account_id\": \"s\"}}{{m}}", "b".repeat(64));
    assert_eq!(pair.ask(sql).await, rotated);
    // There and back again, and a swap, each in one transaction.
    pair.litellm(
        "update \"LiteLLM_VerificationToken\" set token = repeat('c', 64);
         update \"LiteLLM_VerificationToken\" set token = repeat('b', 64);
         insert into \"LiteLLM_VerificationToken\" (token, models) values (repeat('d', 64), '{d}');
         update \"LiteLLM_VerificationToken\" set token = repeat('e', 64) where token = repeat('b', 64);
         update \"LiteLLM_VerificationToken\" set token = repeat('b', 64) where token = repeat('d', 64);
         update \"LiteLLM_VerificationToken\" set token = repeat('d', 64) where token = repeat('e', 64)",
    )
    .await;
    pair.settle().await;
    let sql = "select string_agg(left(token, 1) || metadata::text || models::text, ' ' order by token)
                 from litellm_webui_sync.litellm_key";
    assert_eq!(pair.ask(sql).await, "b{}{d} d{\"service_account_id\": \"s\"}{m}");
    reference::assert_exactly_once(&pair).await;
}

#[tokio::test]
async fn a_key_in_the_clear_never_reaches_open_webuis_database() {
    let pair = Pair::new().await;
    pair.litellm(
        "insert into \"LiteLLM_VerificationToken\" (token, models) values ('sk-clear-secret-1', '{}')",
    )
    .await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(
        "insert into \"LiteLLM_VerificationToken\" (token, models) values ('sk-clear-secret-2', '{}');
         update \"LiteLLM_VerificationToken\" set token = 'sk-clear-secret-3' where token like '%1'",
    )
    .await;
    pair.litellm(&[person("a", "a@x.test"), change("a", "password = 'scrypt:secret-4'")].concat()).await;
    pair.settle().await;
    for table in rows(
        &pair.target,
        "select oid::regclass::text from pg_class where relkind = 'r' and relpersistence = 'p'",
    )
    .await
    {
        let table = table[0].as_deref().unwrap_or_default();
        let sql = format!("select '1' from {table} t where t::text like '%secret-%'");
        assert!(rows(&pair.target, &sql).await.is_empty(), "{table}");
    }
    assert!(!daemon.log().contains("secret-"));
    assert!(!daemon.get("/metrics").1.contains("secret-"));
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.litellm_key").await, "2");
}

#[tokio::test]
async fn a_truncate_of_everybody_is_held_and_one_of_the_memberships_is_not() {
    let pair = Pair::new().await;
    pair.litellm(
        &[
            people("a", 50),
            organization("o", "O"),
            "insert into \"LiteLLM_OrganizationMembership\" (user_id, organization_id)
         select 'a' || i, 'o' from generate_series(1, 15) i;"
                .to_owned(),
        ]
        .concat(),
    )
    .await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("truncate \"LiteLLM_OrganizationMembership\"; insert into \"LiteLLM_OrganizationMembership\" (user_id, organization_id) values ('a1', 'o')").await;
    pair.settle().await;
    assert_eq!(pair.members("grp_o").await, "usr_a1");
    pair.litellm("truncate \"LiteLLM_UserTable\" cascade").await;
    let waited = pair.wait().await;
    assert!(matches!(&waited, Waited::Failed { reason } if reason.contains("approve")), "{waited:?}");
    assert_eq!(pair.ask("select count(*) from \"user\" where role = 'user'").await, "50");
    assert_eq!(daemon.get("/readyz").0, 503);
}

#[tokio::test]
async fn three_hundred_thousand_rows_in_one_transaction_fit_in_little_memory() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm(&people("a", 200)).await;
    reference::begin(&pair).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&format!(
        "insert into \"LiteLLM_VerificationToken\" (token, user_id, models, metadata)
         select encode(sha256(i::text::bytea), 'hex'), 'a' || i % 200, '{{}}', '{{}}' from generate_series(1, 148000) i;
         update \"LiteLLM_VerificationToken\" set spend = spend + 1;
         insert into \"LiteLLM_UserTable\" (user_id, user_email, models)
         select 'b' || i, 'b' || i || '@x.test', '{{}}' from generate_series(1, 2000) i;
         update \"LiteLLM_UserTable\" set user_alias = 'Alias ' || user_id where user_id like 'b%';
         {}",
        gone("a3")
    ))
    .await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    let peak = daemon.peak_memory();
    println!("peak memory {peak} MiB");
    assert!(peak < 128, "{peak} MiB");
}

#[tokio::test]
async fn what_a_transaction_did_together_is_seen_together() {
    let pair = Pair::new().await;
    pair.litellm(&[person("a", "a@x.test"), person("b", "b@x.test"), team("t", "T", None, &["a"])].concat())
        .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let watching = {
        let url = pair.target.clone();
        tokio::spawn(async move {
            let client = connect(&url).await.unwrap();
            let mut seen = 0;
            let sql = "select coalesce((select name from \"user\" where id = 'usr_a'), ''),
                              coalesce((select name from \"user\" where id = 'usr_b'), ''),
                              coalesce((select name from \"group\" where id = 'grp_team_t'), '')";
            loop {
                let row = client.query_one(sql, &[]).await.unwrap();
                let (a, b, t): (String, String, String) = (row.get(0), row.get(1), row.get(2));
                let number = |text: &str| text.chars().filter(char::is_ascii_digit).collect::<String>();
                assert_eq!(number(&a), number(&b));
                assert_eq!(number(&a), number(&t));
                seen += 1;
                if number(&a) == "100" {
                    return seen;
                }
            }
        })
    };
    let client = connect(&pair.source).await.unwrap();
    for number in 1..=100 {
        client
            .batch_execute(&format!(
                "begin; {} update \"LiteLLM_TeamTable\" set team_alias = 'T{number}'; {} commit;",
                change("a", &format!("user_alias = 'A{number}'")),
                change("b", &format!("user_alias = 'B{number}'")),
            ))
            .await
            .unwrap();
    }
    pair.settle().await;
    let seen = watching.await.unwrap();
    assert!(seen > 10, "{seen}");
}

#[tokio::test]
async fn what_was_rolled_back_is_never_seen() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    reference::begin(&pair).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let client = connect(&pair.source).await.unwrap();
    for _ in 0..20 {
        client.batch_execute(&format!("begin; {} rollback", people("never", 200))).await.unwrap();
    }
    client
        .batch_execute(&format!(
            "begin; savepoint s; {} rollback to s; {} commit",
            person("undone", "undone@x.test"),
            person("kept", "kept@x.test")
        ))
        .await
        .unwrap();
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from \"user\"").await, "5");
    assert_in_step(&pair).await;
    reference::assert_exactly_once(&pair).await;
    assert_eq!(pair.applied().await, (1, 1));
}

#[tokio::test]
async fn insert_delete_insert_and_moves_in_one_transaction_end_as_the_last_one_says() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 4)).await;
    reference::begin(&pair).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(
        &[
            person("n", "n1@x.test"),
            gone("n"),
            person("n", "n2@x.test"),
            change("n", "user_alias = 'N'"),
            gone("a1"),
            person("a1", "a1new@x.test"),
            person("brief", "brief@x.test"),
            gone("brief"),
            change("a2", "user_id = 'a9'"),
            person("a2", "a2new@x.test"),
            change("a2", "user_alias = 'second'"),
            change("a3", "user_id = 'tmp'"),
            change("a4", "user_id = 'a3'"),
            change("tmp", "user_id = 'a4'"),
        ]
        .concat(),
    )
    .await;
    pair.settle().await;
    let mirrored = "select string_agg(user_id || '=' || user_email, ' ' order by user_id) from litellm_webui_sync.litellm_user";
    let source = "select string_agg(user_id || '=' || user_email, ' ' order by user_id collate \"C\") from \"LiteLLM_UserTable\"";
    assert_eq!(pair.ask(mirrored).await, pair.ask_litellm(source).await);
    reference::assert_exactly_once(&pair).await;
    eventually("every account", || async {
        pair.ask("select count(*) from \"user\" u join auth a using (id) where a.active and u.role = 'user'")
            .await
            == "6"
    })
    .await;
}

/// Whatever is sent together with a BEGIN that fails alone: the server would run each statement as a transaction of its own.
#[tokio::test]
async fn nothing_is_written_where_the_begin_of_a_batch_failed_alone() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    reference::begin(&pair).await;
    for (round, changes) in [
        person("new", "new@x.test"),
        [person("other", "other@x.test"), team("t", "T", None, &["a1", "other"]), key("k", "a2")].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let failpoints = Some(format!("{}=1*return->off", failpoint::BEGIN_LOST));
        let daemon = Daemon::with(&pair, &DaemonOptions { failpoints, ..DaemonOptions::default() });
        pair.settle().await;
        if round == 0 {
            pair.webui(WITNESS).await;
        }
        assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
        pair.litellm(&changes).await;
        pair.settle().await;
        assert!(daemon.log().contains("trying again"), "{}", daemon.log());
        let alone = "select string_agg(distinct what, ' ') from seen
                      where xid not in (select xid from seen where what = 'checkpoint')";
        assert_eq!(pair.ask(alone).await, "", "round {round}");
        assert_in_step(&pair).await;
    }
    let seen = "select string_agg(distinct what, ' ' order by what) from seen";
    assert_eq!(pair.ask(seen).await, "checkpoint litellm_key litellm_team litellm_user user");
    reference::assert_exactly_once(&pair).await;
    assert_audited_once(&pair).await;
}

/// Notes what each transaction wrote.
const WITNESS: &str = "
    create table seen (xid xid8, what text);
    create function see() returns trigger language plpgsql as
      $$ begin insert into public.seen values (pg_current_xact_id(), tg_table_name); return null; end $$;
    create trigger see after insert on \"user\" for each statement execute function see();
    create trigger see after update on litellm_webui_sync.checkpoint for each statement execute function see();
    create trigger see after insert on litellm_webui_sync.litellm_user for each statement execute function see();
    create trigger see after insert on litellm_webui_sync.litellm_team for each statement execute function see();
    create trigger see after insert on litellm_webui_sync.litellm_key for each statement execute function see();";

#[tokio::test]
async fn a_batch_of_more_than_ten_thousand_is_audited_by_their_number() {
    let pair = Pair::new().await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&people("n", 10_001)).await;
    pair.settle().await;
    let audited = "select concat_ws('|', operation, record_id is null, new_data->>'count',
                                    lsn between '0/1' and (select end_lsn from litellm_webui_sync.checkpoint))
                     from litellm_webui_sync.sync_audit where operation = 'SYNC_USER'";
    assert_eq!(pair.ask(audited).await, "SYNC_USER|t|10001|t");
    // One of few still is.
    pair.litellm(&person("last", "last@x.test")).await;
    pair.settle().await;
    assert_eq!(
        pair.ask("select count(*) from litellm_webui_sync.sync_audit where record_id = 'last'").await,
        "1"
    );
    // Comparing so many with everybody would take minutes.
    assert_eq!(pair.ask("select count(*) from \"user\" where id like 'usr\\_%'").await, "10002");
    drop(daemon);
}
