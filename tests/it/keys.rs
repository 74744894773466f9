//! Personal API keys (docs/src/design.md, "Log-in and API keys"), in both layouts.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use testbed::{Cluster, ClusterOptions, Schema};

use crate::support::compare::{Foreign, api_keys, assert_in_step, assert_in_step_with, differences};
use crate::support::daemon::DaemonOptions;
use crate::support::{
    Daemon, Pair, PairOptions, change, eventually, gone, key, people, person, quote, rekey, rows, team,
    token, unkey,
};
use litellm_webui_sync::observe::status::Waited;

const BOTH: [Schema; 2] = [Schema::OpenWebUi0_12_4, Schema::OpenWebUi0_6_30];
const RETRY: &str = "update litellm_webui_sync.dead_letter set last_seen = now() - interval '2 hours'";

async fn pair_of(webui: Schema) -> Pair {
    Pair::with(PairOptions { webui, ..PairOptions::default() }).await
}

/// The keys of an account, joined by a space.
async fn held(pair: &Pair, account: &str) -> String {
    let all = api_keys(pair).await;
    all.into_iter().filter(|(id, _)| id == account).map(|(_, key)| key).collect::<Vec<_>>().join(" ")
}

/// Writes a key as Open WebUI does for a person who clicks: whatever was there is replaced.
async fn make_own(pair: &Pair, account: &str, value: &str) {
    delete_own(pair, account).await;
    let (account, value) = (quote(account), quote(value));
    let sql = if is_table(pair).await {
        format!(
            "insert into api_key (id, user_id, key, created_at, updated_at) values ('key_' || {account}, {account}, {value}, 1, 1)"
        )
    } else {
        format!("update \"user\" set api_key = {value} where id = {account}")
    };
    pair.webui(&sql).await;
}

async fn delete_own(pair: &Pair, account: &str) {
    let account = quote(account);
    let sql = if is_table(pair).await {
        format!("delete from api_key where user_id = {account}")
    } else {
        format!("update \"user\" set api_key = null where id = {account}")
    };
    pair.webui(&sql).await;
}

async fn is_table(pair: &Pair) -> bool {
    pair.ask("select to_regclass('api_key') is not null").await == "t"
}

/// `operation:result` of a person's audit rows about keys, in order.
async fn audited(pair: &Pair, user: &str) -> String {
    pair.ask(&format!(
        "select string_agg(operation || ':' || sync_result, ' ' order by id) from litellm_webui_sync.sync_audit
          where record_id = {} and operation like '%API_KEY'",
        quote(user)
    ))
    .await
}

// ---------------------------------------------------------------- who has one

#[tokio::test]
async fn a_usable_litellm_key_opens_a_key_that_survives_rotation_and_ends_with_the_last_one() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
        pair.litellm(&[person("ann", "ann@x.test"), key("one", "ann")].concat()).await;
        pair.settle().await;
        let first = held(&pair, "usr_ann").await;
        assert!(first.starts_with("sk-") && first.len() == 67, "{first:.10}");
        let ledger =
            format!("select sha256 = sha256({}::bytea) from litellm_webui_sync.minted_key", quote(&first));
        assert_eq!(pair.ask(&ledger).await, "t");
        // Rotation changes LiteLLM's primary key, and nothing here.
        pair.litellm(&rekey("one", &format!("token = {}, key_name = 'sk-...2'", token("two")))).await;
        pair.litellm(&[key("more", "ann"), unkey("two")].concat()).await;
        pair.settle().await;
        assert_eq!(held(&pair, "usr_ann").await, first);
        assert_in_step(&pair).await;
        // The last usable one: blocked, unblocked, deleted. What comes back is another key.
        pair.litellm(&rekey("more", "blocked = true")).await;
        pair.settle().await;
        assert_eq!(held(&pair, "usr_ann").await, "");
        pair.litellm(&rekey("more", "blocked = false")).await;
        pair.settle().await;
        let second = held(&pair, "usr_ann").await;
        assert!(!second.is_empty() && second != first);
        pair.litellm(&unkey("more")).await;
        pair.settle().await;
        assert_eq!(held(&pair, "usr_ann").await, "");
        assert_in_step(&pair).await;
        assert_eq!(
            audited(&pair, "ann").await,
            "SYNC_API_KEY:SUCCESS DELETE_API_KEY:SUCCESS SYNC_API_KEY:SUCCESS DELETE_API_KEY:SUCCESS"
        );
    }
}

#[tokio::test]
async fn sessions_of_the_ui_and_service_accounts_count_for_nobody_and_a_moved_key_for_its_new_owner() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let _daemon = Daemon::start(&pair);
        pair.litellm(
            &[
                people("a", 4),
                key("session", "a1"),
                rekey("session", "team_id = 'litellm-dashboard'"),
                key("service", "a2"),
                rekey("service", "metadata = '{\"service_account_id\": \"s\"}'"),
                key("moves", "a3"),
                key("of-nobody", "a3"),
                rekey("of-nobody", "user_id = null"),
                key("gone", "nobody"),
            ]
            .concat(),
        )
        .await;
        pair.settle().await;
        assert_in_step(&pair).await;
        assert_eq!(api_keys(&pair).await.len(), 1);
        let first = held(&pair, "usr_a3").await;
        pair.litellm(&rekey("moves", "user_id = 'a4'")).await;
        pair.settle().await;
        assert_in_step(&pair).await;
        assert_eq!(held(&pair, "usr_a3").await, "");
        assert!(!held(&pair, "usr_a4").await.is_empty() && held(&pair, "usr_a4").await != first);
        // A key becomes a session, and the other way round.
        pair.litellm(
            &[rekey("moves", "team_id = 'litellm-dashboard'"), rekey("session", "team_id = 't'")].concat(),
        )
        .await;
        pair.settle().await;
        assert_in_step(&pair).await;
        assert_eq!(held(&pair, "usr_a4").await, "");
        assert!(!held(&pair, "usr_a1").await.is_empty());
    }
}

#[tokio::test]
async fn a_key_without_an_account_waits_for_it_and_a_locked_person_keeps_theirs() {
    let pair = Pair::new().await;
    let _daemon = Daemon::start(&pair);
    pair.litellm(&[key("early", "ann"), key("b", "bob"), person("bob", "bob@x.test")].concat()).await;
    pair.settle().await;
    assert_eq!(held(&pair, "usr_ann").await, "");
    pair.litellm(
        &[person("ann", "ann@x.test"), change("bob", "metadata = '{\"scim_active\": false}'")].concat(),
    )
    .await;
    pair.settle().await;
    assert_in_step(&pair).await;
    let (anns, bobs) = (held(&pair, "usr_ann").await, held(&pair, "usr_bob").await);
    assert!(!anns.is_empty() && !bobs.is_empty());
    // An account that goes to the same person under another id keeps its key; one whose person is gone loses it.
    pair.litellm(
        &[gone("ann"), person("ann.b", "ann@x.test"), rekey("early", "user_id = 'ann.b'"), gone("bob")]
            .concat(),
    )
    .await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert_eq!(held(&pair, "usr_ann").await, anns);
    assert_eq!(held(&pair, "usr_bob").await, "");
}

// ---------------------------------------------------------------- what people do themselves

/// Nothing else in the batch: the short way makes the account, and must not take the person for one without keys.
#[tokio::test]
async fn who_comes_alone_gets_the_key_that_waited() {
    let pair = Pair::new().await;
    let _daemon = Daemon::start(&pair);
    pair.litellm(&key("early", "ann")).await;
    pair.settle().await;
    for user in ["ann", "bob"] {
        pair.litellm(&person(user, &format!("{user}@x.test"))).await;
        pair.settle().await;
    }
    assert_in_step(&pair).await;
    assert!(!held(&pair, "usr_ann").await.is_empty());
    assert_eq!(held(&pair, "usr_bob").await, "");
    pair.litellm(&key("late", "bob")).await;
    pair.settle().await;
    assert!(!held(&pair, "usr_bob").await.is_empty());
}

#[tokio::test]
async fn a_key_a_person_made_is_never_replaced_or_removed() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let _daemon = Daemon::start(&pair);
        pair.litellm(&people("a", 3)).await;
        pair.settle().await;
        make_own(&pair, "usr_a1", "sk-own-1").await;
        pair.litellm(&[key("1", "a1"), key("2", "a2")].concat()).await;
        pair.settle().await;
        assert_eq!(held(&pair, "usr_a1").await, "sk-own-1");
        // One of ours replaced by one of theirs.
        make_own(&pair, "usr_a2", "sk-own-2").await;
        pair.litellm(&[key("3", "a2"), rekey("1", "blocked = true")].concat()).await;
        pair.settle().await;
        assert_eq!(held(&pair, "usr_a2").await, "sk-own-2");
        pair.litellm(&[unkey("1"), unkey("2"), unkey("3")].concat()).await;
        pair.settle().await;
        assert_eq!(held(&pair, "usr_a1").await, "sk-own-1");
        assert_eq!(held(&pair, "usr_a2").await, "sk-own-2");
        assert_in_step(&pair).await;
        assert_eq!(audited(&pair, "a1").await, "");
    }
}

#[tokio::test]
async fn one_of_ours_that_was_deleted_is_not_made_again_until_the_next_litellm_key() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let mut daemon = Daemon::start(&pair);
        pair.litellm(&[people("a", 3), key("1", "a1"), key("2", "a2")].concat()).await;
        pair.settle().await;
        delete_own(&pair, "usr_a1").await;
        let foreign = Foreign { keyless: ["usr_a1".to_owned()].into(), ..Foreign::default() };
        // Neither a change, nor a rotation, nor blocking and unblocking, nor a look at everything.
        pair.litellm(&rekey("1", &format!("token = {}", token("1b")))).await;
        pair.litellm(&rekey("1b", "blocked = true")).await;
        pair.litellm(&rekey("1b", "blocked = null")).await;
        pair.litellm(&change("a1", "user_alias = 'A'")).await;
        pair.settle().await;
        daemon.terminate();
        pair.webui("update litellm_webui_sync.checkpoint set projected_with = 'another policy'").await;
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
        assert_in_step_with(&pair, &foreign).await;
        assert_eq!(held(&pair, "usr_a1").await, "");
        // Also where the next key comes before we noticed.
        delete_own(&pair, "usr_a2").await;
        pair.litellm(&[key("3", "a1"), key("4", "a2")].concat()).await;
        pair.settle().await;
        assert_in_step(&pair).await;
    }
}

#[tokio::test]
async fn an_account_that_was_deleted_and_made_anew_gets_a_key_again() {
    let pair = Pair::new().await;
    let _daemon = Daemon::start(&pair);
    pair.litellm(&[people("a", 1), key("1", "a1")].concat()).await;
    pair.settle().await;
    pair.webui("delete from auth where id = 'usr_a1'; delete from \"user\" where id = 'usr_a1'").await;
    pair.litellm(&change("a1", "user_alias = 'A'")).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert!(!held(&pair, "usr_a1").await.is_empty());
    // The same for somebody who was locked when the account was deleted, and came back later.
    pair.litellm(&change("a1", "user_email = null")).await;
    pair.settle().await;
    pair.webui("delete from auth where id = 'usr_a1'; delete from \"user\" where id = 'usr_a1'").await;
    pair.webui("delete from api_key where user_id = 'usr_a1'").await;
    pair.litellm(&change("a1", "user_alias = 'B'")).await;
    pair.settle().await;
    pair.litellm(&change("a1", "user_email = 'back@x.test'")).await;
    pair.settle().await;
    assert_in_step(&pair).await;
    assert!(!held(&pair, "usr_a1").await.is_empty());
}

#[tokio::test]
async fn whatever_people_and_litellm_do_ends_right_and_own_keys_stay() {
    for webui in BOTH {
        random_keys_end_right(webui).await;
    }
}

async fn random_keys_end_right(webui: Schema) {
    let seed = std::env::var("PROPERTY_TEST_SEED").unwrap_or_else(|_| "5".to_owned());
    let seed: u64 = seed.parse().unwrap_or_else(|_| rand::random());
    let steps: u32 =
        std::env::var("PROPERTY_TEST_STEPS").ok().and_then(|text| text.parse().ok()).unwrap_or(25);
    let mut random = StdRng::seed_from_u64(seed);
    let pair = pair_of(webui).await;
    pair.litellm(&people("a", 4)).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    // What they made themselves, and who deleted one since their newest LiteLLM key.
    let mut own: BTreeMap<String, String> = BTreeMap::new();
    let mut foreign = Foreign::default();
    let mut said = Vec::new();
    for number in 0..steps {
        let person = format!("a{}", random.random_range(1..5));
        let account = format!("usr_{person}");
        let name = format!("k{}", random.random_range(0..6));
        let sql = match random.random_range(0..12) {
            0..3 => {
                // A new one, or none: a key that exists stays as it is.
                let is_new = pair
                    .ask_litellm(&format!(
                        "select count(*) from \"LiteLLM_VerificationToken\" where token = {}",
                        token(&name)
                    ))
                    .await
                    == "0";
                if is_new {
                    foreign.keyless.remove(&account);
                    key(&name, &person)
                } else {
                    String::new()
                }
            }
            3 => unkey(&name),
            4 => rekey(&name, "blocked = not coalesce(blocked, false)"),
            5 => rekey(&name, &format!("user_id = '{person}'")),
            6 => rekey(&name, "expires = case when expires is null then timestamp '2026-01-01' end"),
            7 => rekey(&name, "team_id = case when team_id is null then 'litellm-dashboard' end"),
            8 => change(
                &person,
                "metadata = jsonb_build_object('scim_active', metadata -> 'scim_active' = 'false')",
            ),
            9 => {
                let value = format!("sk-own-{number}");
                make_own(&pair, &account, &value).await;
                own.insert(account.clone(), value);
                format!("-- {account} makes one\n")
            }
            10 => {
                delete_own(&pair, &account).await;
                own.remove(&account);
                foreign.keyless.insert(account.clone());
                format!("-- {account} deletes theirs\n")
            }
            _ => {
                daemon.kill9();
                daemon = Daemon::start(&pair);
                change(&person, &format!("user_alias = 'A{number}'"))
            }
        };
        if !sql.is_empty() {
            pair.litellm(&sql).await;
        }
        said.push(sql);
        assert_eq!(pair.settle().await, 0);
        let mut found = differences(&pair, &foreign).await;
        for (account, value) in &own {
            if held(&pair, account).await != *value {
                found.push(format!("{account} lost {value}"));
            }
        }
        assert!(
            found.is_empty(),
            "PROPERTY_TEST_SEED={seed}, {webui}, step {number}:\n{}\nafter\n{}",
            found.join("\n"),
            said.join("\n")
        );
    }
}

// ---------------------------------------------------------------- time

#[tokio::test]
async fn a_key_expires_while_we_run_and_while_we_are_down() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let mut daemon = Daemon::start(&pair);
        pair.settle().await;
        let soon = "expires = timezone('UTC', clock_timestamp()) + interval '3 s'";
        pair.litellm(&[people("a", 3), key("1", "a1"), key("2", "a2"), rekey("1", soon)].concat()).await;
        pair.settle().await;
        assert!(!held(&pair, "usr_a1").await.is_empty());
        let before = pair.applied().await;
        eventually("the key to go", || async { held(&pair, "usr_a1").await.is_empty() }).await;
        assert_eq!(pair.applied().await, before);
        assert_eq!(audited(&pair, "a1").await, "SYNC_API_KEY:SUCCESS DELETE_API_KEY:SUCCESS");
        assert!(!held(&pair, "usr_a2").await.is_empty());

        pair.litellm(&rekey("2", soon)).await;
        pair.settle().await;
        assert!(!held(&pair, "usr_a2").await.is_empty());
        daemon.kill9();
        eventually("the moment", || async {
            let sql = "select bool_and(expires < timezone('UTC', clock_timestamp())) from \"LiteLLM_VerificationToken\"";
            pair.ask_litellm(sql).await == "t"
        })
        .await;
        assert!(!held(&pair, "usr_a2").await.is_empty());
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
        assert_eq!(held(&pair, "usr_a2").await, "");
        assert_in_step(&pair).await;
        // Prolonged: usable again.
        pair.litellm(&rekey("1", "expires = null")).await;
        pair.settle().await;
        assert_in_step(&pair).await;
        assert!(!held(&pair, "usr_a1").await.is_empty());
    }
}

// ---------------------------------------------------------------- many, and what fails

#[tokio::test]
async fn thousands_are_minted_in_a_first_copy_and_in_one_transaction() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let keys = |prefix: &str| {
            format!(
                "insert into \"LiteLLM_VerificationToken\" (token, user_id, models)
                 select encode(sha256(user_id::bytea), 'hex'), user_id, '{{}}' from \"LiteLLM_UserTable\"
                  where user_id like '{prefix}%';"
            )
        };
        pair.litellm(&[people("a", 2_100), keys("a")].concat()).await;
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
        let summary =
            "select new_data ->> 'count' from litellm_webui_sync.sync_audit where operation = 'SYNC_API_KEY'";
        assert_eq!(pair.ask(summary).await, "2100");
        // More than a batch holds: the touched people are in a table.
        pair.litellm(&[people("b", 2_100), keys("b")].concat()).await;
        pair.settle().await;
        assert_in_step(&pair).await;
        let each = "select count(distinct record_id) from litellm_webui_sync.sync_audit where operation = 'SYNC_API_KEY'";
        assert_eq!(pair.ask(each).await, "2100");
        assert_eq!(api_keys(&pair).await.len(), 4_200);
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_written_is_a_dead_letter_and_keeps_nobody_from_being_locked() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let daemon = Daemon::start(&pair);
        pair.settle().await;
        let (refuse, allow) = if is_table(&pair).await {
            (
                "alter table api_key add constraint refused check (user_id <> 'usr_a7')",
                "alter table api_key drop constraint refused",
            )
        } else {
            (
                "alter table \"user\" add constraint refused check (id <> 'usr_a7' or api_key is null)",
                "alter table \"user\" drop constraint refused",
            )
        };
        pair.webui(refuse).await;
        pair.litellm(&people("a", 9)).await;
        pair.litellm(
            &(1..=9).map(|number| key(&format!("k{number}"), &format!("a{number}"))).collect::<String>(),
        )
        .await;
        assert_eq!(pair.settle().await, 1);
        assert_eq!(pair.dead_letters().await, "api_key:a7");
        assert_eq!(pair.ask("select critical from litellm_webui_sync.dead_letter").await, "f");
        assert_eq!(api_keys(&pair).await.len(), 8);
        assert_eq!(audited(&pair, "a7").await, "SYNC_API_KEY:FAILED");
        let reason = pair.ask("select reason from litellm_webui_sync.dead_letter").await;
        assert!(reason.contains("refused") && !reason.contains("sk-"), "{reason}");
        pair.litellm(
            &[change("a7", "user_alias = 'Seven'"), gone("a8"), change("a7", "user_email = 'b@x.test'")]
                .concat(),
        )
        .await;
        assert_eq!(pair.settle().await, 1);
        assert_eq!(pair.account("b@x.test").await, "usr_a7|Seven|user|active");
        assert_eq!(pair.account("a8@x.test").await, "usr_a8|a8|pending|locked");
        pair.webui(&format!("{allow}; {RETRY}")).await;
        eventually("the healing", || async { pair.dead_letters().await.is_empty() }).await;
        assert_in_step(&pair).await;
        daemon.ready().await;
    }
}

#[tokio::test]
async fn a_key_that_should_be_gone_and_cannot_be_removed_is_critical() {
    let pair = Pair::new().await;
    let daemon = Daemon::start(&pair);
    pair.litellm(&[people("a", 2), key("1", "a1"), key("2", "a2")].concat()).await;
    pair.settle().await;
    pair.webui(
        "create function refuse() returns trigger language plpgsql as
             $$ begin if old.user_id = 'usr_a1' then raise 'no'; end if; return old; end $$;
         create trigger refuse before delete on api_key for each row execute function refuse()",
    )
    .await;
    pair.litellm(&[unkey("1"), unkey("2")].concat()).await;
    assert_eq!(pair.settle().await, 1);
    assert_eq!(held(&pair, "usr_a2").await, "");
    assert_eq!(pair.ask("select kind || critical from litellm_webui_sync.dead_letter").await, "api_keytrue");
    eventually("readiness to end", || async { daemon.get("/readyz").0 == 503 }).await;
    pair.webui(&format!("drop trigger refuse on api_key; {RETRY}")).await;
    eventually("the healing", || async { pair.dead_letters().await.is_empty() }).await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_key_table_that_is_wiped_is_held_by_the_brake() {
    let pair = Pair::new().await;
    let _daemon = Daemon::start(&pair);
    let keys: String = (1..=30).map(|number| key(&format!("k{number}"), &format!("a{number}"))).collect();
    pair.litellm(&[people("a", 40), keys].concat()).await;
    pair.settle().await;
    let before = api_keys(&pair).await;
    assert_eq!(before.len(), 30);
    pair.litellm("truncate \"LiteLLM_VerificationToken\" cascade").await;
    let waited = pair.wait().await;
    assert!(matches!(&waited, Waited::Failed { reason } if reason.contains("approve")), "{waited:?}");
    assert_eq!(api_keys(&pair).await, before);
}

#[tokio::test]
async fn people_who_lose_different_things_at_once_count_together_and_each_once() {
    let pair = Pair::new().await;
    let _daemon = Daemon::start(&pair);
    let keys: String = (1..=16).map(|number| key(&format!("k{number}"), &format!("a{number}"))).collect();
    let members: Vec<String> = (9..=24).map(|number| format!("a{number}")).collect();
    let members: Vec<&str> = members.iter().map(String::as_str).collect();
    pair.litellm(&[people("a", 24), keys, team("t", "Team", None, &members)].concat()).await;
    pair.settle().await;
    // Sixteen lose a key, sixteen their only group, eight of them both: fewer than twenty of either kind, and than thirty-two.
    let lost: String = (1..=16).map(|number| unkey(&format!("k{number}"))).collect();
    pair.litellm(&format!("{lost} update \"LiteLLM_TeamTable\" set members_with_roles = '[]'")).await;
    let waited = pair.wait().await;
    assert!(matches!(&waited, Waited::Failed { reason } if reason.contains("approve")), "{waited:?}");
    assert_eq!(pair.ask("select people from litellm_webui_sync.brake").await, "24");
    assert_eq!(api_keys(&pair).await.len(), 16);
}

// ---------------------------------------------------------------- secrets, policy

#[tokio::test]
async fn the_value_of_a_key_is_in_open_webuis_row_and_nowhere_else() {
    for webui in BOTH {
        let pair = pair_of(webui).await;
        let options =
            DaemonOptions { environment: vec![("RUST_LOG", "trace".to_owned())], ..DaemonOptions::default() };
        let daemon = Daemon::with(&pair, &options);
        pair.litellm(&[people("a", 3), key("1", "a1"), key("2", "a2")].concat()).await;
        pair.settle().await;
        let values: Vec<String> = api_keys(&pair).await.into_iter().map(|(_, value)| value).collect();
        assert_eq!(values.len(), 2);
        pair.litellm(&unkey("2")).await;
        pair.settle().await;
        let pages = ["/metrics", "/readyz", "/"].map(|path| daemon.get(path).1).concat();
        let ours = "select oid::regclass::text from pg_class
                     where relkind = 'r' and relnamespace = 'litellm_webui_sync'::regnamespace";
        let tables = rows(&pair.target, ours).await;
        assert!(!daemon.log().contains("with parameters"), "no level says what is sent");
        for value in values {
            let secret = value.trim_start_matches("sk-");
            assert!(!daemon.log().contains(secret) && !pages.contains(secret));
            for table in &tables {
                let table = table[0].as_deref().unwrap();
                let sql = format!("select 1 from {table} t where t::text like '%{secret}%'");
                assert!(rows(&pair.target, &sql).await.is_empty(), "{table}");
            }
        }
    }
}

#[tokio::test]
async fn policy_off_leaves_keys_alone_and_mint_catches_up() {
    let pair = Pair::new().await;
    let off = DaemonOptions { policy: Some("api_keys = \"off\"\n".to_owned()), ..DaemonOptions::default() };
    let mut daemon = Daemon::with(&pair, &off);
    pair.litellm(&[people("a", 3), key("1", "a1"), key("2", "a2")].concat()).await;
    pair.settle().await;
    assert!(api_keys(&pair).await.is_empty());
    daemon.terminate();
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    let before = api_keys(&pair).await;
    assert_eq!(before.len(), 2);
    daemon.terminate();
    let mut daemon = Daemon::with(&pair, &off);
    pair.litellm(&[unkey("1"), key("3", "a3")].concat()).await;
    pair.settle().await;
    assert_eq!(api_keys(&pair).await, before);
    daemon.terminate();
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn a_server_that_logs_every_statement_logs_no_key() {
    for webui in BOTH {
        let cluster = Cluster::start(ClusterOptions::default()).unwrap();
        cluster.configure(&[("log_min_duration_statement", "0")]).unwrap();
        let pair = Pair::on(&cluster, &cluster, PairOptions { webui, ..PairOptions::default() }).await;
        pair.litellm(&[people("a", 2), key("1", "a1"), key("2", "a2")].concat()).await;
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
        let mine = held(&pair, "usr_a1").await;
        assert!(mine.starts_with("sk-") && mine.len() == 67, "{mine}");
        assert_ne!(mine, held(&pair, "usr_a2").await);
        let log = cluster.log();
        assert!(log.contains("duration:") && !log.contains(&mine), "{webui}");
    }
}

/// What the mirror has of keys, and what LiteLLM has: whose, and for which models.
async fn assert_mirrored(pair: &Pair, what: &str) {
    pair.settle().await;
    let of = |table: &str| {
        format!("select string_agg(user_id || models::text, ' ' order by user_id collate \"C\") from {table}")
    };
    let mirrored = pair.ask(&of("litellm_webui_sync.litellm_key")).await;
    assert_eq!(mirrored, pair.ask_litellm(&of("\"LiteLLM_VerificationToken\"")).await, "{what}");
    assert_in_step(pair).await;
}

/// Very old rows hold the key itself, and nothing forbids a row that holds its hash beside them.
#[tokio::test]
async fn a_key_in_the_clear_beside_its_own_hash_is_another_row_whatever_comes_first() {
    let pair = Pair::new().await;
    let clear = "'sk-both'";
    let hashed = token("sk-both");
    let insert = |token: &str, user: &str| {
        format!(
            "insert into \"LiteLLM_VerificationToken\" (token, user_id, models) values ({token}, '{user}', '{{m-{user}}}');"
        )
    };
    let change = |token: &str, set: &str| {
        format!("update \"LiteLLM_VerificationToken\" set {set} where token = {token};")
    };
    let delete = |token: &str| format!("delete from \"LiteLLM_VerificationToken\" where token = {token};");
    pair.litellm(&[people("a", 2), insert(clear, "a1"), insert(&hashed, "a2")].concat()).await;
    let mut daemon = Daemon::start(&pair);
    assert_mirrored(&pair, "copied").await;
    for (first, second) in [(clear, hashed.as_str()), (&hashed, clear)] {
        for (what, steps) in [
            ("changed", vec![change(first, "models = '{x}'"), change(second, "models = '{y}'")]),
            ("blocked", vec![change(first, "blocked = true"), change(second, "blocked = false")]),
            ("deleted", vec![delete(first)]),
            ("there again", vec![insert(first, "a1")]),
            ("the other deleted", vec![delete(second)]),
            (
                "moved to where the other was",
                vec![change(first, &format!("token = {second}, models = '{{z}}'"))],
            ),
            ("beside it again", vec![insert(first, "a2")]),
            (
                "all deleted and made again",
                vec![delete(first), delete(second), insert(second, "a2"), insert(first, "a1")],
            ),
        ] {
            let last = steps.len() - 1;
            for (number, step) in steps.iter().enumerate() {
                pair.litellm(step).await;
                if number == last || number % 2 == 0 {
                    assert_mirrored(&pair, &format!("{what}, {first} first")).await;
                }
            }
        }
        // All of it at once.
        let steps = [
            delete(first),
            change(second, "models = '{w}'"),
            insert(first, "a2"),
            delete(second),
            insert(second, "a1"),
        ];
        pair.litellm(&steps.concat()).await;
        assert_mirrored(&pair, &format!("in one transaction, {first} first")).await;
    }
    // Copied with the other one first.
    pair.litellm(&[delete(clear), delete(&hashed), insert(&hashed, "a1"), insert(clear, "a2")].concat())
        .await;
    daemon.terminate();
    pair.webui("update litellm_webui_sync.checkpoint set copy_because = 'the other order'").await;
    let _daemon = Daemon::start(&pair);
    assert_mirrored(&pair, "copied again").await;
}
