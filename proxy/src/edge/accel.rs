//! `X-Accel-*`: what an origin tells nginx about one answer. It is obeyed here as there, and no client sees it.
//!
//! `X-Accel-Expires` is the cache's to read. `X-Accel-Redirect` and `X-Accel-Charset` are only kept from the client: there are no
//! internal locations, and bytes are not recoded.
//!
//! Source: nginx's `ngx_http_upstream_headers_in`, `ngx_http_proxy_hide_headers`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Trip, client::Client};
use crate::forward::limit_rate::Pace;

const LIMIT_RATE: HeaderName = HeaderName::from_static("x-accel-limit-rate");
const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const OTHERS: [HeaderName; 3] = [
    HeaderName::from_static("x-accel-expires"),
    HeaderName::from_static("x-accel-redirect"),
    HeaderName::from_static("x-accel-charset"),
];

/// How much of an answer is read before its client takes it: `ahead`, unless the origin says `no`.
pub(super) fn read_ahead(fields: &HeaderMap, ahead: usize) -> usize {
    let is_off = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"no");
    if fields.get(BUFFERING).is_some_and(is_off) { 0 } else { ahead }
}

/// Obeys what is about the client's side, and takes all of it out of the head.
pub(super) fn obey(trip: &Trip, fields: &mut HeaderMap, client: &mut Client) {
    let rate = fields.remove(LIMIT_RATE);
    if let Some(per_second) = rate.and_then(|rate| rate.to_str().ok()?.parse().ok()) {
        // In place of the route's; 0 is no bound.
        let after = trip.route().limit_rate.as_ref().map_or(0, |limit| limit.after.get());
        client.limit_rate((per_second > 0).then_some(Pace { per_second, after }));
    }
    fields.remove(BUFFERING);
    for name in &OTHERS {
        fields.remove(name);
    }
}
