//! What this process remembers about keys (tokens, mostly), for a bounded time and a bounded number of them.
//!
//! Known and unknown keys are kept apart: whoever invents tokens by the million fills the memory of unknown ones and
//! displaces nobody's session. Least recently used goes first in both.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lru::LruCache;
use parking_lot::Mutex;

use super::{claim::No, token::Digest};

/// An unknown token may become known (a login on another edge): it is asked for again after a moment.
const UNKNOWN_TTL: Duration = Duration::from_secs(1);

/// Locks of one memory; requests of different tokens rarely meet.
const SHARDS: usize = 16;

#[derive(Debug)]
pub(super) struct Memory<T> {
    known: Sharded<Answer<T>>,
    unknown: Sharded<Answer<T>>,
}

/// What a source said of a key.
#[derive(Debug)]
pub(super) struct Answer<T> {
    /// When it was asked.
    pub(super) asked_at: SystemTime,
    /// From when on the source itself would say otherwise.
    pub(super) until: Option<SystemTime>,
    /// When its key ends; what is there may have an end of its own before that.
    pub(super) key_until: Option<SystemTime>,
    /// What is there.
    pub(super) fact: Option<Arc<T>>,
    /// What was said to there being nothing.
    pub(super) no: Option<Arc<No>>,
}

impl<T> Clone for Answer<T> {
    fn clone(&self) -> Self {
        Self { fact: self.fact.clone(), no: self.no.clone(), ..*self }
    }
}

impl<T> Memory<T> {
    /// Of so many keys with something, and so many with nothing.
    pub(super) fn new(known: usize, unknown: usize) -> Self {
        Self { known: Sharded::new(known), unknown: Sharded::new(unknown) }
    }

    /// What is remembered of `key`, however old.
    pub(super) fn get(&self, key: &Digest) -> Option<Answer<T>> {
        self.known.get(key).or_else(|| self.unknown.get(key))
    }

    /// Remembers an answer.
    pub(super) fn put(&self, key: Digest, answer: Answer<T>) {
        self.forget(&key);
        let memory = if answer.fact.is_some() { &self.known } else { &self.unknown };
        memory.put(key, answer);
    }

    pub(super) fn forget(&self, key: &Digest) {
        self.known.forget(key);
        self.unknown.forget(key);
    }

    pub(super) fn forget_all(&self) {
        self.known.forget_all();
        self.unknown.forget_all();
    }
}

impl<T> Answer<T> {
    /// Whether it is young enough to be believed by its age, of which there may be `ttl`. One from the future is not: the clock
    /// was set back, its age is anybody's guess.
    pub(super) fn is_young(&self, ttl: Duration, now: SystemTime) -> bool {
        let ttl = if self.fact.is_some() { ttl } else { UNKNOWN_TTL.min(ttl) };
        now.duration_since(self.asked_at).is_ok_and(|age| age < ttl)
    }

    /// What is there now: it may have ended since.
    pub(super) fn at(&self, now: SystemTime) -> Option<Arc<T>> {
        self.fact.clone().filter(|_| self.until.is_none_or(|until| now < until))
    }
}

#[derive(Debug)]
pub(super) struct Sharded<T>(Box<[Mutex<LruCache<Digest, T>>]>);

impl<T: Clone> Sharded<T> {
    pub(super) fn new(entries: usize) -> Self {
        let shards = entries.clamp(1, SHARDS);
        let each = NonZeroUsize::new(entries / shards).unwrap_or(NonZeroUsize::MIN);
        Self((0..shards).map(|_| Mutex::new(LruCache::sparse(each))).collect())
    }

    fn shard(&self, token: &Digest) -> &Mutex<LruCache<Digest, T>> {
        &self.0[token.spread(self.0.len())]
    }

    pub(super) fn get(&self, token: &Digest) -> Option<T> {
        self.shard(token).lock().get(token).cloned()
    }

    pub(super) fn put(&self, token: Digest, value: T) {
        self.shard(&token).lock().put(token, value);
    }

    pub(super) fn forget(&self, token: &Digest) {
        self.shard(token).lock().pop(token);
    }

    fn forget_all(&self) {
        self.0.iter().for_each(|shard| shard.lock().clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_over_with_its_key() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let answer =
            |until| Answer { asked_at: at(0), until, key_until: until, fact: Some(Arc::new(())), no: None };
        assert!(answer(None).at(at(1 << 40)).is_some());
        assert!(answer(Some(at(50))).at(at(49)).is_some() && answer(Some(at(50))).at(at(50)).is_none());
    }
}
