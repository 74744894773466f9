//! `/metrics`, `/healthz` and `/readyz`.
//!
//! Reads memory only: the pages answer when both databases are down.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::budgets::Budgets;
use crate::metrics::Metrics;
use crate::progress::{LAG_LIMIT, Progress};

/// What the pages show.
#[derive(Debug, Clone)]
pub struct Pages {
    pub metrics: Arc<Metrics>,
    pub progress: Arc<Progress>,
    pub budgets: Arc<Budgets>,
}

pub fn router(pages: Pages) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(pages)
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

/// Serves until cancelled.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: TcpListener, pages: Pages, cancel: CancellationToken) -> anyhow::Result<()> {
    axum::serve(listener, router(pages)).with_graceful_shutdown(cancel.cancelled_owned()).await?;
    Ok(())
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
