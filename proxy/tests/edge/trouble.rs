//! Origins that are slow, silent, or talk nonsense.

use std::{net::TcpListener, sync::Arc};

use crate::support::{Edge, Gate, Origin, ok, until};

fn edge(address: impl std::fmt::Display, timeouts: &str) -> Edge {
    Edge::start(&format!(
        "upstreams: {{ api: {{ servers: [\"{address}\"], timeouts: {{ {timeouts} }} }} }}\nroutes: [{{ match: /*, to: api }}]\n"
    ))
}

#[test]
fn an_address_that_does_not_answer_is_504() {
    // TEST-NET-1 (RFC 5737): routed nowhere, or refused by the network, which is 502.
    let edge = edge("192.0.2.1:9", "connect: 200ms");
    let answer = edge.get("/");
    assert!(answer.status == 504 || answer.status == 502, "{}", answer.status);
}

#[test]
fn a_full_backlog_is_504() {
    // A listener that never accepts, and whose queue is full: SYNs are dropped.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let patience = std::time::Duration::from_millis(50);
    let mut held = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, patience) {
        held.push(stream);
    }
    let edge = edge(address, "connect: 200ms");
    assert_eq!(edge.get("/").status, 504);
}

#[test]
fn silence_before_the_answer_is_504_and_the_origin_is_let_go() {
    let gate = Arc::new(Gate::default());
    let gone = Arc::clone(&gate);
    let origin = Origin::connections(move |mut client| {
        client.head();
        if client.is_ended() {
            gone.open();
        }
    });
    let edge = edge(origin.address, "first_byte: 200ms");
    let answer = edge.get("/");
    assert_eq!(answer.status, 504);
    assert!(answer.text().contains("peer_timeout"));
    gate.pass();
}

#[test]
fn silence_within_the_answer_cuts_the_connection() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
        release.pass();
    });
    let edge = edge(origin.address, "read: 200ms");
    let answer = edge.get("/");
    assert_eq!((answer.status, answer.text(), answer.whole), (200, "half".into(), false));
    gate.open();
    let record = edge.record("target", "/");
    assert_eq!(
        (&record["complete"], &record["attempts"][0]["outcome"]),
        (&false.into(), &"read_timeout".into())
    );
}

#[test]
fn the_whole_exchange_has_a_bound() {
    let origin = Origin::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        // Never silent, never done: ends when the edge lets go.
        while wire.send("1\r\nx\r\n") {
            std::thread::yield_now();
        }
    });
    let edge = edge(origin.address, "total: 300ms");
    assert!(!edge.get("/").whole);
}

#[test]
fn nonsense_is_502_and_never_passed_on() {
    let answers = [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\nxx",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 99 Low\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad header: x\r\ncontent-length: 0\r\n\r\n",
    ];
    for answer in answers {
        let origin = Origin::start(move |_, wire| {
            wire.send(answer);
            wire.cut();
        });
        let edge = Edge::before(&origin);
        let mut client = edge.connect();
        assert_eq!(client.ask("/", "").status, 502, "{answer:?}");
        assert_eq!(client.ask("/", "").status, 502, "the client's connection is as good as before");
    }
}

#[test]
fn a_broken_chunk_is_a_broken_answer() {
    let origin = Origin::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n");
        wire.cut();
    });
    assert!(!Edge::before(&origin).get("/").whole);
}

/// Criterion 18.
#[test]
fn interim_answers_pass_but_not_without_end() {
    let origin = Origin::start(|request, wire| {
        let count = request.target()[1..].parse().unwrap();
        for _ in 0..count {
            wire.send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        }
        wire.send(ok("final"));
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send("GET /16 HTTP/1.1\r\nhost: h\r\n\r\n");
    for _ in 0..16 {
        let (status, head) = client.answer_head();
        assert_eq!((status, head.field("link").as_deref()), (103, Some("</a.css>")));
    }
    assert_eq!(client.answer().text(), "final");
    assert_eq!([edge.get("/17").status, edge.get("/1000").status], [502; 2]);
}

#[test]
fn a_client_that_leaves_is_noticed_and_the_origin_let_go() {
    let (asked, gone) = (Arc::new(Gate::default()), Arc::new(Gate::default()));
    let (is_asked, is_gone) = (Arc::clone(&asked), Arc::clone(&gone));
    let origin = Origin::connections(move |mut client| {
        client.head();
        is_asked.open();
        if client.is_ended() {
            is_gone.open();
        }
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send("GET /left HTTP/1.1\r\nhost: h\r\n\r\n");
    asked.pass();
    drop(client);
    gone.pass();
    assert_eq!(edge.record("target", "/left")["status"], 499);
    until("it is counted", || edge.metric("weir_refusals_total{reason=\"client_left\"}") == 1.0);
}

/// Criterion 39: while they wait, in mid-answer, in mid-upload.
#[test]
fn two_thousand_clients_that_leave_leave_nothing_behind() {
    const AT_ONCE: usize = 50;
    let origin = Origin::connections(|mut client| {
        if client.head().is_some_and(|head| head.line.starts_with("GET /half")) {
            client.try_send("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
            client.try_send(vec![b'h'; 50_000]);
        }
        // Until the other side lets go.
        client.rest();
    });
    let edge = Edge::before(&origin);
    let leave = || {
        let clients: Vec<_> = (0..AT_ONCE)
            .map(|nth| {
                let mut client = edge.connect();
                match nth % 3 {
                    0 => _ = client.send("GET /silent HTTP/1.1\r\nhost: h\r\n\r\n"),
                    1 => _ = client.send("GET /half HTTP/1.1\r\nhost: h\r\n\r\n").answer_head(),
                    _ => _ = client.send("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\npart"),
                }
                client
            })
            .collect();
        until("all are at the origin", || origin.open() == AT_ONCE);
        drop(clients);
        until("the origin is let go", || origin.open() == 0);
    };
    leave();
    let (descriptors, memory) = (edge.descriptors(), edge.resident());
    (0..2000 / AT_ONCE).for_each(|_| leave());
    until("descriptors are given back", || edge.descriptors() <= descriptors + 10);
    let grown = edge.resident().saturating_sub(memory);
    println!("2000 that left: {} KiB", grown / 1024);
    assert!(grown < 16 << 20, "{grown}");
}

#[test]
fn an_answer_before_the_body_was_sent_is_passed_on() {
    let origin = Origin::connections(|mut client| {
        client.head();
        client.try_send("HTTP/1.1 413 Too Much\r\ncontent-length: 3\r\nconnection: close\r\n\r\nbig");
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    client.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n").send(vec![b'x'; 1000]);
    let answer = client.answer();
    assert_eq!((answer.status, answer.text()), (413, "big".into()));
}

#[test]
fn nothing_follows_a_part_of_a_request_that_was_lost() {
    const LENGTH: usize = 48 << 20;
    let body: Arc<Vec<u8>> = Arc::new((0..LENGTH).map(|at| (at / 1000 % 251) as u8).collect());
    let sent = Arc::clone(&body);
    let (tell, heard) = std::sync::mpsc::sync_channel(1);
    let origin = Origin::connections(move |mut client| {
        client.head();
        // Reads nothing until the edge has given the write up, and then all that comes.
        std::thread::sleep(std::time::Duration::from_millis(1500));
        client.try_send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        let got = client.up_to(LENGTH);
        let _ = tell.send((got.len(), got == sent[..got.len()]));
    });
    let edge = edge(origin.address, "write: 200ms, read: 1s");
    let mut client = edge.connect();
    client.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {LENGTH}\r\n\r\n"));
    let mut upload = client.stream.try_clone().unwrap();
    let uploading = std::thread::spawn(move || std::io::Write::write_all(&mut upload, &body).is_ok());
    let answer = client.answer();
    assert!(!answer.whole, "{} bytes", answer.body.len());
    drop(client);
    let (length, is_a_beginning) = heard.recv_timeout(crate::support::SOON).unwrap();
    assert!(length < LENGTH && is_a_beginning, "{length} bytes, and a hole in them");
    assert!(!uploading.join().unwrap());
}
