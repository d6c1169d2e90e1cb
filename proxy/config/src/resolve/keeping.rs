//! What a route says about keeping answers beyond the RFCs.

use super::{Resolver, route::Scope};
use crate::{
    defaults as d, plan,
    raw::{CacheRule, List, Word},
    template::Template,
};

impl Resolver<'_> {
    pub(super) fn keeping(&mut self, raw: &CacheRule, scope: &Scope) -> plan::Keeping {
        let mut statuses = Vec::new();
        for (text, span, place) in raw.statuses.entries() {
            let range = if text == "any" { Some(200..=599) } else { self.statuses(text, place) };
            let Some(range) = range else { continue };
            if *range.start() < 200 || range == (304..=304) || range == (206..=206) {
                self.report
                    .error(place, format!("`{text}` is no whole answer: it is never kept"))
                    .help("write `404`, `500-599` or `any`");
            }
            statuses.push((range, span.get()));
        }
        statuses.sort_by_key(|(range, _)| range.end() - range.start());
        if let Some(place) = raw.ttl_applies.place().filter(|_| raw.ttl.is_absent() && statuses.is_empty()) {
            self.report.error(place, "there is neither `ttl` nor `statuses` that could apply");
        }
        plan::Keeping {
            statuses,
            ttl_applies: raw.ttl_applies.or(d::CACHE_TTL_APPLIES),
            ignore: raw.ignore.items().map(|(ignored, _)| *ignored).collect(),
            bypass: self.conditions(&raw.bypass, scope),
            no_store: self.conditions(&raw.no_store, scope),
            queries: self.queries(raw),
            min_uses: self.count(&raw.min_uses, d::CACHE_MIN_USES),
            convert_head: raw.convert_head.or(d::CACHE_CONVERT_HEAD),
            lock_age: Self::span(&raw.lock_age, d::CACHE_LOCK_AGE),
            stale_on: self.stale_on(raw),
            background_update: raw.background_update.or(d::CACHE_BACKGROUND_UPDATE),
            revalidate: raw.revalidate.or(d::CACHE_REVALIDATE),
            heuristics: raw.heuristics.or(d::CACHE_HEURISTICS),
        }
    }

    /// The failures that what is stale may cover.
    fn stale_on(&mut self, raw: &CacheRule) -> Vec<plan::RetryOn> {
        for (_, place) in raw.stale_on.items().filter(|(on, _)| **on == plan::RetryOn::NonIdempotent) {
            self.report
                .error(place, "`non_idempotent` is no failure")
                .help("it belongs to `retry.on` of an upstream");
        }
        if raw.stale_on.is_absent() {
            return d::CACHE_STALE_ON.to_vec();
        }
        raw.stale_on.items().map(|(on, _)| *on).collect()
    }

    /// Whether QUERY is named beside the methods that always are.
    fn queries(&mut self, raw: &CacheRule) -> bool {
        for (method, place) in raw.methods.items() {
            if !matches!(&**method, "GET" | "HEAD" | "QUERY") {
                self.report.error(place, format!("answers to `{method}` are not kept")).help(
                    "GET and HEAD always are, and QUERY, the safe method with a body, where it is named",
                );
            }
        }
        raw.methods.items().any(|(method, _)| method == "QUERY")
    }

    /// Templates that hold for some requests and not for others.
    fn conditions(&mut self, word: &Word<List<Template>>, scope: &Scope) -> Vec<Template> {
        let mut conditions = Vec::new();
        for (condition, place) in word.items() {
            self.check(condition, place, scope);
            if condition.variables().count() == 0 {
                self.report
                    .error(place, "this is the same for every request")
                    .help("ask for something of the request, such as `${cookie.preview}`");
            }
            conditions.push(condition.clone());
        }
        conditions
    }
}
