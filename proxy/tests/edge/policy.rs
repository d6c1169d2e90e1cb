//! What a route says about stale answers, about asking again, and about waiting; and what it tells of it in nginx's words.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Edge, Gate, Origin, until};

/// A route that keeps answers, with these further words, and says what its cache did.
fn keeping(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(
        origin,
        &format!(
            "cache: {{ in: store{rule} }}\n    response_headers: {{ x-cache-status: \"${{cache.status}}\" }}"
        ),
        "caches: { store: {} }",
    )
}

fn word(edge: &Edge, path: &str) -> (u16, String, String) {
    let answer = edge.get(path);
    (answer.status, answer.field("x-cache-status"), answer.text())
}

fn said(status: u16, word: &str, text: &str) -> (u16, String, String) {
    (status, word.to_owned(), text.to_owned())
}

/// Waits until so many answers are kept: a client may have its answer a moment before.
fn kept(edge: &Edge, entries: usize) {
    until("it is kept", || edge.metric("weir_cache_entries{cache=\"store\"}") == entries as f64);
}

const STALE: &str = "cache-control: max-age=0\r\netag: \"v1\"\r\n";

/// An origin whose first answer to a path is stale at once, and whose later ones have the status that the path names.
fn failing() -> Origin {
    Origin::start(|request, wire| {
        let target = request.target().to_owned();
        if request.has("if-none-match") {
            let status = &target[1..4];
            wire.send(format!("HTTP/1.1 {status} No\r\ncontent-length: 2\r\n\r\nno"));
        } else {
            wire.answer(STALE, "kept");
        }
    })
}

#[test]
fn what_is_stale_covers_the_failures_that_its_route_names_and_no_others() {
    let origin = failing();
    for (rule, covered) in [
        ("", &[500, 502, 503, 504, 507][..]),
        (", stale_on: [http_500, http_404]", &[500, 404]),
        (", stale_on: [http_403, http_429, error]", &[403, 429]),
        (", stale_on: []", &[]),
    ] {
        let edge = keeping(&origin, &format!(", stale_if_error: 60s{rule}"));
        // The 404 last: uncovered, it ends what is kept.
        for (at, status) in [500, 502, 503, 504, 507, 403, 429, 404].into_iter().enumerate() {
            let path = format!("/{status}");
            assert_eq!(word(&edge, &path), said(200, "MISS", "kept"));
            kept(&edge, at + 1);
            let again = match covered.contains(&status) {
                true => said(200, "STALE", "kept"),
                false => said(status, "EXPIRED", "no"),
            };
            assert_eq!(word(&edge, &path), again, "with {rule:?}");
        }
    }
}

#[test]
fn a_dead_origin_is_an_error_and_a_silent_one_a_timeout() {
    let (dead, silent) = ("error", "timeout");
    for (on, covers_dead, covers_silent) in [(dead, true, false), (silent, false, true)] {
        let first = AtomicUsize::new(0);
        let mut origin = Origin::start(move |_, wire| match first.fetch_add(1, Ordering::SeqCst) {
            0 => wire.answer(STALE, "kept"),
            // Silent for as long as the test lives.
            _ => Gate::default().pass(),
        });
        let edge = Edge::start(&format!(
            "caches: {{ store: {{}} }}
upstreams: {{ api: {{ servers: [{}], timeouts: {{ first_byte: 300ms }} }} }}
routes: [{{ match: /*, to: api, cache: {{ in: store, stale_if_error: 60s, stale_on: [{on}] }} }}]
",
            origin.address
        ));
        assert_eq!(edge.get("/x").text(), "kept");
        kept(&edge, 1);
        assert_eq!(edge.get("/x").status == 200, covers_silent, "silent, with {on}");
        origin.die();
        assert_eq!(edge.get("/x").status == 200, covers_dead, "dead, with {on}");
    }
}

#[test]
fn without_background_update_one_client_waits_and_the_others_get_what_is_stale() {
    let (origin, gate) = Origin::held_after_the_first(STALE);
    let edge = keeping(&origin, ", stale_while_revalidate: 60s, background_update: false");
    assert_eq!(word(&edge, "/x"), said(200, "MISS", "0"));
    kept(&edge, 1);
    let mut first = edge.connect();
    first.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    until("the origin is asked", || origin.count() == 2);
    assert_eq!(word(&edge, "/x"), said(200, "UPDATING", "0"));
    gate.open();
    let updated = first.answer();
    assert_eq!((updated.text(), updated.field("x-cache-status")), ("1".into(), "EXPIRED".into()));
    until("it is kept", || word(&edge, "/x") == said(200, "HIT", "1"));
    assert_eq!(origin.count(), 2);
}

#[test]
fn without_revalidation_the_origin_sends_all_of_it_again() {
    let origin = Origin::start(|request, wire| match request.has("if-none-match") {
        true => _ = wire.send("HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n"),
        false => wire.answer(if request.target() == "/bare" { "etag: \"v1\"\r\n" } else { STALE }, "whole"),
    });
    let asking = keeping(&origin, "");
    for expected in ["MISS", "REVALIDATED", "REVALIDATED"] {
        assert_eq!(word(&asking, "/x"), said(200, expected, "whole"));
        kept(&asking, 1);
    }
    let edge = keeping(&origin, ", revalidate: false, stale_if_error: 60s");
    for expected in ["MISS", "EXPIRED", "EXPIRED"] {
        assert_eq!(word(&edge, "/x"), said(200, expected, "whole"));
        kept(&edge, 1);
        assert!(!origin.last().has("if-none-match"));
    }
    let useless = keeping(&origin, ", revalidate: false");
    for _ in 0..2 {
        assert_eq!(
            word(&useless, "/bare"),
            said(200, "MISS", "whole"),
            "what would only be asked about is not kept"
        );
    }
}

#[test]
fn a_lifetime_is_guessed_unless_the_route_says_otherwise() {
    let origin =
        Origin::start(|_, wire| wire.answer("last-modified: Thu, 01 Jan 2015 00:00:00 GMT\r\n", "old"));
    for (rule, second) in [("", "HIT"), (", heuristics: false, revalidate: false", "MISS")] {
        let edge = keeping(&origin, rule);
        assert_eq!(word(&edge, "/x"), said(200, "MISS", "old"));
        until("it is kept, or not", || word(&edge, "/x").1 == second);
    }
}

/// A fetch that hangs is not waited for by everybody for ever.
#[test]
fn one_more_request_goes_when_a_fetch_is_too_old() {
    let (gate, first) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        if first.fetch_add(1, Ordering::SeqCst) == 0 {
            release.pass();
        }
        wire.answer("cache-control: max-age=60\r\n", "x");
    });
    let edge = keeping(&origin, ", lock_age: 300ms, lock_timeout: 60s");
    let mut clients: Vec<_> = (0..10).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    }
    until("a second one is asked", || origin.count() == 2);
    until("all but one are answered", || edge.metric("weir_requests_in_flight") == 1.0);
    assert_eq!(origin.count(), 2, "one more for all who waited");
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().text(), "x");
    }
}

#[test]
fn with_a_lock_age_of_nothing_nobody_waits_for_another_s_fetch() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        release.pass();
        wire.answer("cache-control: max-age=60\r\n", "x");
    });
    let edge = keeping(&origin, ", lock_age: 0s, lock_timeout: 60s");
    let mut clients: Vec<_> = (0..3).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    }
    until("each asks for itself", || origin.count() == 3);
    gate.open();
    for client in &mut clients {
        assert_eq!(client.answer().text(), "x");
    }
    until("it is kept", || word(&edge, "/x").1 == "HIT");
}

#[test]
fn what_the_cache_did_is_told_in_nginx_s_word_on_either_lane() {
    let origin = Origin::start(|_, wire| wire.answer("cache-control: max-age=60\r\n", "x"));
    let edge = keeping(&origin, ", bypass: \"${header.x-fresh}\"");
    assert_eq!(word(&edge, "/x").1, "MISS");
    until("it is kept", || word(&edge, "/x").1 == "HIT");
    assert!(edge.metric("weir_cache_express_total{cache=\"store\"}") > 0.0, "by the express lane");
    assert_eq!(edge.ask("/x", "if-none-match: \"1\"\r\n").field("x-cache-status"), "HIT", "by the other");
    assert_eq!(edge.ask("/x", "x-fresh: 1\r\n").field("x-cache-status"), "BYPASS");
    let posted = edge.send("POST /x HTTP/1.1\r\nhost: edge.test\r\ncontent-length: 0\r\n\r\n");
    assert!(!posted.has("x-cache-status"), "no cache took part");
}
