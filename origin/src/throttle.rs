//! How often one may guess: failed logins are counted for each account and for each address.
//!
//! An attempt is charged before its password is looked at, and given back when it was right: guesses that are sent at once
//! count all the same. An address that nobody has registered is counted like any other, so that the answer does not tell it. With Redis
//! the fleet counts together; without, or while it is away, each instance counts alone.
//! What this leaves: whoever knows an e-mail address can keep its owner from logging in for a window at a time; sessions go on.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lru::LruCache;
use redis::aio::ConnectionManager;
use sha2::{Digest, Sha256};

use crate::{config::ThrottleConfig, refusal::Refusal};

/// Counters of this instance; the least recently used is forgotten first.
const COUNTERS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Counts attempts.
pub struct Throttle {
    redis: Option<ConnectionManager>,
    window: Duration,
    account_most: u32,
    address_most: u32,
    alone: Mutex<LruCache<String, Counter>>,
}

#[derive(Debug, Clone, Copy)]
struct Counter {
    count: u32,
    until: Instant,
}

/// A charged attempt: give it back when it succeeded.
#[derive(Debug)]
#[must_use]
pub struct Attempt(Vec<String>);

impl Throttle {
    /// Counts in Redis where there is one.
    #[must_use]
    pub fn new(config: &ThrottleConfig, redis: Option<ConnectionManager>) -> Self {
        Self {
            redis,
            window: config.login_window,
            account_most: config.login_tries_account.get(),
            address_most: config.login_tries_address.get(),
            alone: Mutex::new(LruCache::new(COUNTERS)),
        }
    }

    /// Charges an attempt on `account`, and on the client's address as the edge gives it in `X-Real-IP`.
    ///
    /// # Errors
    /// 429 when either had too many within the window; it is charged all the same.
    pub async fn charge(&self, account: &str, headers: &HeaderMap, now: Instant) -> Result<Attempt, Refusal> {
        let mut keys = vec![(key("account", account), self.account_most)];
        if let Some(address) = headers.get("x-real-ip").and_then(|value| value.to_str().ok()) {
            keys.push((key("address", address), self.address_most));
        }
        let mut over = false;
        for (key, most) in &keys {
            over |= self.add(key, now).await > *most;
        }
        if over {
            return Err(Refusal::TooMany(self.window.as_secs()));
        }
        Ok(Attempt(keys.into_iter().map(|(key, _)| key).collect()))
    }

    /// Gives an attempt back that succeeded.
    pub async fn refund(&self, attempt: Attempt) {
        if let Some(redis) = &self.redis {
            let mut batch = redis::pipe();
            for key in &attempt.0 {
                batch.decr(key, 1).ignore();
            }
            // At worst a success counts as a failure.
            let _: redis::RedisResult<()> = batch.query_async(&mut redis.clone()).await;
        }
        let mut alone = self.alone();
        for key in &attempt.0 {
            if let Some(counter) = alone.peek_mut(key) {
                counter.count = counter.count.saturating_sub(1);
            }
        }
    }

    /// Counts one more, and says how many there are within the window.
    async fn add(&self, key: &str, now: Instant) -> u32 {
        let alone = self.add_alone(key, now);
        let Some(redis) = &self.redis else { return alone };
        // The key is made with its expiry, in one step: a counter without one would never forget.
        let mut batch = redis::pipe();
        batch.atomic();
        batch.cmd("SET").arg(key).arg(0).arg("EX").arg(self.window.as_secs()).arg("NX").ignore();
        batch.incr(key, 1);
        match batch.query_async::<(i64,)>(&mut redis.clone()).await {
            Ok((together,)) => alone.max(u32::try_from(together).unwrap_or(0)),
            Err(error) => {
                tracing::debug!(%error, "attempts are counted here alone");
                alone
            }
        }
    }

    fn add_alone(&self, key: &str, now: Instant) -> u32 {
        let mut alone = self.alone();
        let fresh = || Counter { count: 0, until: now + self.window };
        let counter = alone.get_or_insert_mut(key.to_owned(), fresh);
        if counter.until <= now {
            *counter = fresh();
        }
        counter.count = counter.count.saturating_add(1);
        counter.count
    }

    fn alone(&self) -> MutexGuard<'_, LruCache<String, Counter>> {
        // Whoever panicked with it locked had counted or not.
        self.alone.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Throttle(…)")
    }
}

/// Hashed: of bounded length, and no list of addresses in Redis.
fn key(kind: &str, who: &str) -> String {
    format!("throttle:{kind}:{}", URL_SAFE_NO_PAD.encode(Sha256::digest(who)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn throttle() -> Throttle {
        let config = ThrottleConfig {
            login_window: Duration::from_secs(900),
            login_tries_account: 2.try_into().unwrap(),
            login_tries_address: 3.try_into().unwrap(),
        };
        Throttle::new(&config, None)
    }

    #[tokio::test]
    async fn failures_of_an_account_are_bounded_within_the_window() {
        let (throttle, headers, now) = (throttle(), HeaderMap::new(), Instant::now());
        for _ in 0..2 {
            let _failed = throttle.charge("ada", &headers, now).await.unwrap();
        }
        let refused = throttle.charge("ada", &headers, now).await.unwrap_err();
        assert!(matches!(refused, Refusal::TooMany(900)));
        let _other = throttle.charge("eve", &headers, now).await.unwrap();
        let later = now + Duration::from_secs(900);
        let _again = throttle.charge("ada", &headers, later).await.unwrap();
    }

    #[tokio::test]
    async fn successes_do_not_count() {
        let (throttle, headers, now) = (throttle(), HeaderMap::new(), Instant::now());
        for _ in 0..9 {
            let attempt = throttle.charge("ada", &headers, now).await.unwrap();
            throttle.refund(attempt).await;
        }
    }

    #[tokio::test]
    async fn failures_of_an_address_are_bounded_over_all_accounts() {
        let (throttle, mut headers, now) = (throttle(), HeaderMap::new(), Instant::now());
        headers.insert("x-real-ip", "192.0.2.7".parse().unwrap());
        for account in ["a", "b", "c"] {
            let _failed = throttle.charge(account, &headers, now).await.unwrap();
        }
        throttle.charge("d", &headers, now).await.unwrap_err();
        headers.insert("x-real-ip", "192.0.2.8".parse().unwrap());
        let _other = throttle.charge("d", &headers, now).await.unwrap();
    }
}
