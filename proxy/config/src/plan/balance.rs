//! Which peer of an upstream is asked: the method, and what keeps a session where it began.

use std::time::Duration;

use super::TokenSource;
use crate::{template::Template, units::Factor};

/// How a peer is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Balance {
    /// Smooth weighted round robin, as nginx.
    RoundRobin,
    /// Fewest active requests per weight; ties by round robin.
    LeastConn,
    /// By the first three octets of an IPv4 client, or a whole IPv6 address, as nginx.
    IpHash,
    /// By a key of the request; one that renders as nothing goes by round robin.
    Hash {
        /// What is hashed.
        key: Template,
        /// How hashes belong to peers.
        spread: Spread,
    },
    /// By lot, by weight.
    Random,
    /// The better of two drawn by lot.
    RandomTwo(Least),
    /// Shortest estimated time, by weight; ties by round robin.
    LeastTime {
        /// What is measured.
        until: Until,
        /// Whether requests that still wait count with the time that they have waited.
        inflight: bool,
    },
}

/// How hashes belong to peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Spread {
    /// By the remainder over the sum of the weights: a change of the servers moves nearly every key.
    Remainder,
    /// On a ring: a change moves only the share of the server that came or went.
    Ring {
        /// So many times its share of the requests in flight is the most a peer gets; above 1.
        bound: Option<Factor>,
    },
}

/// Which of two peers is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Least {
    /// That with fewer active requests by weight.
    Conn,
    /// That with the shorter estimated time by weight.
    Time(Until),
}

/// What an answer's time is measured until.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Until {
    /// Its head.
    Header,
    /// Its last byte.
    LastByte,
}

/// How the requests of one session find the peer that has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Sticky {
    /// By a cookie that we set.
    Cookie(StickyCookie),
    /// By the first of these that is not empty: a server's `route`.
    Route(Vec<Template>),
    /// By a field that our answers carry, too.
    Header(http::HeaderName),
    /// By sessions that the peers begin.
    Learn(Learn),
}

/// A cookie that names a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct StickyCookie {
    /// A token (RFC 6265 §4.1.1).
    pub name: String,
    /// How long a browser keeps it; `None` is as long as it runs.
    pub expires: Option<Duration>,
    /// `Domain`.
    pub domain: Option<String>,
    /// `Path`.
    pub path: Option<String>,
    /// Hidden from scripts.
    pub http_only: bool,
    /// Over TLS only.
    pub secure: bool,
    /// `SameSite`.
    pub same_site: Option<SameSite>,
}

/// `SameSite` of a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SameSite {
    /// Never sent from another site.
    Strict,
    /// Sent with links from other sites.
    Lax,
    /// Always sent.
    None,
}

/// Sessions that the peers begin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Learn {
    /// What in an answer begins one; never [`TokenSource::Bearer`].
    pub create: Vec<TokenSource>,
    /// What in a request names it.
    pub lookup: Vec<Template>,
    /// Unused for so long, it is forgotten.
    pub timeout: Duration,
    /// Remembered at most; the one unused for longest is forgotten first.
    pub sessions: usize,
}

/// What happens when failures or checks have taken every peer out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenAllDown {
    /// The request is refused, and failures are forgiven: the next one tries again.
    Pardon,
    /// The peers are asked all the same.
    FailOpen,
}
