//! A peer: where it is, what share it may take, and what is known of it now.
//!
//! What is counted across reloads lives here, behind the `Arc` that the old and the new pool share: the requests
//! in flight, and the verdict of the active checks. What balancing remembers is in `member`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

/// One resolved address of a plan's server, with the server's parameters.
///
/// It is also the identity of a peer across reloads: equal endpoints are the same peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// As written in the plan, `host:port`; several endpoints share it when a name has several addresses.
    pub name: Arc<str>,
    /// Where to connect.
    pub address: SocketAddr,
    /// Share relative to the others; 0 is read as 1.
    pub weight: u32,
    /// Requests at once; 0 is no bound.
    pub max_conns: u32,
    /// Failures within `fail_timeout` that take the peer out; 0 never does.
    pub max_fails: u32,
    /// The window of `max_fails`, and how long the peer then stays out.
    pub fail_timeout: Duration,
    /// Asked only when no primary can be.
    pub backup: bool,
    /// Never asked.
    pub down: bool,
    /// Asked only by its sessions.
    pub drain: bool,
    /// How long its share grows after it was out; zero is at once.
    pub slow_start: Duration,
    /// By what `sticky` knows it.
    pub route: Arc<str>,
}

/// One address that can be asked.
#[derive(Debug)]
pub struct Peer {
    endpoint: Endpoint,
    active: AtomicU32,
    healthy: AtomicBool,
}

impl Peer {
    /// A peer that nobody asked yet; healthy until a check says otherwise.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, active: AtomicU32::new(0), healthy: AtomicBool::new(true) }
    }

    /// Where it is, and its parameters.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Requests in flight.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// What the active checks say; `true` without them.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// The active checks' verdict: an unhealthy peer is treated as `down`.
    pub fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Counts one request more; only under the pool's lock, so that `max_conns` holds.
    pub(in crate::balance) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request less.
    pub(in crate::balance) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}
