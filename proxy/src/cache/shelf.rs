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
    tags::{Floor, Purge, Standing, Tags},
    uses::Uses,
};
use crate::stripes::Stripes;

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
    /// Look-ups by what they found, of each thread.
    pub(super) looked_up: Stripes<[AtomicU64; LOOK_UPS]>,
    /// What the origin last said about keys of which nothing could be kept.
    pub(super) refusals: Refusals,
}

/// What a look-up finds, as it is counted: hits, stale ones, misses, bypasses.
pub(super) const LOOK_UPS: usize = 4;

/// Events since the start, each counted once.
#[derive(Debug, Default)]
pub(super) struct Counts {
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
    /// Counts a look-up.
    pub(super) fn count(&self, lookup: &Lookup) {
        let which = match lookup {
            Lookup::Hit { .. } => 0,
            Lookup::Stale { .. } => 1,
            Lookup::Miss(_) | Lookup::OnlyIfCached => 2,
            Lookup::Bypass(_) => 3,
        };
        count(&self.looked_up.mine()[which]);
    }

    /// How many found an answer, one to be asked about, none, or did not look.
    pub(super) fn looked_up(&self) -> [u64; LOOK_UPS] {
        let mut all = [0; LOOK_UPS];
        for thread in self.looked_up.all() {
            all.iter_mut().zip(thread).for_each(|(all, one)| *all += read(one));
        }
        all
    }

    /// Notes a look-up in the curve.
    pub(super) fn watch(&self, key: &Key, lookup: &Lookup, now: Now) {
        let found = || match lookup {
            Lookup::Hit { entry, .. } => Found::Good(entry.bytes(), entry.head().freshness.good_until()),
            Lookup::Miss(Miss::Uri | Miss::Vary) => Found::Nothing,
            _ => Found::Useless,
        };
        let all = || {
            let [hits, stale, misses, _] = self.looked_up();
            hits + stale + misses
        };
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

    /// See [`super::Cache::purge_all`].
    pub(super) fn purge_all(&self, purge: Purge) {
        let at = self.floor.raise(&self.tags, purge);
        if let Some(disk) = &*self.disk.load() {
            disk.purged(purge, at);
        }
        if purge == Purge::Hard {
            self.store.clear();
        }
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
