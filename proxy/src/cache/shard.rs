//! One shard of the store: a map to find entries, and the queues that say who leaves first.
//!
//! Eviction ("FIFO queues are all you need for cache eviction", SOSP 2023): new entries queue in *small*, a tenth of
//! the shard. Those used more than once meanwhile move on to *main*; others leave, remembered by hash in *ghost*.
//! Who comes back while remembered goes to main at once. Main gives every use one more turn. So a scan of keys that
//! nobody asks for twice passes through the small queue without touching what is loved.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use super::{coded::Codings, entry::Entry, key::Key};

/// Answers kept under one key; a `Vary` on something wild pushes out its own siblings and nobody else.
pub(super) const MOST_VARIANTS: usize = 32;
/// Uses counted; more make no difference (S3-FIFO's two bits).
const MOST_USES: u8 = 3;

/// What an operation did to the counts.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub(super) taken: usize,
    pub(super) freed: usize,
    pub(super) added: usize,
    pub(super) removed: usize,
}

impl Change {
    pub(super) fn lost(&mut self, resident: &Resident) {
        self.freed += resident.bytes;
        self.removed += 1;
    }
}

#[derive(Debug, Default)]
pub(super) struct Shard {
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
pub(super) struct Resident {
    id: u64,
    pub(super) entry: Arc<Entry>,
    /// As counted: what the entry has grown since is not.
    bytes: usize,
    uses: AtomicU8,
    in_main: AtomicBool,
}

/// A place in a queue.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    hash: u128,
    id: u64,
}

/// Whether a key has entries besides those wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    Some,
    None,
}

impl Change {
    /// A resident has another entry, or its entry has grown.
    fn recounted(&mut self, resident: &mut Resident) {
        let bytes = resident.entry.bytes();
        self.freed += std::mem::replace(&mut resident.bytes, bytes);
        self.taken += bytes;
    }
}

impl Resident {
    /// Counts a use, and hands out the entry.
    pub(super) fn used(&self) -> Arc<Entry> {
        // A race loses a use, which costs nothing; writing seldom keeps the cache line shared.
        let uses = self.uses.load(Ordering::Relaxed);
        if uses < MOST_USES {
            self.uses.store(uses + 1, Ordering::Relaxed);
        }
        Arc::clone(&self.entry)
    }
}

impl Shard {
    /// The newest entry under `key` that is `wanted`; `Err` says whether any others are there.
    pub(super) fn newest(
        &self,
        key: &Key,
        mut wanted: impl FnMut(&Entry) -> bool,
    ) -> Result<&Resident, Others> {
        let slot = self.slots.get(&key.hash()).filter(|slot| *slot.key == *key.text()).ok_or(Others::None)?;
        let matching = slot.residents.iter().filter(|resident| wanted(&resident.entry));
        matching.max_by_key(|resident| resident.entry.head().freshness.received()).ok_or(Others::Some)
    }

    /// The entries under `key`.
    pub(super) fn under(&self, key: &Key) -> impl Iterator<Item = &Arc<Entry>> {
        let slot = self.slots.get(&key.hash()).filter(|slot| *slot.key == *key.text());
        slot.into_iter().flat_map(|slot| &slot.residents).map(|resident| &resident.entry)
    }

    /// Every entry.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.residents().map(|resident| &resident.entry)
    }

    /// Every entry with its place.
    pub(super) fn residents(&self) -> impl Iterator<Item = &Resident> {
        self.slots.values().flat_map(|slot| &slot.residents)
    }

    /// Keeps an entry, see [`super::memory::Store::insert`].
    pub(super) fn insert(&mut self, key: &Key, entry: Arc<Entry>) -> Change {
        let mut change = Change::default();
        if self.slots.get(&key.hash()).is_some_and(|slot| *slot.key != *key.text()) {
            // A collision of 128 seeded bits; the newcomer stays outside.
            return change;
        }
        let slot = self
            .slots
            .entry(key.hash())
            .or_insert_with(|| Slot { key: key.text().into(), residents: Vec::with_capacity(1) });
        let same = |resident: &&mut Resident| resident.entry.head().variant == entry.head().variant;
        if let Some(resident) = slot.residents.iter_mut().find(same) {
            if resident.entry.head().moment > entry.head().moment {
                return change;
            }
            resident.entry = entry;
            let in_small = !*resident.in_main.get_mut();
            change.recounted(resident);
            self.apply(&change, in_small);
            return change;
        }
        if slot.residents.len() >= MOST_VARIANTS {
            let received = |at: &usize| slot.residents[*at].entry.head().freshness.received();
            if let Some(oldest) = (0..slot.residents.len()).min_by_key(received) {
                let oldest = slot.residents.swap_remove(oldest);
                self.forget(&oldest, &mut change);
            }
        }
        change.taken = self.admit(key.hash(), entry);
        change.added = 1;
        change
    }

    /// Counts the entries anew that have these codings.
    pub(super) fn recount(&mut self, hash: u128, codings: &Arc<Codings>) -> Change {
        let (mut small, mut main) = (Change::default(), Change::default());
        let residents = self.slots.get_mut(&hash).into_iter().flat_map(|slot| &mut slot.residents);
        for resident in residents.filter(|resident| resident.entry.body().has(codings)) {
            let queue = if *resident.in_main.get_mut() { &mut main } else { &mut small };
            queue.recounted(resident);
        }
        self.apply(&small, true);
        self.apply(&main, false);
        Change { taken: small.taken + main.taken, freed: small.freed + main.freed, ..Change::default() }
    }

    /// Takes over what a resident that stays was counted anew.
    fn apply(&mut self, change: &Change, in_small: bool) {
        self.bytes = self.bytes + change.taken - change.freed;
        if in_small {
            self.small_bytes = self.small_bytes + change.taken - change.freed;
        }
    }

    /// Places taken in all queues, void ones and ghosts included.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.small.len() + self.main.len() + self.ghost.len()
    }

    /// Queues a newcomer whose slot exists; says how many bytes it takes.
    fn admit(&mut self, hash: u128, entry: Arc<Entry>) -> usize {
        let (id, bytes) = (self.next, entry.bytes());
        self.next += 1;
        let known = self.remembered.remove(&hash);
        self.bytes += bytes;
        let ticket = Ticket { hash, id };
        if known {
            self.main.push_back(ticket);
        } else {
            self.small_bytes += bytes;
            self.small.push_back(ticket);
        }
        if let Some(slot) = self.slots.get_mut(&hash) {
            slot.residents.push(Resident {
                id,
                entry,
                bytes,
                uses: AtomicU8::new(0),
                in_main: AtomicBool::new(known),
            });
        }
        bytes
    }

    /// Accounts for a resident taken out of its slot; its ticket stays behind, void.
    fn forget(&mut self, resident: &Resident, change: &mut Change) {
        change.lost(resident);
        self.bytes -= resident.bytes;
        if !resident.in_main.load(Ordering::Relaxed) {
            self.small_bytes -= resident.bytes;
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

    /// Drops the entries under `key` that are `unwanted`.
    pub(super) fn remove_where(&mut self, key: &Key, unwanted: impl Fn(&Arc<Entry>) -> bool) -> Change {
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
    pub(super) fn evict(&mut self) -> Option<Change> {
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
                self.small_bytes -= resident.bytes;
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
            change.lost(&resident);
            self.bytes -= resident.bytes;
            if from_small {
                self.small_bytes -= resident.bytes;
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
