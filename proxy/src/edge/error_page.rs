//! Error pages: what a route shows instead of our own short text, and, where it says so, instead of the origin's errors.

use http::{HeaderMap, StatusCode, header};

use super::{Edge, Ended, Trip, client::Client};
use crate::{
    journey::Journey,
    request::Facts,
    route::Params,
    running::{Running, Shown},
};

/// The page for an error of ours, once a route is known.
pub(super) fn of_ours(running: &Running, journey: &Journey, status: StatusCode) -> Option<Shown> {
    let request = journey.request.as_ref()?;
    let caller = journey.caller.as_deref();
    running.error_page(
        journey.route?,
        status,
        &Facts { request, params: &Params::default(), caller, cache: "" },
    )
}

impl Edge {
    /// Shows the route's page instead of an origin's error; `None` when the origin's answer is to pass.
    pub(super) async fn intercept(
        &self,
        trip: &Trip,
        status: StatusCode,
        origin: &HeaderMap,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Option<Result<(), Ended>> {
        if !trip.route().intercept_errors {
            return None;
        }
        let facts = trip.passed.facts(&trip.request);
        let mut shown = trip.running().error_page(trip.passed.route_id(), status, &facts)?;
        // Without its challenge a 401 tells nobody what to do (nginx keeps it, too).
        for challenge in origin.get_all(header::WWW_AUTHENTICATE) {
            shown.fields.append(header::WWW_AUTHENTICATE, challenge.clone());
        }
        Some(self.whole(trip, client, journey, shown.status, shown.fields, shown.body).await)
    }
}
