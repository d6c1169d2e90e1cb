//! Smooth weighted round robin: each open peer is owed its weight, the one owed most is asked and pays the total.
//! Weights 5, 1, 1 give a a b a c a a, not a a a a a b c.
//!
//! Source: nginx `ngx_http_upstream_get_peer`.

use std::{ops::Range, time::Instant};

use super::{member::Member, tried::Tried};

/// The next open peer of `group`, if there is one.
pub(super) fn choose(
    members: &mut [Member],
    group: Range<usize>,
    tried: &Tried,
    now: Instant,
) -> Option<usize> {
    let mut best = None;
    let mut total = 0;
    for index in group {
        if !members[index].is_open(index, tried, now) {
            continue;
        }
        total += members[index].take_part();
        if best.is_none_or(|best: usize| members[index].is_owed_more_than(&members[best])) {
            best = Some(index);
        }
    }
    members[best?].win(total);
    best
}
