//! Answers that are fetched and kept in slices.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use serde_json::json;

use crate::support::{Answer, Edge, Gate, Origin, Request, Wire, until};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The slices of most tests.
pub(crate) const SLICE: u64 = 4 * KIB;
/// A file of two slices and a half.
pub(crate) const FILE: u64 = 10 * KIB;

pub(crate) fn slicing(origin: &Origin, rule: &str) -> Edge {
    Edge::routing(
        origin,
        &format!("cache: {{ in: store, slice: 4KiB, ttl: 60s{rule} }}"),
        "caches: { store: { memory: 16MiB } }",
    )
}

/// The byte at a place of a file's version: no two neighbouring slices are alike.
fn byte(version: u64, at: u64) -> u8 {
    (at % 251 + at / SLICE + 7 * version) as u8
}

pub(crate) fn bytes(version: u64, range: Range<u64>) -> Vec<u8> {
    range.map(|at| byte(version, at)).collect()
}

/// What a request asks of so many bytes, as a server reads it that knows single ranges.
pub(crate) fn asked(request: &Request, total: u64) -> Option<Range<u64>> {
    let value = Some(request.field("range")).filter(|value| !value.contains(','))?;
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    let last = last.parse::<u64>().map_or(total, |last| (last + 1).min(total));
    Some(first.parse().ok()?..last)
}

/// Serves a version of a file of `total` bytes as nginx would, with these validators.
pub(crate) fn serve(request: &Request, wire: &mut Wire, (version, total): (u64, u64), fields: &str) {
    let Some(range) = asked(request, total) else {
        return wire.answer(fields, bytes(version, 0..total));
    };
    if range.start >= total {
        wire.send(format!(
            "HTTP/1.1 416 No\r\ncontent-range: bytes */{total}\r\ncontent-length: 3\r\n{fields}\r\n416"
        ));
        return;
    }
    let mut answer = format!(
        "HTTP/1.1 206 Part\r\ncontent-range: bytes {}-{}/{total}\r\ncontent-length: {}\r\ncontent-type: video/mp4\r\n{fields}\r\n",
        range.start,
        range.end - 1,
        range.end - range.start
    )
    .into_bytes();
    answer.extend(bytes(version, range));
    wire.send(answer);
}

/// A file that does not change.
fn file() -> Origin {
    Origin::start(|request, wire| serve(request, wire, (1, FILE), "etag: \"1\"\r\n"))
}

/// One whose version the test changes.
pub(crate) fn versions(fields: &'static str) -> (Origin, Arc<AtomicU64>) {
    Origin::of_versions(move |version, request, wire| {
        serve(request, wire, (version, FILE), &format!("{fields}etag: \"{version}\"\r\n"));
    })
}

pub(crate) fn ranges(origin: &Origin) -> Vec<String> {
    origin.seen().iter().map(|request| request.field("range")).collect()
}

#[track_caller]
pub(crate) fn is(answer: &Answer, status: u16, body: &[u8]) {
    assert_eq!((answer.status, answer.whole), (status, true), "{:?}", answer.head);
    assert!(answer.body == body, "{} bytes instead of {}: {}", answer.body.len(), body.len(), answer.text());
}

#[test]
fn a_file_comes_in_slices_and_is_kept_in_them() {
    let origin = file();
    let edge = slicing(&origin, "");
    for _ in 0..2 {
        let answer = edge.get("/f");
        is(&answer, 200, &bytes(1, 0..FILE));
        assert_eq!(
            (&*answer.field("content-length"), &*answer.field("content-type")),
            ("10240", "video/mp4")
        );
        assert_eq!((&*answer.field("etag"), &*answer.field("accept-ranges")), ("\"1\"", "bytes"));
        assert!(!answer.has("content-range"));
    }
    assert_eq!(ranges(&origin), ["bytes=0-4095", "bytes=4096-8191", "bytes=8192-12287"]);
    assert!(edge.get("/f").cache().starts_with("weir; hit; ttl="));
}

#[test]
fn a_range_costs_the_slices_that_it_touches() {
    let origin = file();
    let edge = slicing(&origin, "");
    let part = edge.ask("/f", "range: bytes=5000-5999\r\n");
    is(&part, 206, &bytes(1, 5000..6000));
    assert_eq!(part.field("content-range"), "bytes 5000-5999/10240");
    assert!(part.cache().starts_with("weir; fwd=uri-miss; fwd-status=206; stored"), "{}", part.cache());
    is(&edge.ask("/f", "range: bytes=8191-8192\r\n"), 206, &bytes(1, 8191..8193));
    assert_eq!(ranges(&origin), ["bytes=4096-8191", "bytes=8192-12287"]);
    is(&edge.ask("/f", "range: bytes=9000-\r\n"), 206, &bytes(1, 9000..FILE));
    is(&edge.ask("/f", "range: bytes=4096-99999\r\n"), 206, &bytes(1, 4096..FILE));
    assert_eq!(origin.count(), 2);
    // How long the file is says the first slice.
    is(&edge.ask("/f", "range: bytes=-10\r\n"), 206, &bytes(1, FILE - 10..FILE));
    assert_eq!(origin.count(), 3);
}

#[test]
fn several_ranges_conditions_and_heads_are_answered_from_slices() {
    let origin = file();
    let edge = slicing(&origin, "");
    let several = edge.ask("/f", "range: bytes=4000-4199, 0-9\r\n");
    assert_eq!((several.status, several.whole), (206, true));
    let media = several.field("content-type");
    let boundary = media.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mut expected = Vec::new();
    for part in [4000..4200, 0..10] {
        expected.extend(format!("\r\n--{boundary}\r\nContent-Type: video/mp4\r\n").into_bytes());
        expected.extend(
            format!("Content-Range: bytes {}-{}/10240\r\n\r\n", part.start, part.end - 1).into_bytes(),
        );
        expected.extend(bytes(1, part));
    }
    expected.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
    assert!(several.body == expected, "{}", several.text());

    let same = "range: bytes=0-9\r\nif-range: \"1\"\r\n";
    is(&edge.ask("/f", same), 206, &bytes(1, 0..10));
    let other = "range: bytes=5000-5009\r\nif-range: \"2\"\r\n";
    is(&edge.ask("/f", other), 200, &bytes(1, 0..FILE));
    let held = edge.ask("/f", "if-none-match: \"1\"\r\n");
    assert_eq!((held.status, held.body.len()), (304, 0));
    let head = edge
        .connect()
        .send("HEAD /f HTTP/1.1\r\nhost: edge.test\r\nrange: bytes=5000-\r\n\r\n")
        .answer_to_head();
    assert_eq!((head.status, &*head.field("content-length")), (200, "10240"));
    assert_eq!(origin.count(), 3, "{:?}", ranges(&origin));
    assert!(origin.seen().iter().all(|request| request.method() == "GET" && !request.has("if-range")));
}

#[test]
fn what_lies_beyond_the_end_is_416() {
    let origin = file();
    let edge = slicing(&origin, "");
    for (range, slices) in [("bytes=20000-", 1), ("bytes=11000-12000", 2), ("bytes=10240-", 2)] {
        let beyond = edge.ask("/f", &format!("range: {range}\r\n"));
        assert_eq!((beyond.status, &*beyond.field("content-range")), (416, "bytes */10240"), "{range}");
        assert_eq!(origin.count(), slices, "{range}");
    }
    // Only the first of the ranges is beyond it, or the client would rather have the whole.
    let both = edge.ask("/f", "range: bytes=20000-, 0-0\r\n");
    assert_eq!(
        (both.status, &*both.body),
        (200, &bytes(1, 0..FILE)[..]),
        "as an origin that knows single ranges"
    );
    let otherwise = edge.ask("/f", "range: bytes=20000-\r\nif-range: \"0\"\r\n");
    assert_eq!(otherwise.status, 416, "the origin's own word, as it ignores the condition");
    assert!(origin.last().has("if-range"), "asked as the client asked");
}

#[test]
fn an_empty_file_is_empty() {
    let origin = Origin::start(|request, wire| serve(request, wire, (1, 0), "etag: \"1\"\r\n"));
    let edge = slicing(&origin, "");
    is(&edge.get("/f"), 200, b"");
    assert!(!origin.last().has("range"));
}

#[test]
fn an_origin_without_ranges_is_kept_whole_if_its_answer_fits() {
    let origin = Origin::start(|request, wire| {
        let length = if request.target() == "/large" { 9 * MIB } else { FILE };
        wire.answer("etag: \"1\"\r\n", bytes(1, 0..length));
    });
    let edge = slicing(&origin, "");
    is(&edge.get("/f"), 200, &bytes(1, 0..FILE));
    assert_eq!(origin.last().field("range"), "bytes=0-4095");
    // From there, parts of it can be had.
    let part = edge.ask("/f", "range: bytes=5000-5999\r\n");
    is(&part, 206, &bytes(1, 5000..6000));
    assert!(part.cache().contains("hit"), "{}", part.cache());
    is(&edge.get("/f"), 200, &bytes(1, 0..FILE));
    assert_eq!(origin.count(), 1);
    for _ in 0..2 {
        is(&edge.get("/large"), 200, &bytes(1, 0..9 * MIB));
    }
    assert_eq!(origin.count(), 3);
    // What answers the request for another slice is passed on.
    is(&edge.ask("/g", "range: bytes=5000-5999\r\n"), 200, &bytes(1, 0..FILE));
    is(&edge.ask("/g", "range: bytes=5000-5999\r\n"), 200, &bytes(1, 0..FILE));
    assert_eq!(origin.count(), 5);
}

#[test]
fn errors_are_answers_and_kept_as_any() {
    let origin = Origin::start(|_, wire| {
        _ = wire.send("HTTP/1.1 404 No\r\ncontent-length: 2\r\ncache-control: max-age=60\r\n\r\nno")
    });
    let edge = slicing(&origin, "");
    for _ in 0..2 {
        is(&edge.get("/f"), 404, b"no");
    }
    is(&edge.ask("/f", "range: bytes=5000-\r\n"), 404, b"no");
    assert_eq!(origin.count(), 1);
}

#[test]
fn fifty_clients_cost_one_fetch_of_each_slice() {
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let origin = Origin::start(move |request, wire| {
        release.pass();
        serve(request, wire, (1, FILE), "etag: \"1\"\r\n");
    });
    let edge = slicing(&origin, ", lock_timeout: 60s");
    let mut clients: Vec<_> = (0..50).map(|_| edge.connect()).collect();
    for (nth, client) in clients.iter_mut().enumerate() {
        let range = if nth % 2 == 0 { "" } else { "range: bytes=5000-9999\r\n" };
        client.send(format!("GET /f HTTP/1.1\r\nhost: edge.test\r\n{range}\r\n"));
    }
    until("all are under way", || edge.metric("weir_requests_in_flight") == 50.0);
    gate.open();
    for (nth, client) in clients.iter_mut().enumerate() {
        let answer = client.answer();
        match nth % 2 {
            0 => is(&answer, 200, &bytes(1, 0..FILE)),
            _ => is(&answer, 206, &bytes(1, 5000..10_000)),
        }
    }
    let mut ranges = ranges(&origin);
    ranges.sort_unstable();
    assert_eq!(ranges, ["bytes=0-4095", "bytes=4096-8191", "bytes=8192-12287"]);
}

#[test]
fn a_purge_of_the_file_is_one_of_its_slices() {
    let (origin, version) = versions("cache-tag: films\r\n");
    let edge = slicing(&origin, ", key: \"f:${request.target}\", purge: { allow: [127.0.0.1] }");
    let purges = [
        ("PURGE /f HTTP/1.1\r\nhost: edge.test\r\n\r\n", 200),
        ("PURGE /f* HTTP/1.1\r\nhost: edge.test\r\n\r\n", 200),
        ("PURGE /f HTTP/1.1\r\nhost: edge.test\r\nsurrogate-key: films\r\n\r\n", 200),
        ("DELETE /f HTTP/1.1\r\nhost: edge.test\r\n\r\n", 200),
    ];
    for (nth, (purge, status)) in (1..).zip(purges) {
        is(&edge.get("/f"), 200, &bytes(nth, 0..FILE));
        version.store(nth + 1, Ordering::SeqCst);
        assert_eq!(edge.send(purge).status, status, "{purge}");
    }
    is(&edge.get("/f"), 200, &bytes(5, 0..FILE));
}

#[test]
fn stale_slices_are_validated_and_not_fetched() {
    let origin = Origin::start(|request, wire| {
        let fields = "etag: \"1\"\r\ncache-control: max-age=0\r\n";
        if request.field("if-none-match") == "\"1\"" {
            wire.send(format!("HTTP/1.1 304 Same\r\n{fields}\r\n"));
        } else {
            serve(request, wire, (1, FILE), fields);
        }
    });
    let edge =
        Edge::routing(&origin, "cache: { in: store, slice: 4KiB }", "caches: { store: { memory: 16MiB } }");
    for _ in 0..2 {
        is(&edge.get("/f"), 200, &bytes(1, 0..FILE));
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 6);
    assert!(seen[3..].iter().all(|request| request.field("if-none-match") == "\"1\""));
    assert_eq!(seen[5].field("range"), "bytes=8192-12287");
    is(&edge.ask("/f", "range: bytes=-1\r\n"), 206, &bytes(1, FILE - 1..FILE));
}

#[test]
fn what_may_not_be_kept_is_passed_on_in_slices_all_the_same() {
    let origin = Origin::start(|request, wire| {
        serve(request, wire, (1, FILE), "cache-control: no-store\r\netag: \"1\"\r\n")
    });
    let edge = slicing(&origin, "");
    for _ in 0..2 {
        let answer = edge.get("/f");
        is(&answer, 200, &bytes(1, 0..FILE));
        assert!(answer.cache().ends_with("detail=no-store"), "{}", answer.cache());
        is(&edge.ask("/f", "range: bytes=4000-4099\r\n"), 206, &bytes(1, 4000..4100));
    }
    assert_eq!(origin.count(), 10);
}

#[test]
fn a_gibibyte_costs_what_is_read_of_it() {
    const TOTAL: u64 = 1 << 30;
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let origin = Origin::start(move |request, wire| {
        let range = asked(request, TOTAL).expect("nobody asks for a GiB at once");
        let length = (range.end - range.start) as usize;
        count.fetch_add(length, Ordering::SeqCst);
        let mut answer = format!(
            "HTTP/1.1 206 Part\r\ncontent-range: bytes {}-{}/{TOTAL}\r\ncontent-length: {length}\r\netag: \"1\"\r\n\r\n",
            range.start,
            range.end - 1
        )
        .into_bytes();
        let number = (range.start / MIB) as u8;
        answer.resize(answer.len() + length, number);
        wire.send(answer);
    });
    let edge = Edge::routing(
        &origin,
        "cache: { in: store, slice: 1MiB, ttl: 60s, background_fill: 0s }",
        "caches: { store: { memory: 16MiB } }",
    );
    let end = edge.ask("/f", &format!("range: bytes={}-\r\n", TOTAL - KIB));
    is(&end, 206, &[255; KIB as usize]);
    assert_eq!(sent.load(Ordering::SeqCst) as u64, MIB);

    // Whoever leaves leaves no more behind than what was fetched for them, and one slice ahead.
    let mut client = edge.connect();
    client.send("GET /f HTTP/1.1\r\nhost: edge.test\r\n\r\n");
    let (status, head) = client.answer_head();
    assert_eq!((status, head.field("content-length")), (200, Some(TOTAL.to_string())));
    let before = edge.resident();
    for number in 0..200 {
        assert!(client.up_to(MIB as usize).iter().all(|byte| *byte == number), "slice {number}");
    }
    let grown = edge.resident().saturating_sub(before) as u64;
    assert!(grown < 48 * MIB, "{} MiB for a cache of 16", grown / MIB);
    drop(client);
    until("the request is over", || edge.metric("weir_requests_in_flight") == 0.0);
    let fetched = sent.load(Ordering::SeqCst) as u64 / MIB;
    // The kernel reads ahead for the client as well.
    assert!((201..250).contains(&fetched), "{fetched} slices for 200");
}

#[test]
fn explain_tells_of_the_slice_that_decides() {
    let origin = file();
    let edge = slicing(&origin, "");
    edge.ask("/f", "range: bytes=5000-5009\r\n");
    let explain = |fields: &[&str]| {
        let question = json!({ "url": "http://edge.test/f", "headers": fields });
        let (status, report) = edge.operate("POST", "/explain", &question, "");
        assert_eq!(status, 200, "{report}");
        report["cache"].clone()
    };
    let (held, other) = (explain(&["range: bytes=5000-"]), explain(&[]));
    assert_eq!((&held["key"], &held["entry"]["status"]), (&json!("http://edge.test/f slice 1"), &json!(206)));
    assert_eq!((&other["key"], &other["under_key"]), (&json!("http://edge.test/f slice 0"), &json!(0)));
    assert_eq!(origin.count(), 1);
}
