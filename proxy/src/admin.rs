//! The operators' listener, on loopback by default: is it alive, is it ready, is it well, what does it measure.
//!
//! | path | answer |
//! |---|---|
//! | `/live` | 200 while the process runs its loop; for whoever restarts it |
//! | `/ready` | 200 while new clients should be sent here, 503 while it drains; for load balancers |
//! | `/health` | `ok`, `degraded` or `down`, with a check for each thing it depends on; for people and alarms |
//! | `/metrics` | Prometheus' text form |
//! | `/api/metrics` | the same figures in short, as JSON for people |
//! | `/explain` | why a request is, or would not be, answered from the cache: see [`explain`] |
//! | `/purge` | ends entries: see [`purge`] |
//! | `/caches` | what they hold, and what they cannot do: see [`caches`] |
//! | `/upstreams` | servers and peers, and their changes while running: see [`upstreams`] |

pub mod caches;
mod explain;
mod purge;
mod upstreams;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, uri::Authority};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use crate::state::State;

/// Operators and scrapers at once; more is a mistake or an attack, and waits.
const CONNECTIONS: usize = 64;
/// For an operator's request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For the body of one.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Refusals being said at once to peers that may not ask; more of them are hung up on.
const STRANGERS: usize = 16;
/// How long a connection may last, whatever it does: one that does not read its answer gives its place back.
const LIFETIME: Duration = Duration::from_secs(60);
/// For the answer that is under way then.
const GRACE: Duration = Duration::from_secs(5);

/// Serves the admin endpoints until the task is dropped.
pub async fn serve(listener: TcpListener, allow: Vec<IpNet>, state: Arc<State>) {
    let (places, strangers) = (Arc::new(Semaphore::new(CONNECTIONS)), Arc::new(Semaphore::new(STRANGERS)));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(problem) => {
                tracing::warn!(%problem, "admin listener cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Whoever may not ask never takes the place of one who may.
        let is_allowed = allow.iter().any(|net| net.contains(&peer.ip().to_canonical()));
        let place = match is_allowed {
            true => Arc::clone(&places).acquire_owned().await.ok(),
            false => Arc::clone(&strangers).try_acquire_owned().ok(),
        };
        let Some(place) = place else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            converse(stream, peer, is_allowed, &state).await;
            drop(place);
        });
    }
}

/// Serves one connection, for a while.
async fn converse(stream: TcpStream, peer: SocketAddr, is_allowed: bool, state: &State) {
    let is_local = stream.local_addr().is_ok_and(|local| local.ip().to_canonical().is_loopback());
    let service = hyper::service::service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(match () {
            () if !is_allowed => text(StatusCode::FORBIDDEN, "this address may not ask\n"),
            () if is_local && is_rebound(&request) => {
                text(StatusCode::FORBIDDEN, "this name is not mine: ask by address, or for localhost\n")
            }
            () => answer(request, peer, state).await,
        })
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = match timeout(LIFETIME, connection.as_mut()).await {
        Ok(ended) => ended,
        Err(_) => {
            connection.as_mut().graceful_shutdown();
            timeout(GRACE, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(problem) = ended {
        tracing::debug!(%problem, %peer, "admin connection ended early");
    }
}

/// Whether a browser was made to believe that a stranger's name is this machine's (DNS rebinding).
fn is_rebound<B>(request: &Request<B>) -> bool {
    let Some(host) = request.headers().get(header::HOST) else { return false };
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    !authority.is_some_and(|authority| {
        let host = authority.host();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        address.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
    })
}

async fn answer<B>(request: Request<B>, peer: SocketAddr, state: &State) -> Response<Full<Bytes>>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
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
            let (is_down, report) = health(state).await;
            json(if is_down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &report)
        }
        "/metrics" => {
            state.measure().await;
            let mut answer = Response::new(Full::from(state.metrics().text()));
            let kind = header::HeaderValue::from_static(prometheus::TEXT_FORMAT);
            answer.headers_mut().insert(header::CONTENT_TYPE, kind);
            answer
        }
        "/caches" => json(StatusCode::OK, &serde_json::json!(caches::sights(&state.snapshot().running))),
        "/api/metrics" => {
            state.measure().await;
            json(StatusCode::OK, &summary(state))
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "live, ready, health, metrics, api/metrics, caches, explain, purge or upstreams\n",
        ),
    }
}

/// What the edge depends on, and whether nothing is left of it: no upstream has a peer that is up.
///
/// Everything else is `degraded`, and still 200: every edge of a fleet sees the same Redis and the same upstreams, and whoever takes
/// edges out by this would take out all of them for the sake of a part.
async fn health(state: &State) -> (bool, serde_json::Value) {
    let snapshot = state.snapshot();
    let running = &snapshot.running;
    let redis = running.redis_answers().await;
    let sessions = running.session_sources(redis);
    let upstreams = running.peers_up();
    let is_down = !upstreams.is_empty() && upstreams.iter().all(|(_, up, _)| *up == 0);
    let disks: Vec<_> = (running.plan.caches.iter().zip(&running.caches))
        .filter_map(|(plan, cache)| Some((plan.name.to_string(), cache.disk_stats()?.works)))
        .collect();
    let is_whole = redis != Some(false)
        && disks.iter().all(|(_, works)| *works)
        && sessions.iter().all(|(_, answers)| *answers)
        && upstreams.iter().all(|(_, up, _)| *up > 0);
    let upstream = |(name, up, of): &(Arc<str>, usize, usize)| {
        (name.to_string(), serde_json::json!({ "status": word(*up > 0), "up": up, "of": of }))
    };
    let session = |(name, answers): &(Arc<str>, bool)| {
        (name.to_string(), serde_json::json!({ "status": word(*answers) }))
    };
    let disk = |(name, works): (String, bool)| (name, serde_json::json!({ "status": word(works) }));
    let report = serde_json::json!({
        "status": if is_down { "down" } else if is_whole { "ok" } else { "degraded" },
        "checks": {
            "redis": { "status": redis.map_or("off", word) },
            "disks": serde_json::Map::from_iter(disks.into_iter().map(disk)),
            "sessions": serde_json::Map::from_iter(sessions.iter().map(session)),
            "upstreams": serde_json::Map::from_iter(upstreams.iter().map(upstream)),
        },
    });
    (is_down, report)
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
    Some(timeout(BODY_TIMEOUT, body).await.ok()?.ok()?.to_bytes())
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
