//! Peers come and go by generations: whoever holds a pool builds the next one from it ([`Pool::rebuild`]) and names it its
//! successor. Requests that an older generation picked tell their outcome to the newest one, if their peer stayed. What
//! stands before the pool is one for all generations, as long as its rules are the same.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use weir_config::plan::{Balance, Spread, Upstream, WhenAllDown};

use super::{Endpoint, Peer, Pool, gate::Gate, member::Member, ring::Ring};

impl Pool {
    /// The pool of `upstream` with these endpoints (from [`super::resolve::resolve`]).
    ///
    /// Peers that `old` has under the same name and address are carried over: requests in flight, failures and health.
    #[must_use]
    pub fn rebuild(old: Option<&Self>, upstream: &Upstream, endpoints: Vec<Endpoint>) -> Arc<Self> {
        let (name, balance) = (Arc::clone(&upstream.name), upstream.balance.clone());
        let mut pool = Self::build(old, name, balance, upstream.when_all_down, endpoints);
        let fresh = Arc::get_mut(&mut pool).expect("nobody else has it yet");
        fresh.watch(old, upstream.outlier.as_ref());
        fresh.gate = Gate::new(upstream, old.map(|old| &old.gate));
        if upstream.health.as_ref().is_some_and(|health| health.mandatory) {
            // Who is new has yet to prove well.
            let before = old.map(|old| old.members.lock());
            let known =
                |peer: &Peer| before.iter().flat_map(|it| it.iter()).any(|member| member.peer.is(peer));
            let members = fresh.members.get_mut().iter();
            members.filter(|member| !known(&member.peer)).for_each(|member| member.peer.set_healthy(false));
        }
        if upstream.health.is_none() {
            // The checks that found a peer sick may be gone from the plan: nobody would ever bring it back.
            pool.members.lock().iter().for_each(|member| member.peer.set_healthy(true));
        }
        pool
    }

    pub(super) fn build(
        old: Option<&Self>,
        name: Arc<str>,
        balance: Balance,
        when_all_down: WhenAllDown,
        endpoints: Vec<Endpoint>,
    ) -> Arc<Self> {
        let slow_start = endpoints.iter().any(|endpoint| !endpoint.slow_start.is_zero());
        let before = old.map(|old| old.members.lock());
        let mut left: Vec<&Member> = before.iter().flat_map(|members| members.iter()).collect();
        let member = |endpoint: Endpoint| {
            // Each once: a server that is listed twice is two peers.
            match left.iter().position(|member| member.peer.endpoint().is_same_peer(&endpoint)) {
                Some(index) => left.swap_remove(index).carried_over(endpoint),
                None => Member::new(Arc::new(Peer::new(endpoint))),
            }
        };
        let (backups, primaries): (Vec<_>, Vec<_>) =
            endpoints.into_iter().partition(|endpoint| endpoint.backup);
        let count = primaries.len();
        let members: Box<[Member]> = primaries.into_iter().chain(backups).map(member).collect();
        let on_ring = matches!(balance, Balance::Hash { spread: Spread::Ring { .. }, .. });
        let ring = on_ring.then(|| Ring::new(&members[..count]));
        Arc::new(Self {
            name,
            balance,
            when_all_down,
            ring,
            slow_start,
            members: Mutex::new(members),
            primaries: count,
            outlier: None,
            gate: Gate::default(),
            retired: AtomicBool::new(false),
            newest: old.map_or_else(Arc::default, |old| Arc::clone(&old.newest)),
        })
    }

    /// From now on outcomes belong to `next`, which was rebuilt from this one, as far as it has their peers.
    pub fn succeeded_by(self: &Arc<Self>, next: &Arc<Self>) {
        if Arc::ptr_eq(self, next) {
            return;
        }
        let before = self.members.lock();
        // Requests have come and gone here since `next` was built.
        next.take_over(&before);
        *self.newest.lock() = Arc::downgrade(next);
        self.retired.store(true, Ordering::Release);
        drop(before);
        // Whoever waits may find a place in it.
        self.freed();
    }

    /// A place was given back, or there are others.
    pub(super) fn freed(&self) {
        self.gate.freed();
        if let Some(newest) = self.successor() {
            newest.gate.freed();
        }
    }

    /// The generation in force, if it is another one.
    pub(super) fn successor(&self) -> Option<Arc<Self>> {
        self.retired.load(Ordering::Acquire).then(|| self.newest.lock().upgrade()).flatten()
    }

    /// The newest generation and the place of `peer` in it, which was picked here at `index`; `None` when it is gone.
    pub(super) fn newest(self: &Arc<Self>, peer: &Peer, index: usize) -> Option<(Arc<Self>, usize)> {
        if !self.retired.load(Ordering::Acquire) {
            return Some((Arc::clone(self), index));
        }
        let newest = self.successor()?;
        let index = newest.members.lock().iter().position(|member| member.peer.is(peer))?;
        Some((newest, index))
    }
}
