//! One request's memory, grouped by the stage that writes it; each group is written once, attempts are appended.
//!
//! Everything that is later said about a request, in the log or the metrics, is read from here and nowhere else.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_config::plan::RouteId;

use crate::{
    accept::Arrival, auth::Session, cache::CacheStatus, limit::Admitted, refusal::Refusal,
    request::RequestView,
};

/// One request's memory.
#[derive(Debug)]
pub struct Journey {
    /// accept: the connection it came on, and when.
    pub arrival: Arrival,
    /// accept: the first line of a head that was refused, as it came; to be shown and never believed.
    pub line: Option<String>,
    /// accept: what it asks, once the head was understood.
    pub request: Option<Arc<RequestView>>,
    /// route: what serves it.
    pub route: Option<RouteId>,
    /// limit: what it was charged; places among the requests under way are held by it.
    pub admitted: Admitted,
    /// auth: who asks.
    pub caller: Option<Arc<Session>>,
    /// cache: what came of the look-up, when a cache rule applied.
    pub cache: Option<CacheStatus>,
    /// balance and forward: every attempt at a peer, in order.
    pub attempts: Vec<Attempt>,
    /// What the client got.
    pub answer: Answered,
    /// Why it was not served as asked.
    pub refusal: Option<Refusal>,
}

/// One attempt at a peer.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The peer's address, as written.
    pub peer: Arc<str>,
    /// When it was picked.
    pub started: Instant,
    /// From the pick to the head of its answer; `None` when none came.
    pub first_byte: Option<Duration>,
    /// The status of its answer.
    pub status: Option<u16>,
    /// `answered`, or the word of the failure.
    pub outcome: &'static str,
    /// Whether it was made while the one before was still silent.
    pub hedge: bool,
    /// Why no further attempt was made after this one failed.
    pub stopped: Option<&'static str>,
}

/// What the client got.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answered {
    /// The status; 0 before there is one.
    pub status: u16,
    /// Bytes of body written.
    pub body_bytes: u64,
    /// Whether the answer was written to its end.
    pub complete: bool,
}

impl Journey {
    /// The memory of a request that has just arrived.
    #[must_use]
    pub fn new(arrival: Arrival) -> Self {
        Self {
            arrival,
            line: None,
            request: None,
            route: None,
            admitted: Admitted::default(),
            caller: None,
            cache: None,
            attempts: Vec::new(),
            answer: Answered::default(),
            refusal: None,
        }
    }

    /// The client, behind trusted hops; whoever connected, before that was known.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        let peer = || self.arrival.connection.peer.ip().to_canonical();
        self.request.as_ref().map_or_else(peer, |request| request.client)
    }

    /// The answer under way broke off at the peer's end.
    pub fn broke(&mut self, word: &'static str) {
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.outcome = word;
        }
    }
}
