//! Both directions of an HTTP/2 stream at once: a peer that answers while it reads is read while it is written to.
//!
//! gRPC's streams live so. If each direction waited for the other, a peer that takes no more of the request before its answer
//! is taken, and a proxy that takes no answer before the request is, would wait for ever.

use std::{pin::pin, time::Instant};

use bytes::Bytes;
use pingora::protocols::http::{client::HttpSession, v2};
use tokio::time::sleep_until;

use super::{
    exchanging,
    open::{Cut, Open, Way},
};
use crate::{edge::client::Client, forward::retry::Failure};

impl Open {
    /// Until the request or the answer has ended; `None` when the peer does not speak HTTP/2.
    pub(super) async fn duplex(&mut self, client: &mut Client) -> Option<Result<Way, Cut>> {
        let HttpSession::H2(session) = &mut self.session else { return None };
        let mut up = session.take_request_body_writer()?;
        let (read, write, deadline) = (self.read, session.write_timeout, self.deadline);
        // What the client said and the peer has not taken; an empty piece is the end.
        let mut waiting: Option<Bytes> = None;
        loop {
            let (piece, up) = (waiting.take(), &mut up);
            let end = piece.as_ref().is_some_and(Bytes::is_empty);
            let is_sending = piece.is_some();
            let mut sending = pin!(async move {
                match piece {
                    Some(piece) => v2::write_body(up, piece, end, write).await.is_ok(),
                    None => std::future::pending().await,
                }
            });
            let said = loop {
                let silent = Instant::now() + read;
                let by = deadline.map_or(silent, |deadline| deadline.min(silent));
                tokio::select! {
                    sent = &mut sending => match sent {
                        true if end => {
                            self.request_done = true;
                            return Some(Ok(Way::Answer));
                        }
                        true => break None,
                        // A peer that takes no more may still answer.
                        false => return Some(Ok(Way::Answer)),
                    },
                    chunk = session.read_response_body() => match chunk {
                        Ok(Some(chunk)) => {
                            if let Err(error) = client.body(chunk).await {
                                return Some(Err(Cut::Client(error)));
                            }
                        }
                        // The answer is whole; the rest of the request interests nobody.
                        Ok(None) => return Some(Ok(Way::Answer)),
                        Err(error) => return Some(Err(Cut::Peer(exchanging(&error)))),
                    },
                    said = client.chunk(), if !is_sending => match said {
                        Ok(said) => break Some(said.unwrap_or_default()),
                        Err(error) => return Some(Err(Cut::Client(error))),
                    },
                    () = sleep_until(by.into()) => return Some(Err(Cut::Peer(Failure::ReadTimeout))),
                }
            };
            waiting = said;
        }
    }
}
