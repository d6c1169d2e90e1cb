//! An answer from its head to its end: a connection with the rest of it on it. It belongs to the request that asked,
//! or to a task that fills the cache, which is why it holds nothing of the client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::{connectors::http::Connector, protocols::http::client::HttpSession, upstreams::peer::HttpPeer};
use tokio::time::sleep_until;

use super::{PeerHead, exchanging};
use crate::{
    balance::{Peer, Picked},
    edge::client::{Client, ClientError},
    forward::retry::Failure,
};

/// A connection on which the final head of an answer has been read.
pub(in crate::edge) struct Open {
    pub(super) session: HttpSession,
    pub(super) peer: HttpPeer,
    pub(super) picked: Picked,
    pub(in crate::edge) head: PeerHead,
    /// Whether the whole request went out; otherwise the connection cannot be used again.
    pub(super) request_done: bool,
    pub(super) upgraded: bool,
    pub(super) read: Duration,
    pub(super) keepalive: Duration,
    pub(super) deadline: Option<Instant>,
}

/// Why an answer ended before its end.
#[derive(Debug)]
pub(in crate::edge) enum Cut {
    /// The peer broke off, or was silent for too long.
    Peer(Failure),
    /// The client ended it.
    Client(ClientError),
}

impl Open {
    /// Who answers.
    pub(in crate::edge) fn answerer(&self) -> &Peer {
        self.picked.peer()
    }

    /// Whether the connection now carries another protocol.
    pub(in crate::edge) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// The next chunk of the answer; `None` at its end.
    pub(in crate::edge) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let silent = Instant::now() + self.read;
        let by = self.deadline.filter(|_| !self.upgraded).map_or(silent, |deadline| deadline.min(silent));
        tokio::select! {
            chunk = self.session.read_response_body() => chunk.map_err(|error| exchanging(&error)),
            () = sleep_until(by.into()) => Err(Failure::ReadTimeout),
        }
    }

    /// Passes the rest of the answer on, while the rest of the request goes the other way.
    pub(in crate::edge) async fn relay(&mut self, client: &mut Client) -> Result<(), Cut> {
        let mut request_done = !self.upgraded && (self.request_done || client.body_done());
        if self.upgraded {
            client.open_tunnel();
            if let HttpSession::H1(session) = &mut self.session {
                session.maybe_upgrade_body_writer();
            }
        }
        loop {
            let silent = Instant::now() + self.read;
            let by = self.deadline.filter(|_| !self.upgraded).map_or(silent, |deadline| deadline.min(silent));
            tokio::select! {
                chunk = self.session.read_response_body() => match chunk {
                    Ok(Some(chunk)) => client.body(chunk).await.map_err(Cut::Client)?,
                    Ok(None) => break,
                    Err(error) => return Err(Cut::Peer(exchanging(&error))),
                },
                chunk = client.chunk(), if !request_done => match chunk {
                    Ok(Some(chunk)) => {
                        if self.session.write_request_body(chunk, false).await.is_err() {
                            request_done = true;
                        }
                    }
                    // Of a tunnel, either side may end it.
                    Ok(None) if self.upgraded => break,
                    Ok(None) => {
                        self.request_done = self.session.finish_request_body().await.is_ok();
                        request_done = true;
                    }
                    Err(error) => return Err(Cut::Client(error)),
                },
                () = sleep_until(by.into()) => return Err(Cut::Peer(Failure::ReadTimeout)),
            }
        }
        Ok(())
    }

    /// The answer was read to its end: tells the pool so, and keeps the connection for the next request.
    pub(in crate::edge) async fn done(mut self, connector: &Connector) {
        self.picked.succeeded(Instant::now());
        if self.request_done && !self.upgraded && self.session.response_done() {
            connector.release_http_session(self.session, &self.peer, Some(self.keepalive)).await;
        }
    }

    /// The answer broke off, which counts against the peer.
    pub(in crate::edge) fn broke(self, now: Instant) {
        self.picked.failed(now);
    }

    /// Nobody wants the rest of the answer.
    pub(in crate::edge) async fn abandon(mut self) {
        self.session.shutdown().await;
    }
}
