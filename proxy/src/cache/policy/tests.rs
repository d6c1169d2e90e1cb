use super::*;
use crate::cache::{tags::Tags, testing::*};

fn judged(
    status: u16,
    response: &[(&'static str, &str)],
    request: &[(&'static str, &str)],
) -> Result<Head, NotStored> {
    under(&Rule::origin_alone(), status, response, request)
}

fn under(
    rule: &Rule,
    status: u16,
    response: &[(&'static str, &str)],
    request: &[(&'static str, &str)],
) -> Result<Head, NotStored> {
    let now = noon();
    let request = map(request);
    let sent = Sent {
        method: &Method::GET,
        headers: &request,
        has_body: false,
        moment: Tags::new().moment(),
        at: now,
        url: &Url::new("http", "example.org", "/"),
    };
    let status = StatusCode::from_u16(status).expect("a status of the table");
    judge(status, &map(response), &sent, rule, &[], now)
}

fn refused(
    status: u16,
    response: &[(&'static str, &str)],
    request: &[(&'static str, &str)],
) -> Option<NotStored> {
    judged(status, response, request).err()
}

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

#[test]
fn what_is_one_callers_is_kept_for_nobody() {
    let auth = ("authorization", "Bearer x");
    let cookie = ("cookie", "sid=1");
    for (cache_control, request, expected) in [
        ("max-age=60", auth, Some(NotStored::Authorization)),
        ("max-age=60, public", auth, None),
        ("s-maxage=60", auth, None),
        ("max-age=60, must-revalidate", auth, None),
        ("max-age=60", cookie, Some(NotStored::Cookie)),
        ("max-age=60, must-revalidate", cookie, Some(NotStored::Cookie)),
        ("max-age=60, public", cookie, None),
        ("s-maxage=60", cookie, None),
        ("max-age=60, private", ("x", "y"), Some(NotStored::Private)),
        ("public, PRIVATE, max-age=60", ("x", "y"), Some(NotStored::Private)),
        ("max-age=60, no-store", ("x", "y"), Some(NotStored::NoStore)),
        ("max-age=60", ("cache-control", "no-store"), Some(NotStored::NoStore)),
    ] {
        assert_eq!(
            refused(200, &[("cache-control", cache_control)], &[request]),
            expected,
            "{cache_control} {request:?}"
        );
    }
    assert_eq!(refused(200, &[MINUTE, ("set-cookie", "sid=1")], &[]), Some(NotStored::SetCookie));
}

#[test]
fn a_key_of_the_callers_own_allows_what_is_theirs_but_no_cookie_setting() {
    let rule = Rule { private_to_caller: true, ttl: Some(secs(60)), ..Rule::origin_alone() };
    let request = [("authorization", "Bearer x"), ("cookie", "sid=1")];
    assert!(under(&rule, 200, &[("cache-control", "private, max-age=1")], &request).is_ok());
    let set_cookie = under(&rule, 200, &[MINUTE, ("set-cookie", "a=b")], &request);
    assert_eq!(set_cookie.err(), Some(NotStored::SetCookie));
    let no_store = under(&rule, 200, &[("cache-control", "no-store")], &request);
    assert_eq!(no_store.err(), Some(NotStored::NoStore));
}

#[test]
fn a_rules_ttl_does_not_make_private_answers_everybodys() {
    let rule = Rule { ttl: Some(secs(60)), ..Rule::origin_alone() };
    assert!(under(&rule, 200, &[], &[]).is_ok());
    assert!(under(&rule, 200, &[("cache-control", "no-cache")], &[]).is_ok());
    assert_eq!(under(&rule, 200, &[("cache-control", "private")], &[]).err(), Some(NotStored::Private));
    assert_eq!(under(&rule, 200, &[], &[("cookie", "a=b")]).err(), Some(NotStored::Cookie));
}

#[test]
fn statuses_are_kept_as_far_as_they_are_understood() {
    for status in [200, 203, 204, 299, 300, 301, 302, 307, 308, 400, 404, 405, 410, 414, 500, 502, 503, 599] {
        assert_eq!(refused(status, &[MINUTE], &[]), None, "{status} with a lifetime");
    }
    for status in [304, 408, 412, 413, 416, 417, 421, 426, 429, 431] {
        assert_eq!(refused(status, &[MINUTE], &[]), Some(NotStored::Status), "{status}");
    }
    assert_eq!(refused(206, &[MINUTE], &[]), Some(NotStored::Partial));
    let old = [("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")];
    for status in [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501] {
        assert!(
            judged(status, &old, &[]).is_ok_and(|head| head.freshness.begins_fresh()),
            "{status}, guessed"
        );
    }
    for status in [500, 502, 503, 504] {
        assert_eq!(refused(status, &old, &[]), Some(NotStored::OriginError), "{status}, guessed");
    }
    assert_eq!(refused(400, &old, &[]), Some(NotStored::NoLifetime), "nobody asks about a 400");
}

/// Once a validator, or a span for stale answers, was enough to keep a 401, which then covered failures of the origin.
#[test]
fn a_status_that_no_lifetime_is_guessed_for_needs_a_word_to_be_kept() {
    let etag = ("etag", "\"a\"");
    let old = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    let stale = Rule { stale_if_error: secs(60), stale_while_revalidate: secs(60), ..Rule::origin_alone() };
    for status in [201, 202, 302, 303, 307, 401, 403] {
        for said in [vec![etag], vec![old], vec![("cache-control", "no-cache"), etag], vec![]] {
            let refused = under(&stale, status, &said, &[]).err();
            assert_eq!(refused, Some(NotStored::NoLifetime), "{status} {said:?}");
        }
        for said in ["max-age=0", "s-maxage=0", "public"] {
            assert_eq!(refused(status, &[("cache-control", said), etag], &[]), None, "{status} {said}");
        }
        assert_eq!(refused(status, &[("expires", "0"), etag], &[]), None, "{status}");
        let ruled = Rule { statuses: vec![(status..=status, secs(60))], ..stale.clone() };
        let always_asked = [("cache-control", "no-cache"), etag];
        assert!(under(&ruled, status, &always_asked, &[]).is_ok(), "{status}, by the route");
    }
    for status in [200, 404, 410] {
        assert_eq!(refused(status, &[etag], &[]), None, "{status}");
    }
}

/// A head of 10 KiB makes many servers answer 400, for a target that everybody else can read.
#[test]
fn a_400_that_a_large_head_may_have_caused_is_not_kept() {
    let large = "x".repeat(2100);
    assert_eq!(refused(400, &[MINUTE], &[("x-large", &large)]), Some(NotStored::Status));
    assert_eq!(refused(404, &[MINUTE], &[("x-large", &large)]), None);
}

#[test]
fn must_understand_lifts_no_store_only_for_what_is_understood() {
    let both = [("cache-control", "max-age=60, must-understand, no-store")];
    assert_eq!(refused(200, &both, &[]), None);
    assert_eq!(refused(299, &both, &[]), Some(NotStored::Status));
}

#[test]
fn an_answer_of_no_lifetime_is_kept_only_to_be_asked_about() {
    assert_eq!(refused(200, &[], &[]), Some(NotStored::NoLifetime));
    assert_eq!(refused(200, &[("cache-control", "no-cache")], &[]), Some(NotStored::NoLifetime));
    assert_eq!(refused(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")], &[]), None);
    assert_eq!(refused(200, &[MINUTE, ("age", "60")], &[]), Some(NotStored::NoLifetime));
    assert_eq!(refused(200, &[("cache-control", "max-age=0, stale-if-error=60")], &[]), None);
}

#[test]
fn fields_of_the_connection_and_named_private_ones_are_not_kept() {
    let head = judged(
        200,
        &[
            ("cache-control", "max-age=60, private=\"x-user, set-cookie\", no-cache=\"x-token\""),
            ("connection", "x-hop, keep-alive, vary"),
            ("vary", "accept"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("proxy-authenticate", "Basic"),
            ("age", "3"),
            ("x-user", "me"),
            ("x-token", "t"),
            ("set-cookie", "a=b"),
            ("x-kept", "yes"),
        ],
        &[],
    )
    .expect("kept without the private fields");
    let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["cache-control", "date", "vary", "x-kept"]);
    assert_eq!(head.freshness.age(noon()).as_secs(), 3, "the age counts though the field is not kept");
}

#[test]
fn tags_come_from_both_fields_and_are_bounded() {
    let head = judged(200, &[MINUTE, ("cache-tag", "a, b"), ("surrogate-key", "b c")], &[]).expect("kept");
    let mut expected = ["a", "b", "c"].map(Tag::named);
    expected.sort_unstable();
    assert_eq!(*head.tags, expected);
    let many = (0..=MOST_TAGS).map(|n| n.to_string()).collect::<Vec<_>>().join(",");
    assert_eq!(refused(200, &[MINUTE, ("cache-tag", &many)], &[]), Some(NotStored::TooManyTags));
}

#[test]
fn only_plain_reads_are_kept() {
    let now = noon();
    let none = HeaderMap::new();
    let moment = Tags::new().moment();
    let ask = |method: &Method, has_body| {
        let url = &Url::new("http", "example.org", "/");
        let sent = Sent { method, headers: &none, has_body, moment, at: now, url };
        judge(StatusCode::OK, &map(&[MINUTE]), &sent, &Rule::origin_alone(), &[], now).err()
    };
    assert_eq!(ask(&Method::GET, false), None);
    assert_eq!(ask(&Method::GET, true), Some(NotStored::RequestBody));
    for method in [Method::POST, Method::PUT, Method::OPTIONS, Method::TRACE] {
        assert_eq!(ask(&method, false), Some(NotStored::Method));
    }
}

#[test]
fn a_length_is_one_number_or_unclear() {
    for (fields, expected) in [
        (&[][..], Ok(None)),
        (&[("content-length", "5")], Ok(Some(5))),
        (&[("content-length", "5, 5")], Err(NotStored::Length)),
        (&[("content-length", "5"), ("content-length", "5")], Err(NotStored::Length)),
        (&[("content-length", "-5")], Err(NotStored::Length)),
        (&[("content-length", "")], Err(NotStored::Length)),
    ] {
        assert_eq!(declared_length(&map(fields)), expected, "{fields:?}");
    }
}
