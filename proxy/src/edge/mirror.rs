//! Mirrors: the same request once more, to an upstream whose answer nobody reads.
//!
//! Nothing waits for a mirror. The body is copied as it passes, into a queue of half a MiB; a mirror that falls behind by
//! more, or that would be one too many, is dropped and counted. Its attempt is noted nowhere else: the record of a request
//! is about who answered it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use pingora::{connectors::http::Connector, http::RequestHeader, protocols::http::client::HttpSession};
use rand::Rng;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::timeout,
};
use weir_config::plan::Forward;

use super::{
    Edge, Trip,
    client::Client,
    exchange::{Call, send_head},
    forwarding::Framing,
};
use crate::{
    balance::Tried,
    running::{Mirrored, Upstream},
};

/// How much of a body may wait for a mirror.
const BEHIND: usize = 512 << 10;

/// And in how many pieces: HTTP/2 brings them small.
const PIECES: usize = 256;

/// Of a body, on its way to a mirror. Without [`Piece::End`] it was not whole.
enum Piece {
    Body(Bytes),
    End,
}

/// Where a request's body is copied to.
pub(super) struct Copier {
    pieces: Sender<Piece>,
    behind: Arc<AtomicUsize>,
}

/// The mirror's end of it.
struct Body {
    pieces: Receiver<Piece>,
    behind: Arc<AtomicUsize>,
}

fn copier() -> (Copier, Body) {
    let (to, from) = channel(PIECES);
    let behind = Arc::<AtomicUsize>::default();
    (Copier { pieces: to, behind: Arc::clone(&behind) }, Body { pieces: from, behind })
}

impl Body {
    async fn next(&mut self) -> Option<Piece> {
        let piece = self.pieces.recv().await?;
        if let Piece::Body(bytes) = &piece {
            self.behind.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        Some(piece)
    }
}

impl Copier {
    /// Copies a piece; false when the mirror is too far behind.
    pub(super) fn body(&self, piece: &Bytes) -> bool {
        let before = self.behind.fetch_add(piece.len(), Ordering::Relaxed);
        before + piece.len() <= BEHIND && self.pieces.try_send(Piece::Body(piece.clone())).is_ok()
    }

    /// The body was whole.
    pub(super) fn end(self) {
        let _ = self.pieces.try_send(Piece::End);
    }
}

impl Edge {
    /// Begins the route's mirror, if it has one and this request is of its share.
    pub(super) fn mirror(&self, trip: &Trip, forward: &Forward, client: &mut Client) {
        let Some(mirror) = &forward.mirror else { return };
        if trip.request.upgrade.is_some() || rand::rng().random_range(0..100) >= mirror.percent {
            return;
        }
        let (route, running) = (trip.passed.route_id(), trip.running());
        let Some(place) = running.mirror_place(route) else {
            return running.count_mirror(route, Mirrored::Dropped);
        };
        let fields = trip.request.headers.clone();
        let Ok(head) = self.request_head(trip, forward, &trip.request.method, fields, Framing::AsTheClient)
        else {
            // Whoever answers the request refuses it for the same reason.
            return;
        };
        let (copier, body) = copier();
        if client.body_done() {
            copier.end();
        } else {
            client.copy_to(copier);
        }
        let upstream = Arc::clone(&running.upstreams[mirror.upstream.index()]);
        let (connector, trip) = (Arc::clone(&self.connector), trip.clone());
        tokio::spawn(async move {
            let _place = place;
            let outcome = send(&connector, &upstream, head, &trip, body).await;
            trip.running().count_mirror(route, outcome);
        });
    }
}

/// One attempt, at one peer; its answer is read and forgotten.
async fn send(
    connector: &Connector,
    upstream: &Arc<Upstream>,
    head: RequestHeader,
    trip: &Trip,
    mut body: Body,
) -> Mirrored {
    let call = Call { upstream, client: trip.request.client, head, upgrade: None, trailers: false };
    let Ok(picked) = upstream.pool.pick(call.client, &mut Tried::default(), Instant::now()) else {
        return Mirrored::Failed;
    };
    let peer = upstream.dial.peer(picked.peer().endpoint().address);
    let Ok((mut session, _)) = connector.get_http_session(&peer).await else {
        picked.failed(Instant::now());
        return Mirrored::Failed;
    };
    session.set_read_timeout(None);
    session.set_write_timeout(Some(upstream.plan.timeouts.write));
    let is_bodiless = !trip.request.has_body;
    if send_head(&mut session, &call, is_bodiless).await.is_err() {
        return Mirrored::Failed;
    }
    loop {
        match body.next().await {
            Some(Piece::Body(piece)) => {
                if session.write_request_body(piece, false).await.is_err() {
                    return Mirrored::Failed;
                }
            }
            Some(Piece::End) => break,
            // The client left, or we could not keep up: the peer must not take a part for the whole.
            None => {
                session.shutdown().await;
                return Mirrored::Dropped;
            }
        }
    }
    if session.finish_request_body().await.is_err() {
        return Mirrored::Failed;
    }
    let timeouts = &upstream.plan.timeouts;
    match timeout(timeouts.first_byte + timeouts.read, forget(&mut session)).await {
        Ok(Ok(())) => {
            picked.succeeded();
            connector.release_http_session(session, &peer, Some(upstream.plan.keepalive_timeout)).await;
            Mirrored::Sent
        }
        _ => {
            picked.failed(Instant::now());
            Mirrored::Failed
        }
    }
}

/// Reads an answer to its end.
async fn forget(session: &mut HttpSession) -> pingora::Result<()> {
    loop {
        session.read_response_header().await?;
        if session.response_header().is_none_or(|head| !head.status.is_informational()) {
            break;
        }
    }
    while session.read_response_body().await?.is_some() {}
    Ok(())
}
