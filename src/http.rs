//! `/metrics`, `/healthz` and `/readyz`.
//!
//! Reads memory only: the pages answer when both databases are down.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
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
