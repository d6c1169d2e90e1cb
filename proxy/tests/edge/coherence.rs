//! What an edge remembers of sessions is what Redis says: it hears of changes, and knows when it cannot.

use std::{
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use weir_testkit::Redis;

use crate::{
    sessions::{edge, redis, session, with_redis},
    support::{Client, Edge, Origin, ok, until},
};

/// Longer than any test waits: what is noticed was heard.
const UNBOUNDED: &str = ", staleness: 10m, memory_ttl: 1h";

fn ask(edge: &Edge, token: &str) -> u16 {
    edge.ask("/x", &format!("authorization: Bearer {token}\r\n")).status
}

/// How often Redis was asked for a session.
pub(crate) fn lookups(server: &Redis) -> u64 {
    let port = server.address().port().to_string();
    let info = Command::new("redis-cli").args(["-p", &port, "info", "commandstats"]).output().unwrap();
    let info = String::from_utf8(info.stdout).unwrap();
    let get = info.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    get.map_or(0, |get| get.split(',').next().unwrap().parse().unwrap())
}

/// Until the token is known and Redis is not asked for it any more.
pub(crate) fn warm(edge: &Edge, server: &Redis, token: &str) {
    until("it is remembered", || {
        let before = lookups(server);
        ask(edge, token) == 200 && ask(edge, token) == 200 && lookups(server) == before
    });
}

#[test]
fn every_change_of_a_session_is_heard() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = with_redis(&origin, &server, UNBOUNDED);
    let changes: [(&str, &[&[&str]]); 6] = [
        ("deleted", &[&["DEL", "session:t"]]),
        ("ended", &[&["PEXPIRE", "session:t", "1"]]),
        ("given an end", &[&["EXPIRE", "session:t", "1"]]),
        ("renamed", &[&["RENAME", "session:t", "elsewhere"]]),
        ("replaced by nonsense", &[&["SET", "session:t", "nonsense"]]),
        ("flushed", &[&["FLUSHDB"]]),
    ];
    for (what, commands) in changes {
        session(&server, "t", "anna", "[]");
        warm(&edge, &server, "t");
        commands.iter().for_each(|command| redis(&server, command));
        until(what, || ask(&edge, "t") == 401);
        // And that nobody is there is remembered as well, until somebody is.
        let before = lookups(&server);
        for _ in 0..20 {
            assert_eq!(ask(&edge, "t"), 401);
        }
        assert!(lookups(&server) <= before + 1, "{what}");
    }
    session(&server, "t", "anna", "[]");
    warm(&edge, &server, "t");
    session(&server, "t", "anna", r#"["admin"]"#);
    until("a new role is heard of", || edge.ask("/admin", "authorization: Bearer t\r\n").status == 200);
}

#[test]
fn what_was_missed_while_nobody_listened_is_not_believed() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = with_redis(&origin, &server, UNBOUNDED);
    for _ in 0..5 {
        session(&server, "t", "anna", "[]");
        warm(&edge, &server, "t");
        redis(&server, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        redis(&server, &["DEL", "session:t"]);
        until("it is forgotten when the edge listens again", || ask(&edge, "t") == 401);
    }
    // An outage is told once, and its end once.
    let told = |text: &str| edge.output().matches(text).count();
    until("its end is told", || told("Redis is heard: ") == 5);
    assert_eq!(told("Redis is not heard: "), 5);
}

#[test]
fn beyond_its_staleness_memory_is_not_asked() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = with_redis(&origin, &server, ", staleness: 200ms");
    session(&server, "t", "anna", "[]");
    warm(&edge, &server, "t");
    server.child().signal("STOP");
    until("silence is noticed", || ask(&edge, "t") == 503);
    server.child().signal("CONT");
    until("it is heard again", || ask(&edge, "t") == 200);
    warm(&edge, &server, "t");
}

#[test]
fn who_is_known_may_stay_so_while_redis_is_away_and_others_may_be_asked_for() {
    let server = Redis::start();
    let origin = Origin::start(|request, wire| {
        let answer = match (request.target(), &*request.field("authorization")) {
            ("/auth/session", "Bearer other") => ok(r#"{"user_id":"otto"}"#),
            ("/auth/session", _) => "HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            _ => ok("in"),
        };
        wire.send(answer);
    });
    session(&server, "t", "anna", "[]");
    let edge = with_redis(
        &origin,
        &server,
        ", staleness: 200ms, serve_known_for: 10m, on_redis_down: ask_origin, ask: { upstream: api, path: /auth/session }",
    );
    warm(&edge, &server, "t");
    assert_eq!(ask(&edge, "other"), 401, "Redis says no, and nobody else is asked");
    server.child().signal("STOP");
    until("the origin is asked", || ask(&edge, "other") == 200);
    assert_eq!((ask(&edge, "t"), ask(&edge, "nobody")), (200, 401));
    redis_later(&server, &["DEL", "session:t"]);
    server.child().signal("CONT");
    until("what happened meanwhile is known", || ask(&edge, "t") == 401);
    until("Redis decides again", || ask(&edge, "other") == 401);
}

/// A command that Redis reads when it wakes.
fn redis_later(server: &Redis, words: &[&str]) {
    use std::io::Write;
    let mut socket = std::net::TcpStream::connect(server.address()).unwrap();
    let command = words
        .iter()
        .fold(format!("*{}\r\n", words.len()), |all, word| format!("{all}${}\r\n{word}\r\n", word.len()));
    socket.write_all(command.as_bytes()).unwrap();
}

#[test]
fn a_redis_that_does_not_tell_is_believed_for_memory_ttl() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    redis(&server, &["ACL", "SETUSER", "weir", "on", ">word", "~*", "+get", "+pttl", "+ping", "+hello"]);
    let url = server.url().replace("redis://", "redis://weir:word@");
    let edge = edge(
        &origin,
        &format!("redis: {{ url: \"{url}\" }}\nsessions: {{ app: {{ from: [bearer], memory_ttl: 1s }} }}"),
    );
    until("it is said", || edge.output().contains("Redis cannot say when sessions change"));
    session(&server, "t", "anna", "[]");
    until("it is known", || ask(&edge, "t") == 200);
    redis(&server, &["DEL", "session:t"]);
    until("it is asked again", || ask(&edge, "t") == 401);
}

/// So long after a session has ended nobody may be let in with it.
const STALENESS: Duration = Duration::from_millis(500);

/// `WEIR_ATTEMPTS` asks for more of them than a run of the tests has time for.
#[test]
fn nobody_gets_in_with_a_session_that_ended_longer_ago_than_the_bound() {
    const TOKENS: usize = 16;
    let attempts = std::env::var("WEIR_ATTEMPTS").map_or(0, |text| text.parse().unwrap());
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = with_redis(&origin, &server, ", staleness: 500ms");
    let tokens: Vec<String> = (0..TOKENS).map(|nth| format!("t{nth}")).collect();
    // When each was ended; `None` while it may be alive.
    let ended: Vec<Mutex<Option<Instant>>> = (0..TOKENS).map(|_| Mutex::new(None)).collect();
    let (over, tried, let_in) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = edge.connect();
                while !over.load(Ordering::Relaxed) {
                    for (token, ended) in tokens.iter().zip(&ended) {
                        let since = *ended.lock().unwrap();
                        let asked = Instant::now();
                        let status = status(&mut client, token);
                        tried.fetch_add(1, Ordering::Relaxed);
                        let is_in = status == 200;
                        let_in.fetch_add(usize::from(is_in), Ordering::Relaxed);
                        // Unless it was made anew meanwhile.
                        let is_ended = since.is_some() && *ended.lock().unwrap() == since;
                        if let Some(since) = since.filter(|_| is_in && is_ended) {
                            let late = asked.saturating_duration_since(since);
                            assert!(late < STALENESS, "{token} was let in {late:?} after its end");
                        }
                    }
                }
            });
        }
        for round in (0..).take_while(|round| *round < 6 || tried.load(Ordering::Relaxed) < attempts) {
            for (token, ended) in tokens.iter().zip(&ended) {
                *ended.lock().unwrap() = None;
                session(&server, token, "anna", "[]");
            }
            until("all are in", || tokens.iter().all(|token| ask(&edge, token) == 200));
            if round % 2 == 1 {
                redis(&server, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            }
            for (token, ended) in tokens.iter().zip(&ended) {
                redis(&server, &["DEL", &format!("session:{token}")]);
                *ended.lock().unwrap() = Some(Instant::now());
            }
            if round % 3 == 2 {
                redis(&server, &["CLIENT", "PAUSE", "700"]);
            }
            until("all are out", || tokens.iter().all(|token| ask(&edge, token) != 200));
            std::thread::sleep(STALENESS);
        }
        over.store(true, Ordering::Relaxed);
    });
    let (tried, let_in) = (tried.into_inner(), let_in.into_inner());
    println!("{tried} tries, {let_in} of them let in");
    assert!(tried > 1000 && let_in > 100, "{tried} tries, {let_in} let in");
}

fn status(client: &mut Client, token: &str) -> u16 {
    client.ask("/x", format!("authorization: Bearer {token}\r\n")).status
}

#[test]
fn the_end_of_a_session_is_heard_of_before_its_staleness() {
    let (origin, server) = (Origin::named("in"), Redis::start());
    let edge = with_redis(&origin, &server, ", staleness: 500ms, memory_ttl: 1h");
    session(&server, "first", "anna", "[]");
    warm(&edge, &server, "first");
    let mut client = edge.connect();
    let mut late: Vec<Duration> = (0..200)
        .map(|nth| {
            let token = format!("t{nth}");
            session(&server, &token, "anna", "[]");
            until("it is known", || status(&mut client, &token) == 200);
            redis(&server, &["DEL", &format!("session:{token}")]);
            let ended = Instant::now();
            until("it is over", || status(&mut client, &token) == 401);
            ended.elapsed()
        })
        .collect();
    late.sort_unstable();
    println!("refused after {:?} (median), {:?} (99 %), {:?} (all)", late[100], late[198], late[199]);
    assert!(late[198] < STALENESS, "{:?}", late[198]);
}
