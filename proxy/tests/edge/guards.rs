//! Who may pass, by address and by how often.

use crate::support::{Edge, Origin};

#[test]
fn an_address_that_is_denied_hears_403_and_the_origin_nothing() {
    let origin = Origin::named("in");
    let yaml = format!(
        "clients: {{ trusted: [127.0.0.0/8] }}
upstreams: {{ api: {{ servers: [{}] }} }}
routes:
  - match: /*
    access: {{ allow: [10.0.0.0/8], deny: [10.9.0.0/16] }}
    to: api
",
        origin.address
    );
    let edge = Edge::start(&yaml);
    let from = |client: &str| edge.ask("/", &format!("x-forwarded-for: {client}\r\n")).status;
    assert_eq!([from("10.1.1.1"), from("10.9.1.1"), from("192.0.2.1")], [200, 403, 403]);
    assert_eq!(origin.count(), 1);
}

#[test]
fn a_limit_counts_each_key_for_itself() {
    let origin = Origin::named("in");
    let edge =
        Edge::routing(&origin, "limit: [few]", "limits: { few: { key: \"${header.x-who}\", rate: 3/h } }");
    let ask = |who: &str| edge.ask("/", &format!("x-who: {who}\r\n"));
    for _ in 0..3 {
        assert_eq!(ask("a").status, 200);
    }
    let refused = ask("a");
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.field("retry-after").parse().unwrap();
    assert!((1..=1200).contains(&wait), "one of three an hour comes back within 20 minutes: {wait}");
    assert_eq!(ask("b").status, 200, "another key has its own count");
    assert_eq!(origin.count(), 4);
    assert!(edge.metric("weir_limit_requests_total{limit=\"few\",verdict=\"refused\"}") == 1.0);
}

#[test]
fn who_waits_as_long_as_told_is_admitted() {
    let origin = Origin::named("in");
    let edge = Edge::routing(&origin, "limit: [few]", "limits: { few: { rate: 1/s } }");
    let mut client = edge.connect();
    assert_eq!(client.ask("/", "").status, 200);
    let refused = client.ask("/", "");
    assert_eq!((refused.status, &*refused.field("retry-after")), (429, "1"));
    // Asked too early it is refused without being charged, so asking until it passes ends.
    crate::support::until("the next second's request", || client.ask("/", "").status == 200);
}
