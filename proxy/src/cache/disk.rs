//! The disk tier: what memory had, and what it does not hold, for after a start and for a long time.
//!
//! Each entry is a file (`disk/format.rs`); what there is is known in memory (`disk/index.rs`). A fill that ends is written
//! by one thread behind a short queue (`disk/work.rs`); a body too large for memory is written while it arrives
//! (`disk/spool.rs`) and read from its file in pieces (`disk/stored.rs`). A look-up that memory cannot answer asks here
//! ([`super::Cache::deepen`]), and what is found becomes an entry in memory, so that freshness, variants and purges have one
//! place where they are decided. A purge is an epoch here as there, and remembered (`disk/ledger.rs`).
//!
//! Nothing here waits for the disk on a thread that serves; what has no room in a queue or a budget is passed over. A disk that
//! fails rests (`disk/health.rs`) and memory goes on. A file counts only whole: it is written under another name, and its
//! length, head and pieces are checked whenever they are read.

mod core;
mod folder;
mod format;
mod health;
mod index;
mod ledger;
mod pool;
mod spool;
mod stored;
mod work;

use std::{
    io,
    path::Path,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use http::HeaderMap;
use parking_lot::Mutex;
use tokio::sync::Mutex as Turn;

use self::{
    core::{Core, Counts, key_name, name},
    folder::Folder,
    health::Health,
    index::Index,
    pool::Pool,
    work::{Job, Work},
};
pub use self::{
    folder::can_keep,
    stored::{Pieces, Stored},
};
pub(super) use self::{
    format::{In, Out, decode as decode_head, encode as encode_head, variant as variant_name},
    ledger::{Cell, Ledger},
    spool::{MEMORY as SPOOL_MEMORY, Room, Spool},
};
use super::{
    entry::{Entry, Head},
    key::Key,
    request::Now,
    shelf::{count, read},
    tags::{Purge, Tags},
    vary::Variant,
};

/// What is good for less is not worth a file.
const LEAST_LIFE: Duration = Duration::from_secs(10);
/// Requests for as many keys read side by side; those for one in turn, so that a file is read once.
const TURNS: usize = 256;
/// How often a long scan is told of.
const TOLD: Duration = Duration::from_secs(10);
/// For what waits to be written when the process ends.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// One cache's disk.
#[derive(Debug)]
pub struct Disk {
    core: Arc<Core>,
    turns: Box<[Turn<()>]>,
}

/// A disk in numbers: what it holds, and what happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskStats {
    /// What its files may take, bytes.
    pub budget: u64,
    /// What they take, and what is being written.
    pub bytes: u64,
    /// Entries held.
    pub entries: usize,
    /// Look-ups that memory could not answer, and this could.
    pub hits: u64,
    /// Entries written.
    pub written: u64,
    /// Entries not written, for want of time or room.
    pub skipped: u64,
    /// Entries that left for want of room.
    pub evictions: u64,
    /// Files dropped because they were damaged.
    pub damaged: u64,
    /// Times that the system refused to read or write.
    pub errors: u64,
    /// Whether it was readable and writable when that was tried last.
    pub works: bool,
    /// Whether all that lay there at the start is known.
    pub is_scanned: bool,
}

impl Disk {
    /// Takes the folder at `path` for files of `size` bytes in all, with bodies of at most `entry` bytes. What lies there is
    /// learned while it is in use. Waits for the disk.
    ///
    /// # Errors
    /// What the system says, or that somebody else has the folder.
    pub fn open(path: &Path, size: u64, entry: u64, tags: &Arc<Tags>) -> io::Result<Arc<Self>> {
        let folder = Folder::take(path)?;
        let work = Arc::new(Work::default());
        let ledger::Opened { ledger, is_known, life } =
            Ledger::open(&folder.ledger(), tags, Arc::clone(&work))?;
        let ledger = Arc::new(ledger);
        tags.remember_in(&ledger);
        let core = Arc::new(Core {
            folder,
            index: Mutex::new(Index::default()),
            size: AtomicU64::new(size),
            entry_limit: AtomicU64::new(entry),
            reading: Health::new("read"),
            writing: Health::new("written"),
            ledger,
            tags: Arc::clone(tags),
            work: Arc::clone(&work),
            pool: Pool::start()?,
            spools: AtomicUsize::new(0),
            is_scanned: AtomicBool::new(false),
            life,
            next: AtomicU64::new(life),
            counts: Counts::default(),
        });
        let (writer, scanner) = (Arc::clone(&core), Arc::downgrade(&core));
        let started = thread::Builder::new().name("weir-disk".to_owned()).spawn(move || writer.serve());
        let started = started.and_then(|_| {
            let scan = move || scan(&scanner, is_known);
            thread::Builder::new().name("weir-disk-scan".to_owned()).spawn(scan)
        });
        let disk = Self { core, turns: std::iter::repeat_with(Turn::default).take(TURNS).collect() };
        // On an error the writer ends with it.
        started.map(|_| Arc::new(disk))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.core.path()
    }

    /// Changes the bounds; what is beyond them leaves now.
    pub fn set_budget(&self, size: u64, entry: u64) {
        self.core.size.store(size, Ordering::Relaxed);
        self.core.entry_limit.store(entry, Ordering::Relaxed);
        self.core.reserve(0);
    }

    /// When everything in it was purged, hard and softly.
    pub(super) fn floors(&self) -> [u64; 2] {
        self.core.ledger.floors()
    }

    /// What was asked for before `at` counts as purged.
    pub(super) fn raise(&self, purge: Purge, at: u64) {
        self.core.ledger.raise(purge, at);
    }

    /// Everything was purged at `at`.
    pub(super) fn purged(&self, purge: Purge, at: u64) {
        self.raise(purge, at);
        if purge == Purge::Hard {
            self.core.index.lock().clear();
            self.core.work.wake();
        }
    }

    /// Keeps an entry whose body is in memory, soon.
    pub(super) fn keep(&self, entry: &Arc<Entry>, now: Now) {
        let lasts = entry.head().freshness.ttl(now) >= LEAST_LIFE.as_secs() as i64;
        let fits = entry.body().length() <= self.core.entry_limit.load(Ordering::Relaxed);
        let may = lasts && fits && !self.core.writing.rests(now.mono);
        if !may || !self.core.work.push(Job::Keep(Arc::clone(entry))) {
            count(&self.core.counts.skipped);
            // Or else what it replaced would come back.
            self.remove(entry.key(), &entry.head().variant);
        }
    }

    /// Keeps the head of an entry whose body is on disk, soon. What is not written asks the origin once more.
    pub(super) fn keep_head(&self, entry: &Arc<Entry>) {
        if !self.core.work.push(Job::Head(Arc::clone(entry))) {
            count(&self.core.counts.skipped);
        }
    }

    /// Takes room for a body of this length.
    pub(super) async fn make_room(&self, length: u64, now: Now) -> Option<Room> {
        Room::take(&self.core, length, now).await
    }

    /// Takes a body that is too large for memory, as it arrives; with its room, where its length is declared.
    pub(super) fn spool(
        &self,
        key: &Key,
        head: &Head,
        length: (Option<u64>, Option<Room>),
        now: Now,
    ) -> Option<Arc<Spool>> {
        Spool::begin(&self.core, key.text(), head, length, now)
    }

    /// Gives up what is kept for a key's variant.
    pub(super) fn remove(&self, key: &str, variant: &Variant) {
        self.core.index.lock().remove_name(name(key, variant));
        self.core.work.wake();
    }

    /// Gives up everything under a key.
    pub(super) fn remove_key(&self, key: &Key) {
        self.core.index.lock().remove_key(key_name(key.text()));
        self.core.work.wake();
    }

    /// Whether there may be something under a key, and it can be asked for.
    pub(super) fn has(&self, key: &Key, now: Instant) -> bool {
        !self.core.reading.rests(now) && !self.core.index.lock().find(key_name(key.text())).is_empty()
    }

    /// Whose turn it is to read for a key.
    pub(super) fn turn(&self, key: &Key) -> &Turn<()> {
        &self.turns[key.hash() as usize % TURNS]
    }

    /// The entry for requests like this one; its body in memory, if that is not longer than `most` bytes.
    pub(super) async fn load(
        &self,
        key: &Key,
        request: &HeaderMap,
        most: usize,
        now: Now,
    ) -> Option<Arc<Entry>> {
        let (core, key, request) = (Arc::clone(&self.core), key.text().to_owned(), request.clone());
        let load = move || Ok(core.load(&key, &request, most, now));
        self.core.pool.run(load).await.ok().flatten()
    }

    /// It did not answer in time.
    pub(super) fn is_silent(&self, now: Instant) {
        let error = io::Error::new(io::ErrorKind::TimedOut, "it takes too long");
        count(&self.core.counts.failed);
        self.core.reading.failed(self.core.path(), &error, now);
    }

    /// It answered a look-up that memory could not.
    pub(super) fn count_hit(&self) {
        count(&self.core.counts.hits);
    }

    /// Waits until what is queued is written, but not for long: the process ends. Blocks.
    pub fn finish(&self) {
        let until = Instant::now() + LAST_WRITES;
        self.core.work.close();
        // The writer has the one, and this the other.
        while Arc::strong_count(&self.core) > 1 && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The disk in numbers.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        let (core, counts) = (&self.core, &self.core.counts);
        let (bytes, entries) = {
            let index = core.index.lock();
            (index.used(), index.len())
        };
        DiskStats {
            budget: core.size.load(Ordering::Relaxed),
            bytes,
            entries,
            hits: read(&counts.hits),
            written: read(&counts.written),
            skipped: read(&counts.skipped),
            evictions: read(&counts.evicted),
            damaged: read(&counts.spoiled),
            errors: read(&counts.failed),
            works: !core.reading.fails() && !core.writing.fails(),
            is_scanned: core.is_scanned.load(Ordering::Acquire),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.core.work.close();
        self.core.pool.close();
    }
}

/// Learns what lies in the folder, one of its parts after the other, for as long as the disk is in use.
fn scan(core: &Weak<Core>, keeps: bool) {
    let (started, mut told, mut foreign, mut is_clear) = (Instant::now(), Instant::now(), 0, true);
    for first in 0..=u8::MAX {
        let Some(core) = core.upgrade() else { return };
        let folder = core.path().display();
        let scanned = match first {
            0 => core.folder.clear_unfinished(core.life).and_then(|()| core.scan(first, keeps)),
            _ => core.scan(first, keeps),
        };
        match scanned {
            Ok(others) => foreign += others,
            Err(error) => {
                is_clear = false;
                tracing::warn!(%folder, part = first, "a part of the cache's folder cannot be read: {error}")
            }
        }
        if told.elapsed() > TOLD {
            told = Instant::now();
            let percent = u32::from(first) * 100 / 256;
            tracing::info!(%folder, percent, entries = core.index.lock().len(), "learning what the cache has on disk");
        }
    }
    let Some(core) = core.upgrade() else { return };
    core.is_scanned.store(true, Ordering::Release);
    let (folder, took_ms) = (core.path().display(), started.elapsed().as_millis());
    let (entries, bytes) = {
        let index = core.index.lock();
        (index.len(), index.used())
    };
    if !keeps {
        // What could not be dropped must not be believed at the next start, either.
        if is_clear && let Err(error) = core.ledger.own() {
            tracing::warn!(%folder, "the purges of the cache's folder cannot be written: {error}");
        }
        tracing::info!(%folder, "what may have lain in the cache's folder was not written with these purges, and is dropped");
    }
    if foreign > 0 {
        tracing::warn!(%folder, foreign, "files in the cache's folder are not the cache's, and left alone");
    }
    tracing::info!(%folder, entries, bytes, took_ms, "the cache knows what it has on disk");
}

#[cfg(test)]
mod tests;
