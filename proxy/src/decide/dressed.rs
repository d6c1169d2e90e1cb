//! The head of an answer: what the plan makes of the fields that the origin sent, on either lane.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Passed;
use crate::{
    cache::{CacheStatus, TAG_FIELDS},
    forward::trace::X_REQUEST_ID,
    request::{Facts, RequestView},
    running::Running,
};

/// The field in which caches say what they did (RFC 9211).
pub const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

impl Passed {
    /// Adds to an answer's fields what every answer carries, and what the route sets and removes.
    pub fn dress(
        &self,
        running: &Running,
        request: &RequestView,
        cache: Option<&CacheStatus>,
        fields: &mut HeaderMap,
    ) {
        let route = self.route(running);
        if route.cache.is_some() {
            for name in &TAG_FIELDS {
                fields.remove(name);
            }
        }
        if let Some(value) = cache.and_then(|status| HeaderValue::try_from(status.to_string()).ok()) {
            // Appended: the caches behind us have said theirs (RFC 9211 §2).
            fields.append(CACHE_STATUS, value);
        }
        fields.insert(X_REQUEST_ID, request.id.value());
        let facts = Facts { cache: cache.map_or("", CacheStatus::nginx_word), ..self.facts(request) };
        for (name, template) in &route.response_headers {
            let mut value = String::new();
            template.render(&facts, &mut value);
            match HeaderValue::try_from(value) {
                Ok(value) if value.is_empty() => _ = fields.remove(name),
                Ok(value) => _ = fields.insert(name, value),
                // A client chose bytes that no field may carry; without the field the answer is still right.
                Err(_) => _ = fields.remove(name),
            }
        }
    }
}

/// Says how long the body is, and nothing else about where it ends.
pub fn frame_by_length(fields: &mut HeaderMap, length: u64) {
    fields.remove(header::CONTENT_LENGTH);
    fields.remove(header::TRANSFER_ENCODING);
    fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
}
