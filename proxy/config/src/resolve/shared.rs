//! The tier of a cache that the fleet has in common.

use super::Resolver;
use crate::{
    defaults as d,
    plan::{self, Plan},
    raw,
    span::Place,
    units::Bytes,
};

/// Redis sends an entry in one piece, and whoever asks next waits for it.
const MOST_ENTRY: u64 = 8 << 20;

impl Resolver<'_> {
    /// `entry_bytes` is what the cache keeps in memory.
    pub(super) fn cache_shared(
        &mut self,
        raw: &raw::CacheShared,
        entry_bytes: Bytes,
        place: Place,
    ) -> plan::CacheShared {
        let most = entry_bytes.min(Bytes::new(MOST_ENTRY));
        let shared = raw.entry_max.or(d::CACHE_SHARED_ENTRY_MAX.min(most));
        if let Some(at) = raw.entry_max.place().filter(|_| shared > most) {
            let said =
                format!("`entry_max` ({shared}) is more than fits into memory and one answer of Redis");
            self.report.error(at, said).help(format!("at most {most}, and better a tenth of that"));
        }
        plan::CacheShared {
            entry_bytes: shared,
            ttl_max: self.time(&raw.ttl_max, d::CACHE_SHARED_TTL_MAX),
            timeout: self.time(&raw.timeout, d::CACHE_SHARED_TIMEOUT),
            compresses: raw.compress.or(d::CACHE_SHARED_COMPRESS),
            lease: raw.lease.get().map_or(d::CACHE_SHARED_LEASE, |lease| lease.get()),
            place,
        }
    }

    /// A tier needs a Redis to lie in, and purges that all edges hear of: it would bring back what one of them ended.
    pub(super) fn caches_can_be_shared(&mut self, plan: &Plan) {
        let raw = self.raw;
        let redis = raw.redis.get();
        let is_missing = plan.redis.is_none() && redis.is_none_or(|redis| redis.url_file.is_absent());
        let is_alone = redis.is_some_and(|redis| !redis.purges.or(d::REDIS_PURGES));
        let shared = raw.caches.entries();
        let shared = shared.filter_map(|(name, cache, _)| Some((name, cache.shared.place()?)));
        for (name, at) in shared {
            if is_missing {
                let problem = self.report.error(at, format!("cache `{name}` has no `redis` to be shared in"));
                problem.help("define it at the top of the file: `redis: { url: … }`");
            } else if is_alone {
                let said = format!("cache `{name}` cannot be shared by edges that do not hear of purges");
                self.report.error(at, said).help("leave out `redis.purges: false`");
            }
        }
    }
}
