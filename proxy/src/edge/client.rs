//! The client's side of one exchange: its request body in chunks, kept for a replay while it is small, and whether it
//! is still there.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};
use tokio::time::timeout_at;
use weir_config::plan::Bounds;

use super::mirror::Copier;
use crate::{
    accept::{
        BadRequest, Pace,
        exchange::{Exchange, Gone, Reusable},
    },
    coding::{Decoder, Encoder, PIECE},
    forward::{hop_by_hop, limit_rate},
};

/// Request bodies up to this size can be sent to a second peer, unless the route gathers more. nginx holds 16 KiB in memory before it spools to disk;
/// 64 KiB covers JSON writes and costs at most that for each request under way.
const REPLAY_BYTES: usize = 64 * 1024;

/// Why the client's side ended an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientError {
    /// It closed, or reset the stream.
    Left,
    /// What it sent breaks a rule or a bound.
    Bad(BadRequest),
}

impl From<Gone> for ClientError {
    fn from(_: Gone) -> Self {
        Self::Left
    }
}

/// The client of one request.
pub(super) struct Client {
    exchange: Exchange,
    /// What was read of the body so far; `None` once that is more than may be kept.
    replay: Option<BytesMut>,
    replay_bytes: usize,
    seen: u64,
    limit: u64,
    takes_trailers: bool,
    has_body: bool,
    body_done: bool,
    written: u64,
    clock: Option<Box<Clock>>,
    /// Who gets a copy of the body.
    copier: Option<Copier>,
    /// What the answer's body goes through before anything else.
    encoder: Option<Box<Encoder>>,
    /// The same of an answer that is unpacked; never beside an encoder.
    decoder: Option<Box<Decoder>>,
    /// How fast the answer may go, and since when it does.
    pace: Option<(limit_rate::Pace, Option<Instant>)>,
}

/// The clock of an HTTP/2 stream's body. HTTP/1 has its own at the socket; the front sees no streams.
struct Clock {
    bounds: Bounds,
    pace: Pace,
    /// Since when we want bytes; kept when a read is dropped and begun again.
    since: Option<Instant>,
}

impl Client {
    /// The client behind `exchange`. A `limit` of 0 is no bound.
    pub(super) fn new(mut exchange: Exchange, bounds: Option<&Bounds>) -> Self {
        let has_body = exchange.has_body();
        let clock = bounds.filter(|_| exchange.version() == Version::HTTP_2).map(|bounds| {
            // A client that never opens its window would hold its answer in our memory.
            exchange.set_write_timeout(bounds.send_timeout);
            Box::new(Clock { bounds: bounds.clone(), pace: Pace::default(), since: None })
        });
        Self {
            exchange,
            replay: Some(BytesMut::new()),
            replay_bytes: REPLAY_BYTES,
            seen: 0,
            limit: 0,
            takes_trailers: false,
            has_body,
            body_done: !has_body,
            written: 0,
            clock,
            copier: None,
            encoder: None,
            decoder: None,
            pace: None,
        }
    }

    /// Bounds the request's body.
    pub(super) fn bound_body(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Copies the body, from here on, as it is read.
    pub(super) fn copy_to(&mut self, copier: Copier) {
        self.copier = Some(copier);
    }

    /// Holds the answer's body to a pace, or to none.
    pub(super) fn limit_rate(&mut self, pace: Option<limit_rate::Pace>) {
        self.pace = pace.map(|pace| (pace, None));
    }

    /// Compresses the answer's body.
    pub(super) fn encode(&mut self, encoder: Encoder) {
        self.encoder = Some(Box::new(encoder));
    }

    /// Unpacks the answer's body.
    pub(super) fn unpack(&mut self, decoder: Decoder) {
        self.decoder = Some(Box::new(decoder));
    }

    /// Reads the body until it has ended or `bytes` of it are held; what follows is read as it is sent.
    pub(super) async fn gather(&mut self, bytes: usize) -> Result<(), ClientError> {
        while !self.body_done && self.seen < bytes as u64 {
            // The piece that goes beyond is held, too: it was read, and nobody has sent it yet.
            self.replay_bytes = usize::MAX;
            self.chunk().await?;
        }
        self.replay_bytes = bytes.max(REPLAY_BYTES);
        Ok(())
    }

    /// From here on the connection carries another protocol, which is no body: nothing bounds it, nothing is replayed.
    pub(super) fn open_tunnel(&mut self) {
        (self.limit, self.replay, self.clock) = (0, None, None);
    }

    /// Whether the request has a body at all.
    pub(super) fn has_body(&self) -> bool {
        self.has_body
    }

    /// Whether the body has been read to its end.
    pub(super) fn body_done(&self) -> bool {
        self.body_done
    }

    /// What was read of the body so far, if all of it is still there.
    pub(super) fn replay(&self) -> Option<Bytes> {
        self.replay.as_ref().map(|kept| Bytes::copy_from_slice(kept))
    }

    /// Body bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// The next chunk of the body; `None` at its end. May be dropped and called again.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        // A body that breaks a rule says so in [`Arrival::fault`], which words the answer.
        let chunk = loop {
            match self.timed_read().await? {
                // An empty DATA frame, the end before trailers, or a chunk cut behind its size line. Written on, it would
                // be the last chunk, and what follows the peer's next request.
                Some(chunk) if chunk.is_empty() => {}
                Some(chunk) => break chunk,
                None => {
                    self.body_ended();
                    return Ok(None);
                }
            }
        };
        self.seen += chunk.len() as u64;
        if self.limit > 0 && self.seen > self.limit {
            return Err(ClientError::Bad(BadRequest::BodyTooLarge));
        }
        self.copier = self.copier.take().filter(|copier| copier.body(&chunk));
        // Known with the last piece already: an answer to the whole request may come before anybody asks for more.
        if !self.exchange.has_body() {
            self.body_ended();
        }
        match &mut self.replay {
            Some(kept) if kept.len() + chunk.len() <= self.replay_bytes => kept.extend_from_slice(&chunk),
            kept => *kept = None,
        }
        Ok(Some(chunk))
    }

    fn body_ended(&mut self) {
        self.body_done = true;
        self.copier.take().into_iter().for_each(Copier::end);
    }

    async fn timed_read(&mut self) -> Result<Option<Bytes>, ClientError> {
        let read = self.exchange.body();
        let Some(clock) = &mut self.clock else { return Ok(read.await?) };
        let late = || ClientError::Bad(BadRequest::BodyTimeout);
        let since = *clock.since.get_or_insert_with(Instant::now);
        let read = timeout_at((since + clock.bounds.body_timeout).into(), read).await.map_err(|_| late())?;
        let chunk = read?;
        clock.since = None;
        let bytes = chunk.as_ref().map_or(0, Bytes::len);
        clock.pace.note(bytes, since.elapsed(), &clock.bounds).map_err(|_| late())?;
        Ok(chunk)
    }

    /// Resolves when the client is gone; only after its body was read.
    pub(super) async fn left(&mut self) {
        self.exchange.left().await;
    }

    /// Passes an interim answer on, where the protocol has them.
    pub(super) async fn interim(
        &mut self,
        status: StatusCode,
        fields: &HeaderMap,
    ) -> Result<(), ClientError> {
        let mut fields = fields.clone();
        hop_by_hop::clean_response(&mut fields, None);
        Ok(self.exchange.interim(status, fields).await?)
    }

    /// Writes the head of the answer; `end` when no body follows.
    pub(super) async fn head(
        &mut self,
        (status, fields): (StatusCode, HeaderMap),
        end: bool,
    ) -> Result<(), ClientError> {
        Ok(self.exchange.head(status, fields, end).await?)
    }

    /// Writes a piece of the answer's body. An empty one is nothing: as a chunk it would end the answer.
    pub(super) async fn body(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        if let Some(mut decoder) = self.decoder.take() {
            while !bytes.is_empty() {
                let made = decoder.push(&mut bytes).map_err(broken)?;
                self.send(made).await?;
                if !bytes.is_empty() {
                    tokio::task::yield_now().await;
                }
            }
            self.decoder = Some(decoder);
            return Ok(());
        }
        let Some(mut encoder) = self.encoder.take() else { return self.send(bytes).await };
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let made = encoder.push(&piece).map_err(|_| ClientError::Left)?;
            self.send(made).await?;
            if !bytes.is_empty() {
                // Others have their turn: a large piece takes milliseconds.
                tokio::task::yield_now().await;
            }
        }
        self.encoder = Some(encoder);
        Ok(())
    }

    /// The same where nobody looks whether more comes at once: nothing stays behind.
    pub(super) async fn body_at_once(&mut self, bytes: Bytes) -> Result<(), ClientError> {
        self.body(bytes).await?;
        self.flush_encoder().await
    }

    /// Sends what a compressor or a decoder still holds of what it was given.
    async fn flush_encoder(&mut self) -> Result<(), ClientError> {
        let held = match (&mut self.encoder, &mut self.decoder) {
            (Some(encoder), _) => encoder.flush().map_err(|_| ClientError::Left)?,
            (None, Some(decoder)) => decoder.flush().map_err(broken)?,
            (None, None) => return Ok(()),
        };
        self.send(held).await
    }

    /// Ends the body; only of an answer that is whole.
    pub(super) async fn end(&mut self) -> Result<(), ClientError> {
        let rest = match (self.encoder.take(), self.decoder.take()) {
            (Some(encoder), _) => encoder.finish().map_err(|_| ClientError::Left)?,
            (None, Some(decoder)) => decoder.finish().map_err(broken)?,
            (None, None) => return Ok(()),
        };
        self.send(rest).await
    }

    async fn send(&mut self, mut bytes: Bytes) -> Result<(), ClientError> {
        while !bytes.is_empty() {
            let piece = self.in_time(&mut bytes).await;
            let length = piece.len() as u64;
            self.exchange.write(piece).await?;
            self.written += length;
        }
        Ok(())
    }

    /// What `next` has at once. Otherwise what was written goes out, however little it is, for what comes next may take its
    /// time; `next` is dropped then, and must not mind.
    pub(super) async fn at_once<T>(
        &mut self,
        next: impl Future<Output = T>,
    ) -> Result<Option<T>, ClientError> {
        tokio::select! {
            biased;
            next = next => return Ok(Some(next)),
            () = std::future::ready(()) => {}
        }
        self.flush().await?;
        Ok(None)
    }

    /// Sends what was written, however little it is.
    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        self.flush_encoder().await?;
        Ok(self.exchange.flush().await?)
    }

    /// As much of `bytes` as may go now; waits until something may.
    async fn in_time(&mut self, bytes: &mut Bytes) -> Bytes {
        let Some((pace, since)) = &mut self.pace else { return std::mem::take(bytes) };
        let since = *since.get_or_insert_with(Instant::now);
        loop {
            match pace.next(bytes.len(), self.written, since.elapsed()) {
                limit_rate::Next::Send(length) => return bytes.split_to(length),
                limit_rate::Next::Wait(span) => tokio::time::sleep(span).await,
            }
        }
    }

    /// Ends the answer with trailers. A client of HTTP/1.1 has to ask for them (RFC 9110 §6.5.1); HTTP/2 frames them so that
    /// whoever does not want them cannot stumble.
    pub(super) async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), ClientError> {
        self.end().await?;
        if !self.takes_trailers && self.exchange.version() != Version::HTTP_2 {
            return Ok(());
        }
        Ok(self.exchange.trailers(trailers).await?)
    }

    /// The connection ends with this answer.
    pub(super) fn close_after(&mut self) {
        self.exchange.close_after();
    }

    /// Whether it reads trailers where it has to ask for them.
    pub(super) fn take_trailers(&mut self, takes: bool) {
        self.takes_trailers = takes;
    }

    /// Whether the final head of an answer was written.
    pub(super) fn has_answered(&self) -> bool {
        self.exchange.has_answered()
    }

    /// Whether an answer may have no body.
    pub(super) fn is_head(&self) -> bool {
        self.exchange.is_head()
    }

    /// Whether a tunnel was asked for.
    pub(super) fn is_connect(&self) -> bool {
        self.exchange.is_connect()
    }

    /// Drops the answer in the middle: the client must notice that it is not whole.
    pub(super) async fn abort(self) {
        self.exchange.abort().await;
    }

    /// Ends an answer that was written whole; gives the connection back when the next request may come on it.
    pub(super) async fn finish(self) -> Option<Reusable> {
        self.exchange.finish().await
    }
}

/// An answer that cannot be unpacked: its client is cut off, so that it takes nothing for whole.
fn broken(problem: std::io::Error) -> ClientError {
    tracing::debug!(%problem, "an answer in gzip could not be unpacked");
    ClientError::Left
}
