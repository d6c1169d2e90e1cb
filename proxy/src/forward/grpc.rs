//! What a gRPC client hears when the answer is ours: the status of HTTP as any other client, and the same in its own words.
//!
//! nginx's grpc module answers with HTTP's status alone, from which clients derive theirs; so that no two clients derive
//! differently, the derived one is written beside it. There is no body: `application/grpc` would promise framed messages.
//!
//! Source: grpc `doc/http-grpc-status-mapping.md`, `doc/PROTOCOL-HTTP2.md` (trailers-only answers).

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Whether a request is a gRPC call: `application/grpc`, alone or with a coding (`+proto`). gRPC-Web is another protocol.
#[must_use]
pub fn is_call(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    kind.strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Sets what a gRPC client reads; `sentence` has neither percent signs nor anything outside printable ASCII.
pub fn say(fields: &mut HeaderMap, status: StatusCode, sentence: &'static str) {
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.insert(GRPC_STATUS, HeaderValue::from(code(status)));
    fields.insert(GRPC_MESSAGE, HeaderValue::from_static(sentence));
}

/// The code that clients derive from a status of HTTP.
fn code(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,             // INTERNAL
        401 => 16,             // UNAUTHENTICATED
        403 => 7,              // PERMISSION_DENIED
        404 => 12,             // UNIMPLEMENTED
        429 | 502..=504 => 14, // UNAVAILABLE
        _ => 2,                // UNKNOWN
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_type_and_grpc_web_is_not() {
        let is = |kind: &'static str| {
            is_call(&HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc; x=y"));
        assert!(!is("application/grpc-web") && !is("application/json") && !is_call(&HeaderMap::new()));
    }

    #[test]
    fn every_status_has_the_code_that_clients_derive() {
        let codes = [400, 401, 403, 404, 413, 429, 500, 502, 503, 504]
            .map(|status| code(StatusCode::from_u16(status).unwrap()));
        assert_eq!(codes, [13, 16, 7, 12, 2, 14, 2, 14, 14, 14]);
    }
}
