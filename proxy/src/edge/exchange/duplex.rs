//! Both directions of an HTTP/2 stream at once: a peer that answers while it reads is read while it is written to.
//!
//! gRPC's streams live so. If each direction waited for the other, a peer that takes no more of the request before its answer
//! is taken, and a proxy that takes no answer before the request is, would wait for ever.

use std::time::Instant;

use tokio::time::sleep_until;

use super::{
    Sent,
    heads::at,
    open::{Cut, Open, Way},
    up::Up,
};
use crate::{edge::client::Client, forward::retry::Failure};

impl Open {
    /// Until the request or the answer has ended.
    pub(super) async fn duplex(&mut self, mut up: Up, client: &mut Client) -> Result<Way, Cut> {
        // The client may wait for the head before it says more.
        client.flush().await.map_err(Cut::Client)?;
        loop {
            let silent = Instant::now() + self.read;
            let by = self.deadline.map_or(silent, |deadline| deadline.min(silent));
            let late = up.late();
            tokio::select! {
                sent = up.send(), if up.is_busy() => match sent {
                    Ok(()) if up.is_over() => {
                        self.sent = Sent::Whole;
                        return Ok(Way::Answer);
                    }
                    Ok(()) => {}
                    // A peer that takes no more may still answer.
                    Err(_) => return Ok(Way::Answer),
                },
                () = at(late) => return Ok(Way::Answer),
                chunk = self.session.body() => match chunk.map_err(Cut::Peer)? {
                    Some(chunk) => client.body_at_once(chunk).await.map_err(Cut::Client)?,
                    // The answer is whole; the rest of the request interests nobody.
                    None => return Ok(Way::Answer),
                },
                chunk = client.chunk(), if !up.is_busy() => match chunk.map_err(Cut::Client)? {
                    Some(chunk) => up.give(chunk),
                    None => up.end(),
                },
                () = sleep_until(by.into()) => return Err(Cut::Peer(Failure::ReadTimeout)),
            }
        }
    }
}
