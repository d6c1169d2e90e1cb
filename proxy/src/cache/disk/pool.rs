//! Threads that wait for the disk, so that nobody else does: as many as drives work side by side, and never more, as each
//! keeps memory of its own. tokio's own have no bound that holds: one more is begun whenever none happens to be idle.

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::{Semaphore, oneshot};

use super::core::Unread;

const THREADS: usize = 8;
/// What waits for them or is being done; who comes later waits for a place.
const PLACES: usize = 256;

type Task = Box<dyn FnOnce() + Send>;

/// The threads of one disk.
pub(super) struct Pool {
    queue: Mutex<Queue>,
    changed: Condvar,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Queue {
    tasks: VecDeque<Task>,
    closed: bool,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("places", &self.places.available_permits()).finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let pool = Arc::new(Self {
            queue: Mutex::default(),
            changed: Condvar::new(),
            places: Arc::new(Semaphore::new(PLACES)),
        });
        for _ in 0..THREADS {
            let own = Arc::clone(&pool);
            let started = thread::Builder::new().name("weir-disk-io".to_owned()).spawn(move || own.serve());
            if let Err(error) = started {
                pool.close();
                return Err(error);
            }
        }
        Ok(pool)
    }

    fn serve(&self) {
        loop {
            let task = {
                let mut queue = self.queue.lock();
                loop {
                    if let Some(task) = queue.tasks.pop_front() {
                        break task;
                    }
                    if queue.closed {
                        return;
                    }
                    self.changed.wait(&mut queue);
                }
            };
            // Whoever waits for it hears that nothing came.
            let _ = catch_unwind(AssertUnwindSafe(task));
        }
    }

    /// Ends the threads when what is queued is done.
    pub(super) fn close(&self) {
        self.queue.lock().closed = true;
        self.changed.notify_all();
    }

    /// Queues what nobody waits for.
    pub(super) fn push(&self, task: impl FnOnce() + Send + 'static) {
        let mut queue = self.queue.lock();
        if !queue.closed {
            queue.tasks.push_back(Box::new(task));
            self.changed.notify_one();
        }
    }

    /// Does what waits for the disk; it is done also when nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Unread> + Send + 'static,
    ) -> Result<T, Unread> {
        let closed = || Unread::Failed(io::Error::other("the folder is not used any more"));
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let (done, outcome) = oneshot::channel();
        self.push(move || {
            let _ = done.send(work());
            drop(place);
        });
        outcome.await.map_err(|_| closed())?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use super::*;

    #[tokio::test]
    async fn work_is_done_by_a_few_threads_and_none_when_it_is_closed() {
        let pool = Pool::start().unwrap();
        assert_eq!(pool.run(|| Ok(7)).await.unwrap(), 7);
        assert!(pool.run::<()>(|| panic!("a task may")).await.is_err());
        assert!(matches!(pool.run::<()>(|| Err(Unread::Spoiled)).await, Err(Unread::Spoiled)));
        pool.close();
        assert!(pool.run(|| Ok(7)).await.is_err());
    }
}
