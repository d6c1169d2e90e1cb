//! Requests under way at once. A key is known while it has some, so there are never more keys than requests under way,
//! which the listeners bound.

use std::{
    collections::{HashMap, hash_map::Entry},
    num::NonZeroU32,
    sync::Arc,
};

use parking_lot::Mutex;

/// Two clients rarely meet at a lock.
const SHARDS: usize = 16;

/// How many requests of each key are under way.
#[derive(Debug)]
pub(super) struct Concurrent {
    most: NonZeroU32,
    under_way: Arc<[Mutex<HashMap<u64, u32>>; SHARDS]>,
}

/// A request that counts as under way until this is dropped.
#[derive(Debug)]
pub struct Place {
    under_way: Arc<[Mutex<HashMap<u64, u32>>; SHARDS]>,
    key: u64,
}

impl Concurrent {
    pub(super) fn new(most: NonZeroU32) -> Self {
        Self { most, under_way: Arc::default() }
    }

    /// A place, if there is one, and how many are left then.
    pub(super) fn enter(&self, key: u64) -> Option<(Place, u32)> {
        let mut keys = shard(&self.under_way, key).lock();
        let count = keys.entry(key).or_default();
        let left = self.most.get().checked_sub(*count + 1)?;
        *count += 1;
        Some((Place { under_way: Arc::clone(&self.under_way), key }, left))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut keys = shard(&self.under_way, self.key).lock();
        if let Entry::Occupied(mut count) = keys.entry(self.key) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

fn shard(under_way: &[Mutex<HashMap<u64, u32>>; SHARDS], key: u64) -> &Mutex<HashMap<u64, u32>> {
    // Not by the bits that the table in the shard goes by first.
    &under_way[(key >> 60) as usize % SHARDS]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn places_are_counted_by_key_and_given_back_when_dropped() {
        let limit = Concurrent::new(NonZeroU32::new(2).unwrap());
        let (first, left) = limit.enter(1).unwrap();
        assert_eq!(left, 1);
        let (_second, left) = limit.enter(1).unwrap();
        assert_eq!(left, 0);
        assert!(limit.enter(1).is_none());
        assert!(limit.enter(2).is_some(), "another key has places of its own");
        drop(first);
        assert!(limit.enter(1).is_some());
    }

    #[test]
    fn nothing_is_left_of_those_who_left() {
        let limit = Concurrent::new(NonZeroU32::MIN);
        let places: Vec<_> = (0..1000).map(|key| limit.enter(key << 56 | key).unwrap()).collect();
        drop(places);
        assert!(limit.under_way.iter().all(|shard| shard.lock().is_empty()));
    }
}
