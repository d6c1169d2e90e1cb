//! What ends an entry: the admin listener, PURGE, the origin's word; and that nothing fetched before comes back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use crate::support::{Client, Edge, Gate, Origin, until};

fn caching(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store, ttl: 60s{rule} }}"), "caches: { store: {} }")
}

fn purge(edge: &Edge, target: &str, fields: &str) -> (u16, Value) {
    let answer = edge.send(format!("PURGE {target} HTTP/1.1\r\nhost: edge.test\r\n{fields}\r\n"));
    (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
}

#[test]
fn an_operator_s_purge_ends_what_it_names_and_nothing_else() {
    let origin = Origin::counting("cache-tag: t\r\n");
    let yaml = format!(
        "caches: {{ store: {{}}, other: {{}} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - {{ match: /plain/*, cache: {{ in: store, ttl: 60s }}, to: api }}
  - match: \"/item/{{id}}\"
    cache: {{ in: other, ttl: 60s, key: \"item:${{path.id}}\", tags: [\"items:${{path.id}}\"] }}
    to: api
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let fetched = || {
        let before = origin.count();
        for path in ["/plain/a", "/plain/b/1", "/plain/b/2?q", "/item/7"] {
            assert_eq!(edge.get(path).status, 200);
        }
        let seen = origin.seen();
        seen[before..].iter().map(|request| request.target().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(fetched().len(), 4);
    assert!(fetched().is_empty());
    for (what, entries, gone) in [
        (json!({ "key": "item:7" }), json!(1), vec!["/item/7"]),
        (json!({ "key": "http://edge.test/plain/a" }), json!(1), vec!["/plain/a"]),
        (json!({ "url": "HTTP://Edge.Test:80/plain/b/2?q" }), Value::Null, vec!["/plain/b/2?q"]),
        (json!({ "url": "http://edge.test/item/7", "count": true }), json!(1), vec!["/item/7"]),
        (json!({ "prefix": "http://edge.test/plain/b" }), Value::Null, vec!["/plain/b/1", "/plain/b/2?q"]),
        (
            json!({ "prefix": "http://edge.test/plain/", "count": true }),
            json!(3),
            vec!["/plain/a", "/plain/b/1", "/plain/b/2?q"],
        ),
        (json!({ "tag": "items:7" }), Value::Null, vec!["/item/7"]),
        (
            json!({ "tag": ["t"], "count": true }),
            json!(4),
            vec!["/plain/a", "/plain/b/1", "/plain/b/2?q", "/item/7"],
        ),
        (json!({ "all": "other" }), Value::Null, vec!["/item/7"]),
        (
            json!({ "all": true, "count": true }),
            json!(4),
            vec!["/plain/a", "/plain/b/1", "/plain/b/2?q", "/item/7"],
        ),
        (json!({ "key": "item:8" }), json!(0), vec![]),
        (json!({ "url": "http://edge.test/plain" }), Value::Null, vec![]),
        (json!({ "prefix": "http://edge.test.evil/" }), Value::Null, vec![]),
    ] {
        let (status, report) = edge.order(&what);
        assert_eq!((status, &report["mode"]), (200, &json!("hard")), "{what}: {report}");
        assert_eq!(report["purged"][0]["entries"], entries, "{what}: {report}");
        assert_eq!(fetched(), gone, "{what}");
        assert!(fetched().is_empty());
    }
    assert_eq!(edge.metric("weir_cache_purges_total{by=\"admin\",mode=\"hard\"}"), 13.0);
}

#[test]
fn an_order_that_is_not_understood_purges_nothing_and_says_why() {
    let origin = Origin::counting("");
    let edge = caching(&origin, "");
    edge.get("/x");
    for (what, why) in [
        (json!({}), "name a key"),
        (json!({ "all": false }), "name a key"),
        (json!({ "all": "nowhere" }), "no cache `nowhere`"),
        (json!({ "url": "/x" }), "no URL"),
        (json!({ "prefix": "" }), "no URL"),
        (json!({ "tag": "" }), "needs a text"),
        (json!({ "tags": ["x"] }), "unknown key `tags`"),
        (json!("x"), "an object should stand here"),
        (json!({ "tag": 5 }), "`tag` takes a text or a list of texts, not 5"),
        (json!({ "url": [null] }), "`url` takes a text or a list of texts, not [null]"),
        (json!({ "all": 1 }), "`all` takes true or the name of a cache, not 1"),
        (json!({ "tag": "x", "soft": "yes" }), "`soft` takes true or false, not \"yes\""),
        (json!({ "tag": "x", "url": "x" }), "no URL"),
        (json!({ "tag": vec!["x"; 33], "count": true }), "at most 32"),
    ] {
        let (status, report) = edge.order(&what);
        let said = report["error"].as_str().unwrap_or_default();
        assert!(status == 422 && said.contains(why), "{what}: {status} {report}");
    }
    let ask = |head: &str| Client::connect(edge.admin_address()).send(head).answer().status;
    assert_eq!(ask("GET /purge HTTP/1.1\r\nhost: localhost\r\n\r\n"), 405);
    let foreign = edge.operate("POST", "/purge", &json!({ "all": true }), "origin: http://evil.test\r\n");
    assert_eq!(foreign.0, 403, "a page of another site");
    assert!(edge.get("/x").cache().contains("hit"));
}

#[test]
fn a_softly_purged_entry_is_asked_about_and_covers_for_the_origin() {
    let number = AtomicUsize::new(0);
    let mut origin = Origin::start(move |request, wire| {
        if request.has("if-none-match") {
            wire.send("HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n");
        } else {
            let number = number.fetch_add(1, Ordering::SeqCst);
            wire.answer("etag: \"v1\"\r\n", number.to_string());
        }
    });
    let edge = caching(&origin, ", stale_if_error: 60s");
    assert_eq!(edge.get("/x").text(), "0");
    for what in [
        json!({ "url": "http://edge.test/x", "soft": true }),
        json!({ "prefix": "http://edge.test/", "soft": true }),
        json!({ "key": "http://edge.test/x", "soft": true }),
        json!({ "all": true, "soft": true }),
    ] {
        let (status, report) = edge.order(&what);
        assert_eq!((status, &report["mode"]), (200, &json!("soft")));
        let answer = edge.get("/x");
        assert!(answer.cache().contains("fwd=stale; fwd-status=304"), "{what}: {}", answer.cache());
        assert_eq!(answer.text(), "0", "confirmed, and not fetched");
        assert!(edge.get("/x").cache().contains("hit"), "good again");
    }
    edge.order(&json!({ "all": true, "soft": true }));
    origin.die();
    let answer = edge.get("/x");
    assert_eq!((answer.status, answer.text()), (200, "0".into()), "{}", answer.cache());
    assert_eq!(answer.cache(), "weir; hit; ttl=0; detail=origin-failed");
    edge.order(&json!({ "all": true }));
    assert_eq!(edge.get("/x").status, 502, "gone is gone");
}

#[test]
fn a_softly_purged_entry_answers_while_it_is_fetched_anew() {
    let (gate, number) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        if number > 0 {
            release.pass();
        }
        wire.answer("", number.to_string());
    });
    let rule = "cache: { in: store, ttl: 60s, stale_while_revalidate: 60s }
    response_headers: { x-word: \"${cache.status}\" }";
    let edge = Edge::routing(&origin, rule, "caches: { store: {} }");
    assert_eq!(edge.get("/x").text(), "0");
    edge.order(&json!({ "url": "http://edge.test/x", "soft": true }));
    for _ in 0..3 {
        let answer = edge.get("/x");
        assert_eq!((answer.text(), answer.cache()), ("0".into(), "weir; hit; ttl=0; detail=purged".into()));
        assert_eq!(answer.field("x-word"), "STALE");
    }
    let served =
        |kind: &str| edge.metric(&format!("weir_cache_served_total{{cache=\"store\",kind=\"{kind}\"}}"));
    until("they are counted", || served("stale") == 3.0);
    assert_eq!(served("fresh"), 0.0);
    until("the origin is asked behind their backs", || origin.count() == 2);
    gate.open();
    until("the new answer is there", || edge.get("/x").text() == "1");
}

/// The epoch: what counts is when the request left, not when its answer came.
#[test]
fn an_answer_asked_for_before_a_purge_is_never_served_after_it() {
    for what in [
        json!({ "url": "http://edge.test/x" }),
        json!({ "key": "http://edge.test/x" }),
        json!({ "prefix": "http://edge.test/" }),
        json!({ "tag": "ours" }),
        json!({ "tag": "theirs" }),
        json!({ "all": true }),
        json!({ "all": "store" }),
    ] {
        for chunked in [false, true] {
            let (gate, held) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
            let (release, arrived, number) = (Arc::clone(&gate), Arc::clone(&held), AtomicUsize::new(0));
            let origin = Origin::start(move |_, wire| {
                let first = number.fetch_add(1, Ordering::SeqCst) == 0;
                if first {
                    arrived.open();
                    release.pass();
                }
                let body = if first { "old" } else { "new" };
                if chunked {
                    wire.send(format!(
                        "HTTP/1.1 200 OK\r\ncache-tag: theirs\r\ntransfer-encoding: chunked\r\n\r\n3\r\n{body}\r\n0\r\n\r\n"
                    ));
                } else {
                    wire.answer("cache-tag: theirs\r\n", body);
                }
            });
            let edge = caching(&origin, ", tags: [ours]");
            let mut early = edge.connect();
            early.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
            held.pass();
            assert_eq!(edge.order(&what).0, 200);
            gate.open();
            assert_eq!(early.answer().text(), "old", "asked before the purge");
            assert_eq!(edge.get("/x").text(), "new", "{what}");
            assert!(edge.get("/x").cache().contains("hit"), "asked after it, and kept");
            assert_eq!(origin.count(), 2);
        }
    }
}

#[test]
fn a_soft_purge_makes_what_is_under_way_stale_from_birth() {
    let (gate, held) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let (release, arrived) = (Arc::clone(&gate), Arc::clone(&held));
    let origin = Origin::start(move |request, wire| {
        if request.has("if-none-match") {
            wire.send("HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n");
            return;
        }
        arrived.open();
        release.pass();
        wire.answer("etag: \"v1\"\r\n", "x");
    });
    let edge = caching(&origin, "");
    let mut early = edge.connect();
    early.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    held.pass();
    edge.order(&json!({ "prefix": "http://edge.test/", "soft": true }));
    gate.open();
    assert_eq!(early.answer().text(), "x");
    assert!(edge.get("/x").cache().contains("fwd=stale; fwd-status=304"), "asked about before it is served");
}

#[test]
fn the_purge_method_ends_what_is_asked_for_and_says_404_where_nothing_was() {
    let origin = Origin::counting("cache-tag: t\r\n");
    let edge = caching(&origin, ", purge: { allow: [127.0.0.1] }");
    assert_eq!(purge(&edge, "/a", "").0, 404);
    edge.get("/a");
    edge.get("/b/1?q");
    let (status, report) = purge(&edge, "/a", "");
    assert_eq!(
        (status, report),
        (200, json!({ "purged": [{ "url": "http://edge.test/a" }], "mode": "hard", "entries": 1 }))
    );
    assert_eq!(purge(&edge, "/a", "").0, 404);
    assert_eq!(edge.get("/a").text(), "3");
    assert_eq!(edge.get("/b/1?q").text(), "2", "not asked for");
    assert_eq!(purge(&edge, "/b/*", "").1["purged"], json!([{ "prefix": "http://edge.test/b/" }]));
    assert_eq!([edge.get("/a").text(), edge.get("/b/1?q").text()], ["3", "4"]);
    assert_eq!(
        purge(&edge, "/", "surrogate-key: t u\r\n").1["purged"],
        json!([{ "tag": "t" }, { "tag": "u" }])
    );
    assert_eq!([edge.get("/a").text(), edge.get("/b/1?q").text()], ["5", "6"]);
    assert_eq!(purge(&edge, "/a", "fastly-soft-purge: 1\r\n").1["mode"], "soft");
    assert!(edge.get("/a").cache().contains("detail=purged"));
    assert!(
        origin.seen().iter().all(|request| request.method() == "GET"),
        "none of it is the origin's business"
    );
    assert_eq!(edge.metric("weir_cache_purges_total{by=\"method\",mode=\"soft\"}"), 1.0);
}

#[test]
fn a_url_ends_whatever_its_key_fetched_for_another() {
    let origin = Origin::counting("");
    let edge = Edge::start(&format!(
        "caches: {{ store: {{}} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: {{ path: /one/*, methods: [GET] }}
    cache: {{ in: store, ttl: 60s, key: \"one:${{request.path}}\" }}
    to: api
  - match: /one/*
    to: api
  - match: /two/*
    cache: {{ in: store, ttl: 60s, key: \"two:${{request.path}}\", purge: {{ allow: [127.0.0.0/8] }} }}
    to: api
",
        origin.address
    ));
    let number = |target: &str| edge.get(target).text();
    for (kept, asked) in [("/one/a?utm=x", "/one/a"), ("/two/a?utm=x", "/two/a?utm=y")] {
        let write = |method: &str| {
            edge.send(format!("{method} {asked} HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n"));
        };
        let ends: [(&str, &dyn Fn()); 4] = [
            ("POST", &|| write("POST")),
            ("DELETE", &|| write("DELETE")),
            ("an order", &|| {
                let (status, report) =
                    edge.order(&json!({ "url": format!("http://edge.test{asked}"), "count": true }));
                assert_eq!((status, &report["purged"][0]["entries"]), (200, &json!(1)), "{report}");
            }),
            ("PURGE", &|| drop(purge(&edge, asked, ""))),
        ];
        for (what, end) in ends {
            if what == "PURGE" && kept.starts_with("/one") {
                continue;
            }
            let first = number(kept);
            assert_eq!(number(asked), first, "one key");
            assert_eq!(number("/two/other"), number("/two/other"));
            let other = number("/two/other");
            end();
            assert_ne!(number(asked), first, "{what} of {asked}");
            assert_eq!(number("/two/other"), other, "{what} ends nothing else");
        }
    }
}

#[test]
fn a_stranger_s_purge_ends_nothing_and_reaches_nobody() {
    let origin = Origin::counting("");
    let yaml = format!(
        "caches: {{ store: {{}} }}
clients: {{ trusted: [127.0.0.0/8] }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - {{ match: /some/*, cache: {{ in: store, ttl: 60s, purge: {{ allow: [10.0.0.0/8] }} }}, to: api }}
  - {{ match: {{ path: /none/*, methods: [GET] }}, cache: {{ in: store, ttl: 60s }}, to: api }}
  - {{ match: /any/*, cache: {{ in: store, ttl: 60s }}, to: api }}
  - {{ match: {{ path: /own, methods: [PURGE] }}, to: api }}
  - {{ match: /own, cache: {{ in: store, ttl: 60s }}, to: api }}
  - {{ match: /free/*, to: api }}
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let from = |client: &str, target: &str| purge(&edge, target, &format!("x-forwarded-for: {client}\r\n")).0;
    for path in ["/some/x", "/none/x", "/any/x"] {
        edge.get(path);
    }
    assert_eq!(
        [from("192.0.2.1", "/some/x"), from("192.0.2.1", "/none/x"), from("192.0.2.1", "/any/x")],
        [403, 405, 405]
    );
    assert_eq!(from("192.0.2.1", "/some/*"), 403);
    let routes = || {
        let refused = edge.records().into_iter().filter(|record| record["method"] == "PURGE");
        let mut routes: Vec<_> = refused.map(|record| record["route"].as_str().unwrap().to_owned()).collect();
        routes.sort();
        routes
    };
    until("they are recorded", || routes().len() == 4);
    assert_eq!(routes(), ["/any/*", "/some/*", "/some/*", "GET /none/*"], "whose rule it was");
    let ban = edge.send("BAN /any/x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    assert_eq!((ban.status, &*ban.field("allow")), (405, "GET, HEAD"));
    for path in ["/some/x", "/none/x", "/any/x"] {
        assert!(edge.get(path).cache().contains("hit"), "{path}");
    }
    assert_eq!(origin.count(), 3);
    assert_eq!(from("10.0.0.1", "/some/x"), 200);
    assert_eq!([from("192.0.2.1", "/own"), from("192.0.2.1", "/free/x")], [200, 200], "not said to us");
    assert_eq!(origin.last().method(), "PURGE");
}

#[test]
fn a_purge_reaches_every_variant_and_every_caller_s_key() {
    let origin = Origin::start(|request, wire| {
        if request.target() == "/auth/session" {
            let user = request.field("authorization").replace("Bearer ", "");
            return wire.answer("", format!(r#"{{"user_id":"{user}"}}"#));
        }
        wire.answer("vary: accept-language\r\n", request.field("accept-language"));
    });
    let yaml = format!(
        "caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [bearer], ask: {{ upstream: api, path: /auth/session }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /mine
    session: {{ use: app, required: true }}
    cache: {{ in: store, ttl: 60s, key: \"mine:${{session.user_id}}\", purge: {{ allow: [127.0.0.1] }} }}
    to: api
  - {{ match: /*, cache: {{ in: store, ttl: 60s, purge: {{ allow: [127.0.0.1] }} }}, to: api }}
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let ask = |path: &str, who: &str, language: &str| {
        edge.ask(path, &format!("authorization: Bearer {who}\r\naccept-language: {language}\r\n")).cache()
    };
    for language in ["de", "en"] {
        edge.ask("/x", &format!("accept-language: {language}\r\n"));
    }
    assert_eq!(purge(&edge, "/x", "").1["entries"], 2);
    for who in ["anna", "bert"] {
        ask("/mine", who, "de");
        assert!(ask("/mine", who, "de").contains("hit"));
    }
    assert_eq!(
        purge(&edge, "/mine", ""),
        (200, json!({ "purged": [{ "url": "http://edge.test/mine" }], "mode": "hard", "entries": null }))
    );
    for who in ["anna", "bert"] {
        assert!(!ask("/mine", who, "de").contains("hit"), "{who}");
    }
}

#[test]
fn groups_end_by_the_word_of_their_origin_and_no_other() {
    let origin = Origin::start(|request, wire| match request.target() {
        "/write" => wire.answer("cache-group-invalidation: \"scripts\"\r\n", ""),
        "/styles" => wire.answer("cache-groups: \"styles\", \"site\"\r\n", "x"),
        _ => wire.answer("cache-groups: \"scripts\", \"site\"\r\n", "x"),
    });
    let edge = caching(&origin, "");
    let hit = |host: &str, path: &str| {
        let answer = edge.send(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n"));
        answer.cache().contains("hit")
    };
    let write = |method: &str, host: &str| {
        edge.send(format!("{method} /write HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n")).status
    };
    for (host, path) in [("a.test", "/one"), ("a.test", "/two"), ("a.test", "/styles"), ("b.test", "/one")] {
        hit(host, path);
        assert!(hit(host, path));
    }
    assert_eq!(write("GET", "a.test"), 200);
    assert!(hit("a.test", "/one"), "a safe request ends nothing");
    assert_eq!(write("POST", "a.test"), 200);
    assert!(!hit("a.test", "/one") && !hit("a.test", "/two"));
    assert!(hit("a.test", "/styles") && hit("b.test", "/one"), "another group, and another origin's");
}

#[test]
fn clear_site_data_ends_one_caller_s_entries_or_the_origin_s() {
    let origin = Origin::start(|request, wire| match request.target() {
        "/auth/session" => {
            let user = request.field("authorization").replace("Bearer ", "");
            wire.answer("", format!(r#"{{"user_id":"{user}"}}"#));
        }
        "/logout" | "/flush" => wire.answer("clear-site-data: \"cookies\", \"cache\"\r\n", ""),
        _ => wire.answer("", "x"),
    });
    let yaml = format!(
        "caches: {{ store: {{}} }}
sessions: {{ app: {{ from: [bearer], ask: {{ upstream: api, path: /auth/session }} }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /mine
    session: {{ use: app, required: true }}
    cache: {{ in: store, ttl: 60s, key: \"mine:${{session.user_id}}\" }}
    to: api
  - {{ match: /logout, session: {{ use: app, required: true }}, to: api }}
  - {{ match: /flush, to: api }}
  - {{ match: /*, cache: {{ in: store, ttl: 60s }}, to: api }}
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let as_who = |who: &str, path: &str| edge.ask(path, &format!("authorization: Bearer {who}\r\n"));
    for _ in 0..2 {
        edge.get("/public");
        as_who("anna", "/mine");
        as_who("bert", "/mine");
    }
    as_who("anna", "/logout");
    assert!(!as_who("anna", "/mine").cache().contains("hit"), "her own");
    assert!(as_who("bert", "/mine").cache().contains("hit"), "not his");
    assert!(edge.get("/public").cache().contains("hit"), "and not everybody's");
    edge.get("/flush");
    assert!(edge.get("/public").cache().contains("hit"), "any page can make a browser send a GET");
    edge.send("POST /flush HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n");
    assert!(!edge.get("/public").cache().contains("hit"));
    assert_eq!(edge.metric("weir_cache_purges_total{by=\"origin\",mode=\"hard\"}"), 2.0);
}
