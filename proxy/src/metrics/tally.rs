//! What every request counts: each thread for itself, and added up before it is shown.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{
    Histogram, IntCounter,
    local::{LocalHistogram, LocalIntCounter},
};

use crate::stripes::Stripes;

/// What is still to be added.
pub(super) trait Tally: std::fmt::Debug + Send + Sync {
    /// Adds it.
    fn add_up(&self);
}

/// All of them that are still in use.
#[derive(Debug, Default)]
pub(super) struct Tallies(Mutex<Vec<Weak<dyn Tally>>>);

impl Tallies {
    pub(super) fn watch(&self, tally: &Arc<impl Tally + 'static>) {
        let mut all = self.0.lock();
        if all.len() == all.capacity() {
            all.retain(|tally| tally.strong_count() > 0);
        }
        let tally: Weak<dyn Tally> = Arc::downgrade(tally) as _;
        all.push(tally);
    }

    pub(super) fn add_up(&self) {
        self.0.lock().iter().filter_map(Weak::upgrade).for_each(|tally| tally.add_up());
    }
}

/// A counter; clones share it.
#[derive(Debug, Clone)]
pub struct Count(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    total: IntCounter,
    stripes: Stripes<AtomicU64>,
}

impl Count {
    pub(super) fn new(total: IntCounter, tallies: &Tallies) -> Self {
        let counted = Arc::new(Counted { total, stripes: Stripes::new(|| AtomicU64::new(0)) });
        tallies.watch(&counted);
        Self(counted)
    }

    /// One more.
    pub fn inc(&self) {
        self.0.stripes.mine().fetch_add(1, Ordering::Relaxed);
    }
}

impl Tally for Counted {
    fn add_up(&self) {
        self.total.inc_by(self.stripes.all().map(|stripe| stripe.swap(0, Ordering::Relaxed)).sum());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.add_up();
    }
}

/// One route's answers; clones share them.
#[derive(Debug, Clone)]
pub struct RouteMeter(Arc<Meter>);

#[derive(Debug)]
struct Meter(Stripes<Mutex<Answers>>);

/// Adds up when it is dropped.
#[derive(Debug)]
struct Answers {
    classes: [LocalIntCounter; 6],
    duration: LocalHistogram,
}

impl RouteMeter {
    pub(super) fn new(classes: &[IntCounter; 6], duration: &Histogram, tallies: &Tallies) -> Self {
        let answers =
            || Answers { classes: classes.each_ref().map(IntCounter::local), duration: duration.local() };
        let meter = Arc::new(Meter(Stripes::new(|| Mutex::new(answers()))));
        tallies.watch(&meter);
        Self(meter)
    }

    /// Counts one answered request.
    pub fn answered(&self, status: u16, took: Duration) {
        let class = if status == 499 { 5 } else { usize::from(status / 100).clamp(1, 5) - 1 };
        let answers = self.0.0.mine().lock();
        answers.classes[class].inc();
        answers.duration.observe(took.as_secs_f64());
    }
}

impl Tally for Meter {
    fn add_up(&self) {
        self.0.all().for_each(|answers| answers.lock().add_up());
    }
}

impl Answers {
    fn add_up(&self) {
        self.classes.iter().for_each(LocalIntCounter::flush);
        self.duration.flush();
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.add_up();
    }
}
