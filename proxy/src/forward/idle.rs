//! Connections to the peers of one upstream that nobody uses now.
//!
//! nginx's bounds (`keepalive`, `keepalive_requests`, `keepalive_time`, `keepalive_timeout`), for the upstream as a
//! whole: the connection used last is used first, and beyond `idle` the one unused for longest is closed. A connection
//! on which the peer has said something unasked for, or which it has closed, is never used: it is looked at when it
//! comes, when it is taken, and once a second in between, so that a peer that closes its end is not kept waiting.
//! Bytes that come after the look belong to the next answer by every rule of HTTP/1; that is the protocol's own gap.
//!
//! Not Pingora's pool, because that has one bound for all upstreams, counts no requests, and spawns a task for every
//! connection that comes back.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_config::plan::Keepalive;

/// Between two looks at all of them.
const LOOK: Duration = Duration::from_secs(1);

/// A connection that can be looked at.
pub trait Quiet {
    /// Whether the peer has neither closed it nor said anything.
    fn is_quiet(&mut self) -> bool;
}

/// What a connection has been through.
#[derive(Debug, Clone, Copy)]
pub struct Past {
    opened: Instant,
    requests: u64,
}

impl Past {
    /// Of a connection that has just been opened.
    #[must_use]
    pub fn none(now: Instant) -> Self {
        Self { opened: now, requests: 0 }
    }
}

/// The idle connections of one upstream.
#[derive(Debug)]
pub struct Idle<C> {
    bounds: Keepalive,
    /// The one unused for longest first.
    kept: Mutex<VecDeque<Kept<C>>>,
}

#[derive(Debug)]
struct Kept<C> {
    /// Equal keys: the same peer, reached in the same way.
    key: u64,
    connection: C,
    past: Past,
    since: Instant,
}

impl<C: Quiet> Idle<C> {
    /// Nobody yet, within these bounds.
    #[must_use]
    pub fn new(bounds: Keepalive) -> Self {
        Self { bounds, kept: Mutex::default() }
    }

    /// A connection for `key` that may be used, the one used last.
    pub fn take(&self, key: u64, now: Instant) -> Option<(C, Past)> {
        let mut kept = self.kept.lock();
        loop {
            let index = kept.iter().rposition(|kept| kept.key == key)?;
            let mut found = kept.remove(index)?;
            if self.is_good(&mut found, now) {
                return Some((found.connection, found.past));
            }
        }
    }

    /// Keeps a connection whose exchange is over, if the bounds allow it. Whether its peer is quiet is asked when it is taken.
    pub fn put(&self, key: u64, connection: C, mut past: Past, now: Instant) {
        let Keepalive { idle, requests, time, .. } = self.bounds;
        past.requests += 1;
        let is_spent = requests > 0 && past.requests >= requests || now.duration_since(past.opened) >= time;
        if idle == 0 || is_spent {
            return;
        }
        let mut kept = self.kept.lock();
        if kept.len() >= idle {
            kept.pop_front();
        }
        kept.push_back(Kept { key, connection, past, since: now });
    }

    /// Closes those that may not be used any more.
    pub fn look(&self, now: Instant) {
        self.kept.lock().retain_mut(|kept| self.is_good(kept, now));
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.kept.lock().len()
    }

    fn is_good(&self, kept: &mut Kept<C>, now: Instant) -> bool {
        now.duration_since(kept.since) < self.bounds.idle_timeout && kept.connection.is_quiet()
    }
}

/// Looks at all of them once a second, for as long as anybody else holds them.
pub async fn watch<C: Quiet>(idle: Weak<Idle<C>>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(idle) = idle.upgrade() else { return };
        idle.look(Instant::now());
    }
}

/// The connections of an upstream after a reload: those of `old` if their bounds are the same.
#[must_use]
pub fn carried_over<C: Quiet>(old: Option<&Arc<Idle<C>>>, bounds: &Keepalive) -> Option<Arc<Idle<C>>> {
    old.filter(|old| old.bounds == *bounds).map(Arc::clone)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A connection by number; its peer speaks up when it is told to.
    #[derive(Debug)]
    struct Line<'a>(u8, &'a Cell<bool>);

    impl Quiet for Line<'_> {
        fn is_quiet(&mut self) -> bool {
            self.1.get()
        }
    }

    fn bounds(words: &str) -> Keepalive {
        let yaml = format!(
            "listeners: [127.0.0.1:0]\nupstreams: {{ api: {{ servers: [127.0.0.1:1], keepalive: {words} }} }}\nroutes: [{{ to: api }}]\n"
        );
        weir_config::load("config.yaml", &yaml, &|_: &str| None).unwrap().plan.upstreams.remove(0).keepalive
    }

    fn after(seconds: u64) -> impl Fn(Instant) -> Instant {
        move |start| start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_one_used_last_is_used_first_and_the_one_unused_for_longest_goes() {
        let (idle, now, quiet) = (Idle::new(bounds("2")), Instant::now(), Cell::new(true));
        for number in 1..=3 {
            idle.put(7, Line(number, &quiet), Past::none(now), now);
        }
        assert_eq!(idle.count(), 2);
        let taken: Vec<_> = std::iter::from_fn(|| idle.take(7, now)).map(|(line, _)| line.0).collect();
        assert_eq!(taken, [3, 2]);
    }

    #[test]
    fn a_connection_is_used_only_for_its_own_key() {
        let (idle, now, quiet) = (Idle::new(bounds("8")), Instant::now(), Cell::new(true));
        idle.put(7, Line(1, &quiet), Past::none(now), now);
        assert!(idle.take(8, now).is_none());
        assert!(idle.take(7, now).is_some());
    }

    #[test]
    fn requests_age_and_idleness_end_a_connection() {
        let (start, quiet) = (Instant::now(), Cell::new(true));
        let words = "{ idle: 8, requests: 2, time: 60s, idle_timeout: 10s }";
        let idle = Idle::new(bounds(words));
        idle.put(7, Line(1, &quiet), Past::none(start), start);
        let (line, past) = idle.take(7, start).unwrap();
        idle.put(7, line, past, start);
        assert_eq!(idle.count(), 0, "two requests are all it carries");
        idle.put(7, Line(2, &quiet), Past::none(start), after(59)(start));
        assert_eq!(idle.count(), 1);
        idle.put(7, Line(3, &quiet), Past::none(start), after(60)(start));
        assert_eq!(idle.count(), 1, "it is too old to be kept");
        assert!(idle.take(7, after(69)(start)).is_none(), "it was idle for too long");
        let without = Idle::new(bounds("0"));
        without.put(7, Line(4, &quiet), Past::none(start), start);
        assert_eq!(without.count(), 0);
    }

    #[test]
    fn a_peer_that_speaks_unasked_is_not_listened_to() {
        let (idle, now) = (Idle::new(bounds("8")), Instant::now());
        let (loud, quiet) = (Cell::new(true), Cell::new(true));
        idle.put(7, Line(1, &quiet), Past::none(now), now);
        idle.put(7, Line(2, &loud), Past::none(now), now);
        loud.set(false);
        assert_eq!(idle.take(7, now).unwrap().0.0, 1, "the quiet one, although the other was used last");
        assert_eq!(idle.count(), 0);
        idle.put(7, Line(4, &quiet), Past::none(now), now);
        quiet.set(false);
        idle.look(now);
        assert_eq!(idle.count(), 0);
    }
}
