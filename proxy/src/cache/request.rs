//! What the cache is told about a request: its head, the route's rule, and what time it is.
//!
//! Time is an argument everywhere, so that every answer of this stage can be replayed in a test.

use std::{
    ops::RangeInclusive,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use weir_config::plan::{self, Ignored, TtlApplies};

use super::directives::Directives;

/// The two clocks, read together: dates are compared with `wall`, ages grow by `mono`.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// What a calendar says; may jump.
    pub wall: SystemTime,
    /// Never goes back.
    pub mono: Instant,
}

impl Now {
    /// Reads both clocks.
    #[must_use]
    pub fn read() -> Self {
        Self { wall: SystemTime::now(), mono: Instant::now() }
    }

    /// This much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self { wall: self.wall + span, mono: self.mono + span }
    }
}

/// What of a request decides whether, and with what, the cache may answer.
///
/// Pass the fields as they are forwarded (hop-by-hop and untrusted ones already removed): what the origin does not
/// see must not select a variant.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// As received.
    pub method: &'a Method,
    /// As forwarded.
    pub headers: &'a HeaderMap,
    /// Whether a body follows, of a declared length above 0 or chunked.
    pub has_body: bool,
}

/// Fields by which a request says something of caches, or asks for something else than the whole answer.
const SAID: [HeaderName; 7] = [
    header::CACHE_CONTROL,
    header::PRAGMA,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::RANGE,
];

/// Whether a request has none of them, as most. To look at the fields there are is cheaper than to look for each that is not.
#[must_use]
pub fn is_plain(headers: &HeaderMap) -> bool {
    !headers.keys().any(|name| SAID.contains(name))
}

/// What the route says about its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// How long, whatever the origin says short of `no-store` and `private`.
    pub ttl: Option<Duration>,
    /// Where the origin names no such span itself.
    pub stale_while_revalidate: Duration,
    /// Where the origin names no such span itself.
    pub stale_if_error: Duration,
    /// Whether the key tells callers apart. Then `private`, `Authorization` and `Cookie` do not forbid keeping the
    /// answer: whoever finds it is the caller it was made for. `Set-Cookie` and `no-store` still do.
    pub private_to_caller: bool,
    /// How long answers with these statuses; the first range counts, and before `ttl`.
    pub statuses: Vec<(RangeInclusive<u16>, Duration)>,
    /// Whether these spans step back where the origin names one.
    pub ttl_applies: TtlApplies,
    /// Fields that are read as if they were not there.
    pub ignore: Vec<HeaderName>,
    /// Whether what a request says of caches counts.
    pub heeds_requests: bool,
    /// Requests for an entry until its answer is kept.
    pub min_uses: u32,
    /// How old a fill may become until one more request begins another.
    pub lock_age: Duration,
    /// Whether the origin is asked about a stored answer; without that, one with a validator alone is of no use.
    pub revalidates: bool,
    /// Whether a lifetime is guessed where none is said.
    pub guesses: bool,
    /// Whether this request is sent past what is stored.
    pub bypassed: bool,
}

impl Rule {
    /// The rule of a route. `private_to_caller` is for the caller to say, who knows which variables of the key name
    /// one person (`session.user_id`) and which name many (`session.role`).
    #[must_use]
    pub fn new(rule: &plan::CacheRule, private_to_caller: bool) -> Self {
        Self {
            ttl: rule.ttl,
            stale_while_revalidate: rule.stale_while_revalidate,
            stale_if_error: rule.stale_if_error,
            private_to_caller,
            statuses: rule.keeping.statuses.clone(),
            ttl_applies: rule.keeping.ttl_applies,
            ignore: rule.keeping.ignore.iter().filter_map(|ignored| ignored.name()).collect(),
            heeds_requests: !rule.keeping.ignore.contains(&Ignored::RequestCacheControl),
            min_uses: rule.keeping.min_uses,
            lock_age: rule.keeping.lock_age,
            revalidates: rule.keeping.revalidate,
            guesses: rule.keeping.heuristics,
            bypassed: false,
        }
    }

    /// Nothing beyond what the origin says.
    #[must_use]
    pub const fn origin_alone() -> Self {
        Self {
            ttl: None,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            private_to_caller: false,
            statuses: Vec::new(),
            ttl_applies: TtlApplies::Always,
            ignore: Vec::new(),
            heeds_requests: true,
            min_uses: 1,
            lock_age: Duration::MAX,
            revalidates: true,
            guesses: true,
            bypassed: false,
        }
    }

    /// What a request says of caches, as far as it counts.
    pub(super) fn asked(&self, request: &HeaderMap) -> Directives {
        if self.heeds_requests { Directives::of_request(request) } else { Directives::default() }
    }

    /// How long an answer with this status, as far as the route says. Its `ttl` speaks of answers, not of failures.
    pub(super) fn span(&self, status: StatusCode) -> Option<Duration> {
        let status = status.as_u16();
        let by_status = self.statuses.iter().find(|(range, _)| range.contains(&status));
        let answers = matches!(status, 200 | 203 | 204 | 300 | 301 | 302 | 303 | 307 | 308);
        by_status.map(|(_, span)| *span).or(self.ttl.filter(|_| answers))
    }

    /// Whether the route names this very status.
    pub(super) fn names(&self, status: StatusCode) -> bool {
        self.statuses.iter().any(|(range, _)| *range == (status.as_u16()..=status.as_u16()))
    }

    /// Whether a field has no say.
    #[must_use]
    pub fn ignores(&self, name: &HeaderName) -> bool {
        self.ignore.contains(name)
    }
}
