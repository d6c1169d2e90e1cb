//! The same questions as [`super::decide`], asked for an operator who wants to know: nothing is charged, counted or asked of
//! an origin.

use weir_config::plan::RouteId;

use super::{Passed, anonymous, refusal_of};
use crate::{
    auth::{Caller, Whose},
    cache::Now,
    refusal::Refusal,
    request::{Facts, RequestView},
    route::Found,
    running::Running,
};

/// What would become of a request.
#[derive(Debug)]
pub struct Rehearsal {
    /// The route, also of a request that it would refuse.
    pub route: Option<RouteId>,
    /// What is known of the caller.
    pub seen: Seen,
    /// Go on, or say no. Limits are taken to have room, and a session that only an origin could confirm to be none.
    pub verdict: Result<Passed, Refusal>,
}

/// What is known of a caller without asking an origin.
#[derive(Debug)]
pub enum Seen {
    /// The route does not ask.
    Unasked,
    /// The request has no token.
    Nothing,
    /// It is somebody's, or nobody's.
    Known(Whose),
    /// Only an origin could say, and it is not asked.
    Unsure,
    /// Redis does not answer.
    Unavailable,
}

impl Rehearsal {
    /// Finds out.
    pub async fn of(running: &Running, request: &RequestView, now: Now) -> Self {
        let no = |refusal| Self { route: None, seen: Seen::Unasked, verdict: Err(refusal) };
        let matched =
            match running.router.find(request.host(), &request.path, &request.method, &request.headers) {
                Found::Route(matched) => matched,
                Found::MethodNotAllowed(allow) => {
                    return no(Refusal::Method(allow.to_str().unwrap_or_default().to_owned()));
                }
                Found::NotFound => return no(Refusal::NoRoute),
            };
        let (id, params) = (matched.route, matched.params);
        let seen = seen(running, id, anonymous(request, &params), now).await;
        let passed = |caller| Passed { route: id, params, caller };
        let verdict = if running.access(id).is_some_and(|access| access.check(request.client).is_err()) {
            Err(Refusal::Address)
        } else {
            let admit =
                |whose, rule| Caller::admit(whose, rule).map_err(|denied| refusal_of(denied, || None));
            match (&seen, &running.plan.routes[id.index()].session) {
                (Seen::Unavailable, _) => Err(Refusal::SessionsDown),
                (Seen::Known(whose), Some(rule)) => admit(whose.clone(), rule),
                (Seen::Nothing, Some(rule)) => admit(Whose::Nobody(None), rule),
                _ => Ok(Caller::Anonymous),
            }
            .map(passed)
        };
        Self { route: Some(id), seen, verdict }
    }
}

async fn seen(running: &Running, id: RouteId, facts: Facts<'_>, now: Now) -> Seen {
    let Some(rule) = &running.plan.routes[id.index()].session else { return Seen::Unasked };
    let Some(claim) = running.claim(rule, &facts) else { return Seen::Nothing };
    match running.known_session(rule, &claim, now.wall).await {
        Err(_) => Seen::Unavailable,
        Ok(None) => Seen::Unsure,
        Ok(Some(whose)) => Seen::Known(whose),
    }
}
