#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use bytes::Bytes;

use super::*;
use crate::cache::{Decision, Lookup, Purge, testing::*};

const STRONG: (&str, &str) = ("etag", "\"1\"");
const CHANGED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");

fn slice(index: u64) -> Slice {
    *key("/").slice(index, 10).of_slice().unwrap()
}

fn part(index: u64, fields: &[(&'static str, &str)]) -> Option<Part> {
    slice(index).part(&map(fields))
}

#[test]
fn the_origin_is_asked_for_exactly_a_slice() {
    assert_eq!(slice(0).range(), "bytes=0-9");
    assert_eq!(slice(3).range(), "bytes=30-39");
    let far = key("/").slice(u64::MAX / 10, 10);
    assert_eq!(far.of_slice().unwrap().range(), "bytes=18446744073709551610-18446744073709551615");
}

#[test]
fn a_part_is_what_was_asked_for_or_nothing() {
    for (index, range, expected) in [
        (0, "bytes 0-9/25", Some(25)),
        (1, "Bytes 10-19/25", Some(25)),
        (2, "bytes 20-24/25", Some(25)),
        (1, "bytes 10-19/20", Some(20)),
        // Less than was asked for, more, another part, or nobody knows of how much.
        (0, "bytes 0-8/25", None),
        (0, "bytes 0-10/25", None),
        (1, "bytes 0-9/25", None),
        (2, "bytes 20-29/25", None),
        (0, "bytes 0-9/*", None),
        (0, "bytes */25", None),
        (0, "bytes 9-0/25", None),
        (0, "bytes 0-9/25x", None),
        (0, "items 0-9/25", None),
        (0, "bytes", None),
        (0, "bytes 0-18446744073709551615/18446744073709551615", None),
    ] {
        let part = part(index, &[("content-range", range), STRONG]);
        assert_eq!(part.map(|part| part.total), expected, "{index} {range}");
    }
    assert_eq!(part(0, &[STRONG]), None);
    let twice = [("content-range", "bytes 0-9/25"), ("content-range", "bytes 0-9/26"), STRONG];
    assert_eq!(part(0, &twice), None);
}

#[test]
fn a_part_without_a_validator_is_of_use_only_where_it_is_all() {
    assert_eq!(part(0, &[("content-range", "bytes 0-9/25")]), None);
    assert_eq!(part(0, &[("content-range", "bytes 0-9/25"), ("etag", "W/\"1\"")]), None);
    assert_eq!(part(0, &[("content-range", "bytes 0-9/25"), ("last-modified", "yesterday")]), None);
    assert!(part(0, &[("content-range", "bytes 0-7/8")]).is_some());
    assert!(part(0, &[("content-range", "bytes 0-9/25"), CHANGED]).is_some());
}

#[test]
fn parts_are_of_one_whole_by_length_and_validator() {
    let one = |fields: &[(&'static str, &str)]| {
        part(0, &[&[("content-range", "bytes 0-9/25")], fields].concat()).unwrap()
    };
    let other = |total, fields: &[(&'static str, &str)]| {
        part(1, &[&[("content-range", total)], fields].concat()).unwrap()
    };
    const SAME: &str = "bytes 10-19/25";
    assert!(one(&[STRONG, CHANGED]).is_beside(&other(SAME, &[STRONG])));
    assert!(one(&[CHANGED]).is_beside(&other(SAME, &[CHANGED])));
    assert!(!one(&[STRONG]).is_beside(&other("bytes 10-19/26", &[STRONG])));
    assert!(!one(&[STRONG]).is_beside(&other(SAME, &[("etag", "\"2\"")])));
    assert!(!one(&[STRONG]).is_beside(&other(SAME, &[CHANGED])));
    let weak = |tag| [("etag", tag), CHANGED];
    assert!(one(&weak("W/\"1\"")).is_beside(&other(SAME, &weak("W/\"1\""))));
    assert!(!one(&weak("W/\"1\"")).is_beside(&other(SAME, &weak("W/\"2\""))));
}

#[test]
fn an_answer_begins_in_the_slice_of_its_first_byte() {
    let first = |method, range| {
        let headers = map(&[("range", range)]);
        first_slice(&RequestHead { method: &method, headers: &headers, has_body: false }, 10)
    };
    for (range, expected) in [
        ("bytes=0-", 0),
        ("bytes=9-40", 0),
        ("bytes=10-", 1),
        ("bytes=25-26,0-1", 2),
        ("bytes=-3", 0),
        ("x", 0),
    ] {
        assert_eq!(first(Method::GET, range), expected, "{range}");
    }
    assert_eq!(first(Method::HEAD, "bytes=25-"), 0, "a HEAD knows no parts");
}

#[test]
fn a_slice_is_kept_as_its_whole_would_be_and_purged_with_it() {
    let (cache, now) = (cache(), noon());
    let fill = |index: u64, fields: &[(&'static str, &str)]| {
        let mut ask = ask("/", map(&[("range", "bytes=12-13")]));
        ask.key = ask.key.slice(index, 10);
        let mut guard = cache.must_fill(ask, now);
        let decision = guard.head(StatusCode::PARTIAL_CONTENT, &map(fields), &[], now);
        guard.write(&Bytes::from_static(b"0123456789"));
        (decision, guard.finish())
    };
    let look = |index| {
        let headers = map(&[("range", "bytes=12-13")]);
        let request = RequestHead { method: &Method::GET, headers: &headers, has_body: false };
        cache.lookup(&key("/").slice(index, 10), &request, &crate::cache::Rule::origin_alone(), now)
    };
    let fresh = ("cache-control", "max-age=60");
    let (decision, entry) = fill(1, &[fresh, ("content-range", "bytes 10-19/25"), STRONG]);
    assert_eq!((decision, entry.unwrap().head().status), (Decision::Store, StatusCode::PARTIAL_CONTENT));
    assert_eq!(body(&look(1).hit()), b"0123456789");
    assert!(matches!(look(2), Lookup::Miss(_)), "a range of what is not there is fetched, and not passed by");

    let (decision, _) = fill(2, &[fresh, ("content-range", "bytes 10-19/25"), STRONG]);
    assert_eq!(decision, Decision::NotStored(NotStored::Partial));
    let (decision, _) = fill(0, &[fresh, ("content-range", "bytes 0-9/25"), STRONG, ("content-length", "9")]);
    assert_eq!(decision, Decision::NotStored(NotStored::Length));

    cache.purge_key(&key("/"), Purge::Hard);
    assert!(matches!(look(1), Lookup::Miss(_)));
}

#[test]
fn a_whole_answer_lies_in_the_place_of_the_first_slice_alone() {
    let whole = |index: u64| slice(index).kept(StatusCode::OK, &map(&[]));
    assert_eq!(whole(0), Ok(None));
    assert_eq!(whole(1), Err(NotStored::Partial));
    assert_eq!(slice(1).kept(StatusCode::NOT_FOUND, &map(&[])), Ok(None));
}
