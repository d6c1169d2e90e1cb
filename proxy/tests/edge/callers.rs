//! Who the caller is by other words than JSON under a token: hashes, with names of their own.

use std::process::Command;

use http::Request;
use serde_json::{Value, json};
use tokio::task::block_in_place;
use weir_testkit::Redis;

use crate::{
    coherence::{lookups, warm},
    http2_clients,
    sessions::{claims, redis, session, with_redis},
    signed,
    support::{Edge, Origin, nobody, ok, until},
};

/// What Redis answers.
fn told(server: &Redis, words: &[&str]) -> String {
    let port = server.address().port().to_string();
    let answer = Command::new("redis-cli").args(["-p", &port]).args(words).output().unwrap();
    String::from_utf8(answer.stdout).unwrap().trim().to_owned()
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

#[test]
fn a_hash_is_a_session_by_the_names_of_the_plan() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let more = ", key: \"app:${token}\", format: hash, fields: { user_id: uid, roles: groups }";
    let edge = with_redis(&origin, &server, more);
    redis(&server, &["HSET", "app:t", "uid", "anna", "groups", "user,admin"]);
    assert_eq!(edge.ask("/admin", &bearer("t")).status, 200);
    assert_eq!(edge.record("target", "/admin")["caller"], "anna");
    redis(&server, &["HSET", "app:t", "groups", "user"]);
    until("a field that changed is heard of", || edge.ask("/admin", &bearer("t")).status == 403);
    redis(&server, &["SET", "app:text", r#"{"uid":"eve"}"#]);
    assert_eq!(
        edge.ask("/x", &bearer("text")).status,
        401,
        "another kind of key is no session, and no trouble"
    );
}

#[test]
fn memory_never_outlives_the_key() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    for (format, command) in [
        ("json", &["SET", "session:t", r#"{"user_id":"anna"}"#][..]),
        ("hash", &["HSET", "session:t", "user_id", "anna"]),
    ] {
        let more = format!(", format: {format}, staleness: 10m, memory_ttl: 1h");
        let edge = with_redis(&origin, &server, &more);
        redis(&server, command);
        redis(&server, &["PEXPIRE", "session:t", "2000"]);
        // Redis says nothing when it forgets to delete in time: what is remembered ends by itself.
        redis(&server, &["CONFIG", "SET", "hz", "1"]);
        assert_eq!(edge.ask("/x", &bearer("t")).status, 200, "{format}");
        until("it is over", || edge.ask("/x", &bearer("t")).status == 401);
        redis(&server, &["DEL", "session:t"]);
    }
}

#[test]
fn roles_that_are_kept_apart_count_alone_and_are_taken_back_at_once() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    session(&server, "t", "anna", r#"["admin"]"#);
    let more = ", staleness: 10m, memory_ttl: 1h, roles_key: \"user:role:${session.user_id}\"";
    let edge = with_redis(&origin, &server, more);
    let admin = || edge.ask("/admin", &bearer("t")).status;
    assert_eq!(
        [admin(), edge.ask("/x", &bearer("t")).status],
        [403, 200],
        "what the session says of itself is old"
    );
    redis(&server, &["SET", "user:role:anna", "user,admin"]);
    until("a new role is heard of", || admin() == 200);
    let before = lookups(&server);
    for _ in 0..20 {
        assert_eq!(admin(), 200);
    }
    assert!(lookups(&server) <= before + 1, "roles are remembered");
    redis(&server, &["SET", "user:role:anna", r#"{"roles":["user"]}"#]);
    until("it is taken back", || admin() == 403);
    redis(&server, &["SET", "user:role:anna", "admin"]);
    until("it is given again", || admin() == 200);
    redis(&server, &["FLUSHDB"]);
    until("nothing is left", || admin() == 401);
}

#[test]
fn a_browser_without_a_session_is_sent_to_the_login_and_others_hear_401() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    session(&server, "t", "anna", "[]");
    let edge = Edge::start(&format!(
        "redis: {{ url: \"{}\" }}
sessions: {{ app: {{ from: [{{ cookie: sid }}] }} }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /*
    session: {{ use: app, on_missing: {{ redirect: \"/login?next=${{request.target}}\" }} }}
    to: api
",
        server.url(),
        origin.address
    ));
    let page = "accept: text/html,application/xhtml+xml\r\n";
    for fields in [page.to_owned(), format!("{page}cookie: sid=unknown\r\n")] {
        let sent = edge.ask("/a?b=c&d=%2F", &fields);
        assert_eq!(
            (sent.status, sent.field("location")),
            (302, "/login?next=%2Fa%3Fb%3Dc%26d%3D%252F".to_owned())
        );
        assert_eq!(sent.field("cache-control"), "no-store");
    }
    // What would lead a login to another host is no way back.
    for target in ["//evil.example/", "//evil.example", "/\\evil.example"] {
        let sent = edge.ask(target, page);
        let location = sent.field("location");
        assert!(
            !location.contains("next=%2F%2F") && !location.contains("next=%2F%5C"),
            "{target}: {location}"
        );
    }
    assert_eq!(edge.ask("/a", "accept: */*\r\n").status, 401);
    assert_eq!(edge.ask("/a", "").status, 401);
    let posted = edge.send(format!("POST /a HTTP/1.1\r\nhost: x\r\n{page}content-length: 0\r\n\r\n"));
    assert_eq!((posted.status, posted.has("www-authenticate")), (401, true));
    assert_eq!(edge.ask("/a", &format!("{page}cookie: sid=t\r\n")).status, 200);
}

#[test]
fn a_session_lives_as_long_as_it_is_used_and_the_touch_costs_no_caller_a_wait() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = with_redis(&origin, &server, ", staleness: 10m, memory_ttl: 1h, sliding: 1h");
    session(&server, "t", "anna", "[]");
    session(&server, "endless", "anna", "[]");
    warm(&edge, &server, "endless");
    redis(&server, &["EXPIRE", "session:t", "60"]);
    let (ask, before) = (|| edge.ask("/x", &bearer("t")).status, lookups(&server));
    assert_eq!(ask(), 200);
    let left = || told(&server, &["PTTL", "session:t"]).parse::<i64>().unwrap();
    until("it lives on", || left() > 3_000_000);
    // What the touch made us forget is looked up again without anybody asking.
    until("it is remembered again", || lookups(&server) == before + 2);
    for _ in 0..20 {
        assert_eq!(ask(), 200);
    }
    assert_eq!(lookups(&server), before + 2);
    assert_eq!(told(&server, &["TTL", "session:endless"]), "-1", "what has no end gets none");
    assert_eq!(
        told(&server, &["info", "commandstats"]).matches("cmdstat_pexpire:calls=1,").count(),
        1,
        "one touch"
    );
}

#[test]
fn a_touch_brings_no_session_back() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = with_redis(&origin, &server, ", staleness: 10m, memory_ttl: 1h, sliding: 1h");
    session(&server, "t", "anna", "[]");
    redis(&server, &["EXPIRE", "session:t", "60"]);
    assert_eq!(edge.ask("/x", &bearer("t")).status, 200);
    // It is due, and gone before its batch is.
    redis(&server, &["DEL", "session:t"]);
    until("it is over", || edge.ask("/x", &bearer("t")).status == 401);
    until("the batch was sent", || told(&server, &["info", "commandstats"]).contains("cmdstat_pexpire"));
    assert_eq!(told(&server, &["EXISTS", "session:t"]), "0");
    assert_eq!(edge.ask("/x", &bearer("t")).status, 401);
}

#[test]
fn a_service_says_by_its_fields_who_it_is_also_where_there_is_a_redis() {
    let server = Redis::start();
    session(&server, "unknown", "eve", r#"["admin"]"#);
    let yes = "HTTP/1.1 204 Yes\r\nx-user: anna\r\nx-groups: user, admin\r\nx-other: y\r\n\r\n";
    let origin = Origin::start(move |request, wire| {
        let answer = match (request.target(), &*request.field("cookie")) {
            ("/check", "auth=good") => yes.to_owned(),
            ("/check", "auth=nobody") => ok(""),
            ("/check", "auth=broken") => "HTTP/1.1 302 Elsewhere\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ("/check", _) => "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            _ => ok("in"),
        };
        wire.send(answer);
    });
    let more = ", memory_ttl: 1h, fields: { user_id: x-user, roles: x-groups }, ask: { upstream: api, path: /check, token: { cookie: auth }, answer: headers, always: true }";
    let edge = with_redis(&origin, &server, more);
    let status = |token: &str| edge.ask("/admin", &bearer(token)).status;
    assert_eq!([status("good"), status("unknown"), status("nobody")], [200, 401, 401]);
    assert_eq!(status("broken"), 503, "that is no answer to whose it is");
    let asked = origin.count();
    assert_eq!([status("good"), status("good")], [200, 200]);
    assert_eq!(origin.count(), asked + 2, "the service is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_nobody_says_themselves_who_they_are() {
    let (origin, server, edge) = block_in_place(|| {
        let (origin, server) = (Origin::named("in"), Redis::start());
        session(&server, "t", "anna", "[]");
        let edge = with_redis(&origin, &server, "");
        (origin, server, edge)
    });
    let client = http2_clients::Client::of(&edge).await;
    let ask = async |path: &str, token: Option<&str>| {
        let mut request = Request::get(format!("http://h{path}")).header("x-weir-identity", "forged");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        client.ask(request.body(()).unwrap(), true).await.0.await.unwrap().status()
    };
    assert_eq!(ask("/x", Some("t")).await, 200);
    assert_eq!(claims(&origin.last().field("x-weir-identity"))["sub"], "anna");
    assert_eq!(ask("/open", None).await, 200);
    assert!(!origin.last().has("x-weir-identity"));
    drop(server);
}

#[test]
fn a_token_is_in_no_output() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    session(&server, "t0ken-of-anna", "anna", r#"["user"]"#);
    redis(&server, &["SET", "session:t0ken-of-nonsense", "nonsense"]);
    let signed_by_us = signed::by_secret("anna", "1");
    let (text, _) = signed_by_us.rsplit_once('.').unwrap();
    let forged = format!("{text}.AAAA");
    let edge = Edge::start(&format!(
        "redis: {{ url: \"{}\" }}
log: {{ level: debug }}
identity: {{ secret: \"{1}\" }}
caches: {{ store: {{}} }}
sessions:
  held: {{ from: [bearer, {{ cookie: sid }}], roles_key: \"user:role:${{session.user_id}}\", sliding: 1h }}
  signed: {{ from: [bearer], jwt: {{ secret: \"{1}\", revoked: \"jwt:revoked:${{session.jti}}\" }} }}
upstreams: {{ api: {{ servers: [{2}] }}, gone: {{ servers: [{3}] }} }}
routes:
  - {{ match: /admin, session: {{ use: held, roles: [admin] }}, to: api }}
  - {{ match: /gone, session: {{ use: held, required: true }}, to: gone }}
  - {{ match: /signed, session: {{ use: signed, required: true }}, to: api }}
  - match: /*
    session: {{ use: held, required: true }}
    cache: {{ in: store, ttl: 60s, key: \"${{session.user_id}}:${{request.target}}\", tags: [\"of:${{session.user_id}}\"] }}
    to: api
",
        server.url(),
        signed::SECRET,
        origin.address,
        nobody()
    ));
    let tokens = ["t0ken-of-anna", "t0ken-of-nonsense", "t0ken-of-nobody", &signed_by_us, &forged];
    let (mut said, mut asked) = (String::new(), 0);
    for token in tokens {
        for path in ["/page", "/page", "/admin", "/gone", "/signed"] {
            for field in [bearer(token), format!("cookie: sid={token}\r\n")] {
                let answer = edge.ask(path, &field);
                said += &format!("{:?} {}", answer.head, answer.text());
                asked += 1;
            }
            let field = format!("authorization: Bearer {token}");
            let question = json!({ "url": format!("http://edge.test{path}"), "headers": [field] });
            said += &edge.operate("POST", "/explain", &question, "").1.to_string();
        }
    }
    for path in ["/metrics", "/health", "/upstreams", "/upstreams/api", "/"] {
        said += &edge.operate("GET", path, &Value::Null, "").1.to_string();
        said += &edge.admin(path).text();
    }
    until("all are in the log", || edge.records().len() >= asked);
    said += &edge.output();
    assert!(said.contains("anna"), "the caller is named");
    let signature = signed_by_us.rsplit_once('.').unwrap().1;
    for secret in ["t0ken-of", text, signature] {
        let at = said.find(secret).map(|at| &said[at.saturating_sub(200)..at]);
        assert_eq!(at, None, "{secret}");
    }
}
