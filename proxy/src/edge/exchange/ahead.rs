//! The answer's way to a client that may read more slowly than its peer writes: so many bytes are read ahead and no more.
//!
//! A small answer leaves its peer at once, whoever reads it; a large one goes as fast as its reader, and the peer waits.

use std::{collections::VecDeque, pin::pin};

use bytes::Bytes;
use http::HeaderMap;

use super::open::{Cut, Open};
use crate::{
    edge::client::{Client, ClientError},
    forward::{peer::Connectors, retry::Failure},
};

/// What a piece costs at least, its handle and place included: an answer in chunks of one byte is held in no more of them.
const PIECE: usize = 64;

/// What was read and not yet written.
#[derive(Default)]
struct Ahead {
    pieces: VecDeque<Bytes>,
    /// What they cost, with the piece that is being written.
    bytes: usize,
    trailers: Option<HeaderMap>,
}

/// Passes the answer on; the request has been sent, as far as it will be.
pub(super) async fn pass(
    open: Box<Open>,
    connectors: &Connectors,
    client: &mut Client,
    most: usize,
) -> Result<(), Cut> {
    let mut open = Some(open);
    let passed = pour(&mut open, connectors, client, most).await;
    if let (Err(_), Some(open)) = (&passed, open) {
        open.abandon(connectors).await;
    }
    passed
}

async fn pour(
    open: &mut Option<Box<Open>>,
    connectors: &Connectors,
    client: &mut Client,
    most: usize,
) -> Result<(), Cut> {
    let mut ahead = Ahead::default();
    let may_leave = client.body_done();
    loop {
        let Some(piece) = ahead.pieces.pop_front() else {
            if open.is_none() {
                break;
            }
            let next = match client.at_once(chunk(open)).await.map_err(Cut::Client)? {
                Some(next) => next,
                None => tokio::select! {
                    // A client that has the whole answer may leave before we have heard its end.
                    biased;
                    next = chunk(open) => next,
                    () = client.left(), if may_leave => return Err(Cut::Client(ClientError::Left)),
                },
            };
            ahead.take(next, open, connectors).await?;
            continue;
        };
        let cost = cost(&piece);
        let mut write = pin!(client.body(piece));
        loop {
            tokio::select! {
                biased;
                written = &mut write => {
                    written.map_err(Cut::Client)?;
                    break;
                }
                next = chunk(open), if ahead.bytes < most => ahead.take(next, open, connectors).await?,
            }
        }
        ahead.bytes -= cost;
    }
    match ahead.trailers {
        Some(trailers) => client.trailers(trailers).await.map_err(Cut::Client),
        None => Ok(()),
    }
}

/// The next piece; never comes once the answer has been read.
async fn chunk(open: &mut Option<Box<Open>>) -> Result<Option<Bytes>, Failure> {
    match open {
        Some(open) => open.chunk().await,
        None => std::future::pending().await,
    }
}

fn cost(piece: &Bytes) -> usize {
    piece.len().max(PIECE)
}

impl Ahead {
    /// Keeps a piece. Behind the last one the peer is free.
    async fn take(
        &mut self,
        next: Result<Option<Bytes>, Failure>,
        open: &mut Option<Box<Open>>,
        connectors: &Connectors,
    ) -> Result<(), Cut> {
        let failure = match next {
            Ok(Some(piece)) => {
                self.bytes += cost(&piece);
                self.pieces.push_back(piece);
                // Free before its last piece is taken: whoever that client asks next may go to the same connection.
                if let Some(whole) = open.take_if(|open| open.is_read()) {
                    whole.done(connectors).await;
                }
                return Ok(());
            }
            Ok(None) => match open.as_mut() {
                Some(peer) => match peer.trailers().await {
                    Ok(trailers) => {
                        self.trailers = trailers;
                        if let Some(open) = open.take() {
                            open.done(connectors).await;
                        }
                        return Ok(());
                    }
                    Err(failure) => failure,
                },
                None => return Ok(()),
            },
            Err(failure) => failure,
        };
        if let Some(open) = open.take() {
            open.broke(connectors).await;
        }
        Err(Cut::Peer(failure))
    }
}
