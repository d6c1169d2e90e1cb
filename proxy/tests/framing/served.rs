//! What has one meaning, in whatever form it came: the origin sees exactly so many requests, each clean, with and without
//! these words.

use super::{
    harness::{Weir, config},
    origin::Origin,
    refused::{BEHIND, chunked, get, post, to_host},
};

/// What the connection does after the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closes,
    Lives,
}

struct Served {
    name: &'static str,
    bytes: Vec<u8>,
    /// Of the answers, in order.
    statuses: &'static [u16],
    end: End,
    /// Words of the origin's first request, in lower case.
    has: &'static [&'static str],
    lacks: &'static [&'static str],
}

fn served(name: &'static str, bytes: Vec<u8>, end: End) -> Served {
    Served { name, bytes, statuses: &[200], end, has: &[], lacks: &[] }
}

impl Served {
    fn saying(self, statuses: &'static [u16]) -> Self {
        Self { statuses, ..self }
    }

    fn has(self, has: &'static [&'static str]) -> Self {
        Self { has, ..self }
    }

    fn lacks(self, lacks: &'static [&'static str]) -> Self {
        Self { lacks, ..self }
    }
}

fn raw(bytes: &str) -> Vec<u8> {
    bytes.as_bytes().to_vec()
}

fn ordinary() -> Vec<Served> {
    use End::{Closes, Lives};
    vec![
        served("get", get(""), Lives).has(&["get /a http/1.1\r\n", "\r\nhost: a.test\r\n"]),
        served("an empty line first", raw("\r\nGET /a HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives),
        served("close", get("Connection: close\r\n"), Closes).lacks(&["connection"]),
        served("close in a list", get("Connection: x, CLOSE\r\n"), Closes),
        served("close and keep-alive", get("Connection: keep-alive\r\nConnection: close\r\n"), Closes),
        served("1.0", raw("GET /a HTTP/1.0\r\nHost: a.test\r\n\r\n"), Closes).has(&["get /a http/1.1\r\n"]),
        served("1.0 kept", raw("GET /a HTTP/1.0\r\nHost: a.test\r\nConnection: keep-alive\r\n\r\n"), Lives),
        served("length", post("Content-Length: 5\r\n", "hello"), Lives).has(&["content-length: 5\r\n", "\r\n\r\nhello"]),
        served("padded length", post("Content-Length: 005\r\n", "hello"), Lives).has(&["content-length: 5\r\n"]),
        served("length zero", post("Content-Length: 0\r\n", ""), Lives).has(&["content-length: 0\r\n"]),
        served("no length", post("", ""), Lives).has(&["content-length: 0\r\n"]),
        served("chunks", chunked("5\r\nhello\r\n0\r\n\r\n"), Lives).has(&["transfer-encoding: chunked\r\n", "\r\n\r\nhello"]),
        served("chunks with extensions", chunked("5;a=\"b\";c\r\nhello\r\n0;z\r\n\r\n"), Lives).has(&["\r\n\r\nhello"]),
        served("chunks with trailers", chunked("5\r\nhello\r\n0\r\nX-Evil: 1\r\n\r\n"), Lives).lacks(&["x-evil"]),
        served("chunked in capitals", post("Transfer-Encoding: CHUNKED\r\n", "1\r\na\r\n0\r\n\r\n"), Lives),
        served("a request in a body", post("Content-Length: 40\r\n", &String::from_utf8_lossy(BEHIND)[..40]), Lives),
        served("get with body", raw("GET /a HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello"), Lives).has(&["\r\n\r\nhello"]),
        served("head", raw("HEAD /a HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives).has(&["head /a http/1.1\r\n"]),
        served("options *", raw("OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives).saying(&[200, 404]),
        served("absolute", raw("GET http://a.test/a?b HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives).has(&["get /a?b http/1.1\r\n"]),
        served("absolute with port", raw("GET http://A.test:80/a HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives),
        served("absolute bare", raw("GET http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives).has(&["get / http/1.1\r\n"]),
        served("absolute query", raw("GET http://a.test?b HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives).has(&["get /?b http/1.1\r\n"]),
        served("host in capitals", to_host("A.TEST"), Lives).has(&["\r\nhost: a.test\r\n"]),
        served("host with port", to_host("a.test:8080"), Lives).has(&["\r\nhost: a.test:8080\r\n"]),
        served("host in brackets", to_host("[::1]:80"), Lives),
        served("odd method", raw("M-SEARCH /a HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives),
        served("small method", raw("get /a HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives).has(&["get /a"]),
        served("te", get("TE: trailers\r\nConnection: TE\r\n"), Lives).lacks(&["\r\nte:"]),
        served("te gzip", get("TE: gzip, chunked\r\n"), Lives).lacks(&["\r\nte:"]),
        served("nominated", get("Connection: X-A, x-b\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n"), Lives).has(&["x-c: 3"]).lacks(&["x-a", "x-b"]),
        served("hop by hop", get("Keep-Alive: 5\r\nProxy-Connection: close\r\nProxy: http://e\r\nTrailer: X\r\n"), Lives),
        served("proxy authorization", get("Proxy-Authorization: Basic x\r\n"), Lives).lacks(&["proxy-auth"]),
        served("forged claims", get("X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Host: evil\r\n"), Lives).lacks(&["6.6.6.6", "evil"]),
        served("look-alike claims", get("X_Forwarded_For: 6.6.6.6\r\nX_Real_IP: 6.6.6.6\r\nX.Real.IP: 6.6.6.6\r\n"), Lives).lacks(&["6.6.6.6"]),
        served("path overrides", get("X-Original-URL: /evil\r\nX-Rewrite-URL: /evil\r\nX-HTTP-Method-Override: EVIL\r\n"), Lives).lacks(&["evil"]),
        served("h2c", get("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"), Closes).lacks(&["upgrade", "h2c", "http2"]),
        served("unknown upgrade", get("Connection: Upgrade\r\nUpgrade: foo/2\r\n"), Closes).lacks(&["upgrade"]),
        served("upgrade unnominated", get("Upgrade: websocket\r\n"), Closes).lacks(&["upgrade"]),
        served("websocket without key", get("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), Closes).lacks(&["upgrade"]),
        served("two upgrades", get("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n"), Closes).lacks(&["upgrade"]),
        served("continue", post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello"), Lives).has(&["\r\n\r\nhello"]).lacks(&["expect"]),
        served("continue without body", get("Expect: 100-continue\r\n"), Lives).lacks(&["expect"]),
        served("white space around", get("X-A: \t a \t\r\n"), Lives).has(&["x-a: a\r\n"]),
        served("empty value", get("X-A:\r\n"), Lives),
        served("bytes above ASCII", [&b"GET /a HTTP/1.1\r\nHost: a.test\r\nX: caf"[..], b"\xe9\r\n\r\n"].concat(), Lives),
        served("pipelined", [get(""), get(""), get("Connection: close\r\n")].concat(), Closes).saying(&[200, 200, 200]),
        served("pipelined behind a body", [post("Content-Length: 5\r\n", "hello"), get("")].concat(), Lives).saying(&[200, 200]),
        served("pipelined behind chunks", [chunked("5\r\nhello\r\n0\r\n\r\n"), get("")].concat(), Lives).saying(&[200, 200]),
        served("nothing behind close", [get("Connection: close\r\n"), get("")].concat(), Closes),
        served("a bad one behind a good one", [get(""), get("X : y\r\n"), get("")].concat(), Closes).saying(&[200, 400]),
        served("dot segments", raw("GET /x/../a/./b HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives),
        served("double slash", raw("GET //a//b HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives),
        served("encoded slash", raw("GET /a%2fb HTTP/1.1\r\nHost: a.test\r\n\r\n"), Lives),
        served("1.0 without host", raw("GET /a HTTP/1.0\r\n\r\n"), Closes).saying(&[200, 400]),
    ]
}

#[test]
fn what_has_one_meaning_is_served_and_arrives_in_one_form() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let cases = ordinary();
    let mut wrong = Vec::new();
    for case in &cases {
        origin.seen();
        let mut client = weir.connect();
        client.send(&case.bytes);
        let is_choice =
            matches!(case.statuses, [200, 400 | 404]) && case.name != "a bad one behind a good one";
        let method = if case.bytes.starts_with(b"HEAD") { "HEAD" } else { "GET" };
        let mut expected = 0;
        for status in case.statuses.iter().take(if is_choice { 1 } else { usize::MAX }) {
            match client.answer_to(method) {
                Some(answer)
                    if answer.status == *status || (is_choice && case.statuses.contains(&answer.status)) =>
                {
                    expected += usize::from(answer.status == 200);
                    if !answer.whole {
                        wrong.push(format!("{}: cut", case.name));
                    }
                }
                other => wrong.push(format!("{}: wanted {status}, got {other:?}", case.name)),
            }
        }
        match case.end {
            End::Closes => _ = client.is_closed(),
            End::Lives => {
                client.is_served("2");
                expected += 1;
            }
        }
        let seen = origin.seen();
        if seen.len() != expected {
            wrong.push(format!(
                "{}: the origin saw {} requests, not {expected}: {seen:?}",
                case.name,
                seen.len()
            ));
        }
        let first = seen.first().map(|request| request.to_ascii_lowercase()).unwrap_or_default();
        wrong.extend(
            case.has
                .iter()
                .filter(|has| !first.contains(**has))
                .map(|has| format!("{}: no {has:?} in {first}", case.name)),
        );
        wrong.extend(
            case.lacks
                .iter()
                .filter(|lacks| first.contains(**lacks))
                .map(|lacks| format!("{}: {lacks:?} in {first}", case.name)),
        );
    }
    origin.assert_clean();
    weir.assert_sane();
    println!("{} served cases", cases.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// History: a piece without data (a size line alone, the last chunk) was written on, and as a chunk it said that the body ends.
#[test]
fn a_chunked_body_arrives_whole_wherever_the_network_cuts_it() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let bytes = chunked("5;a=b\r\nhello\r\n1\r\n!\r\n0\r\nX-T: 1\r\n\r\n");
    for cut in 1..bytes.len() {
        let mut client = weir.connect();
        client.send(&bytes[..cut]);
        // Another's request in between: that the first part has been read is likely, and nothing depends on it.
        weir.connect().is_served("between");
        client.send(&bytes[cut..]);
        assert_eq!(client.answer().unwrap().status, 200, "cut at {cut}");
        client.is_served("behind");
        let seen = origin.seen();
        assert_eq!(seen.len(), 3, "cut at {cut}: {seen:?}");
        assert!(seen.iter().any(|request| request.ends_with("\r\n\r\nhello!")), "cut at {cut}: {seen:?}");
    }
    origin.assert_clean();
}
