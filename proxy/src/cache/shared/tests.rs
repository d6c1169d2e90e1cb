//! Edges on one real Redis, each of which hears the stream of purges when the test says so: whatever the order of things, what
//! was purged is not taken from the tier.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]

use super::{
    super::{
        testing::*,
        {Begin, Cache, FillGuard, Purge, Url},
    },
    *,
};

mod hearing;
mod interposing;
mod leases;
mod replacing;
mod withdrawn;

const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis, and what was told there.
struct Fleet {
    server: Arc<weir_testkit::Redis>,
    plan: weir_config::Plan,
}

/// One edge, which hears by hand.
struct Edge {
    cache: Cache,
    timeline: Arc<Timeline>,
}

impl Fleet {
    fn new() -> Self {
        let server = Arc::new(weir_testkit::Redis::start());
        let plan = Self::plan(&server.url());
        Self { server, plan }
    }

    fn plan(url: &str) -> weir_config::Plan {
        let text = format!(
            "listeners: [127.0.0.1:1]
redis: {{ url: '{url}' }}
caches: {{ store: {{ shared: {{ timeout: 5s, lease: 0s }} }} }}
upstreams: {{ o: {{ servers: [127.0.0.1:2] }} }}
routes: [{{ to: o, cache: {{ in: store }} }}]
"
        );
        let loaded =
            weir_config::load("t", &text, &|_: &str| None).unwrap_or_else(|report| panic!("{report}"));
        loaded.plan
    }

    /// An edge that has heard the word at `place`.
    fn edge(&self, place: u64) -> Edge {
        let (cache, timeline) = (cache(), Arc::new(Timeline::default()));
        let plan = self.plan.caches[0].shared.clone().unwrap();
        let mut reached = self.plan.redis.clone().unwrap();
        reached.timeout = plan.timeout;
        cache.shelf.tags.outbox().open(true);
        cache.set_shared(Some(Shared::start(Common {
            redis: Redis::new(&reached).unwrap(),
            timeline: Arc::clone(&timeline),
            stream: "weir:purges".to_owned(),
            prefix: "weir:cache:".to_owned(),
            name: "store".into(),
            plan,
            counts: Arc::clone(&cache.shelf.shared_counts),
        })));
        timeline.set_current(true);
        let edge = Edge { cache, timeline };
        edge.mark(place);
        edge
    }

    /// Something was purged, and the stream has it at `place`; nobody has heard it yet.
    fn tell(&self, place: u64) {
        self.server.ask(&["XADD", "weir:purges", &place.to_string(), "h", "u…"]);
    }
}

impl Edge {
    fn mark(&self, place: u64) {
        let tags = &self.cache.shelf.tags;
        let (now, unheard) = (tags.moment(), tags.outbox().unheard());
        self.timeline.heard(Place { millis: place, number: 0 }, now, unheard);
    }

    /// Hears the word of another edge.
    fn hears(&self, place: u64, target: &str) {
        self.cache.purge(uri(target), Purge::Hard);
        self.mark(place);
    }

    fn asks(&self, target: &str) -> FillGuard {
        let mut ask = ask(target, HeaderMap::new());
        ask.named = vec![Subject::uri("http", "example.org", target)];
        match self.cache.begin(ask, noon()) {
            Begin::Fill(guard) => guard,
            other => panic!("it is there: {other:?}"),
        }
    }

    /// What the origin answered, as it was asked before.
    async fn keeps(&self, mut guard: FillGuard, body: &'static str) {
        let before = self.count(|stats| stats.written);
        let fields = map(&[("cache-control", "max-age=60"), ("cache-tag", "a b")]);
        guard.head(http::StatusCode::OK, &fields, &[], noon());
        guard.write(&bytes::Bytes::from_static(body.as_bytes()));
        guard.finish().unwrap();
        while self.count(|stats| stats.written) == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// What it finds in the tier for a request that misses here.
    async fn finds(&self, target: &str) -> Option<Vec<u8>> {
        let found = self.asks(target).ask_fleet(PATIENCE, noon()).await;
        found.map(|(entry, _)| body(&entry))
    }

    fn count(&self, of: impl Fn(SharedStats) -> u64) -> u64 {
        of(self.cache.shared_stats().unwrap())
    }
}

#[tokio::test]
async fn what_was_asked_for_before_a_purge_and_written_after_it_is_nobody_s() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let (slow, here) = (fleet.edge(1), fleet.edge(1));
    let asked = ["/a", "/b"].map(|target| slow.asks(target));
    fleet.tell(2);
    here.hears(2, "/a");
    // It has not heard the word, and nothing keeps it from writing.
    let [a, b] = asked;
    slow.keeps(a, "old").await;
    slow.keeps(b, "good").await;
    assert_eq!(here.finds("/a").await, None);
    assert_eq!(here.finds("/b").await.as_deref(), Some(&b"good"[..]), "nobody purged this");
    // Nor who heard it twice, or fetched something since.
    fleet.tell(3);
    here.hears(3, "/c");
    assert_eq!(here.finds("/a").await, None);
    let asked = here.asks("/a");
    here.keeps(asked, "new").await;
    slow.hears(2, "/a");
    slow.hears(3, "/c");
    assert_eq!(slow.finds("/a").await.as_deref(), Some(&b"new"[..]), "it is shared again");
}

#[tokio::test]
async fn an_edge_that_has_not_heard_all_that_was_told_takes_nothing() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let (here, behind) = (fleet.edge(1), Arc::new(fleet.edge(1)));
    let asked = here.asks("/a");
    here.keeps(asked, "old").await;
    fleet.tell(2);
    // It waits for the word, and the word says that this was purged.
    let finding = tokio::spawn({
        let behind = Arc::clone(&behind);
        async move { behind.finds("/a").await }
    });
    while behind.timeline.waiting() == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    behind.hears(2, "/a");
    assert_eq!(finding.await.unwrap(), None);
    let asked = here.asks("/b");
    here.keeps(asked, "of who is behind").await;
    assert_eq!(behind.finds("/b").await.as_deref(), Some(&b"of who is behind"[..]));
    // Nobody knows what a stream that is gone had.
    let another = fleet.edge(1);
    fleet.server.ask(&["DEL", "weir:purges"]);
    assert_eq!(another.finds("/b").await, None);
    assert_eq!(another.count(|stats| stats.unproven), 1);
}

#[tokio::test]
async fn an_edge_that_began_to_hear_after_a_purge_believes_nothing_older() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let before = fleet.edge(1);
    let asked = before.asks("/a");
    before.keeps(asked, "old").await;
    fleet.tell(2);
    let late = fleet.edge(2);
    assert_eq!(late.finds("/a").await, None);
    assert_eq!(late.count(|stats| stats.unproven), 1);
    // One that has read the stream from its beginning knows what was purged.
    let knows = fleet.edge(1);
    knows.hears(2, "/other");
    assert_eq!(knows.finds("/a").await.as_deref(), Some(&b"old"[..]));
}

#[tokio::test]
async fn a_purge_of_ours_counts_before_its_word_comes_back() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let (here, there) = (fleet.edge(1), fleet.edge(1));
    let tags = &here.cache.shelf.tags;
    tags.order(Subject::uri("http", "example.org", "/a"), Purge::Hard);
    // Others have heard more than their word was behind, and not ours.
    fleet.tell(2);
    there.hears(2, "/c");
    here.hears(2, "/c");
    let asked = there.asks("/a");
    there.keeps(asked, "old").await;
    assert_eq!(here.finds("/a").await, None, "purged here, whatever the other had heard");
    fleet.tell(3);
    tags.outbox().came_back(1);
    here.mark(3);
    assert_eq!(here.finds("/a").await, None, "it had not heard our word");
    there.hears(3, "/a");
    let asked = there.asks("/a");
    there.keeps(asked, "new").await;
    assert_eq!(here.finds("/a").await.as_deref(), Some(&b"new"[..]));
}

/// What purges, by its name.
type Purging<'p> = (&'p str, &'p dyn Fn(&Cache));

#[tokio::test]
async fn whatever_names_an_entry_purges_it() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let writer = fleet.edge(1);
    let asked = writer.asks("/a?b");
    writer.keeps(asked, "old").await;
    let purges: [Purging<'_>; 7] = [
        ("its key", &|cache| cache.purge_key(&key("/a?b"), Purge::Hard)),
        ("its URL", &|cache| cache.purge(uri("/a?b"), Purge::Hard)),
        ("a prefix", &|cache| {
            cache.shelf.tags.purge_prefix(&Url::parse("http://example.org/a").unwrap(), Purge::Hard);
        }),
        ("its origin", &|cache| cache.purge(Url::new("http", "example.org", "/").origin(), Purge::Hard)),
        ("one tag", &|cache| cache.purge(Tag::named("a"), Purge::Hard)),
        ("the other", &|cache| cache.purge(Tag::named("b"), Purge::Hard)),
        ("all", &|cache| cache.purge_all(Purge::Hard)),
    ];
    for (what, purge) in purges {
        let edge = fleet.edge(1);
        purge(&edge.cache);
        assert_eq!(edge.finds("/a?b").await, None, "{what}");
    }
    let edge = fleet.edge(1);
    edge.cache.purge(Tag::named("c"), Purge::Hard);
    assert_eq!(edge.finds("/a?b").await.as_deref(), Some(&b"old"[..]), "another tag");
}

#[tokio::test]
async fn what_has_a_tag_without_a_name_is_not_shared() {
    let fleet = Fleet::new();
    fleet.tell(1);
    let edge = fleet.edge(1);
    let mut guard = edge.asks("/a");
    guard.head(
        http::StatusCode::OK,
        &map(&[("cache-control", "max-age=60")]),
        &[Tag::named("of a route")],
        noon(),
    );
    let entry = guard.finish().unwrap();
    let mut ask = ask("/a", HeaderMap::new());
    ask.named = vec![Subject::uri("http", "example.org", "/a")];
    assert_eq!(subjects(&entry, &ask), None);
    ask.named.push(Subject::named("of a route"));
    assert_eq!(subjects(&entry, &ask).unwrap().len(), 2);
    assert_eq!(edge.count(|stats| stats.written), 0);
}
