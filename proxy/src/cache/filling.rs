//! One fill per key: the first request that misses goes to the origin, the others wait for what it brings.
//!
//! A fill is *asked*; when its head is known it becomes *shared* (kept, of declared length: readers stream along),
//! *held* (kept, of unknown length: waiters are served when it is whole), or *not stored* (waiters go on their own).
//! It ends *done* or *failed*. Dropping the guard before [`FillGuard::finish`] is failing: readers get an error, never
//! a short body, and one of the waiters fills anew, a few times.
//!
//! Memory: a shared fill reserves its declared length at once, so a reader that joined never loses the body to the
//! budget; slow readers read from memory and hold nobody up. A body of unknown length is not streamed to waiters,
//! because one that never ends would have to be kept whole for them; if it outgrows an entry, waiters go on their own.
//!
//! The head of an answer is judged here, its body comes in `body`, and what a 304, a HEAD or an answer that is not kept says of
//! a stored one is taken in `confirming`. Before the origin, `fleet` asks the other edges, and afterwards gives them what was kept.

mod body;
mod confirming;
mod fleet;

use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    coded::Codings,
    desk::{Ask, Fills},
    disk::{Room, SPOOL_MEMORY, Spool},
    entry::{Entry, Head},
    guard,
    key::Key,
    memory::Reserved,
    partial,
    policy::{NotStored, Sent, declared_length, judge},
    request::Now,
    shared::Lease,
    shelf::count,
    slice::{Part, Slice},
    tags::{Moment, Standing, Tag},
    vary::{InForm, Variant},
};

/// Whether the answer is being kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Pass its body to [`FillGuard::write`].
    Store,
    /// Not for this reason; the guard may be dropped.
    NotStored(NotStored),
}

/// A stored answer that the origin confirmed.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// The answer for this client.
    pub entry: Arc<Entry>,
    /// Why the confirmed entry was not kept, if it was not.
    pub refused: Option<NotStored>,
}

/// One request to the origin, as its readers see it.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) ask: Ask,
    moment: Moment,
    sent: Now,
    /// Whether nobody waits for it, as the key's answers are not for others, or it was asked past what is stored.
    is_alone: bool,
    /// What its request is told apart by, where answers depend on what those of its key did when that was first asked.
    form: OnceLock<Variant>,
    /// Changes, and chunks arriving, wake the readers.
    pub(super) progress: watch::Sender<Progress>,
    pub(super) chunks: Mutex<Vec<Bytes>>,
    /// The body in other codings, as far as readers have asked for them.
    pub(super) codings: OnceLock<Arc<Codings>>,
    /// Where the body goes that memory does not hold.
    pub(super) spool: OnceLock<Arc<Spool>>,
}

/// How far a fill is.
#[derive(Debug, Clone)]
pub(super) enum Progress {
    Asked,
    Shared {
        head: Arc<Head>,
        length: u64,
    },
    Held(Arc<Head>),
    Done(Arc<Entry>),
    NotStored(NotStored),
    /// Broken; somebody else may try.
    Failed,
    /// The origin cannot be reached; trying again is of no use. Whether the route covers this failure with what is stale.
    OriginFailed {
        is_covered: bool,
    },
}

impl Fill {
    pub(super) fn new(ask: Ask, moment: Moment, sent: Now, is_alone: bool) -> Self {
        Self {
            ask,
            moment,
            sent,
            is_alone,
            form: OnceLock::new(),
            progress: watch::Sender::new(Progress::Asked),
            chunks: Mutex::default(),
            codings: OnceLock::new(),
            spool: OnceLock::new(),
        }
    }

    /// Whether another request asks for the same as its own, where answers depend on what `like` does.
    pub(super) fn asks_like(&self, other: &mut InForm<'_>, like: &Variant) -> bool {
        let asked = || Variant::asked(like.names().cloned().collect(), &self.ask.headers);
        let form = self.form.get_or_init(asked);
        if form.names().eq(like.names()) { form.suits(other) } else { asked().suits(other) }
    }

    /// How long ago its request left.
    pub(super) fn age(&self, now: Now) -> Duration {
        now.mono.saturating_duration_since(self.sent.mono)
    }

    /// When its request left, by the clock of purges.
    pub(super) fn moment(&self) -> Moment {
        self.moment
    }
}

/// The right and the duty to bring a key's answer; held by the request that goes to the origin.
///
/// The edge asks for the whole answer by GET: without `Range`, with the stale entry's validators
/// ([`FillGuard::stale`]) in place of the client's.
#[derive(Debug)]
pub struct FillGuard {
    fills: Arc<Fills>,
    fill: Arc<Fill>,
    stale: Option<Arc<Entry>>,
    /// Whether the key was not asked for often enough to be kept.
    is_rare: bool,
    reserved: Reserved,
    phase: Phase,
    pending: BytesMut,
    leak: Option<NotStored>,
    room: Option<Room>,
    /// The right to fetch for all edges of the fleet.
    lease: Option<Lease>,
    /// Whether the entry that was asked about is none any more, and nothing has its place yet.
    gave_up: bool,
}

#[derive(Debug)]
enum Phase {
    Asked,
    /// The body is arriving.
    Storing {
        head: Arc<Head>,
        declared: Option<u64>,
        received: u64,
    },
    /// Nothing more to do; the readers know.
    Over,
}

impl FillGuard {
    pub(super) fn new(fills: Arc<Fills>, fill: Arc<Fill>) -> Self {
        let reserved = Reserved::none(Arc::clone(&fills.shelf.store), &fill.ask.key);
        let (ask, min_uses) = (&fill.ask, fill.ask.rule.min_uses);
        let is_rare =
            min_uses > 1 && ask.stale.is_none() && fills.shelf.uses.count(ask.key.hash()) < min_uses;
        Self {
            stale: fill.ask.stale.clone(),
            is_rare,
            fills,
            fill,
            reserved,
            phase: Phase::Asked,
            pending: BytesMut::new(),
            leak: None,
            room: None,
            lease: None,
            gave_up: false,
        }
    }

    /// The entry to ask the origin about; set its validators with [`Head::validate`].
    #[must_use]
    pub fn stale(&self) -> Option<&Arc<Entry>> {
        self.stale.as_ref()
    }

    /// Takes the origin's answer: decides whether it is kept, and lets the waiters know.
    ///
    /// `tags` are the route's own; those of key, target and the origin's fields are added. A 304 goes to
    /// [`FillGuard::not_modified`] instead.
    pub fn head(&mut self, status: StatusCode, headers: &HeaderMap, tags: &[Tag], now: Now) -> Decision {
        let judged = self.judge(status, headers, tags, now).and_then(|head| {
            self.leak.map_or(Ok(()), Err)?;
            let declared = if status == StatusCode::NO_CONTENT { Some(0) } else { declared_length(headers)? };
            let declared = match self.part(status, headers)? {
                Some(part) if declared.is_some_and(|declared| declared != part.length()) => {
                    return Err(NotStored::Length);
                }
                Some(part) => Some(part.length()),
                None => declared,
            };
            self.reserve(&head, declared, now)?;
            Ok((Arc::new(head), declared))
        });
        match judged {
            Err(reason) => {
                self.withdraw(status, reason);
                self.refuse(reason, now);
                Decision::NotStored(reason)
            }
            Ok((head, declared)) => {
                if !self.is_for_fleet(&head, declared) {
                    self.keep_from_fleet();
                }
                self.share(&head, declared, now);
                self.phase = Phase::Storing { head, declared, received: 0 };
                Decision::Store
            }
        }
    }

    /// Makes room for the body on disk, before [`FillGuard::head`], if it would be kept there.
    pub async fn make_room(&mut self, status: StatusCode, headers: &HeaderMap, now: Now) {
        let Ok(Some(length)) = declared_length(headers) else { return };
        let limit = self.fills.shelf.entry_limit.load(Ordering::Relaxed) as u64;
        let Some(disk) = self.fills.shelf.disk.load_full().filter(|_| length > limit) else { return };
        if self.judge(status, headers, &[], now).is_ok() {
            self.room = disk.make_room(length, now).await;
        }
    }

    /// The head of the answer that is being kept.
    #[must_use]
    pub fn kept(&self) -> Option<&Arc<Head>> {
        match &self.phase {
            Phase::Storing { head, .. } => Some(head),
            Phase::Asked | Phase::Over => None,
        }
    }

    /// Whether what arrives is still kept; what is not need not be read for the cache.
    #[must_use]
    pub fn is_keeping(&self) -> bool {
        matches!(self.phase, Phase::Storing { .. })
    }

    /// Whether somebody reads it as it arrives, or waits for it.
    #[must_use]
    pub fn has_readers(&self) -> bool {
        self.fill.progress.receiver_count() > 0
    }

    /// Gives up: the origin cannot be reached, so the waiters need not try. If the route covers this failure, they may
    /// serve what is stale, as may the holder.
    pub fn origin_failed(mut self, is_covered: bool) {
        self.end(Progress::OriginFailed { is_covered });
    }

    /// Which slice it keeps.
    #[must_use]
    pub fn slice(&self) -> Option<&Slice> {
        self.fill.ask.key.of_slice()
    }

    fn part(&self, status: StatusCode, headers: &HeaderMap) -> Result<Option<Part>, NotStored> {
        let key = &self.fill.ask.key;
        match (key.of_slice(), key.whole()) {
            (Some(slice), _) => slice.kept(status, headers),
            (None, Some(_)) => partial::kept(status, headers).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        tags: &[Tag],
        now: Now,
    ) -> Result<Head, NotStored> {
        let ask = &self.fill.ask;
        // Of a part, what its whole would be kept by.
        let judged = if self.part(status, headers)?.is_some() { StatusCode::OK } else { status };
        if self.is_rare {
            return Err(NotStored::TooFewUses);
        }
        let mut base = vec![Tag::key(&ask.key), ask.uri, ask.url.tag(), ask.url.origin()];
        base.extend(ask.key.whole());
        base.extend_from_slice(tags);
        let sent = Sent {
            method: &ask.method,
            headers: &ask.headers,
            has_body: ask.has_body,
            moment: self.fill.moment,
            at: self.fill.sent,
            url: &ask.url,
        };
        let head = judge(judged, headers, &sent, &ask.rule, &base, now)?;
        ask.guard.check(&head.headers)?;
        Ok(Head { status, ..head })
    }

    /// How much of the body must be shown to [`FillGuard::inspect`] before [`FillGuard::head`]; 0 unless the answer would
    /// be kept for others and its request named somebody.
    #[must_use]
    pub fn wants_to_see(&self, status: StatusCode, headers: &HeaderMap, now: Now) -> usize {
        let looks = self.fill.ask.guard.looks_into_bodies() && self.judge(status, headers, &[], now).is_ok();
        if looks { guard::SEEN } else { 0 }
    }

    /// Looks for what is the caller's own in the beginning of the body; what is found keeps the answer out.
    pub fn inspect<'p>(&mut self, headers: &HeaderMap, body: impl Iterator<Item = &'p Bytes>) {
        let is_middle = Part::of(headers).is_some_and(|part| part.range.start > 0);
        self.leak = match is_middle && headers.contains_key(header::CONTENT_ENCODING) {
            // Without its beginning nothing packed can be read.
            true => Some(NotStored::Unreadable),
            false => self.fill.ask.guard.find(headers, body),
        };
    }

    fn reserve(&mut self, head: &Head, declared: Option<u64>, now: Now) -> Result<(), NotStored> {
        let limit = self.fills.shelf.entry_limit.load(Ordering::Relaxed);
        let mut length = usize::try_from(declared.unwrap_or(0)).unwrap_or(usize::MAX);
        if head.bytes() > limit {
            return Err(NotStored::TooLarge);
        }
        if length > limit {
            let roomy = (declared, self.room.take());
            let spool = self.fills.shelf.spool(&self.fill.ask.key, head, roomy, now);
            // Given up with the fill, also where what follows fails.
            let _ = self.fill.spool.set(spool.ok_or(NotStored::TooLarge)?);
            length = SPOOL_MEMORY;
        }
        if !self.reserved.grow(head.bytes() + length) {
            return Err(NotStored::Memory);
        }
        Ok(())
    }

    /// Tells the waiters that an answer is coming, or that it is not for them.
    fn share(&self, head: &Arc<Head>, declared: Option<u64>, now: Now) {
        if !head.freshness.begins_fresh() {
            // Not for the waiters, see `waiting`.
            self.fills.retire(&self.fill);
            self.fills.pass(&self.fill.ask, now.mono);
            self.fill.progress.send_replace(Progress::NotStored(NotStored::NoLifetime));
            return;
        }
        self.fills.end_pass(&self.fill.ask);
        let head = Arc::clone(head);
        self.fill.progress.send_replace(match declared {
            Some(length) => Progress::Shared { head, length },
            None => Progress::Held(head),
        });
    }

    /// Keeps the entry and hands it to the waiters.
    fn complete(&mut self, key: &Key, entry: &Arc<Entry>, now: Now) -> Result<(), NotStored> {
        let shelf = &self.fills.shelf;
        let standing = shelf.keep(key, entry, now);
        let lease = self.lease.take();
        // In the store before it leaves the desk, so that no request falls between.
        self.end(Progress::Done(Arc::clone(entry)));
        if standing == Standing::Gone {
            self.fills.shelf.counts.refuse(NotStored::Purged);
            return Err(NotStored::Purged);
        }
        self.fills.shelf.refusals.forget(&self.fill.ask.key);
        count(&self.fills.shelf.counts.stored);
        self.share_with_fleet(entry, lease);
        Ok(())
    }

    fn refuse(&mut self, reason: NotStored, now: Now) {
        self.fills.shelf.counts.refuse(reason);
        self.fills.shelf.refusals.note(&self.fill.ask.key, reason, now.wall);
        if reason.lasts() {
            self.fills.pass(&self.fill.ask, now.mono);
            self.keep_from_fleet();
        }
        self.fill.chunks.lock().clear();
        self.end(match reason {
            NotStored::OriginError | NotStored::Length => Progress::Failed,
            _ => Progress::NotStored(reason),
        });
        self.reserved = Reserved::none(Arc::clone(&self.fills.shelf.store), &self.fill.ask.key);
    }

    fn end(&mut self, progress: Progress) {
        if matches!(progress, Progress::Failed | Progress::OriginFailed { .. }) {
            count(&self.fills.shelf.counts.broken);
        }
        // Before anybody asks anew: that would count as asked before.
        if std::mem::take(&mut self.gave_up) && !matches!(progress, Progress::Done(_)) {
            self.end_in_fleet();
        }
        self.phase = Phase::Over;
        self.lease = None;
        if let Some(spool) = self.fill.spool.get() {
            spool.abandon();
        }
        self.fills.retire(&self.fill);
        self.fill.progress.send_replace(progress);
    }
}

impl Drop for FillGuard {
    fn drop(&mut self) {
        if !matches!(self.phase, Phase::Over) {
            self.end(Progress::Failed);
        }
    }
}

#[cfg(test)]
mod tests;
