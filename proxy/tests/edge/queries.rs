//! QUERY (RFC 10008): a safe question with a body, kept apart by what it sends.

use std::sync::Arc;

use crate::support::{Answer, Client, Edge, Gate, Origin, until};

/// Answers a QUERY with what it sent.
fn origin() -> Origin {
    Origin::start(|request, wire| {
        if request.has("if-none-match") {
            wire.send("HTTP/1.1 304 Not Modified\r\ncache-control: max-age=60\r\netag: \"v1\"\r\n\r\n");
            return;
        }
        let age = if request.target() == "/stale" { 0 } else { 60 };
        let said = format!("{} {}", request.method(), String::from_utf8_lossy(&request.body));
        wire.answer(
            &format!("cache-control: max-age={age}, stale-while-revalidate=60\r\netag: \"v1\"\r\n"),
            said,
        );
    })
}

fn keeping(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store{rule} }}"), "caches: { store: { memory: 16MiB } }")
}

fn ask(edge: &Edge, method: &str, target: &str, fields: &str, body: &str) -> Answer {
    edge.send(format!(
        "{method} {target} HTTP/1.1\r\nhost: edge.test\r\ncontent-length: {}\r\n{fields}\r\n{body}",
        body.len()
    ))
}

fn stored(edge: &Edge, entries: f64) {
    until("it is stored", || edge.metric("weir_cache_entries{cache=\"store\"}") == entries);
}

#[test]
fn equal_questions_are_asked_once_and_different_ones_never_share_an_answer() {
    let origin = origin();
    let edge = keeping(&origin, ", methods: [GET, HEAD, QUERY]");
    let mut entries = 0.0;
    for (fields, body) in [
        ("content-type: text/plain\r\n", "select a"),
        ("content-type: text/plain\r\n", "select b"),
        ("content-type: application/sql\r\n", "select a"),
        ("content-type: text/plain\r\ncontent-encoding: x\r\n", "select a"),
        ("", "select a"),
        ("", ""),
    ] {
        let first = ask(&edge, "QUERY", "/", fields, body);
        assert_eq!(first.text(), format!("QUERY {body}"));
        assert!(!first.cache().contains("hit"), "{fields}{body}: {}", first.cache());
        entries += 1.0;
        stored(&edge, entries);
        let again = ask(&edge, "QUERY", "/", fields, body);
        assert!(again.cache().starts_with("weir; hit"), "{}", again.cache());
        assert_eq!(again.text(), first.text());
    }
    assert_eq!(edge.get("/").text(), "GET ", "a GET is another question");
    assert_eq!(origin.count(), 7);
    // Chunks or a length, it is the same content.
    let chunked = edge.send("QUERY / HTTP/1.1\r\nhost: edge.test\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n8\r\nselect a\r\n0\r\n\r\n");
    assert!(chunked.cache().starts_with("weir; hit"), "{}", chunked.cache());
}

#[test]
fn nothing_but_query_is_kept_by_its_body_and_query_only_where_it_is_named() {
    let origin = origin();
    let edge = keeping(&origin, ", methods: QUERY");
    for method in ["POST", "PUT", "SEARCH", "query"] {
        for _ in 0..2 {
            let answer = ask(&edge, method, "/", "", "x");
            assert!(answer.cache().contains("fwd=method"), "{method}: {}", answer.cache());
        }
    }
    let silent = keeping(&origin, "");
    for _ in 0..2 {
        assert!(ask(&silent, "QUERY", "/", "", "x").cache().contains("fwd=method"));
    }
    assert_eq!(origin.count(), 10);
}

#[test]
fn a_question_too_long_to_be_held_is_passed_on_as_it_is() {
    let origin = origin();
    let edge = keeping(&origin, ", methods: QUERY");
    let body = "x".repeat(200_000);
    for _ in 0..2 {
        let answer = ask(&edge, "QUERY", "/", "", &body);
        assert_eq!(answer.text(), format!("QUERY {body}"));
        assert!(answer.cache().contains("request-body"), "{}", answer.cache());
    }
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_query_changes_nothing_that_is_kept() {
    let origin = origin();
    let edge = keeping(&origin, ", methods: QUERY");
    edge.get("/");
    stored(&edge, 1.0);
    ask(&edge, "QUERY", "/", "", "x");
    stored(&edge, 2.0);
    assert!(edge.get("/").cache().starts_with("weir; hit"));
    ask(&edge, "POST", "/", "", "x");
    assert!(!edge.get("/").cache().contains("hit"), "a POST does");
    assert!(!ask(&edge, "QUERY", "/", "", "x").cache().contains("hit"), "and to its questions, too");
}

#[test]
fn a_stale_answer_is_asked_about_with_its_question_and_never_behind_its_back() {
    let origin = origin();
    let edge = keeping(&origin, ", methods: QUERY");
    ask(&edge, "QUERY", "/stale", "", "x");
    stored(&edge, 1.0);
    let again = ask(&edge, "QUERY", "/stale", "", "x");
    assert_eq!((again.status, again.text()), (200, "QUERY x".into()));
    let last = origin.last();
    assert_eq!(
        (last.method(), &last.body[..], last.field("if-none-match").as_str()),
        ("QUERY", &b"x"[..], "\"v1\"")
    );
    let held = ask(&edge, "QUERY", "/stale", "if-none-match: \"v1\"\r\nrange: bytes=0-1\r\n", "x");
    assert_eq!(held.status, 304);
    let part = ask(&edge, "QUERY", "/stale", "range: bytes=0-1\r\n", "x");
    assert_eq!((part.status, part.text()), (200, "QUERY x".into()), "parts are GET's");
}

#[test]
fn many_who_ask_the_same_wait_for_one() {
    let gate = Arc::new(Gate::default());
    let waits = Arc::clone(&gate);
    let origin = Origin::start(move |request, wire| {
        waits.pass();
        wire.answer("cache-control: max-age=60\r\n", &request.body);
    });
    let edge = keeping(&origin, ", methods: QUERY");
    let mut clients: Vec<Client> = (0..20).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("QUERY / HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 3\r\n\r\nabc");
    }
    until("they wait", || edge.metric("weir_requests_in_flight") >= 20.0);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().text(), "abc");
    }
    assert_eq!(origin.count(), 1);
}
