//! When to leave a server alone: after three failures in a row it rests for about a tenth of a second, and then one
//! command at a time may try whether it is back. The others hear at once that it is not, instead of waiting for the same
//! deadline each.
//!
//! The length of a rest is drawn by lot, so that the edges of a fleet do not come back in one moment.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// One hiccup, and what was under way with it, is no outage.
const FAILURES: u32 = 3;
/// Long enough to be cheap, short enough not to be noticed once the server is back.
const REST: Duration = Duration::from_millis(100);

/// The state of one server.
#[derive(Debug)]
pub(super) struct Circuit {
    origin: Instant,
    failures: AtomicU32,
    /// Until when it rests, in nanoseconds from `origin`; 0: it does not.
    until: AtomicU64,
    is_tried: AtomicBool,
}

/// The right to send one command. Dropped without a word about how it went, it says nothing.
#[derive(Debug)]
pub(super) struct Pass<'c> {
    circuit: &'c Circuit,
    is_trial: bool,
}

impl Circuit {
    pub(super) fn new(now: Instant) -> Self {
        let (failures, until, is_tried) = Default::default();
        Self { origin: now, failures, until, is_tried }
    }

    /// Lets a command through, unless the server rests or another one tries it.
    pub(super) fn enter(&self, now: Instant) -> Option<Pass<'_>> {
        let until = self.until.load(Ordering::Acquire);
        if until == 0 {
            return Some(Pass { circuit: self, is_trial: false });
        }
        let is_over = self.nanos(now) >= until && !self.is_tried.swap(true, Ordering::AcqRel);
        is_over.then_some(Pass { circuit: self, is_trial: true })
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Pass<'_> {
    /// The server answered.
    pub(super) fn answered(self) {
        self.circuit.failures.store(0, Ordering::Release);
        self.circuit.until.store(0, Ordering::Release);
    }

    /// It did not; says whether it rests now. `lot` is from 0 to 1.
    pub(super) fn failed(self, now: Instant, lot: f64) -> bool {
        let circuit = self.circuit;
        let failures = circuit.failures.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let rests = self.is_trial || failures >= FAILURES;
        if rests {
            let until = now + REST.mul_f64(0.5 + lot);
            circuit.until.store(circuit.nanos(until).max(1), Ordering::Release);
        }
        rests
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.circuit.is_tried.store(false, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    const LOT: f64 = 0.5;

    fn rested(now: Instant) -> Circuit {
        let circuit = Circuit::new(now);
        for failure in 1..=FAILURES {
            assert_eq!(circuit.enter(now).unwrap().failed(now, LOT), failure == FAILURES);
        }
        circuit
    }

    #[test]
    fn three_failures_in_a_row_are_an_outage_and_two_are_not() {
        let now = Instant::now();
        let circuit = Circuit::new(now);
        circuit.enter(now).unwrap().failed(now, LOT);
        circuit.enter(now).unwrap().failed(now, LOT);
        circuit.enter(now).unwrap().answered();
        circuit.enter(now).unwrap().failed(now, LOT);
        assert!(circuit.enter(now).is_some());
        assert!(rested(now).enter(now).is_none());
    }

    #[test]
    fn after_the_rest_one_command_at_a_time_tries() {
        let start = Instant::now();
        let (circuit, later) = (rested(start), start + REST);
        assert!(circuit.enter(start + REST / 2).is_none());
        let trial = circuit.enter(later).unwrap();
        assert!(circuit.enter(later).is_none(), "one is enough");
        assert!(trial.failed(later, LOT));
        assert!(circuit.enter(later).is_none(), "it rests again");
        circuit.enter(later + REST).unwrap().answered();
        assert!(circuit.enter(later + REST).is_some());
        assert!(circuit.enter(later + REST).is_some(), "it is back for all");
    }

    #[test]
    fn a_trial_that_is_given_up_leaves_the_place_to_another() {
        let start = Instant::now();
        let (circuit, later) = (rested(start), start + REST);
        drop(circuit.enter(later).unwrap());
        assert!(circuit.enter(later).is_some());
    }
}
