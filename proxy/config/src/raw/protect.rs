//! The words about how an upstream outlives its servers' failures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    route::HeaderCondition,
    word::{List, Named, Switched, Word},
};
use crate::{
    plan::RetryOn,
    units::{Share, Span},
};

/// When a failed attempt goes to the next server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Failures after which it does. Without `non_idempotent`, only requests that may safely be repeated.
    pub on: Word<List<RetryOn>>,
    /// Attempts in all, the first one included. 1: no retry.
    pub tries: Word<u32>,
    /// No attempt begins later than this after the first.
    pub timeout: Word<Span>,
    /// Retries as a share of the requests of the last ten seconds; besides `floor`. 100%: no bound.
    pub budget: Word<Share>,
    /// Retries for each second that the budget always has room for.
    pub floor: Word<u32>,
}

/// Active checks of an upstream's servers.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// How a server is asked.
    #[serde(rename = "type")]
    pub kind: Word<CheckType>,
    /// Asked with GET.
    pub path: Word<String>,
    /// Asked about with gRPC; empty: the whole server.
    pub service: Word<String>,
    /// Asked at this port instead of the server's own.
    pub port: Word<u16>,
    /// Whether it is asked by TLS. Default: as requests are.
    pub tls: Word<bool>,
    /// Between two checks of a server.
    pub interval: Word<Span>,
    /// How much of the interval a check may be early or late.
    pub jitter: Word<Share>,
    /// For one check.
    pub timeout: Word<Span>,
    /// Failures in a row that take a server out.
    pub fall: Word<u32>,
    /// Successes in a row that bring it back.
    pub rise: Word<u32>,
    /// Statuses that count as healthy: `200` or `200-399`, any of them.
    pub status: Word<List<String>>,
    /// What the fields of the answer must be, all of them.
    pub headers: Word<Named<HeaderCondition>>,
    /// What the body must contain, within its first 64 KiB.
    pub body: Word<String>,
    /// Whether a new server is asked only after the checks have found it well.
    pub mandatory: Word<bool>,
}

/// How a server is asked whether it is well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CheckType {
    /// GET.
    Http,
    /// A connection is enough.
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc,
}

/// When a server that does worse than the others rests for a while.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outlier {
    /// How long requests are counted before the servers are compared.
    pub window: Word<Span>,
    /// Requests of a server in the window; fewer prove nothing.
    pub requests: Word<u32>,
    /// Its share of failures (5xx, or no answer) is that much above the median server's. 100%: never.
    pub errors: Word<Share>,
    /// Its mean time to the first byte is that many times the median server's. 0: never.
    pub latency: Word<u32>,
    /// Five requests in a row wait for that long (or ten times as long as is usual) without any sign of life. 0: never.
    pub silence: Word<Span>,
    /// How long it rests the first time; so much longer each time after that.
    pub ejection: Word<Span>,
    /// The longest rest.
    pub max_ejection: Word<Span>,
    /// Servers that may rest at once for errors or latency; at least one.
    pub max_ejected: Word<Share>,
}

impl Switched for Outlier {}

/// When an upstream that fails is left alone.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreaker {
    /// How long requests are counted.
    pub window: Word<Span>,
    /// Requests in the window; fewer prove nothing.
    pub requests: Word<u32>,
    /// The share of them that failed (5xx, or no answer).
    pub failures: Word<Share>,
    /// Or so many failures in a row. 0: never.
    pub consecutive: Word<u32>,
    /// How long it is left alone.
    pub open: Word<Span>,
    /// Requests at once that are let through then; as many successes end it.
    pub probes: Word<u32>,
}

/// How many requests at once an upstream gets.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Concurrency {
    /// At least; also what the latency of an idle upstream is measured with.
    pub min: Word<u32>,
    /// At most.
    pub max: Word<u32>,
    /// How often that is measured.
    pub probe: Word<Span>,
}

/// How requests wait for a place at a server.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Requests that may wait.
    pub length: Word<u32>,
    /// How long one waits.
    pub timeout: Word<Span>,
}

/// When a second server is asked while the first is still silent. Only requests without body that may safely be repeated.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hedge {
    /// The share of answers that come sooner.
    pub quantile: Word<Share>,
    /// Hedged requests as a share of the requests of the last ten seconds.
    pub share: Word<Share>,
}
