//! The other side of a fill: those who wait for its head, and those who read its body as it arrives.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use weir_config::plan::Coding;

use super::{
    answer::Extent,
    coded::Codings,
    desk::{Ask, Begin, Fills},
    entry::{Body, Entry, Head},
    filling::{Fill, FillGuard, Progress},
    key,
    policy::NotStored,
    request::Now,
    vary::InForm,
};

/// After so many fills that broke under one waiter, the origin counts as failing.
const MOST_FAILURES: u32 = 3;

/// A request that waits for another's fill.
#[derive(Debug)]
pub struct Waiter {
    fills: Arc<Fills>,
    fill: Arc<Fill>,
    ask: Ask,
}

/// What waiting brought.
#[derive(Debug)]
pub enum Outcome {
    /// An answer, whole or arriving.
    Ready(Reader),
    /// The answer is not for sharing: go to the origin, without a fill.
    NotStored(NotStored),
    /// The fill broke, or brought another variant, or was purged: this request fills now.
    Fill(FillGuard),
    /// The origin fails: serve what is stale if that is allowed and the route covers it, or try once without a fill.
    OriginFailed {
        /// Whether the route's words cover this failure.
        is_covered: bool,
    },
    /// It took too long: go to the origin, without a fill (as nginx's `proxy_cache_lock_timeout`).
    TimedOut,
}

impl Waiter {
    pub(super) fn new(fills: Arc<Fills>, fill: Arc<Fill>, ask: Ask) -> Self {
        Self { fills, fill, ask }
    }

    /// Waits for an answer, at most `lock_timeout` from `now`; for one fill at most until that is as old as its route lets
    /// it become, and one of those who wait begins another.
    pub async fn wait(mut self, lock_timeout: Duration, now: Now) -> Outcome {
        let started = Instant::now();
        let deadline = started + lock_timeout;
        let mut failures = 0;
        loop {
            let mut progress = self.fill.progress.subscribe();
            let young_for =
                self.ask.rule.lock_age.saturating_sub(self.fill.age(now.after(started.elapsed())));
            let until = Instant::now().checked_add(young_for).map_or(deadline, |old| deadline.min(old));
            let reached = match timeout_at(until, self.settled(&mut progress)).await {
                Ok(reached) => reached,
                Err(_) if until == deadline => return Outcome::TimedOut,
                Err(_) => Progress::Asked,
            };
            match reached {
                Progress::Shared { head, length } if self.answers(&head) => {
                    return Outcome::Ready(Reader::arriving(head, length, self.fill, progress));
                }
                // Kept to be asked about: nobody but the request that brought it may have it unasked.
                Progress::Done(entry) if !entry.head().freshness.begins_fresh() => {
                    return Outcome::NotStored(NotStored::NoLifetime);
                }
                Progress::Done(entry) if self.answers(entry.head()) => {
                    return Outcome::Ready(Reader::whole(entry));
                }
                Progress::NotStored(reason) => return Outcome::NotStored(reason),
                Progress::OriginFailed { is_covered } => return Outcome::OriginFailed { is_covered },
                Progress::Failed => {
                    failures += 1;
                    if failures == MOST_FAILURES {
                        return Outcome::OriginFailed { is_covered: true };
                    }
                }
                _ => {}
            }
            match self.fills.begin(self.ask, now.after(started.elapsed())) {
                Begin::Fill(guard) => return Outcome::Fill(guard),
                Begin::Wait(waiter) => self = *waiter,
                Begin::Found(entry) => return Outcome::Ready(Reader::whole(entry)),
            }
        }
    }

    fn answers(&self, head: &Head) -> bool {
        self.fills.answers(head, &mut InForm::from(&self.ask.headers))
    }

    /// Waits until the fill says something this waiter can act on.
    async fn settled(&self, progress: &mut watch::Receiver<Progress>) -> Progress {
        let settled = |progress: &Progress| match progress {
            Progress::Asked => false,
            Progress::Held(head) => !self.answers(head),
            _ => true,
        };
        // The fill holds the sender and the waiter holds the fill, so the channel cannot close.
        progress.wait_for(settled).await.map_or(Progress::Failed, |progress| progress.clone())
    }
}

/// The fill ended before the body did; what was read must not pass for the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the fill broke before its end")]
pub struct Broken;

/// An answer being read: whole, or as it arrives.
#[derive(Debug)]
pub struct Reader {
    head: Arc<Head>,
    length: u64,
    at: usize,
    /// Bytes read so far, of a body that is not in memory.
    offset: u64,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Whole(Arc<Entry>),
    Arriving { fill: Arc<Fill>, progress: watch::Receiver<Progress> },
}

impl Reader {
    /// Reads a stored entry.
    #[must_use]
    pub fn whole(entry: Arc<Entry>) -> Self {
        let (head, length) = (Arc::clone(entry.head()), entry.body().length());
        Self { head, length, at: 0, offset: 0, source: Source::Whole(entry) }
    }

    pub(super) fn arriving(
        head: Arc<Head>,
        length: u64,
        fill: Arc<Fill>,
        progress: watch::Receiver<Progress>,
    ) -> Self {
        Self { head, length, at: 0, offset: 0, source: Source::Arriving { fill, progress } }
    }

    /// The head of the answer.
    #[must_use]
    pub fn head(&self) -> &Arc<Head> {
        &self.head
    }

    /// How much of the body is there, for [`super::answer()`].
    #[must_use]
    pub fn extent(&self) -> Extent {
        match self.source {
            Source::Whole(_) => Extent::Complete(self.length),
            Source::Arriving { .. } => Extent::Arriving(self.length),
        }
    }

    /// The entry, where it is whole; then parts of it can be sent.
    #[must_use]
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        match &self.source {
            Source::Whole(entry) => Some(entry),
            Source::Arriving { .. } => None,
        }
    }

    /// Whether the body is, or will be, on disk alone.
    #[must_use]
    pub fn is_on_disk(&self) -> bool {
        match &self.source {
            Source::Whole(entry) => entry.body().stored().is_some(),
            Source::Arriving { fill, .. } => fill.spool.get().is_some(),
        }
    }

    /// How long the body is.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The body in a coding, if that is kept.
    #[must_use]
    pub fn kept(&self, coding: Coding) -> Option<&Arc<Body>> {
        match &self.source {
            Source::Whole(entry) => entry.body().kept(coding),
            Source::Arriving { .. } => None,
        }
    }

    /// Another reader of the same, from the beginning.
    #[must_use]
    pub fn again(&self) -> Self {
        let source = match &self.source {
            Source::Whole(entry) => Source::Whole(Arc::clone(entry)),
            Source::Arriving { fill, progress } => {
                Source::Arriving { fill: Arc::clone(fill), progress: progress.clone() }
            }
        };
        Self { head: Arc::clone(&self.head), length: self.length, at: 0, offset: 0, source }
    }

    /// The body in other codings, and the hash of the key under which it is, or will be, kept.
    pub(super) fn codings(&self) -> (&Arc<Codings>, u128) {
        match &self.source {
            Source::Whole(entry) => (entry.body().codings(), key::hash(entry.key().as_bytes())),
            Source::Arriving { fill, .. } => (fill.codings.get_or_init(Arc::default), fill.ask.key.hash()),
        }
    }

    /// The next piece of the body; `None` after the last.
    ///
    /// # Errors
    /// [`Broken`] when the fill ended early: close the connection, so that the client sees a truncated answer.
    pub async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        match &mut self.source {
            // `Pieces` reads those.
            Source::Whole(entry) if entry.body().stored().is_some() => Some(Err(Broken)),
            Source::Whole(entry) => {
                let chunk = entry.body().chunks().get(self.at)?.clone();
                self.at += 1;
                Some(Ok(chunk))
            }
            Source::Arriving { fill, progress } => loop {
                // The state first: whoever sees the end has all chunks in sight.
                let end = match *progress.borrow_and_update() {
                    Progress::Done(_) => Some(None),
                    Progress::Shared { .. } => None,
                    _ => Some(Some(Err(Broken))),
                };
                if let Some(spool) = fill.spool.get() {
                    match spool.read(self.offset).await {
                        Some(Ok(bytes)) => {
                            self.offset += bytes.len() as u64;
                            return Some(Ok(bytes));
                        }
                        Some(Err(broken)) => return Some(Err(broken)),
                        None => {}
                    }
                }
                let chunk = fill.chunks.lock().get(self.at).cloned();
                if let Some(chunk) = chunk {
                    self.at += 1;
                    return Some(Ok(chunk));
                }
                match end {
                    Some(end) => return end,
                    None if progress.changed().await.is_err() => return Some(Err(Broken)),
                    None => {}
                }
            },
        }
    }
}
