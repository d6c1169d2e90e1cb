//! Hedging: when an answer is later than most, a second peer is asked, and whoever answers first is believed.
//!
//! What "later than most" means is learnt: a quantile of the time to the first byte, followed answer by answer. It costs
//! some further requests to cut the tail, so it is bounded by a share of the requests, and nothing begins before
//! [`ENOUGH`] answers have said what is usual. It leaves to others: which requests may be asked twice (exchange).
//!
//! Source: Dean and Barroso, "The Tail at Scale" (2013); Ma, Muthukrishnan and Sandler, "Frugal streaming" (2013).

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_config::{plan, units::Share};

use super::budget::Budget;

/// Answers before the quantile is believed: with 95 %, five of them are later.
const ENOUGH: u32 = 100;

/// How far one answer moves the quantile: the estimate wavers by a few percent, and doubles within some hundred answers.
const STEP: f64 = 0.05;

/// One upstream's hedging.
#[derive(Debug)]
pub struct Hedge {
    share: Share,
    quantile: Mutex<Quantile>,
    budget: Budget,
}

impl Hedge {
    /// Hedging by these rules.
    #[must_use]
    pub fn new(rules: &plan::Hedge, now: Instant) -> Self {
        let quantile = Mutex::new(Quantile::new(rules.quantile.fraction()));
        Self { share: rules.share, quantile, budget: Budget::new(now) }
    }

    /// A request begins.
    pub fn begins(&self, now: Instant) {
        self.budget.deposit(now);
    }

    /// An answer began after so long.
    pub fn answered(&self, took: Duration) {
        self.quantile.lock().note(took);
    }

    /// After how long a second peer is asked; `None` before that is known.
    #[must_use]
    pub fn after(&self) -> Option<Duration> {
        self.quantile.lock().value()
    }

    /// Takes one hedge out of the budget; false when none is left.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.budget.withdraw(self.share, 0, now)
    }
}

/// An estimate of a quantile, which remembers nothing but itself.
#[derive(Debug)]
struct Quantile {
    of: f64,
    answers: u32,
    seconds: f64,
}

impl Quantile {
    fn new(of: f64) -> Self {
        Self { of, answers: 0, seconds: 0.0 }
    }

    /// Up by the quantile's share of a step, down by the rest: at rest when as many answers are later as should be.
    fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        if self.answers == 0 {
            self.seconds = took;
        } else if took > self.seconds {
            self.seconds *= 1.0 + STEP * self.of;
        } else {
            self.seconds *= 1.0 - STEP * (1.0 - self.of);
        }
        self.answers = self.answers.saturating_add(1);
    }

    fn value(&self) -> Option<Duration> {
        (self.answers >= ENOUGH).then(|| Duration::from_secs_f64(self.seconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_known_before_there_were_enough_answers() {
        let mut quantile = Quantile::new(0.95);
        (0..ENOUGH - 1).for_each(|_| quantile.note(Duration::from_millis(5)));
        assert_eq!(quantile.value(), None);
        quantile.note(Duration::from_millis(5));
        assert!(quantile.value().is_some());
    }

    /// Answers of 1 to 100 ms in a fixed shuffled order.
    fn feed(quantile: &mut Quantile, rounds: u64, factor: u64) {
        for number in 0..rounds * 100 {
            quantile.note(Duration::from_millis((number * 37 % 100 + 1) * factor));
        }
    }

    #[test]
    fn it_follows_the_quantile_up_and_down() {
        let mut quantile = Quantile::new(0.95);
        let millis = |quantile: &Quantile| quantile.seconds * 1e3;
        feed(&mut quantile, 50, 1);
        assert!((85.0..105.0).contains(&millis(&quantile)), "{}", millis(&quantile));
        feed(&mut quantile, 50, 10);
        assert!((850.0..1050.0).contains(&millis(&quantile)), "{}", millis(&quantile));
        feed(&mut quantile, 50, 1);
        assert!((85.0..105.0).contains(&millis(&quantile)), "{}", millis(&quantile));
    }

    #[test]
    fn hedges_are_at_most_a_share_of_the_requests() {
        let now = Instant::now();
        let quantile = Mutex::new(Quantile::new(0.95));
        let hedge = Hedge { share: Share::percent(10), quantile, budget: Budget::new(now) };
        assert!(!hedge.withdraw(now));
        (0..100).for_each(|_| hedge.begins(now));
        assert_eq!((0..100).take_while(|_| hedge.withdraw(now)).count(), 10);
    }
}
