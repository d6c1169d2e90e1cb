//! Slices: an answer that is kept in parts of one length, so that a part of a large file costs no more than the slices it
//! touches, and a file of any size can be kept (nginx's `ngx_http_slice_module`).
//!
//! Each slice is an entry like any other, under a key of its own: found, waited for, validated, purged and evicted by itself.
//! Its status is 206, and its `Content-Range` says what it is a part of. It is judged, and answers are made of it, as if the
//! whole lay there: what a client gets is never the slice. [`Part::is_beside`] tells whether two are of the same whole.

use std::ops::Range;

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{
    conditional::{Comparison, etags_match},
    date::date,
    directives::digits,
    policy::NotStored,
    range,
    request::RequestHead,
};

/// Which part of its whole a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    pub(super) index: u64,
    pub(super) size: u64,
}

/// Which part of what whole a 206 is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub(super) range: Range<u64>,
    /// The length of the whole, bytes.
    pub total: u64,
    validator: Option<Validator>,
}

/// By what another part is known to be of the same whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Validator {
    /// A strong entity tag.
    Strong(HeaderValue),
    /// The date of the last change, and the weak tag that may be beside it.
    Dated(HeaderValue, Option<HeaderValue>),
}

/// The slice that the answer to a request begins in, as far as the request can tell.
#[must_use]
pub fn first_slice(request: &RequestHead<'_>, size: u64) -> u64 {
    let begins = (request.method == Method::GET).then(|| range::first_byte(request.headers)).flatten();
    begins.unwrap_or(0) / size
}

impl Slice {
    /// What the origin is asked for.
    #[must_use]
    pub fn range(&self) -> HeaderValue {
        let start = self.index.saturating_mul(self.size);
        let last = start.saturating_add(self.size - 1);
        HeaderValue::try_from(format!("bytes={start}-{last}")).expect("letters and digits are a field value")
    }

    /// Whether it begins where its whole does.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.index == 0
    }

    /// What a 206 is, if it is what was asked for: this slice, up to the end of the whole, which another can be told to belong
    /// to (RFC 9110 §15.3.7.3 asks for a strong validator).
    #[must_use]
    pub fn part(&self, headers: &HeaderMap) -> Option<Part> {
        let part = Part::of(headers)?;
        let start = self.index.checked_mul(self.size)?;
        let end = start.saturating_add(self.size).min(part.total);
        let is_asked = part.range == (start..end) && start < end;
        let can_go_on = part.validator.is_some() || part.range == (0..part.total);
        (is_asked && can_go_on).then_some(part)
    }

    /// What an answer to the request for this slice is kept as: a part, or, in the place of the first slice alone, what is
    /// none: the whole of an origin that knows no ranges, or an error.
    pub(super) fn kept(&self, status: StatusCode, headers: &HeaderMap) -> Result<Option<Part>, NotStored> {
        match status {
            StatusCode::PARTIAL_CONTENT => self.part(headers).map(Some).ok_or(NotStored::Partial),
            _ if status.is_success() && self.index > 0 => Err(NotStored::Partial),
            _ => Ok(None),
        }
    }
}

impl Part {
    /// What the fields of a 206 say of the one part that it is.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(header::CONTENT_RANGE).iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        let (range, total) = content_range(value.as_bytes())?;
        Some(Self { range, total, validator: Validator::of(headers) })
    }

    /// Whether another part may be put beside it (RFC 9111 §3.4).
    pub(super) fn is_strong(&self) -> bool {
        matches!(self.validator, Some(Validator::Strong(_)))
    }

    /// Its own length, bytes.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether both are of the very same whole.
    #[must_use]
    pub fn is_beside(&self, other: &Self) -> bool {
        self.total == other.total && self.validator == other.validator
    }
}

/// `bytes 0-99/1000`, with the end behind the last byte.
fn content_range(value: &[u8]) -> Option<(Range<u64>, u64)> {
    let value = value.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes "))?.1;
    let slash = value.iter().position(|byte| *byte == b'/')?;
    let dash = value[..slash].iter().position(|byte| *byte == b'-')?;
    let number = |text: &[u8]| digits(text.trim_ascii());
    let (first, last) = (number(&value[..dash])?, number(&value[dash + 1..slash])?);
    let (end, total) = (last.checked_add(1)?, number(&value[slash + 1..])?);
    // No file is that long, and sums of lengths must not overflow.
    (first < end && end <= total && total <= i64::MAX as u64).then_some((first..end, total))
}

impl Validator {
    fn of(headers: &HeaderMap) -> Option<Self> {
        let etag = headers.get(header::ETAG);
        let is_strong =
            |etag: &&HeaderValue| etags_match(etag.as_bytes(), etag.as_bytes(), Comparison::Strong);
        if let Some(etag) = etag.filter(is_strong) {
            return Some(Self::Strong(etag.clone()));
        }
        date(headers, &header::LAST_MODIFIED)?;
        Some(Self::Dated(headers.get(header::LAST_MODIFIED)?.clone(), etag.cloned()))
    }
}

#[cfg(test)]
mod tests;
