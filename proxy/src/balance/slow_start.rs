//! Slow start: the share of a peer that was out grows from nothing to its weight.
//!
//! States: *full* → (back after failures, or after active checks found it sick) → *growing* for `slow_start` → *full*.
//! Failures while it grows begin nothing anew until it was out again.
//!
//! Source: the documentation of `slow_start` in nginx's upstream module, whose code is not public: "the time during which
//! the server will recover its weight from zero to a nominal value, when unhealthy server becomes healthy, or when the
//! server becomes available after a period of time it was considered unavailable". We let it grow evenly.

use std::time::{Duration, Instant};

/// A whole share.
pub(super) const FULL: i64 = 1024;

/// Where a peer stands on its way back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Growth {
    /// `None`: it has its whole share.
    since: Option<Instant>,
    /// Whether active checks took it out when it was last looked at.
    sick: bool,
}

impl Growth {
    /// It is back.
    pub(super) fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// Looks at what the active checks say.
    pub(super) fn notice(&mut self, healthy: bool, now: Instant) {
        if healthy && self.sick {
            self.begin(now);
        }
        self.sick = !healthy;
    }

    /// The part of its share that it has, of [`FULL`]; never quite nothing, or it would never be asked.
    pub(super) fn part(&self, slow_start: Duration, now: Instant) -> i64 {
        let Some(since) = self.since.filter(|_| !slow_start.is_zero()) else { return FULL };
        let passed = now.saturating_duration_since(since);
        if passed >= slow_start {
            return FULL;
        }
        let part = passed.as_nanos() * u128::from(FULL.unsigned_abs()) / slow_start.as_nanos();
        i64::try_from(part).unwrap_or(FULL).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    #[test]
    fn a_share_grows_evenly_and_stays_whole() {
        let now = Instant::now();
        let mut growth = Growth::default();
        assert_eq!(growth.part(TEN, now), FULL);
        growth.begin(now);
        let at = |seconds| growth.part(TEN, now + Duration::from_secs(seconds));
        assert_eq!([at(0), at(5), at(10), at(99)], [1, FULL / 2, FULL, FULL]);
        assert_eq!(growth.part(Duration::ZERO, now), FULL, "without slow_start");
    }

    #[test]
    fn only_a_recovery_begins_it() {
        let now = Instant::now();
        let mut growth = Growth::default();
        growth.notice(true, now);
        assert_eq!(growth.part(TEN, now), FULL);
        growth.notice(false, now);
        assert_eq!(growth.part(TEN, now), FULL, "it is not asked anyway");
        growth.notice(true, now + TEN);
        assert_eq!(growth.part(TEN, now + TEN + TEN / 2), FULL / 2);
    }
}
