//! What is written to the tier, behind the back of whoever fetched it: a bounded queue, and a task that works it off. What finds
//! no room there is not written, and the next edge asks the origin.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::RedisResult;
use tokio::sync::mpsc;

use super::{
    Common,
    format::{self, Digest, Sealed},
    lease::Lease,
    variant,
};
use crate::cache::{
    entry::Entry,
    request::{Now, Rule},
    shelf::count,
    subject::Subject,
    timeline::Place,
};

/// Entries that wait: of 64 KiB each 16 MiB, if none of those is in memory any more.
pub(super) const QUEUE: usize = 256;
/// Written side by side, in one packet if they are small.
pub(super) const AT_ONCE: usize = 16;
/// What is of use for less is not worth a place.
const LEAST_LIFE: Duration = Duration::from_secs(1);

/// An entry for the fleet.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) entry: Arc<Entry>,
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) place: Place,
    pub(super) subjects: Vec<Subject>,
    pub(super) rule: Rule,
    /// Goes back when the entry lies there, or cannot.
    pub(super) lease: Option<Lease>,
}

/// Works until nobody has anything to write any more.
pub(super) async fn write(common: Arc<Common>, mut queue: mpsc::Receiver<Box<Kept>>) {
    let mut jobs = Vec::with_capacity(AT_ONCE);
    while queue.recv_many(&mut jobs, AT_ONCE).await > 0 {
        let done = join_all(jobs.drain(..).map(|kept| common.keep(*kept, Now::read()))).await;
        done.iter().filter(|done| done.is_err()).for_each(|_| count(&common.counts.errors));
    }
}

impl Common {
    async fn keep(&self, kept: Kept, now: Now) -> RedisResult<()> {
        let head = kept.entry.head();
        let life = head.freshness.useful_for(&kept.rule, now).min(self.plan.ttl_max);
        let about = Sealed {
            digest: kept.digest,
            place: kept.place,
            life,
            subjects: &kept.subjects,
            packs: self.plan.compresses,
        };
        let lasts = life >= LEAST_LIFE;
        let Some(value) = lasts.then(|| format::entry(&kept.entry, &about, now)).flatten() else {
            kept.lease.into_iter().for_each(Lease::pass);
            return Ok(());
        };
        let life = life.as_millis() as u64;
        let mut writing = redis::pipe();
        if head.variant.fields().next().is_none() {
            writing.cmd("SET").arg(&kept.name).arg(value).arg("PX").arg(life);
        } else {
            let fields = format::fields(head.variant.fields().map(|(name, _)| name));
            writing.cmd("SET").arg(&kept.name).arg(fields).arg("PX").arg(life);
            writing.cmd("SET").arg(variant(&kept.name, &head.variant)).arg(value).arg("PX").arg(life);
        }
        writing.query_async::<()>(&mut self.redis.clone()).await?;
        count(&self.counts.written);
        Ok(())
    }
}
