//! The four scenarios people come with: an organization with its teams, three people, what they may do, and how that
//! changes. Written as LiteLLM's endpoints write them, each statement in its own transaction; every step says what each
//! person sees.

use std::time::Duration;

use serde_json::Value;
use testbed::Schema;

use crate::support::compare::assert_in_step;
use crate::support::daemon::run;
use crate::support::models::visible;
use crate::support::{Daemon, Pair, PairOptions, eventually, person, quote};

const BASIC: &[&str] = &["gpt-3.5-turbo"];
const ADVANCED: &[&str] = &["claude-3", "gpt-4", "qwen3-omni-30b-thinking"];

fn array(models: &[&str]) -> String {
    let models: Vec<String> = models.iter().map(|model| quote(model)).collect();
    format!("array[{}]::text[]", models.join(", "))
}

/// What `/organization/new`, `/team/new`, … send.
struct LiteLlm<'a> {
    pair: &'a Pair,
}

impl LiteLlm<'_> {
    async fn all(&self, statements: &[String]) {
        for statement in statements {
            self.pair.litellm(statement).await;
        }
    }

    async fn model_new(&self, name: &str) {
        let sql = format!(
            "insert into \"LiteLLM_ProxyModelTable\" (model_id, model_name, litellm_params, model_info, created_by, updated_by)
             values (gen_random_uuid(), {}, '{{\"model\": \"encrypted\"}}', '{{\"db_model\": true}}', 'default_user_id', 'default_user_id')",
            quote(name)
        );
        self.pair.litellm(&sql).await;
    }

    async fn organization_new(&self, id: &str, alias: &str, models: &[&str]) {
        self.all(&[
            format!("insert into \"LiteLLM_BudgetTable\" (budget_id, created_by, updated_by) values ('b-{id}', 'default_user_id', 'default_user_id')"),
            format!(
                "insert into \"LiteLLM_OrganizationTable\" (organization_id, organization_alias, budget_id, models, created_by, updated_by)
                 values ('{id}', {}, 'b-{id}', {}, 'default_user_id', 'default_user_id')",
                quote(alias),
                array(models)
            ),
        ])
        .await;
    }

    async fn team_new(&self, id: &str, alias: &str, organization: &str, models: &[&str]) {
        let sql = format!(
            "insert into \"LiteLLM_TeamTable\" (team_id, team_alias, organization_id, members_with_roles, admins, members, models, max_budget)
             values ('{id}', {}, '{organization}', '[]', '{{}}', '{{}}', {}, 5000)",
            quote(alias),
            array(models)
        );
        self.pair.litellm(&sql).await;
    }

    /// With the key LiteLLM makes by itself, and `/team/member_add`.
    async fn user_new(
        &self,
        id: &str,
        alias: Option<&str>,
        role: &str,
        team: Option<&str>,
        organization: Option<&str>,
        models: &[&str],
    ) {
        let email = format!("{id}@techcompany.com");
        let or_null = |text: Option<&str>| text.map_or("null".to_owned(), quote);
        let (team_id, organization) = (or_null(team), or_null(organization));
        self.all(&[
            format!(
                "insert into \"LiteLLM_UserTable\" (user_id, user_alias, user_email, user_role, team_id, organization_id, models, teams, max_budget)
                 values ('{id}', {}, '{email}', '{role}', {team_id}, {organization}, {}, '{{}}', 2000)",
                or_null(alias),
                array(models)
            ),
            format!(
                "insert into \"LiteLLM_VerificationToken\" (token, key_name, user_id, team_id, models, created_by)
                 values (encode(sha256('sk-auto-{id}'), 'hex'), 'sk-...auto', '{id}', {team_id}, {}, 'default_user_id')",
                array(models)
            ),
        ])
        .await;
        if let Some(team) = team {
            let sql = format!(
                "update \"LiteLLM_UserTable\" set teams = teams || '{team}'::text where user_id = '{id}' and not '{team}' = any (teams);
                 insert into \"LiteLLM_TeamMembership\" (user_id, team_id) values ('{id}', '{team}') on conflict do nothing;
                 update \"LiteLLM_TeamTable\" set members_with_roles = members_with_roles || '[{{\"user_id\": \"{id}\", \"user_email\": \"{email}\", \"role\": \"user\"}}]'
                  where team_id = '{team}'"
            );
            self.pair.litellm(&sql).await;
        }
    }

    async fn key_generate(&self, user: &str, alias: &str, models: &[&str], seconds: Option<u32>) {
        let expires = seconds.map_or("null".to_owned(), |seconds| {
            format!("now() at time zone 'UTC' + interval '{seconds} seconds'")
        });
        let sql = format!(
            "insert into \"LiteLLM_VerificationToken\" (token, key_name, key_alias, user_id, models, expires, created_by)
             values (encode(sha256('sk-{alias}'), 'hex'), 'sk-...{}', '{alias}', '{user}', {}, {expires}, 'default_user_id')",
            &alias[..4],
            array(models)
        );
        self.pair.litellm(&sql).await;
    }

    async fn update(&self, table: &str, key: &str, id: &str, models: &[&str]) {
        let sql = format!(
            "update \"{table}\" set models = {}, updated_at = now() where {key} = '{id}'",
            array(models)
        );
        self.pair.litellm(&sql).await;
    }
}

async fn sees(pair: &Pair, user: &str) -> Vec<String> {
    pair.settle().await;
    visible(pair).await.remove(&format!("usr_{user}")).unwrap_or_default().into_iter().collect()
}

async fn four_scenarios(webui: Schema) {
    let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
    let litellm = LiteLlm { pair: &pair };
    let daemon = Daemon::start(&pair);
    for model in ["gpt-4", "gpt-3.5-turbo", "claude-3", "qwen3-omni-30b-thinking", "dall-e-3"] {
        litellm.model_new(model).await;
    }

    // 1: the organization and its teams.
    let organization = &[ADVANCED, BASIC].concat();
    litellm.organization_new("tech", "Tech Company Inc", organization).await;
    litellm.team_new("ai", "AI Research Team", "tech", ADVANCED).await;
    litellm.team_new("product", "Product Team", "tech", BASIC).await;
    pair.settle().await;
    assert_eq!(pair.ask("select name from \"group\" where id = 'grp_tech'").await, "Tech Company Inc");
    assert_eq!(pair.ask("select name from \"group\" where id = 'grp_team_ai'").await, "AI Research Team");
    assert_eq!(
        pair.ask("select string_agg(id, ' ' order by id) from model").await,
        "claude-3 dall-e-3 gpt-3.5-turbo gpt-4 qwen3-omni-30b-thinking"
    );
    assert_eq!(visible(&pair).await.len(), 0, "nobody is there to see anything");

    // 2.1: the researcher.
    litellm
        .user_new("alice", Some("Dr. Alice Wang"), "internal_user", Some("ai"), Some("tech"), ADVANCED)
        .await;
    assert_eq!(sees(&pair, "alice").await, ADVANCED);
    litellm.key_generate("alice", "alice_primary_key", ADVANCED, None).await;
    assert_eq!(sees(&pair, "alice").await, ADVANCED);
    assert_eq!(
        pair.account("alice@techcompany.com").await,
        "usr_alice|AI Research Team-Dr. Alice Wang|user|active"
    );
    // 2.2: the product manager.
    litellm.user_new("bob", Some("Bob Chen"), "internal_user", Some("product"), Some("tech"), BASIC).await;
    litellm.key_generate("bob", "bob_limited_key", BASIC, Some(30 * 86_400)).await;
    assert_eq!(sees(&pair, "bob").await, BASIC);
    assert_eq!(sees(&pair, "alice").await, ADVANCED);
    // 2.3: the administrator, who sees everything by being one.
    litellm
        .user_new("carol", Some("Carol Liu"), "proxy_admin", None, Some("tech"), &["all-proxy-models"])
        .await;
    litellm.key_generate("carol", "carol_admin_key", &["all-proxy-models"], None).await;
    assert_eq!(sees(&pair, "carol").await, Vec::<String>::new());
    assert_eq!(pair.account("carol@techcompany.com").await, "usr_carol|Carol Liu|admin|active");

    // 3: who may use what, and why.
    for (email, model, may) in [
        ("alice@techcompany.com", "gpt-4", true),
        ("alice@techcompany.com", "gpt-3.5-turbo", false),
        ("bob@techcompany.com", "gpt-3.5-turbo", true),
        ("Bob@TechCompany.com", "gpt-4", false),
        ("bob@techcompany.com", "no-such-model", false),
    ] {
        let (code, out, err) = run(&pair, &["access", email, model, "--json"]);
        assert_eq!(code, 0, "{email} {model}: {out}{err}");
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (&report["models"][0]["may"], &report["models"][0]["sees"]),
            (&may.into(), &may.into()),
            "{out}"
        );
        assert_eq!(report["agrees"], true, "{out}");
        assert!(!out.contains("sk-"), "{out}");
    }
    let (code, out, _) = run(&pair, &["access", "bob@techcompany.com", "gpt-4"]);
    assert_eq!(code, 0);
    for words in ["team product", "user", "organization tech", "gpt-3.5-turbo", "denies"] {
        assert!(out.contains(words), "{words} is not in\n{out}");
    }
    // Who has no account is told why.
    let scim = "update \"LiteLLM_UserTable\" set metadata = '{\"scim_active\": false}'";
    pair.litellm(&format!("{}; {scim} where user_id = 'late'", person("late", "late@techcompany.com"))).await;
    pair.settle().await;
    let (_, out, _) = run(&pair, &["access", "late@techcompany.com"]);
    assert!(out.contains("has no account in Open WebUI: deactivated by SCIM"), "{out}");
    let (code, _, err) = run(&pair, &["access", "nobody@techcompany.com"]);
    assert_eq!((code, err.contains("nobody@techcompany.com")), (1, true), "{err}");

    // 4.1: the product manager gets more for a while. The user's list alone does not do it: the team and the keys still
    // say no.
    let both = &["gpt-3.5-turbo", "gpt-4"];
    litellm.update("LiteLLM_UserTable", "user_id", "bob", both).await;
    assert_eq!(sees(&pair, "bob").await, BASIC);
    litellm.key_generate("bob", "bob_temp_premium_key", both, Some(6)).await;
    assert_eq!(sees(&pair, "bob").await, both);
    tokio::time::sleep(Duration::from_secs(6)).await;
    // LiteLLM writes nothing when a key expires. Whatever it writes about him next is enough.
    litellm
        .all(
            &["update \"LiteLLM_UserTable\" set user_alias = 'Bob B. Chen' where user_id = 'bob'".to_owned()],
        )
        .await;
    eventually("the temporary key to be over", || async { sees(&pair, "bob").await == BASIC }).await;

    // 4.2: the team gets one more, which the organization does not have, and two more people.
    litellm.update("LiteLLM_TeamTable", "team_id", "ai", &[ADVANCED, &["dall-e-3"]].concat()).await;
    assert_eq!(sees(&pair, "alice").await, ADVANCED);
    for id in ["ai_researcher_002", "ai_researcher_003"] {
        litellm.user_new(id, None, "internal_user", Some("ai"), None, ADVANCED).await;
        litellm.key_generate(id, &format!("{id}_key"), ADVANCED, None).await;
        assert_eq!(sees(&pair, id).await, ADVANCED);
    }
    // Who has no list of their own gets what team and organization have in common.
    litellm.user_new("frank", None, "internal_user", Some("ai"), None, &[]).await;
    assert_eq!(sees(&pair, "frank").await, ADVANCED);
    litellm
        .update(
            "LiteLLM_OrganizationTable",
            "organization_id",
            "tech",
            &[organization, &["dall-e-3"][..]].concat(),
        )
        .await;
    assert_eq!(sees(&pair, "frank").await, ["claude-3", "dall-e-3", "gpt-4", "qwen3-omni-30b-thinking"]);
    assert_eq!(sees(&pair, "alice").await, ADVANCED);
    // And back.
    litellm.update("LiteLLM_TeamTable", "team_id", "ai", &["gpt-4"]).await;
    for (id, models) in
        [("frank", &["gpt-4"][..]), ("ai_researcher_003", ADVANCED), ("alice", ADVANCED), ("bob", BASIC)]
    {
        assert_eq!(sees(&pair, id).await, models, "{id}");
    }
    assert_in_step(&pair).await;
    daemon.ready().await;
}

#[tokio::test]
async fn four_scenarios_on_0_12_4() {
    four_scenarios(Schema::OpenWebUi0_12_4).await;
}

#[tokio::test]
async fn four_scenarios_on_0_6_30() {
    four_scenarios(Schema::OpenWebUi0_6_30).await;
}
