//! The look into the cache, once a request has passed.

use weir_config::plan::CacheId;

use crate::{
    cache::{Key, Lookup, Now, RequestHead, Rule},
    running::Running,
};

/// What a request was looked up by, and what was found. It was counted, unless there is more to look into.
#[derive(Debug)]
pub struct Looked {
    /// The key.
    pub key: Key,
    /// What there is under it.
    pub lookup: Lookup,
    /// Whether the cache's disk may know better, which only the general lane can wait for; [`look_deeper`].
    pub is_open: bool,
}

/// Looks a request up, and counts that.
pub fn look_up(
    running: &Running,
    cache: CacheId,
    key: Key,
    request: &RequestHead<'_>,
    policy: &Rule,
    now: Now,
) -> Looked {
    let lookup = running.caches[cache.index()].lookup(&key, request, policy, now);
    let is_open = running.caches[cache.index()].may_deepen(&lookup, &key, policy, now);
    if !is_open {
        running.count_lookup(cache, &lookup);
    }
    Looked { key, lookup, is_open }
}

/// Goes on where memory ended, and counts what came of it.
pub async fn look_deeper(
    running: &Running,
    cache: CacheId,
    looked: Looked,
    request: &RequestHead<'_>,
    policy: &Rule,
    now: Now,
) -> Looked {
    let Looked { key, lookup, .. } = looked;
    let lookup = running.caches[cache.index()].deepen(lookup, &key, request, policy, now).await;
    running.count_lookup(cache, &lookup);
    Looked { key, lookup, is_open: false }
}
