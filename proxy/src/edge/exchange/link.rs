//! Connections to peers: how an exchange comes by one, and what becomes of it afterwards.
//!
//! Those that speak HTTP/1.1 are kept by the upstream ([`crate::forward::idle`]); those in HTTP/2 by Pingora's connector,
//! which knows their streams.

use std::{sync::Arc, time::Instant};

use pingora::{
    ErrorType,
    protocols::{ALPN, Stream, http::client::HttpSession},
    upstreams::peer::HttpPeer,
};

use super::session::Session;
use crate::{
    forward::{
        http1::Connection,
        idle::Past,
        peer::{Connectors, Dial, Line},
        retry::Failure,
    },
    http_client::is_our_want,
    running::Upstream,
};

/// A connection to `peer`, and what it has been through; `None` if it has just been opened.
pub(in crate::edge) async fn connect(
    shared: &Connectors,
    upstream: &Upstream,
    peer: &HttpPeer,
) -> Result<(Session, Option<Past>), Failure> {
    match upstream.idle.take(Dial::key(peer), Instant::now()) {
        Some((line, past)) => Ok((Session::Http1(Connection::new(line.0)), Some(past))),
        // In a box: a request that needs none would carry the room for it, and copy it.
        None => Box::pin(open(shared, upstream, peer)).await,
    }
}

/// A connection that has carried nothing yet, and will carry what the client says.
pub(super) async fn tunnel(
    shared: &Connectors,
    upstream: &Upstream,
    peer: &HttpPeer,
) -> Result<Session, Failure> {
    let (mut session, _) = Box::pin(open(shared, upstream, peer)).await?;
    session.open_tunnel();
    Ok(session)
}

async fn open(
    shared: &Connectors,
    upstream: &Upstream,
    peer: &HttpPeer,
) -> Result<(Session, Option<Past>), Failure> {
    let failed = |error: Box<pingora::Error>| match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ if error.root_cause().downcast_ref().is_some_and(is_our_want) => Failure::NoSocket,
        _ => Failure::Connect,
    };
    let connectors = upstream.dial.connectors(shared);
    if matches!(peer.options.alpn, ALPN::H1) {
        let stream = connectors.http1.new_stream(peer).await.map_err(failed)?;
        let tls = stream.get_ssl_digest();
        if !upstream.dial.accepts(tls.as_ref().map(|tls| &*tls.version)) {
            return Err(Failure::Connect);
        }
        return Ok((Session::Http1(Connection::new(stream)), None));
    }
    let (mut session, reused) = connectors.negotiated.get_http_session(peer).await.map_err(failed)?;
    let tls = session.digest().and_then(|digest| digest.ssl_digest.as_ref());
    if !upstream.dial.accepts(tls.map(|tls| &*tls.version)) {
        return Err(Failure::Connect);
    }
    // Our own deadlines bound every wait; a second clock inside would only blur which of them struck.
    session.set_read_timeout(None);
    session.set_write_timeout(None);
    Ok((Session::Negotiated(Box::new(session)), reused.then(|| Past::none(Instant::now()))))
}

/// Keeps a connection for the next request, if its bounds and its peer allow that; `clean` says that this exchange is
/// over, on both sides.
pub(in crate::edge) async fn give_back(
    shared: &Connectors,
    upstream: &Upstream,
    peer: &HttpPeer,
    (session, past): (Session, Past),
    clean: bool,
) {
    let stream = match session {
        Session::Http1(connection) => connection.into_reusable(),
        Session::Negotiated(session) => Box::pin(release(shared, upstream, peer, *session)).await,
    };
    if let Some(stream) = stream.filter(|_| clean) {
        upstream.idle.put(Dial::key(peer), Line(stream), past, Instant::now());
    }
}

/// The stream of a connection that turned out to speak HTTP/1.1, if it may be used again; one in HTTP/2 goes back to the
/// connector that knows its streams, whatever became of this one.
async fn release(
    shared: &Connectors,
    upstream: &Upstream,
    peer: &HttpPeer,
    session: HttpSession,
) -> Option<Stream> {
    match session {
        HttpSession::H1(mut session) => {
            session.respect_keepalive();
            if session.is_body_done() { session.reuse().await } else { None }
        }
        session => {
            let idle = Some(upstream.plan.keepalive.idle_timeout);
            upstream.dial.connectors(shared).negotiated.release_http_session(session, peer, idle).await;
            None
        }
    }
}

/// Ends an exchange in the middle. An HTTP/1.1 connection ends with it; one in HTTP/2 goes back, or nobody would ever
/// close it.
pub(in crate::edge) async fn let_go(
    shared: &Connectors,
    upstream: &Upstream,
    peer: &HttpPeer,
    session: Session,
) {
    if let Session::Negotiated(mut session) = session
        && matches!(*session, HttpSession::H2(_))
    {
        Box::pin(async move {
            session.shutdown().await;
            release(shared, upstream, peer, *session).await;
        })
        .await;
    }
}

/// A connection on which an exchange is under way: unless it is kept it is let go, also when whoever waits for the answer
/// goes elsewhere in the middle.
pub(super) struct Link<'a> {
    pub(super) connectors: &'a Arc<Connectors>,
    upstream: &'a Arc<Upstream>,
    pub(super) peer: &'a HttpPeer,
    /// `None` once it is kept.
    session: Option<Session>,
}

impl<'a> Link<'a> {
    pub(super) fn new(
        connectors: &'a Arc<Connectors>,
        upstream: &'a Arc<Upstream>,
        peer: &'a HttpPeer,
        session: Session,
    ) -> Self {
        Self { connectors, upstream, peer, session: Some(session) }
    }

    pub(super) fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("only `keep` takes it, and that is the end")
    }

    pub(super) fn keep(mut self) -> Session {
        self.session.take().expect("only `keep` takes it, and that is the end")
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        // HTTP/1.1 ends by being dropped.
        if let Some(session @ Session::Negotiated(_)) = self.session.take() {
            let (connectors, upstream) = (Arc::clone(self.connectors), Arc::clone(self.upstream));
            let peer = self.peer.clone();
            tokio::spawn(async move { let_go(&connectors, &upstream, &peer, session).await });
        }
    }
}
