//! What may stand in a request target and in a host, for HTTP/1 and HTTP/2 alike.

use super::bad::BadRequest;
use crate::chunked::table;

/// A target in one of the forms we serve (RFC 9112 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// `/path?query`.
    Origin,
    /// `*`, of OPTIONS.
    Asterisk,
    /// `http://authority/path?query`; the rest may be empty or begin with `?`.
    Absolute { authority: &'a [u8], rest: &'a [u8], port: u16 },
    /// `host:port`, of CONNECT.
    Authority(&'a [u8]),
}

/// Reads a target.
///
/// Errors: [`BadRequest::BadTarget`] for any other form, and for bytes that [`is_target_byte`] refuses.
pub(super) fn target<'a>(method: &[u8], bytes: &'a [u8]) -> Result<Target<'a>, BadRequest> {
    if bytes == b"*" && method == b"OPTIONS" {
        return Ok(Target::Asterisk);
    }
    if method == b"CONNECT" {
        let has_port = host(bytes).map_err(|_| BadRequest::BadTarget)?.port.is_some();
        return if has_port { Ok(Target::Authority(bytes)) } else { Err(BadRequest::BadTarget) };
    }
    let path = bytes.split(|byte| *byte == b'?').next().unwrap_or_default();
    // Browsers send `\` and backtick raw in a query only; in a path `\` is a slash to some origins and not to others.
    if !bytes.iter().all(|byte| is_target_byte(*byte)) || path.iter().any(|byte| matches!(byte, b'\\' | b'`'))
    {
        return Err(BadRequest::BadTarget);
    }
    if bytes.first() == Some(&b'/') {
        return Ok(Target::Origin);
    }
    let (after, port) = if let Some(after) = strip_scheme(bytes, b"http://") {
        (after, 80)
    } else if let Some(after) = strip_scheme(bytes, b"https://") {
        (after, 443)
    } else {
        return Err(BadRequest::BadTarget);
    };
    let end = after.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(after.len());
    let (authority, rest) = after.split_at(end);
    Ok(Target::Absolute { authority, rest, port })
}

fn strip_scheme<'a>(bytes: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// Visible ASCII without `#` (a fragment is never sent) and without `"<>`, which every client escapes.
///
/// `^{|}` pass although RFC 3986 leaves them out: browsers send them raw, and nginx passes them.
const fn is_target_byte(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'#' | b'"' | b'<' | b'>')
}

/// A host and its port, if one is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host<'a> {
    name: &'a [u8],
    port: Option<u16>,
}

impl Host<'_> {
    /// Whether both name the same server, a missing port being `default`.
    pub(super) fn is_same(&self, other: &Host<'_>, default: u16) -> bool {
        self.name.eq_ignore_ascii_case(other.name)
            && self.port.unwrap_or(default) == other.port.unwrap_or(default)
    }
}

/// Reads `host [":" port]`.
///
/// Shape:  a name of letters, digits, `-`, `_` and dots between labels (one dot may end it), at most 255 bytes; or an IPv6
///         literal in brackets. Narrower than RFC 3986's reg-name: no escapes, no sub-delims, no userinfo, because a router, a
///         cache key and an origin must all read the same name.
/// Errors: [`BadRequest::BadHost`].
pub(super) fn host(bytes: &[u8]) -> Result<Host<'_>, BadRequest> {
    let (name, port) = if bytes.first() == Some(&b'[') {
        let end = bytes.iter().position(|byte| *byte == b']').ok_or(BadRequest::BadHost)?;
        let literal =
            std::str::from_utf8(&bytes[1..end]).ok().and_then(|text| text.parse::<std::net::Ipv6Addr>().ok());
        literal.ok_or(BadRequest::BadHost)?;
        (&bytes[..=end], &bytes[end + 1..])
    } else {
        let end = bytes.iter().position(|byte| *byte == b':').unwrap_or(bytes.len());
        if !is_name(&bytes[..end]) {
            return Err(BadRequest::BadHost);
        }
        bytes.split_at(end)
    };
    Ok(Host { name, port: self::port(port)? })
}

/// What may stand in a name.
const NAME: [bool; 256] = table(b"-_.");

fn is_name(name: &[u8]) -> bool {
    let labels = name.strip_suffix(b".").unwrap_or(name);
    let mut before = b'.';
    for byte in labels {
        if !NAME[usize::from(*byte)] || (before == b'.' && *byte == b'.') {
            return false;
        }
        before = *byte;
    }
    before != b'.' && name.len() <= 255
}

/// Nothing, or a colon and 0 to 65535 in at most five digits.
fn port(bytes: &[u8]) -> Result<Option<u16>, BadRequest> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let digits = bytes
        .strip_prefix(b":")
        .filter(|digits| matches!(digits.len(), 1..=5) && digits.iter().all(u8::is_ascii_digit))
        .ok_or(BadRequest::BadHost)?;
    let number = digits.iter().fold(0_u32, |number, digit| number * 10 + u32::from(digit - b'0'));
    u16::try_from(number).map(Some).map_err(|_| BadRequest::BadHost)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_everyone_reads_alike_pass() {
        for text in [
            "a",
            "example.org",
            "EXAMPLE.org.",
            "a_b.c-d:8080",
            "127.0.0.1:1",
            "[::1]",
            "[2001:db8::1]:443",
            "x:0",
        ] {
            host(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn hosts_that_someone_may_misread_are_refused() {
        for text in [
            "", ".", "..", "a..b", ".a", "a,b", "a/b", "a b", "a\tb", "u@a", "u:p@a", "a:", "a:b", "a:-1",
            "a:65536", "a:000080", "a:80:80", "[::1", "::1", "[::g]", "[::1]x", "[]", "a%41", "a?b", "a#b",
            "a\\b", "ä", "a;b", "a&b", "(a)", "a:8 0",
        ] {
            assert_eq!(host(text.as_bytes()), Err(BadRequest::BadHost), "{text:?}");
        }
        assert_eq!(host(&[b'a'; 256]), Err(BadRequest::BadHost));
    }

    #[test]
    fn a_missing_port_is_the_schemes() {
        let same = |a: &str, b: &str| host(a.as_bytes()).unwrap().is_same(&host(b.as_bytes()).unwrap(), 80);
        assert!(same("a", "A:80"));
        assert!(same("[::1]:80", "[::1]"));
        assert!(!same("a", "a:81"));
        assert!(!same("a", "b"));
    }

    #[test]
    fn targets_have_one_of_three_forms() {
        assert_eq!(target(b"GET", b"/a?b|{c}^\\`"), Ok(Target::Origin));
        assert_eq!(target(b"OPTIONS", b"*"), Ok(Target::Asterisk));
        let absolute = target(b"GET", b"HTTPS://h:1?q");
        assert_eq!(absolute, Ok(Target::Absolute { authority: b"h:1", rest: b"?q", port: 443 }));
        for bytes in [
            "", "*", "a", "a:80", "ftp://a/", "http:/a", "/a#b", "/a\"", "/<", "/\x7f", "/ä", "/a\tb",
            "/a\\b", "/`", "\\",
        ] {
            assert_eq!(target(b"GET", bytes.as_bytes()), Err(BadRequest::BadTarget), "{bytes:?}");
        }
    }
}
