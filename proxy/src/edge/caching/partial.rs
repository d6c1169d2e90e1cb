//! Parts that clients ask for, of what is not kept whole, where the route keeps those.

use http::Method;

use super::{
    Case,
    fill::{show, with_length},
};
use crate::{
    cache::{self, Bypass, CacheStatus, Decision, Forwarded, Key, Lookup, Now, Reader},
    edge::{
        Edge, Ended,
        client::Client,
        exchange::NoAnswer,
        forwarding::{answer_fields, refusal_of},
    },
    journey::Journey,
};

impl Case<'_> {
    /// Whether a part that is asked for is kept.
    pub(super) fn keeps_parts(&self) -> bool {
        self.rule.partial && self.trip.request.method == Method::GET && !self.keeps_nothing()
    }
}

impl Edge {
    /// Answers from the part that is held of what `whole` is the key of; else asks as the client did, and keeps what comes.
    pub(super) async fn answer_from_parts(
        &self,
        case: &Case<'_>,
        whole: &Key,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let (key, now) = (whole.part(), Now::read());
        let (cache, policy) = (case.cache, &case.policy);
        let mut found = cache.peek(&key, &case.request(), policy, now);
        if cache.may_deepen(&found, &key, policy, now) {
            found = cache.deepen(found, &key, &case.request(), policy, now).await;
        }
        let held = match found {
            // A part would be of no use: the origin may have something that is.
            Lookup::Hit { entry, .. } if case.wants_whole(&entry.head().headers) => Some(entry),
            Lookup::Hit { entry, ttl } => {
                if let Some(answer) = cache::answer_from_part(&entry, &case.request(), now) {
                    journey.cache = Some(CacheStatus::hit(ttl));
                    return self.serve(case, answer, Reader::whole(entry), client, journey).await;
                }
                Some(entry)
            }
            // What comes tells by its validator whether the old bytes are good.
            Lookup::Stale { entry, .. } => Some(entry),
            _ => None,
        };
        let forwarded = if held.is_some() { Forwarded::Partial } else { Forwarded::UriMiss };
        let mut status = CacheStatus::forwarded(forwarded).because(Bypass::Range.word());
        journey.cache = Some(status);
        let mut guard = case.cache.fetch_past(self.ask(case, key, held), Now::read());
        let mut open = self.pass_on(case.trip, case.forward, client, journey).await?;
        let (now, origin) = (Now::read(), open.head.status);
        status.origin = Some(origin);
        let (fields, length) = answer_fields(case.trip, open.head.headers.clone(), &open);
        let fields = with_length(fields, length);
        if let Err(failure) = show(&mut open, &mut guard, &fields, now).await {
            journey.broke(failure.word());
            open.broke(&self.connectors).await;
            return Err(refusal_of(&NoAnswer::Failed(failure)).into());
        }
        match guard.head(origin, &fields, &case.tags(), now) {
            Decision::Store => {
                status.stored = true;
                journey.cache = Some(status);
                self.invalidate(case.trip, case.forward, origin, &open.head.headers);
                self.pass_and_keep(case, open, guard, client, journey).await
            }
            Decision::NotStored(reason) => {
                case.tell_of(reason);
                status.detail = Some(reason.word());
                journey.cache = Some(status);
                self.pass_back(case.trip, case.forward, open, client, journey).await
            }
        }
    }
}
