//! A peer as its pool sees it: its standing and its weights, all under the pool's lock.

use std::{sync::Arc, time::Instant};

use super::{
    least_time::{Times, Waiting},
    outlier::Vigil,
    passive::Standing,
    peer::{Endpoint, Peer},
    slow_start::{FULL, Growth},
    tried::Tried,
};

/// One peer of a pool, with what balancing remembers of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: Arc<Peer>,
    pub(super) standing: Standing,
    pub(super) vigil: Vigil,
    /// Suspect, for as long as somebody else is open: only true within a pick.
    pub(super) avoided: bool,
    /// nginx `weight`: the share asked for.
    pub(super) weight: i64,
    /// nginx `effective_weight`: reduced by failures, regained one a pick.
    effective: i64,
    /// nginx `current_weight`: what the peer is owed, times [`FULL`].
    current: i64,
    /// How much of its share it has after it was out.
    growth: Growth,
    /// How long its answers take.
    pub(super) times: Times,
    /// Requests without an answer yet, with `inflight`.
    pub(super) waiting: Waiting,
    /// The log says that it is out. A pardon does not take that back: only an answer does.
    pub(super) told_out: bool,
}

impl Member {
    pub(super) fn new(peer: Arc<Peer>) -> Self {
        let weight = i64::from(peer.endpoint().weight.max(1));
        Self {
            peer,
            standing: Standing::default(),
            vigil: Vigil::default(),
            avoided: false,
            weight,
            effective: weight,
            current: 0,
            growth: Growth::default(),
            times: Times::default(),
            told_out: false,
            waiting: Waiting::default(),
        }
    }

    /// The same peer in the pool that a reload or a change builds: its standing stays, the turn order begins anew.
    pub(super) fn carried_over(&self, endpoint: Endpoint) -> Self {
        let peer = if *self.peer.endpoint() == endpoint {
            Arc::clone(&self.peer)
        } else {
            Arc::new(self.peer.altered(endpoint))
        };
        Self {
            standing: self.standing.clone(),
            vigil: self.vigil.clone(),
            growth: self.growth,
            times: self.times,
            waiting: self.waiting,
            told_out: self.told_out,
            ..Self::new(peer)
        }
    }

    /// Whether any request may ask it: neither resting nor found sick.
    pub(super) fn is_up(&self) -> bool {
        !self.is_resting() && self.peer.is_healthy()
    }

    /// Whether the plan keeps requests from it that have no session there.
    pub(super) fn is_resting(&self) -> bool {
        self.peer.endpoint().down || self.peer.endpoint().drain
    }

    /// Whether failures keep it out, or that it did worse than others.
    pub(super) fn is_out(&self, now: Instant) -> bool {
        self.standing.is_out(self.peer.endpoint(), now) || self.vigil.is_ejected(now)
    }

    /// Whether it has all the requests it may have.
    pub(super) fn is_full(&self) -> bool {
        let bound = self.peer.endpoint().max_conns;
        bound > 0 && self.peer.active() >= bound
    }

    /// Whether a request that has `tried` others may go to it, as member number `index`.
    pub(super) fn is_open(&self, index: usize, tried: &Tried, now: Instant) -> bool {
        !tried.contains(index) && self.is_up() && !self.avoided && !self.is_out(now) && !self.is_full()
    }

    /// Whether the session of a request that has `tried` others may go to it: a drained peer keeps its sessions.
    pub(super) fn is_open_to_its_session(&self, index: usize, tried: &Tried, now: Instant) -> bool {
        !tried.contains(index)
            && self.is_up_for_its_session()
            && !self.avoided
            && !self.is_out(now)
            && !self.is_full()
    }

    /// As [`Self::is_up`] for the sessions that it has.
    pub(super) fn is_up_for_its_session(&self) -> bool {
        !self.peer.endpoint().down && self.peer.is_healthy()
    }

    /// Looks at what the active checks say, for the slow start.
    pub(super) fn notice_health(&mut self, now: Instant) {
        self.growth.notice(self.peer.is_healthy(), now);
    }

    /// Its share now, times [`FULL`].
    pub(super) fn weight_now(&self, now: Instant) -> i64 {
        self.weight * self.part(now)
    }

    /// How many `fail_timeout`s have passed since it was last looked at, as nginx's least_time counts them.
    pub(super) fn idle_windows(&self, now: Instant) -> u32 {
        self.standing.idle_windows(self.peer.endpoint(), now)
    }

    fn part(&self, now: Instant) -> i64 {
        self.growth.part(self.peer.endpoint().slow_start, now)
    }

    /// Takes part in a round of smooth weighted round robin: is owed its effective weight, which it returns.
    pub(super) fn take_part(&mut self, now: Instant) -> i64 {
        let share = self.effective * self.part(now);
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

    /// Whether it owes others as much as so many weights.
    pub(super) fn owes(&self, weights: i64) -> bool {
        self.current <= -weights * FULL
    }

    /// Wins a round in which `total` was handed out.
    pub(super) fn win(&mut self, total: i64) {
        self.current -= total;
    }

    /// A request to it succeeded.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if self.standing.succeeded(self.peer.endpoint()) {
            self.growth.begin(now);
        }
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

/// The position of the member that owns the point `at` when weights are laid end to end.
pub(super) fn owner(group: &[Member], mut at: i64) -> usize {
    group
        .iter()
        .position(|member| {
            at -= member.weight;
            at < 0
        })
        .expect("the point is below the sum of the weights")
}
