//! Which caches hear of a purge: those of the plan in force, and those of the plans before it while somebody has them.

use super::*;
use crate::cache::{PurgeStream, Tags};

async fn wait(what: &str, ready: impl Fn() -> bool) {
    let waiting = async {
        while !ready() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test]
async fn a_cache_that_a_reload_removes_hears_of_purges_while_a_request_has_it() {
    let fleet = Fleet::new();
    let start = |cache: &Cache| {
        let redis = Redis::new(fleet.plan.redis.as_ref().unwrap()).unwrap();
        let concerned = (Arc::clone(&cache.shelf.tags), vec![("store".into(), cache.clone())]);
        PurgeStream::start(redis, "weir:", concerned, (None, false), |_| ())
    };
    let (old, new, there) = (cache(), cache(), cache());
    let (here, other) = (start(&old), start(&there));
    wait("both hear", || here.is_heard() && other.is_heard()).await;
    here.concerns(&[("new".into(), new.clone())]);
    here.concerns(&[("new".into(), new.clone())]);
    let [floor, other_floor] = [&old, &new].map(|cache| cache.shelf.floor.at(Purge::Hard));
    let tags: &Tags = &there.shelf.tags;
    tags.announce(&Subject::cache("store"), Purge::Hard, || ());
    wait("it is heard", || old.shelf.floor.at(Purge::Hard) > floor).await;
    assert_eq!(new.shelf.floor.at(Purge::Hard), other_floor, "nobody purged this");
    tags.announce(&Subject::cache("new"), Purge::Hard, || ());
    wait("and so is this", || new.shelf.floor.at(Purge::Hard) > other_floor).await;
    let last = Arc::downgrade(&old.shelf);
    drop(old);
    wait("and no longer", || last.strong_count() == 0).await;
}
