//! The caches' part in what their fleet has in common: as before where nothing about it changed.

use std::sync::Arc;

use parking_lot::Mutex;
use weir_config::Plan;

use super::{CannotRun, Running};
use crate::cache::{Cache, Shared, Sharing};

/// The tier of each cache of a plan, in its order, until they are given to them.
pub(super) type Waiting = Mutex<Vec<Option<Arc<Shared>>>>;

/// The tier of each cache; nothing of the generation before has changed yet.
pub(super) fn join(
    plan: &Plan,
    sharing: Option<&Sharing>,
    caches: &[Cache],
) -> Result<Waiting, Vec<CannotRun>> {
    let shared = plan.redis.as_ref().zip(sharing);
    let tiers = plan.caches.iter().zip(caches).map(|(named, cache)| {
        let Some(((redis, sharing), tier)) = shared.zip(named.shared.as_ref()) else { return Ok(None) };
        Shared::join(redis, (&named.name, tier), sharing, cache).map(Some)
    });
    tiers.collect::<Result<_, _>>().map(Mutex::new).map_err(|bad| vec![bad.into()])
}

impl Running {
    /// Gives the caches their tiers.
    pub(super) fn take_tiers(&self) {
        let tiers = std::mem::take(&mut *self.tiers.lock());
        self.caches.iter().zip(tiers).for_each(|(cache, tier)| cache.set_shared(tier));
    }
}
