//! Answers that need no upstream: redirects, fixed answers, files.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use weir_config::plan::{Answer, Redirect};

use super::{
    Edge, Ended, Trip,
    client::Client,
    reply::{self, Length},
};
use crate::{cache::Now, journey::Journey, refusal::Refusal, route};

impl Edge {
    pub(super) async fn redirect(
        &self,
        trip: &Trip,
        redirect: &Redirect,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let location = route::answer::location(redirect, &trip.passed.facts(&trip.request)).ok_or(Refusal::Internal)?;
        let mut fields = HeaderMap::new();
        fields.insert(header::LOCATION, location);
        self.whole(trip, client, journey, redirect.status, fields, Bytes::new()).await
    }

    pub(super) async fn fixed(
        &self,
        trip: &Trip,
        answer: &Answer,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let mut body = String::new();
        answer.body.render(&trip.passed.facts(&trip.request), &mut body);
        let mut fields = HeaderMap::new();
        if let Ok(kind) = HeaderValue::try_from(&answer.content_type) {
            fields.insert(header::CONTENT_TYPE, kind);
        }
        self.whole(trip, client, journey, answer.status, fields, Bytes::from(body)).await
    }

    pub(super) async fn file(&self, trip: &Trip, client: &mut Client, journey: &mut Journey) -> Result<(), Ended> {
        let request = &trip.request;
        let files = trip.running().files(trip.passed.route_id()).ok_or(Refusal::Internal)?;
        let mut answer = files.open(&request.path, &request.method, &request.headers, Now::read().wall).await;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(Refusal::NoFile.into());
        }
        let length = match &answer.headers.get(header::CONTENT_LENGTH) {
            Some(length) => length.to_str().ok().and_then(|length| length.parse().ok()).map_or(Length::None, Length::Known),
            None => Length::None,
        };
        let head = reply::head(trip, journey, client, answer.status, std::mem::take(&mut answer.headers), length)?;
        journey.answer.status = answer.status.as_u16();
        client.head(head, answer.body.is_none()).await?;
        let Some(mut body) = answer.body else { return Ok(()) };
        loop {
            match body.next().await {
                Ok(Some(piece)) => client.body(piece).await.map_err(|_| Ended::Cut)?,
                Ok(None) => return Ok(()),
                // The file shrank or cannot be read: what was sent must not pass for the whole.
                Err(problem) => {
                    tracing::warn!(%problem, route = %trip.route().name, "a file could not be read to its end");
                    return Err(Ended::Cut);
                }
            }
        }
    }

    /// An answer whose body is at hand.
    async fn whole(
        &self,
        trip: &Trip,
        client: &mut Client,
        journey: &mut Journey,
        status: StatusCode,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<(), Ended> {
        let head = reply::head(trip, journey, client, status, fields, Length::Known(body.len() as u64))?;
        journey.answer.status = status.as_u16();
        let bodiless = body.is_empty() || trip.request.method == Method::HEAD;
        client.head(head, bodiless).await?;
        if bodiless {
            return Ok(());
        }
        client.body(body).await.map_err(|_| Ended::Cut)
    }
}
