//! Looking up, waiting for a fill and serving what is stale: the route's cache rule, step by step. `fill.rs` brings what
//! is missing, `head.rs` asks for a head where the route does not want a HEAD to fetch more.

mod fill;
mod head;

use std::{borrow::Cow, sync::Arc};

use http::Method;
use weir_config::{
    plan::{CacheRule, Forward},
    template::Template,
};

use self::fill::Fetched;
use super::{
    Edge, Ended, Trip,
    client::Client,
    exchange::NoAnswer,
    forwarding::{declared_length, refusal_of},
    reply::{self, Length},
};
use crate::{
    cache::{
        self, Answer, Ask, Begin, Bypass, Cache, CacheStatus, Entry, FillGuard, Forwarded, Key, Lookup, Now,
        Outcome, Reader, RequestHead, Rule, Staleness, Tag,
    },
    journey::Journey,
    refusal::Refusal,
};

/// One request under a cache rule.
struct Case<'a> {
    trip: &'a Trip,
    forward: &'a Forward,
    rule: &'a CacheRule,
    /// The same for the cache, with what it says about this request.
    policy: Cow<'a, Rule>,
    cache: &'a Cache,
}

impl Edge {
    /// Answers from the cache if the route has one and it may; otherwise forwards.
    pub(super) async fn look_up_or_forward(
        &self,
        trip: &Trip,
        forward: &Forward,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let upgrades = trip.upgrade(forward).is_some();
        let Some(rule) = trip.route().cache.as_ref().filter(|_| !upgrades) else {
            journey.cache = Some(CacheStatus {
                forwarded: Some(Forwarded::Bypass),
                detail: Some(if upgrades { "upgrade" } else { "no-rule" }),
                ..CacheStatus::default()
            });
            return Box::pin(self.forward(trip, forward, client, journey)).await;
        };
        let case = Case::of(trip, forward, rule);
        let (key, now) = (self.key(&case)?, Now::read());
        let lookup = case.cache.lookup(&key, &case.request(), &case.policy, now);
        trip.running().count_lookup(rule.cache, &lookup);
        match lookup {
            Lookup::Hit { entry, ttl } => {
                journey.cache = Some(CacheStatus { ttl: Some(ttl), ..CacheStatus::default() });
                self.serve_from(&case, Reader::whole(entry), client, journey).await
            }
            Lookup::OnlyIfCached => Err(Refusal::NotCached.into()),
            Lookup::Stale { entry, staleness, ttl } if staleness.while_revalidate => {
                self.refresh_behind(&case, key, &entry);
                journey.cache = Some(CacheStatus { ttl: Some(ttl), ..CacheStatus::default() });
                self.serve_from(&case, Reader::whole(entry), client, journey).await
            }
            Lookup::Stale { entry, staleness, .. } => {
                let status = CacheStatus {
                    forwarded: Some(staleness.expired.forwarded()),
                    detail: Some(staleness.expired.word()),
                    ..CacheStatus::default()
                };
                Box::pin(self.miss(&case, key, Some((entry, staleness)), status, client, journey)).await
            }
            Lookup::Miss(miss) => {
                let status = CacheStatus { forwarded: Some(miss.forwarded()), ..CacheStatus::default() };
                Box::pin(self.miss(&case, key, None, status, client, journey)).await
            }
            Lookup::Bypass(reason) => Box::pin(self.bypass(&case, key, reason, client, journey)).await,
        }
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
        let status = CacheStatus {
            forwarded: Some(reason.forwarded()),
            detail: Some(reason.word()),
            ..CacheStatus::default()
        };
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
        let now = Now::read();
        let ask = self.ask(case, key, stale.as_ref().map(|(entry, _)| Arc::clone(entry)));
        let usable = stale.filter(|(_, staleness)| staleness.on_error).map(|(entry, _)| entry);
        let guard = match case.cache.begin(ask, now) {
            Begin::Fill(guard) => guard,
            Begin::Found(entry) => {
                journey.cache = Some(CacheStatus { collapsed: true, ..status });
                return self.serve_from(case, Reader::whole(entry), client, journey).await;
            }
            Begin::Wait(waiter) => match waiter.wait(case.rule.lock_timeout, now).await {
                Outcome::Fill(guard) => guard,
                Outcome::Ready(reader) => {
                    journey.cache = Some(CacheStatus { collapsed: true, ..status });
                    return self.serve_from(case, reader, client, journey).await;
                }
                Outcome::OriginFailed => {
                    if let Some(entry) = usable {
                        return self.serve_stale(case, entry, "origin-failed", client, journey).await;
                    }
                    journey.cache = Some(status);
                    return self.forward(case.trip, case.forward, client, journey).await;
                }
                Outcome::NotStored(reason) => {
                    status.detail = Some(reason.word());
                    journey.cache = Some(status);
                    return self.forward(case.trip, case.forward, client, journey).await;
                }
                Outcome::TimedOut => {
                    status.detail = Some("lock-timeout");
                    journey.cache = Some(status);
                    return self.forward(case.trip, case.forward, client, journey).await;
                }
            },
        };
        self.fill(case, guard, usable, status, client, journey).await
    }

    /// Fetches; `usable` is stale, and better than a failure.
    async fn fill(
        &self,
        case: &Case<'_>,
        guard: FillGuard,
        usable: Option<Arc<Entry>>,
        status: CacheStatus,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        match self.fetch(case, guard, usable.is_some(), status, Some(client), &mut journey.attempts).await? {
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
                    None => self.pass_back(case.trip, case.forward, open, client, journey).await,
                    Some(guard) => self.pass_and_keep(case, open, guard, client, journey).await,
                }
            }
            Fetched::None(NoAnswer::Client(error)) => Err(error.into()),
            Fetched::None(none) => {
                journey.cache = Some(status);
                match usable {
                    Some(entry) => self.serve_stale(case, entry, "origin-failed", client, journey).await,
                    None => Err(refusal_of(&none).into()),
                }
            }
        }
    }

    async fn serve_stale(
        &self,
        case: &Case<'_>,
        entry: Arc<Entry>,
        why: &'static str,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let ttl = entry.head().freshness.ttl(Now::read());
        journey.cache = Some(CacheStatus { ttl: Some(ttl), detail: Some(why), ..CacheStatus::default() });
        self.serve_from(case, Reader::whole(entry), client, journey).await
    }

    /// Answers one client from what is kept or arriving, its conditions and ranges included.
    async fn serve_from(
        &self,
        case: &Case<'_>,
        reader: Reader,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let answer = cache::answer(reader.head(), reader.extent(), &case.request(), Now::read());
        self.serve(case, answer, reader, client, journey).await
    }

    async fn serve(
        &self,
        case: &Case<'_>,
        answer: Answer,
        mut reader: Reader,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        if let Some(shown) = self.intercept(case.trip, answer.status, &answer.headers, client, journey).await
        {
            return shown;
        }
        let length = match declared_length(&answer.headers) {
            Some(length) => Length::Known(length),
            None => Length::None,
        };
        let head = reply::head(case.trip, journey, client, answer.status, answer.headers, length);
        journey.answer.status = answer.status.as_u16();
        let bodiless = answer.body == cache::Plan::Nothing;
        client.head(head, bodiless).await?;
        if bodiless {
            return Ok(());
        }
        if let Some(entry) = reader.entry() {
            for piece in answer.body.chunks(entry.body()) {
                client.body(piece).await.map_err(|_| Ended::Cut)?;
            }
            return Ok(());
        }
        loop {
            let next = match client.at_once(reader.next()).await.map_err(|_| Ended::Cut)? {
                Some(next) => next,
                None => reader.next().await,
            };
            let Some(piece) = next else { return Ok(()) };
            // A fill that broke must not pass for a whole body.
            let piece = piece.map_err(|_| Ended::Cut)?;
            client.body(piece).await.map_err(|_| Ended::Cut)?;
        }
    }

    /// What tells this answer apart from others: the route's template, or scheme, host and target.
    fn key(&self, case: &Case<'_>) -> Result<Key, Refusal> {
        let request = &case.trip.request;
        Ok(match &case.rule.key {
            Some(template) => {
                let mut text = String::with_capacity(96);
                template.render_key(&case.trip.passed.facts(request), &mut text);
                Key::rendered("", &text, String::new())
            }
            None => {
                let target = self.target(case.trip, case.forward)?;
                Key::target(request.scheme, &request.authority, &target, String::new())
            }
        })
    }

    fn ask(&self, case: &Case<'_>, key: Key, stale: Option<Arc<Entry>>) -> Ask {
        let (trip, request) = (case.trip, &case.trip.request);
        let target = self.target(trip, case.forward).unwrap_or_default();
        Ask {
            key,
            uri: Tag::uri(request.scheme, &request.authority, &target),
            // A HEAD that misses fetches what GET would: the next GET is a hit (nginx `proxy_cache_convert_head`).
            method: Method::GET,
            headers: request.headers.clone(),
            has_body: false,
            rule: case.policy.clone().into_owned(),
            stale,
        }
    }

    /// What the answer is purged by: the route's templates; the origin's own fields are read by the cache.
    fn tags(&self, case: &Case<'_>) -> Vec<Tag> {
        let facts = case.trip.passed.facts(&case.trip.request);
        let tag = |template: &weir_config::template::Template| {
            let mut text = String::new();
            template.render_key(&facts, &mut text);
            Tag::named(&text)
        };
        case.rule.tags.iter().map(tag).collect()
    }
}

impl Trip {
    /// Whether one of these is neither empty nor `0`, for this request (nginx's `proxy_cache_bypass`).
    fn holds(&self, conditions: &[Template]) -> bool {
        let facts = self.passed.facts(&self.request);
        conditions.iter().any(|condition| {
            let mut text = String::new();
            condition.render(&facts, &mut text);
            !text.is_empty() && text != "0"
        })
    }
}

impl<'a> Case<'a> {
    fn of(trip: &'a Trip, forward: &'a Forward, rule: &'a CacheRule) -> Self {
        let mut policy = Cow::Borrowed(trip.running().cache_rule(trip.passed.route_id()));
        if trip.holds(&rule.keeping.bypass) {
            policy.to_mut().bypassed = true;
        }
        Self { trip, forward, rule, policy, cache: &trip.running().caches[rule.cache.index()] }
    }

    /// Whether the route forbids to keep the answer.
    fn keeps_nothing(&self) -> bool {
        self.trip.holds(&self.rule.keeping.no_store)
    }

    /// Whether this is a HEAD that is not asked as GET.
    fn asks_for_head(&self) -> bool {
        !self.rule.keeping.convert_head && self.trip.request.method == Method::HEAD
    }

    fn request(&self) -> RequestHead<'a> {
        let request = &self.trip.request;
        RequestHead { method: &request.method, headers: &request.headers, has_body: request.has_body }
    }
}
