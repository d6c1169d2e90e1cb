//! Purges that the other edges of the fleet have to hear of, in order, until they have been told.
//!
//! It is bounded: when it is full, all that waits becomes one purge of everything, which says as much and more.
//!
//! A word that was told is *unheard* until it comes back from the stream, as a purge is from before it is done here: by then
//! nobody knows which words of others come before it ([`super::timeline`]).

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::{
    subject::Subject,
    tags::{Moment, Purge},
};

/// Minutes of a busy origin's writes.
const MOST: usize = 4096;
/// Long URLs.
const MOST_BYTES: usize = 1 << 20;

/// What waits to be told.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    is_open: AtomicBool,
    queue: Mutex<Queue>,
    more: Notify,
    told: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Word>,
    bytes: usize,
    last: u64,
    /// Purges that are being done, and a moment before the first of them.
    doing: usize,
    doing_since: Option<Moment>,
    /// The numbers of words that have not come back, and for each a moment before its purge; both only grow.
    unheard: VecDeque<(u64, Moment)>,
}

/// One purge, and its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) number: u64,
    pub(super) subject: Subject,
    pub(super) purge: Purge,
}

/// Whether the fleet knows of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// There is no fleet to tell.
    Alone,
    /// The fleet's Redis has it, from which every edge hears.
    All,
    /// Not yet; it is tried again until it is done.
    Waiting,
}

impl Told {
    /// Its word in reports; none where there is nobody to tell.
    #[must_use]
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Alone => None,
            Self::All => Some("told"),
            Self::Waiting => Some("waiting"),
        }
    }
}

impl Queue {
    /// The purge with this number was done here.
    fn done_here(&mut self, number: u64) {
        // Else it began before there was a fleet.
        let Some(since) = self.doing_since else { return };
        self.doing = self.doing.saturating_sub(1);
        if self.doing == 0 {
            self.doing_since = None;
        }
        let is_full = self.unheard.len() >= MOST;
        match self.unheard.back_mut().filter(|_| is_full) {
            Some(last) => last.0 = number,
            None => self.unheard.push_back((number, since)),
        }
    }
}

impl Outbox {
    /// From now on there is a fleet, or none.
    pub(super) fn open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::Release);
        if !is_open {
            let mut queue = self.queue.lock();
            *queue = Queue { last: queue.last, ..Queue::default() };
        }
    }

    /// Something is about to be purged here; `now` reads the clock. [`Outbox::push`] follows.
    pub(super) fn begin(&self, now: impl FnOnce() -> Moment) {
        if self.is_open.load(Ordering::Acquire) {
            let mut queue = self.queue.lock();
            if queue.doing == 0 {
                queue.doing_since = Some(now());
            }
            queue.doing += 1;
        }
    }

    /// It was purged here, and the others are to hear of it.
    pub(super) fn push(&self, subject: Subject, purge: Purge) {
        if !self.is_open.load(Ordering::Acquire) {
            return;
        }
        let mut queue = self.queue.lock();
        let is_full = queue.waiting.len() >= MOST || queue.bytes + subject.text().len() > MOST_BYTES;
        let (subject, purge) = if is_full {
            (queue.waiting, queue.bytes) = Default::default();
            (Subject::everything(), Purge::Hard)
        } else {
            (subject, purge)
        };
        queue.last += 1;
        queue.bytes += subject.text().len();
        let number = queue.last;
        queue.waiting.push_back(Word { number, subject, purge });
        queue.done_here(number);
        drop(queue);
        self.more.notify_one();
    }

    /// The word with this number came back, and so have all before it, or they never will.
    pub(super) fn came_back(&self, number: u64) {
        let mut queue = self.queue.lock();
        while queue.unheard.front().is_some_and(|(unheard, _)| *unheard <= number) {
            queue.unheard.pop_front();
        }
    }

    /// A moment before the first purge of ours whose word has not come back; `None` if all have.
    pub(super) fn unheard(&self) -> Option<Moment> {
        let queue = self.queue.lock();
        queue.unheard.front().map(|(_, since)| *since).or(queue.doing_since)
    }

    /// The number of the last word that was told.
    pub(super) fn last_told(&self) -> u64 {
        *self.told.borrow()
    }

    /// The next words to tell, at least one.
    pub(super) async fn next(&self, most: usize) -> Vec<Word> {
        loop {
            let words: Vec<_> = self.queue.lock().waiting.iter().take(most).cloned().collect();
            if !words.is_empty() {
                return words;
            }
            self.more.notified().await;
        }
    }

    /// These have been told.
    pub(super) fn done(&self, words: &[Word]) {
        let Some(last) = words.last() else { return };
        let mut queue = self.queue.lock();
        while queue.waiting.front().is_some_and(|word| word.number <= last.number) {
            let word = queue.waiting.pop_front();
            queue.bytes -= word.map_or(0, |word| word.subject.text().len());
        }
        drop(queue);
        self.told.send_replace(last.number);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Waits until all that was pushed so far has been told, for at most `within`.
    pub(super) async fn told(&self, within: Duration) -> Told {
        if !self.is_open.load(Ordering::Acquire) {
            return Told::Alone;
        }
        let last = self.queue.lock().last;
        let mut told = self.told.subscribe();
        match tokio::time::timeout(within, told.wait_for(|told| *told >= last)).await {
            Ok(Ok(_)) => Told::All,
            Ok(Err(_)) | Err(_) => Told::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> Outbox {
        let outbox = Outbox::default();
        outbox.open(true);
        outbox
    }

    fn tag(number: usize) -> Subject {
        Subject::named(&number.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_told_leaves_and_the_rest_waits() {
        let outbox = outbox();
        assert_eq!(outbox.told(Duration::ZERO).await, Told::All, "nothing waits");
        (0..3).for_each(|number| outbox.push(tag(number), Purge::Hard));
        let words = outbox.next(2).await;
        assert_eq!(words.len(), 2);
        outbox.done(&words);
        assert_eq!(outbox.told(Duration::from_secs(1)).await, Told::Waiting);
        outbox.done(&outbox.next(2).await);
        assert_eq!(outbox.told(Duration::ZERO).await, Told::All);
    }

    #[tokio::test]
    async fn a_full_outbox_says_one_thing_that_means_all_of_it() {
        let outbox = outbox();
        (0..=MOST).for_each(|number| outbox.push(tag(number), Purge::Soft));
        let words = outbox.next(MOST).await;
        assert_eq!(words.len(), 1);
        assert_eq!((&words[0].subject, words[0].purge), (&Subject::everything(), Purge::Hard));
        outbox.push(Subject::named(&"x".repeat(MOST_BYTES)), Purge::Hard);
        assert_eq!(outbox.next(9).await.len(), 1, "bytes are bounded, too");
        outbox.done(&outbox.next(9).await);
        assert_eq!(outbox.len(), 0);
    }

    #[test]
    fn a_purge_is_unheard_from_before_it_is_done_until_its_word_comes_back() {
        let outbox = outbox();
        assert_eq!(outbox.unheard(), None);
        outbox.begin(|| Moment(4));
        assert_eq!(outbox.unheard(), Some(Moment(4)));
        outbox.begin(|| Moment(7));
        outbox.push(tag(1), Purge::Hard);
        outbox.push(tag(2), Purge::Hard);
        assert_eq!(outbox.unheard(), Some(Moment(4)), "whoever of both was first");
        outbox.begin(|| Moment(9));
        outbox.push(tag(3), Purge::Hard);
        outbox.came_back(2);
        assert_eq!(outbox.unheard(), Some(Moment(9)));
        outbox.came_back(3);
        assert_eq!(outbox.unheard(), None);
        for number in 0..2 * MOST as u64 {
            outbox.begin(|| Moment(10 + number));
            outbox.push(tag(0), Purge::Soft);
        }
        assert_eq!((outbox.unheard(), outbox.queue.lock().unheard.len()), (Some(Moment(10)), MOST));
        outbox.came_back(3 + 2 * MOST as u64);
        assert_eq!(outbox.unheard(), None);
    }

    #[tokio::test]
    async fn without_a_fleet_nothing_waits() {
        let outbox = Outbox::default();
        outbox.push(tag(1), Purge::Hard);
        assert_eq!((outbox.len(), outbox.told(Duration::ZERO).await), (0, Told::Alone));
    }
}
