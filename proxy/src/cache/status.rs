//! `Cache-Status` (RFC 9211): what this cache did with a request, in words a client and an operator can read.

use std::fmt;

use http::StatusCode;

use super::{
    freshness::{Expired, Staleness},
    lookup::Bypass,
};

/// How this cache calls itself.
pub const NAME: &str = "weir";

/// Why a request went on to the origin (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Forwarded {
    /// The cache was told not to take part.
    Bypass,
    /// Its method is not one we answer.
    Method,
    /// Nothing is stored for the target.
    UriMiss,
    /// Something is stored, for other requests.
    VaryMiss,
    /// What was stored may not be used.
    Miss,
    /// The request's own directives.
    Request,
    /// What is stored is no longer fresh.
    Stale,
    /// What is stored is a part of it.
    Partial,
}

impl Forwarded {
    /// The RFC's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Miss => "miss",
            Self::Request => "request",
            Self::Stale => "stale",
            Self::Partial => "partial",
        }
    }
}

/// How an answer came out of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// It was good.
    Fresh,
    /// It was not, and may be used while it is fetched anew, or by this client.
    Stale,
    /// It was not, and the origin failed.
    StaleOnError,
    /// Another request brought it.
    Collapsed,
    /// The origin said that it is good.
    Confirmed,
}

impl Served {
    /// The words of the metrics, in order.
    pub const WORDS: [&'static str; 5] = ["fresh", "stale", "stale_on_error", "collapsed", "confirmed"];
}

/// Why a stale answer is served, where it is for want of a better one.
pub const ORIGIN_FAILED: &str = "origin-failed";
/// Why a stale answer is served, where somebody else fetches a newer one.
const UPDATING: &str = "updating";

/// Where an answer was found, if another edge had brought it.
pub const SHARED: &str = "shared";

/// Why the cache took no part, where the route has none for such requests.
pub const NO_RULE: &str = "no-rule";
/// The same, of a request that would end HTTP on its connection.
pub const UPGRADE: &str = "upgrade";
const NO_CACHE: [&str; 2] = [NO_RULE, UPGRADE];

/// The value of the field; `Display` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheStatus {
    /// Why it went to the origin; `None` is a hit.
    pub forwarded: Option<Forwarded>,
    /// What the origin answered, if it is not what the client gets (a 304 that confirmed).
    pub origin: Option<StatusCode>,
    /// Seconds left of the entry's lifetime; negative for a stale answer.
    pub ttl: Option<i64>,
    /// Whether the answer is kept.
    pub stored: bool,
    /// Whether it was another request that went.
    pub collapsed: bool,
    /// One more word: the reason's name. A token (letters, digits, dashes).
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    /// Of an answer from the cache, with seconds left of its lifetime.
    #[must_use]
    pub fn hit(ttl: i64) -> Self {
        Self { ttl: Some(ttl), ..Self::default() }
    }

    /// Of a request that goes to the origin.
    #[must_use]
    pub fn forwarded(why: Forwarded) -> Self {
        Self { forwarded: Some(why), ..Self::default() }
    }

    /// The same, with one more word.
    #[must_use]
    pub fn because(self, detail: &'static str) -> Self {
        Self { detail: Some(detail), ..self }
    }

    /// Of a request that asks the origin about what is stored.
    #[must_use]
    pub fn expired(staleness: &Staleness) -> Self {
        let expired = staleness.expired;
        Self::forwarded(expired.forwarded()).because(expired.word())
    }

    /// Of a stale answer that is served while it is fetched anew, with seconds left as of the look-up.
    #[must_use]
    pub fn stale(staleness: &Staleness, ttl: i64) -> Self {
        // That a lifetime is over shows in `ttl` alone.
        let detail = Some(staleness.expired).filter(|expired| *expired == Expired::Purged).map(Expired::word);
        Self { detail, ..Self::hit(ttl) }
    }

    /// The same, where somebody else fetches it already.
    #[must_use]
    pub fn updating(self) -> Self {
        Self { detail: self.detail.or(Some(UPDATING)), ..self }
    }

    /// How the answer came out of the cache; `None` when the origin made it for this request.
    #[must_use]
    pub fn served(&self) -> Option<Served> {
        match self.forwarded {
            _ if self.collapsed => Some(Served::Collapsed),
            Some(_) => {
                (self.stored && self.origin == Some(StatusCode::NOT_MODIFIED)).then_some(Served::Confirmed)
            }
            None if self.detail == Some(ORIGIN_FAILED) => Some(Served::StaleOnError),
            // What is good has a second left, as lifetimes are counted in those.
            None if self.ttl.is_some_and(|ttl| ttl <= 0) => Some(Served::Stale),
            None => Some(Served::Fresh),
        }
    }

    /// nginx's word, as in its `$upstream_cache_status`; empty where no cache took part.
    ///
    /// Source: nginx `ngx_http_cache_status`. Departure: a request that waited for another's fetch is a `HIT` at once,
    /// and one for a part of what is not stored a `MISS`.
    #[must_use]
    pub fn nginx_word(&self) -> &'static str {
        match self.forwarded {
            _ if self.collapsed => "HIT",
            None if self.detail == Some(UPDATING) => "UPDATING",
            None if matches!(self.served(), Some(Served::Stale | Served::StaleOnError)) => "STALE",
            None => "HIT",
            Some(_) if self.served() == Some(Served::Confirmed) => "REVALIDATED",
            Some(Forwarded::Stale) => "EXPIRED",
            Some(Forwarded::UriMiss | Forwarded::VaryMiss | Forwarded::Miss | Forwarded::Partial) => "MISS",
            Some(Forwarded::Bypass) if self.detail == Some(Bypass::Range.word()) => "MISS",
            Some(Forwarded::Bypass) if self.detail.is_some_and(|detail| NO_CACHE.contains(&detail)) => "",
            Some(Forwarded::Bypass | Forwarded::Request) => "BYPASS",
            Some(Forwarded::Method) => "",
        }
    }

    /// The word in logs: `hit`, `collapsed`, or why the origin was asked.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.forwarded {
            _ if self.collapsed => "collapsed",
            None => "hit",
            Some(reason) => reason.word(),
        }
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        match self.forwarded {
            None => f.write_str("; hit")?,
            Some(reason) => write!(f, "; fwd={}", reason.word())?,
        }
        if let Some(status) = self.origin {
            write!(f, "; fwd-status={}", status.as_u16())?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={ttl}")?;
        }
        if self.stored {
            f.write_str("; stored")?;
        }
        if self.collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(detail) = self.detail {
            write!(f, "; detail={detail}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_has_nginx_s_word() {
        let went = CacheStatus::forwarded;
        let hit = |ttl, detail| CacheStatus { detail, ..CacheStatus::hit(ttl) };
        let confirmed =
            CacheStatus { origin: Some(StatusCode::NOT_MODIFIED), stored: true, ..went(Forwarded::Stale) };
        for (status, word) in [
            (hit(9, None), "HIT"),
            (hit(-9, None), "STALE"),
            (hit(-9, Some(UPDATING)), "UPDATING"),
            (hit(-9, Some(ORIGIN_FAILED)), "STALE"),
            (went(Forwarded::UriMiss), "MISS"),
            (went(Forwarded::VaryMiss), "MISS"),
            (CacheStatus { collapsed: true, ..went(Forwarded::UriMiss) }, "HIT"),
            (went(Forwarded::Stale), "EXPIRED"),
            (confirmed, "REVALIDATED"),
            (went(Forwarded::Bypass), "BYPASS"),
            (CacheStatus { detail: Some(NO_RULE), ..went(Forwarded::Bypass) }, ""),
            (went(Forwarded::Method), ""),
        ] {
            assert_eq!(status.nginx_word(), word, "{status}");
        }
    }

    #[test]
    fn what_was_softly_purged_says_so_and_never_passes_for_fresh() {
        let of =
            |expired| CacheStatus::stale(&Staleness { expired, while_revalidate: true, on_error: false }, 0);
        let (purged, old) = (of(Expired::Purged), of(Expired::Age));
        assert_eq!(purged.to_string(), "weir; hit; ttl=0; detail=purged");
        assert_eq!((purged.updating(), purged.nginx_word()), (purged, "STALE"));
        assert_eq!(purged.served(), Some(Served::Stale));
        assert_eq!((old.nginx_word(), old.updating().nginx_word()), ("STALE", "UPDATING"));
    }

    #[test]
    fn the_field_reads_as_the_rfc_writes_it() {
        let hit = CacheStatus::hit(376);
        assert_eq!(hit.to_string(), "weir; hit; ttl=376");
        let stored = CacheStatus { stored: true, ..CacheStatus::forwarded(Forwarded::UriMiss) };
        assert_eq!(stored.to_string(), "weir; fwd=uri-miss; stored");
        let confirmed = CacheStatus {
            forwarded: Some(Forwarded::Stale),
            origin: Some(StatusCode::NOT_MODIFIED),
            ttl: Some(60),
            stored: true,
            collapsed: true,
            detail: Some("age"),
        };
        assert_eq!(
            confirmed.to_string(),
            "weir; fwd=stale; fwd-status=304; ttl=60; stored; collapsed; detail=age"
        );
    }
}
