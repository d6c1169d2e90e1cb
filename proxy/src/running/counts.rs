//! What the stages count, resolved once per plan so that a request only adds.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use prometheus::IntCounter;
use weir_config::{
    Plan, plan,
    plan::{CacheId, LimitId, SessionId},
};

use super::{Mirrored, Running};
use crate::{
    auth::{Unavailable, Whose},
    cache::{Lookup, Purge},
    coding::Compressors,
    limit::Verdict,
    metrics::{Count, Metrics},
};

/// Counters of the stages, resolved once.
#[derive(Debug)]
pub(super) struct Counts {
    limits: Vec<[Count; Verdict::WORDS.len()]>,
    sessions: Vec<[Count; 3]>,
    caches: Vec<[Count; 4]>,
    express: Vec<Count>,
    invalidations: IntCounter,
    purges: [[IntCounter; 2]; PurgedBy::WORDS.len()],
    leaks: Vec<IntCounter>,
    /// The last second in which the operator was told of one.
    leak_told: AtomicU64,
    /// By route; of those that have a mirror.
    pub(super) mirrors: Vec<Option<[IntCounter; 3]>>,
}

/// Whose word a purge was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PurgedBy {
    /// The admin listener's.
    Admin,
    /// A client's, with the method PURGE.
    Method,
    /// The origin's, by a field of its answer.
    Origin,
    /// Another edge's.
    Fleet,
}

impl PurgedBy {
    const WORDS: [&'static str; 4] = ["admin", "method", "origin", "fleet"];
}

impl Counts {
    pub(super) fn new(plan: &Plan, metrics: &Metrics) -> Self {
        let families = metrics.families();
        let verdicts = |limit: &plan::Limit| {
            Verdict::WORDS.map(|verdict| metrics.count(&families.limits, &[&*limit.name, verdict]))
        };
        let results = |session: &plan::Session| {
            ["valid", "unknown", "unavailable"]
                .map(|result| metrics.count(&families.sessions, &[&*session.name, result]))
        };
        let lookups = |cache: &plan::Cache| {
            ["hit", "stale", "miss", "bypass"]
                .map(|result| metrics.count(&families.cache, &[&*cache.name, result]))
        };
        let mirrors = |route: &plan::Route| {
            let has_one = matches!(&route.action, plan::Action::Forward(forward) if forward.mirror.is_some());
            has_one.then(|| {
                Mirrored::WORDS.map(|outcome| families.mirrors.with_label_values(&[&*route.name, outcome]))
            })
        };
        Self {
            limits: plan.limits.iter().map(verdicts).collect(),
            sessions: plan.sessions.iter().map(results).collect(),
            caches: plan.caches.iter().map(lookups).collect(),
            express: plan
                .caches
                .iter()
                .map(|cache| metrics.count(&families.cache_express, &[&*cache.name]))
                .collect(),
            mirrors: plan.routes.iter().map(mirrors).collect(),
            purges: PurgedBy::WORDS
                .map(|by| ["hard", "soft"].map(|mode| families.purges.with_label_values(&[by, mode]))),
            leaks: plan
                .caches
                .iter()
                .map(|cache| families.leaks.with_label_values(&[&*cache.name]))
                .collect(),
            leak_told: AtomicU64::new(0),
            invalidations: families.invalidations.with_label_values::<&str>(&[]),
        }
    }
}

/// The compressors, counting what they are given and what they make.
pub(super) fn compressors(metrics: &Metrics) -> Compressors {
    let compressed = &metrics.families().compressed;
    Compressors::new(|coding| ["in", "out"].map(|side| compressed.with_label_values(&[coding.name(), side])))
}

impl Running {
    /// Counts a charge.
    pub fn count_limit(&self, limit: LimitId, verdict: Verdict) {
        self.counts.limits[limit.index()][verdict as usize].inc();
    }

    /// Counts a validation.
    pub fn count_session(&self, session: SessionId, result: Result<&Whose, &Unavailable>) {
        let which = match result {
            Ok(Whose::Session(_)) => 0,
            Ok(Whose::Nobody(_)) => 1,
            Err(_) => 2,
        };
        self.counts.sessions[session.index()][which].inc();
    }

    /// Counts a look-up.
    pub fn count_lookup(&self, cache: CacheId, lookup: &Lookup) {
        let which = match lookup {
            Lookup::Hit { .. } => 0,
            Lookup::Stale { .. } => 1,
            Lookup::Miss(_) | Lookup::OnlyIfCached => 2,
            Lookup::Bypass(_) => 3,
        };
        self.counts.caches[cache.index()][which].inc();
    }

    /// Counts a hit that was answered on the express lane.
    pub fn count_express(&self, cache: CacheId) {
        self.counts.express[cache.index()].inc();
    }

    /// What counts a purge by another edge, of whatever generation.
    pub(super) fn fleet_counter(metrics: &Metrics) -> impl Fn(Purge) + Send + Sync + use<> {
        let purges = &metrics.families().purges;
        let counters = ["hard", "soft"].map(|mode| purges.with_label_values(&["fleet", mode]));
        move |mode| counters[usize::from(mode == Purge::Soft)].inc()
    }

    /// Counts purges, however many entries each of them ends.
    pub fn count_purges(&self, by: PurgedBy, mode: Purge, purges: usize) {
        self.counts.purges[by as usize][usize::from(mode == Purge::Soft)].inc_by(purges as u64);
    }

    /// Counts an answer that would have shown one caller's own to others. True when the operator should hear of it: once
    /// a second, as every request for a careless page may be one.
    pub fn count_leak(&self, cache: CacheId, now: SystemTime) -> bool {
        self.counts.leaks[cache.index()].inc();
        let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.counts.leak_told.swap(second, Ordering::Relaxed) != second
    }

    /// Counts a tag invalidated by a write.
    pub fn count_invalidation(&self) {
        self.counts.invalidations.inc();
    }
}
