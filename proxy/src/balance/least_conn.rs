//! Least connections: the open peer with the fewest active requests for its weight; smooth weighted round robin
//! among those that tie.
//!
//! Source: nginx `ngx_http_upstream_get_least_conn_peer`. Loads are compared crosswise (`conns * weight`), so that
//! nothing is divided.

use std::{cmp::Ordering, ops::Range, time::Instant};

use super::{member::Member, tried::Tried};

/// The least loaded open peer of `group`, if there is one.
pub(super) fn choose(
    members: &mut [Member],
    group: Range<usize>,
    tried: &Tried,
    now: Instant,
) -> Option<usize> {
    let mut best: Option<(usize, Load)> = None;
    let mut tie = false;
    for index in group.clone() {
        if !members[index].is_open(index, tried, now) {
            continue;
        }
        let load = Load::of(&members[index]);
        match best.map_or(Ordering::Less, |(_, least)| load.cmp(least)) {
            Ordering::Less => (best, tie) = (Some((index, load)), false),
            Ordering::Equal => tie = true,
            Ordering::Greater => {}
        }
    }
    let (first, least) = best?;
    if !tie {
        return Some(first);
    }
    let mut best = first;
    let mut total = 0;
    for index in first..group.end {
        // Loads fall while we look, because answers end without the lock: a peer may tie no more, which is fine,
        // but the first one must stay in the round that it may win.
        let ties = index == first || Load::of(&members[index]).cmp(least) == Ordering::Equal;
        if !ties || !members[index].is_open(index, tried, now) {
            continue;
        }
        total += members[index].take_part();
        if members[index].is_owed_more_than(&members[best]) {
            best = index;
        }
    }
    members[best].win(total);
    Some(best)
}

/// Active requests over weight.
#[derive(Clone, Copy)]
struct Load {
    active: i64,
    weight: i64,
}

impl Load {
    fn of(member: &Member) -> Self {
        Self { active: i64::from(member.peer.active()), weight: member.weight }
    }

    fn cmp(self, other: Self) -> Ordering {
        (self.active * other.weight).cmp(&(other.active * self.weight))
    }
}
