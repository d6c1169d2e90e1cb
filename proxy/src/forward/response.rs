//! Which heads of an origin's answer are believed; the others become 502.
//!
//! An origin is not trusted: an answer whose end two parsers could see at two places would let it speak in the next
//! client's answer. Called for every head, interim ones included, before anything else reads it.

use http::{
    HeaderMap, Version,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};

use super::upgrade::Upgrade;

/// Interim (1xx) answers relayed for one request; a further one ends it.
const INTERIM: u32 = 16;

/// Why an answer is refused; the origin's fault, 502, and worth another peer if the request may be repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadAnswer {
    /// Not in 100..=999.
    #[error("the status is no status")]
    Status,
    /// Not one field that is exactly `chunked`, or in HTTP/1.0.
    #[error("the transfer coding is not exactly chunked")]
    TransferEncoding,
    /// Not one field with one number that fits 63 bits.
    #[error("the content length is not one number")]
    ContentLength,
    /// Both framings at once.
    #[error("both a transfer coding and a content length")]
    BothLengths,
    /// 101 to a request that asked for no upgrade, or for another one.
    #[error("an upgrade that nobody asked for")]
    Upgrade,
    /// A control character in a field.
    #[error("a control character in a field")]
    FieldByte,
    /// More interim answers than any client needs.
    #[error("more than {INTERIM} interim answers")]
    Interim,
}

impl BadAnswer {
    /// The log word and metric label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::TransferEncoding => "transfer_encoding",
            Self::ContentLength => "content_length",
            Self::BothLengths => "both_lengths",
            Self::Upgrade => "upgrade",
            Self::FieldByte => "field_byte",
            Self::Interim => "interim",
        }
    }
}

/// The heads of one attempt, in the order in which they arrive.
#[derive(Debug, Default)]
pub struct Answer {
    interim: u32,
}

/// What a head that passed means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// A 1xx other than 101; another head follows.
    Interim,
    /// The 101 that opens the tunnel.
    Tunnel,
    /// The answer.
    Final,
}

impl Answer {
    /// Checks one head, and removes framing from those that have no body (1xx, 204, 304).
    ///
    /// Errors: [`BadAnswer`].
    /// Source: RFC 9112 §6 for framing, §6.3 stricter than its leave to repair; RFC 9110 §15.2.2 for 101, §15.3.5 and
    /// §15.4.5 for the statuses without a body.
    pub fn check(
        &mut self,
        status: u16,
        version: Version,
        headers: &mut HeaderMap,
        upgrade: Option<&Upgrade>,
    ) -> Result<Head, BadAnswer> {
        if !(100..=999).contains(&status) {
            return Err(BadAnswer::Status);
        }
        if headers.values().any(|value| value.as_bytes().iter().any(is_forbidden)) {
            return Err(BadAnswer::FieldByte);
        }
        if status == 101 {
            let answered = upgrade.is_some_and(|upgrade| upgrade.is_answered_by(headers));
            return if answered { Ok(Head::Tunnel) } else { Err(BadAnswer::Upgrade) };
        }
        check_framing(version, headers)?;
        if status < 200 || status == 204 || status == 304 {
            headers.remove(TRANSFER_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        if status >= 200 {
            return Ok(Head::Final);
        }
        self.interim += 1;
        if self.interim > INTERIM { Err(BadAnswer::Interim) } else { Ok(Head::Interim) }
    }
}

fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), BadAnswer> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    let coding = codings.next();
    if let Some(coding) = coding {
        // HTTP/1.0 knows no transfer codings (RFC 9112 §6.1): whether such a body is chunked is anyone's guess.
        let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
        if !is_chunked || codings.next().is_some() || version < Version::HTTP_11 {
            return Err(BadAnswer::TransferEncoding);
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).into_iter();
    let length = lengths.next();
    if let Some(length) = length {
        if coding.is_some() {
            return Err(BadAnswer::BothLengths);
        }
        if !is_length(length.as_bytes()) || lengths.next().is_some() {
            return Err(BadAnswer::ContentLength);
        }
    }
    Ok(())
}

/// Digits alone, at most 2^63-1: `+5`, `5, 5` and ` 5` are numbers only to some parsers.
fn is_length(value: &[u8]) -> bool {
    value.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(value).is_ok_and(|digits| digits.parse::<i64>().is_ok())
}

/// Control characters other than tab (RFC 9110 §5.5).
fn is_forbidden(byte: &u8) -> bool {
    byte.is_ascii_control() && *byte != b'\t'
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn head(fields: &[(&str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        fields.iter().map(field).collect()
    }

    fn check(status: u16, fields: &[(&str, &str)]) -> Result<Head, BadAnswer> {
        Answer::default().check(status, Version::HTTP_11, &mut head(fields), None)
    }

    #[test]
    fn ordinary_answers_pass() {
        assert_eq!(check(200, &[("content-length", "5")]), Ok(Head::Final));
        assert_eq!(check(200, &[("content-length", "9223372036854775807")]), Ok(Head::Final));
        assert_eq!(check(200, &[("transfer-encoding", "Chunked")]), Ok(Head::Final));
        assert_eq!(check(200, &[]), Ok(Head::Final), "until close");
        assert_eq!(check(999, &[("x", "a\tb")]), Ok(Head::Final));
    }

    #[test]
    fn a_status_out_of_range_is_refused() {
        for status in [0, 99, 1000] {
            assert_eq!(check(status, &[]), Err(BadAnswer::Status));
        }
    }

    #[test]
    fn any_transfer_coding_but_chunked_is_refused() {
        for coding in ["x", "identity", "gzip", "chunked, x", "gzip, chunked", "chunked;q=1", "chunked,", ""]
        {
            let got = check(200, &[("transfer-encoding", coding)]);
            assert_eq!(got, Err(BadAnswer::TransferEncoding), "{coding:?}");
        }
        let twice = [("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")];
        assert_eq!(check(200, &twice), Err(BadAnswer::TransferEncoding));
    }

    #[test]
    fn chunked_in_http_1_0_is_refused() {
        let mut headers = head(&[("transfer-encoding", "chunked")]);
        let got = Answer::default().check(200, Version::HTTP_10, &mut headers, None);
        assert_eq!(got, Err(BadAnswer::TransferEncoding));
    }

    #[test]
    fn any_content_length_but_one_number_is_refused() {
        for length in ["5, 5", "+5", "-5", "0x5", "", "5 5", "9223372036854775808", "99999999999999999999"] {
            let got = check(200, &[("content-length", length)]);
            assert_eq!(got, Err(BadAnswer::ContentLength), "{length:?}");
        }
        let twice = [("content-length", "5"), ("content-length", "5")];
        assert_eq!(check(200, &twice), Err(BadAnswer::ContentLength));
    }

    #[test]
    fn two_framings_are_refused() {
        let both = [("content-length", "5"), ("transfer-encoding", "chunked")];
        assert_eq!(check(200, &both), Err(BadAnswer::BothLengths));
    }

    #[test]
    fn control_characters_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("x", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        assert!(Answer::default().check(200, Version::HTTP_11, &mut headers, None).is_ok());
        assert!([b'\0', b'\r', b'\n', 0x1b, 0x7f].iter().all(is_forbidden));
        assert!(![b'\t', b' ', b'a', 0xe9].iter().any(is_forbidden));
    }

    #[test]
    fn statuses_without_a_body_lose_their_framing() {
        for status in [103, 204, 304] {
            for framing in [("content-length", "5"), ("transfer-encoding", "chunked")] {
                let mut headers = head(&[framing, ("etag", "\"a\"")]);
                Answer::default().check(status, Version::HTTP_11, &mut headers, None).unwrap();
                assert_eq!(headers, head(&[("etag", "\"a\"")]), "{status} {framing:?}");
            }
        }
    }

    #[test]
    fn a_101_passes_only_when_it_answers_our_upgrade() {
        let asked = head(&[
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-version", "13"),
        ]);
        let upgrade = Upgrade::recognise(&http::Method::GET, Version::HTTP_11, &asked).unwrap();
        let answer = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x=")];
        let check = |fields: &[(&str, &str)], upgrade| {
            Answer::default().check(101, Version::HTTP_11, &mut head(fields), upgrade)
        };
        assert_eq!(check(&answer, Some(&upgrade)), Ok(Head::Tunnel));
        assert_eq!(check(&answer, None), Err(BadAnswer::Upgrade), "nobody asked");
        assert_eq!(check(&answer[..1], Some(&upgrade)), Err(BadAnswer::Upgrade), "another upgrade");
    }

    #[test]
    fn sixteen_interim_answers_pass_and_the_next_ends_the_request() {
        let mut answer = Answer::default();
        let mut next = |status| answer.check(status, Version::HTTP_11, &mut HeaderMap::new(), None);
        for _ in 0..16 {
            assert_eq!(next(103), Ok(Head::Interim));
        }
        assert_eq!(next(200), Ok(Head::Final));
        assert_eq!(next(100), Err(BadAnswer::Interim));
    }
}
