//! The fields of a head: their grammar, and the few that decide framing and connection.

use http::Version;

use super::{BadRequest, Framing, strip_cr};
use crate::chunked::is_token;

/// The fields in their order, with what the front needs of them.
#[derive(Debug, Default)]
pub(in crate::accept) struct Fields<'a> {
    /// The lines, of which each is one.
    lines: &'a [u8],
    pub(in crate::accept) count: usize,
    pub(super) host: Option<&'a [u8]>,
    pub(in crate::accept) length: Option<u64>,
    /// Leading zeros: some parsers read octal.
    pub(super) length_is_padded: bool,
    coding: Option<&'a [u8]>,
    pub(in crate::accept) close: bool,
    pub(super) keep_alive: bool,
    connection_upgrade: bool,
    pub(super) upgrade: bool,
    pub(super) expect: bool,
}

impl<'a> Fields<'a> {
    /// Reads lines up to an empty one.
    pub(super) fn parse(lines: &'a [u8], most: usize) -> Result<Self, BadRequest> {
        let mut fields = Self { lines, ..Self::default() };
        for line in split(lines) {
            if fields.count == most {
                return Err(BadRequest::TooManyFields);
            }
            let (name, value) = field(line)?;
            fields.note(name, value)?;
            fields.count += 1;
        }
        Ok(fields)
    }

    /// Name and trimmed value of each. They are read again: few requests need that, and none then pays for a list.
    pub(in crate::accept) fn all(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        split(self.lines).filter_map(|line| field(line).ok())
    }

    fn note(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), BadRequest> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            4 if is("host") => first(self.host.replace(value), BadRequest::SeveralHosts)?,
            6 if is("expect") => self.expect = true,
            7 if is("upgrade") => self.upgrade = true,
            10 if is("connection") => {
                for option in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    self.close |= option.eq_ignore_ascii_case(b"close");
                    self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if is("content-length") => {
                first(self.length.replace(length(value)?), BadRequest::SeveralLengths)?;
                self.length_is_padded = value.len() > 1 && value[0] == b'0';
            }
            17 if is("transfer-encoding") => first(self.coding.replace(value), BadRequest::BadCoding)?,
            _ => {}
        }
        Ok(())
    }

    /// How the body ends (RFC 9112 §6.3, without its leniencies).
    pub(super) fn framing(&self, version: Version) -> Result<Framing, BadRequest> {
        let Some(coding) = self.coding else {
            return Ok(match self.length {
                None | Some(0) => Framing::None,
                Some(length) => Framing::Length(length),
            });
        };
        if version == Version::HTTP_10 {
            return Err(BadRequest::CodingInHttp10);
        }
        if self.length.is_some() {
            return Err(BadRequest::LengthAndCoding);
        }
        if coding.eq_ignore_ascii_case(b"chunked") {
            return Ok(Framing::Chunked);
        }
        let is_one_token = !coding.is_empty() && coding.iter().all(|byte| is_token(*byte));
        Err(if is_one_token && !coding.to_ascii_lowercase().windows(7).any(|word| word == b"chunked") {
            BadRequest::UnknownCoding
        } else {
            BadRequest::BadCoding
        })
    }

    /// Whether the client waits for a 100.
    pub(super) fn expects_continue(&self) -> Result<bool, BadRequest> {
        if !self.expect {
            return Ok(false);
        }
        for (_, value) in self.named("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(BadRequest::BadExpectation);
            }
        }
        Ok(true)
    }

    /// Whether the upgrade is a complete websocket handshake (RFC 6455 §4.2.1).
    pub(super) fn is_websocket(&self) -> bool {
        self.connection_upgrade
            && self.only("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"))
            && self.only("sec-websocket-version") == Some(b"13")
            && self.only("sec-websocket-key").is_some_and(is_nonce)
    }

    /// Whether one other protocol is offered. h2c never is: it would be a second front door, without this one's checks.
    pub(super) fn offers_another(&self) -> bool {
        let is_name = |value: &[u8]| {
            let known = [&b"websocket"[..], b"h2c"].iter().any(|known| value.eq_ignore_ascii_case(known));
            !value.is_empty() && !known && value.iter().all(|byte| is_token(*byte) || *byte == b'/')
        };
        self.connection_upgrade && self.only("upgrade").is_some_and(is_name)
    }

    fn only(&self, name: &str) -> Option<&'a [u8]> {
        let mut values = self.named(name).map(|(_, value)| value);
        values.next().filter(|_| values.next().is_none())
    }

    fn named(&self, name: &str) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.all().filter(move |(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
    }
}

/// Whole lines without their ends, up to an empty one.
pub(in crate::accept) fn split(lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut from = 0;
    let whole = memchr::memchr_iter(b'\n', lines)
        .map(move |end| strip_cr(&lines[std::mem::replace(&mut from, end + 1)..end]));
    whole.take_while(|line| !line.is_empty())
}

/// Refuses a field that was there before.
fn first<T>(before: Option<T>, bad: BadRequest) -> Result<(), BadRequest> {
    if before.is_some() { Err(bad) } else { Ok(()) }
}

/// 16 bytes in base64.
fn is_nonce(value: &[u8]) -> bool {
    value.len() == 24
        && value.ends_with(b"==")
        && value[..22].iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'))
}

/// One line as name and value.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), BadRequest> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(BadRequest::ObsFold);
    }
    let colon = line.iter().position(|byte| *byte == b':').ok_or(BadRequest::BadFieldName)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if matches!(name.last(), Some(b' ' | b'\t')) {
        return Err(BadRequest::SpaceBeforeColon);
    }
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || is_lookalike(name) {
        return Err(BadRequest::BadFieldName);
    }
    // Every byte, without stopping at the first bad one: the compiler then looks at many at once.
    if !value.iter().fold(true, |good, byte| good & matches!(byte, b'\t' | b' '..=0x7e | 0x80..)) {
        return Err(BadRequest::BadFieldValue);
    }
    Ok((name, trim(value)))
}

/// Without the white space that HTTP allows around a value, which is not all that Rust calls white space.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `Content_Length` and the like: CGI-style origins read `_` as `-`.
pub(in crate::accept) fn is_lookalike(name: &[u8]) -> bool {
    name.contains(&b'_')
        && ["content-length", "transfer-encoding"].iter().any(|known| {
            name.len() == known.len()
                && name.iter().zip(known.bytes()).all(|(byte, known)| {
                    byte.eq_ignore_ascii_case(&known) || (*byte == b'_' && known == b'-')
                })
        })
}

/// A `Content-Length`: digits only, at most 2^63-1, which every language's integer holds.
pub(in crate::accept) fn length(value: &[u8]) -> Result<u64, BadRequest> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(BadRequest::BadLength);
    }
    let number = value.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    if number > i64::MAX as u64 { Err(BadRequest::BadLength) } else { Ok(number) }
}
