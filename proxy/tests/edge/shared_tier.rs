//! The tier that a fleet has in common: what one edge fetched, another finds in Redis; what was purged, nobody does; and a
//! Redis that is slow, away or lies costs its hits alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weir_testkit::{Redis, RedisCluster};

use crate::support::{Edge, Gate, Origin, until, url};

/// A deadline that a busy machine keeps, as these are no tests of haste.
pub(crate) const PATIENT: &str = "timeout: 5s";

/// An edge that keeps everything and shares it, once it hears the fleet.
fn edge(origin: &Origin, redis: &str, shared: &str) -> Edge {
    deaf(origin, redis, shared).in_fleet()
}

/// The same, whether it hears the fleet or not.
fn deaf(origin: &Origin, redis: &str, shared: &str) -> Edge {
    Edge::start(&format!(
        "redis: {{ {redis} }}
caches: {{ store: {{ shared: {{ {shared} }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /*
    cache: {{ in: store, ttl: 10m, stale_if_error: 1h, tags: [\"from-${{request.scheme}}\"], purge: {{ allow: [127.0.0.0/8] }} }}
    to: api
",
        origin.address
    ))
}

fn fleet<const N: usize>(origin: &Origin, server: &Redis) -> [Edge; N] {
    [(); N].map(|()| edge(origin, &url(server), PATIENT))
}

fn happened(edge: &Edge, event: &str) -> f64 {
    edge.metric(&format!("weir_cache_shared_total{{cache=\"store\",event=\"{event}\"}}"))
}

/// Asks for something that is shared from then on.
pub(crate) fn brought(edge: &Edge, path: &str) -> String {
    let before = happened(edge, "written");
    let answer = edge.get(path);
    assert!(answer.cache().contains("stored"), "{}", answer.cache());
    until("it is written", || happened(edge, "written") > before);
    answer.text()
}

/// What an edge answers, and whether it found that in the tier.
pub(crate) fn found(edge: &Edge, path: &str) -> (String, bool) {
    let answer = edge.get(path);
    (answer.text(), answer.cache().contains("detail=shared"))
}

pub(crate) fn order(edge: &Edge, what: Value) {
    let (status, report) = edge.order(&what);
    assert_eq!((status, &report["fleet"]), (200, &json!("told")), "{report}");
}

/// The names of all that lies in Redis for caches.
fn names(server: &Redis) -> Vec<String> {
    server.ask(&["KEYS", "weir:cache:*"]).lines().map(str::to_owned).filter(|name| !name.is_empty()).collect()
}

#[test]
fn what_one_edge_fetched_another_finds_and_also_after_a_start() {
    let (origin, server) = (Origin::counting("cache-control: max-age=60\r\netag: \"a\"\r\n"), Redis::start());
    let [here, there] = fleet(&origin, &server);
    assert_eq!(brought(&here, "/a"), "1");
    let told = there.operate("POST", "/explain", &json!({ "url": "http://edge.test/a" }), "").1;
    assert!(told.to_string().contains("the fleet's tier is asked before the origin"), "{told}");
    let answer = there.get("/a");
    assert_eq!((answer.status, answer.text()), (200, "1".to_owned()));
    assert!(answer.cache().starts_with("weir; hit; ttl="), "{}", answer.cache());
    assert!(answer.cache().contains("detail=shared"), "{}", answer.cache());
    assert_eq!(answer.field("etag"), "\"a\"");
    assert_eq!(found(&there, "/a"), ("1".to_owned(), false), "from memory from then on");
    let unchanged = edge(&origin, &url(&server), PATIENT).ask("/a", "if-none-match: \"a\"\r\n");
    assert_eq!(unchanged.status, 304, "{}", unchanged.cache());
    assert_eq!(origin.count(), 1);
    assert_eq!((happened(&there, "hit"), happened(&there, "miss")), (1.0, 0.0));
    let name = &names(&server)[0];
    let left: u64 = server.ask(&["PTTL", name]).parse().unwrap();
    assert!((600_000..=3_600_000).contains(&left), "as long as it is of use, and an hour at most: {left}");
}

/// What purges, by its name.
type Purging<'o> = (&'o str, &'o dyn Fn());

#[test]
fn whatever_purges_an_entry_ends_it_in_the_tier_too() {
    let (origin, server) = (Origin::counting("cache-tag: t\r\ncache-groups: \"g\"\r\n"), Redis::start());
    let [here, there] = fleet(&origin, &server);
    let orders: [Purging<'_>; 9] = [
        ("a key", &|| order(&here, json!({ "key": "http://edge.test/a" }))),
        ("a URL", &|| order(&here, json!({ "url": "http://edge.test/a" }))),
        ("a prefix", &|| order(&here, json!({ "prefix": "http://edge.test/" }))),
        ("the origin's tag", &|| order(&here, json!({ "tag": "t" }))),
        ("the route's tag", &|| order(&here, json!({ "tag": "from-http" }))),
        ("a cache", &|| order(&here, json!({ "all": "store" }))),
        ("all", &|| order(&here, json!({ "all": true }))),
        ("PURGE", &|| assert_eq!(here.send("PURGE /a HTTP/1.1\r\nhost: edge.test\r\n\r\n").status, 200)),
        ("a write", &|| {
            let write = "POST /a HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n";
            assert_eq!(here.send(write).status, 200);
            until("it is told", || here.metric("weir_fleet_purges_waiting") == 0.0);
        }),
    ];
    for (what, purge) in orders {
        let before = brought(&here, "/a");
        let fresh = edge(&origin, &url(&server), PATIENT);
        assert_eq!(found(&fresh, "/a"), (before.clone(), true), "{what}: it is there");
        purge();
        assert_ne!(found(&there, "/a").0, before, "{what}: an edge that was there");
        // Nor is what that one wrote the old.
        let late = edge(&origin, &url(&server), PATIENT);
        assert_ne!(found(&late, "/a").0, before, "{what}: an edge that began afterwards");
        order(&here, json!({ "all": true }));
    }
}

#[test]
fn a_purge_ends_what_was_asked_for_before_it_however_late_that_is_written() {
    let (gate, count) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            held.pass();
        }
        wire.answer("", number.to_string());
    });
    let server = Redis::start();
    let [here, there] = fleet(&origin, &server);
    let mut waiting = there.connect();
    waiting.send("GET /a HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    until("the origin was asked", || origin.count() == 1);
    order(&here, json!({ "url": "http://edge.test/a" }));
    gate.open();
    assert_eq!(waiting.answer().text(), "0", "who asked before gets what was asked for");
    assert_eq!(found(&here, "/a"), ("1".to_owned(), false), "and nobody else does");
    let late = edge(&origin, &url(&server), PATIENT);
    assert_ne!(found(&late, "/a").0, "0");
}

#[test]
fn an_entry_that_comes_back_after_a_purge_is_believed_by_nobody() {
    let (origin, server) = (Origin::counting(""), Redis::start());
    let [here, there] = fleet(&origin, &server);
    assert_eq!((brought(&here, "/a"), brought(&here, "/b")), ("1".to_owned(), "2".to_owned()));
    let kept = names(&server);
    let copy = |from: &str, to: &str| assert_eq!(server.ask(&["COPY", from, to, "REPLACE"]), "1");
    kept.iter().for_each(|name| copy(name, &format!("copy:{name}")));
    // As if somebody who had not heard of a purge wrote only now what it fetched before.
    let come_back = || kept.iter().for_each(|name| copy(&format!("copy:{name}"), name));

    order(&here, json!({ "url": "http://edge.test/a" }));
    come_back();
    assert_eq!(found(&there, "/a"), ("3".to_owned(), false), "purged");
    assert_eq!(found(&there, "/b"), ("2".to_owned(), true), "nobody purged this");
    come_back();
    let late = edge(&origin, &url(&server), PATIENT);
    assert_eq!(found(&late, "/a"), ("4".to_owned(), false), "also by who was not there when it was");
    assert_eq!(found(&late, "/b"), ("2".to_owned(), true));
    // The word is cut off: who begins now cannot know what was purged.
    order(&here, json!({ "url": "http://edge.test/c" }));
    server.ask(&["XTRIM", "weir:purges", "MAXLEN", "1"]);
    come_back();
    let later = edge(&origin, &url(&server), PATIENT);
    assert_eq!(found(&later, "/a"), ("5".to_owned(), false));
    assert!(!found(&later, "/b").1, "of this neither");
    assert_eq!(happened(&later, "unproven"), 2.0);
}

#[test]
fn an_edge_that_has_not_heard_of_a_purge_yet_does_not_take_what_it_ended() {
    let (origin, server) = (Origin::counting(""), Redis::start());
    let [here] = fleet(&origin, &server);
    assert_eq!(brought(&here, "/a"), "1");
    // This one may not hear anything: the words are told, and never reach it.
    server.ask(&["ACL", "SETUSER", "deaf", "on", ">word", "~*", "+@all", "-xread"]);
    let redis = format!("{}, username: deaf, password: word", url(&server));
    let there = deaf(&origin, &redis, PATIENT);
    assert_eq!(found(&there, "/a"), ("2".to_owned(), false), "it goes on alone");
    assert_eq!(happened(&there, "hit"), 0.0);
    assert_eq!(happened(&there, "written"), 0.0, "and has nothing to say of what it fetched");
}

#[test]
fn a_purge_here_counts_here_before_redis_has_heard_of_it() {
    let (origin, server) = (Origin::counting(""), Redis::start());
    let [here, there] = fleet(&origin, &server);
    assert_eq!(brought(&here, "/a"), "1");
    // Told to nobody: this edge may not write.
    server.ask(&["ACL", "SETUSER", "default", "-xadd"]);
    let report = there.order(&json!({ "url": "http://edge.test/a" })).1;
    assert_eq!(report["fleet"], "waiting", "{report}");
    assert_eq!(found(&there, "/a"), ("2".to_owned(), false));
    server.ask(&["ACL", "SETUSER", "default", "+xadd"]);
    until("it is told", || there.metric("weir_fleet_purges_waiting") == 0.0);
    until("it is heard", || found(&here, "/a").0 != "1");
}

#[test]
fn of_a_fleet_that_misses_a_key_one_edge_asks_the_origin() {
    let gate = Arc::new(Gate::default());
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        held.pass();
        wire.answer("", "once");
    });
    let server = Redis::start();
    // On a busy machine nobody gives up.
    let shared = format!("{PATIENT}, lease: 60s");
    let edges: [Edge; 3] = [(); 3].map(|()| edge(&origin, &url(&server), &shared));
    let addresses = edges.each_ref().map(Edge::http);
    let clients: Vec<_> = (0..51)
        .map(|nth| thread::spawn(move || crate::support::get(addresses[nth % 3], "/hot").text()))
        .collect();
    until("the origin was asked", || origin.count() == 1);
    let miss = |edge: &Edge| edge.metric("weir_cache_collapsed_total{cache=\"store\"}");
    until("all wait", || edges.iter().map(miss).sum::<f64>() >= 48.0);
    gate.open();
    clients.into_iter().for_each(|client| assert_eq!(client.join().unwrap(), "once"));
    assert_eq!(origin.count(), 1);
    assert_eq!(edges.iter().map(|edge| happened(edge, "hit")).sum::<f64>(), 2.0);
    until("the lease is given back", || names(&server).iter().all(|name| !name.ends_with(":fill")));
}

#[test]
fn nobody_waits_for_what_is_not_for_sharing() {
    for (what, fields, body) in [
        ("an answer that forbids it", "cache-control: no-store\r\n", "x".to_owned()),
        ("one caller's", "set-cookie: a=b\r\n", "x".to_owned()),
        ("one that is too large", "", "x".repeat(70_000)),
    ] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let origin = Origin::start(move |_, wire| {
            counted.fetch_add(1, Ordering::SeqCst);
            wire.answer(fields, &body);
        });
        let server = Redis::start();
        let shared = format!("{PATIENT}, lease: 5m");
        let edges: [Edge; 3] = [(); 3].map(|()| edge(&origin, &url(&server), &shared));
        let began = Instant::now();
        assert_eq!(edges[0].get("/a").status, 200);
        until("the others are told", || {
            server.ask(&["GET", names(&server).first().map_or("", |name| name)]) == "-"
        });
        edges.iter().skip(1).for_each(|edge| assert_eq!(edge.get("/a").status, 200));
        // Not the lease, and not the route's patience with other requests, which is 5 s for each.
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        assert_eq!(count.load(Ordering::SeqCst), 3, "{what}");
        edges.iter().for_each(|edge| {
            assert_eq!((happened(edge, "written"), happened(edge, "wait")), (0.0, 0.0), "{what}");
        });
        assert!(names(&server).len() <= 1, "{what}: nothing but the word that nobody need wait");
    }
}

#[test]
fn an_edge_that_dies_while_it_fetches_holds_the_others_up_for_its_lease_at_most() {
    let (gate, count) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            held.pass();
        }
        wire.answer("", "here");
    });
    let server = Redis::start();
    let shared = format!("{PATIENT}, lease: 300ms");
    let [dies, lives] = [(), ()].map(|()| edge(&origin, &url(&server), &shared));
    dies.connect().send("GET /a HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    until("it asks", || origin.count() == 1);
    dies.signal("KILL");
    assert_eq!(lives.get("/a").text(), "here");
    assert_eq!(origin.count(), 2);
    gate.open();
}

#[test]
fn without_redis_the_origin_answers_at_once() {
    let (origin, server) = (Origin::counting(""), Redis::start());
    let redis = format!("{}, timeout: 10s", url(&server));
    let [here, there] = [(), ()].map(|()| edge(&origin, &redis, "timeout: 20ms"));
    until("it is written", || {
        here.get("/a");
        order(&here, json!({ "all": true }));
        happened(&here, "written") > 0.0
    });
    server.child().signal("STOP");
    let began = Instant::now();
    let asked = origin.count();
    for nth in 0..40 {
        let answer = there.get(&format!("/stalled/{nth}"));
        assert_eq!(answer.status, 200);
    }
    // With the deadline of sessions and limits the first three alone would take longer.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    assert_eq!(origin.count(), asked + 40);
    server.child().signal("CONT");
    until("it is of use again", || {
        let path = format!("/again/{}", origin.count());
        here.get(&path);
        found(&there, &path).1
    });
    drop(server);
    for nth in 0..40 {
        assert_eq!(there.get(&format!("/gone/{nth}")).status, 200);
    }
    assert!(happened(&there, "error") > 0.0);
}

#[test]
fn what_lies_there_and_is_no_entry_of_this_key_is_a_miss() {
    let (origin, server) = (Origin::counting(""), Redis::start());
    let [here, there] = fleet(&origin, &server);
    let mut known: Vec<String> = Vec::new();
    let mut name_of = |path: &str| {
        brought(&here, path);
        let new = names(&server).into_iter().find(|name| !known.contains(name)).unwrap();
        known.push(new.clone());
        new
    };
    let [damaged, cut, other, text, list] =
        ["/damaged", "/cut", "/other", "/text", "/list"].map(&mut name_of);
    server.ask(&["SETRANGE", &damaged, "60", "?!"]);
    server.ask(&["COPY", &text, &other, "REPLACE"]);
    server.ask(&["SET", &cut, "weirshr1", "PX", "60000"]);
    server.ask(&["SET", &text, "weirshr9 of a later version", "PX", "60000"]);
    server.ask(&["DEL", &list]);
    server.ask(&["RPUSH", &list, "no", "text"]);
    for path in ["/damaged", "/cut", "/other", "/text", "/list"] {
        let answer = there.get(path);
        assert_eq!((answer.status, answer.cache().contains("fwd=uri-miss")), (200, true), "{path}");
    }
    assert_eq!((happened(&there, "hit"), happened(&there, "damaged")), (0.0, 4.0));
    assert_eq!(origin.count(), 10);
}

#[test]
fn what_is_kept_for_one_caller_is_found_for_that_one_and_its_key_is_told_to_nobody() {
    let (origin, server) = (Origin::counting("cache-control: public, max-age=600\r\n"), Redis::start());
    let yaml = format!(
        "redis: {{ {} }}
caches: {{ store: {{ shared: {{ {PATIENT}, compress: false }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes: [{{ match: /*, cache: {{ in: store, key: '${{cookie.sid}}:${{request.path}}' }}, to: api }}]
",
        url(&server),
        origin.address
    );
    let [here, there] = [(), ()].map(|()| Edge::start(&yaml).in_fleet());
    let ask = |edge: &Edge, sid: &str| {
        let answer = edge.ask("/own", &format!("cookie: sid={sid}\r\n"));
        (answer.text(), answer.cache().contains("detail=shared"))
    };
    assert_eq!(ask(&here, "0a-secret-of-anna"), ("1".to_owned(), false));
    until("it is written", || happened(&here, "written") == 1.0);
    assert_eq!(ask(&there, "0b-secret-of-bert"), ("2".to_owned(), false));
    assert_eq!(ask(&there, "0a-secret-of-anna"), ("1".to_owned(), true));
    for name in names(&server) {
        assert!(!name.contains("secret") && !server.ask(&["GET", &name]).contains("secret"), "{name}");
    }
}

#[test]
fn variants_lie_side_by_side() {
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |request, wire| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        wire.answer("vary: x-kind\r\n", format!("{}{number}", request.field("x-kind")));
    });
    let server = Redis::start();
    let [here, there] = fleet(&origin, &server);
    let ask = |edge: &Edge, kind: &str| {
        let answer = edge.ask("/a", &format!("x-kind: {kind}\r\n"));
        (answer.text(), answer.cache().contains("detail=shared"))
    };
    for (nth, kind) in ["a", "b"].into_iter().enumerate() {
        assert_eq!(ask(&here, kind), (format!("{kind}{}", nth + 1), false));
        until("it is written", || happened(&here, "written") > nth as f64);
    }
    assert_eq!(ask(&there, "b"), ("b2".to_owned(), true));
    assert_eq!(ask(&there, "a"), ("a1".to_owned(), true));
    assert_eq!(ask(&there, "c"), ("c3".to_owned(), false));
    order(&here, json!({ "url": "http://edge.test/a" }));
    let mut heard = ("a1".to_owned(), false);
    until("it is heard", || {
        heard = ask(&there, "a");
        heard.0 != "a1"
    });
    assert_eq!(heard, ("a4".to_owned(), false));
}

#[test]
fn what_is_stale_there_is_asked_about_and_stands_in_when_the_origin_fails() {
    let count = AtomicUsize::new(0);
    let origin = Origin::start(move |request, wire| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        if request.has("if-none-match") {
            wire.send("HTTP/1.1 304 Not Modified\r\n\r\n");
        } else if number > 2 {
            wire.cut();
        } else {
            wire.answer("cache-control: max-age=1\r\netag: \"v\"\r\n", number.to_string());
        }
    });
    let server = Redis::start();
    let yaml = format!(
        "redis: {{ {} }}
caches: {{ store: {{ shared: {{ {PATIENT} }} }} }}
upstreams: {{ api: {{ servers: [{}], retry: {{ tries: 1 }} }} }}
routes:
  - match: /asked
    cache: {{ in: store, stale_if_error: 1h }}
    to: api
  - match: /failing
    cache: {{ in: store, stale_if_error: 1h, revalidate: false }}
    to: api
",
        url(&server),
        origin.address
    );
    let start = || Edge::start(&yaml).in_fleet();
    let here = start();
    assert_eq!(brought(&here, "/asked"), "1");
    assert_eq!(brought(&here, "/failing"), "2");
    let there = start();
    until("they are stale", || there.get("/asked").cache().contains("fwd="));
    assert_eq!(there.get("/asked").text(), "1");
    let answer = there.get("/failing");
    assert_eq!((answer.status, answer.text()), (200, "2".to_owned()), "{}", answer.cache());
}

#[test]
fn in_a_cluster_all_of_it_works() {
    let (origin, cluster) = (Origin::counting(""), RedisCluster::start());
    let redis = format!("cluster: {}, timeout: 5s", cluster.addresses());
    let [here, there] = [(), ()].map(|()| edge(&origin, &redis, PATIENT));
    for nth in 0..12 {
        let path = format!("/{nth}");
        let text = brought(&here, &path);
        assert_eq!(found(&there, &path), (text, true));
    }
    order(&here, json!({ "prefix": "http://edge.test/" }));
    assert!((0..12).all(|nth| !found(&edge(&origin, &redis, PATIENT), &format!("/{nth}")).1));
}

#[test]
fn a_reload_may_begin_change_or_end_it() {
    let (origin, server) = (Origin::counting(""), Redis::start());
    let [here, there] = fleet(&origin, &server);
    assert_eq!(brought(&here, "/a"), "1");
    let yaml = std::fs::read_to_string(there.config()).unwrap();
    there.reload(&yaml.replace(&format!("shared: {{ {PATIENT} }}"), ""));
    assert_eq!(found(&there, "/a"), ("2".to_owned(), false));
    there.reload(&yaml.replace(PATIENT, "timeout: 4s, compress: false"));
    assert_eq!(brought(&here, "/b"), "3");
    assert_eq!(found(&there, "/b"), ("3".to_owned(), true));
    there.reload(&yaml.replace(&url(&server), &format!("{}, prefix: \"other:\"", url(&server))));
    until("it hears another fleet", || there.hears_fleet());
    assert!(!found(&there, "/c").1);
    assert_eq!(brought(&here, "/d"), "5");
    assert!(!found(&there, "/d").1, "another prefix is another fleet");
}
