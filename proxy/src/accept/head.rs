//! The head of an HTTP/1 request, read byte by byte: bytes → [`Head`] or the first [`BadRequest`].
//!
//! Pure and strict. What passes has one meaning for every parser behind us: one framing, one host, fields of tokens and
//! text. What could be written in several ways (bare LF where it is allowed, an absolute target, an upgrade we do not know, an
//! expectation that the front meets itself) is written anew in its ordinary form, see [`super::rewrite`]; everything else goes
//! on as the bytes that came.

pub(super) mod fields;
#[cfg(test)]
mod tests;

use http::Version;
use weir_config::plan::{BareLf, Bounds};

use self::fields::Fields;
use super::{
    bad::BadRequest,
    rewrite,
    target::{self, Target},
};
use crate::chunked::is_token;

/// A head that passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    /// How the body ends.
    pub(super) framing: Framing,
    /// 1.0 or 1.1.
    pub(super) version: Version,
    /// Whether the client lets the connection live after this request.
    pub(super) keep_alive: bool,
    /// CONNECT, a complete websocket handshake, or the offer of another protocol: the answer may turn the connection into
    /// a tunnel.
    pub(super) may_switch: bool,
    /// The client waits for a 100 before it sends the body.
    pub(super) expects_continue: bool,
    /// How many fields there are.
    pub(super) fields: usize,
    /// The head in its ordinary form, when it did not come so.
    pub(super) rewritten: Option<Vec<u8>>,
}

/// How a request's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    None,
    /// After so many bytes, at least one.
    Length(u64),
    /// With its last chunk.
    Chunked,
}

/// What the bytes that came so far may still become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// The head is complete: it begins after `skip` bytes (an empty line) and is `len` bytes long.
    Complete { skip: usize, len: usize },
    /// More is needed.
    Partial,
    /// Nothing that follows can make it good.
    Bad(BadRequest),
}

/// Looks for the end of a head, from byte `seen` on, which an earlier call looked at.
///
/// The limit on the head is kept here, so that a head without an end is cut too.
pub(super) fn progress(bytes: &[u8], seen: usize, bounds: &Bounds) -> Progress {
    // One empty line before a request is tolerated (RFC 9112 §2.2); a second one is a malformed request line.
    let skip = match bytes {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        [b'\r'] | [] => return Progress::Partial,
        _ => 0,
    };
    let head = &bytes[skip..];
    if head.first().is_some_and(|byte| !is_token(*byte) && !matches!(byte, b'\r' | b'\n')) {
        // A TLS hello or other noise may never end a line; say so now instead of at the deadline.
        return Progress::Bad(if head[0] == 0 { BadRequest::Nul } else { BadRequest::BadLine });
    }
    let limit = bounds.head_bytes.len();
    let first = memchr::memchr(b'\n', head);
    match end(head, seen.saturating_sub(skip + 3)) {
        Some(len) if len <= limit => Progress::Complete { skip, len },
        None if head.len() <= limit => match first.filter(|first| first + skip >= seen) {
            // A line of HTTP/0.9 has no head behind it: its client waits for an answer, not for a deadline.
            Some(first) => RequestLine::parse(strip_cr(&head[..first]), bounds)
                .map_or_else(Progress::Bad, |_| Progress::Partial),
            None => Progress::Partial,
        },
        _ if first.is_none_or(|first| first >= limit) => Progress::Bad(BadRequest::UriTooLong),
        _ => Progress::Bad(BadRequest::HeadTooLarge),
    }
}

fn strip_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The length of the head with its empty line; an LF alone counts here, so that [`check`] can refuse it.
fn end(head: &[u8], from: usize) -> Option<usize> {
    if head.starts_with(b"\r\n") {
        return Some(2);
    }
    if head.first() == Some(&b'\n') {
        return Some(1);
    }
    let rest = head.get(from..)?;
    memchr::memchr_iter(b'\n', rest).map(|at| from + at).find_map(|at| match head[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Checks a complete head, including its empty line.
pub(super) fn check(head: &[u8], bounds: &Bounds) -> Result<Head, BadRequest> {
    let has_bare_lf = has_bare_lf(head);
    if has_bare_lf && bounds.bare_lf == BareLf::Refuse {
        return Err(ends_badly(head, bounds.bare_lf).unwrap_or(BadRequest::BareLf));
    }
    // What is wrong with the ends of lines says more than what became of the lines.
    read(head, has_bare_lf, bounds).map_err(|bad| ends_badly(head, bounds.bare_lf).unwrap_or(bad))
}

fn read(head: &[u8], has_bare_lf: bool, bounds: &Bounds) -> Result<Head, BadRequest> {
    let (line, lines) = head.split_at(memchr::memchr(b'\n', head).unwrap_or(head.len()));
    let line = RequestLine::parse(strip_cr(line), bounds)?;
    let fields = Fields::parse(lines.get(1..).unwrap_or_default(), bounds.head_fields)?;

    let host = line.host(&fields)?;
    let framing = fields.framing(line.version)?;
    if let (Framing::Length(length), max @ 1..) = (framing, bounds.body_bytes.get())
        && length > max
    {
        return Err(BadRequest::BodyTooLarge);
    }
    let expects_continue = fields.expects_continue()? && line.version == Version::HTTP_11;
    let is_connect = matches!(line.target, Target::Authority(_));
    if is_connect && framing != Framing::None {
        // RFC 9110 §9.3.6: it means nothing, and its bytes and the tunnel's could not be told apart.
        return Err(BadRequest::ConnectWithBody);
    }
    let can_switch =
        !is_connect && fields.upgrade && line.version == Version::HTTP_11 && framing == Framing::None;
    let websocket = can_switch && line.method == b"GET" && fields.is_websocket();
    let may_switch = is_connect || websocket || (can_switch && fields.offers_another());
    // The bytes after an upgrade that we ignore may be in the other protocol: they are never read as a request. Which other
    // protocols a route takes is not known yet.
    let ends = fields.upgrade && !websocket;
    // What follows a CONNECT that is refused may have been meant for the tunnel.
    let keep_alive =
        !ends && !is_connect && !fields.close && (line.version == Version::HTTP_11 || fields.keep_alive);

    let ordinary = !has_bare_lf
        && !ends
        && !fields.expect
        && !fields.length_is_padded
        && !matches!(line.target, Target::Absolute { .. });
    let mut checked = Head {
        framing,
        version: line.version,
        keep_alive,
        may_switch,
        expects_continue,
        fields: fields.count,
        rewritten: None,
    };
    if !ordinary {
        checked.rewritten = Some(rewrite::head(&line, &fields, host, &checked));
    }
    Ok(checked)
}

/// Whether some line ends in LF alone.
fn has_bare_lf(head: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r')
}

/// What is wrong with the ends of lines, or with bytes that some take for one, in the order in which they stand.
fn ends_badly(head: &[u8], policy: BareLf) -> Option<BadRequest> {
    memchr::memchr3_iter(b'\r', b'\n', 0, head).find_map(|at| match (head[at], head.get(at + 1)) {
        (0, _) | (b'\r', Some(0)) => Some(BadRequest::Nul),
        (b'\r', Some(b'\n') | None) => None,
        (b'\r', _) => Some(BadRequest::BareCr),
        _ if at > 0 && head[at - 1] == b'\r' => None,
        _ => (policy == BareLf::Refuse).then_some(BadRequest::BareLf),
    })
}

/// The first line.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestLine<'a> {
    pub(super) method: &'a [u8],
    pub(super) raw_target: &'a [u8],
    pub(super) target: Target<'a>,
    pub(super) version: Version,
}

impl<'a> RequestLine<'a> {
    fn parse(line: &'a [u8], bounds: &Bounds) -> Result<Self, BadRequest> {
        let mut parts = line.split(|byte| *byte == b' ');
        let (Some(method), Some(raw_target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadRequest::BadLine);
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(BadRequest::BadMethod);
        }
        let version = match version {
            b"HTTP/1.1" => Version::HTTP_11,
            b"HTTP/1.0" => Version::HTTP_10,
            [b'H', b'T', b'T', b'P', b'/', b'1'..=b'9', b'.', b'0'..=b'9'] => {
                return Err(BadRequest::BadVersion);
            }
            _ => return Err(BadRequest::BadLine),
        };
        match method {
            b"CONNECT" if !bounds.connect => return Err(BadRequest::ConnectRefused),
            b"TRACE" => return Err(BadRequest::TraceRefused),
            _ => {}
        }
        if raw_target.len() > bounds.uri_bytes.len() {
            return Err(BadRequest::UriTooLong);
        }
        let target = target::target(method, raw_target)?;
        Ok(Self { method, raw_target, target, version })
    }

    /// The one host that the head names, if it names one.
    fn host(&self, fields: &Fields<'a>) -> Result<Option<&'a [u8]>, BadRequest> {
        let named = fields.host.map(target::host).transpose()?;
        if let Target::Absolute { authority, port, .. } = self.target {
            let authority = target::host(authority)?;
            // RFC 9112 §3.2.2 lets the target win; refusing is safer, for whoever is behind us may let Host win.
            if named.is_some_and(|named| !named.is_same(&authority, port)) {
                return Err(BadRequest::HostMismatch);
            }
        }
        if let Target::Authority(authority) = self.target {
            let authority = target::host(authority)?;
            if named.is_some_and(|named| !named.is_same(&authority, 0)) {
                return Err(BadRequest::HostMismatch);
            }
        }
        match (fields.host, self.target) {
            (None, _) if self.version == Version::HTTP_11 => Err(BadRequest::MissingHost),
            (None, Target::Absolute { authority, .. } | Target::Authority(authority)) => Ok(Some(authority)),
            (host, _) => Ok(host),
        }
    }
}
