//! One attempt at a peer up to the head of its answer: connected, asked, heard, while the client's body goes out.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::upstreams::peer::HttpPeer;
use tokio::time::sleep_until;

use super::{
    Call, PeerHead,
    link::{self, Link},
    session::Session,
    up::Up,
};
use crate::{
    balance::Picked,
    edge::client::{Client, ClientError},
    forward::{
        http1,
        idle::Past,
        peer::Connectors,
        response::{self, Head},
        retry::Failure,
    },
};

/// Why an attempt brought no head.
pub(in crate::edge) enum Lost {
    Peer(Failure),
    Client(ClientError),
}

impl From<ClientError> for Lost {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Connects, sends the request, and waits for the head of its answer, while the client's body goes out.
pub(super) async fn exchange_heads(
    connectors: &Arc<Connectors>,
    call: &Call<'_>,
    peer: &HttpPeer,
    picked: &mut Picked,
    client: Option<&mut Client>,
    deadline: Option<Instant>,
) -> Result<((Session, Past), PeerHead, Sent), Lost> {
    if call.is_tunnel() {
        let session = link::tunnel(connectors, call.upstream, peer).await.map_err(Lost::Peer)?;
        let head = PeerHead { status: StatusCode::OK, headers: HeaderMap::new() };
        return Ok(((session, Past::none(Instant::now())), head, Sent::Partly));
    }
    let (session, past) = link::connect(connectors, call.upstream, peer).await.map_err(Lost::Peer)?;
    let mut link = Link::new(connectors, call.upstream, peer, session);
    let (head, sent) = heads_on(&mut link, past.is_some(), call, picked, client, deadline).await?;
    let past = past.unwrap_or_else(|| Past::none(Instant::now()));
    Ok(((link.keep(), past), head, sent))
}

/// The exchange of heads on a connection.
async fn heads_on(
    link: &mut Link<'_>,
    reused: bool,
    call: &Call<'_>,
    picked: &mut Picked,
    mut client: Option<&mut Client>,
    deadline: Option<Instant>,
) -> Result<(PeerHead, Sent), Lost> {
    let (connector, peer) = (&call.upstream.dial.connectors(link.connectors).negotiated, link.peer);
    let session = link.session();
    let timeouts = &call.upstream.plan.timeouts;
    let resendable = reused && call.head.method.is_idempotent();
    let broken = |failure: Failure, has_heard: bool| match failure {
        // The peer closed a kept connection as our request crossed it: nobody failed, and it may be sent again.
        Failure::Reset if resendable && !has_heard => Lost::Peer(Failure::ResetUnsent),
        // What it said may have been on its way before we asked: a fresh connection will tell.
        Failure::BadAnswer if resendable => Lost::Peer(Failure::ResetUnsent),
        failure => Lost::Peer(failure),
    };
    // An earlier attempt may have read part of the body, or all of it.
    let held = client.as_deref().and_then(Client::replay).unwrap_or_default();
    let mut request_done = client.as_deref().is_none_or(Client::body_done);
    let has_body = !held.is_empty();
    let begun = session.send(&call.head, held, request_done, timeouts.write).await;
    let mut up = begun.map_err(|lost| match lost {
        Lost::Peer(failure) => broken(failure, false),
        lost => lost,
    })?;
    let mut is_whole = request_done && up.is_none() && !(has_body && session.has_begun());
    let mut first_byte_by = None;
    let mut checks = response::Answer::default();
    loop {
        if request_done && up.is_none() && first_byte_by.is_none() {
            let now = Instant::now();
            first_byte_by = Some(now + timeouts.first_byte);
            picked.uploaded(now);
        }
        let by = [first_byte_by, deadline].into_iter().flatten().min();
        let (is_busy, late) = up.as_ref().map_or((false, None), |up| (up.is_busy(), up.late()));
        let event = tokio::select! {
            read = session.head(connector, peer) => Event::Head(read),
            event = sending(&mut up), if is_busy => event,
            () = at(late) => Event::Sent(false),
            event = from_client(client.as_deref_mut(), request_done), if !is_busy || request_done => event,
            () = at(by) => return Err(Lost::Peer(Failure::FirstByteTimeout)),
        };
        match event {
            Event::Head(Err(failure)) => return Err(broken(failure, session.has_heard())),
            Event::Head(Ok(raw)) => {
                let mut head = PeerHead { status: raw.status, headers: raw.headers };
                let checked =
                    checks.check(raw.status.as_u16(), raw.version, &mut head.headers, call.upgrade.as_ref());
                match checked.map_err(|_| Lost::Peer(Failure::BadAnswer))? {
                    Head::Interim => {
                        pass_interim(client.as_deref_mut(), head).await?;
                        continue;
                    }
                    Head::Final => session.expect_body(&call.head, head.status, &head.headers),
                    Head::Tunnel => session.open_tunnel(),
                }
                let sent = match up {
                    Some(up) => Sent::PartlyOver(up),
                    None if is_whole => Sent::Whole,
                    None if request_done => Sent::Broken,
                    None => Sent::Partly,
                };
                return Ok((head, sent));
            }
            Event::Chunk(Err(error)) => return Err(error.into()),
            Event::Left => return Err(ClientError::Left.into()),
            Event::Chunk(Ok(chunk)) => {
                let is_end = chunk.is_none() || client.as_deref().is_none_or(Client::body_done);
                (request_done, is_whole) = match &mut up {
                    Some(up) => {
                        chunk.into_iter().for_each(|chunk| up.give(chunk));
                        if is_end {
                            up.end();
                        }
                        (is_end, false)
                    }
                    None => hand_on(session, chunk, is_end, timeouts.write).await,
                };
            }
            Event::Sent(went) => {
                is_whole = went && up.as_ref().is_some_and(Up::is_over);
                if is_whole || !went {
                    (request_done, up) = (true, None);
                }
            }
        }
    }
}

/// Writes what came of the client's body: whether nothing more is to be written, and whether the peer has got all of it.
async fn hand_on(session: &mut Session, chunk: Option<Bytes>, is_end: bool, limit: Duration) -> (bool, bool) {
    let sent = match chunk {
        Some(chunk) => session.write(chunk, limit).await,
        None => Ok(()),
    };
    // A peer that stops reading may still answer (413, say): what it says is worth more than our error.
    if sent.is_err() {
        return (true, false);
    }
    (is_end, is_end && session.finish(limit).await.is_ok() && !session.has_begun())
}

/// How far a request is when its answer begins.
pub(super) enum Sent {
    /// All of it has gone.
    Whole,
    /// More is to come.
    Partly,
    /// More is to come, over HTTP/2.
    PartlyOver(Up),
    /// A part was lost, or the peer may not have read it: nothing may follow it.
    Broken,
}

async fn sending(up: &mut Option<Up>) -> Event {
    match up {
        Some(up) => Event::Sent(up.send().await.is_ok()),
        None => std::future::pending().await,
    }
}

pub(super) enum Event {
    Head(Result<http1::Head, Failure>),
    Chunk(Result<Option<Bytes>, ClientError>),
    Left,
    /// Of HTTP/2: what was given has gone, or cannot go.
    Sent(bool),
}

/// What the client does next: goes on with its body, or leaves; never resolves where there is no client to watch.
pub(super) async fn from_client(client: Option<&mut Client>, request_done: bool) -> Event {
    match client {
        Some(client) if !request_done => Event::Chunk(client.chunk().await),
        Some(client) if client.body_done() => {
            client.left().await;
            Event::Left
        }
        _ => std::future::pending().await,
    }
}

/// `100 Continue` is ours to say (the client got it when its body was asked for); other interim answers pass.
async fn pass_interim(client: Option<&mut Client>, head: PeerHead) -> Result<(), ClientError> {
    match client {
        Some(client) if head.status != StatusCode::CONTINUE => {
            client.interim(head.status, &head.headers).await
        }
        _ => Ok(()),
    }
}

pub(super) async fn at(by: Option<Instant>) {
    match by {
        Some(by) => sleep_until(by.into()).await,
        None => std::future::pending().await,
    }
}
