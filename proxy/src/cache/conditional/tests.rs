#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use super::*;
use crate::cache::testing::*;

fn head(fields: &[(&'static str, &str)]) -> Head {
    let fields = [&[("cache-control", "max-age=60")], fields].concat();
    let entry = cache().fill("/", &fields, "body", noon());
    Head::clone(entry.head())
}

const CHANGED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

#[test]
fn entity_tags_compare_as_table_in_rfc_9110_8_8_3_2() {
    for (one, other, strong, weak) in [
        ("W/\"1\"", "W/\"1\"", false, true),
        ("W/\"1\"", "W/\"2\"", false, false),
        ("W/\"1\"", "\"1\"", false, true),
        ("\"1\"", "\"1\"", true, true),
        ("1", "1", false, false),
        ("\"", "\"", false, false),
    ] {
        assert_eq!(
            etags_match(one.as_bytes(), other.as_bytes(), Comparison::Strong),
            strong,
            "{one} {other}"
        );
        assert_eq!(etags_match(one.as_bytes(), other.as_bytes(), Comparison::Weak), weak, "{one} {other}");
    }
}

#[test]
fn the_clients_conditions_are_judged_by_the_entrys_validators() {
    let head = head(&[("etag", "\"a,b\""), ("last-modified", CHANGED)]);
    for (request, expected) in [
        (&[][..], false),
        (&[("if-none-match", "\"a,b\"")], true),
        (&[("if-none-match", "W/\"a,b\"")], true),
        (&[("if-none-match", "\"x\", \"a,b\"")], true),
        (&[("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")], true),
        (&[("if-none-match", "*")], true),
        (&[("if-none-match", "\"x\"")], false),
        (&[("if-none-match", "a,b")], false),
        (&[("if-none-match", "\"x\""), ("if-modified-since", CHANGED)], false),
        (&[("if-modified-since", CHANGED)], true),
        (&[("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], true),
        (&[("if-modified-since", EARLIER)], false),
        (&[("if-modified-since", "yesterday")], false),
        (&[("if-modified-since", CHANGED), ("if-modified-since", CHANGED)], false),
    ] {
        assert_eq!(client_holds(&head.headers, &map(request)), expected, "{request:?}");
    }
}

#[test]
fn if_range_wants_a_strong_match() {
    let strong = head(&[("etag", "\"a\""), ("last-modified", CHANGED)]);
    let weak = head(&[("etag", "W/\"a\""), ("last-modified", CHANGED), ("date", CHANGED)]);
    let holds = |head: &Head, value| if_range_holds(&head.headers, &map(&[("if-range", value)]));
    assert!(if_range_holds(&strong.headers, &map(&[])));
    assert!(holds(&strong, "\"a\""));
    assert!(holds(&strong, CHANGED));
    for refused in ["W/\"a\"", "\"b\"", EARLIER, "a", ""] {
        assert!(!holds(&strong, refused), "{refused}");
    }
    assert!(!holds(&weak, "W/\"a\""));
    assert!(!holds(&weak, CHANGED), "made in the very second of its change");
}

#[test]
fn a_304_speaks_of_the_entry_whose_validator_it_carries() {
    let strong = head(&[("etag", "\"a\""), ("last-modified", CHANGED)]);
    let plain = head(&[("last-modified", CHANGED)]);
    assert!(confirms(&strong, &map(&[])));
    assert!(confirms(&strong, &map(&[("etag", "\"a\"")])));
    assert!(confirms(&strong, &map(&[("etag", "W/\"a\"")])));
    assert!(!confirms(&strong, &map(&[("etag", "\"b\"")])));
    assert!(!confirms(&plain, &map(&[("etag", "\"a\"")])));
    assert!(confirms(&plain, &map(&[("last-modified", CHANGED)])));
    assert!(!confirms(&plain, &map(&[("last-modified", EARLIER)])));
}

#[test]
fn a_304_replaces_fields_but_none_that_describe_the_body_or_the_connection() {
    let stored =
        map(&[("x-a", "1"), ("x-a", "2"), ("x-b", "1"), ("content-encoding", "gzip"), ("date", CHANGED)]);
    let news = map(&[
        ("x-a", "3"),
        ("x-c", "1"),
        ("content-length", "0"),
        ("content-encoding", "br"),
        ("content-range", "bytes 0-1/2"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("set-cookie", "a=b"),
    ]);
    let expected = map(&[("x-a", "3"), ("x-b", "1"), ("x-c", "1"), ("content-encoding", "gzip")]);
    assert_eq!(merged(&stored, &news, &Rule::origin_alone()), expected);
    let keeping = Rule { ignore: vec![header::SET_COOKIE], ..Rule::origin_alone() };
    assert_eq!(merged(&stored, &news, &keeping).get(header::SET_COOKIE), news.get(header::SET_COOKIE));
}
