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
    known: Sharded<(SystemTime, Arc<Session>)>,
    unknown: Sharded<SystemTime>,
    ttl: Duration,
}

impl Memory {
    pub(super) fn new(entries: usize, ttl: Duration) -> Self {
        Self { known: Sharded::new(entries), unknown: Sharded::new(entries / UNKNOWN_SHARE), ttl }
    }

    /// The answer to `token` if one is still believed: a session, or that there is none.
    pub(super) fn get(&self, token: &Digest, now: SystemTime) -> Option<Option<Arc<Session>>> {
        if let Some((asked_at, session)) = self.known.get(token) {
            return believed(asked_at, self.ttl, now).then(|| Session::current(Some(session), now));
        }
        let asked_at = self.unknown.get(token)?;
        believed(asked_at, UNKNOWN_TTL.min(self.ttl), now).then_some(None)
    }

    /// Remembers the answer to a question asked at `asked_at`.
    pub(super) fn put(&self, token: Digest, session: Option<Arc<Session>>, asked_at: SystemTime) {
        self.forget(&token);
        match session {
            Some(session) => self.known.put(token, (asked_at, session)),
            None => self.unknown.put(token, asked_at),
        }
    }

    pub(super) fn forget(&self, token: &Digest) {
        self.known.forget(token);
        self.unknown.forget(token);
    }
}

/// Whether an answer is young enough. One from the future is not: the clock was set back, its age is anybody's guess.
fn believed(asked_at: SystemTime, ttl: Duration, now: SystemTime) -> bool {
    now.duration_since(asked_at).is_ok_and(|age| age < ttl)
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
}
