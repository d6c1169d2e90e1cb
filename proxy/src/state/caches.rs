//! What the caches count, told to the metrics when they are shown: a hit adds to the cache's own numbers and to nothing else.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use prometheus::IntCounterVec;

use crate::{metrics::Families, running::Running};

/// How much of each count was told, by cache and word.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<HashMap<(Arc<str>, &'static str), u64>>);

impl Told {
    /// Tells what is held now, and what was counted since the last time.
    pub(super) fn tell(&self, running: &Running, families: &Families) {
        let mut told = self.0.lock();
        for family in [&families.cache_disk_bytes, &families.cache_disk_budget, &families.cache_disk_entries]
        {
            family.reset();
        }
        families.cache_disk_up.reset();
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        for (plan, cache) in running.plan.caches.iter().zip(&running.caches) {
            let (stats, name) = (cache.stats(), &*plan.name);
            families.cache_bytes.with_label_values(&[name]).set(number(stats.bytes));
            families.cache_budget.with_label_values(&[name]).set(number(plan.memory.len()));
            families.cache_entries.with_label_values(&[name]).set(number(stats.entries));
            let mut add = |family: &IntCounterVec, labels: &[&str], word: &'static str, now: u64| {
                let told = told.entry((Arc::clone(&plan.name), word)).or_default();
                // Less than before: the cache was removed from the file and came back, and counts from the start.
                let news = now.checked_sub(*told).unwrap_or(now);
                family.with_label_values(labels).inc_by(news);
                *told = now;
            };
            add(&families.cache_evictions, &[name], "evictions", stats.evictions);
            add(&families.cache_collapsed, &[name], "collapsed", stats.collapsed);
            let fills = [("stored", stats.stored), ("refused", stats.refused), ("broken", stats.broken)];
            for (outcome, count) in fills {
                add(&families.cache_fills, &[name, outcome], outcome, count);
            }
            if let Some(disk) = cache.disk_stats() {
                let big = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
                families.cache_disk_bytes.with_label_values(&[name]).set(big(disk.bytes));
                families.cache_disk_budget.with_label_values(&[name]).set(big(disk.budget));
                families.cache_disk_entries.with_label_values(&[name]).set(number(disk.entries));
                families.cache_disk_up.with_label_values(&[name]).set(i64::from(disk.works));
                for (event, count) in [
                    ("hit", disk.hits),
                    ("written", disk.written),
                    ("skipped", disk.skipped),
                    ("evicted", disk.evictions),
                    ("damaged", disk.damaged),
                    ("error", disk.errors),
                ] {
                    add(&families.cache_disk, &[name, event], event, count);
                }
            }
            if let Some(shared) = cache.shared_stats() {
                for (event, word, count) in [
                    ("hit", "shared hit", shared.hits),
                    ("miss", "shared miss", shared.misses),
                    ("unproven", "shared unproven", shared.unproven),
                    ("damaged", "shared damaged", shared.damaged),
                    ("error", "shared error", shared.errors),
                    ("wait", "shared wait", shared.waits),
                    ("written", "shared written", shared.written),
                    ("dropped", "shared dropped", shared.dropped),
                ] {
                    add(&families.cache_shared, &[name, event], word, count);
                }
            }
            for (reason, count) in cache.reasons() {
                add(&families.cache_refused, &[name, reason], reason, count);
            }
        }
    }
}
