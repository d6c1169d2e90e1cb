//! Whatever an origin writes, nobody gets another's answer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{Edge, Gate, Origin, ok, until};

/// Asked for `/bad` it answers like this; every other answer is the target.
fn origin(bad: &'static str) -> Origin {
    Origin::start(move |request, wire| {
        _ = match request.target() {
            "/bad" => wire.send(bad),
            target => wire.send(ok(target)),
        };
    })
}

/// After whatever came of `/bad`, others get their own answers.
fn others_are_unharmed(edge: &Edge, method: &str, what: &str) {
    for round in 0..3 {
        let mut client = edge.connect();
        client.send(format!("{method} /bad HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n"));
        client.head();
        for path in ["/one", "/two"] {
            let answer = edge.get(path);
            assert_eq!((answer.status, answer.text()), (200, path.into()), "round {round} after {what:?}");
        }
    }
}

#[test]
fn bytes_beyond_an_answer_are_nobody_s() {
    for bad in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
    ] {
        let origin = origin(bad);
        others_are_unharmed(&Edge::before(&origin), "GET", bad);
        let edge = Edge::routing(&origin, "cache: { in: store }", "caches: { store: {} }");
        others_are_unharmed(&edge, "GET", bad);
    }
}

#[test]
fn a_body_that_answers_head_is_nobody_s() {
    let bad =
        "HTTP/1.1 200 OK\r\ncontent-length: 43\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong";
    let origin = origin(bad);
    others_are_unharmed(&Edge::before(&origin), "HEAD", bad);
}

#[test]
fn bytes_on_an_idle_connection_are_nobody_s() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Origin::start(move |request, wire| {
        wire.send(ok(request.target()));
        if request.target() == "/bad" {
            // Not before the edge has put the connection aside.
            std::thread::sleep(std::time::Duration::from_millis(50));
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong");
            count.fetch_add(1, Ordering::SeqCst);
        }
    });
    let edge = Edge::before(&origin);
    for round in 1..=5 {
        assert_eq!(edge.get("/bad").text(), "/bad");
        until("it said something unasked", || written.load(Ordering::SeqCst) == round);
        for path in ["/one", "/two"] {
            assert_eq!(edge.get(path).text(), path);
        }
    }
}

#[test]
fn a_connection_whose_request_was_left_unfinished_is_not_used_again() {
    // Answers as soon as it has the head, and keeps the connection.
    let origin = Origin::connections(|mut client| {
        while let Some(head) = client.head() {
            let target = head.line.split(' ').nth(1).unwrap().to_owned();
            client.try_send(ok(&target));
        }
    });
    let edge = Edge::before(&origin);
    for _ in 0..3 {
        let mut client = edge.connect();
        client.send("POST /early HTTP/1.1\r\nhost: h\r\ncontent-length: 100\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n");
        assert_eq!(client.answer().text(), "/early");
        drop(client);
        assert_eq!(edge.get("/one").text(), "/one");
    }
}

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n";

/// Answers before it has read the body, reads that but for its end, and takes the end for the next request, which `answers` or
/// not.
fn hasty(answers: bool) -> Origin {
    Origin::connections(move |mut client| {
        while let Some(head) = client.head() {
            let target = head.line.split(' ').nth(1).unwrap().to_owned();
            if answers || target != "/smuggled" {
                client.try_send(ok(&target));
            }
            if let Some(length) = head.field("content-length") {
                client.up_to(length.parse::<usize>().unwrap() - SMUGGLED.len());
            }
        }
    })
}

#[test]
fn an_answer_that_came_before_its_request_had_ended_is_the_last_on_its_connection() {
    let origin = hasty(true);
    // All of the body goes out in one piece, and is too long for any socket's buffer.
    let edge = Edge::routing(&origin, "request_buffer: 16MiB\n    body_bytes: 64MiB", "");
    let body = "x".repeat(15 << 20) + SMUGGLED;
    for _ in 0..3 {
        let head = format!("POST /big HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n", body.len());
        assert_eq!(edge.send(head + &body).text(), "/big");
        assert_eq!(edge.get("/victim").text(), "/victim");
    }
}

#[test]
fn a_mirror_that_answered_before_its_request_had_ended_is_not_asked_on_that_connection() {
    let (api, shadow) = (Origin::named("api"), hasty(false));
    let edge = Edge::start(&format!(
        "upstreams:
  api: {{ servers: [{}] }}
  shadow: {{ servers: [{}] }}
routes:
  - {{ name: r, match: /*, to: api, mirror: {{ to: shadow }} }}
",
        api.address, shadow.address
    ));
    let sent = || edge.metric("weir_mirrors_total{outcome=\"sent\",route=\"r\"}");
    for round in 1..=3 {
        let length = SMUGGLED.len();
        let request = format!("POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}");
        assert_eq!(edge.send(request).text(), "api");
        until("it was mirrored", || sent() == f64::from(round));
        assert_eq!(shadow.accepted(), round as usize, "each on a connection of its own");
    }
}

#[test]
fn an_origin_that_closes_is_not_asked_on_that_connection() {
    let origin = Origin::start(|_, wire| {
        wire.answer("connection: close\r\n", "x");
        wire.cut();
    });
    let edge = Edge::before(&origin);
    for _ in 0..5 {
        assert_eq!(edge.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").status, 200);
    }
    assert_eq!(origin.accepted(), 5);
}

#[test]
fn a_fill_that_breaks_is_whole_for_nobody_and_somebody_fills_anew() {
    let (gate, tries) = (Arc::new(Gate::default()), AtomicUsize::new(0));
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        if tries.fetch_add(1, Ordering::SeqCst) == 0 {
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            release.pass();
            return wire.cut();
        }
        wire.answer("", "0123456789");
    });
    let edge = Edge::routing(&origin, "cache: { in: store, ttl: 60s }", "caches: { store: {} }");
    let mut clients: Vec<_> = (0..5).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET /x HTTP/1.1\r\nhost: h\r\n\r\n");
        client.answer_head();
    }
    gate.open();
    for client in &mut clients {
        assert_eq!(client.rest(), b"half", "and then the connection ends before the tenth byte");
    }
    assert_eq!(edge.get("/x").text(), "0123456789");
}

/// A body with trailers ended twice, and the second end was the origin's next request.
#[test]
fn a_body_with_trailers_ends_once() {
    let origin = Origin::start(|request, wire| {
        if request.target() == "/trailed" {
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-t: 1\r\n\r\n");
        } else {
            wire.send(ok(request.target()));
        }
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    for path in ["/one", "/trailed", "/two", "/trailed", "/three"] {
        let body = "transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-t: 1\r\n\r\n";
        let answer = client.send(format!("POST {path} HTTP/1.1\r\nhost: h\r\n{body}")).answer();
        let expected = if path == "/trailed" { "hi" } else { path };
        assert_eq!((answer.status, answer.text()), (200, expected.into()));
    }
    assert!(origin.seen().iter().all(|request| request.method() == "POST" && request.body == b"ab"));
    assert_eq!((origin.count(), origin.accepted()), (5, 1));
}
