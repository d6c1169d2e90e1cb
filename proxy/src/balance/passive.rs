//! Passive health: what the outcome of real requests says about a peer.
//!
//! States: *standing* → (`max_fails` failures) → *out* → (`fail_timeout` passed, one request goes through) → *probed*
//! → success: standing again; failure: out again. A failure is forgotten by a success only when that success was
//! picked after `fail_timeout` without news, exactly as nginx does (`accessed < checked` there): successes mixed with
//! failures inside one window do not whitewash a peer.
//!
//! Source: nginx `ngx_http_upstream_round_robin.c`, `get_peer` and `free_round_robin_peer`. nginx counts in whole
//! seconds; here time is exact, so a peer comes back up to a second earlier.

use std::time::Instant;

use super::peer::Endpoint;

/// What past requests said about one peer. `None` in a time means never.
#[derive(Debug, Clone, Default)]
pub(super) struct Standing {
    fails: u32,
    /// The last failure.
    failed: Option<Instant>,
    /// The start of the current window: the last failure, or the first pick after `fail_timeout` without news.
    checked: Option<Instant>,
}

impl Standing {
    /// Whether failures keep this peer from being asked.
    pub(super) fn is_out(&self, rules: &Endpoint, now: Instant) -> bool {
        rules.max_fails > 0 && self.fails >= rules.max_fails && !self.window_passed(rules, now)
    }

    /// A request goes to this peer. It opens a new window when the old one has passed; for a peer that was out,
    /// this is the one probe that the window admits.
    pub(super) fn picked(&mut self, rules: &Endpoint, now: Instant) {
        if self.window_passed(rules, now) {
            self.checked = Some(now);
        }
    }

    /// A request failed. Says whether the peer is out by it.
    pub(super) fn failed(&mut self, rules: &Endpoint, now: Instant) -> bool {
        self.fails = self.fails.saturating_add(1);
        self.failed = Some(now);
        self.checked = Some(now);
        rules.max_fails > 0 && self.fails >= rules.max_fails
    }

    /// A request succeeded. Says whether the peer, which was out, is back by it.
    pub(super) fn succeeded(&mut self, rules: &Endpoint) -> bool {
        let was_out = rules.max_fails > 0 && self.fails >= rules.max_fails;
        if self.failed < self.checked {
            self.fails = 0;
        }
        was_out && self.fails == 0
    }

    /// Forgets the failures.
    pub(super) fn pardon(&mut self) {
        self.fails = 0;
    }

    /// Failures that count at the moment.
    pub(super) fn fails(&self) -> u32 {
        self.fails
    }

    /// Windows that passed since the current one began, as nginx's least_time counts them: in whole seconds, each a
    /// second longer than `fail_timeout`.
    pub(super) fn idle_windows(&self, rules: &Endpoint, now: Instant) -> u32 {
        let Some(checked) = self.checked.filter(|_| self.window_passed(rules, now)) else { return 0 };
        let seconds = now.saturating_duration_since(checked).as_secs();
        u32::try_from(seconds / (rules.fail_timeout.as_secs() + 1)).unwrap_or(u32::MAX)
    }

    fn window_passed(&self, rules: &Endpoint, now: Instant) -> bool {
        self.checked.is_none_or(|checked| now.saturating_duration_since(checked) > rules.fail_timeout)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;

    /// A peer with these rules; everything else as it is without a word.
    pub(in crate::balance) fn endpoint(max_fails: u32) -> Endpoint {
        Endpoint {
            name: "a:1".into(),
            address: ([127, 0, 0, 1], 1).into(),
            weight: 1,
            max_conns: 0,
            max_fails,
            fail_timeout: Duration::from_secs(10),
            backup: false,
            down: false,
            drain: false,
            slow_start: Duration::ZERO,
            route: "a".into(),
        }
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_peer_is_out_after_max_fails_and_not_before() {
        let (rules, start) = (endpoint(2), Instant::now());
        let mut standing = Standing::default();
        standing.picked(&rules, start);
        assert!(!standing.failed(&rules, start));
        assert!(!standing.is_out(&rules, start));
        assert!(standing.failed(&rules, start));
        assert!(standing.is_out(&rules, start));
    }

    #[test]
    fn max_fails_zero_never_takes_a_peer_out() {
        let (rules, start) = (endpoint(0), Instant::now());
        let mut standing = Standing::default();
        for _ in 0..100 {
            assert!(!standing.failed(&rules, start));
        }
        assert!(!standing.is_out(&rules, start));
    }

    #[test]
    fn one_probe_goes_through_for_each_fail_timeout() {
        let (rules, start) = (endpoint(1), Instant::now());
        let mut standing = Standing::default();
        standing.failed(&rules, start);
        assert!(standing.is_out(&rules, after(start, 10)));
        assert!(!standing.is_out(&rules, after(start, 11)));
        standing.picked(&rules, after(start, 11));
        assert!(standing.is_out(&rules, after(start, 11)), "the probe is on its way");
        standing.succeeded(&rules);
        assert!(!standing.is_out(&rules, after(start, 11)));
    }

    #[test]
    fn a_failed_probe_keeps_the_peer_out_for_another_window() {
        let (rules, start) = (endpoint(1), Instant::now());
        let mut standing = Standing::default();
        standing.failed(&rules, start);
        standing.picked(&rules, after(start, 11));
        standing.failed(&rules, after(start, 12));
        assert!(standing.is_out(&rules, after(start, 22)));
        assert!(!standing.is_out(&rules, after(start, 23)));
    }

    #[test]
    fn a_success_inside_the_window_of_a_failure_forgives_nothing() {
        let (rules, start) = (endpoint(2), Instant::now());
        let mut standing = Standing::default();
        standing.failed(&rules, start);
        standing.picked(&rules, after(start, 5));
        standing.succeeded(&rules);
        assert!(standing.failed(&rules, after(start, 6)));
    }

    #[test]
    fn a_success_after_a_quiet_window_forgives_everything() {
        let (rules, start) = (endpoint(2), Instant::now());
        let mut standing = Standing::default();
        standing.failed(&rules, start);
        standing.picked(&rules, after(start, 11));
        standing.succeeded(&rules);
        assert!(!standing.failed(&rules, after(start, 12)));
    }
}
