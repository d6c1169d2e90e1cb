//! The purges, for the time after a start: the table of epochs as a file beside the entries that it is about.
//!
//! A purge is heard here before it is answered ([`Ledger::recorded`]), and written by the thread that writes everything: a
//! number at the tag's place, so the file neither grows nor has to be replayed. What was killed at once has it in the
//! system's memory; a power cut may forget the last second of purges, and nothing else. What cannot be written is tried again,
//! and nobody is told that it was.
//!
//! Each life of a folder begins a part of the clock of its own, above all that was written before: an entry of an earlier
//! life is older than every purge of a later one, even where the file knows less than it should, and whatever other folders
//! made of the clock (`disk/core.rs`).

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use tokio::{sync::watch, time::timeout};

use super::{
    super::{
        prefixes,
        tags::{self, Purge, SLOTS, SOFT_SLOTS, Tags},
    },
    folder,
    work::Work,
};

/// The last letter is the version.
const MAGIC: [u8; 8] = *b"weirprg1";
/// Where what lies: the secret of tags, the life, floors and prefixes that count for all, the prefixes, the table.
const SECRET_AT: u64 = 8;
const LIFE_AT: u64 = 40;
const FLOORS_AT: u64 = 48;
const BEFORE_AT: u64 = 64;
const PREFIXES_AT: u64 = 4096;
/// For one prefix: when, how, its length, its text. A longer one is remembered by its beginning, which purges more.
const PREFIX: usize = 512;
const PREFIX_TEXT: usize = PREFIX - 12;
const HARD_AT: u64 = PREFIXES_AT + (prefixes::MOST * PREFIX) as u64;
const SOFT_AT: u64 = HARD_AT + (SLOTS * 8) as u64;
const END: u64 = SOFT_AT + (SOFT_SLOTS * 8) as u64;
/// Part of the clock that belongs to one life.
const LIFE: u64 = 1 << 32;
/// Purges that wait to be written; when there are more, the whole table is.
const MOST_WAITING: usize = 4096;
/// For who waits until a purge is written.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a purge changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Cell {
    /// A place in the table.
    Tag(Purge, usize),
    /// The list of prefixes.
    Prefixes,
    /// Everything in this cache.
    Floor(Purge),
}

/// A folder's copy of the purges.
#[derive(Debug)]
pub(in super::super) struct Ledger {
    file: File,
    work: Arc<Work>,
    waiting: Mutex<Waiting>,
    written: watch::Sender<u64>,
    /// Somebody waited in vain: nobody else does until something is written.
    is_late: AtomicBool,
    floors: [AtomicU64; 2],
}

#[derive(Debug, Default)]
struct Waiting {
    cells: Vec<Cell>,
    all: bool,
    noted: u64,
}

/// A ledger that was opened.
pub(super) struct Opened {
    pub(super) ledger: Ledger,
    /// Whether what lies in the folder is its own, and so can be believed.
    pub(super) is_known: bool,
    /// Numbers of files of this life begin here.
    pub(super) life: u64,
}

impl Ledger {
    /// Reads the ledger at `path` into `tags`, or begins one.
    pub(super) fn open(path: &Path, tags: &Tags, work: Arc<Work>) -> io::Result<Opened> {
        let file = folder::file(path)?;
        let mut start = vec![0; HARD_AT as usize];
        let is_one = file.metadata()?.len() == END && file.read_exact_at(&mut start, 0).is_ok();
        let secret = start[SECRET_AT as usize..][..32].try_into().unwrap_or([0; 32]);
        let is_known = is_one && start[..8] == MAGIC && tags::adopt(secret);
        let ledger = Self::on(file, work);
        let mut latest = tags.moment().0;
        if is_known {
            latest = latest.max(ledger.read_start(&start, tags));
            latest = latest.max(ledger.read_table(SLOTS, Purge::Hard, tags)?);
            latest = latest.max(ledger.read_table(SOFT_SLOTS, Purge::Soft, tags)?);
        } else {
            ledger.file.set_len(0)?;
            ledger.file.set_len(END)?;
            // Or else a disk that is full of entries would have no room for their purges.
            folder::allocate(&ledger.file, END)?;
            // Above every life that may have written here, so that what it left is older than what comes.
            let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
            latest = latest.max(seconds.min(u64::from(u32::MAX) >> 1) * LIFE);
        }
        let life = (latest / LIFE + 1) * LIFE;
        tags.not_before(life);
        // One that is not known becomes so when what lay there is gone: a start that is cut short leaves it unknown.
        let mut head = if is_known { MAGIC.to_vec() } else { vec![0; MAGIC.len()] };
        head.extend_from_slice(tags::secret());
        head.extend_from_slice(&life.to_le_bytes());
        ledger.file.write_all_at(&head, 0)?;
        ledger.file.sync_data()?;
        Ok(Opened { ledger, is_known, life })
    }

    fn on(file: File, work: Arc<Work>) -> Self {
        Self {
            file,
            work,
            // What other folders brought along belongs into this one, too.
            waiting: Mutex::new(Waiting { all: true, ..Waiting::default() }),
            written: watch::Sender::new(0),
            is_late: AtomicBool::new(false),
            floors: Default::default(),
        }
    }

    /// What lies in the folder is its own from now on.
    pub(super) fn own(&self) -> io::Result<()> {
        self.file.write_all_at(&MAGIC, 0)?;
        self.file.sync_data()
    }

    fn read_start(&self, start: &[u8], tags: &Tags) -> u64 {
        let number = |at: u64| number(&start[at as usize..]);
        let mut latest = number(LIFE_AT);
        for (at, floor) in self.floors.iter().enumerate() {
            floor.store(number(FLOORS_AT + 8 * at as u64), Ordering::Release);
            latest = latest.max(floor.load(Ordering::Acquire));
        }
        let before = [number(BEFORE_AT), number(BEFORE_AT + 8)];
        let lines = start[PREFIXES_AT as usize..].chunks_exact(PREFIX).map_while(|line| {
            let at = self::number(line);
            let purge = if line[8] == 0 { Purge::Hard } else { Purge::Soft };
            let length = usize::from(u16::from_le_bytes([line[10], line[11]]));
            let text = std::str::from_utf8(line[12..].get(..length)?).ok()?;
            (at > 0).then(|| (text.into(), purge, at))
        });
        let lines: Vec<_> = lines.collect();
        let times = lines.iter().map(|(_, _, at)| *at).chain(before);
        latest = times.fold(latest, u64::max);
        tags.prefixes.restore(lines, before);
        latest
    }

    fn read_table(&self, slots: usize, purge: Purge, tags: &Tags) -> io::Result<u64> {
        let (mut piece, mut latest) = (vec![0; 64 << 10], 0);
        for from in (0..slots * 8).step_by(piece.len()) {
            self.file.read_exact_at(&mut piece, table_at(purge) + from as u64)?;
            for (place, cell) in piece.chunks_exact(8).enumerate() {
                let at = number(cell);
                if at > 0 {
                    tags.restore(purge, from / 8 + place, at);
                    latest = latest.max(at);
                }
            }
        }
        Ok(latest)
    }

    /// When everything was purged, hard and softly.
    pub(super) fn floors(&self) -> [u64; 2] {
        self.floors.each_ref().map(|floor| floor.load(Ordering::Acquire))
    }

    /// What was asked for before `at` counts as purged: it is written soon, unless it is known.
    pub(super) fn raise(&self, purge: Purge, at: u64) {
        if self.floors[purge as usize].fetch_max(at, Ordering::AcqRel) < at {
            self.note(Cell::Floor(purge));
        }
    }

    /// Something was purged: it is written soon.
    pub(in super::super) fn note(&self, cell: Cell) {
        {
            let mut waiting = self.waiting.lock();
            waiting.noted += 1;
            if waiting.cells.len() >= MOST_WAITING {
                waiting.all = true;
                waiting.cells.clear();
            }
            waiting.cells.push(cell);
        }
        self.work.wake();
    }

    /// Waits until what was noted so far is written.
    pub(in super::super) async fn recorded(&self) {
        if self.is_late.load(Ordering::Acquire) {
            return;
        }
        let noted = self.waiting.lock().noted;
        let mut written = self.written.subscribe();
        let writing = written.wait_for(|written| *written >= noted);
        if timeout(PATIENCE, writing).await.is_err() {
            self.is_late.store(true, Ordering::Release);
            tracing::warn!("a purge is not on disk yet: it holds, but might not after a start");
        }
    }

    /// Writes what waits. What fails is tried again with the next purge, the whole table then.
    pub(super) fn write(&self, tags: &Tags) -> io::Result<()> {
        let waiting = {
            let mut waiting = self.waiting.lock();
            let noted = waiting.noted;
            std::mem::replace(&mut *waiting, Waiting { noted, ..Waiting::default() })
        };
        let outcome = if waiting.all { self.write_all(tags) } else { self.write_cells(&waiting.cells, tags) };
        if outcome.is_err() {
            self.waiting.lock().all = true;
        } else {
            self.written.send_replace(waiting.noted);
            self.is_late.store(false, Ordering::Release);
        }
        outcome
    }

    /// As it is now: of two purges of one place, the older may have been noted last.
    fn write_cells(&self, cells: &[Cell], tags: &Tags) -> io::Result<()> {
        for cell in cells {
            let (at, place) = match cell {
                Cell::Tag(purge, slot) => (&tags.slots(*purge)[*slot], table_at(*purge) + 8 * *slot as u64),
                Cell::Floor(purge) => (&self.floors[*purge as usize], FLOORS_AT + 8 * *purge as u64),
                Cell::Prefixes => {
                    self.write_prefixes(tags)?;
                    continue;
                }
            };
            self.file.write_all_at(&at.load(Ordering::Acquire).to_le_bytes(), place)?;
        }
        Ok(())
    }

    fn write_prefixes(&self, tags: &Tags) -> io::Result<()> {
        let (lines, before) = tags.prefixes.list();
        let before: Vec<u8> = before.iter().flat_map(|at| at.to_le_bytes()).collect();
        self.file.write_all_at(&before, BEFORE_AT)?;
        let mut region = Vec::with_capacity(prefixes::MOST * PREFIX);
        for (prefix, purge, at) in lines {
            let mut length = prefix.len().min(PREFIX_TEXT);
            while !prefix.is_char_boundary(length) {
                length -= 1;
            }
            region.extend_from_slice(&at.to_le_bytes());
            region.extend_from_slice(&[purge as u8, 0]);
            region.extend_from_slice(&(length as u16).to_le_bytes());
            region.extend_from_slice(&prefix.as_bytes()[..length]);
            region.resize(region.len().next_multiple_of(PREFIX), 0);
        }
        // From the front: a line only ever moves there, so that one that is cut short loses none.
        region.resize(prefixes::MOST * PREFIX, 0);
        self.file.write_all_at(&region, PREFIXES_AT)
    }

    fn write_all(&self, tags: &Tags) -> io::Result<()> {
        let floors: Vec<u8> = self.floors().iter().flat_map(|at| at.to_le_bytes()).collect();
        self.file.write_all_at(&floors, FLOORS_AT)?;
        self.write_prefixes(tags)?;
        for purge in [Purge::Hard, Purge::Soft] {
            for (piece, slots) in tags.slots(purge).chunks(8 << 10).enumerate() {
                let slots: Vec<u64> = slots.iter().map(|slot| slot.load(Ordering::Acquire)).collect();
                if slots.iter().any(|slot| *slot > 0) {
                    let bytes: Vec<u8> = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
                    self.file.write_all_at(&bytes, table_at(purge) + (piece * (64 << 10)) as u64)?;
                }
            }
        }
        Ok(())
    }

    /// Brings what was written to the disk itself.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether something waits.
    pub(super) fn is_behind(&self) -> bool {
        let waiting = self.waiting.lock();
        waiting.all || !waiting.cells.is_empty()
    }
}

/// Where the table of these purges begins.
fn table_at(purge: Purge) -> u64 {
    match purge {
        Purge::Hard => HARD_AT,
        Purge::Soft => SOFT_AT,
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_purge_that_could_not_be_written_does_not_count_as_recorded() {
        let (tags, full) = (Tags::new(), File::options().write(true).open("/dev/full").unwrap());
        let mut ledger = Ledger::on(full, Arc::default());
        let is_late = |ledger: &Ledger| ledger.is_late.load(Ordering::Acquire);
        ledger.raise(Purge::Hard, 7);
        assert!(ledger.write(&tags).is_err() && ledger.is_behind());
        ledger.recorded().await;
        assert!(is_late(&ledger), "waited for in vain");
        assert!(ledger.write(&tags).is_err() && is_late(&ledger));
        ledger.file = tempfile::tempfile().unwrap();
        ledger.write(&tags).unwrap();
        ledger.recorded().await;
        assert!(!is_late(&ledger) && !ledger.is_behind());
    }

    #[test]
    fn of_two_purges_of_one_place_the_later_one_is_written_in_whichever_order_they_are_noted() {
        let (tags, file) = (Tags::new(), tempfile::tempfile().unwrap());
        let ledger = Ledger::on(file, Arc::default());
        ledger.write(&tags).unwrap();
        for at in [9, 8] {
            tags.restore(Purge::Soft, 3, at);
            ledger.note(Cell::Tag(Purge::Soft, 3));
            ledger.raise(Purge::Hard, at);
            ledger.write(&tags).unwrap();
            for place in [SOFT_AT + 24, FLOORS_AT] {
                let mut written = [0; 8];
                ledger.file.read_exact_at(&mut written, place).unwrap();
                assert_eq!(u64::from_le_bytes(written), 9);
            }
        }
    }
}
