//! Reload: read → plan → build → swap. Whatever fails on the way, the old generation stays in force.

use std::sync::{Arc, atomic::Ordering};

use weir_config::{Plan, Report, plan::AccessLog};

use super::{Snapshot, State};
use crate::{
    metrics::Metrics,
    record::{Recorder, access::AccessWriter},
    running::{CannotRun, Running},
};

/// Why a configuration did not come into force.
#[derive(Debug, thiserror::Error)]
pub enum CannotReload {
    /// The file has problems; all of them.
    #[error("{0}")]
    Problems(Report),
    /// It means something that cannot be had here and now.
    #[error(transparent)]
    Run(#[from] CannotRun),
    /// The access log cannot be opened.
    #[error(transparent)]
    Log(#[from] std::io::Error),
    /// A listener cannot be opened, or its certificates cannot be used.
    #[error("{0}")]
    Listener(String),
}

impl Snapshot {
    /// Builds a generation, carrying over what `old` has.
    ///
    /// # Errors
    /// [`CannotReload`]; `old` is unchanged.
    pub async fn build(plan: Plan, old: Option<&Self>, metrics: &Arc<Metrics>) -> Result<Self, CannotReload> {
        let plan = Arc::new(plan);
        let running = Running::build(Arc::clone(&plan), old.map(|old| &old.running), metrics).await?;
        let log = plan.log.access.as_ref().map(|log| open_log(log, old, metrics)).transpose()?;
        Ok(Self { recorder: Recorder::new(&plan, Arc::clone(metrics), log), running })
    }
}

/// The same log goes on with the same writer, which opens its file anew: rotations end with a HUP.
fn open_log(log: &AccessLog, old: Option<&Snapshot>, metrics: &Metrics) -> std::io::Result<AccessWriter> {
    let same = old.filter(|old| old.running.plan.log.access.as_ref() == Some(log));
    if let Some(writer) = same.and_then(|old| old.recorder.access()) {
        writer.reopen();
        return Ok(writer.clone());
    }
    AccessWriter::open(log, metrics.families().log_dropped.with_label_values::<&str>(&[]))
}

impl State {
    /// Reads the file again and builds the next generation, without putting it in force.
    ///
    /// # Errors
    /// [`CannotReload`], with every problem of the file.
    pub async fn prepare(&self) -> Result<Snapshot, CannotReload> {
        let loaded = self.source.load().map_err(CannotReload::Problems)?;
        for problem in loaded.warnings.problems() {
            tracing::warn!(path = problem.path, place = %problem.place, "{}", problem.message);
        }
        Snapshot::build(loaded.plan, Some(&self.snapshot()), &self.metrics).await
    }

    /// Puts a generation in force: requests that begin from now on are its.
    pub fn swap(&self, next: Snapshot) {
        let next = Arc::new(next);
        let before = self.current.swap(Arc::clone(&next));
        before.running.succeeded_by(&next.running);
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a reload by its outcome.
    pub fn count_reload(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.metrics.families().reloads.with_label_values(&[outcome]).inc();
    }
}
