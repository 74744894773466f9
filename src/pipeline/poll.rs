//! Asks LiteLLM's `/v1/models` which models it serves: those of its config.yaml are nowhere else.
//!
//! Owns the request: its time, its size, and what counts as an answer. Knows no database. A failure is logged and counted,
//! and whatever was last heard stays true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::access::lists::is_name;
use crate::config::ModelsApi;
use crate::observe::metrics::Metrics;
use crate::postgres;

/// How long one request may take, from the look-up of the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(10);
const BODY_MAX_BYTES: usize = 4 * 1024 * 1024;
const NAMES_MAX: usize = 20_000;
/// Changes of LiteLLM's rows ask for a fresh answer, but not more often than this.
const CALM: Duration = Duration::from_secs(2);

/// The names of the last answer.
pub type Answer = Option<Arc<BTreeSet<String>>>;

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
    Status(hyper::StatusCode),
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
            Ok(names) => {
                if failing {
                    tracing::info!(models = names.len(), "LiteLLM's /v1/models answers again");
                }
                failing = false;
                metrics.model_polls.with_label_values(&["ok"]).inc();
                answers.send_if_modified(|last| {
                    let is_news = last.as_deref() != Some(&names);
                    if is_news {
                        *last = Some(Arc::new(names));
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
pub async fn once(api: &ModelsApi) -> Result<BTreeSet<String>, String> {
    let answer = tokio::time::timeout(PATIENCE, ask(api)).await.unwrap_or(Err(Failure::Silent));
    answer.map_err(|error| error.to_string())
}

async fn ask(api: &ModelsApi) -> Result<BTreeSet<String>, Failure> {
    let uri = &api.url;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(Failure::Connect)?;
    if !is_tls {
        return exchange(api, uri, stream).await;
    }
    let config =
        postgres::https_config(api.ca_file.as_deref()).map_err(|error| Failure::Tls(error.to_string()))?;
    let name = ServerName::try_from(host).map_err(|error| Failure::Tls(error.to_string()))?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(Failure::Connect)?;
    exchange(api, uri, stream).await
}

async fn exchange(
    api: &ModelsApi,
    uri: &Uri,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<BTreeSet<String>, Failure> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    let connection = tokio::spawn(connection);
    let path = format!("{}/v1/models", uri.path().trim_end_matches('/').trim_end_matches("/v1"));
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
    names(&body.to_bytes())
}

/// The names in an answer. One without any is taken for a LiteLLM that has not read its configuration yet, or for a key that
/// lists no more than "all its team's" or a pattern: everybody would lose everything.
fn names(body: &[u8]) -> Result<BTreeSet<String>, Failure> {
    let answer: serde_json::Value = serde_json::from_slice(body).map_err(|_| Failure::Content)?;
    let models = answer.get("data").and_then(serde_json::Value::as_array).ok_or(Failure::Content)?;
    if models.len() > NAMES_MAX {
        return Err(Failure::Size);
    }
    let names: BTreeSet<String> = models
        .iter()
        .filter_map(|model| model.get("id")?.as_str())
        .filter(|name| is_name(name))
        .map(str::to_owned)
        .collect();
    if names.is_empty() { Err(Failure::Nothing) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
