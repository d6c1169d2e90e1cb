//! One exchange with an upstream: attempts at peers until one answers, then its answer, chunk by chunk.
//!
//! [`open`] picks a peer, connects, sends the request and waits for the head of the answer; it goes on to the next peer
//! as the plan's `retry` says, and never after the client could have seen a byte. [`Open`] is what stands then: a
//! connection with the rest of the answer on it. It belongs to the request that asked, or to a task that fills the
//! cache, which is why it holds nothing of the client.
//!
//! Why not `HttpProxy`: see DESIGN.md, "Why does the general lane not use pingora-proxy?".

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use pingora::{
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use tokio::time::sleep_until;
use weir_config::plan::Upstream;

use super::client::{Client, ClientError};
use crate::{
    balance::{NoPeer, Picked, Pool, Tried},
    forward::{
        failure::{self, Failure},
        peer,
        response::{self, BadAnswer},
        retry::{self, Verdict},
    },
    journey::Attempt,
};

/// Interim answers passed on for one request; a peer that sends more is broken or hostile.
const INTERIM_ANSWERS: u32 = 16;

/// What is asked of an upstream.
pub(super) struct Call<'a> {
    pub(super) pool: &'a Arc<Pool>,
    pub(super) upstream: &'a Upstream,
    pub(super) client: IpAddr,
    /// The request as the peer gets it, body framing included.
    pub(super) head: RequestHeader,
    /// Whether a valid WebSocket handshake is being passed on.
    pub(super) upgrade: bool,
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

/// A connection on which the final head of an answer has been read.
pub(super) struct Open {
    session: HttpSession,
    peer: HttpPeer,
    picked: Picked,
    /// The head as the peer sent it, checked.
    pub(super) head: ResponseHeader,
    /// Whether the whole request went out; otherwise the connection cannot be used again.
    request_done: bool,
    upgraded: bool,
    keepalive: Duration,
    deadline: Option<Instant>,
}

/// Asks peers of the upstream until one answers, noting every attempt.
pub(super) async fn open(
    connector: &Connector,
    call: Call<'_>,
    mut client: Option<&mut Client>,
    attempts: &mut Vec<Attempt>,
) -> Result<Open, NoAnswer> {
    let started = Instant::now();
    let deadline = call.upstream.timeouts.total.map(|total| started + total);
    let mut tried = Tried::default();
    let mut last: Option<Failure> = None;
    loop {
        let picked = match call.pool.pick(call.client, &mut tried, Instant::now()) {
            Ok(picked) => picked,
            // The reason of the last peer says more than "all tried".
            Err(none) => return Err(last.map_or(NoAnswer::NoPeer(none), NoAnswer::Failed)),
        };
        let number = attempts.len() + 1;
        let began = Instant::now();
        let mut note = Attempt {
            peer: Arc::clone(&picked.peer().endpoint().name),
            started: began,
            first_byte: None,
            status: None,
            outcome: "answered",
        };
        let mut progress = Progress::default();
        let result = attempt(connector, &call, picked, client.as_deref_mut(), deadline, &mut progress).await;
        let now = Instant::now();
        let (failure, answered) = match result {
            Ok(open) => {
                note.first_byte = Some(now - began);
                note.status = Some(open.head.status.as_u16());
                let status = open.head.status.as_u16();
                if !call.upstream.retry.statuses.contains(&status) {
                    attempts.push(note);
                    return Ok(open);
                }
                (Failure::Status(status), Some(open))
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
        let facts = retry::Facts {
            idempotent: call.head.method.is_idempotent(),
            sent: progress.sent,
            reused: progress.reused,
            replayable: client.as_deref().is_none_or(|client| client.replay().is_some()),
            answer_begun: progress.interim > 0,
            attempt: u32::try_from(number).unwrap_or(u32::MAX),
            started,
            now,
        };
        if progress.reused && failure.is_stale_connection() && retry::may_resend(&facts) {
            // The peer closed a kept connection as our request crossed it: nobody failed, the same peer may be asked.
            tried = Tried::default();
            last = Some(failure);
            continue;
        }
        match (retry::decide(&call.upstream.retry, &facts, failure), answered) {
            (Verdict::Next, answered) => {
                if let Some(open) = answered {
                    open.reject(now).await;
                }
                last = Some(failure);
            }
            // The last answer is an answer, whatever its status (nginx passes it on, too).
            (Verdict::Stop(_), Some(open)) => return Ok(open),
            (Verdict::Stop(_), None) => return Err(NoAnswer::Failed(failure)),
        }
    }
}

/// How far an attempt got, for the decision about the next.
#[derive(Default)]
struct Progress {
    sent: bool,
    reused: bool,
    interim: u32,
}

enum Lost {
    Peer(Failure),
    Client(ClientError),
}

impl From<ClientError> for Lost {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

async fn attempt(
    connector: &Connector,
    call: &Call<'_>,
    picked: Picked,
    client: Option<&mut Client>,
    deadline: Option<Instant>,
    progress: &mut Progress,
) -> Result<Open, Lost> {
    let peer = peer::http_peer(&picked, call.upstream);
    match exchange_heads(connector, call, &peer, client, deadline, progress).await {
        Ok((session, head, request_done)) => Ok(Open {
            upgraded: head.status == http::StatusCode::SWITCHING_PROTOCOLS,
            session,
            peer,
            picked,
            head,
            request_done,
            keepalive: call.upstream.keepalive_timeout,
            deadline,
        }),
        Err(Lost::Peer(failure)) => {
            let innocent = progress.reused && failure.is_stale_connection();
            if failure.counts_against_peer() && !innocent {
                picked.failed(Instant::now());
            }
            Err(Lost::Peer(failure))
        }
        Err(lost) => Err(lost),
    }
}

async fn exchange_heads(
    connector: &Connector,
    call: &Call<'_>,
    peer: &HttpPeer,
    mut client: Option<&mut Client>,
    deadline: Option<Instant>,
    progress: &mut Progress,
) -> Result<(HttpSession, ResponseHeader, bool), Lost> {
    let timeouts = &call.upstream.timeouts;
    let (mut session, reused) =
        connector.get_http_session(peer).await.map_err(|error| Lost::Peer(failure::connecting(&error)))?;
    progress.reused = reused;
    // Our own deadlines bound every wait below; a second clock inside would only blur which of them struck.
    session.set_read_timeout(None);
    session.set_write_timeout(Some(timeouts.write));

    progress.sent = true;
    let broken = |error: Box<pingora::Error>| Lost::Peer(failure::exchanging(&error));
    session.write_request_header(Box::new(call.head.clone())).await.map_err(broken)?;
    let mut request_done = match client.as_deref_mut() {
        None => true,
        Some(client) => {
            // An earlier attempt may have read part of the body, or all of it.
            if let Some(kept) = client.replay().filter(|kept| !kept.is_empty()) {
                session.write_request_body(kept, false).await.map_err(broken)?;
            }
            client.body_done()
        }
    };
    if request_done {
        session.finish_request_body().await.map_err(broken)?;
    }
    let mut first_byte_by = request_done.then(|| Instant::now() + timeouts.first_byte);
    let mut whole_request_sent = request_done;
    loop {
        let by = [first_byte_by, deadline].into_iter().flatten().min();
        let event = tokio::select! {
            read = session.read_response_header() => Event::Head(read),
            event = from_client(client.as_deref_mut(), request_done) => event,
            () = at(by) => return Err(Lost::Peer(Failure::FirstByteTimeout)),
        };
        match event {
            Event::Head(Err(error)) => return Err(broken(error)),
            Event::Head(Ok(())) => {
                let head = session.response_header().ok_or(Lost::Peer(Failure::BadAnswer(BadAnswer::NoHead)))?;
                response::check(head.status, &head.headers, head.version, call.upgrade)
                    .map_err(|bad| Lost::Peer(Failure::BadAnswer(bad)))?;
                if !head.status.is_informational() || head.status == http::StatusCode::SWITCHING_PROTOCOLS {
                    let head = head.clone();
                    return Ok((session, head, whole_request_sent));
                }
                let interim = head.clone();
                progress.interim += 1;
                if progress.interim > INTERIM_ANSWERS {
                    return Err(Lost::Peer(Failure::BadAnswer(BadAnswer::TooManyInterim)));
                }
                pass_interim(client.as_deref_mut(), interim).await?;
            }
            Event::Chunk(Err(error)) => return Err(error.into()),
            Event::Chunk(Ok(Some(chunk))) => {
                // A peer that stops reading may still answer (413, say): what it says is worth more than our error.
                if session.write_request_body(chunk, false).await.is_err() {
                    (request_done, whole_request_sent) = (true, false);
                    first_byte_by = Some(Instant::now() + timeouts.first_byte);
                }
            }
            Event::Chunk(Ok(None)) => {
                whole_request_sent = session.finish_request_body().await.is_ok();
                request_done = true;
                first_byte_by = Some(Instant::now() + timeouts.first_byte);
            }
            Event::Left => return Err(ClientError::Left.into()),
        }
    }
}

enum Event {
    Head(pingora::Result<()>),
    Chunk(Result<Option<Bytes>, ClientError>),
    Left,
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
async fn pass_interim(client: Option<&mut Client>, head: ResponseHeader) -> Result<(), ClientError> {
    match client {
        Some(client) if head.status != http::StatusCode::CONTINUE => client.interim(response::interim(head)).await,
        _ => Ok(()),
    }
}

async fn at(by: Option<Instant>) {
    match by {
        Some(by) => sleep_until(by.into()).await,
        None => std::future::pending().await,
    }
}

/// Why an answer ended before its end.
#[derive(Debug)]
pub(super) enum Cut {
    /// The peer broke off, or was silent for too long.
    Peer(Failure),
    /// The client ended it.
    Client(ClientError),
}

impl Open {
    /// Whether the connection now carries another protocol.
    pub(super) fn is_upgraded(&self) -> bool {
        self.upgraded
    }

    /// The next chunk of the answer; `None` at its end. `read` bounds the silence between two chunks.
    pub(super) async fn chunk(&mut self, read: Duration) -> Result<Option<Bytes>, Failure> {
        let silent = Instant::now() + read;
        let by = self.deadline.filter(|_| !self.upgraded).map_or(silent, |deadline| deadline.min(silent));
        tokio::select! {
            chunk = self.session.read_response_body() => chunk.map_err(|error| failure::exchanging(&error)),
            () = sleep_until(by.into()) => Err(Failure::ReadTimeout),
        }
    }

    /// Passes the rest of the answer on, while the rest of the request goes the other way.
    pub(super) async fn relay(&mut self, client: &mut Client, read: Duration) -> Result<(), Cut> {
        let mut request_done = !self.upgraded && (self.request_done || client.body_done());
        if self.upgraded && let HttpSession::H1(session) = &mut self.session {
            session.maybe_upgrade_body_writer();
        }
        loop {
            let silent = Instant::now() + read;
            let by = self.deadline.filter(|_| !self.upgraded).map_or(silent, |deadline| deadline.min(silent));
            tokio::select! {
                chunk = self.session.read_response_body() => match chunk {
                    Ok(Some(chunk)) => client.body(chunk).await.map_err(Cut::Client)?,
                    Ok(None) => break,
                    Err(error) => return Err(Cut::Peer(failure::exchanging(&error))),
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
    pub(super) async fn done(mut self, connector: &Connector) {
        self.picked.succeeded();
        if self.request_done && !self.upgraded && self.session.response_done() {
            connector.release_http_session(self.session, &self.peer, Some(self.keepalive)).await;
        }
    }

    /// The answer broke off, which counts against the peer.
    pub(super) fn broke(self, now: Instant) {
        self.picked.failed(now);
    }

    /// The answer counts as a failure, and another peer is asked.
    async fn reject(mut self, now: Instant) {
        self.session.shutdown().await;
        self.picked.failed(now);
    }
}
