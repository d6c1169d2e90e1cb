//! What the log tells an operator: each trouble once, with its cause, and once when it is over.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use crate::{
    protocols::{certificate, tls, tls_listener},
    support::{Client, Edge, Origin, nobody, ok, until},
};

/// The log's lines with this message.
fn told(edge: &Edge, message: &str) -> Vec<serde_json::Value> {
    let output = edge.output();
    let events = output.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    events.filter(|event| event["fields"]["message"] == message).collect()
}

/// An origin that can be in trouble: it answers 500 then, or not at all.
fn moody(silent: bool) -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = Arc::clone(&well);
    let origin = Origin::start(move |request, wire| match (is_well.load(Ordering::SeqCst), silent) {
        (true, _) if request.target() == "/auth" => wire.answer("", r#"{"user_id":"anna"}"#),
        (true, _) => {
            wire.send(ok("x"));
        }
        (false, true) => wire.cut(),
        (false, false) => {
            wire.send("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n");
        }
    });
    (origin, well)
}

#[test]
fn a_source_of_sessions_in_trouble_is_told_once_with_its_cause_and_once_when_it_is_back() {
    let ((source, well), behind) = (moody(false), Origin::named("in"));
    let edge = Edge::start(&format!(
        "sessions: {{ app: {{ from: bearer, ask: {{ upstream: who, path: /auth }} }} }}
identity: {{ secret: a test's secret of more than thirty-two bytes }}
upstreams: {{ api: {{ servers: [{}] }}, who: {{ servers: [{}] }} }}
routes: [{{ session: {{ use: app, required: true }}, to: api }}]
",
        behind.address, source.address
    ));
    let ask = |token: usize| edge.ask("/", &format!("authorization: Bearer token-{token}\r\n")).status;
    assert_eq!(ask(1), 200);
    well.store(false, Ordering::SeqCst);
    assert_eq!([2, 3, 4].map(ask), [503; 3]);
    well.store(true, Ordering::SeqCst);
    assert_eq!([5, 6].map(ask), [200; 2]);
    let down = told(&edge, "sessions cannot be looked up");
    assert_eq!(down.len(), 1, "{down:?}");
    assert_eq!((&down[0]["level"], &down[0]["fields"]["session"]), (&"WARN".into(), &"app".into()));
    assert!(down[0]["fields"]["cause"].as_str().is_some_and(|cause| cause.contains("500")), "{down:?}");
    let back = told(&edge, "sessions can be looked up again");
    assert_eq!((back.len(), &back[0]["level"]), (1, &"INFO".into()));
}

#[test]
fn a_peer_that_stays_dead_is_told_once_and_its_first_answer_once() {
    let ((dying, well), other) = (moody(true), Origin::named("other"));
    let edge = Edge::start(&format!(
        "upstreams:
  api:
    outlier: off
    servers:
      - {{ address: {}, fail_timeout: 50ms }}
      - {}
routes: [{{ to: api }}]
",
        dying.address, other.address
    ));
    well.store(false, Ordering::SeqCst);
    until("it was asked again and again", || {
        assert_eq!(edge.get("/").status, 200);
        dying.count() >= 4
    });
    assert_eq!(told(&edge, "peer answers again").len(), 0);
    well.store(true, Ordering::SeqCst);
    until("it answers", || edge.get("/").text() == "x");
    for _ in 0..4 {
        edge.get("/");
    }
    until("its answer is told", || !told(&edge, "peer answers again").is_empty());
    let out = told(&edge, "peer is out after failed requests");
    assert_eq!((out.len(), told(&edge, "peer answers again").len()), (1, 1), "{out:?}");
    assert_eq!(out[0]["fields"]["peer"], dying.address.to_string());
}

#[test]
fn a_check_that_cannot_connect_says_why() {
    let (dead, folder) = (nobody(), tempfile::tempdir().unwrap());
    certificate(folder.path(), "other", "other.test");
    let listener = tls_listener(folder.path(), &["other"]);
    let behind = Edge::start(&format!("listeners: [{listener}]\nroutes: [{{ answer: {{}} }}]\n"));
    let untrusted = behind.https();
    let edge = Edge::start(&format!(
        "upstreams:
  dead:
    servers: [{dead}]
    health: {{ path: /, interval: 100ms, fall: 1 }}
  stranger:
    servers: [{untrusted}]
    health: {{ path: /, interval: 100ms, fall: 1 }}
    tls: {{ name: other.test }}
routes: [{{ match: /dead, to: dead }}, {{ to: stranger }}]
"
    ));
    until("both are out", || told(&edge, "peer is out").len() == 2);
    let reason = |upstream: &str| {
        let all = told(&edge, "peer is out");
        let one = all.iter().find(|event| event["fields"]["upstream"] == upstream).unwrap();
        one["fields"]["reason"].as_str().unwrap().to_owned()
    };
    assert!(reason("dead").starts_with("cannot connect: Connection refused"), "{}", reason("dead"));
    assert!(reason("stranger").contains("invalid peer certificate: UnknownIssuer"), "{}", reason("stranger"));
}

#[test]
fn a_certificate_that_ends_soon_is_told_with_its_days() {
    let folder = tempfile::tempdir().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let hours = |hours: u64| std::time::Duration::from_secs(hours * 3600);
    for (file, end) in [("soon", now + hours(73)), ("later", now + hours(9_999)), ("over", now - hours(25))] {
        let mut made = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        made.not_after = rcgen::date_time_ymd(1970, 1, 1) + end;
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = made.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join(format!("{file}.pem")), pem).unwrap();
        std::fs::write(folder.path().join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
    let listener = tls_listener(folder.path(), &["soon", "later", "over"]);
    let yaml = format!("listeners: [{listener}]\nroutes: [{{ answer: {{}} }}]\n");
    let edge = Edge::start(&yaml);
    let file = |name: &str| folder.path().join(format!("{name}.pem")).display().to_string();
    let days = |name: &str| edge.metric(&format!("weir_certificate_days_left{{file=\"{}\"}}", file(name)));
    assert_eq!(["soon", "later", "over"].map(days), [3.0, 416.0, -2.0]);
    let output = edge.output();
    assert!(output.contains(&format!("{} expires in 3 days", file("soon"))), "{output}");
    assert!(
        output.contains(&format!("{} has expired", file("over"))) && !output.contains("later.pem expires"),
        "{output}"
    );
    edge.reload(&yaml);
    assert_eq!(told(&edge, &format!("{} expires in 3 days", file("soon"))).len(), 1);
}

#[test]
fn handshakes_that_fail_are_counted_by_reason() {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "a", "a.test");
    let listener = tls_listener(folder.path(), &["a"]);
    let edge = Edge::start(&format!("listeners: [{listener}]\nroutes: [{{ answer: {{}} }}]\n"));
    let counted = |reason: &str| {
        let listener = edge.https();
        edge.metric(&format!(
            "weir_tls_handshakes_failed_total{{listener=\"{listener}\",reason=\"{reason}\"}}"
        ))
    };
    Client::connect(edge.https()).send("GET / HTTP/1.1\r\nhost: h\r\n\r\n").rest();
    until("plain HTTP is counted", || counted("not_tls") == 1.0);
    assert!(tls(edge.https(), "a.test", &[]).is_err());
    until("who does not believe us is counted", || counted("alert") == 1.0);
    assert_eq!((counted("not_tls"), counted("timeout")), (1.0, 0.0), "and once");
}

#[test]
fn a_reload_logs_the_warnings_of_its_file_with_their_places() {
    let edge = Edge::start("routes: [{ answer: {} }]\n");
    edge.reload("upstreams: { idle: { servers: [127.0.0.1:1] } }\nroutes: [{ answer: {} }]\n");
    let warned = told(&edge, "upstream `idle` is used by no route");
    assert_eq!((warned.len(), &warned[0]["level"]), (1, &"WARN".into()));
    assert!(
        warned[0]["fields"]["at"].as_str().is_some_and(|at| at.ends_with("config.yaml:3:14")),
        "{warned:?}"
    );
}
