//! Invariant 8: no mass accident.

use litellm_webui_sync::observe::status::Waited;

use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::{Daemon, Pair, eventually, organization, people, rostered, team};

const ACTIVE: &str =
    "select count(*) from \"user\" u join auth a using (id) where u.role = 'user' and a.active";

#[tokio::test]
async fn thirty_percent_leaving_at_once_are_held_until_approved() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 200)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.ready().await;
    let before = pair.applied().await;
    pair.litellm(&format!(
        "delete from \"LiteLLM_UserTable\" where substr(user_id, 2)::int <= 60; {}",
        crate::support::change("a200", "user_alias = 'Renamed'")
    ))
    .await;
    let waited = pair.wait().await;
    let Waited::Failed { reason } = waited else { panic!("{waited:?}") };
    let id = reason
        .split("approve ")
        .nth(1)
        .unwrap()
        .split(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap()
        .to_owned();
    eventually("readiness to end", || async { daemon.get("/readyz").0 == 503 }).await;
    let (_, why) = daemon.get("/readyz");
    assert!(why.contains("60") && why.contains("200"), "{why}");
    assert_eq!(daemon.get("/healthz").0, 200);
    assert_eq!(pair.ask(ACTIVE).await, "200");
    assert_eq!(pair.account("a200@x.test").await, "usr_a200|a200|user|active");
    assert_eq!(pair.applied().await, before);
    let (_, status, _) = run(&pair, &["status"]);
    assert!(status.contains(&format!("approve {id}")) && status.contains("60 of 200"), "{status}");

    let (code, said, _) = run(&pair, &["approve", "77"]);
    assert_eq!((code, said.as_str()), (1, ""));
    assert_eq!(run(&pair, &["approve", &id]).0, 0);
    eventually("the batch", || async { pair.ask(ACTIVE).await == "140" }).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    daemon.ready().await;
    // It let that one pass, and no other.
    pair.litellm("delete from \"LiteLLM_UserTable\" where substr(user_id, 2)::int <= 120").await;
    assert!(matches!(pair.wait().await, Waited::Failed { .. }));
    assert_eq!(pair.ask(ACTIVE).await, "140");
}

#[tokio::test]
async fn whom_an_admin_deleted_in_open_webui_loses_nothing_and_comes_back_with_the_next_change_of_theirs() {
    let pair = Pair::new().await;
    let all: Vec<String> = (1..=100).map(|i| format!("a{i}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let of_organization = "update \"LiteLLM_UserTable\" set organization_id = 'o' where substr(user_id, 2)::int between 61 and 90;";
    pair.litellm(&[people("a", 100), organization("o", "O"), of_organization.to_owned()].concat()).await;
    pair.litellm(&[team("t1", "T1", None, &all[..60]), team("t2", "T2", None, &["a100"])].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    let delete = |from: u32, to: u32| {
        let ids = format!("select 'usr_a' || i from generate_series({from}, {to}) i");
        format!("delete from auth where id in ({ids}); delete from \"user\" where id in ({ids})")
    };
    // Whatever a group of theirs is called.
    pair.webui(&delete(61, 90)).await;
    pair.litellm(
        "update \"LiteLLM_OrganizationTable\" set organization_alias = 'Other' where organization_id = 'o'",
    )
    .await;
    assert_eq!(pair.settle().await, 0);
    // And whichever they join or leave.
    pair.webui(&delete(11, 40)).await;
    pair.litellm(&[rostered("t1", &all[20..60]), rostered("t2", &all[10..40])].concat()).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.members("grp_team_t2").await.split(' ').count(), 30);
    assert_eq!(pair.ask(ACTIVE).await, "70");
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.brake").await, "0");
    daemon.ready().await;
    // The others are back with the next look at everything.
    assert_eq!(run(&pair, &["verify", "--repair"]).0, 3);
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_brake_survives_a_restart_and_an_approval_made_meanwhile_counts() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 100)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("delete from \"LiteLLM_UserTable\"").await;
    assert!(matches!(pair.wait().await, Waited::Failed { .. }));
    daemon.kill9();
    drop(daemon);
    let daemon = Daemon::start(&pair);
    eventually("the brake again", || async { daemon.get("/readyz").1.contains("approve") }).await;
    assert_eq!(pair.ask(ACTIVE).await, "100");
    let id = pair.ask("select max(id) from litellm_webui_sync.brake where used_at is null").await;
    assert_eq!(run(&pair, &["approve", &id]).0, 0);
    eventually("the batch", || async { pair.ask(ACTIVE).await == "0" }).await;
    pair.settle().await;
    daemon.ready().await;
}

#[tokio::test]
async fn twenty_people_may_leave_without_asking() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 30)).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("delete from \"LiteLLM_UserTable\" where substr(user_id, 2)::int <= 20").await;
    pair.settle().await;
    assert_eq!(pair.ask(ACTIVE).await, "10");
}

#[tokio::test]
async fn losing_every_team_at_once_is_held_too() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 60)).await;
    pair.litellm(
        "insert into \"LiteLLM_TeamTable\" (team_id, team_alias, members_with_roles, models)
         select 't' || i, 'T', (select jsonb_agg(jsonb_build_object('user_id', user_id)) from \"LiteLLM_UserTable\"), '{}'
           from generate_series(1, 3) i",
    )
    .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from group_member").await, "180");
    pair.litellm("truncate \"LiteLLM_TeamTable\" cascade").await;
    let waited = pair.wait().await;
    assert!(matches!(&waited, Waited::Failed { reason } if reason.contains("approve")), "{waited:?}");
    assert_eq!(pair.ask("select count(*) from group_member").await, "180");
}
