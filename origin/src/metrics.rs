//! `GET /metrics` for Prometheus: how long requests took, and how the pools stand.
//!
//! The listener is the edge's alone, and no route of the edge leads here: whoever scrapes asks the instance itself.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{Method, StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus::{HistogramOpts, HistogramVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::{
    app::{App, StartError},
    database::{Moment, on},
    jobs::measured::Measured,
    refusal::Refusal,
};

/// Bounds of the buckets in seconds: the budgets of queries and of requests are among them.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0];

/// What is measured.
pub struct Metrics {
    registry: Registry,
    requests: HistogramVec,
    connections: IntGaugeVec,
    replicas: IntGaugeVec,
    /// Of jobs.
    pub jobs: Measured,
}

impl Metrics {
    /// Nothing measured yet.
    ///
    /// # Errors
    /// When two rows have one name.
    pub fn new() -> Result<Self, StartError> {
        let duration = HistogramOpts::new(
            "weir_origin_request_duration_seconds",
            "from the head of a request to the head of its answer",
        );
        let requests = HistogramVec::new(duration.buckets(BUCKETS.to_vec()), &["route", "method", "status"])?;
        let connections =
            Opts::new("weir_origin_connections", "connections of the pool to the primary, by what they do");
        let connections = IntGaugeVec::new(connections, &["state"])?;
        let replicas =
            Opts::new("weir_origin_replica_fit", "1 while a replica is asked, 0 while it is left out");
        let replicas = IntGaugeVec::new(replicas, &["replica"])?;
        let registry = Registry::new();
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(connections.clone()))?;
        registry.register(Box::new(replicas.clone()))?;
        let jobs = Measured::new(&registry)?;
        Ok(Self { registry, requests, connections, replicas, jobs })
    }

    /// Counts an answer. `route` is the pattern of the path, so that the labels are a closed set.
    pub fn answered(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        // A client may make methods up.
        let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        let method = if known.contains(method) { method.as_str() } else { "other" };
        self.requests.with_label_values(&[route, method, status.as_str()]).observe(took.as_secs_f64());
    }
}

/// The route of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new().route("/metrics", get(scrape))
}

async fn scrape(State(app): State<Arc<App>>) -> Result<impl IntoResponse, Refusal> {
    let metrics = &app.metrics;
    let (size, idle) = on!(&app.database, |pool| (pool.size() as usize, pool.num_idle()));
    for (state, count) in [("idle", idle), ("used", size.saturating_sub(idle))] {
        metrics.connections.with_label_values(&[state]).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    for (name, fit) in app.replicas.states() {
        metrics.replicas.with_label_values(&[name]).set(i64::from(fit));
    }
    // Here too, although another process may do them: what grows while nobody works is worth seeing.
    metrics.jobs.look(&app.database, Moment::now()).await;
    let text = TextEncoder::new()
        .encode_to_string(&metrics.registry.gather())
        .map_err(|error| Refusal::Internal(error.into()))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}
