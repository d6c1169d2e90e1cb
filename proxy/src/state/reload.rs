//! Reload: read → plan → try → build → swap. Whatever fails on the way, the old generation stays in force.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use weir_config::{Report, plan::AccessLog, span::Place};

use super::{Held, Snapshot, State};
use crate::{
    metrics::Metrics,
    record::{Recorder, access::AccessWriter},
    running::{CannotRun, Running},
    trial::{self, Tried},
};

impl Snapshot {
    /// Builds a generation, carrying over what `old` has. With it come the warnings, for problems that are found later.
    ///
    /// # Errors
    /// What cannot be had, at the keys that ask for it; `old` is unchanged.
    pub async fn build(
        tried: Tried,
        old: Option<&Self>,
        metrics: &Arc<Metrics>,
    ) -> Result<(Self, Report), Report> {
        let Tried { plan, mut warnings, certificates, .. } = tried;
        let plan = Arc::new(plan);
        let running = Running::build(Arc::clone(&plan), old.map(|old| &old.running), metrics).await;
        let log = plan.log.access.as_ref().map(|log| open_log(log, old, metrics)).transpose();
        match (running, log) {
            (Ok(running), Ok(log)) => {
                let recorder = Recorder::new(&plan, Arc::clone(metrics), log);
                Ok((Self { recorder, running, certificates }, warnings))
            }
            (running, log) => {
                let problems = running.err().into_iter().flatten().chain(log.err());
                CannotRun::note(problems, &mut warnings);
                Err(warnings)
            }
        }
    }
}

/// The same log goes on with the same writer, which opens its file anew: rotations end with a HUP.
fn open_log(log: &AccessLog, old: Option<&Snapshot>, metrics: &Metrics) -> Result<AccessWriter, CannotRun> {
    let same = old.filter(|old| old.running.plan.log.access.as_ref() == Some(log));
    if let Some(writer) = same.and_then(|old| old.recorder.access()) {
        writer.reopen();
        return Ok(writer.clone());
    }
    let place = log.path.as_ref().map_or(Place::default(), |path| path.place);
    let opened = AccessWriter::open(log, &metrics.families().log_dropped);
    opened.map_err(|problem| CannotRun::new(place, problem))
}

impl State {
    /// Reads the file again and builds the next generation, without putting it in force. With it come the warnings.
    ///
    /// # Errors
    /// Every problem of the file, or what it needs and cannot have.
    pub async fn prepare(&self) -> Result<(Snapshot, Report), Report> {
        let tried = trial::load(&self.source, SystemTime::now())?;
        if let Some(summary) = &tried.translated {
            tracing::info!("{summary}");
        }
        Snapshot::build(tried, Some(&*self.snapshot()), &self.metrics).await
    }

    /// Puts a generation in force: requests that begin from now on are its.
    pub fn swap(&self, next: Snapshot) {
        let (next, before) = (Arc::new(next), self.snapshot());
        // First, so that no purge passes by a cache that has entries already.
        next.running.come_into_force(Some(&before.running), &self.metrics);
        for current in self.current.all() {
            current.store(Held::new(&next).0);
        }
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Counts a reload by its outcome.
    pub fn count_reload(&self, taken: bool) {
        let outcome = if taken { "taken" } else { "refused" };
        self.metrics.families().reloads.with_label_values(&[outcome]).inc();
    }
}
