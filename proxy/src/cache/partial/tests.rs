#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use bytes::Bytes;
use http::Method;

use super::*;
use crate::cache::{Cache, Decision, Lookup, Purge, Rule, testing::*};

const TEXT: &str = "0123456789abcdefghij";

/// Keeps a part of [`TEXT`] beside what is held.
fn keep(cache: &Cache, etag: &str, part: Range<usize>) -> Decision {
    keep_of(cache, etag, part.clone(), &format!("bytes {}-{}/20", part.start, part.end - 1))
}

fn keep_of(cache: &Cache, etag: &str, part: Range<usize>, range: &str) -> Decision {
    let now = noon();
    let mut ask = ask("/", map(&[("range", "bytes=0-")]));
    ask.key = ask.key.part();
    ask.stale = held(cache);
    let mut guard = cache.fetch_past(ask, now);
    let fields = map(&[("cache-control", "max-age=60"), ("etag", etag), ("content-range", range)]);
    let decision = guard.head(StatusCode::PARTIAL_CONTENT, &fields, &[], now);
    guard.write(&Bytes::copy_from_slice(&TEXT.as_bytes()[part]));
    let _ = guard.finish();
    decision
}

fn look(cache: &Cache, key: &Key) -> Option<Arc<Entry>> {
    let headers = map(&[("range", "bytes=0-")]);
    let request = RequestHead { method: &Method::GET, headers: &headers, has_body: false };
    match cache.lookup(key, &request, &Rule::origin_alone(), noon()) {
        Lookup::Hit { entry, .. } => Some(entry),
        _ => None,
    }
}

fn held(cache: &Cache) -> Option<Arc<Entry>> {
    look(cache, &key("/").part())
}

/// What of the held run answers a range: the status, and the bytes.
fn from_held(cache: &Cache, fields: &[(&'static str, &str)]) -> Option<(u16, Vec<u8>)> {
    let (run, headers) = (held(cache)?, map(fields));
    let request = RequestHead { method: &Method::GET, headers: &headers, has_body: false };
    let answer = answer_from_part(&run, &request, noon())?;
    Some((answer.status.as_u16(), answer.body.chunks(run.body()).concat()))
}

#[test]
fn a_part_answers_what_lies_within_it_and_nothing_else() {
    let cache = cache();
    assert_eq!(keep(&cache, "\"1\"", 5..10), Decision::Store);
    assert_eq!(from_held(&cache, &[("range", "bytes=5-9")]), Some((206, b"56789".to_vec())));
    assert_eq!(from_held(&cache, &[("range", "bytes=6-7")]), Some((206, b"67".to_vec())));
    assert_eq!(from_held(&cache, &[("range", "bytes=20-")]), Some((416, Vec::new())));
    assert_eq!(
        from_held(&cache, &[("range", "bytes=6-7"), ("if-none-match", "\"1\"")]),
        Some((304, Vec::new()))
    );
    for range in ["bytes=4-9", "bytes=5-10", "bytes=-5", "bytes=6-7,15-16", "items=6-7"] {
        assert_eq!(from_held(&cache, &[("range", range)]), None, "{range}");
    }
    assert_eq!(from_held(&cache, &[("range", "bytes=6-7"), ("if-range", "\"2\"")]), None);
}

#[test]
fn parts_that_touch_are_put_together_until_they_are_the_whole() {
    let cache = cache();
    for (part, run) in
        [(8..12, 8..12), (12..14, 8..14), (5..9, 5..14), (6..8, 5..14), (4..15, 4..15), (15..20, 4..20)]
    {
        keep(&cache, "\"1\"", part);
        let entry = held(&cache).unwrap();
        assert_eq!(body(&entry), TEXT.as_bytes()[run.clone()]);
        let range = format!("bytes {}-{}/20", run.start, run.end - 1);
        assert_eq!(entry.head().headers[header::CONTENT_RANGE], *range);
        assert!(look(&cache, &key("/")).is_none());
    }
    keep(&cache, "\"1\"", 0..4);
    assert!(held(&cache).is_none());
    let whole = look(&cache, &key("/")).unwrap();
    assert_eq!((whole.head().status, body(&whole)), (StatusCode::OK, TEXT.as_bytes().to_vec()));
    assert!(!whole.head().headers.contains_key(header::CONTENT_RANGE));
}

#[test]
fn a_part_that_is_of_another_whole_or_far_away_takes_the_place_of_what_was_held() {
    let cache = cache();
    keep(&cache, "\"1\"", 5..10);
    keep(&cache, "\"2\"", 10..12);
    assert_eq!(body(&held(&cache).unwrap()), b"ab");
    keep(&cache, "\"2\"", 0..2);
    assert_eq!(body(&held(&cache).unwrap()), b"01");
    keep_of(&cache, "\"2\"", 2..4, "bytes 2-3/21");
    assert_eq!(body(&held(&cache).unwrap()), b"23", "of another length");
}

#[test]
fn what_cannot_be_put_together_is_not_kept() {
    let cache = cache();
    for (etag, range) in [("W/\"1\"", "bytes 0-4/20"), ("1", "bytes 0-4/20"), ("\"1\"", "bytes 0-4/*")] {
        assert_eq!(
            keep_of(&cache, etag, 0..5, range),
            Decision::NotStored(NotStored::Partial),
            "{etag} {range}"
        );
    }
    assert!(held(&cache).is_none());
    // Fewer bytes than it says.
    keep_of(&cache, "\"1\"", 0..5, "bytes 0-5/20");
    assert!(held(&cache).is_none());
}

#[test]
fn a_run_is_no_longer_than_an_entry_may_be() {
    let of = |part| {
        let cache = cache();
        keep(&cache, "\"1\"", part);
        held(&cache).unwrap()
    };
    let (had, come) = (of(0..4), of(4..8));
    let joined = |most| {
        let new = Entry::new(come.key(), Arc::clone(come.head()), Arc::clone(come.body()));
        body(&joined(new, Some(&had), most))
    };
    assert_eq!((joined(8), joined(7)), (b"01234567".to_vec(), b"4567".to_vec()));
}

#[test]
fn a_purge_of_the_whole_ends_its_parts() {
    let cache = cache();
    keep(&cache, "\"1\"", 0..4);
    cache.purge_key(&key("/"), Purge::Hard);
    assert!(held(&cache).is_none());
    keep(&cache, "\"1\"", 4..8);
    assert_eq!(body(&held(&cache).unwrap()), b"4567");
}
