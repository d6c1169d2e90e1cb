//! Parts that clients asked for, kept as what they are (RFC 9111 §3.3) and put together where they touch (§3.4).
//!
//! A variant has one run of bytes, under [`super::Key::part`]: an entry of status 206 whose `Content-Range` says where it
//! begins. A further part of the same strong entity tag makes it longer, or takes its place; a run of all bytes becomes the
//! whole's entry. It answers requests for what lies within it, as the whole would.

use std::{ops::Range, sync::Arc};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    answer::{Answer, Extent, Piece, Plan, aged, answer_of_whole},
    entry::{Body, Entry, Head},
    key::Key,
    policy::NotStored,
    request::{Now, RequestHead},
    slice::Part,
};

/// What an answer to a client's range is kept as.
pub(super) fn kept(status: StatusCode, headers: &HeaderMap) -> Result<Part, NotStored> {
    let part = (status == StatusCode::PARTIAL_CONTENT).then(|| Part::of(headers)).flatten();
    part.filter(Part::is_strong).ok_or(NotStored::Partial)
}

/// A part that has just come with what was held of the same whole, if they touch and fit into an entry of `most` bytes.
pub(super) fn joined(new: Entry, held: Option<&Entry>, most: usize) -> Entry {
    held.and_then(|held| join(&new, held, most)).unwrap_or(new)
}

fn join(new: &Entry, held: &Entry, most: usize) -> Option<Entry> {
    let (come, had) = (Part::of(&new.head().headers)?, Part::of(&held.head().headers)?);
    let (come_at, had_at) = (come.range.clone(), had.range.clone());
    let touch = come_at.start <= had_at.end && had_at.start <= come_at.end;
    let all = come_at.start.min(had_at.start)..come_at.end.max(had_at.end);
    let same = come.is_strong() && come.is_beside(&had) && new.head().variant == held.head().variant;
    let in_memory = held.body().stored().or(new.body().stored()).is_none();
    if !touch || !same || !in_memory || all.end - all.start > most as u64 {
        return None;
    }
    let of_held = |wanted: Range<u64>| {
        let place = |at: u64| at.saturating_sub(had_at.start);
        held.body().slice(place(wanted.start)..place(wanted.end))
    };
    let before = of_held(all.start..come_at.start.max(all.start));
    let after = of_held(come_at.end.max(had_at.start)..all.end);
    let chunks = before.chain(new.body().chunks().iter().cloned()).chain(after).collect();
    // The newer answer's fields are those of the whole (RFC 9111 §3.4).
    let mut headers = new.head().headers.clone();
    let range = format!("bytes {}-{}/{}", all.start, all.end - 1, come.total);
    headers.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).ok()?);
    let head = Head { headers, ..Head::clone(new.head()) };
    Some(Entry::new(new.key(), Arc::new(head), Arc::new(Body::new(chunks))))
}

/// The whole's entry, if this run is all of it, and in memory: a file on disk is a part's for good.
pub(super) fn whole(run: &Entry, key: &Key) -> Option<Entry> {
    let part = Part::of(&run.head().headers)?;
    if part.range != (0..part.total) || run.body().stored().is_some() {
        return None;
    }
    let mut head = Head { status: StatusCode::OK, ..Head::clone(run.head()) };
    head.headers.remove(header::CONTENT_RANGE);
    Some(Entry::new(key.text(), Arc::new(head), Arc::clone(run.body())))
}

/// The answer to `request`, as far as a run holds what it asks for. The pieces are places in the run.
#[must_use]
pub fn answer_from_part(run: &Entry, request: &RequestHead<'_>, now: Now) -> Option<Answer> {
    let part = Part::of(&run.head().headers)?;
    let mut answer = answer_of_whole(aged(run.head(), now), Extent::Complete(part.total), request);
    match &mut answer.body {
        Plan::Nothing => {}
        Plan::Whole => return None,
        Plan::Pieces(pieces) => {
            for piece in pieces {
                let Piece::Part(range) = piece else { continue };
                if range.start < part.range.start || range.end > part.range.end {
                    return None;
                }
                *range = range.start - part.range.start..range.end - part.range.start;
            }
        }
    }
    Some(answer)
}

#[cfg(test)]
mod tests;
