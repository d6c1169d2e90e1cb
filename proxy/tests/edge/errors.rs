//! What clients hear when something fails: in whose words, with which page.

use crate::support::{Edge, Origin, nobody, until};

#[test]
fn an_answer_of_ours_says_which_kind_of_no_it_is() {
    let silent = Origin::connections(|mut client| _ = client.is_ended());
    let broken = Origin::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n");
        wire.cut();
    });
    let yaml = format!(
        "upstreams:
  dead: {{ servers: [\"{}\"] }}
  silent: {{ servers: [\"{}\"], timeouts: {{ first_byte: 200ms }} }}
  broken: {{ servers: [\"{}\"] }}
routes:
  - {{ match: /dead, to: dead }}
  - {{ match: /silent, to: silent }}
  - {{ match: /broken, to: broken }}
  - {{ match: /closed, access: {{ deny: [0.0.0.0/0] }}, answer: {{}} }}
",
        nobody(),
        silent.address,
        broken.address
    );
    let edge = Edge::start(&yaml);
    for (path, status, error) in [
        ("/dead", 502, "connection_refused"),
        ("/silent", 504, "http_response_timeout"),
        ("/broken", 502, "http_protocol_error"),
        ("/closed", 403, "http_request_denied"),
        ("/none", 404, "proxy_internal_response"),
    ] {
        let answer = edge.get(path);
        assert_eq!(
            (answer.status, answer.field("proxy-status")),
            (status, format!("weir; error={error}")),
            "{path}"
        );
    }
    let bad = edge.send("GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n");
    assert_eq!((bad.status, &*bad.field("proxy-status")), (400, "weir; error=http_request_error"));
}

#[test]
fn an_origins_answer_has_no_proxy_status_of_ours() {
    let origin = Origin::saying("HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\nitsel");
    let answer = Edge::before(&origin).get("/");
    assert_eq!((answer.status, answer.text(), answer.has("proxy-status")), (502, "itsel".into(), false));
}

fn paged(to: &str, rest: &str, file: &str) -> String {
    format!(
        "upstreams: {{ api: {{ servers: [\"{to}\"] }} }}
routes:
  - match: /*
    to: api
    {rest}
    error_pages:
      - {{ status: [502, 504], as: 503, file: {file} }}
      - {{ status: 404, body: \"nothing at ${{request.path}}\", type: text/plain }}
      - {{ status: 401, redirect: {{ location: /login }} }}
"
    )
}

#[test]
fn a_route_shows_its_own_page_for_our_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("50x.html");
    std::fs::write(&file, "<h1>soon</h1>").unwrap();
    let edge = Edge::start(&paged(&nobody().to_string(), "", file.to_str().unwrap()));
    let answer = edge.get("/x");
    assert_eq!((answer.status, answer.text()), (503, "<h1>soon</h1>".into()));
    assert_eq!(answer.field("content-type"), "text/html; charset=utf-8");
    assert_eq!(
        (&*answer.field("cache-control"), &*answer.field("proxy-status")),
        ("no-store", "weir; error=connection_refused")
    );
    let mut client = edge.connect();
    let head = client.send("HEAD /head HTTP/1.1\r\nhost: h\r\n\r\n").answer_to_head();
    assert_eq!((head.status, &*head.field("content-length")), (503, "13"));
    assert_eq!(client.ask("/again", "").text(), "<h1>soon</h1>", "the connection is as good as before");
    let record = edge.record("target", "/x");
    assert_eq!((&record["status"], &record["refusal"]), (&503.into(), &"peer_failed".into()));
}

#[test]
fn a_page_that_cannot_be_read_leaves_our_own_words() {
    let edge = Edge::start(&paged(&nobody().to_string(), "", "/nowhere/50x.html"));
    let answer = edge.get("/");
    assert_eq!((answer.status, &*answer.field("content-type")), (502, "application/json"));
    assert!(edge.output().contains("the error page /nowhere/50x.html cannot be read"));
}

#[test]
fn an_origins_errors_are_shown_as_they_are_unless_the_route_intercepts() {
    let origin = Origin::start(|request, wire| {
        let status = if request.target() == "/login-needed" { "401 No" } else { "404 Nothing" };
        wire.send(format!(
            "HTTP/1.1 {status}\r\ncontent-length: 6\r\nwww-authenticate: Basic\r\nx-inner: 1\r\n\r\norigin"
        ));
    });
    let address = origin.address.to_string();
    let plain = Edge::start(&paged(&address, "", "/nowhere"));
    assert_eq!(plain.get("/gone").text(), "origin");
    let edge = Edge::start(&paged(&address, "intercept_errors: true", "/nowhere"));
    let answer = edge.get("/gone");
    assert_eq!((answer.status, answer.text()), (404, "nothing at /gone".into()));
    assert!(!answer.has("x-inner") && !answer.has("proxy-status"));
    let answer = edge.get("/login-needed");
    assert_eq!(
        (answer.status, &*answer.field("location"), &*answer.field("www-authenticate")),
        (302, "/login", "Basic")
    );
}

#[test]
fn the_log_tells_502_503_504_and_499_apart() {
    let silent = Origin::connections(|mut client| {
        client.head();
        client.is_ended();
    });
    let yaml = format!(
        "upstreams:
  dead: {{ servers: [\"{}\"] }}
  silent: {{ servers: [\"{1}\"], timeouts: {{ first_byte: 200ms }} }}
  patient: {{ servers: [{{ address: \"{1}\", max_conns: 1 }}] }}
routes:
  - {{ match: /dead, to: dead }}
  - {{ match: /silent, to: silent }}
  - {{ match: /patient/*, to: patient }}
",
        nobody(),
        silent.address
    );
    let edge = Edge::start(&yaml);
    assert_eq!([edge.get("/dead").status, edge.get("/silent").status], [502, 504]);
    let mut leaving = edge.connect();
    leaving.send("GET /patient/left HTTP/1.1\r\nhost: h\r\n\r\n");
    until("the only place is taken", || silent.accepted() == 2);
    assert_eq!(edge.get("/patient/full").status, 503);
    drop(leaving);
    for (target, status, refusal, failure) in [
        ("/dead", 502, "peer_failed", "connect"),
        ("/silent", 504, "peer_timeout", "first_byte_timeout"),
        ("/patient/full", 503, "peers_full", ""),
        ("/patient/left", 499, "client_left", "client_left"),
    ] {
        let record = edge.record("target", target);
        assert_eq!((&record["status"], &record["refusal"]), (&status.into(), &refusal.into()), "{target}");
        assert_eq!(record["attempts"][0]["outcome"].as_str().unwrap_or_default(), failure, "{target}");
    }
}
