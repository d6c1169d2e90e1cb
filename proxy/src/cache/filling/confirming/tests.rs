#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use super::*;
use crate::cache::{Ask, Decision, Lookup, Miss, Purge, testing::*};

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
    assert_eq!(read_all(ready(waiter.wait(LOCK, later).await)).await.unwrap(), b"body");
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
