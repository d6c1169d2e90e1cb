//! A limit of the fleet, counted in Redis, from which each edge takes several requests at a time.
//!
//! What was taken is a *lease*: so many requests of a key that this edge may let pass without asking anybody. When half of it is
//! used, the next is fetched beside the requests, so that a busy key waits once, for its first. A lease begins with one
//! request, doubles when it is used up and ends when it was not used for [`IDLE`]: a client that comes now and then costs the
//! fleet what it uses, a busy one a round trip for each `lease` requests. A lease of 1 asks Redis for each request.
//!
//! What is promised. Nothing passes that Redis did not count before, and an edge holds at most one `lease` of a key. So of all
//! that passes in a span, all but one lease for each edge was counted in that span: with `n` edges, no span of length `t`
//! sees more than `burst + rate · t + n · lease` requests (`count + n · lease` of a sliding limit of that span). Once the
//! leases are out and nobody has been idle, it is the limit itself. What ends unused is lost: up to a `lease` for each edge.
//!
//! When Redis says no, it says until when, and that is remembered: an abuser costs one look-up in a table.

use std::{num::NonZeroU32, sync::LazyLock, time::Duration};

use redis::Script;
use weir_config::plan::Counting;

use super::{
    Taken, sliding,
    store::{Store, Unavailable},
    table::{State, Table},
};

/// As a burst of a page's requests lasts; what a client leaves behind is soon forgotten.
const IDLE: Duration = Duration::from_secs(2);

/// GCRA as in `steady`, with as many as there is room for, at least `least`. Times in microseconds of Redis' own clock.
static STEADY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("steady.lua")));
/// The counters of `sliding`, in a hash of part and count.
static SLIDING: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("sliding.lua")));

/// What an edge knows of a key of the fleet.
#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    /// Requests that may pass without asking.
    left: u32,
    /// How many were asked for last.
    size: u32,
    /// What the fleet had left then.
    rest: u32,
    /// Whether somebody is asking for more than one request.
    is_growing: bool,
    /// Nanoseconds since the limit's start.
    ends: u64,
    /// When the fleet has all of it again.
    rested: u64,
    /// Until when Redis said no …
    refused_until: u64,
    /// … to who wanted so many.
    refused: u32,
}

impl State for Lease {
    fn weight(&self, now: u64) -> u64 {
        // What is refused is worth most: to forget it costs a round trip for each request of an abuser.
        let refused = self.refused_until.saturating_sub(now).saturating_mul(2);
        refused.max(u64::from(self.ends > now) * u64::from(self.left + 1))
    }
}

/// What a lease says to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Leased {
    /// It passes.
    Took(Taken),
    /// Redis said no, and has not had time to think otherwise.
    Refused(Duration),
    /// Redis has to be asked.
    Asks,
}

/// A limit of the fleet.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    script: &'static Script,
    /// What the script is told of the limit.
    terms: [u64; 2],
    most: u32,
    lease: u32,
    store: Store,
    table: Table<Lease>,
}

impl Fleet {
    /// None of what is counted on each edge.
    pub(super) fn new(counting: &Counting, lease: NonZeroU32, keys: usize, store: Store) -> Option<Self> {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX).max(1);
        let (script, terms) = match counting {
            Counting::Steady { rate, burst, .. } => {
                // In nanoseconds: of 7/s it is no whole number of microseconds.
                let interval = (rate.per / rate.count.get()).as_nanos();
                (&*STEADY, [u64::try_from(interval).unwrap_or(u64::MAX).max(1), burst.get().into()])
            }
            Counting::Sliding { rate } => {
                (&*SLIDING, [micros(rate.per / sliding::PARTS), rate.count.get().into()])
            }
            Counting::Concurrent { .. } => return None,
        };
        let (most, lease, table) = (counting.most().get(), lease.get(), Table::new(keys));
        Some(Self { script, terms, most, lease, store, table })
    }

    /// Takes from the lease. `name` is the key in Redis, made when more has to be fetched.
    pub(super) fn take(
        &self,
        key: u64,
        cost: NonZeroU32,
        now: Duration,
        name: impl FnOnce() -> String,
    ) -> Leased {
        let (now, cost) = (nanos(now), cost.get());
        let mut fetches = false;
        let took = self.table.change(key, now, |lease| {
            if lease.ends <= now {
                (lease.left, lease.size) = (0, 0);
            }
            if lease.left < cost {
                let refused = lease.refused_until.saturating_sub(now);
                return Err((refused > 0 && cost >= lease.refused).then(|| Duration::from_nanos(refused)));
            }
            lease.left -= cost;
            lease.ends = now + nanos(IDLE);
            fetches = lease.left < lease.size / 2 && !lease.is_growing && lease.refused_until <= now;
            lease.is_growing |= fetches;
            Ok(lease.taken(now))
        });
        match took {
            Ok(taken) => {
                if fetches {
                    self.fetch(key, name(), now);
                }
                Leased::Took(taken)
            }
            Err(Some(wait)) => Leased::Refused(wait),
            Err(None) => Leased::Asks,
        }
    }

    /// Asks Redis, and lets the request pass if it says so.
    pub(super) async fn ask(
        &self,
        key: u64,
        name: &str,
        cost: NonZeroU32,
        now: Duration,
    ) -> Result<Result<Taken, Option<Duration>>, Unavailable> {
        if cost.get() > self.most {
            return Ok(Err(None));
        }
        let now = nanos(now);
        let mut grows = false;
        let want = self.table.change(key, now, |lease| {
            // Only one of those who ask at a time asks for more than it needs, so that an edge holds no more than one lease.
            grows = !lease.is_growing;
            lease.is_growing = true;
            Ok::<_, Unavailable>(if grows { lease.grow(self.lease) } else { 0 })
        })?;
        let asking = Asking { fleet: self, key, grows };
        let granted = asking.run(name, cost.get(), want).await?;
        drop(asking);
        self.table.change(key, now, |lease| Ok(lease.grant(&granted, cost.get(), self.lease, now)))
    }

    /// Fetches the next lease beside the requests.
    fn fetch(&self, key: u64, name: String, now: u64) {
        let fleet = self.clone();
        tokio::spawn(async move {
            let asking = Asking { fleet: &fleet, key, grows: true };
            let mut want = 0;
            fleet.table.change_known(key, |lease| want = lease.grow(fleet.lease).saturating_sub(lease.left));
            if want == 0 {
                return;
            }
            let granted = asking.run(&name, 1, want).await;
            drop(asking);
            if let Ok(granted) = granted {
                fleet.table.change_known(key, |lease| _ = lease.grant(&granted, 0, fleet.lease, now));
            }
        });
    }

    pub(super) fn give_back(&self, key: u64, cost: NonZeroU32) {
        self.table.change_known(key, |lease| lease.left = (lease.left + cost.get()).min(self.lease));
    }
}

/// What Redis said.
struct Granted {
    /// So many may pass.
    count: u32,
    /// So many are left for the fleet.
    rest: u32,
    /// When there is one more, where none was granted.
    wait: Duration,
    /// When the fleet has all of it again.
    reset: Duration,
}

impl Lease {
    fn taken(&self, now: u64) -> Taken {
        Taken {
            remaining: self.left.saturating_add(self.rest),
            reset: Duration::from_nanos(self.rested.saturating_sub(now)),
            wait: Duration::ZERO,
        }
    }

    /// How many to ask for next.
    fn grow(&mut self, most: u32) -> u32 {
        self.size = self.size.saturating_mul(2).clamp(1, most);
        self.size
    }

    /// Takes what was granted; `cost` of it pass at once.
    fn grant(
        &mut self,
        granted: &Granted,
        cost: u32,
        most: u32,
        now: u64,
    ) -> Result<Taken, Option<Duration>> {
        (self.rest, self.rested) = (granted.rest, now + nanos(granted.reset));
        if granted.count < cost.max(1) {
            (self.refused_until, self.refused) = (now + nanos(granted.wait), cost.max(1));
            return Err(Some(granted.wait));
        }
        // Whoever asked beside us may have filled it up: what is beyond a lease is lost rather than held.
        self.left = self.left.saturating_add(granted.count - cost).min(most);
        self.ends = now + nanos(IDLE);
        Ok(self.taken(now))
    }
}

/// A question under way; whoever asked may leave in the middle of it.
struct Asking<'a> {
    fleet: &'a Fleet,
    key: u64,
    grows: bool,
}

impl Asking<'_> {
    async fn run(&self, name: &str, least: u32, want: u32) -> Result<Granted, Unavailable> {
        let [step, most] = self.fleet.terms;
        let arguments = [step, most, least.into(), want.max(least).into()];
        let [count, rest, wait, reset] = self.fleet.store.run(self.fleet.script, name, &arguments).await?;
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let micros = Duration::from_micros;
        Ok(Granted { count: number(count), rest: number(rest), wait: micros(wait), reset: micros(reset) })
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.grows {
            self.fleet.table.change_known(self.key, |lease| lease.is_growing = false);
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

/// Of one key.
#[cfg(test)]
pub(super) const fn slot_bytes() -> usize {
    super::table::slot_bytes::<Lease>()
}

#[cfg(test)]
mod tests;
