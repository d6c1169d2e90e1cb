//! Validators of a file, and what a request's conditions and ranges make of them.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};

/// What tells one state of a file from another.
#[derive(Debug)]
pub(super) struct Validators {
    etag: String,
    weak: bool,
    modified: SystemTime,
}

/// What part of a file is asked for, both ends inclusive.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Range {
    Whole,
    Part { start: u64, end: u64 },
    Unsatisfiable,
}

impl Validators {
    pub(super) fn new(modified: SystemTime, size: u64, now: SystemTime) -> Self {
        let since = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settled = now.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1));
        Self { etag: format!("\"{:x}-{size:x}\"", since.as_nanos()), weak: !settled, modified }
    }

    pub(super) fn etag(&self) -> String {
        format!("{}{}", if self.weak { "W/" } else { "" }, self.etag)
    }

    pub(super) fn last_modified(&self) -> String {
        httpdate::fmt_http_date(self.modified)
    }

    /// 412 or 304, where the request's conditions say so; in the order of RFC 9110 §13.2.2.
    pub(super) fn precondition(&self, headers: &HeaderMap) -> Option<StatusCode> {
        let failed = if headers.contains_key(header::IF_MATCH) {
            !self.is_listed(headers, &header::IF_MATCH, Comparison::Strong)
        } else {
            date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|since| self.is_newer_than(since))
        };
        if failed {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
        let unchanged = if headers.contains_key(header::IF_NONE_MATCH) {
            self.is_listed(headers, &header::IF_NONE_MATCH, Comparison::Weak)
        } else {
            date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|since| !self.is_newer_than(since))
        };
        unchanged.then_some(StatusCode::NOT_MODIFIED)
    }

    /// The range a request gets of a file of `size` bytes; what cannot be understood is ignored (RFC 9110 §14.2).
    pub(super) fn range(&self, headers: &HeaderMap, size: u64) -> Range {
        let Some(range) = single(headers, &header::RANGE).filter(|_| self.if_range(headers)) else {
            return Range::Whole;
        };
        parse_range(range, size).unwrap_or(Range::Whole)
    }

    /// Whether `If-Range`, if there is one, names this very state: only a strong tag or the exact date can (§13.1.5).
    fn if_range(&self, headers: &HeaderMap) -> bool {
        if !headers.contains_key(header::IF_RANGE) {
            return true;
        }
        let Some(value) = single(headers, &header::IF_RANGE) else { return false };
        !self.weak && (value == self.etag || value == self.last_modified())
    }

    fn is_listed(&self, headers: &HeaderMap, name: &header::HeaderName, comparison: Comparison) -> bool {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        // Our own tags have no comma, so splitting at commas cannot tear one apart.
        values.flat_map(|value| value.split(',')).map(str::trim).any(|tag| match comparison {
            _ if tag == "*" => true,
            Comparison::Strong => !self.weak && tag == self.etag,
            Comparison::Weak => tag.strip_prefix("W/").unwrap_or(tag) == self.etag,
        })
    }

    /// Compared in whole seconds, which is all that a date in a field can say.
    fn is_newer_than(&self, date: SystemTime) -> bool {
        self.modified.duration_since(date).is_ok_and(|newer| newer >= Duration::from_secs(1))
    }
}

#[derive(Debug, Clone, Copy)]
enum Comparison {
    Strong,
    Weak,
}

fn single<'r>(headers: &'r HeaderMap, name: &header::HeaderName) -> Option<&'r str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().map(HeaderValue::to_str)?.ok()?;
    values.next().is_none().then_some(value)
}

fn date(headers: &HeaderMap, name: &header::HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(single(headers, name)?).ok()
}

/// `None` for several ranges, other units and nonsense.
fn parse_range(text: &str, size: u64) -> Option<Range> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let (start, end) = match (position(first), position(last)) {
        (Some(start), Some(end)) if start <= end => (start, end),
        (Some(start), None) if last.is_empty() => (start, u64::MAX),
        (None, Some(suffix)) if first.is_empty() => {
            (if suffix == 0 { size } else { size.saturating_sub(suffix) }, u64::MAX)
        }
        _ => return None,
    };
    Some(if start < size { Range::Part { start, end: end.min(size - 1) } } else { Range::Unsatisfiable })
}

/// Digits only; more than fit mean "as far as there is".
fn position(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}
