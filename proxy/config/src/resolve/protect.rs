//! How an upstream outlives its servers' failures: retries, outliers.

use super::Resolver;
use crate::{
    defaults as d, plan,
    raw::{self, Short, Switch, Word},
};

impl Resolver<'_> {
    pub(super) fn retry(&mut self, raw: &raw::Retry) -> plan::Retry {
        let on = match raw.on.get() {
            Some(_) => raw.on.items().map(|(on, _)| *on).collect(),
            None => d::RETRY_ON.to_vec(),
        };
        plan::Retry {
            on,
            tries: self.count(&raw.tries, d::RETRY_TRIES),
            timeout: self.time(&raw.timeout, d::RETRY_TIMEOUT),
            budget: raw.budget.or(d::RETRY_BUDGET),
            floor: raw.floor.or(d::RETRY_FLOOR),
        }
    }

    pub(super) fn outlier(&mut self, word: &Word<Short<Switch<raw::Outlier>>>) -> Option<plan::Outlier> {
        let default = raw::Outlier::default();
        let raw = match word {
            Word::Given(Short(Switch::Off), _) => return None,
            Word::Given(Short(Switch::On(outlier)), _) => outlier,
            Word::Absent | Word::Wrong(_) => &default,
        };
        let ejection = self.time(&raw.ejection, d::OUTLIER_EJECTION);
        let max_ejection = self.time(&raw.max_ejection, d::OUTLIER_MAX_EJECTION.max(ejection));
        if let Some(place) = raw.max_ejection.place().filter(|_| max_ejection < ejection) {
            self.report.error(place, "the longest rest is shorter than the first (`ejection`)");
        }
        Some(plan::Outlier {
            window: self.time(&raw.window, d::OUTLIER_WINDOW),
            requests: self.count(&raw.requests, d::OUTLIER_REQUESTS),
            errors: raw.errors.or(d::OUTLIER_ERRORS),
            latency: raw.latency.or(d::OUTLIER_LATENCY),
            silence: Self::span(&raw.silence, d::OUTLIER_SILENCE),
            ejection,
            max_ejection,
            max_ejected: raw.max_ejected.or(d::OUTLIER_MAX_EJECTED),
        })
    }
}
