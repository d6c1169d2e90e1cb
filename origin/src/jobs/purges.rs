//! Tells the edges to forget what a worker has changed: nobody asked for that, so that no answer could say it.
//!
//! Edges that share a Redis hear each other's purges from a stream there, and whoever else shares it may write to it, too: a word
//! is an entry with one field, `h` (hard), whose value is a letter for the kind of what is named, and its name; `n` is a tag, as answers
//! have it in `Cache-Tag`. The edge's DESIGN.md ("How does an edge hear of the purges of others?") has the rest. A purge may come twice,
//! which ends nothing more; and what it says is heard by edges that are away for a while, too.

use std::time::Duration;

use redis::RedisResult;
use uuid::Uuid;

use crate::{
    database::{Scope, mark},
    fleet::Redis,
    items,
};

/// Words that the stream keeps at least, as edges have it: who misses more forgets everything.
const LENGTH: usize = 100_000;

/// The way to the edges.
pub struct Purges {
    redis: Redis,
    stream: String,
    replica_lag: Duration,
}

impl Purges {
    /// Through the edges' Redis, where the names of their keys begin with `prefix`; replicas lag for `replica_lag` at most.
    #[must_use]
    pub fn new(redis: Redis, prefix: &str, replica_lag: Duration) -> Self {
        Self { redis, stream: format!("{prefix}purges"), replica_lag }
    }

    /// Ends what edges keep of a user's vault.
    ///
    /// # Errors
    /// When Redis did not confirm it.
    pub async fn tell(&self, user: Uuid) -> RedisResult<()> {
        // First, so that nobody who comes behind the purge reads from a replica what was before.
        mark(&self.redis, Scope::Of(user), self.replica_lag).await?;
        let mut add = redis::cmd("XADD");
        add.arg(&self.stream).arg("MAXLEN").arg("~").arg(LENGTH).arg("*");
        add.arg("h").arg(format!("n{}", items::tag(user)));
        add.exec_async(&mut self.redis.clone()).await
    }
}
