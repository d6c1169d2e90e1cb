//! What goes through: methods, bodies, fields both ways.

use crate::support::{Edge, Origin, ok};

#[test]
fn get_and_its_answer_pass() {
    let origin = Origin::saying(
        "HTTP/1.1 201 Created\r\nx-own: yes\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 2\r\n\r\nhi",
    );
    let edge = Edge::before(&origin);
    let answer = edge.get("/a/b?c=d&e");
    assert_eq!((answer.status, answer.text()), (201, "hi".into()));
    assert_eq!(answer.field("x-own"), "yes");
    assert_eq!(answer.head.fields.iter().filter(|(name, _)| name == "set-cookie").count(), 2);
    let seen = origin.last();
    assert_eq!(seen.head.line, "GET /a/b?c=d&e HTTP/1.1");
    assert_eq!(seen.field("host"), "edge.test");
    assert!(!seen.has("content-length") && !seen.has("transfer-encoding"));
}

#[test]
fn a_body_with_a_length_arrives_with_its_length() {
    let origin = Origin::named("ok");
    let edge = Edge::before(&origin);
    let answer = edge.send("POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello");
    assert_eq!(answer.status, 200);
    let seen = origin.last();
    assert_eq!((seen.method(), &*seen.body), ("POST", &b"hello"[..]));
    assert_eq!(seen.field("content-length"), "5");
    assert!(!seen.has("transfer-encoding"));
}

#[test]
fn a_chunked_body_arrives_chunked_and_without_extensions() {
    let origin = Origin::named("ok");
    let edge = Edge::before(&origin);
    let chunks = "POST /p HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(edge.send(chunks).status, 200);
    let seen = origin.last();
    assert_eq!(&*seen.body, b"abcde");
    assert_eq!(seen.field("transfer-encoding"), "chunked");
    assert!(!seen.has("content-length"));
}

#[test]
fn an_empty_post_says_that_nothing_follows() {
    let origin = Origin::named("ok");
    let edge = Edge::before(&origin);
    assert_eq!(edge.send("POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").status, 200);
    assert_eq!(origin.last().field("content-length"), "0");
}

#[test]
fn head_has_the_length_and_no_body_and_the_connection_goes_on() {
    let origin = Origin::named("hello");
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    let answer = client.send("HEAD /x HTTP/1.1\r\nhost: h\r\n\r\n").answer_to_head();
    assert_eq!((answer.status, &*answer.field("content-length")), (200, "5"));
    assert_eq!(client.ask("/x", "").text(), "hello");
    assert_eq!(origin.seen()[0].method(), "HEAD");
}

#[test]
fn answers_without_body_pass_without_body() {
    let origin = Origin::start(|request, wire| {
        _ = match request.target() {
            "/204" => wire.send("HTTP/1.1 204 No Content\r\n\r\n"),
            "/304" => wire.send("HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n"),
            _ => wire.send(ok("")),
        };
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    let answer = client.ask("/204", "");
    assert_eq!(answer.status, 204);
    assert!(!answer.has("content-length") && !answer.has("transfer-encoding"));
    assert_eq!(client.ask("/304", "if-none-match: \"a\"\r\n").status, 304);
    assert_eq!(client.ask("/empty", "").field("content-length"), "0");
    assert_eq!(origin.accepted(), 1, "each was read to its end, so the connection was kept");
}

#[test]
fn chunked_and_close_delimited_answers_arrive_whole() {
    let origin = Origin::start(|request, wire| {
        if request.target() == "/chunked" {
            wire.send(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
            );
        } else {
            wire.send("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcdef");
            wire.cut();
        }
    });
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    for path in ["/chunked", "/close"] {
        let answer = client.ask(path, "");
        assert_eq!((answer.text(), answer.whole), ("abcdef".into(), true));
        assert_eq!(answer.field("transfer-encoding"), "chunked");
    }
}

#[test]
fn the_origin_learns_who_asked_and_lies_are_replaced() {
    let origin = Origin::named("ok");
    let edge = Edge::before(&origin);
    let port = edge.http().port().to_string();
    let lies = "x-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\n\
                forwarded: for=6.6.6.6\r\nx-request-id: mine\r\nx-real-ip: 6.6.6.6\r\n\
                traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";
    let answer = edge.ask("/", lies);
    let seen = origin.last();
    assert_eq!(seen.field("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.field("x-forwarded-proto"), "http");
    assert_eq!(seen.field("x-forwarded-host"), "edge.test");
    assert_eq!(seen.field("x-forwarded-port"), port);
    let forwarded = seen.field("forwarded");
    assert!(forwarded.contains("for=127.0.0.1") && !forwarded.contains("6.6.6.6"), "{forwarded}");
    assert_ne!(seen.field("x-request-id"), "mine");
    assert_eq!(seen.field("x-request-id"), answer.field("x-request-id"), "the client can name its request");
    let trace = seen.field("traceparent");
    assert!(trace.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "the trace goes on: {trace}");
    assert!(!trace.contains("b7ad6b7169203331"), "with a span of our own: {trace}");
    assert_ne!(seen.field("x-real-ip"), "6.6.6.6");
}

#[test]
fn a_trusted_hop_is_believed() {
    let origin = Origin::named("ok");
    let edge = Edge::routing(&origin, "", "clients: { trusted: [127.0.0.0/8] }");
    edge.ask("/", "x-forwarded-for: 6.6.6.6, 192.0.2.7\r\nx-request-id: theirs\r\n");
    let seen = origin.last();
    assert_eq!(seen.field("x-forwarded-for"), "6.6.6.6, 192.0.2.7, 127.0.0.1");
    assert_eq!(seen.field("x-request-id"), "theirs");
    assert_eq!(edge.record("id", "theirs")["client"], "192.0.2.7", "the nearest hop we do not trust");
}

#[test]
fn hop_by_hop_fields_end_at_the_hop_in_both_directions() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\nconnection: keep-alive, x-secret\r\nkeep-alive: timeout=5\r\nx-secret: 1\r\n\
         proxy-authenticate: Basic\r\nupgrade: h2c\r\ncontent-length: 0\r\n\r\n",
    );
    let edge = Edge::before(&origin);
    let fields = "connection: keep-alive, x-mine\r\nx-mine: 1\r\nkeep-alive: 5\r\nte: gzip\r\nupgrade: h2c\r\n\
                  proxy-connection: keep-alive\r\nx-passes: 1\r\n";
    let answer = edge.ask("/", fields);
    let seen = origin.last();
    for name in ["x-mine", "keep-alive", "te", "upgrade", "proxy-connection"] {
        assert!(!seen.has(name), "{name} reached the origin");
    }
    assert!(seen.has("x-passes"));
    for name in ["x-secret", "keep-alive", "upgrade"] {
        assert!(!answer.has(name), "{name} reached the client");
    }
}

#[test]
fn connection_cannot_remove_what_protects() {
    let origin = Origin::named("ok");
    let edge = Edge::before(&origin);
    let answer = edge.ask("/", "connection: close, x-forwarded-for\r\n");
    assert!(answer.status == 400 || origin.last().has("x-forwarded-for"), "{}", answer.status);
}

#[test]
fn routes_set_and_remove_fields_rewrite_and_rename_the_host() {
    let origin = Origin::saying("HTTP/1.1 200 OK\r\nserver: secret/1.0\r\ncontent-length: 0\r\n\r\n");
    let yaml = format!(
        "upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /v1/{{rest}}
    to: api
    rewrite: /v2/${{path.rest}}?${{request.query}}
    host: api.internal
    request_headers: {{ x-real-ip: \"${{client.ip}}\", user-agent: \"\" }}
    response_headers: {{ server: \"\", x-edge: \"${{request.id}}\" }}
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let answer = edge.ask("/v1/a%20b?q=1", "user-agent: me\r\n");
    let seen = origin.last();
    assert_eq!(seen.field("host"), "api.internal");
    assert_eq!(seen.target(), "/v2/a%20b?q=1");
    assert_eq!(seen.field("x-real-ip"), "127.0.0.1");
    assert!(!seen.has("user-agent") && !answer.has("server"));
    assert_eq!(answer.field("x-edge"), answer.field("x-request-id"));
}

#[test]
fn an_origins_date_is_kept_and_a_missing_one_is_added() {
    let date = "Thu, 01 Jan 1998 00:00:00 GMT";
    let dated = Origin::saying(format!("HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-length: 0\r\n\r\n"));
    assert_eq!(Edge::before(&dated).get("/").field("date"), date);
    let dateless = Origin::named("x");
    let answer = Edge::before(&dateless).get("/");
    assert!(answer.field("date").ends_with(" GMT"), "{answer:?}");
}

#[test]
fn trailers_reach_a_client_that_asks_for_them() {
    let origin = Origin::saying(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n",
    );
    let edge = Edge::before(&origin);
    let mut client = edge.connect();
    for (te, end) in [("te: trailers\r\nconnection: te\r\n", "0\r\nX-Sum: 1\r\n\r\n"), ("", "0\r\n\r\n")] {
        client.send(format!("GET / HTTP/1.1\r\nhost: h\r\n{te}\r\n"));
        assert_eq!(client.answer_head().0, 200);
        let rest = format!("3\r\nabc\r\n{end}");
        assert_eq!(String::from_utf8(client.up_to(rest.len())).unwrap(), rest);
    }
    assert_eq!(origin.accepted(), 1, "the connection to the origin is kept");
}
