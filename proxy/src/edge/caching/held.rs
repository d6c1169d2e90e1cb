//! An answer that is not kept, to a client that holds it already: the origin was asked for the whole, in case it could be
//! kept, so what the client asked is answered here. Browsers with cookies would never hear 304 otherwise.

use std::time::Duration;

use tokio::time::timeout;

use super::Case;
use crate::{
    cache,
    edge::{
        Edge, Ended,
        client::Client,
        exchange::Open,
        forwarding::{answer_fields, declared_length, stick},
        reply::{self, Length},
    },
    forward::retry::Failure,
    journey::Journey,
};

/// A longer rest of a body costs more to read than a connection to open.
const SHORT: u64 = 64 << 10;
/// For that rest.
const PATIENCE: Duration = Duration::from_secs(1);

impl Case<'_> {
    /// Whether the client's conditions say that it holds what comes.
    pub(super) fn is_held(&self, open: &Open) -> bool {
        cache::is_held(open.head.status, &open.head.headers, &self.request())
    }
}

impl Edge {
    /// Answers 304 to a client that holds what comes.
    pub(super) async fn pass_not_modified(
        &self,
        case: &Case<'_>,
        open: Box<Open>,
        client: &mut Client,
        journey: &mut Journey,
    ) -> Result<(), Ended> {
        self.invalidate(case.trip, case.forward, open.head.status, &open.head.headers);
        let (mut fields, _) = answer_fields(case.trip, open.head.headers.clone(), &open);
        stick(case.trip, case.forward, &open, &mut fields);
        let answer = cache::not_modified(fields);
        let head = reply::head(case.trip, journey, client, answer.status, answer.headers, Length::None);
        journey.answer.status = answer.status.as_u16();
        let edge = self.clone();
        tokio::spawn(async move { edge.leave(open).await });
        Ok(client.head(head, true).await?)
    }

    /// Gives a connection back when the rest of its answer is short; else ends it, so that the origin stops sending.
    async fn leave(&self, mut open: Box<Open>) {
        let is_long = declared_length(&open.head.headers).is_some_and(|length| length > SHORT);
        let Some(_place) = self.unattended.try_acquire().ok().filter(|_| !is_long) else {
            return open.abandon(&self.connectors).await;
        };
        let rest = async {
            let mut read = 0;
            while let Some(chunk) = open.chunk().await? {
                read += chunk.len() as u64;
                if read > SHORT {
                    return Ok(false);
                }
            }
            Ok::<_, Failure>(true)
        };
        match timeout(PATIENCE, rest).await {
            Ok(Ok(true)) => open.done(&self.connectors).await,
            Ok(Err(_)) => open.broke(&self.connectors).await,
            Ok(Ok(false)) | Err(_) => open.abandon(&self.connectors).await,
        }
    }
}
