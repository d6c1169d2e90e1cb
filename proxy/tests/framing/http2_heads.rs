//! Heads that HTTP/2 can carry and HTTP/1 would misread: what is written on must have one meaning there, too.

use std::{io::Write, net::TcpStream};

use super::{
    harness::{Weir, config},
    http2::{frame, next_frame, raw},
    origin::Origin,
};

type Field<'a> = (&'a str, &'a str);

/// An ordinary request.
const PLAIN: [Field<'_>; 4] =
    [(":method", "GET"), (":scheme", "http"), (":path", "/evil"), (":authority", "a.test")];

/// The same with one of its fields replaced.
fn with<'a>(name: &str, value: &'a str) -> Vec<Field<'a>> {
    PLAIN.iter().map(|&(key, plain)| (key, if key == name { value } else { plain })).collect()
}

fn and<'a>(more: &[Field<'a>]) -> Vec<Field<'a>> {
    [&PLAIN[..], more].concat()
}

fn without(name: &str) -> Vec<Field<'static>> {
    PLAIN.into_iter().filter(|(key, _)| *key != name).collect()
}

/// HPACK literals without indexing, lengths below 127 (RFC 7541 §6.2.2).
fn block(fields: &[Field<'_>]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// The status of the answer, `None` when the stream or the connection was ended instead.
fn answered(socket: &mut TcpStream) -> Option<u16> {
    // As this edge's encoder writes them, by their place in HPACK's static table (RFC 7541, Appendix A) or as a literal.
    let known = [200, 204, 206, 304, 400, 404, 500];
    loop {
        let (kind, payload) = next_frame(socket)?;
        match (kind, payload.first()) {
            (1, Some(index @ 0x88..=0x8e)) => return Some(known[usize::from(index - 0x88)]),
            (1, _) => {
                return payload.get(2..5).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            }
            (3 | 7, _) => return None,
            _ => {}
        }
    }
}

fn cases() -> Vec<(&'static str, Vec<Field<'static>>)> {
    let mut cases = vec![
        ("a name in capitals", and(&[("X-Evil", "y")])),
        ("a name with a space", and(&[("x evil", "y")])),
        ("a name with a colon", and(&[("x:evil", "y")])),
        ("a name with a line end", and(&[("x: y\r\nx-evil", "y")])),
        ("a name with NUL", and(&[("x\0evil", "y")])),
        ("a name of nothing", and(&[("", "y")])),
        ("a field that HTTP/1 frames by, in disguise", and(&[("transfer_encoding", "chunked")])),
        ("a pseudo field behind the others", [&[("x", "y")][..], &PLAIN].concat()),
        ("an unknown pseudo field", and(&[(":evil", "y")])),
        ("a pseudo field of answers", and(&[(":status", "200")])),
        ("a protocol to connect to", and(&[(":protocol", "websocket")])),
        ("a body of no length", and(&[("content-length", "5")])),
        ("two lengths", and(&[("content-length", "0"), ("content-length", "1")])),
        ("a list of lengths", and(&[("content-length", "0, 0")])),
        ("a length with a sign", and(&[("content-length", "+0")])),
        ("another host", and(&[("host", "b.test")])),
        ("two hosts", and(&[("host", "a.test"), ("host", "b.test")])),
        ("TE beyond trailers", and(&[("te", "gzip")])),
        ("a tunnel", with(":method", "CONNECT")),
        ("an echo", with(":method", "TRACE")),
        ("a target of another host", with(":path", "http://b.test/evil")),
        ("a target of a relative path", with(":path", "evil")),
        ("a scheme of something else", with(":scheme", "javascript")),
        ("an authority with a user", with(":authority", "evil@a.test")),
        ("an authority with a path", with(":authority", "a.test/evil")),
        ("two authorities", with(":authority", "a.test,b.test")),
    ];
    for value in
        ["a\r\nx-evil: y", "a\nx-evil: y", "a\rb", "a\0b", "a\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n"]
    {
        cases.push(("a line end in a value", and(&[("x", value)])));
        cases.push(("a line end in a cookie", and(&[("cookie", "a=1"), ("cookie", value)])));
    }
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"] {
        cases.push(("a field of the connection", and(&[(name, "close")])));
    }
    cases.push(("chunks", and(&[("transfer-encoding", "chunked")])));
    for (name, evil) in PLAIN {
        cases.push(("a pseudo field twice", and(&[(name, evil)])));
        cases.push(("a pseudo field of nothing", with(name, "")));
        for value in
            ["/evil HTTP/1.1\r\nx: y", "/evil\r\n\r\nGET /evil", "/evil x", "/evil\0", "/evil\n", "\t/evil"]
        {
            cases.push(("a line in a pseudo field", with(name, value)));
        }
        if name != ":authority" {
            cases.push(("a pseudo field missing", without(name)));
        }
    }
    cases.push(("no host at all", without(":authority")));
    cases
}

/// Criterion 21.
#[test]
fn what_http_1_would_misread_is_refused_and_never_arrives() {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    let ask = |fields: &[Field<'_>]| {
        let mut socket = raw(&weir);
        socket.write_all(&frame(1, 5, 1, &block(fields))).unwrap();
        answered(&mut socket)
    };
    let good = and(&[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers"), ("host", "a.test")]);
    assert_eq!(ask(&good), Some(200));
    let seen = origin.seen();
    assert!(matches!(&seen[..], [one] if one.to_lowercase().contains("cookie: a=1; b=2\r\n")), "{seen:?}");
    // Of HTTP/2, the library cuts a fragment off before we see it; what goes on has none.
    assert_eq!(ask(&with(":path", "/cut#evil")), Some(200));
    assert!(origin.seen()[0].starts_with("GET /cut HTTP/1.1\r\n"));
    let (cases, mut wrong) = (cases(), Vec::new());
    for (name, fields) in &cases {
        let said = ask(fields);
        if !said.is_none_or(|status| matches!(status, 400 | 405 | 413 | 501)) {
            wrong.push(format!("{name}: {said:?} to {fields:?}"));
        }
    }
    println!("{} heads", cases.len());
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(origin.seen(), Vec::<String>::new());
    origin.assert_clean();
    weir.connect().is_served("after");
    weir.assert_sane();
}
