//! What of which slice is written, and in which order.

use std::ops::Range;

use bytes::Bytes;

use crate::cache::{Piece, Plan};

/// What is written next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Between parts.
    Text(Bytes),
    /// Of this slice, these bytes.
    Slice(u64, Range<u64>),
}

/// What of a piece that begins at `at` is wanted; `at` is its end then.
pub(super) fn overlap(piece: &Bytes, at: &mut u64, within: &Range<u64>) -> Bytes {
    let length = piece.len() as u64;
    let place = |wanted: u64| wanted.saturating_sub(*at).min(length) as usize;
    let (first, last) = (place(within.start), place(within.end));
    *at += length;
    piece.slice(first..last.max(first))
}

/// What is written of a whole of `total` bytes, slice for slice.
pub(super) fn steps(plan: Plan, total: u64, size: u64) -> impl Iterator<Item = Step> {
    let pieces = match plan {
        Plan::Nothing => Vec::new(),
        Plan::Whole => vec![Piece::Part(0..total)],
        Plan::Pieces(pieces) => pieces,
    };
    pieces.into_iter().flat_map(move |piece| {
        let (text, part) = match piece {
            Piece::Text(text) => (Some(Step::Text(text)), 0..0),
            Piece::Part(part) => (None, part),
        };
        let slices = (part.start / size..part.end.div_ceil(size)).map(move |index| {
            let start = index * size;
            Step::Slice(index, part.start.max(start) - start..(part.end - start).min(size))
        });
        text.into_iter().chain(slices)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_written_slice_for_slice() {
        let steps = |plan| steps(plan, 25, 10).collect::<Vec<_>>();
        let whole = vec![Step::Slice(0, 0..10), Step::Slice(1, 0..10), Step::Slice(2, 0..5)];
        assert_eq!(steps(Plan::Whole), whole);
        assert_eq!(steps(Plan::Nothing), []);
        let text = Bytes::from_static(b"--");
        let parts = [Piece::Text(text.clone()), Piece::Part(8..12), Piece::Part(20..21), Piece::Part(10..20)];
        let expected = [
            Step::Text(text),
            Step::Slice(0, 8..10),
            Step::Slice(1, 0..2),
            Step::Slice(2, 0..1),
            Step::Slice(1, 0..10),
        ];
        assert_eq!(steps(Plan::Pieces(parts.to_vec())), expected);
    }

    #[test]
    fn of_pieces_as_they_come_only_what_is_wanted_is_written() {
        let (mut at, mut written) = (0, Vec::new());
        for piece in ["01", "2345", "", "6789"] {
            written.extend_from_slice(&overlap(&Bytes::from_static(piece.as_bytes()), &mut at, &(3..7)));
        }
        assert_eq!((at, &*written), (10, &b"3456"[..]));
    }
}
