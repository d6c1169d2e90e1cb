//! A reload may add a cache of the fleet, or give it another name: what was purged before that edge knew of it stays purged.

use serde_json::json;
use weir_testkit::Redis;

use crate::{
    shared_tier::{PATIENT, brought, found, order},
    support::{Edge, Origin, until, url},
};

/// Two caches, as far as they are named, and a route for each.
fn yaml(origin: &Origin, redis: &str, caches: &[&str]) -> String {
    let (mut text, mut routes) = (String::new(), String::new());
    for name in caches {
        let path = if *name == "store" { "/*" } else { "/other/*" };
        text += &format!("  {name}: {{ shared: {{ {PATIENT} }} }}\n");
        routes += &format!("  - {{ match: {path}, cache: {{ in: {name}, ttl: 10m }}, to: api }}\n");
    }
    format!(
        "redis: {{ {redis} }}
caches:
{text}upstreams: {{ api: {{ servers: [{}] }} }}
routes:
{routes}",
        origin.address
    )
}

fn hearing(yaml: &str) -> Edge {
    Edge::start(yaml).in_fleet()
}

#[test]
fn what_was_purged_stays_purged_for_a_cache_that_a_reload_brings() {
    for (how, before, after) in
        [("added", &["other"][..], &["other", "store"][..]), ("renamed", &["other"], &["store"])]
    {
        for purge in [json!({ "all": true }), json!({ "all": "store" })] {
            let (origin, server) = (Origin::counting(""), Redis::start());
            let here = hearing(&yaml(&origin, &url(&server), &["store"]));
            let there = hearing(&yaml(&origin, &url(&server), before));
            let old = brought(&here, "/a");
            order(&here, purge);
            // Heard there, where no cache has that name; then the new file arrives.
            order(&there, json!({ "tag": "whatever" }));
            there.reload(&yaml(&origin, &url(&server), after));
            assert_ne!(found(&there, "/a").0, old, "{how}");
            // And then it is a part of the fleet as any other.
            let mut nth = 0;
            until("it takes part", || {
                nth += 1;
                let path = format!("/{how}/{nth}");
                brought(&here, &path);
                found(&there, &path).1
            });
        }
    }
}
