//! What is in force, and how it changes.
//!
//! States: *starting* → (every socket bound) → *ready* ⇄ (reload) → *draining* → ended; [`crate::serve`] moves it.
//! A request takes one [`Snapshot`] and keeps it to its end; a reload swaps the next one in when all of it stands, and
//! a file with a problem changes nothing.

mod caches;
pub mod descriptors;
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
    time::SystemTime,
};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;

use crate::{
    accept::{counters::Counters, handshake::NoHandshake},
    metrics::Metrics,
    pem::Expiry,
    record::Recorder,
    running::Running,
    source::Source,
    stripes::Stripes,
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
    listeners: parking_lot::Mutex<HashMap<SocketAddr, Watched>>,
    generation: AtomicU64,
    changing: tokio::sync::Mutex<()>,
}

/// What a listener counts, and what of that the metrics know.
#[derive(Debug)]
struct Watched {
    counters: Arc<Counters>,
    /// Whether its failed handshakes are shown before there are any.
    tls: bool,
    no_handshake: [u64; NoHandshake::ALL.len()],
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

    /// Shows what a listener counts; one that speaks TLS counts handshakes.
    pub fn watch_listener(&self, address: SocketAddr, tls: bool, counters: Arc<Counters>) {
        let watched = Watched { counters, tls, no_handshake: Default::default() };
        self.listeners.lock().insert(address, watched);
    }

    /// Reads the figures that are kept elsewhere into the metrics; called before they are shown. Asks Redis, if there is one.
    pub async fn measure(&self) {
        let snapshot = self.snapshot();
        self.measure_sources(&snapshot.running, snapshot.running.redis_answers().await);
        let (families, running) = (self.metrics.families(), &snapshot.running);
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        self.told.tell(running, families);
        families.in_flight.with_label_values::<&str>(&[]).set(number(self.in_flight()));
        for (address, watched) in &mut *self.listeners.lock() {
            let address = &*address.to_string();
            let active = i64::try_from(watched.counters.active.get()).unwrap_or(i64::MAX);
            families.connections.with_label_values(&[address]).set(active);
            for ((reason, count), told) in watched.counters.no_handshake().zip(&mut watched.no_handshake) {
                if count == 0 && !watched.tls {
                    continue;
                }
                families
                    .no_handshake
                    .with_label_values(&[address, reason.word()])
                    .inc_by(count - std::mem::replace(told, count));
            }
        }
        families.certificates.reset();
        for expiry in &snapshot.certificates {
            let file = &*expiry.file.to_string_lossy();
            families.certificates.with_label_values(&[file]).set(expiry.days_left(SystemTime::now()));
        }
        let now = std::time::Instant::now();
        // Peers that are gone must not be shown as they were.
        families.peer_up.reset();
        for upstream in &running.upstreams {
            let (pool, label) = (upstream.pool(), [&*upstream.plan.name]);
            let gate = pool.gate(now);
            if let Some(open) = gate.open {
                families.circuit_open.with_label_values(&label).set(i64::from(open));
            }
            if let Some(limit) = gate.limit {
                families.concurrency.with_label_values(&label).set(i64::from(limit));
            }
            if let Some(waiting) = gate.waiting {
                families.queued.with_label_values(&label).set(number(waiting));
            }
            for sight in pool.sight(now) {
                let up = sight.is_asked();
                let labels = [&*upstream.plan.name, &*sight.peer.endpoint().name];
                families.peer_up.with_label_values(&labels).set(i64::from(up));
            }
        }
    }

    /// What is not asked for any more must not be shown as it was.
    fn measure_sources(&self, running: &Running, redis: Option<bool>) {
        let families = self.metrics.families();
        families.redis_up.reset();
        if let Some(answers) = redis {
            families.redis_up.with_label_values::<&str>(&[]).set(i64::from(answers));
        }
        families.fleet_heard.reset();
        families.fleet_waiting.reset();
        if let Some(purges) = running.purge_stream() {
            families.fleet_heard.with_label_values::<&str>(&[]).set(i64::from(purges.is_heard()));
            let waiting = i64::try_from(purges.waiting()).unwrap_or(i64::MAX);
            families.fleet_waiting.with_label_values::<&str>(&[]).set(waiting);
        }
        families.session_source_up.reset();
        for (session, answers) in running.session_sources(redis) {
            families.session_source_up.with_label_values(&[&*session]).set(i64::from(answers));
        }
    }
}
