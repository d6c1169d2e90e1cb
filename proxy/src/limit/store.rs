//! What limits ask of Redis: to run a script on one key, within a deadline. One key, so that it has one place in a cluster.
//!
//! A Redis that failed, or was too slow, rests for a moment, and then one request tries whether it is back. The others do
//! meanwhile what the plan says for a Redis that is down, so that no outage makes everybody wait for the same deadline.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::Script;

use crate::{causes::Causes, fleet::Redis};

/// As long as that of session look-ups.
const REST: Duration = Duration::from_millis(100);

/// Redis did not answer, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unavailable;

/// The fleet's Redis; clones share its state.
#[derive(Clone)]
pub struct Store(Arc<Shared>);

struct Shared {
    redis: Redis,
    deadline: Duration,
    start: Instant,
    /// Nanoseconds since `start` until which it is left alone; 0 while it is well.
    rests_until: AtomicU64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("deadline", &self.0.deadline).finish_non_exhaustive()
    }
}

impl Store {
    /// Asks `redis`, within its deadline for one question, a script that it does not know yet included.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let (start, rests_until, deadline) = (Instant::now(), AtomicU64::new(0), redis.timeout());
        Self(Arc::new(Shared { redis, deadline, start, rests_until }))
    }

    /// Whether it is left alone at the moment.
    pub(super) fn rests(&self) -> bool {
        self.now() < self.0.rests_until.load(Ordering::Relaxed)
    }

    /// Runs `script` on `key` in one round trip.
    ///
    /// Shape:  numbers in, numbers out, as many as the script returns.
    /// Errors: [`Unavailable`] when it fails, is not there in time, or is left alone.
    pub(super) async fn run<const N: usize>(
        &self,
        script: &Script,
        key: &str,
        arguments: &[u64],
    ) -> Result<[u64; N], Unavailable> {
        let since = self.0.rests_until.load(Ordering::Relaxed);
        let deadline = self.now() + nanos(self.0.deadline);
        // Of all who find its rest over, one tries.
        let tries = since == 0
            || (self.now() >= since
                && self
                    .0
                    .rests_until
                    .compare_exchange(since, deadline, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok());
        if !tries {
            return Err(Unavailable);
        }
        let mut redis = self.0.redis.clone();
        let mut call = script.key(key);
        for argument in arguments {
            call.arg(*argument);
        }
        let answer = tokio::time::timeout(self.0.deadline, call.invoke_async::<Vec<u64>>(&mut redis)).await;
        let problem = match answer {
            Ok(Ok(numbers)) => match numbers.try_into() {
                Ok(numbers) => {
                    if self.0.rests_until.swap(0, Ordering::Relaxed) != 0 {
                        tracing::info!("Redis counts limits again");
                    }
                    return Ok(numbers);
                }
                Err(_) => "an answer of another shape".to_owned(),
            },
            Ok(Err(problem)) => Causes(&problem).to_string(),
            Err(_) => format!("no answer within {:?}", self.0.deadline),
        };
        if self.0.rests_until.swap(self.now() + nanos(REST), Ordering::Relaxed) == 0 {
            tracing::warn!(%problem, "Redis does not count limits; each does what its on_redis_down says");
        }
        Err(Unavailable)
    }

    fn now(&self) -> u64 {
        nanos(self.0.start.elapsed()).max(1)
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}
