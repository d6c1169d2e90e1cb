//! A service that is asked about each request (Traefik's forwardAuth, Caddy's forward_auth, nginx's auth_request): what it is
//! told, what its answers count for, and what becomes of requests while it is not there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Edge, Gate, Origin, Request, Wire, nobody, ok, until};

const NO: &str = "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n";
const CHALLENGE: &str = "HTTP/1.1 401 Who\r\nwww-authenticate: Basic realm=\"x\"\r\nwww-authenticate: Bearer\r\ncontent-length: 0\r\n\r\n";

/// Lets anna pass who knows the password, and nobody where it says `secret`; says by which number of question.
fn service() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |request, wire| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let (uri, knows) = (request.field("x-forwarded-uri"), request.field("authorization") == "Basic pw");
        wire.send(match &*uri {
            _ if uri.starts_with("/secret") => NO.to_owned(),
            "/302" => "HTTP/1.1 302 Elsewhere\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/404" => "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/500" => "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned(),
            "/long" => ok(&"x".repeat(100 << 10)),
            _ if knows => format!("HTTP/1.1 204 Yes\r\nx-user: anna\r\nx-number: {number}\r\n\r\n"),
            _ => CHALLENGE.to_owned(),
        });
    })
}

/// An edge that asks `service`, with more to say of the session and of its route.
fn asking(service: &Origin, origin: &Origin, session: &str, route: &str) -> Edge {
    Edge::start(&format!(
        "caches: {{ store: {{}} }}
sessions:
  gate:
    fields: {{ user_id: x-user, number: x-number }}
    {session}
    ask:
      upstream: auth
      path: /verify
      answer: headers
      timeout: 1s
      request_headers:
        x-forwarded-method: \"${{request.method}}\"
        x-forwarded-proto: \"${{request.scheme}}\"
        x-forwarded-host: \"${{request.host}}\"
        x-forwarded-uri: \"${{request.target}}\"
        authorization: \"${{header.authorization}}\"
        cookie: \"sid=${{cookie.sid}}\"
upstreams: {{ auth: {{ servers: [{}] }}, api: {{ servers: [{}] }} }}
routes: [{{ match: /*, session: {{ use: gate }}, {route} to: api }}]
",
        service.address, origin.address
    ))
}

const TOLD: &str = "request_headers: { x-user: \"${session.user_id}\", x-number: \"${session.number}\" },";
const KEPT: &str = "memory_ttl: 1h";
const ANNA: &str = "authorization: Basic pw\r\n";

#[test]
fn a_service_is_told_what_the_plan_says_and_nothing_else() {
    let (service, origin) = (service(), Origin::named("in"));
    let edge = asking(&service, &origin, KEPT, TOLD);
    let fields =
        format!("{ANNA}cookie: a=b; sid=t\r\nx-forwarded-uri: /lie\r\nx-secret: s\r\nx-user: eve\r\n");
    assert_eq!(edge.ask("/a/../b?c=%20d", &fields).status, 200);
    let asked = service.last();
    assert_eq!((asked.method(), asked.target()), ("GET", "/verify"));
    let said = |name: &str| asked.field(name);
    assert_eq!(
        ["x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri", "cookie"]
            .map(said),
        ["GET", "http", "edge.test", "/b?c=%20d", "sid=t"]
    );
    assert!(!asked.has("x-secret") && !asked.has("x-user") && asked.body.is_empty());
    let seen = origin.last();
    assert_eq!((seen.field("x-user"), seen.field("x-number")), ("anna".into(), "0".into()));
    let users = seen.head.fields.iter().filter(|(name, _)| name == "x-user").count();
    assert_eq!(users, 1, "what a client says of itself does not arrive");
    assert_eq!(edge.record("target", "/b?c=%20d")["caller"], "anna");
}

#[test]
fn an_answer_counts_for_requests_that_tell_the_same_and_for_no_others() {
    let (service, origin) = (service(), Origin::named("in"));
    let edge = asking(&service, &origin, KEPT, TOLD);
    let mut client = edge.connect();
    for (nth, (path, fields, asked)) in [
        ("/a", "", 1),
        ("/a", "x-other: y\r\n", 1),
        ("/b", "", 2),
        ("/a?b", "", 3),
        ("/a", "cookie: sid=t\r\n", 4),
        ("/a", "", 4),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(client.ask(path, format!("{ANNA}{fields}")).status, 200, "{nth}");
        assert_eq!(service.count(), asked, "{nth}");
    }
    client.send(format!("DELETE /a HTTP/1.1\r\nhost: edge.test\r\n{ANNA}content-length: 0\r\n\r\n"));
    assert_eq!((client.answer().status, service.count()), (200, 5));
    assert_eq!(client.ask("/secret", ANNA).status, 403);
    assert_eq!(client.ask("/a", "").status, 401);
}

#[test]
fn its_no_reaches_the_client_with_its_challenges_and_is_remembered_for_a_moment() {
    let (service, origin) = (service(), Origin::named("in"));
    let edge = asking(&service, &origin, KEPT, TOLD);
    let answer = edge.get("/a");
    let challenges = answer.head.fields.iter().filter(|(name, _)| name == "www-authenticate");
    assert_eq!(answer.status, 401);
    assert_eq!(challenges.map(|(_, value)| &**value).collect::<Vec<_>>(), ["Basic realm=\"x\"", "Bearer"]);
    let answer = edge.ask("/secret", ANNA);
    assert_eq!((answer.status, answer.has("www-authenticate")), (403, false));
    assert_eq!(edge.record("target", "/secret")["refusal"], "forbidden");
    assert_eq!(origin.count(), 0);
    let before = service.count();
    let mut client = edge.connect();
    let asked_within_a_second = (0..20)
        .map(|_| {
            let begun = Instant::now();
            assert_eq!(client.ask("/secret", ANNA).status, 403);
            begun.elapsed()
        })
        .sum::<Duration>();
    // Once for each second that this took, and one more.
    assert!(
        service.count() - before <= 1 + asked_within_a_second.as_secs() as usize,
        "not each of them asks"
    );
}

#[test]
fn what_is_neither_yes_nor_no_is_an_outage_and_the_service_is_asked_on() {
    let (service, origin) = (service(), Origin::named("in"));
    let edge = asking(&service, &origin, KEPT, TOLD);
    for path in ["/302", "/404", "/500", "/long"] {
        let answer = edge.ask(path, ANNA);
        assert_eq!((answer.status, answer.has("retry-after")), (503, true), "{path}");
    }
    assert_eq!(edge.record("target", "/404")["refusal"], "sessions_down");
    assert_eq!(edge.ask("/a", ANNA).status, 200, "what one client asked for is no trouble for another");
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_service_that_is_silent_or_gone_lets_nobody_pass() {
    let origin = Origin::named("in");
    let silent = Origin::start(|_: &Request, _: &mut Wire| std::thread::park());
    let edge = asking(&silent, &origin, KEPT, TOLD);
    assert_eq!(edge.ask("/a", ANNA).status, 503);
    let mut gone = service();
    gone.die();
    assert_eq!(asking(&gone, &origin, KEPT, TOLD).ask("/a", ANNA).status, 503);
    assert_eq!(origin.count(), 0);
}

#[test]
fn who_is_known_outlives_the_service_where_the_plan_says_so() {
    let (mut service, origin) = (service(), Origin::named("in"));
    let edge = asking(&service, &origin, "memory_ttl: 50ms\n    serve_known_for: 1h", TOLD);
    assert_eq!(edge.ask("/a", ANNA).status, 200);
    service.die();
    until("the answer is old", || edge.ask("/b", ANNA).status == 503);
    for _ in 0..20 {
        assert_eq!(edge.ask("/a", ANNA).status, 200);
    }
    assert_eq!([edge.ask("/b", ANNA).status, edge.ask("/a", "").status], [503, 503]);
}

#[test]
fn a_crowd_that_tells_the_same_asks_once() {
    let gate = Arc::new(Gate::default());
    let (passing, origin) = (Arc::clone(&gate), Origin::named("in"));
    let service = Origin::start(move |_, wire| {
        passing.pass();
        wire.send("HTTP/1.1 200 Yes\r\nx-user: anna\r\ncontent-length: 0\r\n\r\n");
    });
    let edge = asking(&service, &origin, KEPT, TOLD);
    let mut crowd: Vec<_> = (0..20).map(|_| edge.connect()).collect();
    for client in &mut crowd {
        client.send(format!("GET /a HTTP/1.1\r\nhost: edge.test\r\n{ANNA}\r\n"));
    }
    until("somebody asks", || service.count() > 0);
    gate.open();
    for client in &mut crowd {
        assert_eq!(client.answer().status, 200);
    }
    assert_eq!(service.count(), 1);
}

#[test]
fn a_gate_shares_what_is_behind_it_and_lets_nobody_else_look() {
    let origin =
        Origin::saying("HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 2\r\n\r\nin");
    let service = service();
    let edge = Edge::start(&format!(
        "caches: {{ store: {{}} }}
sessions:
  gate:
    memory_ttl: 0s
    ask:
      upstream: auth
      path: /verify
      answer: headers
      request_headers: {{ x-forwarded-uri: \"${{request.target}}\", authorization: \"Basic ${{query.pw}}\" }}
upstreams: {{ auth: {{ servers: [{}] }}, api: {{ servers: [{}] }} }}
routes: [{{ match: /*, session: {{ use: gate }}, cache: {{ in: store, key: \"${{request.path}}\" }}, to: api }}]
",
        service.address, origin.address
    ));
    for _ in 0..2 {
        assert_eq!(edge.get("/a?pw=pw").status, 200);
        assert_eq!(edge.get("/a?pw=guess").status, 401, "although it is kept");
    }
    assert_eq!((origin.count(), service.count()), (1, 4));
    assert!(!origin.last().has("x-weir-identity"));
}

#[test]
fn a_reload_forgets_what_another_service_said() {
    let (first, origin) = (service(), Origin::named("in"));
    let edge = asking(&first, &origin, KEPT, TOLD);
    assert_eq!(edge.ask("/a", ANNA).status, 200);
    let text = std::fs::read_to_string(edge.config()).unwrap();
    edge.reload(&text.replace(&first.address.to_string(), &nobody().to_string()));
    assert_eq!(edge.ask("/a", ANNA).status, 503);
}
