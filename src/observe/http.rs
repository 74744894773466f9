//! The status page at `/` and `/api/status`, and `/metrics`, `/healthz` and `/readyz`.
//!
//! Reads memory only: the pages answer when both databases are down. The first two name people, so they are guarded
//! ([`crate::observe::guard`]); the others are open to whatever program reaches the address. `/metrics` has the ids and aliases
//! of those whose budgets are shown, as LiteLLM's own does. Whoever connects may take neither our time nor our sockets.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::budgets::Budgets;
use crate::config::policy::Names;
use crate::observe::board::Board;
use crate::observe::guard::{Asked, Guard, Refusal};
use crate::observe::metrics::Metrics;
use crate::observe::page::html;
use crate::observe::page::report::{Report, report};
use crate::observe::progress::{LAG_LIMIT, Progress};

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages {
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub budgets: Arc<Budgets>,
    pub board: Arc<Board>,
    pub names: Names,
    pub guard: Arc<Guard>,
}

impl Pages {
    fn report(&self) -> Report {
        report(&self.board, &self.progress, self.names, LAG_LIMIT)
    }
}

pub fn router(pages: Pages) -> Router {
    let guarded = Router::new()
        .route("/", get(page))
        .route("/api/status", get(status))
        .route_layer(from_fn_with_state(pages.clone(), admit));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route_layer(from_fn_with_state(pages.clone(), know))
        .merge(guarded)
        .layer(from_fn(harden))
        .with_state(pages)
}

async fn page(State(pages): State<Pages>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let refresh = query.is_none_or(|query| query.split('&').all(|part| part != "refresh=off"));
    let policy = HeaderValue::from_str(&html::POLICY).ok();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.extend(policy.map(|policy| (header::CONTENT_SECURITY_POLICY, policy)));
    (headers, html::page(&pages.report(), refresh))
}

async fn status(State(pages): State<Pages>) -> impl IntoResponse {
    axum::Json(pages.report())
}

/// Lets only those see people who may.
async fn admit(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let asked = Asked::of(request.headers());
    match pages.guard.admit(&asked) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal),
    }
}

/// Keeps other web pages from reading what needs no token.
async fn know(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    let asked = Asked::of(request.headers());
    match pages.guard.know(&asked) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refuse(refusal),
    }
}

impl<'a> Asked<'a> {
    fn of(headers: &'a HeaderMap) -> Self {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            host: text(header::HOST),
            authorization: text(header::AUTHORIZATION),
            fetch_mode: text(HeaderName::from_static("sec-fetch-mode")),
        }
    }
}

fn refuse(refusal: Refusal) -> Response {
    match refusal {
        Refusal::WrongToken => (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Basic realm=\"litellm-webui-sync\", charset=\"UTF-8\"")],
            refusal.explanation(),
        )
            .into_response(),
        Refusal::NoToken | Refusal::ForeignHost | Refusal::Script => {
            (StatusCode::FORBIDDEN, refusal.explanation()).into_response()
        }
    }
}

/// What every answer says to browsers and caches.
async fn harden(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ));
    response
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let text = pages.metrics.render(&pages.progress, &pages.budgets);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn ready(State(pages): State<Pages>) -> impl IntoResponse {
    match pages.progress.readiness(LAG_LIMIT) {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")),
    }
}

/// Binds the address; an error names it.
///
/// # Errors
/// When the address is taken or not ours.
pub async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    use anyhow::Context;
    TcpListener::bind(address)
        .await
        .with_context(|| format!("could not listen on {address}: choose another with --http, or --http off"))
}

/// How long somebody may take to say what they want, and an idle connection is kept.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once. More would take the file descriptors that the links to the databases need: the oldest makes room, so
/// that whoever asks for our health is always heard.
const CONNECTIONS: usize = 128;
/// How long answers that are on their way may take once we end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(2);

/// Serves until cancelled.
pub async fn serve(listener: TcpListener, pages: Pages, cancel: CancellationToken) {
    let service = TowerToHyperService::new(router(pages));
    let mut connections = JoinSet::new();
    let mut oldest: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        // Reaps what has ended.
        while connections.try_join_next().is_some() {}
        oldest.retain(|connection| !connection.is_finished());
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, say. It passes, and must not keep a core busy until then.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if oldest.len() >= CONNECTIONS
            && let Some(connection) = oldest.pop_front()
        {
            connection.abort();
        }
        let (service, cancel) = (service.clone(), cancel.clone());
        oldest.push_back(connections.spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            let mut connection = std::pin::pin!(connection);
            // How a visitor's connection ends is nothing to us.
            let _ = tokio::select! {
                ended = &mut connection => ended,
                () = cancel.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
        }));
    }
    let _ = tokio::time::timeout(DRAIN_PATIENCE, async { while connections.join_next().await.is_some() {} })
        .await;
}

/// How long a process that is alive may take to say so.
const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

/// Asks the daemon that serves `address` for `/healthz`.
///
/// # Errors
/// When it does not answer in time, or not with 200.
pub async fn ask_health(address: SocketAddr) -> anyhow::Result<()> {
    use anyhow::Context;
    // Where it listens on every address, any of this machine's own will do.
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let address = SocketAddr::new(ip, address.port());
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        Ok::<_, std::io::Error>(status)
    };
    let status = tokio::time::timeout(HEALTH_PATIENCE, asked)
        .await
        .map_err(|_| anyhow::anyhow!("{address} did not answer within {} s", HEALTH_PATIENCE.as_secs()))?
        .with_context(|| format!("{address} does not answer"))?;
    anyhow::ensure!(
        status == *b"HTTP/1.1 200",
        "what answers at {address} is not healthy, or not the daemon"
    );
    Ok(())
}
