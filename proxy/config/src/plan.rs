//! What config.yaml means: every default filled in, every name resolved, every template parsed.
//!
//! A [`Plan`] is immutable and pure data. All its types are `#[non_exhaustive]`: outside this crate they can be read
//! but not built, so a plan that exists has passed every check (the only constructor is [`crate::load`]).
//! Names point by index ([`UpstreamId`], [`CacheId`], …), so nothing is looked up by string while a request waits.

mod action;
mod balance;
mod compress;
mod keeping;
mod limit;
mod listener;
pub mod protect;
mod redis;
mod route;
mod session;
mod upstream;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::IpNet;

pub(crate) use self::limit::names_session;
pub use self::{
    action::*, balance::*, compress::*, keeping::*, limit::*, listener::*, protect::*, redis::*, route::*,
    session::*, upstream::*,
};
use crate::{
    secret::Secret,
    span::{Place, Placed},
    template::Template,
    units::Bytes,
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
    /// Whether hits that need no waiting are answered on a lane of their own.
    pub express: bool,
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

/// The operators' listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Admin {
    /// Address and port; the default is on loopback.
    pub address: Placed<SocketAddr>,
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
    /// How Redis holds a session.
    pub format: SessionFormat,
    /// Our names of fields, each with the source's own.
    pub fields: Vec<(String, String)>,
    /// How tokens are checked that are JWTs, and not looked up.
    pub jwt: Option<Jwt>,
    /// The Redis key of roles that are kept apart; its one variable is a field of the session.
    pub roles_key: Option<Template>,
    /// How much longer a session lives from each use on; `None` leaves its end alone.
    pub sliding: Option<Duration>,
    /// Asked when no Redis is configured.
    pub ask: Option<AskOrigin>,
    /// How long an answer is believed without asking again.
    pub memory_ttl: Duration,
    /// Sessions remembered at most.
    pub memory_entries: usize,
    /// How long Redis may be silent until what is remembered is not believed any more.
    pub staleness: Duration,
    /// How long who is remembered stays known while Redis, or who is asked, does not answer.
    pub serve_known_for: Duration,
    /// Whether `ask` is asked about the others meanwhile, instead of refusing them.
    pub asks_when_down: bool,
    /// Where it was written.
    pub place: Place,
}

/// How Redis holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionFormat {
    /// As one text: an object of JSON.
    Json,
    /// As a hash, a field for each.
    Hash,
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

/// An upstream as the source of sessions: `GET path` with the token, and with what it is told about the request; 200 with JSON is
/// a session, or fields of a 2xx.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AskOrigin {
    /// Whom to ask.
    pub upstream: UpstreamId,
    /// What to ask.
    pub path: String,
    /// Where it looks for the token.
    pub token: TokenSource,
    /// What a session is made of.
    pub answer: AskAnswer,
    /// Whether it is asked also where there is a Redis.
    pub always: bool,
    /// What it is told about the request. Where that is something, it is asked about requests, and not about tokens.
    pub told: Vec<(http::HeaderName, Template)>,
    /// For one question.
    pub timeout: Duration,
}

/// What of an answer a session is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskAnswer {
    /// The body of a 200, an object of JSON.
    Json,
    /// These fields of an answer with 2xx; no others are looked at.
    Headers(Vec<http::HeaderName>),
}

impl Session {
    /// Whether its tokens are looked up in Redis, where there is one.
    #[must_use]
    pub fn is_in_redis(&self) -> bool {
        self.jwt.is_none() && !self.ask.as_ref().is_some_and(|ask| ask.always)
    }

    /// What a service is told about each request; nothing where it is asked about tokens, or nobody is asked.
    #[must_use]
    pub fn told(&self) -> &[(http::HeaderName, Template)] {
        self.ask.as_ref().map_or(&[], |ask| &ask.told)
    }
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
    /// A second tier, in files.
    pub disk: Option<CacheDisk>,
    /// A tier that all edges of the fleet have in common, in Redis.
    pub shared: Option<CacheShared>,
    /// Where it was written.
    pub place: Place,
}

/// The tier of a cache that all edges of the fleet have in common, in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheShared {
    /// The largest body kept there.
    pub entry_bytes: Bytes,
    /// For how long at most.
    pub ttl_max: Duration,
    /// For one command; a slower Redis is left alone.
    pub timeout: Duration,
    /// Whether bodies are compressed there.
    pub compresses: bool,
    /// How long the edges wait for the one that asks the origin; zero: each asks for itself.
    pub lease: Duration,
    /// Where it was written.
    pub place: Place,
}

/// The tier of a cache that is kept in files.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheDisk {
    /// A folder of its own.
    pub path: Placed<PathBuf>,
    /// What its files may take.
    pub size: Bytes,
    /// The largest body kept there.
    pub entry_bytes: Bytes,
    /// Where it was written.
    pub place: Place,
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
    pub path: Option<Placed<PathBuf>>,
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
