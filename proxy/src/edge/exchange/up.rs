//! The request's body on its way to a peer that speaks HTTP/2, apart from the session that reads the answer: so both can be
//! waited for at once, and either wait be given up without losing a byte.

use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;

/// A body under way.
pub(in crate::edge) struct Up {
    stream: SendStream<Bytes>,
    /// What was given and has not gone.
    left: Bytes,
    is_ending: bool,
    is_over: bool,
    /// When something was given, or went.
    moved: Instant,
    patience: Duration,
}

impl Up {
    /// Over `stream`; `patience` is how long it may take nothing.
    pub(super) fn new(stream: SendStream<Bytes>, patience: Duration) -> Self {
        let (is_ending, is_over) = (false, false);
        Self { stream, left: Bytes::new(), is_ending, is_over, moved: Instant::now(), patience }
    }

    /// Gives the next piece; only when nothing is left of the last one.
    pub(in crate::edge) fn give(&mut self, piece: Bytes) {
        (self.left, self.moved) = (piece, Instant::now());
    }

    /// Says that no further piece comes.
    pub(in crate::edge) fn end(&mut self) {
        (self.is_ending, self.moved) = (true, Instant::now());
    }

    /// Whether there is something to send.
    pub(super) fn is_busy(&self) -> bool {
        !self.left.is_empty() || self.is_ending
    }

    /// Whether all of the body has gone.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// When the peer has taken nothing for too long.
    pub(super) fn late(&self) -> Option<Instant> {
        self.is_busy().then(|| self.moved + self.patience)
    }

    /// Sends what was given; may be dropped and called again.
    pub(in crate::edge) async fn send(&mut self) -> Result<(), h2::Error> {
        while !self.left.is_empty() {
            self.stream.reserve_capacity(self.left.len());
            let room = std::future::poll_fn(|cx| self.stream.poll_capacity(cx)).await;
            let room = room.ok_or(h2::Error::from(h2::Reason::STREAM_CLOSED))??;
            let piece = self.left.split_to(room.min(self.left.len()));
            self.stream.send_data(piece, false)?;
            self.moved = Instant::now();
        }
        if self.is_ending {
            self.stream.send_data(Bytes::new(), true)?;
            (self.is_ending, self.is_over) = (false, true);
        }
        Ok(())
    }
}
