//! Takes due jobs in batches and does them, a few at once; delivers items at their time.
//!
//! Each turn: deliver what is due and tell the edges, take a batch, begin each of it when a slot is free. A full batch is followed by the next at once, else
//! by a pause, which a ring of the bell ends. At a stop nothing new is begun: what is in hand is finished, the rest of the batch is given back.

use std::{
    cmp::Reverse,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::Instrument;

use super::{
    Kind, backoff,
    bell::Bell,
    letters,
    measured::{Measured, Outcome},
    purges::Purges,
    sql::{self, Delivered, Ended, Taken},
};
use crate::{
    app::StartError,
    config::JobsConfig,
    database::{Database, Moment, is_passing},
    mail::{Mailer, NotSent, Sent},
    trace::Trace,
    verification::Verifications,
};

/// Time between two tries to write down how a job ended.
const AGAIN: Duration = Duration::from_secs(1);
/// A worker that has not heard of the table for so long, beside its pause, is stuck, or its store is away.
const SILENT: Duration = Duration::from_secs(60);

/// Does jobs; any number of them may share the table.
pub struct Worker {
    database: Database,
    mailer: Mailer,
    verifications: Verifications,
    measured: Measured,
    bell: Arc<Bell>,
    purges: Option<Purges>,
    config: JobsConfig,
    /// When the table was last asked, in microseconds since 1970.
    turned: AtomicI64,
}

impl Worker {
    /// One that has not begun. Without `purges` the edges show what they keep until it is too old.
    ///
    /// # Errors
    /// When a setting of mail makes no sense.
    pub fn new(
        database: Database,
        config: JobsConfig,
        verifications: Verifications,
        measured: Measured,
        bell: Arc<Bell>,
        purges: Option<Purges>,
    ) -> Result<Arc<Self>, StartError> {
        let mailer = Mailer::new(&config.mail, config.job_concurrency.get())?;
        if config.mail.smtp_url.is_none() {
            tracing::warn!("no SMTP server is set: mail is noted here and not sent");
        }
        Ok(Arc::new(Self {
            database,
            mailer,
            verifications,
            measured,
            bell,
            purges,
            config,
            turned: AtomicI64::new(0),
        }))
    }

    /// Works until `stop` is done, then ends within `stop_within`.
    pub async fn run(self: Arc<Self>, stop: impl Future<Output = ()>, stop_within: Duration) {
        let mut stop = pin!(stop);
        let slots = Arc::new(Semaphore::new(self.config.job_concurrency.get() as usize));
        let mut in_hand = JoinSet::new();
        'work: loop {
            // Neither is cut off by a stop: what was taken and then forgotten would have to wait for the end of its lease.
            let (more, purges) = self.deliver().await;
            // At once and not in a slot, where a mail server may be slow.
            self.purge(purges).await;
            let mut batch = self.take().await;
            let more = more || batch.len() == self.config.job_batch.get() as usize;
            while let Some(job) = batch.pop() {
                tokio::select! {
                    biased;
                    () = &mut stop => {
                        batch.push(job);
                        self.release(&batch).await;
                        break 'work;
                    }
                    Ok(slot) = Arc::clone(&slots).acquire_owned() => {
                        in_hand.spawn(Arc::clone(&self).work_in(slot, job));
                    }
                }
            }
            while in_hand.try_join_next().is_some() {}
            if more {
                continue;
            }
            tokio::select! {
                biased;
                () = &mut stop => break,
                () = self.bell.wait(self.config.job_poll) => {}
            }
        }
        let finish = async { while in_hand.join_next().await.is_some() {} };
        if timeout(stop_within, finish).await.is_err() {
            tracing::warn!(
                jobs = in_hand.len(),
                "stopped with jobs in hand: they are due again when their lease ends"
            );
        }
    }

    /// Whether the table has answered lately, as it does at every turn and at the end of every job.
    #[must_use]
    pub fn is_turning(&self, now: Moment) -> bool {
        let turned = Moment::from_microseconds(self.turned.load(Ordering::Relaxed));
        turned.is_some_and(|turned| turned.after(SILENT + self.config.job_poll) > now)
    }

    /// Delivers a batch of items; says whether there may be more, and what the edges have to forget now.
    async fn deliver(&self) -> (bool, Vec<Taken>) {
        let (count, now, trace) = (self.config.job_batch.get(), Moment::now(), Trace::begin());
        let purged_by = self.purges.as_ref().map(|_| now.after(self.config.job_lease));
        let span = trace.span("delivery");
        match sql::deliver(&self.database, now, count, &trace, purged_by).instrument(span.clone()).await {
            Ok(Delivered { items: 0, .. }) => (false, Vec::new()),
            Ok(Delivered { items, purges }) => {
                span.in_scope(|| tracing::info!(delivered = items, "items delivered"));
                self.measured.delivered(items);
                (items == count as usize, purges)
            }
            Err(error) => {
                span.in_scope(|| tracing::warn!(%error, "items not delivered"));
                (false, Vec::new())
            }
        }
    }

    /// Does these one after the other, until one fails: those behind it would, too, and are due again when their lease ends.
    async fn purge(&self, jobs: Vec<Taken>) {
        for job in jobs {
            if !self.work(job).await {
                return;
            }
        }
    }

    /// A batch, the most urgent last.
    async fn take(&self) -> Vec<Taken> {
        let now = Moment::now();
        let lease_ends = now.after(self.config.job_lease);
        match sql::take(&self.database, now, lease_ends, self.config.job_batch.get()).await {
            Ok(mut batch) => {
                self.turned.store(now.microseconds(), Ordering::Relaxed);
                // Their ids are in the order in which they were queued.
                batch.sort_unstable_by_key(|job| Reverse(job.id));
                batch
            }
            Err(error) => {
                tracing::warn!(%error, "no jobs taken");
                Vec::new()
            }
        }
    }

    async fn release(&self, batch: &[Taken]) {
        for job in batch {
            if let Err(error) = sql::release(&self.database, job, Moment::now()).await {
                tracing::warn!(%error, "jobs not given back: they are due again when their lease ends");
                return;
            }
        }
    }

    /// In a slot that is free again after.
    async fn work_in(self: Arc<Self>, _slot: OwnedSemaphorePermit, job: Taken) {
        self.work(job).await;
    }

    /// Does one job, and says whether there is nothing left of it to do.
    async fn work(&self, job: Taken) -> bool {
        let span = Trace::resume(job.trace_id.as_deref()).span("job");
        self.try_once(job).instrument(span).await
    }

    async fn try_once(&self, mut job: Taken) -> bool {
        let begun = Moment::now();
        let lease_ends = begun.after(self.config.job_lease);
        match sql::begin(&self.database, &job, lease_ends).await {
            Ok(true) => job.tries += 1,
            // Removed, or somebody else's by now.
            Ok(false) => return true,
            Err(error) => {
                tracing::warn!(%error, job = %job.id, "job not begun");
                return false;
            }
        }
        let most = i32::try_from(self.config.job_tries.get()).unwrap_or(i32::MAX);
        let (outcome, problem) = if job.tries > most {
            // The last try did not even fail: whoever made it died of it.
            (Outcome::Dead, "never ended".into())
        } else {
            // Half of the lease, so that the other half is left to write down how it ended.
            match timeout(self.config.job_lease / 2, self.act(&job)).await {
                Ok(Ok(Sent::Accepted)) => (Outcome::Done, String::new()),
                Ok(Ok(Sent::Nowhere)) => (Outcome::Unsent, String::new()),
                Ok(Err(NotSent::Refused(problem))) => (Outcome::Dead, problem),
                Ok(Err(NotSent::Failed(problem))) if job.tries == most => (Outcome::Dead, problem),
                Ok(Err(NotSent::Failed(problem))) => (Outcome::Later, problem),
                Err(_) if job.tries == most => (Outcome::Dead, "took too long".into()),
                Err(_) => (Outcome::Later, "took too long".into()),
            }
        };
        let outcome = self.end(&job, outcome, &problem, lease_ends).await;
        self.measured.ended(Kind::parse(&job.kind).map_or("unknown", Kind::word), outcome);
        let milliseconds = (Moment::now().microseconds() - begun.microseconds()) / 1000;
        let Taken { id, kind, user_id, tries, .. } = &job;
        let is_done = matches!(outcome, Outcome::Done | Outcome::Unsent);
        if is_done {
            tracing::info!(%id, kind, %user_id, tries, milliseconds, outcome = outcome.word(), "job");
        } else {
            let outcome = outcome.word();
            tracing::warn!(%id, kind, %user_id, tries, milliseconds, outcome, problem, "job");
        }
        is_done
    }

    async fn act(&self, job: &Taken) -> Result<Sent, NotSent> {
        match Kind::parse(&job.kind) {
            Some(Kind::Purge) => {
                let purges = self.purges.as_ref();
                let purges = purges.ok_or_else(|| NotSent::Failed("there is no way to the edges".into()))?;
                let told = purges.tell(job.user_id).await;
                told.map(|()| Sent::Accepted).map_err(|error| NotSent::Failed(error.to_string()))
            }
            Some(kind) => self.send(kind, job).await,
            None => Err(NotSent::Failed("this version does not know such jobs".into())),
        }
    }

    async fn send(&self, kind: Kind, job: &Taken) -> Result<Sent, NotSent> {
        let to = sql::recipient(&self.database, job.user_id, job.item_id).await;
        let to = to.map_err(|error| NotSent::Failed(error.to_string()))?;
        // The account, the item or the reason is gone: nobody waits for this mail.
        let Some(to) = to else { return Ok(Sent::Accepted) };
        let site = &self.config.mail.site_url;
        match letters::letter(kind, job.id, job.user_id, &to, site, &self.verifications, Moment::now()) {
            Some(letter) => self.mailer.send(&letter).await,
            None => Ok(Sent::Accepted),
        }
    }

    /// Writes down how a job ended, for as long as it is ours: a mail that was sent and not noted is sent again.
    async fn end(&self, job: &Taken, outcome: Outcome, problem: &str, lease_ends: Moment) -> Outcome {
        let ended = match outcome {
            Outcome::Done | Outcome::Unsent | Outcome::Lost => Ended::Done,
            Outcome::Later => {
                let wait = backoff(self.config.job_backoff, job.tries.unsigned_abs(), rand::random());
                Ended::Later(Moment::now().after(wait), problem.to_owned())
            }
            Outcome::Dead => Ended::Dead(Moment::now(), problem.to_owned()),
        };
        loop {
            match sql::end(&self.database, job.id, job.tries, &ended).await {
                Ok(still_ours) => {
                    self.turned.store(Moment::now().microseconds(), Ordering::Relaxed);
                    return if still_ours { outcome } else { Outcome::Lost };
                }
                Err(error) => {
                    tracing::warn!(%error, job = %job.id, "the end of a job is not noted");
                    if !is_passing(&error) || Moment::now().after(AGAIN) >= lease_ends {
                        return Outcome::Lost;
                    }
                    sleep(AGAIN).await;
                }
            }
        }
    }
}
