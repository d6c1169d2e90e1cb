//! Answers of heavy or frequent reads, kept in Redis for all instances: cache-aside, ended by every write.
//!
//! A key holds a *value* (`v` and JSON), a *lease* (`l` and whose) or nothing. Who finds nothing takes a lease, reads the store, and puts
//! the value down only if the lease is still there. A write puts down a lease of nobody's before, so that no read of the old state
//! can be kept, and clears the key after. Whatever crashes in between leaves a lease, which ends by itself: a stale value cannot stay.
//! States: nothing → lease (a miss) → value (filled) → lease of nobody's (a write begins) → nothing (it is done).
//! Fills read the primary: a replica may lack a write that ended before the lease began.
//! While Redis is away every read asks the store, and a write that could not clear its keys goes on trying for as long as a value
//! from before may live. What this leaves: if the process ends meanwhile, that value lives out its time.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use redis::{RedisResult, Script};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::Semaphore;

use crate::fleet::Redis;

/// Life of a lease: longer than any of our reads and writes takes, pool and all.
const LEASE: Duration = Duration::from_secs(15);
/// Time between two tries to clear keys after a write.
const AGAIN: Duration = Duration::from_secs(1);
/// Writes that try again at once; further ones leave it to the end of the value's life.
const TRYING: usize = 10_000;

/// Puts a value down where the lease still is.
static FILL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end",
    )
});

/// A kind of entry.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// What its keys begin with.
    pub prefix: &'static str,
    /// How long a value is kept, should no write end it.
    pub life: Duration,
}

/// The cache; without Redis it keeps nothing.
#[derive(Clone)]
pub struct Cache {
    redis: Option<Redis>,
    trying: Arc<Semaphore>,
}

impl Cache {
    /// In this Redis.
    #[must_use]
    pub fn new(redis: Option<Redis>) -> Self {
        Self { redis, trying: Arc::new(Semaphore::new(TRYING)) }
    }

    /// What is kept under `kind` and `id`, or what `read` gives, which is then kept. `None` is never kept.
    ///
    /// # Errors
    /// Those of `read`; Redis being away is none.
    pub async fn get<T: Serialize + DeserializeOwned, E>(
        &self,
        kind: Kind,
        id: &str,
        read: impl Future<Output = Result<Option<T>, E>>,
    ) -> Result<Option<T>, E> {
        let Some(mut redis) = self.redis.clone() else { return read.await };
        let key = key(kind, id);
        let found: RedisResult<Option<String>> = redis::cmd("GET").arg(&key).query_async(&mut redis).await;
        let lease = match found {
            Ok(Some(kept)) => {
                if let Some(value) = kept.strip_prefix('v').and_then(|json| serde_json::from_str(json).ok()) {
                    return Ok(Some(value));
                }
                // Somebody else reads or writes it, or an older version of us wrote it.
                None
            }
            Ok(None) => lease(&mut redis, &key).await,
            Err(error) => {
                tracing::debug!(%error, "nothing from the cache");
                None
            }
        };
        let value = read.await?;
        if let (Some(lease), Some(value)) = (lease, &value) {
            let json = serde_json::to_string(value).expect("what is answered as JSON can be written as JSON");
            let mut fill = FILL.prepare_invoke();
            fill.key(&key).arg(lease).arg(format!("v{json}")).arg(kind.life.as_secs());
            let _: RedisResult<()> = fill.invoke_async(&mut redis).await;
        }
        Ok(value)
    }

    /// Runs `write`, before and after which nothing from before it stays under these keys.
    pub async fn around<T>(&self, keys: &[(Kind, &str)], write: impl Future<Output = T>) -> T {
        let Some(redis) = self.redis.clone() else { return write.await };
        let mut block = redis::pipe();
        let mut clear = redis::pipe();
        for (kind, id) in keys {
            let key = key(*kind, id);
            let life = LEASE.as_millis().try_into().unwrap_or(u64::MAX);
            block.cmd("SET").arg(&key).arg("l").arg("PX").arg::<u64>(life).ignore();
            clear.del(key).ignore();
        }
        let blocked: RedisResult<()> = block.query_async(&mut redis.clone()).await;
        let done = write.await;
        let cleared: RedisResult<()> = clear.query_async(&mut redis.clone()).await;
        // One of both is enough: a lease of nobody's ends by itself.
        if blocked.is_err()
            && cleared.is_err()
            && let Ok(turn) = Arc::clone(&self.trying).try_acquire_owned()
        {
            let life = keys.iter().map(|(kind, _)| kind.life).max().unwrap_or_default();
            tokio::spawn(async move {
                let _turn = turn;
                let _ = tokio::time::timeout(life, clear_at_last(redis, clear)).await;
            });
        }
        done
    }
}

async fn lease(redis: &mut Redis, key: &str) -> Option<String> {
    let lease = format!("l{:032x}", rand::random::<u128>());
    let mut take = redis::cmd("SET");
    take.arg(key).arg(&lease).arg("NX").arg("PX").arg(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX));
    let taken: RedisResult<Option<String>> = take.query_async(redis).await;
    taken.ok().flatten().map(|_| lease)
}

async fn clear_at_last(mut redis: Redis, clear: redis::Pipeline) {
    while clear.query_async::<()>(&mut redis).await.is_err() {
        tokio::time::sleep(AGAIN).await;
    }
}

fn key(kind: Kind, id: &str) -> String {
    format!("{}:{id}", kind.prefix)
}
