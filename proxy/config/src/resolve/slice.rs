//! Answers that are fetched and kept in parts.

use super::Resolver;
use crate::{defaults as d, plan, raw, units::Bytes};

impl Resolver<'_> {
    /// The length of a part; each of them is an entry of the rule's cache.
    pub(super) fn slice(&mut self, raw: &raw::CacheRule) -> Option<Bytes> {
        let (slice, at) = raw.slice.placed()?;
        let file = self.raw;
        let cache = raw.cache.get().and_then(|name| {
            let mut caches = file.caches.entries();
            caches.find(|(known, ..)| known == name).map(|(_, cache, _)| cache)
        });
        let most = cache.map(|cache| {
            let memory = cache.memory.or(d::CACHE_MEMORY);
            cache.entry_max.or(d::CACHE_ENTRY_MAX.min(memory))
        });
        if *slice < d::SLICE_MIN {
            self.report
                .error(at, format!("{slice} is too little for a slice"))
                .help(format!("at least {}; 1MiB costs few requests and little in vain", d::SLICE_MIN));
        }
        if let Some(at) = raw.partial.place().filter(|_| raw.partial.or(d::CACHE_PARTIAL)) {
            self.report
                .error(at, "`slice` keeps parts of its own length already")
                .help("remove `partial`, or `slice`");
        }
        if let Some(most) = most.filter(|most| slice > most) {
            self.report
                .error(at, format!("no slice would be kept: the cache's `entry_max` is {most}"))
                .help(format!("write `slice: {most}` or less, or a larger `entry_max`"));
        }
        Some(*slice)
    }

    /// What is kept in parts goes out as it is: parts of a compressed answer could not be had from it.
    pub(super) fn compress_sliced(
        &mut self,
        raw: &raw::Route,
        cache: Option<&plan::CacheRule>,
        compress: Option<plan::Compress>,
    ) -> Option<plan::Compress> {
        if cache.is_none_or(|rule| rule.slice.is_none()) {
            return compress;
        }
        if let Some(at) = raw.compress.place().filter(|_| compress.is_some()) {
            self.report
                .error(at, "answers that are kept in slices are not compressed")
                .help("remove `compress` here, or `cache.slice`");
        }
        None
    }
}
