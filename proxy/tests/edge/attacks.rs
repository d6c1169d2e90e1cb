//! Known attacks on caches: each as its attacker would try it, and what the next honest client gets.
//!
//! Those that need odd bytes are in `tests/framing` (`poison.rs`, `injection.rs`); DESIGN.md says which class is tested
//! where.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Edge, Gate, Origin, until};

fn caching(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store{rule} }}"), "caches: { store: {} }")
}

/// Cache deception: the victim is lured to a URL that looks like a file, and an origin that reads URLs leniently answers
/// with the victim's page.
#[test]
fn a_page_of_one_s_own_is_nobody_else_s_under_whatever_name() {
    let lures = [
        "/profile/x.css",
        "/profile;x.css",
        "/profile%2fx.css",
        "/profile%3bx.css",
        "/profile%23x.css",
        "/profile%3fx.css",
        "/profile%252fx.css",
        "/profile?x.css",
        "/profile/robots.txt",
        "/profile/.css",
        "/profile/%2e%2e%2fstatic/x.css",
        "/profile/../profile/x.js",
        "/static/..%2fprofile",
        "/static/%2e%2e/profile",
        "/profile%00.css",
        "/profile%0ax.css",
        "/profile%5cx.css",
        "/profile/x.css/..;/",
    ];
    // What the origin says of it: nothing, a lifetime, and, wrongly, that it is for everybody.
    for said in ["", "cache-control: max-age=60\r\n", "cache-control: public, max-age=60\r\n"] {
        let origin = Origin::start(move |request, wire| {
            let who = request.field("cookie") + &request.field("authorization");
            wire.answer(said, format!("the page of <{who}>"));
        });
        let edge = caching(&origin, ", ttl: 60s");
        for lure in lures {
            for credentials in
                ["cookie: sid=the-victims-own-id-0123", "authorization: Bearer the-victims-token"]
            {
                let victim = edge.ask(lure, &format!("{credentials}\r\n"));
                assert!(victim.status == 200 || victim.status == 400, "{lure}: {}", victim.status);
                let attacker = edge.get(lure);
                assert!(!attacker.text().contains("victim"), "{lure} with {said:?}: {}", attacker.text());
                assert!(attacker.status == 400 || attacker.text() == "the page of <>", "{lure}");
            }
        }
    }
}

#[test]
fn a_page_made_with_cookies_or_credentials_is_not_everybody_s_by_a_route_s_lifetime() {
    let origin = Origin::start(|request, wire| {
        wire.answer("", request.field("cookie") + &request.field("authorization"));
    });
    let edge = caching(&origin, ", ttl: 60s");
    for credentials in ["cookie: theme=dark\r\n", "authorization: Basic eDp5\r\n"] {
        assert!(!edge.ask("/x", credentials).text().is_empty());
        assert_eq!(edge.get("/x").text(), "");
        until("what was made for nobody in particular is for all", || {
            let hit = edge.ask("/x", credentials);
            hit.text().is_empty() && hit.cache().contains("hit")
        });
        edge.order(&serde_json::json!({ "all": true }));
    }
}

/// Two spellings of which an origin may think otherwise than the cache: no client gets the answer to the other spelling.
#[test]
fn no_spelling_of_a_target_is_answered_with_another_s() {
    let origin = Origin::start(|request, wire| wire.answer("", request.target()));
    let edge = caching(&origin, ", ttl: 60s");
    let groups: [&[&str]; 12] = [
        &["/a/b", "/a%2fb", "/a%2Fb", "/a%252fb", "/a//b", "/a%5cb", "//a/b"],
        &["/a", "/A", "/%61", "/%41", "/a/", "/a.", "/a%20", "/a+"],
        &["/a?", "/a%3f", "/a??"],
        &[
            "/q?x=1&y=2",
            "/q?y=2&x=1",
            "/q?x=1;y=2",
            "/q?x=1%26y=2",
            "/q?x=1&x=2",
            "/q?x=2&x=1",
            "/q?x=1&amp;y=2",
        ],
        &["/q?x=a+b", "/q?x=a%20b", "/q?x=a%2Bb", "/q?X=a+b"],
        &["/q?x", "/q?x=", "/q?x=%00", "/q?=x"],
        &["/p;a=1", "/p", "/p%3ba=1", "/p;a=1;b", "/p;"],
        &["/%e2%82%ac", "/%E2%82%AC", "/%25e2%2582%25ac"],
        &["/h%23", "/h", "/h%2523"],
        &["/t%7e", "/t~", "/t%7E"],
        &["/s/%2e", "/s/.", "/s/"],
        &["/key?id=1&utm=x", "/key?id=1", "/key?id=1&", "/key?&id=1"],
    ];
    for (group, spelling, other) in groups.iter().flat_map(|group| {
        group.iter().flat_map(move |one| group.iter().map(move |other| (group, *one, *other)))
    }) {
        for target in [spelling, other] {
            let answer = edge.get(target);
            if answer.status == 400 {
                continue;
            }
            // Dot segments are taken out before anybody sees them; everything else arrives, and is answered, as it was sent.
            let meant = if target.starts_with("/s/") { "/s/" } else { target };
            assert_eq!((answer.status, answer.text()), (200, meant.into()), "{target} among {group:?}");
        }
    }
}

/// Parameter pollution: the key sees the first of two, the origin the last.
#[test]
fn a_parameter_or_cookie_sent_twice_is_not_the_one_in_the_key() {
    let origin = Origin::start(|request, wire| {
        let last = request.target().rsplit("page=").next().unwrap_or_default().to_owned();
        let cookie = request.field("cookie").rsplit("theme=").next().unwrap_or_default().to_owned();
        wire.answer("cache-control: public, max-age=60\r\n", format!("page {last} in {cookie}"));
    });
    let edge = caching(&origin, ", key: \"${query.page}:${cookie.theme}\"");
    let ask = |query: &str, cookies: &str| {
        edge.ask(&format!("/list?{query}"), &format!("cookie: {cookies}\r\n")).text()
    };
    for (query, cookies) in [
        ("page=1&page=evil", "theme=dark"),
        ("page=1&p%61ge=evil&page=evil", "theme=dark"),
        ("page=1", "theme=dark; theme=evil"),
        ("page=1&page=evil", "theme=dark; theme=evil"),
    ] {
        assert!(ask(query, cookies).contains("evil"));
        assert_eq!(ask("page=1", "theme=dark"), "page 1 in dark", "after {query} and {cookies}");
    }
    let asked = origin.count();
    assert_eq!(ask("page=1&x=2", "theme=dark; a=b"), "page 1 in dark");
    assert!(ask("page=1&page=evil", "theme=dark").contains("evil"));
    assert_eq!(origin.count(), asked, "each is kept for its like");
}

/// The key is the same, and the answer is not everybody's: an open route must not give away what a guarded one fetched,
/// nor a guarded one what an open one let anybody put there.
#[test]
fn routes_share_no_answers_that_they_do_not_share_readers_or_origins_of() {
    let origin = Origin::start(|request, wire| {
        let inside = request.field("x-inside");
        wire.answer("cache-control: public, max-age=60\r\n", format!("inside <{inside}>"));
    });
    let other = Origin::start(|_, wire| wire.answer("cache-control: public, max-age=60\r\n", "the other"));
    let edge = Edge::start(&format!(
        "caches: {{ store: {{}} }}
upstreams: {{ api: {{ servers: [{}] }}, other: {{ servers: [{}] }} }}
routes:
  - match: {{ path: /guarded, headers: {{ x-inside: present }} }}
    to: api
    cache: {{ in: store }}
  - match: /guarded
    to: api
    cache: {{ in: store }}
  - match: {{ path: /keyed, headers: {{ x-inside: present }} }}
    to: api
    cache: {{ in: store, key: \"k:${{request.target}}\" }}
  - match: /keyed
    to: api
    cache: {{ in: store, key: \"k:${{request.target}}\" }}
  - match: /told/*
    to: api
    rewrite: /doc
    request_headers: {{ x-inside: yes }}
    cache: {{ in: store }}
  - match: /one/*
    to: api
    rewrite: /doc
    cache: {{ in: store }}
  - match: /same/*
    to: api
    rewrite: /doc
    cache: {{ in: store }}
  - match: /two/*
    to: other
    rewrite: /doc
    cache: {{ in: store }}
",
        origin.address, other.address
    ));
    for target in ["/guarded", "/keyed"] {
        for _ in 0..2 {
            assert_eq!(edge.ask(target, "x-inside: yes\r\n").text(), "inside <yes>", "{target}");
            assert_eq!(edge.get(target).text(), "inside <>", "{target}");
        }
        assert!(edge.get(target).cache().contains("hit"), "{target}: and each keeps its own");
        assert!(edge.ask(target, "x-inside: yes\r\n").cache().contains("hit"), "{target}");
    }
    for _ in 0..2 {
        assert_eq!(edge.get("/told/x").text(), "inside <yes>");
        assert_eq!(edge.get("/one/x").text(), "inside <>");
        assert_eq!(edge.get("/two/x").text(), "the other");
    }
    assert!(edge.get("/same/x").cache().contains("hit"), "equal routes share");
    let key = serde_json::json!({ "key": "http://edge.test/doc" });
    edge.order(&key);
    for path in ["/told/x", "/one/x", "/two/x"] {
        assert!(!edge.get(path).cache().contains("hit"), "{path}: a key is purged whatever route keeps it");
    }
}

/// The key sees a plain cookie or field, and the origin more, or less.
#[test]
fn what_an_origin_reads_otherwise_than_the_key_is_kept_apart() {
    let origin = Origin::start(|request, wire| {
        wire.answer(
            "cache-control: public, max-age=60\r\n",
            format!("{} {}", request.field("cookie"), request.field("x-tenant")),
        );
    });
    let edge = caching(&origin, ", key: \"${cookie.lang}:${header.x-tenant}:${query.q}\"");
    let honest = |fields: &str| edge.ask("/x?q=1", fields).text();
    let plain = ["", "cookie: lang=en\r\n", "x-tenant: a\r\n"];
    let before = plain.map(honest);
    let attacks: [&[u8]; 9] = [
        b"cookie: lang=en; x=\xff\r\n",
        b"cookie: lang=fr; x=\xff\r\n",
        b"cookie: lang =fr\r\n",
        b"cookie: x=1, lang=fr\r\n",
        b"cookie: x=\"; lang=en; y=\"\r\n",
        b"cookie: Lang=fr; lang=en\r\n",
        b"x-tenant: a\xe9\r\n",
        b"x-tenant: a\xe8\r\n",
        b"x-tenant: a\r\nx-tenant: b\r\n",
    ];
    let mut answers: Vec<String> = before.to_vec();
    for attack in attacks {
        let asked = [b"GET /x?q=1 HTTP/1.1\r\nhost: edge.test\r\n", attack, b"\r\n"].concat();
        let answer = edge.send(asked);
        assert!(!answer.cache().contains("hit"), "{}: {}", attack.escape_ascii(), answer.text());
        answers.push(answer.text());
    }
    assert_eq!(plain.map(honest), before);
    assert_eq!(origin.count(), plain.len() + attacks.len());
}

#[test]
fn answers_to_other_methods_are_no_answers_to_get() {
    let origin =
        Origin::start(|request, wire| wire.answer("cache-control: public, max-age=60\r\n", request.method()));
    let edge = caching(&origin, ", ttl: 60s");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "EVIL", "get"] {
        let target = format!("/{method}");
        let ask = |method: &str| {
            edge.send(format!("{method} {target} HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n"))
                .text()
        };
        assert_eq!(ask(method), method);
        assert_eq!(ask("GET"), "GET", "after {method}");
        assert_eq!(ask(method), method, "nor is the answer to GET one to {method}");
    }
    assert_eq!(edge.send("TRACE /t HTTP/1.1\r\nhost: edge.test\r\n\r\n").status, 405);
    assert_eq!(edge.get("/t").text(), "GET");
}

#[test]
fn a_method_that_a_field_names_is_not_the_request_s() {
    let origin = Origin::start(|request, wire| {
        let names = ["x-http-method-override", "x-http-method", "x-method-override"];
        let method = names.iter().map(|name| request.field(name)).find(|method| !method.is_empty());
        wire.answer("", method.unwrap_or_else(|| request.method().to_owned()));
    });
    let edge = caching(&origin, ", ttl: 60s");
    for (at, name) in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"].iter().enumerate() {
        let target = format!("/{at}");
        edge.ask(&target, &format!("{name}: DELETE\r\n"));
        assert_eq!(edge.get(&target).text(), "GET", "{name}");
    }
}

#[test]
fn another_origin_s_permission_is_not_given_where_the_answer_varies() {
    let origin = Origin::start(|request, wire| {
        let from = request.field("origin");
        let fields = format!("vary: origin\r\naccess-control-allow-origin: {from}\r\n");
        wire.answer(if from.is_empty() { "vary: origin\r\n" } else { &fields }, "x");
    });
    let edge = caching(&origin, ", ttl: 60s");
    for _ in 0..2 {
        for from in ["https://evil.test", "https://good.test"] {
            let answer = edge.ask("/x", &format!("origin: {from}\r\n"));
            assert_eq!(answer.field("access-control-allow-origin"), from);
        }
        assert!(!edge.get("/x").has("access-control-allow-origin"));
    }
    assert_eq!(origin.count(), 3);
}

#[test]
fn chunks_that_were_kept_are_none_for_http_1_0() {
    let origin =
        Origin::saying("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let edge = caching(&origin, ", ttl: 60s");
    edge.get("/x");
    let answer = edge.send("GET /x HTTP/1.0\r\nhost: edge.test\r\n\r\n");
    assert!(answer.cache().contains("hit") && !answer.has("transfer-encoding"), "{:?}", answer.head);
    assert_eq!((answer.text(), &*answer.field("content-length")), ("hello".into(), "5"));
}

#[test]
fn a_confirmation_changes_nothing_about_the_body_that_is_kept() {
    let origin = Origin::start(|request, wire| {
        if request.has("if-none-match") {
            wire.send(
                "HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\ncontent-length: 999\r\ncontent-encoding: gzip\r\ncontent-range: bytes 0-1/2\r\nset-cookie: sid=1\r\ncache-control: max-age=0\r\n\r\n",
            );
        } else {
            wire.answer("etag: \"v1\"\r\ncache-control: max-age=0\r\n", "hello");
        }
    });
    let edge = caching(&origin, "");
    for round in 0..3 {
        let answer = edge.get("/x");
        assert_eq!(
            (answer.status, answer.text(), &*answer.field("content-length")),
            (200, "hello".into(), "5"),
            "{round}"
        );
        assert!(!answer.has("content-encoding") && !answer.has("content-range"), "{:?}", answer.head);
    }
}

/// Lock abuse: what cannot be shared must not be waited for.
#[test]
fn requests_for_what_is_not_kept_do_not_queue_behind_each_other() {
    let (gate, first) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        if first.fetch_add(1, Ordering::SeqCst) > 0 {
            release.pass();
        }
        wire.answer("cache-control: private\r\n", "x");
    });
    let edge = caching(&origin, ", lock_timeout: 60s");
    edge.get("/x");
    let mut clients: Vec<_> = (0..20).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    }
    until("all of them are at the origin at once", || origin.count() == 21);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
}

/// Criterion 27: a fetch that fails takes nobody along, and does not set all of them on the origin.
#[test]
fn a_crowd_outlives_the_fetch_that_it_waited_for() {
    let (gate, held, first) = (Arc::new(Gate::default()), Arc::new(Gate::default()), AtomicUsize::new(0));
    let (release, arrived) = (Arc::clone(&gate), Arc::clone(&held));
    let origin = Origin::start(move |_, wire| {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            arrived.open();
            release.pass();
            return wire.cut();
        }
        wire.answer("cache-control: max-age=60\r\n", "whole");
    });
    let edge = caching(&origin, ", lock_timeout: 60s");
    let mut clients: Vec<_> = (0..100).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    }
    held.pass();
    until("all are under way", || edge.metric("weir_requests_in_flight") == 100.0);
    gate.open();
    let served = clients.iter_mut().filter_map(|client| {
        let answer = client.answer();
        assert!(answer.status == 502 || answer.text() == "whole", "{}", answer.status);
        (answer.status == 200).then_some(())
    });
    let served = served.count();
    assert!(served >= 99, "{served} of 100 served");
    assert!(origin.count() <= 10, "{} requests", origin.count());
}

/// Criterion 29: what clients choose freely fills no more memory than the plan allows.
#[test]
fn floods_of_keys_and_of_variants_stay_within_the_budget() {
    const BUDGET: usize = 8 << 20;
    let origin = Origin::start(|_, wire| wire.answer("vary: x-flood\r\n", vec![b'x'; 16 << 10]));
    let edge =
        Edge::routing(&origin, "cache: { in: store, ttl: 60s }", "caches: { store: { memory: 8MiB } }");
    let mut client = edge.connect();
    assert_eq!(client.ask("/warm", "").status, 200);
    let before = edge.resident();
    for number in 0..1500 {
        assert_eq!(client.ask(&format!("/{number}"), "").status, 200);
        assert_eq!(client.ask("/flooded", format!("x-flood: {number}\r\n")).status, 200);
    }
    assert!(edge.metric("weir_cache_bytes{cache=\"store\"}") <= BUDGET as f64);
    let grown = edge.resident().saturating_sub(before);
    assert!(grown <= BUDGET * 3 / 2 + (32 << 20), "{} MiB", grown >> 20);
    assert!(client.ask("/1499", "").cache().contains("hit"), "the newest are there");
}
