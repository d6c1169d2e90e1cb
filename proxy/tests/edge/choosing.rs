//! Who is asked: the same peers that a real nginx asks, and the peer that has the session.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use weir_testkit::Nginx;

use crate::support::{Answer, Client, Edge, Gate, Origin, ok, until};

/// Five origins that say their names; what is asked for under `/hold` waits for the gate.
fn origins(gate: &Arc<Gate>) -> Vec<Origin> {
    let origin = |name: &'static str| {
        let gate = Arc::clone(gate);
        Origin::start(move |request, wire| {
            if request.target().starts_with("/hold") {
                gate.pass();
            }
            wire.send(ok(name));
        })
    };
    ["a", "b", "c", "d", "e"].map(origin).into()
}

/// One method in both languages; the weights belong to the servers in their order.
struct Method {
    nginx: &'static str,
    ours: &'static str,
    weights: [u32; 5],
}

const EVEN: [u32; 5] = [1; 5];
const UNEVEN: [u32; 5] = [5, 1, 3, 1, 2];

fn both(origins: &[Origin], method: &Method) -> (Nginx, Edge) {
    let servers = || origins.iter().zip(method.weights).map(|(origin, weight)| (origin.address, weight));
    let nginx: String =
        servers().map(|(address, weight)| format!("server {address} weight={weight};\n")).collect();
    let ours: String =
        servers().map(|(address, weight)| format!("{{ address: {address}, weight: {weight} }}, ")).collect();
    let nginx = Nginx::start(
        &format!("upstream api {{ {};\n{nginx} }}", method.nginx),
        "set_real_ip_from 127.0.0.1; real_ip_header X-Forwarded-For; proxy_http_version 1.1; location / { proxy_pass http://api; }",
    );
    let edge = Edge::start(&format!(
        "clients: {{ trusted: [127.0.0.0/8] }}\nupstreams:\n  api: {{ balance: {}, servers: [{ours}] }}\nroutes: [{{ match: /*, to: api }}]\n",
        method.ours
    ));
    (nginx, edge)
}

/// Who gets each of 200 keys, on one connection, so that a request is over before the next one.
fn answers(address: SocketAddr) -> Vec<String> {
    let mut client = Client::connect(address);
    let one = |key: u32| {
        let from = format!("x-forwarded-for: 10.{}.{}.7\r\n", key % 7, key * 31 % 256);
        let answer = client.ask(&format!("/key/{key}?x={}", key * key), from);
        assert_eq!(answer.status, 200);
        answer.text()
    };
    (0..200).map(one).collect()
}

#[track_caller]
fn alike(method: &Method) {
    let gate = Arc::new(Gate::default());
    let mut origins = origins(&gate);
    let (nginx, edge) = both(&origins, method);
    let (theirs, ours) = (answers(nginx.address()), answers(edge.http()));
    assert_eq!(theirs, ours, "{}", method.nginx);
    let mut tally: HashMap<&str, usize> = HashMap::new();
    ours.iter().for_each(|name| *tally.entry(name).or_default() += 1);
    assert_eq!(tally.len(), 5, "everybody has a part: {tally:?}");

    origins[2].die();
    let (theirs, ours) = (answers(nginx.address()), answers(edge.http()));
    assert_eq!(theirs, ours, "{} with a dead peer", method.nginx);
    assert!(!ours.contains(&"c".to_owned()));
}

#[test]
fn weighted_round_robin_asks_whom_nginx_asks() {
    alike(&Method { nginx: "zone api 64k", ours: "round_robin", weights: UNEVEN });
}

#[test]
fn an_address_has_the_peer_that_it_has_in_nginx() {
    alike(&Method { nginx: "ip_hash", ours: "ip_hash", weights: EVEN });
    alike(&Method { nginx: "ip_hash", ours: "ip_hash", weights: UNEVEN });
}

#[test]
fn a_key_has_the_peer_that_it_has_in_nginx() {
    let ours = "{ hash: \"${request.target}\" }";
    alike(&Method { nginx: "hash $request_uri", ours, weights: EVEN });
    alike(&Method { nginx: "hash $request_uri", ours, weights: UNEVEN });
}

#[test]
fn a_key_has_the_place_on_the_ring_that_it_has_in_nginx() {
    let ours = "{ hash: \"${request.target}\", consistent: true }";
    alike(&Method { nginx: "hash $request_uri consistent", ours, weights: EVEN });
    alike(&Method { nginx: "hash $request_uri consistent", ours, weights: UNEVEN });
}

#[test]
fn the_least_busy_is_who_is_the_least_busy_in_nginx() {
    let gate = Arc::new(Gate::default());
    let origins = origins(&gate);
    let (nginx, edge) = both(&origins, &Method { nginx: "least_conn", ours: "least_conn", weights: UNEVEN });
    // Some are busy for as long as the others are asked.
    let arrived = || origins.iter().map(Origin::count).sum::<usize>();
    let mut held = Vec::new();
    for address in [nginx.address(), edge.http()] {
        for _ in 0..7 {
            let (before, mut client) = (arrived(), Client::connect(address));
            client.send("GET /hold HTTP/1.1\r\nhost: h\r\n\r\n");
            until("it is asked", || arrived() > before);
            held.push(client);
        }
    }
    assert_eq!(answers(nginx.address()), answers(edge.http()));
    gate.open();
    let mut names = held.iter_mut().map(|client| client.answer().text());
    let (theirs, ours): (Vec<_>, Vec<_>) = (names.by_ref().take(7).collect(), names.collect());
    assert_eq!(theirs, ours);
}

/// An edge before these origins, with further keys of the upstream.
fn sticky(servers: &str, rule: &str) -> Edge {
    Edge::start(&format!(
        "upstreams:\n  api: {{ sticky: {rule}, servers: [{servers}] }}\nroutes: [{{ match: /*, to: api }}]\n"
    ))
}

/// Name and value of the cookie that an answer sets.
fn cookie(answer: &Answer) -> String {
    answer.field("set-cookie").split(';').next().unwrap().to_owned()
}

#[test]
fn a_cookie_keeps_a_client_at_its_peer_on_every_edge_and_another_replaces_it_when_that_is_dead() {
    let mut origins: HashMap<&str, Origin> = ["a", "b", "c"].map(|name| (name, Origin::named(name))).into();
    let servers: String = ["a", "b", "c"].map(|name| format!("{}, ", origins[name].address)).concat();
    let rule = "{ cookie: { name: srv, http_only: true } }";
    let (edge, other) = (sticky(&servers, rule), sticky(&servers, rule));
    edge.get("/");
    let first = edge.get("/");
    assert!(first.field("set-cookie").ends_with("; HttpOnly"));
    let (home, sent) = (first.text(), format!("cookie: {}\r\n", cookie(&first)));
    let address = origins[&*home].address.to_string();
    assert!(!first.field("set-cookie").contains(&address), "an address is nobody's business");
    for edge in [&edge, &other] {
        assert!((0..6).all(|_| edge.ask("/", &sent).text() == home));
    }
    origins.get_mut(&*home).unwrap().die();
    let moved = edge.ask("/", &sent);
    assert_eq!(moved.status, 200);
    assert_ne!(moved.text(), home);
    let sent = format!("cookie: {}\r\n", cookie(&moved));
    assert!(
        (0..6).all(|_| other.ask("/", &sent).text() == moved.text()),
        "the new cookie is of the new peer"
    );
}

#[test]
fn a_drained_peer_keeps_its_sessions_over_a_reload_and_gets_no_others() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let yaml = |drain| {
        format!(
            "upstreams:\n  api:\n    sticky: {{ route: [\"${{query.r}}\"] }}\n    servers:\n      - {{ address: {}, route: a, drain: {drain} }}\n      - {{ address: {}, route: b }}\nroutes: [{{ match: /*, to: api }}]\n",
            a.address, b.address
        )
    };
    let edge = Edge::start(&yaml(false));
    assert!((0..3).all(|_| edge.get("/?r=a").text() == "a"));
    edge.reload(&yaml(true));
    assert!((0..3).all(|_| edge.get("/?r=a").text() == "a"));
    assert!((0..6).all(|_| edge.get("/").text() == "b"));
}

#[test]
fn a_session_that_an_origin_begins_is_learned() {
    let origin = |name: &'static str| {
        Origin::start(move |request, wire| {
            let begins = if request.target() == "/login" {
                format!("set-cookie: sid=s-{name}\r\n")
            } else {
                String::new()
            };
            wire.answer(&begins, name);
        })
    };
    let (a, b) = (origin("a"), origin("b"));
    let rule = "{ learn: { create: [{ cookie: sid }], lookup: \"${cookie.sid}\" } }";
    let edge = sticky(&format!("{}, {}", a.address, b.address), rule);
    for _ in 0..2 {
        let login = edge.get("/login");
        let sent = format!("cookie: {}\r\n", cookie(&login));
        assert!((0..5).all(|_| edge.ask("/", &sent).text() == login.text()));
    }
}

#[test]
fn an_answer_that_is_kept_carries_no_session_to_others() {
    let origin = Origin::start(|_, wire| wire.answer("cache-control: max-age=60\r\n", "kept"));
    let edge = Edge::start(&format!(
        "upstreams: {{ api: {{ sticky: {{ cookie: srv }}, servers: [{}] }} }}\ncaches: {{ all: {{}} }}\n\
         routes: [{{ match: /*, to: api, cache: {{ in: all }} }}]\n",
        origin.address
    ));
    assert!((0..3).all(|_| !edge.get("/").has("set-cookie")));
    assert_eq!(origin.count(), 1);
    assert!(edge.send("POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").has("set-cookie"));
}

#[test]
fn fail_open_asks_a_peer_whose_checks_lie() {
    let origin = Origin::start(|request, wire| {
        let sick = "HTTP/1.1 500 Sick\r\ncontent-length: 0\r\n\r\n".to_owned();
        wire.send(if request.target() == "/health" { sick } else { ok("well") });
    });
    let edge = Edge::start(&format!(
        "upstreams:\n  api: {{ when_all_down: fail_open, health: {{ interval: 100ms, fall: 1 }}, servers: [{}] }}\nroutes: [{{ match: /*, to: api }}]\n",
        origin.address
    ));
    until("it is out", || edge.admin("/health").status == 503);
    assert_eq!(edge.get("/").text(), "well");
}
