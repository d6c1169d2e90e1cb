//! The first stage: from a listening socket to one request that has one meaning.
//!
//! It owns the sockets, the accept loops, TLS, and every limit on what a connection may ask of us: time, size, number and
//! speed. It reads each HTTP/1 head itself, refuses what two parsers could read differently, and hands on exactly one head
//! and exactly one body at a time. HTTP/2 frames are left to their library, under bounds, and each of its requests is held
//! to the same rules. Who the request is for is none of its business: that is the [`Service`]'s.
//!
//! Read in this order:
//! - [`listener`]: bind, accept, the limit on connections, the graceful stop; [`stop`]: the word for it.
//! - `proxy_protocol`: who connected, by the word of the hop in front.
//! - [`tls`]: certificates by name, reloaded in place; [`handshake`]: why one came to nothing.
//! - `http1`: the life of an HTTP/1 connection; `idle`: its waits; `head`, `target`, `rewrite`: what a head may be.
//! - [`exchange`]: one request and the way to answer it, in either protocol.
//! - `io`: the connection behind its gate; `gate`, `frames`: what passes it.
//! - `http2`: the life of an HTTP/2 connection; `stream`: what one of its requests may be.
//! - [`client`]: whose request it is, behind trusted hops.
//! - [`bad`], [`counters`]: what was refused, and how often.

pub mod bad;
pub mod client;
pub mod counters;
pub mod exchange;
mod frames;
mod gate;
pub mod handshake;
mod head;
mod http1;
mod http2;
mod idle;
mod io;
pub mod listener;
mod proxy_protocol;
mod rewrite;
pub mod stop;
mod stream;
mod target;
#[cfg(test)]
mod tests;
pub mod tls;

use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, Version};

pub use self::bad::BadRequest;
pub(crate) use self::gate::Pace;
use self::{
    exchange::{Exchange, Head, Reusable},
    stop::Stop,
};

/// What serves the requests that pass, and words the refusals. A request is begun, and then answered on one of two lanes.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// A request with what was found out about it so far: whichever lane ends it, nothing is asked or counted twice.
    type Begun: Send;
    /// A request that was answered on the express lane, until its answer was written.
    type Answered: Send;

    /// The bytes that answer a head which cannot be served; the service also records it. The front sends them and closes.
    ///
    /// Shape: `arrival.refused` says why; `request_line` is what came of the first line, raw and perhaps cut short: never
    ///        to be trusted, only shown.
    fn refuse(&self, arrival: Arrival, request_line: &[u8]) -> Bytes;

    /// Begins to serve a request.
    fn begin(&self, head: Head, arrival: Arrival) -> Self::Begun;

    /// The express lane: answers without waiting, or gives the request back. For requests of HTTP/1 that have no body and ask
    /// for no tunnel.
    ///
    /// Shape: the answer's head is put behind what is in `out`, and its body may be; the front sends both, what is left of
    ///        the body, and perhaps further answers with it, and then says so with [`Service::written`].
    fn express(&self, begun: Self::Begun, out: &mut BytesMut) -> Result<Express<Self>, Self::Begun>;

    /// The same for a request of HTTP/2: the answer's head as it is given to [`Exchange::head`].
    fn express_head(&self, begun: Self::Begun)
    -> Result<(StatusCode, HeaderMap, Express<Self>), Self::Begun>;

    /// An answer of the express lane was written, or only some of it.
    fn written(&self, answered: Self::Answered, whole: bool);

    /// The general lane; what [`Exchange::finish`] gives comes back when the connection may be used again.
    async fn serve(&self, exchange: Exchange, begun: Self::Begun) -> Option<Reusable>;
}

/// An answer of the express lane, besides its head.
pub struct Express<S: Service + ?Sized> {
    /// What is left of the body.
    pub body: Bytes,
    /// Whether the head says that the connection ends with it.
    pub closes: bool,
    /// To be given back when it was written.
    pub answered: S::Answered,
}

/// A client's connection, as every request on it sees it.
#[derive(Debug)]
pub struct Connection {
    /// The other end: the client, or the last hop before us.
    pub peer: SocketAddr,
    /// Our end.
    pub local: SocketAddr,
    /// What TLS agreed on; `None` on plain connections.
    pub tls: Option<TlsInfo>,
    /// The listener's address in the plan: what stays when a reload reorders the listeners.
    pub listener: SocketAddr,
    /// When it was accepted.
    pub opened: Instant,
    requests: AtomicU64,
    stop: Stop,
}

impl Connection {
    /// Requests that began on it, refused ones included.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Counts one more, and says which it is, from 1. Only the connection's own task does.
    fn count(&self) -> u64 {
        let count = self.requests() + 1;
        self.requests.store(count, Ordering::Relaxed);
        count
    }

    /// `https` or `http`, by what the client really spoke.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// What TLS agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1_3` or `TLSv1_2`.
    pub version: &'static str,
    /// The name the client asked for, in lower case.
    pub sni: Option<String>,
}

/// What the request path needs to know of one request that passed the front.
#[derive(Debug)]
pub struct Arrival {
    /// On which connection.
    pub connection: Arc<Connection>,
    /// When its first byte was read, for what took how long.
    pub started: Instant,
    /// When its head had come to its end.
    pub complete: Instant,
    /// The same by the wall clock.
    pub wall: SystemTime,
    /// As the client spoke.
    pub version: Version,
    /// Why it may not be served. Of HTTP/2 such a request is handed on nevertheless, as the answer needs its stream.
    pub refused: Option<BadRequest>,
    /// The connection closes after this request, whatever the answer says.
    pub last: bool,
    fault: Arc<Fault>,
}

/// What the gate found wrong with a body, once.
type Fault = OnceLock<BadRequest>;

impl Arrival {
    /// What was wrong with the body, if a read of it failed for that reason; the answer is then its status, and a close.
    #[must_use]
    pub fn fault(&self) -> Option<BadRequest> {
        self.fault.get().copied()
    }

    /// Whether the answer should say `Connection: close`: the connection ends behind it.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.last || self.connection.stop.is_said()
    }
}
