//! The first copy, on every shape of Open WebUI's tables and both ends of LiteLLM's history.

use testbed::{Schema, seed};

use crate::support::compare::{assert_in_step, assert_oldest_first};
use crate::support::{Daemon, Pair, PairOptions, change, organization, person, team};

async fn hundreds_of_people_arrive_in(webui: Schema) {
    let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
    seed(&pair.source, 400, 30, 8, 1200).await.unwrap();
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_oldest_first(&pair).await;
    assert_eq!(pair.ask("select count(*) > 330 from \"user\" where role <> 'pending'").await, "t");
    daemon.ready().await;
}

#[tokio::test]
async fn hundreds_of_people_arrive_in_open_webui_0_6_30() {
    hundreds_of_people_arrive_in(Schema::OpenWebUi0_6_30).await;
}

#[tokio::test]
async fn hundreds_of_people_arrive_in_open_webui_0_6_43() {
    hundreds_of_people_arrive_in(Schema::OpenWebUi0_6_43).await;
}

#[tokio::test]
async fn hundreds_of_people_arrive_in_open_webui_0_8_12() {
    hundreds_of_people_arrive_in(Schema::OpenWebUi0_8_12).await;
}

#[tokio::test]
async fn hundreds_of_people_arrive_in_open_webui_0_12_4() {
    hundreds_of_people_arrive_in(Schema::OpenWebUi0_12_4).await;
}

#[tokio::test]
async fn hundreds_of_people_arrive_in_an_upgraded_open_webui() {
    hundreds_of_people_arrive_in(Schema::OpenWebUi0_12_4FromOld).await;
}

#[tokio::test]
async fn an_old_litellm_is_copied_and_followed() {
    let pair = Pair::with(PairOptions { litellm: Schema::LiteLlm1_77_3, ..PairOptions::default() }).await;
    pair.litellm(
        &[
            organization("o1", "Org \"one\" 🏢"),
            person("ann", "Ann@X.test"),
            person("bob", " bob@x.test "),
            person("cy/d", "cyd@x.test"),
            person("default_user_id", "nobody@x.test"),
            change("ann", "user_alias = E'Ann\\\\ \"A\"\\t', user_role = 'proxy_admin', teams = '{t1,t1}'"),
            change("bob", "user_alias = 'Bob', organization_id = 'o1', models = null, teams = null"),
            team("t1", "Team\nüne", Some("o1"), &["ann", "cy/d", "ghost"]),
        ]
        .concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|Team\nüne-Ann\\ \"A\"|admin|active");
    // Foreign keys carry a new organization id into the person's row.
    pair.litellm("update \"LiteLLM_OrganizationTable\" set organization_id = 'o2'").await;
    pair.litellm(&person("dora", "dora@x.test")).await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    assert_eq!(pair.members("grp_o2").await.split(' ').count(), 3);
}
