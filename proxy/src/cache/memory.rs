//! The store: sharded, bounded in bytes, evicting by S3-FIFO.
//!
//! A hit takes a shard's read lock, compares the key, counts one more use in an atomic, and clones an `Arc`.
//!
//! Eviction ("FIFO queues are all you need for cache eviction", SOSP 2023): new entries queue in *small*, a tenth of
//! the shard. Those used more than once meanwhile move on to *main*; others leave, remembered by hash in *ghost*.
//! Who comes back while remembered goes to main at once. Main gives every use one more turn. So a scan of keys that
//! nobody asks for twice passes through the small queue without touching what is loved.
//!
//! The budget is one number for all shards and running fills. What leaves the store stops counting at once, though a
//! slow reader may hold its bytes a little longer: were they counted, slow readers could empty the cache.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
};

use http::HeaderMap;
use parking_lot::RwLock;

use super::{entry::Entry, key::Key};

const SHARDS: usize = 32;
/// Answers kept under one key; a `Vary` on something wild pushes out its own siblings and nobody else.
const MOST_VARIANTS: usize = 32;
/// Uses counted; more make no difference (S3-FIFO's two bits).
const MOST_USES: u8 = 3;

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
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.store.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Reserved {
    /// Nothing yet.
    #[must_use]
    pub(super) fn none(store: Arc<Store>) -> Self {
        Self { store, bytes: 0 }
    }

    /// Adds to the reservation, evicting entries if there is no room; false if even that does not make any.
    #[must_use]
    pub(super) fn grow(&mut self, bytes: usize) -> bool {
        self.store.used.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        self.store.make_room(0)
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
        let shard = self.shard(key.hash()).read();
        let Some(slot) = shard.slots.get(&key.hash()).filter(|slot| *slot.key == *key.text()) else {
            return Found::Nothing;
        };
        let matching =
            slot.residents.iter().filter(|resident| resident.entry.head().variant.matches(request));
        match matching.max_by_key(|resident| resident.entry.head().freshness.received()) {
            None => Found::OtherVariants,
            Some(resident) => {
                // A race loses a use, which costs nothing; writing less keeps the cache line shared.
                let uses = resident.uses.load(Ordering::Relaxed);
                if uses < MOST_USES {
                    resident.uses.store(uses + 1, Ordering::Relaxed);
                }
                Found::Entry(Arc::clone(&resident.entry))
            }
        }
    }

    /// The newest answer under `key`, whoever it was made for; no use of it.
    #[must_use]
    pub(super) fn newest(&self, key: &Key) -> Option<Arc<Entry>> {
        let shard = self.shard(key.hash()).read();
        let slot = shard.slots.get(&key.hash()).filter(|slot| *slot.key == *key.text())?;
        let newest =
            slot.residents.iter().max_by_key(|resident| resident.entry.head().freshness.received())?;
        Some(Arc::clone(&newest.entry))
    }

    /// Keeps an entry, in the place of one for the same requests if there is one. One asked for after a purge is
    /// never replaced by one asked for before it, however long that took to arrive.
    pub(super) fn insert(&self, key: &Key, entry: Arc<Entry>) {
        self.used.fetch_add(entry.bytes(), Ordering::Relaxed);
        let home = shard_of(key.hash());
        let outcome = self.shards[home].write().insert(key, entry);
        self.settle(&outcome);
        self.make_room(home);
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
            for resident in cleared.slots.values().flat_map(|slot| &slot.residents) {
                outcome.lost(&resident.entry);
            }
            self.settle(&outcome);
        }
    }

    fn shard(&self, hash: u128) -> &RwLock<Shard> {
        &self.shards[shard_of(hash)]
    }

    fn settle(&self, change: &Change) {
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

/// What an operation did to the counts.
#[derive(Debug, Default)]
struct Change {
    freed: usize,
    added: usize,
    removed: usize,
}

impl Change {
    fn lost(&mut self, entry: &Entry) {
        self.freed += entry.bytes();
        self.removed += 1;
    }
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<u128, Slot, BuildHasherDefault<AsItIs>>,
    small: VecDeque<Ticket>,
    main: VecDeque<Ticket>,
    ghost: VecDeque<u128>,
    remembered: HashSet<u128, BuildHasherDefault<AsItIs>>,
    small_bytes: usize,
    bytes: usize,
    /// Tickets whose resident is gone.
    void: usize,
    next: u64,
}

#[derive(Debug)]
struct Slot {
    key: Box<str>,
    residents: Vec<Resident>,
}

#[derive(Debug)]
struct Resident {
    id: u64,
    entry: Arc<Entry>,
    uses: AtomicU8,
    in_main: AtomicBool,
}

/// A place in a queue.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    hash: u128,
    id: u64,
}

impl Shard {
    fn insert(&mut self, key: &Key, entry: Arc<Entry>) -> Change {
        let mut change = Change::default();
        if self.slots.get(&key.hash()).is_some_and(|slot| *slot.key != *key.text()) {
            // A collision of 128 seeded bits; the newcomer stays outside.
            change.freed = entry.bytes();
            return change;
        }
        let slot = self
            .slots
            .entry(key.hash())
            .or_insert_with(|| Slot { key: key.text().into(), residents: Vec::with_capacity(1) });
        let same = |resident: &&mut Resident| resident.entry.head().variant == entry.head().variant;
        if let Some(resident) = slot.residents.iter_mut().find(same) {
            if resident.entry.head().moment > entry.head().moment {
                change.freed = entry.bytes();
                return change;
            }
            let in_small = !*resident.in_main.get_mut();
            let old = std::mem::replace(&mut resident.entry, entry);
            let (new_bytes, old_bytes) = (resident.entry.bytes(), old.bytes());
            change.freed = old_bytes;
            self.bytes = self.bytes + new_bytes - old_bytes;
            if in_small {
                self.small_bytes = self.small_bytes + new_bytes - old_bytes;
            }
            return change;
        }
        if slot.residents.len() >= MOST_VARIANTS {
            // The first in the list is the oldest: newcomers are appended.
            let oldest = slot.residents.remove(0);
            self.forget(&oldest, &mut change);
        }
        self.admit(key.hash(), entry);
        change.added = 1;
        change
    }

    /// Queues a newcomer whose slot exists.
    fn admit(&mut self, hash: u128, entry: Arc<Entry>) {
        let id = self.next;
        self.next += 1;
        let known = self.remembered.remove(&hash);
        self.bytes += entry.bytes();
        let ticket = Ticket { hash, id };
        if known {
            self.main.push_back(ticket);
        } else {
            self.small_bytes += entry.bytes();
            self.small.push_back(ticket);
        }
        if let Some(slot) = self.slots.get_mut(&hash) {
            slot.residents.push(Resident {
                id,
                entry,
                uses: AtomicU8::new(0),
                in_main: AtomicBool::new(known),
            });
        }
    }

    /// Accounts for a resident taken out of its slot; its ticket stays behind, void.
    fn forget(&mut self, resident: &Resident, change: &mut Change) {
        change.lost(&resident.entry);
        self.bytes -= resident.entry.bytes();
        if !resident.in_main.load(Ordering::Relaxed) {
            self.small_bytes -= resident.entry.bytes();
        }
        self.void += 1;
        self.sweep();
    }

    /// Drops void tickets once they are half of all.
    fn sweep(&mut self) {
        if self.void < 64 || self.void * 2 < self.small.len() + self.main.len() {
            return;
        }
        let slots = &self.slots;
        let alive = |ticket: &Ticket| {
            slots.get(&ticket.hash).is_some_and(|slot| slot.residents.iter().any(|held| held.id == ticket.id))
        };
        self.small.retain(alive);
        self.main.retain(alive);
        self.void = 0;
    }

    fn remove_where(&mut self, key: &Key, unwanted: impl Fn(&Arc<Entry>) -> bool) -> Change {
        let mut change = Change::default();
        let Some(slot) = self.slots.get_mut(&key.hash()).filter(|slot| *slot.key == *key.text()) else {
            return change;
        };
        let (gone, kept) =
            std::mem::take(&mut slot.residents).into_iter().partition(|held| unwanted(&held.entry));
        let gone: Vec<Resident> = gone;
        slot.residents = kept;
        if slot.residents.is_empty() {
            self.slots.remove(&key.hash());
        }
        for resident in &gone {
            self.forget(resident, &mut change);
        }
        change
    }

    /// Evicts one entry; `None` if there is none.
    fn evict(&mut self) -> Option<Change> {
        loop {
            let from_small =
                !self.small.is_empty() && (self.small_bytes * 10 > self.bytes || self.main.is_empty());
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let ticket = queue.pop_front()?;
            let Some(resident) = self
                .slots
                .get(&ticket.hash)
                .and_then(|slot| slot.residents.iter().find(|resident| resident.id == ticket.id))
            else {
                self.void = self.void.saturating_sub(1);
                continue;
            };
            let uses = resident.uses.load(Ordering::Relaxed);
            if from_small && uses > 1 {
                resident.uses.store(0, Ordering::Relaxed);
                resident.in_main.store(true, Ordering::Relaxed);
                self.small_bytes -= resident.entry.bytes();
                self.main.push_back(ticket);
            } else if !from_small && uses > 0 {
                resident.uses.store(uses - 1, Ordering::Relaxed);
                self.main.push_back(ticket);
            } else {
                return Some(self.drop_resident(ticket, from_small));
            }
        }
    }

    /// Takes out the resident whose ticket was just drawn.
    fn drop_resident(&mut self, ticket: Ticket, from_small: bool) -> Change {
        let mut change = Change::default();
        if let Some(slot) = self.slots.get_mut(&ticket.hash)
            && let Some(at) = slot.residents.iter().position(|resident| resident.id == ticket.id)
        {
            let resident = slot.residents.remove(at);
            if slot.residents.is_empty() {
                self.slots.remove(&ticket.hash);
            }
            let bytes = resident.entry.bytes();
            change.lost(&resident.entry);
            self.bytes -= bytes;
            if from_small {
                self.small_bytes -= bytes;
                self.remember(ticket.hash);
            }
        }
        change
    }

    /// Ghosts are as many as entries live, so that their share of [`Entry::bytes`] covers them.
    fn remember(&mut self, hash: u128) {
        if self.remembered.insert(hash) {
            self.ghost.push_back(hash);
        }
        while self.ghost.len() > self.slots.len() {
            if let Some(oldest) = self.ghost.pop_front() {
                self.remembered.remove(&oldest);
            }
        }
    }
}

/// The keys are seeded hashes already; hashing them again would only cost.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests;
