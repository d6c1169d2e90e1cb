//! Active checks: what is asked, what counts as well, and who is asked meanwhile.

use std::{net::TcpListener, sync::Arc};

use crate::support::{Edge, Gate, Origin, ok, until};

fn edge(servers: &str, health: &str) -> Edge {
    Edge::start(&format!(
        "upstreams:\n  api:\n    servers: [{servers}]\n    health: {{ interval: 100ms, {health} }}\nroutes: [{{ match: /*, to: api }}]\n"
    ))
}

fn is_up(edge: &Edge, peer: impl std::fmt::Display) -> bool {
    edge.metric(&format!("weir_peer_up{{peer=\"{peer}\",upstream=\"api\"}}")) == 1.0
}

#[test]
fn fields_and_body_count_besides_the_status() {
    let says = |answer: &str| Origin::saying(answer.to_owned());
    let well = says("HTTP/1.1 200 OK\r\nx-ready: yes\r\ncontent-length: 9\r\n\r\nall is ok");
    let no_field = says("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall is ok");
    let no_body = says("HTTP/1.1 200 OK\r\nx-ready: yes\r\ncontent-length: 4\r\n\r\nsick");
    let status = says("HTTP/1.1 302 Found\r\nx-ready: yes\r\ncontent-length: 9\r\n\r\nall is ok");
    let all = [&well, &no_field, &no_body, &status].map(|origin| origin.address);
    let servers = all.map(|address| address.to_string()).join(", ");
    let edge = edge(&servers, "status: [200, 204], headers: { x-ready: { equals: \"yes\" } }, body: is ok");
    until("only one is well", || all.map(|peer| is_up(&edge, peer)) == [true, false, false, false]);
    for reason in ["x-ready is not as it should be", "the body does not say so", "status 302"] {
        until(reason, || edge.output().contains(reason));
    }
}

#[test]
fn a_new_server_is_asked_after_its_first_success_where_checks_are_mandatory() {
    let gate = Arc::new(Gate::default());
    let well = Arc::clone(&gate);
    let origin = Origin::start(move |request, wire| {
        if request.target() == "/health" {
            well.pass();
        }
        wire.send(ok("x"));
    });
    let edge = edge(&origin.address.to_string(), "mandatory: true");
    assert_eq!(edge.get("/").status, 502);
    assert!(origin.seen().iter().all(|request| request.target() == "/health"));
    gate.open();
    until("it is asked", || edge.get("/").status == 200);
}

#[test]
fn a_connection_is_enough_for_tcp_and_may_be_to_another_port() {
    let (origin, other) = (Origin::named("x"), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = other.local_addr().unwrap().port();
    let edge = edge(&origin.address.to_string(), &format!("type: tcp, port: {port}, fall: 1"));
    other.accept().unwrap();
    assert!(is_up(&edge, origin.address));
    drop(other);
    until("nobody accepts", || !is_up(&edge, origin.address));
    assert_eq!(origin.count(), 0, "it was not asked at its own port");
}

#[test]
fn a_stopped_process_is_found_by_the_checks_without_any_request() {
    let origin = Edge::start("routes: [{ match: /*, answer: { body: x } }]\n");
    let other = Origin::named("b");
    let edge = edge(&format!("{}, {}", origin.http(), other.address), "timeout: 200ms");
    until("it is well", || is_up(&edge, origin.http()));
    origin.signal("STOP");
    until("it is out", || !is_up(&edge, origin.http()));
    origin.signal("CONT");
    until("it is back", || is_up(&edge, origin.http()));
}

#[test]
fn who_speaks_no_grpc_is_sick_for_a_grpc_check() {
    let origin = Origin::named("x");
    let edge = edge(&origin.address.to_string(), "type: grpc, service: vault.Items");
    until("it is out", || !is_up(&edge, origin.address));
    assert!(origin.accepted() > 0);
}
