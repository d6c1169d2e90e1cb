//! THE REQUEST PATH, general lane: accepted, routed, limited, authenticated, looked up, balanced, forwarded, recorded.
//!
//! [`Edge::serve`] is one request's life; [`Edge::travel`] tells it in time order, each step a call that either
//! answers, refuses, or hands on. What a step needs of the client is in `edge/client.rs`, what it needs of a peer in
//! `edge/exchange.rs`; this file and its children are the only ones that see both.
//!
//! A future has room for everything it may come to, and is copied whole into its box. So what a hit does not need is in
//! boxes of its own: a miss asks for them, a hit never pays.

mod accel;
mod caching;
mod client;
mod compressing;
mod error_page;
mod exchange;
mod forwarding;
mod local;
mod mirror;
mod purging;
mod reply;
mod trip;
mod tunnel;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use tokio::sync::Semaphore;
use weir_config::plan::Action;

use self::{
    client::{Client, ClientError},
    trip::Trip,
};
use crate::{
    accept::{
        Arrival, BadRequest, Express, Service,
        exchange::{Exchange, Head, Reusable},
    },
    cache::Now,
    decide::{self, Decision},
    express::{Answered, Begun, Rest, Stage},
    forward::{limit_rate::Pace, peer::Connectors},
    journey::Journey,
    refusal::Refusal,
    request::RequestView,
    running::Running,
    state::{Held, State},
};

/// The general lane; cheap to clone.
#[derive(Clone)]
pub struct Edge {
    state: Arc<State>,
    connectors: Arc<Connectors>,
    /// Places for fetches that go on without a client.
    unattended: Arc<Semaphore>,
}

/// Fetches that go on without a client, at once: each holds a connection to a peer.
const UNATTENDED: usize = 1024;

impl Edge {
    /// The lane over `state`; keeps up to `keepalive` idle connections to peers in all.
    #[must_use]
    pub fn new(state: Arc<State>, keepalive: usize) -> Self {
        let unattended = Arc::new(Semaphore::new(UNATTENDED));
        Self { state, connectors: Arc::new(Connectors::new(keepalive)), unattended }
    }
}

#[async_trait]
impl Service for Edge {
    type Begun = Box<Begun>;
    type Answered = Answered;

    fn refuse(&self, arrival: Arrival, line: &[u8]) -> Bytes {
        let refusal = Refusal::Bad(arrival.refused.unwrap_or(BadRequest::BadLine));
        let answer = reply::raw_refusal(&refusal);
        let mut journey = Journey::new(arrival);
        journey.line = Some(String::from_utf8_lossy(line).into_owned());
        journey.answer.status = refusal.said().status.as_u16();
        journey.answer.complete = true;
        journey.refusal = Some(refusal);
        self.state.snapshot().recorder.finish(&journey, None);
        answer
    }

    fn begin(&self, head: Head, arrival: Arrival) -> Box<Begun> {
        Begun::new(&self.state, head, arrival)
    }

    fn express(&self, begun: Box<Begun>, out: &mut BytesMut) -> Result<Express<Self>, Box<Begun>> {
        let Rest { body, closes, answered } = begun.answer_at_once(out)?;
        Ok(Express { body, closes, answered })
    }

    fn express_head(&self, begun: Box<Begun>) -> Result<(StatusCode, HeaderMap, Express<Self>), Box<Begun>> {
        let (status, fields, Rest { body, closes, answered }) = begun.answer_in_fields()?;
        Ok((status, fields, Express { body, closes, answered }))
    }

    fn written(&self, answered: Answered, whole: bool) {
        answered.written(whole);
    }

    async fn serve(&self, exchange: Exchange, begun: Box<Begun>) -> Option<Reusable> {
        let Begun { snapshot, mut journey, stage, in_flight: _in_flight } = *begun;
        let listener = snapshot.running.plan.listener(journey.arrival.connection.listener);
        let mut client = Client::new(exchange, listener.map(|listener| &listener.bounds));
        let ended = self.travel(&snapshot, stage, &mut client, &mut journey).await;
        let whole = match ended {
            Ok(()) => client.end().await.is_ok(),
            Err(Ended::Refused(refusal)) => {
                Box::pin(self.refuse(&snapshot.running, refusal, &mut client, &mut journey)).await
            }
            Err(Ended::Cut) => false,
        };
        journey.answer.complete = whole;
        journey.answer.body_bytes = client.written();
        snapshot.recorder.finish(&journey, snapshot.running.upstream_of(journey.route));
        if whole {
            client.finish().await
        } else {
            client.abort().await;
            None
        }
    }
}

impl Edge {
    /// The path of one request, in time order: each step answers, refuses, or hands its proof to the next.
    async fn travel(
        &self,
        snapshot: &Held,
        stage: Stage,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let running = &snapshot.running;
        let (decided, looked) = match stage {
            // The express lane came to the same end.
            Stage::Refused(refusal) => return Err(refusal.into()),
            Stage::Passed(passed, looked) => (Ok(passed), looked),
            Stage::Waits(decided) => (Err(decided), None),
            Stage::Head(head) => {
                // accepted: one meaning, or none.
                if let Some(bad) = journey.arrival.refused {
                    let line = format!("{} {}", head.method, String::from_utf8_lossy(&head.target));
                    journey.line = Some(line);
                    return Err(Refusal::Bad(bad).into());
                }
                let request = RequestView::read(head, client.has_body(), &journey.arrival, &running.plan)?;
                let request = Arc::clone(journey.request.insert(Arc::new(request)));

                // said to the cache itself.
                if let Some(purged) = self.purge(snapshot, &request, client, journey).await {
                    return purged;
                }
                (Err(decide::decide(running, &request, Now::read())), None)
            }
        };

        // routed, limited, authenticated.
        let passed = match decided {
            Ok(passed) => passed,
            Err(decided) => {
                journey.route = decided.route();
                let request = Arc::clone(journey.request.as_ref().ok_or(Refusal::Internal)?);
                let decision = tokio::select! {
                    biased;
                    decision = decided.end(running, &request) => decision,
                    // Its turn in a limit is of no use to it any more. With a body to come, nobody can tell.
                    () = client.left(), if !client.has_body() => return Err(Refusal::ClientLeft.into()),
                };
                let Decision { route, caller, admitted, verdict } = decision;
                (journey.route, journey.caller, journey.admitted) = (route, caller, admitted);
                verdict?
            }
        };
        let request = Arc::clone(journey.request.as_ref().ok_or(Refusal::Internal)?);
        client.take_trailers(request.trailers);
        let trip = Trip { snapshot: snapshot.clone(), request, passed: Arc::new(passed) };
        client.bound_body(trip.body_limit(&journey.arrival));
        if let Some(limit) = &trip.route().limit_rate {
            client.limit_rate(Some(Pace { per_second: limit.per_second.get(), after: limit.after.get() }));
        }

        // answered here, or looked up, balanced and forwarded.
        match trip.passed.action(trip.running()) {
            Action::Redirect(redirect) => self.redirect(&trip, redirect, client, journey).await,
            Action::Answer(answer) => self.fixed(&trip, answer, client, journey).await,
            Action::Files(_) => Box::pin(self.file(&trip, client, journey)).await,
            Action::Tunnel(upstream) => Box::pin(self.tunnel(&trip, *upstream, client, journey)).await,
            Action::Forward(forward) => {
                self.mirror(&trip, forward, client);
                self.look_up_or_forward(&trip, forward, looked, client, journey).await
            }
        }
    }

    /// Answers with a refusal, if the client can still hear one. A bad body takes its own status.
    async fn refuse(
        &self,
        running: &Running,
        refusal: Refusal,
        client: &mut Client,
        journey: &mut Journey,
    ) -> bool {
        let refusal = match journey.arrival.fault() {
            Some(fault) => Refusal::Bad(fault),
            None => refusal,
        };
        journey.answer.status = refusal.said().status.as_u16();
        let heard = self.say(running, &refusal, client, journey).await;
        journey.refusal = Some(refusal);
        heard
    }
}

/// How a journey ended other than with a whole answer.
#[derive(Debug)]
enum Ended {
    /// No answer was begun; this is said instead.
    Refused(Refusal),
    /// An answer was begun and cannot be finished: the connection breaks, so that nobody takes it for whole.
    Cut,
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Before an answer was begun.
impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Left => Self::Refused(Refusal::ClientLeft),
            ClientError::Bad(bad) => Self::Refused(Refusal::Bad(bad)),
        }
    }
}
