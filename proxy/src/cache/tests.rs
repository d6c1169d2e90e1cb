//! The cache as a request meets it: keys, lookups and purges together.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]

use http::{HeaderMap, Method};

use super::{testing::*, *};

const MINUTE: (&str, &str) = ("cache-control", "max-age=60");

fn look(cache: &Cache, method: &Method, fields: &[(&'static str, &str)], has_body: bool) -> Lookup {
    let headers = map(fields);
    cache.lookup(
        &key("/"),
        &RequestHead { method, headers: &headers, has_body },
        &Rule::origin_alone(),
        noon().after(secs(1)),
    )
}

#[test]
fn get_and_head_are_answered_from_the_same_entry_and_others_never() {
    let cache = cache();
    cache.fill("/", &[MINUTE], "body", noon());
    look(&cache, &Method::GET, &[], false).hit();
    look(&cache, &Method::HEAD, &[], false).hit();
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE, Method::PATCH] {
        assert!(matches!(look(&cache, &method, &[], false), Lookup::Bypass(Bypass::Method)), "{method}");
    }
    assert!(matches!(look(&cache, &Method::GET, &[], true), Lookup::Bypass(Bypass::RequestBody)));
}

#[test]
fn requests_that_want_nothing_of_the_cache_get_nothing() {
    let cache = cache();
    cache.fill("/", &[MINUTE, ("etag", "\"a\"")], "body", noon());
    let get = |fields: &[_]| look(&cache, &Method::GET, fields, false);
    assert!(matches!(get(&[("cache-control", "no-store")]), Lookup::Bypass(Bypass::NoStore)));
    assert!(matches!(get(&[("if-match", "\"a\"")]), Lookup::Bypass(Bypass::Precondition)));
    for asking in [("cache-control", "no-cache"), ("cache-control", "max-age=0"), ("pragma", "no-cache")] {
        let expired = match get(&[asking]) {
            Lookup::Stale { staleness, .. } => Some(staleness.expired),
            _ => None,
        };
        assert_eq!(expired, Some(Expired::Request), "{asking:?}");
    }
    get(&[("range", "bytes=0-1")]).hit();
    get(&[("if-none-match", "\"a\"")]).hit();
}

#[test]
fn a_part_of_what_is_not_stored_passes_by() {
    let cache = cache();
    assert!(matches!(
        look(&cache, &Method::GET, &[("range", "bytes=0-1")], false),
        Lookup::Bypass(Bypass::Range)
    ));
    assert!(matches!(look(&cache, &Method::GET, &[], false), Lookup::Miss(Miss::Uri)));
}

#[test]
fn only_if_cached_is_answered_from_the_cache_or_not_at_all() {
    let (cache, now) = (cache(), noon());
    let only = map(&[("cache-control", "only-if-cached")]);
    assert!(matches!(cache.get("/", &only, now), Lookup::OnlyIfCached));
    cache.fill("/", &[MINUTE], "body", now);
    cache.get("/", &only, now).hit();
    assert!(matches!(cache.get("/", &only, now.after(secs(60))), Lookup::OnlyIfCached));
    let both = map(&[("cache-control", "only-if-cached, max-stale=10")]);
    cache.get("/", &both, now.after(secs(60))).hit();
}

#[test]
fn a_hit_says_what_is_left_and_a_stale_one_what_may_be_done() {
    let (cache, now) = (cache(), noon());
    cache.fill("/", &[("cache-control", "max-age=60, stale-while-revalidate=10")], "body", now);
    let none = HeaderMap::new();
    assert!(matches!(cache.get("/", &none, now.after(secs(20))), Lookup::Hit { ttl: 40, .. }));
    let Lookup::Stale { staleness, ttl, .. } = cache.get("/", &none, now.after(secs(65))) else {
        panic!("an hour is over")
    };
    assert_eq!(staleness, Staleness { expired: Expired::Age, while_revalidate: true, on_error: false });
    assert_eq!(ttl, -5);
}

#[test]
fn a_miss_says_whether_other_variants_are_there() {
    let (cache, now) = (cache(), noon());
    cache.fill("/", &[MINUTE, ("vary", "accept")], "body", now);
    cache.get("/", &HeaderMap::new(), now).hit();
    let miss = cache.get("/", &map(&[("accept", "text/html")]), now);
    assert!(matches!(miss, Lookup::Miss(Miss::Vary)));
}

#[test]
fn purges_reach_what_they_name_and_nothing_else() {
    let (cache, now) = (cache(), noon());
    let none = HeaderMap::new();
    let fill = || {
        cache.fill("/a", &[MINUTE, ("cache-tag", "one, two")], "a", now);
        cache.fill("/b", &[MINUTE, ("surrogate-key", "two")], "b", now);
    };
    let gone = |target| matches!(cache.get(target, &none, now), Lookup::Miss(_));
    fill();
    cache.purge(Tag::named("one"), Purge::Hard);
    assert!(gone("/a") && !gone("/b"));
    fill();
    cache.purge(Tag::named("two"), Purge::Hard);
    assert!(gone("/a") && gone("/b"));
    fill();
    cache.purge_key(&key("/a"), Purge::Hard);
    assert!(gone("/a") && !gone("/b"));
    fill();
    cache.purge_all(Purge::Hard);
    assert!(gone("/a") && gone("/b"));
    assert_eq!(cache.stats().bytes, 0);
}

#[test]
fn a_soft_purge_leaves_a_stale_entry() {
    let purges: [fn(&Cache); 3] = [
        |cache| cache.purge(Tag::named("one"), Purge::Soft),
        |cache| cache.purge_key(&key("/a"), Purge::Soft),
        |cache| cache.purge_all(Purge::Soft),
    ];
    for purge in purges {
        let (cache, now) = (cache(), noon());
        cache.fill("/a", &[MINUTE, ("cache-tag", "one")], "a", now);
        purge(&cache);
        let found = cache.get("/a", &HeaderMap::new(), now);
        assert!(matches!(found, Lookup::Stale { staleness: Staleness { expired: Expired::Purged, .. }, .. }));
    }
}

#[test]
fn a_purge_by_tag_reaches_every_cache_and_purging_all_only_one() {
    let tags = Arc::new(Tags::new());
    let [one, two] = [(); 2].map(|()| Cache::new(MIB, MIB, Arc::clone(&tags)));
    let (now, none) = (noon(), HeaderMap::new());
    for cache in [&one, &two] {
        cache.fill("/a", &[MINUTE, ("cache-tag", "t")], "a", now);
        cache.fill("/b", &[MINUTE], "b", now);
    }
    one.purge(Tag::named("t"), Purge::Hard);
    one.purge_all(Purge::Hard);
    assert!(matches!(two.get("/a", &none, now), Lookup::Miss(Miss::Purged)));
    two.get("/b", &none, now).hit();
}

#[test]
fn reasons_have_words_of_their_own_fit_for_labels() {
    let words = [
        NotStored::Method,
        NotStored::Status,
        NotStored::Partial,
        NotStored::OriginError,
        NotStored::NoStore,
        NotStored::Private,
        NotStored::SetCookie,
        NotStored::Authorization,
        NotStored::Cookie,
        NotStored::RequestBody,
        NotStored::VaryStar,
        NotStored::VaryTooMany,
        NotStored::NoLifetime,
        NotStored::TooLarge,
        NotStored::TooManyTags,
        NotStored::Length,
        NotStored::Memory,
        NotStored::Purged,
        NotStored::Mismatch,
        NotStored::TooFewUses,
    ]
    .map(NotStored::word);
    let distinct: std::collections::HashSet<_> = words.into_iter().collect();
    assert_eq!(distinct.len(), words.len());
    assert!(words.iter().all(|word| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
}
