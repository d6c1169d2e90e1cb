//! Filling: one request of those that miss asks the origin, and what comes is kept as it arrives.
//!
//! Once the head says that the answer may be kept and how long it is, a task reads the rest and every client, the first
//! one included, reads from the fill. So a client may leave or be slow without anyone else noticing. An answer of unknown
//! length is passed on by the request that fetched it, which goes on filling when its client leaves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, Method, StatusCode, header};
use tokio::{sync::OwnedSemaphorePermit, time::timeout_at};

use super::Case;
use crate::{
    cache::{self, CacheStatus, Decision, Extent, FillGuard, Now, Reader},
    edge::{
        Edge, Ended,
        client::Client,
        exchange::{self, NoAnswer, Open},
        forwarding::{Framing, answer_fields, refusal_of, stick},
        reply::{self, Length},
    },
    forward::retry::Failure,
    journey::{Attempt, Journey},
};

/// A refresh has nobody who reads it from the beginning, and is wanted all the same.
const REFRESH: Duration = Duration::from_secs(60);

/// What a fetch for the cache brought.
pub(super) enum Fetched {
    /// Something that is kept: read it from there. With the fields as the origin sent them, if it sent it all.
    Kept(Reader, Option<HeaderMap>, CacheStatus),
    /// An answer for this request alone, or one that is passed on while it is kept.
    Passing(Box<Open>, Option<FillGuard>, CacheStatus),
    /// No answer.
    None(NoAnswer),
}

impl Fetched {
    /// Where the cache stood; `None` without an answer.
    pub(super) fn status(&self) -> Option<CacheStatus> {
        match self {
            Self::Kept(_, _, status) | Self::Passing(_, _, status) => Some(*status),
            Self::None(_) => None,
        }
    }

    /// The status of the answer.
    pub(super) fn answered(&self) -> Option<StatusCode> {
        match self {
            Self::Kept(reader, ..) => Some(reader.head().status),
            Self::Passing(open, ..) => Some(open.head.status),
            Self::None(_) => None,
        }
    }
}

impl Edge {
    /// Asks the origin on behalf of a fill, and says what came of it.
    pub(super) async fn fetch(
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
            let asked_about = guard.stale().filter(|_| case.rule.keeping.revalidate);
            if let Some(entry) = asked_about {
                entry.head().validate(&mut fields);
            }
            if let Some(slice) = guard.slice() {
                fields.insert(header::RANGE, slice.range());
            }
            let is_question = asked_about.is_some();
            let (method, framing) = match case.is_query {
                true => (Method::QUERY, Framing::AsTheClient),
                false => (Method::GET, Framing::Nothing),
            };
            let head = self.request_head(case.trip, case.forward, &method, fields, framing)?;
            let call = self.call(case.trip, case.forward, head);
            let opened = exchange::open(&self.connectors, call, client.as_deref_mut(), attempts).await;
            let mut open = match opened {
                Ok(open) => open,
                // The client's end is no news about the origin: the next waiter takes the fill over.
                Err(NoAnswer::Client(error)) => return Ok(Fetched::None(NoAnswer::Client(error))),
                Err(none) => {
                    guard.origin_failed(case.covers(&refusal_of(&none)));
                    return Ok(Fetched::None(none));
                }
            };
            let (now, origin) = (Now::read(), open.head.status);
            status.origin = Some(origin);
            if has_stale && case.covers_status(origin) {
                guard.origin_failed(true);
                open.done(&self.connectors).await;
                return Ok(Fetched::None(NoAnswer::Failed(Failure::Status(origin))));
            }
            let tags = case.tags();
            let (fields, length) = answer_fields(case.trip, open.head.headers.clone(), &open);
            if origin == StatusCode::NOT_MODIFIED && is_question {
                self.invalidate(case.trip, case.forward, origin, &open.head.headers);
                let confirmed = guard.not_modified(&fields, &tags, now);
                open.done(&self.connectors).await;
                match confirmed {
                    Ok(confirmed) => {
                        status.stored = confirmed.refused.is_none();
                        return Ok(Fetched::Kept(Reader::whole(confirmed.entry), None, status));
                    }
                    // It spoke of something else: asked again, for the whole.
                    Err(_) => continue,
                }
            }
            let fields = with_length(fields, length);
            if let Err(failure) = show(&mut open, &mut guard, &fields, now).await {
                if let Some(last) = attempts.last_mut() {
                    last.outcome = failure.word();
                }
                open.broke(&self.connectors).await;
                return Ok(Fetched::None(NoAnswer::Failed(failure)));
            }
            guard.make_room(origin, &fields, now).await;
            return Ok(match guard.head(origin, &fields, &tags, now) {
                Decision::NotStored(reason) => {
                    case.tell_of(reason);
                    status.detail = Some(reason.word());
                    Fetched::Passing(open, None, status)
                }
                Decision::Store => {
                    status.stored = true;
                    self.invalidate(case.trip, case.forward, origin, &open.head.headers);
                    match guard.reader() {
                        Some(reader) => {
                            self.keep_on(case, open, guard);
                            Fetched::Kept(reader, Some(fields), status)
                        }
                        None => Fetched::Passing(open, Some(guard), status),
                    }
                }
            });
        }
    }

    /// Passes an answer of unknown length on while it is kept; keeps on when the client leaves.
    pub(super) async fn pass_and_keep(
        &self,
        case: &Case<'_>,
        mut open: Box<Open>,
        mut guard: FillGuard,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let shown = self.intercept(case.trip, open.head.status, &open.head.headers, client, journey).await;
        if let Some(shown) = shown {
            self.keep_on(case, open, guard);
            return shown;
        }
        let (mut fields, length) = answer_fields(case.trip, open.head.headers.clone(), &open);
        stick(case.trip, case.forward, &open, &mut fields);
        if let Some(head) = guard.kept() {
            let answer = cache::first_answer(head, fields.clone(), Extent::Arriving(0), &case.request());
            if answer.status == StatusCode::NOT_MODIFIED {
                self.keep_on(case, open, guard);
                let head =
                    reply::head(case.trip, journey, client, answer.status, answer.headers, Length::None);
                journey.answer.status = answer.status.as_u16();
                return Ok(client.head(head, true).await?);
            }
        }
        let head = reply::head(case.trip, journey, client, open.head.status, fields, length);
        journey.answer.status = open.head.status.as_u16();
        let bodiless =
            case.trip.request.method == Method::HEAD || length == Length::Known(0) || length == Length::None;
        if let Err(error) = client.head(head, bodiless).await {
            self.keep_on(case, open, guard);
            return Err(error.into());
        }
        loop {
            let next = match client.at_once(open.chunk()).await {
                Ok(Some(next)) => next,
                Ok(None) => open.chunk().await,
                Err(_) => {
                    self.keep_on(case, open, guard);
                    return Err(Ended::Cut);
                }
            };
            match next {
                Ok(Some(chunk)) => {
                    guard.ready().await;
                    guard.write(&chunk);
                    if !bodiless && client.body(chunk).await.is_err() {
                        self.keep_on(case, open, guard);
                        return Err(Ended::Cut);
                    }
                }
                Ok(None) => {
                    // Whether it could be kept in the end changes nothing for this client.
                    guard.settle().await;
                    let _ = guard.finish();
                    open.done(&self.connectors).await;
                    return Ok(());
                }
                Err(failure) => {
                    journey.broke(failure.word());
                    open.broke(&self.connectors).await;
                    return Err(Ended::Cut);
                }
            }
        }
    }

    /// Goes on filling without the request that began it.
    fn keep_on(&self, case: &Case<'_>, open: Box<Open>, guard: FillGuard) {
        let (edge, alone) = (self.clone(), case.rule.background_fill);
        tokio::spawn(async move { edge.keep(open, guard, alone).await });
    }

    /// Reads the rest of an answer into its fill; whoever reads from that sees its end, or that it broke. With nobody there
    /// it goes on for so long, if there are not too many of its kind; and no further than it is kept.
    async fn keep(&self, mut open: Box<Open>, mut guard: FillGuard, alone: Duration) {
        let mut unattended: Option<(Instant, OwnedSemaphorePermit)> = None;
        while guard.is_keeping() {
            guard.ready().await;
            unattended = match unattended {
                _ if guard.has_readers() => None,
                Some((until, _)) if until <= Instant::now() => break,
                None => match Arc::clone(&self.unattended).try_acquire_owned() {
                    Ok(place) if !alone.is_zero() => Some((Instant::now() + alone, place)),
                    _ => break,
                },
                going => going,
            };
            let chunk = match &unattended {
                // The next round asks whether somebody came.
                Some((until, _)) => match timeout_at((*until).into(), open.chunk()).await {
                    Ok(chunk) => chunk,
                    Err(_late) => continue,
                },
                None => open.chunk().await,
            };
            match chunk {
                Ok(Some(chunk)) => guard.write(&chunk),
                Ok(None) => {
                    guard.settle().await;
                    let _ = guard.finish();
                    return open.done(&self.connectors).await;
                }
                Err(failure) => {
                    tracing::debug!(failure = failure.word(), "a fill broke");
                    return open.broke(&self.connectors).await;
                }
            }
        }
        open.abandon(&self.connectors).await;
    }

    /// Fetches anew behind the back of a client that gets what is stale (RFC 5861 §3).
    pub(super) fn refresh_behind(&self, case: &Case<'_>, mut guard: FillGuard) {
        let (edge, trip, forward) = (self.clone(), case.trip.clone(), case.forward.clone());
        tokio::spawn(async move {
            let Some(rule) = &trip.route().cache else { return };
            let case = Case::of(&trip, &forward, rule);
            if guard.ask_fleet(rule.lock_timeout, Now::read()).await.is_some() {
                return;
            }
            // Its attempts are noted nowhere: the record belongs to the client that was answered.
            let fetched = edge.fetch(&case, guard, true, CacheStatus::default(), None, &mut Vec::new()).await;
            if let Ok(Fetched::Passing(open, guard, _)) = fetched {
                match guard {
                    Some(guard) => edge.keep(open, guard, rule.background_fill.max(REFRESH)).await,
                    None => open.abandon(&edge.connectors).await,
                }
            }
        });
    }
}

/// Shows the guard of a fill as much of an answer as it wants to see, before anybody gets a byte: a find must reach no waiter.
pub(super) async fn show(
    open: &mut Open,
    guard: &mut FillGuard,
    fields: &HeaderMap,
    now: Now,
) -> Result<(), Failure> {
    let wanted = guard.wants_to_see(open.head.status, fields, now);
    if wanted > 0 {
        open.look_ahead(wanted).await?;
        guard.inspect(fields, open.seen());
    }
    Ok(())
}

/// The fields with the length by which the fill checks that the body is whole.
pub(super) fn with_length(mut fields: HeaderMap, length: Length) -> HeaderMap {
    if let Length::Known(length) = length {
        fields.insert(header::CONTENT_LENGTH, length.into());
    }
    fields
}
