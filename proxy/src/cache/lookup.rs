//! What a request finds: decided at once, from memory, without waiting.

use std::sync::Arc;

use http::{Method, header};

use super::{
    directives::Directives,
    entry::{Entry, Head},
    freshness::{Expired, Staleness},
    key::Key,
    memory::Found,
    request::{Now, RequestHead, Rule, is_plain},
    shelf::Shelf,
    status::Forwarded,
    tags::Standing,
};

/// What a request found.
#[derive(Debug, Clone)]
pub enum Lookup {
    /// An entry that answers.
    Hit {
        /// The entry; [`super::answer()`] makes the answer of it.
        entry: Arc<Entry>,
        /// Seconds left of its lifetime.
        ttl: i64,
    },
    /// An entry the origin must be asked about.
    Stale {
        /// The entry; pass it on in [`super::Ask::stale`].
        entry: Arc<Entry>,
        /// Why, and what else may be done with it.
        staleness: Staleness,
        /// Seconds left of its lifetime; negative when over, and none of what was softly purged.
        ttl: i64,
    },
    /// Nothing of use.
    Miss(Miss),
    /// The cache takes no part: forward, and keep nothing.
    Bypass(Bypass),
    /// The client wants a stored answer or none, and there is none: 504 (RFC 9111 §5.2.1.7).
    OnlyIfCached,
}

/// Why nothing was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Miss {
    /// Nothing is stored under the key.
    Uri,
    /// Something is, for other requests.
    Vary,
    /// It was purged.
    Purged,
}

/// Why the cache takes no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bypass {
    /// Neither GET nor HEAD.
    Method,
    /// A GET with a body, which is no part of the key.
    RequestBody,
    /// `Cache-Control: no-store`.
    NoStore,
    /// `If-Match` or `If-Unmodified-Since`, which only the origin can judge (RFC 9111 §4.3.2).
    Precondition,
    /// A part of what is not stored; the origin may send just that.
    Range,
    /// The route's `bypass`; what comes may be kept.
    Route,
}

impl Miss {
    /// The word in logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Uri => "uri-miss",
            Self::Vary => "vary-miss",
            Self::Purged => "purged",
        }
    }

    /// The word in `Cache-Status`.
    #[must_use]
    pub const fn forwarded(self) -> Forwarded {
        match self {
            Self::Uri => Forwarded::UriMiss,
            Self::Vary => Forwarded::VaryMiss,
            Self::Purged => Forwarded::Miss,
        }
    }
}

impl Bypass {
    /// The word in logs and metrics, and the detail in `Cache-Status`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestBody => "request-body",
            Self::NoStore => "no-store",
            Self::Precondition => "precondition",
            Self::Range => "range",
            Self::Route => "route",
        }
    }

    /// The word in `Cache-Status`.
    #[must_use]
    pub const fn forwarded(self) -> Forwarded {
        match self {
            Self::Method => Forwarded::Method,
            Self::NoStore => Forwarded::Request,
            Self::RequestBody | Self::Precondition | Self::Range | Self::Route => Forwarded::Bypass,
        }
    }
}

impl Expired {
    /// The word in logs and metrics, and the detail in `Cache-Status`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Purged => "purged",
            Self::NoCache => "no-cache",
            Self::Request => "request",
        }
    }

    /// The word in `Cache-Status`.
    #[must_use]
    pub const fn forwarded(self) -> Forwarded {
        match self {
            Self::Request => Forwarded::Request,
            Self::Age | Self::Purged | Self::NoCache => Forwarded::Stale,
        }
    }
}

impl Shelf {
    /// See [`super::Cache::lookup`].
    pub(super) fn lookup(&self, key: &Key, request: &RequestHead<'_>, rule: &Rule, now: Now) -> Lookup {
        let lookup = self.look(key, request, rule, now);
        self.count(&lookup);
        self.watch(key, &lookup, now);
        lookup
    }

    /// The same, uncounted.
    pub(super) fn look(&self, key: &Key, request: &RequestHead<'_>, rule: &Rule, now: Now) -> Lookup {
        self.look_at(key, || self.store.find(key, request.headers), request, rule, now)
    }

    /// What is to be made of what is found.
    pub(super) fn look_at(
        &self,
        key: &Key,
        find: impl FnOnce() -> Found,
        request: &RequestHead<'_>,
        rule: &Rule,
        now: Now,
    ) -> Lookup {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Lookup::Bypass(Bypass::Method);
        }
        if request.has_body {
            return Lookup::Bypass(Bypass::RequestBody);
        }
        let is_plain = is_plain(request.headers);
        let directives = if is_plain { Directives::default() } else { rule.asked(request.headers) };
        let otherwise = |miss| {
            if directives.only_if_cached {
                Lookup::OnlyIfCached
            } else if key.whole().is_none() && request.headers.contains_key(header::RANGE) {
                Lookup::Bypass(Bypass::Range)
            } else {
                Lookup::Miss(miss)
            }
        };
        if directives.no_store {
            return if directives.only_if_cached {
                Lookup::OnlyIfCached
            } else {
                Lookup::Bypass(Bypass::NoStore)
            };
        }
        let conditions = [header::IF_MATCH, header::IF_UNMODIFIED_SINCE];
        if !is_plain && conditions.iter().any(|name| request.headers.contains_key(name)) {
            return Lookup::Bypass(Bypass::Precondition);
        }
        if rule.bypassed {
            return match otherwise(Miss::Uri) {
                Lookup::Miss(_) => Lookup::Bypass(Bypass::Route),
                other => other,
            };
        }
        let entry = match find() {
            Found::Entry(entry) => entry,
            Found::OtherVariants => return otherwise(Miss::Vary),
            Found::Nothing => return otherwise(Miss::Uri),
        };
        let standing = self.standing(entry.head());
        if standing == Standing::Gone {
            return otherwise(Miss::Purged);
        }
        let ttl = left(entry.head(), standing, now);
        match entry.head().freshness.assess(&directives, rule, standing == Standing::Soft, now) {
            Ok(()) => Lookup::Hit { entry, ttl },
            Err(_) if directives.only_if_cached => Lookup::OnlyIfCached,
            Err(staleness) => Lookup::Stale { entry, staleness, ttl },
        }
    }
}

/// Seconds left of a lifetime: a purge has ended it, even one that leaves the entry to be asked about.
pub(super) fn left(head: &Head, standing: Standing, now: Now) -> i64 {
    let ttl = head.freshness.ttl(now);
    if standing == Standing::Good { ttl } else { ttl.min(0) }
}
