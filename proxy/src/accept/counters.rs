//! What the front counts, for whoever shows it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{bad::BadRequest, handshake::NoHandshake};

/// Counts of one listener since it began; all but `active` only grow.
#[derive(Debug)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: Count,
    /// Connections open now, those that linger included.
    pub active: Count,
    /// Times that the accept loop waited because the listener was full.
    pub full: Count,
    /// Accepts that failed.
    pub accept_failed: Count,
    /// Connections that began without a good PROXY header, or from a hop that is not trusted.
    pub hops_refused: Count,
    refused: Vec<Count>,
    no_handshake: [Count; NoHandshake::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            accepted: Count::default(),
            active: Count::default(),
            full: Count::default(),
            accept_failed: Count::default(),
            hops_refused: Count::default(),
            refused: BadRequest::ALL.iter().map(|_| Count::default()).collect(),
            no_handshake: Default::default(),
        }
    }
}

impl Counters {
    /// Requests refused, by reason.
    pub fn refused(&self) -> impl Iterator<Item = (BadRequest, u64)> + '_ {
        BadRequest::ALL.iter().zip(&self.refused).map(|(bad, count)| (*bad, count.get()))
    }

    /// TLS handshakes that came to nothing, by reason.
    pub fn no_handshake(&self) -> impl Iterator<Item = (NoHandshake, u64)> + '_ {
        NoHandshake::ALL.into_iter().zip(self.no_handshake.iter().map(Count::get))
    }

    pub(super) fn failed_handshake(&self, reason: NoHandshake) {
        self.no_handshake[reason as usize].add();
    }

    pub(super) fn refuse(&self, bad: BadRequest) {
        // The table's order is the enum's.
        if let Some(count) = self.refused.get(bad as usize) {
            count.add();
        }
    }
}

/// One number that many threads change.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// As it is now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sub(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_own_count() {
        let counters = Counters::default();
        for bad in BadRequest::ALL {
            counters.refuse(*bad);
            assert_eq!(counters.refused().find(|(other, _)| other == bad), Some((*bad, 1)));
        }
    }
}
