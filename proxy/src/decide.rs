//! What both lanes ask first: which route is this, may it pass, who asks? The steps in the order of the path, each
//! ending the journey or handing its proof to the next.
//!
//! [`Passed`] can only be made here. What lies behind (the route's action, its cache rule, its upstream) is reached
//! through it, so that a step that was left out would have nothing to forward.

mod doubts;
mod keyed;
mod purging;
mod rehearsal;

use std::{borrow::Cow, sync::Arc};

use http::Method;
use weir_config::{
    plan::{Action, LimitId, Route, RouteId},
    template::{Values, Variable},
};

pub use self::rehearsal::{Rehearsal, Seen};
use crate::{
    accept::BadRequest,
    auth::{Caller, Denied, Session},
    cache::Now,
    limit,
    refusal::Refusal,
    request::{Facts, RequestView},
    route::{Found, Matched, Params},
    running::Running,
};

/// What was found out, and what follows from it.
#[derive(Debug)]
pub struct Decision {
    /// The route, also of a request that it refused.
    pub route: Option<RouteId>,
    /// Who asks, also when that was not enough.
    pub caller: Option<Arc<Session>>,
    /// Go on, or say no.
    pub verdict: Result<Passed, Refusal>,
}

/// A request that was routed, admitted and, where its route asks for that, authenticated.
#[derive(Debug, Clone)]
pub struct Passed {
    route: RouteId,
    params: Params,
    caller: Caller,
}

impl Passed {
    /// Which route.
    #[must_use]
    pub fn route_id(&self) -> RouteId {
        self.route
    }

    /// Its rules.
    #[must_use]
    pub fn route<'r>(&self, running: &'r Running) -> &'r Route {
        &running.plan.routes[self.route.index()]
    }

    /// What is done with it.
    #[must_use]
    pub fn action<'r>(&self, running: &'r Running) -> &'r Action {
        &self.route(running).action
    }

    /// Who asks.
    #[must_use]
    pub fn caller(&self) -> Option<&Arc<Session>> {
        self.caller.session()
    }

    /// What its path captured.
    #[must_use]
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// What templates can ask about it.
    #[must_use]
    pub fn facts<'a>(&'a self, request: &'a RequestView) -> Facts<'a> {
        Facts { request, params: &self.params, caller: self.caller.session().map(|session| &**session) }
    }
}

/// Routes, admits and authenticates one request. Waits only for a session that is not in memory.
pub async fn decide(running: &Running, request: &RequestView, now: Now) -> Decision {
    let matched = match running.router.find(&request.host, &request.path, &request.method, &request.headers) {
        Found::Route(matched) => matched,
        // To no upstream that anybody names: this is no open proxy.
        _ if request.method == Method::CONNECT => {
            return Decision::refused(Refusal::Bad(BadRequest::ConnectRefused));
        }
        Found::MethodNotAllowed(allow) => {
            return Decision::refused(Refusal::Method(allow.to_str().unwrap_or_default().to_owned()));
        }
        Found::NotFound => return Decision::refused(Refusal::NoRoute),
    };
    let mut caller = None;
    let route = Some(matched.route);
    let verdict = pass(running, request, matched, &mut caller, now).await;
    Decision { route, caller, verdict }
}

async fn pass(
    running: &Running,
    request: &RequestView,
    matched: Matched,
    found: &mut Option<Arc<Session>>,
    now: Now,
) -> Result<Passed, Refusal> {
    let id = matched.route;
    if let Some(access) = running.access(id) {
        access.check(request.client).map_err(|_| Refusal::Address)?;
    }
    let route = &running.plan.routes[id.index()];
    // Before anybody is authenticated: the abuser's cost stays one look-up in a table.
    charge(running, &route.limits, Facts { request, params: &matched.params, caller: None }, now)?;
    let caller = match &route.session {
        None => Caller::Anonymous,
        Some(rule) => {
            let session = running.validate(rule, &request.headers, now.wall).await;
            *found = session.map_err(|_| Refusal::SessionsDown)?;
            Caller::admit(found.clone(), rule).map_err(refusal_of)?
        }
    };
    Ok(Passed { route: id, params: matched.params, caller })
}

fn refusal_of(denied: Denied) -> Refusal {
    match denied {
        Denied::Unauthenticated => Refusal::NoSession,
        Denied::Forbidden => Refusal::Role,
    }
}

/// Charges some of a route's limits, all or none of them.
fn charge(running: &Running, limits: &[LimitId], facts: Facts<'_>, now: Now) -> Result<(), Refusal> {
    if limits.is_empty() {
        return Ok(());
    }
    let keys: Vec<_> = limits
        .iter()
        .map(|&id| {
            let mut key = String::with_capacity(48);
            running.plan.limits[id.index()].key.render_key(&Counted(facts), &mut key);
            (id, key)
        })
        .collect();
    let verdict = running.limits.admit(keys.iter().map(|(id, key)| (*id, key.as_str())), now.mono);
    let refused = verdict.as_ref().err().map(|over| over.limit);
    for &id in limits {
        running.count_limit(id, refused != Some(id));
        if refused == Some(id) {
            break;
        }
    }
    verdict.map(drop).map_err(|over| Refusal::Limited { retry_after: over.retry_after })
}

/// A request's facts for counting: a client with an IPv6 network of its own is one client.
struct Counted<'a>(Facts<'a>);

impl Values for Counted<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::ClientIp => Some(limit::key::client(self.0.request.client).to_string().into()),
            other => self.0.value(other),
        }
    }
}

impl Decision {
    fn refused(refusal: Refusal) -> Self {
        Self { route: None, caller: None, verdict: Err(refusal) }
    }
}
