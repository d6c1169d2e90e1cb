//! CONNECT: tunnels to servers of a route's upstream, and to nobody else.

use crate::support::{Edge, Origin, nobody, until};

fn edge(servers: &str, rest: &str) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ db: {{ servers: [{servers}], timeouts: {{ connect: 5s }}{rest} }} }}
routes:
  - {{ name: tunnel, match: {{ hosts: [db.test] }}, tunnel: db }}
  - {{ match: /*, answer: {{ body: not a tunnel }} }}
"
    ))
}

/// Answers each line with itself, in capitals.
fn shouting() -> Origin {
    Origin::connections(|mut client| {
        while let Some(line) = client.line() {
            if !client.try_send(format!("{}\r\n", line.to_ascii_uppercase())) {
                return;
            }
        }
    })
}

const CONNECT: &str = "CONNECT db.test:5432 HTTP/1.1\r\nhost: db.test:5432\r\n\r\n";

#[test]
fn bytes_go_both_ways_early_ones_too_and_either_side_ends_it() {
    let db = shouting();
    let edge = edge(&db.address.to_string(), "");
    let mut client = edge.connect();
    client.send(format!("{CONNECT}early\r\n"));
    let (status, head) = client.answer_head();
    assert_eq!(status, 200);
    assert!(!head.has("content-length") && !head.has("transfer-encoding"), "RFC 9110 §9.3.6");
    assert_eq!(client.line().as_deref(), Some("EARLY"));
    client.send("late\r\n");
    assert_eq!(client.line().as_deref(), Some("LATE"));
    let record = || edge.records().into_iter().find(|record| record["route"] == "tunnel");
    client.finish();
    until("it ended", || record().is_some());
    let record = record().unwrap();
    assert_eq!((&record["target"], &record["status"]), (&"db.test:5432".into(), &200.into()));
    assert_eq!(record["attempts"].as_array().unwrap().len(), 1);

    let mut other = edge.connect();
    other.send(CONNECT);
    assert_eq!(other.answer_head().0, 200);
    drop(db);
    assert!(other.is_ended(), "the server ended it");
}

#[test]
fn a_tunnel_goes_to_the_next_server_when_one_cannot_be_connected_to() {
    let dead = nobody();
    let db = shouting();
    let edge = edge(&format!("\"{dead}\", \"{}\"", db.address), "");
    for _ in 0..4 {
        let mut client = edge.connect();
        client.send(CONNECT);
        assert_eq!(client.answer_head().0, 200);
        client.send("a\r\n");
        assert_eq!(client.line().as_deref(), Some("A"));
    }
}

#[test]
fn nobody_gets_a_connection_to_what_they_name() {
    let db = shouting();
    let edge = edge(&db.address.to_string(), "");
    for target in [format!("127.0.0.1:{}", db.address.port()), "elsewhere.test:443".to_owned()] {
        let mut client = edge.connect();
        let inner = "GET /inner HTTP/1.1\r\nhost: db.test\r\n\r\n";
        client.send(format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n\r\n{inner}"));
        assert_eq!(client.answer().status, 405, "{target}");
        assert!(client.is_ended(), "what was meant for a tunnel is no request");
    }
    assert_eq!(edge.send("GET / HTTP/1.1\r\nhost: db.test\r\n\r\n").text(), "not a tunnel");
    assert_eq!(db.accepted(), 0);
    let none = Edge::start("routes: [{ match: /*, answer: {} }]\n");
    assert_eq!(none.send(CONNECT).status, 405);
}

#[test]
fn when_no_server_can_be_connected_to_the_client_hears_it_and_the_connection_ends() {
    let dead = nobody();
    let edge = edge(&dead.to_string(), "");
    let mut client = edge.connect();
    client.send(CONNECT);
    assert_eq!(client.answer().status, 502);
    assert!(client.is_ended());
}

#[test]
fn a_silent_tunnel_ends_with_its_read_timeout() {
    let db = Origin::connections(|mut client| _ = client.rest());
    let edge = Edge::start(&format!(
        "upstreams: {{ db: {{ servers: [{}], timeouts: {{ read: 300ms }} }} }}
routes: [{{ match: {{ hosts: [db.test] }}, tunnel: db }}]
",
        db.address
    ));
    let mut client = edge.connect();
    client.send(CONNECT);
    assert_eq!(client.answer_head().0, 200);
    assert!(client.is_ended());
}
