//! What this process remembers about tokens, for a bounded time and a bounded number of them.
//!
//! Known and unknown tokens are kept apart: whoever invents tokens by the million fills the small memory of unknown
//! ones and displaces nobody's session. Least recently used goes first in both.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, SystemTime},
};

use lru::LruCache;
use parking_lot::Mutex;

use super::{session::Session, token::Digest};

/// An unknown token may become known (a login on another edge): it is asked for again after a moment.
const UNKNOWN_TTL: Duration = Duration::from_secs(1);

/// Of the memory for sessions, so much again for unknown tokens.
const UNKNOWN_SHARE: usize = 8;

/// Locks of one memory; requests of different tokens rarely meet.
const SHARDS: usize = 16;

#[derive(Debug)]
pub(super) struct Memory {
    known: Sharded<Answer>,
    unknown: Sharded<Answer>,
}

/// What a source said of a token.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    /// When it was asked.
    pub(super) asked_at: SystemTime,
    /// From when on the source itself would say otherwise.
    pub(super) until: Option<SystemTime>,
    /// Whose it is.
    pub(super) session: Option<Arc<Session>>,
}

impl Memory {
    pub(super) fn new(entries: usize) -> Self {
        Self { known: Sharded::new(entries), unknown: Sharded::new(entries / UNKNOWN_SHARE) }
    }

    /// What is remembered of `token`, however old.
    pub(super) fn get(&self, token: &Digest) -> Option<Answer> {
        self.known.get(token).or_else(|| self.unknown.get(token))
    }

    /// Remembers an answer.
    pub(super) fn put(&self, token: Digest, answer: Answer) {
        self.forget(&token);
        let memory = if answer.session.is_some() { &self.known } else { &self.unknown };
        memory.put(token, answer);
    }

    pub(super) fn forget(&self, token: &Digest) {
        self.known.forget(token);
        self.unknown.forget(token);
    }

    pub(super) fn forget_all(&self) {
        self.known.forget_all();
        self.unknown.forget_all();
    }
}

impl Answer {
    /// Whether it is young enough to be believed by its age, of which there may be `ttl`. One from the future is not: the clock
    /// was set back, its age is anybody's guess.
    pub(super) fn is_young(&self, ttl: Duration, now: SystemTime) -> bool {
        let ttl = if self.session.is_some() { ttl } else { UNKNOWN_TTL.min(ttl) };
        now.duration_since(self.asked_at).is_ok_and(|age| age < ttl)
    }

    /// Whose token it is now; both the session and its key may have ended since.
    pub(super) fn at(&self, now: SystemTime) -> Option<Arc<Session>> {
        Session::current(self.session.clone().filter(|_| self.until.is_none_or(|until| now < until)), now)
    }
}

#[derive(Debug)]
struct Sharded<T>(Box<[Mutex<LruCache<Digest, T>>]>);

impl<T: Clone> Sharded<T> {
    fn new(entries: usize) -> Self {
        let shards = entries.clamp(1, SHARDS);
        let each = NonZeroUsize::new(entries / shards).unwrap_or(NonZeroUsize::MIN);
        Self((0..shards).map(|_| Mutex::new(LruCache::sparse(each))).collect())
    }

    fn shard(&self, token: &Digest) -> &Mutex<LruCache<Digest, T>> {
        &self.0[token.spread(self.0.len())]
    }

    fn get(&self, token: &Digest) -> Option<T> {
        self.shard(token).lock().get(token).cloned()
    }

    fn put(&self, token: Digest, value: T) {
        self.shard(&token).lock().put(token, value);
    }

    fn forget(&self, token: &Digest) {
        self.shard(token).lock().pop(token);
    }

    fn forget_all(&self) {
        self.0.iter().for_each(|shard| shard.lock().clear());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn an_answer_is_over_with_its_session_or_with_its_key() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let session = Arc::new(Session::parse(r#"{"user_id":"u","expires_at":100}"#).unwrap());
        let answer = |until| Answer { asked_at: at(0), until, session: Some(Arc::clone(&session)) };
        let is_valid = |until, now| answer(until).at(at(now)).is_some();
        assert!(is_valid(None, 99) && !is_valid(None, 100));
        assert!(is_valid(Some(at(50)), 49) && !is_valid(Some(at(50)), 50));
        assert!(!is_valid(Some(at(150)), 120));
    }
}
