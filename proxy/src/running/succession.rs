//! A generation comes into force. What generations share changes here and nowhere else: a plan that is refused, however late,
//! has changed nothing.

use std::sync::Arc;

use weir_config::plan;

use super::Running;
use crate::{
    cache::{Purge, PurgeStream, Subject},
    metrics::Metrics,
};

impl Running {
    /// From now on this generation counts, and `before` does not: nobody is watched for it any more, and what its requests
    /// still learn of peers is this one's.
    ///
    /// Shape:  once for each generation, within a tokio runtime, and before any request is its.
    pub fn come_into_force(&self, before: Option<&Self>, metrics: &Metrics) {
        for (plan, cache) in self.plan.caches.iter().zip(&self.caches) {
            cache.set_budget(plan.memory.len(), plan.entry_bytes.len());
        }
        self.take_disks();
        self.share_purges(before, metrics);
        self.doubt_new_caches(before);
        self.share_entries(self.purge_stream());
        self.rewire_sessions();
        let Some(before) = before else { return };
        before.watching.token().cancel();
        for old in &before.upstreams {
            if let Some(new) = self.upstreams.iter().find(|new| new.plan.name == old.plan.name) {
                old.roster.succeeded_by(&new.roster);
            }
        }
    }

    /// What makes a purge here one at every edge, if this generation has it.
    #[must_use]
    pub fn purge_stream(&self) -> Option<&PurgeStream> {
        self.purge_stream.get().map(Arc::as_ref)
    }

    /// Tells and hears purges as before where Redis is the same; from the same place where only the way to it is another.
    fn share_purges(&self, before: Option<&Self>, metrics: &Metrics) {
        let before = before.and_then(|before| Some((before.redis.as_ref()?, before.purge_stream.get()?)));
        let shared = self.plan.redis.as_ref().filter(|redis| redis.purges && !self.plan.caches.is_empty());
        let Some((redis, settings)) = self.redis.as_ref().zip(shared) else {
            if let Some((_, purges)) = before {
                purges.stop();
                self.tags.leave_fleet();
            }
            return;
        };
        let named = self.plan.caches.iter().zip(&self.caches);
        let named: Vec<_> = named.map(|(plan, cache)| (Arc::clone(&plan.name), cache.clone())).collect();
        let purges = match before {
            Some((same, purges)) if same.is(redis) => {
                purges.concerns(&named);
                Arc::clone(purges)
            }
            other => {
                let place = other.and_then(|(other, purges)| {
                    purges.stop();
                    purges.place().filter(|_| other.holds_the_same(redis))
                });
                let count = Self::fleet_counter(metrics);
                let from = (place, self.plan.caches.iter().any(|cache| cache.shared.is_some()));
                let told = (Arc::clone(&self.tags), named);
                Arc::new(PurgeStream::start(redis.clone(), &settings.prefix, told, from, count))
            }
        };
        // Nobody else begins it.
        let _ = self.purge_stream.set(purges);
    }

    /// What the fleet purged while a cache was none of this edge's, or had another name, was not done for it: of what others keep
    /// under its name, and of what lies in its folder, nobody can say whether it was purged. With a word that means nothing,
    /// what others share from then on is told from what was before.
    fn doubt_new_caches(&self, before: Option<&Self>) {
        let Some((before, _)) = before.zip(self.purge_stream()) else { return };
        let is_new = |plan: &plan::Cache| before.plan.caches.iter().all(|old| old.name != plan.name);
        let new: Vec<_> =
            self.plan.caches.iter().zip(&self.caches).filter(|(plan, _)| is_new(plan)).collect();
        new.iter().for_each(|(_, cache)| cache.purge_all(Purge::Hard));
        if new.iter().any(|(plan, _)| plan.shared.is_some()) {
            self.tags.order(Subject::nothing(), Purge::Hard);
        }
    }
}
