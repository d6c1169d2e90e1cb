//! The operators' listener, on loopback by default: is it alive, is it ready, is it well, what does it measure.
//!
//! | path | answer |
//! |---|---|
//! | `/live` | 200 while the process runs its loop |
//! | `/ready` | 200 while new clients should be sent here, 503 while it drains |
//! | `/health` | 200 or 503 with a check for each thing it depends on |
//! | `/metrics` | Prometheus' text form |
//! | `/api/metrics` | the same figures in short, as JSON for people |
//! | `/explain` | why a request is, or would not be, answered from the cache: see [`explain`] |
//! | `/purge` | ends entries: see [`purge`] |
//! | `/upstreams` | servers and peers, and their changes while running: see [`upstreams`] |

pub mod caches;
mod explain;
mod purge;
mod upstreams;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{net::TcpListener, sync::Semaphore};

use crate::state::State;

/// Operators and scrapers at once; more is a mistake or an attack, and waits.
const CONNECTIONS: usize = 64;
/// For an operator's request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For the body of one.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the admin endpoints until the task is dropped.
pub async fn serve(listener: TcpListener, allow: Vec<IpNet>, state: Arc<State>) {
    let (allow, places) = (Arc::new(allow), Arc::new(Semaphore::new(CONNECTIONS)));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(problem) => {
                tracing::warn!(%problem, "admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (state, allow) = (Arc::clone(&state), Arc::clone(&allow));
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: Request<Incoming>| {
                let (state, allow) = (Arc::clone(&state), Arc::clone(&allow));
                async move { Ok::<_, Infallible>(answer(request, peer, &allow, &state).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(problem) = connection.await {
                tracing::debug!(%problem, %peer, "admin connection ended early");
            }
            drop(place);
        });
    }
}

async fn answer<B>(
    request: Request<B>,
    peer: SocketAddr,
    allow: &[IpNet],
    state: &State,
) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if !allow.iter().any(|net| net.contains(&peer.ip().to_canonical())) {
        return text(StatusCode::FORBIDDEN, "this address may not ask\n");
    }
    let path = request.uri().path().to_owned();
    if let Some(below) =
        path.strip_prefix("/upstreams").filter(|below| below.is_empty() || below.starts_with('/'))
    {
        return upstreams::answer(request, below, peer, state).await;
    }
    match &*path {
        "/purge" => return purge::answer(request, peer, state).await,
        "/explain" => return explain::answer(request, state).await,
        _ => {}
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        refused.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match &*path {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" if state.is_ready() => text(StatusCode::OK, "ready\n"),
        "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/health" => {
            let (well, report) = health(state).await;
            json(if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &report)
        }
        "/metrics" => {
            state.measure();
            let mut answer = Response::new(Full::from(state.metrics().text()));
            let kind = header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        "/caches" => json(StatusCode::OK, &serde_json::json!(caches::sights(&state.snapshot().running))),
        "/api/metrics" => {
            state.measure();
            json(StatusCode::OK, &summary(state))
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "live, ready, health, metrics, api/metrics, caches, explain, purge or upstreams\n",
        ),
    }
}

/// What the edge depends on. Every upstream needs a peer that is up; Redis, when configured, has to answer.
async fn health(state: &State) -> (bool, serde_json::Value) {
    let snapshot = state.snapshot();
    let redis = snapshot.running.redis_answers().await;
    let mut well = redis != Some(false);
    let mut upstreams = serde_json::Map::new();
    for (name, up, of) in snapshot.running.peers_up() {
        well &= up > 0;
        upstreams.insert(name.to_string(), serde_json::json!({ "status": word(up > 0), "up": up, "of": of }));
    }
    let report = serde_json::json!({
        "status": word(well),
        "checks": { "redis": { "status": redis.map_or("off", word) }, "upstreams": upstreams },
    });
    (well, report)
}

fn word(well: bool) -> &'static str {
    if well { "ok" } else { "down" }
}

fn summary(state: &State) -> serde_json::Value {
    let metrics = state.metrics();
    let totals = metrics.totals();
    let [p50, p95, p99] = totals.quantiles_ms.map(hundredths);
    serde_json::json!({
        "requests": { "total": totals.total, "success": totals.success, "errors": totals.errors },
        "responseTimes": { "unit": "ms", "avg": hundredths(totals.average_ms), "p50": p50, "p95": p95, "p99": p99 },
        "activeConnections": totals.connections,
        "memory": { "residentBytes": crate::metrics::resident_bytes() },
        "uptimeSeconds": metrics.uptime().as_secs(),
        "cache": { "hitRate": totals.hit_rate },
    })
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// The body of a request, if it is not too long and comes soon.
async fn read<B>(request: Request<B>, most: usize) -> Option<Bytes>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let body = Limited::new(request.into_body(), most).collect();
    Some(tokio::time::timeout(BODY_TIMEOUT, body).await.ok()?.ok()?.to_bytes())
}

fn refused(status: StatusCode, why: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({ "error": why }))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut answer = text(status, format!("{value:#}\n"));
    answer.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    answer
        .headers_mut()
        .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
