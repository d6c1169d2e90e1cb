//! How many requests a client may make: named limits, each a rate with a burst, counted by key.
//!
//! The algorithm is governor's GCRA: a key's state is the one moment at which it will be fully rested again
//! ([`table`]), every admitted request moves it by `per / count`, and a request is refused while it lies further ahead
//! than the burst allows. So `100/15m` with burst 100 lets 100 through at once and then one every nine seconds;
//! there is no window whose end a client could wait for to get twice its share.
//!
//! A route's limits are charged in its order and all or nothing, as nginx does: when one refuses, those charged before
//! it are given back. A refused request costs its key nothing, so a client that keeps knocking is not locked out for
//! ever.
//!
//! Memory is allocated once, at the start: 16 bytes a key. A flood of addresses neither grows it nor frees
//! those who are over their limit ([`table`] says why).

pub mod key;
mod table;

use std::{
    num::NonZeroU32,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::StateInformationMiddleware,
};
use weir_config::plan::{self, LimitId};

use self::table::Table;

/// All limits of a plan, with their counts.
#[derive(Debug)]
pub struct Limits(Vec<Arc<Zone>>);

/// Proof that a request was charged to every limit of its route.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Admitted {
    /// The limit with the fewest requests left, for those who want to tell the client; `None` without limits.
    pub tightest: Option<Remaining>,
}

/// What a key has left of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Of which limit.
    pub limit: LimitId,
    /// Requests that would pass right now.
    pub requests: u32,
}

/// A request that must wait: 429 with `Retry-After` (RFC 6585 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// Which limit refused.
    pub limit: LimitId,
    /// When a request of this key would pass.
    pub retry_after: Duration,
    /// What the limit would let through at once.
    pub burst: u32,
}

impl Over {
    /// `Retry-After` in whole seconds, rounded up: who comes back then is let in (RFC 9110 §10.2.3).
    #[must_use]
    pub fn retry_after_seconds(&self) -> u64 {
        let part = u64::from(self.retry_after.subsec_nanos() > 0);
        (self.retry_after.as_secs() + part).max(1)
    }
}

impl Limits {
    /// Fresh counts for the limits of a plan.
    #[must_use]
    pub fn new(limits: &[plan::Limit], now: Instant) -> Self {
        Self::carry_over(&Self(Vec::new()), limits, now)
    }

    /// The limits of a new plan; one with the same name, rate, burst and keys keeps its counts.
    #[must_use]
    pub fn carry_over(old: &Self, limits: &[plan::Limit], now: Instant) -> Self {
        let terms = limits.iter().map(|limit| Terms {
            name: Arc::clone(&limit.name),
            count: limit.rate.count,
            per: limit.rate.per,
            burst: limit.burst,
            keys: limit.keys,
        });
        Self::from_terms(old, terms, now)
    }

    fn from_terms(old: &Self, terms: impl Iterator<Item = Terms>, now: Instant) -> Self {
        let same = |terms: &Terms| old.0.iter().find(|zone| zone.terms == *terms).cloned();
        Self(terms.map(|terms| same(&terms).unwrap_or_else(|| Arc::new(Zone::new(terms, now)))).collect())
    }

    /// Charges one request to each limit under its key, all or nothing.
    ///
    /// Shape:  pairs of limit and rendered key, in the order of the route; keys of any length, only a hash is kept.
    /// Errors: [`Over`] from the first limit that refuses; nothing is charged then.
    /// Source: GCRA (governor); all-or-nothing as nginx `limit_req`.
    pub fn admit<'k, C>(&self, charges: C, now: Instant) -> Result<Admitted, Over>
    where
        C: IntoIterator<Item = (LimitId, &'k str)>,
        C::IntoIter: Clone,
    {
        let charges = charges.into_iter();
        let mut tightest: Option<Remaining> = None;
        for (position, (limit, key)) in charges.clone().enumerate() {
            match self.0[limit.index()].charge(key, now) {
                Ok(requests) if tightest.is_none_or(|tightest| requests < tightest.requests) => {
                    tightest = Some(Remaining { limit, requests });
                }
                Ok(_) => {}
                Err(retry_after) => {
                    for (charged, key) in charges.take(position) {
                        self.0[charged.index()].give_back(key);
                    }
                    return Err(Over { limit, retry_after, burst: self.0[limit.index()].terms.burst });
                }
            }
        }
        Ok(Admitted { tightest })
    }
}

/// What makes two limits the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Terms {
    name: Arc<str>,
    count: NonZeroU32,
    per: Duration,
    burst: u32,
    keys: usize,
}

/// One limit and its counts.
#[derive(Debug)]
struct Zone {
    terms: Terms,
    interval: Duration,
    start: Instant,
    clock: Told,
    keys: table::Hashes,
    table: Table,
    limiter: RateLimiter<u64, Table, Told, StateInformationMiddleware>,
}

impl Zone {
    fn new(terms: Terms, now: Instant) -> Self {
        let interval = (terms.per / terms.count.get()).max(Duration::from_nanos(1));
        // governor counts 64-bit nanoseconds; a burst that takes a century to rest is bounded there.
        let longest = Duration::from_secs(100 * 365 * 86_400).as_nanos() / interval.as_nanos();
        let burst = u32::try_from(longest).unwrap_or(u32::MAX).min(terms.burst);
        let quota = Quota::with_period(interval)
            .expect("the interval is at least a nanosecond")
            .allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN));
        let (table, clock) = (Table::new(terms.keys), Told::default());
        let limiter = RateLimiter::new(quota, table.clone(), clock.clone());
        Self { terms, interval, start: now, clock, keys: table::Hashes::default(), table, limiter }
    }

    /// What is left, or how long to wait.
    fn charge(&self, key: &str, now: Instant) -> Result<u32, Duration> {
        let now = self.clock.tell(now.saturating_duration_since(self.start));
        match self.limiter.check_key(&self.keys.of(key)) {
            Ok(state) => Ok(state.remaining_burst_capacity()),
            Err(until) => Err(until.wait_time_from(now)),
        }
    }

    fn give_back(&self, key: &str) {
        self.table.give_back(self.keys.of(key), self.interval);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    fn terms(name: &str, count: u32, per_secs: u64, burst: u32) -> Terms {
        let count = NonZeroU32::new(count).unwrap();
        Terms { name: name.into(), count, per: Duration::from_secs(per_secs), burst, keys: 1000 }
    }

    fn limits(terms: &[Terms], now: Instant) -> Limits {
        Limits::from_terms(&Limits(vec![]), terms.iter().cloned(), now)
    }

    fn admit(limits: &Limits, keys: &[&str], now: Instant) -> Result<Admitted, Over> {
        let charges: Vec<_> = keys.iter().enumerate().map(|(at, key)| (LimitId::at(at), *key)).collect();
        limits.admit(charges.iter().copied(), now)
    }

    fn admitted(limits: &Limits, keys: &[&str], tries: usize, now: Instant) -> usize {
        (0..tries).filter(|_| admit(limits, keys, now).is_ok()).count()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_passes_and_then_one_each_interval() {
        let now = Instant::now();
        let limits = limits(&[terms("api", 100, 900, 100)], now);
        assert_eq!(admitted(&limits, &["a"], 200, now), 100);
        let over = admit(&limits, &["a"], now + SECOND / 2).unwrap_err();
        assert_eq!((over.retry_after, over.retry_after_seconds(), over.burst), (SECOND * 17 / 2, 9, 100));
        assert_eq!(admitted(&limits, &["a"], 5, now + SECOND * 9), 1);
        assert_eq!(admitted(&limits, &["a"], 200, now + SECOND * 2000), 100);
    }

    #[test]
    fn who_returns_after_retry_after_is_let_in() {
        let now = Instant::now();
        let limits = limits(&[terms("api", 7, 1, 1)], now);
        let _ = admit(&limits, &["a"], now).unwrap();
        let over = admit(&limits, &["a"], now).unwrap_err();
        assert_eq!(over.retry_after_seconds(), 1, "never 0");
        assert!(admit(&limits, &["a"], now + over.retry_after).is_ok());
    }

    #[test]
    fn keys_are_counted_apart_and_the_rest_is_told() {
        let now = Instant::now();
        let limits = limits(&[terms("api", 2, 60, 2)], now);
        assert_eq!(admit(&limits, &["a"], now).unwrap().tightest.unwrap().requests, 1);
        assert_eq!(admit(&limits, &["a"], now).unwrap().tightest.unwrap().requests, 0);
        assert!(admit(&limits, &["a"], now).is_err());
        assert!(admit(&limits, &["b"], now).is_ok());
        assert_eq!(limits.admit([], now).unwrap().tightest, None);
    }

    #[test]
    fn refused_requests_are_not_charged_to_any_limit() {
        let now = Instant::now();
        let limits = limits(&[terms("wide", 10, 60, 10), terms("narrow", 1, 60, 1)], now);
        assert_eq!(admitted(&limits, &["a", "a"], 50, now), 1);
        assert_eq!(admit(&limits, &["a", "a"], now).unwrap_err().limit, LimitId::at(1));
        assert_eq!(admitted(&limits, &["a", "b"], 1, now), 1);
        assert_eq!(admitted(&limits, &["a"], 50, now), 8, "10 less the two that passed");
    }

    #[test]
    fn a_flood_of_addresses_does_not_free_those_who_are_over() {
        let now = Instant::now();
        let limits = limits(&[terms("api", 100, 900, 100)], now);
        assert_eq!(admitted(&limits, &["abuser"], 150, now), 100);
        for address in 0..100_000 {
            assert!(admit(&limits, &[&address.to_string()], now + SECOND).is_ok());
        }
        assert_eq!(admitted(&limits, &["abuser"], 100, now + SECOND), 0);
    }

    #[test]
    fn a_reload_keeps_the_counts_of_what_did_not_change() {
        let now = Instant::now();
        let old = limits(&[terms("same", 1, 60, 1), terms("changed", 1, 60, 1)], now);
        assert_eq!(admitted(&old, &["a", "a"], 1, now), 1);
        let new = [terms("changed", 2, 60, 2), terms("same", 1, 60, 1)];
        let new = Limits::from_terms(&old, new.into_iter(), now + SECOND);
        assert_eq!(admitted(&new, &["a"], 9, now + SECOND), 2);
        assert_eq!(new.admit([(LimitId::at(1), "a")], now + SECOND).unwrap_err().limit, LimitId::at(1));
    }

    #[test]
    fn extreme_rates_neither_panic_nor_wrap() {
        let now = Instant::now();
        let slow = terms("slow", 1, 100 * 365 * 86_400, u32::MAX);
        let fast = terms("fast", u32::MAX, 1, u32::MAX);
        let none = terms("none", 1, 1, 0);
        let limits = limits(&[slow, fast, none], now);
        assert!(admit(&limits, &["a", "a", "a"], now).is_ok());
        assert!(admit(&limits, &["a", "a", "a"], now).is_err());
    }
}
