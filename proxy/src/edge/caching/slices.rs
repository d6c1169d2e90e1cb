//! Answers that are fetched and kept in slices (nginx's `slice`): the slice that an answer begins in decides its status and
//! fields, and the others are looked for as the client reads.
//!
//! Each slice is looked up, waited for and fetched as any other entry, so that many clients cost one fetch of each; one is
//! looked for ahead of the reader, and none when the client has left. All slices of an answer must be of one version of the
//! file (`cache::Part::is_beside`): another version cuts the answer, and whatever is kept of the file goes. What a slice cannot
//! be had of, such as an empty file or one without validators, is asked for as the client asked, and not kept.

mod steps;

use std::{
    ops::Range,
    pin::{Pin, pin},
    sync::Arc,
};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use self::steps::{Step, overlap, steps};
use super::{Case, fill::Fetched, turn::Turn, unconfirmed, usable_on_error};
use crate::{
    cache::{
        self, Bypass, CacheStatus, Entry, Extent, Forwarded, Key, Lookup, Now, ORIGIN_FAILED, Part, Plan,
        Purge, Reader,
    },
    decide::{self, Looked},
    edge::{
        Edge, Ended,
        client::Client,
        exchange::NoAnswer,
        forwarding::{answer_fields, declared_length, refusal_of, stick},
        reply::{self, Length},
    },
    journey::Journey,
    refusal::Refusal,
};

/// What all slices of one answer have in common.
struct Sliced {
    /// The key of the whole.
    whole: Key,
    /// The length of a slice, bytes.
    size: u64,
    /// The slice that decided.
    part: Part,
}

impl Edge {
    /// Answers a GET or HEAD from slices of `size` bytes.
    pub(super) async fn answer_in_slices(
        &self,
        case: &Case<'_>,
        size: u64,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let trip = case.trip;
        let whole = trip.passed.key(&trip.request, case.rule, case.forward)?;
        let found = if case.keeps_nothing() {
            Err((Forwarded::Bypass, "no-store"))
        } else if case.asks_for_head() {
            Err((Forwarded::Method, "method"))
        } else {
            let key = whole.slice(case.first_slice(&whole, size), size);
            let found = self.slice(case, &key, Some(&mut *client), journey).await?;
            found.map(|found| (key, found)).map_err(|reason| (reason.forwarded(), reason.word()))
        };
        let (key, found) = match found {
            Ok(found) => found,
            Err((forwarded, detail)) => {
                journey.cache = Some(CacheStatus::forwarded(forwarded).because(detail));
                return self.forward(trip, case.forward, client, journey).await;
            }
        };
        if let Some(part) = part_of(&key, &found) {
            let sliced = Sliced { whole, size, part };
            return self.serve_slices(case, &sliced, (&key, found), client, journey).await;
        }
        match found {
            Fetched::Passing(open, None, status) if !case.is_answered_by(&key, open.head.status) => {
                journey.cache = Some(status);
                open.abandon(&self.connectors).await;
                self.forward(trip, case.forward, client, journey).await
            }
            found => self.deliver(case, found, client, journey).await,
        }
    }

    /// Looks for one slice, and fetches it if it must; what comes need not be one. `Err` when the cache takes no part.
    async fn slice(
        &self,
        case: &Case<'_>,
        key: &Key,
        client: Option<&mut Client>,
        journey: &mut Journey,
    ) -> Result<Result<Fetched, Bypass>, Ended> {
        let running = case.trip.running();
        let cache = case.rule.cache;
        let kept = |entry, status| Ok(Ok(Fetched::Kept(Reader::whole(entry), None, status)));
        let (request, now) = (case.request(), Now::read());
        let mut looked = decide::look_up(running, cache, key.clone(), &request, &case.policy, now);
        if looked.is_open {
            looked = decide::look_deeper(running, cache, looked, &request, &case.policy, now).await;
        }
        let Looked { key, lookup, .. } = looked;
        let mut begun = None;
        let (stale, mut status) = match lookup {
            Lookup::Hit { entry, ttl } => return kept(entry, CacheStatus::hit(ttl)),
            Lookup::Stale { entry, staleness, ttl } if staleness.while_revalidate => {
                let mut status = CacheStatus::stale(&staleness, ttl);
                begun = self.renew(case, key.clone(), &entry, &mut status);
                if begun.is_none() {
                    return kept(entry, status);
                }
                let status = CacheStatus::expired(&staleness);
                (Some((entry, staleness)), status)
            }
            Lookup::Stale { entry, staleness, .. } => {
                let status = CacheStatus::expired(&staleness);
                (Some((entry, staleness)), status)
            }
            Lookup::Miss(miss) => (None, CacheStatus::forwarded(miss.forwarded())),
            Lookup::Bypass(reason) => return Ok(Err(reason)),
            Lookup::OnlyIfCached => return Err(Refusal::NotCached.into()),
        };
        let usable = usable_on_error(stale.as_ref());
        let must_be_asked = stale.as_ref().is_some_and(|(entry, _)| entry.head().freshness.must_be_asked());
        let on_error = |entry: Arc<Entry>| {
            let ttl = case.cache.ttl(&entry, Now::read());
            kept(entry, CacheStatus::hit(ttl).because(ORIGIN_FAILED))
        };
        let turn = match begun {
            Some(guard) => Turn::Fetch(guard),
            None => self.turn(case, &key, stale.as_ref().map(|(entry, _)| entry), usable.is_some()).await,
        };
        let guard = match turn {
            Turn::Fetch(guard) => guard,
            Turn::Read(reader) => {
                return Ok(Ok(Fetched::Kept(reader, None, CacheStatus { collapsed: true, ..status })));
            }
            Turn::Stale => return usable.map_or(Err(Ended::Cut), on_error),
            Turn::Alone(reason) => {
                status.detail = reason.or(status.detail);
                case.cache.fetch_past(self.ask(case, key, None), Now::read())
            }
        };
        let fetched =
            self.fetch(case, guard, usable.is_some(), status, client, &mut journey.attempts).await?;
        match fetched {
            Fetched::None(NoAnswer::Client(error)) => Err(error.into()),
            Fetched::None(none) => {
                let refusal = refusal_of(&none);
                match usable.filter(|_| case.covers(&refusal)) {
                    Some(entry) => on_error(entry),
                    None => Err(unconfirmed(refusal.into(), must_be_asked)),
                }
            }
            fetched => Ok(Ok(fetched)),
        }
    }

    /// Answers with what the client asked for of the whole that the first slice is a part of.
    async fn serve_slices(
        &self,
        case: &Case<'_>,
        sliced: &Sliced,
        first: (&Key, Fetched),
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let (key, found) = first;
        journey.cache = found.status();
        let (fields, total) = (case.fields(&found), sliced.part.total);
        let wants_whole = case.wants_whole(&fields);
        let extent = if wants_whole { Extent::Arriving(total) } else { Extent::Complete(total) };
        let answer = cache::answer_of_whole(fields, extent, &case.request());
        if let Some(shown) = self.intercept(case.trip, answer.status, &answer.headers, client, journey).await
        {
            return shown;
        }
        let length = declared_length(&answer.headers).map_or(Length::None, Length::Known);
        let head = reply::head(case.trip, journey, client, answer.status, answer.headers, length);
        journey.answer.status = answer.status.as_u16();
        let bodiless = answer.body == Plan::Nothing;
        client.head(head, bodiless).await?;
        let cut = |_| Ended::Cut;
        let mut held = Some((key.clone(), found));
        let mut steps = steps(answer.body, sliced.part.total, sliced.size).peekable();
        while let Some(step) = steps.next() {
            let (index, within) = match step {
                Step::Slice(index, within) => (index, within),
                Step::Text(text) => {
                    client.body(text).await.map_err(cut)?;
                    continue;
                }
            };
            let key = sliced.whole.slice(index, sliced.size);
            let slice = match held.take().filter(|(held, _)| *held == key) {
                Some((_, slice)) => slice,
                None => self.following(case, sliced, &key, journey).await?,
            };
            let Some(Step::Slice(next, _)) = steps.peek() else {
                self.pour(case, slice, within, client).await?;
                continue;
            };
            let next = sliced.whole.slice(*next, sliced.size);
            let coming = pin!(self.following(case, sliced, &next, journey));
            let came = self.pour_while(case, coming, slice, within, client).await?;
            held = Some((next.clone(), came));
        }
        Ok(())
    }

    /// Writes these bytes of a slice while the next one comes; ends with both, or when the client leaves.
    async fn pour_while(
        &self,
        case: &Case<'_>,
        mut coming: Pin<&mut impl Future<Output = Result<Fetched, Ended>>>,
        slice: Fetched,
        within: Range<u64>,
        client: &mut Client,
    ) -> Result<Fetched, Ended> {
        let early = {
            let mut pouring = pin!(self.pour(case, slice, within, client));
            tokio::select! {
                poured = &mut pouring => {
                    poured?;
                    None
                }
                came = &mut coming => {
                    pouring.await?;
                    Some(came)
                }
            }
        };
        match early {
            Some(Ok(came)) => Ok(came),
            // What was written goes out, whatever comes, or does not.
            early => {
                client.flush().await.map_err(|_| Ended::Cut)?;
                if let Some(came) = early {
                    return came;
                }
                tokio::select! {
                    biased;
                    came = coming => came,
                    () = client.left() => Err(Ended::Cut),
                }
            }
        }
    }

    /// A further slice of the same whole. What is kept of another version goes; if that was not fetched just now, there is a
    /// second try.
    async fn following(
        &self,
        case: &Case<'_>,
        sliced: &Sliced,
        key: &Key,
        journey: &mut Journey,
    ) -> Result<Fetched, Ended> {
        for _ in 0..2 {
            // Of the attempts of thousands of slices, those of the last that failed are told.
            let noted = journey.attempts.len();
            // The answer has begun: whatever is in the way cuts it.
            let Ok(Ok(found)) = self.slice(case, key, None, journey).await else { return Err(Ended::Cut) };
            if part_of(key, &found).is_some_and(|part| part.is_beside(&sliced.part)) {
                journey.attempts.truncate(noted);
                return Ok(found);
            }
            if found.answered().is_none_or(|status| status.is_server_error()) {
                break;
            }
            case.cache.purge_key(&sliced.whole, Purge::Hard);
            if found.status().is_some_and(|status| status.forwarded.is_some()) {
                tracing::info!(
                    route = %case.trip.route().name,
                    request_id = case.trip.request.id(),
                    "a file changed while its slices were sent, and its answer was cut"
                );
                break;
            }
        }
        Err(Ended::Cut)
    }

    /// Writes these bytes of a slice. What ends before them was no whole slice.
    async fn pour(
        &self,
        case: &Case<'_>,
        slice: Fetched,
        within: Range<u64>,
        client: &mut Client,
    ) -> Result<(), Ended> {
        let cut = |_| Ended::Cut;
        let mut at = 0;
        match slice {
            Fetched::None(_) => Err(Ended::Cut),
            Fetched::Kept(mut reader, ..) => {
                if let Some(entry) = reader.entry() {
                    if entry.body().stored().is_some() {
                        // Slices fit into memory; what was kept under another bound is fetched anew.
                        case.cache.forget(entry);
                        return Err(Ended::Cut);
                    }
                    for piece in entry.body().slice(within) {
                        client.body(piece).await.map_err(cut)?;
                    }
                    return Ok(());
                }
                while at < within.end {
                    let next = match client.at_once(reader.next()).await.map_err(cut)? {
                        Some(next) => next,
                        None => reader.next().await,
                    };
                    let Some(Ok(piece)) = next else { return Err(Ended::Cut) };
                    client.body(overlap(&piece, &mut at, &within)).await.map_err(cut)?;
                }
                Ok(())
            }
            Fetched::Passing(mut open, mut guard, _) => {
                // Whoever keeps it has to read it to its end.
                while at < within.end || guard.is_some() {
                    let next = match client.at_once(open.chunk()).await.map_err(cut)? {
                        Some(next) => next,
                        None => open.chunk().await,
                    };
                    match next {
                        Ok(Some(piece)) => {
                            if let Some(guard) = &mut guard {
                                guard.ready().await;
                                guard.write(&piece);
                            }
                            client.body(overlap(&piece, &mut at, &within)).await.map_err(cut)?;
                        }
                        Ok(None) => {
                            // Whether it could be kept in the end changes nothing for this client.
                            if let Some(guard) = guard {
                                guard.settle().await;
                                let _ = guard.finish();
                            }
                            open.done(&self.connectors).await;
                            return if at < within.end { Err(Ended::Cut) } else { Ok(()) };
                        }
                        Err(_) => {
                            open.broke(&self.connectors).await;
                            return Err(Ended::Cut);
                        }
                    }
                }
                open.abandon(&self.connectors).await;
                Ok(())
            }
        }
    }
}

impl Case<'_> {
    /// The slice that decides: the one in which the answer begins, or the first where a whole answer lies in its place.
    fn first_slice(&self, whole: &Key, size: u64) -> u64 {
        if self.trip.resumes_by_date() {
            return 0;
        }
        let begins = cache::first_slice(&self.request(), size);
        let lies_whole = || {
            let first = self.cache.peek(&whole.slice(0, size), &self.request(), &self.policy, Now::read());
            matches!(first, Lookup::Hit { entry, .. } if entry.head().status != StatusCode::PARTIAL_CONTENT)
        };
        if begins > 0 && lies_whole() { 0 } else { begins }
    }

    /// Whether an answer to the request for a slice is one to the client's own. A 206 would be if it were a slice; a 416 only
    /// where the client asked for nothing but what begins there.
    fn is_answered_by(&self, key: &Key, status: StatusCode) -> bool {
        let fields = &self.trip.request.headers;
        match status {
            StatusCode::PARTIAL_CONTENT => false,
            StatusCode::RANGE_NOT_SATISFIABLE => {
                let begins_there = key.of_slice().is_some_and(|slice| !slice.is_first());
                let alone = |range: &HeaderValue| !range.as_bytes().contains(&b',');
                begins_there
                    && fields.get(header::RANGE).is_some_and(alone)
                    && ![header::IF_RANGE, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE]
                        .iter()
                        .any(|name| fields.contains_key(name))
            }
            _ => true,
        }
    }

    /// The fields of an answer that begins with this slice.
    fn fields(&self, first: &Fetched) -> HeaderMap {
        match first {
            Fetched::Kept(_, Some(fields), _) => fields.clone(),
            Fetched::Kept(reader, None, _) => cache::aged(reader.head(), Now::read()),
            Fetched::Passing(open, ..) => {
                let (mut fields, _) = answer_fields(self.trip, open.head.headers.clone(), open);
                stick(self.trip, self.forward, open, &mut fields);
                fields
            }
            Fetched::None(_) => HeaderMap::new(),
        }
    }

    /// The length of the slices in which the answer is kept, if it is.
    pub(super) fn slice_size(&self) -> Option<u64> {
        let is_read = matches!(self.trip.request.method, Method::GET | Method::HEAD);
        self.rule.slice.filter(|_| is_read).map(|size| size.get())
    }
}

/// What was found of a slice, if that is one.
fn part_of(key: &Key, found: &Fetched) -> Option<Part> {
    let fields = match found {
        Fetched::Kept(reader, ..) => &reader.head().headers,
        Fetched::Passing(open, ..) => &open.head.headers,
        Fetched::None(_) => return None,
    };
    let is_part = found.answered() == Some(StatusCode::PARTIAL_CONTENT);
    key.of_slice().filter(|_| is_part)?.part(fields)
}
