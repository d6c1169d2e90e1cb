//! One connection as Pingora sees it: TCP or TLS, behind the gate, with every timeout that concerns single bytes.
//!
//! Reading goes through [`Gate`]: see there. Writing collects small writes, so that a head and its body leave in one packet.
//! A connection dropped while its client may still be sending *lingers*: it says FIN and reads on for a moment, because
//! the kernel answers unread bytes with RST, and RST would take our last answer from the client's hands.
//!
//! No buffer lives while the connection is idle.

mod pingora;
mod raw;

use std::{
    io::{Error, ErrorKind, Result},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::Instant,
};
use weir_config::plan::Bounds;

pub(super) use self::raw::Raw;
use self::raw::Stall;
use super::{
    Fault,
    bad::BadRequest,
    frames::Frames,
    gate::{Gate, Pace},
    head::{Framing, Head},
    listener::Place,
};

/// Small writes are collected up to this.
const WRITE_BUFFER: usize = 16 << 10;
/// Later requests of an impatient client are read ahead up to this; then its own TCP holds it back.
const READ_AHEAD: usize = 64 << 10;
/// A goodbye fits any socket buffer; a client that does not even take that is left.
const FAREWELL: Duration = Duration::from_secs(1);
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's connection.
#[derive(Debug)]
pub(super) struct FrontIo {
    raw: Raw,
    /// What came and nobody took.
    ahead: BytesMut,
    unsent: BytesMut,
    /// Of the write under way, what `unsent` has.
    taken: usize,
    /// The client said FIN.
    eof: bool,
    /// A write failed: nothing can reach the client any more.
    broken: bool,
    gate: Gate,
    pace: Pace,
    /// What the gate found, for the request that is being served.
    fault: Arc<Fault>,
    answer: Answer,
    /// The client waits for a 100 before it sends the body.
    continue_due: bool,
    reading: Stall,
    writing: Stall,
    bounds: Arc<Bounds>,
    /// Our place among the listener's connections, held for the linger too.
    place: Place,
    digests: pingora::Digests,
}

/// How far the answer of the request being served is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing was written, or only interim heads.
    Awaited { may_switch: bool },
    /// The final head was written.
    Begun,
    /// It was, and a body of known length follows. Pingora flushes such a body only at its end; whoever reads along
    /// with a slow origin would wait for that, so its pieces go out as they come, the first one with the head.
    Flowing,
}

impl FrontIo {
    pub(super) fn new(raw: Raw, bounds: Arc<Bounds>, place: Place) -> Self {
        Self {
            digests: pingora::Digests::of(&raw),
            raw,
            ahead: BytesMut::new(),
            unsent: BytesMut::new(),
            taken: 0,
            eof: false,
            broken: false,
            gate: Gate::Closed,
            pace: Pace::default(),
            fault: Arc::default(),
            answer: Answer::Begun,
            continue_due: false,
            reading: Stall::default(),
            writing: Stall::default(),
            bounds,
            place,
        }
    }

    /// What came and nobody took.
    pub(super) fn ahead(&mut self) -> &mut BytesMut {
        &mut self.ahead
    }

    /// Reads more of what comes next; 0 is the client's FIN.
    pub(super) async fn fill(&mut self) -> Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Opens the gate for the body of the request whose head was just taken.
    pub(super) fn begin(&mut self, head: &Head, bounds: Arc<Bounds>) -> Arc<Fault> {
        self.gate = Gate::body(head.framing, &bounds);
        self.bounds = bounds;
        self.pace = Pace::default();
        self.fault = Arc::default();
        self.answer = Answer::Awaited { may_switch: head.may_switch };
        self.continue_due = head.expects_continue && head.framing != Framing::None;
        self.fault.clone()
    }

    /// Opens the gate for good: HTTP/2 has a framing of its own.
    pub(super) fn begin_frames(&mut self) {
        self.gate = Gate::Frames(Frames::new(Instant::now()));
    }

    /// Whether the next request may be read: this one's body was taken to its end.
    pub(super) fn is_reusable(&self) -> bool {
        matches!(self.gate, Gate::Closed) && !self.broken && self.fault.get().is_none()
    }

    /// Says goodbye in order (TLS close_notify, FIN); for connections on which nothing is under way.
    pub(super) async fn close(mut self) {
        let _ = tokio::time::timeout(FAREWELL, AsyncWriteExt::shutdown(&mut self)).await;
    }

    /// Breaks the connection: RST instead of FIN, and no lingering.
    pub(super) fn reset(mut self) {
        if let Some(tcp) = self.raw.tcp() {
            let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
        self.broken = true;
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        // On the stack, so that a connection that waits owns no buffer.
        let mut scratch = [std::mem::MaybeUninit::uninit(); 8192];
        let mut buffer = ReadBuf::uninit(&mut scratch);
        ready!(Pin::new(&mut self.raw).poll_read(cx, &mut buffer))?;
        self.eof = buffer.filled().is_empty();
        self.ahead.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    /// While a request is served whose body is complete: keep what follows, report nothing but the client's leaving.
    fn poll_leaving(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            if self.ahead.len() >= READ_AHEAD || (self.eof && !self.ahead.is_empty()) {
                return Poll::Pending;
            }
            if ready!(self.poll_fill(cx))? == 0 && self.ahead.is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if let Some(bad) = self.fault.get() {
            return Poll::Ready(Err((*bad).into()));
        }
        if self.continue_due && self.ahead.is_empty() {
            if self.has_answer() {
                // The client will not send what it was never asked for; the connection cannot be used again.
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            self.unsent.extend_from_slice(CONTINUE);
        }
        self.continue_due = false;
        if !self.has_answer() && !self.unsent.is_empty() {
            ready!(self.poll_send(cx))?;
        }
        let begin = buf.filled().len();
        let waited = match self.poll_body_bytes(cx, buf) {
            Poll::Ready(Ok(())) => self.reading.progress(),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                ready!(self.reading.poll_expired(self.bounds.body_timeout, cx));
                return Poll::Ready(Err(self.blame(BadRequest::BodyTimeout)));
            }
        };
        match self.pace.note(buf.filled().len() - begin, waited, &self.bounds) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(bad) => Poll::Ready(Err(self.blame(bad))),
        }
    }

    fn poll_body_bytes(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let plain = usize::try_from(self.gate.unexamined()).unwrap_or(usize::MAX).min(buf.remaining());
        if self.ahead.is_empty() && plain > 0 {
            let mut part = ReadBuf::new(buf.initialize_unfilled_to(plain));
            ready!(Pin::new(&mut self.raw).poll_read(cx, &mut part))?;
            let read = part.filled().len();
            self.eof |= read == 0;
            self.gate.take(part.filled())?;
            buf.advance(read);
            return Poll::Ready(Ok(()));
        }
        if self.ahead.is_empty() {
            ready!(self.poll_fill(cx))?;
        }
        let offered = self.ahead.len().min(buf.remaining());
        let taken = match self.gate.take(&self.ahead[..offered]) {
            Ok(taken) => taken,
            Err(bad) => return Poll::Ready(Err(self.blame(bad))),
        };
        buf.put_slice(&self.ahead[..taken]);
        self.forget(taken);
        Poll::Ready(Ok(()))
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let begin = buf.filled().len();
        if self.ahead.is_empty() {
            if Pin::new(&mut self.raw).poll_read(cx, buf)?.is_pending() {
                let Gate::Frames(frames) = &self.gate else { return Poll::Pending };
                let Some(left) = frames.patience(self.bounds.header_timeout, Instant::now()) else {
                    self.reading.progress();
                    return Poll::Pending;
                };
                ready!(self.reading.poll_expired(left, cx));
                return Poll::Ready(Err(BadRequest::HeadTimeout.into()));
            }
            self.eof |= buf.filled().len() == begin;
        } else {
            let taken = self.ahead.len().min(buf.remaining());
            buf.put_slice(&self.ahead[..taken]);
            self.forget(taken);
        }
        if let Gate::Frames(frames) = &mut self.gate {
            let seen = frames.see(&buf.filled()[begin..], Instant::now());
            if frames.patience(self.bounds.header_timeout, Instant::now()).is_none() {
                self.reading.progress();
            }
            seen.map_err(|_flood| Error::new(ErrorKind::InvalidData, "flood of frames that carry nothing"))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.raw).poll_read(cx, buf);
        }
        let taken = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..taken]);
        self.forget(taken);
        Poll::Ready(Ok(()))
    }

    fn forget(&mut self, taken: usize) {
        self.ahead.advance(taken);
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Remembers what is wrong with the request and says it as the error of this read.
    fn blame(&mut self, bad: BadRequest) -> Error {
        let _ = self.fault.set(bad);
        bad.into()
    }

    /// Sees the status line that a write begins with, while none was final.
    fn note_answer(&mut self, bytes: &[u8]) {
        let Answer::Awaited { may_switch } = self.answer else { return };
        match bytes.get(b"HTTP/1.".len() + 2..).and_then(|rest| rest.get(..3)) {
            // The only way into a tunnel: a 101 that answers an upgrade which the front let through.
            Some(b"101") if may_switch && matches!(self.gate, Gate::Closed) => {
                self.gate = Gate::Tunnel;
                self.answer = Answer::Begun;
            }
            Some([b'1', ..]) => {}
            _ if bytes.windows(b"chunked".len()).any(|word| word == b"chunked") => {
                self.answer = Answer::Begun
            }
            _ => self.answer = Answer::Flowing,
        }
    }

    fn has_answer(&self) -> bool {
        !matches!(self.answer, Answer::Awaited { .. })
    }

    /// Sends what was collected.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        while !self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            let sent = self.poll_write_raw(cx, &unsent);
            self.unsent = unsent;
            self.unsent.advance(ready!(sent)?);
        }
        self.unsent = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn poll_write_raw(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = match Pin::new(&mut self.raw).poll_write(cx, bytes) {
            Poll::Ready(Ok(0)) => Err(ErrorKind::WriteZero.into()),
            Poll::Ready(written) => written,
            Poll::Pending => Err(ready!(self.poll_unread(cx))),
        };
        self.wrote(written)
    }

    /// The client takes nothing: an error when it has done so for too long.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        ready!(self.writing.poll_expired(self.bounds.send_timeout, cx));
        Poll::Ready(Error::new(ErrorKind::TimedOut, "the client does not read"))
    }

    /// The client took something, or never will.
    fn wrote<T>(&mut self, outcome: Result<T>) -> Poll<Result<T>> {
        self.writing.progress();
        self.broken |= outcome.is_err();
        Poll::Ready(outcome)
    }
}

impl AsyncRead for FrontIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        match self.gate {
            Gate::Closed => self.poll_leaving(cx),
            Gate::Length(_) | Gate::Chunked(_) => self.poll_body(cx, buf),
            Gate::Tunnel => self.poll_tunnel(cx, buf),
            Gate::Frames(_) => self.poll_frames(cx, buf),
        }
    }
}

impl AsyncWrite for FrontIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let flows = self.answer == Answer::Flowing;
        self.note_answer(bytes);
        if flows && bytes.len() < WRITE_BUFFER {
            // Taken once, though a full socket may have us called again for the same bytes.
            if self.taken == 0 {
                self.unsent.extend_from_slice(bytes);
                self.taken = bytes.len();
            }
            ready!(self.poll_send(cx))?;
            return Poll::Ready(Ok(std::mem::take(&mut self.taken)));
        }
        if self.unsent.len() + bytes.len() > WRITE_BUFFER {
            ready!(self.poll_send(cx))?;
        }
        if bytes.len() >= WRITE_BUFFER {
            return self.poll_write_raw(cx, bytes);
        }
        self.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_send(cx))?;
        let me = &mut *self;
        let flushed = match Pin::new(&mut me.raw).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Err(ready!(me.poll_unread(cx))),
        };
        me.wrote(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.raw).poll_shutdown(cx)
    }
}

impl Drop for FrontIo {
    fn drop(&mut self) {
        let may_be_sending = !matches!(self.gate, Gate::Closed | Gate::Tunnel) || !self.ahead.is_empty();
        if may_be_sending && !self.eof && !self.broken {
            std::mem::take(&mut self.raw).linger(self.place.clone());
        }
    }
}
