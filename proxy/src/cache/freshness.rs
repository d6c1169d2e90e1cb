//! How long an answer is good, and what may be done with it afterwards (RFC 9111 §4.2, RFC 5861).
//!
//! Pure functions of (stored head, request's directives, rule, now).

use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode, header};
use weir_config::plan::TtlApplies;

use super::{
    date::{self, date},
    directives::{Directives, Scope, capped, digits, members},
    request::{Now, Rule},
};

/// A guess is a tenth of the time since the last change (RFC 9111 §4.2.2), and never more than a day.
const HEURISTIC_PART: u32 = 10;
const HEURISTIC_MOST: Duration = Duration::from_secs(24 * 60 * 60);
/// Of an error never more than a minute: one bad answer must not outlive its cause.
const HEURISTIC_MOST_OF_ERRORS: Duration = Duration::from_secs(60);

/// When an entry was made and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    pub(super) lifetime: Duration,
    pub(super) initial_age: Duration,
    pub(super) received: Instant,
    /// `no-cache`: never without asking.
    pub(super) always_ask: bool,
    /// `must-revalidate`, `proxy-revalidate`: never stale, whatever anybody wishes.
    pub(super) strict: bool,
    /// `s-maxage` forbids stale answers (RFC 9111 §5.2.2.10) where no span for them is written, see [`window`].
    pub(super) has_s_maxage: bool,
    pub(super) while_revalidate: Option<Duration>,
    pub(super) if_error: Option<Duration>,
}

/// Why an entry must be asked for anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    /// Its time is over.
    Age,
    /// It was softly purged.
    Purged,
    /// It is never good without asking (`no-cache`).
    NoCache,
    /// This request asks for a fresher one.
    Request,
}

/// What may be done with an entry that is not simply good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Staleness {
    /// Why.
    pub expired: Expired,
    /// Whether it may answer while it is fetched anew.
    pub while_revalidate: bool,
    /// Whether it may answer when the origin fails. If not, a failure is the client's to see (504, RFC 9111 §5.2.2.2).
    pub on_error: bool,
}

impl Freshness {
    /// Of an answer to a request sent at `sent`, received `now`.
    #[must_use]
    pub(super) fn new(
        status: StatusCode,
        headers: &HeaderMap,
        directives: &Directives,
        rule: &Rule,
        sent: Now,
        now: Now,
    ) -> Self {
        let initial_age = initial_age(headers, sent, now);
        // The operator's span begins here, not where the answer was made.
        let ruled = rule.span(status).map(|span| span.saturating_add(initial_age));
        let said = || explicit_lifetime(headers, directives, now);
        let (lifetime, overruled) = match rule.ttl_applies {
            TtlApplies::Always => (ruled.or_else(said), ruled.is_some()),
            TtlApplies::Unsaid => (said().or(ruled), false),
        };
        let guess = || rule.guesses.then(|| heuristic_lifetime(status, headers, directives, now)).flatten();
        let lifetime = lifetime.or_else(guess).unwrap_or_default();
        Self {
            lifetime,
            initial_age,
            received: now.mono,
            always_ask: !overruled && directives.no_cache == Scope::Everything,
            strict: directives.must_revalidate || directives.proxy_revalidate,
            has_s_maxage: directives.s_maxage.is_some(),
            while_revalidate: directives.stale_while_revalidate,
            if_error: directives.stale_if_error,
        }
    }

    /// Time since the origin made or confirmed the answer (RFC 9111 §4.2.3).
    #[must_use]
    pub fn age(&self, now: Now) -> Duration {
        self.initial_age.saturating_add(now.mono.saturating_duration_since(self.received))
    }

    /// When it was received.
    #[must_use]
    pub fn received(&self) -> Instant {
        self.received
    }

    /// Until when it may answer unasked; `None` where it never may, or for longer than can be counted.
    #[must_use]
    pub(super) fn good_until(&self) -> Option<Instant> {
        let left = self.lifetime.checked_sub(self.initial_age).filter(|_| !self.always_ask)?;
        self.received.checked_add(left)
    }

    /// Seconds left of its lifetime; negative when it is over.
    #[must_use]
    pub fn ttl(&self, now: Now) -> i64 {
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        seconds(self.lifetime).saturating_sub(seconds(self.age(now)))
    }

    /// Whether it is good at birth, and so may answer requests that waited for it.
    #[must_use]
    pub(super) fn begins_fresh(&self) -> bool {
        !self.always_ask && self.lifetime > self.initial_age
    }

    /// Whether the answer forbids to use it stale: who cannot ask then says so with 504 (RFC 9111 §5.2.2.2, §5.2.2.10).
    #[must_use]
    pub fn must_be_asked(&self) -> bool {
        self.strict || self.always_ask || self.has_s_maxage
    }

    /// Whether it can ever answer without the origin, fresh or stale.
    #[must_use]
    pub(super) fn ever_useful(&self, rule: &Rule) -> bool {
        self.begins_fresh() || (!self.always_ask && !self.strict && !self.stale_for(rule).is_zero())
    }

    /// For how long it may be of use yet, fresh or stale; nothing if it never is without asking.
    #[must_use]
    pub(super) fn useful_for(&self, rule: &Rule, now: Now) -> Duration {
        if !self.begins_fresh() {
            return Duration::ZERO;
        }
        let stale = if self.strict { Duration::ZERO } else { self.stale_for(rule) };
        self.lifetime.saturating_add(stale).saturating_sub(self.age(now))
    }

    /// The longer of the two spans in which it may be used after its time, if it may be at all.
    fn stale_for(&self, rule: &Rule) -> Duration {
        let revalidate = window(self.while_revalidate, rule.stale_while_revalidate, self.has_s_maxage);
        revalidate.max(window(self.if_error, rule.stale_if_error, self.has_s_maxage))
    }

    /// Whether the entry may answer a request with these directives; if not, what else may be done with it.
    ///
    /// # Errors
    /// [`Staleness`] when the origin must be asked, now or meanwhile.
    pub(super) fn assess(
        &self,
        request: &Directives,
        rule: &Rule,
        softly_purged: bool,
        now: Now,
    ) -> Result<(), Staleness> {
        let age = self.age(now);
        let over = age.saturating_sub(self.lifetime);
        let fresh = age < self.lifetime;
        let left = self.lifetime.saturating_sub(age);
        let asked = request.no_cache != Scope::Nothing
            || request.max_age.is_some_and(|most| age > most)
            || request.min_fresh.is_some_and(|least| left < least);
        let stale_allowed = !self.strict && !self.always_ask;
        let tolerated = !fresh
            && stale_allowed
            && !self.has_s_maxage
            && request.max_stale.is_some_and(|most| over <= most);
        let expired = if self.always_ask {
            Expired::NoCache
        } else if softly_purged {
            Expired::Purged
        } else if asked {
            Expired::Request
        } else if fresh || tolerated {
            return Ok(());
        } else {
            Expired::Age
        };
        let within = |said, rule| stale_allowed && over < window(said, rule, self.has_s_maxage);
        Err(Staleness {
            expired,
            // A client that asks for a fresh answer gets one, or the origin's failure within its span.
            while_revalidate: expired != Expired::Request
                && within(self.while_revalidate, rule.stale_while_revalidate),
            on_error: within(self.if_error, rule.stale_if_error),
        })
    }
}

/// How long after expiry: the origin's span, else the rule's. `s-maxage` alone forbids stale answers; one who writes
/// a span next to it means it, so the origin's own span counts, and the rule's does not. (RFC 9111 §5.2.2.10 read
/// literally would void the origin's span too; no cache in use does that.)
fn window(said: Option<Duration>, rule: Duration, has_s_maxage: bool) -> Duration {
    said.unwrap_or(if has_s_maxage { Duration::ZERO } else { rule })
}

/// RFC 9111 §4.2.3, with the request's way counted as age.
fn initial_age(headers: &HeaderMap, sent: Now, now: Now) -> Duration {
    let apparent =
        date(headers, &header::DATE).and_then(|date| now.wall.duration_since(date).ok()).unwrap_or_default();
    // A list counts by its first member, anything but a number not at all (§5.1).
    let told = headers
        .get(header::AGE)
        .and_then(|value| members(value.as_bytes()).next())
        .and_then(digits)
        .map_or(Duration::ZERO, capped);
    let delay = now.mono.saturating_duration_since(sent.mono);
    apparent.max(told.saturating_add(delay))
}

/// RFC 9111 §4.2.1.
fn explicit_lifetime(headers: &HeaderMap, directives: &Directives, now: Now) -> Option<Duration> {
    directives.s_maxage.or(directives.max_age).or_else(|| {
        if directives.targeted {
            return None;
        }
        let made = date(headers, &header::DATE).unwrap_or(now.wall);
        // An invalid date is in the past (§5.3), and so is the earliest of several.
        let spans = headers.get_all(header::EXPIRES).iter().map(|value| {
            date::parse(value.as_bytes())
                .and_then(|expires| expires.duration_since(made).ok())
                .unwrap_or_default()
        });
        spans.min().map(|span| capped(span.as_secs()))
    })
}

/// RFC 9111 §3: whether an answer may be kept that nobody may use unasked. Its lifetime is said, if only as none, or may be
/// guessed.
pub(super) fn may_be_kept(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &Directives,
    rule: &Rule,
    now: Now,
) -> bool {
    is_guessable(status, directives)
        || rule.span(status).is_some()
        || explicit_lifetime(headers, directives, now).is_some()
}

/// RFC 9111 §4.2.2: the statuses that RFC 9110 §15.1 names, and whatever the origin calls `public`.
fn is_guessable(status: StatusCode, directives: &Directives) -> bool {
    let named = matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501);
    named || directives.public
}

fn heuristic_lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    directives: &Directives,
    now: Now,
) -> Option<Duration> {
    if !is_guessable(status, directives) {
        return None;
    }
    let is_error = status.is_client_error() || status.is_server_error();
    let most = if is_error { HEURISTIC_MOST_OF_ERRORS } else { HEURISTIC_MOST };
    let made = date(headers, &header::DATE).unwrap_or(now.wall);
    let changed = date(headers, &header::LAST_MODIFIED)?;
    Some((made.duration_since(changed).ok()? / HEURISTIC_PART).min(most))
}

#[cfg(test)]
mod tests;
