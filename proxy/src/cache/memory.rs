//! The store: sharded, and bounded in bytes.
//!
//! A hit takes a shard's read lock, compares the key, counts one more use in an atomic, and clones an `Arc`.
//!
//! The budget is one number for all shards and running fills. What leaves the store stops counting at once, though a
//! slow reader may hold its bytes a little longer: were they counted, slow readers could empty the cache.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use http::HeaderMap;
use parking_lot::RwLock;

use super::{
    coded::Codings,
    entry::Entry,
    key::Key,
    shard::{Change, Others, Shard},
    vary::InForm,
};

const SHARDS: usize = 32;

/// Entries within a budget of bytes.
#[derive(Debug)]
pub(super) struct Store {
    shards: Box<[RwLock<Shard>]>,
    used: AtomicUsize,
    limit: AtomicUsize,
    entries: AtomicUsize,
    evictions: AtomicU64,
}

/// What a look into the store finds.
#[derive(Debug)]
pub(super) enum Found {
    /// An answer made for requests like this one.
    Entry(Arc<Entry>),
    /// Only answers made for other requests.
    OtherVariants,
    /// Nothing under the key.
    Nothing,
}

/// Bytes counted against the budget until dropped.
#[derive(Debug)]
pub(super) struct Reserved {
    store: Arc<Store>,
    bytes: usize,
    /// Where room is made first: what is fetched will live there.
    home: usize,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.store.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Reserved {
    /// Nothing yet, for what is fetched for `key`.
    #[must_use]
    pub(super) fn none(store: Arc<Store>, key: &Key) -> Self {
        Self::at(store, key.hash())
    }

    /// The same, for the key with this hash.
    #[must_use]
    pub(super) fn at(store: Arc<Store>, hash: u128) -> Self {
        Self { store, bytes: 0, home: shard_of(hash) }
    }

    /// Adds to the reservation, evicting entries if there is no room; false if even that does not make any.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.store.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        self.store.make_room(self.home)
    }
}

impl Store {
    /// An empty store of at most `limit` bytes.
    #[must_use]
    pub(super) fn new(limit: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(RwLock::default).take(SHARDS).collect(),
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            entries: AtomicUsize::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// Bytes in use: entries, their index, and running fills.
    #[must_use]
    pub(super) fn bytes(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Entries held.
    #[must_use]
    pub(super) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Entries that had to leave for others.
    #[must_use]
    pub(super) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Changes the budget and evicts down to it.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
        self.make_room(0);
    }

    /// The newest answer under `key` that was made for requests like this one; counts as a use of it.
    #[must_use]
    pub(super) fn find(&self, key: &Key, request: &HeaderMap) -> Found {
        let mut request = InForm::from(request);
        let shard = self.shard(key.hash()).read();
        match shard.newest(key, |entry| entry.head().variant.suits(&mut request)) {
            Ok(resident) => Found::Entry(resident.used()),
            Err(Others::Some) => Found::OtherVariants,
            Err(Others::None) => Found::Nothing,
        }
    }

    /// The newest answer under `key`, whoever it was made for; no use of it.
    #[must_use]
    pub(super) fn newest(&self, key: &Key) -> Option<Arc<Entry>> {
        let shard = self.shard(key.hash()).read();
        shard.newest(key, |_| true).ok().map(|resident| Arc::clone(&resident.entry))
    }

    /// Every answer under `key`, whoever it was made for; no use of them.
    #[must_use]
    pub(super) fn under(&self, key: &Key) -> Vec<Arc<Entry>> {
        self.shard(key.hash()).read().under(key).cloned().collect()
    }

    /// How many entries there are for which `counts` holds. Looks at every one, shard by shard.
    #[must_use]
    pub(super) fn count(&self, counts: impl Fn(&Entry) -> bool) -> usize {
        self.shards.iter().map(|shard| shard.read().entries().filter(|entry| counts(entry)).count()).sum()
    }

    /// Keeps an entry, in the place of one for the same requests if there is one. One asked for after a purge is
    /// never replaced by one asked for before it, however long that took to arrive.
    pub(super) fn insert(&self, key: &Key, entry: Arc<Entry>) {
        let home = shard_of(key.hash());
        let outcome = self.shards[home].write().insert(key, entry);
        self.settle(&outcome);
        self.make_room(home);
    }

    /// Counts the entries anew that have these codings, under the key with this hash.
    pub(super) fn recount(&self, hash: u128, codings: &Arc<Codings>) {
        let outcome = self.shard(hash).write().recount(hash, codings);
        self.settle(&outcome);
        self.make_room(shard_of(hash));
    }

    /// Drops this very entry, if it is still held.
    pub(super) fn remove(&self, key: &Key, entry: &Arc<Entry>) {
        let outcome = self.shard(key.hash()).write().remove_where(key, |held| Arc::ptr_eq(held, entry));
        self.settle(&outcome);
    }

    /// Drops every answer under `key`.
    pub(super) fn remove_key(&self, key: &Key) {
        let outcome = self.shard(key.hash()).write().remove_where(key, |_| true);
        self.settle(&outcome);
    }

    /// Drops everything.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let cleared = std::mem::take(&mut *shard.write());
            let mut outcome = Change::default();
            cleared.residents().for_each(|resident| outcome.lost(resident));
            self.settle(&outcome);
        }
    }

    fn shard(&self, hash: u128) -> &RwLock<Shard> {
        &self.shards[shard_of(hash)]
    }

    fn settle(&self, change: &Change) {
        self.used.fetch_add(change.taken, Ordering::Relaxed);
        self.used.fetch_sub(change.freed, Ordering::Relaxed);
        self.entries.fetch_add(change.added, Ordering::Relaxed);
        self.entries.fetch_sub(change.removed, Ordering::Relaxed);
    }

    /// Evicts, from the shard at `home` first, until the budget holds; false if there is nothing left to evict.
    fn make_room(&self, home: usize) -> bool {
        for step in 0..SHARDS {
            loop {
                let over = self.bytes().saturating_sub(self.limit.load(Ordering::Relaxed));
                if over == 0 {
                    return true;
                }
                // The lock ends with the statement: never two shards at once.
                let change = self.shards[(home + step) % SHARDS].write().evict();
                let Some(change) = change else { break };
                self.evictions.fetch_add(change.removed as u64, Ordering::Relaxed);
                self.settle(&change);
            }
        }
        self.bytes() <= self.limit.load(Ordering::Relaxed)
    }
}

fn shard_of(hash: u128) -> usize {
    (hash >> 96) as usize % SHARDS
}

#[cfg(test)]
mod tests;
