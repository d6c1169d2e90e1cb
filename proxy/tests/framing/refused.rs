//! What clients may not send, because two parsers could read it differently.
//!
//! The status blames the client, the connection closes, nothing behind it runs, and the origin never saw a whole request.

use super::{
    harness::{Weir, config},
    origin::Origin,
};

/// Bytes behind every refused request: they would run if the connection went on.
pub(crate) const BEHIND: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A name, the bytes, the allowed statuses.
type Refused = (String, Vec<u8>, &'static [u16]);

pub(crate) fn get(fields: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n").into_bytes()
}

pub(crate) fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n{body}").into_bytes()
}

pub(crate) fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

pub(crate) fn to_host(host: &str) -> Vec<u8> {
    format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

fn line(line: &str) -> Vec<u8> {
    format!("{line}\r\nHost: a.test\r\n\r\n").into_bytes()
}

/// The lengths and codings that two parsers read differently.
fn framings() -> Vec<Refused> {
    let mut cases = Vec::new();
    for value in [
        "+5",
        "-5",
        "-0",
        "0x5",
        "5 5",
        "5,5",
        "5, 5",
        "5,",
        ",5",
        "5;5",
        "\"5\"",
        "5.0",
        "5e0",
        "",
        "a",
        "5a",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551621",
        "99999999999999999999999",
        "\u{b}5",
        "5\u{c}",
    ] {
        cases.push((
            format!("length {value:?}"),
            post(&format!("Content-Length: {value}\r\n"), "hello"),
            &[400][..],
        ));
    }
    for (first, second) in [("5", "5"), ("5", "6"), ("0", "5"), ("5", "0")] {
        let fields = format!("Content-Length: {first}\r\nContent-Length: {second}\r\n");
        cases.push((format!("lengths {first} {second}"), post(&fields, "hello"), &[400]));
    }
    for value in [
        "",
        "identity",
        "gzip",
        "x",
        "xchunked",
        "chunkedx",
        "chunked, chunked",
        "chunked, identity",
        "identity, chunked",
        "gzip, chunked",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chunked\u{b}",
        "\u{c}chunked",
        "chun ked",
        "cow",
        "chunked x",
        "nothing, chunked",
        "\u{7f}chunked",
    ] {
        let fields = format!("Transfer-Encoding: {value}\r\n");
        cases.push((format!("coding {value:?}"), post(&fields, "0\r\n\r\n"), &[400, 501]));
    }
    for (name, fields) in [
        ("both", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("both the other way", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        ("both and zero", "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        ("two codings", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("two unlike codings", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
        ("coding with space", "Transfer-Encoding : chunked\r\n"),
        ("coding with tab", "Transfer-Encoding\t: chunked\r\n"),
        ("folded coding", "Transfer-Encoding:\r\n chunked\r\n"),
        ("folded coding by tab", "Transfer-Encoding:\r\n\tchunked\r\n"),
        ("length with space", "Content-Length : 5\r\n"),
        ("folded length", "Content-Length: 5\r\n 0\r\n"),
        ("space first", " Transfer-Encoding: chunked\r\n"),
        ("look-alike coding", "Transfer_Encoding: chunked\r\n"),
        ("look-alike length", "Content_Length: 5\r\n"),
        ("coding after CR", "X: a\rTransfer-Encoding: chunked\r\n"),
        ("coding after LF", "X: a\nTransfer-Encoding: chunked\r\n"),
        ("coding after NUL", "X: a\0Transfer-Encoding: chunked\r\n"),
    ] {
        cases.push((name.to_owned(), post(fields, "0\r\n\r\n"), &[400]));
    }
    let old = b"POST /a HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec();
    cases.push(("coding in 1.0".to_owned(), old, &[400]));
    cases
}

/// Chunked bodies with framing that is not exactly the grammar's.
fn chunks() -> Vec<Refused> {
    [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "\r\n5\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5;a\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000005\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        "5.\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX y\r\n\r\n",
        "5\r\nhello\r\n0\r\n: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n",
        "5\r\nhello\r\n0\r\nX\r\n\r\n",
    ]
    .into_iter()
    .map(|body| (format!("chunks {body:?}"), chunked(body), &[400][..]))
    .collect()
}

/// Request lines.
fn lines() -> Vec<Refused> {
    let mut cases = Vec::new();
    for text in [
        "GET  /a HTTP/1.1",
        "GET /a  HTTP/1.1",
        " GET /a HTTP/1.1",
        "GET /a HTTP/1.1 ",
        "GET\t/a\tHTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a",
        "GET",
        "GET /a HTTP/1.1\rX",
        "GET /a\0 HTTP/1.1",
        "G\0T /a HTTP/1.1",
        "G(T /a HTTP/1.1",
        "G:T /a HTTP/1.1",
        "\"GET\" /a HTTP/1.1",
        "GET /a HTTP/1.1\u{b}",
        "GET\u{a0}/a HTTP/1.1",
        "/a HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET a.test:80 HTTP/1.1",
        "GET ftp://a.test/ HTTP/1.1",
        "GET http:/a.test/ HTTP/1.1",
        "GET http:// HTTP/1.1",
        "GET http:///a HTTP/1.1",
        "GET http://u@a.test/ HTTP/1.1",
        "GET //\\a HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /\u{e4} HTTP/1.1",
        "GET /a\u{7f} HTTP/1.1",
        "GET /\"a HTTP/1.1",
        "GET /<a> HTTP/1.1",
        "GET http://b.test/ HTTP/1.1",
        "GET http://a.test:81/ HTTP/1.1",
        "GET http://a.test,b.test/ HTTP/1.1",
        "GET /a http/1.1",
        "GET /a HTTP/1.1.1",
        "GET /a HTTP/01.1",
        "GET /a HTTP/1.01",
        "GET /a HTTP/ 1.1",
        "GET /a HTTP/1,1",
        "GET /a HTTP /1.1",
        "GET /a HTTP/+1.1",
        "GET /a HTP/1.1",
        "GET /%00 HTTP/1.1",
        "GET /a/../../b HTTP/1.1",
        "GET /%zz HTTP/1.1",
    ] {
        cases.push((format!("line {text:?}"), line(text), &[400][..]));
    }
    for text in ["GET /a HTTP/2.0", "GET /a HTTP/3.0", "GET /a HTTP/1.2", "GET /a HTTP/9.9"] {
        cases.push((format!("line {text:?}"), line(text), &[400, 505]));
    }
    for text in ["CONNECT a.test:80 HTTP/1.1", "CONNECT /a HTTP/1.1", "TRACE /a HTTP/1.1"] {
        cases.push((format!("line {text:?}"), line(text), &[400, 405, 501]));
    }
    cases.push(("HTTP/0.9".to_owned(), b"GET /a\r\n\r\n".to_vec(), &[400]));
    cases.push(("two empty lines first".to_owned(), [b"\r\n\r\n".to_vec(), get("")].concat(), &[400]));
    cases.push((
        "TLS hello".to_owned(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        &[400],
    ));
    cases.push(("a long target".to_owned(), line(&format!("GET /{} HTTP/1.1", "a".repeat(3000))), &[414]));
    cases.push(("an endless target".to_owned(), format!("GET /{}", "a".repeat(20_000)).into_bytes(), &[414]));
    cases
}

/// Fields and hosts.
fn fields() -> Vec<Refused> {
    let mut cases = Vec::new();
    for field in [
        "X",
        ": a",
        " X: a",
        "\tX: a",
        "X : a",
        "X\t: a",
        "X Y: a",
        "X(: a",
        "X\u{e4}: a",
        "X\0: a",
        "X: a\0",
        "X: a\u{1}b",
        "X: a\u{7f}",
        "X: a\u{1b}[0m",
        "X: a\r b",
        "X: a\rb",
        "X: a\r\r",
        "\rX: a",
        "X\r: a",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\nY: b",
        "\nX: a",
        "X\n: a",
        "\"X\": a",
        "X;: a",
        "X/: a",
        "X@Y: a",
        "Connection: Content-Length",
        "Connection: close, Host",
        "Connection: Transfer-Encoding",
        "Connection: X-Forwarded-For",
        "Connection: Authorization",
        "Connection: a b",
        "Connection: \"x\"",
        "Connection: a,b,c,d,e,f,g,h,i,j",
    ] {
        cases.push((format!("field {field:?}"), get(&format!("{field}\r\n")), &[400][..]));
    }
    for host in [
        "",
        " ",
        "a,b",
        "a b",
        "a/b",
        "a\tb",
        "u@a",
        "u:p@a",
        "a:",
        "a:b",
        "a:80:80",
        "a:-1",
        "a:65536",
        "a:0000080",
        "..",
        ".a",
        "a..b",
        "[::1",
        "::1",
        "[::g]",
        "[::1]x",
        "a?b",
        "a#b",
        "a\\b",
        "a%41",
        "\u{e4}",
        "a;b",
        "a\u{7f}",
        "http://a",
        "(a)",
        "a\"",
    ] {
        cases.push((format!("host {host:?}"), to_host(host), &[400]));
    }
    cases.push(("no host".to_owned(), b"GET /a HTTP/1.1\r\n\r\n".to_vec(), &[400]));
    cases.push(("two hosts".to_owned(), get("Host: a.test\r\n"), &[400]));
    cases.push(("two unlike hosts".to_owned(), get("hOST: b.test\r\n"), &[400]));
    cases.push(("host and look-alike".to_owned(), get("Host : b.test\r\n"), &[400]));
    cases.push(("expectation".to_owned(), post("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello"), &[417]));
    cases.push(("large body".to_owned(), post("Content-Length: 99999999\r\n", "hello"), &[413]));
    cases.push(("large chunk".to_owned(), chunked("fffffff\r\nhello"), &[413]));
    cases.push(("huge chunk".to_owned(), chunked("ffffffffffffffff\r\nhello"), &[400, 413]));
    cases.push(("large head".to_owned(), get(&format!("X: {}\r\n", "a".repeat(9000))), &[431]));
    cases.push((
        "endless head".to_owned(),
        format!("GET /a HTTP/1.1\r\nX: {}", "a".repeat(30_000)).into_bytes(),
        &[431],
    ));
    cases.push(("many fields".to_owned(), get(&"X: a\r\n".repeat(60)), &[431]));
    cases.push(("a head that never ends".to_owned(), b"GET /a HTTP/1.1\r\nHost: a.te".to_vec(), &[408, 400]));
    cases
}

#[test]
fn what_two_parsers_could_read_differently_is_refused_closes_and_never_arrives() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let mut victim = weir.connect();
    let cases = [framings(), chunks(), lines(), fields()].concat();
    let mut wrong = Vec::new();
    for (name, bytes, statuses) in &cases {
        let mut client = weir.connect();
        client.send(bytes);
        if !name.contains("ends") && !name.contains("endless") {
            client.send(BEHIND);
        }
        match client.answer() {
            Some(answer) if statuses.contains(&answer.status) && answer.whole => {
                client.is_closed();
            }
            other => wrong.push(format!("{name}: wanted {statuses:?}, got {other:?}")),
        }
        let seen = origin.seen();
        if !seen.is_empty() {
            wrong.push(format!("{name}: the origin saw {seen:?}"));
        }
        victim.is_served("1");
        origin.seen();
    }
    origin.assert_clean();
    weir.assert_sane();
    println!("{} refused cases", cases.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}
