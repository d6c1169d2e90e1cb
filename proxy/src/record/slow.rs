//! Slow requests, told to the operator at a bounded rate: an overloaded edge must not spend itself on lines about it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Enough to see who is slow; whoever wants all of them has the access log.
const A_SECOND: u32 = 5;

/// Which requests are slow, and how many of them were told.
#[derive(Debug)]
pub(super) struct Slow {
    threshold: Duration,
    began: Instant,
    told: Mutex<Told>,
    /// As in `told`, to be looked at without a lock.
    unsaid: AtomicU64,
}

#[derive(Debug, Default)]
struct Told {
    /// Since `began`.
    second: u64,
    said: u32,
    unsaid: u64,
}

/// What is to be said about a request that ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Say {
    /// This request is slow.
    pub(super) this: bool,
    /// So many earlier ones were slow, and were not told.
    pub(super) more: u64,
}

impl Slow {
    pub(super) fn new(threshold: Duration, now: Instant) -> Self {
        Self { threshold, began: now, told: Mutex::default(), unsaid: AtomicU64::new(0) }
    }

    /// Takes the time of one request.
    pub(super) fn ended(&self, took: Duration, now: Instant) -> Say {
        let is_slow = took > self.threshold;
        if !is_slow && self.unsaid.load(Ordering::Relaxed) == 0 {
            return Say::default();
        }
        let second = now.saturating_duration_since(self.began).as_secs();
        let mut told = self.told.lock();
        let mut say = Say::default();
        if second > told.second {
            say.more = told.unsaid;
            *told = Told { second, ..Told::default() };
        }
        if is_slow && told.said < A_SECOND {
            (told.said, say.this) = (told.said + 1, true);
        } else {
            told.unsaid += u64::from(is_slow);
        }
        self.unsaid.store(told.unsaid, Ordering::Relaxed);
        say
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_secs(2);
    const QUICK: Duration = Duration::from_millis(1);

    #[test]
    fn five_a_second_are_told_and_then_how_many_were_not() {
        let start = Instant::now();
        let slow = Slow::new(Duration::from_secs(1), start);
        let at = |ms| start + Duration::from_millis(ms);
        let told = (0..100).filter(|_| slow.ended(SLOW, at(500)).this).count();
        assert_eq!(told, 5);
        assert_eq!(slow.ended(QUICK, at(900)), Say::default());
        assert_eq!(slow.ended(QUICK, at(1000)), Say { this: false, more: 95 }, "any request brings the news");
        assert_eq!(slow.ended(SLOW, at(1001)), Say { this: true, more: 0 });
    }

    #[test]
    fn what_is_quick_is_not_told() {
        let start = Instant::now();
        let slow = Slow::new(SLOW, start);
        assert_eq!(slow.ended(SLOW, start), Say::default(), "slower than that only");
    }
}
