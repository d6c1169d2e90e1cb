//! Who goes to the origin and who waits: the fills under way, by key.
//!
//! An answer that is not for sharing is remembered for [`PASS`]: later requests for the key do not queue up behind each
//! other. Requests with credentials queue apart, as their answers are rarely for others. What an answer will vary by is
//! guessed from what is stored, so that variants do not wait for each other either.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, header};
use parking_lot::Mutex;

use super::{
    entry::{Entry, Head},
    filling::{Fill, FillGuard, Progress},
    guard::Guard,
    key::Key,
    lookup::Lookup,
    request::{Now, RequestHead, Rule},
    shelf::{Shelf, count},
    subject::Subject,
    tags::{Standing, Tag},
    url::Url,
    vary::InForm,
    waiting::Waiter,
};

const SHARDS: usize = 32;
/// How long a key is known not to be worth waiting for.
pub(super) const PASS: Duration = Duration::from_secs(10);
/// Keys per shard about which that is remembered; beyond, they queue as strangers do.
const MOST_PASSES: usize = 1024;

/// A request that misses.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What it looked for.
    pub key: Key,
    /// [`Tag::uri`] of its target, as forwarded.
    pub uri: Tag,
    /// What the client asked for.
    pub url: Url,
    /// As received.
    pub method: Method,
    /// As forwarded.
    pub headers: HeaderMap,
    /// Whether a body follows.
    pub has_body: bool,
    /// The route's.
    pub rule: Rule,
    /// The entry to ask about, from [`super::Lookup::Stale`].
    pub stale: Option<Arc<Entry>>,
    /// Who asks, as far as an answer for others must not show it.
    pub guard: Guard,
    /// What the answer is purged by, besides what it says itself, in words that the fleet understands; needed only where the
    /// cache is shared.
    pub named: Vec<Subject>,
}

impl Ask {
    pub(super) fn request(&self) -> RequestHead<'_> {
        RequestHead { method: &self.method, headers: &self.headers, has_body: self.has_body }
    }

    /// Whether it has credentials, so that its answer is rarely for others who wait for the key's.
    pub(super) fn queues_apart(&self) -> bool {
        let names = [header::AUTHORIZATION, header::COOKIE];
        !self.rule.private_to_caller && names.iter().any(|name| self.headers.contains_key(name))
    }
}

/// What a request that misses does next.
#[derive(Debug)]
pub enum Begin {
    /// Goes to the origin.
    Fill(FillGuard),
    /// Waits for one that went.
    Wait(Box<Waiter>),
    /// Takes what another brought since it looked.
    Found(Arc<Entry>),
}

/// The fills of one cache.
#[derive(Debug)]
pub(super) struct Fills {
    pub(super) shelf: Arc<Shelf>,
    pub(super) desks: Box<[Mutex<HashMap<u128, Desk>>]>,
}

/// What is going on about one key.
#[derive(Debug, Default)]
pub(super) struct Desk {
    running: Vec<Arc<Fill>>,
    pass_until: Option<Instant>,
}

impl Fills {
    pub(super) fn new(shelf: Arc<Shelf>) -> Self {
        Self { shelf, desks: std::iter::repeat_with(Mutex::default).take(SHARDS).collect() }
    }

    /// Makes `ask` the key's fill, or lets it wait for the one that runs.
    pub(super) fn begin(self: &Arc<Self>, ask: Ask, now: Now) -> Begin {
        self.enter(ask, now, true)
    }

    /// Makes `ask` the key's fill if none runs. Nobody waits for what comes, so it is no matter whether waiting would
    /// be of use: one at a time is enough, or every hit on a stale entry would ask the origin.
    pub(super) fn refresh(self: &Arc<Self>, ask: Ask, now: Now) -> Option<FillGuard> {
        match self.enter(ask, now, false) {
            Begin::Fill(guard) => Some(guard),
            Begin::Wait(_) | Begin::Found(_) => None,
        }
    }

    fn enter(self: &Arc<Self>, ask: Ask, now: Now, may_pass: bool) -> Begin {
        let id = id(&ask);
        let mut desks = self.desk(id).lock();
        let desk = desks.get(&id);
        let alone = may_pass && desk.and_then(|desk| desk.pass_until).is_some_and(|until| now.mono < until);
        if let Some(desk) = desk.filter(|_| !alone) {
            let stored = self.shelf.store.newest(&ask.key);
            let hint = stored.as_ref().map(|entry| entry.head());
            // A refresh that is under way is enough, however old it is.
            let is_young = |fill: &Fill| !may_pass || fill.age(now) < ask.rule.lock_age;
            let mut form = InForm::from(&ask.headers);
            let suits = |fill: &&Arc<Fill>| is_young(fill) && self.suits(fill, &ask, &mut form, hint);
            if let Some(fill) = desk.running.iter().find(suits) {
                let fill = Arc::clone(fill);
                drop(desks);
                count(&self.shelf.counts.collapsed);
                return Begin::Wait(Box::new(Waiter::new(Arc::clone(self), fill, ask)));
            }
        }
        // A fill is in the store before it leaves the desk: who finds neither has missed none.
        if let Lookup::Hit { entry, .. } = self.shelf.look(&ask.key, &ask.request(), &ask.rule, now) {
            count(&self.shelf.counts.collapsed);
            return Begin::Found(entry);
        }
        // The moment is read before the request leaves, see `tags`.
        let fill = Arc::new(Fill::new(ask, self.shelf.tags.moment(), now, alone));
        if !alone {
            desks.entry(id).or_default().running.push(Arc::clone(&fill));
        }
        drop(desks);
        count(&self.shelf.counts.fills);
        Begin::Fill(FillGuard::new(Arc::clone(self), fill))
    }

    /// A fill that nobody waits for, and that waited for nobody.
    pub(super) fn fetch_past(self: &Arc<Self>, ask: Ask, now: Now) -> FillGuard {
        let fill = Arc::new(Fill::new(ask, self.shelf.tags.moment(), now, true));
        count(&self.shelf.counts.fills);
        FillGuard::new(Arc::clone(self), fill)
    }

    /// Whether `ask` may hope for an answer from a running fill: one that was not purged since, and, as far as known,
    /// for the same variant. What the answer will vary by is guessed from what is stored.
    fn suits(&self, fill: &Fill, ask: &Ask, form: &mut InForm<'_>, hint: Option<&Arc<Head>>) -> bool {
        match &*fill.progress.borrow() {
            Progress::Asked => {
                let base = [Tag::key(&ask.key), fill.ask.uri, fill.ask.url.tag(), fill.ask.url.origin()];
                let whole = fill.ask.key.whole();
                fill.ask.key.text() == ask.key.text()
                    && self.shelf.floor.standing(fill.moment()) == Standing::Good
                    && self.shelf.tags.standing(&base, fill.moment()) == Standing::Good
                    && whole.is_none_or(|whole| {
                        self.shelf.tags.standing(&[whole], fill.moment()) == Standing::Good
                    })
                    && self.shelf.tags.standing_of(&fill.ask.url, fill.moment()) == Standing::Good
                    && hint.is_none_or(|head| fill.asks_like(form, &head.variant))
            }
            Progress::Shared { head, .. } | Progress::Held(head) => {
                fill.ask.key.text() == ask.key.text() && self.answers(head, form)
            }
            _ => false,
        }
    }

    /// Whether an answer just fetched is one for `ask`.
    pub(super) fn answers(&self, head: &Head, form: &mut InForm<'_>) -> bool {
        head.variant.suits(form) && self.shelf.standing(head) == Standing::Good
    }

    /// Takes a fill off the desk: nobody joins it any more.
    pub(super) fn retire(&self, fill: &Arc<Fill>) {
        let id = id(&fill.ask);
        let mut desks = self.desk(id).lock();
        if let Some(desk) = desks.get_mut(&id) {
            desk.running.retain(|running| !Arc::ptr_eq(running, fill));
            if desk.running.is_empty() && desk.pass_until.is_none() {
                desks.remove(&id);
            }
        }
    }

    /// Remembers that waiting for this key is of no use.
    pub(super) fn pass(&self, ask: &Ask, now: Instant) {
        let id = id(ask);
        let mut desks = self.desk(id).lock();
        if desks.len() >= MOST_PASSES {
            desks.retain(|_, desk| {
                !desk.running.is_empty() || desk.pass_until.is_some_and(|until| now < until)
            });
        }
        if desks.len() < MOST_PASSES || desks.contains_key(&id) {
            desks.entry(id).or_default().pass_until = Some(now + PASS);
        }
    }

    /// Takes that back: the key's answer is one for sharing now.
    pub(super) fn end_pass(&self, ask: &Ask) {
        let id = id(ask);
        if let Some(desk) = self.desk(id).lock().get_mut(&id) {
            desk.pass_until = None;
        }
    }

    fn desk(&self, id: u128) -> &Mutex<HashMap<u128, Desk>> {
        &self.desks[(id >> 96) as usize % SHARDS]
    }
}

/// The queue a request belongs to: its key's, apart for requests with credentials.
fn id(ask: &Ask) -> u128 {
    ask.key.hash() ^ u128::from(ask.queues_apart())
}

#[cfg(test)]
mod tests;
