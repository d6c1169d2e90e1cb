//! Answering one client from what is kept or arriving.

use std::sync::Arc;

use super::{Case, coded::Choice};
use crate::{
    cache::{self, Answer, CacheStatus, Entry, Forwarded, Now, Pieces, Reader},
    edge::{
        Edge, Ended,
        client::Client,
        forwarding::declared_length,
        reply::{self, Length},
    },
    journey::Journey,
};

impl Edge {
    /// Answers with what is stale, for want of a better answer.
    pub(super) async fn serve_stale(
        &self,
        case: &Case<'_>,
        entry: Arc<Entry>,
        why: &'static str,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let ttl = case.cache.ttl(&entry, Now::read());
        journey.cache = Some(CacheStatus::hit(ttl).because(why));
        self.serve_from(case, Reader::whole(entry), client, journey).await
    }

    /// Answers one client from what is kept or arriving, its conditions and ranges included.
    pub(super) async fn serve_from(
        &self,
        case: &Case<'_>,
        reader: Reader,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let answer = cache::answer(reader.head(), case.extent(&reader), &case.request(), Now::read());
        self.serve(case, answer, reader, client, journey).await
    }

    /// Writes an answer from the cache: compressed if the client takes that, and the body as far as it has come.
    pub(super) async fn serve(
        &self,
        case: &Case<'_>,
        answer: Answer,
        mut reader: Reader,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        if let Some(shown) = self.intercept(case.trip, answer.status, &answer.headers, client, journey).await
        {
            return shown;
        }
        let answer = match self.coded(case, answer, &reader).await {
            Choice::AsItIs(answer) => answer,
            Choice::Coded(coded) => return coded.serve(case.trip, client, journey).await,
        };
        let on_disk = reader.entry().filter(|entry| entry.body().stored().is_some());
        let mut pieces = match on_disk.filter(|_| answer.body != cache::Plan::Nothing) {
            None => None,
            Some(entry) => match Pieces::begin(entry, &answer.body).await {
                Ok(pieces) => Some(pieces),
                Err(_) => {
                    // Nothing of it was sent: the origin knows it as well.
                    case.cache.forget(entry);
                    journey.cache = Some(CacheStatus::forwarded(Forwarded::Miss).because("disk"));
                    return Box::pin(self.forward(case.trip, case.forward, client, journey)).await;
                }
            },
        };
        let length = match declared_length(&answer.headers) {
            Some(length) => Length::Known(length),
            None => Length::None,
        };
        let head = reply::head(case.trip, journey, client, answer.status, answer.headers, length);
        journey.answer.status = answer.status.as_u16();
        let bodiless = answer.body == cache::Plan::Nothing;
        client.head(head, bodiless).await?;
        if bodiless {
            return Ok(());
        }
        if let Some(pieces) = &mut pieces {
            while let Some(piece) = pieces.next().await {
                // Nobody can say what should stand there: the client must see that something is missing.
                let piece = piece.map_err(|_| {
                    reader.entry().into_iter().for_each(|entry| case.cache.forget(entry));
                    Ended::Cut
                })?;
                client.body(piece).await.map_err(|_| Ended::Cut)?;
            }
            return Ok(());
        }
        if let Some(entry) = reader.entry() {
            for piece in answer.body.chunks(entry.body()) {
                client.body(piece).await.map_err(|_| Ended::Cut)?;
            }
            return Ok(());
        }
        loop {
            let next = match client.at_once(reader.next()).await.map_err(|_| Ended::Cut)? {
                Some(next) => next,
                None => reader.next().await,
            };
            let Some(piece) = next else { return Ok(()) };
            // A fill that broke must not pass for a whole body.
            let piece = piece.map_err(|_| Ended::Cut)?;
            client.body(piece).await.map_err(|_| Ended::Cut)?;
        }
    }
}
