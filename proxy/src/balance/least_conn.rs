//! Least connections: the open peer with the fewest active requests for its weight.
//!
//! Source: nginx `ngx_http_upstream_get_least_conn_peer`.

use std::{ops::Range, time::Instant};

use super::{
    load::{Load, choose_least},
    member::Member,
    tried::Tried,
};

/// The least loaded open peer of `group`, if there is one.
pub(super) fn choose(
    members: &mut [Member],
    group: Range<usize>,
    tried: &Tried,
    now: Instant,
) -> Option<usize> {
    choose_least(members, group, tried, now, |member| load(member, now))
}

/// Active requests over weight.
pub(super) fn load(member: &Member, now: Instant) -> Load {
    Load { work: i64::from(member.peer.active()), weight: member.weight_now(now) }
}
