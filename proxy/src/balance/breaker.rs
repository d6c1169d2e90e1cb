//! The circuit breaker: an upstream that fails is left alone for a while, and its clients hear so at once.
//!
//! States: *closed*, counting → (a share of the window's requests failed, or so many in a row) → *open*: every request is
//! refused → (`open` has passed) → *half open*: `probes` requests at once are let through → as many successes: closed,
//! counting anew; one failure: open again.
//!
//! Cold start: fewer than `requests` in a window prove nothing, but failures in a row do. What a peer alone does wrong is
//! the business of `passive` and `outlier`; this is for when asking another one does not help.
//!
//! Source: Nygard, "Release It!"; the window and the half-open probes as in resilience4j.

use std::time::{Duration, Instant};

use weir_config::{plan, units::Share};

/// The plan's words, apart from the plan: those can be written only by reading a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) window: Duration,
    pub(super) requests: u32,
    pub(super) failures: Share,
    pub(super) consecutive: u32,
    pub(super) open: Duration,
    pub(super) probes: u32,
}

impl From<&plan::CircuitBreaker> for Rules {
    fn from(plan: &plan::CircuitBreaker) -> Self {
        Self {
            window: plan.window,
            requests: plan.requests,
            failures: plan.failures,
            consecutive: plan.consecutive,
            open: plan.open,
            probes: plan.probes,
        }
    }
}

/// One upstream's breaker.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaker {
    state: State,
    /// Changes of state so far: an outcome that belongs to an earlier one says nothing any more.
    changes: u64,
}

#[derive(Debug, Clone)]
enum State {
    Closed { since: Option<Instant>, requests: u32, failures: u32, in_a_row: u32 },
    Open { until: Instant },
    HalfOpen { under_way: u32, successes: u32 },
}

impl Default for State {
    fn default() -> Self {
        Self::Closed { since: None, requests: 0, failures: 0, in_a_row: 0 }
    }
}

/// A change that an operator hears of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Requests are refused from now on.
    Opened,
    /// A few are let through, to see.
    HalfOpened,
    /// All are let through again.
    Closed,
}

/// What became of a request that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// An answer below 500.
    Succeeded,
    /// An answer from 500 on, or none.
    Failed,
    /// Nothing that says something about the upstream: the client left.
    Unknown,
}

impl Breaker {
    /// Lets a request through; the number that its outcome is told with, and what turned by that. Else: when to come back.
    pub(super) fn admit(&mut self, rules: &Rules, now: Instant) -> Result<(u64, Option<Turn>), Duration> {
        let mut turn = None;
        if let State::Open { until } = self.state {
            if now < until {
                return Err(until - now);
            }
            self.change(State::HalfOpen { under_way: 0, successes: 0 });
            turn = Some(Turn::HalfOpened);
        }
        if let State::HalfOpen { under_way, .. } = &mut self.state {
            if *under_way >= rules.probes {
                // The probes will tell soon, or `open` passes again.
                return Err(Duration::from_secs(1));
            }
            *under_way += 1;
        }
        Ok((self.changes, turn))
    }

    /// What became of the request with this number; says what turned by it.
    pub(super) fn done(
        &mut self,
        number: u64,
        outcome: Outcome,
        rules: &Rules,
        now: Instant,
    ) -> Option<Turn> {
        if number != self.changes {
            return None;
        }
        let failed = outcome == Outcome::Failed;
        let (opens, closes) = match &mut self.state {
            State::Closed { .. } if outcome == Outcome::Unknown => (false, false),
            State::Closed { since, requests, failures, in_a_row } => {
                let began = *since.get_or_insert(now);
                if now.saturating_duration_since(began) >= rules.window {
                    (*since, *requests, *failures) = (Some(now), 0, 0);
                }
                *requests += 1;
                *failures += u32::from(failed);
                *in_a_row = if failed { *in_a_row + 1 } else { 0 };
                let share = f64::from(*failures) / f64::from(*requests) >= rules.failures.fraction();
                let row = rules.consecutive > 0 && *in_a_row >= rules.consecutive;
                (failed && (row || share && *requests >= rules.requests), false)
            }
            State::Open { .. } => (false, false),
            State::HalfOpen { under_way, successes } => {
                *under_way -= 1;
                *successes += u32::from(outcome == Outcome::Succeeded);
                (failed, *successes >= rules.probes)
            }
        };
        if opens {
            self.change(State::Open { until: now + rules.open });
            return Some(Turn::Opened);
        }
        closes.then(|| {
            self.change(State::default());
            Turn::Closed
        })
    }

    /// Whether it refuses at the moment.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        matches!(self.state, State::Open { until } if now < until)
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.changes += 1;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::{Outcome::*, *};

    const RULES: Rules = Rules {
        window: Duration::from_secs(10),
        requests: 10,
        failures: Share::percent(50),
        consecutive: 0,
        open: Duration::from_secs(5),
        probes: 2,
    };

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// Requests one after the other; says whether the last one opened it.
    fn outcomes(breaker: &mut Breaker, outcomes: &[Outcome], now: Instant) -> bool {
        outcomes.iter().fold(false, |_, outcome| {
            let (number, _) = breaker.admit(&RULES, now).unwrap();
            breaker.done(number, *outcome, &RULES, now) == Some(Turn::Opened)
        })
    }

    #[test]
    fn it_opens_at_its_share_of_failures_and_not_before() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        assert!(!outcomes(&mut breaker, &[Failed; 9], start), "nine prove nothing");
        assert!(outcomes(&mut breaker, &[Failed], start));
        let (mut breaker, half) = (Breaker::default(), [Succeeded, Failed].repeat(5));
        assert!(!outcomes(&mut breaker, &half[..9], start));
        assert!(outcomes(&mut breaker, &half[9..], start));
        let mut breaker = Breaker::default();
        assert!(!outcomes(&mut breaker, &[Succeeded, Succeeded, Failed].repeat(30), start));
    }

    #[test]
    fn failures_of_an_earlier_window_are_forgotten() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        outcomes(&mut breaker, &[Failed; 9], start);
        assert!(!outcomes(&mut breaker, &[Failed], after(start, 10)));
    }

    #[test]
    fn failures_in_a_row_open_it_whatever_the_share() {
        let rules = Rules { consecutive: 3, ..RULES };
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let mut tell = |outcome| {
            let (number, _) = breaker.admit(&rules, start).unwrap();
            breaker.done(number, outcome, &rules, start) == Some(Turn::Opened)
        };
        assert_eq!(
            [Failed, Failed, Succeeded, Failed, Unknown, Failed, Failed].map(&mut tell),
            [false, false, false, false, false, false, true]
        );
    }

    #[test]
    fn open_refuses_and_says_when_to_come_back() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        outcomes(&mut breaker, &[Failed; 10], start);
        assert_eq!(breaker.admit(&RULES, after(start, 2)), Err(Duration::from_secs(3)));
        assert!(breaker.is_open(after(start, 4)) && !breaker.is_open(after(start, 5)));
    }

    #[test]
    fn half_open_lets_the_probes_through_and_closes_by_their_success() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        outcomes(&mut breaker, &[Failed; 10], start);
        let later = after(start, 5);
        let probes = [0; 2].map(|_| breaker.admit(&RULES, later).unwrap());
        assert_eq!(probes.map(|(_, turn)| turn), [Some(Turn::HalfOpened), None], "told once");
        assert!(breaker.admit(&RULES, later).is_err(), "two at once");
        let told = probes.map(|(number, _)| breaker.done(number, Succeeded, &RULES, later));
        assert_eq!(told, [None, Some(Turn::Closed)]);
        assert!(!outcomes(&mut breaker, &[Failed; 9], later), "it counts anew");
    }

    #[test]
    fn a_failed_probe_opens_it_again_and_one_whose_client_left_says_nothing() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        outcomes(&mut breaker, &[Failed; 10], start);
        let later = after(start, 5);
        assert!(!outcomes(&mut breaker, &[Unknown, Unknown, Unknown], later));
        assert!(outcomes(&mut breaker, &[Failed], later));
        assert!(breaker.is_open(after(start, 9)));
    }

    #[test]
    fn late_outcomes_of_an_earlier_state_change_nothing() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let (late, _) = breaker.admit(&RULES, start).unwrap();
        outcomes(&mut breaker, &[Failed; 10], start);
        let later = after(start, 5);
        let (probe, _) = breaker.admit(&RULES, later).unwrap();
        assert_eq!(breaker.done(late, Failed, &RULES, later), None, "it was sent before");
        assert_eq!(breaker.done(probe, Succeeded, &RULES, later), None);
        assert!(breaker.admit(&RULES, later).is_ok());
    }
}
