//! Invalidation by epoch: purging a million entries is writing one number.
//!
//! A clock counts purges. A fill notes the clock ([`Moment`]) before its request leaves for the origin; a purge
//! advances the clock and writes it into the tag's slot. An entry is good while no slot of its tags is later than its
//! moment. So an entry purged is a miss wherever it lies, and a fill that raced the write is stale from birth.
//!
//! Tags are hashed into a fixed table. Two tags that share a slot are purged together, which costs a refetch and
//! never serves what was purged; in exchange memory is bounded by construction. With [`SLOTS`] slots and 100 purges a
//! second of distinct tags, an entry of one tag loses 3 % of a five-minute life to its neighbours.
//!
//! One table serves every cache of the process, as a purge by tag concerns them all. What outlives the process (a cache's
//! folder) brings its own copy along, and is told of each purge (`disk/ledger.rs`); a tag's place in the table is secret, so
//! that nobody can aim at another's, and lies in that folder, too.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;

use super::{
    disk::{Cell, Ledger},
    key,
    outbox::{Outbox, Told},
    prefixes::Prefixes,
    subject::{Meant, Subject},
    url::Url,
};

/// Slots for hard purges: 8 MiB.
pub(super) const SLOTS: usize = 1 << 20;
/// Slots for soft purges, which operators order by hand: 512 KiB.
pub(super) const SOFT_SLOTS: usize = 1 << 16;

static SECRET: OnceLock<[u8; 32]> = OnceLock::new();

/// What tags are hashed with.
pub(super) fn secret() -> &'static [u8; 32] {
    SECRET.get_or_init(rand::random)
}

/// Hashes tags with this from now on; false if another secret is in use already.
pub(super) fn adopt(secret: [u8; 32]) -> bool {
    *SECRET.get_or_init(|| secret) == secret
}

/// A tag as the table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag(pub(super) u32);

/// A reading of the clock of purges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub(super) u64);

/// How far a purge goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purge {
    /// The entry answers nobody again.
    Hard,
    /// The entry is stale: asked for anew, and good for the spans in which stale answers may serve.
    Soft,
}

/// What the purges since an entry's moment left of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// Untouched.
    Good,
    /// Softly purged.
    Soft,
    /// Purged.
    Gone,
}

impl Tag {
    /// A tag by its name, as operators and origins write it.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self::hashed(b"n", &[name.as_bytes()])
    }

    /// The tag every entry carries for the target it was fetched from (RFC 9111 §4.4).
    #[must_use]
    pub fn uri(scheme: &str, authority: &str, target: &str) -> Self {
        let host = key::without_default_port(scheme, authority).to_ascii_lowercase();
        Self::hashed(b"u", &[scheme.as_bytes(), b"://", host.as_bytes(), target.as_bytes()])
    }

    /// The tag every entry carries for the URL that was asked for; the same as [`Tag::uri`] of its parts.
    #[must_use]
    pub(super) fn url(url: &str) -> Self {
        Self::hashed(b"u", &[url.as_bytes()])
    }

    /// The tag every entry carries for scheme, host and port of that URL.
    #[must_use]
    pub(super) fn origin(origin: &str) -> Self {
        Self::hashed(b"o", &[origin.as_bytes()])
    }

    /// The tag of a group at an origin (RFC 9875 §2).
    #[must_use]
    pub(super) fn group(origin: &str, name: &[u8]) -> Self {
        // An origin has no space, so nothing can be moved across it.
        Self::hashed(b"g", &[origin.as_bytes(), b" ", name])
    }

    /// The tag of what is kept for one caller alone.
    #[must_use]
    pub fn caller(user_id: &str) -> Self {
        Self::hashed(b"c", &[user_id.as_bytes()])
    }

    /// The tag every entry carries for its own key.
    #[must_use]
    pub fn key(key: &key::Key) -> Self {
        Self::hashed(b"k", &[key.text().as_bytes()])
    }

    pub(super) fn hashed(kind: &[u8], parts: &[&[u8]]) -> Self {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        digest.update(secret());
        digest.update(kind);
        parts.iter().for_each(|part| digest.update(part));
        let start = digest.finish().as_ref().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        Self(start & (SLOTS as u32 - 1))
    }
}

/// The clock and the slots.
#[derive(Default)]
pub struct Tags {
    clock: AtomicU64,
    hard: Slots<SLOTS>,
    soft: Slots<SOFT_SLOTS>,
    pub(super) prefixes: Prefixes,
    /// Who is told of purges, to remember them.
    ledgers: RwLock<Vec<Weak<Ledger>>>,
    outbox: Outbox,
}

/// When the tags that share a slot were purged last; made with the first purge.
#[derive(Default)]
struct Slots<const COUNT: usize>(OnceLock<Box<[AtomicU64]>>);

impl<const COUNT: usize> Slots<COUNT> {
    fn purge(&self, tag: Tag, at: u64) {
        let made = || std::iter::repeat_with(AtomicU64::default).take(COUNT).collect();
        self.0.get_or_init(made)[tag.0 as usize % COUNT].fetch_max(at, Ordering::AcqRel);
    }

    fn purged(&self, tag: Tag) -> u64 {
        self.0.get().map_or(0, |slots| slots[tag.0 as usize % COUNT].load(Ordering::Acquire))
    }
}

impl std::fmt::Debug for Tags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tags").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Tags {
    /// A table in which nothing was purged yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The clock now; read it before a request leaves, never after.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(self.clock.load(Ordering::Acquire))
    }

    /// Ends everything that carries `tag` and was asked for before now.
    ///
    /// A fill that begins while this runs may count as later: the write that caused the purge was done before it.
    pub fn purge(&self, tag: Tag, purge: Purge) {
        let at = self.tick();
        match purge {
            Purge::Hard => self.hard.purge(tag, at),
            Purge::Soft => self.soft.purge(tag, at),
        }
        let slots = if purge == Purge::Hard { SLOTS } else { SOFT_SLOTS };
        self.note(Cell::Tag(purge, tag.0 as usize % slots));
    }

    /// Purges here, at once, and tells the fleet, if there is one.
    ///
    /// Shape:  for whatever a tag or a prefix ends; who purges caches or keys does so by [`Tags::announce`].
    pub fn order(&self, subject: Subject, purge: Purge) {
        self.announce(&subject, purge, || match subject.meant() {
            Meant::Tag(tag) => self.purge(tag, purge),
            Meant::Prefix(prefix) => self.purge_prefix(&prefix, purge),
            Meant::Cache(_) | Meant::Everything => {}
        });
    }

    /// Purges here, which `act` does, and tells the fleet of it, if there is one.
    pub fn announce(&self, subject: &Subject, purge: Purge, act: impl FnOnce()) {
        self.outbox.begin(|| self.moment());
        act();
        self.outbox.push(subject.clone(), purge);
    }

    /// Whether the fleet knows of all purges so far, or does within `within`.
    pub async fn told(&self, within: Duration) -> Told {
        self.outbox.told(within).await
    }

    /// There is no fleet any more.
    pub fn leave_fleet(&self) {
        self.outbox.open(false);
    }

    pub(super) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Ends everything asked for before now whose URL begins with `prefix`.
    pub fn purge_prefix(&self, prefix: &Url, purge: Purge) {
        self.prefixes.purge(prefix, purge, || self.tick());
        self.note(Cell::Prefixes);
    }

    fn note(&self, cell: Cell) {
        self.ledgers.read().iter().filter_map(Weak::upgrade).for_each(|ledger| ledger.note(cell));
    }

    /// Waits until what was purged so far will still be after a start, whatever becomes of this process; not for long.
    pub async fn recorded(&self) {
        let ledgers: Vec<_> = self.ledgers.read().iter().filter_map(Weak::upgrade).collect();
        for ledger in ledgers {
            ledger.recorded().await;
        }
    }

    /// Whether what is kept, and so what was purged, outlives this process.
    pub(super) fn outlives(&self) -> bool {
        self.ledgers.read().iter().any(|ledger| ledger.strong_count() > 0)
    }

    /// Tells `ledger` of every purge from now on.
    pub(super) fn remember_in(&self, ledger: &Arc<Ledger>) {
        let mut ledgers = self.ledgers.write();
        ledgers.retain(|known| known.strong_count() > 0);
        ledgers.push(Arc::downgrade(ledger));
    }

    /// What was purged before this process began: `tag` at `at`.
    pub(super) fn restore(&self, purge: Purge, slot: usize, at: u64) {
        let tag = Tag(slot as u32);
        match purge {
            Purge::Hard => self.hard.purge(tag, at),
            Purge::Soft => self.soft.purge(tag, at),
        }
    }

    /// The clock is at least at `at`.
    pub(super) fn not_before(&self, at: u64) {
        self.clock.fetch_max(at, Ordering::AcqRel);
    }

    /// The table, as far as there is one.
    pub(super) fn slots(&self, purge: Purge) -> &[AtomicU64] {
        let slots = match purge {
            Purge::Hard => self.hard.0.get(),
            Purge::Soft => self.soft.0.get(),
        };
        slots.map_or(&[], |slots| slots)
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// What is left of an entry with these tags, asked for at `since`.
    #[must_use]
    pub fn standing(&self, tags: &[Tag], since: Moment) -> Standing {
        let mut standing = Standing::Good;
        for tag in tags {
            if self.hard.purged(*tag) > since.0 {
                return Standing::Gone;
            }
            if self.soft.purged(*tag) > since.0 {
                standing = Standing::Soft;
            }
        }
        standing
    }

    /// What purges by prefix left of an entry of this URL, asked for at `since`.
    #[must_use]
    pub fn standing_of(&self, url: &Url, since: Moment) -> Standing {
        self.prefixes.standing(url, since)
    }
}

#[cfg(test)]
impl Tags {
    pub(super) fn prefix_lines(&self) -> usize {
        self.prefixes.lines()
    }
}

impl Moment {
    pub(super) fn count(self) -> u64 {
        self.0
    }
}

/// The epoch of one cache purged whole: everything asked for before it counts as purged.
#[derive(Debug, Default)]
pub(super) struct Floor {
    hard: AtomicU64,
    soft: AtomicU64,
}

impl Floor {
    /// Ends everything asked for before now, and says when that was.
    pub(super) fn raise(&self, tags: &Tags, purge: Purge) -> u64 {
        let at = tags.tick();
        self.restore(purge, at);
        at
    }

    /// It was raised to `at`.
    pub(super) fn restore(&self, purge: Purge, at: u64) {
        self.of(purge).fetch_max(at, Ordering::AcqRel);
    }

    /// When it was raised last.
    pub(super) fn at(&self, purge: Purge) -> u64 {
        self.of(purge).load(Ordering::Acquire)
    }

    fn of(&self, purge: Purge) -> &AtomicU64 {
        match purge {
            Purge::Hard => &self.hard,
            Purge::Soft => &self.soft,
        }
    }

    /// What is left of an entry asked for at `since`.
    pub(super) fn standing(&self, since: Moment) -> Standing {
        if self.hard.load(Ordering::Acquire) > since.0 {
            Standing::Gone
        } else if self.soft.load(Ordering::Acquire) > since.0 {
            Standing::Soft
        } else {
            Standing::Good
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purge_ends_what_was_asked_for_before_and_spares_what_came_after() {
        let tags = Tags::new();
        let tag = Tag::named("vault:items:7");
        let before = tags.moment();
        tags.purge(tag, Purge::Hard);
        assert_eq!(tags.standing(&[tag], before), Standing::Gone);
        assert_eq!(tags.standing(&[tag], tags.moment()), Standing::Good);
    }

    #[test]
    fn a_soft_purge_never_softens_a_hard_one() {
        let tags = Tags::new();
        let tag = Tag::named("a");
        let first = tags.moment();
        tags.purge(tag, Purge::Hard);
        let second = tags.moment();
        tags.purge(tag, Purge::Soft);
        assert_eq!(tags.standing(&[tag], first), Standing::Gone);
        assert_eq!(tags.standing(&[tag], second), Standing::Soft);
    }

    #[test]
    fn a_name_is_no_uri() {
        assert_ne!(Tag::named("http://a/"), Tag::uri("http", "a", "/"));
        assert_eq!(Tag::uri("http", "A:80", "/"), Tag::uri("http", "a", "/"));
        assert_eq!(Tag::uri("http", "A:80", "/x"), Url::new("http", "a", "/x").tag());
    }
}
