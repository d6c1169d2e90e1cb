//! What is kept, who may have it, and what ends it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Client, Edge, Gate, Origin, Request, Wire, ok, until};

/// Everything is kept for a minute.
fn caching(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store{rule} }}"), "caches: { store: { memory: 16MiB } }")
}

/// An origin that numbers its answers.
fn counting(fields: &'static str) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |_, wire| {
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        wire.answer(fields, format!("answer {number}"));
    })
}

#[test]
fn a_miss_is_stored_and_then_hit_and_says_so() {
    let origin = counting("x-own: 1\r\ncontent-type: text/plain\r\n");
    let edge = caching(&origin, ", ttl: 60s");
    let miss = edge.get("/a");
    assert!(miss.cache().starts_with("weir; fwd=uri-miss; fwd-status=200"), "{}", miss.cache());
    assert!(miss.cache().contains("; stored"), "{}", miss.cache());
    let hit = edge.get("/a");
    assert_eq!((hit.status, hit.text()), (200, "answer 1".into()));
    assert!(hit.cache().starts_with("weir; hit; ttl="), "{}", hit.cache());
    assert!(hit.field("age").parse::<u64>().unwrap() <= 60);
    assert_eq!((&*hit.field("x-own"), &*hit.field("content-type")), ("1", "text/plain"));
    assert_ne!(hit.field("x-request-id"), miss.field("x-request-id"));
    assert_eq!(edge.get("/b").text(), "answer 2");
    assert_eq!(edge.get("/a?x").text(), "answer 3");
    assert_eq!(origin.count(), 3);
    assert_eq!(edge.metric("weir_cache_requests_total{cache=\"store\",result=\"hit\"}"), 1.0);
    assert_eq!(edge.metric("weir_cache_requests_total{cache=\"store\",result=\"miss\"}"), 3.0);
    assert_eq!(edge.metric("weir_cache_entries{cache=\"store\"}"), 3.0);
}

#[test]
fn the_origin_s_word_counts_where_the_route_has_none() {
    let origin = Origin::start(|request, wire| {
        let fields = match request.target() {
            "/kept" => "cache-control: max-age=60\r\n",
            "/shared" => "cache-control: s-maxage=60, max-age=0\r\n",
            _ => "",
        };
        wire.answer(fields, request.target());
    });
    let edge = caching(&origin, "");
    for path in ["/kept", "/kept", "/shared", "/shared", "/unsaid", "/unsaid"] {
        assert_eq!(edge.get(path).text(), path);
    }
    assert_eq!(origin.count(), 4);
}

#[test]
fn what_may_not_be_kept_is_not() {
    let origin = Origin::start(|request, wire| {
        let fields = match request.target() {
            "/cookie" => "set-cookie: sid=1\r\n",
            "/no-store" => "cache-control: no-store\r\n",
            "/private" => "cache-control: private\r\n",
            "/vary-all" => "vary: *\r\n",
            _ => "",
        };
        if request.target() == "/broken" {
            wire.send("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n");
        } else {
            wire.answer(fields, "x");
        }
    });
    let edge = caching(&origin, ", ttl: 60s");
    for path in ["/cookie", "/no-store", "/private", "/vary-all", "/broken"] {
        for _ in 0..2 {
            let answer = edge.get(path);
            assert!(
                !answer.cache().contains("hit") && !answer.cache().contains("stored"),
                "{path}: {}",
                answer.cache()
            );
        }
    }
    for _ in 0..2 {
        assert_eq!(edge.ask("/auth", "authorization: Bearer x\r\n").status, 200);
    }
    let posts = "POST /post HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n";
    assert_eq!([edge.send(posts).status, edge.send(posts).status], [200, 200]);
    assert_eq!(origin.count(), 14);
}

#[test]
fn variants_are_told_apart() {
    let origin = Origin::start(|request, wire| {
        wire.answer("vary: accept-language\r\n", request.field("accept-language"))
    });
    let edge = caching(&origin, ", ttl: 60s");
    let ask = |language: &str| edge.ask("/", &format!("accept-language: {language}\r\n")).text();
    assert_eq!([ask("de"), ask("en"), ask("de"), ask("en")], ["de", "en", "de", "en"]);
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_hundred_misses_at_once_ask_the_origin_once() {
    let (gate, held) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let (release, arrived) = (Arc::clone(&gate), Arc::clone(&held));
    let origin = Origin::start(move |_, wire| {
        arrived.open();
        release.pass();
        wire.answer("", vec![b'x'; 100_000]);
    });
    let edge = caching(&origin, ", ttl: 60s, lock_timeout: 60s");
    let mut clients: Vec<_> = (0..100).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /one HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    }
    held.pass();
    crate::support::until("all are under way", || edge.metric("weir_requests_in_flight") == 100.0);
    gate.open();
    for client in &mut clients {
        let answer = client.answer();
        assert_eq!((answer.status, answer.whole, answer.body.len()), (200, true, 100_000));
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_write_is_seen_by_every_read_that_follows_its_answer() {
    let value = Arc::new(AtomicUsize::new(0));
    let store = Arc::clone(&value);
    let origin = Origin::start(move |request, wire| {
        if request.method() == "PUT" {
            store.fetch_add(1, Ordering::SeqCst);
        }
        wire.answer("", store.load(Ordering::SeqCst).to_string());
    });
    let yaml = format!(
        "caches: {{ store: {{}} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: {{ path: \"/{{user}}/list\", methods: [GET] }}
    cache: {{ in: store, ttl: 60s, key: \"list:${{path.user}}\", tags: [\"user:${{path.user}}\"] }}
    to: api
  - match: {{ path: \"/{{user}}/item\", methods: [PUT] }}
    invalidate: [\"user:${{path.user}}\"]
    to: api
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    assert_eq!(edge.get("/other/list").text(), "0");
    for round in 0..20 {
        assert_eq!(edge.get("/anna/list").text(), round.to_string());
        assert_eq!(edge.get("/anna/list").text(), round.to_string());
        assert_eq!(
            edge.send("PUT /anna/item HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n").status,
            200
        );
    }
    assert_eq!(edge.get("/other/list").text(), "0", "what another wrote is not ours to forget");
    assert_eq!(edge.metric("weir_cache_invalidations_total"), 20.0);
}

#[test]
fn an_answer_that_raced_a_write_is_not_served_after_it() {
    let (gate, held) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let (release, arrived) = (Arc::clone(&gate), Arc::clone(&held));
    let reads = AtomicUsize::new(0);
    let origin = Origin::start(move |request, wire| {
        if request.method() == "GET" && reads.fetch_add(1, Ordering::SeqCst) == 0 {
            arrived.open();
            release.pass();
            return wire.answer("", "old");
        }
        wire.answer("", "new");
    });
    let edge = Edge::routing(
        &origin,
        "invalidate: [all]\n    cache: { in: store, ttl: 60s, tags: [all] }",
        "caches: { store: {} }",
    );
    let mut reader = edge.connect();
    reader.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    held.pass();
    assert_eq!(edge.send("PUT /y HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n").status, 200);
    gate.open();
    assert_eq!(reader.answer().text(), "old", "asked before the write");
    assert_eq!(edge.get("/x").text(), "new");
}

#[test]
fn an_unsafe_request_ends_its_own_target_s_entry() {
    let origin = counting("");
    let edge = caching(&origin, ", ttl: 60s");
    assert_eq!([edge.get("/x").text(), edge.get("/x").text()], ["answer 1", "answer 1"]);
    assert_eq!(edge.send("DELETE /x HTTP/1.1\r\nhost: edge.test\r\n\r\n").status, 200);
    assert_eq!(edge.get("/x").text(), "answer 3");
}

#[test]
fn the_origin_s_own_tags_purge_and_are_not_shown() {
    let origin = Origin::start(|request, wire| wire.answer("cache-tag: a, b\r\n", request.target()));
    let yaml = format!(
        "caches: {{ store: {{}} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: {{ path: /x, methods: [GET] }}
    cache: {{ in: store, ttl: 60s }}
    to: api
  - match: /write
    invalidate: [b]
    to: api
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    assert!(!edge.get("/x").has("cache-tag"));
    assert!(edge.get("/x").cache().contains("hit"));
    edge.send("POST /write HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n");
    assert!(edge.get("/x").cache().contains("fwd="), "purged");
}

#[test]
fn two_callers_never_share() {
    let origin = Origin::start(|request, wire| {
        if request.target() == "/auth/session" {
            let user = request.field("authorization").replace("Bearer ", "");
            return wire.answer("", format!(r#"{{"user_id":"{user}"}}"#));
        }
        wire.answer("", request.field("authorization"));
    });
    let yaml = format!(
        "caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [bearer], ask: {{ upstream: api, path: /auth/session }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /*
    session: {{ use: app, required: true }}
    cache: {{ in: store, ttl: 60s, key: \"x:${{session.user_id}}:${{query.q}}\" }}
    to: api
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let ask = |user: &str, path: &str| edge.ask(path, &format!("authorization: Bearer {user}\r\n"));
    for _ in 0..2 {
        assert_eq!(ask("anna", "/x").text(), "Bearer anna");
        assert_eq!(ask("bert", "/x").text(), "Bearer bert");
        assert_eq!(ask("a", "/x?q=b:c").text(), "Bearer a");
        assert_eq!(ask("a:b", "/x?q=c").text(), "Bearer a:b", "a value cannot end where another begins");
    }
    assert!(ask("anna", "/x").cache().contains("hit"));
    assert_eq!(edge.get("/x").status, 401, "a stored answer is behind the same door");
}

#[test]
fn conditions_ranges_and_head_are_answered_from_the_entry() {
    let origin = Origin::start(|_, wire| wire.answer("etag: \"v1\"\r\n", "0123456789"));
    let edge = caching(&origin, ", ttl: 60s");
    let mut client = edge.connect();
    client.ask("/x", "");
    let unchanged = client.ask("/x", "if-none-match: \"v1\"\r\n");
    assert_eq!((unchanged.status, &*unchanged.field("etag")), (304, "\"v1\""));
    assert_eq!(client.ask("/x", "if-none-match: \"v0\"\r\n").text(), "0123456789");
    let part = client.ask("/x", "range: bytes=2-4\r\n");
    assert_eq!(
        (part.status, part.text(), &*part.field("content-range")),
        (206, "234".into(), "bytes 2-4/10")
    );
    let beyond = client.ask("/x", "range: bytes=20-\r\n");
    assert_eq!((beyond.status, &*beyond.field("content-range")), (416, "bytes */10"));
    let head = client.send("HEAD /x HTTP/1.1\r\nhost: edge.test\r\n\r\n").answer_to_head();
    assert_eq!((head.status, &*head.field("content-length")), (200, "10"));
    assert_eq!(client.ask("/x", "cache-control: no-cache\r\n").status, 200);
    assert!(origin.count() <= 2);
}

#[test]
fn a_head_that_misses_fills_for_the_get_that_follows() {
    let origin = counting("");
    let edge = caching(&origin, ", ttl: 60s");
    let mut client = edge.connect();
    let head = client.send("HEAD /x HTTP/1.1\r\nhost: edge.test\r\n\r\n").answer_to_head();
    assert_eq!((head.status, &*head.field("content-length")), (200, "8"));
    assert_eq!(client.ask("/x", "").text(), "answer 1");
    assert_eq!((origin.count(), origin.last().method()), (1, "GET"));
}

#[test]
fn a_range_of_what_is_not_stored_goes_to_the_origin_and_is_not_kept() {
    let origin = Origin::start(|request, wire| {
        if request.has("range") {
            wire.send("HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-3/10\r\ncontent-length: 4\r\n\r\n0123");
        } else {
            wire.answer("", "0123456789");
        }
    });
    let edge = caching(&origin, ", ttl: 60s");
    let part = edge.ask("/x", "range: bytes=0-3\r\n");
    assert_eq!((part.status, part.text()), (206, "0123".into()));
    assert!(part.cache().contains("fwd=bypass; detail=range"), "{}", part.cache());
    assert_eq!(edge.get("/x").text(), "0123456789", "a part is not the whole");
    assert_eq!(edge.ask("/x", "range: bytes=4-5\r\n").text(), "45");
    assert_eq!(origin.count(), 2);
}

#[test]
fn answers_of_unknown_length_are_kept() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
    );
    let edge = caching(&origin, ", ttl: 60s");
    let first = edge.get("/x");
    assert_eq!((first.text(), first.whole), ("abcdef".into(), true));
    let second = edge.get("/x");
    assert_eq!((second.text(), &*second.field("content-length")), ("abcdef".into(), "6"));
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_condition_is_answered_from_what_comes_also_where_its_length_is_not_known() {
    let origin = Origin::start(|_, wire| {
        wire.send(
            "HTTP/1.1 200 OK\r\netag: \"a\"\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
        );
    });
    let edge = caching(&origin, ", ttl: 60s");
    let unchanged = edge.ask("/", "if-none-match: \"a\"\r\n");
    assert_eq!((unchanged.status, unchanged.field("etag")), (304, "\"a\"".into()));
    // Now, or from the fill that goes on.
    assert_eq!(edge.ask("/", "if-none-match: \"b\"\r\n").text(), "body");
    assert_eq!(origin.count(), 1);
}

/// Once, such a client got the whole body each time: its condition was taken off the request, and answered by nobody.
#[test]
fn a_condition_on_what_is_not_kept_is_answered_by_304() {
    const CHANGED: &str = "last-modified: Sat, 01 Nov 2025 10:00:00 GMT\r\n";
    const SINCE: &str = "if-modified-since: Sat, 01 Nov 2025 10:00:00 GMT\r\n";
    const MATCH: &str = "if-none-match: \"v1\"\r\n";
    for (fields, rule, asked) in [
        ("etag: \"v1\"\r\ncache-control: private, max-age=9\r\n", "", MATCH.to_owned()),
        ("etag: W/\"v1\"\r\ncache-control: no-store\r\n", "", MATCH.to_owned()),
        ("etag: \"v1\"\r\nset-cookie: a=b\r\n", "", MATCH.to_owned()),
        ("etag: \"v1\"\r\n", "", format!("{MATCH}cookie: a=b\r\n")),
        ("etag: \"v1\"\r\n", ", min_uses: 9", MATCH.to_owned()),
        (&format!("{CHANGED}cache-control: private\r\n"), "", SINCE.to_owned()),
    ] {
        let sent = fields.to_owned();
        let origin = Origin::start(move |_, wire| wire.answer(&sent, "mine"));
        let edge = caching(&origin, &format!(", ttl: 60s{rule}"));
        let mut client = edge.connect();
        for round in 1..=3 {
            let held = client.ask("/x", &asked);
            assert_eq!((held.status, held.text()), (304, String::new()), "{fields}");
            assert!(!held.cache().contains("stored"), "{}", held.cache());
            assert_eq!(held.field("set-cookie"), if fields.contains("a=b") { "a=b" } else { "" });
            assert_eq!(origin.count(), round, "{fields}");
        }
        let other = client.ask("/x", asked.replace("v1", "v0").replace("2025", "2024"));
        assert_eq!((other.status, other.text()), (200, "mine".into()), "{fields}");
    }
}

#[test]
fn a_condition_says_nothing_about_errors_and_answers_without_validators() {
    let origin = Origin::start(|request, wire| match request.target() {
        "/error" => {
            wire.send(
                "HTTP/1.1 500 Oh\r\netag: \"v1\"\r\ncache-control: no-store\r\ncontent-length: 2\r\n\r\noh",
            );
        }
        _ => wire.answer("date: Sat, 01 Nov 2025 10:00:00 GMT\r\ncache-control: private\r\n", "mine"),
    });
    let edge = caching(&origin, ", ttl: 60s");
    assert_eq!(edge.ask("/error", "if-none-match: \"v1\"\r\n").status, 500);
    let since = "if-modified-since: Sun, 01 Nov 2026 10:00:00 GMT\r\n";
    assert_eq!(edge.ask("/undated", since).text(), "mine");
}

#[test]
fn the_rest_of_what_is_held_is_read_where_it_is_short_and_left_where_it_is_long() {
    // Of the others no more comes until their connections end.
    for (framing, is_short) in [
        ("content-length: 5", true),
        ("content-length: 999999", false),
        ("transfer-encoding: chunked", false),
    ] {
        let origin = Origin::start(move |_, wire| {
            let fields = "etag: \"v1\"\r\ncache-control: private\r\n";
            wire.send(format!("HTTP/1.1 200 OK\r\n{fields}{framing}\r\n\r\n5\r\nab"));
        });
        let edge = caching(&origin, "");
        let ask = || assert_eq!(edge.ask("/x", "if-none-match: \"v1\"\r\n").status, 304, "{framing}");
        ask();
        if is_short {
            until("a connection is used again", || {
                let before = origin.accepted();
                ask();
                origin.accepted() == before
            });
        } else {
            until("its connection is ended", || origin.open() == 0);
        }
    }
}

#[test]
fn a_truncated_answer_is_neither_whole_nor_kept() {
    let broken = |_: &Request, wire: &mut Wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this");
        wire.cut();
    };
    let broken_chunks = |_: &Request, wire: &mut Wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nonly this\r\n");
        wire.cut();
    };
    let scripts: [fn(&Request, &mut Wire); 2] = [broken, broken_chunks];
    for script in scripts {
        let origin = Origin::start(script);
        let edge = caching(&origin, ", ttl: 60s");
        for _ in 0..2 {
            let mut client = edge.connect();
            client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
            // A refusal would be right, too: what matters is that nobody takes this for the whole.
            let whole = client.head().is_some_and(|head| {
                let status = head.line.contains(" 200 ");
                status && client.body(&head, false, true).1
            });
            assert!(!whole);
        }
        assert_eq!(edge.metric("weir_cache_entries{cache=\"store\"}"), 0.0);
    }
}

#[test]
fn a_client_that_leaves_in_mid_fill_takes_nothing_from_the_others() {
    for (head, end) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfirst ", "second"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nfirst \r\n", "6\r\nsecond\r\n0\r\n\r\n"),
    ] {
        let gate = Arc::new(Gate::default());
        let release = Arc::clone(&gate);
        let origin = Origin::start(move |_, wire| {
            wire.send(head);
            release.pass();
            wire.send(end);
        });
        let edge = caching(&origin, ", ttl: 60s");
        let mut first = edge.connect();
        first.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n").answer_head();
        let mut second = edge.connect();
        second.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
        drop(first);
        gate.open();
        let answer = second.answer();
        assert_eq!((answer.text(), answer.whole), ("first second".into(), true));
        assert_eq!(edge.get("/x").text(), "first second");
        assert_eq!(origin.count(), 1, "{head}");
    }
}

#[test]
fn waiters_read_along_while_the_fill_arrives() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nfirst ");
        release.pass();
        wire.send("second");
    });
    let edge = caching(&origin, ", ttl: 60s");
    let mut clients: Vec<Client> = (0..3).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
        client.answer_head();
        assert_eq!(client.up_to(6), b"first ");
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.up_to(6), b"second");
    }
    assert_eq!(origin.count(), 1);
}

#[test]
fn only_if_cached_never_asks() {
    let origin = Origin::saying(ok("x"));
    let edge = caching(&origin, ", ttl: 60s");
    assert_eq!(edge.ask("/x", "cache-control: only-if-cached\r\n").status, 504);
    assert_eq!(origin.count(), 0);
    edge.get("/x");
    assert_eq!(edge.ask("/x", "cache-control: only-if-cached\r\n").text(), "x");
}
