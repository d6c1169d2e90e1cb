//! The tier that a fleet has in common: what one edge fetched, another finds in Redis before it asks the origin.
//!
//! *Asking.* Whoever has the right to fill a key asks here first ([`super::FillGuard::ask_fleet`]), and the others wait for it as
//! they would for the origin. Redis has a deadline and a circuit of its own ([`Redis`]): slow, it is as good as away, and then
//! each edge goes on alone.
//! *Believing.* An entry says up to where in the stream of purges its writer had heard when its request left ([`super::timeline`]). It
//! is used only by an edge that has heard that word, and all words that were told when it looked; and only if nothing that
//! was purged since concerns it, which is decided as for every entry, by the moment that stands for that place here.
//! *Keeping.* What was stored here, and is small enough, is written behind the back of whoever fetched it ([`writer`]), for as
//! long as it can be used. What else lies in that Redis, and what leaves it for want of room, is Redis' to decide.
//! *Filling.* Of all edges that miss a key, one has the lease to ask the origin ([`lease`]).
//!
//! Names are made of a digest, so no key, which may hold what only one caller knows, can be read there; a value repeats the
//! whole digest of its key.

mod format;
mod lease;
mod writer;

use std::{
    fmt::Write as _,
    sync::{Arc, LazyLock, atomic::AtomicU64},
    time::Duration,
};

use http::HeaderMap;
use redis::{RedisResult, Script};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::{Instant, timeout_at},
};
use weir_config::plan;

pub(super) use self::lease::{Lease, Turn};
use self::{
    format::{Digest, Read, Value},
    writer::{Kept, QUEUE},
};
use super::{
    desk::Ask,
    disk::variant_name,
    entry::{Body, Entry},
    key::Key,
    policy::{TAG_FIELDS, groups_of},
    purge_stream::{self, PurgeStream, STREAM},
    request::Now,
    shelf::{count, read},
    subject::{Meant, Subject},
    tags::Tag,
    timeline::{Place, Timeline},
    vary::Variant,
};
use crate::fleet::Redis;

/// What lies under a name, and for how long still. At once: an entry written in between would lend its life to the one before.
static GET: LazyLock<Script> =
    LazyLock::new(|| Script::new("return {redis.call('get', KEYS[1]), redis.call('pttl', KEYS[1])}"));

/// One cache's part in the tier.
#[derive(Debug)]
pub struct Shared {
    common: Arc<Common>,
    entries: mpsc::Sender<Box<Kept>>,
    leases: mpsc::Sender<lease::Back>,
}

#[derive(Debug)]
struct Common {
    redis: Redis,
    timeline: Arc<Timeline>,
    stream: String,
    /// What names begin with.
    prefix: String,
    /// The cache's, which tells its keys from those of another.
    name: Arc<str>,
    plan: plan::CacheShared,
    counts: Arc<Counts>,
}

/// Events since the start.
#[derive(Debug, Default)]
pub(super) struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    unproven: AtomicU64,
    damaged: AtomicU64,
    errors: AtomicU64,
    waits: AtomicU64,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// The tier in numbers, as this edge uses it: what happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SharedStats {
    /// Fills that were answered there, and not by the origin.
    pub hits: u64,
    /// Fills that found nothing of use.
    pub misses: u64,
    /// Of those, the ones that found an entry of which nobody could say whether it was purged.
    pub unproven: u64,
    /// And those that found a value that is none, or another's.
    pub damaged: u64,
    /// Commands that Redis did not answer, or not in time.
    pub errors: u64,
    /// Fills that waited for another edge.
    pub waits: u64,
    /// Entries written.
    pub written: u64,
    /// Entries not written, because too many waited to be.
    pub dropped: u64,
}

/// What a look into the tier brought, and the name that a fill is known by.
pub(super) enum Search {
    /// An entry that may be good, by this edge's own clock.
    Found(Arc<Entry>, String),
    /// Nothing to be believed.
    Nothing(String),
    /// It cannot be asked.
    Unavailable,
}

impl Shared {
    /// Joins the tier in this Redis, as `plan` says, with what `purges` hears; or goes on as `cache` does
    /// already, where nothing about it changed.
    ///
    /// Shape:  must be called within a tokio runtime; `prefix` is what all names begin with, `name` the cache's.
    #[must_use]
    pub fn join(
        redis: Redis,
        (prefix, name): (&str, Arc<str>),
        plan: &plan::CacheShared,
        purges: &PurgeStream,
        cache: &super::Cache,
    ) -> Arc<Self> {
        let common = Common {
            redis,
            timeline: Arc::clone(purges.timeline()),
            stream: format!("{prefix}{STREAM}"),
            prefix: format!("{prefix}cache:"),
            name,
            plan: plan.clone(),
            counts: Arc::clone(&cache.shelf.shared_counts),
        };
        cache.shared().filter(|old| old.common.is(&common)).unwrap_or_else(|| Self::start(common))
    }

    fn start(common: Common) -> Arc<Self> {
        let common = Arc::new(common);
        let (entries, queue) = mpsc::channel(QUEUE);
        tokio::spawn(writer::write(Arc::clone(&common), queue));
        let (leases, over) = mpsc::channel(lease::MOST);
        tokio::spawn(lease::give_back(Arc::clone(&common), over));
        Arc::new(Self { common, entries, leases })
    }

    /// How long a fill waits for another edge's at most.
    pub(super) fn patience(&self) -> Duration {
        self.common.plan.lease
    }

    /// Whether a body of this length has a place there.
    pub(super) fn takes(&self, length: u64) -> bool {
        length <= self.common.plan.entry_bytes.get()
    }

    /// Looks for an entry for requests like this one.
    pub(super) async fn find(&self, key: &Key, request: &HeaderMap, now: Now) -> Search {
        let common = &self.common;
        let (name, digest) = common.called(key);
        if !common.timeline.is_current() {
            return Search::Unavailable;
        }
        let until = Instant::now() + common.plan.timeout;
        let found = match common.get(&name).await {
            Ok(found) => found,
            Err(_) => return common.unavailable(),
        };
        let (name, found) = match found {
            Some((Value::Fields(names), _)) => {
                let name = variant(&name, &Variant::asked(names, request));
                match common.get(&name).await {
                    Ok(found) => (name, found),
                    Err(_) => return common.unavailable(),
                }
            }
            found => (name, found),
        };
        let Some((Value::Entry(read), left)) = found else { return Search::Nothing(name) };
        if read.digest != digest {
            count(&common.counts.damaged);
            return Search::Nothing(name);
        }
        match timeout_at(until, common.is_caught_up()).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                count(&common.counts.unproven);
                return Search::Nothing(name);
            }
            Ok(Err(_)) | Err(_) => return common.unavailable(),
        }
        match common.believed(key, *read, left, now) {
            Some(entry) if entry.head().variant.matches(request) => Search::Found(Arc::new(entry), name),
            _ => Search::Nothing(name),
        }
    }

    /// Takes the right to fetch for all edges what `name` stands for, if nobody has it.
    pub(super) async fn take(&self, name: &str, ask: &Ask) -> Turn {
        let queue = if ask.queues_apart() { "own" } else { "fill" };
        let turn =
            lease::take(&self.common.redis, format!("{name}:{queue}"), self.patience(), &self.leases).await;
        turn.unwrap_or_else(|_| {
            count(&self.common.counts.errors);
            Turn::Alone
        })
    }

    /// Writes what was kept here, soon; whoever waits for it elsewhere hears then, or at once if it is not to be shared.
    pub(super) fn keep(&self, entry: &Arc<Entry>, ask: &Ask, lease: Option<Lease>) {
        let common = &self.common;
        let may = entry.body().stored().is_none() && self.takes(entry.body().length());
        let place = common.timeline.place(entry.head().moment);
        let Some((place, subjects)) = place.zip(subjects(entry, ask)).filter(|_| may) else {
            lease.into_iter().for_each(Lease::pass);
            return;
        };
        let (name, digest) = common.called(&ask.key);
        let kept =
            Kept { entry: Arc::clone(entry), name, digest, place, subjects, rule: ask.rule.clone(), lease };
        if let Err(TrySendError::Full(_)) = self.entries.try_send(Box::new(kept)) {
            count(&common.counts.dropped);
        }
    }

    /// It answered for the origin, or did not; a fill that waited for another is counted once.
    pub(super) fn count_fill(&self, is_hit: bool, waited: bool) {
        let counts = &self.common.counts;
        count(if is_hit { &counts.hits } else { &counts.misses });
        if waited {
            count(&counts.waits);
        }
    }
}

impl Common {
    /// Whether it is the same, wherever that was written.
    fn is(&self, other: &Self) -> bool {
        let mut plan = other.plan.clone();
        plan.place = self.plan.place;
        self.plan == plan
            && self.redis.is(&other.redis)
            && Arc::ptr_eq(&self.timeline, &other.timeline)
            && self.stream == other.stream
            && self.name == other.name
    }

    /// What the entry of a key is called, and the digest of that key.
    fn called(&self, key: &Key) -> (String, Digest) {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(&(self.name.len() as u64).to_le_bytes());
        digest.update(self.name.as_bytes());
        digest.update(key.text().as_bytes());
        let digest: Digest = digest.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes");
        // In braces: all that belongs to a key has one place in a cluster.
        (format!("{}{{{}}}", self.prefix, hex(&digest[..16])), digest)
    }

    /// What lies under a name, and how long it still will.
    async fn get(&self, name: &str) -> RedisResult<Option<(Value, Duration)>> {
        let question = GET.key(name);
        let (found, left): (Option<Vec<u8>>, i64) = question.invoke_async(&mut self.redis.clone()).await?;
        let (Some(found), Ok(left)) = (found, u64::try_from(left)) else { return Ok(None) };
        let value = format::read(&found, self.plan.entry_bytes.len());
        if value.is_none() {
            count(&self.counts.damaged);
        }
        Ok(value.map(|value| (value, Duration::from_millis(left))))
    }

    /// Whether this edge hears, within moments, all that the stream has now.
    async fn is_caught_up(&self) -> RedisResult<bool> {
        let mut last = redis::cmd("XREVRANGE");
        last.arg(&self.stream).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Vec<purge_stream::Entry> = last.query_async(&mut self.redis.clone()).await?;
        // A stream that is gone may have had any word.
        let place = last.first().and_then(|(place, _)| place.parse::<Place>().ok());
        match place {
            Some(place) => Ok(self.timeline.reaches(place, self.plan.timeout).await),
            None => Ok(false),
        }
    }

    /// The entry as one of this edge; `None` where nobody can say what was purged since.
    fn believed(&self, key: &Key, read: Read, left: Duration, now: Now) -> Option<Entry> {
        let Some(moment) = self.timeline.moment(read.place) else {
            count(&self.counts.unproven);
            return None;
        };
        let entry = read.head(read.life.saturating_sub(left), now).and_then(|mut head| {
            let mut tags = vec![Tag::key(key), head.url.tag(), head.url.origin()];
            for subject in &read.subjects {
                let Meant::Tag(tag) = subject.meant() else { return None };
                tags.push(tag);
            }
            tags.sort_unstable();
            tags.dedup();
            (head.tags, head.moment) = (tags.into_boxed_slice(), moment);
            Some(Entry::new(key.text(), Arc::new(head), Arc::new(Body::new(vec![read.body]))))
        });
        if entry.is_none() {
            count(&self.counts.damaged);
        }
        entry
    }

    fn unavailable(&self) -> Search {
        count(&self.counts.errors);
        Search::Unavailable
    }
}

/// What the entry of a variant is called.
fn variant(name: &str, variant: &Variant) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, &variant_name(variant));
    format!("{name}:{}", hex(&digest.as_ref()[..16]))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// All that an entry is purged by, besides its key and its URL, in words that other edges understand; `None` if one of its
/// tags has no such word here.
fn subjects(entry: &Entry, ask: &Ask) -> Option<Vec<Subject>> {
    let head = entry.head();
    let mut subjects = ask.named.clone();
    subjects.extend(groups_of(&head.headers).iter().map(|name| Subject::group(&head.url, name)));
    let lines = TAG_FIELDS.into_iter().flat_map(|name| head.headers.get_all(name));
    let names = lines.flat_map(|line| line.as_bytes().split(|byte| matches!(byte, b',' | b' ' | b'\t')));
    let names = names.filter(|name| !name.is_empty());
    subjects.extend(names.map(|name| Subject::named(&String::from_utf8_lossy(name))));
    let mut known = vec![Tag::key(&ask.key), head.url.tag(), head.url.origin()];
    known.extend(subjects.iter().filter_map(|subject| match subject.meant() {
        Meant::Tag(tag) => Some(tag),
        _ => None,
    }));
    head.tags.iter().all(|tag| known.contains(tag)).then_some(subjects)
}

impl super::Cache {
    /// Takes part in the tier of the fleet, or does not.
    pub fn set_shared(&self, shared: Option<Arc<Shared>>) {
        self.shelf.shared.store(shared);
    }

    /// The tier of the fleet.
    #[must_use]
    pub fn shared(&self) -> Option<Arc<Shared>> {
        self.shelf.shared.load_full()
    }

    /// Whether what it keeps is for the fleet, so that [`Ask::named`] is needed.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shelf.shared.load().is_some()
    }

    /// What happened there.
    #[must_use]
    pub fn shared_stats(&self) -> Option<SharedStats> {
        let counts = self.shelf.shared.load().as_ref().map(|shared| Arc::clone(&shared.common.counts))?;
        Some(SharedStats {
            hits: read(&counts.hits),
            misses: read(&counts.misses),
            unproven: read(&counts.unproven),
            damaged: read(&counts.damaged),
            errors: read(&counts.errors),
            waits: read(&counts.waits),
            written: read(&counts.written),
            dropped: read(&counts.dropped),
        })
    }
}

#[cfg(test)]
mod tests;
