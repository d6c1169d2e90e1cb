//! Who the caller is: tokens looked up in a real Redis or by asking the origin, and what the origin is told.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use weir_testkit::Redis;

use crate::support::{Edge, Origin, ok, until};

const SECRET: &str = "a test's secret of more than thirty-two bytes";

/// One command, in Redis' own words.
pub(crate) fn redis(server: &Redis, words: &[&str]) {
    let mut socket = TcpStream::connect(server.address()).unwrap();
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command += &format!("${}\r\n{word}\r\n", word.len());
    }
    socket.write_all(command.as_bytes()).unwrap();
    let mut answer = [0; 1];
    socket.read_exact(&mut answer).unwrap();
    assert_ne!(answer[0], b'-', "{words:?}");
}

pub(crate) fn session(server: &Redis, token: &str, user: &str, roles: &str) {
    let json =
        format!(r#"{{"user_id":"{user}","session_id":"s-{user}","email":"{user}@x","roles":{roles}}}"#);
    redis(server, &["SET", &format!("session:{token}"), &json]);
}

pub(crate) fn edge(origin: &Origin, source: &str) -> Edge {
    Edge::start(&format!(
        "{source}
identity: {{ secret: \"{SECRET}\" }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /open
    session: {{ use: app }}
    to: api
  - match: /admin
    session: {{ use: app, roles: [admin] }}
    to: api
  - match: /logout
    session: {{ use: app, required: true, ends: true }}
    to: api
  - match: /*
    session: {{ use: app, required: true }}
    to: api
",
        origin.address
    ))
}

pub(crate) fn with_redis(origin: &Origin, server: &Redis, more: &str) -> Edge {
    edge(
        origin,
        &format!(
            "redis: {{ url: \"{}\" }}\nsessions: {{ app: {{ from: [bearer, {{ cookie: sid }}]{more} }} }}",
            server.url()
        ),
    )
}

/// The claims of a signed identity, once its signature is right.
pub(crate) fn claims(identity: &str) -> serde_json::Value {
    let (signed, signature) = identity.rsplit_once('.').unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).unwrap();
    ring::hmac::verify(&key, signed.as_bytes(), &signature).expect("signed with our secret");
    let (head, claims) = signed.split_once('.').unwrap();
    let json = |part: &str| {
        serde_json::from_slice::<serde_json::Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap())
    };
    assert_eq!(json(head).unwrap()["alg"], "HS256");
    json(claims).unwrap()
}

#[test]
fn a_session_in_redis_lets_in_and_its_owner_is_named_to_the_origin() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    session(&server, "tok-a", "anna", r#"["user"]"#);
    let edge = with_redis(&origin, &server, "");
    let mut client = edge.connect();
    assert_eq!(client.ask("/x", "authorization: Bearer tok-a\r\nx-weir-identity: forged\r\n").status, 200);
    let seen = origin.last();
    let claims = claims(&seen.field("x-weir-identity"));
    assert_eq!((&claims["sub"], &claims["sid"]), (&"anna".into(), &"s-anna".into()));
    assert_eq!(claims["roles"], serde_json::json!(["user"]));
    assert!(claims["exp"].as_u64().unwrap() > claims["iat"].as_u64().unwrap());

    assert_eq!(client.ask("/x", "cookie: a=b; sid=tok-a\r\n").status, 200);
    for fields in
        ["", "authorization: Bearer wrong\r\n", "cookie: sid=wrong\r\n", "authorization: Basic dG9rLWE=\r\n"]
    {
        let refused = client.ask("/x", fields);
        assert_eq!(refused.status, 401, "{fields}");
        assert!(refused.has("www-authenticate"));
    }
    assert_eq!(origin.count(), 2, "who is refused does not reach the origin");

    assert_eq!(client.ask("/open", "x-weir-identity: forged\r\n").status, 200);
    assert!(!origin.last().has("x-weir-identity"), "nobody is nobody, whatever they claim");
    assert_eq!(edge.record("target", "/x")["caller"], "anna");
}

#[test]
fn a_role_is_asked_for() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    session(&server, "u", "ulla", r#"["user"]"#);
    session(&server, "a", "adam", r#"["user","admin"]"#);
    let edge = with_redis(&origin, &server, "");
    let ask = |token: &str| edge.ask("/admin", &format!("authorization: Bearer {token}\r\n")).status;
    assert_eq!([ask("u"), ask("a"), ask("none")], [403, 200, 401]);
    assert_eq!(edge.ask("/admin", "").status, 401);
}

#[test]
fn without_redis_the_known_stay_known_and_strangers_hear_503() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    session(&server, "tok", "anna", "[]");
    let edge = with_redis(&origin, &server, ", serve_known_for: 60s");
    assert_eq!(edge.admin("/health").status, 200);
    assert_eq!(edge.metric("weir_redis_up"), 1.0);
    assert_eq!(edge.metric("weir_session_source_up{session=\"app\"}"), 1.0);
    assert_eq!(edge.ask("/x", "authorization: Bearer tok\r\n").status, 200);
    drop(server);
    assert_eq!(edge.ask("/x", "authorization: Bearer tok\r\n").status, 200);
    let refused = edge.ask("/x", "authorization: Bearer other\r\n");
    assert_eq!((refused.status, refused.has("retry-after")), (503, true));
    assert_eq!(edge.ask("/x", "").status, 401, "who brings nothing needs no Redis to be refused");
    let health = edge.admin("/health");
    assert_eq!(health.status, 200, "the known are served");
    let report: serde_json::Value = serde_json::from_str(&health.text()).unwrap();
    assert_eq!(report["status"], "degraded");
    let (checks, up) = (&report["checks"], |family: &str| edge.metric(family));
    assert_eq!(
        [
            &checks["redis"]["status"],
            &checks["sessions"]["app"]["status"],
            &checks["upstreams"]["api"]["status"]
        ],
        ["down", "down", "ok"]
    );
    assert_eq!([up("weir_redis_up"), up("weir_session_source_up{session=\"app\"}")], [0.0, 0.0]);
}

#[test]
fn a_redis_that_hangs_costs_a_moment_and_is_used_again_when_it_wakes() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    session(&server, "tok", "anna", "[]");
    let edge = with_redis(&origin, &server, "");
    server.child().signal("STOP");
    assert_eq!(edge.ask("/x", "authorization: Bearer tok\r\n").status, 503);
    server.child().signal("CONT");
    until("Redis is used again", || edge.ask("/x", "authorization: Bearer tok\r\n").status == 200);
}

#[test]
fn a_logout_is_forgotten_at_once() {
    let server = Arc::new(Redis::start());
    let store = Arc::clone(&server);
    let origin = Origin::start(move |request, wire| {
        if request.target() == "/logout" {
            redis(&store, &["DEL", "session:tok"]);
        }
        wire.send(ok(""));
    });
    session(&server, "tok", "anna", "[]");
    let edge = with_redis(&origin, &server, ", memory_ttl: 1h");
    let ask = |path: &str| edge.ask(path, "authorization: Bearer tok\r\n").status;
    assert_eq!([ask("/x"), ask("/logout"), ask("/x")], [200, 200, 401]);
}

#[test]
fn without_redis_configured_the_origin_is_asked_once_and_then_remembered() {
    let known = Arc::new(AtomicBool::new(true));
    let (asked, is_known) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&known));
    let questions = Arc::clone(&asked);
    let origin = Origin::start(move |request, wire| {
        let answer = match request.target() {
            "/auth/session" => {
                let bearer = request.field("authorization");
                questions.lock().unwrap().push(bearer.clone());
                if bearer == "Bearer tok" && is_known.load(Ordering::SeqCst) {
                    ok(r#"{"user_id":"anna","roles":[]}"#)
                } else if bearer == "Bearer broken" {
                    "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_owned()
                } else {
                    "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n".to_owned()
                }
            }
            "/logout" => {
                is_known.store(false, Ordering::SeqCst);
                ok("")
            }
            _ => ok("in"),
        };
        wire.send(answer);
    });
    let edge = edge(
        &origin,
        "sessions: { app: { from: [bearer], memory_ttl: 1h, ask: { upstream: api, path: /auth/session } } }",
    );
    let ask = |path: &str, token: &str| edge.ask(path, &format!("authorization: Bearer {token}\r\n")).status;
    assert_eq!(
        [ask("/x", "tok"), ask("/x", "tok"), ask("/x", "other"), ask("/x", "other")],
        [200, 200, 401, 401]
    );
    assert_eq!(*asked.lock().unwrap(), ["Bearer tok", "Bearer other"], "each once");
    assert_eq!(ask("/x", "broken"), 503, "an origin in trouble says neither yes nor no");
    assert_eq!([ask("/logout", "tok"), ask("/x", "tok")], [200, 401]);
}
