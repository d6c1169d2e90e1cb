//! What a worker's own process answers: `/health` for whoever starts it again, `/metrics` for Prometheus.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::time::timeout;

use super::{measured::Measured, worker::Worker};
use crate::{
    app::PRIVATE,
    database::{Database, Moment},
    refusal::Refusal,
};

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the answers are made of.
pub struct Watched {
    /// The store.
    pub database: Database,
    /// Who works.
    pub worker: Arc<Worker>,
    /// The rows of jobs.
    pub measured: Measured,
    /// Where they are.
    pub registry: Registry,
}

/// The routes of a worker.
pub fn routes(watched: Watched) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/metrics", get(scrape))
        .fallback(async || Refusal::NotFound)
        .with_state(Arc::new(watched))
}

async fn health(State(watched): State<Arc<Watched>>) -> impl IntoResponse {
    let answer = timeout(PATIENCE, watched.database.ping()).await;
    let database = answer.is_ok_and(|answer| answer.is_ok());
    let worker = watched.worker.is_turning(Moment::now());
    let word = |healthy| if healthy { "ok" } else { "failed" };
    let code = if database && worker { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let status = if database && worker { "ok" } else { "unavailable" };
    let checks = json!({ "database": word(database), "worker": word(worker) });
    (code, PRIVATE, Json(json!({ "status": status, "checks": checks })))
}

async fn scrape(State(watched): State<Arc<Watched>>) -> Result<impl IntoResponse, Refusal> {
    watched.measured.look(&watched.database, Moment::now()).await;
    let text = TextEncoder::new()
        .encode_to_string(&watched.registry.gather())
        .map_err(|error| Refusal::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
