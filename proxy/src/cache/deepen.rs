//! What memory does not have, the disk may: a look-up goes on there, and what is found lives in memory from then on, whole
//! or, if its body is too large for that, with the head alone.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::{
    Cache,
    disk::{Disk, DiskStats},
    entry::Entry,
    key::Key,
    lookup::{Bypass, Lookup, Miss},
    memory::Found,
    request::{Now, RequestHead, Rule},
    tags::{Purge, Standing},
};

/// A disk that takes longer than this costs more than the origin does.
const PATIENCE: Duration = Duration::from_secs(5);

impl Cache {
    /// Takes a tier below memory, or gives it up. Its entries count from now on, as far as they were not purged, also while
    /// it was none of this cache's.
    pub fn set_disk(&self, disk: Option<Arc<Disk>>) {
        const BOTH: [Purge; 2] = [Purge::Hard, Purge::Soft];
        if let Some(disk) = &disk {
            for (purge, at) in BOTH.into_iter().zip(disk.floors()) {
                self.shelf.floor.restore(purge, at);
            }
        }
        self.shelf.disk.store(disk.clone());
        // Who purges everything from now on tells the disk as well.
        if let Some(disk) = &disk {
            BOTH.into_iter().for_each(|purge| disk.raise(purge, self.shelf.floor.at(purge)));
        }
    }

    /// The tier below memory.
    #[must_use]
    pub fn disk(&self) -> Option<Arc<Disk>> {
        self.shelf.disk.load_full()
    }

    /// What it holds, and what happened there.
    #[must_use]
    pub fn disk_stats(&self) -> Option<DiskStats> {
        self.shelf.disk.load().as_ref().map(|disk| disk.stats())
    }

    /// Whether the disk may know better: whoever looks up goes on with [`Cache::deepen`] then.
    #[must_use]
    pub fn may_deepen(&self, lookup: &Lookup, key: &Key, rule: &Rule, now: Now) -> bool {
        let is_open = matches!(
            lookup,
            Lookup::Miss(Miss::Uri | Miss::Vary) | Lookup::Bypass(Bypass::Range) | Lookup::OnlyIfCached
        );
        is_open
            && !rule.bypassed
            && self.shelf.disk.load().as_ref().is_some_and(|disk| disk.has(key, now.mono))
    }

    /// Looks on disk for what memory does not have; `lookup` again, if nothing is there. A disk that is silent is not waited
    /// for, and rests.
    pub async fn deepen(
        &self,
        lookup: Lookup,
        key: &Key,
        request: &RequestHead<'_>,
        rule: &Rule,
        now: Now,
    ) -> Lookup {
        let Some(disk) = self.disk() else { return lookup };
        let read = async {
            let _in_turn = disk.turn(key).lock().await;
            // Who was before may have brought it.
            let again = self.shelf.look(key, request, rule, now);
            if matches!(again, Lookup::Hit { .. } | Lookup::Stale { .. }) {
                return Some(again);
            }
            let most = self.shelf.entry_limit.load(Ordering::Relaxed);
            let entry = disk.load(key, request.headers, most, now).await?;
            self.promote(&disk, key, &entry)
                .then(|| self.shelf.look_at(key, || Found::Entry(entry), request, rule, now))
        };
        match timeout(PATIENCE, read).await {
            Ok(Some(found)) => {
                if matches!(found, Lookup::Hit { .. } | Lookup::Stale { .. }) {
                    disk.count_hit();
                }
                found
            }
            Ok(None) => lookup,
            Err(_) => {
                disk.is_silent(now.mono);
                lookup
            }
        }
    }

    /// What [`Cache::deepen`] would find, without counting it or keeping it in memory; of a body, only where it lies.
    pub async fn peek_deeper(
        &self,
        lookup: Lookup,
        key: &Key,
        request: &RequestHead<'_>,
        rule: &Rule,
        now: Now,
    ) -> Lookup {
        let Some(disk) = self.disk() else { return lookup };
        match timeout(PATIENCE, disk.load(key, request.headers, 0, now)).await {
            Ok(Some(entry)) if self.shelf.standing(entry.head()) != Standing::Gone => {
                self.shelf.look_at(key, || Found::Entry(entry), request, rule, now)
            }
            _ => lookup,
        }
    }

    /// Keeps in memory what was read from the disk; false if it was purged since it was written there.
    fn promote(&self, disk: &Disk, key: &Key, entry: &Arc<Entry>) -> bool {
        if self.shelf.standing(entry.head()) == Standing::Gone {
            disk.remove(key.text(), &entry.head().variant);
            return false;
        }
        self.shelf.store.insert(key, Arc::clone(entry));
        true
    }

    /// Gives up an entry whose body could not be read.
    pub fn forget(&self, entry: &Arc<Entry>) {
        self.shelf.remove(&Key::again(entry.key()), entry);
    }
}
