//! Where a limit's counts live: a table of fixed size that forgets whoever has least to hide.
//!
//! A key's whole state is the moment at which it is fully rested. A key that is rested counts the same as an unknown
//! one, so forgetting it loses nothing; the further ahead the moment, the closer the key is to its limit. A full
//! bucket therefore gives up the key that is rested soonest. A flood of new addresses, one request each, pushes out
//! its own kind; an address at its limit stays until it has rested. (A least-recently-used table
//! would forget the abuser first, when the flood is large enough.)
//!
//! The table is set-associative: a key's hash chooses one bucket of sixteen slots with a lock of its own. There is no
//! list to keep, nothing to clean up in the background, and two clients rarely meet at a lock. The price: a table
//! that is nearly full of unrested keys begins to forget the mildest of them a little before it is full.
//!
//! Keys are held as 64-bit hashes under a random seed: 16 bytes a slot however long a key a client chooses. Among a
//! million keys two share a hash once in 37 million tables; they would then share their count.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use governor::{nanos::Nanos, state::StateStore};
use parking_lot::Mutex;

const WAYS: usize = 16;

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: u64,
    /// Nanoseconds since the limiter's start; 0 is rested since ever, which is also what an empty slot means.
    rested_at: u64,
}

/// The counts of one limit; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Table(Arc<[Mutex<[Slot; WAYS]>]>);

impl Table {
    /// Room for `keys`, rounded up to whole buckets.
    pub(super) fn new(keys: usize) -> Self {
        Self((0..keys.div_ceil(WAYS).max(1)).map(|_| Mutex::default()).collect())
    }

    /// Undoes one charge of `interval`.
    pub(super) fn give_back(&self, key: u64, interval: Duration) {
        let interval = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX);
        if let Some(slot) = self.bucket(key).lock().iter_mut().find(|slot| slot.key == key) {
            slot.rested_at = slot.rested_at.saturating_sub(interval);
        }
    }

    fn bucket(&self, key: u64) -> &Mutex<[Slot; WAYS]> {
        // `usize` may be narrower than the hash: the remainder is taken before.
        &self.0[(key % self.0.len() as u64) as usize]
    }
}

impl StateStore for Table {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut bucket = self.bucket(*key).lock();
        let known = bucket.iter().position(|slot| slot.key == *key);
        let rested_at = known.map(|at| Nanos::from(bucket[at].rested_at));
        let (outcome, rested_at) = measure(rested_at)?;
        let slot = match known {
            Some(at) => Some(&mut bucket[at]),
            None => bucket.iter_mut().min_by_key(|slot| slot.rested_at),
        };
        if let Some(slot) = slot {
            *slot = Slot { key: *key, rested_at: rested_at.as_u64() };
        }
        Ok(outcome)
    }
}

/// From keys to hashes nobody outside can foresee.
#[derive(Debug, Default)]
pub(super) struct Hashes(RandomState);

impl Hashes {
    pub(super) fn of(&self, key: &str) -> u64 {
        self.0.hash_one(key)
    }
}
