//! What sticky sessions promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{borrow::Cow, time::UNIX_EPOCH};

use weir_config::template::Variable;

use super::*;
use crate::balance::Endpoint;

/// The variables of a request, as written.
struct Request(&'static [(&'static str, &'static str)]);

impl Values for Request {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        let written = variable.to_string();
        self.0.iter().find(|(name, _)| *name == written).map(|(_, value)| Cow::Borrowed(*value))
    }
}

const STRANGER: Request = Request(&[]);

/// The rule that config.yaml says under `sticky`.
fn sticky(rule: &str) -> Arc<Sticky> {
    let yaml = format!(
        "listeners: [127.0.0.1:80]\nupstreams: {{ api: {{ sticky: {rule}, servers: [127.0.0.1:1] }} }}\nroutes: [{{ to: api }}]\n"
    );
    let plan = weir_config::load("config.yaml", &yaml, &|_: &str| None).unwrap().plan;
    Sticky::rebuild(None, plan.upstreams[0].sticky.as_ref().unwrap())
}

fn peer(route: &str) -> Peer {
    Peer::new(Endpoint {
        name: "a:1".into(),
        address: ([127, 0, 0, 1], 1).into(),
        weight: 1,
        max_conns: 0,
        max_fails: 1,
        fail_timeout: Duration::ZERO,
        backup: false,
        down: false,
        drain: false,
        slow_start: Duration::ZERO,
        route: route.into(),
    })
}

/// The fields for the client after `peer` answered with these.
fn answer(
    sticky: &Sticky,
    request: &Request,
    peer: &Peer,
    fields: &[(&str, &str)],
    now: Instant,
) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    }
    sticky.answered(request, peer, &mut map, now, UNIX_EPOCH);
    map
}

fn route(sticky: &Sticky, request: &Request, now: Instant) -> Option<String> {
    sticky.route(request, now).map(|route| route.to_string())
}

#[test]
fn a_cookie_names_the_peer_and_brings_the_next_request_to_it() {
    let (sticky, now) = (sticky("{ cookie: srv }"), Instant::now());
    assert_eq!(route(&sticky, &STRANGER, now), None);
    let fields = answer(&sticky, &STRANGER, &peer("a"), &[("set-cookie", "own=1")], now);
    let cookies: Vec<_> = fields.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["own=1", "srv=a"], "the peer's own cookies stay");
    assert_eq!(route(&sticky, &Request(&[("cookie.srv", "a")]), now).as_deref(), Some("a"));
    assert_eq!(route(&sticky, &Request(&[("cookie.srv", "")]), now), None);
}

#[test]
fn a_cookie_has_the_attributes_of_the_plan() {
    let rule = "{ cookie: { name: srv, expires: 1h, domain: a.test, path: /x, http_only: true, secure: true, same_site: lax } }";
    let fields = answer(&sticky(rule), &STRANGER, &peer("a"), &[], Instant::now());
    assert_eq!(
        fields["set-cookie"],
        "srv=a; Expires=Thu, 01 Jan 1970 01:00:00 GMT; Max-Age=3600; Domain=a.test; Path=/x; HttpOnly; Secure; SameSite=Lax"
    );
}

#[test]
fn an_address_is_not_told_and_is_the_same_word_as_in_nginx() {
    // echo -n 127.0.0.1:8081 | md5sum
    let route = route_of(&([127, 0, 0, 1], 8081).into());
    assert_eq!(&*route, "df2b80dc43705d28db9be6f29fe58da3");
    assert_eq!(&*route_of(&([0, 0, 0, 0, 0, 0, 0, 1], 80).into()), "c1308178d10b33ec4a853215e9af4ea2");
}

#[test]
fn the_first_route_that_is_not_empty_counts() {
    let (sticky, now) = (sticky("{ route: [\"${cookie.r}\", \"${query.r}\"] }"), Instant::now());
    let both = Request(&[("cookie.r", "a"), ("query.r", "b")]);
    assert_eq!(route(&sticky, &both, now).as_deref(), Some("a"));
    let second = Request(&[("cookie.r", ""), ("query.r", "b")]);
    assert_eq!(route(&sticky, &second, now).as_deref(), Some("b"));
    assert!(answer(&sticky, &both, &peer("a"), &[], now).is_empty(), "nothing is added to the answer");
}

#[test]
fn a_field_goes_both_ways() {
    let (sticky, now) = (sticky("{ header: x-server }"), Instant::now());
    assert_eq!(answer(&sticky, &STRANGER, &peer("a"), &[("x-server", "lies")], now)["x-server"], "a");
    assert_eq!(route(&sticky, &Request(&[("header.x-server", "a")]), now).as_deref(), Some("a"));
}

const LEARN: &str = "{ learn: { create: [{ cookie: sid }, { header: x-sid }], lookup: \"${cookie.sid}\", timeout: 60s, sessions: 2 } }";

fn later(now: Instant, seconds: u64) -> Instant {
    now + Duration::from_secs(seconds)
}

#[test]
fn a_session_is_learned_from_the_answer_that_begins_it() {
    let (sticky, now) = (sticky(LEARN), Instant::now());
    let one = Request(&[("cookie.sid", "1")]);
    assert_eq!(route(&sticky, &one, now), None);
    let begins = [("set-cookie", "other=9"), ("set-cookie", "sid=1; Path=/; HttpOnly")];
    let fields = answer(&sticky, &STRANGER, &peer("a"), &begins, now);
    assert_eq!(fields.get_all("set-cookie").iter().count(), 2, "nothing is added");
    assert_eq!(route(&sticky, &one, now).as_deref(), Some("a"));
    answer(&sticky, &STRANGER, &peer("b"), &[("x-sid", "1")], now);
    assert_eq!(route(&sticky, &one, now).as_deref(), Some("b"), "begun anew elsewhere");
}

#[test]
fn a_session_moves_with_the_peer_that_answers_and_nobody_enters_one_by_asking() {
    let (sticky, now) = (sticky(LEARN), Instant::now());
    let one = Request(&[("cookie.sid", "1")]);
    answer(&sticky, &one, &peer("a"), &[], now);
    assert_eq!(route(&sticky, &one, now), None, "only answers create");
    answer(&sticky, &STRANGER, &peer("a"), &[("x-sid", "1")], now);
    answer(&sticky, &one, &peer("b"), &[], now);
    assert_eq!(route(&sticky, &one, now).as_deref(), Some("b"));
}

#[test]
fn a_session_lives_as_long_as_it_is_used() {
    let (sticky, now) = (sticky(LEARN), Instant::now());
    let one = Request(&[("cookie.sid", "1")]);
    answer(&sticky, &STRANGER, &peer("a"), &[("x-sid", "1")], now);
    answer(&sticky, &one, &peer("a"), &[], later(now, 50));
    assert!(route(&sticky, &one, later(now, 110)).is_some());
    assert!(route(&sticky, &one, later(now, 111)).is_none());
    answer(&sticky, &one, &peer("a"), &[], later(now, 112));
    assert!(route(&sticky, &one, later(now, 112)).is_none(), "what is over does not come back");
}

#[test]
fn the_table_is_bounded_and_forgets_the_session_unused_for_longest() {
    let (sticky, now) = (sticky(LEARN), Instant::now());
    let create = |name| answer(&sticky, &STRANGER, &peer("a"), &[("x-sid", name)], now);
    let (one, two) = (Request(&[("cookie.sid", "1")]), Request(&[("cookie.sid", "2")]));
    create("1");
    create("2");
    answer(&sticky, &one, &peer("a"), &[], now);
    create("3");
    assert!(route(&sticky, &one, now).is_some());
    assert!(route(&sticky, &two, now).is_none());
}

#[test]
fn a_reload_keeps_what_was_learned_as_long_as_the_rule_stays() {
    let (old, now) = (sticky(LEARN), Instant::now());
    answer(&old, &STRANGER, &peer("a"), &[("x-sid", "1")], now);
    let one = Request(&[("cookie.sid", "1")]);
    assert!(route(&Sticky::rebuild(Some(&old), &old.plan), &one, now).is_some());
    assert!(route(&Sticky::rebuild(Some(&old), &sticky("{ cookie: sid }").plan), &STRANGER, now).is_none());
}
