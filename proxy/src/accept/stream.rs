//! What the head of an HTTP/2 request may be: the rules of [`super::head`], and those of RFC 9113 §8.
//!
//! The library has decoded the head, and knows its pseudo-fields to be there and of one kind each. What passes here says
//! the same in HTTP/1 as it does in HTTP/2.

use bytes::Bytes;
use http::{HeaderValue, Method, header, request::Parts};
use weir_config::plan::Bounds;

use super::{
    bad::BadRequest,
    exchange::Head,
    head::fields::{is_lookalike, length},
    target::{self, Target},
};

/// Fields of a connection, which HTTP/2 has none of (RFC 9113 §8.2.2).
const FORBIDDEN: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// What the client asks for: path and query, or of CONNECT host and port.
fn asked(head: &Parts) -> &str {
    match head.method {
        Method::CONNECT => head.uri.authority().map_or("", |authority| authority.as_str()),
        _ => head.uri.path_and_query().map_or("/", |target| target.as_str()),
    }
}

/// The head as both protocols have it; of a refused one it is only shown.
pub(super) fn head(head: Parts) -> Head {
    let target = Bytes::copy_from_slice(asked(&head).as_bytes());
    Head { method: head.method, target, headers: head.headers }
}

/// Checks a head, and brings it into its ordinary form: one Host, one Cookie, no Expect. Says whether the client waits for a
/// 100 before it sends the body.
pub(super) fn check(head: &mut Parts, bounds: &Bounds) -> Result<bool, BadRequest> {
    if head.method == Method::TRACE {
        return Err(BadRequest::TraceRefused);
    }
    let is_connect = head.method == Method::CONNECT;
    if !is_connect && !matches!(head.uri.scheme_str(), Some("http" | "https")) {
        return Err(BadRequest::BadTarget);
    }
    let target = asked(head).as_bytes();
    if target.len() > bounds.uri_bytes.len() {
        return Err(BadRequest::UriTooLong);
    }
    if matches!(target::target(head.method.as_str().as_bytes(), target)?, Target::Absolute { .. }) {
        return Err(BadRequest::BadTarget);
    }
    if is_connect && head.headers.contains_key(header::CONTENT_LENGTH) {
        return Err(BadRequest::ForbiddenField);
    }
    fields(head, bounds)?;
    host(head)?;
    join_cookies(head)?;
    Ok(head.headers.remove(header::EXPECT).is_some())
}

fn fields(head: &Parts, bounds: &Bounds) -> Result<(), BadRequest> {
    if head.headers.len() > bounds.head_fields {
        return Err(BadRequest::TooManyFields);
    }
    for (name, value) in &head.headers {
        let value = value.as_bytes();
        if FORBIDDEN.contains(&name.as_str()) || (name == header::TE && value != b"trailers") {
            return Err(BadRequest::ForbiddenField);
        }
        if is_lookalike(name.as_str().as_bytes()) {
            return Err(BadRequest::BadFieldName);
        }
        if [value.first(), value.last()].iter().any(|byte| matches!(byte, Some(b' ' | b'\t'))) {
            return Err(BadRequest::BadFieldValue);
        }
        if name == header::EXPECT && !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(BadRequest::BadExpectation);
        }
    }
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(value) = lengths.next() {
        let length = length(value.as_bytes())?;
        if lengths.next().is_some() {
            return Err(BadRequest::SeveralLengths);
        }
        if bounds.body_bytes.get() > 0 && length > bounds.body_bytes.get() {
            return Err(BadRequest::BodyTooLarge);
        }
    }
    Ok(())
}

/// One Host, which is the authority when there is one.
fn host(head: &mut Parts) -> Result<(), BadRequest> {
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let named = hosts.next();
    if hosts.next().is_some() {
        return Err(BadRequest::SeveralHosts);
    }
    let named = named.map(|named| target::host(named.as_bytes())).transpose()?;
    let Some(authority) = head.uri.authority().map(|authority| authority.as_str().to_owned()) else {
        return named.map(|_| ()).ok_or(BadRequest::MissingHost);
    };
    let port = if head.uri.scheme_str() == Some("https") { 443 } else { 80 };
    let wanted = target::host(authority.as_bytes())?;
    match named {
        Some(named) if named.is_same(&wanted, port) => Ok(()),
        Some(_) => Err(BadRequest::HostMismatch),
        None => {
            let host = HeaderValue::try_from(authority).map_err(|_| BadRequest::BadHost)?;
            head.headers.insert(header::HOST, host);
            Ok(())
        }
    }
}

/// Crumbs as the one field that HTTP/1 has (RFC 9113 §8.2.3).
fn join_cookies(head: &mut Parts) -> Result<(), BadRequest> {
    let crumbs: Vec<_> = head.headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() < 2 {
        return Ok(());
    }
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_| BadRequest::BadFieldValue)?;
    head.headers.insert(header::COOKIE, joined);
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    fn head(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Parts {
        let request =
            fields.iter().fold(http::Request::builder().method(method).uri(uri), |request, (name, value)| {
                request.header(*name, *value)
            });
        request.body(()).unwrap().into_parts().0
    }

    fn checked(uri: &str, fields: &[(&'static str, &str)]) -> Result<Parts, BadRequest> {
        let mut head = head("GET", uri, fields);
        let mut bounds = Bounds::default();
        bounds.body_bytes = weir_config::units::Bytes::new(1 << 20);
        check(&mut head, &bounds).map(|_| head)
    }

    #[test]
    fn a_request_gets_one_host_and_one_cookie() {
        let head =
            checked("https://a/x", &[("cookie", "a=1"), ("cookie", "b=2"), ("expect", "100-continue")])
                .unwrap();
        assert_eq!(head.headers["host"], "a");
        assert_eq!(head.headers.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert!(!head.headers.contains_key("expect"));
        checked("https://a/x", &[("host", "A:443"), ("te", "trailers"), ("content-length", "5")]).unwrap();
    }

    #[test]
    fn what_http1_could_misread_is_refused() {
        use BadRequest as B;
        let long = format!("https://a/{}", "x".repeat(8192));
        for (uri, field, bad) in [
            ("https://a/", ("host", "b"), B::HostMismatch),
            ("https://a/", ("host", "a:80"), B::HostMismatch),
            ("https://u@a/", ("x", "y"), B::BadHost),
            ("https://a/", ("connection", "close"), B::ForbiddenField),
            ("https://a/", ("transfer-encoding", "chunked"), B::ForbiddenField),
            ("https://a/", ("upgrade", "h2c"), B::ForbiddenField),
            ("https://a/", ("te", "gzip"), B::ForbiddenField),
            ("https://a/", ("content_length", "5"), B::BadFieldName),
            ("https://a/", ("content-length", "+5"), B::BadLength),
            ("https://a/", ("content-length", "999999999999"), B::BodyTooLarge),
            ("https://a/", ("expect", "x"), B::BadExpectation),
            ("https://a/", ("x", " y"), B::BadFieldValue),
            ("ftp://a/", ("x", "y"), B::BadTarget),
            (&long, ("x", "y"), B::UriTooLong),
        ] {
            assert_eq!(checked(uri, &[field]).err(), Some(bad), "{uri} {field:?}");
        }
        let mut trace = head("TRACE", "https://a/", &[]);
        assert_eq!(check(&mut trace, &Bounds::default()), Err(B::TraceRefused));
        let lengths = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(checked("https://a/", &lengths).err(), Some(B::SeveralLengths));
        let many: Vec<_> = (0..101).map(|_| ("x", "y")).collect();
        assert_eq!(checked("https://a/", &many).err(), Some(B::TooManyFields));
    }
}
