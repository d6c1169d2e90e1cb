//! A second peer for an answer that is later than most: asked beside the first, and believed if it is the sooner one.

use std::{sync::Arc, time::Instant};

use tokio::time::sleep_until;

use super::{
    Answered, Call, Came, blame,
    heads::{Lost, exchange_heads},
    link,
};
use crate::{
    balance::{Pool, Tried},
    forward::{hedge::Hedge, peer::Connectors},
    journey::Attempt,
};

/// Whom there is to ask.
pub(super) struct Choice<'a> {
    pub(super) pool: &'a Arc<Pool>,
    pub(super) tried: &'a mut Tried,
}

/// Waits until the answer that is asked for now is late, then asks another peer.
///
/// Shape: an answer that is none of the plan's failures; `None` when a second peer fails, or none may be asked, which is
///        no news for whoever waits for the first. `note` says what was tried, also when this is dropped.
pub(super) async fn rival(
    connectors: &Arc<Connectors>,
    call: &Call<'_>,
    hedge: &Hedge,
    choice: Choice<'_>,
    deadline: Option<Instant>,
    note: &mut Option<Attempt>,
) -> Option<Came> {
    sleep_until((Instant::now() + hedge.after()?).into()).await;
    let began = Instant::now();
    if !hedge.withdraw(began) {
        return None;
    }
    let mut picked = choice.pool.pick(&call.asker, choice.tried, began).ok()?;
    let note = note.insert(Attempt {
        peer: Arc::clone(&picked.peer().endpoint().name),
        started: began,
        first_byte: None,
        status: None,
        outcome: "hedge_lost",
        hedge: true,
        stopped: None,
    });
    let peer = call.upstream.dial.peer(&picked.peer().endpoint().address, call.ends);
    let retry = &call.upstream.plan.retry;
    let heads = exchange_heads(connectors, call, &peer, &mut picked, None, deadline).await;
    let now = Instant::now();
    let answered = match heads {
        Ok(((session, past), head, sent)) => Answered { session, past, head, sent },
        Err(Lost::Client(_)) => return None,
        Err(Lost::Peer(failure)) => {
            note.outcome = failure.word();
            blame(picked, failure, retry, now);
            return None;
        }
    };
    let status = answered.head.status;
    picked.heard(status.is_server_error(), now);
    (note.first_byte, note.status) = (Some(now - began), Some(status.as_u16()));
    if retry.is_failure(status.as_u16()) {
        link::let_go(connectors, call.upstream, &peer, answered.session).await;
        return None;
    }
    note.outcome = "answered";
    Some(Came { answered, peer, picked })
}
