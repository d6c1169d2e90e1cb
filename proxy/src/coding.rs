//! Content codings (RFC 9110 §8.4): which one a client likes best, which answers are compressed, and the compressors.
//!
//! 1. [`offer`]: whether an answer is compressed for this client, and how its head says that it could be.
//! 2. [`Compressors::begin`]: an [`Encoder`], unless too many are at work.
//! 3. [`mark`]: what changes in the head of a compressed answer.
//! 4. [`unpacks`], [`Compressors::unpack`]: the other way round, for clients that do not take what the origin sends.
//!
//! An answer is a stream: what the origin has sent so far can always be made to leave ([`Encoder::flush`]). What a client
//! gets is compressed behind the cache and never stored in the place of the origin's bytes.

mod accepted;
mod decoder;
mod encoder;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use weir_config::plan::{Coding, Compress};

pub use self::{
    accepted::weight,
    decoder::{Decoder, is_gzip, mark_not_modified_unpacked, mark_unpacked, unpacks, unpacks_whole},
    encoder::{Compressors, Encoder, PIECE},
};

/// The digests of an answer's bytes (RFC 9530, RFC 3230): compressed, they would be wrong.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// What the coding of an answer depends on, of its request.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// As received.
    pub method: &'a Method,
    /// As received.
    pub version: Version,
    /// As received.
    pub headers: &'a HeaderMap,
    /// Whether its route knows callers by their sessions.
    pub has_session: bool,
}

/// What an answer could be sent as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// As it is, to everybody.
    AsItIs,
    /// As it is to this client; another one would get it compressed.
    NotHere,
    /// Compressed.
    In(Coding),
}

impl Offer {
    /// The coding for this client.
    #[must_use]
    pub fn coding(self) -> Option<Coding> {
        match self {
            Self::In(coding) => Some(coding),
            Self::AsItIs | Self::NotHere => None,
        }
    }
}

/// Whether an answer is compressed for this client. `length` is what is known of its body's.
///
/// Source: nginx's `ngx_http_gzip_filter_module` for statuses, versions and types; RFC 9110 §12.5.3 for the choice, §7.7
/// for `no-transform`.
#[must_use]
pub fn offer(
    rule: &Compress,
    asked: &Asked<'_>,
    status: StatusCode,
    fields: &HeaderMap,
    length: Option<u64>,
) -> Offer {
    let could_be = matches!(status, StatusCode::OK | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)
        && *asked.method != Method::CONNECT
        && length.is_none_or(|length| length > 0 && length >= rule.min_bytes.get())
        && !fields.contains_key(header::CONTENT_ENCODING)
        && !fields.contains_key(header::CONTENT_RANGE)
        && !DIGESTS.iter().any(|name| fields.contains_key(name))
        && !says(fields, "no-transform")
        && !says(asked.headers, "no-transform")
        && (rule.personal || !is_personal(asked, fields))
        && media(fields).is_some_and(|media| rule.types.iter().any(|range| range.holds(media)));
    if !could_be {
        return Offer::AsItIs;
    }
    match accepted::best(rule, asked) {
        Some(coding) => Offer::In(coding),
        None => Offer::NotHere,
    }
}

/// Whether an answer is one caller's own. What such an answer is compressed to tells by its length what is repeated in it,
/// and so, byte for byte, its secrets, to somebody who sees the length and chooses a part of it (BREACH, CVE-2013-3587).
fn is_personal(asked: &Asked<'_>, fields: &HeaderMap) -> bool {
    asked.has_session || fields.contains_key(header::SET_COOKIE) || says(fields, "private")
}

/// Says of an answer that others of its kind are sent in a coding.
pub fn vary(fields: &mut HeaderMap) {
    let named = fields.get_all(header::VARY).iter().any(|value| {
        let mut names = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding"))
    });
    if !named {
        fields.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

/// Changes the head of an answer whose body is sent in `coding`: its length is not known any more, other bytes mean that
/// no strong validator holds (RFC 9110 §8.8.1), and ranges of it cannot be had.
pub fn mark(fields: &mut HeaderMap, coding: Coding) {
    fields.remove(header::CONTENT_LENGTH);
    fields.remove(header::ACCEPT_RANGES);
    fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    weaken(fields);
}

/// A part varies as its whole does (RFC 9110 §15.3.7), which would have been compressed for others. Of parts in several pieces
/// the type is not known, nor of any how long the whole is: they say so rather once too often.
pub fn mark_part(rule: &Compress, asked: &Asked<'_>, fields: &mut HeaderMap) {
    let could_be = |media: &str| {
        media.eq_ignore_ascii_case("multipart/byteranges")
            || rule.types.iter().any(|range| range.holds(media))
    };
    if !fields.contains_key(header::CONTENT_ENCODING)
        && (rule.personal || !is_personal(asked, fields))
        && media(fields).is_some_and(could_be)
    {
        vary(fields);
    }
}

/// A 304 to a client that would get the answer compressed carries the validator of that (RFC 9110 §15.4.5), unless the
/// client named the other one.
pub fn mark_not_modified(rule: &Compress, asked: &Asked<'_>, fields: &mut HeaderMap) {
    if !rule.personal && is_personal(asked, fields) {
        return;
    }
    vary(fields);
    if !names_tag(asked, fields) && accepted::best(rule, asked).is_some() {
        weaken(fields);
    }
}

/// Whether a client says that it holds the very entity tag of an answer.
fn names_tag(asked: &Asked<'_>, fields: &HeaderMap) -> bool {
    let Some(etag) = fields.get(header::ETAG) else { return false };
    asked.headers.get_all(header::IF_NONE_MATCH).iter().any(|held| {
        let mut held = held.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        held.any(|held| held == etag.as_bytes())
    })
}

/// Whether a resumption by date could put bytes of an answer as it is behind those of one that was compressed by this rule,
/// or unpacked: such a client gets the whole again. By entity tag it cannot, because ours are weak then (RFC 9110 §13.1.5).
#[must_use]
pub fn resumes_by_date(compress: Option<&Compress>, gunzip: bool, asked: &Asked<'_>) -> bool {
    let by_date = |value: &HeaderValue| !value.as_bytes().trim_ascii().ends_with(b"\"");
    let compressed = || compress.is_some_and(|rule| accepted::best(rule, asked).is_some());
    let unpacked = || gunzip && !accepted::takes_gzip(asked);
    asked.headers.get(header::IF_RANGE).is_some_and(by_date) && (compressed() || unpacked())
}

fn weaken(fields: &mut HeaderMap) {
    let Some(etag) = fields.get(header::ETAG) else { return };
    if etag.as_bytes().starts_with(b"\"")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", etag.as_bytes()].concat())
    {
        fields.insert(header::ETAG, weak);
    }
}

/// Whether `Cache-Control` has a directive, with or without an argument.
fn says(fields: &HeaderMap, directive: &str) -> bool {
    fields.get_all(header::CACHE_CONTROL).iter().any(|value| {
        let mut members = value.as_bytes().split(|byte| *byte == b',');
        members.any(|member| {
            let name = member.split(|byte| *byte == b'=').next().unwrap_or_default();
            name.trim_ascii().eq_ignore_ascii_case(directive.as_bytes())
        })
    })
}

/// The media type, without its parameters.
fn media(fields: &HeaderMap) -> Option<&str> {
    Some(fields.get(header::CONTENT_TYPE)?.to_str().ok()?.split(';').next().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests;
