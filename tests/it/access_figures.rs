//! What model access costs with many people. Not part of the usual run: `cargo nextest run --run-ignored only -E
//! 'test(access_figures)'` prints the figures, `--cargo-profile release` the ones that count.

use std::time::{Duration, Instant};

use testbed::Schema;
use testbed::lists::{BIG_TEAM, many_with_lists};

use crate::support::models::differences;
use crate::support::{Daemon, Pair, PairOptions, rows};

async fn timed(pair: &Pair, what: &str, sql: &str) -> Duration {
    pair.litellm(sql).await;
    let start = Instant::now();
    pair.settle().await;
    let took = start.elapsed();
    println!("{what}: {:.3} s after the commit", took.as_secs_f64());
    took
}

async fn figures(webui: Schema) {
    let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
    pair.litellm(&many_with_lists()).await;
    let start = Instant::now();
    let daemon = Daemon::start(&pair);
    crate::support::within(Duration::from_secs(600), "the first copy", || async {
        daemon.get("/readyz").0 == 200
    })
    .await;
    println!(
        "{webui}: everything from nothing, accounts and groups included: {:.1} s",
        start.elapsed().as_secs_f64()
    );
    let sql = "select count(*) from litellm_webui_sync.effective_access union all
               select count(*) from litellm_webui_sync.model_set union all
               select count(*) from litellm_webui_sync.access_group union all
               select count(*) from litellm_webui_sync.model_grant";
    println!("people, sets, groups, grants: {:?}", rows(&pair.target, sql).await);

    // From scratch, for models alone: everything of ours about models is forgotten, and one model more makes everybody's
    // access be worked out again.
    let is_table = pair.ask("select to_regclass('access_grant') is not null").await == "t";
    let forget = "truncate litellm_webui_sync.effective_access, litellm_webui_sync.model_set, litellm_webui_sync.access_group,
                           litellm_webui_sync.access_member, litellm_webui_sync.model_grant, litellm_webui_sync.model_row;
                  delete from \"group\" where id like 'grp\\_models\\_%'; delete from model;";
    pair.webui(&format!("{forget}{}", if is_table { "delete from access_grant" } else { "" })).await;
    let more = "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, created_by, updated_by) values ('x', 'model-xx', '{}', '', '')";
    let scratch = timed(&pair, "20,000 people, 41 models, 400 teams from scratch", more).await;
    timed(
        &pair,
        "one model less for everybody",
        "update \"LiteLLM_ProxyModelTable\" set blocked = true where model_id = 'x'",
    )
    .await;

    let mut slowest = Duration::ZERO;
    for (round, models) in ["{model-01,model-02}", "{}", "{model-0*}", "{tag-1,model-33}"].iter().enumerate()
    {
        let sql = format!("update \"LiteLLM_TeamTable\" set models = '{models}' where team_id = 't1'");
        slowest =
            slowest.max(timed(&pair, &format!("models of the team of {BIG_TEAM}, {round}"), &sql).await);
    }
    let without = format!(
        "update \"LiteLLM_TeamTable\" set members_with_roles = (select jsonb_agg(e) from jsonb_array_elements(members_with_roles) with ordinality x (e, n) where n > {}) where team_id = 't1'",
        BIG_TEAM / 2
    );
    timed(&pair, "half of it leaves the roster", &without).await;
    timed(
        &pair,
        "one person's list",
        "update \"LiteLLM_UserTable\" set models = '{model-07}' where user_id = 'u7'",
    )
    .await;
    timed(
        &pair,
        "one person's list again",
        "update \"LiteLLM_UserTable\" set models = '{model-08}' where user_id = 'u7'",
    )
    .await;

    // A spend flush changes nothing we keep.
    let state = "select count(*) || ' ' || coalesce(max(id), 0) from litellm_webui_sync.sync_audit";
    let before = pair.ask(state).await;
    timed(&pair, "a spend flush of everybody and every key", "update \"LiteLLM_UserTable\" set spend = spend + 1; update \"LiteLLM_VerificationToken\" set spend = spend + 1; update \"LiteLLM_TeamTable\" set spend = spend + 1").await;
    assert_eq!(pair.ask(state).await, before);

    if std::env::var_os("ACCESS_FIGURES_VERIFY").is_some() {
        let found = differences(&pair, &[]).await;
        assert!(found.is_empty(), "{} differences: {:?}", found.len(), &found[..found.len().min(5)]);
    }
    assert!(scratch < Duration::from_secs(30), "{scratch:?}");
    assert!(slowest < Duration::from_secs(1) || cfg!(debug_assertions), "{slowest:?}");
}

#[tokio::test]
#[ignore = "takes minutes and prints figures"]
async fn access_figures_on_0_12_4() {
    figures(Schema::OpenWebUi0_12_4).await;
}

#[tokio::test]
#[ignore = "takes minutes and prints figures"]
async fn access_figures_on_0_6_30() {
    figures(Schema::OpenWebUi0_6_30).await;
}
