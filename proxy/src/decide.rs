//! What both lanes ask first: which route is this, may it pass, who asks? The steps in the order of the path, each
//! ending the journey or handing its proof to the next.
//!
//! [`Passed`] can only be made here. What lies behind (the route's action, its cache rule, its upstream) is reached
//! through it, so that a step that was left out would have nothing to forward.

mod charged;
mod doubts;
mod dressed;
mod keyed;
mod login;
mod looked;
mod purging;
mod rehearsal;

use std::sync::Arc;

use http::Method;
use weir_config::plan::{Action, Route, RouteId};

use self::charged::{Charged, charge, settle};
pub use self::{
    dressed::{CACHE_STATUS, frame_by_length},
    looked::{Looked, look_deeper, look_up},
    purging::kept,
    rehearsal::{Rehearsal, Seen},
};
use crate::{
    accept::BadRequest,
    auth::{Caller, Claim, Denied, No, Session, Whose},
    cache::Now,
    limit::{Admitted, Tally},
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
    /// What it was charged; of a request that a limit refused, where it stands.
    pub admitted: Admitted,
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
    /// To a question that somebody else answers, or until its turn comes.
    Wait(Waiting),
}

/// A request that was routed, and what it was charged so far.
#[derive(Debug)]
pub struct Waiting {
    matched: Matched,
    admitted: Admitted,
    wants: Wants,
}

/// What a request waits for.
#[derive(Debug)]
enum Wants {
    /// That its limits have room for it.
    Room(Tally),
    /// Whose claim this is.
    Session(Claim),
    /// That the limits on its caller have room.
    CallersRoom(Tally, Caller),
}

/// Routes, admits and authenticates one request, as far as that goes without waiting.
#[must_use]
pub fn decide(running: &Running, request: &RequestView, now: Now) -> Decided {
    let matched = match running.router.find(request.host(), &request.path, &request.method, &request.headers)
    {
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
    if running.access(matched.route).is_some_and(|access| access.check(request.client).is_err()) {
        return Decided::Now(Decision::no(&matched, None, Admitted::default(), Refusal::Address));
    }
    // Before anybody is authenticated: the abuser's cost stays one look-up in a table.
    let facts = anonymous(request, &matched.params);
    match charge(running, matched.route, false, facts, now.mono) {
        Charged::Admitted(admitted) => authenticate(running, request, matched, admitted, now),
        Charged::Waits(tally) => {
            Decided::Wait(Waiting { matched, admitted: Admitted::default(), wants: Wants::Room(tally) })
        }
        Charged::Refused(refusal, admitted) => Decided::Now(Decision::no(&matched, None, admitted, refusal)),
    }
}

/// Finds out who asks, where the route wants to know.
fn authenticate(
    running: &Running,
    request: &RequestView,
    matched: Matched,
    admitted: Admitted,
    now: Now,
) -> Decided {
    let Some(rule) = &running.plan.routes[matched.route.index()].session else {
        return Decided::Now(Decision::go(matched, Caller::Anonymous, admitted));
    };
    let facts = anonymous(request, &matched.params);
    match running.validate_from_memory(rule, &facts, now.wall) {
        Ok(whose) => admit_caller(running, request, matched, admitted, whose, now),
        Err(claim) => Decided::Wait(Waiting { matched, admitted, wants: Wants::Session(claim) }),
    }
}

/// Whether the route takes this caller, and the limits on callers have room.
fn admit_caller(
    running: &Running,
    request: &RequestView,
    matched: Matched,
    admitted: Admitted,
    whose: Whose,
    now: Now,
) -> Decided {
    let Some(rule) = &running.plan.routes[matched.route.index()].session else {
        return Decided::refused(Refusal::Internal);
    };
    let session = match &whose {
        Whose::Session(session) => Some(Arc::clone(session)),
        Whose::Nobody(_) => None,
    };
    let caller = match Caller::admit(whose, rule) {
        Ok(caller) => caller,
        Err(denied) => {
            let facts = anonymous(request, &matched.params);
            let refusal = refusal_of(denied, || login::location(rule, request, facts));
            return Decided::Now(Decision::no(&matched, session, admitted, refusal));
        }
    };
    let facts = Facts {
        request,
        params: &matched.params,
        caller: caller.session().map(|session| &**session),
        cache: "",
    };
    match charge(running, matched.route, true, facts, now.mono) {
        Charged::Admitted(more) => Decided::Now(Decision::go(matched, caller, admitted.and(more))),
        Charged::Waits(tally) => {
            Decided::Wait(Waiting { matched, admitted, wants: Wants::CallersRoom(tally, caller) })
        }
        Charged::Refused(refusal, more) => {
            Decided::Now(Decision::no(&matched, session, admitted.and(more), refusal))
        }
    }
}

impl Decided {
    /// The route, where one was found.
    #[must_use]
    pub fn route(&self) -> Option<RouteId> {
        match self {
            Self::Now(decision) => decision.route,
            Self::Wait(waiting) => Some(waiting.matched.route),
        }
    }

    /// The decision, when whoever knows the session has said so and the limits have room. May be dropped when the client has left.
    pub async fn end(mut self, running: &Running, request: &RequestView) -> Decision {
        loop {
            let Waiting { matched, admitted, wants } = match self {
                Self::Now(decision) => return decision,
                Self::Wait(waiting) => waiting,
            };
            self = match wants {
                Wants::Room(tally) => match Box::pin(settle(running, tally)).await {
                    Ok(more) => authenticate(running, request, matched, admitted.and(more), Now::read()),
                    Err((refusal, more)) => return Decision::no(&matched, None, admitted.and(more), refusal),
                },
                Wants::Session(claim) => {
                    let Some(rule) = &running.plan.routes[matched.route.index()].session else {
                        return Decision::no(&matched, None, admitted, Refusal::Internal);
                    };
                    match running.validate(rule, &claim, Now::read().wall).await {
                        Ok(whose) => admit_caller(running, request, matched, admitted, whose, Now::read()),
                        Err(_) => return Decision::no(&matched, None, admitted, Refusal::SessionsDown),
                    }
                }
                Wants::CallersRoom(tally, caller) => match Box::pin(settle(running, tally)).await {
                    Ok(more) => return Decision::go(matched, caller, admitted.and(more)),
                    Err((refusal, more)) => {
                        let session = caller.session().cloned();
                        return Decision::no(&matched, session, admitted.and(more), refusal);
                    }
                },
            };
        }
    }

    fn refused(refusal: Refusal) -> Self {
        let admitted = Admitted::default();
        Self::Now(Decision { route: None, caller: None, admitted, verdict: Err(refusal) })
    }
}

impl Decision {
    fn go(matched: Matched, caller: Caller, admitted: Admitted) -> Self {
        let session = caller.session().cloned();
        let passed = Passed { route: matched.route, params: matched.params, caller };
        Self { route: Some(passed.route), caller: session, admitted, verdict: Ok(passed) }
    }

    fn no(matched: &Matched, caller: Option<Arc<Session>>, admitted: Admitted, refusal: Refusal) -> Self {
        Self { route: Some(matched.route), caller, admitted, verdict: Err(refusal) }
    }
}

/// What templates can ask about a request before its caller is known.
fn anonymous<'a>(request: &'a RequestView, params: &'a Params) -> Facts<'a> {
    Facts { request, params, caller: None, cache: "" }
}

/// What a caller hears who may not pass; `login` is where those without a session are sent.
fn refusal_of(denied: Denied, login: impl FnOnce() -> Option<String>) -> Refusal {
    match denied {
        Denied::Unauthenticated => login().map_or(Refusal::NoSession, Refusal::Login),
        Denied::Forbidden => Refusal::Role,
        Denied::Said(no) => match &*no {
            No::Challenge(with) => login().map_or_else(|| Refusal::Challenged(with.clone()), Refusal::Login),
            No::Forbid => Refusal::Forbidden,
        },
    }
}
