//! From a token to its session: memory, then one lookup at a time, then memory again.
//!
//! - A token that many requests bring at once is looked up once; the others wait for that answer. Whoever started the
//!   lookup may go away, the rest carry it on.
//! - A lookup that was overtaken by [`Sessions::forget`] still answers those who already wait, since they asked
//!   before, but its answer is not remembered: it may have been read before the change.
//! - A source that fails is not remembered either; who is in memory stays known for what is left of their time.
//!
//! How long memory is believed: of a Redis that tells what changes, as long as it can be heard ([`super::tracking`]); of
//! another source for `memory_ttl`, so long a session revoked elsewhere lives here unless somebody calls `forget`.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, WeakShared},
};
use parking_lot::Mutex;
use weir_config::plan;

use super::{
    memory::{self, Memory},
    session::Session,
    source::{Source, Unavailable},
    token::{Digest, Token},
    tracking::{self, Hearing, Keys, Remembers, Trust},
};

type Answer = Result<Option<Arc<Session>>, Unavailable>;

/// Weak, so that a lookup whose waiters have all gone is dropped instead of being finished much later.
type Lookup = WeakShared<BoxFuture<'static, Answer>>;

/// The sessions of one source.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    name: Arc<str>,
    source: Source,
    memory: Memory,
    /// How long an answer is believed by its age alone.
    ttl: Duration,
    /// Of a Redis that tells what changes.
    hearing: Option<Hearing>,
    when_down: WhenDown,
    /// Lookups under way, each with a number of its own.
    lookups: Mutex<HashMap<Digest, (u64, Lookup)>>,
    next: AtomicU64,
    /// The source did not answer the last time it was asked.
    is_down: AtomicBool,
    /// When that was, and why.
    failed: Mutex<Option<(Instant, Unavailable)>>,
}

/// What happens while Redis does not answer.
#[derive(Debug, Default)]
struct WhenDown {
    /// So long who is remembered stays known.
    serve_known_for: Duration,
    /// Who is asked about the others.
    ask: Option<Sessions>,
}

/// A Redis that has just failed is not asked again at once: each question would wait as long.
const REST: Duration = Duration::from_millis(100);

impl Inner {
    fn new(name: Arc<str>, source: Source, entries: usize, ttl: Duration) -> Self {
        Self {
            name,
            source,
            memory: Memory::new(entries),
            ttl,
            hearing: None,
            when_down: WhenDown::default(),
            lookups: Mutex::default(),
            next: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            failed: Mutex::default(),
        }
    }

    /// What is remembered and believed.
    fn known(&self, token: &Digest, now: SystemTime) -> Option<Option<Arc<Session>>> {
        let answer = self.memory.get(token)?;
        let is_believed = match self.trust() {
            Trust::Full => true,
            Trust::ByAge => answer.is_young(self.ttl, now),
            // Who would have to be asked does not answer.
            Trust::Since(silence) => self.is_down.load(Ordering::Relaxed) && self.outlasts(&answer, silence),
        };
        is_believed.then(|| answer.at(now))
    }

    /// What was true when Redis was last heard, if that may still count.
    fn known_before(&self, token: &Digest, now: SystemTime) -> Option<Option<Arc<Session>>> {
        let Trust::Since(silence) = self.trust() else { return None };
        let answer = self.memory.get(token).filter(|answer| self.outlasts(answer, silence))?;
        Some(answer.at(now))
    }

    /// Whether an answer counts although Redis was silent for so long. That there is no session is true for a moment only.
    fn outlasts(&self, answer: &memory::Answer, silence: Duration) -> bool {
        answer.session.is_some() && silence <= self.when_down.serve_known_for
    }

    fn trust(&self) -> Trust {
        self.hearing.as_ref().map_or(Trust::ByAge, |hearing| hearing.trust(Instant::now()))
    }

    /// Why a Redis need not be asked now.
    fn rests(&self) -> Option<Unavailable> {
        let failed = self.failed.lock();
        let (at, problem) = failed.as_ref()?;
        let rests = self.is_down.load(Ordering::Relaxed) && at.elapsed() < REST;
        (rests && matches!(self.source, Source::Redis(_))).then(|| problem.clone())
    }

    /// Tells the operator when the source stops answering, and when it is back.
    fn note<T>(&self, answer: Result<T, Unavailable>) -> Result<T, Unavailable> {
        let was_down = self.is_down.swap(answer.is_err(), Ordering::Relaxed);
        if let Err(problem) = &answer {
            *self.failed.lock() = Some((Instant::now(), problem.clone()));
        }
        match &answer {
            Err(problem) if !was_down => {
                tracing::warn!(session = %self.name, cause = %problem.cause, "sessions cannot be looked up");
            }
            Ok(_) if was_down => tracing::info!(session = %self.name, "sessions can be looked up again"),
            _ => {}
        }
        answer
    }
}

impl Remembers for Inner {
    fn forget(&self, token: Digest) {
        // Under this lock a lookup cannot be between its check and its memory.
        let mut lookups = self.lookups.lock();
        lookups.remove(&token);
        self.memory.forget(&token);
    }

    fn forget_all(&self) {
        let mut lookups = self.lookups.lock();
        lookups.clear();
        self.memory.forget_all();
    }

    fn hearing(&self) -> Option<&Hearing> {
        self.hearing.as_ref()
    }
}

impl Sessions {
    /// Sessions of `plan`, asked of `source`; `ask` is asked when that is a Redis that does not answer.
    ///
    /// Shape:  must be called within a tokio runtime.
    #[must_use]
    pub fn new(plan: &plan::Session, source: Source, ask: Option<Source>) -> Self {
        let (name, entries, ttl) = (&plan.name, plan.memory_entries, plan.memory_ttl);
        let tracked = match &source {
            // Without memory there is nothing to keep true.
            Source::Redis(source) if !ttl.is_zero() => Some((source.redis.clone(), Keys::of(&source.key))),
            Source::Redis(_) | Source::Ask { .. } => None,
        };
        let mut inner = Inner::new(Arc::clone(name), source, entries, ttl);
        inner.hearing = tracked.is_some().then(|| Hearing::new(plan.staleness, Instant::now()));
        inner.when_down = WhenDown {
            serve_known_for: plan.serve_known_for,
            ask: ask.map(|ask| Self(Arc::new(Inner::new(Arc::clone(name), ask, entries, ttl)))),
        };
        let inner = Arc::new(inner);
        if let Some((redis, keys)) = tracked {
            let (name, to) = (Arc::clone(name), Arc::downgrade(&inner));
            tokio::spawn(async move { tracking::listen(&name, redis, keys, to).await });
        }
        Self(inner)
    }

    /// Whether the source answered the last time it was asked; before the first time, yes.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.0.is_down.load(Ordering::Relaxed)
    }

    /// What memory knows: `None` when the source has to be asked, `Some(None)` for a token that is surely invalid.
    #[must_use]
    pub fn known(&self, token: &Token, now: SystemTime) -> Option<Option<Arc<Session>>> {
        self.0.known(&token.digest(), now)
    }

    /// The session of `token`, from memory or from the source; `None` where there is no valid one.
    ///
    /// Errors: [`Unavailable`] when memory does not know and the source does not answer.
    pub async fn validate(
        &self,
        token: &Token,
        now: SystemTime,
    ) -> Result<Option<Arc<Session>>, Unavailable> {
        let digest = token.digest();
        if let Some(known) = self.0.known(&digest, now) {
            return Ok(known);
        }
        match self.lookup(digest, token, now).await {
            Ok(session) => Ok(Session::current(session, now)),
            Err(unavailable) => match (self.0.known_before(&digest, now), &self.0.when_down.ask) {
                (Some(known), _) => Ok(known),
                (None, Some(ask)) => Box::pin(ask.validate(token, now)).await,
                (None, None) => Err(unavailable),
            },
        }
    }

    /// Forgets a token at once: after a logout, or when somebody else says that it changed.
    pub fn forget(&self, token: Digest) {
        self.0.forget(token);
        if let Some(ask) = &self.0.when_down.ask {
            ask.forget(token);
        }
    }

    /// Joins the lookup of this token, or starts one.
    fn lookup(&self, digest: Digest, token: &Token, now: SystemTime) -> impl Future<Output = Answer> + use<> {
        let mut lookups = self.0.lookups.lock();
        if let Some(lookup) = lookups.get(&digest).and_then(|(_, lookup)| lookup.upgrade()) {
            return lookup;
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { inner: Arc::clone(&self.0), digest, number };
        let lookup = entry.run(token.clone(), now).boxed().shared();
        if let Some(weak) = lookup.downgrade() {
            lookups.insert(digest, (number, weak));
        }
        lookup
    }
}

/// One lookup's place among those under way; given up when the lookup ends or is dropped.
struct Entry {
    inner: Arc<Inner>,
    digest: Digest,
    number: u64,
}

impl Entry {
    async fn run(self, token: Token, asked_at: SystemTime) -> Answer {
        if let Some(problem) = self.inner.rests() {
            return Err(problem);
        }
        let held = self.inner.note(self.inner.source.look_up(&token).await)?;
        let until = held.as_ref().and_then(|held| asked_at.checked_add(held.left?));
        let session = held.and_then(|held| match Session::parse(&held.json) {
            Ok(session) => Some(Arc::new(session)),
            Err(_) => {
                tracing::warn!(session = %self.inner.name, "what the source holds under a token is not a session");
                None
            }
        });
        let lookups = self.inner.lookups.lock();
        if lookups.get(&self.digest).is_some_and(|(number, _)| *number == self.number) {
            self.inner.memory.put(self.digest, memory::Answer { asked_at, until, session: session.clone() });
        }
        drop(lookups);
        Ok(session)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut lookups = self.inner.lookups.lock();
        if lookups.get(&self.digest).is_some_and(|(number, _)| *number == self.number) {
            lookups.remove(&self.digest);
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("name", &self.name)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::auth::source::Ask;

    /// Knows what `tokens` knows, answers once per permit, and counts.
    #[derive(Debug)]
    struct Origin {
        tokens: Mutex<HashMap<String, String>>,
        permits: Semaphore,
        asked: AtomicUsize,
        down: Mutex<bool>,
    }

    #[async_trait::async_trait]
    impl Ask for Origin {
        async fn ask(&self, path: &str, token: &Token) -> Result<Option<String>, Unavailable> {
            assert_eq!(path, "/me");
            self.asked.fetch_add(1, Ordering::Relaxed);
            // Read before the wait, as a slow answer is.
            let answer = self.tokens.lock().get(token.expose()).cloned();
            self.permits.acquire().await.unwrap().forget();
            if *self.down.lock() { Err(Unavailable::new("down")) } else { Ok(answer) }
        }
    }

    fn origin(permits: usize) -> (Arc<Origin>, Sessions) {
        let json = r#"{"user_id":"u","expires_at":1000}"#;
        let origin = Arc::new(Origin {
            tokens: Mutex::new([("good".to_owned(), json.to_owned())].into()),
            permits: Semaphore::new(permits),
            asked: AtomicUsize::new(0),
            down: Mutex::new(false),
        });
        let source = Source::Ask { ask: Arc::clone(&origin) as Arc<dyn Ask>, path: "/me".into() };
        let inner = Inner::new("users".into(), source, 64, Duration::from_secs(30));
        let sessions = Sessions(Arc::new(inner));
        (origin, sessions)
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn token(text: &str) -> Token {
        Token::parse(text.as_bytes()).unwrap()
    }

    async fn valid(sessions: &Sessions, text: &str, now: u64) -> bool {
        sessions.validate(&token(text), at(now)).await.unwrap().is_some()
    }

    #[tokio::test]
    async fn an_answer_is_believed_for_its_time_and_no_longer() {
        let (origin, sessions) = origin(9);
        assert!(valid(&sessions, "good", 0).await && valid(&sessions, "good", 29).await);
        assert_eq!(origin.asked.load(Ordering::Relaxed), 1);
        assert!(valid(&sessions, "good", 30).await);
        assert_eq!(origin.asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_session_is_over_at_its_own_end_even_in_memory() {
        let (_, sessions) = origin(9);
        assert!(valid(&sessions, "good", 990).await);
        assert_eq!(sessions.known(&token("good"), at(1000)), Some(None));
        assert!(!valid(&sessions, "good", 1000).await);
        assert!(!valid(&sessions, "good", 2000).await);
    }

    #[tokio::test]
    async fn an_unknown_token_is_unknown_for_a_moment_only() {
        let (origin, sessions) = origin(9);
        assert!(!valid(&sessions, "new", 0).await && !valid(&sessions, "new", 0).await);
        assert_eq!(origin.asked.load(Ordering::Relaxed), 1);
        origin.tokens.lock().insert("new".into(), r#"{"user_id":"n"}"#.into());
        assert!(valid(&sessions, "new", 1).await);
    }

    #[tokio::test]
    async fn invented_tokens_displace_no_session() {
        let (_, sessions) = origin(2000);
        assert!(valid(&sessions, "good", 0).await);
        for number in 0..1000 {
            assert!(!valid(&sessions, &format!("bad{number}"), 0).await);
        }
        assert!(sessions.known(&token("good"), at(0)).is_some());
    }

    #[tokio::test]
    async fn many_requests_of_one_token_ask_once_and_outlive_the_first() {
        let (origin, sessions) = origin(0);
        let good = token("good");
        let mut first = Box::pin(sessions.validate(&good, at(0)));
        assert!(futures_util::poll!(&mut first).is_pending());
        let mut others: Vec<_> = (0..20).map(|_| Box::pin(sessions.validate(&good, at(0)))).collect();
        for other in &mut others {
            assert!(futures_util::poll!(other).is_pending());
        }
        drop(first);
        origin.permits.add_permits(1);
        for other in others {
            assert!(other.await.unwrap().is_some());
        }
        assert_eq!(origin.asked.load(Ordering::Relaxed), 1);
        assert!(sessions.0.lookups.lock().is_empty());
    }

    #[tokio::test]
    async fn an_abandoned_lookup_leaves_nothing_behind() {
        let (_, sessions) = origin(0);
        let good = token("good");
        let mut only = Box::pin(sessions.validate(&good, at(0)));
        assert!(futures_util::poll!(&mut only).is_pending());
        drop(only);
        assert!(sessions.0.lookups.lock().is_empty());
    }

    #[tokio::test]
    async fn a_forgotten_token_is_asked_for_again() {
        let (origin, sessions) = origin(9);
        assert!(valid(&sessions, "good", 0).await);
        origin.tokens.lock().clear();
        sessions.forget(token("good").digest());
        assert!(!valid(&sessions, "good", 0).await);
    }

    #[tokio::test]
    async fn a_lookup_that_raced_a_logout_is_not_remembered() {
        let (origin, sessions) = origin(0);
        let good = token("good");
        let mut before = Box::pin(sessions.validate(&good, at(0)));
        assert!(futures_util::poll!(&mut before).is_pending());
        origin.tokens.lock().clear();
        sessions.forget(good.digest());
        let mut after = Box::pin(sessions.validate(&good, at(0)));
        assert!(futures_util::poll!(&mut after).is_pending());
        origin.permits.add_permits(2);
        assert!(before.await.unwrap().is_some(), "asked before the logout");
        assert!(after.await.unwrap().is_none(), "asked after it");
        assert_eq!(sessions.known(&good, at(0)), Some(None));
    }

    #[tokio::test]
    async fn a_source_that_is_down_lets_nobody_new_in_and_knows_the_known() {
        let (origin, sessions) = origin(9);
        assert!(valid(&sessions, "good", 0).await);
        *origin.down.lock() = true;
        assert!(valid(&sessions, "good", 29).await);
        assert!(sessions.validate(&token("good"), at(30)).await.is_err());
        *origin.down.lock() = false;
        assert!(valid(&sessions, "good", 30).await, "a failure is not remembered");
    }

    #[tokio::test]
    async fn what_is_not_a_session_lets_nobody_in() {
        let (origin, sessions) = origin(9);
        origin.tokens.lock().insert("odd".into(), "[]".into());
        assert!(!valid(&sessions, "odd", 0).await);
    }
}
