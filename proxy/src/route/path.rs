//! The path of a request in one normalised form, so that what was matched is what the origin will see.
//!
//! Every ACL bypass and most cache deceptions live in the gap between two readings of one path. Here there is one:
//! - dot segments are removed (RFC 3986 §5.2.4), also when they were written `%2e`; `..` above the root is refused;
//! - escapes of unreserved characters are decoded, all others stay and get upper-case hex (§6.2.2);
//! - characters that have no place in a path are escaped, except those over which parsers are known to disagree
//!   (controls, space, `\`, `#`, `?`): these are refused, and so are NUL and controls behind an escape;
//! - `//` stays two slashes and `%2F` never becomes one; a `..` that only shows once `%2F`, `%5C` or `;` are read as
//!   some servers read them (`..%2Fadmin`, `/..;/`) is refused, because that server may be our origin.

use std::{borrow::Cow, fmt, fmt::Write as _};

use percent_encoding::percent_decode_str;

/// Why a path has no agreed meaning; the client's fault, 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadPath {
    /// It does not begin with a slash.
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    Escape,
    /// A control character or NUL, plain or escaped.
    Control,
    /// A space, `\`, `#` or `?`.
    Character,
    /// `..` leads above the root.
    AboveRoot,
    /// `..` hides behind `%2F`, `%5C` or `;`.
    HiddenDots,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not begin with a slash",
            Self::Escape => "the path has an invalid percent-escape",
            Self::Control => "the path has a control character",
            Self::Character => "the path has a character that must be escaped",
            Self::AboveRoot => "the path leads above the root",
            Self::HiddenDots => "the path hides a dot segment",
        })
    }
}

impl std::error::Error for BadPath {}

/// A parsed path; borrowed from the request unless it had to be changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path<'r> {
    raw: Cow<'r, str>,
    /// Where it is another.
    normal: Option<String>,
    had_dots: bool,
}

impl<'r> Path<'r> {
    /// Reads the path of a request target: everything before `?`.
    ///
    /// Errors: [`BadPath`], always the client's fault.
    /// Source: RFC 3986 §5.2.4, §6.2.2; RFC 9112 §3.2.1.
    pub fn parse(raw: &'r str) -> Result<Self, BadPath> {
        if !raw.starts_with('/') {
            return Err(BadPath::NotAbsolute);
        }
        let escaped = normal_escapes(raw)?;
        let has_dots = escaped.contains('.') && (escaped.contains("..") || escaped.contains("/."));
        let without_dots = if has_dots { remove_dots(&escaped)? } else { None };
        let had_dots = without_dots.is_some();
        let normal = without_dots.or(match escaped {
            Cow::Owned(escaped) => Some(escaped),
            Cow::Borrowed(_) => None,
        });
        Ok(Self { raw: Cow::Borrowed(raw), normal, had_dots })
    }

    /// The same path, no longer borrowed.
    #[must_use]
    pub fn into_owned(self) -> Path<'static> {
        let Self { raw, normal, had_dots } = self;
        Path { raw: Cow::Owned(raw.into_owned()), normal, had_dots }
    }

    /// The normalised path: what routes, cache keys and files are matched with.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.normal.as_deref().unwrap_or(&self.raw)
    }

    /// What is sent to the origin: the client's own bytes, or the normalised path where dot segments had to go.
    #[must_use]
    pub fn forwarded(&self) -> &str {
        if self.had_dots { self.as_str() } else { &self.raw }
    }

    /// Whether forwarding the client's bytes would show the origin another path than the one matched here.
    #[must_use]
    pub fn had_dots(&self) -> bool {
        self.had_dots
    }
}

/// Percent-decodes a piece of a normalised path; `None` unless the bytes are UTF-8.
///
/// Not lossy: two pieces that differ must stay different, because the values become parts of cache keys.
#[must_use]
pub fn decode(piece: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(piece).decode_utf8().ok()
}

/// The normal form of a pattern's literal text, so that an operator may write `/café` or `/caf%c3%a9`; text that has
/// none is taken as it stands.
pub(super) fn literal(text: &str) -> String {
    normal_escapes(text).map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// RFC 3986 `pchar` without `%`, and the slash.
fn is_plain(byte: u8) -> bool {
    is_unreserved(byte) || matches!(byte, b'/' | b'!' | b'$' | b'&'..=b',' | b';' | b'=' | b':' | b'@')
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn normal_escapes(raw: &str) -> Result<Cow<'_, str>, BadPath> {
    let Some(first) = raw.bytes().position(|byte| !is_plain(byte)) else {
        return Ok(Cow::Borrowed(raw));
    };
    let bytes = raw.as_bytes();
    let mut normal = String::with_capacity(raw.len() + 8);
    normal.push_str(&raw[..first]);
    let mut at = first;
    while let Some(&byte) = bytes.get(at) {
        let (meant, width) = if byte == b'%' { (escape(bytes, at)?, 3) } else { (byte, 1) };
        match (byte, meant) {
            (_, 0..=0x1f | 0x7f) => return Err(BadPath::Control),
            (b' ' | b'\\' | b'#' | b'?', _) => return Err(BadPath::Character),
            (b'%', meant) if is_unreserved(meant) => normal.push(char::from(meant)),
            (byte, _) if is_plain(byte) => normal.push(char::from(byte)),
            // Writing to a string cannot fail.
            (_, meant) => _ = write!(normal, "%{meant:02X}"),
        }
        at += width;
    }
    Ok(if normal == raw { Cow::Borrowed(raw) } else { Cow::Owned(normal) })
}

fn escape(bytes: &[u8], at: usize) -> Result<u8, BadPath> {
    let digit = |offset: usize| bytes.get(at + offset).and_then(|byte| char::from(*byte).to_digit(16));
    let (high, low) = digit(1).zip(digit(2)).ok_or(BadPath::Escape)?;
    u8::try_from(high * 16 + low).map_err(|_| BadPath::Escape)
}

/// The path without its dot segments; `None` where it has none.
fn remove_dots(path: &str) -> Result<Option<String>, BadPath> {
    let segments = || path.split('/').skip(1);
    if segments().any(hides_dots) {
        return Err(BadPath::HiddenDots);
    }
    if !segments().any(|segment| matches!(segment, "." | "..")) {
        return Ok(None);
    }
    let mut kept = String::with_capacity(path.len());
    let mut segments = segments().peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." => {}
            ".." => kept.truncate(kept.rfind('/').ok_or(BadPath::AboveRoot)?),
            _ => {
                kept.push('/');
                kept.push_str(segment);
                continue;
            }
        }
        // What a dot segment at the end leaves is a folder.
        if segments.peek().is_none() {
            kept.push('/');
        }
    }
    Ok(Some(kept))
}

/// Whether a server that decodes before it splits, or that cuts path parameters, would find `..` in this segment.
fn hides_dots(segment: &str) -> bool {
    segment != ".."
        && segment.contains("..")
        && segment.split("%2F").flat_map(|piece| piece.split("%5C")).any(|piece| {
            piece.strip_prefix("..").is_some_and(|after| after.is_empty() || after.starts_with(';'))
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        Path::parse(raw).unwrap().as_str().to_owned()
    }

    #[test]
    fn an_ordinary_path_is_borrowed_and_unchanged() {
        let path = Path::parse("/api/items;v=1/a@b:c!$&'()*+,=~_-.json").unwrap();
        assert!(path.normal.is_none());
        assert_eq!(path.as_str(), path.forwarded());
    }

    #[test]
    fn dot_segments_go_however_they_are_written() {
        for (raw, expected) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/./b", "/a/b"),
            ("/a/b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b", "/b"),
            ("/a//../b", "/a/b"),
            ("/.", "/"),
        ] {
            assert_eq!(normal(raw), expected, "{raw}");
            assert_eq!(Path::parse(raw).unwrap().forwarded(), expected, "{raw}");
        }
    }

    #[test]
    fn dots_that_are_names_stay() {
        for raw in ["/.well-known/x", "/a/...", "/a..b", "/a/..b", "/v1..2/", "/.hidden"] {
            assert_eq!(normal(raw), raw);
            assert!(!Path::parse(raw).unwrap().had_dots());
        }
    }

    #[test]
    fn escapes_have_one_form_and_the_clients_bytes_are_forwarded() {
        for (raw, expected) in [
            ("/%7euser", "/~user"),
            ("/%61dmin", "/admin"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%3fb", "/a%3Fb"),
            ("/100%25", "/100%25"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/caf\u{e9}", "/caf%C3%A9"),
            ("/a|b", "/a%7Cb"),
            ("/a%20b", "/a%20b"),
        ] {
            assert_eq!(normal(raw), expected, "{raw}");
            assert_eq!(Path::parse(raw).unwrap().forwarded(), raw);
        }
    }

    #[test]
    fn two_slashes_stay_two_and_an_escaped_one_never_separates() {
        assert_eq!(normal("//a//b"), "//a//b");
        assert_ne!(normal("/a%2Fb"), normal("/a/b"));
    }

    #[test]
    fn paths_without_an_agreed_meaning_are_refused() {
        for (raw, why) in [
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("http://a/", BadPath::NotAbsolute),
            ("/%", BadPath::Escape),
            ("/%4", BadPath::Escape),
            ("/%zz", BadPath::Escape),
            ("/%+1", BadPath::Escape),
            ("/%00", BadPath::Control),
            ("/a%0d%0ab", BadPath::Control),
            ("/%7f", BadPath::Control),
            ("/a\tb", BadPath::Control),
            ("/a b", BadPath::Character),
            ("/a\\b", BadPath::Character),
            ("/a#b", BadPath::Character),
            ("/a?b", BadPath::Character),
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%2e%2e/etc", BadPath::AboveRoot),
            ("/pub/..%2fadmin", BadPath::HiddenDots),
            ("/pub/x%2f..%2fadmin", BadPath::HiddenDots),
            ("/pub/..%5cadmin", BadPath::HiddenDots),
            ("/pub/..;/admin", BadPath::HiddenDots),
        ] {
            assert_eq!(Path::parse(raw), Err(why), "{raw:?}");
        }
    }

    #[test]
    fn only_utf8_is_decoded() {
        assert_eq!(decode("caf%C3%A9"), Some("café".into()));
        assert_eq!(decode("%FF"), None);
    }

    proptest! {
        #[test]
        fn the_normal_form_is_its_own_normal_form(raw in "/([a./%2eEfF5cC;]|\\PC){0,24}") {
            if let Ok(path) = Path::parse(&raw) {
                let once = path.as_str().to_owned();
                prop_assert!(once.starts_with('/') && once.is_ascii());
                prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."), "{once}");
                let again = Path::parse(&once).unwrap();
                prop_assert_eq!(again.as_str(), &once);
                // What is forwarded means what was matched.
                let forwarded = Path::parse(path.forwarded()).unwrap();
                prop_assert_eq!(forwarded.as_str(), &once);
            }
        }
    }
}
