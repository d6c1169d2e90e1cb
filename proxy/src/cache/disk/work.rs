//! What waits to be written: a short queue, and one thread that takes from it. When it is full, the disk is passed over.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Condvar, Mutex};

use super::super::entry::Entry;

/// Entries that wait; and their bytes, which memory may have let go of meanwhile.
const MOST_JOBS: usize = 1024;
const MOST_BYTES: usize = 32 << 20;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Job {
    /// An entry.
    Keep(Arc<Entry>),
    /// The head of one whose body is there.
    Head(Arc<Entry>),
    /// Purges, or files to delete.
    Wake,
}

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Work {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    woken: bool,
    closed: bool,
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Self::Keep(entry) | Self::Head(entry) => entry.bytes(),
            Self::Wake => 0,
        }
    }
}

impl Work {
    /// Queues a job; false if there is no room for it.
    #[must_use]
    pub(super) fn push(&self, job: Job) -> bool {
        let (mut queue, bytes) = (self.queue.lock(), job.bytes());
        let fits = queue.jobs.is_empty() || queue.bytes + bytes <= MOST_BYTES;
        if queue.closed || !fits || queue.jobs.len() >= MOST_JOBS {
            return false;
        }
        // As counted now: an entry may grow while it waits.
        queue.bytes += bytes;
        queue.jobs.push_back(job);
        self.changed.notify_one();
        true
    }

    /// There is something else to do.
    pub(super) fn wake(&self) {
        self.queue.lock().woken = true;
        self.changed.notify_one();
    }

    /// Nothing comes any more.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_one();
    }

    /// The next thing to do; `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<Job> {
        let mut queue = self.queue.lock();
        loop {
            if std::mem::take(&mut queue.woken) {
                return Some(Job::Wake);
            }
            if let Some(job) = queue.jobs.pop_front() {
                queue.bytes = if queue.jobs.is_empty() { 0 } else { queue.bytes.saturating_sub(job.bytes()) };
                return Some(job);
            }
            if queue.closed {
                return None;
            }
            self.changed.wait(&mut queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::testing::{cache, noon},
        *,
    };

    #[test]
    fn the_queue_has_a_bound_and_a_purge_passes_it() {
        let work = Work::default();
        let entry = cache().fill("/a", &[("cache-control", "max-age=60")], "x", noon());
        let pushed = (0..2 * MOST_JOBS).filter(|_| work.push(Job::Keep(Arc::clone(&entry)))).count();
        assert_eq!(pushed, MOST_JOBS);
        work.wake();
        assert!(matches!(work.next(), Some(Job::Wake)));
        work.close();
        assert!(!work.push(Job::Keep(entry)));
        assert_eq!(std::iter::from_fn(|| work.next()).count(), MOST_JOBS);
    }
}
