//! What lies on disk, in memory: the name of each file, its size, and who leaves first.
//!
//! Who was not asked for since it last came up for leaving leaves ("second chance"); others queue anew. An entry takes about
//! 130 bytes here, as one of nginx's `keys_zone` does. The order is that of this process: after a start it is that of the
//! folder.

use std::collections::BTreeMap;

use super::super::shard::MOST_VARIANTS;

/// Files take whole blocks of the file system.
const ROUND: u64 = 4096;
/// Uses counted; more make no difference.
const MOST_USES: u8 = 3;

/// What a file is called by, besides its number: beginnings of the SHA-256 of the key, and of what its variant is told
/// apart by. Unlike a key's own hash, the same in every process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) key: [u8; 16],
    pub(super) variant: [u8; 8],
}

/// A file, whichever name it bears: a later one of the same name is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: Name,
    pub(super) serial: u64,
}

#[derive(Debug)]
struct Slot {
    serial: u64,
    turn: u64,
    blocks: u32,
    uses: u8,
}

/// The files, within their budget.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: BTreeMap<Name, Slot>,
    order: BTreeMap<u64, Name>,
    next: u64,
    used: u64,
    /// Files that are not known here any more, and still lie there.
    doomed: Vec<File>,
}

impl Index {
    /// Bytes of all files, and of what is being written.
    pub(super) fn used(&self) -> u64 {
        self.used
    }

    /// How many files.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The files under a key, newest first; counts as a use of them.
    pub(super) fn find(&mut self, key: [u8; 16]) -> Vec<File> {
        let (first, last) = (Name { key, variant: [0; 8] }, Name { key, variant: [u8::MAX; 8] });
        let mut found = Vec::new();
        for (name, slot) in self.slots.range_mut(first..=last) {
            slot.uses = (slot.uses + 1).min(MOST_USES);
            found.push(File { name: *name, serial: slot.serial });
        }
        found.sort_unstable_by_key(|file| std::cmp::Reverse(file.serial));
        found
    }

    /// The number of the file of this name.
    pub(super) fn serial(&self, name: &Name) -> Option<u64> {
        self.slots.get(name).map(|slot| slot.serial)
    }

    /// A file of so many bytes is there, in the place of the one that had its name, unless that is a later one.
    pub(super) fn insert(&mut self, file: File, bytes: u64) {
        match self.serial(&file.name) {
            Some(known) if known >= file.serial => {
                if known > file.serial {
                    self.doomed.push(file);
                }
                return;
            }
            Some(known) => self.remove(File { serial: known, ..file }),
            None => {}
        }
        let blocks = u32::try_from(rounded(bytes) / ROUND).unwrap_or(u32::MAX);
        let turn = self.turn(file.name);
        self.used += u64::from(blocks) * ROUND;
        self.slots.insert(file.name, Slot { serial: file.serial, turn, blocks, uses: 0 });
        let siblings = self.find_unused(file.name.key);
        if siblings.len() > MOST_VARIANTS {
            siblings
                .iter()
                .min_by_key(|file| file.serial)
                .copied()
                .into_iter()
                .for_each(|it| self.remove(it));
        }
    }

    fn find_unused(&self, key: [u8; 16]) -> Vec<File> {
        let (first, last) = (Name { key, variant: [0; 8] }, Name { key, variant: [u8::MAX; 8] });
        let range = self.slots.range(first..=last);
        range.map(|(name, slot)| File { name: *name, serial: slot.serial }).collect()
    }

    fn turn(&mut self, name: Name) -> u64 {
        let turn = self.next;
        self.next += 1;
        self.order.insert(turn, name);
        turn
    }

    /// Gives this very file up.
    pub(super) fn remove(&mut self, file: File) {
        if self.serial(&file.name) == Some(file.serial)
            && let Some(slot) = self.slots.remove(&file.name)
        {
            self.order.remove(&slot.turn);
            self.used -= u64::from(slot.blocks) * ROUND;
            self.doomed.push(file);
        }
    }

    /// Gives up whatever has this name.
    pub(super) fn remove_name(&mut self, name: Name) {
        if let Some(serial) = self.serial(&name) {
            self.remove(File { name, serial });
        }
    }

    /// Gives up all files under a key.
    pub(super) fn remove_key(&mut self, key: [u8; 16]) {
        self.find_unused(key).into_iter().for_each(|file| self.remove(file));
    }

    /// Gives everything up.
    pub(super) fn clear(&mut self) {
        let all: Vec<_> =
            self.slots.iter().map(|(name, slot)| File { name: *name, serial: slot.serial }).collect();
        all.into_iter().for_each(|file| self.remove(file));
    }

    /// Counts bytes that are about to be written.
    pub(super) fn reserve(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// They are not any more, or have become a file.
    pub(super) fn release(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Gives files up until the budget holds; says how many that were.
    pub(super) fn evict(&mut self, limit: u64) -> u64 {
        let mut evicted = 0;
        while self.used > limit {
            let Some((_, name)) = self.order.pop_first() else { break };
            let turn = self.next;
            let Some(slot) = self.slots.get_mut(&name) else { continue };
            if slot.uses > 0 {
                // A round costs each of them a use, so this ends.
                (slot.uses, slot.turn) = (slot.uses - 1, turn);
                self.turn(name);
            } else {
                let serial = slot.serial;
                self.remove(File { name, serial });
                evicted += 1;
            }
        }
        evicted
    }

    /// Up to so many files that are to be deleted; the caller does.
    pub(super) fn take_doomed(&mut self, most: usize) -> Vec<File> {
        let from = self.doomed.len().saturating_sub(most);
        self.doomed.split_off(from)
    }
}

/// What a file takes of the disk.
pub(super) fn rounded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ROUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(key: u8, serial: u64) -> File {
        File { name: Name { key: [key; 16], variant: [0; 8] }, serial }
    }

    fn keys(index: &Index) -> Vec<u8> {
        index.slots.keys().map(|name| name.key[0]).collect()
    }

    #[test]
    fn who_was_not_asked_for_leaves_first_and_the_budget_holds() {
        let mut index = Index::default();
        (1..=4).for_each(|key| index.insert(file(key, 1), 5000));
        assert_eq!(index.used(), 4 * 8192);
        index.find([1; 16]);
        assert_eq!(index.evict(2 * 8192), 2);
        assert_eq!((keys(&index), index.used()), (vec![1, 4], 2 * 8192));
        assert_eq!(index.take_doomed(9), [file(2, 1), file(3, 1)]);
        assert_eq!(index.evict(0), 2);
        assert_eq!((index.used(), index.order.len()), (0, 0));
    }

    #[test]
    fn of_two_files_of_a_name_the_later_one_stays_in_whichever_order_they_are_found() {
        let mut index = Index::default();
        index.insert(file(1, 7), 1);
        index.insert(file(1, 5), 1);
        assert_eq!((index.find([1; 16]), index.take_doomed(9)), (vec![file(1, 7)], vec![file(1, 5)]));
        index.insert(file(1, 9), 1);
        assert_eq!((index.find([1; 16]), index.take_doomed(9)), (vec![file(1, 9)], vec![file(1, 7)]));
        index.insert(file(1, 9), 1);
        index.remove(file(1, 7));
        assert_eq!((index.len(), index.used(), index.take_doomed(9).len()), (1, 4096, 0));
    }

    #[test]
    fn a_wild_vary_pushes_out_its_own_siblings_and_nobody_else() {
        let mut index = Index::default();
        index.insert(file(2, 1), 1);
        for serial in 0..2 * MOST_VARIANTS as u64 {
            let name = Name { key: [1; 16], variant: serial.to_be_bytes() };
            index.insert(File { name, serial }, 1);
        }
        assert_eq!(index.len(), MOST_VARIANTS + 1);
        assert_eq!(index.find([1; 16])[0].serial, 2 * MOST_VARIANTS as u64 - 1);
        index.remove_key([1; 16]);
        assert_eq!(keys(&index), [2]);
        index.clear();
        assert_eq!((index.used(), index.order.len()), (0, 0));
    }
}
