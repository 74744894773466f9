//! Who sees which models: the truth table, on every shape of Open WebUI, one by one and all at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use testbed::Schema;

use crate::support::compare::assert_in_step;
use crate::support::daemon::DaemonOptions;
use crate::support::models::{LiteLlm, differences, visible};
use crate::support::{Daemon, Pair, PairOptions, person, quote};

const CASES: &str = include_str!("access_cases.txt");
/// What `all` stands for in the table.
const ALL: &[&str] = &["claude-3", "dall-e-3", "gpt-4", "gpt-4o", "openai/o1", "xai/grok"];
/// Models without a row, and one whose row is blocked.
pub(crate) const EXTRA: &[&str] = &["openai/o1", "xai/grok", "paused"];

/// The policy of these tests: the models of a config.yaml.
pub(crate) fn policy() -> DaemonOptions {
    DaemonOptions {
        policy: Some("[models]\nextra = [\"openai/o1\", \"xai/grok\", \"paused\"]\n".to_owned()),
        ..DaemonOptions::default()
    }
}

/// Statements: what LiteLLM serves.
pub(crate) fn served() -> String {
    let row = |id: &str, name: &str, tags: &str, blocked: bool| {
        format!(
            "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, model_info, blocked, created_by, updated_by)
             values ('{id}', '{name}', '{{}}', '{{\"id\": \"{id}\", \"access_groups\": {tags}}}', {blocked}, '', '');"
        )
    };
    [
        row("1", "gpt-4", "[\"beta\"]", false),
        row("2", "gpt-4o", "[\"beta\"]", false),
        row("3", "gpt-4o", "[]", false),
        row("4", "claude-3", "[\"premium\", \"beta\"]", false),
        row("5", "dall-e-3", "null", false),
        row("6", "openai/*", "[\"wild\"]", false),
        row("7", "paused", "[\"beta\"]", true),
    ]
    .concat()
}

struct Case {
    name: String,
    user: String,
    statements: Vec<String>,
    sees: BTreeSet<String>,
}

/// A list as a literal: NULL, or an array.
fn list(words: &[&str]) -> String {
    match words {
        ["NULL"] => "null".to_owned(),
        ["[]"] => "'{}'".to_owned(),
        words => {
            let item = |word: &&str| if *word == "null" { "null".to_owned() } else { quote(word) };
            let items: Vec<String> = words.iter().map(item).collect();
            format!("array[{}]::text[]", items.join(", "))
        }
    }
}

impl Case {
    /// `number` keeps the cases apart: every id begins with it.
    fn parse(number: usize, text: &str) -> Self {
        let mut lines = text.lines();
        let name = lines.next().unwrap().strip_prefix("= ").expect("a case begins with its name").to_owned();
        let prefix = format!("c{number}-");
        let id = |name: &str| format!("{prefix}{name}");
        let user = id("user");
        let (mut models, mut role, mut legacy) = ("'{}'".to_owned(), "internal_user", "null".to_owned());
        let (mut statements, mut sees, mut model_ids) = (Vec::new(), None, 0);
        for line in lines.filter(|line| !line.starts_with('#')) {
            let (head, tail) = line.split_once(" :").unwrap_or((line, ""));
            let tail: Vec<&str> = tail.split_whitespace().collect();
            let mut words = head.split_whitespace();
            let kind = words.next().unwrap();
            let rest: Vec<&str> = words.collect();
            let option = |name: &str| rest.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            let has = |name: &str| rest.contains(&name);
            // Ids, but names of models and tags stay as they are.
            let ids = |name: &str| -> String {
                let all: Vec<String> =
                    option(name).into_iter().flat_map(|ids| ids.split(',')).map(id).collect();
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                if all.is_empty() { "'{}'".to_owned() } else { list(&all) }
            };
            let aliases = || {
                let pairs: Vec<String> = option("alias")
                    .into_iter()
                    .flat_map(|all| all.split(','))
                    .map(|pair| pair.split_once('>').unwrap())
                    .map(|(from, to)| format!("{from:?}: {to:?}"))
                    .collect();
                quote(&format!("{{{}}}", pairs.join(", ")))
            };
            match kind {
                "user" => models = list(&rest),
                "role" => role = rest[0],
                "sees" => {
                    let words = rest.iter().flat_map(|word| match *word {
                        "all" => ALL.to_vec(),
                        "none" => Vec::new(),
                        word => vec![word],
                    });
                    sees = Some(words.map(str::to_owned).collect());
                }
                "org" => {
                    let org = quote(&id(rest[0]));
                    statements.push(format!(
                        "insert into \"LiteLLM_BudgetTable\" (budget_id, created_by, updated_by) values ({org}, '', '');
                         insert into \"LiteLLM_OrganizationTable\" (organization_id, organization_alias, budget_id, models, created_by, updated_by)
                         values ({org}, {org}, {org}, {}, '', '');",
                        list(&tail)
                    ));
                    if has("legacy") {
                        legacy = org;
                    } else if !has("foreign") {
                        statements.push(format!(
                            "insert into \"LiteLLM_OrganizationMembership\" (user_id, organization_id) values ({}, {org});",
                            quote(&user)
                        ));
                    }
                }
                "team" => {
                    let roster = if has("email") {
                        format!("[{{\"user_id\": null, \"user_email\": \"{user}@X.test\", \"role\": \"user\"}}]")
                    } else if has("foreign") {
                        "[{\"user_id\": \"somebody else\", \"role\": \"user\"}]".to_owned()
                    } else {
                        format!("[{{\"user_id\": {user:?}, \"role\": \"user\"}}]")
                    };
                    let model_id = if option("alias").is_some() {
                        statements.push(format!(
                            "insert into \"LiteLLM_ModelTable\" (id, aliases, created_by, updated_by) values ({number}, {}, '', '');",
                            aliases()
                        ));
                        number.to_string()
                    } else {
                        "null".to_owned()
                    };
                    statements.push(format!(
                        "insert into \"LiteLLM_TeamTable\" (team_id, organization_id, members_with_roles, models, blocked, access_group_ids, model_id)
                         values ({}, {}, {}, {}, {}, {}, {model_id});",
                        quote(&id(rest[0])),
                        option("org").map_or("null".to_owned(), |org| quote(&id(org))),
                        quote(&roster),
                        list(&tail),
                        has("blocked"),
                        ids("groups"),
                    ));
                }
                "member" => {
                    let budget = quote(&id("member-budget"));
                    statements.push(format!(
                        "insert into \"LiteLLM_BudgetTable\" (budget_id, allowed_models, created_by, updated_by) values ({budget}, {}, '', '');
                         insert into \"LiteLLM_TeamMembership\" (user_id, team_id, budget_id) values ({}, {}, {budget});",
                        list(&tail),
                        quote(&user),
                        quote(&id(rest[0])),
                    ));
                }
                "key" => {
                    let team = if has("ui") { Some("litellm-dashboard".to_owned()) } else { option("team").map(id) };
                    let expires = match (has("expired"), has("lives")) {
                        (true, _) => "now() at time zone 'UTC' - interval '1 second'",
                        (_, true) => "now() at time zone 'UTC' + interval '1 day'",
                        _ => "null",
                    };
                    let routes: Vec<&str> = option("routes").map(|all| all.split(',').collect()).unwrap_or_default();
                    statements.push(format!(
                        "insert into \"LiteLLM_VerificationToken\" (token, user_id, team_id, models, blocked, expires, key_type, allowed_routes, access_group_ids, aliases, project_id)
                         values (encode(sha256({}), 'hex'), {}, {}, {}, {}, {expires}, {}, {}, {}, {}, {});",
                        quote(&id(rest[0])),
                        quote(&user),
                        team.map_or("null".to_owned(), |team| quote(&team)),
                        list(&tail),
                        option("blocked").unwrap_or("null"),
                        option("type").map_or("null".to_owned(), quote),
                        if routes.is_empty() { "'{}'".to_owned() } else { list(&routes) },
                        ids("groups"),
                        aliases(),
                        option("project").map_or("null".to_owned(), |project| quote(&id(project))),
                    ));
                }
                "group" => {
                    let mut keys: Vec<String> = Vec::new();
                    for key in option("keys").into_iter().flat_map(|all| all.split(',')) {
                        keys.push(format!("encode(sha256({}), 'hex')", quote(&id(key))));
                    }
                    for key in option("plainkeys").into_iter().flat_map(|all| all.split(',')) {
                        keys.push(quote(&id(key)));
                    }
                    statements.push(format!(
                        "insert into \"LiteLLM_AccessGroupTable\" (access_group_id, access_group_name, access_model_names, assigned_team_ids, assigned_key_ids)
                         values ({0}, {0}, {1}, {2}, array[{3}]::text[]);",
                        quote(&id(rest[0])),
                        list(&tail),
                        ids("teams"),
                        keys.join(", "),
                    ));
                }
                "project" => statements.push(format!(
                    "insert into \"LiteLLM_ProjectTable\" (project_id, models, blocked, created_by, updated_by) values ({}, {}, {}, '', '');",
                    quote(&id(rest[0])),
                    list(&tail),
                    has("blocked"),
                )),
                "model" => {
                    model_ids += 1;
                    let team = id(option("team").unwrap());
                    let tags: Vec<&str> = option("tags").map(|all| all.split(',').collect()).unwrap_or_default();
                    let info = format!(
                        "{{\"team_id\": {team:?}, \"team_public_model_name\": {:?}, \"access_groups\": {tags:?}}}",
                        rest[0]
                    );
                    statements.push(format!(
                        "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, model_info, blocked, created_by, updated_by)
                         values ('{0}', 'model_name_{team}_{0}', '{{}}', {1}, {2}, '', '');",
                        number * 100 + model_ids,
                        quote(&info),
                        has("blocked"),
                    ));
                }
                other => panic!("{name}: no such thing as {other:?}"),
            }
        }
        let born = format!(
            "insert into \"LiteLLM_UserTable\" (user_id, user_email, user_role, models, organization_id, created_at)
             values ({}, {}, '{role}', {models}, {legacy}, '2026-01-01');",
            quote(&user),
            quote(&format!("{user}@x.test")),
        );
        // LiteLLM has foreign keys to these, and from memberships to the user.
        let is_first = |text: &String| {
            ["OrganizationTable", "ProjectTable", "LiteLLM_ModelTable"]
                .iter()
                .any(|table| text.contains(table))
        };
        let (mut before, mut after): (Vec<String>, Vec<String>) = statements.into_iter().partition(is_first);
        before.push(born);
        before.append(&mut after);
        let sees = sees.unwrap_or_else(|| panic!("{name} does not say what is seen"));
        Self { name, user, statements: before, sees }
    }
}

fn cases() -> Vec<Case> {
    let text: String =
        CASES.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    let cases: Vec<Case> = text
        .split("\n\n")
        .map(str::trim)
        .filter(|case| !case.is_empty())
        .enumerate()
        .map(|(number, case)| Case::parse(number + 1, case))
        .collect();
    assert!(cases.len() >= 150, "{} cases", cases.len());
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two cases have one name");
    cases
}

async fn wrong(pair: &Pair, cases: &[Case]) -> Vec<String> {
    let shown = visible(pair).await;
    let litellm = LiteLlm::read(pair, EXTRA).await;
    let names = litellm.names();
    let mut wrong = Vec::new();
    for case in cases {
        let sees = shown.get(&format!("usr_{}", case.user)).cloned().unwrap_or_default();
        if sees != case.sees {
            wrong.push(format!("{}: sees {sees:?}, should see {:?}", case.name, case.sees));
        }
        // The oracle has to agree, or it is no oracle.
        let user = litellm.user(&case.user).unwrap();
        let may: BTreeSet<String> = names.iter().filter(|name| litellm.may(user, name)).cloned().collect();
        if may != case.sees && user["user_role"] != "proxy_admin" {
            wrong.push(format!("{}: the oracle says {may:?}, should be {:?}", case.name, case.sees));
        }
    }
    wrong
}

async fn the_truth_table_holds(webui: Schema) {
    let cases = cases();
    let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
    pair.litellm(&served()).await;
    // Half of them are there before us; of the others each statement comes by itself, those of one case in any order
    // LiteLLM's foreign keys allow.
    let mut random = StdRng::seed_from_u64(7);
    let mut before = String::new();
    let mut live: Vec<String> = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if number % 2 == 0 {
            before.write_fmt(format_args!("{}", case.statements.concat())).unwrap();
        } else {
            let place = case.statements.iter().position(|text| text.contains("LiteLLM_UserTable")).unwrap();
            let (fixed, free) = case.statements.split_at(place + 1);
            let mut free = free.to_vec();
            free.shuffle(&mut random);
            live.extend(fixed.iter().cloned());
            live.append(&mut free);
        }
    }
    pair.litellm(&before).await;
    let daemon = Daemon::with(&pair, &policy());
    pair.settle().await;
    for some in live.chunks(7) {
        pair.litellm(&some.concat()).await;
    }
    assert_eq!(pair.settle().await, 0, "{}", pair.dead_letters().await);
    let found = wrong(&pair, &cases).await;
    assert!(found.is_empty(), "{} of {} wrong:\n{}", found.len(), cases.len(), found.join("\n"));
    // From scratch it comes out the same, and nothing is left to do.
    drop(daemon);
    let before = rows_of_access(&pair).await;
    pair.webui("update litellm_webui_sync.checkpoint set projected_with = 'something else'").await;
    let daemon = Daemon::with(&pair, &policy());
    daemon.ready().await;
    pair.settle().await;
    assert_eq!(before, rows_of_access(&pair).await);
    let found = wrong(&pair, &cases).await;
    assert!(found.is_empty(), "from scratch, {} wrong:\n{}", found.len(), found.join("\n"));
}

/// Everything of ours in Open WebUI that has to do with models, as text.
async fn rows_of_access(pair: &Pair) -> BTreeMap<String, BTreeSet<String>> {
    let mut shown = visible(pair).await;
    let groups = crate::support::compare::members(pair).await;
    let groups = groups.into_iter().filter(|(group, _)| group.starts_with("grp_models_"));
    shown.insert("groups".to_owned(), groups.map(|(group, account)| format!("{group} {account}")).collect());
    shown
}

#[tokio::test]
async fn the_truth_table_holds_on_0_12_4() {
    the_truth_table_holds(Schema::OpenWebUi0_12_4).await;
}

#[tokio::test]
async fn the_truth_table_holds_on_0_8_12() {
    the_truth_table_holds(Schema::OpenWebUi0_8_12).await;
}

#[tokio::test]
async fn the_truth_table_holds_on_0_6_43() {
    the_truth_table_holds(Schema::OpenWebUi0_6_43).await;
}

#[tokio::test]
async fn the_truth_table_holds_on_0_6_30() {
    the_truth_table_holds(Schema::OpenWebUi0_6_30).await;
}

#[tokio::test]
async fn churn_of_everything_ends_with_exactly_the_models_each_person_may_use() {
    for webui in [Schema::OpenWebUi0_12_4, Schema::OpenWebUi0_6_30] {
        let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
        testbed::seed(&pair.source, 200, 20, 6, 500).await.unwrap();
        let _daemon = Daemon::start(&pair);
        pair.settle().await;
        let found = differences(&pair, &[]).await;
        assert!(
            found.is_empty(),
            "{webui} after the copy, {} differences:\n{}",
            found.len(),
            found.join("\n")
        );
        for round in 1..=3 {
            testbed::churn(&pair.source, round, 60, 2, round == 2).await.unwrap();
            pair.settle().await;
            let found = differences(&pair, &[]).await;
            assert!(
                found.is_empty(),
                "{webui} round {round}, {} differences:\n{}",
                found.len(),
                found.join("\n")
            );
        }
        assert_in_step(&pair).await;
    }
}

#[tokio::test]
async fn what_happens_to_a_team_reaches_who_is_not_in_it_and_has_a_key_for_it() {
    let pair = Pair::new().await;
    pair.litellm(
        &[
            served(),
            person("ann", "ann@x.test"),
            "insert into \"LiteLLM_TeamTable\" (team_id, models, members_with_roles) values ('t', '{gpt-4}', '[]');
             insert into \"LiteLLM_VerificationToken\" (token, user_id, team_id, models) values ('k', 'ann', 't', '{}')"
                .to_owned(),
        ]
        .concat(),
    )
    .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let seen = || async { visible(&pair).await.remove("usr_ann").unwrap_or_default() };
    assert_eq!(seen().await, ["gpt-4".to_owned()].into());
    for (change, sees) in [
        ("update \"LiteLLM_TeamTable\" set models = '{claude-3,gpt-4}'", vec!["claude-3", "gpt-4"]),
        ("update \"LiteLLM_TeamTable\" set blocked = true", vec![]),
        ("update \"LiteLLM_TeamTable\" set blocked = false, models = '{claude-3}'", vec!["claude-3"]),
        ("delete from \"LiteLLM_TeamTable\"", vec![]),
        ("insert into \"LiteLLM_TeamTable\" (team_id, models, members_with_roles) values ('t', '{gpt-4o}', '[]')", vec!["gpt-4o"]),
        (
            "insert into \"LiteLLM_AccessGroupTable\" (access_group_id, access_group_name, access_model_names) values ('g', 'G', '{claude-3}');
             update \"LiteLLM_TeamTable\" set access_group_ids = '{g}'",
            vec!["claude-3", "gpt-4o"],
        ),
        ("update \"LiteLLM_AccessGroupTable\" set access_model_names = '{dall-e-3}'", vec!["dall-e-3", "gpt-4o"]),
        ("update \"LiteLLM_VerificationToken\" set team_id = 'elsewhere'", vec![]),
        ("update \"LiteLLM_VerificationToken\" set team_id = 't', allowed_routes = '{management_routes}'", vec![]),
        ("update \"LiteLLM_VerificationToken\" set allowed_routes = '{llm_api_routes}'", vec!["dall-e-3", "gpt-4o"]),
        ("update \"LiteLLM_VerificationToken\" set blocked = true", vec![]),
    ] {
        pair.litellm(change).await;
        pair.settle().await;
        assert_eq!(seen().await, sees.into_iter().map(str::to_owned).collect(), "{change}");
        assert_in_step(&pair).await;
    }
}

#[tokio::test]
async fn access_says_who_is_an_admin_locked_or_without_an_account() {
    use crate::support::daemon::run;
    let pair = Pair::new().await;
    pair.litellm(
        &[
            served(),
            person("ann", "ann@x.test"),
            person("boss", "boss@x.test"),
            "update \"LiteLLM_UserTable\" set user_role = 'proxy_admin' where user_id = 'boss'".to_owned(),
        ]
        .concat(),
    )
    .await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    let (code, out, _) = run(&pair, &["access", "boss@x.test", "gpt-4"]);
    assert!(code == 0 && out.contains("may use it, sees it (through the role)"), "{out}");
    let (code, out, _) = run(&pair, &["access", "ann@x.test", "gpt-4"]);
    assert!(code == 0 && out.contains("Open WebUI agrees"), "{out}");
    daemon.terminate();
    // An admin of Open WebUI's keeps her out.
    pair.webui("update \"user\" set role = 'pending' where id = 'usr_ann'").await;
    let (code, out, _) = run(&pair, &["access", "ann@x.test", "gpt-4"]);
    assert!(code == 0 && out.contains("cannot sign in") && out.contains("does not see it"), "{out}");
    pair.webui("delete from \"user\" where id = 'usr_ann'").await;
    let (code, out, _) = run(&pair, &["access", "ann@x.test", "gpt-4"]);
    assert!(code == 3 && out.contains("somebody deleted it") && !out.contains("agrees"), "{out}");
    pair.webui("update \"user\" set role = 'user' where id = 'usr_boss'").await;
    let (code, out, _) = run(&pair, &["access", "boss@x.test", "gpt-4"]);
    assert!(code == 3 && out.contains("not yet one of Open WebUI"), "{out}");
}

#[tokio::test]
async fn a_group_under_an_access_group_is_named_and_counted() {
    use crate::support::daemon::run;
    let pair = Pair::new().await;
    let narrow = "update \"LiteLLM_UserTable\" set models = '{gpt-4}' where user_id like 'a%'";
    pair.litellm(
        &[served(), crate::support::people("a", 6), person("eve", "eve@x.test"), narrow.to_owned()].concat(),
    )
    .await;
    pair.litellm("update \"LiteLLM_UserTable\" set models = '{claude-3}' where user_id = 'eve'").await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(run(&pair, &["access", "eve@x.test"]).0, 0);
    pair.webui(
        "insert into \"group\" (id, user_id, name, description, created_at, updated_at, parent_group_id)
         select 'child', '', 'Child', '', 1, 1, id from \"group\" where name like 'Models: gpt-4%';
         insert into group_member (id, group_id, user_id) values ('m', 'child', 'usr_eve')",
    )
    .await;
    let (code, out, _) = run(&pair, &["access", "eve@x.test", "gpt-4"]);
    assert!(code == 3 && out.contains("may not use it, sees it"), "{out}");
    let (_, out, _) = run(&pair, &["status"]);
    assert!(out.contains("Child: it stands under an access group"), "{out}");
    let (_, out, _) = run(&pair, &["doctor"]);
    assert!(out.contains("groups under access groups"), "{out}");
}
