//! The look into the cache, once a request has passed.

use weir_config::plan::{CacheRule, Forward};

use super::Passed;
use crate::{
    cache::{Key, Lookup, Now, RequestHead, Rule},
    refusal::Refusal,
    request::RequestView,
    running::Running,
};

/// What a request was looked up by, and what was found. It was counted.
#[derive(Debug)]
pub struct Looked {
    /// The key.
    pub key: Key,
    /// What there is under it.
    pub lookup: Lookup,
}

impl Passed {
    /// Looks the request up, and counts that.
    ///
    /// # Errors
    /// As [`Passed::key`].
    pub fn look_up(
        &self,
        running: &Running,
        request: &RequestView,
        (rule, policy): (&CacheRule, &Rule),
        forward: &Forward,
        now: Now,
    ) -> Result<Looked, Refusal> {
        let key = self.key(request, rule, forward)?;
        let head =
            RequestHead { method: &request.method, headers: &request.headers, has_body: request.has_body };
        let lookup = running.caches[rule.cache.index()].lookup(&key, &head, policy, now);
        running.count_lookup(rule.cache, &lookup);
        Ok(Looked { key, lookup })
    }
}
