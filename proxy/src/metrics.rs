//! The metrics: one table of families, and handles resolved once per plan, so that a request only adds numbers.
//!
//! Labels come from closed sets: routes, upstreams, peers, caches and limits are named by the plan, reasons by enums.

mod tally;

use std::{sync::Arc, time::Duration};

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::tally::Tallies;
pub use self::tally::{Count, RouteMeter};

/// Upper bounds of the duration buckets, in seconds: from a cache hit (100 µs) to a request no one waits for.
const SECONDS: &[f64] = &[
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.5,
    5.0, 10.0, 30.0,
];

macro_rules! families {
    ($($(#[$doc:meta])* $field:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// Every family; a row is field, kind, name, labels and sentence.
        #[derive(Debug, Clone)]
        pub struct Families { $($(#[$doc])* pub $field: families!(@type $kind),)* }

        impl Families {
            fn register(registry: &Registry) -> prometheus::Result<Self> {
                Ok(Self { $($field: {
                    let family = families!(@new $kind $name [$($label),*] $help)?;
                    registry.register(Box::new(family.clone()))?;
                    family
                },)* })
            }
        }

        /// Name and sentence of every family, for the manual.
        pub const TABLE: &[(&str, &str)] = &[$(($name, $help),)*];
    };
    (@type counter) => { IntCounterVec };
    (@type gauge) => { IntGaugeVec };
    (@type histogram) => { HistogramVec };
    (@new counter $name:literal [$($label:literal),*] $help:literal) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),*])
    };
    (@new gauge $name:literal [$($label:literal),*] $help:literal) => {
        IntGaugeVec::new(Opts::new($name, $help), &[$($label),*])
    };
    (@new histogram $name:literal [$($label:literal),*] $help:literal) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets(SECONDS.to_vec()), &[$($label),*])
    };
}

families! {
    /// Requests answered.
    requests: counter "weir_requests_total" ["route", "status"] "requests answered, by route and class of status";
    /// From the first byte of the head to the last of the answer.
    durations: histogram "weir_request_duration_seconds" ["route"] "from the head's first byte to the answer's last, seconds";
    /// Requests under way.
    in_flight: gauge "weir_requests_in_flight" [] "requests under way";
    /// Connections open, by listener.
    connections: gauge "weir_connections_active" ["listener"] "client connections open";
    /// Every "no", by its word.
    refusals: counter "weir_refusals_total" ["reason"] "requests refused, by reason";
    /// Attempts at peers, by how they ended.
    attempts: counter "weir_attempts_total" ["upstream", "peer", "outcome"] "attempts at a peer, by how they ended";
    /// Attempts after the first, and why there were not more.
    retries: counter "weir_upstream_retries_total" ["upstream", "outcome"] "attempts after the first, by whether they were answered or failed, and failures that were not retried, by reason";
    /// Second peers asked for a slow answer, by who was first.
    hedges: counter "weir_upstream_hedges_total" ["upstream", "outcome"] "attempts made while the first was silent, by whether they won or lost";
    /// From the pick of a peer to its answer's head.
    first_bytes: histogram "weir_attempt_first_byte_seconds" ["upstream"] "from the pick of a peer to the head of its answer, seconds";
    /// Whether a peer is asked.
    peer_up: gauge "weir_peer_up" ["upstream", "peer"] "1 while the peer is asked, 0 while it is out";
    /// Whether the circuit breaker refuses.
    circuit_open: gauge "weir_circuit_open" ["upstream"] "1 while the circuit breaker refuses requests to the upstream";
    /// What the concurrency limit admits.
    concurrency: gauge "weir_concurrency_limit" ["upstream"] "requests at once that the upstream gets";
    /// Requests in the queue.
    queued: gauge "weir_queued_requests" ["upstream"] "requests that wait for a place at a peer";
    /// Look-ups, by what came of them.
    cache: counter "weir_cache_requests_total" ["cache", "result"] "requests that a cache rule applied to, by result";
    /// Hits of the express lane, which are in the family above, too.
    cache_express: counter "weir_cache_express_total" ["cache"] "hits answered on the express lane";
    /// What a cache holds.
    cache_bytes: gauge "weir_cache_bytes" ["cache"] "bytes held: heads, bodies, index and fills";
    /// What a cache may hold.
    cache_budget: gauge "weir_cache_budget_bytes" ["cache"] "bytes that may be held";
    /// Entries held.
    cache_entries: gauge "weir_cache_entries" ["cache"] "entries held";
    /// Entries given up for space.
    cache_evictions: counter "weir_cache_evictions_total" ["cache"] "entries given up for space";
    /// Answers that a cache gave.
    cache_served: counter "weir_cache_served_total" ["cache", "kind"] "answers served from a cache: fresh, stale (while it is fetched anew), stale_on_error, collapsed (of another request's fetch) or confirmed (by the origin's 304)";
    /// Fetches for a cache.
    cache_fills: counter "weir_cache_fills_total" ["cache", "outcome"] "fetches for a cache, by outcome: stored, refused, broken";
    /// Requests that waited for another's fetch.
    cache_collapsed: counter "weir_cache_collapsed_total" ["cache"] "requests that waited for another's fetch, whatever came of it";
    /// Answers that were not kept.
    cache_refused: counter "weir_cache_not_stored_total" ["cache", "reason"] "answers that were not kept, by reason";
    /// What a cache holds on disk.
    cache_disk_bytes: gauge "weir_cache_disk_bytes" ["cache"] "bytes of a cache's files";
    /// What a cache may hold there.
    cache_disk_budget: gauge "weir_cache_disk_budget_bytes" ["cache"] "bytes that a cache's files may take";
    /// Entries on disk.
    cache_disk_entries: gauge "weir_cache_disk_entries" ["cache"] "entries held on disk";
    /// Whether the disk works.
    cache_disk_up: gauge "weir_cache_disk_up" ["cache"] "1 while a cache's disk can be read and written, 0 while it fails and memory goes on alone";
    /// What happened on disk.
    cache_disk: counter "weir_cache_disk_total" ["cache", "event"] "what happened on a cache's disk: hit (a look-up that memory could not answer), written, skipped (no room or time to write), evicted, damaged (a file was dropped), error";
    /// What happened in the tier that the fleet has in common.
    cache_shared: counter "weir_cache_shared_total" ["cache", "event"] "what this edge did in the tier that its fleet shares: hit (a fetch was answered there), miss, unproven (found, and nobody could say that it was not purged), damaged (found, and no entry), error (Redis did not answer in time), wait (for another edge's fetch), written, dropped (too many waited to be written)";
    /// Purges by tag.
    invalidations: counter "weir_cache_invalidations_total" [] "tags invalidated by writes";
    /// Purges that somebody ordered.
    purges: counter "weir_cache_purges_total" ["by", "mode"] "purges ordered, by who (admin, method, origin, fleet: another edge) and mode (hard, soft)";
    /// Answers that the leak guard kept out.
    leaks: counter "weir_cache_leaks_prevented_total" ["cache"] "answers marked as everybody's that showed their caller's own, and were not kept";
    /// Charges, by verdict.
    limits: counter "weir_limit_requests_total" ["limit", "verdict"] "requests charged to a limit, by verdict";
    /// Validations, by what came of them.
    sessions: counter "weir_session_validations_total" ["session", "result"] "session tokens validated, by result";
    /// Lines lost to a slow or full disk.
    log_dropped: counter "weir_access_log_dropped_total" ["reason"] "access-log lines lost: the writer was behind, or writing failed";
    /// Configurations taken over or refused.
    reloads: counter "weir_reloads_total" ["outcome"] "reloads, by outcome";
    /// Mirrored requests, by what came of them.
    mirrors: counter "weir_mirrors_total" ["route", "outcome"] "requests mirrored, by outcome: sent, dropped, failed";
    /// TLS handshakes that came to nothing.
    no_handshake: counter "weir_tls_handshakes_failed_total" ["listener", "reason"] "TLS handshakes of clients that came to nothing, by reason";
    /// How long certificates are good for.
    certificates: gauge "weir_certificate_days_left" ["file"] "whole days until the first certificate of a file expires, below 0 when it has";
    /// Whether purges of the fleet are heard.
    fleet_heard: gauge "weir_fleet_purges_heard" [] "1 while purges at other edges are heard, 0 while this edge goes on alone";
    /// Purges that wait to be told.
    fleet_waiting: gauge "weir_fleet_purges_waiting" [] "purges of which the fleet has not been told yet";
    /// Whether Redis answers.
    redis_up: gauge "weir_redis_up" [] "1 while Redis answers, 0 while it does not";
    /// Whether a source of sessions answers.
    session_source_up: gauge "weir_session_source_up" ["session"] "1 while the source of a session answers: its Redis now, or its upstream the last time it was asked";
    /// Bytes compressed.
    compressed: counter "weir_compressed_bytes_total" ["coding", "side"] "bytes given to compressors (in) and made by them (out), by coding";
    /// Resident memory.
    memory: gauge "weir_memory_bytes" [] "resident memory of this process";
    /// Since the start.
    uptime: gauge "weir_uptime_seconds" [] "seconds since the process started";
}

/// The families and the registry they are exposed through; one per process, or per edge in a test.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    families: Families,
    tallies: Tallies,
    started: std::time::Instant,
}

/// The classes of status that `weir_requests_total` tells apart; 499 is nginx's "client left".
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "499"];

/// Totals over all routes, for people and for `/api/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals {
    /// Requests answered.
    pub total: u64,
    /// Answered below 400.
    pub success: u64,
    /// Answered with 500 or above.
    pub errors: u64,
    /// Mean duration, milliseconds.
    pub average_ms: f64,
    /// Quantiles 0.5, 0.95 and 0.99 in milliseconds, interpolated within their buckets.
    pub quantiles_ms: [f64; 3],
    /// Client connections open.
    pub connections: i64,
    /// Share of look-ups that a cache answered, 0 to 1; `None` before the first.
    pub hit_rate: Option<f64>,
}

impl Metrics {
    /// A registry with every family in it.
    ///
    /// # Errors
    /// Never in practice: two families of one name would be found by the first test that runs.
    pub fn new() -> prometheus::Result<Arc<Self>> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        Ok(Arc::new(Self {
            registry,
            families,
            tallies: Tallies::default(),
            started: std::time::Instant::now(),
        }))
    }

    /// The families, for whoever counts something.
    #[must_use]
    pub fn families(&self) -> &Families {
        &self.families
    }

    /// The handles of one route.
    #[must_use]
    pub fn route(&self, route: &str) -> RouteMeter {
        let classes = CLASSES.map(|class| self.families.requests.with_label_values(&[route, class]));
        RouteMeter::new(&classes, &self.families.durations.with_label_values(&[route]), &self.tallies)
    }

    /// The handle of a counter that every request may count on.
    #[must_use]
    pub fn count(&self, family: &IntCounterVec, labels: &[&str]) -> Count {
        Count::new(family.with_label_values(labels), &self.tallies)
    }

    /// Since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Prometheus' text form; process figures are read at this moment.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        self.families.memory.with_label_values::<&str>(&[]).set(signed(resident_bytes()));
        self.families.uptime.with_label_values::<&str>(&[]).set(signed(self.uptime().as_secs()));
        self.tallies.add_up();
        let mut text = Vec::with_capacity(16 * 1024);
        // A Vec takes every write; an encoder error would be a metric without a name.
        if let Err(problem) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%problem, "metrics could not be encoded");
        }
        text
    }

    /// The figures of E10 over all routes.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.tallies.add_up();
        let (mut total, mut success, mut errors) = (0, 0, 0);
        let (mut buckets, mut sum) = (vec![0_u64; SECONDS.len()], 0.0);
        let (mut hits, mut lookups, mut connections) = (0_u64, 0_u64, 0.0);
        for family in self.registry.gather() {
            for metric in family.get_metric() {
                let label = |name: &str| {
                    metric.get_label().iter().find(|l| l.name() == name).map_or("", |l| l.value())
                };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a counter")]
                let count = metric.get_counter().get_value() as u64;
                match family.name() {
                    "weir_requests_total" => {
                        total += count;
                        match label("status") {
                            "1xx" | "2xx" | "3xx" => success += count,
                            "5xx" => errors += count,
                            _ => {}
                        }
                    }
                    "weir_request_duration_seconds" => {
                        let histogram = metric.get_histogram();
                        sum += histogram.get_sample_sum();
                        for (slot, bucket) in buckets.iter_mut().zip(histogram.get_bucket()) {
                            *slot += bucket.cumulative_count();
                        }
                    }
                    "weir_cache_requests_total" => {
                        lookups += count;
                        hits +=
                            if matches!(label("result"), "hit" | "stale" | "collapsed") { count } else { 0 };
                    }
                    "weir_connections_active" => connections += metric.get_gauge().get_value(),
                    _ => {}
                }
            }
        }
        let ratio = |part: u64, whole: u64| part as f64 / whole as f64;
        Totals {
            total,
            success,
            errors,
            average_ms: if total == 0 { 0.0 } else { sum * 1e3 / total as f64 },
            quantiles_ms: [0.5, 0.95, 0.99].map(|q| quantile(&buckets, total, q) * 1e3),
            #[expect(clippy::cast_possible_truncation, reason = "a number of connections")]
            connections: connections as i64,
            hit_rate: (lookups > 0).then(|| ratio(hits, lookups)),
        }
    }
}

/// The `q`-quantile in seconds, interpolated linearly within its bucket, as Prometheus' `histogram_quantile` does.
fn quantile(cumulative: &[u64], total: u64, q: f64) -> f64 {
    if total == 0 {
        return 0.0;
    }
    let rank = q * total as f64;
    let (mut below, mut low) = (0_u64, 0.0);
    for (&count, &high) in cumulative.iter().zip(SECONDS) {
        if count as f64 >= rank {
            let inside = (count - below).max(1) as f64;
            return low + (high - low) * ((rank - below as f64) / inside).clamp(0.0, 1.0);
        }
        (below, low) = (count, high);
    }
    SECONDS.last().copied().unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Resident memory of this process in bytes; 0 where `/proc` is not to be had.
#[must_use]
pub fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_follow_what_routes_answered() {
        let metrics = Metrics::new().unwrap();
        let (a, b) = (metrics.route("a"), metrics.route("b"));
        for _ in 0..98 {
            a.answered(200, Duration::from_millis(2));
        }
        a.answered(404, Duration::from_millis(2));
        b.answered(502, Duration::from_millis(900));
        let totals = metrics.totals();
        assert_eq!((totals.total, totals.success, totals.errors), (100, 98, 1));
        let [p50, p95, p99] = totals.quantiles_ms;
        assert!((1.0..=2.5).contains(&p50) && p95 <= 2.5 && p99 <= 2.5, "{p50} {p95} {p99}");
        assert!((10.9..=11.1).contains(&totals.average_ms), "{}", totals.average_ms);
    }

    #[test]
    fn the_text_form_names_every_family_that_has_a_value() {
        let metrics = Metrics::new().unwrap();
        metrics.route("items").answered(200, Duration::from_millis(1));
        let text = String::from_utf8(metrics.text()).unwrap();
        assert!(text.contains("weir_requests_total{route=\"items\",status=\"2xx\"} 1"), "{text}");
        assert!(text.contains("weir_memory_bytes "));
    }

    #[test]
    fn a_quantile_lies_within_its_bucket() {
        assert_eq!(quantile(&[], 0, 0.5), 0.0);
        let all_in_second: Vec<u64> =
            SECONDS.iter().enumerate().map(|(i, _)| if i == 0 { 0 } else { 10 }).collect();
        let q = quantile(&all_in_second, 10, 0.5);
        assert!((0.000_1..=0.000_25).contains(&q), "{q}");
    }
}
