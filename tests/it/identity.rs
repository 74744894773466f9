//! Who is whom: one person, one account, one e-mail, whatever LiteLLM or somebody in Open WebUI does to it, and in layouts without
//! an index that would say no.

use testbed::Schema;

use crate::mapping::stranger;
use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::{Daemon, Pair, PairOptions, change, gone, person};

const LAYOUTS: [Schema; 2] = [Schema::OpenWebUi0_6_30, Schema::OpenWebUi0_12_4];

async fn pair_of(webui: Schema, people: &str) -> (Pair, Daemon) {
    let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
    pair.litellm(people).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    (pair, daemon)
}

const SHARED: &str =
    "select count(*) from (select from \"user\" group by lower(email) having count(*) > 1) shared";

#[tokio::test]
async fn an_email_that_its_holder_cannot_leave_after_all_goes_to_nobody_else() {
    for webui in LAYOUTS {
        let (pair, _daemon) =
            pair_of(webui, &[person("bob", "bob@x.test"), person("carl", "carl@x.test")].concat()).await;
        pair.webui(&stranger("theirs", "bob.new@x.test", "user")).await;
        // Bob wants what a stranger has, and carl, in the same transaction, what bob has.
        pair.litellm(
            &[change("bob", "user_email = 'bob.new@x.test'"), change("carl", "user_email = 'bob@x.test'")]
                .concat(),
        )
        .await;
        pair.settle().await;
        assert_eq!(pair.ask(SHARED).await, "0", "{webui}");
        assert_eq!(pair.account("bob@x.test").await, "usr_bob|bob|user|active");
        assert_eq!(pair.account("carl@x.test").await, "usr_carl|carl|user|active");
        assert_eq!(
            pair.ask("select string_agg(key, ' ' order by key) from litellm_webui_sync.dead_letter where sqlstate is null")
                .await,
            "bob carl"
        );
        // And once the stranger lets go, both have what they want.
        pair.webui("delete from \"user\" where id = 'theirs'; delete from auth where id = 'theirs'").await;
        pair.litellm(&change("bob", "user_alias = ''")).await;
        pair.settle().await;
        assert_eq!(pair.account("bob@x.test").await, "usr_carl|bob|user|active", "{webui}");
        assert_in_step(&pair).await;
    }
}

#[tokio::test]
async fn an_account_deleted_in_open_webui_and_registered_again_is_one_account() {
    for webui in LAYOUTS {
        let (pair, _daemon) = pair_of(webui, &person("bob", "bob@x.test")).await;
        pair.webui("delete from \"user\" where id = 'usr_bob'; delete from auth where id = 'usr_bob'").await;
        pair.webui(&stranger("again", "bob@x.test", "user")).await;
        pair.litellm(&change("bob", "user_alias = 'Bob'")).await;
        pair.settle().await;
        assert_eq!(pair.ask(SHARED).await, "0", "{webui}");
        assert_eq!(pair.account("bob@x.test").await, "again|Bob|user|active", "{webui}");
        assert_eq!(pair.ask("select count(*) from litellm_webui_sync.dead_letter").await, "0");
        assert_in_step(&pair).await;
        // It is theirs now: who leaves cannot use it any more.
        pair.litellm(&gone("bob")).await;
        pair.settle().await;
        assert_eq!(pair.account("bob@x.test").await, "again|Bob|pending|locked", "{webui}");
    }
}

#[tokio::test]
async fn an_account_whose_email_was_changed_in_open_webui_and_registered_again_is_said_and_not_doubled() {
    for webui in LAYOUTS {
        let (pair, _daemon) = pair_of(webui, &person("bob", "bob@x.test")).await;
        pair.webui("update \"user\" set email = 'moved@x.test' where id = 'usr_bob'; update auth set email = 'moved@x.test' where id = 'usr_bob'").await;
        pair.webui(&stranger("other", "bob@x.test", "user")).await;
        pair.litellm(&change("bob", "user_alias = 'Bob'")).await;
        pair.settle().await;
        assert_eq!(pair.ask(SHARED).await, "0", "{webui}");
        assert_eq!(pair.account("moved@x.test").await, "usr_bob|Bob|user|active", "{webui}");
        assert_eq!(
            pair.ask("select reason from litellm_webui_sync.dead_letter").await,
            "the new e-mail belongs to an Open WebUI account we do not own",
            "{webui}"
        );
        // Whoever leaves is locked, whatever their account is called by now.
        pair.litellm(&gone("bob")).await;
        pair.settle().await;
        assert_eq!(pair.account("moved@x.test").await, "usr_bob|Bob|pending|locked", "{webui}");
        assert_eq!(pair.account("bob@x.test").await, "other|Stranger|user|active", "{webui}");
    }
}

#[tokio::test]
async fn of_two_accounts_that_differ_in_case_the_one_that_can_sign_in_is_adopted() {
    let pair = Pair::with(PairOptions { webui: Schema::OpenWebUi0_6_30, ..PairOptions::default() }).await;
    pair.webui(&[stranger("dead", "Bob@x.test", "user"), stranger("alive", "bob@x.test", "user")].concat())
        .await;
    // The dead one is older.
    pair.webui("update \"user\" set created_at = 1500000000 where id = 'dead'").await;
    pair.litellm(&person("bob", "BOB@x.test")).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(pair.ask("select webui_id from litellm_webui_sync.account").await, "alive");
    assert_eq!(
        pair.ask("select string_agg(name, ' ' order by id) from \"user\" where id in ('alive', 'dead')")
            .await,
        "bob Stranger"
    );
    drop(daemon);
}

#[tokio::test]
async fn whoever_comes_back_after_their_account_went_to_somebody_else_gets_one_of_their_own() {
    for webui in LAYOUTS {
        let (pair, _daemon) = pair_of(webui, &person("old", "a@x.test")).await;
        // SCIM switches the old one off, and the e-mail goes to somebody new.
        pair.litellm(&change("old", "metadata = '{\"scim_active\": false}'")).await;
        pair.settle().await;
        pair.litellm(&person("new", "a@x.test")).await;
        pair.settle().await;
        assert_eq!(pair.account("a@x.test").await, "usr_old|a|user|active", "{webui}");
        assert_eq!(
            pair.ask("select user_id || ' ' || reason from litellm_webui_sync.skipped").await,
            "old deactivated by SCIM"
        );
        assert_eq!(run(&pair, &["verify"]).0, 0, "{webui}");
        pair.litellm(&change("old", "metadata = '{}', user_email = 'b@x.test'")).await;
        pair.settle().await;
        let second = pair.account("b@x.test").await;
        assert!(second.starts_with("usr_h_") && second.ends_with("|b|user|active"), "{webui}: {second}");
        assert_eq!(pair.ask("select count(*) from litellm_webui_sync.dead_letter").await, "0");
        assert_eq!(run(&pair, &["verify"]).0, 0, "{webui}");
        assert_in_step(&pair).await;
        pair.litellm(&gone("old")).await;
        pair.settle().await;
        assert!(pair.account("b@x.test").await.ends_with("|b|pending|locked"));
    }
}

#[tokio::test]
async fn accounts_of_others_that_share_an_email_are_a_finding() {
    let (pair, _daemon) = pair_of(Schema::OpenWebUi0_6_30, &person("ann", "ann@x.test")).await;
    assert_eq!(run(&pair, &["verify"]).0, 0);
    pair.webui(&[stranger("one", "Bob@x.test", "user"), stranger("two", "bob@x.test", "user")].concat())
        .await;
    let (code, out, _) = run(&pair, &["verify"]);
    assert!(code != 0 && out.contains("SHARED_EMAIL"), "{out}");
    let (_, out, _) = run(&pair, &["status"]);
    assert!(out.contains("shared e-mails"), "{out}");
    let (_, out, _) = run(&pair, &["doctor"]);
    assert!(out.contains("accounts that share an e-mail"), "{out}");
}

#[tokio::test]
async fn what_a_locked_account_is_called_is_nobodys_email() {
    let (pair, _daemon) =
        pair_of(Schema::OpenWebUi0_12_4, &[person("old", "a@x.test"), person("ann", "ann@x.test")].concat())
            .await;
    pair.litellm(&gone("old")).await;
    pair.settle().await;
    // Ann has an account already: the locked one gives its e-mail up.
    pair.litellm(&change("ann", "user_email = 'a@x.test'")).await;
    pair.settle().await;
    let left = pair.ask("select email from \"user\" where id = 'usr_old'").await;
    assert!(left.ends_with("@departed.invalid"), "{left}");
    pair.litellm(&person("thief", &left)).await;
    pair.settle().await;
    assert_eq!(pair.account(&left).await, "usr_old|a|pending|locked");
    assert_eq!(
        pair.ask("select reason from litellm_webui_sync.skipped where user_id = 'thief'").await,
        "not a usable e-mail"
    );
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn white_space_around_a_name_is_no_name() {
    let (pair, _daemon) = pair_of(Schema::OpenWebUi0_12_4, &person("ann", "ann@x.test")).await;
    let group = "select name from \"group\" where id = 'grp_team_t'";
    pair.litellm(
        "insert into \"LiteLLM_TeamTable\" (team_id, team_alias, members_with_roles, models)
         values ('t', E' \\u00a0Lab \\t', '[{\"user_id\": \"ann\", \"role\": \"user\"}]', '{}');
         update \"LiteLLM_UserTable\" set user_alias = E'\\u00a0\\t', teams = '{t}'",
    )
    .await;
    pair.settle().await;
    assert_eq!(pair.ask(group).await, "Lab");
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|ann|user|active");
    pair.litellm("update \"LiteLLM_UserTable\" set user_alias = E' Ann\\u2003'").await;
    pair.settle().await;
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|Lab-Ann|user|active");
    pair.litellm("update \"LiteLLM_TeamTable\" set team_alias = E'\\u00a0 '").await;
    pair.settle().await;
    assert_eq!(pair.ask(group).await, "t");
    assert_eq!(pair.account("ann@x.test").await, "usr_ann|Ann|user|active");
    assert_in_step(&pair).await;
}
