//! One entity that cannot be written never stops its neighbours.

use std::collections::BTreeSet;

use litellm_webui_sync::observe::status::Waited;
use litellm_webui_sync::target::dead_letter::Kind;
use regex::Regex;

use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::{Daemon, Pair, change, eventually, organization, people, person, rostered, team};

const RETRY: &str = "update litellm_webui_sync.dead_letter set last_seen = now() - interval '2 hours'";

async fn failed_audits(pair: &Pair, id: &str) -> String {
    pair.ask(&format!(
        "select count(*) from litellm_webui_sync.sync_audit where sync_result = 'FAILED' and record_id = '{id}'"
    ))
    .await
}

#[tokio::test]
async fn somebody_open_webui_refuses_is_a_dead_letter_while_the_others_arrive() {
    let pair = Pair::new().await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui("alter table \"user\" add constraint refused check (email <> 'a7@x.test')").await;
    pair.litellm(&people("a", 30)).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:a7");
    assert_eq!(pair.ask("select count(*) from \"user\" where id like 'usr_a%'").await, "29");
    assert_eq!(failed_audits(&pair, "a7").await, "1");
    daemon.ready().await;
    assert_eq!(daemon.metric("dead_letters"), 1.0);
    // Its newest state is kept, nothing is queued; it fails as long as it must.
    pair.litellm(&[change("a7", "user_alias = 'Seven'"), team("t", "T", None, &["a7", "a8"])].concat()).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.members("grp_team_t").await, "usr_a8");
    let attempts = pair.ask("select attempts from litellm_webui_sync.dead_letter").await;
    pair.webui(RETRY).await;
    eventually("another attempt", || async {
        pair.ask("select attempts from litellm_webui_sync.dead_letter").await != attempts
    })
    .await;
    assert_eq!(failed_audits(&pair, "a7").await, "1");
    assert_eq!(run(&pair, &["status", "--wait", "now"]).0, 3);
    // It heals by itself.
    pair.webui(&format!("alter table \"user\" drop constraint refused; {RETRY}")).await;
    eventually("the healing", || async { pair.dead_letters().await.is_empty() }).await;
    assert_eq!(pair.account("a7@x.test").await, "usr_a7|Seven|user|active");
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn somebody_who_cannot_be_locked_is_critical() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui(
        "alter table \"user\" add constraint refused check (id <> 'usr_a2' or role <> 'pending') not valid",
    )
    .await;
    pair.litellm("delete from \"LiteLLM_UserTable\"").await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.account("a1@x.test").await, "usr_a1|a1|pending|locked");
    assert_eq!(pair.account("a2@x.test").await, "usr_a2|a2|user|active");
    eventually("readiness to end", || async { daemon.get("/readyz").0 == 503 }).await;
    pair.webui(&format!("alter table \"user\" drop constraint refused; {RETRY}")).await;
    eventually("the lock", || async { pair.account("a2@x.test").await == "usr_a2|a2|pending|locked" }).await;
    daemon.ready().await;
}

#[tokio::test]
async fn a_group_open_webui_refuses_is_a_dead_letter_and_heals() {
    let pair = Pair::new().await;
    pair.webui("alter table \"group\" add constraint refused check (name <> 'Bad')").await;
    pair.litellm(
        &[person("a", "a@x.test"), team("g", "Good", None, &["a"]), team("b", "Bad", None, &["a"])].concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "team:b");
    assert_eq!(pair.members("grp_team_g").await, "usr_a");
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'Better' where team_id = 'b'").await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.members("grp_team_b").await, "usr_a");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn whoever_a_group_refuses_is_a_dead_letter_and_heals_when_they_leave_it() {
    let pair = Pair::new().await;
    pair.litellm(&(people("a", 5) + &team("t", "T", None, &["a1"]))).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui("alter table group_member add constraint refused check (user_id <> 'usr_a3')").await;
    pair.litellm(&rostered("t", &["a2", "a3", "a4"])).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:a3");
    assert_eq!(pair.members("grp_team_t").await, "usr_a2 usr_a4");
    pair.litellm(&rostered("t", &["a2", "a5"])).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.members("grp_team_t").await, "usr_a2 usr_a5");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn in_a_huge_transaction_too_only_the_one_fails() {
    let pair = Pair::new().await;
    pair.webui("alter table \"user\" add constraint refused check (email <> 'a777@x.test')").await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&people("a", 5000)).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:a777");
    assert_eq!(pair.ask("select count(*) from \"user\" where id like 'usr_a%'").await, "4999");
}

#[tokio::test]
async fn a_permission_taken_away_is_no_heap_of_dead_letters() {
    let pair = Pair::new().await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui("alter table \"user\" add constraint refused check (role <> 'user') not valid").await;
    pair.litellm(&people("a", 400)).await;
    eventually("a word about it", || async {
        daemon.log().contains("23514") || daemon.get("/readyz").0 != 200
    })
    .await;
    assert_eq!(pair.dead_letters().await, "");
    pair.webui("alter table \"user\" drop constraint refused").await;
}

#[tokio::test]
async fn a_column_added_by_an_upgrade_does_not_stop_the_stream() {
    let pair = Pair::new().await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui("alter table \"user\" add column fancy text not null default 'x'; alter table \"group\" add column fancy text").await;
    pair.litellm(&[person("a", "a@x.test"), team("t", "T", None, &["a"])].concat()).await;
    assert_eq!(pair.settle().await, 0);
    pair.litellm("alter table \"LiteLLM_UserTable\" add column fancy text default 'x'; update \"LiteLLM_UserTable\" set user_alias = 'A'").await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("a@x.test").await, "usr_a|A|user|active");
}

#[tokio::test]
async fn an_operator_lists_retries_and_forgets_failures() {
    let pair = Pair::new().await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(run(&pair, &["failures", "list"]).0, 0);
    pair.webui("alter table \"user\" add constraint refused check (email <> 'a2@x.test')").await;
    pair.litellm(&people("a", 3)).await;
    pair.settle().await;
    let (code, out, _) = run(&pair, &["failures", "list", "--json"]);
    assert_eq!(code, 3, "{out}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&found[0]["kind"], &found[0]["key"]), (&"account".into(), &"a2".into()), "{out}");
    assert_eq!(found[0]["sqlstate"], "23514");
    assert!(found[0]["reason"].as_str().unwrap().contains("refused"), "{out}");
    let (code, out, _) = run(&pair, &["failures", "show", "account", "a2"]);
    assert!(code == 0 && out.contains("SYNC_USER FAILED"), "{out}");
    assert_eq!(run(&pair, &["failures", "show", "account", "nobody"]).0, 1);
    assert_eq!(run(&pair, &["failures", "retry"]).0, 2);
    assert_eq!(run(&pair, &["failures", "retry", "account", "nobody"]).0, 1);
    // Forgotten, it is nobody's any more until somebody touches it.
    assert_eq!(run(&pair, &["failures", "discard", "account", "a2"]).0, 0);
    assert_eq!(pair.settle().await, 0);
    pair.litellm(&change("a2", "user_alias = 'Two'")).await;
    assert_eq!(pair.settle().await, 1);
    pair.webui("alter table \"user\" drop constraint refused").await;
    assert_eq!(run(&pair, &["failures", "retry", "account", "a2"]).0, 0);
    eventually("the retry", || async { pair.dead_letters().await.is_empty() }).await;
    assert_eq!(pair.account("a2@x.test").await, "usr_a2|Two|user|active");
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_paused_daemon_applies_nothing_and_goes_on_where_it_was() {
    let pair = Pair::new().await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(run(&pair, &["pause", "--reason", "maintenance of Open WebUI"]).0, 0);
    eventually("the pause", || async { daemon.get("/readyz").1.contains("maintenance of Open WebUI") }).await;
    assert_eq!(daemon.get("/healthz").0, 200);
    pair.litellm(&people("a", 3)).await;
    let waited = pair.wait().await;
    assert!(matches!(&waited, Waited::Failed { reason } if reason.contains("paused since")), "{waited:?}");
    assert_eq!(pair.account("a1@x.test").await, "");
    // A daemon that starts meanwhile waits as well.
    drop(daemon);
    let daemon = Daemon::start(&pair);
    eventually("the pause", || async { daemon.get("/readyz").1.contains("paused") }).await;
    assert_eq!(run(&pair, &["resume"]).0, 0);
    daemon.ready().await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn failures_that_trickle_in_stop_the_daemon_as_a_flood_does_and_a_restart_does_not_begin_anew() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let options =
        DaemonOptions { policy: Some("[failures]\nper_hour = 3\n".to_owned()), ..DaemonOptions::default() };
    let mut daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    pair.webui("alter table \"user\" add constraint refused check (email not like 'bad%')").await;
    for number in 1..=3 {
        pair.litellm(&person(&format!("bad{number}"), &format!("bad{number}@x.test"))).await;
        assert_eq!(pair.settle().await, number);
    }
    // The same ones again, and a conflict of two people, are nothing new.
    pair.litellm(&change("bad1", "user_alias = 'Again'")).await;
    pair.litellm(&person("twin", "a1@x.test")).await;
    assert_eq!(pair.settle().await, 4);
    pair.litellm(&[person("good", "good@x.test"), person("bad4", "bad4@x.test")].concat()).await;
    assert_eq!(daemon.end().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("4 entities could not be written within an hour") && log.contains("23514"), "{log}");
    assert_eq!(Daemon::with(&pair, &options).end().code(), Some(1));
    // What the batch did is not half done.
    assert_eq!(pair.dead_letters().await, "account:bad1 account:bad2 account:bad3 account:twin");
    assert_eq!(pair.account("good@x.test").await, "");
    // An hour later these count no more.
    let later = "update litellm_webui_sync.dead_letter set first_seen = first_seen - interval '61 minutes'";
    pair.webui(later).await;
    let daemon = Daemon::with(&pair, &options);
    assert_eq!(pair.settle().await, 5);
    assert_eq!(pair.account("good@x.test").await, "usr_good|good|user|active");
    pair.webui(&format!("alter table \"user\" drop constraint refused; {RETRY}")).await;
    eventually("the healing", || async { pair.dead_letters().await == "account:twin" }).await;
    assert_in_step(&pair).await;
    daemon.ready().await;
}

#[tokio::test]
async fn a_dead_letter_of_a_kind_nobody_knows_is_left_alone_and_the_others_are_tried() {
    let pair = Pair::new().await;
    pair.litellm(&[people("a", 2), organization("robot", "Robots")].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    // Each due before any other; and an organization with a letter's key, that must not be taken for what it is about.
    pair.webui(
        "insert into litellm_webui_sync.dead_letter (kind, key, operation, reason, first_seen, last_seen)
         select 'robot', case i when 0 then 'robot' else 'robot' || i end, 'SYNC_ROBOT', 'from the future', '-infinity', '-infinity'
           from generate_series(0, 600) i;
         insert into litellm_webui_sync.dead_letter (kind, key, operation, reason, first_seen, last_seen)
         values ('account', 'a1', 'SYNC_USER', 'long over', now(), now() - interval '1 day');
         update \"group\" set name = 'Edited' where name = 'Robots'",
    )
    .await;
    eventually("the retry of the other", || async { !pair.dead_letters().await.contains("account:a1") })
        .await;
    eventually("a word about it", || async { daemon.log().contains("does not know") }).await;
    assert_eq!(daemon.log().matches("does not know").count(), 1);
    assert_eq!(
        pair.ask(
            "select count(*) || ' ' || max(attempts) from litellm_webui_sync.dead_letter where kind = 'robot'"
        )
        .await,
        "601 1"
    );
    assert_eq!(pair.ask("select count(*) from \"group\" where name = 'Edited'").await, "1");
    let (code, out, _) = run(&pair, &["failures", "show", "robot", "robot"]);
    assert!(code == 0 && out.contains("from the future"), "{out}");
    eventually("its gauge", || async {
        let metrics = daemon.get("/metrics").1;
        metrics.contains("litellm_webui_sync_dead_letters_by_class{class=\"conflict\",kind=\"unknown\"} 601")
    })
    .await;
    assert_eq!(run(&pair, &["failures", "discard", "robot", "robot"]).0, 0);
}

/// The statements write and look for kinds by name: none that `Kind` does not have.
#[test]
fn every_kind_of_dead_letter_in_a_statement_is_one_of_the_list() {
    let pattern = |text: &str| Regex::new(text).unwrap();
    // What dead_letter is called where it is joined.
    let alias = pattern(r"\bdead_letter ([a-z])\b");
    let names = pattern(r"'(\w+)'");
    let mut found = BTreeSet::new();
    for (path, text) in litellm_webui_sync::sql::ALL {
        if !text.contains("dead_letter") {
            continue;
        }
        let mut conditions = vec![
            pattern(r"from dead_letter where kind (?:= '\w+'|in \([^)]*\))"),
            pattern(r"insert into dead_letter \([^)]*\)\s+select '\w+'"),
        ];
        for name in alias.captures_iter(text).map(|found| found[1].to_owned()) {
            conditions.push(pattern(&format!(r"\b{name}\.kind (?:= '\w+'|in \([^)]*\))")));
        }
        let mut said: Vec<&str> =
            conditions.iter().flat_map(|one| one.find_iter(text)).map(|m| m.as_str()).collect();
        if *path == "target/dead_letter.sql" {
            let cases = text.split("case $1").nth(1).unwrap().split("end as critical").next().unwrap();
            said.extend(pattern(r"when '\w+' then").find_iter(cases).map(|m| m.as_str()));
        }
        for kind in said.iter().flat_map(|one| names.captures_iter(one)) {
            assert!(Kind::from_name(&kind[1]).is_some(), "{path}: {:?}", &kind[1]);
            found.insert(kind[1].to_owned());
        }
    }
    // Teams and organizations come out of the difference.
    assert_eq!(found, ["access", "account", "api_key", "last_admin", "model"].map(str::to_owned).into());
}
