//! LiteLLM is not harmed: what is done to it is looked at first, and nothing of ours waits there or is left behind.

use testbed::{Cluster, ClusterOptions, execute};

use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{Daemon, Pair, PairOptions, change, eventually, gone, people, rows};

const KEY: &str = "alter table \"LiteLLM_UserTable\" add primary key (user_id)";
const NO_KEY: &str = "alter table \"LiteLLM_UserTable\" drop constraint \"LiteLLM_UserTable_pkey\" cascade";

/// LiteLLM updates and deletes.
async fn litellm_works(pair: &Pair) {
    pair.litellm(&[people("w", 1), change("w1", "spend = 1"), gone("w1")].concat()).await;
}

#[tokio::test]
async fn a_table_that_could_not_be_updated_is_never_published() {
    for (spoil, mend, word) in [
        (NO_KEY, KEY, "has no primary key"),
        (
            "alter table \"LiteLLM_UserTable\" replica identity nothing",
            "alter table \"LiteLLM_UserTable\" replica identity default",
            "has replica identity nothing",
        ),
        (
            "alter table \"LiteLLM_UserTable\" alter user_alias set not null;
             create unique index other on \"LiteLLM_UserTable\" (user_alias);
             alter table \"LiteLLM_UserTable\" replica identity using index other",
            "alter table \"LiteLLM_UserTable\" replica identity default; alter table \"LiteLLM_UserTable\" alter user_alias drop not null",
            "by other columns (user_alias)",
        ),
    ] {
        let pair = Pair::new().await;
        pair.litellm(spoil).await;
        for command in [&["setup"][..], &["plan"], &["doctor"]] {
            let (code, out, err) = run(&pair, command);
            assert_ne!(code, 0, "{command:?}: {out}");
            let said = out + &err;
            assert!(said.contains(word) && said.contains("LiteLLM_UserTable"), "{command:?}: {said}");
        }
        let daemon = Daemon::start(&pair);
        eventually("it says what is wrong", || async { daemon.get("/readyz").1.contains(word) }).await;
        assert_eq!(pair.ask_litellm("select count(*) from pg_publication").await, "0");
        pair.litellm(mend).await;
        pair.litellm(&people("a", 3)).await;
        eventually("it is ready", || async { daemon.get("/readyz").0 == 200 }).await;
        litellm_works(&pair).await;
        pair.settle().await;
        assert_in_step(&pair).await;
    }
}

#[tokio::test]
async fn a_table_that_loses_its_key_while_it_is_published_is_taken_out_at_once() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(NO_KEY).await;
    eventually("LiteLLM can write again", || async {
        execute(&pair.source, &change("a1", "user_alias = 'seen later'")).await.is_ok()
    })
    .await;
    eventually("it says what is wrong", || async { daemon.get("/readyz").1.contains("has no primary key") })
        .await;
    litellm_works(&pair).await;
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|a1|user|active");
    pair.litellm(KEY).await;
    eventually("it is ready", || async { daemon.get("/readyz").0 == 200 }).await;
    pair.settle().await;
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|seen later|user|active");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_prepared_transaction_in_the_way_is_named() {
    let settings = vec![("max_prepared_transactions".to_owned(), "5".to_owned())];
    let cluster = Cluster::start(ClusterOptions { settings, ..ClusterOptions::default() }).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm(&people("a", 1)).await;
    execute(
        &pair.source,
        "begin; update \"LiteLLM_UserTable\" set spend = 1; prepare transaction 'forgotten'",
    )
    .await
    .unwrap();
    let (code, out, err) = run(&pair, &["doctor"]);
    assert!(code == 3 && out.contains("'forgotten'"), "{out}{err}");
    let daemon = Daemon::start(&pair);
    eventually("it is named", || async { daemon.get("/readyz").1.contains("'forgotten'") }).await;
    rows(&pair.source, "rollback prepared 'forgotten'").await;
    pair.settle().await;
}

#[tokio::test]
async fn a_slot_may_be_called_as_postgres_lets_it() {
    let mut pair = Pair::new().await;
    pair.slot = format!("2024_{}", pair.slot);
    pair.litellm(&people("a", 2)).await;
    let _daemon = Daemon::with(&pair, &DaemonOptions::default());
    pair.settle().await;
    assert_eq!(pair.account("a2@x.test").await, "usr_a2|a2|user|active");
}
