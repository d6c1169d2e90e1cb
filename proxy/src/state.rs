//! What is in force, and how it changes.
//!
//! States: *starting* → (every socket bound) → *ready* ⇄ (reload) → *draining* → ended; [`crate::serve`] moves it.
//! A request takes one [`Snapshot`] and keeps it to its end; a reload swaps the next one in when all of it stands, and
//! a file with a problem changes nothing.

mod caches;
pub mod descriptors;
mod figures;
mod reload;
pub mod threads;

use std::{
    collections::HashMap,
    net::SocketAddr,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use crate::{
    metrics::Metrics, pem::Expiry, record::Recorder, running::Running, source::Source, stripes::Stripes,
};

/// One generation of everything; a request that began with it ends with it.
#[derive(Debug)]
pub struct Snapshot {
    /// What lives.
    pub running: Running,
    /// Where its requests are written down.
    pub recorder: Recorder,
    /// How long the certificates that it began with are good for.
    pub certificates: Vec<Expiry>,
}

/// A generation in somebody's hands. Each thread counts its own: one count for all would be written to by every request.
#[derive(Debug, Clone)]
pub struct Held(Arc<CachePadded<Arc<Snapshot>>>);

impl Held {
    fn new(snapshot: &Arc<Snapshot>) -> Self {
        Self(Arc::new(CachePadded::new(Arc::clone(snapshot))))
    }
}

impl Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// What all generations share.
#[derive(Debug)]
pub struct State {
    current: Stripes<ArcSwap<CachePadded<Arc<Snapshot>>>>,
    source: Source,
    metrics: Arc<Metrics>,
    /// As often as it is held.
    in_flight: Stripes<Arc<CachePadded<()>>>,
    ready: AtomicBool,
    told: caches::Told,
    listeners: parking_lot::Mutex<HashMap<SocketAddr, figures::Watched>>,
    generation: AtomicU64,
    changing: tokio::sync::Mutex<()>,
}

/// One request under way, until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    _holds: Arc<CachePadded<()>>,
}

impl State {
    /// The state of a process that begins with `first`.
    #[must_use]
    pub fn new(source: Source, first: Snapshot, metrics: Arc<Metrics>) -> Arc<Self> {
        first.running.come_into_force(None, &metrics);
        let first = Arc::new(first);
        Arc::new(Self {
            current: Stripes::new(|| ArcSwap::new(Held::new(&first).0)),
            source,
            in_flight: Stripes::new(Arc::default),
            metrics,
            ready: AtomicBool::new(false),
            told: caches::Told::default(),
            listeners: parking_lot::Mutex::default(),
            generation: AtomicU64::new(1),
            changing: tokio::sync::Mutex::default(),
        })
    }

    /// The generation in force.
    #[must_use]
    pub fn snapshot(&self) -> Held {
        Held(self.current.mine().load_full())
    }

    /// Where the configuration comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Waits until nobody else changes what is in force, neither by a reload nor by hand.
    pub async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// The metrics of all generations.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Whether new clients should be sent here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// New clients should be sent here, or no longer.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Requests under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.all().map(|held| Arc::strong_count(held) - 1).sum()
    }

    /// How many configurations have been in force, this one included.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Counts a request until what is returned is dropped.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        InFlight { _holds: Arc::clone(self.in_flight.mine()) }
    }
}
