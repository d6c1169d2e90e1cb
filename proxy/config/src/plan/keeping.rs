//! What a route says about keeping answers: the rule, and what it adds to the RFCs.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use http::{HeaderName, header};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CacheId, RetryOn};
use crate::{span::Place, template::Template, units::Bytes};

/// Which answers of a route are kept and used, where the origin's words are not all there is to say.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Keeping {
    /// Spans by status, the narrowest range first. They count before the rule's `ttl`.
    pub statuses: Vec<(RangeInclusive<u16>, Duration)>,
    /// When `ttl` and `statuses` count.
    pub ttl_applies: TtlApplies,
    /// What is read as if it were not there.
    pub ignore: Vec<Ignored>,
    /// Where one of them is neither empty nor `0`, the origin is asked whatever is stored.
    pub bypass: Vec<Template>,
    /// Where one of them is neither empty nor `0`, the answer is not kept.
    pub no_store: Vec<Template>,
    /// Whether answers to QUERY are kept as well, apart by what it sends (RFC 10008 §2.7).
    pub queries: bool,
    /// Requests for an entry until its answer is kept, the last one included; at least 1.
    pub min_uses: u32,
    /// Whether a HEAD that finds nothing is asked as GET, so that the next GET finds it.
    pub convert_head: bool,
    /// How old a fetch may become until one more request makes another; zero is that nobody waits for one.
    pub lock_age: Duration,
    /// Which failures `stale_if_error` speaks of.
    pub stale_on: Vec<RetryOn>,
    /// Whether what is stale is fetched anew behind the client that is answered with it, and not before it is.
    pub background_update: bool,
    /// Whether the origin is asked if what is stored is still good.
    pub revalidate: bool,
    /// Whether an answer without a lifetime has a tenth of the time since its last change (RFC 9111 §4.2.2).
    pub heuristics: bool,
}

/// When a rule's own spans count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TtlApplies {
    /// Whatever the origin says, short of `no-store` and `private`.
    Always,
    /// Where the origin names no lifetime, as nginx's `proxy_cache_valid`.
    Unsaid,
}

/// A field that has no say in whether and how an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ignored {
    /// Of the answer, with its `no-store` and `private`.
    CacheControl,
    /// Of the answer, likewise.
    CdnCacheControl,
    /// Of the answer.
    Expires,
    /// Of the answer: one request's cookie is kept, and sent to everybody.
    SetCookie,
    /// Of the answer: what it depends on must be in the key.
    Vary,
    /// Of the request: the answer does not depend on it.
    Cookie,
    /// `Cache-Control` and `Pragma` of the request: no client goes past what is stored. nginx never heeds them.
    RequestCacheControl,
    /// Of the answer: nginx's word for how long it is kept.
    XAccelExpires,
}

impl Ignored {
    /// The field, where its name alone says which it is.
    #[must_use]
    pub const fn name(self) -> Option<HeaderName> {
        Some(match self {
            Self::CacheControl => header::CACHE_CONTROL,
            Self::CdnCacheControl => HeaderName::from_static("cdn-cache-control"),
            Self::Expires => header::EXPIRES,
            Self::SetCookie => header::SET_COOKIE,
            Self::Vary => header::VARY,
            Self::Cookie => header::COOKIE,
            Self::XAccelExpires => HeaderName::from_static("x-accel-expires"),
            Self::RequestCacheControl => return None,
        })
    }
}

/// Whether and how a route's answers are kept.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CacheRule {
    /// Where.
    pub cache: CacheId,
    /// How long, whatever the origin says short of `no-store` and `private`; `None` follows the origin alone.
    pub ttl: Option<Duration>,
    /// What tells answers apart; `None` is scheme, host and target.
    pub key: Option<Template>,
    /// Which routes' answers these may be taken for, beside their key: those with the same text here.
    pub realm: Arc<str>,
    /// What they are purged by, besides the origin's own `Cache-Tag`.
    pub tags: Vec<Template>,
    /// The length of the parts in which answers are fetched and kept; `None` in one piece.
    pub slice: Option<Bytes>,
    /// Whether parts that clients ask for are kept, and put together.
    pub partial: bool,
    /// How long after expiry an entry may still answer while it is fetched anew.
    pub stale_while_revalidate: Duration,
    /// How long after expiry an entry may still answer when the origin fails.
    pub stale_if_error: Duration,
    /// How long a request waits for another's fill before it goes to the origin itself.
    pub lock_timeout: Duration,
    /// How long a fetch goes on when nobody is left who reads it; zero ends it with its last reader.
    pub background_fill: Duration,
    /// What else the route says about it.
    pub keeping: Keeping,
    /// Who may purge with the method PURGE; `None` is nobody.
    pub purge: Option<PurgeRule>,
    /// Where it was written.
    pub place: Place,
}

impl CacheRule {
    /// Whether there may be more entries of an answer than one for each variant.
    #[must_use]
    pub fn keeps_parts(&self) -> bool {
        self.slice.is_some() || self.partial
    }
}

/// Who may purge what a route keeps, with the method PURGE.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PurgeRule {
    /// From these networks, at least one.
    pub allow: Vec<IpNet>,
    /// Whether what is purged is stale from then on, and not gone.
    pub soft: bool,
}
