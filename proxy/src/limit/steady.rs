//! Requests in time, evenly: governor's GCRA.
//!
//! A key's state is the one moment at which it will be fully rested again; every request moves it by `per / count`, and is
//! refused while it lies further ahead than the burst allows. So `100/15m` with burst 100 lets 100 through at once and then
//! one every nine seconds; there is no window whose end a client could wait for to get twice its share.
//!
//! Where only some of the burst pass at once, the others are told how long to wait: until the moment lies no further ahead
//! than those. That is nginx's `limit_req`, whose `excess` is the same distance counted in requests, less the one in hand.

use std::{
    cell::Cell,
    hash::{Hash, Hasher},
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter, clock::Clock, middleware::NoOpMiddleware, nanos::Nanos, state::StateStore,
};

use super::{
    Taken,
    table::{State, Table},
};

/// Nanoseconds since the limit's start; 0 is rested since ever.
#[derive(Debug, Clone, Copy, Default)]
struct RestedAt(u64);

impl State for RestedAt {
    fn weight(&self, _: u64) -> u64 {
        self.0
    }
}

/// A steady limit and its counts.
#[derive(Debug)]
pub(super) struct Steady {
    interval: Duration,
    /// How far ahead the moment of rest may lie.
    burst: Duration,
    /// And how far for those who need not wait.
    at_once: Duration,
    clock: Told,
    table: Table<RestedAt>,
    limiter: RateLimiter<Asked, Table<RestedAt>, Told, NoOpMiddleware<Duration>>,
}

impl Steady {
    pub(super) fn new(rate: weir_config::units::Quota, burst: NonZeroU32, at_once: u32, keys: usize) -> Self {
        let interval = (rate.per / rate.count.get()).max(Duration::from_nanos(1));
        // governor counts 64-bit nanoseconds; a burst that takes a century to rest is bounded there.
        let longest = Duration::from_secs(100 * 365 * 86_400).as_nanos() / interval.as_nanos();
        let bounded = u32::try_from(longest).unwrap_or(u32::MAX).min(burst.get());
        let quota = Quota::with_period(interval)
            .expect("the interval is at least a nanosecond")
            .allow_burst(NonZeroU32::new(bounded).unwrap_or(NonZeroU32::MIN));
        let (table, clock) = (Table::new(keys), Told::default());
        let limiter = RateLimiter::new(quota, table.clone(), clock.clone());
        let (burst, at_once) =
            (interval.saturating_mul(bounded), interval.saturating_mul(at_once.min(bounded)));
        Self { interval, burst, at_once, clock, table, limiter }
    }

    /// What is left, or how long until there is enough; `None` when there never is.
    pub(super) fn take(&self, key: u64, cost: NonZeroU32, now: Duration) -> Result<Taken, Option<Duration>> {
        let now = self.clock.tell(now);
        let asked = Asked { key, rested_at: Cell::new(0) };
        match self.limiter.check_key_n(&asked, cost) {
            Ok(Ok(())) => {
                let ahead = Duration::from_nanos(asked.rested_at.get()).saturating_sub(now);
                let free = self.burst.saturating_sub(ahead);
                let remaining = free.as_nanos() / self.interval.as_nanos();
                Ok(Taken {
                    remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
                    reset: ahead,
                    wait: ahead.saturating_sub(self.at_once),
                })
            }
            Ok(Err(until)) => Err(Some(until.wait_time_from(now))),
            Err(_) => Err(None),
        }
    }

    pub(super) fn give_back(&self, key: u64, cost: NonZeroU32) {
        let cost = self.interval.saturating_mul(cost.get());
        let cost = u64::try_from(cost.as_nanos()).unwrap_or(u64::MAX);
        self.table.change_known(key, |rested_at| rested_at.0 = rested_at.0.saturating_sub(cost));
    }
}

/// A key as governor asks for it, and where the table notes what it was told: the moment of rest, from which the wait
/// follows. governor's own answers have it rounded down to requests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    key: u64,
    rested_at: Cell<u64>,
}

impl Hash for Asked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl StateStore for Table<RestedAt> {
    type Key = Asked;

    fn measure_and_replace<T, F, E>(&self, asked: &Asked, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        self.change(asked.key, 0, |state| {
            let (outcome, rested_at) = measure(Some(Nanos::from(state.0)))?;
            *state = RestedAt(rested_at.as_u64());
            asked.rested_at.set(state.0);
            Ok(outcome)
        })
    }
}

/// governor's clock, set by whoever asks: time is an argument here, so that tests need not wait.
#[derive(Debug, Clone, Default)]
struct Told(Arc<AtomicU64>);

impl Told {
    /// Moves on to `now`, never back: threads read their clocks in no order.
    fn tell(&self, now: Duration) -> Duration {
        let nanos = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.0.fetch_max(nanos, Ordering::Relaxed).max(nanos))
    }
}

impl Clock for Told {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Of one key.
#[cfg(test)]
pub(super) const fn slot_bytes() -> usize {
    super::table::slot_bytes::<RestedAt>()
}
