//! A purge at one edge is one at all of them, and what was missed is not served.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use weir_testkit::Redis;

use crate::{
    disk::{Folder, written},
    support::{Edge, Gate, Origin, until, url},
};

/// An origin that numbers its answers.
fn counting() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |request, wire| {
        let number = (count.fetch_add(1, Ordering::SeqCst) + 1).to_string();
        let said = if request.method() == "DELETE" { "cache-group-invalidation: \"g\"\r\n" } else { "" };
        wire.answer(&format!("cache-tag: t\r\ncache-groups: \"g\"\r\n{said}"), number);
    })
}

/// An edge that keeps everything, and hears the fleet.
fn edge(origin: &Origin, redis: &str) -> Edge {
    Edge::start(&format!(
        "redis: {{ {redis} }}
caches: {{ store: {{}}, other: {{}} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /*
    cache: {{ in: store, ttl: 10m, purge: {{ allow: [127.0.0.0/8] }} }}
    to: api
",
        origin.address
    ))
    .in_fleet()
}

/// An order by its name, and what is answered to it.
type Given<'o> = (&'o str, &'o dyn Fn() -> (u16, Value));

/// Whether the answer is kept: two in a row are the same.
fn number(edge: &Edge, path: &str) -> String {
    edge.get(path).text()
}

#[test]
fn whatever_ends_an_entry_at_one_edge_ends_it_at_the_others() {
    let (origin, server) = (counting(), Redis::start());
    let [here, there] = [(), ()].map(|()| edge(&origin, &url(&server)));
    let orders: [Given<'_>; 9] = [
        ("a key", &|| here.order(&json!({ "key": "http://edge.test/a" }))),
        ("a URL", &|| here.order(&json!({ "url": "http://edge.test/a" }))),
        ("a prefix", &|| here.order(&json!({ "prefix": "http://edge.test/" }))),
        ("a tag", &|| here.order(&json!({ "tag": "t" }))),
        ("a cache", &|| here.order(&json!({ "all": "store" }))),
        ("all", &|| here.order(&json!({ "all": true }))),
        ("PURGE", &|| {
            let answer = here.send("PURGE /a HTTP/1.1\r\nhost: edge.test\r\n\r\n");
            (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
        }),
        ("a write", &|| {
            (
                here.send("POST /a HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n").status,
                json!({ "fleet": "told" }),
            )
        }),
        ("a group", &|| {
            (here.send("DELETE /b HTTP/1.1\r\nhost: edge.test\r\n\r\n").status, json!({ "fleet": "told" }))
        }),
    ];
    for (what, order) in orders {
        let before = number(&there, "/a");
        assert_eq!(number(&there, "/a"), before, "{what}: it is kept");
        number(&here, "/a");
        let (status, report) = order();
        assert_eq!((status, &report["fleet"]), (200, &json!("told")), "{what}: {report}");
        until(what, || number(&there, "/a") != before);
    }
    let before = number(&there, "/a");
    assert_eq!(here.order(&json!({ "tag": "another" })).0, 200);
    assert_eq!(here.order(&json!({ "all": "other" })).0, 200);
    until("both are heard", || there.metric("weir_cache_purges_total{by=\"fleet\",mode=\"hard\"}") >= 11.0);
    assert_eq!(number(&there, "/a"), before, "nothing else is purged");
    assert_eq!(
        here.metric("weir_cache_purges_total{by=\"fleet\",mode=\"hard\"}"),
        0.0,
        "nobody hears himself"
    );
}

#[test]
fn a_fill_that_was_asked_for_before_a_purge_elsewhere_is_not_kept() {
    let (gate, count) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let held = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        if number == 0 {
            held.pass();
        }
        wire.answer("cache-tag: t\r\n", number.to_string());
    });
    let server = Redis::start();
    let [here, there] = [(), ()].map(|()| edge(&origin, &url(&server)));
    let mut waiting = there.connect();
    waiting.send("GET /a HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    until("the origin was asked", || origin.count() == 1);
    assert_eq!(here.order(&json!({ "tag": "t" })).1["fleet"], "told");
    until("it is heard", || there.metric("weir_cache_purges_total{by=\"fleet\",mode=\"hard\"}") == 1.0);
    gate.open();
    assert_eq!(waiting.answer().text(), "0", "who asked before gets what was asked for");
    assert_eq!(number(&there, "/a"), "1", "and nobody else does");
    assert_eq!(number(&there, "/a"), "1");
}

#[test]
fn without_redis_a_purge_counts_here_says_so_and_is_told_later() {
    let (origin, server) = (counting(), Redis::start());
    let [here, there] = [(), ()].map(|()| edge(&origin, &url(&server)));
    let (before, kept) = (number(&here, "/a"), number(&there, "/a"));
    server.child().signal("STOP");
    let (status, report) = here.order(&json!({ "tag": "t" }));
    assert_eq!((status, &report["fleet"]), (202, &json!("waiting")), "{report}");
    assert_ne!(number(&here, "/a"), before, "it counts here at once");
    let answer = here.send("PURGE /a HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(here.metric("weir_fleet_purges_waiting") >= 2.0);
    assert_eq!(number(&there, "/a"), kept, "an edge that hears nothing goes on alone");
    server.child().signal("CONT");
    until("it is told", || here.metric("weir_fleet_purges_waiting") == 0.0);
    until("it is heard", || number(&there, "/a") != kept);
    assert!(here.output().contains("the fleet has been told of all purges"), "{}", here.output());
}

#[test]
fn an_edge_that_was_cut_off_catches_up_and_keeps_what_was_not_purged() {
    let (origin, server) = (counting(), Redis::start());
    let [here, there] = [(), ()].map(|()| edge(&origin, &url(&server)));
    let kept = ["/a", "/b"].map(|path| number(&there, path));
    assert_eq!(here.order(&json!({ "url": "http://edge.test/c" })).0, 200);
    there.signal("STOP");
    server.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
    until("the purge is told", || here.order(&json!({ "url": "http://edge.test/a" })).1["fleet"] == "told");
    there.signal("CONT");
    until("it catches up", || number(&there, "/a") != kept[0]);
    assert_eq!(number(&there, "/b"), kept[1], "what was missed is known, and the rest is kept");
}

#[test]
fn when_nobody_knows_what_was_missed_all_is_purged() {
    let (origin, server) = (counting(), Redis::start());
    let edges = [(), ()].map(|()| edge(&origin, &url(&server)));
    let heard = |edge: &Edge| edge.metric("weir_cache_purges_total{by=\"fleet\",mode=\"hard\"}") >= 1.0;
    let losses: [(&str, &dyn Fn()); 2] = [
        ("the stream is gone", &|| {
            server.ask(&["FLUSHALL"]);
        }),
        ("it was set back", &|| {
            // As after a failover that lost the newest word: others are still there.
            server.ask(&["XADD", "weir:purges", "*", "h", "nx"]);
            until("it is heard", || edges.iter().all(heard));
            let stream = server.ask(&["XREVRANGE", "weir:purges", "+", "-", "COUNT", "1"]);
            server.ask(&["XDEL", "weir:purges", stream.lines().next().unwrap()]);
        }),
    ];
    for (what, loss) in losses {
        let kept = edges.each_ref().map(|edge| number(edge, "/a"));
        loss();
        for (edge, kept) in edges.iter().zip(kept) {
            until(what, || number(edge, "/a") != kept);
        }
        until("all is well again", || edges.iter().all(Edge::hears_fleet));
    }
}

#[test]
fn what_lies_on_disk_is_caught_up_with_after_a_start() {
    let (origin, server, folder) = (counting(), Redis::start(), Folder::new());
    let here = edge(&origin, &url(&server));
    let top = format!("redis: {{ {} }}\n{}", url(&server), folder.named("memory: 8MiB", "size: 1GiB"));
    let start = || Edge::routing(&origin, "cache: { in: store, ttl: 10m }", &top).in_fleet();
    let there = start();
    let kept = ["/a", "/b"].map(|path| number(&there, path));
    written(&there, 2);
    there.signal("KILL");
    drop(there);
    assert_eq!(here.order(&json!({ "url": "http://edge.test/a" })).1["fleet"], "told");
    let there = start();
    until("it catches up", || number(&there, "/a") != kept[0]);
    assert_eq!(number(&there, "/b"), kept[1], "nobody purged this");
}

#[test]
fn a_reload_keeps_the_place_and_the_entries_and_may_end_or_begin_the_sharing() {
    let (origin, server) = (counting(), Redis::start());
    let [here, there] = [(), ()].map(|()| edge(&origin, &url(&server)));
    let kept = number(&there, "/a");
    let yaml = std::fs::read_to_string(there.config()).unwrap();
    there.reload(&format!("{yaml}# nothing else\n"));
    assert!(there.hears_fleet(), "it goes on as it did");
    assert_eq!(number(&there, "/a"), kept, "nothing was missed");
    assert_eq!(here.order(&json!({ "tag": "t" })).1["fleet"], "told");
    until("it is heard", || number(&there, "/a") != kept);

    let kept = number(&there, "/a");
    there.reload(&yaml.replace(&url(&server), &format!("{}, purges: false", url(&server))));
    assert_eq!(here.order(&json!({ "tag": "t" })).0, 200);
    let (status, report) = there.order(&json!({ "tag": "other" }));
    assert_eq!((status, &report["fleet"]), (200, &Value::Null), "who is alone has nobody to tell");
    assert_eq!(number(&there, "/a"), kept);
    there.reload(&yaml);
    until("what was missed is not served", || number(&there, "/a") != kept);

    let kept = number(&there, "/a");
    there.reload(&yaml.replace(&url(&server), &format!("{}, prefix: \"other:\"", url(&server))));
    until("it hears the others of its prefix", || there.hears_fleet());
    until("their purges were missed", || number(&there, "/a") != kept);
    let kept = number(&there, "/a");
    assert_eq!(here.order(&json!({ "tag": "t" })).1["fleet"], "told");
    server.ask(&["XADD", "other:purges", "*", "h", "nelse"]);
    let heard = || there.metric("weir_cache_purges_total{by=\"fleet\",mode=\"hard\"}");
    let before = heard();
    server.ask(&["XADD", "other:purges", "*", "h", "nmore"]);
    until("it is heard", || heard() > before);
    assert_eq!(number(&there, "/a"), kept, "another prefix is another fleet");
}

#[test]
fn a_refused_reload_neither_begins_nor_ends_the_sharing() {
    let (origin, server) = (counting(), Redis::start());
    let [here, there] = [(), ()].map(|()| edge(&origin, &url(&server)));
    let yaml = std::fs::read_to_string(here.config()).unwrap();
    let alone = yaml.replace(&url(&server), &format!("{}, purges: false", url(&server)));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // What it needs and cannot have is found last.
    let refused = |yaml: &str| {
        let address = taken.local_addr().unwrap();
        let yaml = yaml.replace("listeners: [", &format!("listeners: [{address}, "));
        assert!(yaml.contains(&address.to_string()), "{yaml}");
        !here.reloaded(&yaml)
    };
    assert!(refused(&alone));
    let kept = number(&there, "/a");
    assert_eq!(here.order(&json!({ "tag": "t" })).1["fleet"], "told");
    until("it is heard", || number(&there, "/a") != kept);

    here.reload(&alone);
    assert!(refused(&yaml));
    let (status, report) = here.order(&json!({ "tag": "t" }));
    assert_eq!((status, &report["fleet"]), (200, &Value::Null), "nobody is there to be told");
}

#[test]
fn a_purge_hears_fleet_within_milliseconds() {
    let (origin, server) = (counting(), Redis::start());
    let [here, there] = [(), ()].map(|()| edge(&origin, &url(&server)));
    let mut took: Vec<_> = (0..100)
        .map(|_| {
            let kept = number(&there, "/a");
            let told = here.order(&json!({ "tag": "t" })).1;
            assert_eq!(told["fleet"], "told");
            let since = Instant::now();
            while number(&there, "/a") == kept {
                assert!(since.elapsed() < Duration::from_secs(10), "it is heard");
            }
            since.elapsed()
        })
        .collect();
    took.sort();
    println!("heard within {:?} (median), {:?} (p99) of being told", took[50], took[98]);
    // Milliseconds on a machine that has time; a loaded one may take longer.
    assert!(took[50] < Duration::from_millis(500), "{took:?}");
}
