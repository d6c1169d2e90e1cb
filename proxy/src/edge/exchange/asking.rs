//! One request on its way from peer to peer: whom it asks next, what becomes of that, and whether it may go on.

use std::{sync::Arc, time::Instant};

use super::{
    Answered, Call, Came, NoAnswer, Open,
    heads::{Lost, exchange_heads, from_client},
    hedge::{Choice, rival},
};
use crate::{
    balance::{NoPeer, Picked, Pool, Tried},
    edge::client::{Client, ClientError},
    forward::{
        peer::Connectors,
        retry::{self, Failure, Stop, Verdict},
    },
    journey::Attempt,
    running::Upstream,
};

/// One request on its way from peer to peer.
pub(super) struct Asking<'a, 'c> {
    connectors: &'a Arc<Connectors>,
    call: &'a Call<'c>,
    client: Option<&'a mut Client>,
    attempts: &'a mut Vec<Attempt>,
    pool: Arc<Pool>,
    tried: Tried,
    /// Attempts begun; a stale connection was none.
    counted: u32,
    started: Instant,
    pub(super) deadline: Option<Instant>,
}

/// What became of an attempt.
pub(super) enum Attempted {
    /// An answer that may be passed on, of the peer or of the other one beside it.
    Opened(Box<Open>),
    /// To be judged, and then noted.
    Failed(Failure, Attempt, Left),
}

/// What a failed attempt leaves.
pub(super) enum Left {
    /// An answer, whose status is the failure.
    Answer(Box<Came>),
    Peer(Picked),
}

impl<'a, 'c> Asking<'a, 'c> {
    pub(super) fn new(
        connectors: &'a Arc<Connectors>,
        pool: Arc<Pool>,
        call: &'a Call<'c>,
        client: Option<&'a mut Client>,
        attempts: &'a mut Vec<Attempt>,
    ) -> Self {
        let started = Instant::now();
        call.upstream.budget.deposit(started);
        if let Some(hedge) = &call.upstream.hedge {
            hedge.begins(started);
        }
        let deadline = call.upstream.plan.timeouts.total.map(|total| started + total);
        let tried = Tried::default();
        Self { connectors, call, client, attempts, pool, tried, counted: 0, started, deadline }
    }

    /// Picks a peer for the next attempt. The first one waits for its turn where there is a queue; all others are picked
    /// from the same generation.
    pub(super) async fn pick(&mut self) -> Result<Result<Picked, NoPeer>, NoAnswer> {
        let asker = &self.call.asker;
        if self.tried.count() > 0 {
            return Ok(self.pool.pick(asker, &mut self.tried, Instant::now()));
        }
        let picked = tokio::select! {
            biased;
            picked = self.pool.pick_in_turn(asker, &mut self.tried) => picked,
            _ = from_client(self.client.as_deref_mut(), true) => return Err(NoAnswer::Client(ClientError::Left)),
        };
        if let Ok(picked) = &picked {
            self.pool = Arc::clone(picked.pool());
        }
        Ok(picked)
    }

    /// Asks the picked peer, and another one beside it where the answer is late and the plan hedges.
    pub(super) async fn attempt(&mut self, mut picked: Picked) -> Result<Attempted, NoAnswer> {
        let (connectors, call, deadline) = (self.connectors, self.call, self.deadline);
        let plan = &call.upstream.plan;
        self.counted += 1;
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
        if self.client.as_deref().is_some_and(Client::has_body) {
            picked.uploads();
        }
        // Who cannot go elsewhere keeps waiting: the peer may yet answer.
        let may_leave = picked.waits()
            && retry::decide(Failure::Silent, &self.progress(), &plan.retry, began) == Verdict::Next;
        let (dial, address) = (&call.upstream.dial, &picked.peer().endpoint().address);
        let peer = match call.upgrade {
            None if !call.is_tunnel() => dial.peer(address, call.ends),
            _ => dial.upgrading(address, call.ends),
        };
        let hedge = call.upstream.hedge.as_deref().filter(|_| may_hedge(call, &picked, self.counted));
        let mut hedged = None;
        let choice = Choice { pool: &self.pool, tried: &mut self.tried };
        let rival =
            hedge.map(|hedge| Box::pin(rival(connectors, call, hedge, choice, deadline, &mut hedged)));
        let silence = silence(call.upstream, may_leave.then(|| picked.silence()));
        let client = self.client.as_deref_mut();
        let heads = tokio::select! {
            // An answer that is there needs no clock.
            biased;
            heads = exchange_heads(connectors, call, &peer, &mut picked, client, deadline) => Ok(heads),
            () = silence => Ok(Err(Lost::Peer(Failure::Silent))),
            Some(rival) = when(rival) => Err(rival),
        };
        self.attempts.extend(hedged);
        let heads = match heads {
            Ok(heads) => heads,
            Err(rival) => {
                note.outcome = "hedge_lost";
                self.attempts.insert(self.attempts.len() - 1, note);
                return Ok(Attempted::Opened(rival.open(call, deadline)));
            }
        };
        let now = Instant::now();
        match heads {
            Ok(((session, past), head, sent)) => {
                let status = head.status;
                picked.heard(status.is_server_error(), now);
                if let Some(hedge) = &call.upstream.hedge {
                    hedge.answered(now - began);
                }
                (note.first_byte, note.status) = (Some(now - began), Some(status.as_u16()));
                let came = Came { answered: Answered { session, past, head, sent }, peer, picked };
                if plan.retry.is_failure(status.as_u16()) {
                    return Ok(Attempted::Failed(
                        Failure::Status(status),
                        note,
                        Left::Answer(Box::new(came)),
                    ));
                }
                self.attempts.push(note);
                Ok(Attempted::Opened(came.open(call, deadline)))
            }
            Err(Lost::Client(error)) => {
                note.outcome = "client_left";
                self.attempts.push(note);
                Err(NoAnswer::Client(error))
            }
            Err(Lost::Peer(failure)) => Ok(Attempted::Failed(failure, note, Left::Peer(picked))),
        }
    }

    /// Whether another peer is asked after this failure, which is noted with the attempt.
    pub(super) fn judge(&mut self, failure: Failure, mut note: Attempt, now: Instant) -> Verdict {
        let upstream = self.call.upstream;
        let mut verdict = retry::decide(failure, &self.progress(), &upstream.plan.retry, now);
        // A stale connection was no attempt, and a silent one has paid when it was given up.
        let is_free = matches!(failure, Failure::ResetUnsent | Failure::Silent);
        if verdict == Verdict::Next && !is_free && !may_repeat(upstream, now) {
            verdict = Verdict::Stop(Stop::Budget);
        }
        note.outcome = failure.word();
        if let Verdict::Stop(stop) = verdict {
            note.stopped = Some(stop.word());
        }
        self.attempts.push(note);
        verdict
    }

    /// A stale connection was no attempt, and its peer may be picked again.
    pub(super) fn forget(&mut self, picked: Picked) {
        picked.unused(&mut self.tried);
        self.counted -= 1;
    }

    fn progress(&self) -> retry::Progress<'a> {
        retry::Progress {
            method: &self.call.head.method,
            attempts: self.counted,
            started: self.started,
            body: match &self.client {
                Some(client) if client.replay().is_none() => retry::Body::Gone,
                _ => retry::Body::Held,
            },
            client: retry::Client::Waiting,
        }
    }
}

/// Only the first attempt, of a request without body that may be asked twice.
fn may_hedge(call: &Call<'_>, picked: &Picked, attempt: u32) -> bool {
    attempt == 1 && picked.waits() && call.head.method.is_idempotent() && call.upgrade.is_none()
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
