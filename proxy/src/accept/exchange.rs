//! One request and its answer, in the protocol of their connection.
//!
//! [`http1`] writes and reads bytes, [`http2`] has a library for them. What follows a request on its connection belongs to the
//! front: an exchange cannot read one byte of it, however it ends.

mod http1;
mod http2;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version};

pub(super) use self::{
    http1::{Http1, read},
    http2::Http2,
};
use super::io::FrontIo;

/// How long an unread request body may take to be drained so that the connection can be kept.
const DRAIN: Duration = Duration::from_secs(2);

/// A request whose head was read, and the way to answer it.
pub struct Exchange {
    protocol: Protocol,
    is_head: bool,
    version: Version,
}

enum Protocol {
    Http1(Box<Http1>),
    Http2(Box<Http2>),
}

/// What a client asks for, as it came.
#[derive(Debug)]
pub struct Head {
    /// Any token.
    pub method: Method,
    /// As it stands in the first line, or in `:path`.
    pub target: Bytes,
    /// In the order in which they came.
    pub headers: HeaderMap,
}

/// The client closed, reset the stream, does not read, or sent what [`super::Arrival::fault`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the client's side of the exchange ended")]
pub struct Gone;

/// A connection that can carry another request; only the front can do anything with it.
pub struct Reusable(pub(super) Box<FrontIo>);

impl Exchange {
    pub(super) fn http1(exchange: Http1, method: &Method, version: Version) -> Self {
        Self { protocol: Protocol::Http1(Box::new(exchange)), is_head: *method == Method::HEAD, version }
    }

    pub(super) fn http2(exchange: Http2, is_head: bool) -> Self {
        Self { protocol: Protocol::Http2(Box::new(exchange)), is_head, version: Version::HTTP_2 }
    }

    /// Whether an answer may have no body.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.is_head
    }

    /// Whether a success would open a tunnel.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(exchange) => exchange.is_connect(),
            Protocol::Http2(exchange) => exchange.is_connect(),
        }
    }

    /// What the client speaks.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether more of the request's body is to come; before the first read, whether there is one at all.
    pub fn has_body(&mut self) -> bool {
        match &mut self.protocol {
            Protocol::Http1(exchange) => exchange.has_body(),
            Protocol::Http2(exchange) => exchange.has_body(),
        }
    }

    /// The next piece of the request's body, or of a tunnel; `None` at its end. May be dropped and called again.
    ///
    /// A client that waits for `100 Continue` gets it here. Of HTTP/1 the clocks are the listener's; HTTP/2 has none, and may
    /// bring an empty piece.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn body(&mut self) -> Result<Option<Bytes>, Gone> {
        match &mut self.protocol {
            Protocol::Http1(exchange) => exchange.body().await,
            Protocol::Http2(exchange) => exchange.body().await,
        }
    }

    /// Resolves when the client is gone; only after its body was read.
    pub async fn left(&mut self) {
        match &mut self.protocol {
            Protocol::Http1(exchange) => exchange.left().await,
            Protocol::Http2(exchange) => exchange.left().await,
        }
    }

    /// Bounds how long a client may not take what we write. HTTP/1 has the listener's bound already.
    pub fn set_write_timeout(&mut self, timeout: Duration) {
        if let Protocol::Http2(exchange) = &mut self.protocol {
            exchange.set_write_timeout(timeout);
        }
    }

    /// Writes an interim answer, if the client's protocol has them.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn interim(&mut self, status: StatusCode, fields: HeaderMap) -> Result<(), Gone> {
        match &mut self.protocol {
            // HTTP/1.0 knows none.
            Protocol::Http1(_) if self.version == Version::HTTP_10 => Ok(()),
            Protocol::Http1(exchange) => exchange.interim(status, &fields).await,
            Protocol::Http2(exchange) => exchange.interim(status, fields),
        }
    }

    /// Writes the final head, which waits for the first piece of the body or for [`Self::flush`]; `end` when no body
    /// follows. Its fields say how the body is framed: a length, `chunked`, or
    /// the end of the connection. A 101, and 2xx to CONNECT, opens a tunnel. `Date` is added where it is missing, and what HTTP/1 says of the connection.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn head(&mut self, status: StatusCode, fields: HeaderMap, end: bool) -> Result<(), Gone> {
        match &mut self.protocol {
            Protocol::Http1(exchange) => exchange.head(status, fields, end).await,
            Protocol::Http2(exchange) => exchange.head(status, fields, end),
        }
    }

    /// Writes a piece of the answer's body, or of a tunnel. An empty one is nothing.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn write(&mut self, piece: Bytes) -> Result<(), Gone> {
        if piece.is_empty() {
            return Ok(());
        }
        match &mut self.protocol {
            Protocol::Http1(exchange) => exchange.write(piece).await,
            Protocol::Http2(exchange) => exchange.write(piece).await,
        }
    }

    /// Sends what was written and waits for more. HTTP/2 sends at once.
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn flush(&mut self) -> Result<(), Gone> {
        match &mut self.protocol {
            Protocol::Http1(exchange) => exchange.flush().await,
            Protocol::Http2(_) => Ok(()),
        }
    }

    /// Ends the answer with trailers, where its framing has room for them; elsewhere they are dropped, as they may be
    /// (RFC 9110 §6.5.1).
    ///
    /// # Errors
    /// [`Gone`].
    pub async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        match &mut self.protocol {
            Protocol::Http1(exchange) => {
                exchange.trailers(&trailers);
                Ok(())
            }
            Protocol::Http2(exchange) => exchange.trailers(trailers),
        }
    }

    /// The connection ends with this answer. Nothing to HTTP/2.
    pub fn close_after(&mut self) {
        if let Protocol::Http1(exchange) = &mut self.protocol {
            exchange.close_after();
        }
    }

    /// Whether the final head was written.
    #[must_use]
    pub fn has_answered(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(exchange) => exchange.has_answered(),
            Protocol::Http2(exchange) => exchange.has_answered(),
        }
    }

    /// Drops the answer in the middle: the client must notice that it is not whole.
    pub async fn abort(self) {
        match self.protocol {
            Protocol::Http1(exchange) => exchange.abort().await,
            Protocol::Http2(exchange) => exchange.abort(),
        }
    }

    /// Ends an answer that was written whole; gives the connection back when the next request may come on it.
    pub async fn finish(self) -> Option<Reusable> {
        match self.protocol {
            Protocol::Http1(exchange) => exchange.finish().await.map(Reusable),
            Protocol::Http2(exchange) => {
                // In a box: a request over HTTP/1 would carry the room for it, and copy it.
                Box::pin(exchange.finish()).await;
                None
            }
        }
    }
}
