//! How many mirrors of a route are under way, and what became of each.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use weir_config::plan::RouteId;

use super::Running;

/// Mirrors of one route at once: a mirror that hangs costs this many connections and at most 32 MiB of bodies, and no more.
const AT_ONCE: usize = 64;

/// What became of a mirror: a label of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mirrored {
    /// The upstream answered it.
    Sent,
    /// There were too many, it fell behind, or the request was not whole.
    Dropped,
    /// No answer.
    Failed,
}

impl Mirrored {
    /// The labels, in the order of the variants.
    pub(super) const WORDS: [&'static str; 3] = ["sent", "dropped", "failed"];
}

pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

impl Running {
    /// A place for one mirror of the route, until it is dropped; `None` when all are taken.
    #[must_use]
    pub fn mirror_place(&self, route: RouteId) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.routes[route.index()].mirrors).try_acquire_owned().ok()
    }

    /// Counts a mirror.
    pub fn count_mirror(&self, route: RouteId, mirrored: Mirrored) {
        if let Some(counters) = &self.counts.mirrors[route.index()] {
            counters[mirrored as usize].inc();
        }
    }
}
