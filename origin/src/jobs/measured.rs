//! What Prometheus is told about jobs, by whoever serves and by whoever works.

use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use tokio::time::timeout;

use super::sql::{self, Depth};
use crate::{
    app::StartError,
    database::{Database, Moment},
};

/// Whoever scrapes waits a few seconds for all rows together.
const PATIENCE: Duration = Duration::from_secs(1);

/// The rows of jobs.
#[derive(Clone)]
pub struct Measured {
    waiting: IntGaugeVec,
    oldest: IntGauge,
    ended: IntCounterVec,
    delivered: IntCounter,
}

/// How a job left a worker's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The mail server has its mail, or there was nothing to say any more.
    Done,
    /// There is no mail server.
    Unsent,
    /// It failed, and is tried again.
    Later,
    /// It was given up.
    Dead,
    /// Somebody else had it, too; or the store did not take its end in time.
    Lost,
}

impl Outcome {
    /// The label, and the log's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unsent => "unsent",
            Self::Later => "later",
            Self::Dead => "dead",
            Self::Lost => "lost",
        }
    }
}

impl Measured {
    /// Adds the rows to `registry`.
    ///
    /// # Errors
    /// When it has rows of these names.
    pub fn new(registry: &Registry) -> Result<Self, StartError> {
        let waiting = IntGaugeVec::new(
            Opts::new("weir_origin_jobs", "jobs in the table, by state; counted up to 100000"),
            &["state"],
        )?;
        let oldest = IntGauge::new(
            "weir_origin_jobs_oldest_seconds",
            "age of the oldest job that is not done or given up",
        )?;
        let ended =
            Opts::new("weir_origin_jobs_ended_total", "tries of this process, by kind of job and outcome");
        let ended = IntCounterVec::new(ended, &["kind", "outcome"])?;
        let delivered = IntCounter::new(
            "weir_origin_items_delivered_total",
            "items this process delivered at their time",
        )?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(oldest.clone()))?;
        registry.register(Box::new(ended.clone()))?;
        registry.register(Box::new(delivered.clone()))?;
        Ok(Self { waiting, oldest, ended, delivered })
    }

    /// Counts the end of a try.
    pub fn ended(&self, kind: &str, outcome: Outcome) {
        self.ended.with_label_values(&[kind, outcome.word()]).inc();
    }

    /// Counts delivered items.
    pub fn delivered(&self, count: usize) {
        self.delivered.inc_by(count.try_into().unwrap_or(u64::MAX));
    }

    /// Asks the table how much waits; while it does not answer the rows stay as they are, and all others can be scraped.
    pub async fn look(&self, database: &Database, now: Moment) {
        let Ok(Ok(Depth { waiting, oldest, dead })) = timeout(PATIENCE, sql::depth(database)).await else {
            tracing::warn!("how many jobs wait is not known: the database does not answer");
            return;
        };
        self.waiting.with_label_values(&["waiting"]).set(waiting);
        self.waiting.with_label_values(&["dead"]).set(dead);
        self.oldest.set(oldest.map_or(0, |oldest| (now.unix_seconds() - oldest.unix_seconds()).max(0)));
    }
}
