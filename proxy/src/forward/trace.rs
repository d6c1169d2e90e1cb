//! The request's id and its place in a trace.
//!
//! Both come from outside only in a form that cannot break a log or a header, and an id only from a trusted hop:
//! whoever chooses the id chooses what an operator finds. A trace may be continued for anybody, as W3C intends; it
//! is random and names nobody. Randomness is an argument.

use std::fmt::Write;

use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::{Uuid, fmt::Hyphenated};

use super::list;

/// The field of the request's id.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context: where this request is in its trace.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context: what vendors add.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The name of a request in logs, here and at the origin.
#[derive(Debug, Clone)]
pub enum RequestId {
    /// Ours: a uuid as text.
    Fresh([u8; Hyphenated::LENGTH]),
    /// What a trusted hop called it.
    Given(HeaderValue),
}

impl RequestId {
    /// The client's, if it is one field of `[A-Za-z0-9._-]{1,128}` from a trusted hop; otherwise `fresh`.
    #[must_use]
    pub fn of(headers: &HeaderMap, is_trusted: bool, fresh: Uuid) -> Self {
        let is_sane = |id: &&[u8]| {
            (1..=128).contains(&id.len())
                && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
        };
        is_trusted
            .then(|| list::only(headers, X_REQUEST_ID))
            .flatten()
            .filter(is_sane)
            .and_then(|id| HeaderValue::from_bytes(id).ok())
            .map_or_else(|| Self::fresh(fresh), Self::Given)
    }

    fn fresh(id: Uuid) -> Self {
        let mut text = [0; Hyphenated::LENGTH];
        id.as_hyphenated().encode_lower(&mut text);
        Self::Fresh(text)
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// The same.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Fresh(text) => text,
            Self::Given(value) => value.as_bytes(),
        }
    }

    /// For a field.
    #[must_use]
    pub fn value(&self) -> HeaderValue {
        match self {
            Self::Fresh(text) => HeaderValue::from_bytes(text).expect("a uuid is hex and dashes"),
            Self::Given(value) => value.clone(),
        }
    }
}

/// Where a request is in its trace: `00-{trace}-{span}-{flags}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Shared by all requests of the trace; never zero.
    pub trace: Uuid,
    /// Our part of it; never zero.
    pub span: u64,
    /// Bit 0: the caller may have recorded it.
    pub flags: u8,
}

impl Trace {
    /// Continues the trace that a valid `traceparent` names, with our own span; or begins one, not sampled.
    ///
    /// Source: W3C Trace Context §3.2.2 (format; higher versions are read by their known part), §4.3 (mutation).
    #[must_use]
    pub fn follow(headers: &HeaderMap, fresh: Uuid, span: u64) -> Self {
        // A fresh v4 uuid is never zero; a zero span is as unlikely as any other and simply made one.
        let span = span.max(1);
        match list::only(headers, TRACEPARENT).and_then(parse) {
            Some((trace, flags)) => Self { trace, span, flags },
            None => Self { trace: fresh, span, flags: 0 },
        }
    }

    /// Writes `traceparent`, and keeps `tracestate` only if it belongs to the trace that is continued.
    pub fn write(self, headers: &mut HeaderMap) {
        let continued =
            list::only(headers, TRACEPARENT).and_then(parse).is_some_and(|(trace, _)| trace == self.trace);
        if !continued {
            headers.remove(TRACESTATE);
        }
        headers.insert(TRACEPARENT, HeaderValue::try_from(self.text()).expect("hex and dashes"));
    }

    /// As `traceparent` has it.
    fn text(self) -> String {
        let mut text = String::with_capacity("00-".len() + 32 + 1 + 16 + "-00".len());
        let _ = write!(text, "00-{}-{:016x}-{:02x}", self.trace.as_simple(), self.span, self.flags);
        text
    }
}

/// The trace and the flags of a valid `traceparent`.
fn parse(value: &[u8]) -> Option<(Uuid, u8)> {
    let value = std::str::from_utf8(value).ok()?;
    let mut parts = value.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next()?;
        // Lower case alone is valid; `from_str_radix` would take upper case and a sign.
        let is_hex = part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (part.len() == digits && is_hex).then(|| u128::from_str_radix(part, 16).ok())?
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let ends_here = parts.next().is_none();
    let valid = version != 0xff && trace != 0 && span != 0 && (version > 0 || ends_here);
    // Of the flags only "sampled" has a meaning in version 00; the others must be sent as zero.
    valid.then_some((Uuid::from_u128(trace), u8::from(flags & 1 == 1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const FRESH: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn head(name: HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::try_from(value).unwrap())].into_iter().collect()
    }

    #[test]
    fn a_sane_id_is_kept_from_a_trusted_hop_alone() {
        let headers = head(X_REQUEST_ID, "Abc-1.2_3");
        assert_eq!(RequestId::of(&headers, true, FRESH).as_str(), "Abc-1.2_3");
        assert_eq!(RequestId::of(&headers, false, FRESH).as_str(), FRESH.to_string());
    }

    #[test]
    fn an_id_that_could_break_a_log_is_replaced() {
        let long = "a".repeat(129);
        for id in ["", "a b", "a\"b", "a;b", "${x}", "a/b", &long] {
            assert_eq!(
                RequestId::of(&head(X_REQUEST_ID, id), true, FRESH).as_str(),
                FRESH.to_string(),
                "{id}"
            );
        }
        let mut twice = head(X_REQUEST_ID, "a");
        twice.append(X_REQUEST_ID, HeaderValue::from_static("b"));
        assert_eq!(RequestId::of(&twice, true, FRESH).as_str(), FRESH.to_string());
        assert_eq!(RequestId::of(&head(X_REQUEST_ID, &long[1..]), true, FRESH).as_str(), &long[1..]);
    }

    #[test]
    fn a_valid_trace_is_continued_under_our_own_span() {
        let mut headers = head(TRACEPARENT, VALID);
        headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
        Trace::follow(&headers, FRESH, 7).write(&mut headers);
        assert_eq!(headers[TRACEPARENT], "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-01");
        assert_eq!(headers[TRACESTATE], "vendor=1");
    }

    #[test]
    fn an_invalid_trace_is_begun_anew_without_its_state() {
        for value in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let mut headers = head(TRACEPARENT, value);
            headers.insert(TRACESTATE, HeaderValue::from_static("vendor=1"));
            Trace::follow(&headers, FRESH, 7).write(&mut headers);
            assert_eq!(headers[TRACEPARENT], "00-123456789abc4def8123456789abcdef-0000000000000007-00");
            assert!(!headers.contains_key(TRACESTATE), "{value}");
        }
    }

    #[test]
    fn a_later_version_is_read_by_its_known_part() {
        let headers = head(TRACEPARENT, "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-what-comes");
        let trace = Trace::follow(&headers, FRESH, 0);
        assert_eq!((trace.flags, trace.span), (1, 1));
        assert_eq!(trace.trace.as_u128(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
    }
}
