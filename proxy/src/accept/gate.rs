//! The gate between a connection and the request it serves: how many of the next bytes are this request's.
//!
//! Pingora gets exactly one head and then exactly that body; what follows stays with the connection. So no answer, however it
//! fails, can make body bytes run as a request, or a request be taken for a body.
//!
//! States: closed → (a request with a body begins) → body → closed; closed → (a 101 is written) → tunnel; frames for HTTP/2.

use std::time::Duration;

use weir_config::plan::Bounds;

use super::{bad::BadRequest, frames::Frames, head::Framing};
use crate::chunked::{BadBody, Chunks};

/// What the next bytes from the client are.
#[derive(Debug)]
pub(super) enum Gate {
    /// The next request's; nobody who serves this one may have them.
    Closed,
    /// A body's, so many of them.
    Length(u64),
    /// A chunked body's.
    Chunked(Chunks),
    /// Another protocol's, to the end of the connection.
    Tunnel,
    /// HTTP/2 frames, which only its own library reads.
    Frames(Frames),
}

impl Gate {
    /// For a request whose body ends so.
    pub(super) fn body(framing: Framing, bounds: &Bounds) -> Self {
        match framing {
            Framing::None => Self::Closed,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks::new(match bounds.body_bytes.get() {
                0 => u64::MAX,
                most => most,
            })),
        }
    }

    /// How many of the next bytes pass whatever they are.
    pub(super) fn unexamined(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(chunks) => chunks.data_left(),
            Self::Closed | Self::Tunnel | Self::Frames(_) => 0,
        }
    }

    /// Takes the body's bytes from the front of `bytes`, and closes behind the last one.
    ///
    /// Errors: what [`Chunks::take`] says.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<usize, BadRequest> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                if *left == 0 {
                    *self = Self::Closed;
                }
                Ok(taken)
            }
            Self::Chunked(chunks) => {
                let taken = chunks.take(bytes)?;
                if chunks.is_done() {
                    *self = Self::Closed;
                }
                Ok(taken)
            }
            Self::Closed | Self::Tunnel | Self::Frames(_) => Ok(0),
        }
    }
}

impl From<BadBody> for BadRequest {
    fn from(bad: BadBody) -> Self {
        match bad {
            BadBody::Coding => Self::BadChunk,
            BadBody::TooLarge => Self::BodyTooLarge,
        }
    }
}

/// How long a body made us wait, and for how much.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    received: u64,
    /// Only while we wanted bytes: a slow origin is not the client's fault.
    waited: Duration,
}

impl Pace {
    /// Notes bytes that came after so long a wait.
    ///
    /// Errors: [`BadRequest::BodyTimeout`] when the average after the first `body_timeout` is below `body_min_rate`.
    pub(crate) fn note(&mut self, bytes: usize, waited: Duration, bounds: &Bounds) -> Result<(), BadRequest> {
        self.received = self.received.saturating_add(bytes as u64);
        self.waited = self.waited.saturating_add(waited);
        let rate = bounds.body_min_rate.get();
        let due = u128::from(rate) * self.waited.as_millis() / 1000;
        if rate > 0 && self.waited > bounds.body_timeout && u128::from(self.received) < due {
            return Err(BadRequest::BodyTimeout);
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use weir_config::units::Bytes;

    use super::*;

    #[test]
    fn a_gate_closes_behind_the_last_byte() {
        let bounds = Bounds::default();
        let mut gate = Gate::body(Framing::Length(5), &bounds);
        assert_eq!(gate.take(b"hel").unwrap(), 3);
        assert_eq!((gate.unexamined(), gate.take(b"loGET /").unwrap()), (2, 2));
        assert!(matches!(gate, Gate::Closed));
        assert_eq!(gate.take(b"GET /").unwrap(), 0);

        let mut gate = Gate::body(Framing::Chunked, &bounds);
        assert_eq!(gate.take(b"5\r\nhel").unwrap(), 6);
        assert_eq!(gate.unexamined(), 2);
        assert_eq!(gate.take(b"lo\r\n0\r\n\r\nGET /").unwrap(), 9);
        assert!(matches!(gate, Gate::Closed));
    }

    #[test]
    fn a_slow_body_is_cut_only_after_its_first_timeout_and_only_for_the_clients_time() {
        let mut bounds = Bounds::default();
        bounds.body_timeout = Duration::from_secs(10);
        bounds.body_min_rate = Bytes::new(100);
        let second = Duration::from_secs(1);
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.note(1, second, &bounds).unwrap();
        }
        assert_eq!(pace.note(1, second, &bounds), Err(BadRequest::BodyTimeout));
        let mut fast = Pace::default();
        for _ in 0..100 {
            fast.note(100, second, &bounds).unwrap();
        }
        let mut held_up_by_us = Pace::default();
        for _ in 0..100 {
            held_up_by_us.note(1, Duration::ZERO, &bounds).unwrap();
        }
        bounds.body_min_rate = Bytes::new(0);
        assert_eq!(pace.note(1, second, &bounds), Ok(()));
    }
}
