//! `GET /health`: whether this instance should be asked.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use serde_json::json;
use tokio::time::timeout;

use crate::app::{App, PRIVATE};

/// A check that takes longer has failed; edges ask every few seconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// The route of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/health", get(health))
}

/// 503 only without the database. Redis or the replicas being away is `degraded` and still 200: all instances share them, and an edge
/// that left them all out because of it would turn "slower" into "down".
async fn health(State(app): State<Arc<App>>) -> impl IntoResponse {
    let database = async { timeout(PATIENCE, app.database.ping()).await.is_ok_and(|answer| answer.is_ok()) };
    let redis = async {
        let mut redis = app.redis.clone()?;
        let ping = redis::cmd("PING");
        Some(
            timeout(PATIENCE, ping.query_async::<String>(&mut redis))
                .await
                .is_ok_and(|answer| answer.is_ok()),
        )
    };
    let (database, redis) = tokio::join!(database, redis);
    let replica = app.replicas.are_fit();
    let (code, status) = match (database, redis, replica) {
        (false, ..) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        (true, Some(false), _) | (true, _, Some(false)) => (StatusCode::OK, "degraded"),
        (true, ..) => (StatusCode::OK, "ok"),
    };
    let word = |healthy| if healthy { "ok" } else { "failed" };
    let checks = json!({
        "database": word(database),
        "replica": replica.map_or("disabled", word),
        "redis": redis.map_or("disabled", word),
    });
    (code, PRIVATE, Json(json!({ "status": status, "checks": checks })))
}
