//! What limits ask of Redis: to run a script on one key. One key, so that it has one place in a cluster.
//!
//! How long that may take, and that a server which failed is left alone for a moment, is [`Redis`]' own matter: whoever asks
//! of one that rests is told so at once, and does what the plan says for a Redis that is down.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{ErrorKind, RedisResult, Script};

use crate::{causes::Causes, fleet::Redis};

/// Between two warnings: of a cluster, one master may fail and the others answer, by turns.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// Redis did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unavailable;

/// The fleet's Redis; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    redis: Redis,
    start: Instant,
    is_told: AtomicBool,
    /// Milliseconds since `start` before which no more is told.
    silent_until: AtomicU64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.0.redis).finish()
    }
}

/// The same Redis, reached in the same way.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        self.0.redis.is(&other.0.redis)
    }
}

impl Eq for Store {}

impl Store {
    /// Asks `redis`.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        let (start, is_told, silent_until) = (Instant::now(), AtomicBool::new(false), AtomicU64::new(0));
        Self(Arc::new(Inner { redis, start, is_told, silent_until }))
    }

    /// Runs `script` on `key`: one round trip, unless Redis does not know it yet.
    ///
    /// Shape:  numbers in, numbers out, as many as the script returns.
    /// Errors: [`Unavailable`] when Redis is down or rests, and when it says something else.
    pub(super) async fn run<const N: usize>(
        &self,
        script: &Script,
        key: &str,
        arguments: &[u64],
    ) -> Result<[u64; N], Unavailable> {
        let mut call = script.key(key);
        for argument in arguments {
            call.arg(*argument);
        }
        let answer: RedisResult<Vec<u64>> = call.invoke_async(&mut self.0.redis.clone()).await;
        let numbers = answer.and_then(|numbers| {
            numbers.try_into().map_err(|_| (ErrorKind::UnexpectedReturnType, "another shape").into())
        });
        match numbers {
            Ok(numbers) => {
                if self.0.is_told.load(Ordering::Relaxed) && self.0.is_told.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redis counts limits again");
                }
                Ok(numbers)
            }
            Err(problem) => {
                if self.tells() {
                    tracing::warn!(cause = %Causes(&problem), "Redis does not count limits; each does what its on_redis_down says");
                }
                Err(Unavailable)
            }
        }
    }

    /// Whether this failure is the first since the last success, and not too soon after what was told last.
    fn tells(&self) -> bool {
        let Inner { start, is_told, silent_until, .. } = &*self.0;
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (now, until) = (millis(start.elapsed()), silent_until.load(Ordering::Relaxed));
        let tells = now >= until && !is_told.swap(true, Ordering::Relaxed);
        if tells {
            silent_until.store(now + millis(TELL_AGAIN), Ordering::Relaxed);
        }
        tells
    }
}
