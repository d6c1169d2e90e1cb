//! PURGE: a client of a listed address ends what a route keeps.
//!
//! The manners are nginx's and Varnish's: the URL that is asked for, under its key and every other; all that begins like it
//! where it ends in `*`; or, as Fastly has it, the tags that `Surrogate-Key` or `Cache-Tag` names. 200 says what was
//! purged, 202 that the fleet could not be told yet, 404 that nothing was kept under the key. `Fastly-Soft-Purge: 1` makes entries stale and not gone.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use weir_config::{plan::Action, template::Variable};

use super::{Edge, Ended, Trip, client::Client};
use crate::{
    cache::{Purge, Subject, TAG_FIELDS, Told, Url},
    decide::Passed,
    journey::Journey,
    request::RequestView,
    running::{Order, PurgedBy},
    state::Held,
};

const SOFT_PURGE: &str = "fastly-soft-purge";

impl Edge {
    /// Purges, if that is what is asked and it may be; `None` for every other request.
    pub(super) async fn purge(
        &self,
        snapshot: &Held,
        request: &Arc<RequestView>,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Option<Result<(), Ended>> {
        let passed = match Passed::purging(&snapshot.running, request)? {
            Ok(passed) => passed,
            Err((route, refusal)) => {
                journey.route = Some(route);
                return Some(Err(refusal.into()));
            }
        };
        journey.route = Some(passed.route_id());
        // Keys are those of GET.
        let request = Arc::new(RequestView { method: Method::GET, ..RequestView::clone(request) });
        let trip = Trip { snapshot: snapshot.clone(), request, passed: Arc::new(passed) };
        let (status, mut report) = purged(&trip);
        trip.running().tags.recorded().await;
        let told = snapshot.running.told().await;
        if let (Some(word), Some(report)) = (told.word(), report.as_object_mut()) {
            report.insert("fleet".to_owned(), word.into());
        }
        // 202: this edge did it, and the others will (RFC 9110 §15.3.3).
        let status = if told == Told::Waiting && status.is_success() { StatusCode::ACCEPTED } else { status };
        let body = if report.is_null() { String::new() } else { format!("{report}\n") };
        let mut fields = HeaderMap::new();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(self.whole(&trip, client, journey, status, fields, Bytes::from(body)).await)
    }
}

/// Does it, and says what was done.
fn purged(trip: &Trip) -> (StatusCode, Value) {
    let (running, request) = (trip.running(), &trip.request);
    let Some(rule) = &trip.route().cache else { return (StatusCode::NOT_FOUND, Value::Null) };
    let is_soft = request.headers.get(SOFT_PURGE).is_some_and(|value| value.as_bytes() == b"1")
        || rule.purge.as_ref().is_some_and(|purge| purge.soft);
    let (mode, word) = if is_soft { (Purge::Soft, "soft") } else { (Purge::Hard, "hard") };
    let url = request.url();
    let orders = match (tags(&request.headers), prefix(&url)) {
        (tags, _) if !tags.is_empty() => tags.into_iter().map(Order::Tag).collect(),
        (_, Some(prefix)) => vec![Order::Prefix(prefix)],
        _ => vec![Order::Url(url)],
    };
    let mut entries = None;
    if let ([Order::Url(_)], Action::Forward(forward)) = (&*orders, trip.passed.action(running)) {
        let cache = &running.caches[rule.cache.index()];
        if let Ok(key) = trip.passed.key(request, rule, forward) {
            // Whose session the entries were kept under is not known here.
            let is_certain = !rule
                .key
                .iter()
                .any(|key| key.variables().any(|variable| matches!(variable, Variable::Session(_))));
            // Of parts nobody knows how many there are.
            entries = (is_certain && !rule.keeps_parts()).then(|| cache.under(&key).len());
            running.tags.announce(&Subject::key(&key), mode, || cache.purge_key(&key, mode));
        }
        if let Ok(target) = trip.passed.target(request, forward) {
            running.tags.order(Subject::uri(request.scheme, &request.authority, &target), mode);
        }
    }
    orders.iter().for_each(|order| running.purge(order, mode, PurgedBy::Method));
    let named = |order: &Order| {
        let (kind, name) = order.said(running);
        json!({ kind: name })
    };
    let report = json!({
        "purged": orders.iter().map(named).collect::<Vec<_>>(),
        "mode": word,
        "entries": entries,
    });
    let status = if entries == Some(0) { StatusCode::NOT_FOUND } else { StatusCode::OK };
    (status, report)
}

/// The tags that a request names.
fn tags(headers: &HeaderMap) -> Vec<String> {
    let mut names = Vec::new();
    for line in TAG_FIELDS.iter().flat_map(|name| headers.get_all(name)) {
        let words = line.to_str().unwrap_or_default().split([',', ' ', '\t']);
        names.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    names
}

/// What comes before a `*` at the end.
fn prefix(url: &Url) -> Option<Url> {
    Url::parse(url.as_str().strip_suffix('*')?)
}
