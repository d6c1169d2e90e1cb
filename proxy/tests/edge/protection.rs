//! What keeps an upstream from being overrun: the queue, the circuit breaker, the concurrency limit.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Client, Edge, Gate, Origin, ok, until};

/// An origin that answers when the gate opens, behind an edge that lets one request through at a time.
fn narrow(rest: &str) -> (Arc<Gate>, Origin, Edge) {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        release.pass();
        wire.send(ok("x"));
    });
    let edge = Edge::start(&narrow_yaml(&origin, rest));
    (gate, origin, edge)
}

fn narrow_yaml(origin: &Origin, rest: &str) -> String {
    format!(
        "clients: {{ trusted: [127.0.0.0/8] }}\nupstreams:\n  api:\n    servers: [{{ address: {}, max_conns: 1 }}]\n    {rest}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    )
}

/// A request from this client that is under way.
fn asking(edge: &Edge, path: &str, client: &str) -> Client {
    let mut connection = edge.connect();
    connection.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\nx-forwarded-for: {client}\r\n\r\n"));
    connection
}

fn queued(edge: &Edge) -> f64 {
    edge.metric("weir_queued_requests{upstream=\"api\"}")
}

#[test]
fn requests_wait_for_a_place_and_clients_take_turns() {
    let (gate, origin, edge) = narrow("queue: { length: 10, timeout: 30s }");
    let mut waiting = vec![asking(&edge, "/first", "192.0.2.1")];
    until("the first is there", || origin.count() == 1);
    for (number, (path, client)) in
        [("/a1", "192.0.2.1"), ("/a2", "192.0.2.1"), ("/a3", "192.0.2.1"), ("/b1", "192.0.2.2")]
            .into_iter()
            .enumerate()
    {
        waiting.push(asking(&edge, path, client));
        until("it waits", || queued(&edge) == (number + 1) as f64);
    }
    gate.open();
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
    let order: Vec<_> = origin.seen().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(order, ["/first", "/a1", "/b1", "/a2", "/a3"]);
    until("nobody waits", || queued(&edge) == 0.0);
}

#[test]
fn a_full_queue_and_a_late_turn_are_503_with_retry_after() {
    let (gate, origin, edge) = narrow("queue: { length: 1, timeout: 300ms }");
    let mut first = asking(&edge, "/", "192.0.2.1");
    until("the first is there", || origin.count() == 1);
    let mut late = asking(&edge, "/", "192.0.2.2");
    until("the second waits", || queued(&edge) == 1.0);
    let refused = edge.get("/");
    assert_eq!((refused.status, refused.has("retry-after")), (503, true));
    let late = late.answer();
    assert_eq!((late.status, late.has("retry-after")), (503, true));
    gate.open();
    assert_eq!(first.answer().status, 200);
    assert_eq!(edge.get("/").status, 200);
    assert_eq!(origin.count(), 2);
}

#[test]
fn who_leaves_the_queue_is_never_asked_for() {
    let (gate, origin, edge) = narrow("queue: { length: 10 }");
    let mut first = asking(&edge, "/first", "192.0.2.1");
    until("the first is there", || origin.count() == 1);
    drop(asking(&edge, "/left", "192.0.2.2"));
    until("the second has left", || edge.records().iter().any(|record| record["target"] == "/left"));
    gate.open();
    assert_eq!(first.answer().status, 200);
    assert_eq!(edge.get("/last").status, 200);
    assert!(origin.seen().iter().all(|request| request.target() != "/left"));
}

#[test]
fn who_waits_is_served_by_a_server_that_is_added_meanwhile() {
    let (gate, origin, edge) = narrow("queue: { length: 10, timeout: 30s }");
    let mut first = asking(&edge, "/first", "192.0.2.1");
    until("the first is there", || origin.count() == 1);
    let mut waiting = ["/a", "/b"].map(|path| asking(&edge, path, "192.0.2.1"));
    until("two wait", || queued(&edge) == 2.0);
    let added = Origin::start(|_, wire| wire.answer("", "added"));
    let server = json!({ "address": added.address.to_string() });
    assert_eq!(edge.operate("POST", "/upstreams/api/servers", &server, "").0, 201);
    waiting.iter_mut().for_each(|client| assert_eq!(client.answer().text(), "added"));
    assert_eq!(queued(&edge), 0.0);
    gate.open();
    assert_eq!(first.answer().status, 200);
}

#[test]
fn who_waits_keeps_its_turn_over_a_reload() {
    let rules = "queue: { length: 10, timeout: 30s }";
    let (gate, origin, edge) = narrow(rules);
    let mut first = asking(&edge, "/first", "192.0.2.1");
    until("the first is there", || origin.count() == 1);
    let mut second = asking(&edge, "/second", "192.0.2.1");
    until("the second waits", || queued(&edge) == 1.0);
    edge.reload(&narrow_yaml(&origin, rules));
    assert_eq!(queued(&edge), 1.0);
    let mut third = asking(&edge, "/third", "192.0.2.1");
    until("the third waits behind it", || queued(&edge) == 2.0);
    gate.open();
    for client in [&mut first, &mut second, &mut third] {
        assert_eq!(client.answer().status, 200);
    }
    let order: Vec<_> = origin.seen().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(order, ["/first", "/second", "/third"]);
}

#[test]
fn a_breaker_opens_refuses_at_once_and_closes_when_the_upstream_is_well() {
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let origin = Origin::start(move |_, wire| {
        let sick = "HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n".to_owned();
        wire.send(if is_well.load(Ordering::SeqCst) { ok("x") } else { sick });
    });
    let edge = Edge::start(&format!(
        "upstreams:\n  api:\n    servers: [{}]\n    circuit_breaker: {{ requests: 5, open: 3s, probes: 1 }}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    ));
    for _ in 0..5 {
        assert_eq!(edge.get("/").status, 500);
    }
    let refused = edge.get("/");
    assert_eq!(refused.status, 503);
    let after: u64 = refused.field("retry-after").parse().unwrap();
    assert!((1..=3).contains(&after), "{after}");
    assert!(refused.text().contains("circuit_open"));
    assert_eq!((origin.count(), edge.metric("weir_circuit_open{upstream=\"api\"}")), (5, 1.0));
    well.store(true, Ordering::SeqCst);
    until("it closes", || edge.get("/").status == 200);
    assert_eq!(edge.metric("weir_circuit_open{upstream=\"api\"}"), 0.0);
    assert!((0..10).all(|_| edge.get("/").status == 200));
    let output = edge.output();
    for turn in ["open after failed requests", "half open: ", "closed: its probes succeeded"] {
        let told = output.matches(&format!("the circuit breaker is {turn}")).count();
        assert_eq!(told, 1, "{turn}: {output}");
    }
}

#[test]
fn no_more_requests_are_under_way_than_the_limit_admits() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        release.pass();
        wire.send(ok("x"));
    });
    let edge = Edge::start(&format!(
        "upstreams:\n  api:\n    servers: [{}]\n    concurrency: {{ min: 3, max: 50 }}\n    queue: {{ timeout: 30s }}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    ));
    let mut clients: Vec<_> = (0..8).map(|_| asking(&edge, "/", "192.0.2.1")).collect();
    until("three are there and the others wait", || (origin.count(), queued(&edge)) == (3, 5.0));
    assert_eq!(edge.metric("weir_concurrency_limit{upstream=\"api\"}"), 3.0);
    gate.open();
    let began = Instant::now();
    clients.iter_mut().for_each(|client| assert_eq!(client.answer().status, 200));
    assert!(began.elapsed() < Duration::from_secs(5));
}
