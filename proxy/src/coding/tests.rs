#![allow(clippy::unwrap_used, reason = "tests build their input by hand")]
use std::io::Read;

use weir_config::plan::MediaRange;

use super::*;

fn rule(yaml: &str) -> Compress {
    let text = format!(
        "listeners: [127.0.0.1:8080]\nupstreams: {{ a: {{ servers: [a:1] }} }}\nroutes: [{{ to: a, compress: {yaml} }}]"
    );
    let plan =
        weir_config::load("test", &text, &|_: &str| None).unwrap_or_else(|report| panic!("{report}")).plan;
    plan.routes[0].compress.clone().unwrap()
}

fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn asked(headers: &HeaderMap) -> Asked<'_> {
    Asked { method: &Method::GET, version: Version::HTTP_11, headers, has_session: false }
}

fn chosen(rule: &Compress, accepted: &str) -> Option<&'static str> {
    let headers = map(&[("accept-encoding", accepted)]);
    accepted::best(rule, &asked(&headers)).map(Coding::name)
}

#[test]
fn the_client_s_weights_decide_and_of_equal_ones_our_order() {
    let rule = rule("on");
    for (accepted, expected) in [
        ("gzip, deflate, br, zstd", Some("zstd")),
        ("gzip, deflate, br", Some("br")),
        ("gzip", Some("gzip")),
        ("GZip ; Q=1", Some("gzip")),
        ("x-gzip", Some("gzip")),
        ("gzip;q=0.9, br;q=0.8, zstd;q=0.7", Some("gzip")),
        ("gzip;q=0.001", Some("gzip")),
        ("zstd;q=0, *", Some("br")),
        ("*", Some("zstd")),
        ("*;q=0.5, gzip;q=0.6", Some("gzip")),
        ("gzip;q=0.5, identity;q=0.5", Some("gzip")),
        ("gzip, identity;q=0", Some("gzip")),
        ("gzip;q=0.5, identity", None),
        ("gzip;q=0, br;q=0, zstd;q=0", None),
        ("*;q=0", None),
        ("identity", None),
        ("identity;q=0", None),
        ("deflate, compress", None),
        ("gzip;q=2, br;q=x, zstd;p=1", None),
        ("", None),
    ] {
        assert_eq!(chosen(&rule, accepted), expected, "{accepted}");
    }
    assert_eq!(accepted::best(&rule, &asked(&HeaderMap::new())), None);
    let two = map(&[("accept-encoding", "gzip;q=0.1"), ("accept-encoding", "br;q=0.2")]);
    assert_eq!(accepted::best(&rule, &asked(&two)), Some(Coding::Brotli));
    let old = Asked { version: Version::HTTP_10, ..asked(&two) };
    assert_eq!(accepted::best(&rule, &old), None);
    let gzip_first = self::rule("{ codings: { gzip: 1, br: 1 } }");
    assert_eq!(chosen(&gzip_first, "gzip, br, zstd"), Some("gzip"));
    assert_eq!(chosen(&gzip_first, "zstd"), None);
}

#[test]
fn what_may_be_compressed_is_and_the_rest_is_left_as_it_is() {
    let rule = rule("on");
    let request = map(&[("accept-encoding", "gzip")]);
    let page = || map(&[("content-type", "text/html; charset=utf-8")]);
    let at = |status: u16, fields: &HeaderMap, length| {
        offer(&rule, &asked(&request), StatusCode::from_u16(status).unwrap(), fields, length)
    };
    let gzip = Offer::In(Coding::Gzip);
    assert_eq!(at(200, &page(), None), gzip);
    assert_eq!((at(403, &page(), Some(1024)), at(404, &page(), Some(9999))), (gzip, gzip));
    assert_eq!(at(200, &page(), Some(1023)), Offer::AsItIs);
    for status in [101, 201, 204, 206, 301, 304, 416, 500] {
        assert_eq!(at(status, &page(), None), Offer::AsItIs, "{status}");
    }
    for (name, value) in [
        ("content-encoding", "br"),
        ("content-range", "bytes 0-1/2"),
        ("cache-control", "max-age=1, No-Transform"),
        ("cache-control", "private"),
        ("cache-control", "private=\"x\""),
        ("set-cookie", "a=b"),
        ("content-digest", "sha-256=:AA==:"),
        ("repr-digest", "sha-256=:AA==:"),
    ] {
        let mut fields = page();
        fields.insert(HeaderName::from_static(name), value.parse().unwrap());
        assert_eq!(at(200, &fields, None), Offer::AsItIs, "{name}: {value}");
    }
    for media in ["image/png", "application/grpc", "text/event-stream", ""] {
        assert_eq!(at(200, &map(&[("content-type", media)]), None), Offer::AsItIs, "{media}");
    }
    assert_eq!(at(200, &HeaderMap::new(), None), Offer::AsItIs);
    let same = map(&[("accept-encoding", "gzip"), ("cache-control", "no-transform")]);
    assert_eq!(offer(&rule, &asked(&same), StatusCode::OK, &page(), None), Offer::AsItIs);
    let nobody = HeaderMap::new();
    assert_eq!(offer(&rule, &asked(&nobody), StatusCode::OK, &page(), None), Offer::NotHere);
    let tunnel = Asked { method: &Method::CONNECT, ..asked(&request) };
    assert_eq!(offer(&rule, &tunnel, StatusCode::OK, &page(), None), Offer::AsItIs);
}

#[test]
fn one_caller_s_own_is_compressed_only_where_the_route_says_so() {
    let request = map(&[("accept-encoding", "gzip")]);
    let known = Asked { has_session: true, ..asked(&request) };
    let own = map(&[("content-type", "application/json"), ("set-cookie", "a=b")]);
    let plain = map(&[("content-type", "application/json")]);
    let (careful, careless) = (rule("on"), rule("{ personal: true }"));
    for (asked, fields) in [(&known, &plain), (&asked(&request), &own)] {
        assert_eq!(offer(&careful, asked, StatusCode::OK, fields, None), Offer::AsItIs);
        assert_eq!(offer(&careless, asked, StatusCode::OK, fields, None), Offer::In(Coding::Gzip));
    }
}

#[test]
fn a_compressed_head_says_so_and_promises_no_bytes() {
    let mut fields =
        map(&[("etag", "\"v1\""), ("content-length", "10"), ("accept-ranges", "bytes"), ("vary", "Origin")]);
    vary(&mut fields);
    mark(&mut fields, Coding::Brotli);
    assert_eq!(
        (&fields["etag"], &fields["content-encoding"]),
        (&"W/\"v1\"".parse().unwrap(), &"br".parse().unwrap())
    );
    assert!(!fields.contains_key("content-length") && !fields.contains_key("accept-ranges"));
    assert_eq!(fields.get_all("vary").iter().count(), 2);
    vary(&mut fields);
    assert_eq!(fields.get_all("vary").iter().count(), 2);
    for named in ["*", "a, Accept-Encoding"] {
        let mut fields = map(&[("vary", named)]);
        vary(&mut fields);
        assert_eq!(fields.get_all("vary").iter().count(), 1);
    }
    let mut weak = map(&[("etag", "W/\"v1\"")]);
    mark(&mut weak, Coding::Gzip);
    assert_eq!(weak["etag"], "W/\"v1\"");
}

#[test]
fn a_304_has_the_validator_of_what_the_client_holds() {
    let rule = rule("on");
    for (request, expected) in [
        (map(&[("accept-encoding", "gzip"), ("if-none-match", "W/\"v1\"")]), "W/\"v1\""),
        (map(&[("accept-encoding", "gzip"), ("if-none-match", "\"v0\", \"v1\"")]), "\"v1\""),
        (map(&[("accept-encoding", "gzip")]), "W/\"v1\""),
        (map(&[("if-none-match", "\"v1\"")]), "\"v1\""),
    ] {
        let mut fields = map(&[("etag", "\"v1\"")]);
        mark_not_modified(&rule, &asked(&request), &mut fields);
        assert_eq!(
            (fields["etag"].to_str().unwrap(), fields["vary"].to_str().unwrap()),
            (expected, "accept-encoding")
        );
    }
}

#[test]
fn only_a_date_resumes_an_answer_that_was_compressed() {
    let rule = rule("on");
    let resumes = |accepted: &'static str, condition: &str| {
        let headers = map(&[("accept-encoding", accepted), ("if-range", condition)]);
        [(Some(&rule), false), (None, true), (None, false)]
            .map(|(compress, gunzip)| resumes_by_date(compress, gunzip, &asked(&headers)))
    };
    assert_eq!(resumes("gzip", "Sat, 21 Nov 2026 20:00:00 GMT"), [true, false, false]);
    assert_eq!(resumes("identity", "Sat, 21 Nov 2026 20:00:00 GMT"), [false, true, false]);
    for condition in ["\"v1\"", "W/\"v1\""] {
        assert_eq!(["gzip", "identity"].map(|taken| resumes(taken, condition)), [[false; 3]; 2]);
    }
}

fn compressors() -> Compressors {
    let counter = || prometheus::IntCounter::new("a", "b").unwrap();
    Compressors::new(|_| [counter(), counter()])
}

/// Reads what is there of a coded stream; `Err` where it is not whole.
fn decoded(coding: Coding, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut text = Vec::new();
    let whole = match coding {
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut text).is_ok(),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4096).read_to_end(&mut text).is_ok(),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut text).is_ok(),
    };
    (text, whole)
}

#[test]
fn what_was_flushed_can_be_read_and_is_whole_only_when_finished() {
    for coding in Coding::ALL {
        let mut encoder = compressors().begin(coding, 5).unwrap();
        let mut sent = encoder.push(b"first ").unwrap().to_vec();
        sent.extend_from_slice(&encoder.flush().unwrap());
        assert_eq!(decoded(coding, &sent), (b"first ".to_vec(), false), "{coding:?}");
        assert!(encoder.flush().unwrap().is_empty(), "nothing is new");
        sent.extend_from_slice(&encoder.push(b"second").unwrap());
        sent.extend_from_slice(&encoder.finish().unwrap());
        assert_eq!(decoded(coding, &sent), (b"first second".to_vec(), true), "{coding:?}");
    }
}

#[test]
fn a_quarter_of_a_megabyte_of_json_becomes_a_tenth() {
    let item = |n: u64| {
        let noise = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!(
            r#"{{"id":"{noise:016x}","type":"note","title":"Item {n}","importanceScore":{},"pinned":false}},"#,
            n % 10
        )
    };
    let json: String = (0..2700).map(item).collect();
    for (coding, level) in weir_config::defaults::COMPRESS_CODINGS {
        let mut encoder = compressors().begin(coding, level).unwrap();
        let mut bytes = Vec::new();
        for piece in json.as_bytes().chunks(PIECE) {
            bytes.extend_from_slice(&encoder.push(piece).unwrap());
        }
        bytes.extend_from_slice(&encoder.finish().unwrap());
        assert_eq!(decoded(coding, &bytes).0, json.as_bytes());
        assert!(bytes.len() * 5 < json.len(), "{coding:?}: {} of {}", bytes.len(), json.len());
    }
}

#[test]
fn compressors_have_so_much_memory_and_a_dropped_one_makes_room() {
    let compressors = compressors();
    let mut held = Vec::new();
    while let Some(encoder) = compressors.begin(Coding::Brotli, 5) {
        held.push(encoder);
    }
    assert_eq!(held.len(), 28);
    held.pop();
    assert!(compressors.begin(Coding::Brotli, 5).is_some());
}

#[test]
fn types_are_those_of_the_rule() {
    assert!(rule("on").types.contains(&MediaRange::One("application/json".to_owned())));
    assert_eq!(rule("{ types: text/* }").types, [MediaRange::Below("text/".to_owned())]);
}
