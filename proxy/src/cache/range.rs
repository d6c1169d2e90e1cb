//! Parts of a stored body (RFC 9110 §14).
//!
//! Hostile ranges are the reason for every bound here: many, tiny, overlapping ranges could make an answer larger
//! than the body. Overlapping and touching ones are joined, and what remains too many is answered whole (§14.2).

use std::ops::Range;

use http::{HeaderMap, header};

use super::directives::{digits, members};

/// More parts than this are answered whole.
const MOST_PARTS: usize = 16;
/// More written ranges than this are not even read.
const MOST_WRITTEN: usize = 64;

/// What a `Range` asks of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of it: no range, one of another unit, or one we do not honour.
    Whole,
    /// These parts, at least one, none touching another, in the order asked for.
    Parts(Vec<Range<u64>>),
    /// Nothing that is there: 416.
    Unsatisfiable,
}

/// Reads the `Range` of a request against a body of `length` bytes.
#[must_use]
pub(super) fn asked(request: &HeaderMap, length: u64) -> Asked {
    let mut values = request.get_all(header::RANGE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Asked::Whole };
    let value = value.as_bytes();
    let Some(set) =
        value.split_at_checked(6).and_then(|(unit, set)| unit.eq_ignore_ascii_case(b"bytes=").then_some(set))
    else {
        return Asked::Whole;
    };
    let mut parts: Vec<Range<u64>> = Vec::new();
    for (written, member) in members(set).enumerate() {
        let Some(range) = parse(member, length) else { return Asked::Whole };
        if written == MOST_WRITTEN {
            return Asked::Whole;
        }
        if !range.is_empty() {
            join(&mut parts, range);
        }
    }
    match parts.len() {
        0 if members(set).next().is_none() => Asked::Whole,
        0 => Asked::Unsatisfiable,
        1..=MOST_PARTS => Asked::Parts(parts),
        _ => Asked::Whole,
    }
}

/// Where the first range of a request begins, if it says so before the body's length is known.
#[must_use]
pub(super) fn first_byte(request: &HeaderMap) -> Option<u64> {
    let value = request.get(header::RANGE)?.as_bytes();
    let (_, set) = value.split_at_checked(6).filter(|(unit, _)| unit.eq_ignore_ascii_case(b"bytes="))?;
    let first = members(set).next()?;
    digits(first[..first.iter().position(|byte| *byte == b'-')?].trim_ascii())
}

/// One range; empty if the body has nothing of it, `None` if it is malformed (RFC 9110 §14.1.1).
fn parse(member: &[u8], length: u64) -> Option<Range<u64>> {
    let dash = member.iter().position(|byte| *byte == b'-')?;
    let (first, last) = (member[..dash].trim_ascii(), member[dash + 1..].trim_ascii());
    if first.is_empty() {
        let suffix = digits(last)?;
        return Some(length.saturating_sub(suffix)..length);
    }
    let first = digits(first)?;
    let end = if last.is_empty() {
        length
    } else {
        let last = digits(last)?;
        if last < first {
            return None;
        }
        last.saturating_add(1).min(length)
    };
    Some(first.min(end)..end)
}

/// Adds a range, joined with every one it overlaps or touches, where the first of them stood.
fn join(parts: &mut Vec<Range<u64>>, mut range: Range<u64>) {
    let mut place = parts.len();
    // Growing may reach further parts, so look again until nothing touches.
    while let Some(at) = parts.iter().position(|part| part.start <= range.end && range.start <= part.end) {
        let part = parts.remove(at);
        range = part.start.min(range.start)..part.end.max(range.end);
        place = place.min(at);
    }
    parts.insert(place.min(parts.len()), range);
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::single_range_in_vec_init,
        reason = "tests build ranges and headers by hand"
    )]
    use super::*;

    fn ask(range: &str, length: u64) -> Asked {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, range.parse().unwrap());
        asked(&headers, length)
    }

    #[test]
    fn ranges_select_what_is_there() {
        for (range, expected) in [
            ("bytes=0-0", Asked::Parts(vec![0..1])),
            ("Bytes=2-4", Asked::Parts(vec![2..5])),
            ("bytes=5-", Asked::Parts(vec![5..10])),
            ("bytes=-3", Asked::Parts(vec![7..10])),
            ("bytes=-30", Asked::Parts(vec![0..10])),
            ("bytes=8-99999999999999999999999", Asked::Parts(vec![8..10])),
            ("bytes=0-1, 4-5,8-", Asked::Parts(vec![0..2, 4..6, 8..10])),
            ("bytes=8-9,0-1", Asked::Parts(vec![8..10, 0..2])),
            ("bytes=0-1,50-60", Asked::Parts(vec![0..2])),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=99999999999999999999999-", Asked::Unsatisfiable),
            ("bytes=50-60,70-", Asked::Unsatisfiable),
        ] {
            assert_eq!(ask(range, 10), expected, "{range}");
        }
        assert_eq!(ask("bytes=0-", 0), Asked::Unsatisfiable);
    }

    #[test]
    fn what_is_malformed_or_of_another_unit_is_answered_whole() {
        for range in [
            "bytes=",
            "bytes=a-b",
            "bytes=5-2",
            "bytes=-",
            "bytes 0-1",
            "bytes=1",
            "items=0-1",
            "bytes=0-1,x",
            "bytes=+1-2",
            "bytes=--1",
            "byte",
        ] {
            assert_eq!(ask(range, 10), Asked::Whole, "{range}");
        }
        let mut two = HeaderMap::new();
        two.append(header::RANGE, "bytes=0-1".parse().unwrap());
        two.append(header::RANGE, "bytes=4-5".parse().unwrap());
        assert_eq!(asked(&two, 10), Asked::Whole);
    }

    #[test]
    fn overlapping_and_touching_ranges_are_joined() {
        assert_eq!(ask("bytes=0-5,3-7", 10), Asked::Parts(vec![0..8]));
        assert_eq!(ask("bytes=0-1,2-3", 10), Asked::Parts(vec![0..4]));
        assert_eq!(ask("bytes=0-1,4-5,2-3", 10), Asked::Parts(vec![0..6]));
        let attack = format!("bytes={}", vec!["0-"; 60].join(","));
        assert_eq!(ask(&attack, 1000), Asked::Parts(vec![0..1000]));
    }

    #[test]
    fn too_many_ranges_are_answered_whole() {
        let many = |count: u64| {
            let ranges: Vec<_> = (0..count).map(|n| format!("{}-{}", n * 3, n * 3)).collect();
            ask(&format!("bytes={}", ranges.join(",")), 1000)
        };
        assert!(matches!(many(16), Asked::Parts(parts) if parts.len() == 16));
        assert_eq!(many(17), Asked::Whole);
        assert_eq!(many(100), Asked::Whole);
    }
}
