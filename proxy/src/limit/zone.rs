//! The counts of one limit: here, or leased of the fleet's, and here again while Redis is down.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use weir_config::plan::{Counting, LimitOnRedisDown, Shared};

use super::{
    Charge, Taken,
    concurrent::{Concurrent, Place},
    leased::{Fleet, Leased},
    sliding::Sliding,
    steady::Steady,
    store::Store,
    table, told,
};

/// What makes two limits the same one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) name: Arc<str>,
    pub(super) counting: Counting,
    pub(super) keys: usize,
    pub(super) shared: Option<(Shared, Store)>,
    pub(super) is_plain: bool,
}

/// The counts of one limit.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) terms: Terms,
    start: Instant,
    keys: table::Hashes,
    /// Of this edge; of a limit of the fleet, while Redis is down.
    counter: Counter,
    fleet: Option<(Fleet, LimitOnRedisDown)>,
}

/// What counts.
#[derive(Debug)]
enum Counter {
    Steady(Steady),
    Sliding(Sliding),
    Concurrent(Concurrent),
}

impl Zone {
    /// Nothing is counted yet.
    pub(super) fn new(terms: Terms, now: Instant) -> Self {
        let counter = match terms.counting {
            Counting::Steady { rate, burst, at_once } => {
                Counter::Steady(Steady::new(rate, burst, at_once, terms.keys))
            }
            Counting::Sliding { rate } => Counter::Sliding(Sliding::new(rate, terms.keys)),
            Counting::Concurrent { most } => Counter::Concurrent(Concurrent::new(most)),
        };
        let fleet = terms.shared.as_ref().and_then(|(shared, store)| {
            let fleet = Fleet::new(&terms.counting, shared.lease, terms.keys, store.clone())?;
            Some((fleet, shared.on_redis_down))
        });
        Self { terms, start: now, keys: table::Hashes::default(), counter, fleet }
    }

    /// What the limit says, unless Redis has to be asked.
    pub(super) fn take(&self, charge: &Charge, now: Instant) -> Option<Outcome> {
        let (key, since) = (self.keys.of(&charge.key), now.saturating_duration_since(self.start));
        let Some((fleet, _)) = &self.fleet else {
            return Some(self.take_here(key, charge.cost, since));
        };
        match fleet.take(key, charge.cost, since, || self.name(&charge.key)) {
            Leased::Took(taken) => Some(Ok((taken, Held::Leased))),
            Leased::Refused(wait) => Some(Err(No::Full(Some(wait)))),
            Leased::Asks => None,
        }
    }

    /// The same, once Redis has said it.
    pub(super) async fn ask(&self, charge: &Charge, now: Instant) -> Outcome {
        let (key, since) = (self.keys.of(&charge.key), now.saturating_duration_since(self.start));
        let Some((fleet, on_redis_down)) = &self.fleet else {
            return self.take_here(key, charge.cost, since);
        };
        match fleet.ask(key, &self.name(&charge.key), charge.cost, since).await {
            Ok(Ok(taken)) => Ok((taken, Held::Leased)),
            Ok(Err(wait)) => Err(No::Full(wait)),
            Err(_) => self.without_redis(*on_redis_down, key, charge.cost, since),
        }
    }

    fn take_here(&self, key: u64, cost: NonZeroU32, now: Duration) -> Outcome {
        let taken = match &self.counter {
            Counter::Steady(steady) => steady.take(key, cost, now),
            Counter::Sliding(sliding) => sliding.take(key, cost, now),
            Counter::Concurrent(concurrent) => {
                let (place, remaining) = concurrent.enter(key).ok_or(No::Full(Some(Duration::ZERO)))?;
                let taken = Taken { remaining, reset: Duration::ZERO, wait: Duration::ZERO };
                return Ok((taken, Held::Place(place)));
            }
        };
        taken.map(|taken| (taken, Held::Counted)).map_err(No::Full)
    }

    fn without_redis(
        &self,
        on_redis_down: LimitOnRedisDown,
        key: u64,
        cost: NonZeroU32,
        now: Duration,
    ) -> Outcome {
        match on_redis_down {
            LimitOnRedisDown::Local => self.take_here(key, cost, now),
            LimitOnRedisDown::Allow => {
                let most = self.terms.counting.most().get();
                Ok((Taken { remaining: most, reset: Duration::ZERO, wait: Duration::ZERO }, Held::Nothing))
            }
            LimitOnRedisDown::Refuse => Err(No::Unavailable),
        }
    }

    /// Takes a charge back.
    pub(super) fn give_back(&self, charge: &Charge, held: &Held) {
        let key = self.keys.of(&charge.key);
        match (held, &self.counter, &self.fleet) {
            (Held::Counted, Counter::Steady(steady), _) => steady.give_back(key, charge.cost),
            (Held::Counted, Counter::Sliding(sliding), _) => sliding.give_back(key, charge.cost),
            (Held::Leased, _, Some((fleet, _))) => fleet.give_back(key, charge.cost),
            _ => {}
        }
    }

    /// The key in Redis.
    fn name(&self, key: &str) -> String {
        told::in_redis(key, self.terms.is_plain, &self.terms.name)
    }
}

/// What a zone says to a charge.
pub(super) type Outcome = Result<(Taken, Held), No>;

/// What a charge was taken from, so that it can be given back.
#[derive(Debug)]
pub(super) enum Held {
    /// This edge's counter.
    Counted,
    /// A lease of the fleet's.
    Leased,
    /// Among the requests under way; dropped, it is given back.
    Place(Place),
    /// It was not counted.
    Nothing,
}

/// Why a zone lets nothing pass.
#[derive(Debug)]
pub(super) enum No {
    /// Until then, if ever.
    Full(Option<Duration>),
    /// Nobody can say.
    Unavailable,
}
