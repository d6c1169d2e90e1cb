//! What config.yaml means: every default filled in, every name resolved, every template parsed.
//!
//! A [`Plan`] is immutable and pure data. All its types are `#[non_exhaustive]`: outside this crate they can be read
//! but not built, so a plan that exists has passed every check (the only constructor is [`crate::load`]).
//! Names point by index ([`UpstreamId`], [`CacheId`], …), so nothing is looked up by string while a request waits.

mod balance;
mod keeping;
pub mod protect;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

pub use self::{balance::*, keeping::*, protect::*};
use crate::{
    defaults,
    secret::Secret,
    span::Place,
    template::Template,
    units::{Bytes, Quota},
};

/// Everything the edge needs to know, in the order a request meets it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Plan {
    /// Worker threads; `None` follows the cores or the cgroup quota.
    pub threads: Option<usize>,
    /// Sockets to accept on; at least one.
    pub listeners: Vec<Listener>,
    /// Where operators ask; `None` serves no admin endpoints.
    pub admin: Option<Admin>,
    /// Whom to believe about a client's address.
    pub clients: Clients,
    /// Redis, when the fleet shares one.
    pub redis: Option<Redis>,
    /// The signed header that tells the origin who the caller is.
    pub identity: Option<Identity>,
    /// Who is asked for the addresses of servers that are looked up again.
    pub resolver: Resolver,
    /// Named groups of peers; [`UpstreamId`] is an index.
    pub upstreams: Vec<Upstream>,
    /// Named session sources; [`SessionId`] is an index.
    pub sessions: Vec<Session>,
    /// Named limits; [`LimitId`] is an index.
    pub limits: Vec<Limit>,
    /// Named caches; [`CacheId`] is an index.
    pub caches: Vec<Cache>,
    /// Routes in the order of the file; [`RouteId`] is an index.
    pub routes: Vec<Route>,
    /// What is written down, and where.
    pub log: Log,
    /// How the process ends.
    pub shutdown: Shutdown,
}

impl Plan {
    /// The listener at `address`, as it is written; none once a reload has closed it.
    #[must_use]
    pub fn listener(&self, address: SocketAddr) -> Option<&Listener> {
        self.listeners.iter().find(|listener| listener.address == address)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub(crate) u32);
        impl $name {
            /// The id of the entry at this position of the plan's list.
            #[must_use]
            pub fn at(index: usize) -> Self {
                Self(u32::try_from(index).expect("a plan has fewer than 2^32 entries of a kind"))
            }

            /// The position in the plan's list.
            #[must_use]
            pub fn index(self) -> usize { self.0 as usize }
        }
    };
}
id!(/** Points into [`Plan::upstreams`]. */ UpstreamId);
id!(/** Points into [`Plan::sessions`]. */ SessionId);
id!(/** Points into [`Plan::limits`]. */ LimitId);
id!(/** Points into [`Plan::caches`]. */ CacheId);
id!(/** Points into [`Plan::routes`]. */ RouteId);

/// A socket that accepts clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Listener {
    /// Address and port; port 0 asks the system for a free one.
    pub address: SocketAddr,
    /// TLS, when the socket speaks it.
    pub tls: Option<Tls>,
    /// Bounds on what one connection may ask of us.
    pub bounds: Bounds,
    /// Whether every connection begins with a PROXY header, from one of `clients.trusted`.
    pub proxy_protocol: bool,
    /// Where it was written.
    pub place: Place,
}

/// TLS of one listener: certificates by name, the first one for clients that send none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tls {
    /// At least one; names are read from the certificates themselves.
    pub certificates: Vec<Certificate>,
    /// Whether `h2` is offered in ALPN.
    pub http2: bool,
}

/// A certificate chain and its key, both PEM files, read again at a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Certificate {
    /// Leaf first.
    pub chain: PathBuf,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
    /// Where it was written.
    pub place: Place,
}

/// Bounds of one listener; each default is argued in `defaults.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Bounds {
    /// From the first byte (or the accept) to the end of the head; 408 afterwards.
    pub header_timeout: Duration,
    /// Between requests of a kept-alive connection.
    pub idle_timeout: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// Slowest acceptable request body, bytes per second averaged after the first `body_timeout`; 0 is no bound.
    pub body_min_rate: Bytes,
    /// Between two writes to a client that does not read.
    pub send_timeout: Duration,
    /// Request line and fields together; 431 beyond.
    pub head_bytes: Bytes,
    /// Request target; 414 beyond.
    pub uri_bytes: Bytes,
    /// Number of fields; 431 beyond.
    pub head_fields: usize,
    /// Request body; 413 beyond. 0 is no bound.
    pub body_bytes: Bytes,
    /// Connections accepted at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Requests served by one connection before it is closed; 0 is no bound.
    pub requests_per_connection: u64,
    /// Concurrent HTTP/2 streams of one connection.
    pub http2_streams: u32,
    /// Whether a bare LF may end a line of the head (normalised, never passed on).
    pub bare_lf: BareLf,
    /// Whether some route takes CONNECT; otherwise it is refused before anything is asked.
    pub connect: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            header_timeout: defaults::HEADER_TIMEOUT,
            idle_timeout: defaults::IDLE_TIMEOUT,
            body_timeout: defaults::BODY_TIMEOUT,
            body_min_rate: defaults::BODY_MIN_RATE,
            send_timeout: defaults::SEND_TIMEOUT,
            head_bytes: defaults::HEAD_BYTES,
            uri_bytes: defaults::URI_BYTES,
            head_fields: defaults::HEAD_FIELDS as usize,
            body_bytes: defaults::BODY_BYTES,
            connections: defaults::CONNECTIONS as usize,
            requests_per_connection: defaults::REQUESTS_PER_CONNECTION,
            http2_streams: defaults::HTTP2_STREAMS,
            bare_lf: BareLf::Refuse,
            connect: false,
        }
    }
}

/// What a line of a request head that ends in LF without CR means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BareLf {
    /// 400: two parsers on the path may disagree about it.
    Refuse,
    /// As RFC 9112 §2.2 allows and nginx does.
    Accept,
}

/// The operators' listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Admin {
    /// Address and port; the default is on loopback.
    pub address: SocketAddr,
    /// Who may ask.
    pub allow: Vec<IpNet>,
}

/// Whom to believe about where a request came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Clients {
    /// Hops whose forwarding header is believed, read from the right; empty believes nobody.
    pub trusted: Vec<IpNet>,
    /// The field that trusted hops append to.
    pub header: ForwardedBy,
}

/// The field in which trusted hops tell the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A Redis that the fleet shares.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redis {
    /// `redis://[user:password@]host[:port][/db]`.
    pub url: Secret,
    /// To connect.
    pub connect_timeout: Duration,
    /// For one command; a slower Redis counts as down.
    pub timeout: Duration,
}

/// The signed header (a short-lived JWT, HS256) that carries the caller to the origin.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// Its name; whatever a client sends under it is removed.
    pub header: http::HeaderName,
    /// Shared with the origin.
    pub secret: Secret,
    /// How long the origin may believe it.
    pub ttl: Duration,
}

/// A named group of peers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Upstream {
    /// As routes call it, and as metrics label it.
    pub name: Arc<str>,
    /// How a peer is chosen.
    pub balance: Balance,
    /// What keeps a session at its peer.
    pub sticky: Option<Sticky>,
    /// What happens when every peer is out.
    pub when_all_down: WhenAllDown,
    /// At least one that is not `down`.
    pub servers: Vec<Server>,
    /// Active checks; `None` leaves only the passive ones.
    pub health: Option<Health>,
    /// When a failed attempt goes to the next peer.
    pub retry: Retry,
    /// When a peer that does worse than the others rests; `None` is never.
    pub outlier: Option<Outlier>,
    /// When the upstream is left alone; `None` is never.
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How many requests at once it gets; `None` is no bound but the peers' own.
    pub concurrency: Option<Concurrency>,
    /// Where requests wait while every peer is full; `None` refuses them at once.
    pub queue: Option<Queue>,
    /// When a second peer is asked while the first is silent; `None` is never.
    pub hedge: Option<Hedge>,
    /// How long each part of an exchange may take.
    pub timeouts: Timeouts,
    /// Connections kept for reuse.
    pub keepalive: Keepalive,
    /// TLS to the peers, with the name to verify.
    pub tls: Option<UpstreamTls>,
    /// What is spoken to the peers.
    pub protocol: Protocol,
    /// Tells the peers each client's address.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// The local address to connect from; port 0 is any.
    pub bind: Option<SocketAddr>,
    /// Where it was written.
    pub place: Place,
}

/// What is spoken to the peers of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 over TLS where the peer chooses it (ALPN, RFC 7301), else HTTP/1.1; there is TLS.
    H2,
    /// HTTP/2 in plain text by prior knowledge (RFC 9113 §3.3); there is no TLS.
    H2c,
}

/// Connections to peers kept for reuse.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Keepalive {
    /// Idle connections kept, for all peers of the upstream together; 0 keeps none.
    pub idle: usize,
    /// Requests that one connection may carry; 0 is no bound.
    pub requests: u64,
    /// How old a connection may become before it is not used again.
    pub time: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
}

/// The version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Who is asked for the addresses of servers that are looked up again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Resolver {
    /// Name servers; none: the system's.
    pub addresses: Vec<SocketAddr>,
    /// How long an answer is believed, instead of its own time to live.
    pub valid: Option<Duration>,
    /// For one question.
    pub timeout: Duration,
}

/// One peer as written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Server {
    /// `host:port`, resolved at start; or an address and port; or `unix:` and a path; a bare host with `service`.
    pub address: String,
    /// Share relative to the others; 1 by default.
    pub weight: u32,
    /// Requests at once; 0 is no bound.
    pub max_conns: u32,
    /// Failures within `fail_timeout` that take the peer out; 0 never does.
    pub max_fails: u32,
    /// The window of `max_fails`, and how long the peer then stays out.
    pub fail_timeout: Duration,
    /// Asked only when every other peer is out.
    pub backup: bool,
    /// Never asked.
    pub down: bool,
    /// Asked only by sessions that it has already.
    pub drain: bool,
    /// Whether the name is looked up again whenever its answer expires.
    pub resolve: bool,
    /// The name whose SRV records tell the peers: `_http._tcp.api.internal`.
    pub service: Option<String>,
    /// How long its share grows from nothing after it was out; zero is at once.
    pub slow_start: Duration,
    /// The word by which `sticky` knows it; `None` is the MD5 of its address.
    pub route: Option<String>,
    /// Where it was written.
    pub place: Place,
}

impl Server {
    /// What tells it from the others: its address, or the whole name of its service.
    #[must_use]
    pub fn name(&self) -> &str {
        self.service.as_deref().unwrap_or(&self.address)
    }
}

/// How long each part of an exchange with a peer may take.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Timeouts {
    /// TCP, and TLS when there is one.
    pub connect: Duration,
    /// From the request's end to the answer's first byte.
    pub first_byte: Duration,
    /// Between two reads.
    pub read: Duration,
    /// Between two writes.
    pub write: Duration,
    /// The whole exchange; `None` is no bound. Upgraded connections are exempt.
    pub total: Option<Duration>,
}

/// TLS to the peers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct UpstreamTls {
    /// SNI and the name that the certificate must carry.
    pub name: String,
    /// Whether the certificate is checked.
    pub verify: bool,
    /// The authorities to believe, a PEM file; `None` believes the system's. Read again at a reload.
    pub ca: Option<PathBuf>,
    /// What we show when asked. Read again at a reload.
    pub certificate: Option<Certificate>,
    /// The oldest version spoken.
    pub min_version: TlsVersion,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    V12,
    /// RFC 8446.
    V13,
}

/// Where session tokens come from, and where they are looked up.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Session {
    /// As routes call it.
    pub name: Arc<str>,
    /// Tried in order; the first one present counts.
    pub from: Vec<TokenSource>,
    /// The Redis key; `${token}` is the only variable.
    pub key: Template,
    /// Asked when no Redis is configured.
    pub ask: Option<AskOrigin>,
    /// How long an answer is believed without asking again.
    pub memory_ttl: Duration,
    /// Sessions remembered at most.
    pub memory_entries: usize,
    /// Where it was written.
    pub place: Place,
}

/// One place in a request where a token may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenSource {
    /// `Authorization: Bearer …`.
    Bearer,
    /// A cookie of this name.
    Cookie(String),
    /// A header of this name.
    Header(http::HeaderName),
}

/// The origin as the source of sessions: `GET path` with the token as bearer; 200 with JSON is a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskOrigin {
    /// Whom to ask.
    pub upstream: UpstreamId,
    /// What to ask.
    pub path: String,
}

/// A named limit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limit {
    /// As routes call it, and as metrics label it.
    pub name: Arc<str>,
    /// Whose requests are counted together.
    pub key: Template,
    /// How many in how long.
    pub rate: Quota,
    /// How many at once, after a pause.
    pub burst: u32,
    /// Keys remembered at most.
    pub keys: usize,
    /// Where it was written.
    pub place: Place,
}

/// A named cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cache {
    /// As routes call it, and as metrics label it.
    pub name: Arc<str>,
    /// Everything it may hold: heads, bodies, index and fills.
    pub memory: Bytes,
    /// The largest body kept.
    pub entry_bytes: Bytes,
    /// Where it was written.
    pub place: Place,
}

/// One route: what it matches, what it asks of the request, and what it does.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Route {
    /// As given, or made from methods, host and path (`GET /api/items`); the metric label, different for each route.
    pub name: Arc<str>,
    /// When it applies.
    pub when: Match,
    /// Who may pass by address; `None` asks nothing.
    pub access: Option<Access>,
    /// Limits charged in this order.
    pub limits: Vec<LimitId>,
    /// Who the caller must be.
    pub session: Option<SessionRule>,
    /// Whether and how answers are kept.
    pub cache: Option<CacheRule>,
    /// Tags purged after a successful unsafe request, in every cache.
    pub invalidate: Vec<Template>,
    /// Fields set on the request for the origin; an empty value removes.
    pub request_headers: Vec<(http::HeaderName, Template)>,
    /// Fields set on the answer for the client; an empty value removes.
    pub response_headers: Vec<(http::HeaderName, Template)>,
    /// What happens to what passed.
    pub action: Action,
    /// Largest request body; overrides the listener's. 0 is no bound.
    pub body_bytes: Option<Bytes>,
    /// What is shown for errors; the first that names the status.
    pub error_pages: Vec<ErrorPage>,
    /// Whether they stand for the origin's errors too.
    pub intercept_errors: bool,
    /// How fast one answer may go; `None` is no bound.
    pub limit_rate: Option<LimitRate>,
    /// Where it was written.
    pub place: Place,
}

/// When a route applies; everything given must hold.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Match {
    /// Any of these; empty is any host.
    pub hosts: Vec<HostPattern>,
    /// The path.
    pub path: PathPattern,
    /// Any of these; empty is any method but CONNECT. GET includes HEAD.
    pub methods: Vec<http::Method>,
    /// All of these.
    pub headers: Vec<HeaderMatch>,
}

/// A host that a route serves, in lower case without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `example.org`.
    Exact(String),
    /// `*.example.org`, held as `.example.org`: one label or more in front.
    Suffix(String),
}

/// A path that a route serves, compared with the normalised path.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// `/health`: this and nothing else.
    Exact(String),
    /// `/static/*`, held as `/static/`: everything below. `/*` or no path at all is everything.
    Prefix(String),
    /// `/users/{id}/items`: a segment a parameter.
    Segments(Vec<Segment>),
    /// `~ ^/v[0-9]+/`: a regular expression; named groups are `${path.name}`.
    Regex(regex::Regex),
}

/// One segment of a path with parameters.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Itself.
    Literal(String),
    /// Anything that is not empty and has no slash.
    Parameter(String),
}

/// A condition on one field.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HeaderMatch {
    /// The field.
    pub name: http::HeaderName,
    /// What it must be.
    pub value: HeaderCondition,
}

/// What a field must be.
#[derive(Debug, Clone)]
pub enum HeaderCondition {
    /// There, with any value.
    Present,
    /// Not there.
    Absent,
    /// One of its values is exactly this.
    Equals(String),
    /// One of its values matches.
    Matches(regex::Regex),
}

impl HeaderCondition {
    /// Whether the field `name` of these is so.
    #[must_use]
    pub fn is_met(&self, name: &http::HeaderName, fields: &http::HeaderMap) -> bool {
        let mut values = fields.get_all(name).iter();
        match self {
            Self::Present => values.next().is_some(),
            Self::Absent => values.next().is_none(),
            Self::Equals(expected) => values.any(|value| value == expected),
            Self::Matches(regex) => {
                values.filter_map(|value| value.to_str().ok()).any(|value| regex.is_match(value))
            }
        }
    }
}

/// Who may pass by address; the most specific network wins, and `deny` wins a tie.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// When not empty, nobody else passes.
    pub allow: Vec<IpNet>,
    /// Never passes.
    pub deny: Vec<IpNet>,
}

/// Who the caller must be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRule {
    /// Where tokens are looked up.
    pub session: SessionId,
    /// Whether a request without a session is refused (401).
    pub required: bool,
    /// Any of these; others are refused (403). Empty asks for none.
    pub roles: Vec<String>,
    /// Whether a successful answer ends the session: this edge forgets it at once.
    pub ends: bool,
}

/// Whether and how a route's answers are kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheRule {
    /// Where.
    pub cache: CacheId,
    /// How long, whatever the origin says short of `no-store` and `private`; `None` follows the origin alone.
    pub ttl: Option<Duration>,
    /// What tells answers apart; `None` is scheme, host and target.
    pub key: Option<Template>,
    /// What they are purged by, besides the origin's own `Cache-Tag`.
    pub tags: Vec<Template>,
    /// How long after expiry an entry may still answer while it is fetched anew.
    pub stale_while_revalidate: Duration,
    /// How long after expiry an entry may still answer when the origin fails.
    pub stale_if_error: Duration,
    /// How long a request waits for another's fill before it goes to the origin itself.
    pub lock_timeout: Duration,
    /// What else the route says about it.
    pub keeping: Keeping,
    /// Who may purge with the method PURGE; `None` is nobody.
    pub purge: Option<PurgeRule>,
    /// Where it was written.
    pub place: Place,
}

/// Who may purge what a route keeps, with the method PURGE.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeRule {
    /// From these networks, at least one.
    pub allow: Vec<IpNet>,
    /// Whether what is purged is stale from then on, and not gone.
    pub soft: bool,
}

/// What happens to what passed.
#[derive(Debug, Clone)]
pub enum Action {
    /// To an upstream, perhaps under another path.
    Forward(Forward),
    /// To another address.
    Redirect(Redirect),
    /// A fixed answer.
    Answer(Answer),
    /// Files of a folder.
    Files(Files),
    /// A tunnel to a server of this upstream; such a route takes CONNECT, and no other does.
    Tunnel(UpstreamId),
}

/// How fast one answer may go to its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitRate {
    /// Bytes of body a second, at least 1.
    pub per_second: Bytes,
    /// Bytes that go before at any speed.
    pub after: Bytes,
}

/// What is shown for an error.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ErrorPage {
    /// For which, 400 to 599.
    pub statuses: Vec<u16>,
    /// The status the client gets instead; a redirect has its own.
    pub shown_as: Option<http::StatusCode>,
    /// The `Content-Type`, where there is a body.
    pub content_type: String,
    /// What it is.
    pub page: Page,
}

/// An error page's content.
#[derive(Debug, Clone)]
pub enum Page {
    /// A text; knows nothing of the path's parameters.
    Body(Template),
    /// A file, read at start and reload.
    File(PathBuf),
    /// Another address.
    Redirect(Redirect),
}

/// To an upstream.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Forward {
    /// Which.
    pub upstream: UpstreamId,
    /// The target to ask for instead of the client's: path, and query if it has a `?`.
    pub rewrite: Option<Template>,
    /// `Host` for the origin; `None` passes the client's on.
    pub host: Option<Template>,
    /// Protocols that a client may switch to, in lower case.
    pub upgrades: Vec<String>,
    /// How much of a request's body is gathered before a peer is asked; a longer one streams from there.
    pub request_buffer: Bytes,
    /// How much of an answer is read before its client takes it.
    pub response_buffer: Bytes,
    /// Where requests go once more.
    pub mirror: Option<Mirror>,
}

/// Where requests go once more; the answers are thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Mirror {
    /// To whom.
    pub upstream: UpstreamId,
    /// Which share of the requests, 0 to 100.
    pub percent: u32,
}

/// To another address.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: http::StatusCode,
    /// The `Location`.
    pub location: Template,
}

/// A fixed answer.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: http::StatusCode,
    /// The `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: Template,
}

/// Files of a folder, with types, validators and ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Files {
    /// The folder; nothing outside of it is ever served.
    pub root: PathBuf,
    /// What of the request path is left out; the route's literal prefix by default.
    pub strip: String,
    /// Asked for when a path ends in `/`.
    pub index: String,
    /// The `Cache-Control` of what is served.
    pub cache_control: Option<String>,
}

/// What is written down, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Log {
    /// Requests; `None` writes none.
    pub access: Option<AccessLog>,
    /// Slower requests get a warning.
    pub slow: Duration,
    /// The least important event written: error, warn, info, debug or trace.
    pub level: String,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessLog {
    /// One line a request, in this form.
    pub format: AccessFormat,
    /// A file, opened anew at a reload; `None` is standard output.
    pub path: Option<PathBuf>,
    /// Lines that may wait for a slow disk; further ones are dropped and counted.
    pub queue: usize,
}

/// The form of an access-log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessFormat {
    /// An object with the words of the metrics.
    Json,
    /// nginx's `combined`.
    Combined,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shutdown {
    /// How long requests in flight may take after TERM or QUIT.
    pub grace: Duration,
}
