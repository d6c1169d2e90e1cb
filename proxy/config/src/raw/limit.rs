//! The words about limits: how many requests, in what time or at once, and what becomes of the others.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word::{FromShort, Word};
use crate::{template::Template, units::Quota};

/// How many requests whose key is equal may pass: either in a time (`rate`) or at once (`concurrent`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limit {
    /// Whose requests are counted together; those whose key is empty are not counted. Default: `${client.ip}`.
    pub key: Word<Template>,
    /// How many bits of an IPv6 address are one client, in `${client.ip}` of the key.
    pub ipv6_prefix: Word<u32>,
    /// How many in how long: `10/s`, `100/15m`.
    pub rate: Word<Quota>,
    /// How they are counted: `steady` or `sliding`.
    pub window: Word<LimitWindow>,
    /// How many at once, after a pause. Default: as many as `rate` counts.
    pub burst: Word<u32>,
    /// How many of the burst pass at once; further ones wait in order. Default: all of it.
    pub delay: Word<u32>,
    /// How many under way at once.
    pub concurrent: Word<u32>,
    /// Where they are counted: `memory` or `redis`.
    #[serde(rename = "in")]
    pub counted: Word<LimitIn>,
    /// With `in: redis`: how many an edge takes from Redis at a time. Default: a tenth of what passes at once.
    pub lease: Word<u32>,
    /// With `in: redis`: what happens while it does not answer: `local`, `allow` or `refuse`.
    pub on_redis_down: Word<LimitOnRedisDown>,
    /// Whether requests over the limit are only counted. Default: false.
    pub dry_run: Word<bool>,
    /// The status of those who may not pass.
    pub status: Word<u16>,
    /// Which fields tell clients where they stand: `off`, `ratelimit`, `x_ratelimit` or `both`.
    pub headers: Word<LimitHeaders>,
    /// Keys remembered at most.
    pub keys: Word<u32>,
}

/// How requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitWindow {
    /// Up to `burst`, and then one whenever the rate has room for it.
    Steady,
    /// Never more than the rate counts, in whichever span of its length.
    Sliding,
}

/// Where requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitIn {
    /// In this process.
    Memory,
    /// In Redis, for all edges together.
    Redis,
}

/// What a limit does while Redis does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitOnRedisDown {
    /// Counts in this process.
    Local,
    /// Lets everybody pass.
    Allow,
    /// 503, worth trying again.
    Refuse,
}

/// Which fields tell clients where they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitHeaders {
    /// None but `Retry-After` on refusals.
    Off,
    /// `RateLimit` and `RateLimit-Policy`.
    Ratelimit,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    XRatelimit,
    /// All of them.
    Both,
}

/// A limit as a route charges it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitUse {
    /// The limit.
    #[serde(rename = "use")]
    pub limit: Word<String>,
    /// As how many requests one counts; of a text with variables that is no such number: 1. Default: 1.
    pub cost: Word<Template>,
}

impl FromShort for LimitUse {
    const SHORT_FORM: &'static str = "the name of a limit";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { limit: Word::new(text.to_owned()), ..Self::default() })
    }

    fn to_short(&self) -> Option<String> {
        self.cost.is_absent().then(|| self.limit.get().cloned()).flatten()
    }
}
