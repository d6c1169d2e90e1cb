//! The leak guard: nothing of one caller's own may be kept for others.
//!
//! An origin that marks an answer as everybody's (`public`, `s-maxage`) is believed by every cache, also when it is wrong:
//! a page with the name of whoever is logged in, a token in a script. Here such an answer is looked at first: its fields
//! and the beginning of its body must hold nothing that the request brought along or that the session says of its caller.
//! The guard is one line of defence behind the rules of `policy`, no licence to relax them, and it can be passed: what is
//! neither sent nor part of the session is not known to be the caller's, and what comes later in a body is not seen.
//!
//! It looks only where the key does not tell callers apart. A find costs the next caller a request to the origin.

use std::{borrow::Cow, io::Read};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode;

use super::{
    directives::{Directives, members},
    policy::NotStored,
};

/// How much of a body is looked at: the head of a page, where greetings and tokens stand.
pub(super) const SEEN: usize = 8 << 10;
/// And so much of what that unpacks to: a bomb costs no more.
const UNPACKED: usize = 64 << 10;

/// Values that are looked for, in every field and the body; far more than browsers have for a site.
const MOST: usize = 256;

/// What shows whose an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mark {
    /// The credentials of `Authorization`.
    Credentials,
    /// The value of a cookie.
    Cookie,
    /// The session's token.
    Token,
    /// The session's id.
    SessionId,
    /// The caller's id.
    UserId,
    /// The caller's address.
    Email,
}

/// Who asked, in the words that an answer for others must not have. `Debug` shows none of them.
#[derive(Clone, Default)]
pub struct Guard(Option<Box<Known>>);

/// Apart, because most requests have nothing to guard.
#[derive(Clone, Default)]
struct Known {
    has_session: bool,
    /// What the origin hears from us and not from the client.
    written: Vec<HeaderName>,
    /// Addresses in small letters.
    marks: Vec<(Mark, Box<[u8]>)>,
    /// There were more marks than are looked for.
    is_too_much: bool,
}

impl Mark {
    /// The reason's name in `Cache-Status`, logs and metrics.
    pub(super) const fn leak(self) -> &'static str {
        match self {
            Self::Credentials => "leak-credentials",
            Self::Cookie => "leak-cookie",
            Self::Token => "leak-token",
            Self::SessionId => "leak-session-id",
            Self::UserId => "leak-user-id",
            Self::Email => "leak-email",
        }
    }

    /// Shorter values stand in many answers by chance: `en`, `dark`, `42`.
    const fn shortest(self) -> usize {
        match self {
            Self::Cookie => 16,
            Self::Credentials | Self::Token | Self::SessionId | Self::UserId => 8,
            Self::Email => 6,
        }
    }
}

impl Guard {
    /// Of a request's own fields.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut guard = Self::default();
        for value in headers.get_all(header::AUTHORIZATION).iter().map(HeaderValue::as_bytes) {
            let (scheme, credentials) = value
                .iter()
                .position(|byte| *byte == b' ')
                .map_or((&value[..0], value), |at| (&value[..at], value[at..].trim_ascii()));
            guard.knows(Mark::Credentials, credentials);
            if scheme.eq_ignore_ascii_case(b"basic") {
                guard.knows_basic(credentials);
            }
        }
        let crumbs =
            headers.get_all(header::COOKIE).iter().flat_map(|line| line.as_bytes().split(|b| *b == b';'));
        for crumb in crumbs {
            if let Some(at) = crumb.iter().position(|byte| *byte == b'=') {
                guard.knows(Mark::Cookie, &crumb[at + 1..]);
            }
        }
        guard
    }

    /// The request has a session: without a word that its answer is for everybody, it is for one.
    pub fn has_session(&mut self) {
        self.known().has_session = true;
    }

    /// This is the caller's own: as it stands, and as pages show what was percent-encoded for a field.
    pub fn knows(&mut self, mark: Mark, value: &[u8]) {
        if let Cow::Owned(decoded) = percent_decode(value).into() {
            self.seeks(mark, &decoded);
        }
        self.seeks(mark, value);
    }

    /// What is packed in Basic credentials (RFC 7617 §2).
    fn knows_basic(&mut self, credentials: &[u8]) {
        let digits = credentials.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
        let Ok(plain) = STANDARD_NO_PAD.decode(&credentials[..digits]) else { return };
        let mut parts = plain.splitn(2, |byte| *byte == b':');
        self.seeks(Mark::UserId, parts.next().unwrap_or_default());
        self.seeks(Mark::Credentials, parts.next().unwrap_or_default());
    }

    fn seeks(&mut self, mark: Mark, value: &[u8]) {
        // The quotes are the cookie's and not the value's (RFC 6265 §4.1.1).
        let value = value.trim_ascii();
        let value = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
        if value.len() < mark.shortest() {
            return;
        }
        let known = self.known();
        known.is_too_much |= known.marks.len() == MOST;
        if !known.is_too_much {
            let folded = is_address(value).then(|| value.to_ascii_lowercase().into());
            known.marks.push((mark, folded.unwrap_or_else(|| value.into())));
        }
    }

    /// The origin is told something under this name that no lookup sees: what varies by it cannot be told apart.
    pub fn is_told(&mut self, name: HeaderName) {
        self.known().written.push(name);
    }

    fn known(&mut self) -> &mut Known {
        self.0.get_or_insert_default()
    }

    /// Whether the request has a session.
    pub(super) fn is_of_session(&self) -> bool {
        self.0.as_ref().is_some_and(|known| known.has_session)
    }

    pub(super) fn looks_into_bodies(&self) -> bool {
        self.0.as_ref().is_some_and(|known| !known.marks.is_empty())
    }

    /// Holds the fields that would be kept against what is known of the caller.
    ///
    /// # Errors
    /// [`NotStored::VaryEdge`], [`NotStored::Session`], [`NotStored::Leak`].
    pub(super) fn check(&self, kept: &HeaderMap) -> Result<(), NotStored> {
        let Some(known) = &self.0 else { return Ok(()) };
        let mut varies = kept.get_all(header::VARY).iter().flat_map(|line| members(line.as_bytes()));
        let is_ours = |name: &[u8]| {
            known.written.iter().any(|ours| name.eq_ignore_ascii_case(ours.as_str().as_bytes()))
        };
        if varies.any(is_ours) {
            return Err(NotStored::VaryEdge);
        }
        if known.is_too_much {
            return Err(NotStored::Unreadable);
        }
        if known.has_session {
            let said = Directives::of_response(kept);
            // As for `Authorization` and cookies, whatever the field is called in which the token came.
            if !(said.public || said.s_maxage.is_some()) {
                return Err(NotStored::Session);
            }
        }
        match kept.values().find_map(|value| self.shown_in(value.as_bytes())) {
            Some(mark) => Err(NotStored::Leak(mark)),
            None => Ok(()),
        }
    }

    /// Looks into the beginning of a body, unpacked where it has a coding.
    pub(super) fn find<'p>(
        &self,
        headers: &HeaderMap,
        body: impl Iterator<Item = &'p Bytes>,
    ) -> Option<NotStored> {
        let seen: Vec<u8> = body.flat_map(|piece| piece.iter().copied()).take(SEEN).collect();
        let codings: Vec<_> = headers.get_all(header::CONTENT_ENCODING).iter().collect();
        let plain = match &*codings {
            [] => seen,
            [coding] => match unpacked(coding.as_bytes(), &seen) {
                Some(plain) => plain,
                // Nobody knows what is in it.
                None => return Some(NotStored::Unreadable),
            },
            _ => return Some(NotStored::Unreadable),
        };
        self.shown_in(&plain).map(NotStored::Leak)
    }

    fn shown_in(&self, text: &[u8]) -> Option<Mark> {
        let marks = &self.0.as_ref()?.marks;
        let folded = marks.iter().any(|(_, value)| is_address(value)).then(|| text.to_ascii_lowercase());
        let shown = |(_, value): &&(Mark, Box<[u8]>)| {
            let text = folded.as_deref().filter(|_| is_address(value)).unwrap_or(text);
            memchr::memmem::find(text, value).is_some()
        };
        marks.iter().find(shown).map(|(mark, _)| *mark)
    }
}

/// E-mail addresses, which people and programs write in letters of either case.
fn is_address(value: &[u8]) -> bool {
    memchr::memchr(b'@', value).is_some()
}

/// The beginning of what was packed; `None` for a coding that we do not read.
fn unpacked(coding: &[u8], packed: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    // It ends in the middle, which is no fault of it: what came out until then counts.
    let _ = match coding.trim_ascii().to_ascii_lowercase().as_slice() {
        b"identity" => return Some(packed.to_vec()),
        b"gzip" | b"x-gzip" => read(flate2::read::MultiGzDecoder::new(packed), &mut plain),
        b"br" => read(brotli::Decompressor::new(packed, 4096), &mut plain),
        _ => return None,
    };
    Some(plain)
}

/// Reads piece by piece, so that an early end loses nothing of what came before it.
fn read(mut from: impl Read, into: &mut Vec<u8>) -> std::io::Result<()> {
    let mut piece = [0; 4096];
    while into.len() < UNPACKED {
        match from.read(&mut piece)? {
            0 => break,
            length => into.extend_from_slice(&piece[..length]),
        }
    }
    Ok(())
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let marks = self.0.as_ref().map_or(0, |known| known.marks.len());
        f.debug_struct("Guard").field("marks", &marks).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot build its input has failed")]
    use std::io::Write;

    use super::*;
    use crate::cache::testing::map;

    fn anna() -> Guard {
        let mut guard = Guard::of(&map(&[
            ("authorization", "Bearer token-of-anna"),
            ("cookie", "lang=en; sid=0123456789abcdef"),
        ]));
        guard.knows(Mark::Email, b"anna@example.org");
        guard.knows(Mark::UserId, b"42");
        guard
    }

    fn found(guard: &Guard, headers: &[(&'static str, &str)], body: &[u8]) -> Option<NotStored> {
        guard.find(&map(headers), [Bytes::copy_from_slice(body)].iter())
    }

    #[test]
    fn what_is_the_caller_s_own_is_found_and_what_is_everybody_s_is_not() {
        let guard = anna();
        for (body, expected) in [
            ("<p>anna@example.org</p>", Some(Mark::Email)),
            ("{\"t\":\"token-of-anna\"}", Some(Mark::Credentials)),
            ("x=0123456789abcdef", Some(Mark::Cookie)),
            ("<html lang=en> 42 Bearer bert@example.org", None),
        ] {
            assert_eq!(found(&guard, &[], body.as_bytes()), expected.map(NotStored::Leak), "{body}");
        }
        assert_eq!(
            guard.check(&map(&[("x-user", "mail anna@example.org")])),
            Err(NotStored::Leak(Mark::Email))
        );
        assert_eq!(guard.check(&map(&[("x-user", "bert@example.org")])), Ok(()));
        assert_eq!(found(&Guard::default(), &[], b"anna@example.org"), None);
    }

    #[test]
    fn other_spellings_of_the_caller_s_own_are_found() {
        for (name, value, body, mark) in [
            ("cookie", "sid=\"0123456789abcdef\"", "x=0123456789abcdef;", Mark::Cookie),
            ("cookie", "mail=anna%40example.org%2Flong", "<p>anna@example.org/long", Mark::Cookie),
            ("cookie", "mail=Anna%40example.org%2Flong", "<p>anna@Example.org/long", Mark::Cookie),
            ("cookie", "mail=anna%40example.org%2Flong", "?m=anna%40example.org%2Flong", Mark::Cookie),
            ("cookie", "mail=%22anna%40example.org%2Flong%22", "<p>anna@example.org/long", Mark::Cookie),
            ("authorization", "Basic YW5uYS1saXNhOnNlc2FtZS1vcGVu", "hello anna-lisa", Mark::UserId),
            ("authorization", "basic  YW5uYS1saXNhOnNlc2FtZS1vcGVu", "it is sesame-open", Mark::Credentials),
            ("authorization", "Basic QW5uYUBleGFtcGxlLm9yZzp4eA==", "to anna@example.org", Mark::UserId),
        ] {
            let guard = Guard::of(&map(&[(name, value)]));
            let found = found(&guard, &[], body.as_bytes());
            assert_eq!(found, Some(NotStored::Leak(mark)), "{value} in {body}");
        }
        for body in ["Anna@Example.org", "ANNA@EXAMPLE.ORG"] {
            assert_eq!(found(&anna(), &[], body.as_bytes()), Some(NotStored::Leak(Mark::Email)), "{body}");
        }
    }

    #[test]
    fn what_only_resembles_the_caller_s_own_is_kept() {
        for (name, value, body) in [
            ("cookie", "sid=0123456789ABCDEF", "0123456789abcdef: a value that is no address has its case"),
            ("cookie", "lang=%22en%22; theme=\"dark\"", "<html lang=en class=dark> \"dark\""),
            ("authorization", "Basic YW5uYTpwYXNz", "short names: anna, pass"),
            ("authorization", "Bearer YW5uYS1saXNhOnNlc2FtZS1vcGVu", "anna-lisa is in no token"),
            ("authorization", "Basic ====", "x"),
        ] {
            let guard = Guard::of(&map(&[(name, value)]));
            assert_eq!(found(&guard, &[], body.as_bytes()), None, "{value} in {body}");
        }
    }

    #[test]
    fn who_brings_more_than_is_looked_for_has_nothing_kept() {
        let with = |count: usize| {
            let crumbs: Vec<_> = (0..count).map(|number| format!("a=0123456789-{number:08}")).collect();
            Guard::of(&map(&[("cookie", &*crumbs.join("; "))])).check(&map(&[("cache-control", "public")]))
        };
        assert_eq!(with(MOST), Ok(()));
        assert_eq!(with(MOST + 1), Err(NotStored::Unreadable));
    }

    #[test]
    fn a_find_across_two_pieces_counts_and_one_far_behind_is_not_seen() {
        let pieces = ["anna@exa", "mple.org"].map(|piece| Bytes::copy_from_slice(piece.as_bytes()));
        assert_eq!(anna().find(&HeaderMap::new(), pieces.iter()), Some(NotStored::Leak(Mark::Email)));
        let far = [vec![b'x'; SEEN], b"anna@example.org".to_vec()].concat();
        assert_eq!(found(&anna(), &[], &far), None);
    }

    #[test]
    fn packed_bodies_are_unpacked_and_unreadable_ones_not_kept() {
        let text = format!("{}anna@example.org{}", "<p>hello</p>".repeat(500), "x".repeat(100_000));
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(text.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        let cut = &gzip[..gzip.len() / 2];
        assert_eq!(found(&anna(), &[("content-encoding", "GZip")], cut), Some(NotStored::Leak(Mark::Email)));
        assert_eq!(found(&anna(), &[("content-encoding", "zstd")], b"x"), Some(NotStored::Unreadable));
        let twice = [("content-encoding", "gzip"), ("content-encoding", "br")];
        assert_eq!(found(&anna(), &twice, b"x"), Some(NotStored::Unreadable));
    }

    #[test]
    fn a_bomb_unpacks_to_little() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![b'a'; 8 << 20]).unwrap();
        let plain = unpacked(b"gzip", &gzip.finish().unwrap()).unwrap();
        assert!(plain.len() <= UNPACKED + 4096, "{}", plain.len());
    }

    #[test]
    fn an_answer_to_a_session_is_for_one_unless_it_says_otherwise() {
        let mut guard = Guard::default();
        guard.has_session();
        assert_eq!(guard.check(&map(&[("cache-control", "max-age=60")])), Err(NotStored::Session));
        assert_eq!(guard.check(&map(&[("cache-control", "public, max-age=60")])), Ok(()));
        assert_eq!(guard.check(&map(&[("cache-control", "s-maxage=60")])), Ok(()));
    }

    #[test]
    fn what_varies_by_our_own_word_is_not_kept() {
        let mut guard = Guard::default();
        guard.is_told(HeaderName::from_static("x-identity"));
        for (vary, expected) in
            [("Accept, X-Identity", Err(NotStored::VaryEdge)), ("accept", Ok(())), ("x-identity-2", Ok(()))]
        {
            assert_eq!(guard.check(&map(&[("vary", vary)])), expected, "{vary}");
        }
    }

    #[test]
    fn nothing_of_the_caller_is_printed() {
        let text = format!("{:?}", anna());
        assert!(!text.contains("anna") && !text.contains("0123"), "{text}");
    }
}
