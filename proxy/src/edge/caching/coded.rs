//! Answers from the cache in a coding that is made once: by whoever asks first, for all who ask while it is made, and kept.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::Case;
use crate::{
    cache::{Answer, Body, Coded, CodedReader, Extent, Maker, Reader},
    coding::{self, Encoder, Offer, PIECE},
    edge::{
        Edge, Ended, Trip,
        client::Client,
        forwarding::declared_length,
        reply::{self, Length},
    },
    journey::Journey,
};

/// A shorter body is compressed while its client waits, which gives it a length.
const AT_ONCE: u64 = 4 * PIECE as u64;

/// What an answer from the cache is sent as.
pub(super) enum Choice {
    /// As it is kept, or compressed for this client alone.
    AsItIs(Answer),
    /// In a coding that is kept, or will be.
    Coded(CodedAnswer),
}

/// An answer whose body is compressed already, or being so.
pub(super) struct CodedAnswer {
    status: StatusCode,
    fields: HeaderMap,
    body: CodedBody,
}

enum CodedBody {
    /// Of a HEAD; with its length, if that is known.
    Nothing(Option<u64>),
    Kept(Arc<Body>),
    Making(CodedReader),
}

impl Case<'_> {
    /// How much of a kept body may be had in parts.
    pub(super) fn extent(&self, reader: &Reader) -> Extent {
        match reader.extent() {
            Extent::Complete(length) if self.wants_whole(&reader.head().headers) => Extent::Arriving(length),
            extent => extent,
        }
    }

    /// Whether nothing but the whole is of use: to who would put parts behind bytes of a coded one, or could not unpack them,
    /// and by QUERY (RFC 9110 §14.2 knows only GET). The `fields` are the whole's, or a part's.
    pub(super) fn wants_whole(&self, fields: &HeaderMap) -> bool {
        let trip = self.trip;
        self.is_query
            || trip.resumes_by_date()
            || (trip.route().gunzip && coding::unpacks_whole(&trip.asked(), fields))
    }
}

impl Edge {
    /// Whether an answer goes out compressed, from what is kept of that; makes it if nobody has.
    pub(super) async fn coded(&self, case: &Case<'_>, answer: Answer, reader: &Reader) -> Choice {
        let Some(rule) = &case.trip.route().compress else { return Choice::AsItIs(answer) };
        let length = declared_length(&answer.headers);
        let offer = coding::offer(rule, &case.trip.asked(), answer.status, &answer.headers, length);
        let Offer::In(coding) = offer else { return Choice::AsItIs(answer) };
        // What memory does not hold, it does not hold compressed, either.
        if reader.is_on_disk() {
            return Choice::AsItIs(answer);
        }
        let body = if case.trip.request.method == Method::HEAD {
            CodedBody::Nothing(reader.kept(coding).map(|body| body.length()))
        } else {
            let begin = || case.trip.running().compressors.begin(coding, rule.level(coding)?);
            match case.cache.coded(reader, coding, begin) {
                Coded::Kept(body) => CodedBody::Kept(body),
                Coded::Making(making) => CodedBody::Making(making),
                Coded::NoRoom => return Choice::AsItIs(answer),
                Coded::Make(maker, making, encoder) => {
                    let is_short = reader.entry().is_some() && reader.length() <= AT_ONCE;
                    let made = make(reader.again(), encoder, maker);
                    if is_short {
                        made.await;
                    } else {
                        tokio::spawn(made);
                    }
                    match reader.kept(coding) {
                        Some(body) => CodedBody::Kept(Arc::clone(body)),
                        None => CodedBody::Making(making),
                    }
                }
            }
        };
        let (status, mut fields) = (answer.status, answer.headers);
        coding::vary(&mut fields);
        coding::mark(&mut fields, coding);
        Choice::Coded(CodedAnswer { status, fields, body })
    }
}

/// Compresses a body as it comes. What has come goes on whenever more takes its time; if it breaks, so does this. A body that
/// is still arriving is waited for only as long as somebody reads what is made of it.
async fn make(mut reader: Reader, mut encoder: Encoder, mut maker: Maker) {
    loop {
        let next = tokio::select! {
            biased;
            next = reader.next() => next,
            () = std::future::ready(()) => {
                let Ok(held) = encoder.flush() else { return };
                maker.write(held);
                tokio::select! {
                    next = reader.next() => next,
                    () = maker.unread(), if reader.entry().is_none() => match maker.give_up() {
                        Ok(()) => return,
                        Err(read) => {
                            maker = read;
                            continue;
                        }
                    },
                }
            }
        };
        let Some(piece) = next else { break };
        let Ok(piece) = piece else { return };
        for part in piece.chunks(PIECE) {
            let Ok(made) = encoder.push(part) else { return };
            maker.write(made);
            tokio::task::yield_now().await;
        }
    }
    if let Ok(rest) = encoder.finish() {
        maker.write(rest);
        maker.finish();
    }
}

impl CodedAnswer {
    /// Writes it to the client.
    pub(super) async fn serve(
        self,
        trip: &Trip,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        let length = match &self.body {
            CodedBody::Nothing(length) => length.map_or(Length::Unknown, Length::Known),
            CodedBody::Kept(body) => Length::Known(body.length()),
            CodedBody::Making(_) => Length::Unknown,
        };
        let head = reply::head(trip, journey, client, self.status, self.fields, length);
        journey.answer.status = self.status.as_u16();
        client.head(head, matches!(self.body, CodedBody::Nothing(_))).await?;
        let cut = |_| Ended::Cut;
        match self.body {
            CodedBody::Nothing(_) => Ok(()),
            CodedBody::Kept(body) => {
                for piece in body.chunks() {
                    client.body(Bytes::clone(piece)).await.map_err(cut)?;
                }
                Ok(())
            }
            CodedBody::Making(mut making) => loop {
                let next = match client.at_once(making.next()).await.map_err(cut)? {
                    Some(next) => next,
                    None => making.next().await,
                };
                let Some(piece) = next else { return Ok(()) };
                // What broke must not pass for a whole body.
                client.body(piece.map_err(|_| Ended::Cut)?).await.map_err(cut)?;
            },
        }
    }
}
