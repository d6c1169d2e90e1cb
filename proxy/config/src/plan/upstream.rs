//! Named groups of peers: who they are, how they are connected to, and for how long they are waited for.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{
    Balance, Certificate, CircuitBreaker, Concurrency, Health, Hedge, Outlier, Queue, Retry, Sticky,
    WhenAllDown,
};
use crate::span::{Place, Placed};

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
    pub name: Placed<String>,
    /// Whether the certificate is checked.
    pub verify: bool,
    /// The authorities to believe, a PEM file; `None` believes the system's. Read again at a reload.
    pub ca: Option<Placed<PathBuf>>,
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
