//! One exchange with an upstream: attempts at peers until one answers, then its answer, chunk by chunk.
//!
//! [`open()`] picks a peer, connects, sends the request and waits for the head of the answer; it goes on to the next peer
//! as the plan's `retry` says, and never after the client could have seen a byte. [`Open`] is what stands then.
//!
//! Why not `HttpProxy`: see DESIGN.md, "Why does the general lane not use pingora-proxy?".

mod ahead;
mod asking;
mod duplex;
mod heads;
mod hedge;
pub(super) mod link;
mod open;
pub(super) mod session;
mod up;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use http::{HeaderMap, Method, StatusCode};
use pingora::upstreams::peer::HttpPeer;

pub(super) use self::open::{Cut, Open};
use self::{
    asking::{Asking, Attempted, Left},
    heads::Sent,
    session::Session,
};
use super::client::{Client, ClientError};
use crate::{
    balance::{Asker, NoPeer, Outcome, Picked, Pool},
    forward::{
        idle::Past,
        peer::Connectors,
        proxy_protocol::Ends,
        retry::{Failure, Verdict},
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

impl Call<'_> {
    /// A connection is wanted, and nothing is said on it.
    fn is_tunnel(&self) -> bool {
        self.head.method == Method::CONNECT
    }
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

/// Asks peers of the upstream until one answers, noting every attempt, unless its circuit breaker is open.
pub(super) async fn open(
    connectors: &Arc<Connectors>,
    call: Call<'_>,
    client: Option<&mut Client>,
    attempts: &mut Vec<Attempt>,
) -> Result<Box<Open>, NoAnswer> {
    let pool = call.upstream.pool();
    let admitted = pool.admit(Instant::now()).map_err(NoAnswer::NoPeer)?;
    let opened = ask_peers(connectors, pool, &call, client, attempts).await;
    let outcome = match &opened {
        Ok(open) if open.head.status.is_server_error() => Outcome::Failed,
        Ok(_) => Outcome::Succeeded,
        // That none could be asked says nothing new about them, and neither does the client.
        Err(NoAnswer::Client(_) | NoAnswer::NoPeer(_)) => Outcome::Unknown,
        Err(NoAnswer::Failed(_)) => Outcome::Failed,
    };
    admitted.done(outcome, Instant::now());
    opened
}

/// Picks, asks and judges, until an answer may be taken or nobody is left to ask.
async fn ask_peers(
    connectors: &Arc<Connectors>,
    pool: Arc<Pool>,
    call: &Call<'_>,
    client: Option<&mut Client>,
    attempts: &mut Vec<Attempt>,
) -> Result<Box<Open>, NoAnswer> {
    let mut asking = Asking::new(connectors, pool, call, client, attempts);
    let retry = &call.upstream.plan.retry;
    let mut last: Option<Failure> = None;
    // An answer whose status sends us on, until there is somebody to go on to.
    let mut unwanted: Option<Box<Came>> = None;
    for _ in 0..ATTEMPTS {
        let picked = match (asking.pick().await?, unwanted.take()) {
            (Ok(picked), unwanted) => {
                if let (Some(unwanted), Some(failure)) = (unwanted, last) {
                    blame(unwanted.picked, failure, retry, Instant::now());
                    link::let_go(connectors, call.upstream, &unwanted.peer, unwanted.answered.session).await;
                }
                picked
            }
            // The last answer is an answer, whatever its status (nginx passes it on, too).
            (Err(_), Some(unwanted)) => return Ok(unwanted.open(call, asking.deadline)),
            // The reason of the last peer says more than "all tried".
            (Err(none), None) => return Err(last.map_or(NoAnswer::NoPeer(none), NoAnswer::Failed)),
        };
        let (failure, note, left) = match asking.attempt(picked).await? {
            Attempted::Opened(open) => return Ok(open),
            Attempted::Failed(failure, note, left) => (failure, note, left),
        };
        let now = Instant::now();
        match (asking.judge(failure, note, now), left) {
            (Verdict::Stop(_), Left::Answer(came)) => return Ok(came.open(call, asking.deadline)),
            (Verdict::Stop(_), Left::Peer(picked)) => {
                blame(picked, failure, retry, now);
                return Err(NoAnswer::Failed(failure));
            }
            (Verdict::Next, Left::Answer(came)) => unwanted = Some(came),
            (Verdict::Next, Left::Peer(picked)) if failure == Failure::ResetUnsent => asking.forget(picked),
            (Verdict::Next, Left::Peer(picked)) => blame(picked, failure, retry, now),
        }
        last = Some(failure);
    }
    match unwanted {
        Some(unwanted) => Ok(unwanted.open(call, asking.deadline)),
        None => Err(NoAnswer::Failed(last.unwrap_or(Failure::Reset))),
    }
}

fn blame(picked: Picked, failure: Failure, retry: &weir_config::plan::Retry, now: Instant) {
    if failure.blames_peer(retry) {
        picked.failed(now);
    }
}

/// A peer's answer, and the peer.
struct Came {
    answered: Answered,
    peer: HttpPeer,
    picked: Picked,
}

struct Answered {
    session: Session,
    past: Past,
    head: PeerHead,
    sent: Sent,
}

impl Came {
    fn open(self, call: &Call<'_>, deadline: Option<Instant>) -> Box<Open> {
        let plan = &call.upstream.plan;
        let Self { answered: Answered { session, past, head, sent }, peer, picked } = self;
        Box::new(Open {
            upgraded: head.status == StatusCode::SWITCHING_PROTOCOLS || call.is_tunnel(),
            session,
            past,
            upstream: Arc::clone(call.upstream),
            peer,
            picked,
            head,
            sent,
            read: plan.timeouts.read,
            write: plan.timeouts.write,
            deadline,
            seen: VecDeque::new(),
        })
    }
}
