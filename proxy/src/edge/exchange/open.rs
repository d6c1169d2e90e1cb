//! An answer from its head to its end: a connection with the rest of it on it. It belongs to the request that asked,
//! or to a task that fills the cache, which is why it holds nothing of the client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use pingora::{
    connectors::TransportConnector,
    protocols::Stream,
    upstreams::peer::{HttpPeer, Peer},
};
use tokio::time::sleep_until;

use super::{PeerHead, within};
use crate::{
    balance::Picked,
    edge::client::{Client, ClientError},
    forward::{http1::Connection, retry::Failure},
};

/// A connection on which the final head of an answer has been read.
pub(in crate::edge) struct Open {
    pub(super) connection: Connection<Stream>,
    pub(super) peer: HttpPeer,
    pub(super) picked: Picked,
    pub(in crate::edge) head: PeerHead,
    /// Whether the whole request went out; otherwise the connection cannot be used again.
    pub(super) request_done: bool,
    pub(super) upgraded: bool,
    pub(super) read: Duration,
    pub(super) write: Duration,
    /// How long the connection may then be idle; `None` closes it.
    pub(super) keepalive: Option<Duration>,
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
    /// Whether the connection now carries another protocol.
    pub(in crate::edge) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// The next chunk of the answer; `None` at its end.
    pub(in crate::edge) async fn chunk(&mut self) -> Result<Option<Bytes>, Failure> {
        let silent = Instant::now() + self.read;
        let by = self.deadline.filter(|_| !self.upgraded).map_or(silent, |deadline| deadline.min(silent));
        tokio::select! {
            chunk = self.connection.body() => chunk,
            () = sleep_until(by.into()) => Err(Failure::ReadTimeout),
        }
    }

    /// Passes the rest of the answer on, while the rest of the request goes the other way.
    pub(in crate::edge) async fn relay(&mut self, client: &mut Client) -> Result<(), Cut> {
        let mut request_done = !self.upgraded && (self.request_done || client.body_done());
        if self.upgraded {
            client.open_tunnel();
        }
        loop {
            let silent = Instant::now() + self.read;
            let by = self.deadline.filter(|_| !self.upgraded).map_or(silent, |deadline| deadline.min(silent));
            tokio::select! {
                chunk = self.connection.body() => match chunk.map_err(Cut::Peer)? {
                    Some(chunk) => client.body(chunk).await.map_err(Cut::Client)?,
                    None => break,
                },
                chunk = client.chunk(), if !request_done => match chunk {
                    Ok(Some(chunk)) => {
                        let sent = within(self.write, async {
                            self.connection.write(&chunk).await?;
                            self.connection.flush().await
                        });
                        if sent.await.is_err() {
                            request_done = true;
                        }
                    }
                    // Of a tunnel, either side may end it.
                    Ok(None) if self.upgraded => break,
                    Ok(None) => {
                        self.request_done = within(self.write, self.connection.finish()).await.is_ok();
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
    pub(in crate::edge) fn done(self, connector: &TransportConnector) {
        self.picked.succeeded();
        if self.request_done
            && !self.upgraded
            && self.keepalive.is_some()
            && let Some(stream) = self.connection.into_reusable()
        {
            connector.release_stream(stream, self.peer.reuse_hash(), self.keepalive);
        }
    }

    /// The answer broke off, which counts against the peer.
    pub(in crate::edge) fn broke(self, now: Instant) {
        self.picked.failed(now);
    }

    /// Nobody wants the rest of the answer.
    pub(in crate::edge) async fn abandon(self) {
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut self.connection.into_stream()).await;
    }
}
