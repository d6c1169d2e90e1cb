#![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
use std::{
    fs,
    os::unix::fs::{MetadataExt, symlink},
};

use http::Method;
use nix::errno::Errno;

use super::{
    super::{
        Ask, Cache, Lookup, NotStored, RequestHead, Rule, Standing, Tag, Url,
        testing::{MIB, ask, body, key, map, noon, secs, uri},
    },
    core::Unread,
    *,
};

const FRESH: [(&str, &str); 1] = [("cache-control", "max-age=60")];

fn open(root: &Path, tags: &Arc<Tags>) -> Arc<Disk> {
    let disk = Disk::open(root, 64 << 20, 32 << 20, tags).unwrap();
    until(|| disk.stats().is_scanned);
    disk
}

/// Waits for the disk's own threads.
fn until(ready: impl Fn() -> bool) {
    while !ready() {
        thread::yield_now();
    }
}

fn cache_on(disk: &Arc<Disk>, tags: &Arc<Tags>) -> Cache {
    let cache = Cache::new(64 * MIB, MIB, Arc::clone(tags));
    cache.set_disk(Some(Arc::clone(disk)));
    cache
}

async fn deep(cache: &Cache, target: &str, now: Now) -> Lookup {
    let headers = HeaderMap::new();
    let request = RequestHead { method: &Method::GET, headers: &headers, has_body: false };
    let (key, rule) = (key(target), Rule::origin_alone());
    let lookup = cache.lookup(&key, &request, &rule, now);
    if cache.may_deepen(&lookup, &key, &rule, now) {
        return cache.deepen(lookup, &key, &request, &rule, now).await;
    }
    lookup
}

#[tokio::test]
async fn what_is_kept_is_found_in_the_next_life_older_by_the_time_between() {
    let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), Now::read());
    let disk = open(root.path(), &tags);
    cache_on(&disk, &tags).fill("/a", &FRESH, "body", now);
    disk.finish();
    drop(disk);
    let tags = Arc::new(Tags::new());
    let disk = open(root.path(), &tags);
    let (cache, later) = (cache_on(&disk, &tags), now.after(secs(40)));
    let entry = deep(&cache, "/a", later).await.hit();
    assert_eq!(body(&entry), b"body");
    // The two clocks run apart by a little.
    assert!((20..=21).contains(&entry.head().freshness.ttl(later)));
    assert!(matches!(deep(&cache, "/b", later).await, Lookup::Miss(_)));
    assert!(matches!(deep(&cache, "/a", now.after(secs(61))).await, Lookup::Stale { .. }));
    assert_eq!(disk.stats().hits, 1, "memory has it from then on");
}

#[tokio::test]
async fn what_is_hardly_good_or_cannot_be_written_leaves_nothing_older_behind() {
    let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), Now::read());
    let disk = open(root.path(), &tags);
    let cache = cache_on(&disk, &tags);
    let written = |entries: usize| until(|| disk.stats().entries == entries);
    cache.fill("/a", &FRESH, "old", now);
    written(1);
    cache.fill("/a", &[("cache-control", "max-age=5")], "new", now);
    written(0);
    cache.fill("/a", &FRESH, "old", now);
    written(1);
    disk.core.failed(&io::ErrorKind::StorageFull.into());
    cache.fill("/a", &FRESH, "new", now);
    assert_eq!(disk.stats().entries, 0);
}

/// Once the disk went on having it for everybody, and so did memory after a restart.
#[tokio::test]
async fn what_a_304_makes_another_variant_is_not_kept_as_the_one_it_was() {
    for (most, expected) in [(MIB, None), (1, Some(NotStored::Mismatch))] {
        let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), Now::read());
        let disk = open(root.path(), &tags);
        cache_on(&disk, &tags).fill("/a", &[FRESH[0], ("etag", "\"a\"")], "body", now);
        until(|| disk.stats().entries == 1);
        let (cache, later) = (Cache::new(64 * MIB, most, Arc::clone(&tags)), now.after(secs(61)));
        cache.set_disk(Some(Arc::clone(&disk)));
        let Lookup::Stale { entry, .. } = deep(&cache, "/a", later).await else { panic!("not stale") };
        assert_eq!(entry.body().stored().is_some(), expected.is_some());
        let asking = Ask { stale: Some(entry), ..ask("/a", map(&[("x-v", "1")])) };
        let mut guard = cache.must_fill(asking, later);
        let varies = map(&[("etag", "\"a\""), ("vary", "x-v")]);
        assert_eq!(guard.not_modified(&varies, &[], later).err(), expected);
        for cache in [cache, cache_on(&disk, &tags)] {
            assert!(matches!(deep(&cache, "/a", later).await, Lookup::Miss(_)));
        }
    }
}

#[tokio::test]
async fn a_full_disk_rests_makes_room_and_is_still_read() {
    let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), Now::read());
    let disk = open(root.path(), &tags);
    let cache = cache_on(&disk, &tags);
    for at in 0..32 {
        cache.fill(&format!("/{at}"), &FRESH, "body", now);
    }
    until(|| disk.stats().entries == 32);
    disk.core.failed(&io::ErrorKind::StorageFull.into());
    let stats = disk.stats();
    assert_eq!((stats.entries, stats.evictions, stats.errors, stats.works), (30, 2, 1, false));
    let other = cache_on(&disk, &tags);
    assert_eq!(body(&deep(&other, "/31", now).await.hit()), b"body");
    assert!(disk.make_room(1 << 20, now).await.is_none());
}

#[tokio::test]
async fn purges_are_known_in_the_next_life() {
    let (root, tags) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()));
    let disk = open(root.path(), &tags);
    let cache = cache_on(&disk, &tags);
    let before = tags.moment();
    let url = |text: &str| Url::parse(text).unwrap();
    let long = format!("http://h/{}", "x".repeat(600));
    tags.purge(Tag::named("hard"), Purge::Hard);
    tags.purge(Tag::named("soft"), Purge::Soft);
    tags.purge_prefix(&url("http://h/img/"), Purge::Hard);
    tags.purge_prefix(&url(&long), Purge::Soft);
    cache.purge_all(Purge::Soft);
    tags.recorded().await;
    // More than waits to be written one by one.
    (0..10_000).for_each(|number| tags.purge(Tag::named(&number.to_string()), Purge::Hard));
    tags.recorded().await;
    let end = tags.moment();
    drop((cache, disk));
    for _ in 0..2 {
        let tags = Arc::new(Tags::new());
        let disk = open(root.path(), &tags);
        let of = |name: &str, since| tags.standing(&[Tag::named(name)], since);
        assert_eq!((of("hard", before), of("soft", before)), (Standing::Gone, Standing::Soft));
        assert!((0..10_000).all(|number| of(&number.to_string(), before) == Standing::Gone));
        assert_eq!(tags.standing_of(&url("http://h/img/a"), before), Standing::Gone);
        assert_eq!(tags.standing_of(&url(&long), before), Standing::Soft);
        assert_eq!(tags.standing_of(&url("http://h/other"), before), Standing::Good);
        assert!(disk.floors()[1] > 0 && disk.floors()[0] == 0);
        for since in [end, tags.moment()] {
            assert_eq!((of("hard", since), of("soft", since)), (Standing::Good, Standing::Good));
        }
        assert!(tags.moment() > end, "a new purge ends what an earlier life kept");
    }
}

#[tokio::test]
async fn what_an_earlier_life_kept_is_older_than_each_purge_of_the_next() {
    let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), Now::read());
    let disk = open(root.path(), &tags);
    // As if the plan had named another folder behind this one, with more lives behind it.
    tags.not_before(tags.moment().count() + (9 << 32));
    cache_on(&disk, &tags).fill("/a", &FRESH, "body", now);
    disk.finish();
    drop(disk);
    let tags = Arc::new(Tags::new());
    let disk = open(root.path(), &tags);
    assert_eq!(body(&deep(&cache_on(&disk, &tags), "/a", now).await.hit()), b"body");
    tags.purge(uri("/a"), Purge::Hard);
    assert!(matches!(deep(&cache_on(&disk, &tags), "/a", now).await, Lookup::Miss(_)));
}

#[tokio::test]
async fn what_was_purged_while_a_folder_was_not_used_is_known_in_its_next_life() {
    let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), Now::read());
    let disk = open(root.path(), &tags);
    let cache = cache_on(&disk, &tags);
    cache.fill("/a", &FRESH, "body", now);
    cache.set_disk(None);
    disk.finish();
    drop(disk);
    cache.purge_all(Purge::Hard);
    let disk = open(root.path(), &tags);
    assert_eq!(disk.stats().entries, 1);
    cache.set_disk(Some(Arc::clone(&disk)));
    tags.recorded().await;
    drop(cache);
    disk.finish();
    drop(disk);
    let tags = Arc::new(Tags::new());
    let disk = open(root.path(), &tags);
    assert!(matches!(deep(&cache_on(&disk, &tags), "/a", now).await, Lookup::Miss(_)));
}

#[test]
fn a_folder_has_the_room_for_its_purges_from_the_start() {
    let root = tempfile::tempdir().unwrap();
    let disk = open(root.path(), &Arc::new(Tags::new()));
    let purges = fs::metadata(disk.core.folder.ledger()).unwrap();
    assert!(purges.blocks() * 512 >= purges.len());
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_given_up_with_its_first_failure() {
    let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), Now::read());
    let disk = open(root.path(), &tags);
    let cache = cache_on(&disk, &tags);
    ["/a", "/b"].iter().for_each(|target| drop(cache.fill(target, &FRESH, "body", now)));
    until(|| disk.stats().entries == 2);
    let file = |target: &str| disk.core.index.lock().find(key_name(key(target).text()))[0];
    let place = disk.core.folder.place(file("/a"));
    fs::remove_file(&place).unwrap();
    symlink(&place, &place).unwrap();
    assert!(matches!(deep(&cache_on(&disk, &tags), "/a", now).await, Lookup::Miss(_)));
    let stats = disk.stats();
    assert_eq!((stats.entries, stats.errors, stats.works), (1, 1, false));
    until(|| place.symlink_metadata().is_err());
    // What this process lacks says nothing of the file.
    disk.core.unread(file("/b"), Unread::Failed(Errno::EMFILE.into()));
    assert_eq!(disk.stats().entries, 1);
}

#[tokio::test]
async fn a_body_is_read_while_it_is_written_and_is_whole_or_nothing() {
    let (root, tags, now) = (tempfile::tempdir().unwrap(), Arc::new(Tags::new()), noon());
    let disk = open(root.path(), &tags);
    let head = Arc::clone(cache_on(&disk, &tags).fill("/a", &FRESH, "", now).head());
    let bytes: Vec<u8> = (0..1_000_000u32).map(|at| (at % 251) as u8).collect();
    let length = bytes.len() as u64;
    assert!(disk.spool(&key("/x"), &head, (Some(length), None), now).is_none(), "without its room");
    let room = disk.make_room(length, now).await;
    let spool = disk.spool(&key("/x"), &head, (Some(length), room), now).unwrap();
    let mut at = 0;
    for part in bytes.chunks(70_001) {
        spool.room().await;
        assert!(spool.write(part));
        while let Some(read) = spool.read(at as u64).await {
            let read = read.unwrap();
            assert_eq!(read, bytes[at..at + read.len()]);
            at += read.len();
        }
    }
    assert_eq!(at, bytes.len());
    assert!(spool.stored().is_none());
    spool.close().await;
    assert_eq!(spool.stored().unwrap().length(), bytes.len() as u64);
    assert_eq!(spool.read(500_000).await.unwrap().unwrap()[..9], bytes[500_000..500_009], "from the file");
    let used = disk.stats().bytes;
    let broken = disk.spool(&key("/y"), &head, (None, None), now).unwrap();
    assert!(broken.write(&bytes));
    broken.abandon();
    assert!(!broken.write(&bytes) && broken.read(0).await.unwrap().is_err() && broken.stored().is_none());
    drop(disk.make_room(length, now).await.unwrap());
    assert_eq!(disk.stats().bytes, used);
    assert!(disk.make_room(33 << 20, now).await.is_none(), "longer than an entry may be");
}
