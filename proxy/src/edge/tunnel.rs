//! CONNECT: a tunnel to a server of the route's upstream (RFC 9110 §9.3.6).
//!
//! The target says which route, and the route says where to: this is no forward proxy, and nobody gets a connection to
//! what they name. A server is chosen, tried again and judged as for any request, by whether it can be connected to.

use http::{HeaderMap, StatusCode};
use weir_config::plan::UpstreamId;

use super::{
    Edge, Ended, Trip,
    client::Client,
    exchange::{self, Request},
    forwarding::{broke_off, refusal_of},
    reply::{self, Length},
};
use crate::journey::Journey;

impl Edge {
    pub(super) async fn tunnel(
        &self,
        trip: &Trip,
        upstream: UpstreamId,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        // Nothing of it is sent: the connection itself is what was asked for.
        let head = Request {
            method: trip.request.method.clone(),
            target: trip.request.target().into_owned(),
            headers: HeaderMap::new(),
            scheme: trip.request.scheme,
            trailers: false,
        };
        let call = self.call_to(trip, upstream, head, None);
        let open = exchange::open(&self.connectors, call, Some(client), &mut journey.attempts)
            .await
            .map_err(|none| Ended::from(refusal_of(&none)))?;
        let head = reply::head(trip, journey, client, StatusCode::OK, HeaderMap::new(), Length::None);
        journey.answer.status = StatusCode::OK.as_u16();
        client.head(head, false).await?;
        open.relay(&self.connectors, client, 0).await.map_err(|cut| broke_off(&cut, journey))
    }
}
