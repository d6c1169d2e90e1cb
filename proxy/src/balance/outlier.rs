//! Outliers: a peer that does worse than its neighbours rests for a while.
//!
//! `passive` counts failures as nginx does and sees no difference between peers. Here they are compared:
//!
//! - *Silence.* [`SEVERAL`] requests were sent since the peer's last sign of life, and the first of them has waited for
//!   longer than is usual. At a few times what is usual the peer is *suspect*: it is not picked while another is open.
//!   At ten times, and `silence` at least, it is ejected, and the requests that wait there and may be repeated go
//!   elsewhere. So a peer that accepts and says nothing costs a handful of requests a second, and nobody `first_byte`.
//! - *Errors* and *latency*, at the end of each window, against the median peer.
//!
//! States: *standing* → *ejected* for `ejection` times the number of ejections → *probed*, by one request at a time → an
//! answer: standing; silence, for which one request is enough now: ejected. A window without ejection takes one back.
//!
//! Cold start: nobody is judged before [`ENOUGH`] answers of the upstream say what is usual. Silence ejects any number of
//! peers but never the last that gives signs of life; errors and latency at most `max_ejected`. When all are out, `Pool`
//! pardons them. A request with a body waits only once that was sent: who says how long an upload takes.
//!
//! Source: Envoy's outlier detection for windows, growth and cap; RFC 6298 §2 for what is usual.

use std::time::{Duration, Instant};

use weir_config::{plan, units::Share};

use super::Member;

/// Requests without a sign of life that make a silence: one may be slow, and two that are slow together.
const SEVERAL: u32 = 5;

/// Answers that say what is usual.
const ENOUGH: u32 = 10;

/// A peer is suspect no sooner than this: shorter pauses are a scheduler's.
const SUSPICION: Duration = Duration::from_millis(25);

/// Slower than the median by less than this is not worth an ejection.
const NOTICEABLE: Duration = Duration::from_millis(100);

/// The plan's words, apart from the plan: those can be written only by reading a file.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) window: Duration,
    pub(super) requests: u32,
    pub(super) errors: Share,
    pub(super) latency: u32,
    pub(super) silence: Duration,
    pub(super) ejection: Duration,
    pub(super) max_ejection: Duration,
    pub(super) max_ejected: Share,
}

impl From<&plan::Outlier> for Rules {
    fn from(plan: &plan::Outlier) -> Self {
        Self {
            window: plan.window,
            requests: plan.requests,
            errors: plan.errors,
            latency: plan.latency,
            silence: plan.silence,
            ejection: plan.ejection,
            max_ejection: plan.max_ejection,
            max_ejected: plan.max_ejected,
        }
    }
}

/// What is known of the whole upstream.
#[derive(Debug, Clone, Default)]
pub(super) struct Season {
    /// When the window began; `None` before the first request.
    began: Option<Instant>,
    usual: Usual,
}

/// How long an answer usually takes: mean and mean deviation, as a TCP sender knows its round trip.
#[derive(Debug, Clone, Default)]
struct Usual {
    answers: u32,
    mean: Duration,
    deviation: Duration,
}

impl Usual {
    /// RFC 6298 §2.3, with its gains of 1/8 and 1/4.
    fn note(&mut self, took: Duration) {
        if self.answers == 0 {
            (self.mean, self.deviation) = (took, took / 2);
        } else {
            self.deviation = self.deviation * 3 / 4 + took.abs_diff(self.mean) / 4;
            self.mean = self.mean * 7 / 8 + took / 8;
        }
        self.answers = self.answers.saturating_add(1);
    }

    /// What few answers take longer than; `None` before there were enough.
    fn most(&self) -> Option<Duration> {
        (self.answers >= ENOUGH).then(|| self.mean + self.deviation * 4)
    }
}

/// What is known of one peer.
#[derive(Debug, Clone, Default)]
pub(super) struct Vigil {
    /// Requests sent since the last sign of life …
    waiting: u32,
    /// … and when the first of them was.
    since: Option<Instant>,
    /// Signs of life so far: a request that saw fewer when it was sent is not among those that wait.
    signs: u64,
    window: Window,
    /// Ejections that are not yet forgiven.
    times: u32,
    /// Until when it rests; later, one request at a time.
    until: Option<Instant>,
}

/// One peer's outcomes since the window began.
#[derive(Debug, Clone, Default)]
struct Window {
    outcomes: u32,
    failures: u32,
    timed: u32,
    latency: Duration,
}

/// Why a peer was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    Silence,
    Errors,
    Latency,
}

impl Reason {
    /// The log word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::Errors => "errors",
            Self::Latency => "latency",
        }
    }
}

impl Vigil {
    /// A request is sent; the number by which it is told from those before the next sign of life.
    pub(super) fn sent(&mut self, now: Instant) -> u64 {
        self.waiting += 1;
        self.since.get_or_insert(now);
        self.signs
    }

    /// The request with this number waits no longer, and nothing was heard.
    pub(super) fn gave_up(&mut self, number: u64) {
        if number == self.signs {
            self.waiting = self.waiting.saturating_sub(1);
            self.since = self.since.filter(|_| self.waiting > 0);
        }
    }

    /// An answer began.
    pub(super) fn heard(&mut self, is_failure: bool, took: Option<Duration>, now: Instant) {
        self.alive();
        self.until = self.until.filter(|until| now < *until);
        self.window.outcomes += 1;
        self.window.failures += u32::from(is_failure);
        if let Some(took) = took {
            self.window.timed += 1;
            self.window.latency += took;
        }
    }

    /// A request ended without an answer.
    pub(super) fn failed(&mut self) {
        self.window.outcomes += 1;
        self.window.failures += 1;
    }

    /// Whether it rests, or is being probed.
    pub(super) fn is_ejected(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until || self.waiting > 0)
    }

    /// Forgets that it was ejected.
    pub(super) fn pardon(&mut self) {
        self.until = None;
    }

    fn alive(&mut self) {
        (self.waiting, self.since) = (0, None);
        self.signs += 1;
    }

    /// Whether several requests wait, and the first of them for so long.
    pub(super) fn is_silent(&self, for_so_long: Duration, now: Instant) -> bool {
        let several = if self.until.is_some() { 1 } else { SEVERAL };
        self.waiting >= several
            && self.since.is_some_and(|since| now.saturating_duration_since(since) >= for_so_long)
    }

    fn eject(&mut self, rules: &Rules, now: Instant) {
        self.times = self.times.saturating_add(1);
        self.until = Some(now + rules.max_ejection.min(rules.ejection.saturating_mul(self.times)));
        self.alive();
    }
}

impl Season {
    /// How long a silence is suffered; `None` while nobody knows what is usual, or when silence is no reason.
    fn patience(&self, rules: &Rules) -> Option<Duration> {
        let most = self.usual.most().filter(|_| !rules.silence.is_zero())?;
        Some(rules.silence.max(most.saturating_mul(10)))
    }

    /// After how long a silence somebody else should be asked, if there is anybody.
    pub(super) fn suspicion(&self, rules: &Rules) -> Option<Duration> {
        let (patience, most) = self.patience(rules).zip(self.usual.most())?;
        Some(most.saturating_mul(4).max(SUSPICION).min(patience))
    }

    /// An answer took so long to begin.
    pub(super) fn note(&mut self, took: Duration) {
        self.usual.note(took);
    }

    /// Whether the window has passed; if so, the next one begins.
    pub(super) fn turns(&mut self, rules: &Rules, now: Instant) -> bool {
        let began = *self.began.get_or_insert(now);
        let turns = now.saturating_duration_since(began) >= rules.window;
        if turns {
            self.began = Some(now);
        }
        turns
    }
}

/// Ejects the peer at `index` if it has been silent for too long and there is somebody to go to; says whether it did.
pub(super) fn review(
    members: &mut [Member],
    index: usize,
    rules: &Rules,
    season: &Season,
    now: Instant,
) -> bool {
    let Some((patience, suspicion)) = season.patience(rules).zip(season.suspicion(rules)) else {
        return false;
    };
    let lives =
        |other: &Member| other.is_up() && !other.is_out(now) && !other.vigil.is_silent(suspicion, now);
    let has_others = members.iter().enumerate().any(|(at, other)| at != index && lives(other));
    let vigil = &mut members[index].vigil;
    let silent = has_others && vigil.is_silent(patience, now);
    if silent {
        vigil.eject(rules, now);
    }
    silent
}

/// The end of a window: ejects those that did worse than the median peer, the worst first.
///
/// Shape: the positions of those ejected, with the reason.
pub(super) fn judge(members: &mut [Member], rules: &Rules, now: Instant) -> Vec<(usize, Reason)> {
    let windows: Vec<Window> =
        members.iter_mut().map(|member| std::mem::take(&mut member.vigil.window)).collect();
    let errors = excesses(
        &windows,
        |window| share(window, rules.requests),
        |own, median| (own - median) / rules.errors.fraction(),
    );
    let latency = excesses(
        &windows,
        |window| mean(window, rules.requests),
        |own, median| {
            let noticeable = own - median >= NOTICEABLE.as_secs_f64() && rules.latency > 0;
            if noticeable { own / (median * f64::from(rules.latency)) } else { 0.0 }
        },
    );
    let tagged = |reason| move |(index, excess)| (index, excess, reason);
    let mut offenders: Vec<(usize, f64, Reason)> = errors
        .into_iter()
        .map(tagged(Reason::Errors))
        .chain(latency.into_iter().map(tagged(Reason::Latency)))
        .filter(|(_, excess, _)| *excess > 1.0)
        .collect();
    offenders.sort_by(|a, b| b.1.total_cmp(&a.1));

    let at_most = rules.max_ejected.of(members.len()).max(1).min(members.len().saturating_sub(1));
    let mut resting = members.iter().filter(|member| member.vigil.is_ejected(now)).count();
    let mut ejected = Vec::new();
    for (index, _, reason) in offenders {
        let vigil = &mut members[index].vigil;
        if resting < at_most && !vigil.is_ejected(now) {
            vigil.eject(rules, now);
            resting += 1;
            ejected.push((index, reason));
        }
    }
    for member in members.iter_mut().filter(|member| member.vigil.until.is_none()) {
        member.vigil.times = member.vigil.times.saturating_sub(1);
    }
    ejected
}

/// By how much each peer exceeds the median one, where 1 is the bound. The lower median: of two, the better one.
fn excesses(
    windows: &[Window],
    measure: impl Fn(&Window) -> Option<f64>,
    excess: impl Fn(f64, f64) -> f64,
) -> Vec<(usize, f64)> {
    let measured: Vec<(usize, f64)> =
        windows.iter().enumerate().filter_map(|(index, window)| Some((index, measure(window)?))).collect();
    let mut sorted: Vec<f64> = measured.iter().map(|(_, value)| *value).collect();
    sorted.sort_by(f64::total_cmp);
    // A peer alone is its own median.
    let Some(median) = sorted.get(sorted.len().saturating_sub(1) / 2).copied() else { return Vec::new() };
    measured.into_iter().map(|(index, own)| (index, excess(own, median))).collect()
}

fn share(window: &Window, least: u32) -> Option<f64> {
    (window.outcomes >= least).then(|| f64::from(window.failures) / f64::from(window.outcomes))
}

fn mean(window: &Window, least: u32) -> Option<f64> {
    (window.timed >= least).then(|| window.latency.as_secs_f64() / f64::from(window.timed))
}

#[cfg(test)]
mod tests;
