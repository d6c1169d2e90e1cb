#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use tokio::task::JoinSet;

use super::*;
use crate::cache::{
    Begin, Broken, Cache, Lookup, Miss, Outcome, Purge, Reader, Rule, desk::PASS, testing::*, vary::FORMED,
};

const OK: StatusCode = StatusCode::OK;
const LOCK: std::time::Duration = secs(5);

fn minute() -> HeaderMap {
    map(&[("cache-control", "max-age=60")])
}

fn minute_of(length: usize) -> HeaderMap {
    map(&[("cache-control", "max-age=60"), ("content-length", &length.to_string())])
}

fn plain(target: &str) -> Ask {
    ask(target, HeaderMap::new())
}

async fn read(mut reader: Reader) -> Result<Vec<u8>, Broken> {
    let mut body = Vec::new();
    while let Some(chunk) = reader.next().await {
        body.extend_from_slice(&chunk?);
    }
    Ok(body)
}

fn ready(outcome: Outcome) -> Reader {
    match outcome {
        Outcome::Ready(reader) => reader,
        other => panic!("not ready: {other:?}"),
    }
}

fn misses(cache: &Cache, target: &str, now: Now) -> bool {
    matches!(cache.get(target, &HeaderMap::new(), now), Lookup::Miss(_))
}

#[tokio::test(start_paused = true)]
async fn five_hundred_wait_for_one_fill() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let mut readers = JoinSet::new();
    for _ in 0..500 {
        let waiter = cache.must_wait(plain("/"), now);
        readers.spawn(async move { read(ready(waiter.wait(LOCK, now).await)).await });
    }
    tokio::task::yield_now().await;
    assert_eq!(guard.head(OK, &minute_of(6), &[], now), Decision::Store);
    for piece in ["one", "two"] {
        tokio::task::yield_now().await;
        guard.write(&Bytes::from(piece));
    }
    guard.finish().unwrap();
    while let Some(body) = readers.join_next().await {
        assert_eq!(body.unwrap().unwrap(), b"onetwo");
    }
    let stats = cache.stats();
    assert_eq!((stats.fills, stats.collapsed, stats.stored), (1, 500, 1));
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_the_body_as_it_arrives() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let waiter = cache.must_wait(plain("/"), now);
    guard.head(OK, &minute_of(6), &[], now);
    let mut reader = ready(waiter.wait(LOCK, now).await);
    guard.write(&Bytes::from("one"));
    assert_eq!(reader.next().await, Some(Ok(Bytes::from("one"))));
    guard.write(&Bytes::from("two"));
    let late = ready(cache.must_wait(plain("/"), now).wait(LOCK, now).await);
    guard.finish().unwrap();
    assert_eq!(reader.next().await, Some(Ok(Bytes::from("two"))));
    assert_eq!(reader.next().await, None);
    assert_eq!(read(late).await.unwrap(), b"onetwo");
}

#[tokio::test(start_paused = true)]
async fn a_broken_fill_is_never_presented_as_complete() {
    type End = fn(FillGuard);
    let ends: [(&str, End); 3] = [
        ("dropped", |guard| drop(guard)),
        ("too short", |guard| assert_eq!(guard.finish().err(), Some(NotStored::Length))),
        ("too long", |mut guard| {
            guard.write(&Bytes::from("more than declared"));
            assert!(guard.finish().is_err());
        }),
    ];
    for (name, end) in ends {
        let (cache, now) = (cache(), noon());
        let mut guard = cache.must_fill(plain("/"), now);
        let waiter = cache.must_wait(plain("/"), now);
        guard.head(OK, &minute_of(6), &[], now);
        let reader = ready(waiter.wait(LOCK, now).await);
        guard.write(&Bytes::from("one"));
        end(guard);
        assert_eq!(read(reader).await, Err(Broken), "{name}");
        assert!(misses(&cache, "/", now), "{name}");
        assert_eq!(cache.stats().bytes, 0, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_the_waiters_takes_over_a_broken_fill() {
    let (cache, now) = (cache(), noon());
    let guard = cache.must_fill(plain("/"), now);
    let first = cache.must_wait(plain("/"), now);
    let second = cache.must_wait(plain("/"), now);
    drop(guard);
    let Outcome::Fill(mut guard) = first.wait(LOCK, now).await else { panic!("nobody took over") };
    let second = tokio::spawn(async move { read(ready(second.wait(LOCK, now).await)).await });
    tokio::task::yield_now().await;
    guard.head(OK, &minute_of(2), &[], now);
    guard.write(&Bytes::from("ok"));
    guard.finish().unwrap();
    assert_eq!(second.await.unwrap().unwrap(), b"ok");
    assert_eq!(cache.stats().fills, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failing_first_answer_is_tried_again_by_few() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let mut waiters = JoinSet::new();
    for _ in 0..200 {
        let waiter = cache.must_wait(plain("/"), now);
        waiters.spawn(async move {
            match waiter.wait(LOCK, now).await {
                Outcome::Fill(mut guard) => {
                    guard.head(OK, &minute_of(2), &[], now);
                    guard.write(&Bytes::from("ok"));
                    guard.finish().is_ok()
                }
                outcome => read(ready(outcome)).await.is_ok(),
            }
        });
    }
    tokio::task::yield_now().await;
    let decision = guard.head(StatusCode::INTERNAL_SERVER_ERROR, &HeaderMap::new(), &[], now);
    assert_eq!(decision, Decision::NotStored(NotStored::OriginError));
    drop(guard);
    assert!(waiters.join_all().await.into_iter().all(|ok| ok));
    assert_eq!(cache.stats().fills, 2);
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_keeps_failing_is_given_up_by_the_waiters() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let waiters: Vec<_> = (0..10).map(|_| cache.must_wait(plain("/"), now)).collect();
    let mut waiting = JoinSet::new();
    for waiter in waiters {
        waiting.spawn(async move {
            match waiter.wait(LOCK, now).await {
                Outcome::Fill(mut guard) => {
                    // The others queue up behind this one before it fails.
                    tokio::task::yield_now().await;
                    guard.head(StatusCode::BAD_GATEWAY, &HeaderMap::new(), &[], now);
                    "tried"
                }
                Outcome::OriginFailed { .. } => "gave up",
                _ => "something else",
            }
        });
    }
    tokio::task::yield_now().await;
    guard.head(StatusCode::BAD_GATEWAY, &HeaderMap::new(), &[], now);
    let mut ends = waiting.join_all().await;
    ends.sort_unstable();
    assert_eq!(ends, [["gave up"; 8].as_slice(), &["tried"; 2]].concat());

    let down = cache.must_fill(plain("/down"), now);
    let waiter = cache.must_wait(plain("/down"), now);
    down.origin_failed(false);
    assert!(matches!(waiter.wait(LOCK, now).await, Outcome::OriginFailed { is_covered: false }));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_for_sharing_lets_nobody_queue_again_for_a_while() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let waiter = cache.must_wait(plain("/"), now);
    guard.head(OK, &map(&[("cache-control", "private")]), &[], now);
    assert!(matches!(waiter.wait(LOCK, now).await, Outcome::NotStored(NotStored::Private)));
    let guards: Vec<_> = (0..50).map(|_| cache.must_fill(plain("/"), now)).collect();
    drop(guards);
    let later = now.after(PASS);
    let _guard = cache.must_fill(plain("/"), later);
    cache.must_wait(plain("/"), later);
}

/// Once every hit on an entry that was stale from birth asked the origin behind it, because waiting was of no use.
#[test]
fn one_refreshes_behind_even_where_nobody_would_wait() {
    let (cache, now) = (cache(), noon());
    cache.must_fill(plain("/"), now).head(OK, &map(&[("cache-control", "no-store")]), &[], now);
    let first = cache.refresh(plain("/"), now);
    assert!(first.is_some() && cache.refresh(plain("/"), now).is_none());
    drop(first);
    assert!(cache.refresh(plain("/"), now).is_some(), "and another when it gave up");
}

#[tokio::test(start_paused = true)]
async fn a_pass_ends_when_the_answer_becomes_one_for_sharing() {
    let (cache, now) = (cache(), noon());
    cache.must_fill(plain("/"), now).head(OK, &map(&[("cache-control", "no-store")]), &[], now);
    let mut guard = cache.must_fill(plain("/"), now);
    guard.head(OK, &minute(), &[], now);
    guard.finish().unwrap();
    cache.get("/", &HeaderMap::new(), now).hit();
    cache.purge_key(&key("/"), Purge::Hard);
    let _guard = cache.must_fill(plain("/"), now);
    cache.must_wait(plain("/"), now);
}

#[test]
fn who_looked_before_a_fill_ended_and_asks_after_it_takes_what_it_brought() {
    let (cache, now) = (cache(), noon());
    assert!(misses(&cache, "/", now));
    cache.fill("/", &[("cache-control", "max-age=60")], "body", now);
    assert!(matches!(cache.begin(plain("/"), now), Begin::Found(_)));
    let fresh = ask("/", map(&[("cache-control", "no-cache")]));
    assert!(matches!(cache.begin(fresh, now), Begin::Fill(_)), "who wants a fresh one asks");
}

#[test]
fn nothing_is_left_on_the_desks_when_all_is_done() {
    let (cache, now) = (cache(), noon());
    for n in 0..100 {
        let target = format!("/{n}");
        cache.fill(&target, &[("cache-control", "max-age=60")], "body", now);
        assert!(matches!(cache.begin(plain(&target), now), Begin::Found(_)));
        drop(cache.must_fill(plain(&format!("/broken/{n}")), now));
    }
    assert!(cache.fills.desks.iter().all(|desk| desk.lock().is_empty()));
}

#[tokio::test(start_paused = true)]
async fn an_answer_only_to_be_asked_about_is_kept_but_not_handed_to_waiters() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let waiter = cache.must_wait(plain("/"), now);
    assert_eq!(
        guard.head(OK, &map(&[("cache-control", "no-cache"), ("etag", "\"a\"")]), &[], now),
        Decision::Store
    );
    guard.finish().unwrap();
    assert!(matches!(waiter.wait(LOCK, now).await, Outcome::NotStored(NotStored::NoLifetime)));
    assert!(matches!(cache.get("/", &HeaderMap::new(), now), Lookup::Stale { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_waits_no_longer_than_it_may() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    assert!(matches!(cache.must_wait(plain("/"), now).wait(LOCK, now).await, Outcome::TimedOut));
    // Of unknown length: waiters are served when it is whole.
    guard.head(OK, &minute(), &[], now);
    assert!(matches!(cache.must_wait(plain("/"), now).wait(LOCK, now).await, Outcome::TimedOut));
    let waiter = cache.must_wait(plain("/"), now);
    guard.write(&Bytes::from("whole"));
    guard.finish().unwrap();
    assert_eq!(read(ready(waiter.wait(LOCK, now).await)).await.unwrap(), b"whole");
}

#[tokio::test(start_paused = true)]
async fn what_outgrows_an_entry_is_not_kept_and_holds_no_memory() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let waiter = cache.must_wait(plain("/"), now);
    assert_eq!(guard.head(OK, &minute(), &[], now), Decision::Store);
    let piece = Bytes::from(vec![0; MIB / 2]);
    (0..3).for_each(|_| guard.write(&piece));
    assert_eq!(cache.stats().bytes, 0);
    assert!(matches!(waiter.wait(LOCK, now).await, Outcome::NotStored(NotStored::TooLarge)));
    assert!(guard.finish().is_err());

    let mut guard = cache.must_fill(plain("/declared"), now);
    assert_eq!(guard.head(OK, &minute_of(MIB + 1), &[], now), Decision::NotStored(NotStored::TooLarge));
}

#[tokio::test(start_paused = true)]
async fn fills_are_counted_in_the_budget() {
    let cache = Cache::new(100_000, MIB, Arc::new(crate::cache::Tags::new()));
    let now = noon();
    let mut one = cache.must_fill(plain("/1"), now);
    assert_eq!(one.head(OK, &minute_of(80_000), &[], now), Decision::Store);
    let mut two = cache.must_fill(plain("/2"), now);
    assert_eq!(two.head(OK, &minute_of(80_000), &[], now), Decision::NotStored(NotStored::Memory));
    drop(one);
    let mut three = cache.must_fill(plain("/3"), now);
    assert_eq!(three.head(OK, &minute_of(80_000), &[], now), Decision::Store);
    assert!(cache.stats().bytes <= 100_000);
}

#[tokio::test(start_paused = true)]
async fn requests_with_credentials_queue_apart() {
    let (cache, now) = (cache(), noon());
    let _plain = cache.must_fill(plain("/"), now);
    let mut cookie = cache.must_fill(ask("/", map(&[("cookie", "sid=1")])), now);
    cookie.head(OK, &minute(), &[], now);
    cache.must_wait(plain("/"), now);
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_key_has_one_queue_credentials_or_not() {
    let (cache, now) = (cache(), noon());
    let rule = Rule { private_to_caller: true, ..Rule::origin_alone() };
    let mine = Ask { rule, ..ask("/", map(&[("authorization", "Bearer x"), ("cookie", "sid=1")])) };
    let mut guard = cache.must_fill(mine.clone(), now);
    let waiter = cache.must_wait(mine, now);
    let private = map(&[("cache-control", "private, max-age=60"), ("content-length", "0")]);
    assert_eq!(guard.head(OK, &private, &[], now), Decision::Store);
    guard.finish().unwrap();
    assert_eq!(read(ready(waiter.wait(LOCK, now).await)).await.unwrap(), b"");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_of_another_variant_does_not_wait_for_a_body_of_unknown_length() {
    let (cache, now) = (cache(), noon());
    let accepting = |coding| ask("/", map(&[("accept-encoding", coding)]));
    let mut gzip = cache.must_fill(accepting("gzip"), now);
    let waiter = cache.must_wait(accepting("br"), now);
    gzip.head(OK, &map(&[("cache-control", "max-age=60"), ("vary", "accept-encoding")]), &[], now);
    assert!(matches!(waiter.wait(LOCK, now).await, Outcome::Fill(_)));
}

#[test]
fn requests_for_many_variants_are_each_brought_into_form_once() {
    const FILLS: usize = 50;
    let (cache, now) = (cache(), noon());
    cache.fill("/", &[("cache-control", "max-age=60"), ("vary", "accept-language")], "", now);
    let begin = |n: usize| cache.must_fill(ask("/", map(&[("accept-language", &*format!("l{n}, de"))])), now);
    let before = FORMED.get();
    let fills: Vec<_> = (0..FILLS).map(begin).collect();
    assert!(FORMED.get() - before <= 4 * FILLS, "{}", FORMED.get() - before);
    cache.must_wait(ask("/", map(&[("accept-language", "L7,de")])), now);
    drop(fills);
}

#[tokio::test(start_paused = true)]
async fn waiters_of_another_variant_fill_their_own() {
    let (cache, now) = (cache(), noon());
    let accepting = |coding| ask("/", map(&[("accept-encoding", coding)]));
    let mut gzip = cache.must_fill(accepting("gzip"), now);
    let waiter = cache.must_wait(accepting("br"), now);
    let fields =
        map(&[("cache-control", "max-age=60"), ("vary", "accept-encoding"), ("content-length", "2")]);
    gzip.head(OK, &fields, &[], now);
    let Outcome::Fill(mut br) = waiter.wait(LOCK, now).await else {
        panic!("another variant is not its answer")
    };
    br.head(OK, &fields, &[], now);
    for (mut guard, body) in [(gzip, "gz"), (br, "br")] {
        guard.write(&Bytes::from(body));
        guard.finish().unwrap();
    }
    for (coding, expected) in [("gzip", "gz"), ("br", "br")] {
        let entry = cache.get("/", &map(&[("accept-encoding", coding)]), now).hit();
        assert_eq!(body(&entry), expected.as_bytes());
    }
    // What it varies by is known now, so a third variant's fill holds up nobody else.
    let _zstd = cache.must_fill(accepting("zstd"), now);
    let _none = cache.must_fill(accepting("identity"), now);
    cache.must_wait(accepting("zstd"), now);
}

#[tokio::test(start_paused = true)]
async fn a_fill_that_raced_a_purge_is_stale_from_birth() {
    let purges: [fn(&Cache); 4] = [
        |cache| cache.purge(Tag::named("items"), Purge::Hard),
        |cache| cache.purge(uri("/"), Purge::Hard),
        |cache| cache.purge_key(&key("/"), Purge::Hard),
        |cache| cache.purge_all(Purge::Hard),
    ];
    for (number, purge) in purges.into_iter().enumerate() {
        let (cache, now) = (cache(), noon());
        let mut guard = cache.must_fill(plain("/"), now);
        let waiter = cache.must_wait(plain("/"), now);
        purge(&cache);
        guard.head(OK, &minute(), &[Tag::named("items")], now);
        assert_eq!(guard.finish().err(), Some(NotStored::Purged), "{number}");
        assert!(misses(&cache, "/", now), "{number}");
        assert!(matches!(waiter.wait(LOCK, now).await, Outcome::Fill(_)), "{number}: who waited asks anew");
        cache.fill("/", &[("cache-control", "max-age=60"), ("cache-tag", "items")], "new", now);
        assert_eq!(body(&cache.get("/", &HeaderMap::new(), now).hit()), b"new");
    }
}

#[test]
fn a_request_after_a_purge_does_not_join_a_fill_from_before() {
    let (cache, now) = (cache(), noon());
    let _before = cache.must_fill(plain("/"), now);
    cache.purge(uri("/"), Purge::Hard);
    let _after = cache.must_fill(plain("/"), now);
}

#[test]
fn an_old_fill_does_not_replace_what_was_asked_for_after_a_purge() {
    let (cache, now) = (cache(), noon());
    let mut old = cache.must_fill(plain("/"), now);
    cache.purge(Tag::named("late"), Purge::Soft);
    cache.purge(uri("/"), Purge::Soft);
    cache.fill("/", &[("cache-control", "max-age=60")], "new", now);
    old.head(OK, &minute(), &[], now);
    old.write(&Bytes::from("old"));
    old.finish().unwrap();
    assert_eq!(body(&cache.get("/", &HeaderMap::new(), now).hit()), b"new");
}

fn stale(cache: &Cache, now: Now) -> Arc<Entry> {
    match cache.get("/", &HeaderMap::new(), now) {
        Lookup::Stale { entry, .. } => entry,
        other => panic!("not stale: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_304_makes_the_entry_good_again_for_all_who_wait() {
    let (cache, now) = (cache(), noon());
    let fields = [("cache-control", "max-age=60"), ("etag", "\"a\""), ("x-a", "1"), ("x-b", "1")];
    let old = cache.fill("/", &fields, "body", now);
    let later = now.after(secs(61));
    let asking = Ask { stale: Some(stale(&cache, later)), ..plain("/") };
    let mut guard = cache.must_fill(asking.clone(), later);
    let waiter = cache.must_wait(asking, later);
    let mut request = map(&[("if-none-match", "\"clients\""), ("range", "bytes=0-1")]);
    guard.stale().unwrap().head().validate(&mut request);
    assert_eq!(request, map(&[("if-none-match", "\"a\"")]));

    let confirmed = guard.not_modified(&map(&[("etag", "\"a\""), ("x-a", "2")]), &[], later).unwrap();
    assert_eq!(confirmed.refused, None);
    let entry = cache.get("/", &HeaderMap::new(), later.after(secs(59))).hit();
    assert!(Arc::ptr_eq(&entry, &confirmed.entry) && Arc::ptr_eq(entry.body(), old.body()));
    assert_eq!(
        (&entry.head().headers["x-a"], &entry.head().headers["x-b"]),
        (&"2".parse().unwrap(), &"1".parse().unwrap())
    );
    assert_eq!(read(ready(waiter.wait(LOCK, later).await)).await.unwrap(), b"body");
    assert_eq!(cache.stats().entries, 1);
}

#[test]
fn a_304_about_something_else_gives_the_entry_up() {
    let (cache, now) = (cache(), noon());
    cache.fill("/", &[("cache-control", "max-age=60"), ("etag", "\"a\"")], "body", now);
    let later = now.after(secs(61));
    let mut guard = cache.must_fill(Ask { stale: Some(stale(&cache, later)), ..plain("/") }, later);
    assert_eq!(guard.not_modified(&map(&[("etag", "\"b\"")]), &[], later).err(), Some(NotStored::Mismatch));
    assert!(guard.stale().is_none() && misses(&cache, "/", later));
    assert_eq!(guard.head(OK, &minute(), &[], later), Decision::Store);
    guard.finish().unwrap();
    cache.get("/", &HeaderMap::new(), later).hit();
}

/// Once the entry without `Vary` went on beside the new one, and was a hit for those whom the new one is not for.
#[test]
fn a_304_that_says_what_the_answer_varies_by_leaves_no_entry_that_does_not() {
    let (cache, now) = (cache(), noon());
    cache.fill("/", &[("cache-control", "max-age=600"), ("etag", "\"a\"")], "body", now);
    let [one, other] = ["1", "2"].map(|value| map(&[("x-v", value)]));
    let asking = map(&[("x-v", "1"), ("cache-control", "no-cache")]);
    let Lookup::Stale { entry, .. } = cache.get("/", &asking, now) else { panic!("not asked about") };
    let mut guard = cache.must_fill(Ask { stale: Some(entry), ..ask("/", asking) }, now);
    let confirmed = guard.not_modified(&map(&[("etag", "\"a\""), ("vary", "x-v")]), &[], now).unwrap();
    assert_eq!(confirmed.refused, None);
    assert_eq!(cache.get("/", &one, now).hit().head().headers["vary"], "x-v");
    assert!(matches!(cache.get("/", &other, now), Lookup::Miss(Miss::Vary)));
    assert_eq!(cache.stats().entries, 1);
}

#[test]
fn a_304_that_forbids_storing_answers_once_and_ends_the_entry() {
    let (cache, now) = (cache(), noon());
    cache.fill("/", &[("cache-control", "max-age=60"), ("etag", "\"a\"")], "body", now);
    let later = now.after(secs(61));
    let mut guard = cache.must_fill(Ask { stale: Some(stale(&cache, later)), ..plain("/") }, later);
    let confirmed = guard.not_modified(&map(&[("cache-control", "no-store")]), &[], later).unwrap();
    assert_eq!(confirmed.refused, Some(NotStored::NoStore));
    assert_eq!(body(&confirmed.entry), b"body");
    assert!(misses(&cache, "/", later));
}

#[test]
fn an_entry_survives_an_origin_that_fails_to_confirm_it() {
    let (cache, now) = (cache(), noon());
    cache.fill("/", &[("cache-control", "max-age=60, stale-if-error=600"), ("etag", "\"a\"")], "body", now);
    let later = now.after(secs(61));
    let mut guard = cache.must_fill(Ask { stale: Some(stale(&cache, later)), ..plain("/") }, later);
    guard.head(StatusCode::BAD_GATEWAY, &HeaderMap::new(), &[], later);
    drop(guard);
    match cache.get("/", &HeaderMap::new(), later) {
        Lookup::Stale { staleness, .. } => assert!(staleness.on_error),
        other => panic!("not stale: {other:?}"),
    }
}

/// Whether a stale entry is still there after the origin was asked about it with `fields`, and answered so.
fn survives(fields: &[(&'static str, &str)], status: u16, said: &str, change: impl Fn(&mut Ask)) -> bool {
    let (cache, now) = (cache(), noon());
    let stored = [("cache-control", "max-age=60, stale-if-error=600, stale-while-revalidate=600")];
    cache.fill("/", &stored, "body", now);
    let later = now.after(secs(61));
    let mut asking = Ask { stale: Some(stale(&cache, later)), ..ask("/", map(fields)) };
    change(&mut asking);
    let mut guard = cache.refresh(asking, later).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    assert!(matches!(
        guard.head(status, &map(&[("cache-control", said)]), &[], later),
        Decision::NotStored(_)
    ));
    drop(guard);
    !misses(&cache, "/", later)
}

/// Once what an origin had withdrawn came back when it failed, or while it was asked again.
#[test]
fn what_the_origin_withdrew_does_not_come_back() {
    for (status, said) in [
        (404, ""),
        (410, ""),
        (401, ""),
        (451, ""),
        (302, ""),
        (200, ""),
        (200, "private"),
        (200, "no-store"),
    ] {
        assert!(!survives(&[], status, said, |_| {}), "{status} {said}");
    }
    for (status, said) in
        [(500, ""), (503, "no-store"), (304, ""), (206, ""), (429, ""), (400, ""), (403, "")]
    {
        assert!(survives(&[], status, said, |_| {}), "{status} {said}");
    }
}

#[test]
fn one_client_s_own_answer_withdraws_nothing_from_others() {
    let (cookie, ours) = (("cookie", "sid=1"), ("x-other", "1"));
    assert!(survives(&[cookie], 404, "private", |_| {}));
    assert!(survives(&[("authorization", "Bearer x")], 401, "no-store", |_| {}));
    assert!(survives(&[ours], 404, "private", |ask| ask.guard.has_session()));
    assert!(survives(&[("cache-control", "no-store")], 404, "", |_| {}));
    assert!(!survives(&[cookie], 404, "no-store", |ask| ask.rule.ignore = vec![header::COOKIE]));
    assert!(!survives(&[cookie], 404, "no-store", |ask| ask.rule.private_to_caller = true), "their own");
    assert!(!survives(&[ours], 404, "private", |_| {}));
}

#[test]
fn a_client_that_asks_for_a_fresher_answer_ends_nothing_that_is_good() {
    let (cache, now, reload) = (cache(), noon(), map(&[("cache-control", "no-cache")]));
    cache.fill("/", &[("cache-control", "max-age=60")], "body", now);
    let Lookup::Stale { entry, .. } = cache.get("/", &reload, now) else { panic!("not asked about") };
    let mut guard = cache.must_fill(Ask { stale: Some(entry), ..ask("/", reload) }, now);
    guard.head(StatusCode::NOT_FOUND, &HeaderMap::new(), &[], now);
    drop(guard);
    cache.get("/", &HeaderMap::new(), now).hit();
    cache.purge(uri("/"), Purge::Soft);
    let asking = Ask { stale: Some(stale(&cache, now)), ..plain("/") };
    cache.must_fill(asking, now).head(StatusCode::NOT_FOUND, &HeaderMap::new(), &[], now);
    assert!(misses(&cache, "/", now), "purged, it is not good");
}

#[test]
fn a_body_in_single_bytes_costs_little_more_than_its_length() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    guard.head(OK, &minute_of(100_000), &[], now);
    (0..100_000).for_each(|_| guard.write(&Bytes::from_static(b"x")));
    assert!(cache.stats().bytes < 200_000);
    assert_eq!(guard.finish().unwrap().body().length(), 100_000);
    assert!(cache.stats().bytes < 110_000);
}

#[test]
fn threads_at_odds_leave_no_bytes_and_no_wrong_body_behind() {
    let cache = Cache::new(200_000, MIB, Arc::new(crate::cache::Tags::new()));
    let now = noon();
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let cache = &cache;
            scope.spawn(move || {
                for step in 0..3000u64 {
                    let page = (step * 31 + thread * 17) % 97;
                    let target = format!("/{page}");
                    let wanted = target.repeat(50 + page as usize);
                    match cache.begin(plain(&target), now) {
                        Begin::Fill(mut guard) => {
                            guard.head(OK, &minute_of(wanted.len()), &[], now);
                            guard.write(&Bytes::from(wanted));
                            drop((step % 7 != 0).then(|| guard.finish()));
                        }
                        Begin::Found(entry) => assert_eq!(body(&entry), wanted.as_bytes()),
                        Begin::Wait(_) => {}
                    }
                    match step % 50 {
                        0 => cache.purge_key(&key(&target), Purge::Hard),
                        1 => cache.purge(uri(&target), Purge::Hard),
                        2 if thread == 0 => cache.purge_all(Purge::Hard),
                        _ => {}
                    }
                }
            });
        }
    });
    assert!(cache.stats().bytes <= 200_000);
    cache.purge_all(Purge::Hard);
    assert_eq!((cache.stats().bytes, cache.stats().entries), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_begins_another_fill_when_the_first_is_too_old() {
    let (cache, now) = (cache(), noon());
    let impatient = || Ask { rule: Rule { lock_age: secs(2), ..Rule::origin_alone() }, ..plain("/") };
    let first = cache.must_fill(impatient(), now);
    let waiters: Vec<_> = (0..3).map(|_| cache.must_wait(impatient(), now.after(secs(1)))).collect();
    let mut waiting = JoinSet::new();
    for waiter in waiters {
        waiting.spawn(async move {
            match waiter.wait(LOCK, now.after(secs(1))).await {
                Outcome::Fill(mut guard) => {
                    guard.head(OK, &minute_of(2), &[], now);
                    guard.write(&Bytes::from("ok"));
                    guard.finish().is_ok()
                }
                outcome => read(ready(outcome)).await.is_ok(),
            }
        });
    }
    assert!(waiting.join_all().await.into_iter().all(|ok| ok));
    assert_eq!(cache.stats().fills, 2, "one of them for all");
    drop(first);
    assert!(!misses(&cache, "/", now), "the old one ends for itself");
}
