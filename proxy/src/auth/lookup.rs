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

/// A Redis that is silent and has just failed is not asked again at once: each question would wait as long.
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

    /// Why a Redis need not be asked now: it has just failed, and its pushes are silent, too.
    fn rests(&self) -> Option<Unavailable> {
        if !self.is_down.load(Ordering::Relaxed) || !matches!(self.trust(), Trust::Since(_)) {
            return None;
        }
        let failed = self.failed.lock();
        let (at, problem) = failed.as_ref()?;
        (at.elapsed() < REST).then(|| problem.clone())
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
mod tests;
