//! The answer to one client from a stored head: status, fields, and which bytes of the body.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{
    conditional::{client_holds, if_range_holds},
    entry::{Body, Head},
    range::{self, Asked},
    request::{Now, RequestHead},
};

/// What to send.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The stored fields with `Age`, and the length of what follows.
    pub headers: HeaderMap,
    /// What follows.
    pub body: Plan,
}

/// Which bytes follow a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// None.
    Nothing,
    /// The stored body.
    Whole,
    /// Parts of it, with texts between them where there are several.
    Pieces(Vec<Piece>),
}

/// One piece of a partial body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Between parts.
    Text(Bytes),
    /// Bytes of the stored body.
    Part(Range<u64>),
}

impl Plan {
    /// The bytes to send, sharing the body's memory.
    #[must_use]
    pub fn chunks(&self, body: &Body) -> Vec<Bytes> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Whole => body.chunks().to_vec(),
            Self::Pieces(pieces) => {
                let mut chunks = Vec::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => chunks.push(text.clone()),
                        Piece::Part(range) => chunks.extend(body.slice(range.clone())),
                    }
                }
                chunks
            }
        }
    }
}

/// How much of the body is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it; parts can be sent.
    Complete(u64),
    /// It is arriving; a `Range` is answered whole, as RFC 9110 §14.2 allows.
    Arriving(u64),
}

/// The answer to `request` from a stored head.
#[must_use]
pub fn answer(head: &Head, extent: Extent, request: &RequestHead<'_>, now: Now) -> Answer {
    from((head.status, &head.headers), aged(head, now), extent, request)
}

/// The stored fields, with their age.
#[must_use]
pub fn aged(head: &Head, now: Now) -> HeaderMap {
    let mut headers = head.headers.clone();
    headers.insert(header::AGE, HeaderValue::from(head.freshness.age(now).as_secs()));
    headers
}

/// The answer from the whole that a slice with these `fields` is a part of.
#[must_use]
pub fn answer_of_whole(mut fields: HeaderMap, extent: Extent, request: &RequestHead<'_>) -> Answer {
    fields.remove(header::CONTENT_RANGE);
    fields.remove(header::CONTENT_LENGTH);
    fields.entry(header::ACCEPT_RANGES).or_insert(HeaderValue::from_static("bytes"));
    let stored = fields.clone();
    from((StatusCode::OK, &stored), fields, extent, request)
}

/// The answer to the very request that brought the stored head, with the `fields` as the origin sent them: also those
/// that are not for others (RFC 9111 §5.2.2.4, §5.2.2.7), and no age but the origin's (§5.1).
#[must_use]
pub fn first_answer(head: &Head, mut fields: HeaderMap, extent: Extent, request: &RequestHead<'_>) -> Answer {
    fields.remove(header::CONTENT_LENGTH);
    from((head.status, &head.headers), fields, extent, request)
}

/// Order: conditions, then ranges (RFC 9110 §13.2.2); both only for 200, as they speak of what GET would answer.
fn from(
    (status, stored): (StatusCode, &HeaderMap),
    mut headers: HeaderMap,
    extent: Extent,
    request: &RequestHead<'_>,
) -> Answer {
    let (Extent::Complete(length) | Extent::Arriving(length)) = extent;
    if status == StatusCode::OK {
        if client_holds(stored, request.headers) {
            return not_modified(headers);
        }
        let partial = matches!(extent, Extent::Complete(_))
            && request.method == Method::GET
            && request.headers.contains_key(header::RANGE)
            && if_range_holds(stored, request.headers);
        if partial {
            match range::asked(request.headers, length) {
                Asked::Whole => {}
                Asked::Parts(parts) => return parts_of(headers, parts, length),
                Asked::Unsatisfiable => return unsatisfiable(headers, length),
            }
        }
    }
    // 204 has neither body nor length (RFC 9110 §8.6).
    if status != StatusCode::NO_CONTENT {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let body = if request.method == Method::HEAD || length == 0 { Plan::Nothing } else { Plan::Whole };
    Answer { status, headers, body }
}

/// Whether `request` holds what was answered to it with these `fields`, and is not kept. A date alone says nothing of the
/// last change (RFC 9110 §13.1.3).
#[must_use]
pub fn is_held(status: StatusCode, fields: &HeaderMap, request: &RequestHead<'_>) -> bool {
    let compares =
        request.headers.contains_key(header::IF_NONE_MATCH) || fields.contains_key(header::LAST_MODIFIED);
    status == StatusCode::OK && compares && client_holds(fields, request.headers)
}

/// The answer of these fields to whoever holds it, without what describes a body that does not follow (RFC 9110 §15.4.5).
#[must_use]
pub fn not_modified(mut headers: HeaderMap) -> Answer {
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
        headers.remove(name);
    }
    Answer { status: StatusCode::NOT_MODIFIED, headers, body: Plan::Nothing }
}

/// RFC 9110 §15.5.17.
fn unsatisfiable(mut headers: HeaderMap, length: u64) -> Answer {
    for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE, header::ETAG] {
        headers.remove(name);
    }
    headers.insert(header::CONTENT_RANGE, ascii(format!("bytes */{length}")));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(0));
    Answer { status: StatusCode::RANGE_NOT_SATISFIABLE, headers, body: Plan::Nothing }
}

/// RFC 9110 §15.3.7: one part plainly, several as multipart/byteranges (§14.6).
fn parts_of(mut headers: HeaderMap, parts: Vec<Range<u64>>, length: u64) -> Answer {
    let (pieces, total) = if let [part] = &parts[..] {
        headers.insert(header::CONTENT_RANGE, ascii(content_range(part, length)));
        (vec![Piece::Part(part.clone())], part.end - part.start)
    } else {
        // Not to be guessed, so that no stored body can contain it on purpose.
        let boundary = format!("{:032x}", rand::random::<u128>());
        let pieces = multipart(&parts, length, headers.get(header::CONTENT_TYPE), &boundary);
        headers.insert(header::CONTENT_TYPE, ascii(format!("multipart/byteranges; boundary={boundary}")));
        let total = pieces.iter().map(|piece| match piece {
            Piece::Text(text) => text.len() as u64,
            Piece::Part(part) => part.end - part.start,
        });
        let total = total.sum();
        (pieces, total)
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(total));
    Answer { status: StatusCode::PARTIAL_CONTENT, headers, body: Plan::Pieces(pieces) }
}

fn multipart(parts: &[Range<u64>], length: u64, media: Option<&HeaderValue>, boundary: &str) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(2 * parts.len() + 1);
    for part in parts {
        let mut text = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(media) = media {
            text.extend_from_slice(b"Content-Type: ");
            text.extend_from_slice(media.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(format!("Content-Range: {}\r\n\r\n", content_range(part, length)).as_bytes());
        pieces.push(Piece::Text(text.into()));
        pieces.push(Piece::Part(part.clone()));
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end - 1)
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits, letters and a few separators are a field value")
}

#[cfg(test)]
mod tests;
