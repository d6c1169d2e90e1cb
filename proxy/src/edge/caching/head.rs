//! A HEAD of a route that does not ask for more than its clients did (`convert_head: false`): it goes to the origin as
//! it is, and what it brings is news for the entry that is stored (RFC 9111 §4.3.5).

use std::sync::Arc;

use super::{Case, unconfirmed, usable_on_error};
use crate::{
    cache::{CacheStatus, Entry, Key, Now, ORIGIN_FAILED, Staleness},
    edge::{
        Edge, Ended,
        client::Client,
        forwarding::{answer_fields, declared_length},
    },
    journey::Journey,
};

impl Edge {
    /// Passes a HEAD on, with the stored entry's fields brought up to date by the answer.
    pub(super) async fn head_past(
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
        // None when somebody fetches the whole already, who will know better.
        let guard =
            stale.and_then(|(entry, _)| case.cache.refresh(self.ask(case, key, Some(entry)), Now::read()));
        journey.cache = Some(status);
        let opened = self.pass_on(case.trip, case.forward, client, journey).await;
        let open = match (opened, usable) {
            (Ok(open), Some(entry)) if case.covers_status(open.head.status) => {
                open.done(&self.connectors).await;
                return self.serve_stale(case, entry, ORIGIN_FAILED, client, journey).await;
            }
            (Ok(open), _) => open,
            (Err(Ended::Refused(refusal)), Some(entry)) if case.covers(&refusal) => {
                return self.serve_stale(case, entry, ORIGIN_FAILED, client, journey).await;
            }
            (Err(ended), _) => return Err(unconfirmed(ended, must_be_asked)),
        };
        status.origin = Some(open.head.status);
        if let Some(mut guard) = guard {
            let (fields, _) = answer_fields(case.trip, open.head.headers.clone(), &open);
            let length = declared_length(&open.head.headers);
            status.stored = guard.head_alone(open.head.status, &fields, length, &case.tags(), Now::read());
        }
        journey.cache = Some(status);
        self.pass_back(case.trip, case.forward, open, client, journey).await
    }
}
