//! A connection to a peer with one exchange on it, whatever protocol it speaks.
//!
//! HTTP/1.1 is ours ([`http1`]). Where a peer may speak HTTP/2, Pingora finds out in the handshake and multiplexes; its own
//! HTTP/1.1 serves those peers that turn out not to.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::{
    ErrorType, RetryType,
    connectors::http::Connector,
    http::RequestHeader,
    protocols::{Stream, http::client::HttpSession},
    upstreams::peer::HttpPeer,
};
use tokio::time::timeout;

use super::{Request, heads::Lost, up::Up};
use crate::{
    accept::BadRequest,
    edge::client::ClientError,
    forward::{
        http1::{self, Connection},
        http2,
        retry::Failure,
    },
};

/// See the head of this file.
pub(in crate::edge) enum Session {
    Http1(Connection<Stream>),
    Negotiated(Box<HttpSession>),
}

/// A write to a peer, which may take so long.
async fn within<T, E>(limit: Duration, write: impl Future<Output = Result<T, E>>) -> Result<T, Option<E>> {
    timeout(limit, write).await.map_err(|_| None)?.map_err(Some)
}

fn broken(_: Option<io::Error>) -> Failure {
    Failure::Reset
}

fn exchanging(error: &pingora::Error) -> Failure {
    match error.etype() {
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Failure::BadAnswer,
        // GOAWAY or REFUSED_STREAM: the peer says that it did not look at this request (RFC 9113 §8.7).
        ErrorType::H2Error if matches!(error.retry, RetryType::Decided(true)) => Failure::ResetUnsent,
        ErrorType::H2Downgrade => Failure::ResetUnsent,
        _ => Failure::Reset,
    }
}

fn negotiated(error: Option<Box<pingora::Error>>) -> Failure {
    error.map_or(Failure::Reset, |error| exchanging(&error))
}

impl Session {
    /// Sends the head and what is held of the body; `done` when that is all of it.
    ///
    /// A body over HTTP/2 has a writer of its own, which is given back: it has what is held, and gets the rest.
    pub(in crate::edge) async fn send(
        &mut self,
        request: &Request,
        held: Bytes,
        done: bool,
        limit: Duration,
    ) -> Result<Option<Up>, Lost> {
        match self {
            Self::Http1(connection) => {
                connection.request(&request.method, &request.target, &request.headers);
                let send = async {
                    connection.write(&held).await?;
                    if done { connection.finish().await } else { connection.flush().await }
                };
                within(limit, send).await.map_err(|error| Lost::Peer(broken(error)))?;
                Ok(None)
            }
            Self::Negotiated(session) => match &mut **session {
                HttpSession::H2(session) => {
                    let head = request.http2().ok_or(ClientError::Bad(BadRequest::BadTarget))?;
                    let bodiless = done && held.is_empty();
                    // It is only queued here: what fails was never sent.
                    let queued = session.write_request_header(Box::new(head), bodiless);
                    queued.map_err(|_| Lost::Peer(Failure::ResetUnsent))?;
                    if bodiless {
                        return Ok(None);
                    }
                    let mut up = session.take_request_body_writer().map(|stream| Up::new(stream, limit));
                    if let Some(up) = &mut up {
                        up.give(held);
                        if done {
                            up.end();
                        }
                    }
                    Ok(up)
                }
                session => {
                    let head = request.http1().ok_or(ClientError::Bad(BadRequest::BadTarget))?;
                    let send = async {
                        session.write_request_header(Box::new(head)).await?;
                        if !held.is_empty() {
                            session.write_request_body(held, false).await?;
                        }
                        if done { session.finish_request_body().await } else { Ok(()) }
                    };
                    within(limit, send).await.map_err(|error| Lost::Peer(negotiated(error)))?;
                    Ok(None)
                }
            },
        }
    }

    /// Sends a piece of the request's body, or of a tunnel.
    pub(in crate::edge) async fn write(&mut self, piece: Bytes, limit: Duration) -> Result<(), Failure> {
        match self {
            Self::Http1(connection) => {
                let send = async {
                    connection.write(&piece).await?;
                    connection.flush().await
                };
                within(limit, send).await.map_err(broken)
            }
            Self::Negotiated(session) => {
                within(limit, session.write_request_body(piece, false)).await.map_err(negotiated)
            }
        }
    }

    /// Ends the request's body.
    pub(in crate::edge) async fn finish(&mut self, limit: Duration) -> Result<(), Failure> {
        match self {
            Self::Http1(connection) => within(limit, connection.finish()).await.map_err(broken),
            Self::Negotiated(session) => {
                within(limit, session.finish_request_body()).await.map_err(negotiated)
            }
        }
    }

    /// The next head of the answer. May be dropped and begun again.
    pub(in crate::edge) async fn head(
        &mut self,
        connector: &Connector,
        peer: &HttpPeer,
    ) -> Result<http1::Head, Failure> {
        match self {
            Self::Http1(connection) => connection.head().await,
            Self::Negotiated(session) => {
                if let Err(error) = session.read_response_header().await {
                    if *error.etype() == ErrorType::H2Downgrade {
                        // The peer wants HTTP/1.1 (RFC 9113 §7): it gets that from now on.
                        connector.prefer_h1(peer);
                    }
                    return Err(exchanging(&error));
                }
                let head = session.response_header().ok_or(Failure::BadAnswer)?;
                Ok(http1::Head { status: head.status, version: head.version, headers: head.headers.clone() })
            }
        }
    }

    /// Whether a byte of an answer came; only known of HTTP/1.1.
    pub(super) fn has_heard(&self) -> bool {
        matches!(self, Self::Http1(connection) if connection.has_heard())
    }

    /// Whether an answer is there already; only asked of HTTP/1.1, where what a peer leaves unread is its next request.
    pub(in crate::edge) fn has_begun(&mut self) -> bool {
        match self {
            Self::Http1(connection) => connection.has_begun(),
            Self::Negotiated(_) => false,
        }
    }

    /// Says how the answer's body ends, its final head having been checked.
    pub(in crate::edge) fn expect_body(
        &mut self,
        request: &Request,
        status: StatusCode,
        headers: &HeaderMap,
    ) {
        if let Self::Http1(connection) = self {
            connection.expect_body(&request.method, status, headers);
        }
    }

    /// From here on both directions carry another protocol.
    pub(super) fn open_tunnel(&mut self) {
        match self {
            Self::Http1(connection) => connection.open_tunnel(),
            Self::Negotiated(session) => {
                if let HttpSession::H1(session) = &mut **session {
                    session.maybe_upgrade_body_writer();
                }
            }
        }
    }

    /// Whether the answer was its head alone, as only HTTP/2 can tell.
    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Negotiated(session) => {
                matches!(&**session, HttpSession::H2(session) if session.response_finished())
            }
        }
    }

    /// Whether the answer is known to be read to its end, and nothing can follow.
    pub(super) fn is_read(&self) -> bool {
        matches!(self, Self::Http1(connection) if connection.is_read())
    }

    /// The next piece of the answer's body; `None` at its end. May be dropped and begun again.
    pub(in crate::edge) async fn body(&mut self) -> Result<Option<Bytes>, Failure> {
        match self {
            Self::Http1(connection) => connection.body().await,
            Self::Negotiated(session) => {
                session.read_response_body().await.map_err(|error| exchanging(&error))
            }
        }
    }

    /// What followed the body.
    pub(in crate::edge) async fn trailers(&mut self) -> Result<Option<HeaderMap>, Failure> {
        match self {
            Self::Negotiated(session) => match &mut **session {
                HttpSession::H2(session) => session.read_trailers().await.map_err(|error| exchanging(&error)),
                _ => Ok(None),
            },
            Self::Http1(connection) => Ok(connection.take_trailers()),
        }
    }
}

impl Request {
    /// For a peer that speaks HTTP/2; `None` where there is no such head.
    fn http2(&self) -> Option<RequestHeader> {
        let head = http2::request(&self.method, &self.target, &self.headers, self.scheme, self.trailers);
        head.ok().map(RequestHeader::from)
    }

    /// For Pingora's HTTP/1.1.
    fn http1(&self) -> Option<RequestHeader> {
        let (method, target) = (self.method.clone(), self.target.as_bytes());
        let mut head = RequestHeader::build(method, target, Some(self.headers.len())).ok()?;
        for (name, value) in &self.headers {
            head.append_header(name.clone(), value.clone()).ok()?;
        }
        Some(head)
    }
}
