//! Compressed answers: decoded by curl, which has libraries of its own, and compared with the origin's bytes.

use std::{io::Read, net::SocketAddr, process::Command, sync::Arc};

use crate::support::{Answer, Client, Edge, Gate, Head, Origin, until};

const CODINGS: [&str; 3] = ["gzip", "br", "zstd"];
const STORE: &str = "caches: { store: { memory: 16MiB } }";
const KEPT: &str = "cache: { in: store, ttl: 60s }\n    compress: on";

/// About 250 KB of JSON, as lists of an API are.
fn json() -> String {
    let item = |n: u64| {
        let id = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            "{{\"id\":\"{id:016x}\",\"type\":\"note\",\"title\":\"Item {n}\",\"pinned\":{}}},\n",
            n.is_multiple_of(3)
        )
    };
    (0..3600).map(item).collect()
}

/// Answers with the JSON; below `/chunked` without a length.
fn origin() -> Origin {
    let body = json();
    Origin::start(move |request, wire| {
        let fields = "content-type: application/json\r\netag: \"v1\"\r\naccept-ranges: bytes\r\n";
        if request.target().starts_with("/chunked") {
            wire.send(format!("HTTP/1.1 200 OK\r\n{fields}transfer-encoding: chunked\r\n\r\n"));
            for piece in body.as_bytes().chunks(10_000) {
                wire.send(format!("{:x}\r\n", piece.len()));
                wire.send(piece);
                wire.send("\r\n");
            }
            wire.send("0\r\n\r\n");
        } else {
            wire.answer(fields, &body);
        }
    })
}

/// What curl makes of an answer: its fields in lower case, the body decoded, and whether it was whole.
fn curl(address: SocketAddr, path: &str, accepted: &str, more: &[&str]) -> (String, Vec<u8>, bool) {
    let folder = tempfile::tempdir().unwrap();
    let (head, body) = (folder.path().join("head"), folder.path().join("body"));
    let output = Command::new("curl")
        .args(["-sS", "--compressed", "--max-time", "30", "-H", &format!("accept-encoding: {accepted}")])
        .args(["-D".as_ref(), head.as_os_str(), "-o".as_ref(), body.as_os_str()])
        .args(more)
        .arg(format!("http://{address}{path}"))
        .output()
        .unwrap_or_else(|problem| panic!("curl (Debian package curl): {problem}"));
    let head = String::from_utf8_lossy(&std::fs::read(head).unwrap_or_default()).to_lowercase();
    (head, std::fs::read(body).unwrap_or_default(), output.status.success())
}

/// As much as can be read of a coded body, and whether it is whole.
fn decoded(coding: &str, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    let whole = match coding {
        "gzip" => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text).is_ok(),
        "br" => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text).is_ok(),
        _ => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text).is_ok(),
    };
    (text, whole)
}

fn accepting(coding: &str, more: &str) -> String {
    format!("accept-encoding: {coding}\r\n{more}")
}

/// Waits until so many answers are stored, and no fill holds any bytes.
fn stored(edge: &Edge, entries: f64) {
    until("it is stored", || edge.metric("weir_cache_entries{cache=\"store\"}") == entries);
}

fn text_of(answer: &Answer) -> String {
    let coding = answer.field("content-encoding");
    if coding.is_empty() {
        return answer.text();
    }
    let (text, whole) = decoded(&coding, &answer.body);
    assert!(whole, "{coding}");
    String::from_utf8(text).unwrap()
}

#[test]
fn every_coding_decodes_to_the_origin_s_bytes_over_both_versions_kept_or_not() {
    let (origin, body) = (origin(), json());
    let edge = Edge::start(&format!(
        "{STORE}\ncompress: on\nupstreams: {{ api: {{ servers: [{}] }} }}\nroutes:\n  - match: /*\n    to: api\n  - match: /kept/*\n    to: api\n    cache: {{ in: store, ttl: 60s }}\n  - match: /chunked/kept/*\n    to: api\n    cache: {{ in: store, ttl: 60s }}\n",
        origin.address
    ));
    for coding in CODINGS {
        for path in ["/plain", "/chunked/plain", "/kept/a", "/kept/a", "/chunked/kept/a", "/chunked/kept/a"] {
            for version in ["--http1.1", "--http2-prior-knowledge"] {
                let (head, text, whole) = curl(edge.http(), path, coding, &[version]);
                let about = format!("{coding} {path} {version}:\n{head}");
                assert!(whole && text == body.as_bytes(), "{about}");
                assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{about}");
                assert!(
                    head.contains("vary: accept-encoding\r\n") && head.contains("etag: w/\"v1\"\r\n"),
                    "{about}"
                );
                assert!(!head.contains("accept-ranges"), "{about}");
            }
        }
        let compressed = edge.ask("/plain", &accepting(coding, ""));
        assert!(compressed.body.len() < body.len() / 4, "{coding}: {} bytes", compressed.body.len());
    }
}

#[test]
fn who_does_not_ask_gets_the_origin_s_bytes_and_hears_of_others() {
    let (origin, body) = (origin(), json());
    let edge = Edge::routing(&origin, "compress: on", "");
    for accepted in [
        "",
        "accept-encoding: identity\r\n",
        "accept-encoding: gzip;q=0, *;q=0\r\n",
        "accept-encoding: gzip;q=0.5, identity\r\n",
    ] {
        let answer = edge.ask("/", accepted);
        assert_eq!((answer.text() == body, answer.field("content-length")), (true, body.len().to_string()));
        assert_eq!((answer.field("vary"), answer.field("etag")), ("accept-encoding".into(), "\"v1\"".into()));
        assert!(!answer.has("content-encoding"), "{accepted}");
    }
    let mut old = edge.connect();
    let old = old.send("GET / HTTP/1.0\r\nhost: edge.test\r\naccept-encoding: gzip\r\n\r\n").answer();
    assert!(!old.has("content-encoding") && old.text() == body);
    let weighed = edge.ask("/", "accept-encoding: gzip;q=0.9, br;q=0.2\r\n");
    assert_eq!(weighed.field("content-encoding"), "gzip");
}

#[test]
fn what_must_not_be_changed_is_not() {
    let long = "x".repeat(5000);
    let origin = Origin::start(move |request, wire| {
        let kind = if request.has("x-kind") { request.field("x-kind") } else { "text/plain".into() };
        let status = if request.has("x-status") { request.field("x-status") } else { "200 OK".into() };
        let length = request.field("x-length").parse().unwrap_or(long.len());
        wire.send(format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{}content-length: {length}\r\n\r\n{}",
            request.field("x-say").replace('|', "\r\n"),
            &long[..length]
        ));
    });
    let edge = Edge::routing(&origin, "compress: on", "");
    let coding = |fields: &str| edge.ask("/", &accepting("gzip", fields)).field("content-encoding");
    assert_eq!(coding(""), "gzip");
    assert_eq!(coding("x-status: 404 Not Found\r\n"), "gzip");
    for fields in [
        "x-length: 1023\r\n",
        "x-kind: image/png\r\n",
        "x-kind: text/event-stream\r\n",
        "x-kind: application/grpc\r\n",
        "x-status: 500 Broken\r\n",
        "x-status: 206 Partial\r\nx-say: content-range: bytes 0-4999/9999|\r\n",
        "x-say: cache-control: no-transform|\r\n",
        "x-say: cache-control: private|\r\n",
        "x-say: set-cookie: a=b|\r\n",
        "x-say: content-digest: sha-256=:AA==:|\r\n",
        "cache-control: no-transform\r\n",
    ] {
        assert_eq!(coding(fields), "", "{fields}");
    }
    assert_eq!(coding("x-say: content-encoding: other|\r\n"), "other", "it has one");
}

/// Reads chunks until what they decode to ends with `text`.
fn read_until(client: &mut Client, coding: &str, sent: &mut Vec<u8>, text: &str) {
    loop {
        let size = client.line().unwrap();
        let size = usize::from_str_radix(&size, 16).unwrap();
        assert!(size > 0, "the end before {text:?}");
        sent.extend(client.up_to(size));
        client.line();
        if decoded(coding, sent).0.ends_with(text.as_bytes()) {
            return;
        }
    }
}

#[test]
fn what_the_origin_has_sent_is_there_before_it_sends_more() {
    let gate = Arc::new(Gate::default());
    let waits = Arc::clone(&gate);
    let origin = Origin::start(move |request, wire| {
        let framing = if request.target() == "/kept" {
            "cache-control: max-age=60\r\ncontent-length: 26\r\n\r\ndata: first\n\n"
        } else {
            "transfer-encoding: chunked\r\n\r\nd\r\ndata: first\n\n\r\n"
        };
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{framing}"));
        waits.pass();
        let rest =
            if request.target() == "/kept" { "data: secnd\n\n" } else { "d\r\ndata: secnd\n\n\r\n0\r\n\r\n" };
        wire.send(rest);
    });
    let edge = Edge::routing(
        &origin,
        "cache: { in: store }\n    compress: { types: text/event-stream, min_bytes: 0 }",
        STORE,
    );
    let mut open: Vec<_> = CODINGS
        .into_iter()
        .flat_map(|coding| [("/events", coding), ("/kept", coding)])
        .map(|(path, coding)| {
            let mut client = edge.connect();
            client.send(format!("GET {path} HTTP/1.1\r\nhost: h\r\n{}\r\n", accepting(coding, "")));
            let (_, head) = client.answer_head();
            assert_eq!(head.field("content-encoding").unwrap(), coding, "{path}");
            let mut sent = Vec::new();
            read_until(&mut client, coding, &mut sent, "data: first\n\n");
            (client, coding, sent)
        })
        .collect();
    gate.open();
    for (client, coding, sent) in &mut open {
        read_until(client, coding, sent, "data: secnd\n\n");
        let (rest, whole) = client.body(&chunked(), false, false);
        sent.extend(rest);
        assert_eq!(
            (whole, decoded(coding, sent)),
            (true, (b"data: first\n\ndata: secnd\n\n".to_vec(), true))
        );
    }
}

fn chunked() -> Head {
    let fields = vec![("transfer-encoding".to_owned(), "chunked".to_owned())];
    Head { line: String::new(), fields }
}

#[test]
fn a_body_that_breaks_is_never_a_whole_one_in_a_coding() {
    let body = json();
    let origin = Origin::start(move |request, wire| {
        let framing = if request.target() == "/chunked" {
            format!("transfer-encoding: chunked\r\n\r\n{:x}\r\n", body.len())
        } else {
            format!("content-length: {}\r\n\r\n", body.len())
        };
        wire.send(format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{framing}"));
        wire.send(&body[..body.len() / 2]);
        wire.cut();
    });
    let plain = Edge::routing(&origin, "compress: on", "");
    let keeping = Edge::routing(&origin, KEPT, STORE);
    for edge in [&plain, &keeping] {
        for coding in CODINGS {
            for path in ["/length", "/chunked"] {
                let (_, text, whole) = curl(edge.http(), path, coding, &["--http1.1"]);
                assert!(!whole && text.len() < json().len(), "{coding} {path}");
                let raw = edge.ask(path, &accepting(coding, ""));
                assert!(!raw.whole && !decoded(coding, &raw.body).1, "{coding} {path}");
            }
        }
    }
}

#[test]
fn what_is_kept_is_asked_for_once_and_compressed_once_for_each_coding() {
    let (origin, body) = (origin(), json());
    let edge = Edge::routing(&origin, KEPT, STORE);
    let given = |coding: &str| {
        edge.metric(&format!("weir_compressed_bytes_total{{coding=\"{coding}\",side=\"in\"}}"))
    };
    edge.get("/");
    stored(&edge, 1.0);
    let bytes = edge.metric("weir_cache_bytes{cache=\"store\"}");
    for coding in CODINGS {
        for _ in 0..3 {
            let answer = edge.ask("/", &accepting(coding, ""));
            assert!(answer.cache().starts_with("weir; hit"), "{}", answer.cache());
            assert_eq!((answer.field("content-encoding").as_str(), text_of(&answer) == body), (coding, true));
            until("it is kept", || given(coding) >= body.len() as f64);
        }
        assert_eq!(given(coding), body.len() as f64, "{coding}");
        let made = edge.metric(&format!("weir_compressed_bytes_total{{coding=\"{coding}\",side=\"out\"}}"));
        assert!(made > 0.0 && made < given(coding) / 4.0);
        let answer = edge.ask("/", &accepting(coding, ""));
        assert_eq!(answer.field("content-length"), answer.body.len().to_string(), "its length is known now");
    }
    assert!(edge.metric("weir_cache_bytes{cache=\"store\"}") > bytes, "and counted");
    assert_eq!((origin.count(), edge.metric("weir_cache_entries{cache=\"store\"}")), (1, 1.0));
}

#[test]
fn a_crowd_that_waits_for_one_answer_has_it_compressed_once() {
    let (gate, body) = (Arc::new(Gate::default()), json());
    let waits = Arc::clone(&gate);
    let origin = Origin::start(move |_, wire| {
        waits.pass();
        wire.answer("content-type: application/json\r\n", json());
    });
    let edge = Edge::routing(&origin, KEPT, STORE);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..50).map(|_| scope.spawn(|| edge.ask("/", &accepting("gzip", "")))).collect();
        until("they wait", || edge.metric("weir_requests_in_flight") >= 50.0);
        gate.open();
        for answer in asked {
            assert!(text_of(&answer.join().unwrap()) == body);
        }
    });
    assert_eq!(origin.count(), 1);
    let given = edge.metric("weir_compressed_bytes_total{coding=\"gzip\",side=\"in\"}");
    assert!(given <= 2.0 * body.len() as f64, "{given} bytes for one body of {}", body.len());
}

#[test]
fn heads_conditions_and_ranges_speak_of_what_the_client_would_get() {
    let (origin, body) = (origin(), json());
    let edge = Edge::routing(&origin, KEPT, STORE);
    edge.get("/");
    stored(&edge, 1.0);
    let ask = |fields: &str| edge.ask("/", fields);
    let mut client = edge.connect();
    let head = client
        .send(format!("HEAD / HTTP/1.1\r\nhost: edge.test\r\n{}\r\n", accepting("gzip", "")))
        .answer_to_head();
    let get = ask(&accepting("gzip", ""));
    for name in ["content-encoding", "etag", "vary", "content-type"] {
        assert_eq!(head.field(name), get.field(name), "{name}");
    }
    assert!(!head.has("content-length"), "nobody knew it yet");
    // 304, whichever of the two the client holds.
    for (fields, etag) in [
        (accepting("gzip", "if-none-match: W/\"v1\"\r\n"), "W/\"v1\""),
        (accepting("gzip", "if-none-match: \"v1\"\r\n"), "\"v1\""),
        ("if-none-match: \"v1\"\r\n".to_owned(), "\"v1\""),
    ] {
        let answer = ask(&fields);
        assert_eq!((answer.status, answer.field("etag")), (304, etag.to_owned()), "{fields}");
        assert_eq!(answer.field("vary"), "accept-encoding");
        assert!(!answer.has("content-encoding"));
    }
    // Parts are of the origin's bytes, and never continue a compressed answer.
    let part = ask("range: bytes=0-9\r\naccept-encoding: gzip\r\n");
    assert_eq!((part.status, part.text(), part.has("content-encoding")), (206, body[..10].to_owned(), false));
    assert!(part.field("vary").to_ascii_lowercase().contains("accept-encoding"), "{:?}", part.head);
    assert_eq!(part.field("etag"), "\"v1\"");
    let weak = ask("range: bytes=0-9\r\nif-range: W/\"v1\"\r\naccept-encoding: gzip\r\n");
    assert_eq!((weak.status, text_of(&weak) == body), (200, true));
    let strong = ask("range: bytes=0-9\r\nif-range: \"v1\"\r\n");
    assert_eq!((strong.status, strong.text()), (206, body[..10].to_owned()));
    let beyond = ask("range: bytes=999999-\r\naccept-encoding: gzip\r\n");
    assert_eq!((beyond.status, beyond.has("content-encoding")), (416, false));
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_resumption_by_date_is_never_put_behind_a_compressed_beginning() {
    let long = "a line of text\n".repeat(1000);
    let date = "Sat, 21 Nov 2020 20:00:00 GMT";
    let origin = Origin::start(move |request, wire| {
        assert!(!request.has("range"), "asked for as a whole");
        wire.answer(&format!("content-type: text/plain\r\nlast-modified: {date}\r\n"), &long);
    });
    let resumed = accepting("gzip", &format!("range: bytes=10-\r\nif-range: {date}\r\n"));
    for (edge, stores) in
        [(Edge::routing(&origin, "compress: on", ""), 0.0), (Edge::routing(&origin, KEPT, STORE), 1.0)]
    {
        edge.get("/");
        if stores > 0.0 {
            stored(&edge, stores);
        }
        let answer = edge.ask("/", &resumed);
        assert_eq!((answer.status, text_of(&answer)), (200, "a line of text\n".repeat(1000)));
    }
}

#[test]
fn a_purge_ends_every_coding() {
    let version = Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let now = Arc::clone(&version);
    let origin = Origin::start(move |_, wire| {
        let n = now.load(std::sync::atomic::Ordering::SeqCst);
        wire.answer("content-type: text/plain\r\n", format!("version {n} ").repeat(500));
    });
    let edge = Edge::routing(
        &origin,
        "cache: { in: store, ttl: 60s, purge: { allow: [127.0.0.1] } }\n    compress: on",
        STORE,
    );
    for n in [1, 2] {
        version.store(n, std::sync::atomic::Ordering::SeqCst);
        for coding in CODINGS {
            let answer = edge.ask("/", &accepting(coding, ""));
            assert!(text_of(&answer).starts_with(&format!("version {n} ")), "{coding}");
            stored(&edge, 1.0);
        }
        let purged = edge.send("PURGE / HTTP/1.1\r\nhost: edge.test\r\n\r\n");
        assert_eq!(purged.status, 200);
    }
    assert_eq!(origin.count(), 2);
}

#[test]
fn what_the_route_sets_and_says_itself_counts() {
    let origin = Origin::start(|_, wire| wire.answer("content-type: x/unknown\r\n", "x".repeat(3000)));
    let answering = |keys: &str| {
        let edge = Edge::routing(&origin, keys, "compress: on");
        edge.ask("/", &accepting("gzip", ""))
    };
    assert!(!answering("compress: off").has("vary"));
    assert!(!answering("body_bytes: 1KiB").has("content-encoding"));
    let typed = answering("response_headers: { content-type: text/css, vary: origin }");
    assert_eq!(
        (typed.field("content-encoding"), typed.field("vary")),
        ("gzip".into(), "origin, accept-encoding".into())
    );
    assert!(
        !answering("response_headers: { content-type: text/css, cache-control: no-transform }").has("vary")
    );
    assert_eq!(
        answering("compress: { types: x/*, codings: { br: 1, gzip: 1 } }").field("content-encoding"),
        "gzip"
    );
}

#[test]
fn answers_of_our_own_are_compressed_too() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.txt"), json()).unwrap();
    let text = "a fixed answer ".repeat(200);
    let edge = Edge::start(&format!(
        "compress: on\nroutes:\n  - match: /fixed\n    answer: {{ body: \"{text}\" }}\n  - match: /files/*\n    files: {{ root: {} }}\n",
        folder.path().display()
    ));
    for (path, expected) in [("/fixed", text), ("/files/a.txt", json())] {
        for coding in CODINGS {
            let (head, body, whole) = curl(edge.http(), path, coding, &[]);
            assert!(whole && body == expected.as_bytes(), "{path} {head}");
            assert!(head.contains(&format!("content-encoding: {coding}\r\n")), "{path} {head}");
        }
    }
}
