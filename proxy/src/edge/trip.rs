//! What a request that passed is, and what its route says of it.

use std::sync::Arc;

use weir_config::plan::{Forward, Route};

use crate::{
    accept::Arrival,
    auth::Token,
    coding::{self, Asked},
    decide::Passed,
    forward::upgrade::Upgrade,
    request::RequestView,
    running::Running,
    state::Held,
};

/// What every step of one journey reads: the state it began with, the request, and the proof that it passed.
#[derive(Clone)]
pub(super) struct Trip {
    pub(super) snapshot: Held,
    pub(super) request: Arc<RequestView>,
    pub(super) passed: Arc<Passed>,
}

impl Trip {
    /// The state that was in force when it began.
    pub(super) fn running(&self) -> &Running {
        &self.snapshot.running
    }

    /// The rules of its route.
    pub(super) fn route(&self) -> &Route {
        self.passed.route(self.running())
    }

    /// The upgrade that is passed on: one that was asked for, and that the route takes.
    pub(super) fn upgrade(&self, forward: &Forward) -> Option<&Upgrade> {
        let upgrade = self.request.upgrade.as_ref()?;
        let name = upgrade.name();
        forward.upgrades.iter().any(|known| *known == name).then_some(upgrade)
    }

    /// See [`coding::resumes_by_date`].
    pub(super) fn resumes_by_date(&self) -> bool {
        let route = self.route();
        coding::resumes_by_date(route.compress.as_ref(), route.gunzip, &self.asked())
    }

    /// What the coding of an answer depends on.
    pub(super) fn asked(&self) -> Asked<'_> {
        let request = &self.request;
        Asked {
            method: &request.method,
            version: request.version,
            headers: &request.headers,
            has_session: self.route().session.is_some(),
        }
    }

    /// The token that the request shows, also one that is nobody's.
    pub(super) fn token(&self) -> Option<Token> {
        self.running().token(self.route().session.as_ref()?, &self.request.headers)
    }

    /// The largest request body: the route's own bound, else the listener's; 0 is none.
    pub(super) fn body_limit(&self, arrival: &Arrival) -> u64 {
        let listener = self.running().plan.listener(arrival.connection.listener);
        let own = self.route().body_bytes.or(listener.map(|listener| listener.bounds.body_bytes));
        own.map_or(0, |bytes| bytes.get())
    }
}
