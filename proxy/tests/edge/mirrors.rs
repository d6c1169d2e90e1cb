//! Mirrors: the same request once more, and nobody waits for it.

use std::sync::Arc;

use crate::support::{Edge, Gate, Origin, nobody, ok, until};

fn edge(api: &Origin, shadow: impl std::fmt::Display, rest: &str) -> Edge {
    Edge::start(&format!(
        "upstreams:
  api: {{ servers: [\"{}\"] }}
  shadow: {{ servers: [\"{shadow}\"], timeouts: {{ connect: 1s }} }}
routes:
  - {{ name: r, match: /*, to: api, mirror: {{ to: shadow{rest} }} }}
",
        api.address
    ))
}

fn count(edge: &Edge, outcome: &str) -> f64 {
    edge.metric(&format!("weir_mirrors_total{{outcome=\"{outcome}\",route=\"r\"}}"))
}

#[test]
fn a_mirror_gets_the_same_request_with_its_body() {
    let (api, shadow) = (Origin::named("api"), Origin::named("shadow"));
    let edge = edge(&api, shadow.address, "");
    assert_eq!(edge.ask("/get?a=b", "x-mine: 1\r\n").text(), "api");
    let chunked = "POST /chunked HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
    assert_eq!(edge.send(chunked).text(), "api");
    let body = "x".repeat(200 * 1024);
    let long = format!("PUT /long HTTP/1.1\r\nhost: h\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    assert_eq!(edge.send(long).text(), "api");
    let outcomes = || ["sent", "dropped", "failed"].map(|outcome| count(&edge, outcome));
    until("they came to an end", || outcomes().iter().sum::<f64>() == 3.0);
    assert_eq!(outcomes(), [3.0, 0.0, 0.0], "sent, dropped, failed");
    let seen = shadow.seen();
    let found = |target: &str| seen.iter().find(|request| request.target() == target).unwrap();
    assert_eq!(found("/get?a=b").field("x-mine"), "1");
    assert_eq!(found("/chunked").body, b"abcde");
    assert_eq!(found("/long").body.len(), body.len());
    assert_eq!(edge.record("target", "/get?a=b")["attempts"].as_array().unwrap().len(), 1);
}

#[test]
fn nobody_waits_for_a_mirror_that_hangs_or_is_not_there() {
    let api = Origin::named("api");
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let hanging = Origin::start(move |_, wire| {
        release.pass();
        wire.send(ok("late"));
    });
    let slow = edge(&api, hanging.address, "");
    let mut client = slow.connect();
    for _ in 0..70 {
        assert_eq!(client.ask("/", "").text(), "api");
    }
    assert_eq!(count(&slow, "dropped"), 6.0, "64 at once, and no more");
    gate.open();
    until("the others are through", || count(&slow, "sent") == 64.0);

    let alone = edge(&api, nobody(), "");
    assert_eq!(alone.get("/").text(), "api");
    until("it is counted", || count(&alone, "failed") == 1.0);
}

#[test]
fn a_mirror_that_does_not_read_is_given_up_and_the_upload_goes_on() {
    let api = Origin::start(|request, wire| wire.answer("", request.body.len().to_string()));
    let gate = Arc::new(Gate::default());
    let release = Arc::clone(&gate);
    let deaf = Origin::connections(move |mut client| {
        client.head();
        release.pass();
    });
    let edge = edge(&api, deaf.address, "");
    let length = 32 << 20;
    let mut client = edge.connect();
    client
        .send(format!("PUT / HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n"))
        .send(vec![b'x'; length]);
    assert_eq!(client.answer().text(), length.to_string());
    until("it is counted", || count(&edge, "dropped") == 1.0);
    gate.open();
}

#[test]
fn a_share_of_nothing_mirrors_nothing() {
    let (api, shadow) = (Origin::named("api"), Origin::named("shadow"));
    let edge = edge(&api, shadow.address, ", percent: 0");
    for _ in 0..20 {
        assert_eq!(edge.get("/").text(), "api");
    }
    assert_eq!(shadow.count(), 0);
}
