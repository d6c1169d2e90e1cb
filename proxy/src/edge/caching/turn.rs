//! Whose turn it is to ask the origin: of those that miss one key, one goes and the others wait for what it brings.

use std::sync::Arc;

use super::Case;
use crate::{
    cache::{Begin, Entry, FillGuard, Key, Now, Outcome, Reader},
    edge::Edge,
};

/// How often those who wait for a fetch let another of them try, after the origin failed.
const RETAKES: u32 = 2;

/// What a request that misses does next.
pub(super) enum Turn {
    /// It fetches, for those who wait.
    Fetch(FillGuard),
    /// It reads what another brought, or brings.
    Read(Reader),
    /// It takes what is stale, because the origin fails.
    Stale,
    /// It asks for itself, and why, unless the origin failed.
    Alone(Option<&'static str>),
}

impl Edge {
    /// Waits for the turn, or for what another brings; `has_stale` when there is something better than a failure.
    pub(super) async fn turn(
        &self,
        case: &Case<'_>,
        key: &Key,
        stale: Option<&Arc<Entry>>,
        has_stale: bool,
    ) -> Turn {
        let (mut failures, until) = (0, Now::read().mono + case.rule.lock_timeout);
        loop {
            let now = Now::read();
            let waiter = match case.cache.begin(self.ask(case, key.clone(), stale.cloned()), now) {
                Begin::Fill(guard) => return Turn::Fetch(guard),
                Begin::Found(entry) => return Turn::Read(Reader::whole(entry)),
                Begin::Wait(waiter) => waiter,
            };
            match waiter.wait(until.saturating_duration_since(now.mono), now).await {
                Outcome::Fill(guard) => return Turn::Fetch(guard),
                Outcome::Ready(reader) => return Turn::Read(reader),
                Outcome::OriginFailed { is_covered: true } if has_stale => return Turn::Stale,
                // One of those who waited asks again, and not all of them at once.
                Outcome::OriginFailed { .. } if failures < RETAKES => failures += 1,
                Outcome::OriginFailed { .. } => return Turn::Alone(None),
                Outcome::NotStored(reason) => return Turn::Alone(Some(reason.word())),
                Outcome::TimedOut => return Turn::Alone(Some("lock-timeout")),
            }
        }
    }
}
