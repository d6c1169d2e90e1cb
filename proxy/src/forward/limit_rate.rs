//! How fast one answer may go to its client: nginx `limit_rate` and `limit_rate_after`.
//!
//! Pure: told what was sent and since when, it says how much may follow now, or how long to wait.

use std::time::Duration;

/// The pace of one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes of body a second, at least 1.
    pub per_second: u64,
    /// Bytes that go before at any speed.
    pub after: u64,
}

/// What may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send at most so many bytes, at least one.
    Send(usize),
    /// Ask again when this has passed.
    Wait(Duration),
}

impl Pace {
    /// How many of `ready` bytes may follow the `sent` ones, this long after the answer's head.
    ///
    /// Shape:  the first second's share goes at once, as in nginx; then pieces of an eighth of a second, so that a slow pace
    ///         does not become a packet for each byte.
    /// Source: nginx `ngx_http_write_filter`, which counts whole seconds; ours are milliseconds.
    #[must_use]
    pub fn next(&self, ready: usize, sent: u64, since: Duration) -> Next {
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_add(1000);
        let by_now = self.after.saturating_add(self.per_second.saturating_mul(ms) / 1000);
        let allowed = by_now.saturating_sub(sent);
        let wanted = (ready as u64).min(self.per_second / 8).max(1);
        if allowed >= wanted {
            return Next::Send(usize::try_from(allowed).unwrap_or(usize::MAX).min(ready));
        }
        let missing = sent.saturating_add(wanted) - by_now;
        Next::Wait(Duration::from_millis(missing.saturating_mul(1000).div_ceil(self.per_second)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `length` bytes under `pace` in a time that only waiting moves; says how long that took.
    fn took(pace: Pace, length: u64) -> Duration {
        let (mut sent, mut now) = (0, Duration::ZERO);
        while sent < length {
            let ready = usize::try_from(length - sent).unwrap().min(64 * 1024);
            match pace.next(ready, sent, now) {
                Next::Send(bytes) => {
                    assert!((1..=ready).contains(&bytes));
                    sent += bytes as u64;
                }
                Next::Wait(span) => {
                    assert!(!span.is_zero(), "a wait of nothing would spin");
                    now += span;
                }
            }
        }
        now
    }

    #[test]
    fn the_first_second_s_share_goes_at_once_and_the_rest_in_its_time() {
        let pace = Pace { per_second: 1000, after: 0 };
        assert_eq!(took(pace, 1000), Duration::ZERO);
        assert_eq!(took(pace, 5000), Duration::from_secs(4));
        assert_eq!(took(Pace { per_second: 1, after: 0 }, 3), Duration::from_secs(2));
    }

    #[test]
    fn what_comes_before_is_not_held_back() {
        let pace = Pace { per_second: 1000, after: 1 << 20 };
        assert_eq!(took(pace, 1 << 20), Duration::ZERO);
        assert_eq!(took(pace, (1 << 20) + 2000), Duration::from_secs(1));
    }
}
