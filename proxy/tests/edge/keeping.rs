//! What a route says about keeping answers, and what the request that brings one gets of it.

use crate::support::{Edge, Origin, Request, Wire, until};

const HEAD: &str = "HEAD / HTTP/1.1\r\nhost: edge.test\r\n\r\n";

/// A route that keeps answers, with these further words.
fn keeping(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store{rule} }}"), "caches: { store: { memory: 16MiB } }")
}

/// Waits until so many answers are stored: a client may have its answer a moment before.
fn stored(edge: &Edge, entries: f64) {
    until("it is stored", || edge.metric("weir_cache_entries{cache=\"store\"}") == entries);
}

/// Answers with the status that the path names.
fn status(request: &Request, wire: &mut Wire) {
    let status = &request.target()[1..4];
    wire.send(format!("HTTP/1.1 {status} Said\r\ncontent-length: 3\r\n\r\n{status}"));
}

#[test]
fn the_first_request_gets_every_field_and_later_ones_what_is_for_all() {
    let origin = Origin::start(|_, wire| {
        let fields =
            "cache-control: max-age=60, private=\"x-user\"\r\nx-user: 7\r\ncache-status: inner; hit\r\n";
        wire.answer(fields, "body");
    });
    let edge = keeping(&origin, "");
    let first = edge.get("/");
    assert_eq!((first.field("x-user"), first.text()), ("7".into(), "body".into()));
    assert!(!first.has("age"), "the origin made it for this request");
    assert!(first.has("date"));
    assert!(first.cache().starts_with("inner; hit, weir; fwd=uri-miss"), "{}", first.cache());
    stored(&edge, 1.0);
    let second = edge.get("/");
    assert!(second.cache().starts_with("weir; hit"), "{}", second.cache());
    assert!(second.has("age") && !second.has("x-user"));
    assert_eq!(origin.count(), 1);
}

#[test]
fn failures_are_kept_as_long_as_their_status_is_worth() {
    let origin = Origin::start(status);
    let edge = keeping(&origin, ", ttl: 60s, statuses: { 404: 60s, 500-599: 60s, 429: 60s }");
    for (path, entries) in [("/404", 1.0), ("/503", 2.0), ("/429", 3.0), ("/403", 3.0)] {
        edge.get(path);
        stored(&edge, entries);
        let again = edge.get(path);
        assert_eq!(again.cache().starts_with("weir; hit"), path != "/403", "{path}: {}", again.cache());
        assert_eq!(again.text(), path[1..]);
    }
    assert_eq!(origin.count(), 5);
}

#[test]
fn a_span_that_applies_to_the_unsaid_steps_back_for_the_origin() {
    let origin = Origin::start(|request, wire| {
        let fields = if request.target() == "/said" { "cache-control: max-age=0\r\n" } else { "" };
        wire.answer(fields, "x");
    });
    let edge = keeping(&origin, ", ttl: 60s, ttl_applies: unsaid");
    for path in ["/said", "/said", "/unsaid"] {
        edge.get(path);
    }
    stored(&edge, 1.0);
    edge.get("/unsaid");
    assert_eq!(origin.count(), 3);
}

#[test]
fn a_field_that_is_ignored_has_no_say_and_the_others_have() {
    let origin = Origin::start(|request, wire| {
        wire.answer(&format!("{}\r\n", request.field("x-say")), "x");
    });
    let edge = keeping(&origin, ", ttl: 60s, ignore: [cache-control, set-cookie, vary, cookie]");
    let kept = [
        ("/cc", "x-say: cache-control: no-store, private\r\n", 1.0),
        ("/set", "x-say: set-cookie: a=b\r\n", 2.0),
        ("/vary", "x-say: vary: *\r\n", 3.0),
        ("/cookie", "x-say: x: y\r\ncookie: sid=1\r\n", 4.0),
    ];
    for (path, fields, entries) in kept {
        edge.ask(path, fields);
        stored(&edge, entries);
        assert!(edge.ask(path, fields).cache().starts_with("weir; hit"), "{path}");
    }
    assert_eq!(edge.ask("/set", "").field("set-cookie"), "a=b");
    let refused = [
        ("/cdn", "x-say: cdn-cache-control: no-store\r\n"),
        ("/auth", "x-say: x: y\r\nauthorization: Bearer x\r\n"),
    ];
    for (path, fields) in refused {
        edge.ask(path, fields);
        assert!(!edge.ask(path, fields).cache().starts_with("weir; hit"), "{path}");
    }
}

#[test]
fn clients_may_go_past_what_is_stored_unless_the_route_ignores_them() {
    let origin = Origin::start(|_, wire| wire.answer("cache-control: max-age=60\r\n", "x"));
    let said = ["cache-control: no-cache\r\n", "cache-control: no-store\r\n", "pragma: no-cache\r\n"];
    let (heeding, deaf) = (keeping(&origin, ""), keeping(&origin, ", ignore: request-cache-control"));
    for (edge, hits) in [(heeding, false), (deaf, true)] {
        edge.get("/");
        stored(&edge, 1.0);
        for said in said {
            let answer = edge.ask("/", said);
            assert_eq!(answer.cache().starts_with("weir; hit"), hits, "{said}: {}", answer.cache());
        }
    }
}

#[test]
fn a_bypass_asks_the_origin_and_what_comes_is_kept_unless_that_is_forbidden_too() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let origin = Origin::start(move |_, wire| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        wire.answer("cache-control: max-age=60, public\r\n", format!("{number}"));
    });
    let rule = ", bypass: [\"${header.x-fresh}\", \"${query.preview}\"], no_store: \"${query.preview}\"";
    let edge = keeping(&origin, &format!("{rule}, key: \"${{request.path}}\""));
    let ask = |target: &str, fields: &str| edge.ask(target, fields).text();
    assert_eq!(ask("/", ""), "1");
    stored(&edge, 1.0);
    assert_eq!(ask("/", "x-fresh: 0\r\n"), "1");
    assert_eq!(ask("/", "x-fresh: 1\r\n"), "2");
    until("it is kept for who comes later", || ask("/", "") == "2");
    assert_eq!(ask("/?preview=1", ""), "3", "not answered from what is stored");
    assert_eq!(ask("/", ""), "2", "and not kept");
    let passed = edge.ask("/", "x-fresh: 1\r\n");
    assert!(passed.cache().starts_with("weir; fwd=bypass"), "{}", passed.cache());
    assert!(passed.cache().contains("detail=route"), "{}", passed.cache());
    let unasked = edge.ask("/", "x-fresh: 1\r\ncache-control: only-if-cached\r\n");
    assert_eq!(unasked.status, 504);
}

#[test]
fn an_answer_that_is_not_to_be_kept_may_still_come_from_what_is() {
    let origin = Origin::start(|_, wire| wire.answer("cache-control: max-age=60\r\n", "x"));
    let edge = keeping(&origin, ", no_store: \"${header.x-keep-not}\"");
    let not_kept = edge.ask("/", "x-keep-not: 1\r\n");
    assert!(not_kept.cache().contains("detail=no-store"), "{}", not_kept.cache());
    assert!(edge.get("/").cache().starts_with("weir; fwd=uri-miss"));
    stored(&edge, 1.0);
    assert!(edge.ask("/", "x-keep-not: 1\r\n").cache().starts_with("weir; hit"));
}

#[test]
fn what_is_asked_for_once_takes_no_room() {
    let origin = Origin::start(|_, wire| wire.answer("cache-control: max-age=60\r\n", "x"));
    let edge = keeping(&origin, ", min_uses: 3");
    let cache = || edge.get("/").cache();
    for _ in 0..2 {
        let first = cache();
        assert!(first.contains("fwd=uri-miss") && first.contains("detail=too-few-uses"), "{first}");
    }
    assert!(cache().contains("; stored"));
    stored(&edge, 1.0);
    assert!(cache().starts_with("weir; hit"));
}

/// Says what it was asked with, and a tag of what it would answer.
fn head_or_body(request: &Request, wire: &mut Wire) {
    let fields = "etag: \"a\"\r\ncache-control: max-age=0\r\n";
    match request.method() {
        "HEAD" => wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\nx-new: 1\r\n{fields}\r\n")),
        _ => wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n{fields}\r\nbody")),
    };
}

#[test]
fn a_head_may_stay_a_head_and_brings_news_for_what_is_stored() {
    let origin = Origin::start(|request, wire| {
        if request.has("if-none-match") {
            wire.send("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n");
        } else {
            head_or_body(request, wire);
        }
    });
    let edge = keeping(&origin, ", convert_head: false");
    let head = || edge.connect().send(HEAD).answer_to_head();
    assert_eq!(head().field("content-length"), "4");
    assert_eq!(origin.last().method(), "HEAD");
    assert_eq!(edge.get("/").text(), "body");
    stored(&edge, 1.0);
    let updated = head();
    assert!(
        updated.cache().contains("fwd=stale") && updated.cache().contains("; stored"),
        "{}",
        updated.cache()
    );
    // Confirmed by its tag, with what the HEAD said.
    let confirmed = edge.get("/");
    assert_eq!((confirmed.text(), confirmed.field("x-new")), ("body".into(), "1".into()));
    assert_eq!(origin.count(), 4);
}

#[test]
fn a_head_about_another_body_ends_what_is_stored() {
    let origin = Origin::start(|request, wire| match request.method() {
        "HEAD" => _ = wire.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"),
        _ => wire.answer("etag: \"a\"\r\n", "body"),
    });
    let edge = keeping(&origin, ", convert_head: false");
    edge.get("/");
    stored(&edge, 1.0);
    edge.connect().send(HEAD).answer_to_head();
    edge.get("/");
    assert!(!origin.last().has("if-none-match"), "there was nothing left to ask about");
}

#[test]
fn nginx_s_words_of_an_origin_are_obeyed_and_no_client_sees_them() {
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 600;
    let origin = Origin::start(move |request, wire| {
        let value = match request.target() {
            "/until" => format!("@{until}"),
            target => target[1..].to_owned(),
        };
        wire.answer(
            &format!("cache-control: no-store, private\r\nx-accel-expires: {value}\r\nx-accel-redirect: /x\r\nx-accel-buffering: no\r\n"),
            "x",
        );
    });
    let edge = keeping(&origin, "");
    for (path, entries) in [("/60", 1.0), ("/until", 2.0), ("/0", 2.0), ("/soon", 2.0)] {
        let first = edge.get(path);
        assert!(!first.head.fields.iter().any(|(name, _)| name.starts_with("x-accel")), "{:?}", first.head);
        stored(&edge, entries);
        let again = edge.get(path);
        assert_eq!(again.cache().starts_with("weir; hit"), path == "/60" || path == "/until", "{path}");
        assert!(!again.head.fields.iter().any(|(name, _)| name.starts_with("x-accel")), "{:?}", again.head);
    }
    let deaf = keeping(&origin, ", ignore: [x-accel-expires]");
    deaf.get("/60");
    assert!(deaf.get("/60").cache().contains("no-store"));
}

#[test]
fn an_origin_may_say_how_fast_its_answer_goes() {
    let origin = Origin::start(|_, wire| wire.answer("x-accel-limit-rate: 20000\r\n", "x".repeat(30_000)));
    let edge = Edge::before(&origin);
    let started = std::time::Instant::now();
    assert_eq!(edge.get("/").body.len(), 30_000);
    assert!(started.elapsed() > std::time::Duration::from_millis(300), "{:?}", started.elapsed());
}

#[test]
fn what_must_be_confirmed_and_cannot_be_is_a_504_and_anything_else_the_usual_502() {
    let mut origin = Origin::start(|request, wire| {
        let strict = if request.target() == "/strict" { ", must-revalidate" } else { "" };
        wire.answer(&format!("cache-control: max-age=0{strict}\r\netag: \"v1\"\r\n"), "x");
    });
    let edge = keeping(&origin, "");
    edge.get("/strict");
    edge.get("/loose");
    stored(&edge, 2.0);
    origin.die();
    for (path, status) in [("/strict", 504), ("/loose", 502), ("/other", 502)] {
        assert_eq!(edge.get(path).status, status, "{path}");
    }
    assert_eq!(edge.metric("weir_refusals_total{reason=\"not_validated\"}"), 1.0);
    let head = edge.connect().send("HEAD /strict HTTP/1.1\r\nhost: edge.test\r\n\r\n").answer_to_head();
    assert_eq!(head.status, 504);
}
