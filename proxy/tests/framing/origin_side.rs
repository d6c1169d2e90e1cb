//! What origins may answer. An answer is passed on whole, broken off, or replaced by 502; and whatever came behind it never
//! reaches anybody, least of all the next client on the same connection.

use std::io::{ErrorKind, Read};

use super::{
    harness::{Answer, Weir, config},
    origin::Origin,
};

/// What the client may get.
#[derive(Debug, Clone, Copy)]
enum Gets {
    /// 502, because no client may see it.
    Refusal,
    /// This status and body, whole.
    Whole(u16, &'static str),
    /// 502, or an answer that breaks off visibly.
    Cut,
    /// Either of the first two.
    RefusalOr(u16, &'static str),
}

impl Gets {
    fn allows(self, answer: Option<&Answer>) -> bool {
        let Some(answer) = answer else { return matches!(self, Self::Cut) };
        let is_refusal = answer.status == 502 && answer.whole && answer.text().contains("peer_failed");
        let is = |status, body: &str| answer.status == status && answer.whole && answer.text() == body;
        match self {
            Self::Refusal => is_refusal,
            Self::Whole(status, body) => is(status, body),
            Self::Cut => is_refusal || !answer.whole,
            Self::RefusalOr(status, body) => is_refusal || is(status, body),
        }
    }
}

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}")
}

/// A name, the bytes, whether the origin closes behind them, what the client may get.
fn cases() -> Vec<(String, Vec<u8>, bool, Gets)> {
    use Gets::{Cut, Refusal, RefusalOr, Whole};
    let mut cases: Vec<(String, Vec<u8>, bool, Gets)> = Vec::new();
    let mut case = |name: &str, bytes: String, close, gets| {
        cases.push((name.to_owned(), bytes.into_bytes(), close, gets))
    };
    for value in [
        "x",
        "identity",
        "gzip",
        "chunked, x",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;q=1",
        "chunked,",
        "",
        "xchunked",
    ] {
        case(
            &format!("coding {value:?}"),
            ok(&format!("Transfer-Encoding: {value}\r\n"), "5\r\nhello\r\n0\r\n\r\n"),
            true,
            Refusal,
        );
    }
    case(
        "two codings",
        ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        true,
        Refusal,
    );
    case(
        "coding in 1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        true,
        Refusal,
    );
    case(
        "both",
        ok("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        true,
        RefusalOr(200, "hello"),
    );
    for value in
        ["5, 5", "5, 6", "+5", "-5", "0x5", "5 5", "5a", "9223372036854775808", "99999999999999999999"]
    {
        case(
            &format!("length {value:?}"),
            ok(&format!("Content-Length: {value}\r\n"), "hello"),
            true,
            Refusal,
        );
    }
    case("two lengths", ok("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), true, Refusal);
    case("two unlike lengths", ok("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), true, Refusal);
    case("cut length", ok("Content-Length: 9\r\n", "hello"), true, Cut);
    case("cut head", "HTTP/1.1 200 OK\r\nContent-Le".to_owned(), true, Refusal);
    case("nothing", String::new(), true, Refusal);
    for body in [
        "5\r\nhel",
        "5\r\nhello",
        "5\r\nhello\r\n",
        "5\r\nhello\r\n0",
        "5\r\nhello\r\n0\r\n",
        "5\r\nhello\r\nzz\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n+0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    ] {
        case(&format!("chunks {body:?}"), ok("Transfer-Encoding: chunked\r\n", body), true, Cut);
    }
    case(
        "chunk extensions",
        ok("Transfer-Encoding: chunked\r\n", "5;a=b\r\nhello\r\n0\r\n\r\n"),
        false,
        RefusalOr(200, "hello"),
    );
    case(
        "trailers",
        ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nSet-Cookie: evil\r\n\r\n"),
        false,
        Whole(200, "hello"),
    );
    case("until close", ok("", "hello"), true, Whole(200, "hello"));
    case("until close in 1.0", "HTTP/1.0 200 OK\r\n\r\nhello".to_owned(), true, Whole(200, "hello"));
    case(
        "1.0 with length",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        true,
        Whole(200, "hello"),
    );
    case(
        "204 with length",
        "HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        false,
        Whole(204, ""),
    );
    case(
        "204 with chunks",
        "HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".to_owned(),
        false,
        Whole(204, ""),
    );
    case(
        "304 with body",
        "HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        false,
        Whole(304, ""),
    );
    case("204 with an answer behind", format!("HTTP/1.1 204 No\r\n\r\n{EVIL}"), false, Whole(204, ""));
    case(
        "an answer behind",
        ok("Content-Length: 5\r\n", &format!("hello{EVIL}")),
        false,
        Whole(200, "hello"),
    );
    case(
        "an answer behind chunks",
        ok("Transfer-Encoding: chunked\r\n", &format!("5\r\nhello\r\n0\r\n\r\n{EVIL}")),
        false,
        Whole(200, "hello"),
    );
    case("an answer behind nothing", ok("Content-Length: 0\r\n", EVIL), false, Whole(200, ""));
    case("bytes behind", ok("Content-Length: 5\r\n", "hello and more"), false, Whole(200, "hello"));
    case(
        "close is said",
        ok("Connection: close\r\nContent-Length: 5\r\n", "hello"),
        true,
        Whole(200, "hello"),
    );
    case(
        "interim",
        format!(
            "{}{}",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(16),
            ok("Content-Length: 5\r\n", "hello")
        ),
        false,
        Whole(200, "hello"),
    );
    case(
        "an interim flood",
        format!(
            "{}{}",
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(2000),
            ok("Content-Length: 5\r\n", "hello")
        ),
        true,
        Refusal,
    );
    case(
        "a continue nobody asked",
        format!("HTTP/1.1 100 Continue\r\n\r\n{}", ok("Content-Length: 5\r\n", "hello")),
        false,
        Whole(200, "hello"),
    );
    case(
        "interim with length",
        format!("HTTP/1.1 103 E\r\nContent-Length: 50\r\n\r\n{}", ok("Content-Length: 5\r\n", "hello")),
        false,
        RefusalOr(200, "hello"),
    );
    case("unsolicited 101", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello".to_owned(), true, Refusal);
    case(
        "unsolicited h2c",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nhello".to_owned(),
        true,
        Refusal,
    );
    for field in ["X: a\0b", "X: a\rb", "X: a\u{1}b", "X\0: a", "X\r: a", "X : a", " X: a", "X Y: a", ": a"] {
        case(
            &format!("field {field:?}"),
            ok(&format!("Content-Length: 5\r\n{field}\r\n"), "hello"),
            true,
            RefusalOr(200, "hello"),
        );
    }
    for text in [
        "garbage\r\n\r\n",
        "<html>hello</html>",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\nhello",
        "HTTP/9.9 200 OK\r\n\r\n",
        "ICY 200 OK\r\n\r\n",
        "200 OK\r\n\r\n",
        "\0\0\0\0",
    ] {
        case(&format!("line {text:?}"), text.to_owned(), true, Refusal);
    }
    case("a huge head", format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(3 << 20)), true, Refusal);
    case("many fields", ok(&"X: a\r\n".repeat(2000), ""), true, Refusal);
    case(
        "a huge reason",
        format!("HTTP/1.1 200 {}\r\nContent-Length: 5\r\n\r\nhello", "a".repeat(5000)),
        false,
        RefusalOr(200, "hello"),
    );
    case(
        "a split reason",
        "HTTP/1.1 200 OK\rX: y\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        true,
        RefusalOr(200, "hello"),
    );
    case(
        "hop by hop",
        ok(
            "Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTrailer: X\r\nContent-Length: 5\r\n",
            "hello",
        ),
        false,
        Whole(200, "hello"),
    );
    cases
}

#[test]
fn an_origin_speaks_for_one_request_and_only_in_one_way() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let cases = cases();
    let mut wrong = Vec::new();
    let mut victims = [weir.connect(), weir.connect(), weir.connect()];
    for (at, (name, bytes, close, gets)) in cases.iter().enumerate() {
        let target = format!("/script/{at}");
        origin.script(&target, bytes.clone(), *close);
        let mut client = weir.connect();
        client.send(format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes());
        let answer = client.answer();
        if !gets.allows(answer.as_ref()) {
            wrong.push(format!("{name}: wanted {gets:?}, got {answer:?}"));
        }
        let head = answer.as_ref().map(|answer| answer.head.as_str()).unwrap_or_default();
        for word in ["\0", "keep-alive:", "proxy-connection:", "upgrade:", "trailer:", "evil"] {
            if head.contains(word) {
                wrong.push(format!("{name}: {word:?} reached the client: {head:?}"));
            }
        }
        if head.trim_end_matches("\r\n").replace("\r\n", "").contains(['\r', '\n']) {
            wrong.push(format!("{name}: a bare line end reached the client: {head:?}"));
        }
        // Sequentially, so that each may get the connection that was just given back.
        for (nth, victim) in victims.iter_mut().enumerate() {
            victim.is_served(&format!("{at}.{nth}"));
        }
    }
    weir.assert_sane();
    origin.assert_clean();
    println!("{} origin cases", cases.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn an_early_answer_leaves_nothing_of_the_request_for_the_next() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    for (name, close) in [("kept", false), ("closed", true)] {
        let mut client = weir.connect();
        // The origin answers a request whose body has not come, which ours never sends to its end.
        client.send(
            format!("POST /early/{name} HTTP/1.1\r\nHost: a.test\r\nContent-Length: 50\r\n\r\nGET /smuggled")
                .as_bytes(),
        );
        client.send(b" HTTP/1.1\r\n\r\n");
        let _ = close;
        let answer = client.answer().unwrap();
        assert_eq!(answer.status, 408, "{}", answer.text());
        client.is_closed();
        weir.connect().is_served(name);
    }
    assert!(origin.seen().iter().all(|request| request.starts_with("GET /victim/")));
    origin.assert_clean();
}

#[test]
fn an_answer_to_head_has_no_body_whatever_the_origin_sends() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let long = "x".repeat(100_000);
    origin.script("/head", ok("Content-Length: 5\r\n", "hello"), false);
    origin.script(
        "/cached/head",
        ok(&format!("Cache-Control: no-store\r\nContent-Length: {}\r\n", long.len()), &long),
        false,
    );
    for target in ["/head", "/cached/head", "/head"] {
        let mut client = weir.connect();
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes());
        assert_eq!(client.answer_to("HEAD").unwrap().status, 200);
        client.is_served("head");
    }
    origin.assert_clean();
}

/// Of an answer to HTTP/1.0 whose length nobody knew, only the way in which the connection ends tells a cut from the end.
#[test]
fn a_cut_answer_to_http_1_0_ends_with_a_reset_and_a_whole_one_does_not() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    origin.script("/cut", ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n"), true);
    origin.script("/whole", ok("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), true);
    for (target, is_cut) in [("/cut", true), ("/whole", false)] {
        let mut client = weir.connect();
        client.send(format!("GET {target} HTTP/1.0\r\nHost: a.test\r\n\r\n").as_bytes());
        let mut bytes = Vec::new();
        let end = client.socket().read_to_end(&mut bytes).map_err(|error| error.kind());
        assert_eq!(
            end.err(),
            is_cut.then_some(ErrorKind::ConnectionReset),
            "{target}: {}",
            bytes.escape_ascii()
        );
    }
}
