#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use bytes::Bytes;
use tokio::task::JoinSet;

use super::*;
use crate::cache::{Begin, Decision, Outcome, Purge, Rule, policy::NotStored, testing::*, vary::FORMED};

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
    assert_eq!(read_all(ready(waiter.wait(LOCK, now).await)).await.unwrap(), b"");
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
                outcome => read_all(ready(outcome)).await.is_ok(),
            }
        });
    }
    assert!(waiting.join_all().await.into_iter().all(|ok| ok));
    assert_eq!(cache.stats().fills, 2, "one of them for all");
    drop(first);
    assert!(!misses(&cache, "/", now), "the old one ends for itself");
}
