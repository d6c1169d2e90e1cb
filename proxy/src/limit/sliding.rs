//! Requests in time, never more than the rate counts in whichever span of its length.
//!
//! The span is cut into fifteen parts, and each part has a counter: of `100/15m`, each minute. A request passes while the
//! counters of this part and the fifteen before it have room. Those sixteen cover any span that ends now, so the promise
//! holds to the request; the price is that what was used comes back up to a fifteenth of the span late.
//!
//! The usual two counters, of which the older is weighted by how much of it is still in the span, take half the memory and
//! promise less: they assume that the older requests came evenly, and let nearly twice as many pass when they came at
//! its end.

use std::{num::NonZeroU32, time::Duration};

use weir_config::units::Quota;

use super::{
    Taken,
    table::{State, Table},
};

/// Into how many parts the span is cut.
pub(super) const PARTS: u32 = 15;
/// Counters of a key: the part that is not over, and those that may be within the span.
const COUNTERS: u64 = PARTS as u64 + 1;

/// The counters of a key; part `n` of time is counted in `counters[n % COUNTERS]`.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    /// The newest part that has a counter.
    newest: u64,
    counters: [u32; COUNTERS as usize],
}

impl Counters {
    /// Forgets the parts that `now` has left behind.
    fn advance(&mut self, now: u64) {
        for part in self.newest + 1..=now.min(self.newest + COUNTERS) {
            self.counters[(part % COUNTERS) as usize] = 0;
        }
        self.newest = self.newest.max(now);
    }

    fn used(&self) -> u64 {
        self.counters.iter().map(|count| u64::from(*count)).sum()
    }

    /// The part at whose end at least `needed` were forgotten.
    fn forgotten(&self, needed: u64) -> Option<u64> {
        let mut freed = 0;
        let parts = (self.newest + 1).saturating_sub(COUNTERS)..=self.newest;
        parts.into_iter().find(|part| {
            freed += u64::from(self.counters[(part % COUNTERS) as usize]);
            freed >= needed
        })
    }
}

/// `now` is a part's number here.
impl State for Counters {
    fn weight(&self, now: u64) -> u64 {
        if now <= self.newest {
            return self.used();
        }
        let mut then = *self;
        then.advance(now);
        then.used()
    }
}

/// A sliding limit and its counts.
#[derive(Debug)]
pub(super) struct Sliding {
    most: u64,
    /// How long a part is.
    part: Duration,
    table: Table<Counters>,
}

impl Sliding {
    pub(super) fn new(rate: Quota, keys: usize) -> Self {
        let part = (rate.per / PARTS).max(Duration::from_nanos(1));
        Self { most: u64::from(rate.count.get()), part, table: Table::new(keys) }
    }

    /// What is left, or how long until there is enough; `None` when there never is.
    pub(super) fn take(&self, key: u64, cost: NonZeroU32, now: Duration) -> Result<Taken, Option<Duration>> {
        let cost = u64::from(cost.get());
        if cost > self.most {
            return Err(None);
        }
        let at = self.part_of(now);
        self.table.change(key, at, |known| {
            known.advance(at);
            let used = known.used();
            if used + cost > self.most {
                let part = known.forgotten(used + cost - self.most).unwrap_or(known.newest);
                return Err(Some(self.until_forgotten(part, now)));
            }
            // No more than `most`, which is of 32 bits.
            known.counters[(known.newest % COUNTERS) as usize] += cost as u32;
            Ok(Taken {
                remaining: (self.most - used - cost) as u32,
                reset: self.until_forgotten(known.newest, now),
                wait: Duration::ZERO,
            })
        })
    }

    pub(super) fn give_back(&self, key: u64, cost: NonZeroU32) {
        self.table.change_known(key, |known| {
            let newest = &mut known.counters[(known.newest % COUNTERS) as usize];
            *newest = newest.saturating_sub(cost.get());
        });
    }

    fn part_of(&self, now: Duration) -> u64 {
        u64::try_from(now.as_nanos() / self.part.as_nanos()).unwrap_or(u64::MAX)
    }

    /// A part is forgotten when the fifteen behind it are over, too.
    fn until_forgotten(&self, part: u64, now: Duration) -> Duration {
        let end = self.part.as_nanos() * u128::from(part.saturating_add(COUNTERS));
        Duration::from_nanos(u64::try_from(end - now.as_nanos().min(end)).unwrap_or(u64::MAX))
    }
}

/// Of one key.
#[cfg(test)]
pub(super) const fn slot_bytes() -> usize {
    super::table::slot_bytes::<Counters>()
}
