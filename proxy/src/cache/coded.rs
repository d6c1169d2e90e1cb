//! The body of an entry in other codings, each made once and kept for as long as the entry's own body is.
//!
//! Whoever needs a coding first gets a [`Maker`] and has to bring it; the others read along as it grows, as those who wait
//! for a fill do. It may be made of a body that is still arriving, and then ends, or breaks, with that. What was made belongs
//! to the body: a purge, an eviction or another answer ends all codings with it, and a 304 keeps them. Their bytes are counted
//! against the budget like any others; without room for them nothing is made, and everybody compresses for themselves.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use weir_config::plan::Coding;

use super::{
    entry::{Body, CHUNK},
    memory::{Reserved, Store},
    waiting::Broken,
};

/// One body's codings.
#[derive(Debug, Default)]
pub(super) struct Codings {
    kept: [OnceLock<Arc<Body>>; Coding::ALL.len()],
    making: Mutex<[Option<Arc<Making>>; Coding::ALL.len()]>,
}

/// A coding that is being made.
#[derive(Debug)]
struct Making {
    chunks: Mutex<Vec<Bytes>>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Growing,
    Done,
    Broken,
}

/// How a body is had in a coding.
#[derive(Debug)]
pub enum Coded<T> {
    /// It is kept.
    Kept(Arc<Body>),
    /// Somebody makes it.
    Making(CodedReader),
    /// Nobody does: whoever asked has to, with what they began.
    Make(Maker, CodedReader, T),
    /// There is no room for it, or nothing to make it with.
    NoRoom,
}

/// A coding being read as it is made.
#[derive(Debug)]
pub struct CodedReader {
    making: Arc<Making>,
    progress: watch::Receiver<Progress>,
    at: usize,
}

/// The right and the duty to make a coding. Dropped before [`Maker::finish`], its readers get an error.
#[derive(Debug)]
pub struct Maker {
    codings: Arc<Codings>,
    coding: Coding,
    making: Arc<Making>,
    store: Arc<Store>,
    /// Where the body lives.
    home: u128,
    reserved: Reserved,
    /// Of the reservation, what is not used yet.
    room: usize,
}

impl Codings {
    /// What is kept in a coding.
    pub(super) fn kept(&self, coding: Coding) -> Option<&Arc<Body>> {
        self.kept[coding as usize].get()
    }

    /// Bytes they occupy, themselves included.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.kept.iter().filter_map(OnceLock::get).map(|body| body.bytes()).sum::<usize>()
    }

    /// The coding of a body of `length` bytes under the key of this hash. `begin` is asked for what it is made with before
    /// anybody may read along.
    pub(super) fn get<T>(
        self: &Arc<Self>,
        coding: Coding,
        length: u64,
        (store, home): (&Arc<Store>, u128),
        begin: impl FnOnce() -> Option<T>,
    ) -> Coded<T> {
        if let Some(body) = self.kept(coding) {
            return Coded::Kept(Arc::clone(body));
        }
        let mut all = self.making.lock();
        // Kept before it leaves this table: who finds neither has missed none.
        if let Some(body) = self.kept(coding) {
            return Coded::Kept(Arc::clone(body));
        }
        if let Some(making) = &all[coding as usize] {
            return Coded::Making(CodedReader::of(making));
        }
        let (mut reserved, room) = (Reserved::at(Arc::clone(store), home), length as usize);
        if !reserved.grow(room) {
            return Coded::NoRoom;
        }
        let Some(begun) = begin() else { return Coded::NoRoom };
        let making =
            Arc::new(Making { chunks: Mutex::default(), progress: watch::Sender::new(Progress::Growing) });
        all[coding as usize] = Some(Arc::clone(&making));
        let reader = CodedReader::of(&making);
        let (codings, store) = (Arc::clone(self), Arc::clone(store));
        Coded::Make(Maker { codings, coding, making, store, home, reserved, room }, reader, begun)
    }
}

impl Maker {
    /// Adds what the compressor gave.
    pub fn write(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let bytes = CHUNK + piece.len();
        if bytes > self.room {
            // It began, and goes on even if it does not fit: the body it is made of bounds it.
            let _ = self.reserved.grow(bytes - self.room);
        }
        self.room = self.room.saturating_sub(bytes);
        self.making.chunks.lock().push(piece);
        self.making.progress.send_modify(|_| ());
    }

    /// It is whole: kept from here on.
    pub fn finish(self) {
        let body = Body::new(self.making.chunks.lock().clone());
        // Only one maker at a time can be here.
        let _ = self.codings.kept[self.coding as usize].set(Arc::new(body));
        self.store.recount(self.home, &self.codings);
        self.end(Progress::Done);
    }

    /// Resolves when nobody reads along any more.
    pub async fn unread(&self) {
        self.making.progress.closed().await;
    }

    /// Gives up, unless somebody reads along after all.
    ///
    /// # Errors
    /// The maker, which has to go on.
    pub fn give_up(self) -> Result<(), Self> {
        // Who joins does so under this lock.
        let mut all = self.codings.making.lock();
        if self.making.progress.receiver_count() > 0 {
            drop(all);
            return Err(self);
        }
        all[self.coding as usize] = None;
        drop(all);
        self.making.progress.send_replace(Progress::Broken);
        Ok(())
    }

    fn end(&self, progress: Progress) {
        self.codings.making.lock()[self.coding as usize] = None;
        self.making.progress.send_replace(progress);
    }
}

impl Drop for Maker {
    fn drop(&mut self) {
        if *self.making.progress.borrow() == Progress::Growing {
            self.end(Progress::Broken);
        }
    }
}

impl CodedReader {
    fn of(making: &Arc<Making>) -> Self {
        Self { making: Arc::clone(making), progress: making.progress.subscribe(), at: 0 }
    }

    /// The next piece; `None` after the last. May be dropped and called again.
    ///
    /// # Errors
    /// [`Broken`] when what it is made of broke.
    pub async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        loop {
            // The state first: whoever sees the end has all pieces in sight.
            let progress = *self.progress.borrow_and_update();
            if progress == Progress::Broken {
                return Some(Err(Broken));
            }
            let piece = self.making.chunks.lock().get(self.at).cloned();
            match piece {
                Some(piece) => {
                    self.at += 1;
                    return Some(Ok(piece));
                }
                None if progress == Progress::Done => return None,
                None if self.progress.changed().await.is_err() => return Some(Err(Broken)),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
