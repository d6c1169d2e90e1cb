//! A request head for a peer that speaks HTTP/2: made from the one for HTTP/1.1, which stays as it is for the next peer.
//!
//! `Host` becomes `:authority` and nothing else: two names for one request is one too many. No field of a connection is
//! left, and no coding: HTTP/2 frames the body itself (RFC 9113 §8.2.2, §8.3.1).

use http::{HeaderMap, HeaderValue, Method, Request, Uri, header, request::Parts};

/// The request cannot be said in HTTP/2: its host is no authority, or its target no path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has no form in HTTP/2")]
pub struct Unsayable;

/// The head for HTTP/2.
///
/// Shape:  `target` in origin form; `trailers` when the client takes them, which is the only thing `te` may say.
/// Errors: [`Unsayable`].
pub fn request(
    method: &Method,
    target: &str,
    fields: &HeaderMap,
    scheme: &str,
    trailers: bool,
) -> Result<Parts, Unsayable> {
    let authority = fields.get(header::HOST).ok_or(Unsayable)?.as_bytes();
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target);
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method.clone();
    parts.uri = uri.build().map_err(|_| Unsayable)?;
    parts.headers = fields.clone();
    for name in [header::HOST, header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING, header::TE] {
        parts.headers.remove(name);
    }
    if trailers {
        parts.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    Ok(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn fields(host: &str) -> HeaderMap {
        let fields = [
            ("host", host),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("transfer-encoding", "chunked"),
            ("te", "gzip"),
            ("accept", "*/*"),
        ];
        fields
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<HeaderMap>()
    }

    #[test]
    fn the_host_is_the_authority_and_nothing_of_the_connection_is_left() {
        let parts = request(&Method::POST, "/a?b=c", &fields("example.org:81"), "http", false).unwrap();
        assert_eq!(parts.uri.to_string(), "http://example.org:81/a?b=c");
        assert_eq!(parts.method, Method::POST);
        let names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
        assert_eq!(names, ["accept"]);
    }

    #[test]
    fn trailers_are_asked_for_when_the_client_takes_them() {
        let parts = request(&Method::POST, "/", &fields("h"), "https", true).unwrap();
        assert_eq!(parts.headers["te"], "trailers");
    }

    #[test]
    fn what_is_no_authority_is_not_sent() {
        for host in ["", "a b", "a/b"] {
            let said = request(&Method::GET, "/", &fields(host), "http", false);
            assert_eq!(said.unwrap_err(), Unsayable, "{host:?}");
        }
    }
}
