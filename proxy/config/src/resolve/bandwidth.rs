//! How much of a message is held, and how fast it goes.

use super::Resolver;
use crate::{
    defaults as d,
    plan::LimitRate,
    raw::{Route, Word},
    units::Bytes,
};

impl Resolver<'_> {
    /// Bytes held for one request under way.
    pub(super) fn buffer(&mut self, word: &Word<Bytes>, default: Bytes) -> Bytes {
        if let Some((bytes, at)) = word.placed()
            && *bytes > d::BUFFER_MAX
        {
            let message = format!("`{bytes}` for each request under way would soon be all the memory");
            self.report.error(at, message).help(format!("at most {}; what is longer streams", d::BUFFER_MAX));
        }
        word.or(default)
    }

    pub(super) fn limit_rate(&mut self, raw: &Route) -> Option<LimitRate> {
        let per_second = raw.limit_rate.or(Bytes::new(0));
        if let Some(at) = raw.limit_rate_after.place().filter(|_| per_second.get() == 0) {
            self.report.error(at, "there is no `limit_rate` that could begin after this");
        }
        let after = raw.limit_rate_after.or(Bytes::new(0));
        (per_second.get() > 0).then_some(LimitRate { per_second, after })
    }
}
