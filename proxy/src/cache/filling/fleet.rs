//! Asking the fleet before the origin: what another edge fetched, or is fetching, need not be fetched again.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{FillGuard, Progress};
use crate::cache::{
    entry::{Entry, Head},
    lookup::Lookup,
    memory::Found,
    request::Now,
    shared::{Lease, Search, Shared, Turn},
    subject::Subject,
    tags::Purge,
};

/// Between two looks at what another edge is fetching; twice as long each time, up to the other.
const LOOK_AGAIN: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(50)];

impl FillGuard {
    /// Looks into the fleet's tier for what the origin would be asked for, and waits at most `patience` for another edge that
    /// asks it. What is found fresh ends the fill: it is kept, and given to who waits, with the seconds left of its lifetime.
    /// What is stale is there for the origin to be asked about. `None`: the origin has to be asked.
    pub async fn ask_fleet(&mut self, patience: Duration, now: Now) -> Option<(Arc<Entry>, i64)> {
        let shared = self.fills.shelf.shared.load_full()?;
        if self.fill.is_alone || self.fill.ask.key.whole().is_some() {
            return None;
        }
        let mut waits = false;
        let found = self.look(&shared, patience, now, &mut waits).await;
        shared.count_fill(found.is_some(), waits);
        found
    }

    async fn look(
        &mut self,
        shared: &Shared,
        patience: Duration,
        now: Now,
        waits: &mut bool,
    ) -> Option<(Arc<Entry>, i64)> {
        let (started, patience) = (Instant::now(), patience.min(shared.patience()));
        let [mut pause, longest] = LOOK_AGAIN;
        loop {
            let (ask, now) = (&self.fill.ask, now.after(started.elapsed()));
            let name = match shared.find(&ask.key, &ask.headers, now).await {
                Search::Found(entry, name) => match self.take_from_fleet(entry, now) {
                    Some(found) => return Some(found),
                    None => name,
                },
                Search::Nothing(name) => name,
                Search::Unavailable => return None,
            };
            // Of what is not to be kept nobody could have anything.
            if self.is_rare || shared.patience().is_zero() {
                return None;
            }
            match shared.take(&name, &self.fill.ask).await {
                Turn::Ours(lease) => {
                    self.lease = Some(lease);
                    // Whoever was waited for may have brought it between the look and the taking.
                    return match *waits {
                        true => self.find_once_more(shared, now).await,
                        false => None,
                    };
                }
                Turn::Another if started.elapsed() < patience => *waits = true,
                Turn::Another | Turn::Alone => return None,
            }
            sleep(pause.mul_f64(0.5 + rand::random::<f64>())).await;
            pause = (2 * pause).min(longest);
        }
    }

    async fn find_once_more(&mut self, shared: &Shared, now: Now) -> Option<(Arc<Entry>, i64)> {
        match shared.find(&self.fill.ask.key, &self.fill.ask.headers, now).await {
            Search::Found(entry, _) => self.take_from_fleet(entry, now),
            Search::Nothing(_) | Search::Unavailable => None,
        }
    }

    /// Ends the fill with an entry of another edge, if that is good for its request.
    fn take_from_fleet(&mut self, entry: Arc<Entry>, now: Now) -> Option<(Arc<Entry>, i64)> {
        let fill = Arc::clone(&self.fill);
        let (shelf, ask) = (&self.fills.shelf, &fill.ask);
        let received = |entry: &Arc<Entry>| entry.head().freshness.received();
        match shelf.look_at(&ask.key, || Found::Entry(entry), &ask.request(), &ask.rule, now) {
            // Fresh for longer than what came after it: the origin knows better by now.
            Lookup::Hit { entry, .. }
                if self.stale.as_ref().is_some_and(|stale| received(stale) >= received(&entry)) =>
            {
                None
            }
            Lookup::Hit { entry, ttl } => {
                // By this edge's own clock of purges, what is stale may count as asked for later, and would stay.
                self.stale.iter().for_each(|stale| shelf.store.remove(&ask.key, stale));
                shelf.keep(&ask.key, &entry, now);
                self.fills.end_pass(ask);
                shelf.refusals.forget(&ask.key);
                self.end(Progress::Done(Arc::clone(&entry)));
                Some((entry, ttl))
            }
            Lookup::Stale { entry, .. } if self.stale.is_none() => {
                // For others, too, if the origin fails.
                shelf.keep(&ask.key, &entry, now);
                self.stale = Some(entry);
                None
            }
            _ => None,
        }
    }

    /// The entry that is better than a failure, if there is one.
    #[must_use]
    pub fn usable_on_error(&self, now: Now) -> Option<Arc<Entry>> {
        let (stale, ask) = (Arc::clone(self.stale.as_ref()?), &self.fill.ask);
        let find = || Found::Entry(stale);
        match self.fills.shelf.look_at(&ask.key, find, &ask.request(), &ask.rule, now) {
            Lookup::Stale { entry, staleness, .. } if staleness.on_error => Some(entry),
            _ => None,
        }
    }

    /// Whether an answer with this head, and a body of so many bytes if that is known, is one for other edges.
    pub(super) fn is_for_fleet(&self, head: &Head, declared: Option<u64>) -> bool {
        let shared = self.fills.shelf.shared.load();
        let takes = |length| shared.as_ref().is_some_and(|shared| shared.takes(length));
        head.freshness.begins_fresh() && declared.is_none_or(takes)
    }

    /// Gives the fleet what was kept here.
    pub(super) fn share_with_fleet(&self, entry: &Arc<Entry>, lease: Option<Lease>) {
        if let Some(shared) = &*self.fills.shelf.shared.load()
            && self.fill.ask.key.whole().is_none()
        {
            shared.keep(entry, &self.fill.ask, lease);
        }
    }

    /// Ends what the fleet has under the key, of which there is nothing any more. By a purge, as whoever asked for it before,
    /// and is slow, may write it once more.
    pub(super) fn end_in_fleet(&self) {
        let (shelf, key) = (&self.fills.shelf, &self.fill.ask.key);
        if shelf.shared.load().is_some() && key.whole().is_none() {
            shelf.tags.order(Subject::key(key), Purge::Hard);
        }
    }

    /// What arrives is nothing for other edges: they need not wait for it.
    pub(super) fn keep_from_fleet(&mut self) {
        self.lease.take().into_iter().for_each(Lease::pass);
    }
}
