//! Who the caller is by other words than JSON under a token: hashes, with names of their own.

use std::process::Command;

use weir_testkit::Redis;

use crate::{
    coherence::{lookups, warm},
    sessions::{redis, session, with_redis},
    support::{Edge, Origin, until},
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
