//! Compressing or unpacking an answer on its way to one client, wherever it comes from; what is kept is compressed once in
//! `caching/coded.rs` and comes here with its coding.

use http::{HeaderMap, Method, StatusCode};

use super::{Trip, client::Client, reply::Length};
use crate::coding::{self, Offer};

/// Decides about the body that follows, and says so in the head; the length of what follows.
pub(super) fn answer(
    trip: &Trip,
    client: &mut Client,
    status: StatusCode,
    fields: &mut HeaderMap,
    length: Length,
) -> Length {
    let asked = trip.asked();
    if trip.route().gunzip
        && let Some(length) = unpack(trip, client, status, fields, length)
    {
        return length;
    }
    let Some(rule) = &trip.route().compress else { return length };
    if status == StatusCode::NOT_MODIFIED {
        coding::mark_not_modified(rule, &asked, fields);
        return length;
    }
    if status == StatusCode::PARTIAL_CONTENT {
        coding::mark_part(rule, &asked, fields);
        return length;
    }
    let is_head = trip.request.method == Method::HEAD;
    let known = match length {
        Length::Known(length) => Some(length),
        Length::None if !is_head => return length,
        Length::None | Length::Unknown => None,
    };
    let offer = coding::offer(rule, &asked, status, fields, known);
    if offer != Offer::AsItIs {
        coding::vary(fields);
    }
    let Some((coding, level)) = offer.coding().and_then(|coding| Some((coding, rule.level(coding)?))) else {
        return length;
    };
    if !is_head {
        // As it is, while too many others are compressed.
        let Some(encoder) = trip.running().compressors.begin(coding, level) else { return length };
        client.encode(encoder);
    }
    coding::mark(fields, coding);
    Length::Unknown
}

/// The same for an answer in gzip that this client does not take; `None` when it stays as it is.
fn unpack(
    trip: &Trip,
    client: &mut Client,
    status: StatusCode,
    fields: &mut HeaderMap,
    length: Length,
) -> Option<Length> {
    let asked = trip.asked();
    if status == StatusCode::NOT_MODIFIED {
        coding::mark_not_modified_unpacked(&asked, fields);
        return None;
    }
    if coding::is_gzip(fields) {
        coding::vary(fields);
    }
    let is_head = trip.request.method == Method::HEAD;
    let has_body = !matches!(length, Length::None | Length::Known(0));
    if !coding::unpacks(&asked, fields) || !(has_body || is_head) {
        return None;
    }
    if !is_head {
        // As it is, while too many others are unpacked.
        client.unpack(trip.running().compressors.unpack()?);
    }
    coding::mark_unpacked(fields);
    Some(Length::Unknown)
}
