//! The caches' part in what their fleet has in common.

use std::sync::Arc;

use weir_config::{Plan, plan};

use super::{CannotRun, Running};
use crate::{
    cache::{PurgeStream, Shared},
    fleet::{BadRedis, Redis},
};

/// The way to Redis of each cache of a plan that has a part in the tier: with a deadline, connections and circuits of its own,
/// so that sessions and limits wait for no body.
pub(super) fn reach(plan: &Plan) -> Result<Vec<Option<Redis>>, Vec<CannotRun>> {
    let own = |redis: &plan::Redis, shared: &plan::CacheShared| {
        let mut own = redis.clone();
        own.timeout = shared.timeout;
        Redis::new(&own)
    };
    let each = plan.caches.iter().map(|cache| {
        let both = plan.redis.as_ref().zip(cache.shared.as_ref());
        both.map(|(redis, shared)| own(redis, shared)).transpose()
    });
    each.collect::<Result<_, BadRedis>>().map_err(|bad| vec![bad.into()])
}

impl Running {
    /// Gives the caches their part in the tier, as before where nothing about it changed; none without `purges`.
    pub(super) fn share_entries(&self, purges: Option<&PurgeStream>) {
        let prefix = self.plan.redis.as_ref().map_or("", |redis| &redis.prefix);
        for ((plan, cache), redis) in self.plan.caches.iter().zip(&self.caches).zip(&self.tiers) {
            let part = purges.zip(redis.as_ref()).zip(plan.shared.as_ref());
            cache.set_shared(part.map(|((purges, redis), shared)| {
                let named = (prefix, Arc::clone(&plan.name));
                Shared::join(redis.clone(), named, shared, purges, cache)
            }));
        }
    }
}
