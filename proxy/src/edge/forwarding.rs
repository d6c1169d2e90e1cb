//! Forwarding one request: the head for the peer, the exchange, and the answer as it comes.

use std::time::{Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rand::Rng;
use weir_config::plan::{Forward, UpstreamId};

use super::{
    Edge, Ended, Trip, accel,
    client::{Client, ClientError},
    exchange::{self, Call, Cut, NoAnswer, Open, Request},
    reply::{self, Length},
};
use crate::{
    balance::{Asker, NoPeer},
    cache::{self, Purge, Subject},
    forward::{grpc, headers, hop_by_hop, retry::Failure, upgrade::Upgrade},
    journey::Journey,
    refusal::Refusal,
    running::PurgedBy,
};

/// How a request is framed for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// As the client framed it: its length, or chunks where it gave none.
    AsTheClient,
    /// Without body: a fetch of our own.
    Nothing,
}

impl Edge {
    /// Passes the request on and the answer back; nothing is looked up or kept.
    pub(super) async fn forward(
        &self,
        trip: &Trip,
        forward: &Forward,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let open = self.pass_on(trip, forward, client, journey).await?;
        self.pass_back(trip, forward, open, client, journey).await
    }

    /// Passes the request on, up to the head of the answer.
    pub(super) async fn pass_on(
        &self,
        trip: &Trip,
        forward: &Forward,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<Box<Open>, Ended> {
        // A call may wait for answers before it says more: gathered, neither side would ever go on.
        if !grpc::is_call(&trip.request.headers) {
            client.gather(forward.request_buffer.len()).await?;
        }
        let head = self.request_head(
            trip,
            forward,
            &trip.request.method,
            trip.request.headers.clone(),
            Framing::AsTheClient,
        )?;
        let call = self.call(trip, forward, head);
        exchange::open(&self.connectors, call, Some(client), &mut journey.attempts)
            .await
            .map_err(|none| Ended::from(refusal_of(&none)))
    }

    pub(super) fn call<'a>(&self, trip: &'a Trip, forward: &Forward, head: Request) -> Call<'a> {
        self.call_to(trip, forward.upstream, head, trip.upgrade(forward).cloned())
    }

    pub(super) fn call_to<'a>(
        &self,
        trip: &'a Trip,
        upstream: UpstreamId,
        head: Request,
        upgrade: Option<Upgrade>,
    ) -> Call<'a> {
        let upstream = &trip.running().upstreams[upstream.index()];
        let (client, ends) = (trip.request.client, trip.request.ends);
        let facts = trip.passed.facts(&trip.request);
        let route = upstream.sticky.as_ref().and_then(|sticky| sticky.route(&facts, Instant::now()));
        let asker = Asker::new(&upstream.plan.balance, client, route, &facts, rand::rng().random());
        Call { upstream, asker, ends, head, upgrade }
    }

    /// The request as the peer gets it: one target, our own account of the client, one framing.
    pub(super) fn request_head(
        &self,
        trip: &Trip,
        forward: &Forward,
        method: &Method,
        mut fields: HeaderMap,
        framing: Framing,
    ) -> Result<Request, Refusal> {
        let (running, request) = (trip.running(), &trip.request);
        let upstream = &running.upstreams[forward.upstream.index()];
        let facts = trip.passed.facts(request);
        let configured: Vec<_> = trip
            .route()
            .request_headers
            .iter()
            .map(|(name, template)| {
                let mut value = String::new();
                template.render(&facts, &mut value);
                (name.clone(), value)
            })
            .collect();
        let identity = running.identity.as_ref().map(|signer| {
            let caller = trip.passed.caller().filter(|caller| caller.is_named());
            let value = caller.map(|caller| signer.sign(caller, SystemTime::now()));
            (signer.header(), value)
        });
        headers::prepare(&mut fields, &request.hop(), identity, &configured).map_err(|_| Refusal::Hops)?;
        if let Some(host) = &forward.host {
            let mut value = String::new();
            host.render(&facts, &mut value);
            fields.insert(header::HOST, HeaderValue::try_from(value).map_err(|_| Refusal::Hops)?);
        }
        if !fields.contains_key(header::HOST) {
            // HTTP/1.0 may come without; what we send is HTTP/1.1, which may not. The upstream's name, as nginx does.
            let name = &upstream.plan.name;
            fields.insert(header::HOST, HeaderValue::try_from(&**name).map_err(|_| Refusal::Hops)?);
        }
        // The range of a fetch of our own is that of a slice.
        if framing == Framing::AsTheClient && trip.resumes_by_date() {
            fields.remove(header::RANGE);
            fields.remove(header::IF_RANGE);
        }
        // One canonical length or chunks, whatever the client wrote (RFC 9112 §6).
        let length = fields.remove(header::CONTENT_LENGTH);
        fields.remove(header::TRANSFER_ENCODING);
        if framing == Framing::AsTheClient && request.has_body {
            match length {
                Some(length) => fields.insert(header::CONTENT_LENGTH, length),
                None => fields.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked")),
            };
        } else if matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            // RFC 9110 §8.6: a length of 0 says that nothing was meant to follow.
            fields.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
        }
        if let Some(upgrade) = trip.upgrade(forward).filter(|_| framing == Framing::AsTheClient) {
            upgrade.write(&mut fields);
        }
        Ok(Request {
            method: method.clone(),
            target: trip.passed.target(request, forward)?.into_owned(),
            headers: fields,
            scheme: if upstream.plan.tls.is_some() { "https" } else { "http" },
            trailers: request.trailers,
        })
    }

    /// Gives a peer's answer to the client as it arrives.
    pub(super) async fn pass_back(
        &self,
        trip: &Trip,
        forward: &Forward,
        mut open: Box<Open>,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let status = open.head.status;
        if let Some(shown) = self.intercept(trip, status, &open.head.headers, client, journey).await {
            open.abandon(&self.connectors).await;
            return shown;
        }
        self.invalidate(trip, forward, status, &open.head.headers);
        if !trip.request.method.is_safe() {
            trip.running().tags.recorded().await;
        }
        let ahead = accel::read_ahead(&open.head.headers, forward.response_buffer.len());
        let (mut fields, length) = answer_fields(trip, std::mem::take(&mut open.head.headers), &open);
        stick(trip, forward, &open, &mut fields);
        let head = reply::head(trip, journey, client, status, fields, length);
        journey.answer.status = status.as_u16();
        let bodiless =
            length == Length::None || length == Length::Known(0) || trip.request.method == Method::HEAD;
        let bodiless = bodiless && !open.is_upgraded();
        if let Err(error) = client.head(head, bodiless).await {
            return Err(error.into());
        }
        let relayed = open.relay(&self.connectors, client, ahead).await;
        relayed.map_err(|cut| broke_off(&cut, journey))
    }

    /// Forgets a session that a successful answer ended, and purges what a successful unsafe request made obsolete or the
    /// origin asks for, all before the client hears that it succeeded.
    pub(super) fn invalidate(&self, trip: &Trip, forward: &Forward, status: StatusCode, answer: &HeaderMap) {
        let (running, request) = (trip.running(), &trip.request);
        if let Some(rule) = trip.route().session.as_ref().filter(|rule| rule.ends && status.is_success()) {
            running.end_session(rule, &request.headers);
        }
        if !cache::may_purge(&request.method, answer) {
            return;
        }
        let caller = trip.passed.caller().map(|caller| caller.user_id()).filter(|user| !user.is_empty());
        let url = request.url();
        let asked = cache::at_the_origin_s_word(&running.tags, &request.method, &url, caller, status, answer);
        running.count_purges(PurgedBy::Origin, Purge::Hard, asked);
        if request.method.is_safe() {
            return;
        }
        let Ok(target) = trip.passed.target(request, forward) else { return };
        let here = (request.scheme, request.authority.as_str(), &*target);
        if !cache::after_unsafe(&running.tags, &request.method, here, status, answer) {
            return;
        }
        // What the client knows it by, where the origin is asked for something else, or the key has not all of it.
        running.end_url(url, trip.passed.kept(running, request));
        for tag in trip.passed.tag_names(request, &trip.route().invalidate) {
            running.tags.order(Subject::named(&tag), Purge::Hard);
            running.count_invalidation();
        }
    }
}

/// Brings the next request of this session to the peer that answers. What is kept for everybody is not touched.
pub(super) fn stick(trip: &Trip, forward: &Forward, open: &Open, fields: &mut HeaderMap) {
    if let Some(sticky) = &trip.running().upstreams[forward.upstream.index()].sticky {
        let facts = trip.passed.facts(&trip.request);
        sticky.answered(&facts, open.answerer(), fields, Instant::now(), SystemTime::now());
    }
}

/// Which of the fields of a peer's answer go on, and how its body is framed for the client.
pub(super) fn answer_fields(trip: &Trip, mut fields: HeaderMap, open: &Open) -> (HeaderMap, Length) {
    let status = open.head.status;
    let length = declared_length(&fields);
    hop_by_hop::clean_response(&mut fields, trip.request.upgrade.as_ref().filter(|_| open.is_upgraded()));
    let length = match (status, length) {
        (StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::SWITCHING_PROTOCOLS, _) => {
            Length::None
        }
        (_, Some(length)) => Length::Known(length),
        // HTTP/2 says the end with the head; gRPC calls such an answer "trailers only" and wants it as it is.
        (_, None) if open.is_over() => Length::None,
        (_, None) => Length::Unknown,
    };
    (fields, length)
}

pub(super) fn declared_length(fields: &HeaderMap) -> Option<u64> {
    fields.get(header::CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

/// Notes who ended an answer before its end.
pub(super) fn broke_off(cut: &Cut, journey: &mut Journey) -> Ended {
    match cut {
        Cut::Peer(failure) => journey.broke(failure.word()),
        Cut::Client(ClientError::Left) => journey.refusal = Some(Refusal::ClientLeft),
        Cut::Client(ClientError::Bad(bad)) => journey.refusal = Some(Refusal::Bad(*bad)),
    }
    Ended::Cut
}

/// What the client hears when no answer came.
pub(super) fn refusal_of(none: &NoAnswer) -> Refusal {
    match none {
        NoAnswer::NoPeer(NoPeer::Full) => Refusal::PeersFull,
        NoAnswer::Failed(Failure::NoSocket) => Refusal::NoSocket,
        NoAnswer::NoPeer(NoPeer::Open(retry_after)) => Refusal::CircuitOpen { retry_after: *retry_after },
        NoAnswer::NoPeer(_) => Refusal::NoPeer,
        NoAnswer::Failed(failure) if failure.status() == StatusCode::GATEWAY_TIMEOUT => {
            Refusal::PeerTimeout(*failure)
        }
        NoAnswer::Failed(failure) => Refusal::PeerFailed(*failure),
        NoAnswer::Client(ClientError::Left) => Refusal::ClientLeft,
        NoAnswer::Client(ClientError::Bad(bad)) => Refusal::Bad(*bad),
    }
}
