//! What lookups and fills of one cache share: the store, the epochs, the bounds and the counters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::{
    entry::{Entry, Head},
    key::Key,
    memory::Store,
    policy::NotStored,
    refusals::Refusals,
    tags::{Floor, Standing, Tags},
    uses::Uses,
};

/// One cache's common ground.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) store: Arc<Store>,
    pub(super) tags: Arc<Tags>,
    pub(super) floor: Floor,
    /// The largest entry kept, in bytes of body.
    pub(super) entry_limit: AtomicUsize,
    pub(super) uses: Uses,
    pub(super) counts: Counts,
    /// What the origin last said about keys of which nothing could be kept.
    pub(super) refusals: Refusals,
}

/// Events since the start, each counted once.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hits: AtomicU64,
    pub(super) stale: AtomicU64,
    pub(super) misses: AtomicU64,
    pub(super) bypasses: AtomicU64,
    pub(super) fills: AtomicU64,
    pub(super) collapsed: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) broken: AtomicU64,
    /// Answers not kept, by the reason's word. Each cost a request to the origin: a lock more is nothing.
    pub(super) reasons: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    /// Counts an answer that is not kept.
    pub(super) fn refuse(&self, reason: NotStored) {
        count(&self.refused);
        *self.reasons.lock().entry(reason.word()).or_default() += 1;
    }
}

impl Shelf {
    /// What purges left of an answer.
    pub(super) fn standing(&self, head: &Head) -> Standing {
        let by_url = self.tags.standing_of(&head.url, head.moment);
        self.floor.standing(head.moment).max(by_url).max(self.tags.standing(&head.tags, head.moment))
    }

    /// Keeps an entry, unless it was purged while it was fetched.
    pub(super) fn keep(&self, key: &Key, entry: &Arc<Entry>) -> Standing {
        let standing = self.standing(entry.head());
        if standing != Standing::Gone {
            self.store.insert(key, Arc::clone(entry));
        }
        standing
    }
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
