#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use weir_config::units::Bytes;

use super::*;

fn bounds() -> Bounds {
    let mut bounds = Bounds::default();
    bounds.uri_bytes = Bytes::new(100);
    bounds.head_bytes = Bytes::new(1000);
    bounds.head_fields = 5;
    bounds.body_bytes = Bytes::new(1000);
    bounds
}

fn read(text: &str) -> Result<Head, BadRequest> {
    check(text.as_bytes(), &bounds())
}

/// A GET with these field lines after its Host.
fn with(fields: &str) -> Result<Head, BadRequest> {
    read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))
}

fn rewritten(text: &str) -> String {
    String::from_utf8(read(text).unwrap().rewritten.unwrap()).unwrap()
}

#[test]
fn ordinary_heads_pass_as_they_came() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a?b=c HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost:a:80\r\n\r\n",
        "M-SEARCH /x HTTP/1.1\r\nHost: [::1]\r\nX:\r\nY: \t a b\t\u{e4} \r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close, x-y\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
    ] {
        assert_eq!(read(text).unwrap().rewritten, None, "{text:?}");
    }
}

#[test]
fn framing_has_one_meaning() {
    assert_eq!(with("").unwrap().framing, Framing::None);
    assert_eq!(with("Content-Length: 0\r\n").unwrap().framing, Framing::None);
    assert_eq!(with("Content-Length: 12\r\n").unwrap().framing, Framing::Length(12));
    assert_eq!(with("transfer-encoding:chunked\r\n").unwrap().framing, Framing::Chunked);
}

#[test]
fn framing_that_has_two_meanings_is_refused() {
    use BadRequest as B;
    for (fields, bad) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n", B::SeveralLengths),
        ("Content-Length: 5\r\nContent-Length: 6\r\n", B::SeveralLengths),
        ("Content-Length: 5, 5\r\n", B::BadLength),
        ("Content-Length: +5\r\n", B::BadLength),
        ("Content-Length: -1\r\n", B::BadLength),
        ("Content-Length: 0x5\r\n", B::BadLength),
        ("Content-Length: 5 5\r\n", B::BadLength),
        ("Content-Length:\r\n", B::BadLength),
        ("Content-Length: 9223372036854775808\r\n", B::BadLength),
        ("Content-Length: 00000000000000000005\r\n", B::BadLength),
        ("Content-Length: 9223372036854775807\r\n", B::BodyTooLarge),
        ("Content-Length: 1001\r\n", B::BodyTooLarge),
        ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", B::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", B::LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", B::BadCoding),
        ("Transfer-Encoding: chunked, chunked\r\n", B::BadCoding),
        ("Transfer-Encoding: gzip, chunked\r\n", B::BadCoding),
        ("Transfer-Encoding: chunked;q=1\r\n", B::BadCoding),
        ("Transfer-Encoding: \u{b}chunked\r\n", B::BadFieldValue),
        ("Transfer-Encoding: \u{a0}chunked\r\n", B::BadCoding),
        ("Transfer-Encoding: xchunked\r\n", B::BadCoding),
        ("Transfer-Encoding: \"chunked\"\r\n", B::BadCoding),
        ("Transfer-Encoding:\r\n", B::BadCoding),
        ("Transfer-Encoding: gzip\r\n", B::UnknownCoding),
        ("Transfer-Encoding: identity\r\n", B::UnknownCoding),
        ("Transfer_Encoding: chunked\r\n", B::BadFieldName),
        ("Content_length: 5\r\n", B::BadFieldName),
    ] {
        assert_eq!(with(fields), Err(bad), "{fields:?}");
    }
    assert_eq!(read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(B::CodingInHttp10));
}

#[test]
fn request_lines_are_three_words() {
    use BadRequest as B;
    for (line, bad) in [
        ("GET /", B::BadLine),
        ("GET  / HTTP/1.1", B::BadLine),
        ("GET / HTTP/1.1 ", B::BadLine),
        (" GET / HTTP/1.1", B::BadLine),
        ("GET / x HTTP/1.1", B::BadLine),
        ("", B::BadLine),
        ("GET\t/\tHTTP/1.1", B::BadLine),
        ("GET / http/1.1", B::BadLine),
        ("GET / HTTP/1.10", B::BadLine),
        ("GET / HTTP/01.1", B::BadLine),
        ("GET / HTTP/0.9", B::BadLine),
        ("GET / HTTP/2.0", B::BadVersion),
        ("GET / HTTP/1.2", B::BadVersion),
        ("G(T / HTTP/1.1", B::BadMethod),
        ("G\u{e4}T / HTTP/1.1", B::BadMethod),
        ("GET\t / HTTP/1.1", B::BadMethod),
        ("CONNECT a:1 HTTP/1.1", B::ConnectRefused),
        ("TRACE / HTTP/1.1", B::TraceRefused),
        ("GET * HTTP/1.1", B::BadTarget),
        ("GET /#a HTTP/1.1", B::BadTarget),
        ("GET a HTTP/1.1", B::BadTarget),
        ("GET /\t HTTP/1.1", B::BadTarget),
        ("GET ftp://a/ HTTP/1.1", B::BadTarget),
        ("GET http://b/ HTTP/1.1", B::HostMismatch),
        ("GET http://a:81/ HTTP/1.1", B::HostMismatch),
        ("GET https://a:80/ HTTP/1.1", B::HostMismatch),
        ("GET http://u@a/ HTTP/1.1", B::BadHost),
        ("GET http:///x HTTP/1.1", B::BadHost),
    ] {
        assert_eq!(read(&format!("{line}\r\nHost: a\r\n\r\n")), Err(bad), "{line:?}");
    }
    let long = "x".repeat(100);
    assert_eq!(read(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), Err(B::UriTooLong));
}

#[test]
fn fields_are_tokens_and_text() {
    use BadRequest as B;
    for (fields, bad) in [
        ("A : b\r\n", B::SpaceBeforeColon),
        ("A\t: b\r\n", B::SpaceBeforeColon),
        (" A: b\r\n", B::ObsFold),
        ("A: b\r\n c\r\n", B::ObsFold),
        ("A: b\r\n\tc\r\n", B::ObsFold),
        (": b\r\n", B::BadFieldName),
        ("A b: c\r\n", B::BadFieldName),
        ("A\r\n", B::BadFieldName),
        ("A(: b\r\n", B::BadFieldName),
        ("\u{e4}: b\r\n", B::BadFieldName),
        ("A: \u{1}\r\n", B::BadFieldValue),
        ("A: \u{7f}\r\n", B::BadFieldValue),
        ("A: \0\r\n", B::Nul),
        ("A\0: b\r\n", B::Nul),
        ("A: b\rc\r\n", B::BareCr),
        ("A: b\r\r\n", B::BareCr),
        ("A: b\n", B::BareLf),
        ("Expect: 200-ok\r\n", B::BadExpectation),
        ("Host: a\r\n", B::SeveralHosts),
        ("Host: b\r\n", B::SeveralHosts),
        ("A: 1\r\nA: 2\r\nA: 3\r\nA: 4\r\nA: 5\r\n", B::TooManyFields),
    ] {
        assert_eq!(with(fields), Err(bad), "{fields:?}");
    }
    assert_eq!(read("GET / HTTP/1.1\r\n\r\n"), Err(B::MissingHost));
    assert_eq!(read("GET http://a/ HTTP/1.1\r\n\r\n"), Err(B::MissingHost));
    assert_eq!(read("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Err(B::BadHost));
    assert_eq!(read("GET / HTTP/1.0\r\nHost: a,b\r\n\r\n"), Err(B::BadHost));
}

#[test]
fn the_client_decides_whether_the_connection_lives() {
    let lives = |text| read(text).unwrap().keep_alive;
    assert!(lives("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(!lives("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\n"));
    assert!(!lives("GET / HTTP/1.0\r\n\r\n"));
    assert!(lives("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    assert!(!lives("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n"));
}

#[test]
fn another_protocol_may_be_offered_but_never_h2c_and_the_connection_ends_with_it() {
    let offer = |upgrade: &str, rest: &str| {
        let head = format!(
            "POST /run HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n{rest}\r\n"
        );
        let head = read(&head).unwrap();
        assert!(!head.keep_alive, "{upgrade}");
        head.may_switch
    };
    assert!(offer("SPDY/3.1", "") && offer("tcp", ""));
    assert!(!offer("h2c", "") && !offer("tcp, h2c", "") && !offer("", ""));
    assert!(!offer("tcp", "Upgrade: h2c\r\n") && !offer("tcp", "Content-Length: 3\r\n"));
}

const WEBSOCKET: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn only_a_whole_websocket_handshake_keeps_its_upgrade() {
    let head = read(WEBSOCKET).unwrap();
    assert!(head.may_switch && head.keep_alive && head.rewritten.is_none());
    for (from, to) in [
        ("GET", "POST"),
        ("websocket\r", "h2c\r"),
        ("websocket\r", "websocket, h2c\r"),
        ("-alive, Upgrade", "-alive"),
        ("n: 13", "n: 12"),
        ("ZQ==", "ZQ="),
        ("Host: a\r\n", "Host: a\r\nContent-Length: 3\r\n"),
        ("HTTP/1.1", "HTTP/1.0"),
    ] {
        let mut bounds = bounds();
        bounds.head_fields = 9;
        let Ok(head) = check(WEBSOCKET.replace(from, to).as_bytes(), &bounds) else {
            panic!("{from} -> {to}")
        };
        assert!(!head.may_switch && !head.keep_alive, "{from} -> {to}");
        let text = String::from_utf8(head.rewritten.unwrap()).unwrap();
        assert!(!text.contains("Upgrade: ") && text.contains("\r\nConnection: close\r\n"), "{text}");
    }
}

#[test]
fn other_forms_are_written_anew() {
    assert_eq!(
        rewritten("GET http://A:80 HTTP/1.1\r\nX: 1\r\nHost: a\r\n\r\n"),
        "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n"
    );
    assert_eq!(
        rewritten("GET http://a?q HTTP/1.0\r\n\r\n"),
        "GET /?q HTTP/1.0\r\nHost: a\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        rewritten("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n"),
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let post = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 007\r\n\r\n";
    assert!(read(post).unwrap().expects_continue);
    assert_eq!(rewritten(post), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n");
}

#[test]
fn a_bare_lf_is_normalised_where_the_plan_allows_it() {
    let mut bounds = bounds();
    bounds.bare_lf = BareLf::Accept;
    let head = check(b"GET / HTTP/1.1\nHost: a\r\nX: 1\n\n", &bounds).unwrap();
    assert_eq!(head.rewritten.unwrap(), b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n");
    assert_eq!(check(b"GET / HTTP/1.1\nHost: a\rX: 1\n\n", &bounds), Err(BadRequest::BareCr));
}

#[test]
fn the_end_of_a_head_is_found_however_it_arrives() {
    let bounds = bounds();
    let text = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
    for at in 0..text.len() {
        let complete = at >= text.len() - 4;
        let expected = if complete { Progress::Complete { skip: 2, len: 27 } } else { Progress::Partial };
        for seen in 0..at.min(text.len() - 5) {
            assert_eq!(progress(&text[..at], seen, &bounds), expected, "{at} {seen}");
        }
    }
    assert_eq!(progress(b"\x16\x03\x01", 0, &bounds), Progress::Bad(BadRequest::BadLine));
    assert_eq!(progress(b"GET /\r\n", 0, &bounds), Progress::Bad(BadRequest::BadLine));
    assert_eq!(
        progress(b"CONNECT a:1 HTTP/1.1\r\nHo", 0, &bounds),
        Progress::Bad(BadRequest::ConnectRefused)
    );
    assert_eq!(progress(b"\r\n\r\n", 0, &bounds), Progress::Complete { skip: 2, len: 2 });
}

#[test]
fn a_head_without_end_is_cut_at_the_limit() {
    let bounds = bounds();
    let line = [b'G'; 1001];
    assert_eq!(progress(&line[..1000], 0, &bounds), Progress::Partial);
    assert_eq!(progress(&line, 0, &bounds), Progress::Bad(BadRequest::UriTooLong));
    let mut fields = b"GET / HTTP/1.1\r\n".to_vec();
    fields.resize(1001, b'a');
    assert_eq!(progress(&fields, 0, &bounds), Progress::Bad(BadRequest::HeadTooLarge));
    fields.extend_from_slice(b"\r\n\r\n");
    assert_eq!(progress(&fields, 0, &bounds), Progress::Bad(BadRequest::HeadTooLarge));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("Host: a".to_owned()),
        Just("Content-Length: 5".to_owned()),
        Just("Transfer-Encoding: chunked".to_owned()),
        Just("Transfer-Encoding: x".to_owned()),
        Just("Connection: close".to_owned()),
        Just("Upgrade: h2c".to_owned()),
        Just("Expect: 100-continue".to_owned()),
        "[ -~\t\r\n\0]{0,20}",
    ]
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), seen in 0_usize..300) {
        let _ = progress(&bytes, seen.min(bytes.len()), &bounds());
        let _ = check(&bytes, &bounds());
    }

    #[test]
    fn what_passes_has_one_framing_and_one_host(lines in proptest::collection::vec(line(), 0..6), lf in any::<bool>()) {
        let mut bounds = bounds();
        if lf { bounds.bare_lf = BareLf::Accept }
        let text = format!("POST http://a/x HTTP/1.1\r\n{}\r\n\r\n", lines.join("\r\n"));
        let Progress::Complete { skip: 0, len } = progress(text.as_bytes(), 0, &bounds) else { return Ok(()) };
        let Ok(head) = check(&text.as_bytes()[..len], &bounds) else { return Ok(()) };
        let out = String::from_utf8(head.rewritten.unwrap()).unwrap();
        // What was written anew is ordinary: it passes again, unchanged and with the same framing.
        bounds.bare_lf = BareLf::Refuse;
        let again = check(out.as_bytes(), &bounds).unwrap();
        prop_assert_eq!(again.framing, head.framing);
        prop_assert!(again.rewritten.is_none());
        let count = |name: &str| out.to_ascii_lowercase().matches(&format!("\r\n{name}:")).count();
        prop_assert_eq!(count("host"), 1);
        prop_assert!(count("content-length") + count("transfer-encoding") <= 1);
    }
}

#[test]
fn connect_passes_where_a_route_takes_it_and_names_one_host_and_port() {
    use BadRequest as B;
    let mut bounds = bounds();
    bounds.connect = true;
    let read = |text: &str| check(text.as_bytes(), &bounds);
    let head = read("CONNECT a:1 HTTP/1.1\r\nHost: A:1\r\n\r\n").unwrap();
    assert!(head.may_switch && !head.keep_alive, "what follows a refused one is never read");
    assert_eq!((head.framing, head.rewritten), (Framing::None, None));
    for (text, bad) in [
        ("CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", B::BadTarget),
        ("CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n", B::BadTarget),
        ("CONNECT http://a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", B::BadTarget),
        ("CONNECT a:1 HTTP/1.1\r\nHost: b:1\r\n\r\n", B::HostMismatch),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:2\r\n\r\n", B::HostMismatch),
        ("CONNECT a:1 HTTP/1.1\r\n\r\n", B::MissingHost),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nContent-Length: 1\r\n\r\n", B::ConnectWithBody),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n", B::ConnectWithBody),
        ("GET a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", B::BadTarget),
    ] {
        assert_eq!(read(text), Err(bad), "{text:?}");
    }
}
