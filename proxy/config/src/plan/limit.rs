//! Limits, as planned.

use std::{num::NonZeroU32, sync::Arc};

use http::StatusCode;

use super::LimitId;
pub use crate::raw::{LimitHeaders, LimitOnRedisDown};
use crate::{
    span::Place,
    template::{Template, Variable},
    units::Quota,
};

/// A named limit.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limit {
    /// As routes call it, and as metrics label it.
    pub name: Arc<str>,
    /// Whose requests are counted together.
    pub key: Template,
    /// How many bits of an IPv6 address are one client; 1 to 128.
    pub ipv6_prefix: u8,
    /// What is counted.
    pub counting: Counting,
    /// How it is shared with other edges; `None` counts in this process.
    pub shared: Option<Shared>,
    /// Whether requests over the limit pass all the same.
    pub dry_run: bool,
    /// Of refusals.
    pub status: StatusCode,
    /// What clients are told.
    pub headers: LimitHeaders,
    /// Keys remembered at most.
    pub keys: usize,
    /// Where it was written.
    pub place: Place,
}

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counting {
    /// Requests in time, by GCRA: up to `burst`, and then one whenever the rate has room for it.
    Steady {
        /// How many in how long.
        rate: Quota,
        /// How many at once, after a pause.
        burst: NonZeroU32,
        /// How many of the burst need not wait; at least 1, at most `burst`.
        at_once: u32,
    },
    /// Requests in time, never more than the rate counts in whichever span of its length.
    Sliding {
        /// How many in how long.
        rate: Quota,
    },
    /// Requests under way at once.
    Concurrent {
        /// How many.
        most: NonZeroU32,
    },
}

impl Counting {
    /// How many may pass at once.
    #[must_use]
    pub fn most(&self) -> NonZeroU32 {
        match self {
            Self::Steady { burst, .. } => *burst,
            Self::Sliding { rate } => rate.count,
            Self::Concurrent { most } => *most,
        }
    }
}

/// A limit of the fleet, counted in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Shared {
    /// How many an edge takes at a time, at most.
    pub lease: NonZeroU32,
    /// What happens while Redis does not answer.
    pub on_redis_down: LimitOnRedisDown,
}

/// A limit as a route charges it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitUse {
    /// The limit.
    pub limit: LimitId,
    /// As how many requests one counts.
    pub cost: Cost,
    /// Whether it needs to know the caller, and is charged once the session was looked up.
    pub after_session: bool,
}

/// As how many requests one counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cost {
    /// So many.
    Fixed(NonZeroU32),
    /// What this renders; 1 when that is no number.
    Asked(Template),
}

/// Whether a template names the caller's session.
pub(crate) fn names_session(template: &Template) -> bool {
    template.variables().any(|variable| matches!(variable, Variable::Session(_)))
}
