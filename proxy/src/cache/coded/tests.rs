#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use http::{HeaderMap, StatusCode};
use tokio::task::JoinSet;

use super::*;
use crate::cache::{Cache, Entry, Purge, Reader, Tags, testing::*};

const GZIP: Coding = Coding::Gzip;
const MINUTE: [(&str, &str); 1] = [("cache-control", "max-age=60")];

fn entry(cache: &Cache, body: &str) -> Arc<Entry> {
    cache.fill("/", &[("cache-control", "max-age=60"), ("etag", "\"v1\"")], body, noon())
}

fn make(cache: &Cache, reader: &Reader) -> (Maker, CodedReader) {
    match cache.coded(reader, GZIP, || Some(())) {
        Coded::Make(maker, reader, ()) => (maker, reader),
        other => panic!("not to be made: {other:?}"),
    }
}

fn kept(cache: &Cache, entry: &Arc<Entry>, coded: &'static str) {
    let (mut maker, _) = make(cache, &Reader::whole(Arc::clone(entry)));
    maker.write(Bytes::from_static(coded.as_bytes()));
    maker.finish();
}

async fn read(mut reader: CodedReader) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    while let Some(piece) = reader.next().await {
        body.extend_from_slice(&piece?);
    }
    Ok(body)
}

#[tokio::test(start_paused = true)]
async fn one_makes_a_coding_for_all_and_then_it_is_kept() {
    let cache = cache();
    let whole = Reader::whole(entry(&cache, "a body"));
    let (mut maker, first) = make(&cache, &whole);
    let mut readers = JoinSet::from_iter([read(first)]);
    for _ in 0..100 {
        let Coded::Making(reader) = cache.coded(&whole, GZIP, || Some(())) else {
            panic!("somebody else makes it")
        };
        readers.spawn(read(reader));
    }
    for piece in ["co", "", "ded"] {
        tokio::task::yield_now().await;
        maker.write(Bytes::from(piece));
    }
    let Coded::Making(late) = cache.coded(&whole, GZIP, || Some(())) else { panic!("still being made") };
    maker.finish();
    readers.spawn(read(late));
    while let Some(body) = readers.join_next().await {
        assert_eq!(body.unwrap().unwrap(), b"coded");
    }
    let Coded::Kept(body) = cache.coded(&whole, GZIP, || Some(())) else { panic!("kept") };
    assert_eq!((body.length(), whole.kept(GZIP).unwrap().length()), (5, 5));
    assert!(matches!(cache.coded(&whole, Coding::Zstd, || Some(())), Coded::Make(..)), "each for itself");
}

#[tokio::test(start_paused = true)]
async fn a_maker_that_gives_up_is_an_error_to_its_readers_and_the_next_one_tries_again() {
    let cache = cache();
    let whole = Reader::whole(entry(&cache, "a body"));
    let before = cache.stats().bytes;
    let (mut maker, reader) = make(&cache, &whole);
    maker.write(Bytes::from_static(b"half"));
    drop(maker);
    assert_eq!(read(reader).await, Err(Broken));
    assert_eq!(cache.stats().bytes, before, "nothing stays reserved");
    let (_maker, _reader) = make(&cache, &whole);
}

#[test]
fn what_is_kept_counts_and_leaves_with_its_entry() {
    let cache = cache();
    let entry = entry(&cache, "a body of the origin");
    let before = cache.stats().bytes;
    kept(&cache, &entry, "coded");
    let with = cache.stats().bytes;
    assert!(with >= before + 5, "{before}, then {with}");
    assert_eq!(with, entry.bytes());
    cache.purge_key(&key("/"), Purge::Hard);
    assert_eq!((cache.stats().bytes, cache.stats().entries), (0, 0));
    let again = self::entry(&cache, "another");
    assert!(Reader::whole(again).kept(GZIP).is_none());
    cache.purge_all(Purge::Hard);
    assert_eq!(cache.stats().bytes, 0);
}

#[test]
fn what_is_made_for_an_entry_that_has_left_is_not_counted() {
    let cache = cache();
    let whole = Reader::whole(entry(&cache, "a body"));
    let (mut maker, _reader) = make(&cache, &whole);
    maker.write(Bytes::from_static(b"coded"));
    cache.purge_key(&key("/"), Purge::Hard);
    maker.finish();
    assert_eq!(cache.stats().bytes, 0);
}

#[test]
fn a_304_keeps_the_codings() {
    let (cache, now) = (cache(), noon());
    let stale = entry(&cache, "a body");
    kept(&cache, &stale, "coded");
    let mut asks = ask("/", map(&[("cache-control", "no-cache")]));
    asks.stale = Some(Arc::clone(&stale));
    let mut guard = cache.must_fill(asks, now);
    let confirmed = guard.not_modified(&map(&MINUTE), &[], now).unwrap();
    assert!(Reader::whole(Arc::clone(&confirmed.entry)).kept(GZIP).is_some());
    drop(guard);
    assert_eq!(cache.stats().bytes, confirmed.entry.bytes(), "and counts them once");
    cache.purge_all(Purge::Hard);
    assert_eq!(cache.stats().bytes, 0);
}

#[test]
fn a_coding_begun_while_the_body_arrives_stays_with_it() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(ask("/", HeaderMap::new()), now);
    let fields = map(&[("cache-control", "max-age=60"), ("content-length", "3")]);
    guard.head(StatusCode::OK, &fields, &[], now);
    let (mut maker, _reader) = make(&cache, &guard.reader().unwrap());
    maker.write(Bytes::from_static(b"coded"));
    guard.write(&Bytes::from_static(b"abc"));
    let entry = guard.finish().unwrap();
    maker.finish();
    assert!(Reader::whole(Arc::clone(&entry)).kept(GZIP).is_some());
    assert_eq!(cache.stats().bytes, entry.bytes());
}

#[test]
fn without_room_nothing_is_made() {
    let cache = Cache::new(4096, 4096, Arc::new(Tags::new()));
    let (now, body) = (noon(), "x".repeat(3000));
    let mut guard = cache.must_fill(ask("/", HeaderMap::new()), now);
    let fields = map(&[("cache-control", "max-age=60"), ("content-length", "3000")]);
    guard.head(StatusCode::OK, &fields, &[], now);
    let reader = guard.reader().unwrap();
    assert!(matches!(cache.coded(&reader, GZIP, || Some(())), Coded::NoRoom));
    guard.write(&Bytes::from(body));
    guard.finish().unwrap();
}

#[test]
fn codings_stay_inside_the_budget() {
    let cache = Cache::new(MIB, MIB, Arc::new(Tags::new()));
    for n in 0..2000 {
        let target = format!("/{n}");
        let entry = cache.fill(&target, &MINUTE, &"x".repeat(1000), noon());
        kept(&cache, &entry, "a coding that is a fourth as long or so");
        assert!(cache.stats().bytes <= MIB);
    }
    assert!(cache.stats().evictions > 0);
}

#[test]
fn without_the_means_to_make_it_nobody_reads_along() {
    let cache = cache();
    let whole = Reader::whole(entry(&cache, "a body"));
    assert!(matches!(cache.coded(&whole, GZIP, || None::<()>), Coded::NoRoom));
    // Nothing was begun that others could have joined.
    make(&cache, &whole);
}

#[test]
fn a_maker_gives_up_only_when_nobody_reads() {
    let cache = cache();
    let whole = Reader::whole(entry(&cache, "a body"));
    let (maker, first) = make(&cache, &whole);
    let maker = maker.give_up().unwrap_err();
    drop(first);
    let Coded::Making(second) = cache.coded(&whole, GZIP, || Some(())) else { panic!("still being made") };
    let maker = maker.give_up().unwrap_err();
    drop(second);
    maker.give_up().unwrap();
    make(&cache, &whole);
}
