//! `access.budgets = "enforce"`: a used-up budget closes what it is for, with the batch that crossed its limit, and opens it again.

use std::fmt::Write as _;

use litellm_webui_sync::failpoint;
use litellm_webui_sync::observe::status::Waited;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::churn::reference;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::models::{differences_with_budgets, visible};
use crate::support::{
    Daemon, Pair, change, eventually, key, organization, people, person, rekey, rows, team, token,
};

const ENFORCE: &str = "[access]\nbudgets = \"enforce\"\n[grants]\ngroup_min = 2\n";

fn enforcing() -> DaemonOptions {
    with(ENFORCE)
}

fn with(policy: &str) -> DaemonOptions {
    DaemonOptions { policy: Some(policy.to_owned()), ..DaemonOptions::default() }
}

fn models() -> String {
    "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, created_by, updated_by)
     values ('m1', 'gpt-4', '{}', '', ''), ('m2', 'claude-3', '{}', '', '');"
        .to_owned()
}

/// People of every kind of budget: alone, in a team, in an organization, with keys.
fn company() -> String {
    [
        models(),
        person("ann", "ann@x.test"),
        person("bob", "bob@x.test"),
        person("cid", "cid@x.test"),
        person("dan", "dan@x.test"),
        person("eve", "eve@x.test"),
        person("fay", "fay@x.test"),
        organization("o", "O"),
        team("t", "T", None, &["bob", "cid"]),
        team("u", "U", Some("o"), &["dan"]),
        key("k", "eve"),
        key("kt", "cid"),
        rekey("kt", "team_id = 't'"),
        "insert into \"LiteLLM_BudgetTable\" (budget_id, max_budget, created_by, updated_by) values ('b', 5, '', '');
         insert into \"LiteLLM_TeamMembership\" (user_id, team_id, budget_id) values ('bob', 't', 'b'), ('cid', 't', null);
         update \"LiteLLM_UserTable\" set max_budget = 10;
         update \"LiteLLM_TeamTable\" set max_budget = 100;
         update \"LiteLLM_BudgetTable\" set max_budget = 50 where budget_id = 'b-o';
         update \"LiteLLM_VerificationToken\" set max_budget = 7;"
            .to_owned(),
    ]
    .concat()
}

async fn sees(pair: &Pair, account: &str) -> usize {
    visible(pair).await.get(account).map_or(0, std::collections::BTreeSet::len)
}

async fn assert_right(pair: &Pair, when: &str) {
    let found = differences_with_budgets(pair, &[]).await;
    assert!(found.is_empty(), "{when}: {}", found.join("\n"));
}

/// What was crossed, in the order of its batches.
async fn crossed(pair: &Pair) -> Vec<String> {
    let sql = "select operation || ' ' || (coalesce(new_data, old_data) ->> 'kind') || ' ' || record_id
                 from litellm_webui_sync.sync_audit where operation like 'BUDGET%' order by id";
    rows(&pair.target, sql).await.into_iter().map(|row| row[0].clone().unwrap()).collect()
}

fn flush(table: &str, spend: &str, which: &str) -> String {
    format!("update \"LiteLLM_{table}\" set spend = {spend} where {which};")
}

#[tokio::test]
async fn each_kind_closes_when_it_is_used_up_and_opens_when_it_is_not() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    let daemon = Daemon::with(&pair, &enforcing());
    assert_eq!(pair.settle().await, 0);
    for account in ["ann", "bob", "cid", "dan", "eve", "fay"] {
        assert_eq!(sees(&pair, &format!("usr_{account}")).await, 2, "{account}");
    }
    let cases: &[(&str, &str, &str, &[f64], &str)] = &[
        // table, which, account, spends of which the last closes, what is said
        ("UserTable", "user_id = 'ann'", "usr_ann", &[9.99, 10.0], "user ann"),
        ("TeamMembership", "user_id = 'bob'", "usr_bob", &[4.0, 5.0], "team_member t/bob"),
        ("TeamTable", "team_id = 't'", "usr_cid", &[100.0, 100.01], "team t"),
        ("OrganizationTable", "organization_id = 'o'", "usr_dan", &[49.0, 50.0], "organization o"),
        ("VerificationToken", &format!("token = {}", token("k")), "usr_eve", &[6.9, 7.1], ""),
    ];
    let mut said = Vec::new();
    for (table, which, account, spends, what) in cases {
        for (place, spend) in spends.iter().enumerate() {
            pair.litellm(&flush(table, &spend.to_string(), which)).await;
            pair.settle().await;
            let is_last = place + 1 == spends.len();
            assert_eq!(sees(&pair, account).await, if is_last { 0 } else { 2 }, "{account} at {spend}");
        }
        assert_right(&pair, account).await;
        said.push(format!("BUDGET_CLOSED {what}"));
    }
    let short = pair
        .ask_litellm(&format!("select left(encode(sha256(convert_to({}, 'UTF8')), 'hex'), 12)", token("k")))
        .await;
    *said.last_mut().unwrap() = format!("BUDGET_CLOSED key {short}");
    assert_eq!(crossed(&pair).await, said);
    assert_eq!(sees(&pair, "usr_fay").await, 2);
    eventually("the count", || async { daemon.metric("budget_closed_people") == 5.0 }).await;
    assert!(
        daemon.get("/metrics").1.contains("budget_crossings_total{direction=\"closed\",kind=\"team\"} 1")
    );

    // By a reset, a raised limit, a limit taken away, a lowered spend, a deleted row.
    pair.litellm(&flush("UserTable", "0", "user_id = 'ann'")).await;
    pair.litellm("update \"LiteLLM_BudgetTable\" set max_budget = 6 where budget_id = 'b'").await;
    pair.litellm("update \"LiteLLM_TeamTable\" set max_budget = 'Infinity' where team_id = 't'").await;
    pair.litellm("update \"LiteLLM_BudgetTable\" set max_budget = null where budget_id = 'b-o'").await;
    pair.litellm(&crate::support::unkey("k")).await;
    pair.settle().await;
    assert_right(&pair, "afterwards").await;
    for account in ["ann", "bob", "cid", "dan", "eve", "fay"] {
        assert_eq!(sees(&pair, &format!("usr_{account}")).await, 2, "{account}");
    }
    assert_eq!(crossed(&pair).await.len(), 10);
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.budget_closed").await, "0");

    // 0 is a limit, not a number is none.
    pair.litellm(&(change("ann", "max_budget = 0") + &change("fay", "max_budget = 'NaN', spend = 1e6")))
        .await;
    pair.settle().await;
    assert_eq!((sees(&pair, "usr_ann").await, sees(&pair, "usr_fay").await), (0, 2));
    assert_right(&pair, "at a limit of nothing").await;
}

#[tokio::test]
async fn one_crossing_writes_one_person_and_a_flush_that_crosses_nothing_writes_nothing() {
    let pair = Pair::new().await;
    pair.litellm(&(models() + &people("p", 30) + "update \"LiteLLM_UserTable\" set max_budget = 10")).await;
    let _daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    let tables = "select string_agg(format('select %L as name, count(*) as rows, count(*) filter (where xmin::text::bigint > %%s) as new from %s',
                                          c.relname, c.oid::regclass), ' union all ')
                    from pg_class c
                   where c.relkind = 'r' and c.relname not in ('checkpoint', 'heartbeat', 'daemon', 'verify_schedule')
                     and c.relnamespace in ('public'::regnamespace, 'litellm_webui_sync'::regnamespace)";
    let tables = pair.ask(tables).await;
    let mark = async || pair.ask("select txid_current()").await;
    // Table, rows it has more, and rows written since.
    let written = async |since: &str, had: &[Vec<Option<String>>]| -> Vec<String> {
        let sql = format!(
            "select name, rows::text, new::text from ({}) every order by name",
            tables.replace("%s", since)
        );
        let mut found = Vec::new();
        for (row, had) in rows(&pair.target, &sql).await.iter().zip(had) {
            let number = |row: &[Option<String>], place: usize| -> i64 {
                row[place].as_ref().unwrap().parse().unwrap()
            };
            let (more, new) = (number(row, 1) - number(had, 1), number(row, 2));
            if (more, new) != (0, 0) {
                found.push(format!("{} {more:+} {new}", row[0].as_ref().unwrap()));
            }
        }
        found
    };
    let counted = async || {
        let sql = format!("select name, rows::text from ({}) every order by name", tables.replace("%s", "0"));
        rows(&pair.target, &sql).await
    };
    let (since, had) = (mark().await, counted().await);
    pair.litellm("update \"LiteLLM_UserTable\" set spend = spend + 1, updated_at = now()").await;
    pair.settle().await;
    assert_eq!(written(&since, &had).await, [""; 0]);
    pair.litellm("update \"LiteLLM_UserTable\" set spend = spend + case user_id when 'p7' then 9 else 1 end")
        .await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_p7").await, 0);
    assert_eq!(
        written(&since, &had).await,
        [
            "access_member -1 0",
            "budget_closed +1 1",
            "effective_access -1 0",
            "group_member -1 0",
            "model_set +0 1",
            "sync_audit +2 2"
        ]
    );
}

#[tokio::test]
async fn what_happens_while_no_daemon_runs_counts_at_the_next_start() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    let mut daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    pair.litellm(&flush("UserTable", "10", "user_id = 'ann'")).await;
    pair.settle().await;
    daemon.kill9();
    pair.litellm(&flush("UserTable", "0", "user_id = 'ann'")).await;
    pair.litellm(&flush("UserTable", "11", "user_id = 'fay'")).await;
    pair.litellm(&flush("TeamMembership", "5", "user_id = 'bob'")).await;
    let mut daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    assert_right(&pair, "after a restart").await;
    assert_eq!(
        (sees(&pair, "usr_ann").await, sees(&pair, "usr_fay").await, sees(&pair, "usr_bob").await),
        (2, 0, 0)
    );
    let closed = "select string_agg(kind || id, ' ' order by id) from litellm_webui_sync.budget_closed";
    let before = (pair.ask(closed).await, crossed(&pair).await);
    // Nothing new: nothing is said again.
    daemon.kill9();
    let mut daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    assert_eq!((pair.ask(closed).await, crossed(&pair).await), before);
    assert_eq!(run(&pair, &["verify"]).0, 0);
    // Without the policy, all is open.
    daemon.terminate();
    let _daemon = Daemon::with(&pair, &with("[grants]\ngroup_min = 2\n"));
    pair.settle().await;
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.budget_closed").await, "0");
    assert_eq!((sees(&pair, "usr_fay").await, sees(&pair, "usr_bob").await), (2, 2));
}

#[tokio::test]
async fn increases_end_by_themselves_and_windows_are_limits_of_their_own() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    pair.litellm(
        &(rekey(
            "k",
            "spend = 8, metadata = jsonb_build_object('temp_budget_increase', 5, 'temp_budget_expiry', (now() + interval '6 s')::text)",
        ) + "update \"LiteLLM_BudgetTable\" set temp_budget_increase = 5, temp_budget_expiry = timezone('UTC', now()) + interval '6 s'
              where budget_id = 'b';"
            + &flush("TeamMembership", "6", "user_id = 'bob'")),
    )
    .await;
    let _daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    assert_eq!((sees(&pair, "usr_eve").await, sees(&pair, "usr_bob").await), (2, 2));
    eventually("the end of the increases", || async {
        (sees(&pair, "usr_eve").await, sees(&pair, "usr_bob").await) == (0, 0)
    })
    .await;
    assert_right(&pair, "after the increases").await;

    let limits = "jsonb_build_array(jsonb_build_object('budget_duration', '1d', 'max_budget', 2, 'reset_at', '2030-01-02T00:00:00+00:00'),
                                    jsonb_build_object('budget_duration', '7d', 'max_budget', 9, 'reset_at', '2030-01-04T00:00:00+00:00'))";
    pair.litellm(&format!("update \"LiteLLM_TeamTable\" set budget_limits = {limits} where team_id = 'u'"))
        .await;
    let spent = |duration: &str, start: &str, spend: f64| {
        format!(
            "insert into \"LiteLLM_BudgetWindowSpend\" (entity_type, entity_id, window_duration, window_start, spend, created_at, updated_at)
             values ('team', 'u', '{duration}', '{start}', {spend}, now(), now())
             on conflict (entity_type, entity_id, window_duration) do update set window_start = excluded.window_start, spend = excluded.spend;"
        )
    };
    for (sql, expected, when) in [
        (spent("1d", "2030-01-01 00:00:00", 1.9), 2, "below"),
        (spent("1d", "2030-01-01 00:00:00", 2.0), 0, "reached"),
        (spent("1d", "2029-12-31 00:00:00", 2.0), 2, "of the day before"),
        (spent("7d", "2029-12-28 00:00:00", 9.5), 0, "the other one"),
        (
            "update \"LiteLLM_TeamTable\" set budget_limits = null where team_id = 'u';".to_owned(),
            2,
            "none any more",
        ),
    ] {
        pair.litellm(&sql).await;
        pair.settle().await;
        assert_eq!(sees(&pair, "usr_dan").await, expected, "{when}");
        assert_right(&pair, when).await;
    }
}

#[tokio::test]
async fn many_at_once_are_held_and_few_at_a_time_never() {
    let pair = Pair::new().await;
    pair.litellm(&(models() + &people("p", 60) + "update \"LiteLLM_UserTable\" set max_budget = 10")).await;
    let daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    for part in 0..3 {
        // Twenty at a time is what is usual.
        let which = format!("substr(user_id, 2)::int between {} and {}", part * 13 + 1, part * 13 + 13);
        pair.litellm(&flush("UserTable", "10", &which)).await;
        pair.settle().await;
    }
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.budget_closed").await, "39");
    pair.litellm(&flush("UserTable", "0", "true")).await;
    pair.settle().await;
    assert_right(&pair, "all open").await;
    pair.litellm(&change_all("max_budget = 0")).await;
    let Waited::Failed { reason } = pair.wait().await else { panic!("it passed") };
    assert!(reason.contains("approve"), "{reason}");
    assert_eq!(sees(&pair, "usr_p1").await, 2);
    eventually("readiness to end", || async { daemon.get("/readyz").0 == 503 }).await;
    let (_, why) = daemon.get("/readyz");
    assert!(why.contains("60 of 60"), "{why}");
    // Repaired in LiteLLM, it goes on by itself.
    pair.litellm(&change_all("max_budget = 10")).await;
    crate::support::within(std::time::Duration::from_secs(60), "the repaired batch", || async {
        daemon.get("/readyz").0 == 200
    })
    .await;
    pair.settle().await;
    assert_right(&pair, "after the repair").await;
    assert_eq!(sees(&pair, "usr_p1").await, 2);
}

fn change_all(set: &str) -> String {
    format!("update \"LiteLLM_UserTable\" set {set};")
}

/// Random spending, resets and limits, deaths in between; after each settling the oracle agrees.
#[tokio::test]
async fn histories_with_spending_end_right_whatever_dies_in_between() {
    let mut random = StdRng::seed_from_u64(11);
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    reference::begin(&pair).await;
    let points = [
        failpoint::STAGED_NOT_PROJECTED,
        failpoint::PROJECTED_NOT_COMMITTED,
        failpoint::COMMITTED_NOT_ACKNOWLEDGED,
    ];
    for round in 0..8_usize {
        let failpoints = (cfg!(feature = "failpoints") && round % 2 == 0).then(|| {
            format!("{}={}*off->panic", points[round / 2 % points.len()], random.random_range(0..4))
        });
        let mut victim = Daemon::with(&pair, &DaemonOptions { failpoints, ..enforcing() });
        for _ in 0..10 {
            let mut sql = String::new();
            for _ in 0..random.random_range(1..4) {
                let user = *["ann", "bob", "cid", "dan", "eve", "fay"].choose(&mut random).unwrap();
                let amount = random.random_range(0..14);
                let _ = match random.random_range(0..8) {
                    0 => write!(
                        sql,
                        "{}",
                        flush("UserTable", &format!("{amount}"), &format!("user_id = '{user}'"))
                    ),
                    1 => write!(sql, "{}", flush("TeamTable", &format!("{}", amount * 10), "true")),
                    2 => write!(
                        sql,
                        "{}",
                        flush("TeamMembership", &format!("{amount}"), &format!("user_id = '{user}'"))
                    ),
                    3 => write!(sql, "{}", flush("OrganizationTable", &format!("{}", amount * 5), "true")),
                    4 => write!(
                        sql,
                        "{}",
                        flush("VerificationToken", &format!("{amount}"), &format!("user_id = '{user}'"))
                    ),
                    5 => write!(
                        sql,
                        "update \"LiteLLM_BudgetTable\" set max_budget = {amount} where budget_id = 'b';"
                    ),
                    6 => write!(
                        sql,
                        "update \"LiteLLM_TeamTable\" set metadata = '{{\"team_member_budget_id\": \"{}\"}}' where team_id = 't';",
                        if amount < 7 { "b" } else { "none" }
                    ),
                    _ => write!(
                        sql,
                        "{}",
                        change(
                            user,
                            &format!(
                                "max_budget = {}",
                                ["0", "5", "10", "null", "'NaN'"].choose(&mut random).unwrap()
                            )
                        )
                    ),
                };
            }
            pair.litellm(&sql).await;
            if !victim.is_running() {
                break;
            }
            if random.random_bool(0.3) {
                tokio::time::sleep(std::time::Duration::from_millis(30)).await;
            }
        }
        victim.kill9();
        let mut daemon = Daemon::with(&pair, &enforcing());
        assert_eq!(pair.settle().await, 0);
        assert_right(&pair, &format!("round {round}")).await;
        daemon.kill9();
    }
    let _daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    reference::assert_exactly_once(&pair).await;
    assert_eq!(run(&pair, &["verify"]).0, 0);
    // What was closed was opened before it was closed again.
    let sql = "select count(*) from (select operation, lag(operation) over (partition by record_id, coalesce(new_data, old_data) ->> 'kind' order by id) as before
                                       from litellm_webui_sync.sync_audit where operation like 'BUDGET%') one where operation = before";
    assert_eq!(pair.ask(sql).await, "0");
}

const CHATS: &str =
    "[access]\nbudgets = \"enforce\"\n[budgets]\nchats = \"customer\"\n[grants]\ngroup_min = 2\n";

/// A spend flush of people's chats: LiteLLM makes the row at the first.
fn chats(email: &str, spend: f64) -> String {
    format!(
        "insert into \"LiteLLM_EndUserTable\" (user_id, spend) values ('{email}', {spend})
         on conflict (user_id) do update set spend = excluded.spend;"
    )
}

/// LiteLLM's reset of users: their rows only.
fn reset(user: &str, resets_at: &str) -> String {
    change(user, &format!("spend = 0, budget_reset_at = '{resets_at}'"))
}

/// An account that was there before its person was in LiteLLM.
fn account(id: &str, email: &str) -> String {
    format!(
        "insert into \"user\" (id, name, email, role, profile_image_url, last_active_at, updated_at, created_at, settings, info)
         values ('{id}', 'Own', '{email}', 'user', '/user.png', 1, 1, 1, null, null);
         insert into auth (id, email, password, active) values ('{id}', '{email}', '', true);"
    )
}

#[tokio::test]
async fn what_people_spend_by_chatting_counts_in_the_window_of_their_own_budget() {
    let pair = Pair::new().await;
    pair.webui(&account("own-1", "Bob@X.test")).await;
    pair.litellm(
        &[
            models(),
            person("ann", "ann@x.test"),
            person("bob", "bob@x.test"),
            "update \"LiteLLM_UserTable\" set max_budget = 10, budget_duration = '30d', budget_reset_at = '2026-01-31';".to_owned(),
            chats("ann@x.test", 4.0),
            chats("somebody-else", 1000.0),
        ]
        .concat(),
    )
    .await;
    let mut daemon = Daemon::with(&pair, &with(CHATS));
    assert_eq!(pair.settle().await, 0);
    let seen = async || (sees(&pair, "usr_ann").await, sees(&pair, "own-1").await);
    assert_eq!(seen().await, (2, 2));
    // Both parts together; in whatever case Open WebUI sends the e-mail.
    pair.litellm(&(chats("ann@x.test", 9.0) + &chats("Bob@X.test", 9.0) + &chats("bob@x.test", 1.5))).await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 0));
    pair.litellm(&change("ann", "spend = 1")).await;
    pair.settle().await;
    assert_eq!(seen().await, (0, 0));
    let policy = std::env::temp_dir().join(format!("it-{}-chats.toml", std::process::id()));
    std::fs::write(&policy, CHATS).unwrap();
    let (code, out, _) =
        run(&pair, &["--config", policy.to_str().unwrap(), "budgets", "--json", "--kind", "user"]);
    std::fs::remove_file(&policy).unwrap();
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, report["budgets"][0]["spend_usd"].as_f64().unwrap()), (0, 10.5));
    eventually("the metric", || async { daemon.get("/metrics").1.contains("kind=\"customer\"") }).await;

    // LiteLLM resets the users, and never the customers.
    pair.litellm(&(reset("ann", "2026-03-01") + &reset("bob", "2026-03-01"))).await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 2));
    pair.litellm(&chats("ann@x.test", 18.9)).await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 2), "9.9 since the reset");
    pair.litellm(&chats("ann@x.test", 19.0)).await;
    pair.settle().await;
    assert_eq!(seen().await, (0, 2));

    // The reset, and spending before and after it, while no daemon runs: in the order in which it happened.
    daemon.kill9();
    pair.litellm(&chats("ann@x.test", 21.0)).await;
    pair.litellm(&chats("bob@x.test", 8.0)).await;
    pair.litellm(&(reset("ann", "2026-04-01") + &reset("bob", "2026-04-01"))).await;
    pair.litellm(&chats("ann@x.test", 30.9)).await;
    pair.litellm(&chats("bob@x.test", 18.0)).await;
    let mut daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    assert_eq!(seen().await, (2, 0), "9.9 and 10 since the reset");
    assert_eq!(run(&pair, &["verify"]).0, 0);

    // An admin moves the end of a window that goes on: nothing is forgiven.
    pair.litellm(&change("bob", "budget_duration = '60d', budget_reset_at = '2035-01-01'")).await;
    pair.litellm(&change("ann", "budget_reset_at = '2034-01-01'")).await;
    pair.settle().await;
    let before = seen().await;
    pair.litellm(&change("bob", "budget_reset_at = '2036-01-01'")).await;
    pair.settle().await;
    assert_eq!(seen().await, before);

    // The row of a customer who is deleted and comes back begins at nothing.
    pair.litellm("delete from \"LiteLLM_EndUserTable\"").await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 2));
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.chat_spend").await, "0");
    pair.litellm(&chats("ann@x.test", 10.0)).await;
    pair.settle().await;
    assert_eq!(seen().await, (0, 2));

    // A customer of their own limit, or blocked, is refused by LiteLLM itself.
    pair.litellm(
        "insert into \"LiteLLM_BudgetTable\" (budget_id, max_budget, created_by, updated_by) values ('c', 3, '', '');
         update \"LiteLLM_EndUserTable\" set spend = 2, budget_id = 'c'",
    )
    .await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 2));
    pair.litellm("update \"LiteLLM_BudgetTable\" set max_budget = 1 where budget_id = 'c'").await;
    pair.settle().await;
    assert_eq!(seen().await, (0, 2));
    // LiteLLM resets customers with a budget, too: what was spent before that still counts for the user, in the window of the user.
    pair.litellm("update \"LiteLLM_BudgetTable\" set max_budget = 1000 where budget_id = 'c'").await;
    pair.litellm("update \"LiteLLM_EndUserTable\" set spend = 9").await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 2));
    pair.litellm("update \"LiteLLM_EndUserTable\" set spend = 0").await;
    pair.litellm("update \"LiteLLM_EndUserTable\" set spend = 0.9").await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 2), "9.9 in the window");
    pair.litellm("update \"LiteLLM_EndUserTable\" set spend = 1").await;
    pair.settle().await;
    assert_eq!(seen().await, (0, 2));
    pair.litellm("update \"LiteLLM_EndUserTable\" set spend = 0, budget_id = null").await;
    pair.litellm(
        "insert into \"LiteLLM_EndUserTable\" (user_id, spend, blocked) values ('BOB@x.test', 0, true)",
    )
    .await;
    pair.settle().await;
    assert_eq!(seen().await, (2, 0));

    // No longer counted, all is open.
    daemon.terminate();
    let _daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    assert_eq!(seen().await, (2, 2));
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.chat_spend").await, "0");
}

/// What was spent in a window, told by summing up what every flush added since its reset.
#[tokio::test]
async fn chats_are_counted_exactly_once_whatever_dies_in_between() {
    let mut random = StdRng::seed_from_u64(5);
    let pair = Pair::new().await;
    let names = ["ann", "bob", "cid"];
    let mut sql = models();
    for name in names {
        sql += &person(name, &format!("{name}@x.test"));
    }
    sql += "update \"LiteLLM_UserTable\" set max_budget = 1000000, budget_reset_at = '2026-01-01';";
    pair.litellm(&sql).await;
    let points = [
        failpoint::STAGED_NOT_PROJECTED,
        failpoint::PROJECTED_NOT_COMMITTED,
        failpoint::COMMITTED_NOT_ACKNOWLEDGED,
    ];
    // At the first sight of a customer, whatever they ever spent counts.
    let mut first = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    eventually("the windows", || async {
        pair.ask("select count(*) from litellm_webui_sync.chat_window").await == "3"
    })
    .await;
    first.terminate();
    let mut total = [0_i64; 3];
    let mut window = [0_i64; 3];
    let mut month = 0;
    for round in 0..9_usize {
        let failpoints = (cfg!(feature = "failpoints") && round % 2 == 0).then(|| {
            format!("{}={}*off->panic", points[round / 2 % points.len()], random.random_range(0..6))
        });
        let mut victim = Daemon::with(&pair, &DaemonOptions { failpoints, ..with(CHATS) });
        for step in 0..12 {
            if step == 6 && round % 3 == 0 {
                victim.kill9();
            }
            let which = random.random_range(0..3);
            if random.random_bool(0.3) {
                // What says nothing of a window, and is sent again all the same.
                let set = ["user_alias = coalesce(user_alias, '') || 'x'", "spend = spend + 1"];
                pair.litellm(&change(names[which], set.choose(&mut random).unwrap())).await;
            }
            if random.random_bool(0.15) {
                // The daemon goes on with what it knows.
                pair.ask(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like 'litellm-webui-sync%'",
                )
                .await;
            }
            if random.random_bool(0.25) {
                month += 1;
                window[which] = 0;
                let at = format!("{}-{:02}-01", 2010 + month / 12, month % 12 + 1);
                // However far back: what ended is told by the moment that was there before.
                pair.litellm(&change(
                    names[which],
                    &format!(
                        "spend = 0, budget_reset_at = greatest(budget_reset_at + interval '1 hour', '{at}')"
                    ),
                ))
                .await;
            } else {
                let more = random.random_range(1..100);
                total[which] += more;
                window[which] += more;
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                pair.litellm(&chats(&format!("{}@x.test", names[which]), total[which] as f64)).await;
            }
        }
        victim.kill9();
        let mut daemon = Daemon::with(&pair, &with(CHATS));
        assert_eq!(pair.settle().await, 0);
        // What was read ahead of the stream is stored once the stream is there.
        pair.settle().await;
        for (place, name) in names.iter().enumerate() {
            let sql = format!(
                "select coalesce(sum(spend - counted_from), 0)::bigint from litellm_webui_sync.chat_spend where customer_id = '{name}@x.test'"
            );
            assert_eq!(pair.ask(&sql).await, window[place].to_string(), "{name} in round {round}");
        }
        daemon.kill9();
    }
}

#[tokio::test]
async fn new_accounts_get_litellms_ids_where_it_is_to_know_whose_chats_it_answers() {
    const PLAIN: &str =
        "[accounts]\nid = \"plain\"\n[access]\nbudgets = \"enforce\"\n[budgets]\nchats = \"user\"\n";
    let pair = Pair::new().await;
    pair.webui(&account("taken", "other@x.test")).await;
    pair.litellm(
        &(models() + &person("ann", "ann@x.test") + "update \"LiteLLM_UserTable\" set max_budget = 1;"),
    )
    .await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    pair.litellm(&people("p", 12)).await;
    let _daemon = Daemon::with(&pair, &with(PLAIN));
    let more = [("bob", "bob"), ("x/y", "odd"), ("usr_z", "zed"), ("taken", "taken"), ("h_q", "hq")];
    for (id, name) in more {
        pair.litellm(&person(id, &format!("{name}@x.test"))).await;
        pair.settle().await;
    }
    let id = async |email: &str| {
        pair.ask(&format!("select coalesce((select id from \"user\" where email = '{email}@x.test'), '')"))
            .await
    };
    // Whoever has an account keeps it.
    for (email, expected) in
        [("ann", "usr_ann"), ("p7", "p7"), ("bob", "bob"), ("zed", "usr_usr_z"), ("taken", ""), ("hq", "h_q")]
    {
        assert_eq!(id(email).await, expected);
    }
    assert!(id("odd").await.starts_with("usr_h_"));
    let reason = "select reason from litellm_webui_sync.dead_letter where key = 'taken'";
    assert!(pair.ask(reason).await.contains("the account id is taken"));
    assert_eq!(pair.ask("select name from \"user\" where id = 'taken'").await, "Own");
    // LiteLLM books their chats itself.
    pair.litellm(&change("bob", "max_budget = 1, spend = 1")).await;
    pair.settle().await;
    assert_eq!((sees(&pair, "bob").await, sees(&pair, "p7").await), (0, 2));
    pair.litellm(&crate::support::gone("p7")).await;
    pair.settle().await;
    assert_eq!(pair.account("p7@x.test").await, "p7|p7|pending|locked");
}

#[tokio::test]
async fn verify_finds_what_is_stored_wrong_and_mends_it_and_access_says_why() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    pair.litellm(&change("ann", "max_budget = 10, spend = 12.5, budget_reset_at = '2030-02-01 00:00:00'"))
        .await;
    pair.litellm(&chats("bob@x.test", 3.0)).await;
    let _daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    pair.settle().await;
    assert_eq!(run(&pair, &["verify"]).0, 0);
    assert_right(&pair, "before").await;
    let (code, text, _) = run(&pair, &["access", "ann@x.test"]);
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("budget of user ann: 12.50 of 10.00 USD; LiteLLM resets it at 2030-02-01 00:00 UTC"),
        "{text}"
    );
    let (_, status, _) = run(&pair, &["status"]);
    assert!(status.contains("1 people have fewer models"), "{status}");
    let (_, near, _) = run(&pair, &["budgets", "--near", "--json"]);
    let near: serde_json::Value = serde_json::from_str(&near).unwrap();
    assert_eq!(near["budgets"].as_array().unwrap().len(), 1, "{near}");

    pair.webui(
        "delete from litellm_webui_sync.budget_closed;
         insert into litellm_webui_sync.budget_closed (kind, id, spend, since) values ('team', 't', 1, now());
         update litellm_webui_sync.chat_spend set spend = 77",
    )
    .await;
    let (code, text, _) = run(&pair, &["verify"]);
    assert_eq!(code, 3, "{text}");
    for found in ["user ann", "team t", "bob@x.test"] {
        assert!(text.contains(found), "{found}: {text}");
    }
    assert_eq!(run(&pair, &["verify", "--repair"]).0, 3);
    eventually("the repair", || async {
        pair.ask("select string_agg(kind || id, ' ') from litellm_webui_sync.budget_closed").await
            == "userann"
            && pair.ask("select sum(spend) from litellm_webui_sync.chat_spend").await == "3"
    })
    .await;
    assert_eq!(run(&pair, &["verify"]).0, 0);
    assert_right(&pair, "after").await;
}

#[tokio::test]
async fn what_was_chatted_before_the_window_is_told_by_litellms_sums_of_each_day() {
    let pair = Pair::new().await;
    let mut sql = models();
    for name in ["ann", "bob", "cid", "dan"] {
        sql += &person(name, &format!("{name}@x.test"));
        sql += &chats(&format!("{name}@x.test"), 100.0);
    }
    // In the form of LiteLLM's table: a row for each day, key and model.
    sql += "create table \"LiteLLM_DailyEndUserSpend\" (id text primary key, end_user_id text, date text not null, spend float8 not null);
            insert into \"LiteLLM_DailyEndUserSpend\" values
                ('1', 'ann@x.test', '2030-01-31', 60), ('2', 'ann@x.test', '2030-01-31', 31), ('3', 'ann@x.test', '2030-02-01', 9),
                ('4', 'bob@x.test', '2030-01-31', 89), ('5', 'bob@x.test', '2030-02-01', 11),
                ('6', 'cid@x.test', '2029-01-01', 100), ('7', 'dan@x.test', '2030-02-27', 95);
            update \"LiteLLM_UserTable\" set max_budget = 10, budget_duration = '30d', budget_reset_at = '2030-03-01';
            update \"LiteLLM_UserTable\" set budget_duration = null, budget_reset_at = null where user_id = 'cid';
            update \"LiteLLM_UserTable\" set budget_duration = '24h' where user_id = 'dan';";
    pair.litellm(&sql).await;
    let _daemon = Daemon::with(&pair, &with(&format!("{CHATS}[brake]\npeople = 100\n")));
    pair.settle().await;
    let seen = async |name: &str| sees(&pair, &format!("usr_{name}")).await;
    // 9, 11, 100 of a budget without a window, 5.
    assert_eq!((seen("ann").await, seen("bob").await, seen("cid").await, seen("dan").await), (2, 0, 0, 2));
    pair.litellm(&(chats("ann@x.test", 100.9) + &chats("dan@x.test", 105.0))).await;
    pair.settle().await;
    assert_eq!((seen("ann").await, seen("dan").await), (2, 0));
}

#[tokio::test]
async fn a_team_whose_members_have_a_budget_of_its_own_is_closed_at_the_first_start() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    pair.litellm(
        "update \"LiteLLM_TeamTable\" set spend = 101, metadata = '{\"team_member_budget_id\": \"b\"}' where team_id = 't'",
    )
    .await;
    let daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    assert_right(&pair, "at the first start").await;
    assert_eq!(sees(&pair, "usr_cid").await, 0);
    // Both in one row of the stream.
    pair.litellm(
        "update \"LiteLLM_TeamTable\" set spend = 101, metadata = '{\"team_member_budget_id\": \"b\"}' where team_id = 'u'",
    )
    .await;
    pair.settle().await;
    assert_right(&pair, "in the stream").await;
    assert_eq!(sees(&pair, "usr_dan").await, 0);
    drop(daemon);
}

#[tokio::test]
async fn an_increase_that_ends_before_the_others_ends_by_itself_too() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    pair.litellm(&rekey(
        "k",
        "metadata = jsonb_build_object('temp_budget_increase', 1, 'temp_budget_expiry', '2999-01-01T00:00:00Z')",
    ))
    .await;
    let _daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    // A new budget row, and a member who is linked to it only then.
    pair.litellm(
        "insert into \"LiteLLM_BudgetTable\" (budget_id, max_budget, temp_budget_increase, temp_budget_expiry, created_by, updated_by)
         values ('new', 5, 5, timezone('UTC', now()) + interval '5 s', '', '');
         update \"LiteLLM_TeamMembership\" set spend = 6, budget_id = 'new' where user_id = 'bob'",
    )
    .await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_bob").await, 2);
    eventually("the end of the member's increase", || async { sees(&pair, "usr_bob").await == 0 }).await;
    pair.litellm(&rekey(
        "k",
        "spend = 8, metadata = jsonb_build_object('temp_budget_increase', 5, 'temp_budget_expiry', (now() + interval '5 s')::text)",
    ))
    .await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_eve").await, 2);
    eventually("the end of the key's increase", || async { sees(&pair, "usr_eve").await == 0 }).await;
}

/// Ann, whose budget is 10 until this moment, and who spent so much by chatting.
async fn chatting(pair: &Pair, resets_at: &str, spent: f64) -> Daemon {
    pair.litellm(
        &[
            models(),
            person("ann", "ann@x.test"),
            change("ann", &format!("max_budget = 10, budget_reset_at = '{resets_at}'")),
            chats("ann@x.test", spent),
        ]
        .concat(),
    )
    .await;
    let daemon = Daemon::with(pair, &with(CHATS));
    pair.settle().await;
    pair.settle().await;
    daemon
}

#[tokio::test]
async fn a_row_that_says_nothing_spent_yet_is_no_reset_when_it_is_told_again() {
    let pair = Pair::new().await;
    let mut daemon = chatting(&pair, "2035-01-01", 8.0).await;
    daemon.kill9();
    pair.litellm(&change("ann", "user_alias = 'Ann'")).await;
    pair.litellm(&change("ann", "spend = 1")).await;
    pair.litellm(&chats("ann@x.test", 9.0)).await;
    let mut daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 0, "9 and 1 of 10");
    // While one that does say so is.
    daemon.kill9();
    pair.litellm(&change("ann", "spend = 0")).await;
    pair.litellm(&change("ann", "spend = 2")).await;
    pair.litellm(&chats("ann@x.test", 16.9)).await;
    let _daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2, "7.9 and 2 of 10");
    pair.litellm(&chats("ann@x.test", 17.0)).await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 0, "8 and 2 of 10");
}

#[tokio::test]
async fn a_customer_whose_spend_goes_back_to_nothing_is_forgotten_for_good() {
    let pair = Pair::new().await;
    let mut daemon = chatting(&pair, "2035-01-01", 12.0).await;
    assert_eq!(sees(&pair, "usr_ann").await, 0);
    // LiteLLM resets customers without a budget row of their own where max_end_user_budget_id is set.
    pair.litellm("update \"LiteLLM_EndUserTable\" set spend = 0").await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2);
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.chat_spend").await, "0");
    daemon.kill9();
    let _daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2, "after a restart");
    // One that is called otherwise by now.
    pair.litellm(&chats("ann@x.test", 12.0)).await;
    pair.settle().await;
    pair.litellm("update \"LiteLLM_EndUserTable\" set user_id = 'nobody'").await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2);
    assert_eq!(pair.ask("select count(*) from litellm_webui_sync.chat_spend").await, "0");
}

#[tokio::test]
async fn a_reset_by_hand_is_one_also_where_it_moves_the_end_of_the_window() {
    let pair = Pair::new().await;
    let _daemon = chatting(&pair, "2035-01-01", 9.0).await;
    pair.litellm(&change("ann", "spend = 1")).await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 0);
    pair.litellm(&change("ann", "spend = 0, budget_reset_at = '2036-01-01'")).await;
    pair.settle().await;
    pair.litellm(&change("ann", "spend = 2")).await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2);
}

#[tokio::test]
async fn nothing_is_said_of_a_moment_that_never_was() {
    let pair = Pair::new().await;
    let mut daemon = chatting(&pair, "2026-01-01", 8.0).await;
    daemon.kill9();
    pair.litellm(&change("ann", "spend = 1")).await;
    pair.litellm(&reset("ann", "2036-03-01")).await;
    pair.litellm(&change("ann", "spend = 3")).await;
    let _daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2);
    assert_eq!(crossed(&pair).await, [""; 0]);
}

#[tokio::test]
async fn a_limit_that_goes_and_comes_back_counts_the_same_whether_a_daemon_died_in_between() {
    let mut seen = Vec::new();
    for dies in [false, true] {
        let pair = Pair::new().await;
        let mut daemon = chatting(&pair, "2026-01-01", 12.0).await;
        pair.litellm(&reset("ann", "2036-03-01")).await;
        pair.settle().await;
        assert_eq!(sees(&pair, "usr_ann").await, 2);
        pair.litellm(&change("ann", "max_budget = null")).await;
        pair.settle().await;
        if dies {
            daemon.kill9();
            daemon = Daemon::with(&pair, &with(CHATS));
            pair.settle().await;
        }
        pair.litellm(&change("ann", "max_budget = 10")).await;
        pair.settle().await;
        pair.settle().await;
        seen.push(sees(&pair, "usr_ann").await);
        drop(daemon);
    }
    assert_eq!(seen[0], seen[1]);
}

#[tokio::test]
async fn a_window_that_ended_while_no_daemon_ran_is_over_also_for_a_customer_who_was_new() {
    let pair = Pair::new().await;
    let mut daemon = chatting(&pair, "2026-01-01", 0.0).await;
    daemon.kill9();
    pair.litellm(&chats("ann@x.test", 9.0)).await;
    pair.litellm(&reset("ann", "2026-03-01")).await;
    pair.litellm(&chats("ann@x.test", 18.9)).await;
    let mut daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2, "9.9 since the reset");
    assert_eq!(crossed(&pair).await, [""; 0]);
    pair.litellm(&chats("ann@x.test", 19.0)).await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 0);
    // The other way round: what is spent after a reset counts.
    pair.litellm("delete from \"LiteLLM_EndUserTable\"").await;
    pair.settle().await;
    daemon.kill9();
    pair.litellm(&reset("ann", "2026-04-01")).await;
    pair.litellm(&chats("ann@x.test", 9.0)).await;
    pair.litellm(&chats("ann@x.test", 10.0)).await;
    let _daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 0, "10 since the reset");
}

#[tokio::test]
async fn what_the_brake_held_closes_once_it_is_approved_and_only_once() {
    let pair = Pair::new().await;
    pair.litellm(&(models() + &people("p", 60) + "update \"LiteLLM_UserTable\" set max_budget = 10")).await;
    let daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    pair.litellm(&change_all("max_budget = 0")).await;
    let Waited::Failed { reason } = pair.wait().await else { panic!("it passed") };
    let id: String =
        reason.split("approve ").nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
    pair.litellm(&flush("UserTable", "1", "user_id = 'p1'")).await;
    assert_eq!(run(&pair, &["approve", &id]).0, 0);
    crate::support::within(std::time::Duration::from_secs(60), "the approved batch", || async {
        daemon.get("/readyz").0 == 200
    })
    .await;
    pair.settle().await;
    assert_right(&pair, "approved").await;
    assert_eq!(sees(&pair, "usr_p1").await, 0);
    assert_eq!(crossed(&pair).await.len(), 60);
}

#[tokio::test]
async fn two_users_of_one_email_have_a_window_each() {
    let mut seen = Vec::new();
    for dies in [false, true] {
        let pair = Pair::new().await;
        pair.litellm(
            &[
                models(),
                person("ann", "ann@x.test"),
                person("two", "Ann@X.test"),
                change("ann", "max_budget = 10, budget_reset_at = '2026-01-01'"),
                change("two", "max_budget = 10, budget_reset_at = '2036-01-01'"),
                chats("ann@x.test", 12.0),
            ]
            .concat(),
        )
        .await;
        let mut daemon = Daemon::with(&pair, &with(CHATS));
        pair.settle().await;
        pair.settle().await;
        if dies {
            daemon.kill9();
        }
        pair.litellm(&reset("ann", "2026-02-01")).await;
        if dies {
            daemon = Daemon::with(&pair, &with(CHATS));
        }
        pair.settle().await;
        seen.push((
            sees(&pair, "usr_ann").await,
            pair.ask("select string_agg(id, ' ' order by id) from litellm_webui_sync.budget_closed").await,
        ));
        drop(daemon);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[0], (2, String::new()));
}

#[tokio::test]
async fn what_a_table_or_a_key_does_changes_nothing_of_who_is_closed() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    let mut daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    let steps: &[&str] = &[
        "update \"LiteLLM_UserTable\" set spend = 10 where user_id = 'ann'",
        "update \"LiteLLM_UserTable\" set user_id = 'anna' where user_id = 'ann'",
        "begin; truncate \"LiteLLM_TeamMembership\"; insert into \"LiteLLM_TeamMembership\" (user_id, team_id, budget_id, spend) values ('bob', 't', 'b', 6), ('cid', 't', null, 3); commit",
        "begin; delete from \"LiteLLM_BudgetTable\" where budget_id = 'b-o' and false; update \"LiteLLM_OrganizationTable\" set spend = 60; commit",
        "update \"LiteLLM_BudgetTable\" set budget_id = 'moved' where budget_id = 'b'",
        "update \"LiteLLM_TeamTable\" set metadata = '{\"team_member_budget_id\": \"late\"}' where team_id = 't'",
        "insert into \"LiteLLM_BudgetTable\" (budget_id, max_budget, created_by, updated_by) values ('late', 2, '', '')",
        "update \"LiteLLM_VerificationToken\" set spend = 9",
        "update \"LiteLLM_VerificationToken\" set token = encode(sha256(convert_to(token, 'UTF8')), 'hex')",
        "insert into \"LiteLLM_EndUserTable\" (user_id, spend) select 'fay@x.test', 11",
        "truncate \"LiteLLM_EndUserTable\"",
        "begin; insert into \"LiteLLM_EndUserTable\" (user_id, spend) select 'c' || n || '@x.test', 1 from generate_series(1, 15000) n; update \"LiteLLM_UserTable\" set spend = 10 where user_id = 'eve'; insert into \"LiteLLM_UserTable\" (user_id, user_email, spend, max_budget) select 'n' || n, null, 0, 1 from generate_series(1, 12000) n; update \"LiteLLM_UserTable\" set spend = 0 where user_id = 'eve'; update \"LiteLLM_UserTable\" set spend = 20 where user_id = 'dan'; commit",
        "delete from \"LiteLLM_UserTable\" where user_id like 'n%'",
        "delete from \"LiteLLM_UserTable\" where user_id = 'dan'",
        "insert into \"LiteLLM_UserTable\" (user_id, user_email, spend, max_budget) values ('dan', 'dan@x.test', 'Infinity', 1)",
        "update \"LiteLLM_UserTable\" set spend = -5, max_budget = -10 where user_id = 'fay'",
        "update \"LiteLLM_UserTable\" set spend = 'NaN' where user_id = 'dan'",
    ];
    for (place, step) in steps.iter().enumerate() {
        pair.litellm(step).await;
        if place % 3 == 2 {
            daemon.kill9();
            daemon = Daemon::with(&pair, &with(CHATS));
        }
        pair.settle().await;
        if !step.contains("EndUser") || step.contains("truncate") {
            assert_right(&pair, step).await;
        }
    }
    assert_eq!(run(&pair, &["verify"]).0, 0);
    let doubled = "select count(*) from (select operation, lag(operation) over (partition by record_id, coalesce(new_data, old_data) ->> 'kind' order by id) as before
                                       from litellm_webui_sync.sync_audit where operation like 'BUDGET%') one where operation = before";
    assert_eq!(pair.ask(doubled).await, "0");
    drop(daemon);
}

#[tokio::test]
async fn a_window_that_ended_in_a_gap_is_over_after_it() {
    let pair = Pair::new().await;
    let mut daemon = chatting(&pair, "2026-01-01", 8.0).await;
    daemon.kill9();
    eventually("the slot to be free", || async {
        pair.ask_litellm("select count(*) from pg_replication_slots where active").await == "0"
    })
    .await;
    pair.ask_litellm("select count(pg_drop_replication_slot(slot_name)) from pg_replication_slots").await;
    pair.litellm(&reset("ann", "2036-01-01")).await;
    pair.litellm(&chats("ann@x.test", 17.9)).await;
    let mut daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 2, "9.9 since the gap began");
    daemon.kill9();
    pair.litellm(&chats("ann@x.test", 18.0)).await;
    let _daemon = Daemon::with(&pair, &with(CHATS));
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 0);
    assert_eq!(run(&pair, &["verify"]).0, 0);
}

#[tokio::test]
async fn a_limit_that_cannot_be_read_opens_nothing() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    let mut daemon = Daemon::with(&pair, &enforcing());
    pair.litellm(&change("ann", "spend = 10")).await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_ann").await, 0);
    let columns = [
        ("\"LiteLLM_UserTable\"", "max_budget", "double precision default 10"),
        ("\"LiteLLM_UserTable\"", "spend", "double precision not null default 10"),
        ("\"LiteLLM_BudgetTable\"", "max_budget", "double precision default 50"),
    ];
    for (place, (table, column, kind)) in columns.into_iter().enumerate() {
        pair.litellm(&format!("alter table {table} drop column {column}")).await;
        // The next to come of it says nothing of it.
        pair.litellm(&format!(
            "{}; update \"LiteLLM_BudgetTable\" set updated_by = 'x'",
            change("ann", "user_alias = 'Ann'")
        ))
        .await;
        if place == 1 {
            daemon.kill9();
            daemon = Daemon::with(&pair, &enforcing());
        }
        eventually("whether it is taken for no limit", || async {
            daemon.get("/readyz").1.contains(column) || sees(&pair, "usr_ann").await > 0
        })
        .await;
        assert_eq!(sees(&pair, "usr_ann").await, 0, "{table} without {column}");
        pair.litellm(&format!("alter table {table} add column {column} {kind}")).await;
        daemon.ready().await;
        pair.settle().await;
        assert_eq!(crossed(&pair).await[0], "BUDGET_CLOSED user ann");
        assert_eq!(sees(&pair, "usr_ann").await, 0, "{table} with {column} again");
    }
    assert_eq!(run(&pair, &["verify"]).0, 0);
}

#[tokio::test]
async fn access_names_the_organization_also_of_a_key_whose_owner_no_roster_names() {
    let pair = Pair::new().await;
    pair.litellm(&company()).await;
    pair.litellm(&[key("ku", "eve"), rekey("ku", "team_id = 'u'")].concat()).await;
    pair.litellm(&change("eve", "models = '{no-default-models}'")).await;
    let _daemon = Daemon::with(&pair, &enforcing());
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_eve").await, 2);
    pair.litellm("update \"LiteLLM_OrganizationTable\" set spend = 60").await;
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_eve").await, 0);
    assert_right(&pair, "the organization").await;
    let (_, text, _) = run(&pair, &["access", "eve@x.test"]);
    assert!(text.contains("budget of organization o: 60.00 of 50.00 USD"), "{text}");
    let (_, status, _) = run(&pair, &["status"]);
    assert!(status.contains("2 people have fewer models"), "dan and eve: {status}");
}
