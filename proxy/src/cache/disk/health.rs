//! Whether the disk does what it should: one that fails rests, so that nothing waits for it, and is tried again. It is
//! told when that begins and when it is over, and not in between.

use std::{
    io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Long enough to cost nothing, short enough that a disk that is mended is used again before anybody asks.
const REST: Duration = Duration::from_secs(10);

/// Of writing, or of reading.
#[derive(Debug)]
pub(super) struct Health {
    /// `written` or `read`.
    what: &'static str,
    fails: AtomicBool,
    until: Mutex<Option<Instant>>,
}

impl Health {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, fails: AtomicBool::new(false), until: Mutex::new(None) }
    }

    /// Whether it is left alone for now.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.fails() && self.until.lock().is_some_and(|until| now < until)
    }

    /// Whether it failed when it was tried last.
    pub(super) fn fails(&self) -> bool {
        self.fails.load(Ordering::Acquire)
    }

    /// It failed.
    pub(super) fn failed(&self, folder: &Path, error: &io::Error, now: Instant) {
        *self.until.lock() = Some(now + REST);
        if !self.fails.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                folder = %folder.display(),
                "the cache's disk cannot be {}, memory goes on without it: {error}",
                self.what
            );
        }
    }

    /// It did not.
    pub(super) fn worked(&self, folder: &Path) {
        if self.fails() && self.fails.swap(false, Ordering::AcqRel) {
            tracing::info!(folder = %folder.display(), "the cache's disk is {} again", self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_failed_rests_and_is_tried_again() {
        let (health, now, folder) = (Health::new("read"), Instant::now(), Path::new("/x"));
        assert!(!health.rests(now) && !health.fails());
        health.failed(folder, &io::ErrorKind::StorageFull.into(), now);
        assert!(health.rests(now) && health.fails());
        assert!(!health.rests(now + REST) && health.fails());
        health.worked(folder);
        assert!(!health.rests(now) && !health.fails());
    }
}
