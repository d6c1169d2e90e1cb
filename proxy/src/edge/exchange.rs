//! One exchange with an upstream: attempts at peers until one answers, then its answer, chunk by chunk.
//!
//! [`open()`] picks a peer, connects, sends the request and waits for the head of the answer; it goes on to the next peer
//! as the plan's `retry` says, and never after the client could have seen a byte. [`Open`] is what stands then.
//!
//! Why not `HttpProxy`: see DESIGN.md, "Why does the general lane not use pingora-proxy?".

mod ahead;
mod duplex;
mod open;
pub(super) mod session;
mod up;

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use pingora::{connectors::http::Connector, upstreams::peer::HttpPeer};
use tokio::time::sleep_until;

pub(super) use self::open::{Cut, Open};
use self::{session::Session, up::Up};
use super::client::{Client, ClientError};
use crate::{
    balance::{Asker, NoPeer, Picked, Tried},
    forward::{
        http1,
        idle::Past,
        peer::Connectors,
        proxy_protocol::Ends,
        response::{self, Head},
        retry::{self, Failure, Verdict},
        upgrade::Upgrade,
    },
    journey::Attempt,
    running::Upstream,
};

/// Attempts for one request, stale connections included: a peer that restarted leaves many of those behind.
const ATTEMPTS: usize = 16;

/// The head of a request as the peer gets it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    /// For a peer that speaks HTTP/2.
    pub(super) scheme: &'static str,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
}

/// What is asked of an upstream.
pub(super) struct Call<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    /// What the choice of a peer depends on.
    pub(super) asker: Asker,
    /// What the peer hears of the client's connection, where it wants to.
    pub(super) ends: Ends,
    /// The request as the peer gets it, body framing included.
    pub(super) head: Request,
    /// The upgrade that is being passed on.
    pub(super) upgrade: Option<Upgrade>,
}

/// Why no answer came.
#[derive(Debug)]
pub(super) enum NoAnswer {
    /// No peer could be asked.
    NoPeer(NoPeer),
    /// The last peer asked failed like this.
    Failed(Failure),
    /// The client ended it.
    Client(ClientError),
}

/// The head of a peer's answer, checked.
#[derive(Debug)]
pub(super) struct PeerHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// Asks peers of the upstream until one answers, noting every attempt.
pub(super) async fn open(
    connectors: &Connectors,
    call: Call<'_>,
    mut client: Option<&mut Client>,
    attempts: &mut Vec<Attempt>,
) -> Result<Open, NoAnswer> {
    let plan = &call.upstream.plan;
    let started = Instant::now();
    let deadline = plan.timeouts.total.map(|total| started + total);
    let (pool, mut tried) = (call.upstream.pool(), Tried::default());
    let mut last: Option<Failure> = None;
    // An answer whose status sends us on, until there is somebody to go on to.
    let mut unwanted: Option<(Answered, HttpPeer, Picked)> = None;
    let mut counted = 0;
    for _ in 0..ATTEMPTS {
        let mut picked = match (pool.pick(&call.asker, &mut tried, Instant::now()), unwanted.take()) {
            (Ok(picked), unwanted) => {
                if let (Some((.., before)), Some(failure)) = (unwanted, last) {
                    blame(before, failure, &plan.retry, Instant::now());
                }
                picked
            }
            // The last answer is an answer, whatever its status (nginx passes it on, too).
            (Err(_), Some((answered, peer, before))) => {
                return Ok(answered.open(&call, peer, before, deadline));
            }
            // The reason of the last peer says more than "all tried".
            (Err(none), None) => return Err(last.map_or(NoAnswer::NoPeer(none), NoAnswer::Failed)),
        };
        counted += 1;
        let began = Instant::now();
        let mut note = Attempt {
            peer: Arc::clone(&picked.peer().endpoint().name),
            started: began,
            first_byte: None,
            status: None,
            outcome: "answered",
        };
        let (dial, address) = (&call.upstream.dial, &picked.peer().endpoint().address);
        let peer = match call.upgrade {
            Some(_) => dial.upgrading(address, call.ends),
            None => dial.peer(address, call.ends),
        };
        let heads = exchange_heads(connectors, &call, &peer, client.as_deref_mut(), deadline).await;
        let now = Instant::now();
        let (failure, answered) = match heads {
            Ok(((session, past), head, sent)) => {
                let status = head.status;
                (note.first_byte, note.status) = (Some(now - began), Some(status.as_u16()));
                picked.answered(now);
                let answered = Answered { session, past, head, sent };
                if !plan.retry.statuses.contains(&status.as_u16()) {
                    attempts.push(note);
                    return Ok(answered.open(&call, peer, picked, deadline));
                }
                (Failure::Status(status), Some(answered))
            }
            Err(Lost::Client(error)) => {
                note.outcome = "client_left";
                attempts.push(note);
                return Err(NoAnswer::Client(error));
            }
            Err(Lost::Peer(failure)) => (failure, None),
        };
        note.outcome = failure.word();
        attempts.push(note);
        let progress = retry::Progress {
            method: &call.head.method,
            attempts: counted,
            started,
            body: match &client {
                Some(client) if client.replay().is_none() => retry::Body::Gone,
                _ => retry::Body::Held,
            },
            client: retry::Client::Waiting,
        };
        match (retry::decide(failure, &progress, &plan.retry, now), answered) {
            (Verdict::Stop(_), Some(answered)) => return Ok(answered.open(&call, peer, picked, deadline)),
            (Verdict::Stop(_), None) => {
                blame(picked, failure, &plan.retry, now);
                return Err(NoAnswer::Failed(failure));
            }
            (Verdict::Next, Some(answered)) => unwanted = Some((answered, peer, picked)),
            (Verdict::Next, None) if failure == Failure::ResetUnsent => {
                picked.unused(&mut tried);
                counted -= 1;
            }
            (Verdict::Next, None) => blame(picked, failure, &plan.retry, now),
        }
        last = Some(failure);
    }
    match unwanted {
        Some((answered, peer, picked)) => Ok(answered.open(&call, peer, picked, deadline)),
        None => Err(NoAnswer::Failed(last.unwrap_or(Failure::Reset))),
    }
}

fn blame(picked: Picked, failure: Failure, retry: &weir_config::plan::Retry, now: Instant) {
    if failure.blames_peer(retry) {
        picked.failed(now);
    }
}

struct Answered {
    session: Session,
    past: Past,
    head: PeerHead,
    sent: Sent,
}

impl Answered {
    fn open(self, call: &Call<'_>, peer: HttpPeer, picked: Picked, deadline: Option<Instant>) -> Open {
        let plan = &call.upstream.plan;
        Open {
            upgraded: self.head.status == StatusCode::SWITCHING_PROTOCOLS,
            session: self.session,
            past: self.past,
            upstream: Arc::clone(call.upstream),
            peer,
            picked,
            head: self.head,
            sent: self.sent,
            read: plan.timeouts.read,
            write: plan.timeouts.write,
            deadline,
        }
    }
}

/// Why an attempt brought no head.
pub(super) enum Lost {
    Peer(Failure),
    Client(ClientError),
}

impl From<ClientError> for Lost {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// Connects, sends the request, and waits for the head of its answer, while the client's body goes out.
async fn exchange_heads(
    connectors: &Connectors,
    call: &Call<'_>,
    peer: &HttpPeer,
    client: Option<&mut Client>,
    deadline: Option<Instant>,
) -> Result<((Session, Past), PeerHead, Sent), Lost> {
    let (mut session, past) = session::connect(connectors, call.upstream, peer).await.map_err(Lost::Peer)?;
    let connector = &call.upstream.dial.connectors(connectors).negotiated;
    match heads_on(&mut session, past.is_some(), connector, call, peer, client, deadline).await {
        Ok((head, sent)) => {
            let past = past.unwrap_or_else(|| Past::none(Instant::now()));
            Ok(((session, past), head, sent))
        }
        Err(lost) => {
            session::let_go(connectors, call.upstream, peer, session).await;
            Err(lost)
        }
    }
}

/// The exchange of heads on a connection.
async fn heads_on(
    session: &mut Session,
    reused: bool,
    connector: &Connector,
    call: &Call<'_>,
    peer: &HttpPeer,
    mut client: Option<&mut Client>,
    deadline: Option<Instant>,
) -> Result<(PeerHead, Sent), Lost> {
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
    let begun = session.send(&call.head, held, request_done, timeouts.write).await;
    let mut up = begun.map_err(|lost| match lost {
        Lost::Peer(failure) => broken(failure, false),
        lost => lost,
    })?;
    let mut is_whole = request_done && up.is_none();
    let mut first_byte_by = is_whole.then(|| Instant::now() + timeouts.first_byte);
    let mut checks = response::Answer::default();
    loop {
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
            Event::Chunk(Ok(Some(chunk))) => match &mut up {
                Some(up) => up.give(chunk),
                // A peer that stops reading may still answer (413, say): what it says is worth more than our error.
                None => request_done = session.write(chunk, timeouts.write).await.is_err(),
            },
            Event::Chunk(Ok(None)) => {
                request_done = true;
                match &mut up {
                    Some(up) => up.end(),
                    None => is_whole = session.finish(timeouts.write).await.is_ok(),
                }
            }
            Event::Sent(went) => {
                is_whole = went && up.as_ref().is_some_and(Up::is_over);
                if is_whole || !went {
                    (request_done, up) = (true, None);
                }
            }
        }
        if request_done && up.is_none() && first_byte_by.is_none() {
            first_byte_by = Some(Instant::now() + timeouts.first_byte);
        }
    }
}

/// How far a request is when its answer begins.
enum Sent {
    /// All of it has gone.
    Whole,
    /// More is to come.
    Partly,
    /// More is to come, over HTTP/2.
    PartlyOver(Up),
    /// A part was lost: nothing may follow it.
    Broken,
}

async fn sending(up: &mut Option<Up>) -> Event {
    match up {
        Some(up) => Event::Sent(up.send().await.is_ok()),
        None => std::future::pending().await,
    }
}

enum Event {
    Head(Result<http1::Head, Failure>),
    Chunk(Result<Option<Bytes>, ClientError>),
    Left,
    /// Of HTTP/2: what was given has gone, or cannot go.
    Sent(bool),
}

/// What the client does next; never resolves where there is no client to watch.
async fn from_client(client: Option<&mut Client>, request_done: bool) -> Event {
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

async fn at(by: Option<Instant>) {
    match by {
        Some(by) => sleep_until(by.into()).await,
        None => std::future::pending().await,
    }
}
