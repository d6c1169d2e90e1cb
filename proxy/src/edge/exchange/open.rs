//! An answer from its head to its end: a connection with the rest of it on it. It belongs to the request that asked,
//! or to a task that fills the cache, which is why it holds nothing of the client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use pingora::{connectors::http::Connector, protocols::http::client::HttpSession, upstreams::peer::HttpPeer};
use tokio::time::sleep_until;

use super::{PeerHead, Sent, ahead, exchanging, let_go};
use crate::{
    balance::Picked,
    edge::client::{Client, ClientError},
    forward::{hop_by_hop, retry::Failure},
};

/// A connection on which the final head of an answer has been read.
pub(in crate::edge) struct Open {
    pub(super) session: HttpSession,
    pub(super) peer: HttpPeer,
    pub(super) picked: Picked,
    pub(in crate::edge) head: PeerHead,
    /// How far the request is; unless it is whole the connection cannot be used again.
    pub(super) sent: Sent,
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

/// What is left of an exchange.
pub(super) enum Way {
    /// Nothing.
    Over,
    /// The answer alone.
    Answer,
}

impl Open {
    /// Whether the connection now carries another protocol.
    pub(in crate::edge) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// Whether the answer was its head alone, as only HTTP/2 can tell.
    pub(in crate::edge) fn is_over(&self) -> bool {
        matches!(&self.session, HttpSession::H2(session) if session.response_finished())
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

    /// Passes the rest of the answer on, up to `ahead` bytes of it before the client takes them; the rest of the request
    /// goes the other way until it has ended. Tells the pool how it went.
    pub(in crate::edge) async fn relay(
        mut self,
        connector: &Connector,
        client: &mut Client,
        ahead: usize,
    ) -> Result<(), Cut> {
        let both = match std::mem::replace(&mut self.sent, Sent::Broken) {
            Sent::PartlyOver(up) => self.duplex(up, client).await,
            Sent::Partly => self.both_ways(client).await,
            sent => {
                self.sent = sent;
                if self.upgraded { self.both_ways(client).await } else { Ok(Way::Answer) }
            }
        };
        match both {
            Ok(Way::Answer) => ahead::pass(self, connector, client, ahead).await,
            Ok(Way::Over) => {
                self.done(connector).await;
                Ok(())
            }
            Err(Cut::Peer(failure)) => {
                self.broke(connector).await;
                Err(Cut::Peer(failure))
            }
            Err(cut) => {
                self.abandon(connector).await;
                Err(cut)
            }
        }
    }

    /// While the request is not at its end, or the connection is a tunnel: each side waits for the other.
    async fn both_ways(&mut self, client: &mut Client) -> Result<Way, Cut> {
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
                    Ok(None) => {
                        if let Some(trailers) = self.trailers().await.map_err(Cut::Peer)? {
                            client.trailers(trailers).await.map_err(Cut::Client)?;
                        }
                        return Ok(Way::Over);
                    }
                    Err(error) => return Err(Cut::Peer(exchanging(&error))),
                },
                chunk = client.chunk() => match chunk {
                    Ok(Some(chunk)) => {
                        if self.session.write_request_body(chunk, false).await.is_err() {
                            return Ok(Way::Answer);
                        }
                    }
                    // Of a tunnel, either side may end it.
                    Ok(None) if self.upgraded => return Ok(Way::Over),
                    Ok(None) => {
                        if self.session.finish_request_body().await.is_ok() {
                            self.sent = Sent::Whole;
                        }
                        return Ok(Way::Answer);
                    }
                    Err(error) => return Err(Cut::Client(error)),
                },
                () = sleep_until(by.into()) => return Err(Cut::Peer(Failure::ReadTimeout)),
            }
        }
    }

    /// What follows the body; only HTTP/2 peers' trailers are to be had.
    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>, Failure> {
        let HttpSession::H2(session) = &mut self.session else { return Ok(None) };
        let trailers = tokio::time::timeout(self.read, session.read_trailers()).await;
        let trailers = trailers.map_err(|_| Failure::ReadTimeout)?.map_err(|error| exchanging(&error))?;
        Ok(trailers.map(|mut trailers| {
            hop_by_hop::clean_trailers(&mut trailers);
            trailers
        }))
    }

    /// The answer was read to its end: tells the pool so, and keeps the connection for the next request.
    pub(in crate::edge) async fn done(mut self, connector: &Connector) {
        self.picked.succeeded();
        // An HTTP/2 connection goes back whatever became of this one stream on it.
        let is_clean = matches!(self.sent, Sent::Whole) && !self.upgraded && self.session.response_done();
        if is_clean || matches!(self.session, HttpSession::H2(_)) {
            connector.release_http_session(self.session, &self.peer, Some(self.keepalive)).await;
        }
    }

    /// The answer broke off, which counts against the peer.
    pub(in crate::edge) async fn broke(self, connector: &Connector) {
        self.picked.failed(Instant::now());
        let_go(self.session, connector, &self.peer, self.keepalive).await;
    }

    /// Nobody wants the rest of the answer.
    pub(in crate::edge) async fn abandon(self, connector: &Connector) {
        let_go(self.session, connector, &self.peer, self.keepalive).await;
    }
}
