//! The session token of a request: where it is looked for, and what may be one.
//!
//! The first place of the plan that has anything counts, good or bad: a client must not be one caller to us by its
//! cookie and another to a reader that stops at the broken bearer.

use std::fmt;

use http::{HeaderMap, HeaderValue, header};
use weir_config::plan::TokenSource;

/// No session scheme needs more, and the key of a lookup should not be the client's to inflate.
const LONGEST: usize = 4096;
/// A signed token carries what it says; it is no key of anything.
const LONGEST_SIGNED: usize = 8192;

/// A token as the client sent it; it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

/// The SHA-256 of a token: names it in memory and in invalidations, and gives nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    pub(super) fn of(sha256: &ring::digest::Digest) -> Self {
        Self(sha256.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// One of `parts` places, evenly: every bit of a digest is as good as random.
    pub(super) fn spread(&self, parts: usize) -> usize {
        usize::from(u16::from_le_bytes([self.0[0], self.0[1]])) % parts
    }
}

/// What a request has to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    /// No token anywhere.
    Nothing,
    /// Something that can be no token: treated as one that nobody knows.
    Malformed,
    /// A token, known or not.
    Token(Token),
}

impl Presented {
    /// Looks into `sources` in order, for tokens that are looked up or for signed ones.
    ///
    /// Source: RFC 6750 §2.1 for bearers, RFC 6265 §4.2.1 for cookies.
    #[must_use]
    pub fn find(sources: &[TokenSource], headers: &HeaderMap, signed: bool) -> Self {
        let mut shown = sources.iter().filter_map(|source| match source {
            TokenSource::Bearer => bearer(headers),
            TokenSource::Cookie(name) => cookie(headers, name),
            TokenSource::Header(name) => single(headers, name),
        });
        let longest = if signed { LONGEST_SIGNED } else { LONGEST };
        match shown.next() {
            None => Self::Nothing,
            Some(Some(text)) if text.len() > longest => {
                tracing::debug!(bytes = text.len(), longest, "a token is refused for its length");
                Self::Malformed
            }
            Some(text) => {
                text.and_then(|text| Token::within(text, longest)).map_or(Self::Malformed, Self::Token)
            }
        }
    }
}

impl Token {
    /// Takes 1 to 4096 bytes of visible ASCII; `None` for anything else.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        Self::within(text, LONGEST)
    }

    fn within(text: &[u8], longest: usize) -> Option<Self> {
        let visible = (1..=longest).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        let text = visible.then_some(text)?;
        Some(Self(std::str::from_utf8(text).ok()?.into()))
    }

    /// The token itself, for the one place that looks it up.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What names it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&ring::digest::digest(&ring::digest::SHA256, self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// `None`: not there. `Some(None)`: there, and nonsense.
type Shown<'r> = Option<Option<&'r [u8]>>;

fn bearer(headers: &HeaderMap) -> Shown<'_> {
    let mut fields = headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    let field = fields.next()?;
    if fields.next().is_some() {
        return Some(None);
    }
    let (scheme, rest) = field.split_at(field.iter().position(|byte| *byte == b' ').unwrap_or(field.len()));
    // Other schemes are the origin's business.
    scheme.eq_ignore_ascii_case(b"bearer").then(|| Some(rest.trim_ascii()))
}

fn cookie<'r>(headers: &'r HeaderMap, name: &str) -> Shown<'r> {
    let pairs =
        headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let mut named = pairs.filter_map(|pair| {
        let (key, value) = pair.split_at(pair.iter().position(|byte| *byte == b'=')?);
        (key.trim_ascii() == name.as_bytes()).then(|| value[1..].trim_ascii())
    });
    named.next().map(Some)
}

fn single<'r>(headers: &'r HeaderMap, name: &http::HeaderName) -> Shown<'r> {
    let mut fields = headers.get_all(name).iter();
    let field = fields.next()?;
    Some(fields.next().is_none().then(|| field.as_bytes().trim_ascii()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use http::HeaderName;

    use super::*;

    fn find(fields: &[(&'static str, &str)]) -> Presented {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let header = TokenSource::Header(HeaderName::from_static("x-token"));
        Presented::find(&[TokenSource::Bearer, TokenSource::Cookie("sid".into()), header], &headers, false)
    }

    fn token(text: &str) -> Presented {
        Presented::Token(Token::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn the_first_source_that_has_anything_counts() {
        let all = [("authorization", "Bearer one"), ("cookie", "sid=two"), ("x-token", "three")];
        assert_eq!(find(&all), token("one"));
        assert_eq!(find(&all[1..]), token("two"));
        assert_eq!(find(&all[2..]), token("three"));
        assert_eq!(find(&[]), Presented::Nothing);
    }

    #[test]
    fn a_broken_token_is_not_passed_over_for_the_next_source() {
        for bad in ["Bearer", "Bearer ", "bearer a b", "Bearer caf\u{e9}"] {
            assert_eq!(find(&[("authorization", bad), ("cookie", "sid=two")]), Presented::Malformed, "{bad}");
        }
        let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
        assert_eq!(find(&twice), Presented::Malformed);
        assert_eq!(find(&[("x-token", "a"), ("x-token", "b")]), Presented::Malformed);
    }

    #[test]
    fn another_scheme_is_no_bearer() {
        assert_eq!(find(&[("authorization", "Basic eDp5"), ("cookie", "sid=two")]), token("two"));
        assert_eq!(find(&[("authorization", "Bearerish x")]), Presented::Nothing);
        assert_eq!(find(&[("authorization", "bEARER  x")]), token("x"));
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        assert_eq!(find(&[("cookie", "xsid=1; sidx=2; SID=3; a; sid=4=5; sid=6")]), token("4=5"));
        assert_eq!(find(&[("cookie", "a=1"), ("cookie", "sid=7")]), token("7"));
        assert_eq!(find(&[("cookie", "a=\"; sid2=8\"")]), Presented::Nothing);
        assert_eq!(find(&[("cookie", "sid=")]), Presented::Malformed);
    }

    #[test]
    fn tokens_are_bounded() {
        assert!(Token::parse("t".repeat(LONGEST).as_bytes()).is_some());
        assert!(Token::parse("t".repeat(LONGEST + 1).as_bytes()).is_none());
        assert!(Token::parse(b"a\r\nb").is_none());
    }

    #[test]
    fn a_signed_token_may_be_longer_than_one_that_is_looked_up() {
        let find = |length: usize, signed| {
            let bearer = HeaderValue::try_from(format!("Bearer {}", "t".repeat(length))).unwrap();
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, bearer)]);
            Presented::find(&[TokenSource::Bearer], &headers, signed) != Presented::Malformed
        };
        assert!(find(LONGEST, false) && !find(LONGEST + 1, false));
        assert!(find(LONGEST_SIGNED, true) && !find(LONGEST_SIGNED + 1, true));
    }

    #[test]
    fn tokens_are_not_printed_and_digests_tell_them_apart() {
        let of = |text: &str| Token::parse(text.as_bytes()).unwrap();
        assert!(!format!("{:?}", of("hunter2")).contains("hunter2"));
        assert_eq!(of("a").digest(), of("a").digest());
        assert_ne!(of("a").digest(), of("b").digest());
    }
}
