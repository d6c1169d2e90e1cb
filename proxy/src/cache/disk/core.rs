//! The work itself, all of it waiting for the disk: entries become files, and files entries.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::HeaderMap;
use nix::errno::Errno;
use parking_lot::Mutex;

use super::{
    super::{
        entry::{Body, Entry, Head},
        request::Now,
        shelf::count,
        tags::{Moment, Tags},
        vary::{InForm, Variant},
    },
    folder::Folder,
    format::{self, BLOCK, HEADER, Layout},
    health::Health,
    index::{self, Index, Name},
    ledger::Ledger,
    pool::Pool,
    stored::Stored,
    work::{Job, Work},
};

/// Files deleted before the next entry is written.
const DOOMED_AT_ONCE: usize = 64;

/// What the threads of one disk share.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) folder: Folder,
    pub(super) index: Mutex<Index>,
    pub(super) size: AtomicU64,
    /// The largest body kept.
    pub(super) entry_limit: AtomicU64,
    pub(super) reading: Health,
    pub(super) writing: Health,
    pub(super) ledger: Arc<Ledger>,
    pub(super) tags: Arc<Tags>,
    pub(super) work: Arc<Work>,
    /// For what reads or writes beside the one thread.
    pub(super) pool: Arc<Pool>,
    /// Bodies that are written while they arrive.
    pub(super) spools: AtomicUsize,
    pub(super) is_scanned: AtomicBool,
    /// Numbers of files of this life begin here.
    pub(super) life: u64,
    pub(super) next: AtomicU64,
    pub(super) counts: Counts,
}

/// What happened since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) hits: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) skipped: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) spoiled: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// Why a file is no entry.
#[derive(Debug)]
pub(super) enum Unread {
    /// It is not there.
    Gone,
    /// It is not what was written.
    Spoiled,
    /// The disk does not say.
    Failed(io::Error),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Gone,
            io::ErrorKind::UnexpectedEof => Self::Spoiled,
            _ => Self::Failed(error),
        }
    }
}

/// The beginning of a file.
struct Opened {
    file: File,
    layout: Layout,
    turn: u64,
    key: Box<str>,
    head: Head,
}

/// What a key is called here.
pub(super) fn key_name(key: &str) -> [u8; 16] {
    start(key.as_bytes())
}

/// What the file of an entry is called.
pub(super) fn name(key: &str, variant: &Variant) -> Name {
    Name { key: key_name(key), variant: start(&format::variant(variant)) }
}

fn start<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    *digest.as_ref().first_chunk().expect("a SHA-256 is longer than a name")
}

impl Core {
    /// A number that no file has, or had.
    pub(super) fn serial(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes what comes until nothing does.
    pub(super) fn serve(&self) {
        while let Some(job) = self.work.next() {
            let now = Now::read();
            match job {
                Job::Keep(entry) => self.keep(&entry, now),
                Job::Head(entry) => {
                    if let Err(error) = self.write_head(&entry, now) {
                        self.failed(&error);
                    }
                }
                Job::Wake => {}
            }
            self.tidy();
        }
        // The next life begins with what the system has; this is for a power cut after an orderly end.
        let _ = self.ledger.sync();
    }

    /// Writes purges, and deletes what is given up.
    fn tidy(&self) {
        if self.ledger.is_behind()
            && let Err(error) = self.ledger.write(&self.tags)
        {
            self.failed(&error);
        }
        if self.delete_doomed(DOOMED_AT_ONCE) == DOOMED_AT_ONCE {
            self.work.wake();
        }
    }

    /// Deletes up to so many files that were given up; says how many.
    pub(super) fn delete_doomed(&self, most: usize) -> usize {
        let doomed = self.index.lock().take_doomed(most);
        for file in &doomed {
            // One that is not there is as good as deleted; one that cannot be is found at the next start.
            let _ = fs::remove_file(self.folder.place(*file));
        }
        doomed.len()
    }

    /// Something could not be written. A full disk has more room when less is kept.
    pub(super) fn failed(&self, error: &io::Error) {
        count(&self.counts.failed);
        self.writing.failed(self.folder.path(), error, Instant::now());
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            let mut index = self.index.lock();
            let less = index.used() - index.used() / 16;
            self.evicted(index.evict(less));
        }
    }

    fn evicted(&self, files: u64) {
        self.counts.evicted.fetch_add(files, Ordering::Relaxed);
    }

    /// Makes room for so many bytes, which count from now on; false if there cannot be any.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let size = self.size.load(Ordering::Relaxed);
        let mut index = self.index.lock();
        if bytes > size {
            return false;
        }
        index.reserve(bytes);
        self.evicted(index.evict(size));
        let fits = index.used() <= size;
        if !fits {
            index.release(bytes);
        }
        drop(index);
        self.work.wake();
        fits
    }

    /// What was reserved became this file, or nothing.
    pub(super) fn settle(&self, reserved: u64, became: Option<(index::File, u64)>) {
        let mut index = self.index.lock();
        index.release(reserved);
        if let Some((file, bytes)) = became {
            index.insert(file, bytes);
            self.evicted(index.evict(self.size.load(Ordering::Relaxed)));
            count(&self.counts.written);
        }
        drop(index);
        self.work.wake();
    }

    /// Keeps an entry whose body is in memory; what was kept in its place is given up, whatever comes of it.
    fn keep(&self, entry: &Entry, now: Now) {
        let name = name(entry.key(), &entry.head().variant);
        match self.write(name, entry, now) {
            Ok(true) => {}
            Ok(false) => {
                count(&self.counts.skipped);
                self.index.lock().remove_name(name);
            }
            Err(error) => {
                self.failed(&error);
                self.index.lock().remove_name(name);
            }
        }
    }

    /// Writes an entry; false if there is no room for it.
    fn write(&self, name: Name, entry: &Entry, now: Now) -> io::Result<bool> {
        let file = index::File { name, serial: self.serial() };
        let begun = format::encode(entry.key(), entry.head(), now).and_then(|head| {
            let layout = Layout::new(file.serial, head.len(), entry.body().length())?;
            Some((layout, beginning(&layout, &head)?))
        });
        let Some((layout, beginning)) = begun else { return Ok(false) };
        let bytes = index::rounded(layout.len());
        if self.writing.rests(now.mono) || !self.reserve(bytes) {
            return Ok(false);
        }
        let written = self.create(file.serial).and_then(|mut to| {
            to.write_all(&beginning)?;
            for block in 0..layout.blocks() {
                let begin = block * BLOCK as u64;
                let pieces = entry.body().slice(begin..begin + layout.block_len(block) as u64);
                let mut piece: Vec<u8> = pieces.flatten().collect();
                let sum = layout.sealed(block, &piece);
                piece.extend_from_slice(&sum);
                to.write_all(&piece)?;
            }
            self.publish(file)
        });
        match written {
            Ok(()) => {
                self.writing.worked(self.folder.path());
                self.settle(bytes, Some((file, layout.len())));
                Ok(true)
            }
            Err(error) => {
                let _ = fs::remove_file(self.folder.unfinished(file.serial));
                self.settle(bytes, None);
                Err(error)
            }
        }
    }

    /// A file that is being written.
    pub(super) fn create(&self, serial: u64) -> io::Result<File> {
        let path = self.folder.unfinished(serial);
        let create = || OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
        match create() {
            // Somebody swept the folder.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folder.prepare()?;
                create()
            }
            created => created,
        }
    }

    /// A file that is whole gets its name.
    pub(super) fn publish(&self, file: index::File) -> io::Result<()> {
        let (from, to) = (self.folder.unfinished(file.serial), self.folder.place(file));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && from.exists() => {
                self.folder.prepare()?;
                fs::rename(&from, &to)
            }
            renamed => renamed,
        }
    }

    /// Writes the head of an entry whose body stays as it is. One that does not fit is written with the next body.
    fn write_head(&self, entry: &Entry, now: Now) -> io::Result<()> {
        let name = name(entry.key(), &entry.head().variant);
        let Some(serial) = self.index.lock().serial(&name) else { return Ok(()) };
        let file = index::File { name, serial };
        // Another version may have come since, or another variant have that name: its body is not this head's.
        if entry.body().stored().is_none_or(|stored| stored.file != file) {
            return Ok(());
        }
        let opened = match self.open(file, true, now) {
            Ok(opened) => opened,
            Err(unread) => {
                self.unread(file, unread);
                return Ok(());
            }
        };
        let Some(head) = format::encode(entry.key(), entry.head(), now) else { return Ok(()) };
        let turn = opened.turn + 1;
        match opened.layout.head(turn, &head) {
            Some(head) if !self.writing.rests(now.mono) => {
                opened.file.write_all_at(&head, opened.layout.head_at(turn))?;
                self.writing.worked(self.folder.path());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Reads a file as far as its body.
    fn open(&self, file: index::File, writes: bool, now: Now) -> Result<Opened, Unread> {
        let from = OpenOptions::new().read(true).write(writes).open(self.folder.place(file))?;
        let mut header = [0; HEADER];
        from.read_exact_at(&mut header, 0)?;
        let layout = Layout::read(&header, file.serial, from.metadata()?.len()).ok_or(Unread::Spoiled)?;
        let mut heads = vec![0; layout.heads()];
        from.read_exact_at(&mut heads, HEADER as u64)?;
        let (turn, head) = layout.newest(&heads).ok_or(Unread::Spoiled)?;
        let (key, mut head) = format::decode(head, now).ok_or(Unread::Spoiled)?;
        if name(&key, &head.variant) != file.name {
            return Err(Unread::Spoiled);
        }
        if file.serial < self.life {
            // The clock is the process's: another folder may have put it far ahead then, and be away now.
            head.moment = head.moment.min(Moment(self.life - 1));
        }
        Ok(Opened { file: from, layout, turn, key, head })
    }

    /// Gives up a file that could not be read.
    pub(super) fn unread(&self, file: index::File, unread: Unread) {
        match unread {
            Unread::Gone => {}
            Unread::Spoiled => {
                count(&self.counts.spoiled);
                tracing::warn!(file = %self.folder.place(file).display(), "a file of the cache is damaged, and dropped");
            }
            Unread::Failed(error) => {
                count(&self.counts.failed);
                self.reading.failed(self.folder.path(), &error, Instant::now());
                if !is_of_the_disk(&error) {
                    return;
                }
                // Or else the next request for it has the disk rest again.
            }
        }
        self.index.lock().remove(file);
        self.work.wake();
    }

    /// The entry for requests like this one: its body in memory, if that is not longer than `most`.
    pub(super) fn load(
        self: &Arc<Self>,
        key: &str,
        request: &HeaderMap,
        most: usize,
        now: Now,
    ) -> Option<Arc<Entry>> {
        let files = self.index.lock().find(key_name(key));
        let mut request = InForm::from(request);
        files.into_iter().find_map(|file| match self.read(file, key, &mut request, most, now) {
            Ok(entry) => {
                self.reading.worked(self.folder.path());
                entry
            }
            Err(unread) => {
                self.unread(file, unread);
                None
            }
        })
    }

    fn read(
        self: &Arc<Self>,
        file: index::File,
        key: &str,
        request: &mut InForm<'_>,
        most: usize,
        now: Now,
    ) -> Result<Option<Arc<Entry>>, Unread> {
        let Opened { file: from, layout, key: written, head, .. } = self.open(file, false, now)?;
        if *written != *key || !head.variant.suits(request) {
            return Ok(None);
        }
        let body = if layout.body > most as u64 {
            Body::on_disk(Arc::new(Stored::new(self, file, layout)))
        } else {
            let blocks = (0..layout.blocks()).map(|block| read_block(&from, &layout, block));
            Body::new(blocks.collect::<Result<_, _>>()?)
        };
        Ok(Some(Arc::new(Entry::new(key, Arc::new(head), Arc::new(body)))))
    }

    /// Learns what lies in the folder. `keeps` is false where none of it can be believed.
    pub(super) fn scan(&self, first: u8, keeps: bool) -> io::Result<usize> {
        let (files, foreign) = self.folder.scan(first)?;
        for (file, bytes) in files {
            if keeps {
                let mut index = self.index.lock();
                index.insert(file, bytes);
                self.evicted(index.evict(self.size.load(Ordering::Relaxed)));
            } else if file.serial < self.life {
                fs::remove_file(self.folder.place(file))?;
            }
        }
        self.work.wake();
        Ok(foreign)
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Whether a failure says something of the file, and not of what this process lacks just now.
fn is_of_the_disk(error: &io::Error) -> bool {
    let lacks = |number| matches!(Errno::from_raw(number), Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM);
    error.raw_os_error().is_some_and(|number| !lacks(number))
}

/// Everything before the body, the first head in its place.
pub(super) fn beginning(layout: &Layout, head: &[u8]) -> Option<Vec<u8>> {
    let head = layout.head(1, head)?;
    let mut bytes = layout.header().to_vec();
    bytes.resize(HEADER + layout.heads(), 0);
    let at = layout.head_at(1) as usize;
    bytes[at..at + head.len()].copy_from_slice(&head);
    Some(bytes)
}

/// A piece of a body, if it is what was written.
pub(super) fn read_block(from: &File, layout: &Layout, block: u64) -> Result<Bytes, Unread> {
    let mut bytes = vec![0; format::sealed_len(layout.block_len(block))];
    from.read_exact_at(&mut bytes, layout.block_at(block))?;
    let length = layout.unsealed(block, &bytes).ok_or(Unread::Spoiled)?.len();
    bytes.truncate(length);
    Ok(bytes.into())
}
