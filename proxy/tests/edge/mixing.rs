//! Answers to one question given to another: variants, parts, conditions, and what an origin says in odd ways about who
//! may have its answer.

use crate::support::{Edge, Origin, Request, Wire};

fn caching(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store{rule} }}"), "caches: { store: {} }")
}

/// Class 16: whichever way it is written, what is not for all is not given to all, even where the route has a lifetime.
#[test]
fn every_way_to_say_that_an_answer_is_not_for_all_is_heard() {
    let ways = [
        "cache-control: private\r\n",
        "cache-control: PRIVATE\r\n",
        "Cache-Control: No-Store\r\n",
        "cache-control: max-age=60\r\ncache-control: private\r\n",
        "cache-control: max-age=60,, ,private\r\n",
        "cache-control: max-age=60 , no-store\r\n",
        "cache-control: public, private\r\n",
        "cache-control: \"a, no-store\", no-store\r\n",
        "cache-control: foo=\"bar, public\", private\r\n",
        "cache-control: private=\r\n",
        "cache-control: no-store=1\r\n",
        "cache-control: s-maxage=60, no-store, max-age=60\r\n",
    ];
    let origin = Origin::start(move |request, wire| {
        let at: usize = request.target()[1..].parse().unwrap();
        wire.answer(ways[at], request.field("x-who"));
    });
    let edge = caching(&origin, ", ttl: 60s");
    for (at, way) in ways.iter().enumerate() {
        for who in ["anna", "bert"] {
            let answer = edge.ask(&format!("/{at}"), &format!("x-who: {who}\r\n"));
            assert_eq!(answer.text(), who, "{way:?}: {}", answer.cache());
        }
    }
}

/// Class 16: a lifetime that is none, or no number, is none.
#[test]
fn what_says_that_it_is_old_or_nothing_sensible_is_asked_about() {
    let ways = [
        "cache-control: s-maxage=0, max-age=60\r\n",
        "cache-control: max-age=0\r\n",
        "cache-control: max-age=-1\r\n",
        "cache-control: max-age=\r\n",
        "cache-control: max-age=abc\r\n",
        "cache-control: max-age=60, no-cache\r\n",
        "cache-control: max-age=60\r\ncache-control: NO-CACHE\r\n",
        "cache-control: max-age=0, max-age=0\r\n",
        "expires: 0\r\n",
        "expires: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
        "cache-control: max-age=60\r\nage: 61\r\n",
    ];
    let origin = Origin::start(move |request, wire| {
        let at: usize = request.target()[1..].parse().unwrap();
        wire.answer(ways[at], request.field("x-who"));
    });
    let edge = caching(&origin, "");
    for (at, way) in ways.iter().enumerate() {
        for who in ["anna", "bert"] {
            let answer = edge.ask(&format!("/{at}"), &format!("x-who: {who}\r\n"));
            assert_eq!(answer.text(), who, "{way:?}: {}", answer.cache());
        }
    }
}

/// Class 17: what an answer says it depends on is compared, however the origin writes it.
#[test]
fn whatever_an_answer_varies_by_tells_its_readers_apart() {
    let ways = [
        ("vary: x-a\r\n", true),
        ("Vary: X-A\r\n", true),
        ("vary: x-b, x-a\r\n", true),
        ("vary: x-b\r\nvary: x-a\r\n", true),
        ("vary: ,, x-a ,\r\n", true),
        ("vary: *\r\n", false),
        ("vary: x-b, *\r\n", false),
        ("vary: x-b\r\nvary: *\r\n", false),
        ("vary: x a\r\n", false),
    ];
    let origin = Origin::start(move |request, wire| {
        let at: usize = request.target()[1..].parse().unwrap();
        wire.answer(ways[at].0, request.field("x-a"));
    });
    let edge = caching(&origin, ", ttl: 60s");
    for (at, (way, kept)) in ways.iter().enumerate() {
        let ask = |who: &str| edge.ask(&format!("/{at}"), &format!("x-a: {who}\r\n"));
        for who in ["anna", "bert", "anna", "bert", ""] {
            assert_eq!(ask(who).text(), who, "{way:?}");
        }
        assert_eq!(ask("anna").cache().contains("hit"), *kept, "{way:?}");
    }
}

/// Class 17: a coding that the client does not take never reaches it.
#[test]
fn codings_are_not_mixed() {
    let origin = Origin::start(|request, wire| {
        let coded = request.field("accept-encoding").contains("gzip");
        let fields = if coded {
            "vary: accept-encoding\r\ncontent-encoding: gzip\r\n"
        } else {
            "vary: accept-encoding\r\n"
        };
        wire.answer(fields, if coded { "packed" } else { "plain" });
    });
    let edge = caching(&origin, ", ttl: 60s");
    for _ in 0..2 {
        for (accepts, text) in
            [("gzip", "packed"), ("", "plain"), ("identity", "plain"), ("gzip, br", "packed")]
        {
            let fields =
                if accepts.is_empty() { String::new() } else { format!("accept-encoding: {accepts}\r\n") };
            let answer = edge.ask("/x", &fields);
            assert_eq!(
                (answer.text(), answer.has("content-encoding")),
                (text.into(), text == "packed"),
                "{accepts}"
            );
        }
    }
}

/// Class 26: a server that allows whoever asks, and forgets to say that its answer depends on who did.
#[test]
fn a_permission_that_repeats_its_request_is_nobody_else_s() {
    let origin = Origin::start(|request, wire| {
        let allowed = format!("access-control-allow-origin: {}\r\n", request.field("origin"));
        let fixed = "access-control-allow-origin: *\r\n";
        wire.answer(if request.target() == "/all" { fixed } else { &allowed }, "x");
    });
    let edge = caching(&origin, ", ttl: 60s");
    for _ in 0..2 {
        for from in ["https://evil.test", "https://good.test"] {
            let answer = edge.ask("/x", &format!("origin: {from}\r\n"));
            assert_eq!(answer.field("access-control-allow-origin"), from);
        }
    }
    assert_eq!(origin.count(), 2);
    // Nobody's page reads this; and it allows nobody, whoever gets it.
    assert_eq!(edge.get("/x").field("access-control-allow-origin"), "");
    edge.ask("/all", "origin: https://evil.test\r\n");
    assert!(
        edge.ask("/all", "origin: https://good.test\r\n").cache().contains("hit"),
        "this is for everybody"
    );
}

const WHOLE: &str = "0123456789";

/// Answers ranges as a part, or as its path says it should not.
fn parts(request: &Request, wire: &mut Wire) {
    let fields = "etag: \"1\"\r\ncache-control: max-age=60\r\n";
    let range = request.field("range");
    match (request.target(), range.as_str()) {
        ("/unasked", "") => {
            wire.send(format!("HTTP/1.1 206 Partial Content\r\n{fields}content-range: bytes 0-3/10\r\ncontent-length: 4\r\n\r\n0123"));
        }
        (_, "") => wire.answer(fields, WHOLE),
        (_, "bytes=99-") => {
            wire.send(format!("HTTP/1.1 416 Range Not Satisfiable\r\n{fields}content-range: bytes */10\r\ncontent-length: 0\r\n\r\n"));
        }
        (_, "bytes=0-3") => {
            wire.send(format!("HTTP/1.1 206 Partial Content\r\n{fields}content-range: bytes 0-3/10\r\ncontent-length: 4\r\n\r\n0123"));
        }
        (_, "bytes=4-5") => {
            wire.send(format!("HTTP/1.1 206 Partial Content\r\n{fields}content-range: bytes 4-5/10\r\ncontent-length: 2\r\n\r\n45"));
        }
        // Several at once, another unit, what it does not understand: the whole.
        _ => wire.answer(fields, WHOLE),
    }
}

/// Class 19: a part is never the whole, nor another part, nor is the refusal of one.
#[test]
fn a_part_is_neither_the_whole_nor_another_part() {
    let origin = Origin::start(parts);
    let asked = [
        ("bytes=0-3", 206, "0123"),
        ("bytes=4-5", 206, "45"),
        ("bytes=99-", 416, ""),
        ("bytes=0-0,4-5", 0, ""),
        ("bytes=0-9,0-9,0-9,0-9", 0, ""),
        ("lines=0-3", 200, WHOLE),
        ("bytes=5-4", 0, ""),
    ];
    for (at, (attack, _, _)) in asked.iter().enumerate() {
        for if_range in ["", "if-range: \"0\"\r\n"] {
            let edge = caching(&origin, "");
            let target = format!("/{at}");
            edge.ask(&target, &format!("range: {attack}\r\n{if_range}"));
            for _ in 0..2 {
                let whole = edge.get(&target);
                assert_eq!((whole.status, whole.text()), (200, WHOLE.into()), "after {attack} {if_range:?}");
                for (range, status, text) in asked.iter().filter(|(_, status, _)| *status != 0) {
                    let answer = edge.ask(&target, &format!("range: {range}\r\n"));
                    assert_eq!(
                        (answer.status, answer.text()),
                        (*status, (*text).into()),
                        "{range} after {attack}"
                    );
                }
                let other = edge.ask(&target, "range: bytes=0-3\r\nif-range: \"0\"\r\n");
                assert_eq!(
                    (other.status, other.text()),
                    (200, WHOLE.into()),
                    "of another version: the whole"
                );
            }
        }
    }
}

/// Class 19: an origin that sends a part to who asked for the whole.
#[test]
fn a_part_that_nobody_asked_for_is_not_kept_as_the_whole() {
    let origin = Origin::start(parts);
    let edge = caching(&origin, ", ttl: 60s");
    for _ in 0..2 {
        let answer = edge.get("/unasked");
        assert!(
            answer.status != 200 && !answer.cache().contains("hit"),
            "{} {}",
            answer.status,
            answer.cache()
        );
    }
}

/// Class 24: what was said to one client's condition is no answer to others.
#[test]
fn an_answer_to_a_condition_is_not_everybody_s() {
    let origin = Origin::start(|request, wire| {
        let fields = "etag: \"1\"\r\ncache-control: max-age=60\r\n";
        if request.field("if-none-match") == "\"1\"" || request.has("if-modified-since") {
            wire.send(format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n"));
        } else if request.has("if-match") || request.has("if-unmodified-since") {
            wire.send(format!("HTTP/1.1 412 Precondition Failed\r\n{fields}content-length: 4\r\n\r\nevil"));
        } else if request.target() == "/unasked" {
            wire.send(format!("HTTP/1.1 304 Not Modified\r\n{fields}\r\n"));
        } else {
            wire.answer(fields, "whole");
        }
    });
    let edge = caching(&origin, ", ttl: 60s, statuses: { any: 60s }");
    let conditions = [
        "if-none-match: \"1\"\r\n",
        "if-none-match: *\r\n",
        "if-modified-since: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
        "if-match: \"2\"\r\n",
        "if-unmodified-since: Thu, 01 Jan 1970 00:00:01 GMT\r\n",
    ];
    for (at, condition) in conditions.iter().enumerate() {
        let target = format!("/{at}");
        edge.ask(&target, condition);
        for _ in 0..2 {
            let answer = edge.get(&target);
            assert_eq!((answer.status, answer.text()), (200, "whole".into()), "after {condition}");
        }
    }
    for _ in 0..2 {
        let answer = edge.get("/unasked");
        assert!(!answer.cache().contains("hit") && !answer.cache().contains("stored"), "{}", answer.cache());
    }
}

/// Class 20: what an origin says of a HEAD is not the answer to a GET.
#[test]
fn the_answer_to_a_head_is_not_the_answer_to_a_get() {
    for rule in ["", ", convert_head: false"] {
        let origin = Origin::start(|request, wire| match request.method() {
            "HEAD" => {
                _ = wire.send("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 0\r\n\r\n")
            }
            _ => wire.answer("cache-control: max-age=60\r\n", "whole"),
        });
        let edge = caching(&origin, rule);
        for _ in 0..2 {
            edge.connect().send("HEAD /x HTTP/1.1\r\nhost: edge.test\r\n\r\n").answer_to_head();
            assert_eq!(edge.get("/x").text(), "whole", "with {rule:?}");
        }
    }
}

/// Class 30: clients may ask past what is stored, as the RFC has it, unless the route says otherwise; nobody else pays more
/// than one request for it.
#[test]
fn a_client_that_asks_for_something_fresh_takes_nothing_from_the_others() {
    let origin = Origin::start(|_, wire| wire.answer("cache-control: max-age=60\r\n", "x"));
    let edge = caching(&origin, "");
    edge.get("/x");
    for asked in [
        "cache-control: no-cache\r\n",
        "pragma: no-cache\r\n",
        "cache-control: max-age=0\r\n",
        "cache-control: no-store\r\n",
    ] {
        assert_eq!(edge.ask("/x", asked).status, 200);
        let before = origin.count();
        assert!(edge.get("/x").cache().contains("hit"), "after {asked}");
        assert_eq!(origin.count(), before);
    }
}
