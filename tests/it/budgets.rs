//! Budgets: what is shown is what LiteLLM's rows say, whatever happened to the rows and to the daemon.

use std::collections::BTreeMap;
use std::time::Duration;

use litellm_webui_sync::budgets::{self, Budgets, load, rules};
use litellm_webui_sync::decode::Change;
use litellm_webui_sync::position::Lsn;
use litellm_webui_sync::source::Source;
use litellm_webui_sync::target::checkpoint::{Checkpoint, Generation};
use testbed::{Cluster, ClusterOptions, Schema, churn, seed};

use crate::support::daemon::{DaemonOptions, run};
use crate::support::{
    Daemon, Pair, PairOptions, eventually, key, organization, person, rekey, rows, team, token,
};

type Who = (String, String);
/// Spend, limit, reset in milliseconds.
type Budget = (f64, Option<f64>, Option<f64>);

/// Everybody's budget, by kind and id; and how many there are by kind and state.
#[derive(Debug, Default, PartialEq)]
struct Picture {
    entities: BTreeMap<Who, Budget>,
    states: BTreeMap<Who, f64>,
}

#[expect(clippy::cast_precision_loss, reason = "exact for 285 000 years")]
fn milliseconds(micros: i64) -> f64 {
    (micros / 1000) as f64
}

/// As the oracle has it. Who has neither spent nor a limit is shown by nobody.
async fn expected(pair: &Pair, now: &str) -> Picture {
    let sql = format!("set timezone = 'UTC'; {}", include_str!("budgets_oracle.sql").replace(":now", now));
    let mut picture = Picture::default();
    for row in rows(&pair.source, &sql).await {
        let [kind, id, spend, limit, state, reset] = <[Option<String>; 6]>::try_from(row).unwrap();
        let (kind, spend) = (kind.unwrap(), spend.unwrap().parse::<f64>().unwrap());
        let limit: Option<f64> = limit.map(|limit| limit.parse().unwrap());
        let reset = reset.map(|reset| reset.parse().unwrap());
        let state = state.unwrap();
        if limit.is_some() || spend != 0.0 || state == "soft" {
            *picture.states.entry((kind.clone(), state)).or_default() += 1.0;
        }
        if limit.is_some() || spend != 0.0 {
            picture.entities.insert((kind, id.unwrap()), (spend, limit, reset));
        }
    }
    picture
}

/// One line of an exposition: name, labels, value.
fn sample(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (name, rest) = line.strip_prefix("litellm_webui_sync_")?.split_once('{')?;
    let (mut labels, mut chars) = (BTreeMap::new(), rest.chars());
    loop {
        let label: String = chars.by_ref().take_while(|c| *c != '=').collect();
        assert_eq!(chars.next(), Some('"'), "{line}");
        let mut value = String::new();
        loop {
            match chars.next().unwrap() {
                '"' => break,
                '\\' => value.push(match chars.next().unwrap() {
                    'n' => '\n',
                    other => other,
                }),
                other => value.push(other),
            }
        }
        labels.insert(label, value);
        if chars.next().unwrap() == '}' {
            break;
        }
    }
    Some((name.to_owned(), labels, chars.as_str().trim().parse().unwrap()))
}

/// As the daemon's metrics have it.
fn shown(daemon: &Daemon) -> Picture {
    let mut picture = Picture::default();
    let text = daemon.get("/metrics").1;
    let samples: Vec<_> = text.lines().filter_map(sample).collect();
    for (name, labels, value) in &samples {
        let entity = || (labels["kind"].clone(), labels["id"].clone());
        match name.as_str() {
            "budget_spend_usd" => {
                let twice = picture.entities.insert(entity(), (*value, None, None));
                assert_eq!(twice, None, "{labels:?}");
            }
            "budget_entities" if *value > 0.0 => {
                picture.states.insert((labels["kind"].clone(), labels["state"].clone()), *value);
            }
            _ => {}
        }
    }
    for (name, labels, value) in &samples {
        let entity = || (labels["kind"].clone(), labels["id"].clone());
        match name.as_str() {
            "budget_limit_usd" => picture.entities.get_mut(&entity()).unwrap().1 = Some(*value),
            "budget_reset_timestamp_seconds" => {
                picture.entities.get_mut(&entity()).unwrap().2 = Some((value * 1000.0).round());
            }
            "budget_utilization_ratio" => {
                let (spend, limit, _) = picture.entities[&entity()];
                let limit = limit.unwrap();
                assert!(limit <= 0.0 || *value == spend / limit, "{labels:?}: {value}");
            }
            _ => {}
        }
    }
    picture
}

/// Everybody is shown, by name.
fn all_shown() -> DaemonOptions {
    DaemonOptions {
        policy: Some("[budgets]\ntop = 1000\nsoft = 1000\nemails = true\n".to_owned()),
        ..DaemonOptions::default()
    }
}

async fn assert_shown(pair: &Pair, daemon: &Daemon, when: &str) {
    pair.settle().await;
    let now = "timezone('UTC', clock_timestamp())";
    let wanted = expected(pair, now).await;
    assert!(wanted.entities.len() > 100, "{when}: nothing to compare");
    let mut last = shown(daemon);
    for _ in 0..400 {
        if last == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        last = shown(daemon);
    }
    for (who, expected) in &wanted.entities {
        let found = last.entities.get(who);
        if found != Some(expected) {
            println!("{who:?}: {found:?} instead of {expected:?}");
        }
    }
    for who in last.entities.keys().filter(|who| !wanted.entities.contains_key(who)) {
        println!("{who:?} should not be there");
    }
    assert_eq!(last.states, wanted.states, "{when}");
    panic!("{when}: see above");
}

fn times_read(daemon: &Daemon) -> usize {
    daemon.log().matches("read the budgets").count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_budget_is_what_litellms_rows_say_through_churn_resets_and_restarts() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    seed(&pair.source, 120, 12, 5, 200).await.unwrap();
    let mut daemon = Daemon::with(&pair, &all_shown());
    assert_shown(&pair, &daemon, "after the first copy").await;
    for round in 1..=3 {
        churn(&pair.source, round, 60, 2, round == 2).await.unwrap();
    }
    assert_shown(&pair, &daemon, "after churn").await;

    // A spend flush writes nothing in the mirror, and is seen all the same.
    let xmins = "select string_agg(xmin::text, ' ' order by ctid) from litellm_webui_sync.litellm_user";
    let before = pair.ask(xmins).await;
    pair.litellm("update \"LiteLLM_UserTable\" set spend = spend + 0.125, updated_at = now()").await;
    assert_shown(&pair, &daemon, "after a flush").await;
    assert_eq!(pair.ask(xmins).await, before);
    assert!(daemon.metric("unchanged_rows_total") > 100.0);
    assert_eq!(times_read(&daemon), 1);

    // A session that is lost begins again where the checkpoint is, and repeats what was seen: nothing doubles, nothing is
    // read again.
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                where application_name like 'litellm-webui-sync%' and pid <> pg_backend_pid()";
    let working = {
        let url = pair.source.clone();
        tokio::spawn(async move { churn(&url, 4, 60, 2, false).await })
    };
    while !working.is_finished() {
        pair.webui(cut).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    working.await.unwrap().unwrap();
    assert_shown(&pair, &daemon, "after lost sessions").await;
    assert_eq!(times_read(&daemon), 1);
    assert!(daemon.get("/metrics").1.contains("litellm_webui_sync_reconnects_total{"));

    // Killed while it is behind: read anew at the start, and then the stream repeats older rows.
    daemon.kill9();
    churn(&pair.source, 5, 60, 1, true).await.unwrap();
    daemon = Daemon::with(&pair, &all_shown());
    churn(&pair.source, 6, 60, 1, false).await.unwrap();
    assert_shown(&pair, &daemon, "after a kill").await;

    // Old rows in full from here on, values out of line still unsent; and tables emptied.
    pair.litellm(
        "do $$ declare t text; begin
             for t in select tablename from pg_tables where schemaname = 'public' and tablename like 'LiteLLM\\_%' loop
                 execute format('alter table %I replica identity full', t);
             end loop;
         end $$",
    )
    .await;
    churn(&pair.source, 7, 60, 1, true).await.unwrap();
    assert_shown(&pair, &daemon, "with REPLICA IDENTITY FULL").await;
    pair.litellm("truncate \"LiteLLM_TeamMembership\"").await;
    pair.litellm("update \"LiteLLM_VerificationToken\" set budget_id = null, spend = 1e-17 where budget_id is not null").await;
    pair.litellm("delete from \"LiteLLM_BudgetTable\" b where not exists (select from \"LiteLLM_OrganizationTable\" o where o.budget_id = b.budget_id)")
        .await;
    assert_shown(&pair, &daemon, "after a truncate and deletes").await;

    // A column that was dropped and added again has other values without a row in the stream.
    pair.litellm("alter table \"LiteLLM_UserTable\" drop column max_budget").await;
    pair.litellm("alter table \"LiteLLM_UserTable\" add column max_budget double precision default 3").await;
    eventually("a copy", || async { daemon.metric("copies_total") >= 1.0 }).await;
    assert_shown(&pair, &daemon, "after a column was made anew").await;
    assert_eq!(daemon.metric("last_copy_failed"), 0.0);
    assert!(daemon.metric("copy_rows") > 100.0);
    assert_eq!(daemon.metric("copy_tables"), daemon.metric("copy_tables_done"));
}

#[tokio::test]
async fn an_increase_ends_by_itself_and_moves_with_its_key() {
    let pair = Pair::new().await;
    let far = "(timezone('UTC', now()) + interval '1 day')";
    pair.litellm(
        &[
            person("ann", "ann@x.test"),
            organization("o", "Org"),
            "update \"LiteLLM_BudgetTable\" set max_budget = 50, soft_budget = 10 where budget_id = 'b-o';".to_owned(),
            "update \"LiteLLM_OrganizationTable\" set spend = 12;".to_owned(),
            key("one", "ann"),
            key("two", "ann"),
            // Out of line, so that the stream will not send it again.
            rekey("one", &format!("max_budget = 10, spend = 10, metadata = jsonb_build_object('temp_budget_increase', 5,
                'temp_budget_expiry', to_char({far}, 'YYYY-MM-DD\"T\"HH24:MI:SS\"+00:00\"'),
                'noise', (select string_agg(md5(i::text), '') from generate_series(1, 400) i))")),
            // As some versions stored it: JSON inside a JSON string.
            rekey("two", "max_budget = 1, spend = 1, metadata = to_jsonb('{\"temp_budget_increase\": 1, \"temp_budget_expiry\": \"2999-01-01\"}'::text)"),
            team("t", "Team", Some("o"), &["ann"]),
            "update \"LiteLLM_TeamTable\" set metadata = '{\"team_member_budget_id\": \"d\"}', max_budget = 0;
             insert into \"LiteLLM_BudgetTable\" (budget_id, max_budget, created_by, updated_by) values ('d', 0, '', '');
             insert into \"LiteLLM_BudgetTable\" (budget_id, temp_budget_increase, temp_budget_expiry, created_by, updated_by)
                 values ('own', 3, timezone('UTC', now()) + interval '1 day', '', '');
             insert into \"LiteLLM_TeamMembership\" (user_id, team_id, spend, budget_id) values ('ann', 't', 2, 'own');"
                .to_owned(),
        ]
        .concat(),
    )
    .await;
    let daemon = Daemon::with(&pair, &all_shown());
    let limit = |kind: &str, name: &str| -> Option<f64> {
        let picture = shown(&daemon);
        picture
            .entities
            .iter()
            .find(|((one, id), _)| one == kind && id == name)
            .and_then(|(_, entity)| entity.1)
    };
    let one =
        pair.ask_litellm(&format!("select left(encode(sha256(({})::bytea), 'hex'), 12)", token("one"))).await;
    let moved = pair
        .ask_litellm(&format!("select left(encode(sha256(({})::bytea), 'hex'), 12)", token("moved")))
        .await;
    let two =
        pair.ask_litellm(&format!("select left(encode(sha256(({})::bytea), 'hex'), 12)", token("two"))).await;
    pair.settle().await;
    eventually("the limits", || async {
        limit("key", &one) == Some(15.0) && limit("key", &two) == Some(2.0)
    })
    .await;
    eventually("names", || async { limit("organization", "o") == Some(50.0) }).await;
    assert_eq!(limit("team", "t"), Some(0.0));
    assert_eq!(limit("team_member", "t/ann"), None, "a default of 0 is none");
    let text = daemon.get("/metrics").1;
    assert!(text.contains("budget_entities{kind=\"organization\",state=\"soft\"} 1"), "{text}");
    assert!(text.contains("budget_entities{kind=\"team\",state=\"warning\"} 1"), "{text}");

    // The member's default becomes a limit, raised by the increase of the member's own row.
    pair.litellm("update \"LiteLLM_BudgetTable\" set max_budget = 4 where budget_id = 'd'").await;
    eventually("the member's limit", || async { limit("team_member", "t/ann") == Some(7.0) }).await;

    // A rotated key takes what the stream does not send along.
    pair.litellm(&rekey("one", &format!("token = {}", token("moved")))).await;
    eventually("the move", || async { limit("key", &moved) == Some(15.0) && limit("key", &one).is_none() })
        .await;

    // Nothing is written when an increase ends.
    pair.litellm(&rekey(
        "two",
        "metadata = jsonb_build_object('temp_budget_increase', 1, 'temp_budget_expiry',
                    to_char(timezone('UTC', clock_timestamp()) + interval '4 seconds', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS'))",
    ))
    .await;
    pair.settle().await;
    assert_eq!(limit("key", &two), Some(2.0));
    eventually("the end of the increase", || async { limit("key", &two) == Some(1.0) }).await;
    let text = daemon.get("/metrics").1;
    assert!(text.contains("budget_entities{kind=\"key\",state=\"exceeded\"} 1"), "{text}");
}

#[tokio::test]
async fn a_reading_agrees_with_the_oracle_at_any_moment() {
    let pair = Pair::new().await;
    seed(&pair.source, 60, 8, 4, 120).await.unwrap();
    let config = pair.config();
    let source = Source::open(&config).await.unwrap();
    let tables = source.tables(&config).await.unwrap();
    let book = load::read(&source, &config, &tables).await.unwrap().book;
    for days in [-400, 0, 1, 3, 400] {
        let literal =
            pair.ask_litellm(&format!("select timezone('UTC', now()) + interval '{days} days'")).await;
        let now = rules::moment(&literal).unwrap();
        let ranking = budgets::rank(&book, now, 1000, 1000);
        let names = load::all_names(&source, &config, &ranking).await.unwrap();
        let mut found = Picture::default();
        for (kind, of_kind) in &ranking.kinds {
            for (state, count) in of_kind.states.iter().filter(|(_, count)| **count > 0) {
                #[expect(clippy::cast_precision_loss, reason = "a small count")]
                found.states.insert((kind.name().to_owned(), state.name().to_owned()), *count as f64);
            }
            for one in &of_kind.shown {
                let (id, _) = names[&(*kind, one.hash)].labels(&one.hash, true);
                let standing = one.standing;
                let value = (standing.spend, standing.limit, standing.reset.map(milliseconds));
                found.entities.insert((kind.name().to_owned(), id), value);
            }
        }
        assert_eq!(found, expected(&pair, &format!("'{literal}'::timestamp")).await, "{days} days from now");
    }
}

#[tokio::test]
async fn who_is_renamed_is_called_by_the_new_name() {
    let pair = Pair::new().await;
    pair.litellm(
        &[
            person("ann", "ann@x.test"),
            organization("o", "Old"),
            key("k", "ann"),
            team("t", "Old", Some("o"), &["ann"]),
            "insert into \"LiteLLM_TeamMembership\" (user_id, team_id, spend) values ('ann', 't', 1);
             update \"LiteLLM_UserTable\" set spend = 1; update \"LiteLLM_VerificationToken\" set spend = 1;
             update \"LiteLLM_TeamTable\" set spend = 1; update \"LiteLLM_OrganizationTable\" set spend = 1;
             insert into \"LiteLLM_EndUserTable\" (user_id, alias, spend) values ('somebody', 'Old', 1);"
                .to_owned(),
        ]
        .concat(),
    )
    .await;
    let config = pair.config();
    let source = Source::open(&config).await.unwrap();
    let tables = source.tables(&config).await.unwrap();
    let all = Budgets::new(config.policy.budgets);
    let checkpoint = Checkpoint {
        committed_end: None,
        copy_because: None,
        generation: Generation {
            id: uuid::Uuid::new_v4(),
            system_identifier: String::new(),
            timeline: 1,
            database_oid: 0,
            slot: String::new(),
            consistent_point: Lsn::from(0),
        },
        end_lsn: Lsn::from(7),
        transactions_applied: 0,
        changes_applied: 0,
        epoch: 1,
        projected_with: String::new(),
        committed_at: None,
        expired_through: None,
        columns_fingerprint: String::new(),
    };
    assert!(all.ranking().is_none() && !all.continues(&checkpoint, 1));
    all.begin(load::read(&source, &config, &tables).await.unwrap(), &checkpoint, 1, Lsn::from(0));
    assert!(all.continues(&checkpoint, 1));
    // After a switch of timelines, or behind somebody else who led, it has to be read again.
    assert!(!all.continues(&checkpoint, 2));
    assert!(!all.continues(&Checkpoint { end_lsn: Lsn::from(8), ..checkpoint.clone() }, 1));
    // Half of a transaction is nothing that ever was.
    all.change(&Change::Truncate { count: 0, tables: Vec::new() });
    assert!(!all.continues(&checkpoint, 1));
    all.committed(Lsn::from(7), std::time::SystemTime::now());
    assert!(all.continues(&checkpoint, 1));
    let mut namer = load::Namer::every(Duration::ZERO);
    let aliases = || {
        let ranking = all.ranking().unwrap();
        rules::Kind::ALL.map(|kind| all.shown(&ranking, kind).first().map(|one| one.alias.clone()))
    };
    assert_eq!(aliases(), [None, Some(String::new()), None, None, None, None]);
    namer.look(&all, &source, &config).await.unwrap();
    let called = |names: [&str; 6]| names.map(|name| Some(name.to_owned()));
    assert_eq!(aliases(), called(["", "", "Old", "Old", "Old", "Old"]));
    pair.litellm(
        "update \"LiteLLM_UserTable\" set user_alias = 'Ann'; update \"LiteLLM_VerificationToken\" set key_alias = 'Key';
         update \"LiteLLM_TeamTable\" set team_alias = 'New'; update \"LiteLLM_OrganizationTable\" set organization_alias = 'New';
         update \"LiteLLM_EndUserTable\" set alias = 'New'",
    )
    .await;
    namer.look(&all, &source, &config).await.unwrap();
    assert_eq!(aliases(), called(["Ann", "Key", "New", "New", "New/Ann", "New"]));
}

#[tokio::test]
async fn labels_hold_no_email_and_no_token_and_only_the_fullest_are_named() {
    let pair = Pair::new().await;
    let mut sql = String::new();
    for number in 1..=8 {
        sql += &person(&format!("p{number}@x.test"), &format!("p{number}@x.test"));
    }
    sql += "update \"LiteLLM_UserTable\" set max_budget = 10, user_alias = 'Boss <boss@x.test>', spend = substr(user_id, 2, 1)::int;";
    sql += &key("k", "p1@x.test");
    sql += &rekey("k", "max_budget = 1, spend = 2, key_alias = E'my \"key\"\\nof \\\\ two lines'");
    pair.litellm(&sql).await;
    let policy = Some("[budgets]\ntop = 3\n".to_owned());
    let daemon = Daemon::with(&pair, &DaemonOptions { policy, ..DaemonOptions::default() });
    pair.settle().await;
    eventually("names", || async { shown(&daemon).entities.len() == 4 }).await;
    let text = daemon.get("/metrics").1;
    let full: Vec<_> =
        text.lines().filter_map(sample).filter(|(name, ..)| name == "budget_utilization_ratio").collect();
    assert_eq!(full.iter().map(|(.., value)| *value).sum::<f64>(), 0.8 + 0.7 + 0.6 + 2.0);
    let stored = pair.ask_litellm(&format!("select {}", token("k"))).await;
    for secret in ["@", &stored[..12], "boss"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert!(full.iter().any(|(_, labels, _)| labels["alias"] == "my \"key\"\nof \\ two lines"), "{full:?}");
    assert!(text.contains("budget_spend_sum_usd{kind=\"user\"} 36"), "{text}");
    assert!(text.contains("budget_limit_sum_usd{kind=\"user\"} 80"), "{text}");

    // Somebody becomes full and is found; who is renamed is called by the new name at the next look.
    pair.litellm("update \"LiteLLM_UserTable\" set spend = 9.5 where user_id = 'p1@x.test'").await;
    eventually("the fullest", || async { daemon.get("/metrics").1.contains("} 0.95") }).await;
}

#[tokio::test]
async fn the_command_works_without_a_daemon_and_on_an_old_litellm() {
    let pair = Pair::with(PairOptions { litellm: Schema::LiteLlm1_77_3, ..PairOptions::default() }).await;
    pair.litellm(
        &[
            person("ann", "ann@x.test"),
            organization("o", "Org"),
            "update \"LiteLLM_BudgetTable\" set max_budget = 50, soft_budget = 10;
             update \"LiteLLM_OrganizationTable\" set spend = 40;"
                .to_owned(),
            team("t", "Team\nwith two lines", Some("o"), &["ann"]),
            "update \"LiteLLM_TeamTable\" set spend = 3, max_budget = 'NaN';
             update \"LiteLLM_UserTable\" set spend = 'Infinity', max_budget = 0, user_alias = 'Ann';"
                .to_owned(),
        ]
        .concat(),
    )
    .await;
    let (code, out, err) = run(&pair, &["budgets", "--json"]);
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let line = |kind: &str| {
        let lines = report["budgets"].as_array().unwrap();
        lines.iter().find(|line| line["kind"] == kind).unwrap().clone()
    };
    assert_eq!(line("organization")["utilization"], 0.8);
    assert_eq!(line("organization")["state"], "warning");
    assert_eq!(line("team")["limit_usd"], serde_json::Value::Null);
    assert_eq!(line("team")["state"], "unlimited");
    assert_eq!(line("user")["state"], "exceeded");
    assert_eq!(line("user")["alias"], "Ann");
    let (code, out, _) = run(&pair, &["budgets", "--kind", "organization"]);
    assert_eq!(code, 0);
    assert!(out.contains("80 %") && out.contains("Org (o)") && !out.contains("Ann"), "{out}");
    let (code, out, _) = run(&pair, &["budgets"]);
    assert!(code == 0 && out.contains("Team\u{fffd}with two lines (t)"), "{out}");
    assert_eq!(run(&pair, &["budgets", "--kind", "planet"]).0, 2);
}
