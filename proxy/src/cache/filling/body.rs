//! The body of a fill, from its first piece to the entry that it makes.
//!
//! A body too large for memory goes to the disk as it comes, where there is one, and its readers read it from there. Whoever
//! brings it waits for the disk: [`FillGuard::ready`] before a piece, [`FillGuard::settle`] before the end.

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

use bytes::Bytes;

use super::{FillGuard, Phase, Progress};
use crate::cache::{
    disk::SPOOL_MEMORY,
    entry::{Body, CHUNK, Entry},
    memory::Reserved,
    partial,
    policy::NotStored,
    tags::Standing,
    waiting::Reader,
};

/// So many pieces go to the readers as they come; later ones are joined to [`PIECE`] bytes, or a body in single bytes
/// would cost a hundred times its length.
const LOOSE_PIECES: usize = 1024;
const PIECE: usize = 4096;

impl FillGuard {
    /// Adds a piece of the body. Copied, as a piece from the network may hold on to a much larger buffer.
    pub fn write(&mut self, piece: &Bytes) {
        let Phase::Storing { declared, received, .. } = &mut self.phase else { return };
        *received += piece.len() as u64;
        let (limit, declared, received) =
            (self.fills.shelf.entry_limit.load(Ordering::Relaxed) as u64, *declared, *received);
        if declared.is_some_and(|declared| received > declared) {
            return self.refuse(NotStored::Length, self.fill.sent);
        }
        if declared.is_none() && received > limit && self.fill.spool.get().is_none() && !self.spill() {
            return self.refuse(NotStored::TooLarge, self.fill.sent);
        }
        if let Some(spool) = self.fill.spool.get() {
            if !spool.write(piece) {
                return self.refuse(NotStored::Disk, self.fill.sent);
            }
            self.fill.progress.send_modify(|_| ());
            return;
        }
        self.pending.extend_from_slice(piece);
        // Who has read the whole of an answer finds it kept: the last piece is handed out with the word that it is.
        let is_last = declared == Some(received);
        if !is_last && (self.pending.len() >= PIECE || self.fill.chunks.lock().len() < LOOSE_PIECES) {
            self.flush();
        }
    }

    /// Waits until there is room for more, where the disk is slower than the origin.
    pub async fn ready(&self) {
        if let Some(spool) = self.fill.spool.get() {
            spool.room().await;
        }
    }

    /// Waits until all that came is kept, before [`FillGuard::finish`].
    pub async fn settle(&self) {
        let is_whole = matches!(&self.phase, Phase::Storing { declared, received, .. }
            if declared.is_none_or(|declared| declared == *received));
        if let Some(spool) = self.fill.spool.get().filter(|_| is_whole) {
            spool.close().await;
        }
    }

    /// Moves a body of unknown length to the disk that has outgrown memory; false if that does not take it.
    fn spill(&mut self) -> bool {
        let Phase::Storing { head, .. } = &self.phase else { return false };
        let Some(spool) = self.fills.shelf.spool(&self.fill.ask.key, head, (None, None), self.fill.sent)
        else {
            return false;
        };
        let kept = std::mem::take(&mut *self.fill.chunks.lock());
        let is_written = kept.iter().all(|chunk| spool.write(chunk)) && spool.write(&self.pending);
        self.pending.clear();
        self.reserved = Reserved::none(Arc::clone(&self.fills.shelf.store), &self.fill.ask.key);
        let fits = self.reserved.grow(head.bytes() + SPOOL_MEMORY);
        if !is_written || !fits {
            spool.abandon();
            return false;
        }
        self.fill.spool.set(spool).is_ok()
    }

    /// Hands the pending bytes to the readers.
    fn flush(&mut self) {
        self.lay_out();
        self.fill.progress.send_modify(|_| ());
    }

    /// The same, and wakes nobody.
    fn lay_out(&mut self) {
        let Phase::Storing { declared, .. } = self.phase else { return };
        if self.pending.is_empty() {
            return;
        }
        // A declared length is reserved already, and readers have joined: it goes on even if its overhead does not fit.
        let bytes = CHUNK + if declared.is_some() { 0 } else { self.pending.len() };
        if !self.reserved.grow(bytes) && declared.is_none() {
            self.refuse(NotStored::Memory, self.fill.sent);
            return;
        }
        self.fill.chunks.lock().push(Bytes::copy_from_slice(&self.pending));
        self.pending.clear();
    }

    /// The answer as it arrives, for the holder's own client; `None` while its length is not known, or when it is kept
    /// only to be asked about.
    #[must_use]
    pub fn reader(&self) -> Option<Reader> {
        let progress = self.fill.progress.subscribe();
        let shared = match &*progress.borrow() {
            Progress::Shared { head, length } => Some((Arc::clone(head), *length)),
            _ => None,
        };
        shared.map(|(head, length)| Reader::arriving(head, length, Arc::clone(&self.fill), progress))
    }

    /// Ends the body. Call it only when the origin's message ended as it should.
    ///
    /// # Errors
    /// Why the answer was not kept; a body shorter than declared fails its readers.
    pub fn finish(mut self) -> Result<Arc<Entry>, NotStored> {
        self.lay_out();
        let Phase::Storing { head, declared, received } = std::mem::replace(&mut self.phase, Phase::Over)
        else {
            return Err(NotStored::Status);
        };
        if declared.is_some_and(|declared| declared != received) {
            self.refuse(NotStored::Length, self.fill.sent);
            return Err(NotStored::Length);
        }
        let body = match self.fill.spool.get().map(|spool| spool.stored()) {
            None => Body::new(self.fill.chunks.lock().clone()).with(self.fill.codings.clone()),
            Some(Some(stored)) => Body::on_disk(stored),
            Some(None) => {
                self.refuse(NotStored::Disk, self.fill.sent);
                return Err(NotStored::Disk);
            }
        };
        let fill = Arc::clone(&self.fill);
        let (mut key, mut entry) =
            (Cow::Borrowed(&fill.ask.key), Entry::new(fill.ask.key.text(), head, Arc::new(body)));
        if let Some(whole) = key.of_whole() {
            let shelf = &self.fills.shelf;
            let held = self.stale.as_deref().filter(|held| shelf.standing(held.head()) != Standing::Gone);
            entry = partial::joined(entry, held, shelf.entry_limit.load(Ordering::Relaxed));
            if let Some(all) = partial::whole(&entry, &whole) {
                shelf.remove_key(&key);
                (key, entry) = (Cow::Owned(whole), all);
            }
        }
        let entry = Arc::new(entry);
        // The entry is counted from here on, the fill no longer.
        self.reserved = Reserved::none(Arc::clone(&self.fills.shelf.store), &fill.ask.key);
        self.complete(&key, &entry, self.fill.sent)?;
        Ok(entry)
    }
}
