//! Balance: which peer of an upstream a request goes to, and what its outcome says about that peer.
//!
//! On the path it stands between the cache, which had no answer, and forward, which asks the peer picked here.
//! It leaves to others: when a failed attempt is repeated (forward), and what the client hears (refusal).
//!
//! A [`Pool`] is one upstream. [`Pool::pick`] gives a [`Picked`], which counts the request until it is dropped and
//! takes the outcome once. Methods, weights, failures, backups and bounds mean what they mean in nginx, whose source
//! each file names; one thing is added on purpose: when *every* peer that could be asked is out by failures, they are
//! all pardoned, and the next request tries again. nginx did so until 1.11.5 and dropped it because it disturbed
//! `max_conns`; here a peer that is merely full prevents the pardon. Without it an upstream that was down for a
//! moment would stay dark for a whole `fail_timeout` after it came back.
//!
//! One lock a pool, held for a walk over its peers, so that turns and `max_conns` are exact. Measured with ten peers that
//! are not compared: a pick, its outcome and its release take 41 to 88 ns by round robin, least_conn or ip_hash, and 0.12
//! to 0.25 µs with two threads that do nothing else.
//!
//! - [`peer`]: an address with its parameters, and what outlives a reload.
//! - `passive`: what outcomes of requests say.
//! - `compare`: what they say when peers are compared; `outlier` is the judgement.
//! - [`probe`]: what active checks say.
//! - `gate`: what stands before the pool: `breaker`, `concurrency` and `queue`.
//! - `round_robin`, `least_conn`, `least_time`, `ip_hash`, `hash`, `ring`, `random`: the methods.
//! - [`Asker`]: what of a request they depend on.
//! - `generations`: how the next pool takes over when peers come and go.
//! - `slow_start`: how a share grows when its peer is back.
//! - [`sticky`]: what brings the requests of a session to its peer.
//! - [`resolve`]: the plan's servers → endpoints; [`names`]: what the name servers say.
//! - [`Picked`]: a request at the peer that was picked for it.

mod asker;
mod breaker;
mod compare;
mod concurrency;
mod gate;
mod generations;
mod hash;
mod ip_hash;
mod least_conn;
mod least_time;
mod load;
mod member;
pub mod names;
mod outlier;
mod passive;
pub mod peer;
mod picked;
pub mod probe;
mod queue;
mod random;
pub mod resolve;
mod ring;
mod round_robin;
mod slow_start;
pub mod sticky;
mod tried;

#[cfg(test)]
mod choosing_tests;
#[cfg(test)]
mod model;

use std::{
    ops::Range,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use weir_config::plan::{Balance, Spread, Until, WhenAllDown};

pub use self::{
    asker::Asker,
    breaker::Outcome,
    gate::{Admitted, GateSight},
    peer::{Endpoint, Peer},
    picked::Picked,
    tried::Tried,
};
use self::{
    gate::Gate,
    member::Member,
    outlier::{Rules, Season},
    ring::Ring,
};

/// One upstream: its peers and whose turn it is.
#[derive(Debug)]
pub struct Pool {
    name: Arc<str>,
    balance: Balance,
    when_all_down: WhenAllDown,
    /// With `hash … consistent`.
    ring: Option<Ring>,
    /// Whether shares grow back slowly.
    slow_start: bool,
    /// Primaries first, then backups.
    members: Mutex<Box<[Member]>>,
    primaries: usize,
    /// When peers that do worse than others rest; taken after `members`.
    outlier: Option<(Rules, Mutex<Season>)>,
    gate: Gate,
    /// Whether another generation took its place, which is found in `newest`.
    retired: AtomicBool,
    /// The generation in force, shared by all of them: no chain, however long a request keeps an old one.
    newest: Arc<Mutex<Weak<Self>>>,
}

/// Why no peer could be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoPeer {
    /// An open peer has all the requests its `max_conns` admits; the upstream's fault, try again at once.
    #[error("every peer that could be asked is full")]
    Full,
    /// Failures took out every peer that was left.
    #[error("every peer that could be asked is out after failures")]
    Out,
    /// This request has tried every peer that is up.
    #[error("every peer has been tried")]
    Tried,
    /// The plan or the active checks take every peer out.
    #[error("every peer is down")]
    Down,
    /// The circuit breaker leaves the upstream alone for so long.
    #[error("the circuit breaker is open")]
    Open(Duration),
}

impl NoPeer {
    /// The log word and metric label.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "peers_full",
            Self::Out => "peers_out",
            Self::Tried => "peers_tried",
            Self::Down => "peers_down",
            Self::Open(_) => "circuit_open",
        }
    }
}

/// What operators see of a peer.
#[derive(Debug, Clone)]
pub struct Sight {
    /// The peer.
    pub peer: Arc<Peer>,
    /// Failures that count at the moment.
    pub fails: u32,
    /// Whether failures keep it from being asked.
    pub out: bool,
}

impl Sight {
    /// Whether new requests go to it.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        let endpoint = self.peer.endpoint();
        !self.out && self.peer.is_healthy() && !endpoint.down && !endpoint.drain
    }
}

impl Pool {
    /// Picks the peer for the next attempt of `asker`'s request, and notes it in `tried`.
    ///
    /// Shape:  primaries by the upstream's method, that of the request's session first; backups, by the same method,
    ///         when no primary is open; anybody with `fail_open`, when nobody is.
    /// Errors: [`NoPeer`] with the reason; [`NoPeer::Out`] has pardoned the peers if all of the upstream's were out.
    /// Source: nginx `ngx_http_upstream_get_round_robin_peer` and its siblings.
    pub fn pick(self: &Arc<Self>, asker: &Asker, tried: &mut Tried, now: Instant) -> Result<Picked, NoPeer> {
        let mut members = self.members.lock();
        if self.gate.is_full(|| under_way(&members)) {
            return Err(NoPeer::Full);
        }
        if self.slow_start {
            members.iter_mut().for_each(|member| member.notice_health(now));
        }
        self.compare(&mut members, tried, now);
        let chosen = if self.is_single(&members) {
            // Failures do not count where there is nobody else to ask (nginx `peers->single`).
            let member = &members[0];
            let is_its = asker.route.as_ref() == Some(&member.peer.endpoint().route);
            let is_up = member.is_up() || is_its && member.is_up_for_its_session();
            (is_up && !member.is_full() && !tried.contains(0)).then_some(0)
        } else {
            let backups = self.primaries..members.len();
            let primary = if tried.on_backups {
                None
            } else {
                self.choose(&mut members, 0..self.primaries, asker, tried, now)
            };
            primary.or_else(|| self.choose(&mut members, backups, asker, tried, now))
        };
        let Some(index) = chosen.or_else(|| self.choose_anyone(&mut members, tried, now)) else {
            return Err(self.refuse(&mut members, tried, now));
        };
        let member = &mut members[index];
        member.standing.picked(member.peer.endpoint(), now);
        member.peer.begin();
        tried.insert(index);
        tried.on_backups = index >= self.primaries;
        let peer = Arc::clone(&member.peer);
        let inflight = matches!(self.balance, Balance::LeastTime { inflight: true, .. });
        let begin = |member: &mut Member| {
            if inflight {
                member.waiting.begin(now);
            }
            member.vigil.sent(now)
        };
        // Whoever hears of the outcome hears of the request, too.
        let awaited = if self.retired.load(Ordering::Acquire) {
            drop(members);
            self.newest(&peer, index).map(|(pool, index)| begin(&mut pool.members.lock()[index]))
        } else {
            Some(begin(member))
        };
        Ok(Picked::new(Arc::clone(self), peer, index, now, inflight, awaited))
    }

    /// As the plan calls it.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its peers as they are now, primaries first.
    #[must_use]
    pub fn sight(&self, now: Instant) -> Vec<Sight> {
        let members = self.members.lock();
        let single = self.is_single(&members);
        let sight = |member: &Member| Sight {
            peer: Arc::clone(&member.peer),
            fails: member.standing.fails(),
            out: !single && member.is_out(now),
        };
        members.iter().map(sight).collect()
    }

    fn choose(
        &self,
        members: &mut [Member],
        group: Range<usize>,
        asker: &Asker,
        tried: &mut Tried,
        now: Instant,
    ) -> Option<usize> {
        if let Some(index) = its_session(members, group.clone(), asker, tried, now) {
            if self.balance == Balance::RoundRobin {
                round_robin::stick(members, group, index, tried, now);
            }
            return Some(index);
        }
        // Hashes and lots belong to the primaries: nginx knows no backups beside them.
        let is_primary = group.start == 0;
        match &self.balance {
            Balance::LeastConn => least_conn::choose(members, group, tried, now),
            Balance::LeastTime { until, .. } => least_time::choose(members, group, *until, tried, now),
            Balance::IpHash if is_primary => ip_hash::choose(members, group, asker.client, tried, now),
            Balance::Hash { spread, .. } if is_primary => match (spread, &self.ring) {
                (Spread::Ring { bound }, Some(ring)) => {
                    ring.choose(members, group, &asker.key, *bound, tried, now)
                }
                _ => hash::choose(members, group, &asker.key, tried, now),
            },
            Balance::Random if is_primary => random::choose(members, group, asker.seed, tried, now),
            Balance::RandomTwo(least) if is_primary => {
                random::choose_of_two(members, group, *least, asker.seed, tried, now)
            }
            _ => round_robin::choose(members, group, tried, now),
        }
    }

    /// `fail_open`: checks and failures say that nobody is left, and nobody believes them.
    fn choose_anyone(&self, members: &mut [Member], tried: &Tried, now: Instant) -> Option<usize> {
        let single = self.is_single(members);
        let believed = self.when_all_down == WhenAllDown::Pardon
            || members.iter().any(|member| member.is_up() && (single || !member.is_out(now)));
        if believed {
            return None;
        }
        let may = |index: usize, member: &Member| {
            !tried.contains(index) && !member.is_resting() && !member.is_full()
        };
        let backups = self.primaries..members.len();
        [0..self.primaries, backups]
            .into_iter()
            .find_map(|group| round_robin::among(members, group, now, may))
    }

    /// Nobody is open: says why, and pardons when failures alone keep the whole upstream dark.
    fn refuse(&self, members: &mut [Member], tried: &Tried, now: Instant) -> NoPeer {
        let single = self.is_single(members);
        let is_out = |member: &Member| !single && member.is_out(now);
        let up = || members.iter().enumerate().filter(|(_, member)| member.is_up());
        if up().next().is_none() {
            return NoPeer::Down;
        }
        if up().any(|(index, member)| !tried.contains(index) && !is_out(member)) {
            return NoPeer::Full;
        }
        if up().all(|(index, _)| tried.contains(index)) {
            return NoPeer::Tried;
        }
        if self.when_all_down == WhenAllDown::Pardon && up().all(|(_, member)| is_out(member)) {
            for member in members.iter_mut() {
                member.standing.pardon();
                member.vigil.pardon();
            }
        }
        NoPeer::Out
    }

    fn is_single(&self, members: &[Member]) -> bool {
        self.primaries == 1 && members.len() == 1
    }

    fn failed(&self, index: usize, now: Instant) {
        let mut members = self.members.lock();
        if self.is_single(&members) {
            return;
        }
        let member = &mut members[index];
        let is_news = member.failed(now) && !std::mem::replace(&mut member.told_out, true);
        let (peer, fails) = (Arc::clone(&member.peer), member.standing.fails());
        drop(members);
        if is_news {
            let endpoint = peer.endpoint();
            tracing::warn!(
                upstream = %self.name,
                peer = %endpoint.name,
                address = %endpoint.address,
                fails,
                seconds = endpoint.fail_timeout.as_secs_f64(),
                "peer is out after failed requests"
            );
        }
    }

    /// Whether requests wait for the head of their answer, whose time is noted then.
    fn waits_for_heads(&self) -> bool {
        matches!(self.balance, Balance::LeastTime { until: Until::Header, inflight: true })
    }
}

/// The peer of `group` that has this request's session, if the session may go to it.
///
/// Source: nginx `ngx_http_upstream_get_rr_peer_by_sid`.
fn its_session(
    members: &[Member],
    group: Range<usize>,
    asker: &Asker,
    tried: &Tried,
    now: Instant,
) -> Option<usize> {
    let route = asker.route.as_ref()?;
    let index =
        group.start + members[group].iter().position(|member| member.peer.endpoint().route == *route)?;
    members[index].is_open_to_its_session(index, tried, now).then_some(index)
}

/// Requests under way at all of them.
fn under_way(members: &[Member]) -> u32 {
    members.iter().map(|member| member.peer.active()).sum()
}

#[cfg(test)]
mod tests;
