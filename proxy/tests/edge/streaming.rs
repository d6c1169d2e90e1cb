//! Large bodies stream: in bounded memory, no faster than the other side reads.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::support::{Edge, Gate, Origin, ok, until};

const MIB: usize = 1 << 20;
const LARGE: usize = 64 * MIB;
/// What a stream may hold: sockets' buffers are the kernel's, ours are a few of 64 KiB.
const GROWTH: usize = 24 * MIB;

#[test]
fn a_large_download_needs_little_memory() {
    let origin = Origin::start(|_, wire| {
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        for _ in 0..LARGE / MIB {
            wire.send(vec![b'd'; MIB]);
        }
    });
    let edge = Edge::before(&origin);
    edge.admin("/live");
    let before = edge.resident();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    let mut most = 0;
    for _ in 0..LARGE / MIB {
        assert_eq!(client.up_to(MIB).len(), MIB);
        most = most.max(edge.resident());
    }
    assert!(most < before + GROWTH, "{before} grew to {most}");
}

#[test]
fn a_large_upload_needs_little_memory() {
    let origin = Origin::connections(|mut client| {
        client.head();
        let mut left = LARGE;
        while left > 0 {
            let piece = client.up_to(left.min(MIB));
            assert!(!piece.is_empty());
            left -= piece.len();
        }
        client.send(ok("all of it"));
    });
    let edge = Edge::before(&origin);
    let before = edge.resident();
    let mut client = edge.connect();
    client.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {LARGE}\r\n\r\n"));
    let (piece, mut most) = (vec![b'u'; MIB], 0);
    for _ in 0..LARGE / MIB {
        client.send(&piece);
        most = most.max(edge.resident());
    }
    assert_eq!(client.answer().text(), "all of it");
    assert!(most < before + GROWTH, "{before} grew to {most}");
}

#[test]
fn a_slow_reader_holds_the_origin_back() {
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let origin = Origin::connections(move |mut client| {
        client.head();
        client.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n"));
        let piece = vec![b's'; 64 * 1024];
        while count.load(Ordering::SeqCst) < LARGE && client.stream.write_all(&piece).is_ok() {
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
        // Until the other side is done with it.
        client.is_ended();
    });
    let edge = Edge::before(&origin);
    let before = edge.resident();
    let mut client = edge.connect();
    client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
    // Nobody reads: the origin comes to a halt when the sockets in between are full.
    let (mut last, mut still) = (0, 0);
    until("the origin stands still", || {
        let now = written.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 30
    });
    assert!(last < LARGE, "all {last} bytes went out to nobody");
    assert!(edge.resident() < before + GROWTH);
    assert_eq!(client.up_to(LARGE).len(), LARGE, "and goes on when somebody reads");
}

#[test]
fn a_slow_origin_holds_the_uploader_back() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::connections(move |mut client| {
        client.head();
        release.pass();
        client.up_to(LARGE);
        client.send(ok("read"));
    });
    let edge = Edge::before(&origin);
    let before = edge.resident();
    let mut client = edge.connect();
    client.send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {LARGE}\r\n\r\n"));
    let sent = Arc::new(AtomicUsize::new(0));
    let (count, mut stream) = (Arc::clone(&sent), client.stream.try_clone().unwrap());
    let upload = std::thread::spawn(move || {
        let piece = vec![b'u'; 64 * 1024];
        while count.load(Ordering::SeqCst) < LARGE {
            stream.write_all(&piece).unwrap();
            count.fetch_add(piece.len(), Ordering::SeqCst);
        }
    });
    let (mut last, mut still) = (0, 0);
    until("the client stands still", || {
        let now = sent.load(Ordering::SeqCst);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 30
    });
    assert!(last < LARGE, "all {last} bytes were taken for nobody");
    assert!(edge.resident() < before + GROWTH);
    gate.open();
    upload.join().unwrap();
    assert_eq!(client.answer().text(), "read");
}

#[test]
fn a_trickle_is_passed_on_as_it_comes() {
    for (head, first, second) in [
        ("content-length: 6", "one", "two"),
        ("transfer-encoding: chunked", "3\r\none\r\n", "3\r\ntwo\r\n0\r\n\r\n"),
    ] {
        let gate = Arc::new(Gate::default());
        let release = Arc::clone(&gate);
        let origin = Origin::start(move |_, wire| {
            wire.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{first}"));
            release.pass();
            wire.send(second);
        });
        let edge = Edge::before(&origin);
        let mut client = edge.connect();
        client.send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").answer_head();
        assert_eq!(client.up_to(first.len()), first.as_bytes(), "before the origin goes on");
        gate.open();
        assert_eq!(client.up_to(second.len()), second.as_bytes());
    }
}
