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
use pingora::{connectors::http::Connector, upstreams::peer::HttpPeer};
use rand::Rng;
use tokio::{
    sync::{
        Notify,
        mpsc::{Receiver, Sender, channel},
    },
    time::timeout,
};
use weir_config::plan::Forward;

use super::{
    Edge, Trip,
    client::Client,
    exchange::{Request, link, session::Session},
    forwarding::Framing,
};
use crate::{
    balance::{Asker, Picked, Tried},
    forward::{
        idle::Past,
        peer::Connectors,
        response::{Answer, Head},
        retry::Failure,
    },
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
    lag: Arc<Lag>,
}

/// The mirror's end of it.
struct Body {
    pieces: Receiver<Piece>,
    lag: Arc<Lag>,
}

/// How far a mirror is behind.
#[derive(Default)]
struct Lag {
    bytes: AtomicUsize,
    /// Told when it was too far: the mirror may be in the middle of a write that its peer does not read.
    too_far: Notify,
}

fn copier() -> (Copier, Body) {
    let (to, from) = channel(PIECES);
    let lag = Arc::<Lag>::default();
    (Copier { pieces: to, lag: Arc::clone(&lag) }, Body { pieces: from, lag })
}

impl Body {
    async fn next(&mut self) -> Option<Piece> {
        let piece = self.pieces.recv().await?;
        if let Piece::Body(bytes) = &piece {
            self.lag.bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
        Some(piece)
    }
}

impl Copier {
    /// Copies a piece; false when the mirror is too far behind.
    pub(super) fn body(&self, piece: &Bytes) -> bool {
        let before = self.lag.bytes.fetch_add(piece.len(), Ordering::Relaxed);
        let copied =
            before + piece.len() <= BEHIND && self.pieces.try_send(Piece::Body(piece.clone())).is_ok();
        if !copied {
            self.lag.too_far.notify_one();
        }
        copied
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
        let (connectors, trip) = (Arc::clone(&self.connectors), trip.clone());
        tokio::spawn(async move {
            let _place = place;
            let outcome = send(&connectors, &upstream, head, &trip, body).await;
            trip.running().count_mirror(route, outcome);
        });
    }
}

/// One attempt, at one peer; its answer is read and forgotten.
async fn send(
    connectors: &Connectors,
    upstream: &Arc<Upstream>,
    head: Request,
    trip: &Trip,
    mut body: Body,
) -> Mirrored {
    let facts = trip.passed.facts(&trip.request);
    let balance = &upstream.plan.balance;
    let asker = Asker::new(balance, trip.request.client, None, &facts, rand::rng().random());
    let Ok(mut picked) = upstream.pool().pick(&asker, &mut Tried::default(), Instant::now()) else {
        return Mirrored::Failed;
    };
    let peer = upstream.dial.peer(&picked.peer().endpoint().address, trip.request.ends);
    let Ok((mut session, past)) = link::connect(connectors, upstream, &peer).await else {
        picked.failed(Instant::now());
        return Mirrored::Failed;
    };
    let past = past.unwrap_or_else(|| Past::none(Instant::now()));
    let lag = Arc::clone(&body.lag);
    let has_body = trip.request.has_body;
    let body = has_body.then_some(&mut body);
    let outcome = tokio::select! {
        outcome = exchange(&mut session, connectors, upstream, &peer, &mut picked, &head, body) => outcome,
        () = lag.too_far.notified() => Mirrored::Dropped,
    };
    match outcome {
        Mirrored::Sent => {
            picked.succeeded(Instant::now());
            // Its answer is looked at only behind the body: what of that it did not read may be its next request.
            link::give_back(connectors, upstream, &peer, (session, past), !has_body).await;
        }
        Mirrored::Failed => {
            picked.failed(Instant::now());
            link::let_go(connectors, upstream, &peer, session).await;
        }
        Mirrored::Dropped => link::let_go(connectors, upstream, &peer, session).await,
    }
    outcome
}

/// The request out, the answer in.
async fn exchange(
    session: &mut Session,
    connectors: &Connectors,
    upstream: &Upstream,
    peer: &HttpPeer,
    picked: &mut Picked,
    head: &Request,
    mut body: Option<&mut Body>,
) -> Mirrored {
    let timeouts = &upstream.plan.timeouts;
    if body.is_some() {
        picked.uploads();
    }
    let Ok(mut up) = session.send(head, Bytes::new(), body.is_none(), timeouts.write).await else {
        return Mirrored::Failed;
    };
    while let Some(pieces) = &mut body {
        let (piece, is_end) = match pieces.next().await {
            Some(Piece::Body(piece)) => (piece, false),
            Some(Piece::End) => (Bytes::new(), true),
            // The client left, or we could not keep up: the peer must not take a part for the whole.
            None => return Mirrored::Dropped,
        };
        let sent = match &mut up {
            Some(up) => {
                if is_end {
                    up.end();
                } else {
                    up.give(piece);
                }
                matches!(timeout(timeouts.write, up.send()).await, Ok(Ok(())))
            }
            None if is_end => session.finish(timeouts.write).await.is_ok(),
            None => session.write(piece, timeouts.write).await.is_ok(),
        };
        if !sent {
            return Mirrored::Failed;
        }
        if is_end {
            body = None;
        }
    }
    picked.uploaded(Instant::now());
    let connector = &upstream.dial.connectors(connectors).negotiated;
    let forgotten =
        timeout(timeouts.first_byte + timeouts.read, forget(session, connector, peer, picked, head)).await;
    if matches!(forgotten, Ok(Ok(()))) { Mirrored::Sent } else { Mirrored::Failed }
}

/// Reads an answer to its end.
async fn forget(
    session: &mut Session,
    connector: &Connector,
    peer: &HttpPeer,
    picked: &mut Picked,
    request: &Request,
) -> Result<(), Failure> {
    let mut answer = Answer::default();
    loop {
        let mut head = session.head(connector, peer).await?;
        let checked = answer.check(head.status.as_u16(), head.version, &mut head.headers, None);
        match checked.map_err(|_| Failure::BadAnswer)? {
            Head::Interim => {}
            Head::Final | Head::Tunnel => {
                picked.heard(head.status.is_server_error(), Instant::now());
                session.expect_body(request, head.status, &head.headers);
                break;
            }
        }
    }
    while session.body().await?.is_some() {}
    Ok(())
}
