//! The words about what routes refer to by name: upstreams, sessions, caches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    balance::{Balance, Sticky, WhenAllDown},
    protect::{CircuitBreaker, Concurrency, Health, Hedge, Outlier, Queue, Retry},
    session::Jwt,
    word::{FromShort, List, Named, Short, Switch, Word},
};
use crate::{
    template::Template,
    units::{Bytes, Span},
};

/// A group of servers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// How a server is chosen: a method, or `{ hash: KEY }` and the like.
    pub balance: Word<Short<Balance>>,
    /// What keeps a session at the server where it began.
    pub sticky: Word<Sticky>,
    /// What happens when failures or checks have taken every server out: `pardon` or `fail_open`.
    pub when_all_down: Word<WhenAllDown>,
    /// The servers.
    pub servers: Word<List<Short<Server>>>,
    /// Active checks; without them only failed requests tell.
    pub health: Word<Health>,
    /// When a failed attempt goes to the next server.
    pub retry: Word<Retry>,
    /// Servers that do worse than the others rest for a while, or `off`.
    pub outlier: Word<Short<Switch<Outlier>>>,
    /// An upstream that fails is left alone for a while.
    pub circuit_breaker: Word<CircuitBreaker>,
    /// Requests at once follow the upstream's latency.
    pub concurrency: Word<Concurrency>,
    /// Requests wait for a place at a server.
    pub queue: Word<Queue>,
    /// A slow answer is asked of a second server, too.
    pub hedge: Word<Hedge>,
    /// How long each part of an exchange may take.
    pub timeouts: Word<Timeouts>,
    /// Connections kept for reuse; a number is how many may be idle.
    pub keepalive: Word<Short<Keepalive>>,
    /// TLS to the servers.
    pub tls: Word<UpstreamTls>,
    /// What is spoken to the servers: `http1`, `h2` (over TLS, by ALPN) or `h2c` (in plain text, without asking first).
    pub protocol: Word<Protocol>,
    /// Tells the servers each client's address in front of everything else: `v1` or `v2`.
    pub proxy_protocol: Word<ProxyProtocol>,
    /// The local address to connect from, with or without a port.
    pub bind: Word<String>,
}

/// What is spoken to the servers of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 over TLS where the server chooses it, else HTTP/1.1.
    H2,
    /// HTTP/2 in plain text, by prior knowledge.
    H2c,
}

/// Connections to the servers kept for reuse.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Keepalive {
    /// Idle connections kept, for all servers of the upstream together. 0: none.
    pub idle: Word<u32>,
    /// Requests that one connection may carry. 0: no bound.
    pub requests: Word<u64>,
    /// How old a connection may become before it is not used again.
    pub time: Word<Span>,
    /// How long an idle connection is kept.
    pub idle_timeout: Word<Span>,
}

impl FromShort for Keepalive {
    const SHORT_FORM: &'static str = "how many may be idle";

    fn from_short(text: &str) -> Result<Self, String> {
        let idle: u32 =
            text.parse().map_err(|_| format!("`{text}` is not a number of connections; `0` keeps none"))?;
        Ok(Self { idle: Word::new(idle), ..Self::default() })
    }
}

/// The version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// One server of an upstream.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Host or address, and port: `10.0.0.5:3000`, `api.internal:3000`, `[::1]:3000`. A socket: `unix:/run/api.sock`.
    pub address: Word<String>,
    /// Share relative to the others.
    pub weight: Word<u32>,
    /// Requests at once. 0: no bound.
    pub max_conns: Word<u32>,
    /// Failures within `fail_timeout` that take the server out. 0: never.
    pub max_fails: Word<u32>,
    /// The window of `max_fails`, and how long the server then stays out.
    pub fail_timeout: Word<Span>,
    /// Asked only when all the others are out.
    pub backup: Word<bool>,
    /// Never asked.
    pub down: Word<bool>,
    /// Asked only by sessions that it has already.
    pub drain: Word<bool>,
    /// Whether the name is looked up again whenever its answer expires.
    pub resolve: Word<bool>,
    /// A service whose SRV records tell the servers, with their ports: `http`, or `_http._tcp`. Needs `resolve`.
    pub service: Word<String>,
    /// How long its share grows from nothing after it was out. 0: it has its share at once.
    pub slow_start: Word<Span>,
    /// The word by which `sticky` knows it. Default: the MD5 of its address, as nginx.
    pub route: Word<String>,
}

impl FromShort for Server {
    const SHORT_FORM: &'static str = "host and port";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { address: Word::new(text.to_owned()), ..Self::default() })
    }
}

/// How long each part of an exchange with a server may take.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// TCP, and TLS when there is one.
    pub connect: Word<Span>,
    /// From the request's end to the answer's first byte.
    pub first_byte: Word<Span>,
    /// Between two reads.
    pub read: Word<Span>,
    /// Between two writes.
    pub write: Word<Span>,
    /// The whole exchange. Default, and 0: no bound. Upgraded connections are exempt.
    pub total: Word<Span>,
}

/// TLS to the servers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTls {
    /// The name that is asked for, and that the certificate must carry. Default: the first server's host.
    pub name: Word<String>,
    /// Whether the certificate is checked. Default: true.
    pub verify: Word<bool>,
    /// PEM file of the authorities to believe. Default: the system's.
    pub ca: Word<String>,
    /// PEM file of the certificate that we show, leaf first.
    pub certificate: Word<String>,
    /// PEM file of its key: PKCS#8, PKCS#1 or SEC1.
    pub key: Word<String>,
    /// The oldest version spoken: `1.2` or `1.3`.
    pub min_version: Word<TlsVersion>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// RFC 5246.
    #[serde(rename = "1.2")]
    V12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    V13,
}

/// Where session tokens come from, and where they are looked up.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Session {
    /// Tried in order: `bearer`, `cookie: NAME`, `header: NAME`.
    pub from: Word<List<TokenSource>>,
    /// The Redis key; `${token}` is its only variable.
    pub key: Word<Template>,
    /// How Redis holds a session. Default: json.
    pub format: Word<SessionFormat>,
    /// What the source calls our fields, where that is something else: `user_id: uid`.
    pub fields: Word<Named<String>>,
    /// How tokens are checked that are JWTs, and not looked up.
    pub jwt: Word<Jwt>,
    /// The Redis key of roles that are kept apart: `user:role:${session.user_id}`. Default: a session has its own.
    pub roles_key: Word<Template>,
    /// How long a session lives from each use on. Default: its key ends as Redis was told.
    pub sliding: Word<Span>,
    /// Whom to ask when there is no Redis.
    pub ask: Word<Ask>,
    /// How long an answer is believed without asking again.
    pub memory_ttl: Word<Span>,
    /// Sessions remembered at most.
    pub memory_entries: Word<u32>,
    /// How long Redis may be silent until what is remembered is not believed any more. Default: 500ms.
    pub staleness: Word<Span>,
    /// How long who is remembered stays known while Redis, or who is asked, does not answer. Default: not at all.
    pub serve_known_for: Word<Span>,
    /// What becomes of the others meanwhile. Default: refuse.
    pub on_redis_down: Word<OnRedisDown>,
}

/// How Redis holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SessionFormat {
    /// As an object of JSON (GET).
    Json,
    /// As a hash (HGETALL).
    Hash,
}

/// What becomes of a session that Redis is not there to confirm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnRedisDown {
    /// 503, worth trying again.
    Refuse,
    /// The upstream of `ask` says.
    AskOrigin,
}

/// One place in a request where a token may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// `Authorization: Bearer …`.
    Bearer,
    /// A cookie of this name.
    Cookie(String),
    /// A header of this name.
    Header(String),
}

/// An upstream as the source of sessions: GET with the token, and with what it is told about the request; 200 with JSON is a
/// session, or fields of a 2xx.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ask {
    /// Whom to ask.
    pub upstream: Word<String>,
    /// What to ask for.
    pub path: Word<String>,
    /// Where it looks for the token. Default: bearer.
    pub token: Word<TokenSource>,
    /// What a session is made of. Default: json.
    pub answer: Word<AskAnswer>,
    /// Whether it is asked also where there is a Redis. Default: false.
    pub always: Word<bool>,
    /// Fields that tell it about the request: `x-original-uri: ${request.target}`. Its answer counts for requests that tell the
    /// same. Default: none, it gets the token alone.
    pub request_headers: Word<Named<Template>>,
    /// For one question, whichever servers it goes to. Default: 5s.
    pub timeout: Word<Span>,
}

/// What of an answer a session is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AskAnswer {
    /// The body of a 200, an object of JSON.
    Json,
    /// Those fields of an answer with 2xx that `fields` names.
    Headers,
}

/// A cache.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    /// Everything it may hold: heads, bodies, index and fills.
    pub memory: Word<Bytes>,
    /// The largest body kept.
    pub entry_max: Word<Bytes>,
    /// A second tier, in files.
    pub disk: Word<CacheDisk>,
    /// A tier that all edges of the fleet have in common, in Redis.
    pub shared: Word<CacheShared>,
}

/// The tier of a cache that is kept in files, and outlives the process.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheDisk {
    /// A folder of its own.
    pub path: Word<String>,
    /// What its files may take.
    pub size: Word<Bytes>,
    /// The largest body kept there.
    pub entry_max: Word<Bytes>,
}

/// The tier of a cache that all edges of the fleet have in common, in Redis.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CacheShared {
    /// The largest body kept there.
    pub entry_max: Word<Bytes>,
    /// For how long at most.
    pub ttl_max: Word<Span>,
    /// For one command; a slower Redis is left alone.
    pub timeout: Word<Span>,
    /// Whether bodies are compressed there.
    pub compress: Word<bool>,
    /// How long the edges wait for the one that asks the origin; 0s: each asks for itself.
    pub lease: Word<Span>,
}
