//! The words about how an upstream outlives its servers' failures.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word::{List, Word};
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
