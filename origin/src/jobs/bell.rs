//! Wakes a worker when something was queued, so that a mail goes at once and the table need not be asked all the time.
//!
//! Within a process directly; across processes through a list in Redis of at most one ring. It says only that there is something: what
//! there is stands in the table, which is asked every `--job-poll` anyway. A ring that is lost, with Redis or without it, costs that long.

use std::time::Duration;

use redis::{AsyncCommands, RedisResult};
use tokio::{sync::Notify, time::sleep};

use crate::fleet::Redis;

/// The list.
const KEY: &str = "jobs:bell";

/// Rings, and waits for rings.
#[derive(Default)]
pub struct Bell {
    here: Notify,
    rung: Option<Redis>,
    heard: Option<Redis>,
}

impl Bell {
    /// For those who queue: workers in this process hear it, and through this Redis those elsewhere.
    #[must_use]
    pub fn rung_through(redis: Option<Redis>) -> Self {
        Self { rung: redis, ..Self::default() }
    }

    /// For a worker's own process: it hears those who queue elsewhere, by a connection that nobody else waits behind. `longest` is that
    /// of its waits.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn heard_through(url: &str, longest: Duration) -> RedisResult<Self> {
        let redis = Redis::waiting(url, longest)?;
        Ok(Self { heard: Some(redis), ..Self::default() })
    }

    /// Something was queued.
    pub async fn ring(&self) {
        self.here.notify_one();
        let Some(mut redis) = self.rung.clone() else { return };
        let mut ring = redis::pipe();
        ring.rpush(KEY, 1).ignore().ltrim(KEY, 0, 0).ignore();
        let rung: RedisResult<()> = ring.query_async(&mut redis).await;
        if let Err(error) = rung {
            tracing::debug!(%error, "not rung: the table is asked soon");
        }
    }

    /// Until a ring, for `longest` at most.
    pub async fn wait(&self, longest: Duration) {
        let elsewhere = async {
            let Some(mut redis) = self.heard.clone() else { return sleep(longest).await };
            let heard: RedisResult<Option<(String, String)>> = redis.blpop(KEY, longest.as_secs_f64()).await;
            if heard.is_err() {
                sleep(longest).await;
            }
        };
        tokio::select! {
            () = self.here.notified() => {}
            () = elsewhere => {}
        }
    }
}
