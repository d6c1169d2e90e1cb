//! Fields that belong to one connection, removed in both directions (RFC 9110 §7.6.1).
//!
//! A `Connection` field can name further ones, and with that a client could make us drop what the origin relies on:
//! who the client is, how long the body is, which credentials came along. Naming such a field is refused, not obeyed.
//! Removal comes before the cache looks at the request, so that what varies an answer is what the origin saw.
//!
//! A request keeps its `Transfer-Encoding` here: the session that holds this head reads the body by it. Whoever writes
//! the request for the origin frames it anew.

use http::{
    HeaderMap, HeaderName,
    header::{self, CONNECTION, UPGRADE},
};

use super::{list, upgrade::Upgrade};

/// Why a request's hop-by-hop fields are refused; the client's fault, 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// `Connection` names a field that is not the connection's to drop.
    #[error("connection names the protected field {0}")]
    Protected(HeaderName),
    /// `Connection` names what can be no field.
    #[error("connection names what is no field")]
    Malformed,
    /// `Connection` names more fields than any honest client does.
    #[error("connection names more than {NOMINATIONS} fields")]
    TooMany,
}

/// Elements of `Connection` in one request; honest clients name one or two, Pingora refuses more than nine.
const NOMINATIONS: usize = 9;

/// Hop-by-hop whether `Connection` names them or not, in either direction.
const STANDARD: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    // Said anew where the next hop carries trailers.
    header::TE,
    header::TRAILER,
    UPGRADE,
];

/// Of requests only.
const OF_REQUESTS: [HeaderName; 3] = [
    // Meant for us, if for anybody.
    header::PROXY_AUTHORIZATION,
    // CGI makes HTTP_PROXY of it (CVE-2016-5385).
    HeaderName::from_static("proxy"),
    // Half of an h2c upgrade, which is never forwarded.
    HeaderName::from_static("http2-settings"),
];

/// Fields that `Connection` may not name: framing, routing, identity, and what decides how an answer may be reused.
const PROTECTED: [HeaderName; 27] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::EXPECT,
    header::FORWARDED,
    header::VIA,
    header::MAX_FORWARDS,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::ORIGIN,
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::VARY,
    header::AGE,
    header::RANGE,
    header::IF_RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("traceparent"),
];

/// Of an answer's head: behind its body they would come too late to be obeyed, or be obeyed by some and not by others.
const OF_HEADS: [HeaderName; 8] = [
    header::LOCATION,
    header::RETRY_AFTER,
    header::EXPIRES,
    header::DATE,
    header::WWW_AUTHENTICATE,
    header::PROXY_AUTHENTICATE,
    header::STRICT_TRANSPORT_SECURITY,
    HeaderName::from_static("cache-status"),
];

/// Whether [`clean_request`] has nothing to do, as of most requests, and there is neither an upgrade nor a word about
/// trailers. To look at the fields there are is cheaper than to look for each that is not.
#[must_use]
pub fn is_clean(headers: &HeaderMap) -> bool {
    !headers.keys().any(|name| STANDARD.contains(name) || OF_REQUESTS.contains(name) || is_odd(name))
}

/// Cleans a client's request for the origin; `identity` is the signed field, which no client may name. An upgrade that is
/// passed on is written anew.
///
/// Errors: [`Refused`], before anything is removed.
/// Source: RFC 9110 §7.6.1; nginx `underscores_in_headers off` and `ignore_invalid_headers on` for the names.
pub fn clean_request(headers: &mut HeaderMap, identity: Option<&HeaderName>) -> Result<(), Refused> {
    let nominated = nominated(headers)?;
    let is_protected = |name: &&HeaderName| {
        PROTECTED.contains(name) || name.as_str().starts_with("x-forwarded-") || identity == Some(*name)
    };
    if let Some(name) = nominated.iter().find(is_protected) {
        return Err(Refused::Protected(name.clone()));
    }
    remove(headers, STANDARD.iter().chain(&OF_REQUESTS).chain(&nominated));
    remove_odd_names(headers);
    Ok(())
}

/// Cleans an origin's answer for the cache and the client; `upgrade` when it is the 101 that we asked for.
///
/// A nomination of a protected field is not obeyed: an origin's `Cache-Control` or `Set-Cookie` is for everybody.
pub fn clean_response(headers: &mut HeaderMap, upgrade: Option<&Upgrade>) {
    // Malformed nominations name nothing that could be removed.
    let mut nominated: Vec<_> =
        list::elements(headers, CONNECTION).filter_map(|name| HeaderName::from_bytes(name).ok()).collect();
    nominated.retain(|name| !PROTECTED.contains(name));
    remove(headers, STANDARD.iter().chain([&header::TRANSFER_ENCODING]).chain(&nominated));
    if let Some(upgrade) = upgrade {
        upgrade.write(headers);
    }
}

/// Whether a request's `TE` says that trailers are read and not thrown away (RFC 9110 §10.1.4).
#[must_use]
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    list::elements(headers, header::TE).any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Cleans the trailers of an answer: what frames, routes, authenticates or controls comes before its body or not at all.
///
/// Source: RFC 9110 §6.5.1.
pub fn clean_trailers(trailers: &mut HeaderMap) {
    remove(trailers, STANDARD.iter().chain(&PROTECTED).chain(&OF_HEADS));
}

fn nominated(headers: &HeaderMap) -> Result<Vec<HeaderName>, Refused> {
    let mut nominated = Vec::new();
    for name in list::elements(headers, CONNECTION) {
        if nominated.len() == NOMINATIONS {
            return Err(Refused::TooMany);
        }
        nominated.push(HeaderName::from_bytes(name).map_err(|_| Refused::Malformed)?);
    }
    Ok(nominated)
}

fn remove<'a>(headers: &mut HeaderMap, names: impl Iterator<Item = &'a HeaderName>) {
    for name in names {
        headers.remove(name);
    }
}

/// Drops names with anything but letters, digits and `-`: CGI and WSGI fold `_` and its like into `-`, so that
/// `Content_Length` or `X_Forwarded_For` would be read as the field that we guard.
fn remove_odd_names(headers: &mut HeaderMap) {
    let odd: Vec<_> = headers.keys().filter(|name| is_odd(name)).cloned().collect();
    remove(headers, odd.iter());
}

fn is_odd(name: &HeaderName) -> bool {
    !name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn trailers_have_nothing_of_a_head() {
        let mut trailers = head(&[
            ("x-sum", "1"),
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("set-cookie", "a=b"),
            ("location", "/elsewhere"),
            ("www-authenticate", "Basic"),
            ("strict-transport-security", "max-age=0"),
            ("cache-status", "evil; hit"),
            ("connection", "close"),
        ]);
        clean_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status", "x-sum"]);
    }

    fn cleaned(fields: &[(&str, &str)]) -> Result<HeaderMap, Refused> {
        let mut headers = head(fields);
        clean_request(&mut headers, Some(&HeaderName::from_static("x-weir-identity"))).map(|()| headers)
    }

    #[test]
    fn what_is_clean_stays_as_it_is() {
        let clean = head(&[("host", "a"), ("accept", "*/*"), ("x-a", "1"), ("cookie", "a=1")]);
        assert!(is_clean(&clean));
        let mut after = clean.clone();
        clean_request(&mut after, None).unwrap();
        assert_eq!(after, clean);
        for (name, value) in
            [("connection", "x-a"), ("te", "trailers"), ("upgrade", "x"), ("x_odd", "1"), ("proxy", "x")]
        {
            let mut dirty = clean.clone();
            dirty.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value));
            assert!(!is_clean(&dirty), "{name}");
        }
    }

    #[test]
    fn standard_fields_end_here_and_others_pass() {
        let headers = cleaned(&[
            ("host", "a"),
            ("connection", "keep-alive, , TE"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("proxy-authorization", "Basic x"),
            ("proxy", "http://evil"),
            ("authorization", "Bearer x"),
            ("content-length", "3"),
        ]);
        assert_eq!(names(&headers.unwrap()), ["authorization", "content-length", "host"]);
    }

    #[test]
    fn the_framing_stays_with_the_session_that_reads_the_body() {
        let headers = cleaned(&[("transfer-encoding", "chunked"), ("connection", "close")]).unwrap();
        assert_eq!(names(&headers), ["transfer-encoding"]);
    }

    #[test]
    fn fields_that_connection_names_end_here_from_every_connection_field() {
        let fields =
            [("connection", "close, X-One"), ("connection", "x-two"), ("x-one", "1"), ("x-two", "2")];
        assert!(cleaned(&fields).unwrap().is_empty());
    }

    #[test]
    fn naming_a_protected_field_is_refused() {
        for name in [
            "Host",
            "Content-Length",
            "Transfer-Encoding",
            "X-Forwarded-For",
            "x-forwarded-anything",
            "Forwarded",
            "X-Real-IP",
            "Via",
            "Authorization",
            "Cookie",
            "X-Weir-Identity",
        ] {
            let refused = cleaned(&[("connection", &format!("close, {name}"))]).unwrap_err();
            assert_eq!(refused, Refused::Protected(name.parse().unwrap()));
        }
    }

    #[test]
    fn naming_what_is_no_field_is_refused() {
        for value in ["\"X-Forwarded-For\"", "a b", ":path", "a;b"] {
            assert_eq!(cleaned(&[("connection", value)]).unwrap_err(), Refused::Malformed, "{value}");
        }
    }

    #[test]
    fn naming_nine_fields_is_allowed_and_ten_are_refused() {
        assert!(cleaned(&[("connection", "a,b,c,d,e,f,g,h,i")]).is_ok());
        assert_eq!(cleaned(&[("connection", "a,b,c,d,e,f,g,h,i,j")]).unwrap_err(), Refused::TooMany);
    }

    #[test]
    fn look_alike_names_are_dropped() {
        let headers = cleaned(&[
            ("content_length", "5"),
            ("transfer_encoding", "chunked"),
            ("x_forwarded_for", "1.2.3.4"),
            ("content.length", "5"),
            ("x-fine-1", "yes"),
        ]);
        assert_eq!(names(&headers.unwrap()), ["x-fine-1"]);
    }

    #[test]
    fn an_upgrade_is_removed_and_forwarded_in_one_form() {
        let mut headers = head(&[
            ("connection", "Keep-Alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ]);
        let upgrade = Upgrade::recognise(&http::Method::GET, http::Version::HTTP_11, &headers).unwrap();
        clean_request(&mut headers, None).unwrap();
        assert!(!headers.contains_key(UPGRADE) && !headers.contains_key(CONNECTION));
        assert!(headers.contains_key("sec-websocket-key"));
        upgrade.write(&mut headers);
        assert_eq!(
            (&headers[CONNECTION], &headers[UPGRADE]),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("websocket"))
        );
    }

    #[test]
    fn an_answer_loses_its_hop_by_hop_fields_and_keeps_what_is_for_everybody() {
        let mut headers = head(&[
            ("connection", "keep-alive, x-internal, cache-control, a b"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-internal", "1"),
            ("cache-control", "private"),
            ("x_odd", "kept: the client is not fooled by it"),
        ]);
        clean_response(&mut headers, None);
        assert_eq!(names(&headers), ["cache-control", "x_odd"]);
    }
}
