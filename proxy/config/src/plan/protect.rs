//! How an upstream outlives its peers' failures, as planned.

use std::{ops::RangeInclusive, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::HeaderMatch;
use crate::units::Share;

/// When a failed attempt goes to the next peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Retry {
    /// The failures after which it does.
    pub on: Vec<RetryOn>,
    /// Attempts in all, the first one included; 1 is no retry.
    pub tries: u32,
    /// From the first attempt's start; no attempt begins later.
    pub timeout: Duration,
    /// Retries as a share of recent requests, besides `floor`.
    pub budget: Share,
    /// Retries a second that are always admitted.
    pub floor: u32,
}

/// A failure after which the next peer is asked: the words of nginx's `proxy_next_upstream`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RetryOn {
    /// No connection, or one that broke.
    #[serde(rename = "error")]
    Error,
    /// No connection, or no answer, in time.
    #[serde(rename = "timeout")]
    Timeout,
    /// An answer that cannot be believed.
    #[serde(rename = "invalid_header")]
    InvalidHeader,
    /// Not a failure: requests that are not idempotent are repeated, too.
    #[serde(rename = "non_idempotent")]
    NonIdempotent,
    /// This status.
    #[serde(rename = "http_403")]
    Http403,
    /// This status.
    #[serde(rename = "http_404")]
    Http404,
    /// This status.
    #[serde(rename = "http_429")]
    Http429,
    /// This status.
    #[serde(rename = "http_500")]
    Http500,
    /// This status.
    #[serde(rename = "http_502")]
    Http502,
    /// This status.
    #[serde(rename = "http_503")]
    Http503,
    /// This status.
    #[serde(rename = "http_504")]
    Http504,
    /// Every status from 500 on.
    #[serde(rename = "http_5xx")]
    Http5xx,
}

impl RetryOn {
    /// Whether an answer with `status` is this failure.
    #[must_use]
    pub fn is_status(self, status: u16) -> bool {
        match self {
            Self::Error | Self::Timeout | Self::InvalidHeader | Self::NonIdempotent => false,
            Self::Http403 => status == 403,
            Self::Http404 => status == 404,
            Self::Http429 => status == 429,
            Self::Http500 => status == 500,
            Self::Http502 => status == 502,
            Self::Http503 => status == 503,
            Self::Http504 => status == 504,
            Self::Http5xx => status >= 500,
        }
    }
}

impl Retry {
    /// Whether an answer with `status` goes to the next peer.
    #[must_use]
    pub fn is_failure(&self, status: u16) -> bool {
        self.on.iter().any(|on| on.is_status(status))
    }
}

/// Active checks of an upstream's peers.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Health {
    /// What is asked, and what a healthy peer answers.
    pub ask: CheckAsk,
    /// Where; `None` is the peer's own port.
    pub port: Option<u16>,
    /// Whether by TLS.
    pub tls: bool,
    /// Between two checks of a peer.
    pub interval: Duration,
    /// How much of the interval a check may be early or late.
    pub jitter: Share,
    /// For one check.
    pub timeout: Duration,
    /// Failures in a row that take a peer out.
    pub fall: u32,
    /// Successes in a row that bring it back.
    pub rise: u32,
    /// Whether a new peer counts as sick until it has proved well.
    pub mandatory: bool,
}

/// What a check asks.
#[derive(Debug, Clone)]
pub enum CheckAsk {
    /// GET.
    Http {
        /// Asked for.
        path: String,
        /// Statuses of a healthy peer, inclusive; any of them.
        status: Vec<RangeInclusive<u16>>,
        /// What the fields of its answer are; all of them.
        headers: Vec<HeaderMatch>,
        /// What its body contains.
        body: Option<String>,
    },
    /// A connection, and TLS when there is one.
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc {
        /// Asked about; empty is the whole server.
        service: String,
    },
}

/// When a peer that does worse than the others rests.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Outlier {
    /// How long outcomes are counted before the peers are compared.
    pub window: Duration,
    /// Outcomes of a peer in the window; fewer prove nothing.
    pub requests: u32,
    /// How far its share of failures may be above the median peer's.
    pub errors: Share,
    /// How many times the median peer's mean time to the first byte its own may be; 0 is no bound.
    pub latency: u32,
    /// How long several requests may wait without a sign of life, at least; zero is no bound.
    pub silence: Duration,
    /// The first rest, and by how much each further one is longer.
    pub ejection: Duration,
    /// The longest rest.
    pub max_ejection: Duration,
    /// Peers that may rest at once for errors or latency.
    pub max_ejected: Share,
}

/// When an upstream that fails is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CircuitBreaker {
    /// How long requests are counted.
    pub window: Duration,
    /// Requests in the window; fewer prove nothing.
    pub requests: u32,
    /// The share of them that failed.
    pub failures: Share,
    /// Or so many failures in a row; 0 is no bound.
    pub consecutive: u32,
    /// How long it is left alone.
    pub open: Duration,
    /// Requests at once that are let through then, and successes that end it.
    pub probes: u32,
}

/// How many requests at once an upstream gets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Concurrency {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// How often the latency of an idle upstream is measured.
    pub probe: Duration,
}

/// How requests wait for a place at a peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Queue {
    /// Requests that may wait.
    pub length: usize,
    /// How long one waits.
    pub timeout: Duration,
}

/// When a second peer is asked while the first is silent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Hedge {
    /// The share of answers that come sooner.
    pub quantile: Share,
    /// Hedged requests as a share of recent ones.
    pub share: Share,
}
