//! The words of config.yaml as types: what is written, before anything is checked or filled in.
//!
//! Reading, writing ([`crate::to_yaml`]) and the JSON Schema ([`crate::schema`]) all come from these types; the
//! comments on the fields are the descriptions in the schema. Values that have a grammar of their own are text here
//! and are parsed by [`crate::resolve()`], so that a program (`weir-nginx`) can make a `Raw` as easily as an operator.

pub mod balance;
pub mod compress;
pub mod edge;
pub mod limit;
pub mod protect;
pub mod route;
pub mod session;
pub mod upstream;
pub mod word;

pub use balance::*;
pub use compress::*;
pub use edge::*;
pub use limit::*;
pub use protect::*;
pub use route::*;
pub use session::*;
pub use upstream::*;
pub use word::{FromShort, List, Named, Short, Switch, Switched, Word};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Raw {
    /// The version of this file's language: 1.
    pub version: Word<u32>,
    /// Worker threads. Default: the cores, or the cgroup quota.
    pub threads: Word<u32>,
    /// Sockets to accept clients on.
    pub listeners: Word<List<Short<Listener>>>,
    /// The operators' listener, or `off`.
    pub admin: Word<Short<Switch<Admin>>>,
    /// Whom to believe about a client's address.
    pub clients: Word<Clients>,
    /// The Redis that the fleet shares; without one, everything is kept in process.
    pub redis: Word<Redis>,
    /// The signed header that tells the origin who the caller is.
    pub identity: Word<Identity>,
    /// Who is asked for the addresses of servers that `resolve`. Default: whom the system asks.
    pub resolver: Word<Resolver>,
    /// Groups of servers, by name.
    pub upstreams: Word<Named<Upstream>>,
    /// Sources of sessions, by name.
    pub sessions: Word<Named<Session>>,
    /// Limits, by name.
    pub limits: Word<Named<Limit>>,
    /// Caches, by name.
    pub caches: Word<Named<Cache>>,
    /// What requests ask for; the most specific route decides, of equal ones the first.
    pub routes: Word<List<Route>>,
    /// Which answers are compressed, of all routes that do not say otherwise. Default: off.
    pub compress: Word<Short<Switch<Compress>>>,
    /// What is written down.
    pub log: Word<Log>,
    /// How the process ends.
    pub shutdown: Word<Shutdown>,
    /// Whether fresh hits that need no waiting take a shorter way through the edge. Default: true.
    pub express: Word<bool>,
}
