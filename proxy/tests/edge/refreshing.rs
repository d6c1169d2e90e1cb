//! Entries past their time: revalidated, served while they are fetched anew, served when the origin fails.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Edge, Origin, until};

fn caching(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store{rule} }}"), "caches: { store: {} }")
}

/// Stale at once: the next request revalidates.
const STALE: &str = "cache-control: max-age=0\r\netag: \"v1\"\r\n";

#[test]
fn a_confirmed_entry_is_served_and_the_connection_kept() {
    let origin = Origin::start(|request, wire| {
        if request.field("if-none-match") == "\"v1\"" {
            wire.send(
                "HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\ncache-control: max-age=0\r\nx-new: 1\r\n\r\n",
            );
        } else {
            wire.answer(STALE, "body");
        }
    });
    let edge = caching(&origin, "");
    assert_eq!(edge.get("/x").text(), "body");
    for _ in 0..5 {
        let answer = edge.get("/x");
        assert_eq!((answer.status, answer.text(), &*answer.field("x-new")), (200, "body".into(), "1"));
        assert!(answer.cache().contains("fwd=stale; fwd-status=304"), "{}", answer.cache());
    }
    assert_eq!((origin.count(), origin.accepted()), (6, 1));
}

#[test]
fn a_changed_entry_is_replaced() {
    let number = AtomicUsize::new(0);
    let origin = Origin::start(move |_, wire| {
        let number = number.fetch_add(1, Ordering::SeqCst);
        wire.answer(&format!("cache-control: max-age=0\r\netag: \"v{number}\"\r\n"), number.to_string());
    });
    let edge = caching(&origin, "");
    assert_eq!([edge.get("/x").text(), edge.get("/x").text()], ["0", "1"]);
    assert_eq!(origin.last().field("if-none-match"), "\"v0\"");
}

#[test]
fn a_dead_or_failing_origin_is_covered_by_what_is_stale() {
    let failing = Arc::new(AtomicUsize::new(0));
    let fails = Arc::clone(&failing);
    let mut origin = Origin::start(move |_, wire| {
        if fails.load(Ordering::SeqCst) == 1 {
            _ = wire.send("HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops");
        } else {
            wire.answer(STALE, "kept");
        }
    });
    let edge = caching(&origin, ", stale_if_error: 60s");
    assert_eq!(edge.get("/x").text(), "kept");
    failing.store(1, Ordering::SeqCst);
    let answer = edge.get("/x");
    assert_eq!((answer.status, answer.text()), (200, "kept".into()));
    origin.die();
    let answer = edge.get("/x");
    assert_eq!((answer.status, answer.text()), (200, "kept".into()));
    assert!(
        answer.cache().contains("hit") && answer.cache().contains("detail=origin-failed"),
        "{}",
        answer.cache()
    );
    assert_eq!(edge.get("/never").status, 502, "what was never kept cannot cover");
}

#[test]
fn without_leave_a_stale_entry_covers_nothing() {
    let mut origin =
        Origin::start(|_, wire| wire.answer("cache-control: max-age=0, must-revalidate\r\n", "kept"));
    let edge = caching(&origin, ", stale_if_error: 60s");
    edge.get("/x");
    origin.die();
    let status = edge.get("/x").status;
    assert!(status == 502 || status == 504, "must-revalidate forbids it (RFC 9111 §5.2.2.2): {status}");
}

#[test]
fn while_one_fetches_behind_everybody_gets_the_stale_answer_at_once() {
    let (origin, gate) = Origin::held_after_the_first("cache-control: max-age=0\r\n");
    let edge = caching(&origin, ", stale_while_revalidate: 60s");
    assert_eq!(edge.get("/x").text(), "0");
    for _ in 0..5 {
        let answer = edge.get("/x");
        assert_eq!(answer.text(), "0");
        assert!(answer.cache().contains("hit"), "{}", answer.cache());
    }
    until("the origin is asked", || origin.count() == 2);
    gate.open();
    until("the new answer is there", || edge.get("/x").text() == "1");
    assert_eq!(origin.count(), 2, "once for all of them");
}

/// Once the old answer came back while the origin was asked again, and whenever it failed.
#[test]
fn what_the_origin_withdrew_answers_neither_meanwhile_nor_for_a_failure() {
    for rule in [", stale_while_revalidate: 60s", ", stale_if_error: 60s"] {
        let number = AtomicUsize::new(0);
        let origin = Origin::start(move |_, wire| match number.fetch_add(1, Ordering::SeqCst) {
            0 => wire.answer(STALE, "kept"),
            1 => _ = wire.send("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\ngone"),
            _ => _ = wire.send("HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops"),
        });
        let edge = caching(&origin, rule);
        assert_eq!(edge.get("/x").text(), "kept");
        edge.get("/x");
        until("the origin's failure is seen", || edge.get("/x").status == 500);
    }
}
