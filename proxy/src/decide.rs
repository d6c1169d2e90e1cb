//! What both lanes ask first: which route is this, may it pass, who asks? The steps in the order of the path, each
//! ending the journey or handing its proof to the next.
//!
//! [`Passed`] can only be made here. What lies behind (the route's action, its cache rule, its upstream) is reached
//! through it, so that a step that was left out would have nothing to forward.

mod doubts;
mod dressed;
mod keyed;
mod looked;
mod purging;
mod rehearsal;

use std::{borrow::Cow, sync::Arc};

use http::Method;
use weir_config::{
    plan::{Action, LimitId, Route, RouteId, SessionRule},
    template::{Values, Variable},
};

pub use self::{
    dressed::{CACHE_STATUS, frame_by_length},
    looked::{Looked, look_up},
    rehearsal::{Rehearsal, Seen},
};
use crate::{
    accept::BadRequest,
    auth::{Caller, Denied, Session, Token},
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
        Facts {
            request,
            params: &self.params,
            caller: self.caller.session().map(|session| &**session),
            cache: "",
        }
    }
}

/// How far a request comes without waiting.
#[derive(Debug)]
pub enum Decided {
    /// To the end.
    Now(Decision),
    /// To the question whose token it has: routed and admitted.
    Wait(Waiting),
}

/// A request that was routed and admitted, and whose session is not in memory.
#[derive(Debug)]
pub struct Waiting {
    matched: Matched,
    token: Token,
}

/// Routes, admits and authenticates one request, as far as that goes without waiting.
#[must_use]
pub fn decide(running: &Running, request: &RequestView, now: Now) -> Decided {
    let matched = match running.router.find(&request.host, &request.path, &request.method, &request.headers) {
        Found::Route(matched) => matched,
        // To no upstream that anybody names: this is no open proxy.
        _ if request.method == Method::CONNECT => {
            return Decided::refused(Refusal::Bad(BadRequest::ConnectRefused));
        }
        Found::MethodNotAllowed(allow) => {
            return Decided::refused(Refusal::Method(allow.to_str().unwrap_or_default().to_owned()));
        }
        Found::NotFound => return Decided::refused(Refusal::NoRoute),
    };
    let (id, rule) = (matched.route, &running.plan.routes[matched.route.index()].session);
    let decision = |caller, verdict| Decided::Now(Decision { route: Some(id), caller, verdict });
    if let Err(refusal) = admit(running, request, &matched, now) {
        return decision(None, Err(refusal));
    }
    let Some(rule) = rule else {
        let passed = Passed { route: id, params: matched.params, caller: Caller::Anonymous };
        return decision(None, Ok(passed));
    };
    match running.validate_from_memory(rule, &request.headers, now.wall) {
        Ok(session) => Decided::Now(ask_for(matched, session, rule)),
        Err(token) => Decided::Wait(Waiting { matched, token }),
    }
}

impl Decided {
    /// The decision, when whoever knows the session has said so.
    pub async fn end(self, running: &Running, now: Now) -> Decision {
        let Waiting { matched, token } = match self {
            Self::Now(decision) => return decision,
            Self::Wait(waiting) => waiting,
        };
        let route = matched.route;
        let no = |refusal| Decision { route: Some(route), caller: None, verdict: Err(refusal) };
        let Some(rule) = &running.plan.routes[route.index()].session else { return no(Refusal::Internal) };
        match running.validate(rule, &token, now.wall).await {
            Ok(session) => ask_for(matched, session, rule),
            Err(_) => no(Refusal::SessionsDown),
        }
    }

    fn refused(refusal: Refusal) -> Self {
        Self::Now(Decision { route: None, caller: None, verdict: Err(refusal) })
    }
}

/// Whether the route takes a caller with this session, or with none.
fn ask_for(matched: Matched, session: Option<Arc<Session>>, rule: &SessionRule) -> Decision {
    let caller = Caller::admit(session.clone(), rule);
    let verdict = caller.map(|caller| Passed { route: matched.route, params: matched.params, caller });
    Decision { route: Some(matched.route), caller: session, verdict: verdict.map_err(refusal_of) }
}

/// Whether a request may ask at all. Before anybody is authenticated: the abuser's cost stays one look-up in a table.
fn admit(running: &Running, request: &RequestView, matched: &Matched, now: Now) -> Result<(), Refusal> {
    if let Some(access) = running.access(matched.route) {
        access.check(request.client).map_err(|_| Refusal::Address)?;
    }
    let limits = &running.plan.routes[matched.route.index()].limits;
    charge(running, limits, Facts { request, params: &matched.params, caller: None, cache: "" }, now)
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
