//! What every request writes to, apart for each thread: a cache line that all cores write to is the slowest thing in a hit.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use crossbeam_utils::CachePadded;

/// More cores than that share.
const MOST: usize = 64;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<Option<usize>> = const { Cell::new(None) };
}

/// One `T` for each thread that works, as many as the machine has cores; beyond that, threads share.
#[derive(Debug)]
pub struct Stripes<T>(Box<[CachePadded<T>]>);

impl<T> Stripes<T> {
    /// Makes them.
    #[must_use]
    pub fn new(mut make: impl FnMut() -> T) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = cores.next_power_of_two().min(MOST);
        Self((0..stripes).map(|_| CachePadded::new(make())).collect())
    }

    /// That of this thread. Another one may hold it, too.
    #[must_use]
    pub fn mine(&self) -> &T {
        let thread = THREAD.get().unwrap_or_else(|| {
            let next = THREADS.fetch_add(1, Ordering::Relaxed);
            THREAD.set(Some(next));
            next
        });
        // A power of two.
        &self.0[thread & (self.0.len() - 1)]
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|padded| &**padded)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use std::sync::{Arc, atomic::AtomicU64};

    use super::*;

    #[test]
    fn whoever_adds_the_sum_is_whole() {
        let stripes = Arc::new(Stripes::new(|| AtomicU64::new(0)));
        let add = |_| {
            let stripes = Arc::clone(&stripes);
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    stripes.mine().fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        (0..100).map(add).collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(stripes.all().map(|stripe| stripe.load(Ordering::Relaxed)).sum::<u64>(), 100_000);
    }

    #[test]
    fn a_thread_keeps_its_own() {
        let stripes = Stripes::new(|| AtomicU64::new(0));
        assert!(std::ptr::eq(stripes.mine(), stripes.mine()));
    }
}
