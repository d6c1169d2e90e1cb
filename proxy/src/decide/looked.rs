//! The look into the cache, once a request has passed.

use weir_config::plan::CacheId;

use crate::{
    cache::{Key, Lookup, Now, RequestHead, Rule},
    running::Running,
};

/// What a request was looked up by, and what was found. It was counted.
#[derive(Debug)]
pub struct Looked {
    /// The key.
    pub key: Key,
    /// What there is under it.
    pub lookup: Lookup,
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
    running.count_lookup(cache, &lookup);
    Looked { key, lookup }
}
