//! What was last found about keys of which nothing could be kept, for whoever asks why.

use std::{num::NonZeroUsize, time::SystemTime};

use lru::LruCache;
use parking_lot::Mutex;

use super::{key::Key, policy::NotStored};

/// Keys remembered; some hundred KiB when there are so many.
const MOST: NonZeroUsize = NonZeroUsize::new(4096).expect("is not zero");

/// The last refusal of each key, by its hash: no key and no caller is named.
#[derive(Debug)]
pub(super) struct Refusals(Mutex<LruCache<u128, (NotStored, SystemTime)>>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Mutex::new(LruCache::sparse(MOST)))
    }
}

impl Refusals {
    /// An answer for this key was not kept.
    pub(super) fn note(&self, key: &Key, reason: NotStored, at: SystemTime) {
        self.0.lock().put(key.hash(), (reason, at));
    }

    /// One was.
    pub(super) fn forget(&self, key: &Key) {
        self.0.lock().pop(&key.hash());
    }

    /// Why, and when, the last answer for this key was not kept.
    pub(super) fn last(&self, key: &Key) -> Option<(NotStored, SystemTime)> {
        self.0.lock().peek(&key.hash()).copied()
    }
}
