//! Parts that clients ask for, kept and put together where a route says so.

use std::sync::atomic::Ordering;

use crate::support::{Answer, Client, Edge, Origin, Request, Wire};

const TEXT: &str = "0123456789abcdefghij";

fn keeping(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(origin, &format!("cache: {{ in: store, ttl: 60s{rule} }}"), "caches: { store: {} }")
}

/// Answers single ranges of a file, with these fields; all else with the whole.
pub(crate) fn serve(request: &Request, wire: &mut Wire, fields: &str, file: &[u8]) {
    let value = request.field("range");
    let range = value.strip_prefix("bytes=").and_then(|range| range.split_once('-'));
    let Some((first, last)) = range.filter(|_| !value.contains(',')) else {
        return wire.answer(fields, file);
    };
    let end = file.len() - 1;
    let last = last.parse().unwrap_or(end).min(end);
    let first = first.parse().unwrap_or(end);
    let part = &file[first..=last];
    let head = format!(
        "HTTP/1.1 206 Part\r\ncontent-range: bytes {first}-{last}/{}\r\ncontent-length: {}\r\n{fields}\r\n",
        file.len(),
        part.len()
    );
    wire.send([head.as_bytes(), part].concat());
}

fn file() -> Origin {
    Origin::start(|request, wire| serve(request, wire, "etag: \"1\"\r\n", TEXT.as_bytes()))
}

/// One after the other on one connection: what the first brought is there for the second.
fn part(client: &mut Client, range: &str) -> Answer {
    client.ask("/f", format!("range: bytes={range}\r\n"))
}

#[test]
fn parts_are_kept_and_put_together_to_the_whole() {
    let origin = file();
    let edge = keeping(&origin, ", partial: true");
    let mut client = edge.connect();
    let first = part(&mut client, "5-9");
    assert_eq!((first.status, first.text()), (206, "56789".into()));
    assert_eq!(first.cache(), "weir; fwd=uri-miss; fwd-status=206; stored; detail=range");
    let within = part(&mut client, "6-7");
    assert_eq!(
        (within.status, within.text(), &*within.field("content-range")),
        (206, "67".into(), "bytes 6-7/20")
    );
    assert!(within.cache().starts_with("weir; hit; ttl="), "{}", within.cache());
    assert_eq!(origin.count(), 1);
    let next = part(&mut client, "8-12");
    assert!(next.cache().starts_with("weir; fwd=partial"), "{}", next.cache());
    assert_eq!(part(&mut client, "5-12").text(), "56789abc");
    assert_eq!(part(&mut client, "7-8,10-11").status, 206);
    assert_eq!(part(&mut client, "20-").status, 416);
    assert_eq!(origin.count(), 2);
    part(&mut client, "13-");
    part(&mut client, "0-5");
    let whole = client.ask("/f", "");
    assert_eq!((whole.status, whole.text()), (200, TEXT.into()));
    assert!(whole.cache().starts_with("weir; hit"), "{}", whole.cache());
    assert_eq!(origin.count(), 4);
}

#[test]
fn without_the_word_no_part_is_kept() {
    let origin = file();
    let edge = keeping(&origin, "");
    let mut client = edge.connect();
    for _ in 0..2 {
        assert_eq!((part(&mut client, "5-9").status, part(&mut client, "5-9").text()), (206, "56789".into()));
    }
    assert_eq!(origin.count(), 4);
}

#[test]
fn parts_of_two_versions_are_never_mixed() {
    let (origin, version) = Origin::of_versions(|version, request, wire| {
        serve(request, wire, &format!("etag: \"{version}\"\r\n"), TEXT.as_bytes());
    });
    let edge = keeping(&origin, ", partial: true");
    let mut client = edge.connect();
    part(&mut client, "5-9");
    version.store(2, Ordering::SeqCst);
    assert_eq!(part(&mut client, "10-12").field("etag"), "\"2\"");
    let again = part(&mut client, "5-9");
    assert_eq!((&*again.field("etag"), origin.count()), ("\"2\"", 3));
    assert_eq!(part(&mut client, "5-12").field("etag"), "\"2\"");
    assert_eq!(origin.count(), 3, "the new parts touch, and are one");
}

#[test]
fn parts_that_belong_to_nobody_else_or_to_no_whole_are_passed_on_and_not_kept() {
    for (fields, asked) in [
        ("etag: W/\"1\"\r\n", ""),
        ("", ""),
        ("etag: \"1\"\r\ncache-control: no-store\r\n", ""),
        ("etag: \"1\"\r\ncache-control: private\r\n", ""),
        ("etag: \"1\"\r\nset-cookie: a=b\r\n", ""),
        ("etag: \"1\"\r\n", "authorization: Bearer x\r\n"),
        ("etag: \"1\"\r\n", "cookie: sid=1\r\n"),
        (
            "etag: \"1\"\r\ncontent-encoding: gzip\r\ncache-control: public\r\n",
            "authorization: Bearer secretsecret\r\n",
        ),
    ] {
        let origin = Origin::start(move |request, wire| serve(request, wire, fields, TEXT.as_bytes()));
        let edge = keeping(&origin, ", partial: true");
        for _ in 0..2 {
            let answer = edge.ask("/f", &format!("range: bytes=5-9\r\n{asked}"));
            assert_eq!((answer.status, answer.text()), (206, "56789".into()), "{fields}{asked}");
            assert!(!answer.cache().contains("stored"), "{fields}{asked}: {}", answer.cache());
        }
        assert_eq!(origin.count(), 2, "{fields}{asked}");
    }
}

#[test]
fn a_part_that_breaks_off_is_not_kept() {
    let origin = Origin::start(|_, wire| {
        wire.send(
            "HTTP/1.1 206 Part\r\ncontent-range: bytes 5-9/20\r\netag: \"1\"\r\ncontent-length: 5\r\n\r\n567",
        );
        wire.cut();
    });
    let edge = keeping(&origin, ", partial: true");
    for _ in 0..2 {
        let answer = part(&mut edge.connect(), "5-9");
        assert_eq!((answer.status, answer.whole), (206, false));
    }
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_purge_ends_the_parts_too() {
    let origin = file();
    let edge = keeping(&origin, ", partial: true, purge: { allow: [127.0.0.1] }");
    let mut client = edge.connect();
    part(&mut client, "5-9");
    edge.send("PURGE /f HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    part(&mut client, "5-9");
    assert_eq!(origin.count(), 2);
}

#[test]
fn a_part_is_never_put_behind_a_compressed_beginning() {
    let date = "Sat, 21 Nov 2020 20:00:00 GMT";
    let fields = format!("etag: \"1\"\r\nlast-modified: {date}\r\ncontent-type: text/plain\r\n");
    let origin = Origin::start(move |request, wire| serve(request, wire, &fields, TEXT.as_bytes()));
    let edge = Edge::routing(
        &origin,
        "compress: { min_bytes: 1B }\n    cache: { in: store, ttl: 60s, partial: true }",
        "caches: { store: {} }",
    );
    let mut client = edge.connect();
    part(&mut client, "5-");
    let resumed = format!("range: bytes=5-\r\nif-range: {date}\r\n");
    let from_part = client.ask("/f", &resumed);
    assert_eq!((from_part.status, from_part.text(), origin.count()), (206, TEXT[5..].into(), 1));
    let whole = client.ask("/f", format!("{resumed}accept-encoding: gzip\r\n"));
    assert_eq!((whole.status, &*whole.field("content-encoding")), (200, "gzip"));
    assert!(!origin.last().has("range"));
}
