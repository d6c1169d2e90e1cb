//! Upgrades to another protocol: WebSocket over HTTP/1.1 (RFC 6455 §4), and what else a route names (RFC 9110 §7.8).
//!
//! `Upgrade` never passes by itself: `hop_by_hop` drops it, and only an upgrade that was recognised here and that the
//! route takes is said to the peer anew. The tunnel opens only after a 101 that answers what we forwarded. An h2c
//! upgrade would open a tunnel past every rule of this edge: the front drops it, and no plan can name it.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Method, Version,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION,
        TRANSFER_ENCODING, UPGRADE,
    },
};

use super::list;

/// The proof that a request asks for one other protocol, in a way that can be passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upgrade {
    /// A valid WebSocket handshake.
    Websocket(Websocket),
    /// The offer of another protocol, by its name in lower case.
    Other(HeaderValue),
}

impl Upgrade {
    /// Reads a client's request, before its hop-by-hop fields are removed.
    ///
    /// A body is refused: its bytes and the tunnel's could not be told apart.
    #[must_use]
    pub fn recognise(method: &Method, version: Version, headers: &HeaderMap) -> Option<Self> {
        if version != Version::HTTP_11 || !headers.contains_key(UPGRADE) || has_body(headers) {
            return None;
        }
        if let Some(websocket) = Websocket::recognise(method, version, headers) {
            return Some(Self::Websocket(websocket));
        }
        let name = list::only(headers, UPGRADE).filter(|_| connects(headers))?.to_ascii_lowercase();
        let is_one = !name.is_empty() && !name.iter().any(|byte| matches!(byte, b',' | b' ' | b'\t' | b';'));
        let is_other = is_one && name != b"websocket" && name != b"h2c";
        is_other.then(|| HeaderValue::from_bytes(&name).ok()).flatten().map(Self::Other)
    }

    /// The protocol, in lower case.
    #[must_use]
    pub fn name(&self) -> HeaderValue {
        match self {
            Self::Websocket(_) => HeaderValue::from_static("websocket"),
            Self::Other(name) => name.clone(),
        }
    }

    /// Says it, to the peer that is asked or the client that is answered.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, self.name());
    }

    /// Whether the head of a 101 answers this upgrade.
    #[must_use]
    pub fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        match self {
            Self::Websocket(websocket) => websocket.is_answered_by(headers),
            Self::Other(name) => {
                let same = |protocol: &[u8]| protocol.eq_ignore_ascii_case(name.as_bytes());
                connects(headers)
                    && list::only(headers, UPGRADE).is_some_and(same)
                    && !headers.contains_key(TRANSFER_ENCODING)
                    && !headers.contains_key(CONTENT_LENGTH)
            }
        }
    }
}

/// The proof that a request asks for a WebSocket and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Websocket(());

impl Websocket {
    /// Reads a client's request, before its hop-by-hop fields are removed; `None` when it is no valid handshake.
    ///
    /// Source: RFC 6455 §4.2.1. A body is refused as well: its bytes and the tunnel's could not be told apart.
    #[must_use]
    pub fn recognise(method: &Method, version: Version, headers: &HeaderMap) -> Option<Self> {
        let key = list::only(headers, SEC_WEBSOCKET_KEY)?;
        let valid = method == Method::GET
            && version == Version::HTTP_11
            && names_websocket(headers)
            && list::only(headers, SEC_WEBSOCKET_VERSION)? == b"13"
            && STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16)
            && !has_body(headers);
        valid.then_some(Self(()))
    }

    /// Whether the head of a 101 answers this upgrade. That `Sec-WebSocket-Accept` fits the key is the client's to check.
    #[must_use]
    pub fn is_answered_by(&self, headers: &HeaderMap) -> bool {
        names_websocket(headers)
            && list::only(headers, SEC_WEBSOCKET_ACCEPT).is_some()
            && !headers.contains_key(TRANSFER_ENCODING)
            && !headers.contains_key(CONTENT_LENGTH)
    }
}

/// `Connection` holds `upgrade`, and `Upgrade` is `websocket` alone: of a list, the other end might choose another.
fn names_websocket(headers: &HeaderMap) -> bool {
    connects(headers)
        && list::only(headers, UPGRADE).is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

fn connects(headers: &HeaderMap) -> bool {
    list::elements(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    /// The handshake of RFC 6455 §1.2, with `name` removed or set.
    fn handshake(name: &'static str, value: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    fn is_recognised(headers: &HeaderMap) -> bool {
        Websocket::recognise(&Method::GET, Version::HTTP_11, headers).is_some()
    }

    #[test]
    fn the_handshake_of_the_rfc_is_recognised_in_any_case() {
        assert!(is_recognised(&handshake("origin", Some("http://example.com"))));
        assert!(is_recognised(&handshake("upgrade", Some("WebSocket"))));
        assert!(is_recognised(&handshake("content-length", Some("0"))));
    }

    #[test]
    fn other_methods_and_versions_are_not() {
        let headers = handshake("origin", None);
        assert!(Websocket::recognise(&Method::POST, Version::HTTP_11, &headers).is_none());
        assert!(Websocket::recognise(&Method::GET, Version::HTTP_10, &headers).is_none());
        assert!(Websocket::recognise(&Method::GET, Version::HTTP_2, &headers).is_none());
    }

    #[test]
    fn an_incomplete_or_ambiguous_handshake_is_not() {
        for (name, value) in [
            ("connection", None),
            ("connection", Some("keep-alive")),
            ("upgrade", None),
            ("upgrade", Some("h2c")),
            ("upgrade", Some("websocket, h2c")),
            ("sec-websocket-key", None),
            ("sec-websocket-key", Some("c2hvcnQ=")),
            ("sec-websocket-key", Some("not base64 at all!!!!!!!")),
            ("sec-websocket-version", None),
            ("sec-websocket-version", Some("8")),
            ("content-length", Some("5")),
            ("transfer-encoding", Some("chunked")),
        ] {
            assert!(!is_recognised(&handshake(name, value)), "{name}: {value:?}");
        }
        let mut twice = handshake("origin", None);
        twice.append(UPGRADE, HeaderValue::from_static("websocket"));
        assert!(!is_recognised(&twice));
    }

    fn answer(name: &'static str, value: Option<&'static str>) -> HeaderMap {
        let mut headers = handshake("sec-websocket-key", None);
        headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_a_101_that_names_websocket_answers() {
        assert!(Websocket(()).is_answered_by(&answer("origin", None)));
        for (name, value) in [
            ("upgrade", None),
            ("upgrade", Some("h2c")),
            ("connection", Some("close")),
            ("sec-websocket-accept", None),
            ("content-length", Some("5")),
            ("transfer-encoding", Some("chunked")),
        ] {
            assert!(!Websocket(()).is_answered_by(&answer(name, value)), "{name}: {value:?}");
        }
    }

    #[test]
    fn another_protocol_is_recognised_and_answered_by_its_name() {
        let fields = |fields: &[(&'static str, &str)]| {
            let field = |(name, value): &(&'static str, &str)| {
                (HeaderName::from_static(name), value.parse::<HeaderValue>().unwrap())
            };
            fields.iter().map(field).collect::<HeaderMap>()
        };
        let recognise = |upgrade: &str| {
            let asked = fields(&[("connection", "Upgrade"), ("upgrade", upgrade)]);
            Upgrade::recognise(&Method::POST, Version::HTTP_11, &asked)
        };
        let tcp = recognise("TCP").unwrap();
        assert_eq!(tcp.name(), "tcp");
        assert!(tcp.is_answered_by(&fields(&[("connection", "upgrade"), ("upgrade", "tcp")])));
        assert!(!tcp.is_answered_by(&fields(&[("connection", "upgrade"), ("upgrade", "spdy/3.1")])));
        assert!(!tcp.is_answered_by(&fields(&[("upgrade", "tcp")])));
        for no in ["h2c", "websocket", "tcp, h2c"] {
            assert_eq!(recognise(no), None, "{no}");
        }
        let silent = fields(&[("upgrade", "tcp")]);
        assert_eq!(Upgrade::recognise(&Method::POST, Version::HTTP_11, &silent), None);
        let loud = fields(&[("connection", "upgrade"), ("upgrade", "tcp"), ("content-length", "1")]);
        assert_eq!(Upgrade::recognise(&Method::POST, Version::HTTP_11, &loud), None);
    }
}
