//! THE REQUEST PATH, express lane: the same stages for what can be answered at once: a GET or HEAD, without conditions and
//! parts, whose session is in memory and whose answer is there and fresh.
//!
//! It asks [`decide`] and the cache what the general lane asks them, in the same order, and writes the very bytes that the
//! general lane would write; a test holds both to that. What differs from one answer to the next is filled into a head that
//! was made once for the entry and the route ([`Prepared`]), or, for HTTP/2, into its fields. Whatever cannot be answered so goes on to the general lane as
//! [`Begun`], with everything that was found out, charged and counted: nothing is asked twice.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use weir_config::plan::{Action, CacheId};

use crate::{
    accept::{Arrival, exchange::Head},
    cache::{self, CacheStatus, Entry, Extent, Lookup, Now, RequestHead},
    decide::{self, CACHE_STATUS, Decided, Looked, Passed, frame_by_length},
    forward::trace::X_REQUEST_ID,
    journey::Journey,
    limit::Admitted,
    refusal::Refusal,
    request::RequestView,
    running::{Lane, Running},
    state::{Held, InFlight, State},
    wire::{Gap, Prepared, put_number},
};

/// Bodies up to this length are copied behind their head: one buffer costs the kernel less than two.
const COPIED: usize = 4 << 10;

/// A request on its way, whichever lane ends it.
#[derive(Debug)]
pub struct Begun {
    /// The generation it began with, and ends with.
    pub snapshot: Held,
    /// Its memory.
    pub journey: Journey,
    /// How far it came.
    pub stage: Stage,
    /// It counts as under way.
    pub in_flight: InFlight,
}

/// How far a request came.
#[derive(Debug)]
pub enum Stage {
    /// Its head was read, and nothing asked yet.
    Head(Head),
    /// It asks for a session that is not in memory.
    Waits(Decided),
    /// It passed; and what there was in the cache, where that was looked up.
    Passed(Passed, Option<Looked>),
    /// It may not go on.
    Refused(Refusal),
}

/// A request whose answer was made and is being written.
#[derive(Debug)]
pub struct Answered {
    begun: Box<Begun>,
    body_bytes: u64,
}

/// What is left to be sent of an answer whose head was written.
#[derive(Debug)]
pub struct Rest {
    /// The body, unless it was short.
    pub body: Bytes,
    /// Whether the connection ends with it.
    pub closes: bool,
    /// The request.
    pub answered: Answered,
}

impl Begun {
    /// A request whose head was read.
    #[must_use]
    pub fn new(state: &State, head: Head, arrival: Arrival) -> Box<Self> {
        let (snapshot, in_flight) = (state.snapshot(), state.begin());
        Box::new(Self { snapshot, journey: Journey::new(arrival), stage: Stage::Head(head), in_flight })
    }

    /// Answers behind what is in `out`, or goes as far as that needs no waiting. For a request without a body.
    ///
    /// # Errors
    /// The request, when it needs the general lane.
    pub fn answer_at_once(mut self: Box<Self>, out: &mut BytesMut) -> Result<Rest, Box<Self>> {
        let now = self.advance();
        let Some(hit) = self.hit(now) else { return Err(self) };
        let (body, closes) = (hit.body(), self.journey.arrival.is_closing());
        let (copied, rest) = if body.len() <= COPIED { (&**body, None) } else { (&[][..], Some(body)) };
        if !hit.put_head(!closes, copied.len(), out) {
            return Err(self);
        }
        out.extend_from_slice(copied);
        let (rest, hit) = (rest.cloned().unwrap_or_default(), hit.noted(body.len()));
        // What is in `out` as a whole leaves with its neighbours: it is not under way any more when the next is looked at.
        if rest.is_empty() {
            self.journey.admitted = Admitted::default();
        }
        Ok(Rest { body: rest, closes, answered: self.answered(hit) })
    }

    /// The same with a head in fields, for a protocol that has its own form of them.
    ///
    /// # Errors
    /// As [`Self::answer_at_once`].
    pub fn answer_in_fields(mut self: Box<Self>) -> Result<(StatusCode, HeaderMap, Rest), Box<Self>> {
        let now = self.advance();
        let Some((hit, fields)) = self.hit(now).and_then(|hit| Some((hit, hit.fields()?))) else {
            return Err(self);
        };
        let (body, closes, status) = (hit.body().clone(), self.journey.arrival.is_closing(), hit.status());
        let hit = hit.noted(body.len());
        Ok((status, fields, Rest { body, closes, answered: self.answered(hit) }))
    }

    /// What answers, once it came as far as it can.
    fn hit(&self, now: Now) -> Option<Hit<'_>> {
        Hit::of(&self.snapshot.running, &self.stage, self.journey.request.as_deref(), now)
    }

    fn answered(mut self: Box<Self>, noted: Noted) -> Answered {
        (self.journey.answer.status, self.journey.cache) = (noted.status.as_u16(), Some(noted.cache));
        Answered { begun: self, body_bytes: noted.body_bytes }
    }

    /// As far as nothing has to be waited for.
    fn advance(&mut self) -> Now {
        let now = Now { wall: self.journey.arrival.wall, mono: self.journey.arrival.complete };
        let is_plain = |head: &Head| matches!(head.method, Method::GET | Method::HEAD);
        if !self.snapshot.running.plan.express || !matches!(&self.stage, Stage::Head(head) if is_plain(head))
        {
            return now;
        }
        // What stands there meanwhile is seen by nobody.
        if let Stage::Head(head) = std::mem::replace(&mut self.stage, Stage::Refused(Refusal::Internal)) {
            self.stage = begin(&self.snapshot.running, head, &mut self.journey, now);
        }
        now
    }
}

impl Answered {
    /// Writes the request down, now that its answer was written, or only some of it.
    pub fn written(mut self, whole: bool) {
        let Begun { snapshot, journey, .. } = &mut *self.begun;
        journey.answer.complete = whole;
        journey.answer.body_bytes = if whole { self.body_bytes } else { 0 };
        snapshot.recorder.finish(journey, snapshot.running.upstream_of(journey.route));
    }
}

/// accepted, routed, limited, authenticated, looked up: as far as nothing has to be waited for.
fn begin(running: &Running, head: Head, journey: &mut Journey, now: Now) -> Stage {
    let request = match RequestView::read(head, false, &journey.arrival, &running.plan) {
        Ok(request) => &**journey.request.insert(Arc::new(request)),
        Err(refusal) => return Stage::Refused(refusal),
    };
    let decision = match decide::decide(running, request, now) {
        Decided::Now(decision) => decision,
        waits @ Decided::Wait(_) => return Stage::Waits(waits),
    };
    (journey.route, journey.caller) = (decision.route, decision.caller);
    journey.admitted = decision.admitted;
    match decision.verdict {
        Err(refusal) => Stage::Refused(refusal),
        Ok(passed) => match look_up(running, request, &passed, now) {
            Ok(looked) => Stage::Passed(passed, looked),
            Err(refusal) => Stage::Refused(refusal),
        },
    }
}

/// What there is in the cache, where the route has a lane.
fn look_up(
    running: &Running,
    request: &RequestView,
    passed: &Passed,
    now: Now,
) -> Result<Option<Looked>, Refusal> {
    let route = passed.route(running);
    let has_lane = running.express(passed.route_id()).is_some() && request.upgrade.is_none();
    let (Some(rule), Action::Forward(forward), true) = (&route.cache, &route.action, has_lane) else {
        return Ok(None);
    };
    let policy = passed.policy(running, request, rule);
    let key = passed.key(request, rule, forward)?;
    let head = RequestHead { method: &request.method, headers: &request.headers, has_body: request.has_body };
    Ok(Some(decide::look_up(running, rule.cache, key, &head, &policy, now)))
}

/// What is written down about a hit.
struct Noted {
    status: StatusCode,
    cache: CacheStatus,
    body_bytes: u64,
}

/// An entry that answers a request as it is.
#[derive(Clone, Copy)]
struct Hit<'a> {
    running: &'a Running,
    request: &'a RequestView,
    passed: &'a Passed,
    lane: Lane,
    cache: CacheId,
    entry: &'a Entry,
    ttl: i64,
    now: Now,
}

impl<'a> Hit<'a> {
    /// Whether an answer is there, whole and in one piece, and the client asks for nothing else than it.
    fn of(
        running: &'a Running,
        stage: &'a Stage,
        request: Option<&'a RequestView>,
        now: Now,
    ) -> Option<Self> {
        const OTHERWISE: [HeaderName; 3] = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE];
        let (Stage::Passed(passed, Some(looked)), Some(request)) = (stage, request) else { return None };
        let Lookup::Hit { entry, ttl } = &looked.lookup else { return None };
        let status = entry.head().status;
        let is_shown = !passed.route(running).intercept_errors || status.is_success();
        let is_plain = is_shown
            && status != StatusCode::NO_CONTENT
            && entry.body().chunks().len() <= 1
            && entry.body().stored().is_none()
            && (cache::is_plain(&request.headers)
                || !OTHERWISE.iter().any(|name| request.headers.contains_key(name)));
        let lane = running.express(passed.route_id()).filter(|_| is_plain)?;
        let cache = passed.route(running).cache.as_ref()?.cache;
        Some(Self { running, request, passed, lane, cache, entry, ttl: *ttl, now })
    }

    fn status(&self) -> StatusCode {
        self.entry.head().status
    }

    fn cache_status(&self) -> CacheStatus {
        CacheStatus::hit(self.ttl)
    }

    /// Empty for HEAD.
    fn body(&self) -> &'a Bytes {
        static NOTHING: Bytes = Bytes::new();
        let chunks = self.entry.body().chunks().first();
        chunks.filter(|_| self.request.method != Method::HEAD).unwrap_or(&NOTHING)
    }

    /// Counts it.
    fn noted(self, body_bytes: usize) -> Noted {
        self.running.count_express(self.cache);
        Noted { status: self.status(), cache: self.cache_status(), body_bytes: body_bytes as u64 }
    }

    /// The fields of its head, by the steps of the general lane.
    fn fields(&self) -> Option<HeaderMap> {
        let length = self.entry.body().length();
        let plain = RequestHead { method: &Method::GET, headers: &HeaderMap::new(), has_body: false };
        let answer = cache::answer(self.entry.head(), Extent::Complete(length), &plain, self.now);
        let mut fields = answer.headers;
        // What the origin asks for this one answer is for the general lane to obey.
        if fields.keys().any(|name| name.as_str().starts_with("x-accel-")) {
            return None;
        }
        self.passed.dress(self.running, self.request, Some(&self.cache_status()), &mut fields);
        frame_by_length(&mut fields, length);
        Some(fields)
    }

    /// Its head with this request's values in the gaps.
    fn prepare(&self) -> Option<Prepared> {
        let fields = self.fields()?;
        let own = &self.passed.route(self.running).response_headers;
        Prepared::new(self.lane.id(), self.status(), &fields, |name, value, is_last| {
            let gap = if *name == header::AGE {
                (0, Gap::Age)
            } else if *name == X_REQUEST_ID {
                (0, Gap::RequestId)
            } else if *name == CACHE_STATUS && is_last {
                // A hit says nothing behind it.
                (value.iter().rposition(|byte| *byte == b'=')? + 1, Gap::Ttl)
            } else {
                return None;
            };
            // What the route sets is the same for everybody.
            own.iter().all(|(set, _)| set != name).then_some(gap)
        })
    }

    /// Writes the head that was made for this lane, or one that is made now; false where there can be none.
    fn put_head(&self, keeps: bool, more: usize, out: &mut BytesMut) -> bool {
        let age = || self.entry.head().freshness.age(self.now).as_secs();
        let mut put = |prepared: &Prepared| {
            prepared.put(out, keeps, more, |gap, out| match gap {
                Gap::Age => put_number(out, i64::try_from(age()).unwrap_or(i64::MAX)),
                Gap::Ttl => put_number(out, self.ttl),
                Gap::RequestId => out.extend_from_slice(self.request.id.as_bytes()),
            });
        };
        // Looked at and not held: the count of who holds it would be written to by every hit.
        let known = self.entry.prepared().load();
        if let Some(known) = known.as_ref().filter(|known| known.is_by(self.lane.id())) {
            put(known);
            return true;
        }
        let Some(made) = self.prepare() else { return false };
        put(&made);
        self.entry.prepared().store(Some(Arc::new(made)));
        true
    }
}
