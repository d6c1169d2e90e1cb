//! Where a request is written down: metrics, access log, slow-request warning. [`Recorder::finish`] is the one place.

pub mod access;
mod slow;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::IntCounterVec;
use weir_config::{
    Plan,
    plan::{self, CacheId},
};

use self::{access::AccessWriter, slow::Slow};
use crate::{
    cache::{CacheStatus, Served},
    journey::Journey,
    metrics::{Count, Metrics, RouteMeter},
};

/// Everything resolved at plan time that writing a request down needs.
#[derive(Debug)]
pub struct Recorder {
    metrics: Arc<Metrics>,
    routes: Vec<RouteRecord>,
    /// By cache: answers out of it, by kind.
    served: Vec<[Count; Served::WORDS.len()]>,
    /// For requests that no route took.
    unrouted: RouteMeter,
    upstreams: Vec<Arc<str>>,
    access: Option<AccessWriter>,
    slow: Slow,
    refusals: IntCounterVec,
}

/// What writing down a route's requests needs.
#[derive(Debug)]
struct RouteRecord {
    name: Arc<str>,
    meter: RouteMeter,
    cache: Option<CacheId>,
}

/// What an access-log line says; the words are those of the metrics.
#[derive(Debug)]
pub struct Line<'a> {
    journey: &'a Journey,
    route: &'a str,
    took: Duration,
}

impl Recorder {
    /// The handles for `plan`; `access` is where its lines go.
    #[must_use]
    pub fn new(plan: &Plan, metrics: Arc<Metrics>, access: Option<AccessWriter>) -> Self {
        let served = |cache: &plan::Cache| {
            Served::WORDS.map(|kind| metrics.count(&metrics.families().cache_served, &[&*cache.name, kind]))
        };
        let route = |route: &plan::Route| RouteRecord {
            name: Arc::clone(&route.name),
            meter: metrics.route(&route.name),
            cache: route.cache.as_ref().map(|rule| rule.cache),
        };
        Self {
            served: plan.caches.iter().map(served).collect(),
            routes: plan.routes.iter().map(route).collect(),
            unrouted: metrics.route("-"),
            upstreams: plan.upstreams.iter().map(|upstream| upstream.name.clone()).collect(),
            access,
            slow: Slow::new(plan.log.slow, Instant::now()),
            refusals: metrics.families().refusals.clone(),
            metrics,
        }
    }

    /// The log's sending side, for a reload to carry over and a stop to flush.
    #[must_use]
    pub fn access(&self) -> Option<&AccessWriter> {
        self.access.as_ref()
    }

    /// Writes one request down.
    pub fn finish(&self, journey: &Journey, upstream: Option<usize>) {
        let took = journey.arrival.started.elapsed();
        let record = journey.route.and_then(|id| self.routes.get(id.index()));
        let route = record.map_or("-", |record| &*record.name);
        let meter = record.map_or(&self.unrouted, |record| &record.meter);
        meter.answered(journey.answer.status, took);
        if let Some(kind) = journey.cache.as_ref().and_then(CacheStatus::served)
            && let Some(cache) = record.and_then(|record| record.cache)
        {
            self.served[cache.index()][kind as usize].inc();
        }
        if let Some(refusal) = &journey.refusal {
            self.refusals.with_label_values(&[refusal.said().word]).inc();
        }
        if let Some(upstream) = upstream.and_then(|index| self.upstreams.get(index)) {
            self.attempts(journey, upstream);
        }
        let line = Line { journey, route, took };
        let slow = self.slow.ended(took, journey.arrival.started + took);
        if slow.more > 0 {
            tracing::warn!(more = slow.more, "more slow requests, not written one by one");
        }
        if slow.this {
            let request = journey.request.as_ref();
            tracing::warn!(
                route,
                took_ms = took.as_millis(),
                status = journey.answer.status,
                request_id = request.map_or("", |request| request.id()),
                attempts = journey.attempts.len(),
                "slow request"
            );
        }
        if let Some(access) = &self.access {
            access.write(&line);
        }
    }

    fn attempts(&self, journey: &Journey, upstream: &str) {
        let families = self.metrics.families();
        let retried = |outcome| families.retries.with_label_values(&[upstream, outcome]).inc();
        let (hedges, attempts): (Vec<_>, Vec<_>) = journey.attempts.iter().partition(|attempt| attempt.hedge);
        for hedge in hedges {
            let outcome = if hedge.outcome == "answered" { "won" } else { "lost" };
            families.hedges.with_label_values(&[upstream, outcome]).inc();
        }
        for attempt in attempts.iter().skip(1) {
            retried(if attempt.outcome == "answered" { "answered" } else { "failed" });
        }
        if let Some(reason) = journey.attempts.last().and_then(|last| last.stopped) {
            retried(reason);
        }
        for attempt in &journey.attempts {
            families.attempts.with_label_values(&[upstream, &*attempt.peer, attempt.outcome]).inc();
            if let Some(first_byte) = attempt.first_byte {
                families.first_bytes.with_label_values(&[upstream]).observe(first_byte.as_secs_f64());
            }
        }
    }
}

impl Line<'_> {
    /// A JSON object on one line; absent facts are left out.
    fn json(&self) -> String {
        let journey = self.journey;
        let mut object = serde_json::Map::new();
        let mut put = |name: &str, value: serde_json::Value| {
            object.insert(name.to_owned(), value);
        };
        put("time", timestamp(journey.arrival.wall).into());
        put("client", journey.client().to_string().into());
        if let Some(request) = &journey.request {
            put("id", request.id().into());
            put("method", request.method.as_str().into());
            put("host", request.host().into());
            put("target", request.target().into());
            put("protocol", protocol(request.version).into());
        }
        if let Some(line) = &journey.line {
            put("line", line.as_str().into());
        }
        put("route", self.route.into());
        put("status", journey.answer.status.into());
        put("bytes", journey.answer.body_bytes.into());
        put("took_ms", millis(self.took).into());
        if !journey.answer.complete {
            put("complete", false.into());
        }
        if let Some(cache) = &journey.cache {
            put("cache", cache.word().into());
        }
        if let Some(caller) = journey.caller.as_ref().filter(|caller| caller.is_named()) {
            put("caller", caller.user_id().into());
        }
        if let Some(refusal) = &journey.refusal {
            put("refusal", refusal.said().word.into());
        }
        if !journey.attempts.is_empty() {
            let attempts = journey.attempts.iter().map(|attempt| {
                serde_json::json!({
                    "peer": &*attempt.peer,
                    "outcome": attempt.outcome,
                    "status": attempt.status,
                    "first_byte_ms": attempt.first_byte.map(millis),
                    "hedge": attempt.hedge,
                    "stopped": attempt.stopped,
                })
            });
            put("attempts", attempts.collect::<Vec<_>>().into());
        }
        let mut line = serde_json::Value::Object(object).to_string();
        line.push('\n');
        line
    }

    /// nginx's `combined`; bytes that could forge a line are escaped as nginx does.
    fn combined(&self) -> String {
        let journey = self.journey;
        let request = journey.request.as_ref();
        let field = |name: http::HeaderName| {
            let value = request.and_then(|request| request.headers.get(name));
            value.map_or_else(|| "-".to_owned(), |value| escaped(value.as_bytes()))
        };
        let refused = || escaped(journey.line.as_deref().unwrap_or_default().as_bytes());
        let line = request.map_or_else(refused, |request| {
            let target = escaped(request.target().as_bytes());
            format!("{} {target} {}", request.method, protocol(request.version))
        });
        format!(
            "{} - - [{}] \"{line}\" {} {} \"{}\" \"{}\"\n",
            journey.client(),
            common_time(journey.arrival.wall),
            journey.answer.status,
            journey.answer.body_bytes,
            field(http::header::REFERER),
            field(http::header::USER_AGENT),
        )
    }
}

/// nginx's escaping for logs: quote, backslash and everything outside printable ASCII as `\xHH`.
fn escaped(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\x{byte:02X}");
            }
            _ => out.push(char::from(byte)),
        }
    }
    out
}

fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        http::Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a request, for people")]
fn millis(span: Duration) -> f64 {
    span.as_micros() as f64 / 1e3
}

fn zoned(wall: std::time::SystemTime) -> jiff::Zoned {
    let now = jiff::Timestamp::try_from(wall).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    now.to_zoned(jiff::tz::TimeZone::UTC)
}

fn timestamp(wall: std::time::SystemTime) -> String {
    zoned(wall).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn common_time(wall: std::time::SystemTime) -> String {
    zoned(wall).strftime("%d/%b/%Y:%H:%M:%S %z").to_string()
}

/// Sends the program's own events to standard error, as JSON; `RUST_LOG` overrides the plan's level.
pub fn start_tracing(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        // Pingora's own lines repeat what the record of a request says, once for each failed attempt.
        .unwrap_or_else(|_| {
            tracing_subscriber::EnvFilter::new(format!("{level},pingora=error,pingora_core=error"))
        });
    let events = tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would complain about a closed standard error there, and panic.
        .log_internal_errors(false);
    if events.try_init().is_err() {
        tracing::debug!("events are already collected");
    }
}
