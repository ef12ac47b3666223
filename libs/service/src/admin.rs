//! What operators and their probes ask, on a port of its own: `/livez`, `/readyz`, `/metrics`.

use axum::{Router, extract::State, http::StatusCode, http::header, response::IntoResponse, routing::get, serve::ListenerExt as _};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{error::ServiceError, metrics::Metrics};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why the process is not ready, one reason a component; empty when it is.
pub(crate) type Unready = Vec<String>;

#[derive(Debug, Clone)]
struct Admin {
    metrics: Metrics,
    unready: watch::Receiver<Unready>,
}

pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    unready: watch::Receiver<Unready>,
    shutdown: CancellationToken,
) -> Result<(), ServiceError> {
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Admin { metrics, unready });
    // axum leaves Nagle's algorithm on, which costs small answers 40 ms.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY refused");
        }
    });
    let end = shutdown.cancelled_owned();
    axum::serve(listener, router).with_graceful_shutdown(end).await.map_err(ServiceError::io("the admin server failed"))
}

async fn ready(State(admin): State<Admin>) -> (StatusCode, String) {
    let unready = admin.unready.borrow();
    if unready.is_empty() { (StatusCode::OK, "ok".to_owned()) } else { (StatusCode::SERVICE_UNAVAILABLE, unready.join("\n")) }
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.metrics.encode() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, OPENMETRICS)], text),
        Err(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], "metrics cannot be written".to_owned())
        }
    }
}
