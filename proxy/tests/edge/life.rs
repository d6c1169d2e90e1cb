//! The life of the process: reloads that nobody notices, and an end that waits for nobody who is gone.

use std::{
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    protocols::{certificate, tls, tls_listener},
    support::{Client, Edge, Gate, Origin, get, ok, until},
};

fn answering(word: &str) -> String {
    format!("routes: [{{ match: /*, answer: {{ body: {word} }} }}]\n")
}

#[test]
fn a_reload_takes_effect_for_the_next_request_of_an_open_connection() {
    let edge = Edge::start(&answering("one"));
    let mut client = edge.connect();
    assert_eq!(client.ask("/", "").text(), "one");
    edge.reload(&answering("two"));
    assert_eq!(client.ask("/", "").text(), "two");
    assert_eq!(edge.get("/").text(), "two");
}

#[test]
fn a_broken_file_changes_nothing_and_is_named_with_its_line() {
    let edge = Edge::start(&answering("one"));
    assert!(!edge.reloaded("routes:\n  - match: /*\n    anser: { body: two }\n"));
    assert_eq!(edge.get("/").text(), "one");
    let output = edge.output();
    assert!(output.contains("config.yaml:5:5") && output.contains("anser"), "{output}");
    assert!(!edge.reloaded("routes: [{ match: /*, to: nowhere }]\n"));
    assert!(
        !edge.reloaded("routes: [{ match: /*, files: { root: /no/such/folder } }]\n"),
        "what cannot be had"
    );
    assert_eq!(edge.get("/").text(), "one");
    edge.reload(&answering("three"));
    assert_eq!(edge.get("/").text(), "three");
}

#[test]
fn listeners_come_and_go() {
    let (a, b) = (weir_testkit::free_port(), weir_testkit::free_port());
    let with = |ports: &[u16]| {
        let all: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("listeners: [{}]\n{}", all.join(", "), answering("x"))
    };
    let at = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let edge = Edge::start(&with(&[a]));
    let mut kept = Client::connect(at(a));
    assert_eq!(kept.ask("/", "").text(), "x");
    edge.reload(&with(&[a, b]));
    assert_eq!(get(at(b), "/").text(), "x");
    assert_eq!(kept.ask("/", "").text(), "x", "a listener that stays keeps its connections");
    edge.reload(&with(&[b]));
    until("the first is closed", || TcpStream::connect(at(a)).is_err());
    assert_eq!(get(at(b), "/").text(), "x");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    assert!(!edge.reloaded(&with(&[b, taken.local_addr().unwrap().port()])));
    assert_eq!(get(at(b), "/").text(), "x");
}

#[test]
fn a_listener_keeps_its_bounds_when_a_reload_moves_it_in_the_list() {
    let (a, b) = (weir_testkit::free_port(), weir_testkit::free_port());
    let narrow = format!("{{ address: 127.0.0.1:{a}, bounds: {{ body_bytes: 10 }} }}");
    let wide = format!("{{ address: 127.0.0.1:{b}, bounds: {{ body_bytes: 1KiB }} }}");
    let origin = Origin::named("x");
    let with = |listeners: &str| {
        format!(
            "listeners: [{listeners}]\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes: [{{ match: /*, to: api }}]\n",
            origin.address
        )
    };
    let post = |port: u16| {
        let head = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 20\r\n\r\n";
        let mut client = Client::connect(([127, 0, 0, 1], port).into());
        client.send(format!("{head}{}", "x".repeat(20))).answer().status
    };
    let edge = Edge::start(&with(&format!("{narrow}, {wide}")));
    assert_eq!((post(a), post(b)), (413, 200));
    edge.reload(&with(&format!("{wide}, {narrow}")));
    assert_eq!((post(a), post(b)), (413, 200));
}

#[test]
fn a_certificate_is_replaced_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let first = certificate(folder.path(), "a", "a.test");
    let yaml = format!("listeners: [{}]\n{}", tls_listener(folder.path(), &["a"]), answering("x"));
    let edge = Edge::start(&yaml);
    let mut open = tls(edge.https(), "a.test", std::slice::from_ref(&first)).unwrap();
    let second = certificate(folder.path(), "a", "a.test");
    edge.reload(&yaml);
    assert!(tls(edge.https(), "a.test", std::slice::from_ref(&second)).is_ok());
    assert!(tls(edge.https(), "a.test", &[first]).is_err());
    assert_eq!(open.ask("/", "").text(), "x", "who is connected stays connected");
    std::fs::write(folder.path().join("a.key"), "nonsense").unwrap();
    assert!(!edge.reloaded(&yaml));
    assert!(tls(edge.https(), "a.test", &[second]).is_ok());
}

#[test]
fn what_did_not_change_survives_a_reload() {
    let origin = Origin::named("x");
    let yaml = |word: &str| {
        format!(
            "caches: {{ store: {{}} }}
limits: {{ few: {{ rate: 2/h }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /kept
    cache: {{ in: store, ttl: 1h }}
    to: api
  - match: /few
    limit: [few]
    answer: {{ body: {word} }}
",
            origin.address
        )
    };
    let edge = Edge::start(&yaml("one"));
    edge.get("/kept");
    assert_eq!(edge.get("/few").text(), "one");
    edge.reload(&yaml("two"));
    assert!(edge.get("/kept").cache().contains("hit"));
    assert_eq!(edge.get("/few").text(), "two");
    edge.reload(&yaml("three"));
    assert_eq!(edge.get("/few").status, 429, "two were charged before");
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_download_in_flight_survives_a_reload() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst");
        release.pass();
        wire.send("again");
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    assert_eq!(client.up_to(5), b"first");
    edge.reload(&answering("new"));
    gate.open();
    assert_eq!(client.up_to(5), b"again");
    assert_eq!(client.ask("/", "").text(), "new");
}

/// Requests that hang at the origin until the gate opens.
fn many_in_flight(count: usize) -> (Arc<Gate>, Origin, Edge, Vec<Client>) {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        release.pass();
        wire.send(ok("done"));
    });
    let edge = Edge::before(&origin);
    let mut clients: Vec<_> = (0..count).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    }
    until("all are in flight", || origin.count() == count);
    (gate, origin, edge, clients)
}

fn in_flight() -> (Arc<Gate>, Origin, Edge, Client) {
    let (gate, origin, edge, mut clients) = many_in_flight(1);
    (gate, origin, edge, clients.remove(0))
}

/// Criterion 41.
#[test]
fn term_finishes_forty_in_flight_and_ends_as_soon_as_they_are_done() {
    let (gate, _origin, mut edge, clients) = many_in_flight(40);
    let mut idle = edge.connect();
    let http = edge.http();
    assert_eq!(edge.admin("/ready").status, 200);
    let told = Instant::now();
    edge.signal("TERM");
    until("nobody new is let in", || TcpStream::connect(http).is_err());
    let closed = told.elapsed();
    assert_eq!(edge.admin("/ready").status, 503);
    assert_eq!(edge.admin("/live").status, 200);
    assert!(idle.is_ended(), "who asks nothing is sent away");
    let opened = Instant::now();
    gate.open();
    for mut client in clients {
        let answer = client.answer();
        assert_eq!((answer.text(), &*answer.field("connection")), ("done".into(), "close"));
    }
    assert_eq!(edge.ended().code(), Some(0));
    let ended = opened.elapsed();
    println!("closed after {closed:?}, ended after {ended:?}");
    assert!(closed < Duration::from_millis(500), "{closed:?}");
    assert!(ended < Duration::from_secs(1), "{ended:?}, and not after the grace of 30 s");
    edge.record("target", "/");
}

#[test]
fn a_listener_that_a_reload_closed_still_finishes_what_is_in_flight_at_the_end() {
    let (gate, origin, mut edge, mut client) = in_flight();
    let other = weir_testkit::free_port();
    edge.reload(&format!(
        "listeners: [127.0.0.1:{other}]\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    ));
    edge.signal("TERM");
    until("it drains", || edge.admin("/ready").status == 503);
    gate.open();
    assert_eq!(client.answer().text(), "done");
    assert_eq!(edge.ended().code(), Some(0));
}

#[test]
fn quit_without_traffic_ends_at_once() {
    for signal in ["QUIT", "INT", "TERM"] {
        let mut edge = Edge::start(&answering("x"));
        edge.get("/");
        edge.signal(signal);
        assert_eq!(edge.ended().code(), Some(0));
    }
}

#[test]
fn a_second_signal_ends_it_whatever_is_in_flight() {
    let (_gate, _origin, mut edge, mut client) = in_flight();
    edge.signal("TERM");
    until("it drains", || edge.admin("/ready").status == 503);
    edge.signal("HUP");
    until("who wants to reload hears why not", || edge.output().contains("no reload: the edge is draining"));
    edge.signal("TERM");
    assert_eq!(edge.ended().code(), Some(1), "not every request was answered");
    assert!(client.head().is_none());
    assert!(edge.output().contains("ended at once by a second signal"));
}

/// Criterion 43, as far as it is ours: whoever starts us again after a crash, service is back at once.
#[test]
fn a_killed_edge_can_be_started_again_at_once_on_its_address_with_clients_still_there() {
    let port = weir_testkit::free_port();
    let yaml = format!("listeners: [127.0.0.1:{port}]\n{}", answering("x"));
    let mut first = Edge::start(&yaml);
    let mut clients: Vec<_> = (0..20).map(|_| first.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.ask("/", "").text(), "x"));
    first.signal("KILL");
    assert!(!first.ended().success());
    let began = Instant::now();
    assert_eq!(Edge::start(&yaml).get("/").text(), "x");
    println!("served {:?} after the start", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn the_grace_is_the_longest_it_waits() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, _| release.pass());
    let mut edge = Edge::routing(&origin, "", "shutdown: { grace: 300ms }");
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n");
    until("it is in flight", || origin.count() == 1);
    edge.signal("TERM");
    edge.ended();
    assert!(client.head().is_none());
    gate.open();
}
