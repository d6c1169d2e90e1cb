//! What a peer has to do, over its weight: what least_conn, least_time and the better of two compare.

use std::{cmp::Ordering, ops::Range, time::Instant};

use super::{member::Member, round_robin, tried::Tried};

/// Work over weight, compared crosswise (`work * weight`), so that nothing is divided.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    pub(super) work: i64,
    pub(super) weight: i64,
}

impl Load {
    pub(super) fn cmp(self, other: Self) -> Ordering {
        let times = |work: i64, weight: i64| i128::from(work) * i128::from(weight);
        times(self.work, other.weight).cmp(&times(other.work, self.weight))
    }
}

/// The open peer of `group` with the least load; smooth weighted round robin among those that tie.
///
/// Source: nginx `ngx_http_upstream_get_least_conn_peer` and `ngx_http_upstream_get_least_time_peer`, which are the same
/// walk.
pub(super) fn choose_least(
    members: &mut [Member],
    group: Range<usize>,
    tried: &Tried,
    now: Instant,
    load: impl Fn(&Member) -> Load,
) -> Option<usize> {
    let mut best: Option<(usize, Load)> = None;
    let mut tie = false;
    for index in group.clone() {
        if !members[index].is_open(index, tried, now) {
            continue;
        }
        let load = load(&members[index]);
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
    // Loads fall while we look, because answers end without the lock: a peer may tie no more, which is fine,
    // but the first one must stay in the round that it may win.
    round_robin::among(members, first..group.end, now, |index, member| {
        (index == first || load(member).cmp(least) == Ordering::Equal) && member.is_open(index, tried, now)
    })
}
