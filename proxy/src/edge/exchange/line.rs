//! The connection of one attempt: where it comes from, and where it goes when the exchange is over.
//!
//! HTTP/1 connections are kept by the upstream ([`crate::forward::idle`]), HTTP/2 ones by Pingora's connector.

use std::time::Instant;

use pingora::{
    ErrorType,
    connectors::http::Connector,
    protocols::http::{client::HttpSession, v1::client::HttpSession as Http1Session},
    upstreams::peer::HttpPeer,
};

use crate::{
    forward::{
        idle::Past,
        peer::{Dial, Line},
        retry::Failure,
    },
    running::Upstream,
};

/// A connection to `peer`, and what it has been through; `None` if it has just been opened.
pub(super) async fn connect(
    shared: &Connector,
    upstream: &Upstream,
    peer: &HttpPeer,
) -> Result<(HttpSession, Option<Past>), Failure> {
    if let Some((line, past)) = upstream.idle.take(Dial::key(peer), Instant::now()) {
        return Ok((HttpSession::H1(Http1Session::new_with_options(line.0, peer)), Some(past)));
    }
    let connecting = upstream.dial.connector(shared).get_http_session(peer);
    let (session, reused) = connecting.await.map_err(|error| match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ => Failure::Connect,
    })?;
    let version = session.digest().and_then(|digest| digest.ssl_digest.as_ref()).map(|tls| &*tls.version);
    if !upstream.dial.accepts(version) {
        return Err(Failure::Connect);
    }
    Ok((session, reused.then(|| Past::none(Instant::now()))))
}

/// Keeps a connection for the next request, if its bounds and its peer allow that.
pub(super) async fn give_back(
    shared: &Connector,
    upstream: &Upstream,
    peer: &HttpPeer,
    session: HttpSession,
    past: Past,
) {
    match session {
        HttpSession::H1(mut session) => {
            session.respect_keepalive();
            if let Some(stream) = session.reuse().await {
                upstream.idle.put(Dial::key(peer), Line(stream), past, Instant::now());
            }
        }
        other => {
            let idle = Some(upstream.plan.keepalive.idle_timeout);
            upstream.dial.connector(shared).release_http_session(other, peer, idle).await;
        }
    }
}
