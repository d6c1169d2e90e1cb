//! Validators: does the client hold what we hold (RFC 9110 §13), does the origin confirm what we hold (RFC 9111 §4.3).

use http::{HeaderMap, HeaderValue, header};

use super::{date::date, directives::members, entry::Head, policy::remove_unstorable, request::Rule};

/// How two entity tags are compared (RFC 9110 §8.8.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Equal bytes promised: neither tag is weak.
    Strong,
    /// Equal meaning suffices.
    Weak,
}

/// Whether two entity tags, as written, match.
#[must_use]
pub(super) fn etags_match(one: &[u8], other: &[u8], comparison: Comparison) -> bool {
    let (Some((weak, one)), Some((other_weak, other))) = (opaque(one), opaque(other)) else { return false };
    one == other && (comparison == Comparison::Weak || !(weak || other_weak))
}

/// Whether a tag is weak, and its quoted part; `None` if it is no tag.
fn opaque(tag: &[u8]) -> Option<(bool, &[u8])> {
    let (weak, tag) = tag.strip_prefix(b"W/").map_or((false, tag), |tag| (true, tag));
    let quoted = tag.len() >= 2 && tag.starts_with(b"\"") && tag.ends_with(b"\"");
    quoted.then_some((weak, tag))
}

/// Whether the client's conditions say that it holds this answer already, so that 304 suffices (RFC 9111 §4.3.2).
#[must_use]
pub(super) fn client_holds(stored: &HeaderMap, request: &HeaderMap) -> bool {
    if request.contains_key(header::IF_NONE_MATCH) {
        // `If-Modified-Since` does not count beside it (RFC 9110 §13.1.3).
        let etag = stored.get(header::ETAG).map(HeaderValue::as_bytes);
        return request.get_all(header::IF_NONE_MATCH).iter().any(|value| {
            value.as_bytes().trim_ascii() == b"*"
                || etag.is_some_and(|etag| {
                    members(value.as_bytes()).any(|held| etags_match(etag, held, Comparison::Weak))
                })
        });
    }
    let mut since = request.get_all(header::IF_MODIFIED_SINCE).iter();
    if since.next().is_none() || since.next().is_some() {
        return false; // none, or a list, which is no date
    }
    let Some(since) = date(request, &header::IF_MODIFIED_SINCE) else { return false };
    // Every stored head has a date, if only the one we gave it.
    let changed = date(stored, &header::LAST_MODIFIED).or_else(|| date(stored, &header::DATE));
    changed.is_some_and(|changed| changed <= since)
}

/// Whether `If-Range` lets a part be sent: absent, or the very same answer by a strong validator (RFC 9110 §13.1.5).
#[must_use]
pub(super) fn if_range_holds(stored: &HeaderMap, request: &HeaderMap) -> bool {
    let Some(condition) = request.get(header::IF_RANGE) else { return true };
    let condition = condition.as_bytes().trim_ascii();
    if condition.ends_with(b"\"") {
        let etag = stored.get(header::ETAG);
        return etag.is_some_and(|etag| etags_match(etag.as_bytes(), condition, Comparison::Strong));
    }
    // A date is strong when the answer was made at least a second after its last change (RFC 9110 §8.8.2.2).
    let changed = date(stored, &header::LAST_MODIFIED);
    let strong = changed
        .zip(date(stored, &header::DATE))
        .and_then(|(changed, made)| made.duration_since(changed).ok())
        .is_some_and(|span| span.as_secs() >= 1);
    strong && date(request, &header::IF_RANGE) == changed
}

/// Whether a 304 speaks of this stored answer (RFC 9111 §4.3.4).
#[must_use]
pub(super) fn confirms(head: &Head, response: &HeaderMap) -> bool {
    if let Some(new) = response.get(header::ETAG) {
        let comparison =
            if new.as_bytes().starts_with(b"W/") { Comparison::Weak } else { Comparison::Strong };
        let old = head.headers.get(header::ETAG);
        return old.is_some_and(|old| etags_match(old.as_bytes(), new.as_bytes(), comparison));
    }
    match (response.get(header::LAST_MODIFIED), head.headers.get(header::LAST_MODIFIED)) {
        (Some(_), Some(_)) => {
            date(response, &header::LAST_MODIFIED) == date(&head.headers, &header::LAST_MODIFIED)
        }
        (Some(_), None) => false,
        // Without a validator it answers the only one we asked about.
        (None, _) => true,
    }
}

/// The stored fields updated with those of a 304 (RFC 9111 §3.2): every field it carries replaces all of that name,
/// save those of the connection, those that describe the body we keep and a 304 does not have, and a cookie, which is no
/// reason to give the entry up, unless the route keeps cookies.
#[must_use]
pub(super) fn merged(stored: &HeaderMap, response: &HeaderMap, rule: &Rule) -> HeaderMap {
    let mut news = response.clone();
    // The age is of this exchange and decides about freshness; it is left out again when the head is stored.
    let age = news.get(header::AGE).cloned();
    remove_unstorable(&mut news);
    news.remove(header::CONTENT_ENCODING);
    news.remove(header::CONTENT_RANGE);
    if !rule.ignores(&header::SET_COOKIE) {
        news.remove(header::SET_COOKIE);
    }
    let mut merged = stored.clone();
    for name in news.keys() {
        merged.remove(name);
        for value in news.get_all(name) {
            merged.append(name.clone(), value.clone());
        }
    }
    if let Some(age) = age {
        merged.insert(header::AGE, age);
    }
    if !response.contains_key(header::DATE) {
        // The stored date is that of the old exchange; the 304 was made now.
        merged.remove(header::DATE);
    }
    merged
}

#[cfg(test)]
mod tests;
