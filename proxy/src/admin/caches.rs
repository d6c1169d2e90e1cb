//! `GET /caches`: what each cache holds, what share of look-ups it answers, and what share it would with less or more memory.

use std::fmt;

use serde::{Deserialize, Serialize};
use weir_config::units::Bytes;

use crate::{cache::DiskStats, running::Running};

/// The memory asked about, as shares of what the cache has: an eighth to eight times as much.
const SIZES: [(u64, u64); 7] = [(1, 8), (1, 4), (1, 2), (1, 1), (2, 1), (4, 1), (8, 1)];

/// One cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheSight {
    /// Its name.
    pub name: String,
    /// What it may hold.
    pub budget_bytes: u64,
    /// What it holds.
    pub bytes: u64,
    /// How many entries that is.
    pub entries: u64,
    /// Look-ups since the start.
    pub lookups: u64,
    /// The share of them that found a good entry, 0 to 1; `None` before the first.
    pub hit_rate: Option<f64>,
    /// Its second tier, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<DiskSight>,
    /// What other sizes would do, by the look-ups of late.
    pub with_memory: Vec<WithMemory>,
}

/// What a cache has on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskSight {
    /// What its files may take.
    pub budget_bytes: u64,
    /// What they take.
    pub bytes: u64,
    /// How many entries that is.
    pub entries: u64,
    /// Look-ups that memory could not answer, and the disk could.
    pub hits: u64,
    /// Files that were damaged, and dropped.
    pub damaged: u64,
    /// Whether it can be read and written.
    pub works: bool,
    /// Whether all is known that lay there at the start.
    pub scanned: bool,
}

impl DiskSight {
    fn of(stats: DiskStats) -> Self {
        Self {
            budget_bytes: stats.budget,
            bytes: stats.bytes,
            entries: stats.entries as u64,
            hits: stats.hits,
            damaged: stats.damaged,
            works: stats.works,
            scanned: stats.is_scanned,
        }
    }
}

/// What a size would do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WithMemory {
    /// So much memory.
    pub bytes: u64,
    /// The share of look-ups that would find a good entry, 0 to 1, give or take some hundredths; `None` while too little is
    /// known.
    pub hit_rate: Option<f64>,
}

/// Looks at every cache, in the order of the file.
#[must_use]
pub fn sights(running: &Running) -> Vec<CacheSight> {
    let sight = |(plan, cache): (&weir_config::plan::Cache, &crate::cache::Cache)| {
        let (stats, budget) = (cache.stats(), plan.memory.get());
        let lookups = stats.hits + stats.stale + stats.misses;
        let with = |(times, part)| {
            let bytes = budget / part * times;
            let hit_rate = cache.hit_rate_with(usize::try_from(bytes).unwrap_or(usize::MAX));
            WithMemory { bytes, hit_rate: hit_rate.map(thousandths) }
        };
        CacheSight {
            name: plan.name.to_string(),
            budget_bytes: budget,
            bytes: stats.bytes as u64,
            entries: stats.entries as u64,
            lookups,
            hit_rate: (lookups > 0).then(|| thousandths(stats.hits as f64 / lookups as f64)),
            disk: cache.disk_stats().map(DiskSight::of),
            with_memory: SIZES.map(with).to_vec(),
        }
    };
    running.plan.caches.iter().zip(&running.caches).map(sight).collect()
}

fn thousandths(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

impl fmt::Display for CacheSight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (held, budget) = (megabytes(self.bytes), Bytes::new(self.budget_bytes));
        writeln!(f, "{}: {held} of {budget} in {} entries", self.name, self.entries)?;
        writeln!(f, "  {:>10}  {} of {} look-ups", "so far", percent(self.hit_rate), self.lookups)?;
        if let Some(disk) = &self.disk {
            let (held, budget) = (megabytes(disk.bytes), Bytes::new(disk.budget_bytes));
            let state = match (disk.works, disk.scanned) {
                (false, _) => ", which fails: memory goes on alone",
                (true, false) => ", as far as it is known yet",
                (true, true) => "",
            };
            let (entries, hits) = (disk.entries, disk.hits);
            writeln!(f, "  {:>10}  {held} of {budget} in {entries} entries, {hits} hits{state}", "on disk")?;
        }
        for size in &self.with_memory {
            let now = if size.bytes == self.budget_bytes { "  (now)" } else { "" };
            writeln!(f, "  {:>10}  {}{now}", Bytes::new(size.bytes).to_string(), percent(size.hit_rate))?;
        }
        Ok(())
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1}MiB", bytes as f64 / f64::from(1 << 20))
}

fn percent(rate: Option<f64>) -> String {
    rate.map_or_else(|| "not known yet".to_owned(), |rate| format!("{:.1} %", rate * 100.0))
}
