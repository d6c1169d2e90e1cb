//! An answer from its head to its end: a connection with the rest of it on it. It belongs to the request that asked,
//! or to a task that fills the cache, which is why it holds nothing of the client.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderMap;
use pingora::upstreams::peer::HttpPeer;
use tokio::time::sleep_until;

use super::{PeerHead, Sent, ahead, link, session::Session};
use crate::{
    balance::{Peer, Picked},
    edge::client::{Client, ClientError},
    forward::{hop_by_hop, idle::Past, peer::Connectors, retry::Failure},
    running::Upstream,
};

/// A connection on which the final head of an answer has been read. It goes by its box: half the steps of a request hold it,
/// and each would have room for all of it.
pub(in crate::edge) struct Open {
    pub(super) session: Session,
    /// What its connection has been through before.
    pub(super) past: Past,
    pub(super) upstream: Arc<Upstream>,
    pub(super) peer: HttpPeer,
    pub(super) picked: Picked,
    pub(in crate::edge) head: PeerHead,
    /// How far the request is; unless it is whole the connection cannot be used again.
    pub(super) sent: Sent,
    pub(super) upgraded: bool,
    pub(super) read: Duration,
    pub(super) write: Duration,
    pub(super) deadline: Option<Instant>,
    /// Read already, and not yet given to anybody.
    pub(super) seen: VecDeque<Bytes>,
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
    /// Who answers.
    pub(in crate::edge) fn answerer(&self) -> &Peer {
        self.picked.peer()
    }

    /// Whether the connection now carries another protocol.
    pub(in crate::edge) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// Whether the answer was its head alone, as only HTTP/2 can tell.
    pub(in crate::edge) fn is_over(&self) -> bool {
        self.session.is_over()
    }

    /// Reads so many bytes of the body, or all of a shorter one; they are the next chunks all the same.
    pub(in crate::edge) async fn look_ahead(&mut self, bytes: usize) -> Result<(), Failure> {
        let mut read = 0;
        while read < bytes {
            let Some(chunk) = self.read().await? else { break };
            read += chunk.len();
            self.seen.push_back(chunk);
        }
        Ok(())
    }

    /// What was read ahead.
    pub(in crate::edge) fn seen(&self) -> impl Iterator<Item = &Bytes> {
        self.seen.iter()
    }

    /// Whether nothing follows on the connection, and nothing was read ahead.
    pub(super) fn is_read(&self) -> bool {
        self.seen.is_empty() && self.session.is_read()
    }

    /// The next chunk of the answer; `None` at its end.
    pub(in crate::edge) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.seen.pop_front() {
            Some(chunk) => Ok(Some(chunk)),
            None => self.read().await,
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        let now = Instant::now();
        let deadline = self.deadline.filter(|_| !self.upgraded);
        if deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Failure::ReadTimeout);
        }
        let silent = now + self.read;
        let by = deadline.map_or(silent, |deadline| deadline.min(silent));
        tokio::select! {
            // What is there needs no clock.
            biased;
            chunk = self.session.body() => chunk,
            () = sleep_until(by.into()) => Err(Failure::ReadTimeout),
        }
    }

    /// Passes the rest of the answer on, up to `ahead` bytes of it before the client takes them; the rest of the request
    /// goes the other way until it has ended. Tells the pool how it went.
    pub(in crate::edge) async fn relay(
        mut self: Box<Self>,
        connectors: &Connectors,
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
            Ok(Way::Answer) => ahead::pass(self, connectors, client, ahead).await,
            Ok(Way::Over) => {
                self.done(connectors).await;
                Ok(())
            }
            Err(Cut::Peer(failure)) => {
                self.broke(connectors).await;
                Err(Cut::Peer(failure))
            }
            Err(cut) => {
                self.abandon(connectors).await;
                Err(cut)
            }
        }
    }

    /// While the request is not at its end, or the connection is a tunnel: each side waits for the other.
    async fn both_ways(&mut self, client: &mut Client) -> Result<Way, Cut> {
        if self.upgraded {
            client.open_tunnel();
        }
        // The client may wait for the head before it says more.
        client.flush().await.map_err(Cut::Client)?;
        loop {
            let silent = Instant::now() + self.read;
            let by = self.deadline.filter(|_| !self.upgraded).map_or(silent, |deadline| deadline.min(silent));
            tokio::select! {
                chunk = self.session.body() => match chunk.map_err(Cut::Peer)? {
                    Some(chunk) => client.body_at_once(chunk).await.map_err(Cut::Client)?,
                    None => {
                        if let Some(trailers) = self.trailers().await.map_err(Cut::Peer)? {
                            client.trailers(trailers).await.map_err(Cut::Client)?;
                        }
                        return Ok(Way::Over);
                    }
                },
                chunk = client.chunk() => match chunk {
                    Ok(Some(chunk)) => {
                        if self.session.write(chunk, self.write).await.is_err() {
                            return Ok(Way::Answer);
                        }
                    }
                    // Of a tunnel, either side may end it.
                    Ok(None) if self.upgraded => return Ok(Way::Over),
                    Ok(None) => {
                        // Whoever answers before it was asked to the end may take the rest for its next request, and answer
                        // that, too: the connection is never used again, however well it ends.
                        let _ = self.session.finish(self.write).await;
                        return Ok(Way::Answer);
                    }
                    Err(error) => return Err(Cut::Client(error)),
                },
                () = sleep_until(by.into()) => return Err(Cut::Peer(Failure::ReadTimeout)),
            }
        }
    }

    /// What followed the body.
    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>, Failure> {
        let trailers = tokio::time::timeout(self.read, self.session.trailers()).await;
        let trailers = trailers.map_err(|_| Failure::ReadTimeout)??;
        Ok(trailers.map(|mut trailers| {
            hop_by_hop::clean_trailers(&mut trailers);
            trailers
        }))
    }

    /// The answer was read to its end: tells the pool so, and keeps the connection for the next request.
    pub(in crate::edge) async fn done(self: Box<Self>, connectors: &Connectors) {
        self.picked.succeeded(Instant::now());
        let clean = matches!(self.sent, Sent::Whole) && !self.upgraded;
        link::give_back(connectors, &self.upstream, &self.peer, (self.session, self.past), clean).await;
    }

    /// The answer broke off, which counts against the peer.
    pub(in crate::edge) async fn broke(self: Box<Self>, connectors: &Connectors) {
        self.picked.failed(Instant::now());
        link::let_go(connectors, &self.upstream, &self.peer, self.session).await;
    }

    /// Nobody wants the rest of the answer.
    pub(in crate::edge) async fn abandon(self: Box<Self>, connectors: &Connectors) {
        link::let_go(connectors, &self.upstream, &self.peer, self.session).await;
    }
}
