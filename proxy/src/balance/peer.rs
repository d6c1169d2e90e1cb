//! A peer: where it is, what share it may take, and what is known of it now.
//!
//! What is counted across reloads lives here, behind the `Arc` that the old and the new pool share: the requests
//! in flight, and the verdict of the active checks. What balancing remembers is in `member`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use crate::http_client::Address;

/// One resolved address of a plan's server, with the server's parameters.
///
/// Name and address are the identity of a peer across reloads and changes; its parameters may differ.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// As written in the plan, `host:port`; several endpoints share it when a name has several addresses.
    pub name: Arc<str>,
    /// Where to connect.
    pub address: Address,
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

impl Endpoint {
    /// Whether it is the same peer, perhaps with other parameters.
    #[must_use]
    pub fn is_same_peer(&self, other: &Self) -> bool {
        self.name == other.name && self.address == other.address
    }
}

/// One address that can be asked.
#[derive(Debug)]
pub struct Peer {
    endpoint: Endpoint,
    life: Arc<Life>,
}

/// What happens to a peer, whatever its parameters are.
#[derive(Debug)]
struct Life {
    active: AtomicU32,
    healthy: AtomicBool,
    silent: Notify,
}

impl Peer {
    /// A peer that nobody asked yet; healthy until a check says otherwise.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        let life = Life { active: AtomicU32::new(0), healthy: AtomicBool::new(true), silent: Notify::new() };
        Self { endpoint, life: Arc::new(life) }
    }

    /// The same peer with other parameters: its requests in flight and its health are one with this one's.
    #[must_use]
    pub fn altered(&self, endpoint: Endpoint) -> Self {
        Self { endpoint, life: Arc::clone(&self.life) }
    }

    /// Whether both are one, whatever their parameters.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.life, &other.life)
    }

    /// Where it is, and its parameters.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Requests in flight.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.life.active.load(Ordering::Relaxed)
    }

    /// What the active checks say; `true` without them.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.life.healthy.load(Ordering::Relaxed)
    }

    /// The active checks' verdict: an unhealthy peer is treated as `down`.
    pub fn set_healthy(&self, healthy: bool) {
        self.life.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Counts one request more; only under the pool's lock, so that `max_conns` holds.
    pub(in crate::balance) fn begin(&self) {
        self.life.active.fetch_add(1, Ordering::Relaxed);
    }

    /// Told when it is found silent: whoever waits had better go elsewhere.
    pub(in crate::balance) fn silent(&self) -> &Notify {
        &self.life.silent
    }

    /// Counts one request less.
    pub(in crate::balance) fn end(&self) {
        self.life.active.fetch_sub(1, Ordering::Relaxed);
    }
}
