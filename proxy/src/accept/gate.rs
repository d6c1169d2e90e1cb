//! The gate between a connection and the request it serves: how many of the next bytes are this request's.
//!
//! An exchange gets exactly one head and then exactly that body; what follows stays with the connection. So no answer, however it
//! fails, can make body bytes run as a request, or a request be taken for a body.
//!
//! States: closed → (a request with a body begins) → body → closed; closed → (a 101 is written) → tunnel; frames for HTTP/2.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
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

    /// How much it may still want, as far as is known: reading more than that reads into the next request.
    pub(super) fn most(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            _ => u64::MAX,
        }
    }

    /// Takes the next piece of the body from the front of `bytes`, without its framing, and closes behind the last one;
    /// `None` when there is none before more comes.
    ///
    /// Errors: what [`Chunks::take`] says.
    pub(super) fn piece(&mut self, bytes: &mut BytesMut) -> Result<Option<Bytes>, BadRequest> {
        let wanted = match self {
            Self::Closed | Self::Frames(_) => return Ok(None),
            Self::Tunnel => u64::MAX,
            Self::Length(left) => *left,
            Self::Chunked(chunks) => {
                let framing = chunks.take_framing(bytes)?;
                bytes.advance(framing);
                if chunks.is_done() {
                    *self = Self::Closed;
                    return Ok(None);
                }
                chunks.data_left()
            }
        };
        let here = usize::try_from(wanted).unwrap_or(usize::MAX).min(bytes.len());
        if here == 0 {
            return Ok(None);
        }
        let piece = bytes.split_to(here).freeze();
        match self {
            Self::Length(left) => {
                *left -= here as u64;
                if *left == 0 {
                    *self = Self::Closed;
                }
            }
            Self::Chunked(chunks) => _ = chunks.take(&piece)?,
            _ => {}
        }
        Ok(Some(piece))
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
    use weir_config::units;

    use super::*;

    /// The pieces of a body that comes as `parts`, and what is left of them.
    fn pieces(gate: &mut Gate, parts: &[&[u8]]) -> (Vec<Bytes>, BytesMut) {
        let (mut came, mut pieces) = (BytesMut::new(), Vec::new());
        for part in parts {
            came.extend_from_slice(part);
            while let Some(piece) = gate.piece(&mut came).unwrap() {
                pieces.push(piece);
            }
        }
        (pieces, came)
    }

    #[test]
    fn a_gate_closes_behind_the_last_byte() {
        let bounds = Bounds::default();
        let mut gate = Gate::body(Framing::Length(5), &bounds);
        let (body, rest) = pieces(&mut gate, &[b"hel", b"loGET /"]);
        assert_eq!((body.concat(), &rest[..]), (b"hello".to_vec(), &b"GET /"[..]));
        assert!(matches!(gate, Gate::Closed));

        let mut gate = Gate::body(Framing::Chunked, &bounds);
        let (body, rest) = pieces(&mut gate, &[b"5\r\nhel", b"lo\r\n0\r", b"\n\r\nGET /"]);
        assert_eq!((body, &rest[..]), (vec![Bytes::from("hel"), Bytes::from("lo")], &b"GET /"[..]));
        assert!(matches!(gate, Gate::Closed));
    }

    #[test]
    fn a_slow_body_is_cut_only_after_its_first_timeout_and_only_for_the_clients_time() {
        let mut bounds = Bounds::default();
        bounds.body_timeout = Duration::from_secs(10);
        bounds.body_min_rate = units::Bytes::new(100);
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
        bounds.body_min_rate = units::Bytes::new(0);
        assert_eq!(pace.note(1, second, &bounds), Ok(()));
    }
}
