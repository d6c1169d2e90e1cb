//! How many requests a client may make: named limits, counted by key, in time or at once.
//!
//! - `steady`: a rate with a burst, of which some may have to wait in order (nginx's `limit_req`);
//! - `sliding`: never more than the rate counts in whichever span of its length;
//! - `concurrent`: requests under way at once (nginx's `limit_conn`);
//! - `leased`: one of the first two for all edges together, counted in Redis (`store`).
//!
//! A route's limits are charged in its order and all or nothing, as nginx does: when one refuses, those charged before
//! it are given back. A refused request costs its key nothing, so a client that keeps knocking is not locked out for
//! ever. What needs no answer of Redis needs no waiting either: [`Limits::charge`] goes as far as that, and says where
//! [`Limits::ask`] has to be awaited.
//!
//! Memory is allocated once, at the start, a slot for each key. A flood of addresses neither grows it nor frees those
//! who are over their limit (`table` says why). Those who wait are bounded by each key's burst, and hold nothing but themselves.

mod concurrent;
pub mod key;
mod leased;
mod sliding;
mod steady;
mod store;
mod table;
mod told;
mod zone;

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use weir_config::plan::{self, LimitHeaders, LimitId};

use self::zone::{Held, No, Outcome, Terms, Zone};
pub use self::{concurrent::Place, store::Store, told::Standing};

/// All limits of a plan, with their counts.
#[derive(Debug, Default)]
pub struct Limits(Vec<Limit>);

/// What a request is to be charged to one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// Which.
    pub limit: LimitId,
    /// Whose requests are counted together, of any length.
    pub key: String,
    /// As how many requests this one counts.
    pub cost: NonZeroU32,
}

/// A request's charges, and how far they came.
#[derive(Debug)]
pub struct Tally {
    charges: Vec<Charge>,
    /// What the first of them came to.
    verdicts: Vec<Verdict>,
    /// What they were charged to.
    held: Vec<Held>,
    standings: Vec<Standing>,
    waits_until: Option<Instant>,
}

/// What a limit said to a charge; the name is the metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It passes.
    Admitted,
    /// It passes, but not yet.
    Delayed,
    /// It does not.
    Refused,
    /// It would not have passed, if the limit were in force.
    DryRun,
    /// Nobody could say, and the plan says to refuse then.
    Unavailable,
}

impl Verdict {
    /// All of them, as labels, in the order of the variants.
    pub const WORDS: [&'static str; 5] = ["admitted", "delayed", "refused", "dry_run", "unavailable"];
}

/// Proof that a request was charged to limits of its route. Places of limits on requests at once are held until it is dropped.
#[derive(Debug, Default)]
#[must_use]
pub struct Admitted {
    places: Vec<Place>,
    standings: Vec<Standing>,
}

impl Admitted {
    /// Both of them.
    pub fn and(mut self, other: Self) -> Self {
        self.places.extend(other.places);
        self.standings.extend(other.standings);
        self
    }

    /// Where the request's key stands, in those limits that tell.
    #[must_use]
    pub fn standings(&self) -> &[Standing] {
        &self.standings
    }
}

/// How far charges came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// To the end.
    Done,
    /// To a limit for which Redis has to be asked.
    Asks,
}

/// A request that may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Over {
    /// Which limit refused.
    pub limit: LimitId,
    /// Why.
    pub cause: Cause,
}

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its key has used up what it may.
    Full {
        /// When a request of this key and cost would pass; `None` is never.
        retry_after: Option<Duration>,
        /// What the plan says then.
        status: StatusCode,
    },
    /// Redis does not answer, and the plan says to refuse then.
    Unavailable,
}

/// What a limit gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Taken {
    /// Requests that would pass right now.
    remaining: u32,
    /// When all of it is there again.
    reset: Duration,
    /// When the request may go on.
    wait: Duration,
}

impl Tally {
    /// Nothing is charged yet.
    #[must_use]
    pub fn new(charges: Vec<Charge>) -> Self {
        let (verdicts, held, standings) = (Vec::new(), Vec::new(), Vec::new());
        Self { charges, verdicts, held, standings, waits_until: None }
    }

    /// What the limits said so far, in their order.
    pub fn verdicts(&self) -> impl Iterator<Item = (LimitId, Verdict)> {
        self.charges.iter().zip(&self.verdicts).map(|(charge, verdict)| (charge.limit, *verdict))
    }

    /// When the request may go on, if not at once.
    #[must_use]
    pub fn waits_until(&self) -> Option<Instant> {
        self.waits_until
    }

    /// What it came to.
    pub fn into_admitted(self) -> Admitted {
        let places = self.held.into_iter().filter_map(|held| match held {
            Held::Place(place) => Some(place),
            Held::Counted | Held::Leased | Held::Nothing => None,
        });
        Admitted { places: places.collect(), standings: self.standings }
    }

    fn next(&self) -> Option<&Charge> {
        self.charges.get(self.verdicts.len())
    }
}

impl Limits {
    /// The limits of a plan; one that counts the same in the same place as one of `old` keeps its counts.
    ///
    /// Shape:  `store` is the plan's Redis, for those that are counted there.
    #[must_use]
    pub fn new(old: Option<&Self>, limits: &[plan::Limit], store: Option<&Store>, now: Instant) -> Self {
        let limit = |limit: &plan::Limit| {
            let terms = Terms {
                name: Arc::clone(&limit.name),
                counting: limit.counting,
                keys: limit.keys,
                shared: limit.shared.zip(store.cloned()),
                is_plain: told::is_plain(&limit.key),
            };
            let same = old.and_then(|old| old.0.iter().find(|old| old.zone.terms == terms));
            let zone = match same {
                Some(same) => Arc::clone(&same.zone),
                None => Arc::new(Zone::new(terms, now)),
            };
            Limit { zone, dry_run: limit.dry_run, status: limit.status, headers: limit.headers }
        };
        Self(limits.iter().map(limit).collect())
    }

    /// Charges a request to its limits, as far as nobody has to be asked.
    ///
    /// Errors: [`Over`] from the first limit that refuses; nothing is charged then.
    /// Source: GCRA (governor); all-or-nothing and delays as nginx `limit_req`.
    pub fn charge(&self, tally: &mut Tally, now: Instant) -> Result<Progress, Over> {
        while let Some(charge) = tally.next() {
            let limit = &self.0[charge.limit.index()];
            let Some(outcome) = limit.zone.take(charge, now) else { return Ok(Progress::Asks) };
            self.note(tally, outcome, now)?;
        }
        Ok(Progress::Done)
    }

    /// Asks Redis for the next charge, for at most its deadline.
    ///
    /// Errors: as [`Self::charge`].
    pub async fn ask(&self, tally: &mut Tally, now: Instant) -> Result<(), Over> {
        let Some(charge) = tally.next() else { return Ok(()) };
        let outcome = self.0[charge.limit.index()].zone.ask(charge, now).await;
        self.note(tally, outcome, now)
    }

    /// Takes down what a limit said to the next charge.
    fn note(&self, tally: &mut Tally, outcome: Outcome, now: Instant) -> Result<(), Over> {
        let Some(Charge { limit: id, .. }) = tally.next() else { return Ok(()) };
        let (id, limit) = (*id, &self.0[id.index()]);
        let (verdict, held, refused) = match outcome {
            Ok((taken, held)) => {
                limit.tell(&mut tally.standings, taken.remaining, taken.reset);
                if taken.wait.is_zero() || limit.dry_run {
                    (Verdict::Admitted, held, None)
                } else {
                    tally.waits_until = tally.waits_until.max(Some(now + taken.wait));
                    (Verdict::Delayed, held, None)
                }
            }
            Err(_) if limit.dry_run => (Verdict::DryRun, Held::Nothing, None),
            Err(No::Full(retry_after)) => {
                limit.tell(&mut tally.standings, 0, retry_after.unwrap_or_default());
                let cause = Cause::Full { retry_after, status: limit.status };
                (Verdict::Refused, Held::Nothing, Some(cause))
            }
            Err(No::Unavailable) => (Verdict::Unavailable, Held::Nothing, Some(Cause::Unavailable)),
        };
        tally.verdicts.push(verdict);
        tally.held.push(held);
        let Some(cause) = refused else { return Ok(()) };
        for (charge, held) in tally.charges.iter().zip(tally.held.drain(..)) {
            self.0[charge.limit.index()].zone.give_back(charge, &held);
        }
        Err(Over { limit: id, cause })
    }
}

/// One limit of a plan.
#[derive(Debug)]
struct Limit {
    zone: Arc<Zone>,
    dry_run: bool,
    status: StatusCode,
    headers: LimitHeaders,
}

impl Limit {
    fn tell(&self, standings: &mut Vec<Standing>, remaining: u32, reset: Duration) {
        if self.headers != LimitHeaders::Off {
            let Terms { name, counting, .. } = &self.zone.terms;
            standings.push(Standing::new(self.headers, name, counting, remaining, reset));
        }
    }
}

#[cfg(test)]
mod tests;
