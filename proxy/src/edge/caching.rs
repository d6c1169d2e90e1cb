//! Looking up, filling, waiting and serving what is stale: the route's cache rule, step by step.
//!
//! One request of those that miss goes to the origin with the fill; once the head says the answer may be kept and how
//! long it is, a task reads the rest and every client, the first one included, reads from the fill. So a client may
//! leave or be slow without anyone else noticing. An answer of unknown length is passed on by the request that fetched
//! it, which goes on filling when its client leaves.

use std::{sync::Arc, time::Instant};

use http::{HeaderMap, Method, StatusCode, header};
use weir_config::plan::{CacheRule, Forward};

use super::{
    Edge, Ended, Trip,
    client::Client,
    exchange::{self, NoAnswer, Open},
    forwarding::{Framing, answer_fields, refusal_of},
    reply::{self, Length},
};
use crate::{
    cache::{
        self, Ask, Begin, Bypass, Cache, CacheStatus, Decision, Entry, FillGuard, Forwarded, Key, Lookup,
        Now, Outcome, Reader, RequestHead, Staleness, Tag,
    },
    journey::{Attempt, Journey},
    refusal::Refusal,
};

/// One request under a cache rule.
struct Case<'a> {
    trip: &'a Trip,
    forward: &'a Forward,
    rule: &'a CacheRule,
    cache: &'a Cache,
}

/// What a fetch for the cache brought.
enum Fetched {
    /// Something that is kept: read it from there.
    Kept(Reader, CacheStatus),
    /// An answer for this request alone, or one that is passed on while it is kept.
    Passing(Box<Open>, Option<FillGuard>, CacheStatus),
    /// No answer.
    None(NoAnswer),
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
        let Some(rule) = &trip.route().cache else {
            journey.cache = Some(CacheStatus {
                forwarded: Some(Forwarded::Bypass),
                detail: Some("no-rule"),
                ..CacheStatus::default()
            });
            return self.forward(trip, forward, client, journey).await;
        };
        let case = Case { trip, forward, rule, cache: &trip.running().caches[rule.cache.index()] };
        let (key, now) = (self.key(&case)?, Now::read());
        let lookup =
            case.cache.lookup(&key, &case.request(), trip.running().cache_rule(trip.passed.route_id()), now);
        trip.running().count_lookup(rule.cache, &lookup);
        match lookup {
            Lookup::Hit { entry, ttl } => {
                journey.cache = Some(CacheStatus { ttl: Some(ttl), ..CacheStatus::default() });
                self.serve_from(&case, Reader::whole(entry), client, journey).await
            }
            Lookup::OnlyIfCached => Err(Refusal::NotCached.into()),
            Lookup::Bypass(reason) => self.bypass(&case, reason, client, journey).await,
            Lookup::Miss(miss) => {
                let status = CacheStatus { forwarded: Some(miss.forwarded()), ..CacheStatus::default() };
                self.fill_or_wait(&case, key, None, status, client, journey).await
            }
            Lookup::Stale { entry, staleness, ttl } => {
                let status = CacheStatus {
                    forwarded: Some(staleness.expired.forwarded()),
                    detail: Some(staleness.expired.word()),
                    ..CacheStatus::default()
                };
                if staleness.while_revalidate {
                    self.refresh_behind(&case, key, &entry);
                    journey.cache = Some(CacheStatus { ttl: Some(ttl), ..CacheStatus::default() });
                    return self.serve_from(&case, Reader::whole(entry), client, journey).await;
                }
                self.fill_or_wait(&case, key, Some((entry, staleness)), status, client, journey).await
            }
        }
    }

    async fn bypass(
        &self,
        case: &Case<'_>,
        reason: Bypass,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        journey.cache = Some(CacheStatus {
            forwarded: Some(reason.forwarded()),
            detail: Some(reason.word()),
            ..CacheStatus::default()
        });
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
        match self.fetch(case, guard, usable.is_some(), status, Some(client), &mut journey.attempts).await? {
            Fetched::Kept(reader, status) => {
                journey.cache = Some(status);
                self.serve_from(case, reader, client, journey).await
            }
            Fetched::Passing(open, guard, status) => {
                journey.cache = Some(status);
                match guard {
                    None => self.pass_back(case.trip, case.forward, *open, client, journey).await,
                    Some(guard) => self.pass_and_keep(case, *open, guard, client, journey).await,
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

    /// Asks the origin on behalf of a fill, and says what came of it.
    async fn fetch(
        &self,
        case: &Case<'_>,
        mut guard: FillGuard,
        has_stale: bool,
        mut status: CacheStatus,
        mut client: Option<&mut Client>,
        attempts: &mut Vec<Attempt>,
    ) -> Result<Fetched, Ended> {
        loop {
            let mut fields = case.trip.request.headers.clone();
            // The origin is asked for the whole; the client's conditions are answered from what comes.
            for name in [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE, header::RANGE] {
                fields.remove(name);
            }
            if let Some(entry) = guard.stale() {
                entry.head().validate(&mut fields);
            }
            let head = self.request_head(case.trip, case.forward, &Method::GET, fields, Framing::Nothing)?;
            let call = self.call(case.trip, case.forward, head);
            let opened = exchange::open(&self.connector, call, client.as_deref_mut(), attempts).await;
            let open = match opened {
                Ok(open) => open,
                // The client's end is no news about the origin: the next waiter takes the fill over.
                Err(NoAnswer::Client(error)) => return Ok(Fetched::None(NoAnswer::Client(error))),
                Err(none) => {
                    guard.origin_failed();
                    return Ok(Fetched::None(none));
                }
            };
            let (now, origin) = (Now::read(), open.head.status);
            status.origin = Some(origin);
            if origin.is_server_error() && has_stale {
                guard.origin_failed();
                open.done(&self.connector).await;
                return Ok(Fetched::None(NoAnswer::Failed(crate::forward::retry::Failure::Status(origin))));
            }
            let tags = self.tags(case);
            let (fields, length) = answer_fields(case.trip, &open);
            if origin == StatusCode::NOT_MODIFIED && guard.stale().is_some() {
                let confirmed = guard.not_modified(&fields, &tags, now);
                open.done(&self.connector).await;
                match confirmed {
                    Ok(confirmed) => {
                        status.stored = confirmed.refused.is_none();
                        return Ok(Fetched::Kept(Reader::whole(confirmed.entry), status));
                    }
                    // It spoke of something else: asked again, for the whole.
                    Err(_) => continue,
                }
            }
            return Ok(match guard.head(origin, &with_length(fields, length), &tags, now) {
                Decision::NotStored(reason) => {
                    status.detail = Some(reason.word());
                    Fetched::Passing(Box::new(open), None, status)
                }
                Decision::Store => {
                    status.stored = true;
                    match guard.reader() {
                        Some(reader) => {
                            tokio::spawn(keep(Arc::clone(&self.connector), open, guard));
                            Fetched::Kept(reader, status)
                        }
                        None => Fetched::Passing(Box::new(open), Some(guard), status),
                    }
                }
            });
        }
    }

    /// Passes an answer of unknown length on while it is kept; keeps on when the client leaves.
    async fn pass_and_keep(
        &self,
        case: &Case<'_>,
        mut open: Open,
        mut guard: FillGuard,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let (fields, length) = answer_fields(case.trip, &open);
        let head = reply::head(case.trip, journey, client, open.head.status, fields, length)?;
        journey.answer.status = open.head.status.as_u16();
        let bodiless =
            case.trip.request.method == Method::HEAD || length == Length::Known(0) || length == Length::None;
        if let Err(error) = client.head(head, bodiless).await {
            tokio::spawn(keep(Arc::clone(&self.connector), open, guard));
            return Err(error.into());
        }
        loop {
            match open.chunk().await {
                Ok(Some(chunk)) => {
                    guard.write(&chunk);
                    if !bodiless && client.body(chunk).await.is_err() {
                        tokio::spawn(keep(Arc::clone(&self.connector), open, guard));
                        return Err(Ended::Cut);
                    }
                }
                Ok(None) => {
                    // Whether it could be kept in the end changes nothing for this client.
                    let _ = guard.finish();
                    open.done(&self.connector).await;
                    return Ok(());
                }
                Err(failure) => {
                    journey.broke(failure.word());
                    open.broke(Instant::now());
                    return Err(Ended::Cut);
                }
            }
        }
    }

    /// Fetches anew behind the back of a client that gets what is stale (RFC 5861 §3).
    fn refresh_behind(&self, case: &Case<'_>, key: Key, entry: &Arc<Entry>) {
        let ask = self.ask(case, key, Some(Arc::clone(entry)));
        // Somebody else is at it already.
        let Some(guard) = case.cache.refresh(ask, Now::read()) else { return };
        let (edge, trip, forward) = (self.clone(), case.trip.clone(), case.forward.clone());
        tokio::spawn(async move {
            let Some(rule) = &trip.route().cache else { return };
            let case = Case {
                trip: &trip,
                forward: &forward,
                rule,
                cache: &trip.running().caches[rule.cache.index()],
            };
            // Its attempts are noted nowhere: the record belongs to the client that was answered.
            let fetched = edge.fetch(&case, guard, true, CacheStatus::default(), None, &mut Vec::new()).await;
            if let Ok(Fetched::Passing(open, guard, _)) = fetched {
                match guard {
                    Some(guard) => keep(Arc::clone(&edge.connector), *open, guard).await,
                    None => open.abandon().await,
                }
            }
        });
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
        mut reader: Reader,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let answer = cache::answer(reader.head(), reader.extent(), &case.request(), Now::read());
        let length = match super::forwarding::declared_length(&answer.headers) {
            Some(length) => Length::Known(length),
            None => Length::None,
        };
        let head = reply::head(case.trip, journey, client, answer.status, answer.headers, length)?;
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
        while let Some(piece) = reader.next().await {
            // A fill that broke must not pass for a whole body.
            let piece = piece.map_err(|_| Ended::Cut)?;
            client.body(piece).await.map_err(|_| Ended::Cut)?;
        }
        Ok(())
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
            rule: trip.running().cache_rule(trip.passed.route_id()).clone(),
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

impl<'a> Case<'a> {
    fn request(&self) -> RequestHead<'a> {
        let request = &self.trip.request;
        RequestHead { method: &request.method, headers: &request.headers, has_body: request.has_body }
    }
}

/// The fields with the length by which the fill checks that the body is whole.
fn with_length(mut fields: HeaderMap, length: Length) -> HeaderMap {
    if let Length::Known(length) = length {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    fields
}

/// Reads the rest of an answer into its fill; whoever reads from that sees its end, or that it broke.
async fn keep(connector: Arc<pingora::connectors::http::Connector>, mut open: Open, mut guard: FillGuard) {
    loop {
        match open.chunk().await {
            Ok(Some(chunk)) => guard.write(&chunk),
            Ok(None) => {
                let _ = guard.finish();
                return open.done(&connector).await;
            }
            Err(failure) => {
                tracing::debug!(failure = failure.word(), "a fill broke");
                return open.broke(Instant::now());
            }
        }
    }
}
