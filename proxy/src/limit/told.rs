//! What others are told of a limit: clients, in the fields of answers, and Redis, in the names of its keys.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::digest::{SHA256, digest};
use weir_config::{
    plan::{Counting, LimitHeaders},
    template::{Template, Variable},
};

/// draft-ietf-httpapi-ratelimit-headers-11.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What most APIs had before there was a draft; `Reset` is in seconds from now, as there.
const X_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const X_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const X_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// A key in Redis is no longer than that, but for the name of the limit.
const NAME_BYTES: usize = 128;

/// Where a key stands in a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    headers: LimitHeaders,
    name: Arc<str>,
    most: u32,
    /// In which time `most` comes back; `None` of a limit on requests at once.
    window: Option<Duration>,
    remaining: u32,
    reset: Duration,
}

impl Standing {
    pub(super) fn new(
        headers: LimitHeaders,
        name: &Arc<str>,
        counting: &Counting,
        remaining: u32,
        reset: Duration,
    ) -> Self {
        let window = match counting {
            Counting::Steady { rate, burst, .. } => {
                Some((rate.per / rate.count.get()).saturating_mul(burst.get()))
            }
            Counting::Sliding { rate } => Some(rate.per),
            Counting::Concurrent { .. } => None,
        };
        Self { headers, name: Arc::clone(name), most: counting.most().get(), window, remaining, reset }
    }

    /// Puts what clients are told of these into the fields of an answer.
    pub fn tell(all: &[Self], fields: &mut HeaderMap) {
        let (mut now, mut policy) = (String::new(), String::new());
        for standing in all.iter().filter(|standing| standing.headers != LimitHeaders::XRatelimit) {
            standing.put(&mut now, &mut policy);
        }
        for (name, value) in [(RATE_LIMIT, now), (RATE_LIMIT_POLICY, policy)] {
            if let Some(value) = HeaderValue::try_from(value).ok().filter(|value| !value.is_empty()) {
                fields.insert(name, value);
            }
        }
        // These have room for one limit: the one that will refuse first.
        let old = all.iter().filter(|standing| standing.headers != LimitHeaders::Ratelimit);
        if let Some(tightest) = old.min_by_key(|standing| standing.remaining) {
            fields.insert(X_LIMIT, tightest.most.into());
            fields.insert(X_REMAINING, tightest.remaining.into());
            fields.insert(X_RESET, seconds(tightest.reset).into());
        }
    }

    /// As members of lists (RFC 9651 §3.1).
    fn put(&self, now: &mut String, policy: &mut String) {
        let comma = if now.is_empty() { "" } else { ", " };
        // A String has printable ASCII alone (§3.3.3); who writes another breaks the whole field.
        let is_odd = |letter: char| !matches!(letter, ' '..='~') || matches!(letter, '"' | '\\');
        let name = self.name.replace(is_odd, "_");
        // Writing to a string does not fail.
        _ = write!(now, "{comma}\"{name}\";r={}", self.remaining);
        _ = write!(policy, "{comma}\"{name}\";q={}", self.most);
        match self.window {
            Some(window) => {
                _ = write!(now, ";t={}", seconds(self.reset));
                _ = write!(policy, ";w={}", seconds(window).max(1));
            }
            None => policy.push_str(";qu=\"concurrent-requests\""),
        }
    }
}

fn seconds(span: Duration) -> u64 {
    span.as_secs() + u64::from(span.subsec_nanos() > 0)
}

/// Whether a key may be read by those who read Redis: nothing that a client might keep secret.
pub(super) fn is_plain(key: &Template) -> bool {
    key.variables().all(|variable| {
        !matches!(
            variable,
            Variable::Header(_)
                | Variable::Cookie(_)
                | Variable::Query(_)
                | Variable::QueryString
                | Variable::Target
                | Variable::Token
        )
    })
}

/// The name in Redis: `rate_limit:{ip}:{endpoint}`, where the limit's name is the endpoint. What may be a secret, or is too long, is
/// hashed.
pub(super) fn in_redis(key: &str, is_plain: bool, limit: &str) -> String {
    if is_plain && key.len() <= NAME_BYTES {
        return format!("rate_limit:{key}:{limit}");
    }
    let hash = digest(&SHA256, key.as_bytes());
    let mut name = "rate_limit:".to_owned();
    for byte in &hash.as_ref()[..16] {
        _ = write!(name, "{byte:02x}");
    }
    name + ":" + limit
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    fn standing(headers: LimitHeaders, name: &str, counting: &str, remaining: u32) -> Standing {
        let counting = match counting.parse::<u32>() {
            Ok(most) => Counting::Concurrent { most: most.try_into().unwrap() },
            Err(_) => Counting::Sliding { rate: counting.parse().unwrap() },
        };
        Standing::new(headers, &name.into(), &counting, remaining, Duration::from_millis(1500))
    }

    fn told(all: &[Standing]) -> Vec<(String, String)> {
        let mut fields = HeaderMap::new();
        Standing::tell(all, &mut fields);
        let mut told: Vec<_> = fields
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        told.sort();
        told
    }

    #[test]
    fn the_drafts_fields_tell_of_every_limit() {
        let all = [
            standing(LimitHeaders::Ratelimit, "api", "100/15m", 7),
            standing(LimitHeaders::Both, "one_address", "3", 2),
        ];
        let fields = told(&all);
        assert_eq!(fields[0].1, r#""api";r=7;t=2, "one_address";r=2"#);
        assert_eq!(fields[1].1, r#""api";q=100;w=900, "one_address";q=3;qu="concurrent-requests""#);
        assert_eq!(fields[2], ("x-ratelimit-limit".into(), "3".into()), "of those that say so");
    }

    #[test]
    fn a_name_that_no_field_can_hold_breaks_none() {
        let fields = told(&[standing(LimitHeaders::Ratelimit, "gr\u{f6}\u{df}e \"1\"", "100/15m", 7)]);
        assert_eq!(fields[0].1, r#""gr__e _1_";r=7;t=2"#);
    }

    #[test]
    fn the_old_fields_tell_of_the_tightest_limit() {
        let all = [
            standing(LimitHeaders::XRatelimit, "api", "100/15m", 7),
            standing(LimitHeaders::XRatelimit, "login", "20/m", 3),
        ];
        let values: Vec<_> = told(&all).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["20", "3", "2"]);
        assert!(told(&[]).is_empty());
    }

    #[test]
    fn a_key_in_redis_tells_no_secret_and_is_short() {
        let is_plain = |key: &str| is_plain(&key.parse().unwrap());
        assert!(is_plain("${client.ip}:${request.path}") && is_plain("${session.user_id}"));
        assert!(!is_plain("${header.x-api-key}") && !is_plain("${client.ip}:${cookie.sid}"));
        assert_eq!(in_redis("192.0.2.1", true, "api"), "rate_limit:192.0.2.1:api");
        let hashed = in_redis("secret", false, "api");
        assert!(hashed.len() == "rate_limit::api".len() + 32 && !hashed.contains("secret"));
        assert!(in_redis(&"x".repeat(9999), true, "api").len() < 64);
    }
}
