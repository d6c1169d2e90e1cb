//! Looking up, waiting for a fill and serving what is stale: the route's cache rule, step by step. `fill.rs` brings what
//! is missing, `head.rs` asks for a head where the route does not want a HEAD to fetch more, `held.rs` says 304 to whoever has what
//! is not kept, `serve.rs` answers from what is
//! there and `coded.rs` from what is there compressed. `turn.rs` says who of many fetches, and `slices.rs` does all of it where
//! answers are kept in parts. `partial.rs` keeps the parts that clients ask for.

mod coded;
mod fill;
mod head;
mod held;
mod partial;
mod serve;
mod slices;
mod turn;

use std::{borrow::Cow, sync::Arc, time::SystemTime};

use http::{Method, StatusCode};
use weir_config::plan::{CacheRule, Forward, RetryOn};

use self::{fill::Fetched, turn::Turn};
use super::{Edge, Ended, Trip, client::Client, exchange::NoAnswer, forwarding::refusal_of};
use crate::{
    cache::{
        self, Ask, Bypass, Cache, CacheStatus, Entry, FillGuard, Forwarded, Guard, Key, Lookup, Mark,
        NotStored, Now, Reader, RequestHead, Rule, Staleness, Subject, Tag,
    },
    decide::{self, Looked},
    forward::{headers::OF_ONE_REQUEST, retry::Failure},
    journey::Journey,
    refusal::Refusal,
};

/// A QUERY with a longer body is passed on: what is held for it, and hashed, is bounded.
const QUERY_BYTES: usize = 64 * 1024;

/// One request under a cache rule.
struct Case<'a> {
    trip: &'a Trip,
    forward: &'a Forward,
    rule: &'a CacheRule,
    /// The same for the cache, with what it says about this request.
    policy: Cow<'a, Rule>,
    cache: &'a Cache,
    /// Whether this is a QUERY whose answer is kept: with its content in the key, it is a GET to the cache.
    is_query: bool,
}

impl Edge {
    /// Answers from the cache if the route has one and it may; otherwise forwards.
    pub(super) async fn look_up_or_forward(
        &self,
        trip: &Trip,
        forward: &Forward,
        looked: Option<Looked>,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let upgrades = trip.upgrade(forward).is_some();
        let Some(rule) = trip.route().cache.as_ref().filter(|_| !upgrades) else {
            let why = if upgrades { cache::UPGRADE } else { cache::NO_RULE };
            journey.cache = Some(CacheStatus::forwarded(Forwarded::Bypass).because(why));
            return Box::pin(self.forward(trip, forward, client, journey)).await;
        };
        let case = Case::of(trip, forward, rule);
        if let Some(size) = case.slice_size() {
            return Box::pin(self.answer_in_slices(&case, size, client, journey)).await;
        }
        let mut looked = match looked {
            Some(looked) => looked,
            None => {
                let Some(key) = case.key(client).await? else {
                    let why = Bypass::RequestBody.word();
                    journey.cache = Some(CacheStatus::forwarded(Forwarded::Bypass).because(why));
                    return Box::pin(self.forward(trip, forward, client, journey)).await;
                };
                decide::look_up(trip.running(), rule.cache, key, &case.request(), &case.policy, Now::read())
            }
        };
        if looked.is_open {
            let (request, now) = (case.request(), Now::read());
            let deeper = decide::look_deeper(trip.running(), rule.cache, looked, &request, &case.policy, now);
            looked = Box::pin(deeper).await;
        }
        let Looked { key, lookup, .. } = looked;
        match lookup {
            Lookup::Hit { entry, ttl } => {
                journey.cache = Some(CacheStatus::hit(ttl));
                self.serve_from(&case, Reader::whole(entry), client, journey).await
            }
            Lookup::OnlyIfCached => Err(Refusal::NotCached.into()),
            // A QUERY cannot be asked again behind the back of whoever has its body.
            Lookup::Stale { entry, staleness, ttl } if staleness.while_revalidate && !case.is_query => {
                let mut status = CacheStatus::stale(&staleness, ttl);
                // Where the answer is not to be kept, the next request whose answer is fetches anew.
                if !case.keeps_nothing()
                    && let Some(guard) = self.renew(&case, key, &entry, &mut status)
                {
                    let status = CacheStatus::expired(&staleness);
                    let usable = usable_on_error(Some(&(entry, staleness)));
                    return Box::pin(self.fill(&case, guard, usable, status, client, journey)).await;
                }
                journey.cache = Some(status);
                self.serve_from(&case, Reader::whole(entry), client, journey).await
            }
            Lookup::Stale { entry, staleness, .. } => {
                let status = CacheStatus::expired(&staleness);
                Box::pin(self.miss(&case, key, Some((entry, staleness)), status, client, journey)).await
            }
            Lookup::Miss(miss) => {
                let status = CacheStatus::forwarded(miss.forwarded());
                Box::pin(self.miss(&case, key, None, status, client, journey)).await
            }
            Lookup::Bypass(Bypass::Range) if case.keeps_parts() => {
                Box::pin(self.answer_from_parts(&case, &key, client, journey)).await
            }
            Lookup::Bypass(reason) => Box::pin(self.bypass(&case, key, reason, client, journey)).await,
        }
    }

    /// Has an entry that may serve meanwhile fetched anew, unless somebody does already. `Some` where the route has the client
    /// itself fetch it, and wait.
    fn renew(
        &self,
        case: &Case<'_>,
        key: Key,
        entry: &Arc<Entry>,
        status: &mut CacheStatus,
    ) -> Option<FillGuard> {
        let ask = self.ask(case, key, Some(Arc::clone(entry)));
        match case.cache.refresh(ask, Now::read()) {
            Some(guard) if case.waits_for_update() => return Some(guard),
            Some(guard) => self.refresh_behind(case, guard),
            None => *status = status.updating(),
        }
        None
    }

    /// Brings what is missing, as far as the route wants to have it.
    async fn miss(
        &self,
        case: &Case<'_>,
        key: Key,
        stale: Option<(Arc<Entry>, Staleness)>,
        mut status: CacheStatus,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        if case.keeps_nothing() {
            status.detail = Some("no-store");
            journey.cache = Some(status);
            return self.forward(case.trip, case.forward, client, journey).await;
        }
        if case.asks_for_head() {
            return self.head_past(case, key, stale, status, client, journey).await;
        }
        self.fill_or_wait(case, key, stale, status, client, journey).await
    }

    /// Passes by what is stored; what the route sends past it may still be kept.
    async fn bypass(
        &self,
        case: &Case<'_>,
        key: Key,
        reason: Bypass,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let status = CacheStatus::forwarded(reason.forwarded()).because(reason.word());
        if reason == Bypass::Route && !case.keeps_nothing() {
            let guard = case.cache.fetch_past(self.ask(case, key, None), Now::read());
            return self.fill(case, guard, None, status, client, journey).await;
        }
        journey.cache = Some(status);
        self.forward(case.trip, case.forward, client, journey).await
    }

    /// Fetches, or waits for whoever is fetching already.
    async fn fill_or_wait(
        &self,
        case: &Case<'_>,
        key: Key,
        stale: Option<(Arc<Entry>, Staleness)>,
        mut status: CacheStatus,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let usable = usable_on_error(stale.as_ref());
        let must_be_asked = stale.as_ref().is_some_and(|(entry, _)| entry.head().freshness.must_be_asked());
        let guard =
            match self.turn(case, &key, stale.as_ref().map(|(entry, _)| entry), usable.is_some()).await {
                Turn::Fetch(guard) => guard,
                Turn::Read(reader) => {
                    journey.cache = Some(CacheStatus { collapsed: true, ..status });
                    return self.serve_from(case, reader, client, journey).await;
                }
                Turn::Stale => {
                    // Only said where there is one.
                    let Some(entry) = usable else { return Err(Refusal::Internal.into()) };
                    return self.serve_stale(case, entry, cache::ORIGIN_FAILED, client, journey).await;
                }
                Turn::Alone(reason) => {
                    status.detail = reason.or(status.detail);
                    journey.cache = Some(status);
                    let forwarded = self.forward(case.trip, case.forward, client, journey).await;
                    return forwarded.map_err(|ended| unconfirmed(ended, must_be_asked));
                }
            };
        self.fill(case, guard, usable, status, client, journey).await
    }

    /// Fetches; `usable` is stale, and better than a failure.
    async fn fill(
        &self,
        case: &Case<'_>,
        mut guard: FillGuard,
        usable: Option<Arc<Entry>>,
        status: CacheStatus,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        // Another edge may know, for less than a request to the origin.
        if let Some((entry, ttl)) = guard.ask_fleet(case.rule.lock_timeout, Now::read()).await {
            journey.cache = Some(CacheStatus::hit(ttl).because(cache::SHARED));
            return self.serve_from(case, Reader::whole(entry), client, journey).await;
        }
        let usable = usable.or_else(|| guard.usable_on_error(Now::read()));
        let must_be_asked = guard.stale().is_some_and(|entry| entry.head().freshness.must_be_asked());
        match self.fetch(case, guard, usable.is_some(), status, Some(client), &mut journey.attempts).await? {
            Fetched::None(NoAnswer::Client(error)) => Err(error.into()),
            Fetched::None(none) => {
                journey.cache = Some(status);
                let refusal = refusal_of(&none);
                match usable.filter(|_| case.covers(&refusal)) {
                    Some(entry) => self.serve_stale(case, entry, cache::ORIGIN_FAILED, client, journey).await,
                    None => Err(unconfirmed(refusal.into(), must_be_asked)),
                }
            }
            fetched => self.deliver(case, fetched, client, journey).await,
        }
    }

    /// Answers with what was fetched.
    async fn deliver(
        &self,
        case: &Case<'_>,
        fetched: Fetched,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        match fetched {
            Fetched::Kept(reader, None, status) => {
                journey.cache = Some(status);
                self.serve_from(case, reader, client, journey).await
            }
            Fetched::Kept(reader, Some(fields), status) => {
                journey.cache = Some(status);
                let answer = cache::first_answer(reader.head(), fields, reader.extent(), &case.request());
                self.serve(case, answer, reader, client, journey).await
            }
            Fetched::Passing(open, guard, status) => {
                journey.cache = Some(status);
                match guard {
                    None if case.is_held(&open) => self.pass_not_modified(case, open, client, journey).await,
                    None => self.pass_back(case.trip, case.forward, open, client, journey).await,
                    Some(guard) => self.pass_and_keep(case, open, guard, client, journey).await,
                }
            }
            Fetched::None(none) => Err(refusal_of(&none).into()),
        }
    }

    fn ask(&self, case: &Case<'_>, key: Key, stale: Option<Arc<Entry>>) -> Ask {
        let (trip, request) = (case.trip, &case.trip.request);
        let target = trip.passed.target(request, case.forward).unwrap_or_default();
        Ask {
            key,
            uri: Tag::uri(request.scheme, &request.authority, &target),
            url: request.url(),
            // A HEAD that misses fetches what GET would: the next GET is a hit (nginx `proxy_cache_convert_head`).
            method: Method::GET,
            headers: request.headers.clone(),
            has_body: false,
            rule: case.policy.clone().into_owned(),
            stale,
            guard: case.guard(),
            named: if case.cache.is_shared() { case.subjects(&target) } else { Vec::new() },
        }
    }
}

/// What the client hears when nobody answered: of an entry that must not be used without asking, that it could not be.
fn unconfirmed(ended: Ended, must_be_asked: bool) -> Ended {
    match ended {
        Ended::Refused(Refusal::NoPeer | Refusal::PeerFailed(_)) if must_be_asked => {
            Ended::Refused(Refusal::NotValidated)
        }
        ended => ended,
    }
}

/// The entry that is better than no answer, if there is one.
fn usable_on_error(stale: Option<&(Arc<Entry>, Staleness)>) -> Option<Arc<Entry>> {
    stale.filter(|(_, staleness)| staleness.on_error).map(|(entry, _)| Arc::clone(entry))
}

impl<'a> Case<'a> {
    fn of(trip: &'a Trip, forward: &'a Forward, rule: &'a CacheRule) -> Self {
        let policy = trip.passed.policy(trip.running(), &trip.request, rule);
        let is_query = rule.keeping.queries && trip.request.method == Method::QUERY;
        Self { trip, forward, rule, policy, cache: &trip.running().caches[rule.cache.index()], is_query }
    }

    /// What the answer is looked up by; `None` for a QUERY that sends more than is held.
    async fn key(&self, client: &mut Client) -> Result<Option<Key>, Ended> {
        let (trip, rule, forward) = (self.trip, self.rule, self.forward);
        if !self.is_query {
            return Ok(Some(trip.passed.key(&trip.request, rule, forward)?));
        }
        client.gather(QUERY_BYTES).await?;
        match client.replay().filter(|content| client.body_done() && content.len() <= QUERY_BYTES) {
            Some(content) => Ok(Some(trip.passed.key_of_query(&trip.request, rule, forward, &content)?)),
            None => Ok(None),
        }
    }

    /// Whether the route forbids to keep the answer.
    fn keeps_nothing(&self) -> bool {
        self.trip.passed.keeps_nothing(&self.trip.request, self.rule)
    }

    /// Whether this is a HEAD that is not asked as GET.
    fn asks_for_head(&self) -> bool {
        !self.rule.keeping.convert_head && self.trip.request.method == Method::HEAD
    }

    /// Whether the client that finds something stale, and nobody who fetches it anew, waits until it has done that.
    fn waits_for_update(&self) -> bool {
        !self.rule.keeping.background_update && !self.asks_for_head()
    }

    /// Whether what is stale may stand in for a refusal of ours.
    fn covers(&self, refusal: &Refusal) -> bool {
        let on = &self.rule.keeping.stale_on;
        match refusal {
            Refusal::PeerFailed(failure) | Refusal::PeerTimeout(failure) => failure.is_in(on),
            // Nobody could be asked: in nginx, too, an `error`.
            other => other.said().status.is_server_error() && on.contains(&RetryOn::Error),
        }
    }

    /// Whether it may stand in for an answer with this status.
    fn covers_status(&self, status: StatusCode) -> bool {
        Failure::Status(status).is_in(&self.rule.keeping.stale_on)
    }

    fn request(&self) -> RequestHead<'a> {
        let request = &self.trip.request;
        if self.is_query {
            return RequestHead { method: &Method::GET, headers: &request.headers, has_body: false };
        }
        RequestHead { method: &request.method, headers: &request.headers, has_body: request.has_body }
    }

    /// Tells the operator of an answer that would have shown one caller's own to others. Not what it was.
    fn tell_of(&self, reason: NotStored) {
        let NotStored::Leak(_) = reason else { return };
        if self.trip.running().count_leak(self.rule.cache, SystemTime::now()) {
            tracing::warn!(
                route = %self.trip.route().name,
                request_id = self.trip.request.id(),
                found = reason.word(),
                "an answer marked as everybody's showed its caller's own, and was not kept"
            );
        }
    }

    /// What an answer that is kept for others must not show. Under a key that names the caller it is for nobody else.
    fn guard(&self) -> Guard {
        if self.policy.private_to_caller {
            return Guard::default();
        }
        let mut guard = Guard::of(&self.trip.request.headers);
        OF_ONE_REQUEST.into_iter().for_each(|name| guard.is_told(name));
        if let Some(signer) = &self.trip.running().identity {
            guard.is_told(signer.header().clone());
        }
        let own = self.trip.route().request_headers.iter();
        own.filter(|(_, value)| value.variables().count() > 0)
            .for_each(|(name, _)| guard.is_told(name.clone()));
        if self.trip.passed.tells_who_asks(self.trip.running(), &self.trip.request) {
            guard.has_session();
        }
        if let Some(caller) = self.trip.passed.caller() {
            for (mark, field) in
                [(Mark::UserId, "user_id"), (Mark::SessionId, "session_id"), (Mark::Email, "email")]
            {
                guard.knows(mark, caller.field(field).unwrap_or_default().as_bytes());
            }
        }
        if let Some(token) = self.trip.token() {
            guard.knows(Mark::Token, token.expose().as_bytes());
        }
        guard
    }

    /// What [`Case::tags`] and the target as it is forwarded are called among edges.
    fn subjects(&self, target: &str) -> Vec<Subject> {
        let (passed, request) = (&self.trip.passed, &self.trip.request);
        let mut subjects = vec![Subject::uri(request.scheme, &request.authority, target)];
        let names = passed.tag_names(request, &self.rule.tags);
        subjects.extend(names.iter().map(|name| Subject::named(name)));
        let caller = passed.caller().filter(|_| self.policy.private_to_caller);
        subjects.extend(caller.map(|caller| Subject::caller(caller.user_id())));
        subjects
    }

    /// What the answer is purged by, besides what the cache knows itself: the route's templates, and the caller it is
    /// kept for.
    fn tags(&self) -> Vec<Tag> {
        let mut tags = self.trip.passed.tags(&self.trip.request, self.rule);
        if let Some(caller) = self.trip.passed.caller().filter(|_| self.policy.private_to_caller) {
            tags.push(Tag::caller(caller.user_id()));
        }
        tags
    }
}
