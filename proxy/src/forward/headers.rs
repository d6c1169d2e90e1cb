//! What the origin is told about the client, and what it is never told by the client.
//!
//! Everything the origin may rely on is written here anew: a field that a client sends under one of our names is
//! dropped, or, where hops form a list, appended to if the hop that sent it is trusted. Fields by which frameworks
//! let a request pass for another one (path, method, host, prefix) are dropped, because the route, the limits and
//! the cache key of this edge have judged the request as it was (unkeyed inputs). The plan's own fields come last.
//!
//! Source: RFC 7239 (`Forwarded`), RFC 9110 §7.6.3 (`Via`); `X-Forwarded-*` by custom.

use std::{fmt::Write, net::IpAddr};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Version,
    header::{FORWARDED, VIA},
};

use super::{
    list,
    trace::{TRACEPARENT, TRACESTATE, Trace, X_REQUEST_ID},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Dropped whoever sends them: an origin's framework may believe them, nobody here did.
fn is_claim(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "x-real-ip"
                | "client-ip"
                | "true-client-ip"
                | "x-client-ip"
                | "x-cluster-client-ip"
                | "x-originating-ip"
                | "x-remote-ip"
                | "x-remote-addr"
                | "x-original-forwarded-for"
                | "x-original-url"
                | "x-rewrite-url"
                | "x-original-uri"
                | "x-original-host"
                | "x-host"
                | "x-http-host-override"
                | "x-http-method-override"
                | "x-http-method"
                | "x-method-override"
                | "x-scheme"
                | "x-url-scheme"
                | "front-end-https"
                | "x-script-name"
        )
}

/// Written here for each request anew: what varies by one of these varies by the client, or by the request.
pub const OF_ONE_REQUEST: [HeaderName; 7] =
    [X_FORWARDED_FOR, X_FORWARDED_PORT, FORWARDED, X_REAL_IP, X_REQUEST_ID, TRACEPARENT, TRACESTATE];

/// What this edge knows of the way a request came; trusted hops' words are already folded in by accept.
#[derive(Debug, Clone)]
pub struct Hop<'a> {
    /// The client, behind trusted hops.
    pub client: IpAddr,
    /// Who connected to us: the client, or the last hop.
    pub peer: IpAddr,
    /// Whether `peer` is trusted, so that its lists of hops are continued.
    pub is_trusted: bool,
    /// `http` or `https`, as the client used it.
    pub scheme: &'static str,
    /// As the client asked for it, with the port if it gave one.
    pub host: &'a str,
    /// The port that the client connected to.
    pub port: u16,
    /// The version in which we received the request.
    pub version: Version,
    /// From [`super::trace::RequestId`].
    pub request_id: HeaderValue,
    /// From [`Trace::follow`].
    pub trace: Trace,
}

/// A field whose value cannot be sent: a rendered template had a control character, or the host did; 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the value for {0} cannot be sent")]
pub struct Unsendable(pub HeaderName);

/// Turns a client's head, cleaned by `hop_by_hop`, into the one for the origin.
///
/// Shape:  `identity` is the signed field's name with its value for this caller, if there is one; `configured` are the
///         plan's fields, rendered, in order: an empty value removes.
/// Errors: [`Unsendable`]; the head is then of no use.
pub fn prepare(
    headers: &mut HeaderMap,
    hop: &Hop<'_>,
    identity: Option<(&HeaderName, Option<HeaderValue>)>,
    configured: &[(HeaderName, String)],
) -> Result<(), Unsendable> {
    let hops = Hops::continued(headers, hop);
    drop_claims(headers);
    headers.reserve(10 + configured.len());
    put(headers, X_FORWARDED_FOR, hops.x_forwarded_for)?;
    put(headers, FORWARDED, hops.forwarded)?;
    put(headers, VIA, hops.via)?;
    put(headers, X_REAL_IP, hop.client.to_string())?;
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(hop.scheme));
    set(headers, X_FORWARDED_HOST, hop.host.as_bytes())?;
    headers.insert(X_FORWARDED_PORT, HeaderValue::from(hop.port));
    headers.insert(X_REQUEST_ID, hop.request_id.clone());
    hop.trace.write(headers);
    for (name, value) in configured {
        set(headers, name.clone(), value.as_bytes())?;
    }
    // After the plan's fields: a template never speaks for the caller.
    if let Some((name, value)) = identity {
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// Sets a field, or removes it when the value is empty.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &[u8]) -> Result<(), Unsendable> {
    if value.is_empty() {
        headers.remove(name);
        return Ok(());
    }
    let value = HeaderValue::from_bytes(value).map_err(|_| Unsendable(name.clone()))?;
    headers.insert(name, value);
    Ok(())
}

/// As [`set`], of a value that need not be copied.
fn put(headers: &mut HeaderMap, name: HeaderName, value: String) -> Result<(), Unsendable> {
    let value = HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| Unsendable(name.clone()))?;
    headers.insert(name, value);
    Ok(())
}

fn drop_claims(headers: &mut HeaderMap) {
    // Most requests make none, and looking each up would hash each.
    let claims: Vec<_> = headers.keys().filter(|name| is_claim(name.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// The three lists of hops, each with this one appended.
struct Hops {
    x_forwarded_for: String,
    forwarded: String,
    via: String,
}

impl Hops {
    fn continued(headers: &HeaderMap, hop: &Hop<'_>) -> Self {
        let before = |name| if hop.is_trusted { joined(headers, name) } else { String::new() };
        let mut x_forwarded_for = before(X_FORWARDED_FOR);
        append(&mut x_forwarded_for, &hop.peer.to_string());
        let mut forwarded = before(FORWARDED);
        append(&mut forwarded, &element(hop));
        // Kept whoever sent it: it names no client, and loops are found by it.
        let mut via = joined(headers, VIA);
        append(&mut via, pseudonym(hop.version));
        Self { x_forwarded_for, forwarded, via }
    }
}

/// All the values of `name` as one list; what is no text is left out.
fn joined(headers: &HeaderMap, name: HeaderName) -> String {
    let mut list = String::new();
    list::elements(headers, name)
        .filter_map(|element| std::str::from_utf8(element).ok())
        .for_each(|element| append(&mut list, element));
    list
}

fn append(list: &mut String, element: &str) {
    if !list.is_empty() {
        list.push_str(", ");
    }
    list.push_str(element);
}

/// One element of `Forwarded`. IPv6 has colons and brackets and must be quoted (RFC 7239 §6); so must a host with a port.
fn element(hop: &Hop<'_>) -> String {
    let mut element = match hop.peer {
        IpAddr::V4(address) => format!("for={address}"),
        IpAddr::V6(address) => format!("for=\"[{address}]\""),
    };
    if !hop.host.is_empty() {
        element.push_str(";host=");
        push_value(&mut element, hop.host);
    }
    // Writing to a String cannot fail.
    let _ = write!(element, ";proto={}", hop.scheme);
    element
}

/// A token as it is, anything else as a quoted string (RFC 9110 §5.6.4).
fn push_value(out: &mut String, value: &str) {
    if value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)) {
        out.push_str(value);
        return;
    }
    out.push('"');
    for character in value.chars() {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
}

/// Our element of `Via`: the received protocol without its `HTTP/`, and our name.
fn pseudonym(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0 weir",
        Version::HTTP_2 => "2.0 weir",
        Version::HTTP_3 => "3.0 weir",
        _ => "1.1 weir",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn hop(peer: &str) -> Hop<'static> {
        let peer = peer.parse().unwrap();
        Hop {
            client: peer,
            peer,
            is_trusted: false,
            scheme: "https",
            host: "example.org",
            port: 443,
            version: Version::HTTP_11,
            request_id: HeaderValue::from_static("id-1"),
            trace: Trace { trace: uuid::Uuid::from_u128(1), span: 2, flags: 0 },
        }
    }

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn prepared(fields: &[(&str, &str)], hop: &Hop<'_>) -> HeaderMap {
        let mut headers = head(fields);
        prepare(&mut headers, hop, None, &[]).unwrap();
        headers
    }

    #[test]
    fn the_origin_learns_who_asked_for_what() {
        let headers = prepared(&[("accept", "*/*")], &hop("192.0.2.7"));
        let expected = head(&[
            ("accept", "*/*"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-real-ip", "192.0.2.7"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "example.org"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=192.0.2.7;host=example.org;proto=https"),
            ("via", "1.1 weir"),
            ("x-request-id", "id-1"),
            ("traceparent", "00-00000000000000000000000000000001-0000000000000002-00"),
        ]);
        assert_eq!(headers, expected);
    }

    #[test]
    fn what_a_stranger_claims_is_replaced() {
        let claims = [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", "1"),
            ("x-request-id", "mine"),
        ];
        assert_eq!(prepared(&claims, &hop("192.0.2.7")), prepared(&[], &hop("192.0.2.7")));
    }

    #[test]
    fn a_trusted_hop_s_lists_are_continued_and_the_client_is_named() {
        let behind = Hop { client: "198.51.100.9".parse().unwrap(), is_trusted: true, ..hop("10.0.0.2") };
        let said = [
            ("x-forwarded-for", "203.0.113.1"),
            ("x-forwarded-for", "198.51.100.9"),
            ("forwarded", "for=198.51.100.9"),
        ];
        let headers = prepared(&said, &behind);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.1, 198.51.100.9, 10.0.0.2");
        assert_eq!(headers["forwarded"], "for=198.51.100.9, for=10.0.0.2;host=example.org;proto=https");
        assert_eq!(headers["x-real-ip"], "198.51.100.9");
    }

    #[test]
    fn ipv6_and_ports_are_quoted_as_rfc_7239_asks() {
        let headers = prepared(&[], &Hop { host: "example.org:8443", ..hop("2001:db8::1") });
        assert_eq!(headers["forwarded"], "for=\"[2001:db8::1]\";host=\"example.org:8443\";proto=https");
        assert_eq!(headers["x-forwarded-for"], "2001:db8::1");
    }

    #[test]
    fn a_quote_in_a_host_stays_inside_its_quotes() {
        let headers = prepared(&[], &Hop { host: "a\";for=x\\", ..hop("192.0.2.7") });
        assert_eq!(headers["forwarded"], r#"for=192.0.2.7;host="a\";for=x\\";proto=https"#);
    }

    #[test]
    fn via_is_continued_with_the_version_that_was_received() {
        let headers = prepared(&[("via", "1.0 cdn")], &Hop { version: Version::HTTP_2, ..hop("192.0.2.7") });
        assert_eq!(headers["via"], "1.0 cdn, 2.0 weir");
    }

    #[test]
    fn fields_that_pass_a_request_for_another_are_dropped_even_from_a_trusted_hop() {
        let hop = Hop { is_trusted: true, ..hop("10.0.0.2") };
        let fields = [
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x-forwarded-prefix", "/evil"),
            ("x-forwarded-scheme", "http"),
            ("x-forwarded-server", "evil"),
            ("x-host", "evil"),
            ("x-original-host", "evil"),
        ];
        assert_eq!(prepared(&fields, &hop), prepared(&[], &hop));
    }

    #[test]
    fn the_plan_s_fields_have_the_last_word_and_an_empty_one_removes() {
        let mut headers = head(&[("accept-language", "de")]);
        let configured = [
            (X_REAL_IP, "hidden".to_owned()),
            (http::header::ACCEPT_LANGUAGE, String::new()),
            (VIA, String::new()),
            (HeaderName::from_static("x-tenant"), "Größe".to_owned()),
        ];
        prepare(&mut headers, &hop("192.0.2.7"), None, &configured).unwrap();
        assert_eq!(headers["x-real-ip"], "hidden");
        assert_eq!(headers["x-tenant"].as_bytes(), "Größe".as_bytes());
        assert!(!headers.contains_key("accept-language") && !headers.contains_key("via"));
    }

    #[test]
    fn a_rendered_value_cannot_add_a_field() {
        let name = HeaderName::from_static("x-tenant");
        let configured = [(name.clone(), "a\r\nx-admin: 1".to_owned())];
        let refused = prepare(&mut HeaderMap::new(), &hop("192.0.2.7"), None, &configured);
        assert_eq!(refused, Err(Unsendable(name)));
    }

    #[test]
    fn the_identity_is_ours_or_absent() {
        let name = HeaderName::from_static("x-weir-identity");
        let forged = [("x-weir-identity", "forged"), ("x-weir-identity", "twice")];
        let configured = [(name.clone(), "templated".to_owned())];

        let mut headers = head(&forged);
        prepare(&mut headers, &hop("192.0.2.7"), Some((&name, None)), &configured).unwrap();
        assert!(!headers.contains_key(&name));

        let mut headers = head(&forged);
        let signed = Some(HeaderValue::from_static("signed"));
        prepare(&mut headers, &hop("192.0.2.7"), Some((&name, signed)), &configured).unwrap();
        assert_eq!(headers.get_all(&name).iter().collect::<Vec<_>>(), ["signed"]);
    }
}
