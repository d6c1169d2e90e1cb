//! The cache: asked when the caller is known, before a peer is picked.
//!
//! 1. [`Key`]: what tells answers apart.
//! 2. [`Cache::lookup`]: hit, stale, miss, bypass, or 504, decided at once from memory; and [`Cache::deepen`], where there
//!    is a disk below.
//! 3. [`Cache::begin`]: one request per key goes to the origin with a [`FillGuard`], the others wait.
//! 4. [`FillGuard::head`] / [`FillGuard::not_modified`]: what the origin said is kept, or not and why.
//! 5. [`answer()`], [`first_answer`]: status, fields and bytes for one client, its conditions and ranges included.
//! 6. [`Tags::purge`], [`Cache::purge_key`], [`after_unsafe`], [`at_the_origin_s_word`]: invalidation by epoch, right for
//!    fills under way too. [`Tags::order`] tells the other edges of the fleet as well, by way of [`PurgeStream`].
//!
//! The rules are RFC 9111's; where this cache is stricter, `policy` and `freshness` say so and why. It knows nothing
//! about sockets, routes or Pingora, and reads no clock: every call is told the time. Only [`PurgeStream`] and [`Shared`],
//! the tier that a fleet has in common, speak to Redis.

// What is asked, and what names it.
mod key;
mod request;
mod url;
mod subject;

// May it be kept, may it answer: RFC 9111, as pure functions.
mod policy;
mod directives;
mod freshness;
mod vary;
mod conditional;
mod range;
mod date;
mod structured;
mod guard;

// Looking: from memory, from below it, and the answer to one client.
mod lookup;
mod deepen;
mod answer;
mod status;

// Fetching: one for all who wait.
mod desk;
mod filling;
mod waiting;
mod refusals;
mod uses;

// Where it lies: in memory, on disk, in the fleet's Redis.
mod shelf;
mod entry;
mod memory;
mod shard;
mod disk;
mod shared;
mod coded;
mod curve;

// In parts.
mod slice;
mod partial;

// Purging, here and in the whole fleet.
mod tags;
mod prefixes;
mod invalidation;
mod outbox;
mod purge_stream;
mod timeline;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use weir_config::plan::Coding;

use crate::stripes::Stripes;

pub use answer::{
    Answer, Extent, Piece, Plan, aged, answer, answer_of_whole, first_answer, is_held, not_modified,
};
pub use coded::{Coded, CodedReader, Maker};
pub use desk::{Ask, Begin};
pub use disk::{Disk, DiskStats, Pieces, Stored, can_keep};
pub use entry::{Body, Entry, Head};
pub use filling::{Confirmed, Decision, FillGuard};
pub use freshness::{Expired, Freshness, Staleness};
pub use guard::{Guard, Mark};
pub use invalidation::{after_unsafe, at_the_origin_s_word, may_purge};
pub use key::Key;
pub use lookup::{Bypass, Lookup, Miss};
pub use outbox::Told;
pub use partial::answer_from_part;
pub use policy::{NotStored, TAG_FIELDS};
pub use purge_stream::PurgeStream;
pub use request::{Now, RequestHead, Rule, is_plain};
pub use shared::{Shared, SharedStats};
pub use slice::{Part, Slice, first_slice};
pub use status::{CacheStatus, Forwarded, NAME, NO_RULE, ORIGIN_FAILED, SHARED, Served, UPGRADE};
pub use subject::Subject;
pub use tags::{Moment, Purge, Standing, Tag, Tags};
pub use url::Url;
pub use vary::Variant;
pub use waiting::{Broken, Outcome, Reader, Waiter};

/// A named cache. A reload keeps it, and changes its budget with [`Cache::set_budget`].
#[derive(Debug, Clone)]
pub struct Cache {
    shelf: Arc<shelf::Shelf>,
    fills: Arc<desk::Fills>,
}

/// A cache in numbers: what it holds, and what happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Bytes in use, of entries, index and running fills.
    pub bytes: usize,
    /// Entries held.
    pub entries: usize,
    /// Lookups answered with a fresh entry.
    pub hits: u64,
    /// Lookups that found an entry to ask about.
    pub stale: u64,
    /// Lookups that found nothing of use.
    pub misses: u64,
    /// Requests the cache took no part in.
    pub bypasses: u64,
    /// Requests that went to the origin to fill.
    pub fills: u64,
    /// Requests that waited for a fill.
    pub collapsed: u64,
    /// Answers kept.
    pub stored: u64,
    /// Answers not kept.
    pub refused: u64,
    /// Fills that ended early.
    pub broken: u64,
    /// Entries that left for want of room.
    pub evictions: u64,
}

impl Cache {
    /// An empty cache of `budget` bytes in all, with bodies of at most `entry` bytes. `tags` is one table for every
    /// cache of the process.
    #[must_use]
    pub fn new(budget: usize, entry: usize, tags: Arc<Tags>) -> Self {
        let shelf = Arc::new(shelf::Shelf {
            store: Arc::new(memory::Store::new(budget)),
            disk: arc_swap::ArcSwapOption::empty(),
            shared: arc_swap::ArcSwapOption::empty(),
            shared_counts: Arc::default(),
            tags,
            floor: tags::Floor::default(),
            entry_limit: AtomicUsize::new(entry),
            uses: uses::Uses::default(),
            curve: curve::Curve::default(),
            counts: shelf::Counts::default(),
            looked_up: Stripes::new(Default::default),
            refusals: refusals::Refusals::default(),
        });
        Self { fills: Arc::new(desk::Fills::new(Arc::clone(&shelf))), shelf }
    }

    /// Looks for an answer to `request` under `key`.
    #[must_use]
    pub fn lookup(&self, key: &Key, request: &RequestHead<'_>, rule: &Rule, now: Now) -> Lookup {
        self.shelf.lookup(key, request, rule, now)
    }

    /// Lets a request that missed go to the origin, or wait for the one that went.
    ///
    /// For [`Lookup::Miss`] and [`Lookup::Stale`] only.
    #[must_use]
    pub fn begin(&self, ask: Ask, now: Now) -> Begin {
        self.fills.begin(ask, now)
    }

    /// The right to fetch a stale entry anew while it serves; `None` when somebody has it already.
    #[must_use]
    pub fn refresh(&self, ask: Ask, now: Now) -> Option<FillGuard> {
        self.fills.refresh(ask, now)
    }

    /// Lets a request that is sent past what is stored fetch anew, for itself and whoever comes later.
    #[must_use]
    pub fn fetch_past(&self, ask: Ask, now: Now) -> FillGuard {
        self.fills.fetch_past(ask, now)
    }

    /// The body that a reader has, in a coding: kept with the body, or to be made by whoever asks first, with what
    /// they `begin`.
    #[must_use]
    pub fn coded<T>(&self, reader: &Reader, coding: Coding, begin: impl FnOnce() -> Option<T>) -> Coded<T> {
        let (codings, home) = reader.codings();
        codings.get(coding, reader.length(), (&self.shelf.store, home), begin)
    }

    /// Seconds left of an entry's lifetime; negative when over, and none of what was purged.
    #[must_use]
    pub fn ttl(&self, entry: &Entry, now: Now) -> i64 {
        lookup::left(entry.head(), self.shelf.standing(entry.head()), now)
    }

    /// What a lookup would find, without counting it.
    #[must_use]
    pub fn peek(&self, key: &Key, request: &RequestHead<'_>, rule: &Rule, now: Now) -> Lookup {
        self.shelf.look(key, request, rule, now)
    }

    /// The answers under `key` that were not purged, whoever they were made for, and what is left of each.
    #[must_use]
    pub fn under(&self, key: &Key) -> Vec<(Arc<Entry>, Standing)> {
        let all = self.shelf.store.under(key).into_iter();
        let standing = all.map(|entry| (Arc::clone(&entry), self.shelf.standing(entry.head())));
        standing.filter(|(_, standing)| *standing != Standing::Gone).collect()
    }

    /// How often what `key` stands for was fetched lately, where a rule counts that (`min_uses`).
    #[must_use]
    pub fn uses(&self, key: &Key) -> u32 {
        self.shelf.uses.so_far(key.hash())
    }

    /// How many entries that were not purged are like this. It looks at every one.
    #[must_use]
    pub fn count(&self, like: impl Fn(&Head) -> bool) -> usize {
        let counts =
            |entry: &Entry| like(entry.head()) && self.shelf.standing(entry.head()) != Standing::Gone;
        self.shelf.store.count(counts)
    }

    /// Why, and when, the last answer for `key` was not kept, if that was not long ago and none was kept since.
    #[must_use]
    pub fn last_refusal(&self, key: &Key) -> Option<(NotStored, std::time::SystemTime)> {
        self.shelf.refusals.last(key)
    }

    /// Purges one tag, in every cache that shares the table.
    pub fn purge(&self, tag: Tag, purge: Purge) {
        self.shelf.tags.purge(tag, purge);
    }

    /// Purges one key, fills under way included.
    pub fn purge_key(&self, key: &Key, purge: Purge) {
        self.shelf.tags.purge(Tag::key(key), purge);
        if purge == Purge::Hard {
            self.shelf.remove_key(key);
        }
    }

    /// Purges everything in this cache, fills under way included.
    pub fn purge_all(&self, purge: Purge) {
        self.shelf.purge_all(purge);
    }

    /// Changes the bounds; entries beyond them leave now.
    pub fn set_budget(&self, budget: usize, entry: usize) {
        self.shelf.entry_limit.store(entry, Ordering::Relaxed);
        self.shelf.store.set_limit(budget);
    }

    /// How many answers were not kept since the start, by the reason's word.
    #[must_use]
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        self.shelf.counts.reasons.lock().iter().map(|(word, count)| (*word, *count)).collect()
    }

    /// The share of look-ups, 0 to 1, that the traffic of late would have had answered with so many bytes of memory; `None`
    /// while too little is known.
    #[must_use]
    pub fn hit_rate_with(&self, memory: usize) -> Option<f64> {
        self.shelf.curve.hit_rate(memory)
    }

    /// The cache in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = &self.shelf.counts;
        let [hits, stale, misses, bypasses] = self.shelf.looked_up();
        let read = shelf::read;
        Stats {
            bytes: self.shelf.store.bytes(),
            entries: self.shelf.store.entries(),
            hits,
            stale,
            misses,
            bypasses,
            fills: read(&counts.fills),
            collapsed: read(&counts.collapsed),
            stored: read(&counts.stored),
            refused: read(&counts.refused),
            broken: read(&counts.broken),
            evictions: self.shelf.store.evictions(),
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
