//! A body that is written while it arrives, because memory does not hold it.
//!
//! States: *growing* → *done* (whole, and under its name) or *failed*. What is not written yet is read from memory, which is
//! little where the disk keeps up, and [`Spool::room`] holds whoever writes back where it does not; the rest is read from the
//! file, however many read it and however slowly.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

use super::{
    super::{entry::Head, request::Now, waiting::Broken},
    core::{Core, Unread, beginning, name},
    folder,
    format::{self, BLOCK, Layout, sealed_len},
    index::{self, rounded},
    stored::{Stored, piece},
};

/// At once, for one disk.
const MOST: usize = 64;
/// Pieces that may wait to be written.
const MOST_WAITING: usize = 8;
/// What a spool takes of memory, give or take a piece.
pub(in super::super) const MEMORY: usize = (MOST_WAITING + 2) * BLOCK;
/// A disk that takes longer for these is no help.
const PATIENCE: Duration = Duration::from_secs(10);

/// Room on the disk for a body, taken before anybody is promised that: a disk that is full is found out in time.
#[derive(Debug)]
pub(in super::super) struct Room {
    core: Arc<Core>,
    serial: u64,
    file: Option<Arc<File>>,
    /// `None` once it is a spool's.
    reserved: Option<u64>,
}

impl Room {
    /// For a body of so many bytes, if there is room.
    pub(super) async fn take(core: &Arc<Core>, length: u64, now: Now) -> Option<Self> {
        if core.writing.rests(now.mono) || length > core.entry_limit.load(Ordering::Relaxed) {
            return None;
        }
        let bytes = length + length.div_ceil(BLOCK as u64) * sealed_len(0) as u64;
        let mut room = Self::counted(core, rounded(bytes))?;
        let made = core.pool.run(move || {
            // What has just made way for it may still lie there.
            room.core.delete_doomed(usize::MAX);
            let file = room.core.create(room.serial)?;
            folder::allocate(&file, bytes)?;
            room.file = Some(Arc::new(file));
            Ok(room)
        });
        match made.await {
            Ok(room) => Some(room),
            Err(Unread::Failed(error)) => {
                core.failed(&error);
                None
            }
            Err(Unread::Gone | Unread::Spoiled) => {
                core.failed(&io::ErrorKind::NotFound.into());
                None
            }
        }
    }

    /// Within the budget, and one of not too many.
    fn counted(core: &Arc<Core>, reserved: u64) -> Option<Self> {
        let spools = core.spools.fetch_add(1, Ordering::AcqRel);
        if spools >= MOST || !core.reserve(reserved) {
            core.spools.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Self { core: Arc::clone(core), serial: core.serial(), file: None, reserved: Some(reserved) })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some(reserved) = self.reserved {
            self.core.settle(reserved, None);
            self.core.spools.fetch_sub(1, Ordering::AcqRel);
            scrap(&self.core, self.serial);
        }
    }
}

/// A body on its way to the disk.
#[derive(Debug)]
pub(in super::super) struct Spool {
    core: Arc<Core>,
    file: index::File,
    layout: Layout,
    head: Vec<u8>,
    to: OnceLock<Arc<File>>,
    state: Mutex<State>,
    /// A piece was written, or failed to be.
    moved: Notify,
}

#[derive(Debug)]
struct State {
    /// Where in the body begins what is not written yet.
    begin: u64,
    waiting: VecDeque<Bytes>,
    /// The last piece, as far as it has come.
    open: BytesMut,
    is_writing: bool,
    /// All has come, and it gets its name: too late to give it up.
    is_finishing: bool,
    /// Given back once.
    reserved: Option<u64>,
    /// Whether the length was known, and all of it is reserved.
    is_declared: bool,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Growing,
    Failed,
    Done(Arc<Stored>),
}

impl Spool {
    /// Begins one, if the disk takes it. A length that is declared has its room already.
    pub(super) fn begin(
        core: &Arc<Core>,
        key: &str,
        head: &Head,
        (declared, room): (Option<u64>, Option<Room>),
        now: Now,
    ) -> Option<Arc<Self>> {
        if core.writing.rests(now.mono) || declared.is_some() != room.is_some() {
            return None;
        }
        let name = name(key, &head.variant);
        let head = format::encode(key, head, now)?;
        let mut room = match room {
            Some(room) => room,
            None => Room::counted(core, rounded(head.len() as u64))?,
        };
        let file = index::File { name, serial: room.serial };
        let layout = Layout::new(file.serial, head.len(), declared.unwrap_or(0))?;
        let to = room.file.take().map_or_else(OnceLock::new, OnceLock::from);
        let state = Mutex::new(State {
            begin: 0,
            waiting: VecDeque::new(),
            open: BytesMut::new(),
            is_writing: false,
            is_finishing: false,
            reserved: room.reserved.take(),
            is_declared: declared.is_some(),
            outcome: Outcome::Growing,
        });
        Some(Arc::new(Self { core: Arc::clone(core), file, layout, head, to, state, moved: Notify::new() }))
    }

    /// Adds to the body; false if it cannot be kept.
    #[must_use]
    pub(in super::super) fn write(self: &Arc<Self>, bytes: &[u8]) -> bool {
        let mut state = self.state.lock();
        if !matches!(state.outcome, Outcome::Growing) {
            return false;
        }
        state.open.extend_from_slice(bytes);
        while state.open.len() >= BLOCK {
            let block = state.open.split_to(BLOCK).freeze();
            state.waiting.push_back(block);
            let more = sealed_len(BLOCK) as u64;
            if !state.is_declared {
                let length = state.begin + (state.waiting.len() * BLOCK) as u64;
                if length > self.core.entry_limit.load(Ordering::Relaxed) || !self.core.reserve(more) {
                    return false;
                }
                state.reserved = state.reserved.map(|reserved| reserved + more);
            }
        }
        if !state.is_writing && !state.waiting.is_empty() {
            state.is_writing = true;
            let spool = Arc::clone(self);
            self.core.pool.push(move || spool.write_waiting());
        }
        true
    }

    /// Waits until what was written has come far enough for more.
    pub(in super::super) async fn room(&self) {
        self.until(|state| state.waiting.len() <= MOST_WAITING).await;
    }

    async fn until(&self, ready: impl Fn(&State) -> bool) {
        let moving = async {
            loop {
                let moved = self.moved.notified();
                if ready(&self.state.lock()) || self.has_failed() {
                    return;
                }
                moved.await;
            }
        };
        if timeout(PATIENCE, moving).await.is_err() {
            self.fail(&io::Error::new(io::ErrorKind::TimedOut, "it takes too long"));
        }
    }

    fn has_failed(&self) -> bool {
        matches!(self.state.lock().outcome, Outcome::Failed)
    }

    fn fail(&self, error: &io::Error) {
        self.core.failed(error);
        self.abandon();
    }

    /// Writes whole pieces until none waits, others in between.
    fn write_waiting(self: &Arc<Self>) {
        for turn in 0.. {
            if turn > MOST_WAITING {
                let spool = Arc::clone(self);
                return self.core.pool.push(move || spool.write_waiting());
            }
            let (block, bytes) = {
                let mut state = self.state.lock();
                let growing = matches!(state.outcome, Outcome::Growing);
                match state.waiting.front().filter(|_| growing).cloned() {
                    Some(bytes) => (state.begin / BLOCK as u64, bytes),
                    None => {
                        state.is_writing = false;
                        break;
                    }
                }
            };
            match self.write_block(block, &bytes) {
                Ok(()) => {
                    let mut state = self.state.lock();
                    state.waiting.pop_front();
                    state.begin += BLOCK as u64;
                }
                Err(error) => {
                    self.state.lock().is_writing = false;
                    self.fail(&error);
                    break;
                }
            }
            self.moved.notify_waiters();
        }
        if self.has_failed() {
            self.scrap();
        }
        self.moved.notify_waiters();
    }

    fn write_block(&self, block: u64, bytes: &[u8]) -> io::Result<()> {
        let to = match self.to.get() {
            Some(to) => to,
            None => {
                // Its beginning stays empty, which is none of ours, until it is whole.
                let created = Arc::new(self.core.create(self.file.serial)?);
                self.to.get_or_init(|| created)
            }
        };
        let mut sealed = Vec::with_capacity(sealed_len(bytes.len()));
        sealed.extend_from_slice(bytes);
        sealed.extend_from_slice(&self.layout.sealed(block, bytes));
        to.write_all_at(&sealed, self.layout.block_at(block))
    }

    /// The body is whole: gives it its name. [`Spool::stored`] says whether that came about.
    pub(in super::super) async fn close(self: &Arc<Self>) {
        self.until(|state| state.waiting.is_empty() && !state.is_writing).await;
        if self.has_failed() {
            return;
        }
        let spool = Arc::clone(self);
        let finished = self.core.pool.run(move || Ok(spool.finish()?)).await;
        if let Err(Unread::Failed(error)) = finished {
            self.fail(&error);
        } else if finished.is_err() {
            self.fail(&io::ErrorKind::NotFound.into());
        }
    }

    fn finish(&self) -> io::Result<()> {
        let (begin, last) = {
            let mut state = self.state.lock();
            if !matches!(state.outcome, Outcome::Growing) {
                return Ok(());
            }
            state.is_finishing = true;
            (state.begin, Bytes::copy_from_slice(&state.open))
        };
        let finished = self.name(begin, &last);
        self.state.lock().is_finishing = false;
        finished
    }

    fn name(&self, begin: u64, last: &[u8]) -> io::Result<()> {
        let layout = self.layout.with_body(begin + last.len() as u64);
        if !last.is_empty() {
            self.write_block(begin / BLOCK as u64, last)?;
        }
        let to = self.to.get().ok_or(io::ErrorKind::NotFound)?;
        let beginning = beginning(&layout, &self.head).ok_or(io::ErrorKind::InvalidInput)?;
        to.write_all_at(&beginning, 0)?;
        self.core.publish(self.file)?;
        self.core.writing.worked(self.core.path());
        let reserved = self.state.lock().reserved.take();
        self.core.settle(reserved.unwrap_or(0), Some((self.file, layout.len())));
        self.core.spools.fetch_sub(1, Ordering::AcqRel);
        self.state.lock().outcome = Outcome::Done(Arc::new(Stored::new(&self.core, self.file, layout)));
        Ok(())
    }

    /// What it became, if it is done.
    pub(in super::super) fn stored(&self) -> Option<Arc<Stored>> {
        match &self.state.lock().outcome {
            Outcome::Done(stored) => Some(Arc::clone(stored)),
            Outcome::Growing | Outcome::Failed => None,
        }
    }

    /// Nothing comes of it, unless it is done.
    pub(in super::super) fn abandon(&self) {
        let (reserved, idle) = {
            let mut state = self.state.lock();
            if !matches!(state.outcome, Outcome::Growing) || state.is_finishing {
                return;
            }
            state.outcome = Outcome::Failed;
            state.waiting.clear();
            (state.reserved.take(), !state.is_writing)
        };
        self.core.settle(reserved.unwrap_or(0), None);
        self.core.spools.fetch_sub(1, Ordering::AcqRel);
        // Whoever writes a piece of it just now deletes it afterwards.
        if idle {
            self.scrap();
        }
        self.moved.notify_waiters();
    }

    /// Deletes what there is of it.
    fn scrap(&self) {
        scrap(&self.core, self.file.serial);
    }

    /// What has arrived from `at` on, as far as it is in one piece; `None` if nothing has yet.
    ///
    /// # Errors
    /// [`Broken`] when it failed.
    pub(in super::super) async fn read(&self, at: u64) -> Option<Result<Bytes, Broken>> {
        let begin = {
            let state = self.state.lock();
            if matches!(state.outcome, Outcome::Failed) {
                return Some(Err(Broken));
            }
            if let Some(past) = at.checked_sub(state.begin) {
                let (piece, within) = ((past / BLOCK as u64) as usize, (past % BLOCK as u64) as usize);
                if let Some(bytes) = state.waiting.get(piece) {
                    return Some(Ok(bytes.slice(within..)));
                }
                let rest =
                    state.open.get(within..).filter(|rest| !rest.is_empty() && piece == state.waiting.len());
                return rest.map(|rest| Ok(Bytes::copy_from_slice(rest)));
            }
            state.begin
        };
        let layout = self.layout.with_body(begin);
        let Some(file) = self.to.get() else { return Some(Err(Broken)) };
        let read = piece(file, &layout, at..begin, &self.core.pool).await;
        Some(read.map_err(|unread| {
            if let Unread::Failed(error) = unread {
                self.core.reading.failed(self.core.path(), &error, Instant::now());
            }
            Broken
        }))
    }
}

/// Deletes a file that was being written.
fn scrap(core: &Core, serial: u64) {
    let path = core.folder.unfinished(serial);
    core.pool.push(move || drop(fs::remove_file(path)));
}
