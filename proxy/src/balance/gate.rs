//! What stands before a pool: the circuit breaker, the concurrency limit and the queue, each only where the plan has it.
//!
//! A request passes the breaker once ([`Pool::admit`]) and tells it what became of it; each attempt passes the limit,
//! which makes the pool [`NoPeer::Full`]; the first one waits in the queue for as long as it is
//! ([`Pool::pick_in_turn`]). Later attempts do not queue again: their client has waited, and another peer has failed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_config::plan::Upstream;

use super::{
    Asker, NoPeer, Picked, Pool, Tried,
    breaker::{self, Breaker, Outcome, Turn},
    concurrency::{self, Limiter},
    queue::Queue,
};

/// The protections of one pool, with what they know. Generations of a pool share each of them as long as its rules stay,
/// so that whoever was admitted, counted or let to wait by one of them is known to all.
#[derive(Debug, Default)]
pub(super) struct Gate {
    breaker: Option<Arc<Guard<breaker::Rules, Breaker>>>,
    limiter: Option<Arc<Guard<concurrency::Rules, Limiter>>>,
    queue: Option<Arc<Queue>>,
}

/// A protection: its rules, and what it knows.
#[derive(Debug)]
struct Guard<R, S> {
    rules: R,
    state: Mutex<S>,
}

impl<R: PartialEq, S> Guard<R, S> {
    /// `old` if it has these rules, else one that begins anew: what was learned by other rules is not true by these.
    fn carried_over(old: Option<&Arc<Self>>, rules: R, fresh: impl FnOnce(&R) -> S) -> Arc<Self> {
        let same = old.filter(|old| old.rules == rules);
        same.map_or_else(|| Arc::new(Self { state: Mutex::new(fresh(&rules)), rules }), Arc::clone)
    }
}

/// What operators see of the protections; `None` where the plan has none.
#[derive(Debug, Clone, Copy)]
pub struct GateSight {
    /// Whether the circuit breaker refuses.
    pub open: Option<bool>,
    /// Requests at once that the concurrency limit admits.
    pub limit: Option<u32>,
    /// Requests that wait.
    pub waiting: Option<usize>,
}

impl Gate {
    /// The protections of `upstream`, `old` ones as far as they are the same.
    pub(super) fn new(upstream: &Upstream, old: Option<&Self>) -> Self {
        let breaker = upstream.circuit_breaker.as_ref().map(|plan| {
            let old = old.and_then(|old| old.breaker.as_ref());
            Guard::carried_over(old, breaker::Rules::from(plan), |_| Breaker::default())
        });
        let limiter = upstream.concurrency.as_ref().map(|plan| {
            let old = old.and_then(|old| old.limiter.as_ref());
            Guard::carried_over(old, concurrency::Rules::from(plan), Limiter::new)
        });
        let queue = upstream.queue.as_ref().map(|plan| {
            let same =
                old.and_then(|old| old.queue.as_ref()).filter(|queue| queue.is(plan.length, plan.timeout));
            same.map_or_else(|| Queue::new(plan.length, plan.timeout), Arc::clone)
        });
        Self { breaker, limiter, queue }
    }

    /// Whether no further request may be under way beside so many.
    pub(super) fn is_full(&self, under_way: impl FnOnce() -> u32) -> bool {
        let is_over =
            |limiter: &Arc<Guard<_, Limiter>>| under_way() >= limiter.state.lock().limit(&limiter.rules);
        self.limiter.as_ref().is_some_and(is_over)
    }

    /// An answer began after so long, with so many requests under way.
    pub(super) fn heard(&self, took: Duration, under_way: impl FnOnce() -> u32, now: Instant) {
        if let Some(limiter) = &self.limiter {
            limiter.state.lock().note(took, under_way(), &limiter.rules, now);
        }
    }

    /// An attempt got no answer.
    pub(super) fn failed(&self) {
        if let Some(limiter) = &self.limiter {
            limiter.state.lock().failed(&limiter.rules);
        }
    }

    /// A place was given back.
    pub(super) fn freed(&self) {
        if let Some(queue) = &self.queue {
            queue.call_next();
        }
    }

    fn sight(&self, now: Instant) -> GateSight {
        GateSight {
            open: self.breaker.as_ref().map(|breaker| breaker.state.lock().is_open(now)),
            limit: self.limiter.as_ref().map(|limiter| limiter.state.lock().limit(&limiter.rules)),
            waiting: self.queue.as_ref().map(|queue| queue.waiting()),
        }
    }
}

/// A request that the circuit breaker let through; dropped without an outcome, it says nothing about the upstream.
#[derive(Debug)]
#[must_use = "the breaker waits for the outcome"]
pub struct Admitted {
    pool: Arc<Pool>,
    /// The breaker's number for it, until it is told the outcome.
    number: Option<u64>,
}

impl Admitted {
    /// Tells what became of the request.
    pub fn done(mut self, outcome: Outcome, now: Instant) {
        self.tell(outcome, now);
    }

    fn tell(&mut self, outcome: Outcome, now: Instant) {
        let Some((breaker, number)) = self.pool.gate.breaker.as_ref().zip(self.number.take()) else { return };
        let turn = breaker.state.lock().done(number, outcome, &breaker.rules, now);
        told(&self.pool.name, turn, &breaker.rules);
    }
}

fn told(upstream: &str, turn: Option<Turn>, rules: &breaker::Rules) {
    match turn {
        Some(Turn::Opened) => {
            let seconds = rules.open.as_secs_f64();
            tracing::warn!(upstream, seconds, "the circuit breaker is open after failed requests");
        }
        Some(Turn::HalfOpened) => {
            tracing::info!(
                upstream,
                probes = rules.probes,
                "the circuit breaker is half open: it lets probes through"
            );
        }
        Some(Turn::Closed) => tracing::info!(upstream, "the circuit breaker is closed: its probes succeeded"),
        None => {}
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.tell(Outcome::Unknown, Instant::now());
    }
}

impl Pool {
    /// Lets a request pass the circuit breaker.
    ///
    /// Errors: [`NoPeer::Open`], with the time after which it is worth coming back.
    pub fn admit(self: &Arc<Self>, now: Instant) -> Result<Admitted, NoPeer> {
        let mut number = None;
        if let Some(breaker) = &self.gate.breaker {
            let admitted = breaker.state.lock().admit(&breaker.rules, now);
            let (its_own, turn) = admitted.map_err(NoPeer::Open)?;
            told(&self.name, turn, &breaker.rules);
            number = Some(its_own);
        }
        Ok(Admitted { pool: Arc::clone(self), number })
    }

    /// As the first [`Pool::pick`] of a request, but waits in the queue while every peer is full, and then picks from the
    /// generation that is in force. May be dropped while it waits.
    ///
    /// Errors: [`NoPeer::Full`] also when the queue is full, or the wait was too long.
    pub async fn pick_in_turn(self: &Arc<Self>, asker: &Asker, tried: &mut Tried) -> Result<Picked, NoPeer> {
        let Some(queue) = &self.gate.queue else { return self.pick(asker, tried, Instant::now()) };
        if queue.waiting() == 0 {
            match self.pick(asker, tried, Instant::now()) {
                Err(NoPeer::Full) => {}
                picked => return picked,
            }
        }
        // In a box: a request that need not wait would carry the room for it, and copy it.
        let in_turn = Box::pin(self.wait_in(queue, asker, tried));
        tokio::time::timeout(queue.timeout, in_turn).await.unwrap_or(Err(NoPeer::Full))
    }

    async fn wait_in(
        self: &Arc<Self>,
        queue: &Arc<Queue>,
        asker: &Asker,
        tried: &mut Tried,
    ) -> Result<Picked, NoPeer> {
        let ticket = queue.join(asker.client).map_err(|_| NoPeer::Full)?;
        // A place that was given back before there was anybody to call.
        queue.call_next();
        loop {
            ticket.turn().await.map_err(|_| NoPeer::Full)?;
            let pool = self.successor().unwrap_or_else(|| Arc::clone(self));
            match pool.pick(asker, tried, Instant::now()) {
                Err(NoPeer::Full) => ticket.again(),
                picked => return picked,
            }
        }
    }

    /// What operators see of the protections.
    #[must_use]
    pub fn gate(&self, now: Instant) -> GateSight {
        self.gate.sight(now)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use weir_config::plan::{Balance, WhenAllDown};

    use super::*;
    use crate::balance::{
        Endpoint,
        tests::{CLIENT, name, pick, round_robin, server},
    };

    fn narrow(name: &str) -> Endpoint {
        Endpoint { max_conns: 1, ..server(name) }
    }

    fn queueing(mut pool: Arc<Pool>, queue: &Arc<Queue>) -> Arc<Pool> {
        Arc::get_mut(&mut pool).unwrap().gate.queue = Some(Arc::clone(queue));
        pool
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_a_place_in_the_next_generation() {
        let queue = Queue::new(2, Duration::from_secs(5));
        let old = queueing(round_robin(vec![narrow("a")]), &queue);
        let held = pick(&old, Instant::now()).unwrap();
        let waiting = {
            let old = Arc::clone(&old);
            tokio::spawn(async move { old.pick_in_turn(&CLIENT.into(), &mut Tried::default()).await })
        };
        tokio::task::yield_now().await;
        assert_eq!(queue.waiting(), 1);
        let (balance, all_down) = (Balance::RoundRobin, WhenAllDown::Pardon);
        let next = Pool::build(Some(&old), "api".into(), balance, all_down, vec![narrow("a"), narrow("b")]);
        let next = queueing(next, &queue);
        old.succeeded_by(&next);
        let picked = waiting.await.unwrap().unwrap();
        assert_eq!(name(&picked), "b");
        assert!(Arc::ptr_eq(picked.pool(), &next));
        drop(held);
    }

    #[test]
    fn what_is_known_stays_as_long_as_the_rules_do() {
        let rules = |min| concurrency::Rules { min, max: 9, probe: Duration::from_secs(60) };
        let old = Guard::carried_over(None, rules(1), Limiter::new);
        assert!(Arc::ptr_eq(&old, &Guard::carried_over(Some(&old), rules(1), Limiter::new)));
        let other = Guard::carried_over(Some(&old), rules(2), Limiter::new);
        assert_eq!(other.state.lock().limit(&other.rules), 2);
    }
}
