use std::collections::HashMap;

use bytes::Bytes;
use http::StatusCode;
use proptest::prelude::*;

use super::*;
use crate::cache::{Body, Cache, Lookup, Now, Purge, Tags, shard::MOST_VARIANTS, testing::*, vary::FORMED};

/// Many small entries, put in without going through a fill.
fn stuff(store: &Store, name: &str, model: &Arc<Entry>) {
    let key = key(name);
    let entry = Entry::new(key.text(), Arc::clone(model.head()), Arc::clone(model.body()));
    store.insert(&key, Arc::new(entry));
}

fn model() -> Arc<Entry> {
    cache().fill("/", &[("cache-control", "max-age=60")], "a small body", noon())
}

fn holds(store: &Store, name: &str) -> bool {
    matches!(store.find(&key(name), &HeaderMap::new()), Found::Entry(_))
}

#[test]
fn a_flood_of_keys_stays_inside_the_budget() {
    let store = Store::new(4 * MIB);
    let model = model();
    for n in 0..200_000 {
        stuff(&store, &format!("/{n}"), &model);
        assert!(store.bytes() <= 4 * MIB);
    }
    assert!(store.entries() > 1000, "and uses it");
    assert_eq!(store.entries() as u64 + store.evictions(), 200_000);
    let queued: usize = store.shards.iter().map(|shard| shard.read().queued()).sum();
    assert!(queued <= 3 * store.entries() + SHARDS * 64, "{queued} places in queues");
    store.clear();
    assert_eq!((store.bytes(), store.entries()), (0, 0));
}

#[test]
fn entries_in_use_outlive_a_scan() {
    let store = Store::new(4 * MIB);
    let model = model();
    for n in 0..200 {
        stuff(&store, &format!("/loved/{n}"), &model);
    }
    for n in 0..50_000 {
        if n % 100 == 0 {
            let found = (0..200).filter(|n| holds(&store, &format!("/loved/{n}"))).count();
            assert!(found > 190, "{found} of 200 left");
        }
        stuff(&store, &format!("/scan/{n}"), &model);
    }
    let loved = (0..200).filter(|n| holds(&store, &format!("/loved/{n}"))).count();
    assert!(loved > 190, "{loved} of 200 left");
}

/// One request of 30 KB was brought into form for each variant of its key, under the shard's lock.
#[test]
fn a_request_is_brought_into_form_once_however_many_variants_there_are() {
    let cache = cache();
    let fields =
        [("cache-control", "max-age=60"), ("vary", "accept-language, x-a"), ("content-language", "de")];
    for n in 0..MOST_VARIANTS {
        let asked = [("accept-language", &*format!("l{n}")), ("x-a", "1"), ("cache-control", "no-cache")];
        let mut guard = cache.must_fill(ask("/", map(&asked)), noon());
        guard.head(StatusCode::OK, &map(&fields), &[], noon());
        guard.finish().unwrap();
    }
    let formed = |asked: &[(&'static str, &str)]| {
        let before = FORMED.get();
        let found = cache.get("/", &map(asked), noon());
        (matches!(found, Lookup::Hit { .. }), FORMED.get() - before)
    };
    assert_eq!(formed(&[("accept-language", "l3, l4"), ("x-a", "1")]), (false, 1));
    assert_eq!(formed(&[("accept-language", "l3;q=0.5,de"), ("x-a", " 1")]), (true, 2));
    assert_eq!(formed(&[("accept-language", "l3"), ("x-a", "1")]), (true, 1), "written alike");
    cache.fill("/plain", &[("cache-control", "max-age=60")], "", noon());
    let before = FORMED.get();
    cache.get("/plain", &map(&[("accept-language", "l3, l4")]), noon()).hit();
    assert_eq!(FORMED.get(), before, "what varies by nothing asks nothing");
}

#[test]
fn replacing_and_removing_leave_no_bytes_behind() {
    let store = Store::new(64 * MIB);
    let model = model();
    for _ in 0..10_000 {
        stuff(&store, "/one", &model);
    }
    assert_eq!(store.entries(), 1);
    for n in 0..10_000 {
        let name = format!("/{n}");
        stuff(&store, &name, &model);
        store.remove_key(&key(&name));
    }
    store.remove_key(&key("/one"));
    assert_eq!((store.bytes(), store.entries()), (0, 0));
    let tickets: usize = store.shards.iter().map(|shard| shard.read().queued()).sum();
    assert!(tickets <= SHARDS * 65, "{tickets} void tickets");
}

/// Fills made room in the first shard first, so that a full cache forgot the newest of some keys and kept the oldest of
/// others.
#[test]
fn fills_make_room_where_they_will_live() {
    // Large enough that the shards, which keys fall into by chance, are about equally full.
    let (cache, now) = (Cache::new(8 * MIB, MIB, Arc::new(Tags::new())), noon());
    let body = "x".repeat(8 << 10);
    for page in 0..4000 {
        cache.fill(&format!("/{page}"), &[("cache-control", "max-age=60")], &body, now);
    }
    let is_there = |page: &u32| matches!(cache.get(&format!("/{page}"), &map(&[]), now), Lookup::Hit { .. });
    let newest = (3950..4000).filter(is_there).count();
    assert!(newest >= 45, "only {newest} of the 50 newest");
    assert_eq!((0..1000).filter(is_there).count(), 0, "the oldest are gone");
}

#[test]
fn a_smaller_budget_takes_effect_at_once() {
    let cache = cache();
    for n in 0..100 {
        cache.fill(&format!("/{n}"), &[("cache-control", "max-age=60")], &"x".repeat(10_000), noon());
    }
    assert!(cache.stats().bytes > MIB);
    cache.set_budget(MIB / 2, MIB);
    assert!(cache.stats().bytes <= MIB / 2);
    assert!(cache.stats().entries > 10);
}

#[test]
fn a_reservation_that_finds_no_room_is_refused_and_gives_back() {
    let store = Arc::new(Store::new(1000));
    let mut one = Reserved::none(Arc::clone(&store), &key("/"));
    assert!(one.grow(900));
    let mut other = Reserved::none(Arc::clone(&store), &key("/"));
    assert!(!other.grow(200));
    drop(other);
    assert_eq!(store.bytes(), 900);
    drop(one);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_flood_of_variants_pushes_out_only_its_own() {
    let cache = cache();
    let now = noon();
    cache.fill("/other", &[("cache-control", "max-age=60")], "other", now);
    for n in 0..1000 {
        let request = map(&[("x-wild", &n.to_string())]);
        let mut guard = cache.must_fill(ask("/wild", request), now);
        let fields = map(&[("cache-control", "max-age=60"), ("vary", "x-wild")]);
        guard.head(http::StatusCode::OK, &fields, &[], now);
        guard.write(&Bytes::from_static(b"wild"));
        assert!(guard.finish().is_ok());
    }
    assert_eq!(cache.stats().entries, MOST_VARIANTS + 1);
    cache.get("/other", &HeaderMap::new(), now).hit();
    cache.get("/wild", &map(&[("x-wild", "999")]), now).hit();
}

#[test]
fn a_part_of_a_body_is_counted_as_it_lies_in_memory() {
    let chunks = vec![Bytes::from_static(b"ab"); 3];
    assert_eq!(Body::new(chunks).chunks(), [Bytes::from_static(b"ababab")]);
}

#[derive(Debug, Clone)]
enum Step {
    Fill { page: u8, tag: u8, life: u16 },
    Look { page: u8 },
    PurgeTag { tag: u8 },
    PurgeKey { page: u8 },
    PurgeAll,
    Pass { seconds: u16 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..8u8, 0..4u8, 1..100u16).prop_map(|(page, tag, life)| Step::Fill { page, tag, life }),
        6 => (0..8u8).prop_map(|page| Step::Look { page }),
        1 => (0..4u8).prop_map(|tag| Step::PurgeTag { tag }),
        1 => (0..8u8).prop_map(|page| Step::PurgeKey { page }),
        1 => Just(Step::PurgeAll),
        2 => (0..60u16).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cache_and_a_naive_map_agree(steps in proptest::collection::vec(step(), 1..120)) {
        let cache = cache();
        let mut naive: HashMap<u8, (u8, Now, usize)> = HashMap::new();
        let mut now = noon();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Fill { page, tag, life } => {
                    let fields = [("cache-control", &*format!("max-age={life}")), ("cache-tag", &*format!("t{tag}"))];
                    cache.fill(&format!("/{page}"), &fields, &number.to_string(), now);
                    naive.insert(page, (tag, now.after(secs(life.into())), number));
                }
                Step::Look { page } => {
                    let expected = naive.get(&page).map(|(_, until, number)| (now.mono < until.mono, *number));
                    let number = |entry: &Arc<Entry>| String::from_utf8_lossy(&body(entry)).parse().ok();
                    match cache.get(&format!("/{page}"), &HeaderMap::new(), now) {
                        Lookup::Hit { entry, .. } => prop_assert_eq!(number(&entry).map(|n| (true, n)), expected),
                        Lookup::Stale { entry, .. } => prop_assert_eq!(number(&entry).map(|n| (false, n)), expected),
                        Lookup::Miss(_) => prop_assert_eq!(None, expected),
                        other => prop_assert!(false, "{:?}", other),
                    }
                }
                Step::PurgeTag { tag } => {
                    cache.purge(crate::cache::Tag::named(&format!("t{tag}")), Purge::Hard);
                    naive.retain(|_, held| held.0 != tag);
                }
                Step::PurgeKey { page } => {
                    cache.purge_key(&key(&format!("/{page}")), Purge::Hard);
                    naive.remove(&page);
                }
                Step::PurgeAll => {
                    cache.purge_all(Purge::Hard);
                    naive.clear();
                }
                Step::Pass { seconds } => now = now.after(secs(seconds.into())),
            }
        }
    }
}
