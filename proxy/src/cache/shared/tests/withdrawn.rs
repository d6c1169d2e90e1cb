//! What an origin has withdrawn is brought back by no edge, however slow; and the fleet is told once, of what was given up.

use http::StatusCode;

use super::*;
use crate::cache::{Decision, NotStored, Tag};

/// Long after what [`Edge::keeps`] brings is over.
fn later() -> Now {
    noon().after(secs(100))
}

impl Edge {
    /// Has something that it shared, and that is over later.
    async fn shares(&self, target: &str) -> Arc<Entry> {
        let asked = self.asks(target);
        self.keeps(asked, "old").await;
        self.cache.get(target, &HeaderMap::new(), noon()).hit()
    }

    /// Asks the origin about what is over, whoever else does.
    fn asks_about(&self, stale: &Arc<Entry>) -> FillGuard {
        let mut ask = ask("/a", HeaderMap::new());
        ask.stale = Some(Arc::clone(stale));
        self.cache.fetch_past(ask, later())
    }

    fn words(&self) -> usize {
        self.cache.shelf.tags.outbox().len()
    }
}

fn gone(mut guard: FillGuard) {
    let decision = guard.head(StatusCode::GONE, &map(&[("cache-control", "no-store")]), &[], later());
    assert_eq!(decision, Decision::NotStored(NotStored::NoStore));
}

fn unchanged(guard: &mut FillGuard, fields: &[(&'static str, &str)]) -> Option<NotStored> {
    let confirmed = guard.not_modified(&map(fields), &[], later());
    confirmed.map_or_else(Some, |confirmed| confirmed.refused)
}

#[tokio::test]
async fn what_the_origin_has_withdrawn_comes_back_through_no_edge() {
    for (how, withdraw) in [
        ("it is gone", gone as fn(FillGuard)),
        ("it is one caller's now", |mut guard| {
            assert_eq!(unchanged(&mut guard, &[("cache-control", "private")]), Some(NotStored::Private));
        }),
    ] {
        let fleet = Fleet::new();
        fleet.tell(1);
        let (here, slow) = (fleet.edge(1), fleet.edge(1));
        let asked = slow.asks("/a");
        let old = here.shares("/a").await;
        assert_eq!(fleet.edge(1).finds("/a").await.as_deref(), Some(&b"old"[..]), "{how}: it was there");
        withdraw(here.asks_about(&old));
        assert_eq!(here.words(), 1, "{how}");
        let word = here.cache.shelf.tags.outbox().next(1).await.remove(0);
        assert_eq!((&word.subject, word.purge), (&Subject::key(&key("/a")), Purge::Hard), "{how}");
        // Before the word comes back, and when somebody writes what it had asked for before.
        assert_eq!(here.finds("/a").await, None, "{how}");
        slow.keeps(asked, "old").await;
        assert_eq!(here.finds("/a").await, None, "{how}");
        fleet.tell(2);
        let there = fleet.edge(1);
        there.cache.purge_key(&key("/a"), Purge::Hard);
        there.mark(2);
        assert_eq!(there.finds("/a").await, None, "{how}");
    }
}

#[tokio::test]
async fn the_fleet_is_told_once_and_only_of_what_was_given_up() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let here = fleet.edge(1);
    gone(here.cache.must_fill(ask("/a", HeaderMap::new()), later()));
    assert_eq!(here.words(), 0, "there was nothing");
    here.cache.fills.end_pass(&ask("/a", HeaderMap::new()));
    let old = here.shares("/a").await;
    // With credentials the origin speaks for one.
    let mut somebody_s = ask("/a", map(&[("authorization", "x")]));
    somebody_s.stale = Some(Arc::clone(&old));
    gone(here.cache.must_fill(somebody_s, later()));
    assert_eq!(here.words(), 0, "for others it is there as before");
    let crowd = [(); 3].map(|()| here.asks_about(&old));
    crowd.into_iter().for_each(gone);
    assert_eq!(here.words(), 1);
}

#[tokio::test]
async fn what_takes_the_place_of_an_entry_is_for_the_fleet_like_any_other() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let here = fleet.edge(1);
    let old = here.shares("/a").await;
    let mut guard = here.asks_about(&old);
    assert_eq!(unchanged(&mut guard, &[("etag", "\"of another\"")]), Some(NotStored::Mismatch));
    let before = here.count(|stats| stats.written);
    assert_eq!(
        guard.head(StatusCode::OK, &map(&[("cache-control", "max-age=60")]), &[] as &[Tag], later()),
        Decision::Store
    );
    guard.write(&bytes::Bytes::from_static(b"new"));
    let new = guard.finish().unwrap();
    while here.count(|stats| stats.written) == before {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(here.words(), 0, "it lies there in its place");
    assert_eq!(fleet.edge(1).finds("/a").await.as_deref(), Some(&b"new"[..]));
    let mut guard = here.asks_about(&new);
    assert_eq!(unchanged(&mut guard, &[("etag", "\"of another\"")]), Some(NotStored::Mismatch));
    drop(guard);
    assert_eq!(here.words(), 1, "nothing came");
}
