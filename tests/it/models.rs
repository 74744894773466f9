//! Models in Open WebUI: whose rows and grants are whose, and what LiteLLM's `/v1/models` says.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use testbed::lists::with_lists;
use testbed::{Schema, connect};

use crate::access::served;
use crate::support::compare::assert_in_step;
use crate::support::daemon::{DaemonOptions, run};
use crate::support::models::{differences, differences_of, visible};
use crate::support::{Daemon, Pair, PairOptions, change, eventually, gone, people, person, team};

async fn sees(pair: &Pair, account: &str) -> String {
    let shown = visible(pair).await.remove(account).unwrap_or_default();
    shown.into_iter().collect::<Vec<_>>().join(" ")
}

/// LiteLLM's `/v1/models` and `/v1/model/info`: answers with what it is told, and remembers what it was asked.
struct Api {
    address: SocketAddr,
    answer: Arc<Mutex<(u16, String)>>,
    info: Arc<Mutex<(u16, String)>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new((200, String::new())));
        let info = Arc::new(Mutex::new((403, String::new())));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answers, infos, questions) = (Arc::clone(&answer), Arc::clone(&info), Arc::clone(&asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = [0; 4096];
                let read = stream.read(&mut head).unwrap_or_default();
                let question = String::from_utf8_lossy(&head[..read]).into_owned();
                let told = if question.starts_with("GET /v1/model/info ") { &infos } else { &answers };
                let (code, body) = told.lock().unwrap().clone();
                questions.lock().unwrap().push(question);
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {code} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });
        Self { address, answer, info, asked }
    }

    fn serves(&self, models: &[&str]) {
        let data: Vec<String> =
            models.iter().map(|model| format!("{{\"id\": {model:?}, \"object\": \"model\"}}")).collect();
        *self.answer.lock().unwrap() =
            (200, format!("{{\"object\": \"list\", \"data\": [{}]}}", data.join(", ")));
    }

    fn fails(&self, code: u16, body: &str) {
        *self.answer.lock().unwrap() = (code, body.to_owned());
    }

    async fn asked_again(&self) {
        let before = self.asked.lock().unwrap().len();
        // Twice, so that the first of them saw the present answer. Where the first question is answered, there is a second.
        eventually("another question", || async { self.asked.lock().unwrap().len() > before + 3 }).await;
    }
}

#[tokio::test]
async fn models_of_a_config_file_come_and_go_with_what_litellm_answers() {
    let pair = Pair::new().await;
    pair.litellm(
        &[people("a", 1), person("b", "b@x.test"), change("b", "models = '{from-config}'")].concat(),
    )
    .await;
    let api = Api::start();
    api.serves(&["from-config", "other", "all-team-models", "openai/*"]);
    let options = DaemonOptions {
        policy: Some("[models]\npoll_seconds = 1\n".to_owned()),
        environment: vec![
            ("LITELLM_WEBUI_SYNC_LITELLM_URL", format!("http://{}/v1/", api.address)),
            ("LITELLM_WEBUI_SYNC_LITELLM_KEY", "sk-zq-list".to_owned()),
        ],
        ..DaemonOptions::default()
    };
    let daemon = Daemon::with(&pair, &options);
    eventually("the models", || async { sees(&pair, "usr_a1").await == "from-config other" }).await;
    assert_eq!(sees(&pair, "usr_b").await, "from-config");
    let asked = api.asked.lock().unwrap()[0].clone();
    assert!(asked.starts_with("GET /v1/models HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains("authorization: bearer sk-zq-list"), "{asked}");

    // Whatever is no answer changes nothing.
    for (code, body) in [(500, "{}"), (401, "no"), (200, "<html>"), (200, "{\"data\": []}")] {
        api.fails(code, body);
        api.asked_again().await;
        assert_eq!(sees(&pair, "usr_a1").await, "from-config other", "{code} {body}");
    }
    let (_, metrics) = daemon.get("/metrics");
    assert!(metrics.contains("model_polls_total{result=\"failed\"} "), "{metrics}");
    assert!(!metrics.contains("zq") && !daemon.log().contains("zq"));

    // One goes: nobody sees it, and its row stays.
    api.serves(&["other"]);
    eventually("one model less", || async { sees(&pair, "usr_a1").await == "other" }).await;
    assert_eq!(sees(&pair, "usr_b").await, "");
    assert_eq!(pair.ask("select is_active from model where id = 'from-config'").await, "f");
    assert_eq!(pair.ask("select count(*) from access_grant where resource_id = 'from-config'").await, "0");
    api.serves(&["other", "from-config"]);
    eventually("it to come back", || async { sees(&pair, "usr_b").await == "from-config" }).await;
    assert_eq!(pair.ask("select is_active from model where id = 'from-config'").await, "t");
    drop(daemon);
    // The last answer outlives the daemon, and a LiteLLM that is gone.
    api.fails(500, "");
    pair.litellm(&person("c", "c@x.test")).await;
    let _daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_c").await, "from-config other");
}

#[tokio::test]
async fn an_access_group_of_a_config_file_stands_for_its_models() {
    let pair = Pair::new().await;
    pair.litellm(&[person("a", "a@x.test"), change("a", "models = '{premium}'")].concat()).await;
    let api = Api::start();
    api.serves(&["big", "small"]);
    let options = DaemonOptions {
        policy: Some("[models]\npoll_seconds = 1\n".to_owned()),
        environment: vec![
            ("LITELLM_WEBUI_SYNC_LITELLM_URL", format!("http://{}", api.address)),
            ("LITELLM_WEBUI_SYNC_LITELLM_KEY", "sk-list".to_owned()),
        ],
        ..DaemonOptions::default()
    };
    let _daemon = Daemon::with(&pair, &options);
    pair.settle().await;
    // The key may not ask: there are names, and no groups.
    let known = "select count(*) from litellm_webui_sync.other_model";
    eventually("the names", || async { pair.ask(known).await == "2" }).await;
    assert_eq!(sees(&pair, "usr_a").await, "");
    let info = |groups: &str| {
        let data = format!(
            "{{\"data\": [{{\"model_name\": \"big\", \"model_info\": {{\"access_groups\": {groups}}}}}]}}"
        );
        *api.info.lock().unwrap() = (200, data);
    };
    info("[\"premium\"]");
    eventually("the group's model", || async { sees(&pair, "usr_a").await == "big" }).await;
    // What is no answer changes nothing.
    *api.info.lock().unwrap() = (500, String::new());
    api.asked_again().await;
    assert_eq!(sees(&pair, "usr_a").await, "big");
    info("[]");
    eventually("no model", || async { sees(&pair, "usr_a").await.is_empty() }).await;
}

#[tokio::test]
async fn rows_and_grants_of_others_stay_and_a_public_model_is_named() {
    for webui in [Schema::OpenWebUi0_12_4, Schema::OpenWebUi0_6_43] {
        let pair = Pair::with(PairOptions { webui, ..PairOptions::default() }).await;
        let is_table = webui == Schema::OpenWebUi0_12_4;
        let control = if is_table { ("", "", "") } else { (", access_control", ", '{}'", ", null") };
        pair.webui(&format!(
            "insert into model (id, user_id, base_model_id, name, params, meta, is_active, created_at, updated_at{0}) values
                ('gpt-4', 'boss', null, 'Mine', '{{\"a\": 1}}', '{{}}', true, 1, 1{1}),
                ('gpt-4o', 'boss', null, 'Public', '{{}}', '{{}}', true, 1, 1{2}),
                ('claude-3', 'boss', 'gpt-4', 'Preset with a name of LiteLLM''s', '{{}}', '{{}}', true, 1, 1{1})",
            control.0, control.1, control.2
        ))
        .await;
        if is_table {
            pair.webui(
                "insert into access_grant (id, resource_type, resource_id, principal_type, principal_id, permission, created_at) values
                    ('1', 'model', 'gpt-4', 'user', 'boss', 'read', 1), ('2', 'model', 'gpt-4o', 'user', '*', 'read', 1),
                    ('3', 'model', 'gpt-4', 'user', 'usr_a1', 'read', 1)",
            )
            .await;
        } else {
            pair.webui(
                "update model set access_control = '{\"read\": {\"user_ids\": [\"boss\", \"usr_a1\"], \"group_ids\": [\"x\"]}}' where id = 'gpt-4'",
            )
            .await;
        }
        pair.litellm(&[served(), people("a", 7), change("a1", "models = '{dall-e-3}'")].concat()).await;
        let daemon = Daemon::start(&pair);
        pair.settle().await;
        assert_eq!(sees(&pair, "usr_a2").await, "dall-e-3 gpt-4 gpt-4o");
        // Given by somebody else, so not ours to take.
        assert_eq!(sees(&pair, "usr_a1").await, "dall-e-3 gpt-4 gpt-4o");
        assert_eq!(pair.ask("select name || params from model where id = 'gpt-4'").await, "Mine{\"a\": 1}");
        let (_, out, _) = run(&pair, &["status"]);
        assert!(out.contains("public model"), "{out}");
        assert!(out.contains("gpt-4o: everybody sees it"), "{out}");
        let (_, out, _) = run(&pair, &["doctor"]);
        assert!(out.contains("public models") && out.contains("gpt-4o"), "{out}");
        eventually("the metric", || async { daemon.metric("public_models") == 1.0 }).await;
        let (code, out, _) = run(&pair, &["access", "a1@x.test", "gpt-4"]);
        assert_eq!(code, 3, "{out}");
        assert!(out.contains("differs"), "{out}");
        // Everybody loses a model: what others gave stays.
        pair.litellm("update \"LiteLLM_ProxyModelTable\" set blocked = true where model_name = 'gpt-4'")
            .await;
        pair.settle().await;
        assert_eq!(sees(&pair, "usr_a2").await, "dall-e-3 gpt-4o");
        assert_eq!(pair.ask("select is_active from model where id = 'gpt-4'").await, "t", "not our row");
        drop(daemon);
        // Taken back only if the policy says so.
        let options = DaemonOptions {
            policy: Some("[models]\npublic = \"take\"\n".to_owned()),
            ..DaemonOptions::default()
        };
        let _daemon = Daemon::with(&pair, &options);
        eventually("the public model to be taken back", || async {
            sees(&pair, "usr_a1").await == "dall-e-3 gpt-4"
        })
        .await;
        assert_eq!(sees(&pair, "usr_a2").await, "dall-e-3 gpt-4o");
    }
}

#[tokio::test]
async fn a_set_becomes_a_group_with_the_fifth_person_and_none_with_the_fourth() {
    let pair = Pair::new().await;
    pair.litellm(&[served(), people("a", 4)].concat()).await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    let groups = "select count(*) from \"group\" where id like 'grp\\_models\\_%'";
    let direct = "select count(*) from access_grant where principal_type = 'user'";
    assert_eq!((pair.ask(groups).await.as_str(), pair.ask(direct).await.as_str()), ("0", "16"));
    pair.litellm(&person("b", "b@x.test")).await;
    assert_in_step_now(&pair).await;
    assert_eq!((pair.ask(groups).await.as_str(), pair.ask(direct).await.as_str()), ("1", "0"));
    assert_eq!(
        pair.ask("select name from \"group\" where id like 'grp\\_models\\_%'").await,
        "Models: claude-3, dall-e-3 +2"
    );
    // Somebody put in by hand leaves with the next look at everything; somebody deleted comes back.
    pair.litellm(&team("t", "T", None, &[])).await;
    pair.litellm(&gone("b")).await;
    assert_in_step_now(&pair).await;
    assert_eq!((pair.ask(groups).await.as_str(), pair.ask(direct).await.as_str()), ("0", "16"));
    pair.litellm(&[gone("a1"), gone("a2"), gone("a3"), gone("a4")].concat()).await;
    assert_in_step_now(&pair).await;
    assert_eq!(pair.ask(direct).await, "0");
}

async fn assert_in_step_now(pair: &Pair) {
    assert_eq!(pair.settle().await, 0);
    assert_in_step(pair).await;
}

#[tokio::test]
async fn a_prefix_of_the_connection_is_part_of_every_id() {
    let pair = Pair::new().await;
    pair.webui(
        "insert into config (key, value) values ('openai.api_base_urls', '[\"http://litellm:4000/v1\"]'),
            ('openai.api_configs', '{\"0\": {\"enable\": true, \"prefix_id\": \"llm\"}}')",
    )
    .await;
    pair.litellm(&[served(), people("a", 2)].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_eq!(sees(&pair, "usr_a1").await, "llm.claude-3 llm.dall-e-3 llm.gpt-4 llm.gpt-4o");
    let (code, out, err) = run(&pair, &["access", "a1@x.test", "gpt-4"]);
    assert_eq!(code, 0, "{out}{err}");
    drop(daemon);
    pair.webui("update config set value = '{}' where key = 'openai.api_configs'").await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    eventually("the ids without a prefix", || async {
        sees(&pair, "usr_a1").await == "claude-3 dall-e-3 gpt-4 gpt-4o"
    })
    .await;
    assert!(differences(&pair, &[]).await.is_empty());
}

#[tokio::test]
async fn a_model_or_a_person_that_cannot_be_written_stops_nobody_else() {
    let pair = Pair::new().await;
    pair.webui(
        "alter table model add constraint no_dall_e check (id <> 'dall-e-3');
         alter table access_grant add constraint not_a2 check (principal_id <> 'usr_a2')",
    )
    .await;
    pair.litellm(&[served(), people("a", 3)].concat()).await;
    let _daemon = Daemon::start(&pair);
    assert_eq!(pair.settle().await, 2);
    assert_eq!(pair.dead_letters().await, "access:a2 model:dall-e-3");
    assert_eq!(sees(&pair, "usr_a1").await, "claude-3 gpt-4 gpt-4o");
    assert_eq!(sees(&pair, "usr_a2").await, "");
    pair.webui(
        "alter table model drop constraint no_dall_e; alter table access_grant drop constraint not_a2",
    )
    .await;
    eventually("the retry", || async { pair.dead_letters().await.is_empty() }).await;
    assert_in_step(&pair).await;
}

#[tokio::test]
async fn losing_every_model_counts_for_the_brake() {
    let pair = Pair::new().await;
    pair.litellm(&[served(), people("a", 30)].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("delete from \"LiteLLM_ProxyModelTable\"").await;
    eventually("the brake", || async { daemon.get("/readyz").1.contains("approve") }).await;
    assert_eq!(sees(&pair, "usr_a1").await, "claude-3 dall-e-3 gpt-4 gpt-4o");
    let id = pair.ask("select id from litellm_webui_sync.brake").await;
    assert_eq!(run(&pair, &["approve", &id]).0, 0);
    eventually("everybody to lose them", || async { sees(&pair, "usr_a1").await.is_empty() }).await;
}

/// Open WebUI's own group sync takes people out of every group their token does not name, at each sign-in.
#[tokio::test]
async fn who_is_taken_out_of_our_groups_when_they_sign_in_is_back_within_seconds() {
    let pair = Pair::new().await;
    pair.litellm(&[served(), people("a", 6), team("t", "T", None, &["a1", "a2"])].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    assert_in_step(&pair).await;
    let groups =
        "select string_agg(group_id, ' ' order by group_id) from group_member where user_id = 'usr_a1'";
    let before = pair.ask(groups).await;
    assert!(before.contains("grp_team_t") && before.contains("grp_models_"), "{before}");
    daemon.ready().await;
    // One after the other: also who signs in again.
    for _ in 0..2 {
        pair.webui(
            "delete from group_member where user_id = 'usr_a1';
             update \"user\" set last_active_at = greatest(extract(epoch from clock_timestamp())::bigint, created_at + 1) where id = 'usr_a1'",
        )
        .await;
        eventually("to be back", || async { pair.ask(groups).await == before }).await;
    }
    eventually("to be counted", || async { daemon.metric("people_put_back_total") == 2.0 }).await;
    assert_in_step(&pair).await;
}

/// Everybody's models are read on a session of its own, which may be lost: then on the one that writes.
#[tokio::test]
async fn a_reader_that_is_lost_half_way_is_done_without() {
    let pair = Pair::new().await;
    let teams = team("t", "T", None, &["a1", "a2"]);
    pair.litellm(&[served(), people("a", 4), teams].concat()).await;
    pair.litellm(&change("a3", "models = '{gpt-4}'")).await;
    let mut daemon = Daemon::start(&pair);
    pair.settle().await;
    daemon.terminate();
    // What whoever reads looks at and whoever writes does not.
    let lock = connect(&pair.target).await.unwrap();
    lock.batch_execute("begin; lock table litellm_webui_sync.litellm_project").await.unwrap();
    let policy = Some("[grants]\ngroup_min = 2\n".to_owned());
    let daemon = Daemon::with(&pair, &DaemonOptions { policy, ..DaemonOptions::default() });
    let waiting =
        "select pid from pg_stat_activity where wait_event_type = 'Lock' and query like '%access_key%'";
    eventually("it waits", || async { !pair.ask(waiting).await.is_empty() }).await;
    let reader = pair.ask(waiting).await;
    pair.webui(&format!("select pg_terminate_backend({reader})")).await;
    eventually("the other waits", || async {
        let waits = pair.ask(waiting).await;
        !waits.is_empty() && waits != reader
    })
    .await;
    lock.batch_execute("rollback").await.unwrap();
    pair.settle().await;
    assert!(
        daemon.log().contains("projected everything") && !daemon.log().contains("trying again"),
        "{}",
        daemon.log()
    );
    assert_eq!(sees(&pair, "usr_a3").await, "gpt-4");
    assert_eq!(differences(&pair, &[]).await, [""; 0]);
    assert_in_step(&pair).await;
}

/// So many that they are looked up together and not one by one, some of them with more keys than say different things.
#[tokio::test]
async fn many_people_get_what_each_of_them_alone_would() {
    let pair = Pair::new().await;
    pair.litellm(&with_lists(2_300, 2_200)).await;
    pair.litellm(
        "update \"LiteLLM_TeamTable\" set members_with_roles = members_with_roles || (
             select jsonb_agg(jsonb_build_object('user_id', null, 'user_email', 'U' || i || '@x.test', 'role', 'user'))
               from generate_series(1, 60) i)
          where team_id = 't2';
         update \"LiteLLM_BudgetTable\" set allowed_models = '{model-01,model-1*,tag-3}' where budget_id = 'b7';
         insert into \"LiteLLM_TeamMembership\" (user_id, team_id, budget_id)
         select 'u' || i, 't' || 1 + i % 2, 'b7' from generate_series(1, 200) i;
         insert into \"LiteLLM_OrganizationMembership\" (user_id, organization_id, user_role, updated_at)
         select 'u' || i, 'o' || 1 + i % 7, 'internal_user', now() from generate_series(1, 300) i;
         insert into \"LiteLLM_VerificationToken\" (token, user_id, team_id, models, blocked, expires)
         select encode(sha256(('h' || i)::bytea), 'hex'), 'u' || 2 + i % 3, case i % 2 when 0 then 't1' end,
                case i % 5 when 0 then '{model-05}' else '{tag-1,model-2*}' end::text[], i % 4 > 0,
                case i % 6 when 0 then timestamp '2020-01-01' end
           from generate_series(1, 900) i",
    )
    .await;
    let _daemon = Daemon::start(&pair);
    pair.settle().await;
    // Everybody with something of their own, and some of the others.
    let some = |id: &str| id[1..].parse().is_ok_and(|i: u32| i <= 12 || i.is_multiple_of(230));
    assert_eq!(differences_of(&pair, &[], some).await, Vec::<String>::new());
    let scans = "select seq_scan from pg_stat_user_tables where relname = 'litellm_key'";
    let before: i64 = pair.ask(scans).await.parse().unwrap();
    for change in [
        "update \"LiteLLM_TeamTable\" set models = '{model-01,model-02}' where team_id = 't1'",
        "update \"LiteLLM_TeamTable\" set members_with_roles = (
             select jsonb_agg(e) from jsonb_array_elements(members_with_roles) with ordinality x (e, n) where n > 2100)
          where team_id = 't1'",
        "update \"LiteLLM_ProxyModelTable\" set blocked = true where model_name in ('model-05', 'model-11')",
    ] {
        pair.litellm(change).await;
        pair.settle().await;
        assert_eq!(differences_of(&pair, &[], some).await, Vec::<String>::new(), "{change}");
    }
    eventually("they are looked up together", || async {
        pair.ask(scans).await.parse::<i64>().unwrap() > before
    })
    .await;
}
