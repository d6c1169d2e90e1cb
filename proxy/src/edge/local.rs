//! Answers that need no upstream: redirects, fixed answers, files.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::io::AsyncReadExt;
use weir_config::plan::{Answer, Redirect};

use super::{
    Edge, Ended, Trip,
    client::Client,
    reply::{self, Length},
};
use crate::{journey::Journey, refusal::Refusal, route};

/// Read from a file at once: a few packets, so that a slow client holds little.
const PIECE: usize = 64 * 1024;

impl Edge {
    pub(super) async fn redirect(
        &self,
        trip: &Trip,
        redirect: &Redirect,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let location =
            route::answer::location(redirect, &trip.passed.facts(&trip.request), trip.passed.params());
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
        let body = route::answer::body(answer, &trip.passed.facts(&trip.request));
        let mut fields = HeaderMap::new();
        if let Ok(kind) = HeaderValue::try_from(&answer.content_type) {
            fields.insert(header::CONTENT_TYPE, kind);
        }
        self.whole(trip, client, journey, answer.status, fields, Bytes::from(body)).await
    }

    pub(super) async fn file(
        &self,
        trip: &Trip,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let request = &trip.request;
        let files = trip.running().files(trip.passed.route_id()).ok_or(Refusal::Internal)?;
        let mut answer = files
            .open(
                &request.path,
                request.query.as_deref(),
                &request.method,
                &request.headers,
                SystemTime::now(),
            )
            .await;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(Refusal::NoFile.into());
        }
        let length = match &answer.headers.get(header::CONTENT_LENGTH) {
            Some(length) => length
                .to_str()
                .ok()
                .and_then(|length| length.parse().ok())
                .map_or(Length::None, Length::Known),
            None => Length::None,
        };
        let head =
            reply::head(trip, journey, client, answer.status, std::mem::take(&mut answer.headers), length);
        journey.answer.status = answer.status.as_u16();
        client.head(head, answer.body.is_none()).await?;
        let Some(body) = answer.body else { return Ok(()) };
        let (mut file, mut left) = (body.file, body.length);
        while left > 0 {
            let mut piece = BytesMut::with_capacity(PIECE.min(usize::try_from(left).unwrap_or(PIECE)));
            let read = (&mut file).take(left).read_buf(&mut piece).await;
            match read {
                Ok(1..) => {
                    left -= piece.len() as u64;
                    client.body(piece.freeze()).await.map_err(|_| Ended::Cut)?;
                }
                // It shrank or cannot be read: what was sent must not pass for the whole.
                Ok(0) | Err(_) => {
                    tracing::warn!(route = %trip.route().name, left, "a file could not be read to its end");
                    return Err(Ended::Cut);
                }
            }
        }
        Ok(())
    }

    /// An answer whose body is at hand.
    pub(super) async fn whole(
        &self,
        trip: &Trip,
        client: &mut Client,
        journey: &mut Journey,
        status: StatusCode,
        fields: HeaderMap,
        body: Bytes,
    ) -> Result<(), Ended> {
        let head = reply::head(trip, journey, client, status, fields, Length::Known(body.len() as u64));
        journey.answer.status = status.as_u16();
        let bodiless = body.is_empty() || trip.request.method == Method::HEAD;
        client.head(head, bodiless).await?;
        if bodiless {
            return Ok(());
        }
        client.body(body).await.map_err(|_| Ended::Cut)
    }
}
