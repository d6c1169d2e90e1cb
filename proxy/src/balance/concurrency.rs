//! The concurrency limit: how many requests at once an upstream takes before they only wait there instead of here.
//!
//! The limit follows the gradient between the latency of an idle upstream and that of now: while answers take no more
//! than [`TOLERANCE`] times as long it grows by its square root, and above it shrinks with the ratio.
//!
//! Phases: *probing*, with `min` requests at once, for the latency of an idle upstream → *following*, for `probe` long →
//! probing. The first window of a probe is not believed: its requests queued behind those of before.
//!
//! Cold start: a new upstream is probed first, so it begins with `min` and doubles within seconds. A limit that is not
//! used does not grow, or an idle night would leave it at `max`.
//!
//! Source: Netflix `concurrency-limits`, `Gradient2Limit`; Envoy's adaptive concurrency for the probe.

use std::time::{Duration, Instant};

use weir_config::plan;

/// How much longer than an idle upstream's an answer may take: queues that smooth bursts are worth having.
const TOLERANCE: f64 = 2.0;

/// A window has at least so many answers …
const ANSWERS: u32 = 10;

/// … and lasts at least so long.
const WINDOW: Duration = Duration::from_millis(100);

/// How far one window moves the limit towards its gradient: one slow window is noise.
const SMOOTHING: f64 = 0.2;

/// The plan's words, apart from the plan: those can be written only by reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) probe: Duration,
}

impl From<&plan::Concurrency> for Rules {
    fn from(plan: &plan::Concurrency) -> Self {
        Self { min: plan.min, max: plan.max, probe: plan.probe }
    }
}

/// One upstream's limit.
#[derive(Debug, Clone)]
pub(super) struct Limiter {
    limit: f64,
    phase: Phase,
    /// When the present window began; `None` before its first answer.
    began: Option<Instant>,
    answers: u32,
    latency: Duration,
    /// Whether a failure has shrunk the limit within this window.
    shrunk: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Windows still to pass before the latency is believed.
    Probing { windows: u32 },
    /// The latency of an idle upstream in seconds, and since when it is known.
    Following { idle: f64, since: Instant },
}

impl Limiter {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            limit: f64::from(rules.min),
            phase: Phase::Probing { windows: 0 },
            began: None,
            answers: 0,
            latency: Duration::ZERO,
            shrunk: false,
        }
    }

    /// Requests at once that are let through.
    pub(super) fn limit(&self, rules: &Rules) -> u32 {
        match self.phase {
            Phase::Probing { .. } => rules.min,
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within min and max")]
            Phase::Following { .. } => self.limit as u32,
        }
    }

    /// An answer began after so long, with so many requests under way.
    pub(super) fn note(&mut self, took: Duration, under_way: u32, rules: &Rules, now: Instant) {
        let began = *self.began.get_or_insert(now);
        self.answers += 1;
        self.latency += took;
        if self.answers < ANSWERS || now.saturating_duration_since(began) < WINDOW {
            return;
        }
        let mean = self.latency.as_secs_f64() / f64::from(self.answers);
        (self.began, self.answers, self.latency, self.shrunk) = (Some(now), 0, Duration::ZERO, false);
        match self.phase {
            Phase::Probing { windows: 0 } => self.phase = Phase::Following { idle: mean, since: now },
            Phase::Probing { windows } => self.phase = Phase::Probing { windows: windows - 1 },
            Phase::Following { since, .. } if now.saturating_duration_since(since) >= rules.probe => {
                self.phase = Phase::Probing { windows: 1 };
            }
            Phase::Following { idle, since } => {
                // Faster than ever: it was not idle when it was probed.
                self.phase = Phase::Following { idle: idle.min(mean), since };
                self.follow(idle, mean, under_way, rules);
            }
        }
    }

    /// A request got no answer: whatever the reason, less is safer.
    pub(super) fn failed(&mut self, rules: &Rules) {
        if !self.shrunk {
            self.shrunk = true;
            self.limit = (self.limit * 0.9).max(f64::from(rules.min));
        }
    }

    fn follow(&mut self, idle: f64, mean: f64, under_way: u32, rules: &Rules) {
        let gradient = (idle * TOLERANCE / mean).clamp(0.5, 1.0);
        let wanted = self.limit * gradient + self.limit.sqrt();
        let is_used = f64::from(under_way) * 2.0 >= self.limit;
        if wanted < self.limit || is_used {
            let next = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
            self.limit = next.clamp(f64::from(rules.min), f64::from(rules.max));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { min: 10, max: 500, probe: Duration::from_secs(60) };

    /// An upstream that serves `capacity` requests at once in `service` each, asked as much as the limit admits (but by no
    /// more than `clients`), for so long.
    fn run(
        limiter: &mut Limiter,
        capacity: u32,
        service: Duration,
        clients: u32,
        from: Instant,
        seconds: u64,
    ) -> Instant {
        let mut now = from;
        while now < from + Duration::from_secs(seconds) {
            let under_way = limiter.limit(&RULES).min(clients);
            let took = service.mul_f64(f64::from(under_way.max(capacity)) / f64::from(capacity));
            for _ in 0..under_way {
                limiter.note(took, under_way, &RULES, now);
            }
            now += took;
        }
        now
    }

    const SERVICE: Duration = Duration::from_millis(10);

    #[test]
    fn it_begins_with_the_least() {
        assert_eq!(Limiter::new(&RULES).limit(&RULES), 10);
    }

    #[test]
    fn it_finds_the_capacity_and_lets_only_a_short_queue_form() {
        let mut limiter = Limiter::new(&RULES);
        run(&mut limiter, 50, SERVICE, 10_000, Instant::now(), 30);
        let limit = limiter.limit(&RULES);
        assert!((50..=150).contains(&limit), "{limit}");
    }

    #[test]
    fn it_shrinks_when_the_upstream_slows_down_and_never_below_the_least() {
        let mut limiter = Limiter::new(&RULES);
        let now = run(&mut limiter, 50, SERVICE, 10_000, Instant::now(), 20);
        let before = limiter.limit(&RULES);
        let now = run(&mut limiter, 50, SERVICE * 10, 10_000, now, 20);
        assert!(limiter.limit(&RULES) < before / 2, "{before} to {}", limiter.limit(&RULES));
        run(&mut limiter, 1, SERVICE * 100, 10_000, now, 15);
        assert_eq!(limiter.limit(&RULES), 10);
    }

    #[test]
    fn a_probe_learns_that_slow_is_usual_now() {
        let mut limiter = Limiter::new(&RULES);
        let now = run(&mut limiter, 50, SERVICE, 10_000, Instant::now(), 20);
        run(&mut limiter, 50, SERVICE * 10, 10_000, now, 100);
        let limit = limiter.limit(&RULES);
        assert!((50..=150).contains(&limit), "{limit}");
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let mut limiter = Limiter::new(&RULES);
        run(&mut limiter, 1000, SERVICE, 12, Instant::now(), 50);
        assert!(limiter.limit(&RULES) <= 26, "{}", limiter.limit(&RULES));
    }

    #[test]
    fn it_stays_within_its_bounds() {
        let mut limiter = Limiter::new(&RULES);
        run(&mut limiter, 100_000, SERVICE, 100_000, Instant::now(), 50);
        assert_eq!(limiter.limit(&RULES), 500);
        (0..1000).for_each(|_| limiter.failed(&RULES));
        assert_eq!(limiter.limit(&RULES), 450, "failures count once a window");
    }
}
