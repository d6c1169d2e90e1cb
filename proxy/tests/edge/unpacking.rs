//! Answers in gzip for clients that do not take it.

use std::{io::Write, time::SystemTime};

use flate2::{Compression, write::GzEncoder};

use crate::{
    partial::serve,
    support::{Answer, Edge, Origin},
};

fn text() -> String {
    (0..2000).map(|number| format!("line {number}\n")).collect()
}

fn packed(text: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(text).unwrap();
    gzip.finish().unwrap()
}

/// Sends everybody the same in gzip.
fn origin() -> Origin {
    Origin::start(|request, wire| {
        let body = packed(text().as_bytes());
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncontent-encoding: gzip\r\netag: \"1\"\r\naccept-ranges: bytes\r\ncontent-type: text/plain\r\n\r\n",
            body.len()
        );
        wire.send(head);
        if request.method() != "HEAD" {
            wire.send(body);
        }
    })
}

#[track_caller]
fn is_unpacked(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.whole, answer.text() == text()),
        (200, true, true),
        "{:?}",
        answer.head
    );
    assert_eq!((&*answer.field("etag"), &*answer.field("vary")), ("W/\"1\"", "accept-encoding"));
    for name in ["content-encoding", "content-length", "accept-ranges"] {
        assert!(!answer.has(name), "{name}");
    }
}

#[track_caller]
fn is_packed(answer: &Answer) {
    assert_eq!((answer.status, answer.whole), (200, true));
    assert!(answer.body == packed(text().as_bytes()));
    assert_eq!((&*answer.field("content-encoding"), &*answer.field("etag")), ("gzip", "\"1\""));
}

const GZIP: &str = "accept-encoding: gzip\r\n";

#[test]
fn who_does_not_take_gzip_gets_it_unpacked_passed_or_kept() {
    let origin = origin();
    let passing = Edge::routing(&origin, "gunzip: true", "");
    let keeping = Edge::routing(
        &origin,
        "gunzip: true\n    compress: on\n    cache: { in: store, ttl: 60s }",
        "caches: { store: {} }",
    );
    for edge in [&passing, &keeping] {
        for _ in 0..2 {
            is_unpacked(&edge.get("/"));
            is_unpacked(&edge.ask("/", "accept-encoding: gzip;q=0, br\r\n"));
            let answer = edge.ask("/", GZIP);
            is_packed(&answer);
            assert_eq!(answer.field("vary"), "accept-encoding");
        }
        let old = edge.send("GET / HTTP/1.0\r\nhost: edge.test\r\n\r\n");
        is_unpacked(&old);
    }
    assert_eq!(origin.count(), 8, "what is kept is fetched once");
}

#[test]
fn heads_conditions_and_ranges_speak_of_what_the_client_would_get() {
    let origin = origin();
    let edge =
        Edge::routing(&origin, "gunzip: true\n    cache: { in: store, ttl: 60s }", "caches: { store: {} }");
    is_unpacked(&edge.get("/"));
    let head = |fields: &str| {
        let request = format!("HEAD / HTTP/1.1\r\nhost: edge.test\r\n{fields}\r\n");
        edge.connect().send(request).answer_to_head()
    };
    let (plain, gzip) = (head(""), head(GZIP));
    assert_eq!((plain.has("content-encoding"), plain.has("content-length")), (false, false));
    assert_eq!((gzip.field("content-encoding"), gzip.has("content-length")), ("gzip".into(), true));
    // A part of what is packed is of no use; the whole is.
    is_unpacked(&edge.ask("/", "range: bytes=0-9\r\n"));
    let part = edge.ask("/", &format!("range: bytes=0-9\r\n{GZIP}"));
    assert_eq!((part.status, part.body), (206, packed(text().as_bytes())[..10].to_vec()));
    let held = |tag: &str| edge.ask("/", &format!("if-none-match: {tag}\r\n"));
    assert_eq!((held("W/\"1\"").status, &*held("W/\"1\"").field("etag")), (304, "W/\"1\""));
    assert_eq!((held("\"1\"").status, &*held("\"1\"").field("etag")), (304, "\"1\""));
    assert_eq!(origin.count(), 1);
}

const DATE: &str = "Sat, 21 Nov 2020 20:00:00 GMT";

/// A file in gzip, of which ranges can be had.
fn file() -> Origin {
    let now = httpdate::fmt_http_date(SystemTime::now());
    let fields = format!("content-encoding: gzip\r\netag: \"1\"\r\nlast-modified: {DATE}\r\ndate: {now}\r\n");
    let packed = packed(text().as_bytes());
    Origin::start(move |request, wire| serve(request, wire, &fields, &packed))
}

#[test]
fn what_is_packed_is_never_put_behind_an_unpacked_beginning() {
    let whole = packed(text().as_bytes());
    for kept in ["", "ttl: 60s", "partial: true, ttl: 60s", "slice: 4KiB, ttl: 60s"] {
        let origin = file();
        let edge = match kept {
            "" => Edge::routing(&origin, "gunzip: true", ""),
            kept => {
                let rest = format!("gunzip: true\n    cache: {{ in: store, {kept} }}");
                Edge::routing(&origin, &rest, "caches: { store: {} }")
            }
        };
        let mut client = edge.connect();
        let resumed = |from: usize| format!("range: bytes={from}-\r\nif-range: {DATE}\r\n");
        // Who takes gzip gets the rest of it.
        let rest = client.ask("/f", format!("{}{GZIP}", resumed(2000)));
        assert_eq!((rest.status, rest.body == whole[2000..]), (206, true), "{kept}");
        // Who has so much of what it was unpacked to, and more than there is of it packed.
        for from in [2000, whole.len() - 10, whole.len() + 2000] {
            is_unpacked(&client.ask("/f", resumed(from)));
        }
    }
}

#[test]
fn a_packed_part_that_is_kept_is_not_for_who_could_not_unpack_it() {
    let origin = file();
    let rest = "gunzip: true\n    cache: { in: store, partial: true, ttl: 60s }";
    let edge = Edge::routing(&origin, rest, "caches: { store: {} }");
    let mut client = edge.connect();
    for (fields, asked) in [(GZIP, 1), (GZIP, 1), ("", 2)] {
        client.ask("/f", format!("range: bytes=0-9\r\n{fields}"));
        assert_eq!(origin.count(), asked);
    }
}

#[test]
fn a_part_of_slices_is_the_whole_for_who_could_not_unpack_it() {
    let origin = file();
    let rest = "gunzip: true\n    cache: { in: store, slice: 4KiB, ttl: 60s }";
    let edge = Edge::routing(&origin, rest, "caches: { store: {} }");
    for (path, condition) in [("/f", String::new()), ("/g", format!("if-range: {DATE}\r\n"))] {
        is_unpacked(&edge.ask(path, &format!("range: bytes=2000-\r\n{condition}")));
    }
    assert!(origin.seen().iter().all(|request| request.has("range")), "asked for in slices");
    let part = edge.ask("/f", &format!("range: bytes=0-9\r\n{GZIP}"));
    assert_eq!((part.status, part.body), (206, packed(text().as_bytes())[..10].to_vec()));
}

#[test]
fn without_the_word_or_against_the_origin_s_nothing_is_unpacked() {
    let origin = origin();
    let edge = Edge::before(&origin);
    is_packed(&edge.get("/"));
    let marked = Origin::start(|_, wire| {
        wire.answer("content-encoding: gzip\r\ncache-control: no-transform\r\n", packed(b"as it is"));
    });
    let edge = Edge::routing(&marked, "gunzip: true", "");
    assert_eq!(edge.get("/").body, packed(b"as it is"));
}

#[test]
fn what_cannot_be_unpacked_to_its_end_is_never_whole() {
    let origin = Origin::start(|request, wire| {
        let body = packed(text().as_bytes());
        let body = match request.target() {
            "/cut" => body[..body.len() - 9].to_vec(),
            "/no" => b"no gzip".to_vec(),
            _ => body,
        };
        wire.answer("content-encoding: gzip\r\n", body);
    });
    let edge = Edge::routing(&origin, "gunzip: true", "");
    for path in ["/cut", "/no"] {
        let mut client = edge.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nhost: edge.test\r\n\r\n"));
        // What says nothing at all is as good as an answer that breaks off.
        let Some(head) = client.head() else { continue };
        assert!(!client.body(&head, false, true).1, "{path}");
    }
    assert_eq!(edge.get("/").text(), text());
}

#[test]
fn a_bomb_costs_its_reader_s_time_and_no_memory() {
    const TOTAL: usize = 64 << 20;
    let bomb = packed(&vec![0; TOTAL]);
    let origin = Origin::start(move |_, wire| wire.answer("content-encoding: gzip\r\n", &bomb));
    let edge = Edge::routing(&origin, "gunzip: true", "");
    assert_eq!(edge.get("/").body.len(), TOTAL);
    let before = edge.resident();
    // Nobody reads: it stops where the kernel's buffers end.
    let mut clients: Vec<_> = (0..8).map(|_| edge.connect()).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: edge.test\r\n\r\n");
        assert_eq!(client.answer_head().0, 200);
    }
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < 32 << 20, "{} MiB", grown >> 20);
}
