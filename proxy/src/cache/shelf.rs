//! What lookups and fills of one cache share: the store, the epochs, the bounds and the counters.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::{
    curve::{Curve, Found},
    disk::{Disk, Room, Spool},
    entry::{Entry, Head},
    key::Key,
    lookup::{Lookup, Miss},
    memory::Store,
    policy::NotStored,
    refusals::Refusals,
    request::Now,
    shared::{self, Shared},
    tags::{Floor, Standing, Tags},
    uses::Uses,
};

/// One cache's common ground.
#[derive(Debug)]
pub(super) struct Shelf {
    pub(super) store: Arc<Store>,
    /// The tier below, if there is one.
    pub(super) disk: ArcSwapOption<Disk>,
    /// The tier that the fleet has in common, if this cache takes part in it; and what happened there.
    pub(super) shared: ArcSwapOption<Shared>,
    pub(super) shared_counts: Arc<shared::Counts>,
    pub(super) tags: Arc<Tags>,
    pub(super) floor: Floor,
    /// The largest entry kept, in bytes of body.
    pub(super) entry_limit: AtomicUsize,
    pub(super) uses: Uses,
    /// What more or less memory would do.
    pub(super) curve: Curve,
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
    /// Notes a look-up in the curve.
    pub(super) fn watch(&self, key: &Key, lookup: &Lookup, now: Now) {
        let found = || match lookup {
            Lookup::Hit { entry, .. } => Found::Good(entry.bytes(), entry.head().freshness.good_until()),
            Lookup::Miss(Miss::Uri | Miss::Vary) => Found::Nothing,
            _ => Found::Useless,
        };
        let all = || [&self.counts.hits, &self.counts.stale, &self.counts.misses].map(read).iter().sum();
        if !matches!(lookup, Lookup::Bypass(_)) {
            let is_hit = matches!(lookup, Lookup::Hit { .. });
            self.curve.looked_up(key.hash(), is_hit, found, all, now.mono);
        }
    }

    /// What purges left of an answer.
    pub(super) fn standing(&self, head: &Head) -> Standing {
        let by_url = self.tags.standing_of(&head.url, head.moment);
        self.floor.standing(head.moment).max(by_url).max(self.tags.standing(&head.tags, head.moment))
    }

    /// Keeps an entry, unless it was purged while it was fetched.
    pub(super) fn keep(&self, key: &Key, entry: &Arc<Entry>, now: Now) -> Standing {
        let standing = self.standing(entry.head());
        let disk = self.disk.load();
        if standing != Standing::Gone {
            self.store.insert(key, Arc::clone(entry));
            self.curve.kept(key.hash(), entry.bytes(), entry.head().freshness.good_until());
            if let Some(disk) = disk.as_ref().filter(|_| entry.body().stored().is_none()) {
                disk.keep(entry, now);
            }
        } else if let Some(disk) = disk.as_ref() {
            disk.remove(key.text(), &entry.head().variant);
        }
        standing
    }

    /// Where a body goes that memory does not hold, if there is such a place.
    pub(super) fn spool(
        &self,
        key: &Key,
        head: &Head,
        length: (Option<u64>, Option<Room>),
        now: Now,
    ) -> Option<Arc<Spool>> {
        self.disk.load().as_ref()?.spool(key, head, length, now)
    }

    /// Gives up every answer under a key, wherever they are kept.
    pub(super) fn remove_key(&self, key: &Key) {
        self.store.remove_key(key);
        if let Some(disk) = &*self.disk.load() {
            disk.remove_key(key);
        }
    }

    /// Gives an entry up, wherever it is kept.
    pub(super) fn remove(&self, key: &Key, entry: &Arc<Entry>) {
        self.store.remove(key, entry);
        if let Some(disk) = &*self.disk.load() {
            disk.remove(key.text(), &entry.head().variant);
        }
    }
}

/// How many there were.
pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// Counts one more.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
