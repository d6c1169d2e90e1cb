//! Memory kept true by push: Redis tells every edge which of the keys it remembers has changed (RESP3 client tracking in
//! broadcast mode, by the prefix of the keys).
//!
//! - What is remembered is believed while the tracking connections are *clear*: the last beat that every master answered was
//!   begun less than `staleness` ago. Pushes and answers share a connection and its order, so an answer means that every change
//!   from before it was asked has been heard. Silence beyond `staleness`, whatever its cause, and memory is not asked. So a
//!   cluster that has lost a master is asked about every session, and answers for those that the others have.
//! - A connection that begins anew may have missed anything: all is forgotten, and lookups under way are not remembered.
//! - A Redis that knows no tracking, or forbids it, is said once; then `memory_ttl` is all that bounds what is believed.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use redis::{ErrorKind, PushInfo, PushKind, RedisError, ServerErrorKind, Value};
use weir_config::template::{Part, Template};

use super::token::{Digest, Token};
use crate::{
    causes::Causes,
    fleet::{Listener, Redis},
};

/// Beats in the time that silence is borne, so that one late answer is no silence; at least so often, so that a broken
/// connection is soon made again.
const BEATS: u32 = 5;
const SLOWEST_BEAT: Duration = Duration::from_millis(100);
/// Between two tries to connect, and between two to be told: somebody may grant the right to it.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_REFUSED: Duration = Duration::from_secs(60);

/// What hears of changes.
pub(super) trait Remembers: Send + Sync + 'static {
    /// Somebody changed, ended or made this session.
    fn forget(&self, token: Digest);
    /// Anything may have changed.
    fn forget_all(&self);
    /// How well Redis can be heard, where that counts.
    fn hearing(&self) -> Option<&Hearing>;
}

/// How well Redis can be heard.
#[derive(Debug)]
pub(super) struct Hearing {
    staleness: Duration,
    origin: Instant,
    /// When the last beat that was answered was begun, in nanoseconds from `origin`; [`NEVER`] and [`DEAF`] are none.
    at: AtomicU64,
}

const NEVER: u64 = 0;
const DEAF: u64 = u64::MAX;

/// What may be made of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It is what Redis says.
    Full,
    /// It was, so long ago.
    Since(Duration),
    /// It is as good as its age.
    ByAge,
}

impl Hearing {
    pub(super) fn new(staleness: Duration, now: Instant) -> Self {
        Self { staleness, origin: now, at: AtomicU64::new(NEVER) }
    }

    /// What memory is worth now.
    pub(super) fn trust(&self, now: Instant) -> Trust {
        match self.at.load(Ordering::Acquire) {
            NEVER => Trust::Since(Duration::MAX),
            DEAF => Trust::ByAge,
            at => match now.saturating_duration_since(self.origin + Duration::from_nanos(at)) {
                silence if silence < self.staleness => Trust::Full,
                silence => Trust::Since(silence),
            },
        }
    }

    /// A beat that was begun at `asked` was answered.
    fn heard(&self, asked: Instant) {
        let at = asked.saturating_duration_since(self.origin).as_nanos();
        self.at.store(u64::try_from(at).unwrap_or(DEAF - 1).clamp(NEVER + 1, DEAF - 1), Ordering::Release);
    }

    fn is_deaf(&self) {
        self.at.store(DEAF, Ordering::Release);
    }
}

/// The keys of sessions: what stands before and behind the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Keys {
    before: String,
    behind: String,
}

impl Keys {
    pub(super) fn of(key: &Template) -> Self {
        let (mut before, mut behind, mut is_behind) = (String::new(), String::new(), false);
        for part in key.parts() {
            match part {
                Part::Value(_) => is_behind = true,
                Part::Text(text) if is_behind => behind.push_str(text),
                Part::Text(text) => before.push_str(text),
            }
        }
        Self { before, behind }
    }

    /// Whose session is under this key; `None` for other keys with the same prefix.
    fn token(&self, key: &[u8]) -> Option<Digest> {
        let token = key.strip_prefix(self.before.as_bytes())?.strip_suffix(self.behind.as_bytes())?;
        Some(Token::parse(token)?.digest())
    }
}

/// Why a tracking connection ended.
enum Ended {
    /// Redis will not tell: tracking is unknown, or this user may not have it.
    Refused(RedisError),
    Broken(RedisError),
}

impl Ended {
    /// By what became of the connection. An error of no kind may be anything, of a server or a proxy that is just starting.
    fn connecting(problem: RedisError) -> Self {
        match problem.kind() {
            ErrorKind::Server(ServerErrorKind::NoPerm) | ErrorKind::RESP3NotSupported => {
                Self::Refused(problem)
            }
            _ => Self::Broken(problem),
        }
    }

    /// By what was answered to CLIENT TRACKING, of which a server before version 6 knows nothing.
    fn asking(problem: RedisError) -> Self {
        match problem.kind() {
            ErrorKind::Server(ServerErrorKind::ResponseError) => Self::Refused(problem),
            _ => Self::connecting(problem),
        }
    }
}

/// Listens until whoever remembers is gone; says once when Redis cannot be heard, and when it can again.
pub(super) async fn listen<R: Remembers>(name: &str, redis: Redis, keys: Keys, to: Weak<R>) {
    let mut is_told = false;
    while to.strong_count() > 0 {
        let Err(ended) = listen_once(name, &redis, &keys, &to, &mut is_told).await else { return };
        let Some(remembers) = to.upgrade() else { return };
        let was_told = std::mem::replace(&mut is_told, true);
        let pause = match ended {
            Ended::Refused(problem) => {
                remembers.hearing().into_iter().for_each(Hearing::is_deaf);
                if !was_told {
                    tracing::warn!(session = %name, cause = %Causes(&problem), "Redis cannot say when sessions change: a change is noticed after memory_ttl");
                }
                RETRY_REFUSED
            }
            Ended::Broken(problem) => {
                if !was_told {
                    tracing::warn!(session = %name, cause = %Causes(&problem), "Redis is not heard: what is remembered of sessions is believed for `staleness` more");
                }
                RETRY
            }
        };
        drop(remembers);
        tokio::time::sleep(pause).await;
    }
}

/// One tracking connection, until it breaks; without an error when nobody remembers any more.
async fn listen_once<R: Remembers>(
    name: &str,
    redis: &Redis,
    keys: &Keys,
    to: &Weak<R>,
    is_told: &mut bool,
) -> Result<(), Ended> {
    let mut listener = connect(redis, keys.clone(), to.clone()).await.map_err(Ended::connecting)?;
    let mut tracking = redis::cmd("CLIENT");
    tracking.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(&keys.before);
    listener.tell(&tracking).await.map_err(Ended::asking)?;
    // From here on every change is heard; what came before is anybody's guess.
    let Some(beat) = to.upgrade().and_then(|remembers| {
        remembers.forget_all();
        Some((remembers.hearing()?.staleness / BEATS).min(SLOWEST_BEAT))
    }) else {
        return Ok(());
    };
    loop {
        let asked = Instant::now();
        listener.beat().await.map_err(Ended::Broken)?;
        let Some(remembers) = to.upgrade() else { return Ok(()) };
        remembers.hearing().into_iter().for_each(|hearing| hearing.heard(asked));
        drop(remembers);
        if std::mem::take(is_told) {
            tracing::info!(session = %name, "Redis is heard: what is remembered of sessions is what it says");
        }
        tokio::time::sleep(beat).await;
    }
}

async fn connect<R: Remembers>(redis: &Redis, keys: Keys, to: Weak<R>) -> Result<Listener, RedisError> {
    let hear = move |push: PushInfo| {
        if push.kind == PushKind::Invalidate
            && let Some(remembers) = to.upgrade()
        {
            changed(&*remembers, &keys, &push.data);
        }
        Ok::<(), redis::aio::SendError>(())
    };
    redis.listen(Arc::new(hear)).await
}

/// Hears one push: a list of keys, or nil when the database was emptied.
fn changed<R: Remembers>(remembers: &R, keys: &Keys, data: &[Value]) {
    for value in data {
        match value {
            Value::Array(changed) => changed
                .iter()
                .filter_map(|key| match key {
                    Value::BulkString(key) => keys.token(key),
                    Value::SimpleString(key) => keys.token(key.as_bytes()),
                    _ => None,
                })
                .for_each(|token| remembers.forget(token)),
            // Not understood is not unchanged.
            _ => remembers.forget_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    #[test]
    fn memory_is_worth_what_was_heard() {
        let start = Instant::now();
        let hearing = Hearing::new(Duration::from_millis(500), start);
        assert_eq!(hearing.trust(start), Trust::Since(Duration::MAX), "nothing was heard yet");
        hearing.heard(start + Duration::from_secs(1));
        let at = |millis| hearing.trust(start + Duration::from_millis(millis));
        assert_eq!((at(1000), at(1499)), (Trust::Full, Trust::Full));
        assert_eq!(at(1500), Trust::Since(Duration::from_millis(500)));
        hearing.is_deaf();
        assert_eq!(at(1000), Trust::ByAge);
    }

    #[test]
    fn only_what_redis_cannot_or_may_not_do_makes_memory_good_for_its_age() {
        let said = |kind| RedisError::from((kind, "so"));
        let is_refused = |ended| matches!(ended, Ended::Refused(_));
        let unclear = || said(ErrorKind::Server(ServerErrorKind::ResponseError));
        let forbidden = || said(ErrorKind::Server(ServerErrorKind::NoPerm));
        assert!(is_refused(Ended::asking(unclear())), "it knows no tracking");
        assert!(!is_refused(Ended::connecting(unclear())), "anything can be wrong at the start");
        assert!(is_refused(Ended::asking(forbidden())) && is_refused(Ended::connecting(forbidden())));
        assert!(is_refused(Ended::connecting(said(ErrorKind::RESP3NotSupported))));
        for broken in [ErrorKind::Io, ErrorKind::AuthenticationFailed] {
            assert!(!is_refused(Ended::asking(said(broken))), "{broken:?}");
        }
    }

    #[test]
    fn a_key_names_its_token_and_others_none() {
        let keys = Keys::of(&"app:${token}:session".parse().unwrap());
        let token = |text: &str| Token::parse(text.as_bytes()).unwrap().digest();
        assert_eq!(keys.token(b"app:abc:session"), Some(token("abc")));
        for other in ["app:abc", "abc:session", "app::session", "app:a b:session", "app:session"] {
            assert_eq!(keys.token(other.as_bytes()), None, "{other}");
        }
    }
}
