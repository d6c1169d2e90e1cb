//! Which peer is asked, and what becomes of a request whose peer fails.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::support::{Edge, Gate, Origin, get, ok, until};

/// An upstream of these servers, in YAML's flow style, with further keys.
fn edge(servers: &str, rest: &str) -> Edge {
    Edge::start(&format!(
        "upstreams:\n  api:\n    servers: [{servers}]\n{rest}\nroutes: [{{ match: /*, to: api }}]\n"
    ))
}

fn tally(edge: &Edge, times: usize) -> HashMap<String, usize> {
    let mut tally = HashMap::new();
    for _ in 0..times {
        let answer = edge.get("/");
        assert_eq!(answer.status, 200);
        *tally.entry(answer.text()).or_default() += 1;
    }
    tally
}

#[test]
fn weights_are_kept_to_the_request() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let edge = edge(&format!("{{ address: {}, weight: 3 }}, {}", a.address, b.address), "");
    let tally = tally(&edge, 40);
    assert_eq!((tally["a"], tally["b"]), (30, 10));
}

#[test]
fn an_address_keeps_its_server() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let edge = edge(&format!("{}, {}", a.address, b.address), "    balance: ip_hash");
    assert_eq!(tally(&edge, 10).len(), 1);
}

#[test]
fn the_least_busy_is_asked() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let slow = Origin::start(move |_, wire| {
        release.pass();
        wire.send(ok("slow"));
    });
    let quick = Origin::named("quick");
    // The weight covers a request that is answered already and still counted for an instant.
    let servers = format!("{}, {{ address: {}, weight: 10 }}", slow.address, quick.address);
    let edge = edge(&servers, "    balance: least_conn");
    let mut waiting = edge.connect();
    loop {
        let before = quick.count();
        waiting.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
        until("one of them is asked", || slow.count() + quick.count() > before);
        if slow.count() == 1 {
            break;
        }
        waiting.answer();
    }
    assert_eq!(tally(&edge, 10)["quick"], 10);
    gate.open();
    assert_eq!(waiting.answer().text(), "slow");
}

#[test]
fn a_dead_peer_fails_no_get_and_is_asked_again_when_it_lives() {
    let (mut a, b) = (Origin::named("a"), Origin::named("b"));
    let address = a.address;
    let servers = format!("{{ address: {address}, fail_timeout: 1s }}, {}", b.address);
    let edge = edge(&servers, "");
    assert_eq!(tally(&edge, 10)["a"], 5);
    a.die();
    assert_eq!(tally(&edge, 20)["b"], 20);
    let sample = format!("weir_attempts_total{{outcome=\"connect\",peer=\"{address}\",upstream=\"api\"}}");
    assert!(edge.metric(&sample) >= 1.0);
    let _a = Origin::on(address, |_, wire| _ = wire.send(ok("a again")));
    until("it is asked again", || edge.get("/").text() == "a again");
}

#[test]
fn a_post_that_was_sent_is_not_sent_again() {
    let seen_then_gone = || Origin::start(|_, wire| wire.cut());
    let (a, b) = (seen_then_gone(), seen_then_gone());
    let server = |origin: &Origin| format!("{{ address: {}, max_fails: 0 }}", origin.address);
    let edge = edge(&format!("{}, {}", server(&a), server(&b)), "");
    assert_eq!(edge.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi").status, 502);
    assert_eq!(a.count() + b.count(), 1, "a byte of it was sent, and POST is not idempotent");
    assert_eq!(edge.get("/").status, 502);
    assert_eq!(a.count() + b.count(), 3, "GET is asked of both");
}

#[test]
fn a_post_that_reached_nobody_goes_to_the_next() {
    let (mut dead, alive) = (Origin::named("dead"), Origin::named("alive"));
    dead.die();
    let edge = edge(&format!("{}, {}", dead.address, alive.address), "");
    for _ in 0..4 {
        let answer = edge.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi");
        assert_eq!((answer.status, answer.text()), (200, "alive".into()));
    }
    assert!(alive.seen().iter().all(|request| request.body == b"hi"));
}

#[test]
fn a_put_is_repeated_with_its_whole_body() {
    let first = Origin::start(|_, wire| wire.cut());
    let second = Origin::named("ok");
    let edge = edge(&format!("{{ address: {}, weight: 100 }}, {}", first.address, second.address), "");
    let body = "x".repeat(50_000);
    let answer =
        edge.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(answer.status, 200);
    assert_eq!((first.count(), second.count()), (1, 1));
    assert_eq!(second.last().body, body.as_bytes());
}

#[test]
fn a_kept_connection_that_the_origin_closed_costs_nobody_an_answer() {
    // Closes after every answer without saying so: the next request finds a dead connection.
    let origin = Origin::start(|_, wire| {
        wire.send(ok("x"));
        wire.cut();
    });
    let edge = Edge::before(&origin);
    for _ in 0..50 {
        assert_eq!(edge.get("/").status, 200);
    }
    assert_eq!(origin.count(), 50);
}

#[test]
fn statuses_of_the_plan_go_to_the_next_and_the_last_answer_is_an_answer() {
    let busy = || Origin::saying("HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy");
    let (a, b) = (busy(), Origin::named("b"));
    let good = edge(&format!("{}, {}", a.address, b.address), "    retry: { on: [http_503] }");
    assert_eq!(tally(&good, 4)["b"], 4);
    let (c, d) = (busy(), busy());
    let bad = edge(&format!("{}, {}", c.address, d.address), "    retry: { on: [http_503] }");
    let answer = bad.get("/");
    assert_eq!((answer.status, answer.text()), (503, "busy".into()));
    assert_eq!(c.count() + d.count(), 2);
}

#[test]
fn a_backup_is_asked_only_when_all_others_are_out() {
    let (mut primary, backup) = (Origin::named("primary"), Origin::named("backup"));
    let address = primary.address;
    let servers = format!(
        "{{ address: {address}, fail_timeout: 1s }}, {{ address: {}, backup: true }}",
        backup.address
    );
    let edge = edge(&servers, "");
    assert_eq!(tally(&edge, 10)["primary"], 10);
    primary.die();
    assert_eq!(tally(&edge, 10)["backup"], 10);
    let _primary = Origin::on(address, |_, wire| _ = wire.send(ok("primary")));
    until("the primary is back", || edge.get("/").text() == "primary");
}

#[test]
fn a_full_upstream_says_503_and_nothing_waits() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        release.pass();
        wire.send(ok("x"));
    });
    let edge = edge(&format!("{{ address: {}, max_conns: 1 }}", origin.address), "");
    let mut first = edge.connect();
    first.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the first is there", || origin.count() == 1);
    let refused = edge.get("/");
    assert_eq!((refused.status, refused.has("retry-after")), (503, true));
    gate.open();
    assert_eq!(first.answer().status, 200);
    until("there is room again", || edge.get("/").status == 200);
}

#[test]
fn checks_take_a_peer_out_and_bring_it_back() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let a = Origin::start(move |request, wire| {
        let sick = request.target() == "/health" && !is_well.load(Ordering::SeqCst);
        wire.send(if sick { "HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n".to_owned() } else { ok("a") });
    });
    let b = Origin::named("b");
    let edge = edge(
        &format!("{}, {}", a.address, b.address),
        "    health: { path: /health, interval: 100ms, timeout: 2s, fall: 2, rise: 2 }",
    );
    let up = format!("weir_peer_up{{peer=\"{}\",upstream=\"api\"}}", a.address);
    assert_eq!(edge.metric(&up), 1.0);
    well.store(false, Ordering::SeqCst);
    until("it is out", || edge.metric(&up) == 0.0);
    assert_eq!(tally(&edge, 10)["b"], 10);
    well.store(true, Ordering::SeqCst);
    until("it is back", || edge.metric(&up) == 1.0);
    assert_eq!(tally(&edge, 10)["a"], 5);
}

#[test]
fn an_upstream_whose_every_peer_is_out_is_told_apart_and_reported() {
    let origin = Origin::saying("HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n");
    let edge = edge(&origin.address.to_string(), "    health: { path: /health, interval: 100ms, fall: 1 }");
    until("it is out", || edge.admin("/health").status == 503);
    let answer = edge.get("/");
    assert_eq!(answer.status, 502);
    assert!(answer.text().contains("no_peer"));
}

/// A real server's framing and keep-alive instead of our own idea of it.
#[test]
fn a_real_nginx_answers_through_the_edge_over_kept_connections() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("big"), vec![b'n'; 3_000_000]).unwrap();
    let root = format!("root {}; location = /n {{ return 200 $connection; }}", folder.path().display());
    let nginx = weir_testkit::Nginx::start("", &root);
    let edge = edge(&nginx.address().to_string(), "");
    // One client: another's request might come before the first one's connection is back.
    let mut client = edge.connect();
    assert_eq!(client.ask("/n", "").text(), client.ask("/n", "").text(), "the same connection");
    let big = get(edge.http(), "/big");
    assert_eq!((big.status, big.whole, big.body.len()), (200, true, 3_000_000));
    let part = edge.ask("/big", "range: bytes=10-19\r\n");
    assert_eq!((part.status, part.body.len()), (206, 10));
    assert_eq!(edge.ask("/big", &format!("if-none-match: {}\r\n", big.field("etag"))).status, 304);
}
