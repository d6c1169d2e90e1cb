//! Ways to put into the cache what others would get.

use super::{
    harness::{Answer, Weir, config, once},
    origin::Origin,
};

const FRESH: &str = "Cache-Control: max-age=60\r\n";

fn ok(fields: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn start() -> (Origin, Weir) {
    let origin = Origin::start();
    let weir = Weir::start(&config(origin.address));
    (origin, weir)
}

fn request(method: &str, target: &str, fields: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{fields}\r\n").into_bytes()
}

/// The honest request's answer, after whatever was tried.
fn honest(weir: &Weir, target: &str) -> Answer {
    once(weir, &request("GET", target, ""))
}

#[test]
fn fields_that_are_not_in_the_key_do_not_reach_the_origin() {
    let (origin, weir) = start();
    for (at, name) in [
        "X-Forwarded-Host",
        "X-Host",
        "X-Forwarded-Server",
        "X-Original-Host",
        "Forwarded",
        "X-Forwarded-Scheme",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Real-IP",
        "X-HTTP-Host-Override",
        "X_Forwarded_Host",
        "Proxy",
    ]
    .iter()
    .enumerate()
    {
        let target = format!("/cached/unkeyed/{at}");
        origin.script(&target, ok(FRESH, "fine"), false);
        once(&weir, &request("GET", &target, &format!("{name}: evil.test\r\n")));
        let seen = origin.seen();
        assert_eq!(seen.len(), 1, "{name}");
        assert!(!seen[0].contains("evil"), "{name}: {}", seen[0]);
        assert_eq!(honest(&weir, &target).text(), "fine");
        assert!(origin.seen().is_empty(), "{name}: the second is a hit");
    }
}

#[test]
fn what_another_request_made_is_not_the_answer_to_an_honest_one() {
    let (origin, weir) = start();
    let fat = |framing: &str, body: &str| {
        format!("GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{framing}\r\n{body}")
    };
    let attacks: Vec<(&str, String)> = vec![
        ("fat get", fat("Content-Length: 4\r\n", "evil")),
        ("fat chunked get", fat("Transfer-Encoding: chunked\r\n", "4\r\nevil\r\n0\r\n\r\n")),
        ("post", "POST /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nContent-Length: 4\r\n\r\nevil".to_owned()),
        ("options", "OPTIONS /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("odd method", "EVIL /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("another host", "GET /cached/N HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("another port", "GET /cached/N HTTP/1.1\r\nHost: a.test:1337\r\nConnection: close\r\n\r\n".to_owned()),
        ("trailing dot", "GET /cached/N HTTP/1.1\r\nHost: a.test.\r\nConnection: close\r\n\r\n".to_owned()),
        ("no host", "GET /cached/N HTTP/1.0\r\n\r\n".to_owned()),
        ("absolute form", "GET http://b.test/cached/N HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("empty query", "GET /cached/N? HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("a query", "GET /cached/N?x=1 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("semicolon", "GET /cached/N;x HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("encoded slash", "GET /cached%2fN HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("encoded query", "GET /cached/N%3f HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("encoded space", "GET /cached/N%20 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("encoded line end", "GET /cached/N%0d%0a HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("encoded NUL", "GET /cached/N%00 HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("case", "GET /CACHED/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n".to_owned()),
        ("range", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nRange: bytes=0-0\r\n\r\n".to_owned()),
        ("many ranges", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nRange: bytes=0-0,2-3\r\n\r\n".to_owned()),
        ("bad range", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nRange: bytes=99-\r\n\r\n".to_owned()),
        ("condition", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nIf-None-Match: *\r\n\r\n".to_owned()),
        ("precondition", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nIf-Match: \"x\"\r\n\r\n".to_owned()),
        ("nominated vary field", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close, x-vary\r\nX-Vary: evil\r\n\r\n".to_owned()),
        ("only if cached", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nCache-Control: only-if-cached\r\n\r\n".to_owned()),
        ("meta characters", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\nX-A: \u{1}\r\n\r\n".to_owned()),
        ("an oversized field", format!("GET /cached/N HTTP/1.1\r\nHost: a.test\r\nX-A: {}\r\n\r\n", "a".repeat(9000))),
        ("upgrade", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: evil\r\n\r\n".to_owned()),
        ("expectation", "GET /cached/N HTTP/1.1\r\nHost: a.test\r\nExpect: evil\r\n\r\n".to_owned()),
    ];
    for (at, (name, attack)) in attacks.iter().enumerate() {
        let target = format!("/cached/poison{at}");
        // What the attack makes carries a mark of its own: the ordinary answer, which says method and target.
        origin.script(
            &target,
            ok(&format!("{FRESH}Vary: X-Vary\r\nETag: \"1\"\r\n"), "the whole honest answer"),
            false,
        );
        let bytes = attack
            .replace("/cached/N", &target)
            .replace("/CACHED/N", &target.to_uppercase())
            .replace("/cached%2fN", &target.replace("/cached/", "/cached%2f"));
        once(&weir, bytes.as_bytes());
        let answer = honest(&weir, &target);
        assert_eq!(
            (answer.status, answer.text()),
            (200, "the whole honest answer".to_owned()),
            "after {name}"
        );
        let again = honest(&weir, &target);
        assert_eq!(again.text(), "the whole honest answer", "after {name}");
        assert!(
            again.field("cache-status").is_some_and(|status| status.contains("hit")),
            "{name}: {again:?}"
        );
    }
    println!("{} attacks", attacks.len());
    origin.assert_clean();
}

#[test]
fn what_is_one_persons_is_not_kept() {
    let (origin, weir) = start();
    for (at, (asked, answered)) in [
        ("", "Set-Cookie: sid=1\r\n"),
        ("Authorization: Bearer x\r\n", ""),
        ("Cookie: sid=1\r\n", "Vary: *\r\n"),
        ("", "Cache-Control: private\r\n"),
        ("", "Cache-Control: \"no-store\", no-store\r\n"),
    ]
    .iter()
    .enumerate()
    {
        let target = format!("/cached/private/{at}");
        origin.script(&target, ok(&format!("{FRESH}{answered}"), "secret"), false);
        once(&weir, &request("GET", &target, asked));
        origin.seen();
        honest(&weir, &target);
        assert_eq!(origin.seen().len(), 1, "{asked:?} {answered:?}: asked anew");
    }
}

#[test]
fn the_hosts_case_reaches_nobody() {
    let (origin, weir) = start();
    origin.script("/cached/case", ok(FRESH, "fine"), false);
    once(&weir, b"GET /cached/case HTTP/1.1\r\nHost: A.tEsT\r\nConnection: close\r\n\r\n");
    let seen = origin.seen();
    assert!(seen.len() == 1 && !seen[0].contains("A.tEsT"), "{seen:?}");
    assert_eq!(honest(&weir, "/cached/case").text(), "fine");
    assert!(origin.seen().is_empty());
}

#[test]
fn fields_of_one_connection_are_not_replayed() {
    let (origin, weir) = start();
    let fields = format!(
        "{FRESH}Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"
    );
    origin.script("/cached/hop", ok(&fields, "fine"), false);
    for _ in 0..2 {
        let answer = honest(&weir, "/cached/hop");
        assert!(["x-hop", "keep-alive"].iter().all(|name| answer.field(name).is_none()), "{answer:?}");
    }
}

/// CVE-2025-4366: the body of a request that the cache answered ran as the next request.
#[test]
fn the_body_of_a_request_answered_from_the_cache_never_runs() {
    let (origin, weir) = start();
    origin.script("/cached/drained", ok(FRESH, "fine"), false);
    honest(&weir, "/cached/drained");
    origin.seen();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let framings = [
        format!("Content-Length: {}\r\n\r\n{smuggled}", smuggled.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len()),
    ];
    for method in ["GET", "HEAD"] {
        for framing in &framings {
            let mut client = weir.connect();
            client.send(format!("{method} /cached/drained HTTP/1.1\r\nHost: a.test\r\n{framing}").as_bytes());
            assert_eq!(client.answer_to(method).unwrap().status, 200);
            client.is_served("after");
            assert!(origin.seen().iter().all(|request| !request.starts_with("GET /smuggled")));
        }
    }
    origin.assert_clean();
}

#[test]
fn a_cut_answer_is_never_kept_nor_given_for_whole() {
    let (origin, weir) = start();
    for (at, bytes) in [
        format!("HTTP/1.1 200 OK\r\n{FRESH}Content-Length: 50\r\n\r\nhello"),
        format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        format!("HTTP/1.1 200 OK\r\n{FRESH}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/cached/cut/{at}");
        origin.script(&target, bytes, true);
        for _ in 0..2 {
            let mut client = weir.connect();
            client.send(&request("GET", &target, ""));
            let answer = client.answer();
            assert!(
                answer.as_ref().is_none_or(|answer| !answer.whole || answer.status == 502),
                "{at}: {answer:?}"
            );
        }
        origin.script(&target, ok(FRESH, "the whole"), false);
        assert_eq!(honest(&weir, &target).text(), "the whole");
    }
}

/// Cache-poisoned denial of service: what one odd request provoked is not everybody's answer.
#[test]
fn errors_are_not_kept_by_a_routes_own_lifetime() {
    let origin = Origin::start();
    let weir = Weir::start(
        &config(origin.address).replace("cache: { in: store }", "cache: { in: store, ttl: 60s }"),
    );
    for status in
        [400, 401, 403, 405, 406, 408, 411, 412, 413, 415, 416, 417, 426, 429, 431, 500, 502, 503, 504]
    {
        let target = format!("/cached/error/{status}");
        origin.script(&target, format!("HTTP/1.1 {status} No\r\nContent-Length: 4\r\n\r\nevil"), false);
        assert_eq!(once(&weir, &request("GET", &target, "X-Odd: 1\r\n")).status, status);
        origin.script(&target, ok("", "fine"), false);
        assert_eq!(honest(&weir, &target).text(), "fine", "after {status}");
        assert_eq!(honest(&weir, &target).text(), "fine", "kept after {status}");
    }
}
