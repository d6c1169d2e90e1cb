//! PURGE is said to a cache, so a route that keeps answers never passes it on: an origin that says 200 to everything would
//! let any stranger empty the cache with it.

use http::Method;
use weir_config::plan::{Action, CacheId, RouteId};

use super::Passed;
use crate::{
    auth::{Caller, access::Access},
    cache::Key,
    refusal::Refusal,
    request::RequestView,
    route::{Found, Matched},
    running::Running,
};

/// The methods that people say to caches: nginx's and Varnish's word, and Varnish's other one.
const WORDS: [&str; 2] = ["PURGE", "BAN"];

/// Where the answer to a GET of this request's URL is kept for `caller`, if its route keeps any.
pub fn kept(running: &Running, request: &RequestView, caller: Caller) -> Option<(CacheId, Key)> {
    let Found::Route(Matched { route, params }) =
        running.router.find(request.host(), &request.path, &Method::GET, &request.headers)
    else {
        return None;
    };
    let plan = &running.plan.routes[route.index()];
    let (Some(rule), Action::Forward(forward)) = (&plan.cache, &plan.action) else { return None };
    let get = RequestView { method: Method::GET, ..RequestView::clone(request) };
    let key = Passed { route, params, caller }.key(&get, rule, forward).ok()?;
    Some((rule.cache, key))
}

impl Passed {
    /// Whether a request is a PURGE for us, and may be one: the route is the one that answers GET.
    ///
    /// `None`: it is a method like any other, because nothing is kept there or a route names it.
    ///
    /// # Errors
    /// 405 where nobody may purge, 403 for those who may not; with the route that says so.
    pub fn purging(running: &Running, request: &RequestView) -> Option<Result<Self, (RouteId, Refusal)>> {
        if !WORDS.contains(&request.method.as_str()) {
            return None;
        }
        let find = |method: &Method| match running.router.find(
            request.host(),
            &request.path,
            method,
            &request.headers,
        ) {
            Found::Route(matched) => Some(matched),
            Found::MethodNotAllowed(_) | Found::NotFound => None,
        };
        let methods = |matched: &Matched| &running.plan.routes[matched.route.index()].when.methods;
        if find(&request.method).is_some_and(|matched| methods(&matched).contains(&request.method)) {
            return None;
        }
        let matched = find(&Method::GET)?;
        let rule = running.plan.routes[matched.route.index()].cache.as_ref()?;
        Some(match rule.purge.as_ref().filter(|_| request.method.as_str() == WORDS[0]) {
            None => Err((matched.route, Refusal::Method("GET, HEAD".to_owned()))),
            Some(purge) if Access::new(&purge.allow, &[]).check(request.client).is_err() => {
                Err((matched.route, Refusal::Address))
            }
            Some(_) => Ok(Self { route: matched.route, params: matched.params, caller: Caller::Anonymous }),
        })
    }

    /// Where the answer to a GET of this request's URL is kept, for this request's caller: a key need not have all of the URL, so
    /// it may have been fetched for another.
    #[must_use]
    pub fn kept(&self, running: &Running, request: &RequestView) -> Option<(CacheId, Key)> {
        kept(running, request, self.caller.clone())
    }
}
