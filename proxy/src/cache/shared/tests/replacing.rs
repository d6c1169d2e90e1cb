//! What is fresh in the tier and what is stale here: the later answer is kept.

use super::*;
use crate::cache::{Lookup, Tag};

impl Edge {
    /// The origin answers this, at that time, whatever the tier has.
    fn fetches(&self, fields: &[(&'static str, &str)], body: &'static str, now: Now) {
        let mut ask = ask("/a", HeaderMap::new());
        ask.named = vec![Subject::uri("http", "example.org", "/a")];
        let mut guard = self.cache.fetch_past(ask, now);
        guard.head(http::StatusCode::OK, &map(fields), &[], now);
        guard.write(&bytes::Bytes::from_static(body.as_bytes()));
        guard.finish().unwrap();
    }

    /// What the tier has for a request that finds something stale here.
    async fn replaces(&self, now: Now) -> Option<Vec<u8>> {
        let Lookup::Stale { entry, .. } = self.cache.get("/a", &HeaderMap::new(), now) else {
            panic!("not stale")
        };
        let mut ask = ask("/a", HeaderMap::new());
        ask.stale = Some(entry);
        let found = self.cache.must_fill(ask, now).ask_fleet(PATIENCE, now).await;
        found.map(|(entry, _)| body(&entry))
    }

    async fn has_written(&self, count: u64) {
        while self.count(|stats| stats.written) < count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn what_is_fresh_there_takes_the_place_of_what_is_stale_here() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let (here, there) = (fleet.edge(1), fleet.edge(1));
    // A purge that is nobody else's, as of a file that changed: what is asked for here counts as later than the last word.
    here.cache.purge(Tag::named("x"), Purge::Hard);
    here.fetches(&[("cache-control", "max-age=60")], "old", noon());
    here.has_written(1).await;
    let later = noon().after(secs(100));
    there.fetches(&[("cache-control", "max-age=60")], "new", later);
    there.has_written(1).await;
    assert_eq!(here.replaces(later).await.as_deref(), Some(&b"new"[..]));
    let hit = here.cache.get("/a", &HeaderMap::new(), later).hit();
    assert_eq!(body(&hit), b"new", "and Redis is not asked again");
    // What was purged is not there, whatever took its place.
    here.cache.purge(uri("/a"), Purge::Hard);
    assert!(matches!(here.cache.get("/a", &HeaderMap::new(), later), Lookup::Miss(_)));
}

#[tokio::test]
async fn what_lies_there_from_before_what_is_stale_here_is_no_news() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let (here, there) = (fleet.edge(1), fleet.edge(1));
    let later = noon().after(secs(100));
    there.fetches(&[("cache-control", "max-age=3000")], "old", later);
    there.has_written(1).await;
    let name = fleet.server.ask(&["KEYS", "weir:cache:*"]);
    // Written a thousand seconds before; and since then the origin has something else, and wants to be asked.
    fleet.server.ask(&["PEXPIRE", &name, "2000000"]);
    here.fetches(&[("cache-control", "max-age=0"), ("etag", "\"a\"")], "new", later);
    // When its answers are waited for again.
    assert_eq!(here.replaces(later.after(secs(20))).await, None);
}
