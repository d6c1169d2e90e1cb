//! Work that is left for later: mails, and what edges have to forget. A row of `jobs` is written in the transaction of what it follows from, so that an
//! account without its mail cannot be, nor a mail about an account that was never stored.
//!
//! States of a row: *due* → *taken* (its `due_at` was moved on, for `--job-lease`) → *begun* (`tries` was counted) → gone (done) | due later
//! (failed) | *dead* (failed for good, or too often; kept thirty days for an operator). A worker that dies leaves its rows taken, and they
//! are due again when the lease ends.
//!
//! **At least once.** A mail is sent after its job was begun and before the row is removed. Only a process that dies in between, or
//! that loses the store for longer than the lease, sends it twice: at most one mail for each of the `--job-concurrency` jobs that were
//! in hand. Both have the same `Message-ID`, by which a mailbox can tell. `tries` fences: who begins a job must know the count, who ends
//! it must have made it, so that of two who hold the same row one finds nothing.
//! What this leaves: a process that is stopped (SIGSTOP) in the middle of a mail and goes on after the lease is one more such case, and so is
//! a mail server that takes a mail and does not say so within half of the lease (RFC 5321 §4.5.3.2.6).

pub mod bell;
pub mod letters;
pub mod listener;
pub mod measured;
pub mod purges;
pub mod sql;
pub mod worker;

use std::time::Duration;

use jiff::SignedDuration;
use uuid::Uuid;

use crate::{database::Moment, trace::Trace};

/// How long given up jobs are kept.
pub const DEAD_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Longest time between two tries: a mail server that was away for a day is asked again within the hour.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Greets whoever has registered, and asks for the proof of the address.
    Welcome,
    /// Asks for that proof again.
    Verification,
    /// Says that an item was delivered.
    Delivery,
    /// Tells the edges to forget what they keep of somebody's vault.
    Purge,
}

impl Kind {
    /// The column's word, and the metrics' label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::Verification => "verification",
            Self::Delivery => "delivery",
            Self::Purge => "purge",
        }
    }

    /// Back from [`Kind::word`]; `None` for one of another version of us.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Welcome, Self::Verification, Self::Delivery, Self::Purge]
            .into_iter()
            .find(|kind| kind.word() == word)
    }
}

/// A job to be queued.
#[derive(Debug, Clone)]
pub struct Job {
    /// UUID version 7.
    pub id: Uuid,
    /// What to do.
    pub kind: Kind,
    /// For whom.
    pub user: Uuid,
    /// Of a delivery.
    pub item: Option<Uuid>,
    /// Of the request that asked for it, or of the delivery.
    pub trace_id: String,
    /// From when on.
    pub due_at: Moment,
}

impl Job {
    /// A job that is due at once.
    #[must_use]
    pub fn new(kind: Kind, user: Uuid, trace: &Trace, now: Moment) -> Self {
        Self { id: Uuid::now_v7(), kind, user, item: None, trace_id: trace.id(), due_at: now }
    }
}

/// How long to wait after the `tries`-th failure: `first`, doubled with each further one, up to an hour; of that a part between a
/// half and the whole, by `chance` (0 to 1), so that jobs that failed together do not come back together.
#[must_use]
pub fn backoff(first: Duration, tries: u32, chance: f64) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(tries.saturating_sub(1)));
    doubled.min(LONGEST_DELAY).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_doubles_the_wait_up_to_an_hour() {
        let first = Duration::from_secs(10);
        let waits = [1, 2, 3, 9, 10, 4_000_000].map(|tries| backoff(first, tries, 1.0).as_secs());
        assert_eq!(waits, [10, 20, 40, 2560, 3600, 3600]);
    }

    #[test]
    fn jobs_that_failed_together_come_back_apart() {
        let first = Duration::from_secs(10);
        assert_eq!(backoff(first, 1, 0.0), Duration::from_secs(5));
        assert_eq!(backoff(first, 1, 0.5), Duration::from_millis(7500));
    }

    #[test]
    fn every_kind_is_read_back_from_its_word() {
        for kind in [Kind::Welcome, Kind::Verification, Kind::Delivery, Kind::Purge] {
            assert_eq!(Kind::parse(kind.word()), Some(kind));
        }
        assert_eq!(Kind::parse("of a newer version"), None);
    }
}
