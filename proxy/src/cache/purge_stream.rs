//! A purge at one edge is one at all of them: each is written to a stream in Redis, which every edge reads.
//!
//! *Telling.* A purge counts here at once. It then waits in a bounded queue ([`super::outbox`]) until Redis has it.
//! *Hearing.* An edge waits for the next words of the stream, from where it stopped, so a broken connection costs time and no
//! purge. What is heard counts from when it is heard: nobody's clock is compared with another's, and whatever was asked
//! of an origin before that is stale from birth. The word behind which an edge reads on has to be there still: else the
//! stream was cut, emptied or set back by a failover, nobody knows how much was missed, and all that was asked for before is
//! purged. An edge that begins has missed everything, too.
//! If Redis is away, each edge goes on alone, and what was purged elsewhere is served until it is back.
//!
//! What lies on disk goes on with the next process. So the place of such an edge is written to Redis, too, behind what is
//! recorded on disk, under a name that is made of the folder's secret.
//!
//! What was heard, and when, is kept on a line ([`super::timeline`]), by which entries that the edges share are compared with
//! purges. So our own words are heard, too, though they count already; and an edge that begins with nothing in memory hears
//! all that the stream has, if entries are shared.
//!
//! A failover may lose what the old master had not passed on. An edge that heard it finds its place in the stream gone while
//! older words are there, and has every other edge purge everything.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, RedisResult, aio::MultiplexedConnection};
use tokio::{task::AbortHandle, time::timeout};

use super::{
    Cache,
    shelf::Shelf,
    subject::{Meant, Subject},
    tags::{self, Purge, Tags},
    timeline::{Place, Timeline},
};
use crate::{causes::Causes, fleet::Redis};

/// The stream, behind the prefix.
pub(super) const STREAM: &str = "purges";
/// What an edge that was away may catch up with: about ten megabytes in Redis, unless URLs are long.
const LENGTH: usize = 100_000;
/// In one command.
const WORDS: usize = 256;
/// How long the wait for news lasts at most; a connection that is silent for longer is broken.
const WAIT: Duration = Duration::from_millis(500);
/// Between two tries, from half to one and a half of it.
const RETRY: Duration = Duration::from_millis(100);

/// This edge's part in the purges of its fleet, until it is stopped or dropped.
pub struct PurgeStream {
    common: Arc<Common>,
    tasks: [AbortHandle; 2],
}

struct Common {
    redis: Redis,
    prefix: String,
    stream: String,
    tags: Arc<Tags>,
    /// By name, of the plan in force and of those before it, as long as their last requests go on.
    caches: ArcSwap<Vec<(Arc<str>, Weak<Shelf>)>>,
    /// Tells this edge's words from the others'.
    own: String,
    /// Whether an edge that begins hears all that is there.
    reads_from_start: bool,
    /// The last word heard.
    place: Mutex<Option<String>>,
    timeline: Arc<Timeline>,
    count: Box<dyn Fn(Purge) + Send + Sync>,
}

/// A word of the stream: its place, and its fields in pairs.
pub(super) type Entry = (String, Vec<(String, Vec<u8>)>);
/// What XREAD says of each stream; nothing when its time is up.
type News = Option<Vec<(String, Vec<Entry>)>>;

impl PurgeStream {
    /// Begins to tell, and to hear from `place` on, where [`PurgeStream::place`] was before; from nowhere, all that there is
    /// if `reads_from_start`. `caches` are those of the plan, by name, until [`PurgeStream::concerns`] says otherwise. `count`
    /// is called for each purge heard.
    ///
    /// Shape:  must be called within a tokio runtime.
    #[must_use]
    pub fn start(
        redis: Redis,
        prefix: &str,
        (tags, caches): (Arc<Tags>, Vec<(Arc<str>, Cache)>),
        (place, reads_from_start): (Option<String>, bool),
        count: impl Fn(Purge) + Send + Sync + 'static,
    ) -> Self {
        tags.outbox().open(true);
        let common = Arc::new(Common {
            redis,
            prefix: prefix.to_owned(),
            stream: format!("{prefix}{STREAM}"),
            tags,
            caches: ArcSwap::from_pointee(watched(&caches)),
            own: format!("{:016x}", rand::random::<u64>()),
            reads_from_start,
            place: Mutex::new(place),
            timeline: Arc::default(),
            count: Box::new(count),
        });
        let (speaker, hearer) = (Arc::clone(&common), Arc::clone(&common));
        let tasks = [
            tokio::spawn(async move { speaker.speak().await }),
            tokio::spawn(async move { hearer.hear().await }),
        ];
        Self { common, tasks: tasks.map(|task| task.abort_handle()) }
    }

    /// The caches of the plan that comes into force, before any request is its; those of the plans before it are concerned for as
    /// long as somebody has them.
    pub fn concerns(&self, caches: &[(Arc<str>, Cache)]) {
        let (mut all, before) = (watched(caches), self.common.caches.load());
        let goes_on = |old: &Weak<Shelf>| all.iter().any(|(_, new)| new.ptr_eq(old));
        let ending = before.iter().filter(|(_, old)| old.strong_count() > 0 && !goes_on(old));
        let ending: Vec<_> = ending.cloned().collect();
        all.extend(ending);
        self.common.caches.store(Arc::new(all));
    }

    /// Up to where the purges of others have been done here. What is kept beyond this process needs it, to go on from there.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        self.common.place.lock().clone()
    }

    /// Whether what other edges purge is heard at the moment.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.common.timeline.is_current()
    }

    /// What was heard, and when.
    pub(super) fn timeline(&self) -> &Arc<Timeline> {
        &self.common.timeline
    }

    /// How many purges the fleet has not been told of yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.common.tags.outbox().len()
    }

    /// Somebody else goes on, or nobody.
    pub fn stop(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Drop for PurgeStream {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Common {
    async fn speak(&self) {
        let mut is_told = false;
        loop {
            let words = self.tags.outbox().next(WORDS).await;
            let mut telling = redis::pipe();
            for word in &words {
                let mode = if word.purge == Purge::Soft { "s" } else { "h" };
                let own = format!("{}.{}", self.own, word.number);
                let said = [("edge", own.as_bytes()), (mode, word.subject.text())];
                telling.add_command(self.word(&said));
            }
            match telling.query_async::<()>(&mut self.redis.clone()).await {
                Ok(()) => {
                    self.tags.outbox().done(&words);
                    if std::mem::take(&mut is_told) {
                        tracing::info!("the fleet has been told of all purges");
                    }
                }
                Err(problem) => {
                    if !std::mem::replace(&mut is_told, true) {
                        tracing::warn!(cause = %Causes(&problem), "the fleet cannot be told of purges: they wait");
                    }
                    pause().await;
                }
            }
        }
    }

    /// The command that adds a word to the stream.
    fn word(&self, fields: &[(&str, &[u8])]) -> redis::Cmd {
        let mut add = redis::cmd("XADD");
        add.arg(&self.stream).arg("MAXLEN").arg("~").arg(LENGTH).arg("*");
        fields.iter().for_each(|(name, value)| {
            add.arg(name).arg(*value);
        });
        add
    }

    async fn hear(&self) {
        let mut is_told = false;
        loop {
            let Err(problem) = self.hear_once(&mut is_told).await;
            self.timeline.set_current(false);
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(cause = %Causes(&problem), "purges of the fleet are not heard: this edge goes on alone");
            }
            self.redis.look_again();
            pause().await;
        }
    }

    /// One connection, until it breaks.
    async fn hear_once(&self, is_told: &mut bool) -> RedisResult<std::convert::Infallible> {
        let mut connection = self.redis.dedicated(&self.stream).await?;
        // What was purged before this edge began is nobody's news.
        let mut history = Place::default();
        loop {
            let place = self.place.lock().clone();
            let (is_there, news) = match &place {
                Some(place) => self.news(&mut connection, place).await?,
                None => (false, Vec::new()),
            };
            if place.is_none()
                && let Some(kept) = self.kept_place(&mut connection).await?
            {
                *self.place.lock() = Some(kept);
                continue;
            }
            if !is_there {
                self.timeline.forget();
                let told = self.tags.outbox().last_told();
                let end = self.end(&mut connection).await?;
                let begin = match &place {
                    Some(place) => {
                        tracing::warn!(
                            "nobody knows which purges of the fleet were missed: all that is kept is purged"
                        );
                        self.warn_others(&mut connection, place).await?;
                        end
                    }
                    None if self.reads_from_start => {
                        history = position(&end);
                        self.first(&mut connection).await?.unwrap_or(end)
                    }
                    None => end,
                };
                // Purged behind the look at the end: what comes from there on will be heard.
                self.apply(&Subject::everything(), Purge::Hard);
                self.tags.outbox().came_back(told);
                self.keep_place(&mut connection, &begin).await?;
                *self.place.lock() = Some(begin);
                continue;
            }
            let heard = position(place.as_deref().unwrap_or_default());
            if self.timeline.is_empty() {
                self.mark(heard);
            }
            if heard >= history {
                self.timeline.set_current(true);
                if std::mem::take(is_told) {
                    tracing::info!("purges of the fleet are heard");
                }
            }
            let mut last = None;
            for (at, fields) in news {
                self.hear_word(&fields, position(&at) <= history);
                *self.place.lock() = Some(at.clone());
                self.mark(position(&at));
                last = Some(at);
            }
            if let Some(last) = last {
                self.keep_place(&mut connection, &last).await?;
            }
        }
    }

    /// Where the place is kept for the next process, if what is on disk goes on with it; in the stream's own slot.
    fn place_key(&self) -> Option<String> {
        let of = ring::digest::digest(&ring::digest::SHA256, &[tags::secret(), STREAM.as_bytes()].concat());
        let name = of.as_ref().iter().take(8).fold(String::new(), |name, byte| format!("{name}{byte:02x}"));
        self.tags.outlives().then(|| format!("{}{{{}}}:{name}", self.prefix, self.stream))
    }

    async fn kept_place(&self, connection: &mut MultiplexedConnection) -> RedisResult<Option<String>> {
        let Some(key) = self.place_key() else { return Ok(None) };
        let mut last = redis::cmd("XREVRANGE");
        last.arg(&key).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<Entry> = self.ask(connection, &last).await?;
        let fields = last.into_iter().next().map(|(_, fields)| fields).unwrap_or_default();
        Ok(fields.into_iter().find_map(|(_, place)| String::from_utf8(place).ok()))
    }

    async fn keep_place(&self, connection: &mut MultiplexedConnection, place: &str) -> RedisResult<()> {
        let Some(key) = self.place_key() else { return Ok(()) };
        self.tags.recorded().await;
        let mut add = redis::cmd("XADD");
        add.arg(&key).arg("MAXLEN").arg(1).arg("*").arg("place").arg(place);
        self.ask(connection, &add).await
    }

    /// What follows `place`, which is waited for; and whether `place` itself was still there when the waiting began, so
    /// that nothing between was cut.
    async fn news(
        &self,
        connection: &mut MultiplexedConnection,
        place: &str,
    ) -> RedisResult<(bool, Vec<Entry>)> {
        let mut question = redis::pipe();
        question.cmd("XRANGE").arg(&self.stream).arg(place).arg(place);
        let wait = u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX);
        question.cmd("XREAD").arg("COUNT").arg(WORDS).arg("BLOCK").arg(wait);
        question.arg("STREAMS").arg(&self.stream).arg(place);
        let answer = timeout(WAIT + self.redis.timeout(), question.query_async(connection)).await;
        let (there, news): (Vec<Entry>, News) = answer.map_err(|_| silent())??;
        let news = news.into_iter().flatten().flat_map(|(_, entries)| entries);
        Ok((!there.is_empty(), news.collect()))
    }

    /// The place of the last word; of a stream without any, that of one that means nothing.
    async fn end(&self, connection: &mut MultiplexedConnection) -> RedisResult<String> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(&self.stream).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<Entry> = self.ask(connection, &last).await?;
        if let Some((place, _)) = last.into_iter().next() {
            return Ok(place);
        }
        self.ask(connection, &self.word(&[("edge", self.own.as_bytes())])).await
    }

    /// The place of the first word that is still there.
    async fn first(&self, connection: &mut MultiplexedConnection) -> RedisResult<Option<String>> {
        let mut first = redis::cmd("XRANGE");
        first.arg(&self.stream).arg("-").arg("+").arg("COUNT").arg(1);
        let first: Vec<Entry> = self.ask(connection, &first).await?;
        Ok(first.into_iter().next().map(|(place, _)| place))
    }

    /// The word at a place counts from now on.
    fn mark(&self, place: Place) {
        let now = self.tags.moment();
        self.timeline.heard(place, now, self.tags.outbox().unheard());
    }

    /// Words before `place` that are there although it is not mean that it was lost: others may not have heard it.
    async fn warn_others(&self, connection: &mut MultiplexedConnection, place: &str) -> RedisResult<()> {
        let mut older = redis::cmd("XREVRANGE");
        older.arg(&self.stream).arg(place).arg("-").arg("COUNT").arg(1);
        let older: Vec<Entry> = self.ask(connection, &older).await?;
        if !older.is_empty() {
            self.tags.announce(&Subject::everything(), Purge::Hard, || ());
        }
        Ok(())
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        connection: &mut MultiplexedConnection,
        command: &redis::Cmd,
    ) -> RedisResult<T> {
        timeout(self.redis.timeout(), command.query_async(connection)).await.map_err(|_| silent())?
    }

    fn hear_word(&self, fields: &[(String, Vec<u8>)], is_history: bool) {
        let said_by = fields.iter().find(|(name, _)| name == "edge").map_or(&b""[..], |(_, edge)| edge);
        if let Some(rest) = said_by.strip_prefix(self.own.as_bytes()) {
            let number = std::str::from_utf8(rest).ok().and_then(|rest| rest.strip_prefix('.')?.parse().ok());
            number.into_iter().for_each(|number| self.tags.outbox().came_back(number));
            return;
        }
        for (mode, text) in fields.iter().filter(|(name, _)| name != "edge") {
            let purge = if mode == "s" { Purge::Soft } else { Purge::Hard };
            let subject = Subject::read(text.clone());
            self.apply(&subject, purge);
            if !is_history && subject != Subject::nothing() {
                (self.count)(purge);
            }
        }
    }

    /// Purges here.
    fn apply(&self, subject: &Subject, purge: Purge) {
        let caches = self.caches.load();
        let caches = caches.iter().filter_map(|(name, cache)| Some((name, cache.upgrade()?)));
        match subject.meant() {
            Meant::Tag(tag) => self.tags.purge(tag, purge),
            Meant::Prefix(prefix) => self.tags.purge_prefix(&prefix, purge),
            Meant::Cache(name) => {
                caches.filter(|(own, _)| ***own == *name).for_each(|(_, cache)| cache.purge_all(purge));
            }
            Meant::Everything => caches.for_each(|(_, cache)| cache.purge_all(Purge::Hard)),
        }
    }
}

fn watched(caches: &[(Arc<str>, Cache)]) -> Vec<(Arc<str>, Weak<Shelf>)> {
    caches.iter().map(|(name, cache)| (Arc::clone(name), Arc::downgrade(&cache.shelf))).collect()
}

fn position(place: &str) -> Place {
    place.parse().unwrap_or_default()
}

fn silent() -> RedisError {
    (ErrorKind::Io, "Redis is silent").into()
}

async fn pause() {
    tokio::time::sleep(RETRY.mul_f64(0.5 + rand::random::<f64>())).await;
}

impl std::fmt::Debug for PurgeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PurgeStream").field("stream", &self.common.stream).finish_non_exhaustive()
    }
}
