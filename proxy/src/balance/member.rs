//! A peer as its pool sees it: its standing and its weights, all under the pool's lock.

use std::{sync::Arc, time::Instant};

use super::{
    passive::Standing,
    peer::{Endpoint, Peer},
    tried::Tried,
};

/// One peer of a pool, with what balancing remembers of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: Arc<Peer>,
    pub(super) standing: Standing,
    /// nginx `weight`: the share asked for.
    pub(super) weight: i64,
    /// nginx `effective_weight`: reduced by failures, regained one a pick.
    effective: i64,
    /// nginx `current_weight`: what the peer is owed.
    current: i64,
}

impl Member {
    pub(super) fn new(peer: Arc<Peer>) -> Self {
        let weight = i64::from(peer.endpoint().weight.max(1));
        Self { peer, standing: Standing::default(), weight, effective: weight, current: 0 }
    }

    /// The same peer in the pool that a reload or a change builds: its standing stays, the turn order begins anew.
    pub(super) fn carried_over(&self, endpoint: Endpoint) -> Self {
        let peer = if *self.peer.endpoint() == endpoint {
            Arc::clone(&self.peer)
        } else {
            Arc::new(self.peer.altered(endpoint))
        };
        Self { standing: self.standing.clone(), ..Self::new(peer) }
    }

    /// Whether it may be asked at all: neither `down` nor draining nor found sick.
    pub(super) fn is_up(&self) -> bool {
        let endpoint = self.peer.endpoint();
        !endpoint.down && !endpoint.drain && self.peer.is_healthy()
    }

    /// Whether failures keep it out.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.standing.is_out(self.peer.endpoint(), now)
    }

    /// Whether it has all the requests it may have.
    pub(super) fn is_full(&self) -> bool {
        let bound = self.peer.endpoint().max_conns;
        bound > 0 && self.peer.active() >= bound
    }

    /// Whether a request that has `tried` others may go to it, as member number `index`.
    pub(super) fn is_open(&self, index: usize, tried: &Tried, now: Instant) -> bool {
        !tried.contains(index) && self.is_up() && !self.is_out(now) && !self.is_full()
    }

    /// Takes part in a round of smooth weighted round robin: is owed its effective weight, which it returns.
    pub(super) fn take_part(&mut self) -> i64 {
        let share = self.effective;
        self.current += share;
        if self.effective < self.weight {
            self.effective += 1;
        }
        share
    }

    /// Whether it is owed more than `other`.
    pub(super) fn is_owed_more_than(&self, other: &Self) -> bool {
        self.current > other.current
    }

    /// Wins a round in which `total` was handed out.
    pub(super) fn win(&mut self, total: i64) {
        self.current -= total;
    }

    /// A request to it failed. Says whether it is out by that.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        let rules = self.peer.endpoint();
        if rules.max_fails > 0 {
            self.effective = (self.effective - self.weight / i64::from(rules.max_fails)).max(0);
        }
        self.standing.failed(rules, now)
    }
}
