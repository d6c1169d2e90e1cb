//! The retry budget: how many requests of an upstream may be repeated, so that an outage is not multiplied.
//!
//! Without it, `tries: 3` triples the load just when the peers fail under it. Over the last ten seconds the retries are
//! at most a share of the requests, and a floor besides. The floor covers few requests, and the moment after a quiet time.
//!
//! Source: Finagle `RetryBudget` (`ttl` 10 s, `percentCanRetry` 20 %, `minRetriesPerSec` 10). Envoy's budget is a share of
//! the retries under way, which says nothing about failures that are quick, such as a refused connection.

use std::time::Instant;

use parking_lot::Mutex;
use weir_config::units::Share;

/// Seconds that are remembered.
const SECONDS: usize = 10;

/// One upstream's budget.
#[derive(Debug)]
pub struct Budget {
    began: Instant,
    window: Mutex<Window>,
}

/// The requests and retries of each of the last seconds.
#[derive(Debug, Default)]
struct Window {
    /// The second that the newest count belongs to, since `began`.
    second: u64,
    counts: [Count; SECONDS],
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    requests: u32,
    retries: u32,
}

impl Budget {
    /// A budget of which nothing is spent.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { began: now, window: Mutex::default() }
    }

    /// A request begins: it earns its share of a retry.
    pub fn deposit(&self, now: Instant) {
        let mut window = self.window.lock();
        let count = window.at(now.saturating_duration_since(self.began).as_secs());
        count.requests = count.requests.saturating_add(1);
    }

    /// Takes one retry out of the budget; false when none is left.
    ///
    /// Units: `share` of the requests of the last ten seconds, and `floor` for each of these seconds; the whole is no bound.
    pub fn withdraw(&self, share: Share, floor: u32, now: Instant) -> bool {
        let share = share.fraction();
        let mut window = self.window.lock();
        window.at(now.saturating_duration_since(self.began).as_secs());
        let sum = |of: fn(&Count) -> u32| window.counts.iter().map(|count| f64::from(of(count))).sum::<f64>();
        let floor = f64::from(floor) * SECONDS as f64;
        let is_unbounded = share >= 1.0;
        if !is_unbounded && sum(|count| count.retries) + 1.0 > sum(|count| count.requests) * share + floor {
            return false;
        }
        let second = window.second;
        let count = window.at(second);
        count.retries = count.retries.saturating_add(1);
        true
    }
}

impl Window {
    /// The counts of this second; those that are too old are forgotten.
    fn at(&mut self, second: u64) -> &mut Count {
        let slot = |second: u64| usize::try_from(second % SECONDS as u64).expect("it is below ten");
        // Threads read the clock before they take the lock: one may be a second behind another.
        let second = second.max(self.second);
        for passed in (self.second + 1..=second).rev().take(SECONDS) {
            self.counts[slot(passed)] = Count::default();
        }
        self.second = second;
        &mut self.counts[slot(second)]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn withdrawn(budget: &Budget, percent: u8, floor: u32, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(Share::percent(percent), floor, now)).count()
    }

    #[test]
    fn retries_are_at_most_a_share_of_the_requests() {
        let start = Instant::now();
        let budget = Budget::new(start);
        (0..1000).for_each(|_| budget.deposit(start));
        assert_eq!(withdrawn(&budget, 20, 0, start), 200);
        budget.deposit(start);
        assert!(!budget.withdraw(Share::percent(20), 0, start), "one request earns a fifth of a retry");
    }

    #[test]
    fn the_floor_holds_without_any_request() {
        let start = Instant::now();
        assert_eq!(withdrawn(&Budget::new(start), 20, 3, start), 30);
        assert_eq!(withdrawn(&Budget::new(start), 20, 0, start), 0);
    }

    #[test]
    fn the_whole_is_no_bound() {
        let start = Instant::now();
        assert_eq!(withdrawn(&Budget::new(start), 100, 0, start), 10_000);
    }

    #[test]
    fn what_is_ten_seconds_old_is_forgotten() {
        let start = Instant::now();
        let budget = Budget::new(start);
        let at = |seconds| start + Duration::from_secs(seconds);
        (0..100).for_each(|_| budget.deposit(at(0)));
        assert_eq!(withdrawn(&budget, 20, 0, at(9)), 20);
        assert_eq!(withdrawn(&budget, 20, 0, at(10)), 0, "the requests are forgotten first");
        (0..100).for_each(|_| budget.deposit(at(18)));
        assert_eq!(withdrawn(&budget, 20, 0, at(18)), 0, "their retries are not");
        assert_eq!(withdrawn(&budget, 20, 0, at(19)), 20);
        assert_eq!(
            withdrawn(&budget, 20, 1, at(1_000_000)),
            10,
            "after a long pause nothing is left but the floor"
        );
    }

    #[test]
    fn a_clock_that_is_behind_loses_nothing() {
        let start = Instant::now();
        let budget = Budget::new(start);
        budget.deposit(start + Duration::from_secs(5));
        (0..9).for_each(|_| budget.deposit(start));
        assert_eq!(withdrawn(&budget, 20, 0, start), 2);
    }
}
