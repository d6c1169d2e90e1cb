//! One connection: TCP or TLS, behind the gate, with every timeout that concerns single bytes. An HTTP/1 exchange asks it
//! for pieces of a body; to HTTP/2's library it is a stream.
//!
//! Reading goes through [`Gate`]: see there. Writing collects small writes, so that a head and its body leave in one packet.
//! A connection dropped while its client may still be sending *lingers*: it says FIN and reads on for a moment, because
//! the kernel answers unread bytes with RST, and RST would take our last answer from the client's hands.
//!
//! No buffer lives while the connection is idle.

mod raw;

use std::{
    cell::Cell,
    io::{Error, ErrorKind, IoSlice, Result},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
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

/// Read at once while a head is awaited.
const HEAD_READ: usize = 8 << 10;
/// Read at once of a body.
const BODY_READ: usize = 32 << 10;
/// Small frames are collected up to this.
const WRITE_BUFFER: usize = 16 << 10;
/// Later requests of an impatient client are read ahead up to this; then its own TCP holds it back.
const READ_AHEAD: usize = 64 << 10;
/// The largest buffer that a thread keeps for the next head.
const SPARE_MOST: usize = 2 * WRITE_BUFFER;

thread_local! {
    /// One for all connections of a thread, none of which owns a buffer between its answers.
    static SPARE: Cell<BytesMut> = Cell::default();
}

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
    /// The client said FIN.
    eof: bool,
    /// A write failed: nothing can reach the client any more.
    broken: bool,
    /// Something waits for the client to read, for those who hold no more than this of us.
    is_full: Arc<AtomicBool>,
    gate: Gate,
    pace: Pace,
    /// What the gate found, for the request that is being served.
    fault: Arc<Fault>,
    /// The final head of the answer was begun.
    answered: bool,
    /// The answer may turn the connection into a tunnel.
    may_switch: bool,
    /// The client waits for a 100 before it sends the body.
    continue_due: bool,
    reading: Stall,
    writing: Stall,
    bounds: Arc<Bounds>,
    /// Our place among the listener's connections, held for the linger too.
    place: Place,
}

impl FrontIo {
    pub(super) fn new(raw: Raw, bounds: Arc<Bounds>, place: Place) -> Self {
        Self {
            raw,
            ahead: BytesMut::new(),
            unsent: BytesMut::new(),
            eof: false,
            broken: false,
            is_full: Arc::default(),
            gate: Gate::Closed,
            pace: Pace::default(),
            fault: Arc::default(),
            answered: true,
            may_switch: false,
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
    pub(super) fn begin(&mut self, head: &Head, bounds: &Arc<Bounds>) -> Arc<Fault> {
        self.gate = Gate::body(head.framing, bounds);
        if !Arc::ptr_eq(&self.bounds, bounds) {
            self.bounds.clone_from(bounds);
        }
        self.pace = Pace::default();
        // The last request's serves again when that has gone without one.
        if Arc::get_mut(&mut self.fault).is_none_or(|fault| fault.get().is_some()) {
            self.fault = Arc::default();
        }
        (self.answered, self.may_switch) = (false, head.may_switch);
        self.continue_due = head.expects_continue && head.framing != Framing::None;
        self.fault.clone()
    }

    /// The final head of the answer was begun: nobody is asked to go on any more.
    pub(super) fn answer_begun(&mut self) {
        self.answered = true;
    }

    /// From here on the connection carries another protocol.
    ///
    /// Errors: where the front let no upgrade through.
    pub(super) fn open_tunnel(&mut self) -> Result<()> {
        if !self.may_switch || !matches!(self.gate, Gate::Closed) {
            return Err(ErrorKind::InvalidInput.into());
        }
        (self.gate, self.answered) = (Gate::Tunnel, true);
        Ok(())
    }

    /// Whether this request's body was taken to its end.
    pub(super) fn is_at_end(&self) -> bool {
        matches!(self.gate, Gate::Closed)
    }

    /// What is to be sent and may wait for more.
    pub(super) fn unsent(&mut self) -> &mut BytesMut {
        if self.unsent.capacity() == 0 {
            self.unsent = SPARE.take();
        }
        &mut self.unsent
    }

    /// Gives the buffer for what is to be sent up, if nothing is.
    pub(super) fn hold_nothing(&mut self) {
        if self.unsent.is_empty() {
            let unsent = std::mem::take(&mut self.unsent);
            if unsent.capacity() <= SPARE_MOST {
                SPARE.set(unsent);
            }
        }
    }

    /// Sends what waits, a piece and its end in as few packets as they take.
    pub(super) async fn send(&mut self, mut piece: Bytes, mut end: &[u8]) -> Result<()> {
        std::future::poll_fn(|cx| self.poll_send(cx, &mut piece, &mut end)).await?;
        std::future::poll_fn(|cx| self.poll_flush_raw(cx)).await
    }

    /// The next piece of the body, never empty; `None` at its end. May be dropped and called again.
    pub(super) async fn body(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_piece(cx)).await
    }

    /// Resolves when the client is gone. What it sends meanwhile is kept for the next request.
    pub(super) async fn left(&mut self) {
        // Whatever ends this is the end of the client.
        let _ = std::future::poll_fn(|cx| self.poll_leaving(cx)).await;
    }

    /// Opens the gate for good: HTTP/2 has a framing of its own. Gives whether something waits
    /// for the client to read, which has its own end (`send_timeout`).
    pub(super) fn begin_frames(&mut self) -> Arc<AtomicBool> {
        self.gate = Gate::Frames(Frames::new(Instant::now()));
        Arc::clone(&self.is_full)
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

    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        self.poll_fill_up_to(HEAD_READ, cx)
    }

    fn poll_fill_up_to(&mut self, most: usize, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.eof {
            return Poll::Ready(Ok(0));
        }
        // On the stack, so that a connection that waits owns no buffer.
        let mut scratch = [std::mem::MaybeUninit::uninit(); BODY_READ];
        let mut buffer = ReadBuf::uninit(&mut scratch[..most.min(BODY_READ)]);
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

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if let Some(bad) = self.fault.get() {
            return Poll::Ready(Err((*bad).into()));
        }
        if self.continue_due && self.ahead.is_empty() {
            if self.answered {
                // The client will not send what it was never asked for; the connection cannot be used again.
                return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
            }
            self.unsent.extend_from_slice(CONTINUE);
        }
        self.continue_due = false;
        if !self.answered && !self.unsent.is_empty() {
            ready!(self.poll_send(cx, &mut Bytes::new(), &mut &b""[..]))?;
            ready!(self.poll_flush_raw(cx))?;
        }
        loop {
            match self.gate.piece(&mut self.ahead) {
                Ok(Some(piece)) => {
                    self.shrink();
                    return Poll::Ready(Ok(Some(piece)));
                }
                Ok(None) if self.is_at_end() => {
                    self.shrink();
                    return Poll::Ready(Ok(None));
                }
                Ok(None) if self.eof && matches!(self.gate, Gate::Tunnel) => return Poll::Ready(Ok(None)),
                Ok(None) => ready!(self.poll_more(cx))?,
                Err(bad) => return Poll::Ready(Err(self.blame(bad))),
            }
        }
    }

    /// Reads more of the body, or of a tunnel; a body has clocks, and must not end before its end.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let is_tunnel = matches!(self.gate, Gate::Tunnel);
        let most = usize::try_from(self.gate.most()).unwrap_or(BODY_READ);
        let read = match self.poll_fill_up_to(most, cx) {
            Poll::Ready(read) => read?,
            Poll::Pending if is_tunnel => return Poll::Pending,
            Poll::Pending => {
                ready!(self.reading.poll_expired(self.bounds.body_timeout, cx));
                return Poll::Ready(Err(self.blame(BadRequest::BodyTimeout)));
            }
        };
        let waited = self.reading.progress();
        if is_tunnel {
            return Poll::Ready(Ok(()));
        }
        if read == 0 {
            return Poll::Ready(Err(ErrorKind::UnexpectedEof.into()));
        }
        match self.pace.note(read, waited, &self.bounds) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(bad) => Poll::Ready(Err(self.blame(bad))),
        }
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
            self.ahead.advance(taken);
            self.shrink();
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

    /// What was taken to its end holds no buffer.
    fn shrink(&mut self) {
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
        }
    }

    /// Remembers what is wrong with the request and says it as the error of this read.
    fn blame(&mut self, bad: BadRequest) -> Error {
        let _ = self.fault.set(bad);
        bad.into()
    }

    /// Sends what waits, then `piece`, then `end`; what was sent is taken off their fronts.
    fn poll_send(&mut self, cx: &mut Context<'_>, piece: &mut Bytes, end: &mut &[u8]) -> Poll<Result<()>> {
        while !(self.unsent.is_empty() && piece.is_empty() && end.is_empty()) {
            let written = if piece.is_empty() && end.is_empty() {
                // The kernel takes one part in fewer steps than a list of them.
                Pin::new(&mut self.raw).poll_write(cx, &self.unsent)
            } else {
                let parts = [IoSlice::new(&self.unsent), IoSlice::new(piece), IoSlice::new(end)];
                Pin::new(&mut self.raw).poll_write_vectored(cx, &parts)
            };
            let written = match written {
                Poll::Ready(Ok(0)) => Err(ErrorKind::WriteZero.into()),
                Poll::Ready(written) => written,
                Poll::Pending => Err(ready!(self.poll_unread(cx))),
            };
            let mut sent = ready!(self.wrote(written))?;
            let mut take = |length: usize| {
                let taken = length.min(sent);
                sent -= taken;
                taken
            };
            match take(self.unsent.len()) {
                // As a whole: its room is there again without a move.
                all if all == self.unsent.len() => self.unsent.clear(),
                some => self.unsent.advance(some),
            }
            piece.advance(take(piece.len()));
            *end = &end[take(end.len())..];
        }
        self.hold_nothing();
        Poll::Ready(Ok(()))
    }

    fn poll_flush_raw(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let flushed = match Pin::new(&mut self.raw).poll_flush(cx) {
            Poll::Ready(flushed) => flushed,
            Poll::Pending => Err(ready!(self.poll_unread(cx))),
        };
        self.wrote(flushed)
    }

    /// The client takes nothing: an error when it has done so for too long.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.is_full.store(true, Ordering::Relaxed);
        ready!(self.writing.poll_expired(self.bounds.send_timeout, cx));
        Poll::Ready(Error::new(ErrorKind::TimedOut, "the client does not read"))
    }

    /// The client took something, or never will.
    fn wrote<T>(&mut self, outcome: Result<T>) -> Poll<Result<T>> {
        self.writing.progress();
        self.is_full.store(false, Ordering::Relaxed);
        self.broken |= outcome.is_err();
        Poll::Ready(outcome)
    }
}

/// HTTP/2's library reads and writes frames.
impl AsyncRead for FrontIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        self.poll_frames(cx, buf)
    }
}

impl AsyncWrite for FrontIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        if self.unsent.len() + bytes.len() > WRITE_BUFFER {
            ready!(self.poll_send(cx, &mut Bytes::new(), &mut &b""[..]))?;
        }
        if bytes.len() >= WRITE_BUFFER {
            let written = match Pin::new(&mut self.raw).poll_write(cx, bytes) {
                Poll::Ready(written) => written,
                Poll::Pending => Err(ready!(self.poll_unread(cx))),
            };
            return self.wrote(written);
        }
        self.unsent.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_send(cx, &mut Bytes::new(), &mut &b""[..]))?;
        self.poll_flush_raw(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        ready!(self.poll_send(cx, &mut Bytes::new(), &mut &b""[..]))?;
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
