//! One fill per key: the first request that misses goes to the origin, the others wait for what it brings.
//!
//! A fill is *asked*; when its head is known it becomes *shared* (kept, of declared length: readers stream along),
//! *held* (kept, of unknown length: waiters are served when it is whole), or *not stored* (waiters go on their own).
//! It ends *done* or *failed*. Dropping the guard before [`FillGuard::finish`] is failing: readers get an error, never
//! a short body, and one of the waiters fills anew, [`MOST_FAILURES`] times.
//!
//! Memory: a shared fill reserves its declared length at once, so a reader that joined never loses the body to the
//! budget; slow readers read from memory and hold nobody up. A body of unknown length is not streamed to waiters,
//! because one that never ends would have to be kept whole for them; if it outgrows an entry, waiters go on their own.
//!
//! An answer that is not for sharing is remembered for [`PASS`]: later requests for the key do not queue up behind each
//! other. Requests with credentials queue apart, as their answers are rarely for others.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    conditional,
    entry::{Body, CHUNK, Entry, Head},
    key::Key,
    lookup::Lookup,
    memory::Reserved,
    policy::{NotStored, Sent, declared_length, judge},
    request::{Now, RequestHead, Rule},
    shelf::{Shelf, count},
    tags::{Moment, Standing, Tag},
    waiting::Waiter,
};

const SHARDS: usize = 32;
/// How long a key is known not to be worth waiting for.
const PASS: Duration = Duration::from_secs(10);
/// Keys per shard about which that is remembered; beyond, they queue as strangers do.
const MOST_PASSES: usize = 1024;

/// A request that misses.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it looked for.
    pub key: Key,
    /// [`Tag::uri`] of its target.
    pub uri: Tag,
    /// As received.
    pub method: Method,
    /// As forwarded.
    pub headers: HeaderMap,
    /// Whether a body follows.
    pub has_body: bool,
    /// The route's.
    pub rule: Rule,
    /// The entry to ask about, from [`super::Lookup::Stale`].
    pub stale: Option<Arc<Entry>>,
}

impl Ask {
    fn request(&self) -> RequestHead<'_> {
        RequestHead { method: &self.method, headers: &self.headers, has_body: self.has_body }
    }
}

/// What a request that misses does next.
#[derive(Debug)]
pub enum Begin {
    /// Goes to the origin.
    Fill(FillGuard),
    /// Waits for one that went.
    Wait(Waiter),
    /// Takes what another brought since it looked.
    Found(Arc<Entry>),
}

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

/// The fills of one cache.
#[derive(Debug)]
pub(super) struct Fills {
    pub(super) shelf: Arc<Shelf>,
    desks: Box<[Mutex<HashMap<u128, Desk>>]>,
}

/// What is going on about one key.
#[derive(Debug, Default)]
struct Desk {
    running: Vec<Arc<Fill>>,
    pass_until: Option<Instant>,
}

/// One request to the origin, as its readers see it.
#[derive(Debug)]
pub(super) struct Fill {
    pub(super) ask: Ask,
    moment: Moment,
    sent: Now,
    /// Changes, and chunks arriving, wake the readers.
    pub(super) progress: watch::Sender<Progress>,
    pub(super) chunks: Mutex<Vec<Bytes>>,
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
    /// The origin cannot be reached; trying again is of no use.
    OriginFailed,
}

impl Fills {
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, desks: std::iter::repeat_with(Mutex::default).take(SHARDS).collect() }
    }

    /// Makes `ask` the key's fill, or lets it wait for the one that runs.
    pub(super) fn begin(self: &Arc<Self>, ask: Ask, now: Now) -> Begin {
        let id = id(&ask);
        let mut desks = self.desk(id).lock();
        let desk = desks.get(&id);
        let alone = desk.and_then(|desk| desk.pass_until).is_some_and(|until| now.mono < until);
        if let Some(desk) = desk.filter(|_| !alone) {
            let stored = self.shelf.store.newest(&ask.key);
            let hint = stored.as_ref().map(|entry| entry.head());
            if let Some(fill) = desk.running.iter().find(|fill| self.suits(fill, &ask, hint)) {
                let fill = Arc::clone(fill);
                drop(desks);
                count(&self.shelf.counts.collapsed);
                return Begin::Wait(Waiter::new(Arc::clone(self), fill, ask));
            }
        }
        // A fill is in the store before it leaves the desk: who finds neither has missed none.
        if let Lookup::Hit { entry, .. } = self.shelf.look(&ask.key, &ask.request(), &ask.rule, now) {
            count(&self.shelf.counts.collapsed);
            return Begin::Found(entry);
        }
        // The moment is read before the request leaves, see `tags`.
        let fill = Arc::new(Fill {
            ask,
            moment: self.shelf.tags.moment(),
            sent: now,
            progress: watch::Sender::new(Progress::Asked),
            chunks: Mutex::default(),
        });
        if !alone {
            desks.entry(id).or_default().running.push(Arc::clone(&fill));
        }
        drop(desks);
        count(&self.shelf.counts.fills);
        Begin::Fill(FillGuard {
            reserved: Reserved::none(Arc::clone(&self.shelf.store)),
            fills: Arc::clone(self),
            stale: fill.ask.stale.clone(),
            fill,
            phase: Phase::Asked,
        })
    }

    /// Whether `ask` may hope for an answer from a running fill: one that was not purged since, and, as far as known,
    /// for the same variant. What the answer will vary by is guessed from what is stored.
    fn suits(&self, fill: &Fill, ask: &Ask, hint: Option<&Arc<Head>>) -> bool {
        match &*fill.progress.borrow() {
            Progress::Asked => {
                let base = [Tag::key(&ask.key), fill.ask.uri];
                fill.ask.key.text() == ask.key.text()
                    && self.shelf.floor.standing(fill.moment) == Standing::Good
                    && self.shelf.tags.standing(&base, fill.moment) == Standing::Good
                    && !hint.is_some_and(|head| head.variant.parts(&fill.ask.headers, &ask.headers))
            }
            Progress::Shared { head, .. } | Progress::Held(head) => {
                fill.ask.key.text() == ask.key.text() && self.answers(head, ask)
            }
            _ => false,
        }
    }

    /// Whether an answer just fetched is one for `ask`.
    pub(super) fn answers(&self, head: &Head, ask: &Ask) -> bool {
        head.variant.matches(&ask.headers) && self.shelf.standing(head) == Standing::Good
    }

    /// Takes a fill off the desk: nobody joins it any more.
    fn retire(&self, fill: &Arc<Fill>) {
        let id = id(&fill.ask);
        let mut desks = self.desk(id).lock();
        if let Some(desk) = desks.get_mut(&id) {
            desk.running.retain(|running| !Arc::ptr_eq(running, fill));
            if desk.running.is_empty() && desk.pass_until.is_none() {
                desks.remove(&id);
            }
        }
    }

    /// Remembers that waiting for this key is of no use, or that it is again.
    fn set_pass(&self, ask: &Ask, until: Option<Instant>, now: Instant) {
        let id = id(ask);
        let mut desks = self.desk(id).lock();
        if until.is_some() && desks.len() >= MOST_PASSES {
            desks.retain(|_, desk| {
                !desk.running.is_empty() || desk.pass_until.is_some_and(|until| now < until)
            });
            if desks.len() >= MOST_PASSES {
                return;
            }
        }
        match until {
            Some(_) => desks.entry(id).or_default().pass_until = until,
            None => {
                if let Some(desk) = desks.get_mut(&id) {
                    desk.pass_until = None;
                }
            }
        }
    }

    fn desk(&self, id: u128) -> &Mutex<HashMap<u128, Desk>> {
        &self.desks[(id >> 96) as usize % SHARDS]
    }
}

/// The queue a request belongs to: its key's, apart for requests with credentials.
fn id(ask: &Ask) -> u128 {
    let credentials =
        [header::AUTHORIZATION, header::COOKIE].iter().any(|name| ask.headers.contains_key(name));
    ask.key.hash() ^ u128::from(credentials && !ask.rule.private_to_caller)
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
    reserved: Reserved,
    phase: Phase,
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
            let declared = if status == StatusCode::NO_CONTENT { Some(0) } else { declared_length(headers)? };
            self.reserve(&head, declared)?;
            Ok((Arc::new(head), declared))
        });
        match judged {
            Err(reason) => {
                self.refuse(reason, now);
                Decision::NotStored(reason)
            }
            Ok((head, declared)) => {
                self.share(&head, declared, now);
                self.phase = Phase::Storing { head, declared, received: 0 };
                Decision::Store
            }
        }
    }

    /// Adds a piece of the body. Copied, as a piece from the network may hold on to a much larger buffer.
    pub fn write(&mut self, piece: &Bytes) {
        let Phase::Storing { declared, received, .. } = &mut self.phase else { return };
        if piece.is_empty() {
            return;
        }
        *received += piece.len() as u64;
        let limit = self.fills.shelf.entry_limit.load(Ordering::Relaxed) as u64;
        let refused = match *declared {
            Some(length) => (*received > length).then_some(NotStored::Length),
            None if *received > limit => Some(NotStored::TooLarge),
            None => (!self.reserved.grow(piece.len() + CHUNK)).then_some(NotStored::Memory),
        };
        if let Some(reason) = refused {
            self.refuse(reason, self.fill.sent);
            return;
        }
        self.fill.chunks.lock().push(Bytes::copy_from_slice(piece));
        self.fill.progress.send_modify(|_| ());
    }

    /// Ends the body. Call it only when the origin's message ended as it should.
    ///
    /// # Errors
    /// Why the answer was not kept; a body shorter than declared fails its readers.
    pub fn finish(mut self) -> Result<Arc<Entry>, NotStored> {
        let Phase::Storing { head, declared, received } = std::mem::replace(&mut self.phase, Phase::Over)
        else {
            return Err(NotStored::Status);
        };
        if declared.is_some_and(|declared| declared != received) {
            self.refuse(NotStored::Length, self.fill.sent);
            return Err(NotStored::Length);
        }
        let body = Body::new(self.fill.chunks.lock().clone());
        let entry = Arc::new(Entry::new(self.fill.ask.key.text(), head, Arc::new(body)));
        // The entry is counted from here on, the fill no longer.
        self.reserved = Reserved::none(Arc::clone(&self.fills.shelf.store));
        self.complete(&entry)?;
        Ok(entry)
    }

    /// Takes a 304: the stale entry, updated with its fields, is good again (RFC 9111 §4.3.4).
    ///
    /// # Errors
    /// [`NotStored::Mismatch`] when the 304 is about something else. The stale entry is given up; ask again, without
    /// validators, under the same guard.
    pub fn not_modified(
        &mut self,
        headers: &HeaderMap,
        tags: &[Tag],
        now: Now,
    ) -> Result<Confirmed, NotStored> {
        let key = &self.fill.ask.key;
        let Some(stale) = self.stale.take() else { return Err(NotStored::Mismatch) };
        if !conditional::confirms(stale.head(), headers) {
            self.fills.shelf.store.remove(key, &stale);
            return Err(NotStored::Mismatch);
        }
        let merged = conditional::merged(&stale.head().headers, headers);
        match self.judge(stale.head().status, &merged, tags, now) {
            Ok(head) => {
                let entry = Arc::new(Entry::new(key.text(), Arc::new(head), Arc::clone(stale.body())));
                if !entry.head().freshness.begins_fresh() {
                    self.fills.set_pass(&self.fill.ask, Some(now.mono + PASS), now.mono);
                }
                let refused = self.complete(&entry).err();
                Ok(Confirmed { entry, refused })
            }
            Err(reason) => {
                // What was about this request's own form says nothing about the entry.
                if !matches!(reason, NotStored::Authorization | NotStored::Cookie) {
                    self.fills.shelf.store.remove(key, &stale);
                }
                self.refuse(reason, now);
                Ok(Confirmed { entry: stale, refused: Some(reason) })
            }
        }
    }

    /// Gives up: the origin cannot be reached, so the waiters need not try. They may serve what is stale, as may the
    /// holder.
    pub fn origin_failed(mut self) {
        self.end(Progress::OriginFailed);
    }

    fn judge(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        tags: &[Tag],
        now: Now,
    ) -> Result<Head, NotStored> {
        let ask = &self.fill.ask;
        let mut base = vec![Tag::key(&ask.key), ask.uri];
        base.extend_from_slice(tags);
        let sent = Sent {
            method: &ask.method,
            headers: &ask.headers,
            has_body: ask.has_body,
            moment: self.fill.moment,
            at: self.fill.sent,
        };
        judge(status, headers, &sent, &ask.rule, &base, now)
    }

    fn reserve(&mut self, head: &Head, declared: Option<u64>) -> Result<(), NotStored> {
        let limit = self.fills.shelf.entry_limit.load(Ordering::Relaxed);
        let length = usize::try_from(declared.unwrap_or(0)).unwrap_or(usize::MAX);
        if length > limit || head.bytes() > limit {
            return Err(NotStored::TooLarge);
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
            self.fills.set_pass(&self.fill.ask, Some(now.mono + PASS), now.mono);
            self.fill.progress.send_replace(Progress::NotStored(NotStored::NoLifetime));
            return;
        }
        self.fills.set_pass(&self.fill.ask, None, now.mono);
        let head = Arc::clone(head);
        self.fill.progress.send_replace(match declared {
            Some(length) => Progress::Shared { head, length },
            None => Progress::Held(head),
        });
    }

    /// Keeps the entry and hands it to the waiters.
    fn complete(&mut self, entry: &Arc<Entry>) -> Result<(), NotStored> {
        let shelf = &self.fills.shelf;
        let standing = shelf.keep(&self.fill.ask.key, entry);
        // In the store before it leaves the desk, so that no request falls between.
        self.end(Progress::Done(Arc::clone(entry)));
        if standing == Standing::Gone {
            count(&self.fills.shelf.counts.refused);
            return Err(NotStored::Purged);
        }
        count(&self.fills.shelf.counts.stored);
        Ok(())
    }

    fn refuse(&mut self, reason: NotStored, now: Now) {
        count(&self.fills.shelf.counts.refused);
        if reason.lasts() {
            self.fills.set_pass(&self.fill.ask, Some(now.mono + PASS), now.mono);
        }
        self.fill.chunks.lock().clear();
        self.end(match reason {
            NotStored::OriginError | NotStored::Length => Progress::Failed,
            _ => Progress::NotStored(reason),
        });
        self.reserved = Reserved::none(Arc::clone(&self.fills.shelf.store));
    }

    fn end(&mut self, progress: Progress) {
        if matches!(progress, Progress::Failed | Progress::OriginFailed) {
            count(&self.fills.shelf.counts.broken);
        }
        self.phase = Phase::Over;
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
