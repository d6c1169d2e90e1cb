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
    among(members, group, now, |index, member| member.is_open(index, tried, now))
}

/// The next peer of `group` of those that may take part, if there is one.
pub(super) fn among(
    members: &mut [Member],
    group: Range<usize>,
    now: Instant,
    may: impl Fn(usize, &Member) -> bool,
) -> Option<usize> {
    let (best, total) = round(members, group, now, may);
    members[best?].win(total);
    best
}

/// A session wants the peer at `index`: it is asked out of turn and pays for it, so that the others get the turns that it
/// misses; up to a round's worth, beyond which it goes on the house.
pub(super) fn stick(members: &mut [Member], group: Range<usize>, index: usize, tried: &Tried, now: Instant) {
    let others: i64 =
        members[group.clone()].iter().map(|member| member.weight).sum::<i64>() - members[index].weight;
    if members[index].owes(others) {
        return;
    }
    let (_, total) = round(members, group, now, |index, member| member.is_open(index, tried, now));
    members[index].win(total);
}

/// Everybody who may is owed its share: who is owed most, and what was handed out.
fn round(
    members: &mut [Member],
    group: Range<usize>,
    now: Instant,
    may: impl Fn(usize, &Member) -> bool,
) -> (Option<usize>, i64) {
    let mut best = None;
    let mut total = 0;
    for index in group {
        if !may(index, &members[index]) {
            continue;
        }
        total += members[index].take_part(now);
        if best.is_none_or(|best: usize| members[index].is_owed_more_than(&members[best])) {
            best = Some(index);
        }
    }
    (best, total)
}
