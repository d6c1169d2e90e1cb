//! Where a limit's counts live: a table of fixed size that forgets whoever has least to hide.
//!
//! A key that has used nothing counts the same as an unknown one, so forgetting it loses nothing; the more it has used, the
//! closer it is to its limit. A full bucket therefore gives up the key with the smallest [`State::weight`]. A flood of new
//! addresses, one request each, pushes out its own kind; an address at its limit stays until it has rested. (A
//! least-recently-used table would forget the abuser first, when the flood is large enough.)
//!
//! The table is set-associative: a key's hash chooses one bucket of sixteen slots with a lock of its own. There is no
//! list to keep, nothing to clean up in the background, and two clients rarely meet at a lock. The price: a table
//! that is nearly full of keys with much to hide begins to forget the mildest of them a little before it is full.
//!
//! Keys are held as 64-bit hashes under a random seed, so a slot has one size however long a key a client chooses. Among a
//! million keys two share a hash once in 37 million tables; they would then share their count.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;

const WAYS: usize = 16;

/// What is known of a key; the default is what is known of a stranger.
pub(super) trait State: Copy + Default {
    /// How much would be given away by forgetting it at `now`, in the limit's own units of time; 0 is nothing.
    fn weight(&self, now: u64) -> u64;
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot<S> {
    key: u64,
    state: S,
}

/// The counts of one limit; clones share them.
#[derive(Debug)]
pub(super) struct Table<S>(Arc<[Mutex<[Slot<S>; WAYS]>]>);

impl<S> Clone for Table<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: State> Table<S> {
    /// Room for `keys`, rounded up to whole buckets.
    pub(super) fn new(keys: usize) -> Self {
        Self((0..keys.div_ceil(WAYS).max(1)).map(|_| Mutex::default()).collect())
    }

    /// Looks at what is known of `key` and changes it, a stranger's only when `change` succeeds.
    pub(super) fn change<T, E>(
        &self,
        key: u64,
        now: u64,
        change: impl FnOnce(&mut S) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut bucket = self.bucket(key).lock();
        if let Some(known) = bucket.iter_mut().find(|slot| slot.key == key) {
            return change(&mut known.state);
        }
        let mut state = S::default();
        let outcome = change(&mut state)?;
        if let Some(mildest) = bucket.iter_mut().min_by_key(|slot| slot.state.weight(now)) {
            *mildest = Slot { key, state };
        }
        Ok(outcome)
    }

    /// Changes what is known of `key`, if anything is.
    pub(super) fn change_known(&self, key: u64, change: impl FnOnce(&mut S)) {
        if let Some(known) = self.bucket(key).lock().iter_mut().find(|slot| slot.key == key) {
            change(&mut known.state);
        }
    }

    fn bucket(&self, key: u64) -> &Mutex<[Slot<S>; WAYS]> {
        // `usize` may be narrower than the hash: the remainder is taken before.
        &self.0[(key % self.0.len() as u64) as usize]
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

#[cfg(test)]
pub(super) const fn slot_bytes<S>() -> usize {
    size_of::<Slot<S>>()
}
