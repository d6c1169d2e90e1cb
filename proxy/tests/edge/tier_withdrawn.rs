//! What an origin has withdrawn is nobody's any more, also where the tier of the fleet had it.

use std::sync::atomic::Ordering;

use weir_testkit::Redis;

use crate::{
    shared_tier::{PATIENT, brought},
    support::{Edge, Origin, until, url},
};

/// What the origin says: what it always said, that there is nothing, that it is one caller's, or that it fails.
const GOOD: u64 = 1;
const GONE: u64 = 2;
const PRIVATE: u64 = 3;
const DOWN: u64 = 4;

#[test]
fn what_was_withdrawn_is_not_brought_back_when_the_origin_fails() {
    for withdrawn in [GONE, PRIVATE] {
        let (origin, says) = Origin::of_versions(|version, request, wire| match version {
            GOOD => wire.answer("cache-control: max-age=1\r\netag: \"a\"\r\n", "old"),
            PRIVATE if request.has("if-none-match") => {
                wire.send("HTTP/1.1 304 Not Modified\r\ncache-control: private\r\netag: \"a\"\r\n\r\n");
            }
            GONE | PRIVATE => {
                wire.send("HTTP/1.1 410 Gone\r\ncache-control: no-store\r\ncontent-length: 4\r\n\r\ngone");
            }
            _ => {
                wire.send("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\ndown");
            }
        });
        let server = Redis::start();
        let yaml = format!(
            "redis: {{ {} }}
caches: {{ store: {{ shared: {{ {PATIENT} }} }} }}
upstreams: {{ api: {{ servers: [{}], retry: {{ tries: 1 }} }} }}
routes: [{{ match: /*, cache: {{ in: store, stale_if_error: 1h }}, to: api }}]
",
            url(&server),
            origin.address
        );
        let start = || Edge::start(&yaml).in_fleet();
        let [here, there] = [start(), start()];
        assert_eq!(brought(&here, "/a"), "old");
        assert_eq!(there.get("/a").text(), "old");
        says.store(DOWN, Ordering::SeqCst);
        let covered = |edge: &Edge| edge.get("/a").cache().contains("origin-failed");
        until("it is over, and covers for the origin", || covered(&here) && covered(&start()));
        says.store(withdrawn, Ordering::SeqCst);
        until("the origin has withdrawn it", || !covered(&here));
        until("the fleet is told", || here.metric("weir_fleet_purges_waiting") == 0.0);
        says.store(DOWN, Ordering::SeqCst);
        assert_eq!(start().get("/a").status, 503, "who begins");
        until("whoever had it has heard", || there.get("/a").status == 503);
        assert_eq!(here.get("/a").status, 503, "who was told by the origin");
    }
}
