//! Every default of config.yaml, each with its reason.
//!
//! The rule behind them: what a stranger can do to us is bounded without being asked for; where nginx has a value
//! that its users rely on, it is ours too, unless a reason is given.

use std::time::Duration;

use crate::{
    plan::{Algorithm, Balance, Coding, Protocol, RetryOn, TlsVersion, TtlApplies, WhenAllDown},
    raw::{LimitHeaders, LimitOnRedisDown, LimitWindow},
    units::{Bytes, Share},
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The operators' listener: loopback, because metrics and health tell strangers too much.
pub const ADMIN_ADDRESS: &str = "127.0.0.1:9180";
/// Who may ask there: this machine.
pub const ADMIN_ALLOW: [&str; 2] = ["127.0.0.0/8", "::1/128"];

/// A head fits in one packet or a few; whoever needs longer holds a connection on purpose (slowloris). nginx: 60 s for each read.
pub const HEADER_TIMEOUT: Duration = seconds(10);
/// Longer than a browser's pause between clicks is worth a connection; nginx 75 s, most balancers in front of us 60 s.
pub const IDLE_TIMEOUT: Duration = seconds(60);
/// Half of nginx's, so that a body that stalls is gone within a minute together with [`BODY_MIN_RATE`].
pub const BODY_TIMEOUT: Duration = seconds(30);
/// Slower than any modem in use; a byte now and then keeps every other timeout from striking.
pub const BODY_MIN_RATE: Bytes = Bytes::new(1024);
/// As nginx's `send_timeout`.
pub const SEND_TIMEOUT: Duration = seconds(60);
/// As nginx's `large_client_header_buffers` in all (4 × 8 KiB): cookies of the worst sites fit, a flood does not.
pub const HEAD_BYTES: Bytes = Bytes::new(32 << 10);
/// As one of nginx's large buffers; the length that clients and caches can be expected to support (RFC 9110 §4.1).
pub const URI_BYTES: Bytes = Bytes::new(8 << 10);
/// A browser sends about 20 fields, a chain of gateways adds a dozen.
pub const HEAD_FIELDS: u32 = 100;
/// No bound: a body streams through without being held here, and only the route knows what it expects.
pub const BODY_BYTES: Bytes = Bytes::new(0);
/// About 160 MiB of idle connections at 16 KiB each; above, the kernel's queue holds them back.
pub const CONNECTIONS: u32 = 10_000;
/// No bound: a connection here does not grow with age (nginx closes after 1000 to free its pool).
pub const REQUESTS_PER_CONNECTION: u64 = 0;
/// The least that RFC 9113 §6.5.2 recommends, and what Envoy advises for an edge.
pub const HTTP2_STREAMS: u32 = 100;

/// Within a data centre even a command behind a slow one is answered in milliseconds; later it is down.
pub const REDIS_TIMEOUT: Duration = Duration::from_millis(250);
/// A lost SYN is sent again after one second: let it be.
pub const REDIS_CONNECT_TIMEOUT: Duration = seconds(2);
/// Whoever shares a Redis with other programs sees whose keys these are.
pub const REDIS_PREFIX: &str = "weir:";
/// Whoever has a Redis has a fleet, and a purge that one edge hears leaves what was purged with the others.
pub const REDIS_PURGES: bool = true;

/// The header that carries the caller.
pub const IDENTITY_HEADER: &str = "x-weir-identity";
/// HS256 is as strong as its key; RFC 7518 §3.2 demands at least the hash's 256 bits.
pub const IDENTITY_SECRET_BYTES: usize = 32;
/// Covers a slow upload and clocks that differ; useless to whoever finds it in a log the next day.
pub const IDENTITY_TTL: Duration = seconds(60);

/// As nginx.
pub const BALANCE: Balance = Balance::RoundRobin;
/// An outage of all peers ends with one request: nginx's rule until 1.11.5, and kinder to the peers than asking them on.
pub const WHEN_ALL_DOWN: WhenAllDown = WhenAllDown::Pardon;
/// As nginx: whoever is back takes its share at once; only who has caches to warm asks for more.
pub const SLOW_START: Duration = Duration::ZERO;
/// As nginx's `sticky learn`.
pub const STICKY_TIMEOUT: Duration = seconds(600);
/// About 2 MiB: what a zone of as much holds in nginx (8000 in 1 MiB), and more.
pub const STICKY_SESSIONS: u32 = 20_000;
/// Weights of a ring in all: 160 points each, of 24 bytes, are about 40 MB at the most.
pub const RING_WEIGHT: u64 = 10_000;
/// Equal shares.
pub const WEIGHT: u32 = 1;
/// As nginx: one failure takes a peer out …
pub const MAX_FAILS: u32 = 1;
/// … for ten seconds.
pub const FAIL_TIMEOUT: Duration = seconds(10);
/// Ten thousand requests a second of ten milliseconds keep a hundred connections busy.
pub const KEEPALIVE: u32 = 128;
/// As nginx: memory that an origin keeps for a connection is freed now and then.
pub const KEEPALIVE_REQUESTS: u64 = 1000;
/// As nginx: connections follow a change of the network, and of balancers in between, within the hour.
pub const KEEPALIVE_TIME: Duration = seconds(3600);
/// As nginx's `keepalive_timeout` in `upstream`; shorter than most servers', which would close under our hands.
pub const KEEPALIVE_TIMEOUT: Duration = seconds(60);

/// What every server speaks; HTTP/2 to it is asked for.
pub const PROTOCOL: Protocol = Protocol::Http1;
/// Everything newer than 2008; 1.0 and 1.1 are not built in at all.
pub const UPSTREAM_TLS_MIN: TlsVersion = TlsVersion::V12;
/// As the system's resolver (`options timeout:5`); nginx waits for 30 s, during which nothing new is learnt.
pub const RESOLVER_TIMEOUT: Duration = seconds(5);

/// What an origin of ours, and most others, answer.
pub const HEALTH_PATH: &str = "/health";
/// As NGINX Plus.
pub const HEALTH_INTERVAL: Duration = seconds(5);
/// Enough that a fleet which starts together does not ask together for long.
pub const HEALTH_JITTER: Share = Share::percent(10);
/// A check that takes longer is no sign of health.
pub const HEALTH_TIMEOUT: Duration = seconds(2);
/// One failed check may be a lost packet, two are a pattern.
pub const HEALTH_FALL: u32 = 2;
/// One answer shows that it is back.
pub const HEALTH_RISE: u32 = 1;
/// As NGINX Plus.
pub const HEALTH_STATUS: std::ops::RangeInclusive<u16> = 200..=399;

/// The first and two more: enough for two dead peers, too few to carry an outage around (nginx: every peer once).
pub const RETRY_TRIES: u32 = 3;
/// Nobody waits longer than this for a first byte.
pub const RETRY_TIMEOUT: Duration = seconds(60);
/// nginx's `error timeout`, and answers that cannot be believed: of those the client has not seen a byte either.
pub const RETRY_ON: [RetryOn; 3] = [RetryOn::Error, RetryOn::Timeout, RetryOn::InvalidHeader];
/// As Finagle and Envoy: an outage of everything costs a fifth more requests, not three times as many.
pub const RETRY_BUDGET: Share = Share::percent(20);
/// As Finagle: at little load a share is less than one request, and one dead server of three fails a third of them.
pub const RETRY_FLOOR: u32 = 10;

/// Long enough for [`OUTLIER_REQUESTS`] at ten requests a second; as Envoy's `interval`.
pub const OUTLIER_WINDOW: Duration = seconds(10);
/// As Envoy's `success_rate_request_volume`: with fewer, chance condemns.
pub const OUTLIER_REQUESTS: u32 = 100;
/// More than a deployment's difference, less than an outage.
pub const OUTLIER_ERRORS: Share = Share::percent(30);
/// Machines of one kind differ by less; a disk that dies or a neighbour that steals the CPU by more.
pub const OUTLIER_LATENCY: u32 = 5;
/// Shorter pauses are a collector's or a checkpoint's, and pass by themselves.
pub const OUTLIER_SILENCE: Duration = seconds(1);
/// As nginx's `fail_timeout`; it grows by as much each time.
pub const OUTLIER_EJECTION: Duration = FAIL_TIMEOUT;
/// As Envoy's `max_ejection_time`.
pub const OUTLIER_MAX_EJECTION: Duration = seconds(300);
/// Half of the servers can be trusted to carry the load for a while; if more are worse than the median, the yardstick is wrong.
pub const OUTLIER_MAX_EJECTED: Share = Share::percent(50);

/// As Envoy's outlier window.
pub const BREAKER_WINDOW: Duration = seconds(10);
/// As Hystrix: with fewer, chance opens it.
pub const BREAKER_REQUESTS: u32 = 20;
/// As Hystrix: when every other request fails, those that succeed are luck.
pub const BREAKER_FAILURES: Share = Share::percent(50);
/// No such bound: one route that always fails would close all the others.
pub const BREAKER_CONSECUTIVE: u32 = 0;
/// As Hystrix: long enough to breathe, short enough that nobody calls.
pub const BREAKER_OPEN: Duration = seconds(5);
/// One may be lucky, three in a row are back.
pub const BREAKER_PROBES: u32 = 3;
/// What the smallest server of ten threads serves.
pub const CONCURRENCY_MIN: u32 = 10;
/// As Envoy's `max_concurrency_limit`.
pub const CONCURRENCY_MAX: u32 = 1000;
/// As Envoy's `min_rtt_calc_params.interval`.
pub const CONCURRENCY_PROBE: Duration = seconds(60);
/// As many as [`KEEPALIVE`] connections serve in half a second, at about 10 ms.
pub const QUEUE_LENGTH: u32 = 1024;
/// nginx's 60 s outlive whoever waits: a client that has given up is served all the same.
pub const QUEUE_TIMEOUT: Duration = seconds(5);

/// As "The Tail at Scale" (Dean and Barroso, 2013): one request of twenty is late enough.
pub const HEDGE_QUANTILE: Share = Share::percent(95);
/// Twice what the quantile alone would ask for; when more are late, it is load, and more requests make it worse.
pub const HEDGE_SHARE: Share = Share::percent(10);

/// Two lost SYNs; nginx's 60 s would keep a client waiting for a machine that is gone.
pub const CONNECT_TIMEOUT: Duration = seconds(5);
/// Half of nginx's `proxy_read_timeout`: there must be time left for another peer within [`RETRY_TIMEOUT`].
pub const FIRST_BYTE_TIMEOUT: Duration = seconds(30);
/// As nginx's `proxy_read_timeout`.
pub const READ_TIMEOUT: Duration = seconds(60);
/// As nginx's `proxy_send_timeout`.
pub const WRITE_TIMEOUT: Duration = seconds(60);

/// Where the origin writes sessions.
pub const SESSION_KEY: &str = "session:${token}";
/// As most frameworks write sessions.
pub const SESSION_FORMAT: crate::plan::SessionFormat = crate::plan::SessionFormat::Json;
/// A logout elsewhere is noticed after this at the latest; one caller costs one lookup in this time.
pub const SESSION_MEMORY_TTL: Duration = seconds(2);
/// On a sound network Redis is heard every few milliseconds; shorter, and each of its pauses is taken for a failure.
pub const SESSION_STALENESS: Duration = Duration::from_millis(500);
/// A caller waits behind the question: nginx's minute would hold all of them for a service that hangs.
pub const ASK_TIMEOUT: Duration = seconds(5);
/// Nobody is let in on an old word unless the operator says so.
pub const SESSION_SERVE_KNOWN_FOR: Duration = Duration::ZERO;
/// Stands for a value that was refused.
pub const SESSION_SLIDING: Duration = seconds(1800);
/// As OpenID Connect's usual providers and most libraries sign. PS256 and the others are for who knows that they are used.
pub const JWT_ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
/// The one that everybody has.
pub const JWT_ALGORITHMS_SECRET: [Algorithm; 1] = [Algorithm::HS256];
/// Clocks that are kept by NTP are closer than that.
pub const JWT_LEEWAY: Duration = seconds(30);
/// A token without an end is one for ever.
pub const JWT_REQUIRED: [&str; 1] = ["exp"];
/// Whom a token is about (RFC 7519 §4.1.2).
pub const JWT_USER_ID: &str = "sub";
/// Keys are announced before they are used, by hours as a rule; and an unknown one is asked for at once.
pub const JWKS_REFRESH: Duration = seconds(300);
/// About 100 MiB at most of what sessions usually hold.
pub const SESSION_MEMORY_ENTRIES: u32 = 100_000;

/// Each address for itself.
pub const LIMIT_KEY: &str = "${client.ip}";
/// About 2 MiB, or 8 where the window slides, and 6 more with `in: redis`; the key with the least to hide is forgotten first.
pub const LIMIT_KEYS: u32 = 100_000;
/// What one subscriber gets (RFC 6177 §2, RFC 7934 §6): counted by address, each would have 2^64 budgets.
pub const LIMIT_IPV6_PREFIX: u32 = 64;
/// As nginx; and who was away for a while may ask for a page with all its parts.
pub const LIMIT_WINDOW: LimitWindow = LimitWindow::Steady;
/// RFC 6585 §4. nginx answers 503, which says that the server is at fault.
pub const LIMIT_STATUS: u16 = 429;
/// Who is told how much is left can use up exactly that much; and answers that differ by it cannot be prepared.
pub const LIMIT_HEADERS: LimitHeaders = LimitHeaders::Off;
/// Ten edges that each hold as much as they may hold one more limit together.
pub const LIMIT_LEASE_PART: u32 = 10;
/// An outage of Redis is then neither one of the service nor an invitation: each edge holds to the limit for itself.
pub const LIMIT_ON_REDIS_DOWN: LimitOnRedisDown = LimitOnRedisDown::Local;

/// A quarter of the 512 MiB that one instance should need in all.
pub const CACHE_MEMORY: Bytes = Bytes::new(128 << 20);
/// One large body must not push out a thousand small ones.
pub const CACHE_ENTRY_MAX: Bytes = Bytes::new(8 << 20);
/// A film; what is written while it arrives costs no memory, so that only the room for others speaks against more.
pub const CACHE_DISK_ENTRY_MAX: Bytes = Bytes::new(1 << 30);
/// What an API answers with. A Redis has one thread, and sends a larger body while every session and limit behind it waits.
pub const CACHE_SHARED_ENTRY_MAX: Bytes = Bytes::new(64 << 10);
/// What nobody asked for in an hour is not worth the room; what is asked for is renewed by then.
pub const CACHE_SHARED_TTL_MAX: Duration = seconds(60 * 60);
/// Far below what an origin takes, and far above what a Redis of the same data centre does.
pub const CACHE_SHARED_TIMEOUT: Duration = Duration::from_millis(20);
/// Text takes a third of the room, for less time than the network needs to send the rest.
pub const CACHE_SHARED_COMPRESS: bool = true;
/// Most origins have answered by then; an edge that died while it asked costs the others no more.
pub const CACHE_SHARED_LEASE: Duration = seconds(2);
/// As nginx's `proxy_cache_lock_timeout`.
pub const CACHE_LOCK_TIMEOUT: Duration = seconds(5);
/// As nginx's `proxy_cache_lock_age`: who waits has given up by then, and an origin that hangs is asked once in so long.
pub const CACHE_LOCK_AGE: Duration = seconds(5);
/// What RFC 5861 §4 calls an error, and every way not to answer.
pub const CACHE_STALE_ON: [RetryOn; 4] =
    [RetryOn::Error, RetryOn::Timeout, RetryOn::InvalidHeader, RetryOn::Http5xx];
/// Whoever allows stale answers wants nobody to wait (RFC 5861 §3); nginx makes one client wait unless told otherwise.
pub const CACHE_BACKGROUND_UPDATE: bool = true;
/// As RFC 9111 §4.3 has it: most of what is asked about has not changed. nginx fetches all of it unless told otherwise.
pub const CACHE_REVALIDATE: bool = true;
/// As RFC 9111 §4.2.2 has it, and every browser. nginx does not guess.
pub const CACHE_HEURISTICS: bool = true;
/// Long enough for what is worth keeping. nginx goes on as long as bytes come: an origin that drips could be asked by clients
/// that leave until it has no connection left.
pub const CACHE_BACKGROUND_FILL: Duration = seconds(300);
/// One who writes a span means it; nginx's `proxy_cache_valid`, which steps back, is a word away.
pub const CACHE_TTL_APPLIES: TtlApplies = TtlApplies::Always;
/// As nginx: the first answer is kept.
pub const CACHE_MIN_USES: u32 = 1;
/// As nginx's `proxy_cache_convert_head`: whoever asks for a head often asks for the body next.
pub const CACHE_CONVERT_HEAD: bool = true;
/// The head of each slice takes about a KiB, and each costs the origin a request.
pub const SLICE_MIN: Bytes = Bytes::new(4 << 10);
/// What one client asked for in parts is kept as one whole only by those who want that: a route for files, as a rule.
pub const CACHE_PARTIAL: bool = false;
/// Staleness is asked for: only the operator knows what may be old.
pub const STALE: Duration = Duration::ZERO;

/// The one that browsers speak, and whose handshake nobody completes by accident.
pub const UPGRADE: &str = "websocket";

/// A body streams: nobody waits for its end who does not need it. nginx gathers, on disk beyond 16 KiB.
pub const REQUEST_BUFFER: Bytes = Bytes::new(0);
/// As nginx's `proxy_buffers` in all: most answers leave their server at once, and a thousand slow readers cost 64 MiB.
pub const RESPONSE_BUFFER: Bytes = Bytes::new(64 << 10);
/// More than this for each request under way is another program's task.
pub const BUFFER_MAX: Bytes = Bytes::new(16 << 20);

/// zstd first: at 3 it is about as small as gzip at 6 for a fraction of the time. br takes the longest, at 5 twice as long and with
/// twice the memory as at 4. gzip for clients that know nothing newer.
pub const COMPRESS_CODINGS: [(Coding, u32); 3] = [(Coding::Zstd, 3), (Coding::Brotli, 4), (Coding::Gzip, 6)];
/// What fits into a packet as it is saves nobody time. nginx begins at 20 bytes.
pub const COMPRESS_MIN_BYTES: Bytes = Bytes::new(1024);
/// What is text under any name, and fonts that are not packed already. Without `text/event-stream`: each of its streams would hold a
/// compressor for as long as it lasts.
pub const COMPRESS_TYPES: [&str; 20] = [
    "text/html",
    "text/plain",
    "text/css",
    "text/csv",
    "text/xml",
    "text/javascript",
    "text/markdown",
    "application/json",
    "application/ld+json",
    "application/problem+json",
    "application/manifest+json",
    "application/javascript",
    "application/xml",
    "application/xhtml+xml",
    "application/rss+xml",
    "application/atom+xml",
    "application/wasm",
    "image/svg+xml",
    "font/ttf",
    "font/otf",
];
/// The length of a compressed answer tells what is repeated in it (BREACH): a secret beside something that an attacker can choose.
pub const COMPRESS_PERSONAL: bool = false;

/// Who names a mirror wants it to see what there is.
pub const MIRROR_PERCENT: u32 = 100;

/// Temporary: a wrong 301 stays in browsers for years.
pub const REDIRECT_STATUS: u16 = 302;
/// Found.
pub const ANSWER_STATUS: u16 = 200;
/// Safe to show as it is.
pub const ANSWER_TYPE: &str = "text/plain; charset=utf-8";
/// People read it, in a browser.
pub const ERROR_PAGE_TYPE: &str = "text/html; charset=utf-8";
/// As nginx.
pub const FILES_INDEX: &str = "index.html";

/// A person who waits for longer than 1000 ms has noticed it.
pub const LOG_SLOW: Duration = seconds(1);
/// Events of the process's life, and what an operator may act on.
pub const LOG_LEVEL: &str = "info";
/// A second of a busy edge.
pub const LOG_QUEUE: u32 = 8192;

/// As long as Kubernetes waits before it kills.
pub const SHUTDOWN_GRACE: Duration = seconds(30);

/// Both lanes answer alike; the other word is for whoever doubts it.
pub const EXPRESS: bool = true;
