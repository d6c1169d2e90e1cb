//! One exchange with an upstream: attempts at peers until one answers, then its answer, chunk by chunk.
//!
//! [`open()`] picks a peer, connects, sends the request and waits for the head of the answer; it goes on to the next peer
//! as the plan's `retry` says, and never after the client could have seen a byte. [`Open`] is what stands then.
//!
//! Why not `HttpProxy`: see DESIGN.md, "Why does the general lane not use pingora-proxy?".

mod ahead;
mod duplex;
mod open;
mod up;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use pingora::{
    ErrorType, RetryType, connectors::http::Connector, http::RequestHeader,
    protocols::http::client::HttpSession, upstreams::peer::HttpPeer,
};
use tokio::time::sleep_until;

pub(super) use self::open::{Cut, Open};
use self::up::Up;
use super::client::{Client, ClientError};
use crate::{
    accept::BadRequest,
    balance::{NoPeer, Picked, Tried},
    forward::{
        http2,
        response::{self, Head},
        retry::{self, Failure, Verdict},
        upgrade::Upgrade,
    },
    journey::Attempt,
    running::Upstream,
};

/// Attempts for one request, stale connections included: a peer that restarted leaves many of those behind.
const ATTEMPTS: usize = 16;

/// What is asked of an upstream.
pub(super) struct Call<'a> {
    pub(super) upstream: &'a Arc<Upstream>,
    pub(super) client: IpAddr,
    /// The request as the peer gets it, body framing included.
    pub(super) head: RequestHeader,
    /// The upgrade that is being passed on.
    pub(super) upgrade: Option<Upgrade>,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
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
    connector: &Connector,
    call: Call<'_>,
    mut client: Option<&mut Client>,
    attempts: &mut Vec<Attempt>,
) -> Result<Open, NoAnswer> {
    let plan = &call.upstream.plan;
    let started = Instant::now();
    let deadline = plan.timeouts.total.map(|total| started + total);
    let mut tried = Tried::default();
    let mut last: Option<Failure> = None;
    // An answer whose status sends us on, until there is somebody to go on to.
    let mut unwanted: Option<(Answered, HttpPeer, Picked)> = None;
    let mut counted = 0;
    for _ in 0..ATTEMPTS {
        let picked = match (call.upstream.pool.pick(call.client, &mut tried, Instant::now()), unwanted.take())
        {
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
        let (dial, address) = (&call.upstream.dial, picked.peer().endpoint().address);
        let peer = if call.upgrade.is_some() { dial.upgrading(address) } else { dial.peer(address) };
        let heads = exchange_heads(connector, &call, &peer, client.as_deref_mut(), deadline).await;
        let now = Instant::now();
        let (failure, answered) = match heads {
            Ok((session, head, sent)) => {
                let status = head.status;
                (note.first_byte, note.status) = (Some(now - began), Some(status.as_u16()));
                let answered = Answered { session, head, sent };
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
    session: HttpSession,
    head: PeerHead,
    sent: Sent,
}

impl Answered {
    fn open(self, call: &Call<'_>, peer: HttpPeer, picked: Picked, deadline: Option<Instant>) -> Open {
        let plan = &call.upstream.plan;
        Open {
            upgraded: self.head.status == StatusCode::SWITCHING_PROTOCOLS,
            session: self.session,
            peer,
            picked,
            head: self.head,
            sent: self.sent,
            read: plan.timeouts.read,
            keepalive: plan.keepalive_timeout,
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

/// No connection: which kind of none.
fn connecting(error: &pingora::Error) -> Failure {
    match error.etype() {
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => Failure::ConnectTimeout,
        _ => Failure::Connect,
    }
}

/// The head for a peer that speaks HTTP/2; `None` where there is no such head.
fn http2_head(call: &Call<'_>) -> Option<RequestHeader> {
    let target = std::str::from_utf8(call.head.raw_path()).ok()?;
    let scheme = if call.upstream.plan.tls.is_some() { "https" } else { "http" };
    let head = http2::request(&call.head.method, target, &call.head.headers, scheme, call.trailers);
    head.ok().map(RequestHeader::from)
}

/// The exchange broke: which way.
fn exchanging(error: &pingora::Error) -> Failure {
    match error.etype() {
        ErrorType::InvalidHTTPHeader | ErrorType::InvalidH2 => Failure::BadAnswer,
        ErrorType::ReadTimedout => Failure::ReadTimeout,
        // GOAWAY or REFUSED_STREAM: the peer says that it did not look at this request (RFC 9113 §8.7).
        ErrorType::H2Error if matches!(error.retry, RetryType::Decided(true)) => Failure::ResetUnsent,
        _ => Failure::Reset,
    }
}

/// Connects, sends the request, and waits for the head of its answer, while the client's body goes out.
async fn exchange_heads(
    connector: &Connector,
    call: &Call<'_>,
    peer: &HttpPeer,
    client: Option<&mut Client>,
    deadline: Option<Instant>,
) -> Result<(HttpSession, PeerHead, Sent), Lost> {
    let (mut session, reused) =
        connector.get_http_session(peer).await.map_err(|error| Lost::Peer(connecting(&error)))?;
    // Our own deadlines bound every wait below; a second clock inside would only blur which of them struck.
    session.set_read_timeout(None);
    session.set_write_timeout(Some(call.upstream.plan.timeouts.write));
    match heads_on(&mut session, reused, connector, call, peer, client, deadline).await {
        Ok((head, sent)) => Ok((session, head, sent)),
        Err(lost) => {
            let_go(session, connector, peer, call.upstream.plan.keepalive_timeout).await;
            Err(lost)
        }
    }
}

/// Ends a stream in the middle. An HTTP/1.1 connection ends with it; one in HTTP/2 goes back, or nobody would ever close it.
async fn let_go(mut session: HttpSession, connector: &Connector, peer: &HttpPeer, keepalive: Duration) {
    if matches!(session, HttpSession::H2(_)) {
        session.shutdown().await;
        connector.release_http_session(session, peer, Some(keepalive)).await;
    }
}

/// The exchange of heads on a connection.
async fn heads_on(
    session: &mut HttpSession,
    reused: bool,
    connector: &Connector,
    call: &Call<'_>,
    peer: &HttpPeer,
    mut client: Option<&mut Client>,
    deadline: Option<Instant>,
) -> Result<(PeerHead, Sent), Lost> {
    let timeouts = &call.upstream.plan.timeouts;
    let resendable = call.head.method.is_idempotent();
    let broken = |error: Box<pingora::Error>| match exchanging(&error) {
        // The peer wants HTTP/1.1 for this (RFC 9113 §7): it gets that from now on.
        _ if *error.etype() == ErrorType::H2Downgrade => {
            connector.prefer_h1(peer);
            Lost::Peer(Failure::ResetUnsent)
        }
        // The peer closed a kept connection as our request crossed it: nobody failed, and it may be sent again.
        Failure::Reset if reused && resendable => Lost::Peer(Failure::ResetUnsent),
        failure => Lost::Peer(failure),
    };
    // An earlier attempt may have read part of the body, or all of it.
    let kept = client.as_deref().and_then(Client::replay).filter(|kept| !kept.is_empty());
    let mut request_done = client.as_deref().is_none_or(Client::body_done);
    let is_bodiless = request_done && kept.is_none();
    send_head(session, call, is_bodiless).await.map_err(|lost| match lost {
        Lost::Peer(Failure::Reset) if reused && resendable => Lost::Peer(Failure::ResetUnsent),
        lost => lost,
    })?;
    let mut up = match session {
        HttpSession::H2(session) if !is_bodiless => {
            session.take_request_body_writer().map(|stream| Up::new(stream, timeouts.write))
        }
        _ => None,
    };
    match &mut up {
        Some(up) => {
            kept.into_iter().for_each(|kept| up.give(kept));
            if request_done {
                up.end();
            }
        }
        None => {
            if let Some(kept) = kept {
                session.write_request_body(kept, false).await.map_err(broken)?;
            }
            if request_done {
                session.finish_request_body().await.map_err(broken)?;
            }
        }
    }
    let mut is_whole = request_done && up.is_none();
    let mut first_byte_by = is_whole.then(|| Instant::now() + timeouts.first_byte);
    let mut checks = response::Answer::default();
    loop {
        let by = [first_byte_by, deadline].into_iter().flatten().min();
        let (is_busy, late) = up.as_ref().map_or((false, None), |up| (up.is_busy(), up.late()));
        let event = tokio::select! {
            read = session.read_response_header() => Event::Head(read),
            event = sending(&mut up), if is_busy => event,
            () = at(late) => Event::Sent(false),
            event = from_client(client.as_deref_mut(), request_done), if !is_busy || request_done => event,
            () = at(by) => return Err(Lost::Peer(Failure::FirstByteTimeout)),
        };
        match event {
            Event::Head(Err(error)) => return Err(broken(error)),
            Event::Head(Ok(())) => {
                let raw = session.response_header().ok_or(Lost::Peer(Failure::BadAnswer))?;
                let (status, version) = (raw.status, raw.version);
                let mut head = PeerHead { status, headers: raw.headers.clone() };
                let checked =
                    checks.check(status.as_u16(), version, &mut head.headers, call.upgrade.as_ref());
                match checked.map_err(|_| Lost::Peer(Failure::BadAnswer))? {
                    Head::Interim => pass_interim(client.as_deref_mut(), head).await?,
                    Head::Final | Head::Tunnel => {
                        let sent = match up {
                            Some(up) => Sent::PartlyOver(up),
                            None if is_whole => Sent::Whole,
                            None if request_done => Sent::Broken,
                            None => Sent::Partly,
                        };
                        return Ok((head, sent));
                    }
                }
                continue;
            }
            Event::Chunk(Err(error)) => return Err(error.into()),
            Event::Left => return Err(ClientError::Left.into()),
            Event::Chunk(Ok(Some(chunk))) => match &mut up {
                Some(up) => up.give(chunk),
                // A peer that stops reading may still answer (413, say): what it says is worth more than our error.
                None => request_done = session.write_request_body(chunk, false).await.is_err(),
            },
            Event::Chunk(Ok(None)) => {
                request_done = true;
                match &mut up {
                    Some(up) => up.end(),
                    None => is_whole = session.finish_request_body().await.is_ok(),
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

/// Sends the head in the form that the connection speaks.
pub(super) async fn send_head(
    session: &mut HttpSession,
    call: &Call<'_>,
    is_bodiless: bool,
) -> Result<(), Lost> {
    match session {
        HttpSession::H2(session) => {
            let head = http2_head(call).ok_or(ClientError::Bad(BadRequest::BadTarget))?;
            // It is only queued here: what fails was never sent.
            let queued = session.write_request_header(Box::new(head), is_bodiless);
            queued.map_err(|_| Lost::Peer(Failure::ResetUnsent))
        }
        session => {
            let sent = session.write_request_header(Box::new(call.head.clone())).await;
            sent.map_err(|error| Lost::Peer(exchanging(&error)))
        }
    }
}

enum Event {
    Head(pingora::Result<()>),
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
