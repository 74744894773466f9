//! The status page and `/api/status`: every state a daemon can be in, who may look, and what nobody sees.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use litellm_webui_sync::budgets::{Budgets, rules::State as BudgetState};
use litellm_webui_sync::config::Secret;
use litellm_webui_sync::config::policy::{Names, Policy};
use litellm_webui_sync::error::Error;
use litellm_webui_sync::observe::board::{Board, Budget};
use litellm_webui_sync::observe::guard::Guard;
use litellm_webui_sync::observe::http::{self, Pages};
use litellm_webui_sync::observe::metrics::Metrics;
use litellm_webui_sync::observe::progress::{Progress, State};
use serde_json::Value;
use testbed::{Cluster, ClusterOptions, Mode};
use tokio_util::sync::CancellationToken;

use crate::support::daemon::{DaemonOptions, fetch, run};
use crate::support::{
    DEADLINE, Daemon, Pair, PairOptions, change, eventually, gone, people, person, rows, team,
};

const HTTP: &[(&str, &str)] = &[("Host", "localhost")];

/// The page and the JSON, checked against the schema we publish.
fn look(daemon: &Daemon) -> (String, Value) {
    let (code, page) = daemon.get("/");
    assert_eq!(code, 200, "{page}");
    let (code, json) = daemon.get("/api/status");
    assert_eq!(code, 200, "{json}");
    (page, checked(&json))
}

/// The JSON, if it is what the schema says.
fn checked(json: &str) -> Value {
    let value = serde_json::from_str(json).unwrap();
    let faults: Vec<String> = validator(&schema())
        .iter_errors(&value)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:?}\n{json}");
    value
}

fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.schema.json");
    let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    close(&mut schema);
    schema
}

/// A field the schema does not know must fail a test, though not a client.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.contains_key("properties") {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            object.values_mut().for_each(close);
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::validator_for(schema).unwrap()
}

/// Waits until the page has this headline, and returns the page and the JSON.
async fn headline(daemon: &Daemon, words: &str) -> (String, Value) {
    eventually(&format!("the headline \"{words}\""), || async {
        serde_json::from_str::<Value>(&daemon.get("/api/status").1)
            .is_ok_and(|json| json["health"]["headline"] == words)
    })
    .await;
    let (page, json) = look(daemon);
    assert!(page.contains(&format!("<h1 id=\"verdict\">{words}</h1>")), "{page}");
    (page, json)
}

#[tokio::test]
async fn a_daemon_at_work_says_that_it_is_in_step_and_what_it_did() {
    let pair = Pair::new().await;
    let budget = change("a1", "max_budget = 10, spend = 9.5");
    pair.litellm(&[people("a", 3), team("t1", "The Team", None, &["a1", "a2"]), budget].concat()).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    eventually("the budgets", || async { look(&daemon).0.contains("Budgets near their limit") }).await;
    let (page, json) = headline(&daemon, "In step").await;
    assert!(page.contains("95 %") && page.contains("nearly used up"), "{page}");
    assert_eq!((&json["budgets"][0]["id"], &json["budgets"][0]["state"]), (&"a…".into(), &"warning".into()));
    assert_eq!(json["health"]["healthy"], true);
    assert_eq!(json["health"]["level"], "fine");
    assert_eq!(json["status"]["accounts_active"], 3);
    assert_eq!((&json["status"]["teams"], &json["status"]["members"]), (&1.into(), &2.into()));
    assert_eq!(json["last_copy"]["kind"], "first");
    assert!(json["last_copy"]["rows"].as_u64().unwrap() >= 4, "{json}");
    assert_eq!(json["versions"]["litellm_tables"], json["versions"]["litellm_tables_known"]);
    assert!(json["versions"]["webui_postgres"].as_str().unwrap().contains('.'), "{json}");
    assert_eq!(json["failures"], Value::Array(Vec::new()));
    assert_eq!(json["lag"]["worst_by_minute"].as_array().unwrap().len(), 60);

    pair.litellm(&[person("bo", "bo.short@corp.test"), gone("a3")].concat()).await;
    pair.settle().await;
    eventually("what was done", || async { daemon.get("/").1.contains("b…, b…@c…") }).await;
    let (page, json) = look(&daemon);
    let audit = json["audit"].as_array().unwrap();
    let done = |operation: &str| {
        audit.iter().find(|one| one["operation"] == operation).unwrap_or_else(|| panic!("{json}"))
    };
    assert_eq!(done("DEACTIVATE_USER")["what"], "account locked");
    assert_eq!(done("SYNC_USER")["result"], "SUCCESS");
    assert!(page.contains("<th scope=\"row\">Open WebUI: API keys</th>"), "{page}");
    // The same counts as the command that asks the databases.
    let (code, said, _) = run(&pair, &["status", "--json"]);
    assert_eq!(code, 0);
    let asked: Value = serde_json::from_str(&said).unwrap();
    let status = schema()["$defs"]["StatusReport"].clone();
    let mut whole = schema();
    for key in ["properties", "required", "type", "additionalProperties"] {
        whole[key] = status[key].clone();
    }
    assert!(validator(&whole).is_valid(&asked), "{said}");
    eventually("the same counts", || async {
        let now: Value = serde_json::from_str(&daemon.get("/api/status").1).unwrap();
        ["accounts_active", "accounts_locked", "groups", "members", "skipped", "models", "layout"]
            .iter()
            .all(|key| now["status"][key] == asked[key])
    })
    .await;
}

#[tokio::test]
async fn nobody_is_named_unless_the_policy_says_so_and_no_text_becomes_markup() {
    let pair = Pair::new().await;
    let evil = "<script>alert(1)</script> \"quoted\" & co";
    pair.litellm(&team("t<b>", "<img src=x onerror=alert(2)>", None, &["carla"])).await;
    let hide = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm(&person("carla", "carla.secretive@zanzibar.test")).await;
    pair.litellm(&change("carla", &format!("user_alias = '{evil}'"))).await;
    pair.litellm(&person("rival", "carla.secretive@zanzibar.test")).await;
    pair.settle().await;
    let (page, json) = headline(&hide, "In step, with exceptions").await;
    eventually("the audit", || async { hide.get("/").1.contains("@z…") }).await;
    for text in [&page, &hide.get("/").1, &hide.get("/api/status").1] {
        for word in ["carla", "secretive", "zanzibar", "rival", "quoted"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
        assert!(!text.contains("<script") && !text.contains("<img"), "{text}");
    }
    assert_eq!(json["names_masked"], true);
    let letter = &json["failures"][0];
    assert_eq!(
        (&letter["kind"], &letter["key"], &letter["critical"]),
        (&"account".into(), &"r…".into(), &false.into())
    );
    assert!(letter["what_to_do"].as_str().unwrap().contains("Two people"), "{letter}");
    drop(hide);

    let policy = Some("[http]\nnames = \"show\"".to_owned());
    let show = Daemon::with(&pair, &DaemonOptions { policy, ..DaemonOptions::default() });
    headline(&show, "In step, with exceptions").await;
    pair.litellm(&change("carla", "user_role = 'proxy_admin'")).await;
    pair.settle().await;
    eventually("her name", || async { show.get("/").1.contains("carla.secretive@zanzibar.test") }).await;
    let (page, json) = look(&show);
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &quot;quoted&quot; &amp; co"), "{page}");
    assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    assert_eq!(json["failures"][0]["key"], "rival");
}

#[tokio::test]
async fn a_held_batch_shows_the_command_that_lets_it_pass() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 60)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.litellm("delete from \"LiteLLM_UserTable\" where substr(user_id, 2)::int <= 30").await;
    let (page, json) = headline(&daemon, "Held back").await;
    let id = pair.ask("select max(id) from litellm_webui_sync.brake where used_at is null").await;
    assert!(page.contains(&format!("<code>litellm-webui-sync approve {id}</code>")), "{page}");
    assert!(page.contains("30 of 60 active people"), "{page}");
    assert_eq!((&json["health"]["level"], &json["health"]["healthy"]), (&"trouble".into(), &false.into()));
    assert_eq!(
        (&json["status"]["brake"]["people"], &json["status"]["brake"]["active"]),
        (&30.into(), &60.into())
    );
    assert_eq!(run(&pair, &["approve", &id]).0, 0);
    headline(&daemon, "In step").await;
    eventually("the counts", || async { daemon.get("/api/status").1.contains("\"accounts_active\":30") })
        .await;
    eventually("the end of the brake", || async { look(&daemon).1["status"]["brake"].is_null() }).await;
}

#[tokio::test]
async fn a_paused_daemon_and_one_that_waits_for_open_webui_say_what_to_do() {
    let pair = Pair::with(PairOptions { admin: false, ..PairOptions::default() }).await;
    let daemon = Daemon::start(&pair);
    let (page, json) = headline(&daemon, "Waiting for Open WebUI").await;
    assert!(page.contains("the first account becomes its administrator"), "{page}");
    assert_eq!((&json["health"]["level"], &json["health"]["healthy"]), (&"waiting".into(), &false.into()));
    testbed::open_webui_admin(&pair.target).await.unwrap();
    headline(&daemon, "In step").await;
    assert_eq!(run(&pair, &["pause", "--reason", "moving <house>"]).0, 0);
    let (page, json) = headline(&daemon, "Paused").await;
    assert!(
        page.contains("moving &lt;house&gt;") && page.contains("<code>litellm-webui-sync resume</code>"),
        "{page}"
    );
    assert_eq!(json["health"]["state"], "paused");
    assert_eq!(run(&pair, &["resume"]).0, 0);
    headline(&daemon, "In step").await;
}

#[tokio::test]
async fn a_standby_says_that_another_one_is_at_work() {
    let pair = Pair::new().await;
    let mut leader = Daemon::start(&pair);
    headline(&leader, "In step").await;
    let standby = Daemon::start(&pair);
    let (_, json) = headline(&standby, "Standing by").await;
    assert_eq!((&json["status"], &json["lag"]["seconds"]), (&Value::Null, &Value::Null));
    leader.kill9();
    let (_, json) = headline(&standby, "In step").await;
    assert_eq!(json["status"]["accounts_active"], 0);
}

#[tokio::test]
async fn the_first_copy_says_how_far_it_is() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 50)).await;
    let options = DaemonOptions {
        failpoints: Some("copied-not-merged=sleep(4000)".to_owned()),
        ..DaemonOptions::default()
    };
    let daemon = Daemon::with(&pair, &options);
    eventually("the rows", || async { daemon.get("/api/status").1.contains("\"rows\":50") }).await;
    let (page, json) = headline(&daemon, "First copy").await;
    assert_eq!((&json["copy"]["kind"], &json["copy"]["rows"]), (&"first".into(), &50.into()));
    assert!(page.contains("<progress"), "{page}");
    assert_eq!(json["status"], Value::Null);
    let (page, json) = headline(&daemon, "In step").await;
    assert_eq!(json["copy"], Value::Null);
    assert!(!page.contains("<progress"), "{page}");
}

#[tokio::test]
async fn with_both_databases_down_it_says_so_and_shows_what_it_last_knew() {
    let cluster = Cluster::start(ClusterOptions::default()).unwrap();
    let pair = Pair::on(&cluster, &cluster, PairOptions::default()).await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    headline(&daemon, "In step").await;
    cluster.stop(Mode::Immediate, DEADLINE).unwrap();
    let (page, json) = headline(&daemon, "No connection").await;
    assert!(
        page.contains("Counts as of ") && page.contains("<code>litellm-webui-sync doctor</code>"),
        "{page}"
    );
    assert_eq!(json["status"]["accounts_active"], 3);
    assert_eq!(
        (&json["health"]["level"], &json["status"]["state"]),
        (&"trouble".into(), &"reconnecting".into())
    );
    // One that has never seen them.
    let other = Daemon::start(&pair);
    let (page, json) = headline(&other, "No connection").await;
    assert_eq!(json["status"], Value::Null);
    assert!(!page.contains("postgres:") && !page.contains("postgresql://"), "{page}");
}

#[tokio::test]
async fn somebody_with_too_much_access_is_what_the_page_says_first() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 3)).await;
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    pair.webui(
        "alter table \"user\" add constraint refused check (id <> 'usr_a2' or role <> 'pending') not valid",
    )
    .await;
    pair.litellm(&gone("a2")).await;
    pair.settle().await;
    headline(&daemon, "Too much access").await;
    eventually("the failure", || async { daemon.get("/api/status").1.contains("\"critical\":true") }).await;
    let (page, json) = look(&daemon);
    assert_eq!((&json["failures"][0]["critical"], &json["failures_total"]), (&true.into(), &1.into()));
    assert!(page.contains("too much access</strong>"), "{page}");
    assert_eq!(json["health"]["healthy"], false);
    pair.webui("alter table \"user\" drop constraint refused").await;
}

#[tokio::test]
async fn only_this_machine_under_its_own_name_is_answered_without_a_token() {
    let pair = Pair::new().await;
    let daemon = Daemon::start(&pair);
    headline(&daemon, "In step").await;
    let with = |method: &str, path: &str, headers: &[(&str, &str)]| {
        fetch(daemon.http(), method, path, headers).unwrap()
    };
    for path in ["/", "/api/status"] {
        for host in ["localhost", "127.0.0.1:9466", "[::1]:1"] {
            assert_eq!(with("GET", path, &[("Host", host)]).code, 200, "{host}");
        }
        let refused = with("GET", path, &[("Host", "rebound.evil.test")]);
        assert_eq!(refused.code, 403);
        assert!(
            refused.body.contains("LITELLM_WEBUI_SYNC_HTTP_TOKEN") && !refused.body.contains("<html"),
            "{refused:?}"
        );
        let head = with("HEAD", path, HTTP);
        assert_eq!((head.code, head.body.as_str()), (200, ""));
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(with(method, path, HTTP).code, 405, "{method}");
        }
        let answer = with("GET", path, HTTP);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
            ("content-security-policy", "default-src 'none'"),
        ] {
            assert!(answer.header(name).contains(value), "{name}: {answer:?}");
        }
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(with("GET", path, &[("Host", "anything.test")]).code, 403, "{path}");
        assert_ne!(with("GET", path, HTTP).code, 403, "{path}");
    }
    for path in ["/nothing", "/api", "/api/status/", "//", "/index.html", "/style.css", "/%00"] {
        assert_eq!(with("GET", path, HTTP).code, 404, "{path}");
    }
    // It asks for itself again, until somebody reads.
    assert!(with("GET", "/", HTTP).body.contains("http-equiv=\"refresh\""));
    assert!(!with("GET", "/?refresh=off", HTTP).body.contains("http-equiv"));
    let page = with("GET", "/", HTTP);
    assert!(
        !page.body.contains("http://") && !page.body.contains("https://") && !page.body.contains(" style="),
        "{page:?}"
    );
    assert!(page.body.len() < 40_000, "{}", page.body.len());
}

#[tokio::test]
async fn reachable_from_elsewhere_it_takes_the_token_and_nothing_else() {
    let pair = Pair::new().await;
    let token = "f00d-0123456789abcdef";
    let open = |environment: Vec<(&'static str, String)>| {
        Daemon::listening(
            &pair,
            [0, 0, 0, 0].into(),
            &DaemonOptions { environment, ..DaemonOptions::default() },
        )
    };
    let daemon = open(Vec::new());
    eventually("an answer", || async { daemon.get("/healthz").0 == 200 }).await;
    let (code, said) = daemon.get("/");
    assert!(code == 403 && said.contains("LITELLM_WEBUI_SYNC_HTTP_TOKEN"), "{code} {said}");
    assert_eq!(daemon.get("/api/status").0, 403);
    assert!(daemon.log().contains("has no token"), "{}", daemon.log());
    drop(daemon);

    let daemon = open(vec![("LITELLM_WEBUI_SYNC_HTTP_TOKEN", token.to_owned())]);
    eventually("readiness", || async { daemon.get("/readyz").0 == 200 }).await;
    let with = |authorization: &str| {
        let headers = [("Host", "sync.example"), ("Authorization", authorization)];
        fetch(daemon.http(), "GET", "/", &headers).unwrap()
    };
    let refused = fetch(daemon.http(), "GET", "/api/status", HTTP).unwrap();
    assert_eq!(refused.code, 401);
    assert!(refused.header("www-authenticate").starts_with("Basic "), "{refused:?}");
    for wrong in ["Bearer f00d", "Basic Zm9v", "Bearer", "f00d-0123456789abcdef"] {
        assert_eq!(with(wrong).code, 401, "{wrong}");
    }
    assert_eq!(with(&format!("Bearer {token}")).code, 200);
    // base64 of "anybody:f00d-0123456789abcdef"
    let answer = with("Basic YW55Ym9keTpmMDBkLTAxMjM0NTY3ODlhYmNkZWY=");
    assert_eq!(answer.code, 200);
    assert!(!answer.body.contains(token) && !daemon.log().contains(token));
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(daemon.get(path).0, 200, "{path}");
    }
}

/// A daemon that stops for good ends moments later, so this one is only its pages: the words must be right all the same.
#[tokio::test]
async fn one_that_has_stopped_healing_says_why_and_budgets_show_when_there_are_some() {
    let progress = Arc::new(Progress::default());
    let board = Arc::new(Board::default());
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = http::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let pages = Pages {
        metrics: Arc::new(Metrics::new().unwrap()),
        progress: Arc::clone(&progress),
        budgets: Arc::new(Budgets::new(Policy::default().budgets)),
        board: Arc::clone(&board),
        names: Names::Mask,
        guard: Arc::new(Guard::new(address, None::<Secret>)),
    };
    let cancel = CancellationToken::new();
    let serving = tokio::spawn(http::serve(listener, pages, cancel.clone()));
    let error = Error::Gap { reason: "the slot is lost (and more copies than 3 an hour)".to_owned() };
    board.set_trouble(&error);
    progress.set_state(State::Stopped, Some(error.to_string()));
    let budget = |alias: &str, ratio: f64, state| Budget {
        kind: "team".to_owned(),
        id: "t".to_owned(),
        alias: Some(alias.to_owned()),
        spend: ratio * 50.0,
        limit: Some(50.0),
        ratio: Some(ratio),
        state,
    };
    board.set_budgets(Some(vec![
        budget("Fast & Full", 1.25, BudgetState::Exceeded),
        budget("Plenty left", 0.1, BudgetState::Ok),
    ]));
    let get = |path: &'static str| {
        let answer = move || fetch(address, "GET", path, HTTP).unwrap();
        tokio::task::spawn_blocking(answer)
    };
    let page = get("/").await.unwrap().body;
    assert!(page.contains(">Stopped</h1>") && page.contains("more copies than 3 an hour"), "{page}");
    assert!(page.contains("<code>litellm-webui-sync setup --accept-source</code>"), "{page}");
    assert!(page.contains("Fast &amp; Full") && page.contains("125 %") && page.contains("used up"), "{page}");
    assert!(!page.contains("Plenty left"), "{page}");
    let json = checked(&get("/api/status").await.unwrap().body);
    assert_eq!(
        (&json["budgets"][0]["state"], &json["health"]["level"]),
        (&"exceeded".into(), &"trouble".into())
    );
    cancel.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn whoever_says_nothing_takes_neither_our_health_nor_our_links() {
    let pair = Pair::new().await;
    pair.litellm(&people("a", 1)).await;
    // As few file descriptors as some systems give.
    let daemon = Daemon::start(&pair);
    pair.settle().await;
    let address = daemon.http();
    let half_open: Vec<TcpStream> = (0..1200)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            // The first of them are hung up on meanwhile.
            let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-");
            stream
        })
        .collect();
    for path in ["/healthz", "/readyz"] {
        assert_eq!(daemon.get(path).0, 200, "{path}");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    assert!(open < 300, "{open} file descriptors are taken");
    // New links can be made.
    rows(
        &pair.target,
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await;
    pair.litellm(&people("b", 1)).await;
    pair.settle().await;
    drop(half_open);
}

#[tokio::test]
async fn without_a_token_every_page_asks_for_a_name_of_this_machine() {
    let pair = Pair::new().await;
    let daemon = Daemon::start(&pair);
    let fetched = |path: &str, host: &str| fetch(daemon.http(), "GET", path, &[("Host", host)]).unwrap().code;
    eventually("it answers", || async { daemon.get("/healthz").0 == 200 }).await;
    for path in ["/metrics", "/healthz", "/readyz", "/", "/api/status"] {
        assert_eq!(fetched(path, "evil.test"), 403, "{path}");
        assert_ne!(fetched(path, "localhost"), 403, "{path}");
    }
}
