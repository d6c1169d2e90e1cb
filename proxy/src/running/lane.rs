//! Which routes have an express lane: those whose hits are answered alike but for what [`crate::express`] fills in.

use std::sync::atomic::{AtomicU64, Ordering};

use weir_config::{
    Plan,
    plan::{Action, LimitHeaders, Route},
    template::Variable,
};

/// The express lane of one route of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane(u64);

impl Lane {
    /// The lane of a route, if the plan allows it and nothing in a hit needs to wait or to be rendered for each request.
    pub(super) fn of(route: &Route, plan: &Plan) -> Option<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let Action::Forward(forward) = &route.action else { return None };
        let is_plain = route.cache.as_ref().is_some_and(|rule| rule.slice.is_none())
            && forward.mirror.is_none()
            && route.limit_rate.is_none()
            && route.limits.iter().all(|used| plan.limits[used.limit.index()].headers == LimitHeaders::Off)
            // The client's codings would have to be weighed.
            && route.compress.is_none()
            && !route.gunzip
            // Of hits it says the same.
            && route.response_headers.iter().all(|(_, value)| {
                value.variables().all(|variable| *variable == Variable::CacheStatus)
            });
        (plan.express && is_plain).then(|| Self(NEXT.fetch_add(1, Ordering::Relaxed)))
    }

    /// Different for every route and generation of this process: what was prepared under it is of use to nobody else.
    #[must_use]
    pub fn id(self) -> u64 {
        self.0
    }
}
