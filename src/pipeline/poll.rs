//! Asks LiteLLM which models it serves: those of its config.yaml are in none of its tables. `/v1/models` has their names, and
//! `/v1/model/info` the access groups they are tagged with.
//!
//! Owns the request: its time, its size, and what counts as an answer. Knows no database. A failure is logged and counted,
//! and whatever was last heard stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::access::lists::{is_name, pattern};
use crate::config::ModelsApi;
use crate::observe::metrics::Metrics;
use crate::postgres;

/// How long one request may take, from the look-up of the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
/// `/v1/model/info` has prices and more of each model.
const BODY_MAX_BYTES: usize = 16 * 1024 * 1024;
const NAMES_MAX: usize = 20_000;
/// Changes of LiteLLM's rows ask for a fresh answer, but not more often than this.
const CALM: Duration = Duration::from_secs(2);

/// Names of models, and the access groups each is tagged with.
pub type Models = BTreeMap<String, BTreeSet<String>>;

/// The last answer.
pub type Answer = Option<Arc<Models>>;

/// What is wrong with an answer. Never the answer itself, nor the key.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("could not connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("{0}")]
    Tls(String),
    #[error("the exchange failed: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("the answer is too large, or was cut off")]
    Size,
    #[error("the answer is no list of models")]
    Content,
    #[error("the answer names no model: give LITELLM_WEBUI_SYNC_LITELLM_KEY a key that may list every model")]
    Nothing,
}

/// Asks now, then every `period` and whenever `again` is notified, until cancelled.
pub async fn run(
    api: ModelsApi,
    period: Duration,
    metrics: Arc<Metrics>,
    answers: watch::Sender<Answer>,
    again: Arc<Notify>,
    cancel: CancellationToken,
) {
    let mut failing = false;
    loop {
        match tokio::time::timeout(PATIENCE, ask(&api)).await.unwrap_or(Err(Failure::Silent)) {
            Ok(models) => {
                if failing {
                    tracing::info!(models = models.len(), "LiteLLM's /v1/models answers again");
                }
                failing = false;
                metrics.model_polls.with_label_values(&["ok"]).inc();
                answers.send_if_modified(|last| {
                    let is_news = last.as_deref() != Some(&models);
                    if is_news {
                        *last = Some(Arc::new(models));
                    }
                    is_news
                });
            }
            Err(error) => {
                metrics.model_polls.with_label_values(&["failed"]).inc();
                if !failing {
                    tracing::warn!(%error, "LiteLLM's /v1/models gave no answer: the last one stays true");
                }
                failing = true;
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(period) => {}
            () = async { again.notified().await; tokio::time::sleep(CALM).await } => {}
        }
    }
}

/// Asks once. The error is for people.
pub async fn once(api: &ModelsApi) -> Result<Models, String> {
    let answer = tokio::time::timeout(PATIENCE, ask(api)).await.unwrap_or(Err(Failure::Silent));
    answer.map_err(|error| error.to_string())
}

async fn ask(api: &ModelsApi) -> Result<Models, Failure> {
    let names = names(&get(api, "/v1/models").await?)?;
    match get(api, "/v1/model/info").await {
        Ok(body) => Ok(tagged(names, &body)?),
        // A key that may only list, or a LiteLLM that does not know the question: there are names, and no groups. Any other
        // failure says nothing about the groups, so what was last heard of all of it stays true.
        Err(Failure::Status(
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED,
        )) => Ok(tagged(names, b"{\"data\":[]}")?),
        Err(error) => Err(error),
    }
}

/// What LiteLLM answers to one question.
async fn get(api: &ModelsApi, question: &str) -> Result<Bytes, Failure> {
    let uri = &api.url;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(Failure::Connect)?;
    if !is_tls {
        return exchange(api, uri, question, stream).await;
    }
    let config =
        postgres::https_config(api.ca_file.as_deref()).map_err(|error| Failure::Tls(error.to_string()))?;
    let name = ServerName::try_from(host).map_err(|error| Failure::Tls(error.to_string()))?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(Failure::Connect)?;
    exchange(api, uri, question, stream).await
}

async fn exchange(
    api: &ModelsApi,
    uri: &Uri,
    question: &str,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Bytes, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    let connection = tokio::spawn(connection);
    let path = format!("{}{question}", uri.path().trim_end_matches('/').trim_end_matches("/v1"));
    let mut key =
        HeaderValue::try_from(format!("Bearer {}", api.key.expose())).map_err(|_| Failure::Content)?;
    key.set_sensitive(true);
    let request = Request::get(path)
        .header(HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(AUTHORIZATION, key)
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|_| Failure::Content)?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(Failure::Status(response.status()));
    }
    let body =
        Limited::new(response.into_body(), BODY_MAX_BYTES).collect().await.map_err(|_| Failure::Size)?;
    drop(sender);
    connection.abort();
    Ok(body.to_bytes())
}

/// The names in an answer. One without any is taken for a LiteLLM that has not read its configuration yet, or for a key that
/// lists no more than "all its team's" or a pattern: everybody would lose everything.
fn names(body: &[u8]) -> Result<BTreeSet<String>, Failure> {
    let models = data(body)?;
    let names: BTreeSet<String> = models
        .iter()
        .filter_map(|model| model.get("id")?.as_str())
        .filter(|name| is_name(name))
        .map(str::to_owned)
        .collect();
    if names.is_empty() { Err(Failure::Nothing) } else { Ok(names) }
}

fn data(body: &[u8]) -> Result<Vec<Value>, Failure> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| Failure::Content)?;
    match answer {
        Value::Object(mut answer) => match answer.remove("data") {
            Some(Value::Array(data)) if data.len() > NAMES_MAX => Err(Failure::Size),
            Some(Value::Array(data)) => Ok(data),
            _ => Err(Failure::Content),
        },
        _ => Err(Failure::Content),
    }
}

/// These names with the access groups that an answer of `/v1/model/info` tags them with. What is a row of LiteLLM's database is left out: its
/// tags are read there. A name that only some team's own deployments have is not everybody's, and is dropped. A name that no deployment has is served by patterns, and has their groups.
fn tagged(names: BTreeSet<String>, body: &[u8]) -> Result<Models, Failure> {
    let mut own: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let (mut of_teams, mut of_all) = (BTreeSet::new(), BTreeSet::new());
    for deployment in data(body)? {
        let Some(name) = deployment.get("model_name").and_then(Value::as_str) else { continue };
        let info = |field: &str| deployment.get("model_info").and_then(|info| info.get(field));
        let team = info("team_id").and_then(Value::as_str).unwrap_or_default();
        if !team.is_empty() {
            of_teams.insert(name.to_owned());
            of_teams.extend(info("team_public_model_name").and_then(Value::as_str).map(str::to_owned));
            continue;
        }
        of_all.insert(name.to_owned());
        if info("db_model").and_then(Value::as_bool) == Some(true) {
            continue;
        }
        let groups = info("access_groups").and_then(Value::as_array).into_iter().flatten();
        let groups = groups.filter_map(Value::as_str);
        own.entry(name.to_owned()).or_default().extend(groups.map(str::to_owned));
    }
    // Each of them once, and not for each name.
    let patterns: Vec<_> = own
        .iter()
        .filter(|(_, groups)| !groups.is_empty())
        .filter_map(|(name, groups)| Some((pattern(name)?, groups)))
        .collect();
    let of_patterns = |name: &str| {
        let fitting = patterns.iter().filter(|(pattern, _)| pattern.is_match(name));
        fitting.flat_map(|(_, groups)| groups.iter().cloned()).collect()
    };
    let with_groups = |name: String| {
        let groups = own.get(&name).cloned().unwrap_or_else(|| of_patterns(&name));
        (name, groups)
    };
    let is_common = |name: &String| !of_teams.contains(name) || of_all.contains(name);
    Ok(names.into_iter().filter(is_common).map(with_groups).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_has_the_groups_of_its_deployments_or_of_the_patterns_that_serve_it() {
        let answer = br#"{"data":[
            {"model_name":"a","model_info":{"access_groups":["beta"]}},
            {"model_name":"a","model_info":{"access_groups":["gamma",7],"db_model":false}},
            {"model_name":"x/*","model_info":{"access_groups":["wild"]}},
            {"model_name":"x/own","model_info":{}},
            {"model_name":"row","model_info":{"access_groups":["beta"],"db_model":true}},
            {"model_name":"b","model_info":{"access_groups":["theirs"],"team_id":"t"}},
            {"model_name":7},{}]}"#;
        let names = ["a", "b", "row", "x/1", "x/own"].map(str::to_owned).into();
        let groups = |name: &str| -> Vec<String> {
            tagged(BTreeSet::clone(&names), answer).unwrap()[name].iter().cloned().collect()
        };
        assert_eq!(groups("a"), ["beta", "gamma"]);
        assert_eq!(groups("x/1"), ["wild"]);
        for without in ["row", "x/own"] {
            assert!(groups(without).is_empty(), "{without}");
        }
        assert!(!tagged(BTreeSet::clone(&names), answer).unwrap().contains_key("b"));
        assert!(tagged(names, b"{}").is_err());
    }

    #[test]
    fn only_a_list_of_models_is_an_answer() {
        let answer = br#"{"object":"list","data":[{"id":"b"},{"id":"a","object":"model"},{"id":""},{"id":7},{},{"id":"a"}]}"#;
        assert_eq!(names(answer).unwrap().into_iter().collect::<Vec<_>>(), ["a", "b"]);
        for bad in [
            &b""[..],
            b"[]",
            b"{}",
            br#"{"data":[]}"#,
            br#"{"data":{"id":"a"}}"#,
            b"<html>",
            b"\xff",
            br#"{"data":[{"id":"all-team-models"},{"id":"openai/*"},{"id":"no-default-models"}]}"#,
        ] {
            assert!(names(bad).is_err(), "{bad:?}");
        }
    }
}
