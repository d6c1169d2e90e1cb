//! From a key (a token, mostly) to what a source holds under it: memory, then one lookup at a time, then memory again.
//!
//! - A key that many requests bring at once is looked up once; the others wait for that answer. Whoever started the
//!   lookup may go away, the rest carry it on.
//! - A lookup that was overtaken by [`Mirror::forget`] still answers those who already wait, since they asked
//!   before, but its answer is not remembered: it may have been read before the change.
//! - A source that fails is not remembered either; who is in memory stays known for what is left of their time, and as long
//!   beyond it as the plan says. A service that is down is then asked by one of them at a time, behind an answer.
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
    claim::Claim,
    memory::{Answer, Memory},
    source::{Held, LookedUp, Said, Source, Unavailable},
    token::{Digest, Token},
    touch::{self, Touches},
    tracking::{self, Hearing, Keys, Remembers, Trust},
};

type Looked<T> = Result<Answer<T>, Unavailable>;

/// Weak, so that a lookup whose waiters have all gone is dropped instead of being finished much later.
type Lookup<T> = WeakShared<BoxFuture<'static, Looked<T>>>;

/// Reads what a source holds; `None` is not what it should be.
type Reader<T> = Box<dyn Fn(Said) -> Option<Read<T>> + Send + Sync>;

/// What a source holds, read.
pub(super) struct Read<T> {
    pub(super) fact: T,
    /// When it ends, where it says so itself.
    pub(super) until: Option<SystemTime>,
}

/// What one source holds under its keys, as far as it was asked for.
pub(super) struct Mirror<T>(Arc<Inner<T>>);

struct Inner<T> {
    name: Arc<str>,
    kind: Kind<T>,
    source: Source,
    memory: Memory<T>,
    /// How long an answer is believed by its age alone.
    ttl: Duration,
    /// Of a Redis that tells what changes.
    hearing: Option<Hearing>,
    when_down: WhenDown<T>,
    touches: Option<Arc<Touches>>,
    /// Lookups under way, each with a number of its own.
    lookups: Mutex<HashMap<Digest, (u64, Lookup<T>)>>,
    next: AtomicU64,
    /// The source did not answer the last time it was asked.
    is_down: AtomicBool,
    /// When that was, and why.
    failed: Mutex<Option<(Instant, Unavailable)>>,
}

/// What is kept in a mirror.
pub(super) struct Kind<T> {
    /// For the log.
    pub(super) what: &'static str,
    pub(super) read: Reader<T>,
    /// How many keys with nothing are remembered, for each with something.
    pub(super) nothings: (usize, usize),
    /// Whether that there is nothing counts while Redis is away, as long as what is there does.
    pub(super) nothing_lasts: bool,
    /// How much longer a key lives from each use on.
    pub(super) sliding: Option<Duration>,
}

/// What happens while the source does not answer.
struct WhenDown<T> {
    /// So long who is remembered stays known.
    serve_known_for: Duration,
    /// Who is asked about the others.
    ask: Option<Mirror<T>>,
}

/// A source that is silent and has just failed is not asked again at once: each question would wait as long.
const REST: Duration = Duration::from_millis(100);

impl<T: Send + Sync + 'static> Inner<T> {
    fn new(name: Arc<str>, kind: Kind<T>, source: Source, entries: usize, ttl: Duration) -> Self {
        let (nothings, of) = kind.nothings;
        Self {
            name,
            source,
            memory: Memory::new(entries, entries * nothings / of),
            kind,
            ttl,
            hearing: None,
            when_down: WhenDown { serve_known_for: Duration::ZERO, ask: None },
            touches: None,
            lookups: Mutex::default(),
            next: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            failed: Mutex::default(),
        }
    }

    /// What is remembered and believed.
    fn known(&self, key: &Digest, now: SystemTime) -> Option<Answer<T>> {
        let answer = self.memory.get(key)?;
        let is_believed = match self.trust() {
            Trust::Full => true,
            Trust::ByAge => answer.is_young(self.ttl, now),
            // Who would have to be asked does not answer.
            Trust::Since(silence) => self.is_down.load(Ordering::Relaxed) && self.outlasts(&answer, silence),
        };
        is_believed.then_some(answer)
    }

    /// What was true when the source was last heard, if that may still count.
    fn known_before(&self, key: &Digest, now: SystemTime) -> Option<Answer<T>> {
        let answer = self.memory.get(key)?;
        let silence = match self.trust() {
            Trust::Full => return None,
            Trust::ByAge => now.duration_since(answer.asked_at).ok()?.saturating_sub(self.ttl),
            Trust::Since(silence) => silence,
        };
        self.outlasts(&answer, silence).then_some(answer)
    }

    /// Whether an answer counts although the source was silent for so long. That there is no session is true for a moment only.
    fn outlasts(&self, answer: &Answer<T>, silence: Duration) -> bool {
        let bound = self.when_down.serve_known_for;
        !bound.is_zero() && (answer.fact.is_some() || self.kind.nothing_lasts) && silence <= bound
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

    /// Whether it is time to ask a source that failed once more; only the first who wants to know is told so.
    fn is_tried_again(&self) -> bool {
        let mut failed = self.failed.lock();
        match &mut *failed {
            Some((at, _)) if at.elapsed() >= REST => {
                *at = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Tells the operator when the source stops answering, and when it is back.
    fn note<A>(&self, answer: Result<A, Unavailable>) -> Result<A, Unavailable> {
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

impl<T: Send + Sync + 'static> Remembers for Inner<T> {
    fn forget(&self, key: Digest) {
        // Under this lock a lookup cannot be between its check and its memory.
        let mut lookups = self.lookups.lock();
        lookups.remove(&key);
        self.memory.forget(&key);
        drop(lookups);
        if let Some(touches) = &self.touches {
            touches.forgotten(&key);
        }
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

impl<T: Send + Sync + 'static> Mirror<T> {
    /// What `source` holds, by the words of `plan`; `ask` is asked when that is a Redis that does not answer.
    ///
    /// Shape:  must be called within a tokio runtime.
    pub(super) fn new(
        plan: &plan::Session,
        kind: impl Fn() -> Kind<T>,
        source: Source,
        ask: Option<Source>,
    ) -> Self {
        let (name, entries, ttl) = (&plan.name, plan.memory_entries, plan.memory_ttl);
        let tracked = match &source {
            // Without memory there is nothing to keep true.
            Source::Redis(source) if !ttl.is_zero() => Some((source.redis.clone(), Keys::of(&source.key))),
            Source::Redis(_) | Source::Ask { .. } => None,
        };
        let mut inner = Inner::new(Arc::clone(name), kind(), source, entries, ttl);
        inner.hearing = tracked.is_some().then(|| Hearing::new(plan.staleness, Instant::now()));
        inner.when_down = WhenDown {
            serve_known_for: plan.serve_known_for,
            ask: ask.map(|ask| Self(Arc::new(Inner::new(Arc::clone(name), kind(), ask, entries, ttl)))),
        };
        let sliding = inner.kind.sliding.filter(|_| matches!(inner.source, Source::Redis(_)));
        let again = sliding.map(|sliding| {
            let (touches, again) = Touches::new(sliding);
            inner.touches = Some(Arc::new(touches));
            again
        });
        let inner = Arc::new(inner);
        if let (Some(touches), Some(again)) = (&inner.touches, again) {
            let (touches, to) = (Arc::downgrade(touches), Arc::downgrade(&inner));
            tokio::spawn(touch::run(Arc::clone(name), touches, again, move || to.upgrade().map(Self)));
        }
        if let Some((redis, keys)) = tracked {
            let (name, to) = (Arc::clone(name), Arc::downgrade(&inner));
            tokio::spawn(async move { tracking::listen(&name, redis, keys, to).await });
        }
        Self(inner)
    }

    /// Whether the source answered the last time it was asked; before the first time, yes.
    pub(super) fn is_answered(&self) -> bool {
        !self.0.is_down.load(Ordering::Relaxed)
    }

    /// What memory knows: `None` when the source has to be asked.
    ///
    /// Shape:  must be called within a tokio runtime.
    pub(super) fn known(&self, claim: &Claim, now: SystemTime) -> Option<Answer<T>> {
        let digest = claim.digest();
        if let Some(known) = self.0.known(digest, now) {
            return Some(known);
        }
        // A service tells nobody when it is back, as Redis does: somebody has to ask, and nobody to wait for that.
        if !self.0.is_down.load(Ordering::Relaxed) || self.0.trust() != Trust::ByAge {
            return None;
        }
        let before = self.0.known_before(digest, now)?;
        if self.0.is_tried_again() {
            let lookup = self.lookup(claim, now);
            tokio::spawn(async move { lookup.await.map(drop) });
        }
        Some(before)
    }

    /// What is under `claim`, from memory or from the source.
    ///
    /// Errors: [`Unavailable`] when memory does not know and the source does not answer.
    pub(super) async fn look_up(&self, claim: &Claim, now: SystemTime) -> Looked<T> {
        if let Some(known) = self.known(claim, now) {
            return Ok(known);
        }
        match self.lookup(claim, now).await {
            Ok(answer) => Ok(answer),
            Err(unavailable) => match (self.0.known_before(claim.digest(), now), &self.0.when_down.ask) {
                (Some(known), _) => Ok(known),
                (None, Some(ask)) => Box::pin(ask.look_up(claim, now)).await,
                (None, None) => Err(unavailable),
            },
        }
    }

    /// A claim was used, under which this is.
    pub(super) fn used(&self, claim: &Claim, answer: &Answer<T>, now: SystemTime) {
        if let Some(touches) = &self.0.touches {
            touches.used(claim, answer, now);
        }
    }

    /// Has these keys live on for so long.
    pub(super) async fn touch(&self, keys: &[Token], sliding: Duration) -> Result<(), Unavailable> {
        let Source::Redis(redis) = &self.0.source else { return Ok(()) };
        redis.touch(keys, sliding).await?;
        // A Redis that does not tell of changes does not tell of ours.
        if self.0.trust() == Trust::ByAge {
            keys.iter().for_each(|key| self.0.forget(key.digest()));
        }
        Ok(())
    }

    /// Forgets a key at once: after a logout, or when somebody else says that it changed.
    pub(super) fn forget(&self, key: Digest) {
        self.0.forget(key);
        if let Some(ask) = &self.0.when_down.ask {
            ask.forget(key);
        }
    }

    /// Joins the lookup of this claim, or starts one.
    fn lookup(&self, claim: &Claim, now: SystemTime) -> impl Future<Output = Looked<T>> + use<T> {
        let digest = *claim.digest();
        let mut lookups = self.0.lookups.lock();
        if let Some(lookup) = lookups.get(&digest).and_then(|(_, lookup)| lookup.upgrade()) {
            return lookup;
        }
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { inner: Arc::clone(&self.0), digest, number };
        let lookup = entry.run(claim.clone(), now).boxed().shared();
        if let Some(weak) = lookup.downgrade() {
            lookups.insert(digest, (number, weak));
        }
        lookup
    }
}

impl<T> Clone for Mirror<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// One lookup's place among those under way; given up when the lookup ends or is dropped.
struct Entry<T> {
    inner: Arc<Inner<T>>,
    digest: Digest,
    number: u64,
}

impl<T: Send + Sync + 'static> Entry<T> {
    async fn run(self, claim: Claim, asked_at: SystemTime) -> Looked<T> {
        let Inner { name, kind, source, .. } = &*self.inner;
        if let Some(problem) = self.inner.rests() {
            return Err(problem);
        }
        let (held, no) = match self.inner.note(source.look_up(&claim).await)? {
            LookedUp::Held(held) => (Some(held), None),
            LookedUp::Nothing(no) => (None, no.map(Arc::new)),
        };
        let key_until = held.as_ref().and_then(|held| asked_at.checked_add(held.left?));
        let read = held.and_then(|Held { said, .. }| {
            let read = (kind.read)(said);
            if read.is_none() {
                tracing::warn!(session = %name, "what the source holds under a key is not {}", kind.what);
            }
            read
        });
        let (fact, until) = read.map_or((None, None), |Read { fact, until }| (Some(Arc::new(fact)), until));
        let until = until.into_iter().chain(key_until).min();
        let answer = Answer { asked_at, until, key_until, fact, no };
        let lookups = self.inner.lookups.lock();
        if lookups.get(&self.digest).is_some_and(|(number, _)| *number == self.number) {
            self.inner.memory.put(self.digest, answer.clone());
        }
        drop(lookups);
        Ok(answer)
    }
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        let mut lookups = self.inner.lookups.lock();
        if lookups.get(&self.digest).is_some_and(|(number, _)| *number == self.number) {
            lookups.remove(&self.digest);
        }
    }
}

impl<T> fmt::Debug for Mirror<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror")
            .field("name", &self.0.name)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
