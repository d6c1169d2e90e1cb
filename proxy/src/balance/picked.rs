//! A request at the peer that was picked for it: counted until it is dropped, and heard of once.
//!
//! It belongs to the generation of the pool that picked it; what it learns belongs to the newest one, if its peer stayed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Peer, Pool, Tried};

/// A peer picked for one attempt: the proof that forward asks for, and the count of the request until it is dropped.
///
/// Dropped without an outcome (the client left, say) it says nothing about the peer.
#[derive(Debug)]
#[must_use = "the peer counts the request only as long as this lives"]
pub struct Picked {
    pool: Arc<Pool>,
    peer: Arc<Peer>,
    pub(super) index: usize,
    began: Instant,
    /// How long the head of an answer took; `None` before it came.
    header: Option<Duration>,
    /// Whether it counts among those that `least_time` with `inflight` sees waiting.
    inflight: bool,
    /// Since when a sign of life is waited for: later than `began` where there was something to send first.
    asked: Instant,
    /// Its number among the requests that wait for a sign of life; `None` when it waits no longer, or not yet.
    awaited: Option<u64>,
}

impl Picked {
    pub(super) fn new(
        pool: Arc<Pool>,
        peer: Arc<Peer>,
        index: usize,
        now: Instant,
        inflight: bool,
        awaited: Option<u64>,
    ) -> Self {
        Self { pool, peer, index, began: now, header: None, inflight, asked: now, awaited }
    }

    /// Whom to ask.
    #[must_use]
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// The pool it was picked from, which is to be asked for all attempts of its request.
    #[must_use]
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The upstream it was picked from.
    #[must_use]
    pub fn upstream(&self) -> &Arc<str> {
        self.pool.name()
    }

    /// The request has a body: until it was sent, the silence says nothing about the peer.
    pub fn uploads(&mut self) {
        if let Some(number) = self.awaited.take()
            && let Some((pool, index)) = self.newest()
        {
            pool.members.lock()[index].vigil.gave_up(number);
        }
    }

    /// The body was sent: from now on an answer is waited for.
    pub fn uploaded(&mut self, now: Instant) {
        if self.awaited.is_none()
            && let Some((pool, index)) = self.newest()
        {
            (self.asked, self.awaited) = (now, Some(pool.members.lock()[index].vigil.sent(now)));
        }
    }

    /// Whether its answer is waited for as a sign of life.
    #[must_use]
    pub fn waits(&self) -> bool {
        self.awaited.is_some()
    }

    /// The head of an answer came, with a status that is a `failure` or not.
    pub fn heard(&mut self, is_failure: bool, now: Instant) {
        let since_pick = now.saturating_duration_since(self.began);
        self.header = Some(since_pick);
        let took = self.awaited.take().map(|_| now.saturating_duration_since(self.asked));
        let Some((pool, index)) = self.newest() else { return };
        if self.inflight && self.pool.waits_for_heads() {
            self.inflight = false;
            let member = &mut pool.members.lock()[index];
            member.times.add_header(since_pick);
            member.waiting.end(since_pick, now);
        }
        pool.heard(index, is_failure, took, now);
    }

    /// Resolves when the peer is found silent, so that whoever waits for it had better go elsewhere.
    ///
    /// Holds nothing of the request; never resolves where silence is no reason, or there is nobody else.
    pub fn silence(&self) -> impl Future<Output = ()> + Send + use<> {
        let (pool, peer, index) = (Arc::clone(&self.pool), Arc::clone(&self.peer), self.index);
        async move {
            let pause =
                pool.outlier.as_ref().map(|(rules, _)| rules.silence).filter(|pause| !pause.is_zero());
            let Some(pause) = pause else { return std::future::pending().await };
            let mut silent = std::pin::pin!(peer.silent().notified());
            // From here on nothing that is told is missed.
            silent.as_mut().enable();
            loop {
                tokio::select! {
                    () = &mut silent => return,
                    () = tokio::time::sleep(pause) => {
                        if let Some((pool, index)) = pool.newest(&peer, index) {
                            pool.review(index, Instant::now());
                        }
                    }
                }
            }
        }
    }

    /// The attempt ended with an answer that counts as none of the failures.
    pub fn succeeded(mut self, now: Instant) {
        self.waited(now);
        if self.header.is_none() {
            self.heard(false, now);
        }
        let last_byte = now.saturating_duration_since(self.began);
        let Some((pool, index)) = self.newest() else { return };
        let member = &mut pool.members.lock()[index];
        member.times.add_last_byte(last_byte);
        if !pool.waits_for_heads() {
            member.times.add_header(self.header.unwrap_or(last_byte));
        }
        member.succeeded(now);
        if std::mem::take(&mut member.told_out) {
            let endpoint = member.peer.endpoint();
            tracing::info!(
                upstream = %pool.name,
                peer = %endpoint.name,
                address = %endpoint.address,
                "peer answers again"
            );
        }
    }

    /// The kept-alive connection was closed before anything was sent on it: this says nothing about the peer, and the
    /// only peer of an upstream may be asked again. With several, the request goes to another one, as in nginx.
    pub fn unused(self, tried: &mut Tried) {
        if self.pool.is_single(&self.pool.members.lock()) {
            tried.remove(self.index);
        }
    }

    /// The attempt failed in a way that counts against the peer.
    pub fn failed(mut self, now: Instant) {
        self.waited(now);
        let Some((pool, index)) = self.newest() else { return };
        if self.header.is_none() {
            pool.members.lock()[index].vigil.failed();
            pool.gate.failed();
        }
        pool.failed(index, now);
    }

    fn waited(&mut self, now: Instant) {
        if std::mem::take(&mut self.inflight)
            && let Some((pool, index)) = self.newest()
        {
            let took = now.saturating_duration_since(self.began);
            pool.members.lock()[index].waiting.end(took, now);
        }
    }

    fn newest(&self) -> Option<(Arc<Pool>, usize)> {
        self.pool.newest(&self.peer, self.index)
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.uploads();
        if self.inflight
            && let Some((pool, index)) = self.newest()
        {
            pool.members.lock()[index].waiting.leave();
        }
        self.peer.end();
        self.pool.freed();
    }
}
