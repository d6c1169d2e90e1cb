//! Redis, which the fleet shares.

use std::{path::PathBuf, time::Duration};

use super::Certificate;
use crate::{secret::Secret, span::Placed};

/// A Redis that the fleet shares.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Redis {
    /// Where it is.
    pub servers: RedisServers,
    /// The ACL user, instead of the URL's.
    pub username: Option<String>,
    /// Its password, instead of the URL's.
    pub password: Option<Secret>,
    /// How TLS is spoken; `None` with a URL of `rediss://` believes the system's authorities.
    pub tls: Option<RedisTls>,
    /// To connect.
    pub connect_timeout: Duration,
    /// For one command; a slower Redis counts as down.
    pub timeout: Duration,
    /// What the names of the edge's own keys begin with.
    pub prefix: String,
    /// Whether a purge at one edge is one at all of them.
    pub purges: bool,
}

/// Where a Redis is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisServers {
    /// One server: `redis[s]://[user:password@]host[:port][/db]`.
    One(Placed<Secret>),
    /// The master that sentinels name.
    Sentinel {
        /// The master's name.
        master: String,
        /// The sentinels, `host:port`; at least one.
        nodes: Vec<String>,
    },
    /// A cluster of which these nodes, `host:port`, are known; at least one.
    Cluster(Vec<String>),
}

/// TLS to Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RedisTls {
    /// The authorities to believe, a PEM file; `None` believes the system's. Read again at a reload.
    pub ca: Option<Placed<PathBuf>>,
    /// What we show when asked. Read again at a reload.
    pub certificate: Option<Certificate>,
}
