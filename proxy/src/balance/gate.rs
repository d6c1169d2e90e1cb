//! What stands before a pool: the circuit breaker, the concurrency limit and the queue, each only where the plan has it.
//!
//! A request passes the breaker once ([`Pool::admit`]) and tells it what became of it; each attempt passes the limit,
//! which makes the pool [`NoPeer::Full`]; the first one waits in the queue for as long as it is
//! ([`Pool::pick_in_turn`]). Later attempts do not queue again: their client has waited, and another peer has failed.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_config::plan::Upstream;

use super::{
    NoPeer, Picked, Pool, Tried,
    breaker::{self, Breaker, Outcome},
    concurrency::{self, Limiter},
    queue::Queue,
};

/// The protections of one pool, with what they know.
#[derive(Debug, Default)]
pub(super) struct Gate {
    breaker: Option<(breaker::Rules, Mutex<Breaker>)>,
    limiter: Option<(concurrency::Rules, Mutex<Limiter>)>,
    queue: Option<Arc<Queue>>,
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
    /// The protections of `upstream`; what `old` knows outlives a reload, and so does its queue unless it changed.
    pub(super) fn new(upstream: &Upstream, old: Option<&Self>) -> Self {
        let known =
            |breaker: &Option<(_, Mutex<Breaker>)>| breaker.as_ref().map(|(_, state)| state.lock().clone());
        let breaker = upstream.circuit_breaker.as_ref().map(|plan| {
            (
                breaker::Rules::from(plan),
                Mutex::new(old.and_then(|old| known(&old.breaker)).unwrap_or_default()),
            )
        });
        let limiter = upstream.concurrency.as_ref().map(|plan| {
            let rules = concurrency::Rules::from(plan);
            let known = old.and_then(|old| old.limiter.as_ref()).map(|(_, state)| state.lock().clone());
            let limiter = known.unwrap_or_else(|| Limiter::new(&rules));
            (rules, Mutex::new(limiter))
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
        self.limiter.as_ref().is_some_and(|(rules, limiter)| under_way() >= limiter.lock().limit(rules))
    }

    /// An answer began after so long, with so many requests under way.
    pub(super) fn heard(&self, took: Duration, under_way: impl FnOnce() -> u32, now: Instant) {
        if let Some((rules, limiter)) = &self.limiter {
            limiter.lock().note(took, under_way(), rules, now);
        }
    }

    /// An attempt got no answer.
    pub(super) fn failed(&self) {
        if let Some((rules, limiter)) = &self.limiter {
            limiter.lock().failed(rules);
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
            open: self.breaker.as_ref().map(|(_, breaker)| breaker.lock().is_open(now)),
            limit: self.limiter.as_ref().map(|(rules, limiter)| limiter.lock().limit(rules)),
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
        let Some(((rules, breaker), number)) = self.pool.gate.breaker.as_ref().zip(self.number.take()) else {
            return;
        };
        if breaker.lock().done(number, outcome, rules, now) {
            tracing::warn!(
                upstream = %self.pool.name,
                seconds = rules.open.as_secs_f64(),
                "the circuit breaker is open after failed requests"
            );
        }
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
        let admitted = self.gate.breaker.as_ref().map(|(rules, breaker)| breaker.lock().admit(rules, now));
        let number = admitted.transpose().map_err(NoPeer::Open)?;
        Ok(Admitted { pool: Arc::clone(self), number })
    }

    /// As [`Pool::pick`], but waits in the queue while every peer is full. May be dropped while it waits.
    ///
    /// Errors: [`NoPeer::Full`] also when the queue is full, or the wait was too long.
    pub async fn pick_in_turn(self: &Arc<Self>, client: IpAddr, tried: &mut Tried) -> Result<Picked, NoPeer> {
        let Some(queue) = &self.gate.queue else { return self.pick(client, tried, Instant::now()) };
        if queue.waiting() == 0 {
            match self.pick(client, tried, Instant::now()) {
                Err(NoPeer::Full) => {}
                picked => return picked,
            }
        }
        let ticket = queue.join(client).map_err(|_| NoPeer::Full)?;
        // A place that was given back before there was anybody to call.
        queue.call_next();
        let in_turn = async {
            loop {
                ticket.turn().await.map_err(|_| NoPeer::Full)?;
                match self.pick(client, tried, Instant::now()) {
                    Err(NoPeer::Full) => ticket.again(),
                    picked => return picked,
                }
            }
        };
        tokio::time::timeout(queue.timeout, in_turn).await.unwrap_or(Err(NoPeer::Full))
    }

    /// What operators see of the protections.
    #[must_use]
    pub fn gate(&self, now: Instant) -> GateSight {
        self.gate.sight(now)
    }
}
