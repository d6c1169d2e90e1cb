//! One exchange with an upstream: attempts at peers until one answers, then its answer, chunk by chunk.
//!
//! [`open()`] picks a peer, connects, sends the request and waits for the head of the answer; it goes on to the next peer
//! as the plan's `retry` says, and never after the client could have seen a byte. [`Open`] is what stands then.
//!
//! Why not `HttpProxy`: see DESIGN.md, "Why does the general lane not use pingora-proxy?".

mod ahead;
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
    heads::{Lost, Sent, exchange_heads, from_client},
    hedge::{Choice, Rival, rival},
    session::Session,
};
use super::client::{Client, ClientError};
use crate::{
    balance::{Asker, NoPeer, Outcome, Picked, Pool, Tried},
    forward::{
        idle::Past,
        peer::Connectors,
        proxy_protocol::Ends,
        retry::{self, Failure, Stop, Verdict},
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

/// Picks a peer for the next attempt. The first one waits for its turn where there is a queue; all others are picked
/// from the same generation.
async fn pick(
    pool: &mut Arc<Pool>,
    call: &Call<'_>,
    client: Option<&mut Client>,
    tried: &mut Tried,
) -> Result<Result<Picked, NoPeer>, NoAnswer> {
    if tried.count() > 0 {
        return Ok(pool.pick(&call.asker, tried, Instant::now()));
    }
    let picked = tokio::select! {
        biased;
        picked = pool.pick_in_turn(&call.asker, tried) => picked,
        _ = from_client(client, true) => return Err(NoAnswer::Client(ClientError::Left)),
    };
    if let Ok(picked) = &picked {
        *pool = Arc::clone(picked.pool());
    }
    Ok(picked)
}

async fn ask_peers(
    connectors: &Arc<Connectors>,
    mut pool: Arc<Pool>,
    call: &Call<'_>,
    mut client: Option<&mut Client>,
    attempts: &mut Vec<Attempt>,
) -> Result<Box<Open>, NoAnswer> {
    let plan = &call.upstream.plan;
    let started = Instant::now();
    call.upstream.budget.deposit(started);
    if let Some(hedge) = &call.upstream.hedge {
        hedge.begins(started);
    }
    let deadline = plan.timeouts.total.map(|total| started + total);
    let mut tried = Tried::default();
    let mut last: Option<Failure> = None;
    // An answer whose status sends us on, until there is somebody to go on to.
    let mut unwanted: Option<Box<(Answered, HttpPeer, Picked)>> = None;
    let mut counted = 0;
    for _ in 0..ATTEMPTS {
        let picked = pick(&mut pool, call, client.as_deref_mut(), &mut tried).await?;
        let mut picked = match (picked, unwanted.take().map(|unwanted| *unwanted)) {
            (Ok(picked), unwanted) => {
                if let (Some((answered, peer, before)), Some(failure)) = (unwanted, last) {
                    blame(before, failure, &plan.retry, Instant::now());
                    link::let_go(connectors, call.upstream, &peer, answered.session).await;
                }
                picked
            }
            // The last answer is an answer, whatever its status (nginx passes it on, too).
            (Err(_), Some((answered, peer, before))) => {
                return Ok(answered.open(call, peer, before, deadline));
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
            hedge: false,
            stopped: None,
        };
        let progress = |client: Option<&Client>| retry::Progress {
            method: &call.head.method,
            attempts: counted,
            started,
            body: match client {
                Some(client) if client.replay().is_none() => retry::Body::Gone,
                _ => retry::Body::Held,
            },
            client: retry::Client::Waiting,
        };
        if client.as_deref().is_some_and(Client::has_body) {
            picked.uploads();
        }
        // Who cannot go elsewhere keeps waiting: the peer may yet answer.
        let may_leave = picked.waits()
            && retry::decide(Failure::Silent, &progress(client.as_deref()), &plan.retry, began)
                == Verdict::Next;
        let (dial, address) = (&call.upstream.dial, &picked.peer().endpoint().address);
        let peer = match call.upgrade {
            None if !call.is_tunnel() => dial.peer(address, call.ends),
            _ => dial.upgrading(address, call.ends),
        };
        let hedge = call.upstream.hedge.as_deref().filter(|_| may_hedge(call, &picked, counted));
        let mut hedged = None;
        let choice = Choice { pool: &pool, tried: &mut tried };
        let rival =
            hedge.map(|hedge| Box::pin(rival(connectors, call, hedge, choice, deadline, &mut hedged)));
        let silence = silence(call.upstream, may_leave.then(|| picked.silence()));
        let heads = tokio::select! {
            // An answer that is there needs no clock.
            biased;
            heads = exchange_heads(connectors, call, &peer, &mut picked, client.as_deref_mut(), deadline) => Ok(heads),
            () = silence => Ok(Err(Lost::Peer(Failure::Silent))),
            Some(rival) = when(rival) => Err(rival),
        };
        attempts.extend(hedged);
        let heads = match heads {
            Ok(heads) => heads,
            Err(Rival { answered, peer, picked }) => {
                note.outcome = "hedge_lost";
                attempts.insert(attempts.len() - 1, note);
                return Ok(answered.open(call, peer, picked, deadline));
            }
        };
        let now = Instant::now();
        let (failure, answered) = match heads {
            Ok(((session, past), head, sent)) => {
                let status = head.status;
                picked.heard(status.is_server_error(), now);
                if let Some(hedge) = &call.upstream.hedge {
                    hedge.answered(now - began);
                }
                (note.first_byte, note.status) = (Some(now - began), Some(status.as_u16()));
                let answered = Answered { session, past, head, sent };
                if !plan.retry.is_failure(status.as_u16()) {
                    attempts.push(note);
                    return Ok(answered.open(call, peer, picked, deadline));
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
        let mut verdict = retry::decide(failure, &progress(client.as_deref()), &plan.retry, now);
        // A stale connection was no attempt, and a silent one has paid when it was given up.
        let is_free = matches!(failure, Failure::ResetUnsent | Failure::Silent);
        if verdict == Verdict::Next && !is_free && !may_repeat(call.upstream, now) {
            verdict = Verdict::Stop(Stop::Budget);
        }
        if let Verdict::Stop(stop) = verdict {
            note.stopped = Some(stop.word());
        }
        attempts.push(note);
        match (verdict, answered) {
            (Verdict::Stop(_), Some(answered)) => return Ok(answered.open(call, peer, picked, deadline)),
            (Verdict::Stop(_), None) => {
                blame(picked, failure, &plan.retry, now);
                return Err(NoAnswer::Failed(failure));
            }
            (Verdict::Next, Some(answered)) => unwanted = Some(Box::new((answered, peer, picked))),
            (Verdict::Next, None) if failure == Failure::ResetUnsent => {
                picked.unused(&mut tried);
                counted -= 1;
            }
            (Verdict::Next, None) => blame(picked, failure, &plan.retry, now),
        }
        last = Some(failure);
    }
    match unwanted.map(|unwanted| *unwanted) {
        Some((answered, peer, picked)) => Ok(answered.open(call, peer, picked, deadline)),
        None => Err(NoAnswer::Failed(last.unwrap_or(Failure::Reset))),
    }
}

/// Only the first attempt, of a request without body that may be asked twice.
fn may_hedge(call: &Call<'_>, picked: &Picked, attempt: u32) -> bool {
    attempt == 1 && picked.waits() && call.head.method.is_idempotent() && call.upgrade.is_none()
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
    fn open(self, call: &Call<'_>, peer: HttpPeer, picked: Picked, deadline: Option<Instant>) -> Box<Open> {
        let plan = &call.upstream.plan;
        Box::new(Open {
            upgraded: self.head.status == StatusCode::SWITCHING_PROTOCOLS || call.is_tunnel(),
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
            seen: VecDeque::new(),
        })
    }
}

/// Whether the budget has room for one more retry, which is taken.
fn may_repeat(upstream: &Upstream, now: Instant) -> bool {
    let retry = &upstream.plan.retry;
    upstream.budget.withdraw(retry.budget, retry.floor, now)
}

async fn when<T>(happens: Option<impl Future<Output = T>>) -> T {
    match happens {
        Some(happens) => happens.await,
        None => std::future::pending().await,
    }
}

/// Resolves when the peer is found silent and the budget has room for going elsewhere.
async fn silence(upstream: &Upstream, silence: Option<impl Future<Output = ()>>) {
    if let Some(silence) = silence {
        silence.await;
        if may_repeat(upstream, Instant::now()) {
            return;
        }
    }
    std::future::pending().await
}
