#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use tokio::task::JoinSet;

use super::*;
use crate::cache::{Begin, Broken, Cache, Lookup, Outcome, Purge, testing::*};

#[tokio::test(start_paused = true)]
async fn five_hundred_wait_for_one_fill() {
    let (cache, now) = (cache(), noon());
    let mut guard = cache.must_fill(plain("/"), now);
    let mut readers = JoinSet::new();
    for _ in 0..500 {
        let waiter = cache.must_wait(plain("/"), now);
        readers.spawn(async move { read_all(ready(waiter.wait(LOCK, now).await)).await });
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
    assert_eq!(read_all(late).await.unwrap(), b"onetwo");
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
        assert_eq!(read_all(reader).await, Err(Broken), "{name}");
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
    let second = tokio::spawn(async move { read_all(ready(second.wait(LOCK, now).await)).await });
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
                outcome => read_all(ready(outcome)).await.is_ok(),
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
    assert_eq!(read_all(ready(waiter.wait(LOCK, now).await)).await.unwrap(), b"whole");
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
