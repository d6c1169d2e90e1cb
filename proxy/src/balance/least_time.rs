//! Least time: the open peer that should be done first with what it has and one request more.
//!
//! The estimate is `time × (1 + active)` over the weight, where `time` is an average of the times to the head or to the
//! last byte of *successful* answers, failures being quick and worth nothing:
//!
//! - each answer of `t` ms moves the average to `0.95 × average + 0.05 × t`, rounded; the first one is the average;
//! - a peer that was not asked for `fail_timeout` counts as half as slow, after the next as a quarter, and so on, so that
//!   a slow one gets another chance;
//! - times go into steps of 20 ms, within which peers take turns; above 5 s all are equally bad, and only the number of
//!   active requests counts.
//!
//! With `inflight` a peer is at least as slow as its requests that still wait have waited, on the same kind of average,
//! moved at each choice.
//!
//! Source: nginx 1.31 `ngx_http_upstream_get_least_time_peer`, `ngx_http_upstream_least_time_eta` and
//! `ngx_http_upstream_response_time_avg`, to the millisecond.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use weir_config::plan::Until;

use super::{
    load::{Load, choose_least},
    member::Member,
    tried::Tried,
};

/// Times above it are equally bad, ms.
const WORST: i64 = 5000;
/// Within it times are equally good, ms.
const STEP: i64 = 20;

/// The open peer of `group` that should be done first, if there is one.
pub(super) fn choose(
    members: &mut [Member],
    group: Range<usize>,
    until: Until,
    tried: &Tried,
    now: Instant,
) -> Option<usize> {
    for index in group.clone() {
        if members[index].is_open(index, tried, now) {
            members[index].waiting.look(now);
        }
    }
    choose_least(members, group, tried, now, |member| load(member, until, now))
}

/// Estimated time over weight.
pub(super) fn load(member: &Member, until: Until, now: Instant) -> Load {
    let times = &member.times;
    let average = match until {
        Until::Header => times.header,
        Until::LastByte => times.last_byte,
    };
    let time = average.checked_shr(member.idle_windows(now)).unwrap_or(0);
    let time = match time.max(member.waiting.time()) {
        time if time > WORST => WORST,
        time => time + STEP - time % STEP,
    };
    Load { work: time * (1 + i64::from(member.peer.active())), weight: member.weight_now(now) }
}

/// Averages of a peer's successful answers, ms; 0 before the first.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Times {
    header: i64,
    last_byte: i64,
}

impl Times {
    /// The head of an answer came after so long.
    pub(super) fn add_header(&mut self, time: Duration) {
        self.header = average(self.header, ms(time));
    }

    /// The last byte of an answer came after so long.
    pub(super) fn add_last_byte(&mut self, time: Duration) {
        self.last_byte = average(self.last_byte, ms(time));
    }
}

/// The requests of a peer that still wait, where `inflight` counts them.
///
/// Source: nginx `ngx_http_upstream_least_time_inflight_done` and the variables `inflight_*` around it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waiting {
    requests: i64,
    /// How long they had waited in all when their number changed last, ms.
    total: i64,
    changed: Option<Instant>,
    /// The average of what choices saw, ms.
    average: i64,
}

impl Waiting {
    /// One more.
    pub(super) fn begin(&mut self, now: Instant) {
        self.total += self.since_change(now) * self.requests;
        (self.changed, self.requests) = (Some(now), self.requests + 1);
    }

    /// One less, which has waited for so long.
    pub(super) fn end(&mut self, time: Duration, now: Instant) {
        // One that an older generation picked while this one was built.
        if self.requests == 0 {
            return;
        }
        if self.requests == 1 {
            self.total = 0;
        } else {
            self.total += self.since_change(now) * self.requests - ms(time);
            self.changed = Some(now);
        }
        self.requests -= 1;
    }

    /// One less, of which nobody says how long it has waited: as long as the others.
    pub(super) fn leave(&mut self) {
        if self.requests == 0 {
            return;
        }
        self.total -= self.total / self.requests;
        self.requests -= 1;
    }

    /// A choice looks at them.
    fn look(&mut self, now: Instant) {
        if self.requests > 0 {
            let time = self.total / self.requests + self.since_change(now);
            self.average = average(self.average, time);
        }
    }

    fn time(&self) -> i64 {
        if self.requests > 0 { self.average } else { 0 }
    }

    fn since_change(&self, now: Instant) -> i64 {
        self.changed.map_or(0, |changed| ms(now.saturating_duration_since(changed)))
    }
}

fn ms(time: Duration) -> i64 {
    i64::from(u32::try_from(time.as_millis()).unwrap_or(u32::MAX))
}

fn average(average: i64, time: i64) -> i64 {
    if average == 0 {
        return time;
    }
    // In floating point and cut off, as nginx does: whole twentieths would round some values the other way.
    (0.5 + (time as f64 * 0.05 + average as f64 * 0.95)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(times: &[i64]) -> i64 {
        times.iter().fold(0, |before, &ms| average(before, ms))
    }

    #[test]
    fn the_first_time_is_the_average_and_each_later_one_moves_it_by_a_twentieth() {
        assert_eq!(after(&[100]), 100);
        assert_eq!(after(&[100, 200]), 105);
        assert_eq!(after(&[100, 0]), 95);
        assert_eq!(after(&[0, 300]), 300);
    }

    #[test]
    fn an_average_is_rounded_as_in_nginx() {
        // 0.5 + 0.05 × 110 + 0.95 × 100 = 101.0 and 0.5 + 0.05 × 109 + 0.95 × 100 = 100.95.
        assert_eq!(after(&[100, 110]), 101);
        assert_eq!(after(&[100, 109]), 100);
    }
}
