//! Random, and the better of two: peers drawn by lot, by weight.
//!
//! Source: nginx `ngx_http_upstream_get_random_peer` and `ngx_http_upstream_get_random2_peer`. A lot that falls on a
//! closed peer is drawn again; after twenty of those the request goes by round robin. As two, the second one is taken
//! unless its load is greater. `random two least_time` is NGINX Plus's; it compares as our least_time does.
//!
//! Lots are a sequence from the request's seed (SplitMix64, Steele et al. 2014), so that a pick is the same for the same
//! arguments.

use std::{cmp::Ordering, ops::Range, time::Instant};

use weir_config::plan::Least;

use super::{
    hash::MISSTEPS,
    least_conn, least_time,
    member::{Member, owner},
    round_robin,
    tried::Tried,
};

/// An open peer of `group` by lot, if there is one.
pub(super) fn choose(
    members: &mut [Member],
    group: Range<usize>,
    seed: u64,
    tried: &mut Tried,
    now: Instant,
) -> Option<usize> {
    match draw_open(members, group.clone(), seed, None, tried, now) {
        Some(index) => Some(index),
        None => round_robin::choose(members, group, tried, now),
    }
}

/// The better of two open peers of `group`, if there is one.
pub(super) fn choose_of_two(
    members: &mut [Member],
    group: Range<usize>,
    least: Least,
    seed: u64,
    tried: &mut Tried,
    now: Instant,
) -> Option<usize> {
    let first = draw_open(members, group.clone(), seed, None, tried, now);
    let second = first.and_then(|first| draw_open(members, group.clone(), seed, Some(first), tried, now));
    let (Some(first), Some(second)) = (first, second) else {
        return round_robin::choose(members, group, tried, now);
    };
    let load = |index: usize| match least {
        Least::Conn => least_conn::load(&members[index], now),
        Least::Time(until) => least_time::load(&members[index], until, now),
    };
    Some(if load(second).cmp(load(first)) == Ordering::Greater { first } else { second })
}

/// Draws until the lot falls on an open peer other than `but`; `None` when it took too many.
fn draw_open(
    members: &[Member],
    group: Range<usize>,
    seed: u64,
    but: Option<usize>,
    tried: &mut Tried,
    now: Instant,
) -> Option<usize> {
    let total: i64 = members[group.clone()].iter().map(|member| member.weight).sum();
    while group.len() > 1 && tried.missteps <= MISSTEPS {
        let lot = i64::from(lot(seed, tried.steps)) % total;
        tried.steps = tried.steps.wrapping_add(1);
        let index = group.start + owner(&members[group.clone()], lot);
        if but != Some(index) && members[index].is_open(index, tried, now) {
            return Some(index);
        }
        tried.missteps += 1;
    }
    None
}

/// The lot number `n` of a seed.
pub(super) fn lot(seed: u64, n: u32) -> u32 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = seed.wrapping_add(GOLDEN.wrapping_mul(u64::from(n) + 1));
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ z >> 31) >> 33) as u32
}
