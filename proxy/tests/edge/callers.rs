//! Who the caller is by other words than JSON under a token: hashes, with names of their own.

use weir_testkit::Redis;

use crate::{
    sessions::{redis, with_redis},
    support::{Origin, until},
};

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
