//! The mapping of people and groups (docs/src/design.md, "Mapping"), rule by rule.

use testbed::Schema;

use crate::support::compare::{Foreign, account_id, assert_in_step, assert_in_step_with};
use crate::support::daemon::DaemonOptions;
use crate::support::{
    ADMIN, Daemon, Pair, PairOptions, change, eventually, gone, organization, people, person, quote, roster,
    rostered, team,
};
use litellm_webui_sync::observe::status::Waited;

/// Statement: an account somebody made in Open WebUI itself.
pub(crate) fn stranger(id: &str, email: &str, role: &str) -> String {
    format!(
        "insert into \"user\" (id, name, email, role, profile_image_url, created_at, updated_at, last_active_at, settings)
         values ({0}, 'Stranger', {1}, {2}, '/mine.png', 1600000000, 1600000000, 1600000000, '{{\"ui\":{{\"theme\":\"dark\"}}}}');
         insert into auth (id, email, password, active) values ({0}, {1}, 'bcrypt', true);",
        quote(id),
        quote(email),
        quote(role)
    )
}

/// A pair that streams, with these people in LiteLLM.
async fn streaming(people: &str) -> (Pair, Daemon) {
    let pair = Pair::new().await;
    if !people.is_empty() {
        pair.litellm(people).await;
    }
    let daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    (pair, daemon)
}

// ---------------------------------------------------------------- who has an account

#[tokio::test]
async fn a_person_appears_changes_leaves_and_returns_to_the_same_account() {
    let (pair, _daemon) = streaming("").await;
    pair.litellm(&person("ann", " Ann@X.Test\u{a0}")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|ann|user|active");
    pair.litellm(&change("ann", "user_alias = 'Ann', user_email = 'ann.b@x.test'")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann.b@x.test").await, "usr_ann|Ann|user|active");
    pair.litellm(&gone("ann")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann.b@x.test").await, "usr_ann|Ann|pending|locked");
    pair.litellm(&person("ann", "ann@x.test")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|ann|user|active");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn somebody_without_a_usable_email_has_no_account_until_one_appears() {
    let people = [
        person("default_user_id", "default@x.test"),
        person("litellm-proxy-budget", "budget@x.test"),
        person("no-at", "no-at"),
        person("two-ats", "a@b@x.test"),
        person("space", "a b@x.test"),
        person("long", &format!("{}@x.test", "a".repeat(249))),
        person("empty", ""),
        person("fits", &format!("{}@x.test", "b".repeat(248))),
        person("null", "x"),
        change("null", "user_email = null"),
    ];
    let (pair, _daemon) = streaming(&people.concat()).await;
    assert_in_step(&pair).await;
    assert_eq!(pair.ask("select count(*) from \"user\"").await, "2");
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.skipped").await, "8");
    pair.litellm(
        &[change("null", "user_email = 'null@x.test'"), change("fits", "user_email = null")].concat(),
    )
    .await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(pair.account("null@x.test").await, "usr_null|null|user|active");
    assert_eq!(pair.ask("select role from \"user\" where id = 'usr_fits'").await, "pending");
}

#[tokio::test]
async fn an_account_that_was_there_is_adopted_and_keeps_what_is_its_own() {
    let pair = Pair::new().await;
    pair.webui(&stranger("0b-uuid", "ann@x.test", "user")).await;
    pair.webui(&stranger("mixed", "Mixed@X.test", "user")).await;
    pair.litellm(
        &[
            person("ann", "ann@x.test"),
            change("ann", "user_alias = 'Ann', user_role = 'proxy_admin'"),
            person("mixed", "mixed@x.test"),
        ]
        .concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("ann@x.test").await, "0b-uuid|Ann|admin|active");
    assert_eq!(pair.account("mixed@x.test").await, "mixed|mixed|user|active");
    let own = "select concat_ws('|', password, profile_image_url, settings, u.created_at)
                 from \"user\" u join auth using (id) where id = '0b-uuid'";
    assert_eq!(pair.ask(own).await, "bcrypt|/mine.png|{\"ui\":{\"theme\":\"dark\"}}|1600000000");
    assert_in_step(&pair).await;
    pair.litellm(&gone("ann")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann@x.test").await, "0b-uuid|Ann|pending|locked");
}

#[tokio::test]
async fn among_thousands_of_new_people_those_who_are_not_are_told_apart() {
    let pair = Pair::new().await;
    pair.webui(&stranger("there", "b6@x.test", "user")).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    // The mirror has a row that the stream is yet to insert.
    pair.webui("insert into litellm_webui_sync.litellm_user (user_id) values ('b5')").await;
    pair.litellm(&[people("b", 21_000), change("b8", "user_email = 'b7@x.test'")].concat()).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:b8");
    assert_eq!(pair.account("b6@x.test").await, "there|b6|user|active");
    assert_eq!(pair.account("b5@x.test").await, "usr_b5|b5|user|active");
    assert_eq!(pair.ask("select count(*) from \"user\" where id like 'usr_b%'").await, "20998");
    let audits = "select sum((new_data->>'count')::int) from litellm_webui_sync.sync_audit
                   where operation = 'SYNC_USER' and sync_result = 'SUCCESS' and record_id is null";
    assert_eq!(pair.ask(audits).await, "20998");
}

/// A transaction is written piece by piece, each sent before the one before is answered.
#[tokio::test]
async fn what_comes_after_a_piece_that_met_a_row_comes_after_it() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    // The mirror has rows of three pieces that the stream is yet to insert.
    pair.webui(
        "insert into litellm_webui_sync.litellm_user (user_id) values ('b5'), ('b15000'), ('b15001'), ('b35000'), ('b44000')",
    )
    .await;
    pair.litellm(
        &[
            people("b", 45_000),
            // A table that this session has not written yet: its piece is at hand while the one before meets a row.
            "insert into \"LiteLLM_TeamMembership\" (user_id, team_id) select 'b' || i, 't' from generate_series(1, 10500) i;"
                .to_owned(),
            change("b5", "user_alias = 'Late'"),
            change("b15000", "user_alias = 'Later'"),
            gone("b15001"),
            change("a1", "user_alias = 'Also'"),
            team("t", "Team", None, &["b5", "b44000"]),
        ]
        .concat(),
    )
    .await;
    assert_eq!(pair.settle().await, 0);
    for (id, expected) in [
        ("b5", "usr_b5|Late|user|active"),
        ("b15000", "usr_b15000|Later|user|active"),
        ("b44000", "usr_b44000|b44000|user|active"),
        ("a1", "usr_a1|Also|user|active"),
    ] {
        assert_eq!(pair.account(&format!("{id}@x.test")).await, expected);
    }
    let of_the_mirror = "select count(*) || ' ' || count(user_email) from litellm_webui_sync.litellm_user";
    assert_eq!(pair.ask(of_the_mirror).await, "45002 45002");
    assert_eq!(pair.ask("select count(*) from \"user\" where id like 'usr_%'").await, "45002");
    assert_eq!(pair.ask("select count(*) from group_member where group_id = 'grp_team_t'").await, "2");
    let memberships = "select count(*) from litellm_webui_sync.litellm_team_membership";
    assert_eq!(pair.ask(memberships).await, "10500");
    assert!(!daemon.log().contains("trying again"), "{}", daemon.log());
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn an_admins_account_is_not_adopted_and_a_pending_one_is_not_promoted() {
    let pair = Pair::new().await;
    pair.webui(&stranger("boss", "boss@x.test", "admin")).await;
    pair.webui(&stranger("waiting", "waiting@x.test", "pending")).await;
    pair.litellm(
        &[
            person("b", "boss@x.test"),
            person("w", "waiting@x.test"),
            change("w", "user_role = 'proxy_admin'"),
        ]
        .concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:b");
    assert_eq!(pair.account("boss@x.test").await, "boss|Stranger|admin|active");
    assert_eq!(pair.account("waiting@x.test").await, "waiting|waiting|pending|active");
    // Not by a later change, not by leaving and returning.
    pair.litellm(&change("w", "user_alias = 'W'")).await;
    pair.litellm(&gone("w")).await;
    pair.litellm(&person("w", "waiting@x.test")).await;
    pair.settle().await;
    assert_eq!(pair.account("waiting@x.test").await.split('|').nth(2), Some("pending"));
    // The admin is gone: the dead letter resolves when the person is touched.
    pair.webui("delete from auth where id = 'boss'; delete from \"user\" where id = 'boss'").await;
    pair.litellm(&change("b", "user_alias = 'B'")).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("boss@x.test").await, "usr_b|B|user|active");
}

#[tokio::test]
async fn somebody_set_to_pending_in_open_webui_stays_so() {
    let (pair, _daemon) = streaming(&person("ann", "ann@x.test")).await;
    pair.webui("update \"user\" set role = 'pending' where id = 'usr_ann'").await;
    pair.litellm(&change("ann", "user_alias = 'Ann', user_role = 'proxy_admin'")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|Ann|pending|active");
    pair.litellm(&gone("ann")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|Ann|pending|locked");
    pair.litellm(&person("ann", "ann@x.test")).await;
    pair.settle().await;
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|ann|pending|active");
}

#[tokio::test]
async fn policy_skip_leaves_found_accounts_alone() {
    let pair = Pair::new().await;
    pair.webui(&stranger("s", "ann@x.test", "user")).await;
    pair.litellm(&person("ann", "ann@x.test")).await;
    let policy = Some("[accounts]\nadopt = \"skip\"\n".to_owned());
    let options = DaemonOptions { policy, ..DaemonOptions::default() };
    let mut daemon = Daemon::with(&pair, &options);
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.account("ann@x.test").await, "s|Stranger|user|active");
    daemon.terminate();
    // Another policy: one full difference, and the dead letter is over.
    let _daemon = Daemon::start(&pair);
    eventually("the adoption", || async { pair.account("ann@x.test").await == "s|ann|user|active" }).await;
    assert_eq!(pair.settle().await, 0);
}

// ---------------------------------------------------------------- one e-mail, several people

#[tokio::test]
async fn of_two_people_with_one_email_the_older_wins_until_it_leaves() {
    let (pair, _daemon) = streaming("").await;
    pair.litellm(
        &[
            person("young", "Same@x.test"),
            person("old", "same@X.test"),
            change("old", "created_at = '2020-01-01'"),
        ]
        .concat(),
    )
    .await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:young");
    assert_eq!(pair.account("same@x.test").await, "usr_old|same|user|active");
    // Holding the account counts more than age, whatever is touched.
    pair.litellm(&change("old", "created_at = '2027-01-01'")).await;
    pair.litellm(&change("young", "user_alias = 'Young'")).await;
    assert_eq!(pair.settle().await, 1);
    assert_in_step(&pair).await;
    // The one who holds it moves away: it resolves itself.
    pair.litellm(&change("old", "user_email = 'other@x.test'")).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("same@x.test").await, "usr_young|Young|user|active");
    assert_eq!(pair.account("other@x.test").await, "usr_old|other|user|active");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_duplicate_resolves_itself_when_the_winner_is_deleted() {
    let (pair, _daemon) =
        streaming(&[person("a", "same@x.test"), team("t", "T", None, &["b"])].concat()).await;
    pair.litellm(&person("b", "same@x.test")).await;
    assert_eq!(pair.settle().await, 1);
    pair.litellm(&gone("a")).await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    // The same account: same e-mail, same person.
    assert_eq!(pair.account("same@x.test").await, "usr_a|same|user|active");
    assert_eq!(pair.members("grp_team_t").await, "usr_a");
}

#[tokio::test]
async fn two_people_swap_their_emails_in_one_transaction() {
    let (pair, _daemon) = streaming(&[person("a", "a@x.test"), person("b", "b@x.test")].concat()).await;
    pair.litellm(&[change("a", "user_email = 'b@x.test'"), change("b", "user_email = 'a@x.test'")].concat())
        .await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("b@x.test").await, "usr_a|b|user|active");
    assert_eq!(pair.account("a@x.test").await, "usr_b|a|user|active");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn two_people_swap_their_emails_in_two_transactions() {
    let (pair, _daemon) = streaming(&[person("a", "a@x.test"), person("b", "b@x.test")].concat()).await;
    pair.litellm(&change("a", "user_email = 'b@x.test'")).await;
    assert_eq!(pair.settle().await, 1);
    pair.litellm(&change("b", "user_email = 'a@x.test'")).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("b@x.test").await, "usr_a|b|user|active");
    assert_eq!(pair.account("a@x.test").await, "usr_b|a|user|active");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_ring_of_three_and_a_chain_that_ends_in_the_open_both_move() {
    let people: String =
        ["a", "b", "c", "d", "e", "f"].map(|id| person(id, &format!("{id}@x.test"))).concat();
    let (pair, _daemon) = streaming(&people).await;
    let to = |id: &str, email: &str| change(id, &format!("user_email = '{email}@x.test'"));
    pair.litellm(
        &[to("a", "b"), to("b", "c"), to("c", "a"), to("d", "e"), to("e", "f"), to("f", "g")].concat(),
    )
    .await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    let sql =
        "select string_agg(split_part(email, '@', 1), '' order by id) from \"user\" where id like 'usr_%'";
    assert_eq!(pair.ask(sql).await, "bcaefg");
    // A chain whose end stays: everybody on it waits, one after the other they are let in.
    pair.litellm(&[to("d", "f"), to("e", "g")].concat()).await;
    assert_eq!(pair.settle().await, 2);
    assert_in_step(&pair).await;
    pair.litellm(&to("f", "h")).await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    assert_eq!(pair.ask(sql).await, "bcafgh");
}

#[tokio::test]
async fn a_swap_works_without_the_unique_index_too() {
    let options = PairOptions { webui: Schema::OpenWebUi0_6_30, ..PairOptions::default() };
    let pair = Pair::with(options).await;
    pair.litellm(&[person("a", "a@x.test"), person("b", "b@x.test"), person("c", "b@x.test")].concat()).await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 1);
    pair.litellm(&[change("a", "user_email = 'b@x.test'"), change("b", "user_email = 'a@x.test'")].concat())
        .await;
    assert_eq!(pair.settle().await, 1);
    assert_in_step(&pair).await;
    pair.litellm(&gone("a")).await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_departed_persons_email_under_another_id_is_the_same_account() {
    let (pair, _daemon) = streaming(&person("a", "ann@x.test")).await;
    pair.webui("update auth set password = 'bcrypt' where id = 'usr_a'").await;
    pair.litellm(&gone("a")).await;
    pair.settle().await;
    pair.litellm(&[person("sso|7", "ann@x.test"), team("t", "T", None, &["sso|7"])].concat()).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("ann@x.test").await, "usr_a|ann|user|active");
    assert_eq!(pair.members("grp_team_t").await, "usr_a");
    assert_eq!(pair.ask("select password from auth where id = 'usr_a'").await, "bcrypt");
    assert_in_step(&pair).await;
    // The former id comes back with another e-mail: somebody else has its account now, and they get another one.
    pair.litellm(&person("a", "anton@x.test")).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("ann@x.test").await, "usr_a|ann|user|active");
    assert!(pair.account("anton@x.test").await.ends_with("|anton|user|active"));
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn the_old_scim_rewrites_a_user_id_and_the_account_follows() {
    let options = PairOptions { litellm: Schema::LiteLlm1_77_3, ..PairOptions::default() };
    let pair = Pair::with(options).await;
    pair.litellm(
        &[
            organization("o", "Org"),
            person("a", "ann@x.test"),
            "insert into \"LiteLLM_OrganizationMembership\" (user_id, organization_id) values ('a', 'o');"
                .to_owned(),
        ]
        .concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    // The foreign key carries it into the membership's primary key.
    pair.litellm("update \"LiteLLM_UserTable\" set user_id = 'ann@idp' where user_id = 'a'").await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("ann@x.test").await, "usr_a|ann|user|active");
    assert_eq!(pair.members("grp_o").await, "usr_a");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_later_email_change_never_adopts() {
    let (pair, _daemon) = streaming(&person("a", "a@x.test")).await;
    pair.webui(&stranger("s", "taken@x.test", "user")).await;
    pair.litellm(&change("a", "user_email = 'taken@x.test'")).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.account("taken@x.test").await, "s|Stranger|user|active");
    assert_eq!(pair.account("a@x.test").await, "usr_a|a|user|active");
    pair.litellm(&change("a", "user_email = 'free@x.test'")).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("free@x.test").await, "usr_a|free|user|active");
}

#[tokio::test]
async fn an_account_id_somebody_else_has_is_a_dead_letter() {
    let pair = Pair::new().await;
    pair.webui(&stranger("usr_a", "other@x.test", "user")).await;
    pair.litellm(&[person("a", "a@x.test"), person("b", "b@x.test")].concat()).await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:a");
    assert_eq!(pair.account("other@x.test").await, "usr_a|Stranger|user|active");
    assert_eq!(pair.account("b@x.test").await, "usr_b|b|user|active");
}

// ---------------------------------------------------------------- leaving, returning, roles

#[tokio::test]
async fn somebody_deactivated_by_scim_is_locked_until_scim_says_otherwise() {
    let (pair, _daemon) = streaming(
        &[
            person("a", "a@x.test"),
            person("never", "never@x.test"),
            change("never", "metadata = '{\"scim_active\": false}'"),
        ]
        .concat(),
    )
    .await;
    assert_eq!(pair.account("never@x.test").await, "");
    pair.litellm(
        &[change("a", "metadata = '{\"scim_active\": false}'"), team("t", "T", None, &["a", "never"])]
            .concat(),
    )
    .await;
    pair.settle().await;
    assert_eq!(pair.account("a@x.test").await, "usr_a|a|pending|locked");
    // Memberships follow meanwhile, so that all is right on return.
    assert_eq!(pair.members("grp_team_t").await, "usr_a");
    pair.litellm(
        &[change("a", "metadata = '{}'"), change("never", "metadata = '{\"scim_active\": true}'")].concat(),
    )
    .await;
    pair.settle().await;
    assert_eq!(pair.account("a@x.test").await, "usr_a|a|user|active");
    assert_eq!(pair.account("never@x.test").await, "usr_never|never|user|active");
    assert_in_step(&pair).await;
    pair.litellm(&change("a", "user_email = null")).await;
    pair.settle().await;
    assert_eq!(pair.account("a@x.test").await, "usr_a|a|pending|locked");
}

#[tokio::test]
async fn an_admin_role_we_gave_is_taken_back_and_one_given_by_others_stays() {
    let (pair, _daemon) =
        streaming(&[person("ours", "ours@x.test"), person("theirs", "theirs@x.test")].concat()).await;
    pair.webui("update \"user\" set role = 'admin' where id = 'usr_theirs'").await;
    pair.litellm("update \"LiteLLM_UserTable\" set user_role = 'proxy_admin'").await;
    pair.settle().await;
    assert_eq!(pair.account("ours@x.test").await, "usr_ours|ours|admin|active");
    pair.litellm("update \"LiteLLM_UserTable\" set user_role = 'proxy_admin_viewer'").await;
    pair.settle().await;
    assert_eq!(pair.account("ours@x.test").await, "usr_ours|ours|user|active");
    assert_eq!(pair.account("theirs@x.test").await, "usr_theirs|theirs|admin|active");
    // It survives leaving and returning.
    pair.litellm("update \"LiteLLM_UserTable\" set metadata = '{\"scim_active\": false}'").await;
    pair.settle().await;
    assert_eq!(pair.account("theirs@x.test").await, "usr_theirs|theirs|pending|locked");
    pair.litellm("update \"LiteLLM_UserTable\" set metadata = '{}'").await;
    pair.settle().await;
    assert_eq!(pair.account("theirs@x.test").await, "usr_theirs|theirs|admin|active");
    assert_eq!(pair.account("ours@x.test").await, "usr_ours|ours|user|active");
}

#[tokio::test]
async fn an_admin_whose_role_is_taken_back_while_away_returns_as_a_user() {
    let (pair, _daemon) =
        streaming(&[person("a", "a@x.test"), change("a", "user_role = 'proxy_admin'")].concat()).await;
    pair.litellm(&gone("a")).await;
    pair.settle().await;
    pair.litellm(&person("a", "a@x.test")).await;
    pair.settle().await;
    assert_eq!(pair.account("a@x.test").await, "usr_a|a|user|active");
}

#[tokio::test]
async fn the_last_active_admin_is_kept_and_said_aloud() {
    let (pair, daemon) =
        streaming(&[person("a", "a@x.test"), change("a", "user_role = 'proxy_admin'")].concat()).await;
    pair.webui(&format!("update \"user\" set role = 'pending' where id = '{ADMIN}'")).await;
    pair.litellm(&gone("a")).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.account("a@x.test").await, "usr_a|a|admin|active");
    assert_eq!(
        pair.ask("select kind || critical from litellm_webui_sync.dead_letter").await,
        "last_admintrue"
    );
    eventually("readiness to end", || async { daemon.get("/readyz").0 == 503 }).await;
    assert!(daemon.get("/readyz").1.contains("critical"), "{:?}", daemon.get("/readyz"));
    // Another admin again: the change is made when it is tried again.
    pair.webui(&format!("update \"user\" set role = 'admin' where id = '{ADMIN}'")).await;
    pair.webui("update litellm_webui_sync.dead_letter set last_seen = now() - interval '2 hours'").await;
    eventually("the lock", || async { pair.account("a@x.test").await == "usr_a|a|pending|locked" }).await;
    daemon.ready().await;
}

#[tokio::test]
async fn two_admins_who_leave_together_are_not_both_locked_when_they_are_the_last() {
    let people = [person("a", "a@x.test"), person("b", "b@x.test")].concat()
        + "update \"LiteLLM_UserTable\" set user_role = 'proxy_admin';";
    let (pair, _daemon) = streaming(&people).await;
    pair.webui(&format!("update auth set active = false where id = '{ADMIN}'")).await;
    pair.litellm("delete from \"LiteLLM_UserTable\"").await;
    assert_eq!(pair.settle().await, 1);
    let sql = "select count(*) from \"user\" u join auth a using (id) where u.role = 'admin' and a.active";
    assert_eq!(pair.ask(sql).await, "1");
}

// ---------------------------------------------------------------- ids and names

#[tokio::test]
async fn odd_ids_become_hashes_and_stay_apart() {
    let ids = [
        "o'brien/7?x=1&y=\"2\"".to_owned(),
        "tab\there".to_owned(),
        "del\u{7f}".to_owned(),
        "c1\u{85}".to_owned(),
        "100%".to_owned(),
        "a#b".to_owned(),
        "h_deadbeef".to_owned(),
        "hx".to_owned(),
        "x".repeat(780),
        "y".repeat(251),
        "z".repeat(252),
        "DOMAIN\\user".to_owned(),
        "ユーザー🙂".to_owned(),
        "with space".to_owned(),
    ];
    let options = PairOptions { webui: Schema::OpenWebUi0_12_4FromOld, ..PairOptions::default() };
    let pair = Pair::with(options).await;
    let mut sql = String::new();
    for (place, id) in ids.iter().enumerate() {
        sql += &person(id, &format!("p{place}@x.test"));
        sql += &organization(&format!("{id}o"), id);
        sql += &team(id, id, None, &[]);
    }
    sql += &organization("team_x", "not a team");
    sql += &team("x", "a team", None, &[]);
    sql += &organization("models_x", "models");
    sql += &organization("h_x", "h");
    sql += "update \"LiteLLM_TeamTable\" set members_with_roles =
               (select jsonb_agg(jsonb_build_object('user_id', user_id)) from \"LiteLLM_UserTable\");";
    pair.litellm(&sql).await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    for (place, id) in ids.iter().enumerate() {
        let account = pair.account(&format!("p{place}@x.test")).await;
        assert_eq!(account.split('|').next().unwrap(), account_id(id));
    }
    // They are found again.
    pair.litellm("update \"LiteLLM_UserTable\" set user_alias = 'Renamed ' || user_email").await;
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'Renamed ' || left(team_id, 9)").await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    pair.litellm("delete from \"LiteLLM_UserTable\"; delete from \"LiteLLM_TeamTable\"").await;
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_name_is_team_and_alias_alias_or_the_emails_local_part() {
    let t = [
        team("t1", "Alpha", None, &["teams", "both", "second"]),
        team("t2", "Beta", None, &["second"]),
        team("t3", "", None, &["blank"]),
        team("t4", &"long ".repeat(60), None, &["cut"]),
    ];
    let p = |id: &str, set: &str| person(id, &format!("{id}@x.test")) + &change(id, set);
    let people = [
        p("plain", "user_alias = null"),
        p("spaces", "user_alias = '  '"),
        p("alias", "user_alias = 'Ann \"A\"'"),
        p("own", "user_alias = 'Own', team_id = 't2'"),
        p("teams", "user_alias = 'T', teams = '{t2,no-such-team,t1}'"),
        p("both", "user_alias = 'B', team_id = 'litellm-dashboard', teams = '{t1}'"),
        p("second", "user_alias = 'S', teams = '{t2,t1}'"),
        p("blank", "user_alias = 'Bl', teams = '{t3}'"),
        p("cut", "user_alias = 'Cut', teams = '{t4}'"),
        p("mail", "user_alias = 'M', teams = '{t5}'"),
    ];
    let by_mail = "insert into \"LiteLLM_TeamTable\" (team_id, team_alias, members_with_roles, models)
        values ('t5', 'Mailed', '[{\"user_id\": null, \"user_email\": \"MAIL@x.test\", \"role\": \"user\"}]', '{}');";
    let (pair, _daemon) = streaming(&(people.concat() + &t.concat() + by_mail)).await;
    assert_in_step(&pair).await;
    let name = |id: &str| {
        let sql = format!("select name from \"user\" where id = 'usr_{id}'");
        let pair = &pair;
        async move { pair.ask(&sql).await }
    };
    assert_eq!(name("plain").await, "plain");
    assert_eq!(name("spaces").await, "spaces");
    assert_eq!(name("own").await, "Beta-Own");
    assert_eq!(name("teams").await, "Alpha-T");
    assert_eq!(name("both").await, "Alpha-B");
    assert_eq!(name("second").await, "Beta-S");
    assert_eq!(name("blank").await, "Bl");
    assert_eq!(name("mail").await, "Mailed-M");
    assert_eq!(name("cut").await.chars().count(), 255);
    // A team's name, its roster and its end reach the names of its people.
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'Gamma' where team_id = 't1'").await;
    pair.litellm(&rostered("t2", &["teams"])).await;
    pair.litellm("delete from \"LiteLLM_TeamTable\" where team_id = 't5'").await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(name("teams").await, "Beta-T");
    assert_eq!(name("both").await, "Gamma-B");
    assert_eq!(name("mail").await, "M");
    // And a team that appears later.
    pair.litellm(&(team("no-such-team", "New", None, &["teams"]) + &rostered("t2", &[]))).await;
    pair.settle().await;
    assert_eq!(name("teams").await, "New-T");
    assert_in_step(&pair).await;
}

// ---------------------------------------------------------------- groups

#[tokio::test]
async fn groups_are_renamed_lose_their_members_and_go() {
    let people = [person("a", "a@x.test"), person("b", "b@x.test"), person("c", "c@x.test")].concat();
    let (pair, _daemon) = streaming(&people).await;
    pair.litellm(
        &[
            organization("o", "Org"),
            team("t", "Team", Some("o"), &["a", "ghost"]),
            "insert into \"LiteLLM_OrganizationMembership\" (user_id, organization_id) values ('b', 'o');"
                .to_owned(),
            change("c", "organization_id = 'o'"),
        ]
        .concat(),
    )
    .await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(pair.members("grp_o").await, "usr_a usr_b usr_c");
    assert_eq!(pair.members("grp_team_t").await, "usr_a");
    assert_eq!(pair.ask("select count(*) from \"group\" where parent_group_id is not null").await, "0");
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'New', organization_id = null").await;
    pair.litellm("update \"LiteLLM_OrganizationTable\" set organization_alias = 'New org'").await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(pair.members("grp_o").await, "usr_b usr_c");
    pair.litellm("delete from \"LiteLLM_TeamTable\"").await;
    pair.litellm("delete from \"LiteLLM_OrganizationMembership\"; delete from \"LiteLLM_OrganizationTable\"")
        .await;
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from \"group\"").await, "0");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_group_something_else_refers_to_is_kept_without_our_members() {
    let (pair, _daemon) = streaming(
        &[
            person("a", "a@x.test"),
            team("granted", "G", None, &["a"]),
            team("joined", "J", None, &["a"]),
            team("parent", "P", None, &["a"]),
            team("free", "F", None, &["a"]),
        ]
        .concat(),
    )
    .await;
    pair.webui(&format!(
        "insert into access_grant (id, resource_type, resource_id, principal_type, principal_id, permission, created_at)
         values ('g', 'knowledge', 'k', 'group', 'grp_team_granted', 'read', 1);
         insert into group_member (id, group_id, user_id) values ('m', 'grp_team_joined', '{ADMIN}');
         insert into \"group\" (id, user_id, name, description, created_at, updated_at, parent_group_id)
         values ('child', '', 'Child', '', 1, 1, 'grp_team_parent')"
    ))
    .await;
    pair.litellm("delete from \"LiteLLM_TeamTable\"").await;
    pair.settle().await;
    let kept = "select string_agg(id, ' ' order by id) from \"group\"";
    assert_eq!(pair.ask(kept).await, "child grp_team_granted grp_team_joined grp_team_parent");
    assert_eq!(pair.members("grp_team_joined").await, ADMIN);
    assert_eq!(pair.members("grp_team_granted").await, "");
    // The team comes back: it is the same group.
    pair.litellm(&team("granted", "Again", None, &["a"])).await;
    pair.settle().await;
    assert_eq!(pair.ask("select name from \"group\" where id = 'grp_team_granted'").await, "Again");
    assert_eq!(pair.members("grp_team_granted").await, "usr_a");
}

#[tokio::test]
async fn foreign_members_stay_and_are_never_ours() {
    let (pair, _daemon) =
        streaming(&[person("a", "a@x.test"), person("b", "b@x.test"), team("t", "T", None, &["a"])].concat())
            .await;
    pair.webui(&format!(
        "insert into group_member (id, group_id, user_id) values ('1', 'grp_team_t', '{ADMIN}'), ('2', 'grp_team_t', 'usr_b')"
    ))
    .await;
    // b joins in LiteLLM as well, and leaves again: the hand-made row was not ours.
    pair.litellm(&rostered("t", &["a", "b"])).await;
    pair.settle().await;
    pair.litellm(&rostered("t", &[])).await;
    pair.settle().await;
    assert_eq!(pair.members("grp_team_t").await, format!("{ADMIN} usr_b"));
    let foreign =
        Foreign { members: [("grp_team_t".to_owned(), "usr_b".to_owned())].into(), ..Foreign::default() };
    assert_in_step_with(&pair, &foreign).await;
}

#[tokio::test]
async fn a_group_that_was_there_is_used_but_never_owned() {
    let pair = Pair::new().await;
    pair.webui(
        "insert into \"group\" (id, user_id, name, description, created_at, updated_at)
         values ('grp_team_t', 'x', 'Hand-made', 'd', 1, 1)",
    )
    .await;
    pair.litellm(&[person("a", "a@x.test"), team("t", "T", None, &["a"])].concat()).await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.members("grp_team_t").await, "usr_a");
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'T2'").await;
    pair.settle().await;
    assert_eq!(pair.ask("select name || description from \"group\"").await, "Hand-maded");
    pair.litellm("delete from \"LiteLLM_TeamTable\"").await;
    pair.settle().await;
    assert_eq!(pair.ask("select name from \"group\"").await, "Hand-made");
    assert_eq!(pair.members("grp_team_t").await, "");
}

#[tokio::test]
async fn a_roster_entry_with_only_an_email_names_whoever_has_it() {
    let (pair, _daemon) = streaming(&person("a", "a@x.test")).await;
    let mailed =
        |email: &str| format!("[{{\"user_id\": null, \"user_email\": \"{email}\", \"role\": \"user\"}}]");
    pair.litellm(&format!(
        "{} insert into \"LiteLLM_TeamTable\" (team_id, team_alias, organization_id, members_with_roles, models)
         values ('t', 'T', 'o', '{}', '{{}}')",
        organization("o", "O"),
        mailed(" Later@X.test ")
    ))
    .await;
    pair.settle().await;
    assert_eq!(pair.members("grp_team_t").await, "");
    pair.litellm(&person("l", "later@x.test")).await;
    pair.settle().await;
    assert_eq!(
        (pair.members("grp_team_t").await, pair.members("grp_o").await),
        ("usr_l".into(), "usr_l".into())
    );
    // The e-mail moves to somebody else.
    pair.litellm(
        &[change("l", "user_email = 'l@x.test'"), change("a", "user_email = 'later@x.test'")].concat(),
    )
    .await;
    pair.settle().await;
    assert_eq!(
        (pair.members("grp_team_t").await, pair.members("grp_o").await),
        ("usr_a".into(), "usr_a".into())
    );
    // LiteLLM fills in the id later.
    pair.litellm(&rostered("t", &["a"])).await;
    pair.settle().await;
    assert_eq!(pair.members("grp_team_t").await, "usr_a");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn odd_rosters_count_as_far_as_they_make_sense() {
    let text = serde_json::to_string(&roster(&["a"])).unwrap();
    let rosters = [
        ("string", text.as_str(), "usr_a"),
        ("object", "{}", ""),
        ("numbers", "[1, null, \"a\", [\"a\"], {}]", ""),
        ("twice", "[{\"user_id\": \"a\"}, {\"user_id\": \"a\", \"user_email\": \"b@x.test\"}]", "usr_a"),
        ("wrong", "[{\"user_id\": 7, \"user_email\": \"a@x.test\"}]", "usr_a"),
        ("both", "[{\"user_id\": \"a\"}, {\"user_id\": null, \"user_email\": \"a@x.test\"}]", "usr_a"),
        ("null", "null", ""),
    ];
    let mut sql = person("a", "a@x.test") + &person("b", "b@x.test");
    for (id, roster, _) in rosters {
        sql += &format!(
            "insert into \"LiteLLM_TeamTable\" (team_id, members_with_roles, models) values ('{id}', {}, '{{}}');",
            quote(roster)
        );
    }
    let (pair, _daemon) = streaming(&sql).await;
    for (id, _, members) in rosters {
        assert_eq!(pair.members(&format!("grp_team_{id}")).await, members, "{id}");
    }
    assert_in_step(&pair).await;
    // The same through the stream.
    pair.litellm("update \"LiteLLM_TeamTable\" set members_with_roles = '[]'").await;
    pair.settle().await;
    assert_in_step(&pair).await;
    for (id, roster, _) in rosters {
        let sql = "update \"LiteLLM_TeamTable\" set members_with_roles = ";
        pair.litellm(&format!("{sql} {} where team_id = '{id}'", quote(roster))).await;
    }
    pair.settle().await;
    for (id, _, members) in rosters {
        assert_eq!(pair.members(&format!("grp_team_{id}")).await, members, "{id}");
    }
}

#[tokio::test]
async fn members_are_an_array_of_ids_in_old_open_webui() {
    let options = PairOptions { webui: Schema::OpenWebUi0_6_30, ..PairOptions::default() };
    let pair = Pair::with(options).await;
    pair.litellm(
        &[person("a", "a@x.test"), person("b", "b@x.test"), team("t", "T", None, &["a", "b"])].concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    pair.webui(&format!("update \"group\" set user_ids = '[\"{ADMIN}\", \"usr_b\", \"usr_b\", \"usr_a\"]'"))
        .await;
    pair.litellm(&rostered("t", &["b"])).await;
    pair.settle().await;
    assert_eq!(pair.ask("select user_ids from \"group\"").await, format!("[\"{ADMIN}\", \"usr_b\"]"));
    pair.litellm("delete from \"LiteLLM_TeamTable\"").await;
    pair.settle().await;
    assert_eq!(pair.ask("select user_ids from \"group\"").await, format!("[\"{ADMIN}\"]"));
    pair.webui("update \"group\" set user_ids = '[]'").await;
    pair.litellm(&team("t", "T", None, &["a"])).await;
    pair.settle().await;
    pair.litellm("delete from \"LiteLLM_TeamTable\"").await;
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from \"group\"").await, "0");
}

// ---------------------------------------------------------------- what is not ours

#[tokio::test]
async fn nothing_is_written_before_somebody_has_signed_up() {
    let pair = Pair::with(PairOptions { admin: false, ..PairOptions::default() }).await;
    pair.litellm(&[person("a", "a@x.test"), team("t", "T", None, &["a"])].concat()).await;
    let daemon = Daemon::start(&pair);
    let waited = pair.wait().await;
    let Waited::Failed { reason } = waited else { panic!("{waited:?}") };
    assert!(reason.contains("no admin"), "{reason}");
    assert_eq!(daemon.get("/readyz").0, 503);
    pair.litellm(&person("b", "b@x.test")).await;
    pair.wait().await;
    assert_eq!(pair.ask("select count(*) from \"user\"").await, "0");
    testbed::open_webui_admin(&pair.target).await.unwrap();
    eventually("the people", || async { pair.ask("select count(*) from \"user\"").await == "3" }).await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    let oldest = "select id from \"user\" order by created_at, id limit 1";
    assert_eq!(pair.ask(oldest).await, ADMIN);
}

#[tokio::test]
async fn what_people_edit_in_open_webui_survives_every_change_in_litellm() {
    let (pair, _daemon) = streaming(&[person("a", "a@x.test"), team("t", "T", None, &["a"])].concat()).await;
    assert_eq!(
        pair.ask("select concat_ws('|', password, profile_image_url, settings is null) from \"user\" join auth using (id) where id = 'usr_a'").await,
        "|/user.png|t"
    );
    pair.webui(
        "update \"user\" set settings = '{\"ui\": {\"a\": 1}}', profile_image_url = '/me.png', info = '{\"x\": 1}',
            bio = 'me', last_active_at = 99, created_at = 7 where id = 'usr_a';
         update auth set password = 'bcrypt' where id = 'usr_a';
         update \"group\" set description = 'ours', permissions = '{\"chat\": {}}', data = '{\"config\": {\"share\": \"members\", \"x\": 1}}',
            meta = '{\"m\": 1}' where id = 'grp_team_t'",
    )
    .await;
    let sql =
        "select concat_ws('|', settings, profile_image_url, info, bio, last_active_at, created_at, password)
                 from \"user\" join auth using (id) where id = 'usr_a'";
    let group = "select concat_ws('|', description, permissions, data, meta) from \"group\"";
    let (before, group_before) = (pair.ask(sql).await, pair.ask(group).await);
    pair.litellm(&change(
        "a",
        "user_alias = 'A', user_email = 'b@x.test', user_role = 'proxy_admin', spend = 7",
    ))
    .await;
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'New'").await;
    pair.litellm(&gone("a")).await;
    pair.litellm(&person("a", "c@x.test")).await;
    pair.settle().await;
    assert_eq!(pair.ask(sql).await, before);
    assert_eq!(pair.ask(group).await, group_before);
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn what_was_deleted_in_open_webui_comes_back_when_it_is_touched() {
    let (pair, _daemon) = streaming(&[person("a", "a@x.test"), team("t", "T", None, &["a"])].concat()).await;
    pair.webui(
        "delete from auth where id = 'usr_a'; delete from \"user\" where id = 'usr_a'; delete from \"group\"",
    )
    .await;
    pair.litellm(&change("a", "user_alias = 'A'")).await;
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = 'T2'").await;
    assert_eq!(pair.settle().await, 0);
    assert_in_step(&pair).await;
    assert_eq!(pair.account("a@x.test").await, "usr_a|A|user|active");
    assert_eq!(pair.members("grp_team_t").await, "usr_a");
}

#[tokio::test]
async fn somebody_who_goes_back_to_the_email_they_hold_keeps_it() {
    let (pair, _daemon) = streaming(&[person("d", "2@x.test"), person("x", "1@x.test")].concat()).await;
    pair.litellm(&change("d", "user_email = '1@x.test'")).await;
    assert_eq!(pair.settle().await, 1);
    pair.litellm(&person("c", "2@x.test")).await;
    assert_eq!(pair.settle().await, 2);
    pair.litellm(&change("d", "user_email = '2@x.test', user_alias = 'D'")).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(pair.dead_letters().await, "account:c");
    assert_eq!(pair.account("2@x.test").await, "usr_d|D|user|active");
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_locked_accounts_email_is_given_to_whoever_has_it_now() {
    let (pair, _daemon) = streaming(&[person("a", "a@x.test"), person("e", "e@x.test")].concat()).await;
    pair.litellm(&gone("e")).await;
    pair.settle().await;
    // Somebody with an account of their own.
    pair.litellm(&change("a", "user_email = 'e@x.test'")).await;
    assert_eq!(pair.settle().await, 0);
    assert_eq!(pair.account("e@x.test").await, "usr_a|e|user|active");
    assert_in_step(&pair).await;
}
