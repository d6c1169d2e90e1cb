//! How often one may guess: failed logins are counted for each account from each address, for each address, and for each account.
//!
//! An attempt is charged before its password is looked at, and given back when it was right: guesses that are sent at once
//! count all the same. An address that nobody has registered is counted like any other, so that the answer does not tell it. With Redis
//! the fleet counts together; without, or while it is away, each instance counts alone.
//! What this leaves: whoever knows an e-mail address, and has ten addresses of their own, can keep its owner from logging in for a window
//! at a time; sessions go on.

use std::{
    num::NonZeroUsize,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lru::LruCache;
use redis::{RedisResult, Script};
use sha2::{Digest, Sha256};

use crate::{config::ThrottleConfig, fleet::Redis, refusal::Refusal};

/// Counters of this instance; the least recently used is forgotten first.
const COUNTERS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");

/// Counts one less where there is a counter: a window that ended meanwhile must not leave one without an end.
static REFUND: LazyLock<Script> = LazyLock::new(|| {
    Script::new("if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECR', KEYS[1]) end")
});

/// Counts attempts.
pub struct Throttle {
    redis: Option<Redis>,
    window: Duration,
    pair_most: u32,
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
    pub fn new(config: &ThrottleConfig, redis: Option<Redis>) -> Self {
        Self {
            redis,
            window: config.login_window,
            pair_most: config.login_tries.get(),
            account_most: config.login_tries_account.get(),
            address_most: config.login_tries_address.get(),
            alone: Mutex::new(LruCache::new(COUNTERS)),
        }
    }

    /// Charges an attempt on `account`, and on the client's address as the edge gives it in `X-Real-IP`.
    ///
    /// # Errors
    /// 429 when either had too many within the window.
    pub async fn charge(&self, account: &str, headers: &HeaderMap, now: Instant) -> Result<Attempt, Refusal> {
        let address = headers.get("x-real-ip").and_then(|value| value.to_str().ok());
        let pair = format!("{} {account}", address.unwrap_or_default());
        let counters = [
            // Without an edge in front nobody says where a request comes from.
            address.map(|address| (key("address", address), self.address_most)),
            Some((key("account", account), self.account_most)),
            Some((key("pair", &pair), self.pair_most)),
        ];
        let mut attempt = Attempt(Vec::new());
        for (key, most) in counters.into_iter().flatten() {
            if self.add(&key, now).await > most {
                // What is not looked at is no guess: nothing fills up by knocking at a closed door.
                self.refund(attempt).await;
                return Err(Refusal::TooMany(self.window.as_secs()));
            }
            attempt.0.push(key);
        }
        Ok(attempt)
    }

    /// Gives an attempt back that succeeded.
    pub async fn refund(&self, attempt: Attempt) {
        if let Some(redis) = &self.redis {
            for key in &attempt.0 {
                // At worst a success counts as a failure.
                let _: RedisResult<()> = REFUND.key(key).invoke_async(&mut redis.clone()).await;
            }
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

    /// Two of a pair, three of an account, four of an address.
    fn throttle() -> Throttle {
        let config = ThrottleConfig {
            login_window: Duration::from_secs(900),
            login_tries: 2.try_into().unwrap(),
            login_tries_account: 3.try_into().unwrap(),
            login_tries_address: 4.try_into().unwrap(),
        };
        Throttle::new(&config, None)
    }

    fn from(address: &str) -> HeaderMap {
        HeaderMap::from_iter([("x-real-ip".parse().unwrap(), address.parse().unwrap())])
    }

    #[tokio::test]
    async fn failures_of_an_account_from_an_address_are_bounded_within_the_window() {
        let (throttle, here, now) = (throttle(), from("192.0.2.1"), Instant::now());
        for _ in 0..2 {
            let _failed = throttle.charge("ada", &here, now).await.unwrap();
        }
        for _ in 0..9 {
            let refused = throttle.charge("ada", &here, now).await.unwrap_err();
            assert!(matches!(refused, Refusal::TooMany(900)));
        }
        let _her_own = throttle.charge("ada", &from("192.0.2.2"), now).await.unwrap();
        let _other = throttle.charge("eve", &here, now).await.unwrap();
        let _again = throttle.charge("ada", &here, now + Duration::from_secs(900)).await.unwrap();
    }

    #[tokio::test]
    async fn failures_of_an_account_are_bounded_over_all_addresses() {
        let (throttle, now) = (throttle(), Instant::now());
        for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            let _failed = throttle.charge("ada", &from(address), now).await.unwrap();
        }
        throttle.charge("ada", &from("192.0.2.4"), now).await.unwrap_err();
        let _other = throttle.charge("eve", &from("192.0.2.4"), now).await.unwrap();
    }

    #[tokio::test]
    async fn failures_of_an_address_are_bounded_over_all_accounts() {
        let (throttle, here, now) = (throttle(), from("192.0.2.1"), Instant::now());
        for account in ["a", "b", "c", "d"] {
            let _failed = throttle.charge(account, &here, now).await.unwrap();
        }
        throttle.charge("e", &here, now).await.unwrap_err();
        let _other = throttle.charge("e", &from("192.0.2.2"), now).await.unwrap();
    }

    #[tokio::test]
    async fn successes_do_not_count() {
        let (throttle, here, now) = (throttle(), from("192.0.2.1"), Instant::now());
        for _ in 0..9 {
            let attempt = throttle.charge("ada", &here, now).await.unwrap();
            throttle.refund(attempt).await;
        }
    }
}
