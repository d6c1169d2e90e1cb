//! What the metrics show and others keep: connections, certificates, peers, and how the sources do.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::State;
use crate::{
    accept::{counters::Counters, handshake::NoHandshake},
    running::Running,
};

/// What a listener counts, and what of that the metrics know.
#[derive(Debug)]
pub(super) struct Watched {
    counters: Arc<Counters>,
    /// Whether its failed handshakes are shown before there are any.
    tls: bool,
    no_handshake: [u64; NoHandshake::ALL.len()],
}

impl State {
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
        let now = Instant::now();
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
