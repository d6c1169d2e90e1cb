//! How often a key was asked for lately: enough to tell what is asked for once from what is asked for again.
//!
//! A table of counters that keys share by their hash, so that memory is bounded whatever is asked for; two keys that share
//! one are kept a little early. All counters are halved from time to time, so that old uses are forgotten.

use std::sync::{
    OnceLock,
    atomic::{AtomicU8, AtomicUsize, Ordering},
};

/// 64 KiB.
const COUNTERS: usize = 1 << 16;
/// Uses between two halvings: a key asked for this often among as many others is remembered for a few rounds.
const ROUND: usize = 10 * COUNTERS;

/// The table; it takes no memory until something is counted.
#[derive(Debug, Default)]
pub(super) struct Uses {
    counters: OnceLock<Box<[AtomicU8]>>,
    round: AtomicUsize,
}

impl Uses {
    /// How often the key with this hash was asked for, so far.
    pub(super) fn so_far(&self, hash: u128) -> u32 {
        let counter = self.counters.get().map(|counters| &counters[hash as usize % COUNTERS]);
        counter.map_or(0, |counter| counter.load(Ordering::Relaxed).into())
    }

    /// Counts one more use of the key with this hash, and says how many there were, this one included.
    pub(super) fn count(&self, hash: u128) -> u32 {
        let counters =
            self.counters.get_or_init(|| std::iter::repeat_with(AtomicU8::default).take(COUNTERS).collect());
        if self.round.fetch_add(1, Ordering::Relaxed) >= ROUND {
            self.round.store(0, Ordering::Relaxed);
            for counter in counters {
                // A use that is counted meanwhile may be lost.
                counter.store(counter.load(Ordering::Relaxed) / 2, Ordering::Relaxed);
            }
        }
        let counter = &counters[hash as usize % COUNTERS];
        let more = |uses: u8| Some(uses.saturating_add(1));
        let before = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).unwrap_or_default();
        u32::from(before) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_by_key_and_forgotten_in_time() {
        let uses = Uses::default();
        assert_eq!(uses.so_far(1), 0);
        assert_eq!([uses.count(1), uses.count(2), uses.count(1), uses.count(1)], [1, 1, 2, 3]);
        assert_eq!([uses.so_far(1), uses.so_far(1), uses.so_far(3)], [3, 3, 0], "asking is no use");
        for _ in 0..ROUND {
            uses.count(2);
        }
        assert_eq!(uses.count(1), 2);
        assert!(uses.count(2) > 100);
    }
}
