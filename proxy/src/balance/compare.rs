//! How a pool has its peers compared ([`outlier`]): what it tells at each pick and answer, and what it does with a verdict.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use weir_config::plan::Outlier;

use super::{
    Pool, Tried,
    member::Member,
    outlier::{self, Reason, Rules},
    under_way,
};

impl Pool {
    /// Compares the peers by these rules; what is usual outlives a reload.
    pub(super) fn watch(&mut self, old: Option<&Self>, rules: Option<&Outlier>) {
        let season = old.and_then(|old| old.outlier.as_ref()).map(|(_, season)| season.lock().clone());
        self.outlier = rules.map(|rules| (Rules::from(rules), Mutex::new(season.unwrap_or_default())));
        if self.outlier.is_none() {
            self.members.get_mut().iter_mut().for_each(|member| member.vigil.pardon());
        }
    }

    /// Takes what the peers' requests that wait are known by from the generation `before`, which was asked meanwhile.
    pub(super) fn take_over(&self, before: &[Member]) {
        for member in self.members.lock().iter_mut() {
            let Some(same) = before.iter().find(|other| other.peer.is(&member.peer)) else { continue };
            member.waiting = same.waiting;
            member.vigil = same.vigil.clone();
            if self.outlier.is_none() {
                member.vigil.pardon();
            }
        }
    }

    /// Before a pick: ends a window that has passed, and marks who is to be avoided as long as somebody else is open.
    pub(super) fn compare(&self, members: &mut [Member], tried: &Tried, now: Instant) {
        let Some((rules, season)) = &self.outlier else { return };
        let mut season = season.lock();
        if season.turns(rules, now) {
            for (index, reason) in outlier::judge(members, rules, now) {
                self.warn_of_ejection(&members[index], reason);
            }
        }
        members.iter_mut().for_each(|member| member.avoided = false);
        let Some(suspicion) = season.suspicion(rules) else { return };
        let suspect = |member: &Member| member.vigil.is_silent(suspicion, now);
        let open = |(index, member): (usize, &Member)| member.is_open(index, tried, now) && !suspect(member);
        if members.iter().any(suspect) && members.iter().enumerate().any(open) {
            members.iter_mut().for_each(|member| member.avoided = suspect(member));
        }
    }

    /// A request has waited as long as is suffered: ejects the peer if it is silent.
    pub(super) fn review(&self, index: usize, now: Instant) {
        let Some((rules, season)) = &self.outlier else { return };
        let mut members = self.members.lock();
        if outlier::review(&mut members, index, rules, &season.lock(), now) {
            members[index].peer.silent().notify_waiters();
            self.warn_of_ejection(&members[index], Reason::Silence);
        }
    }

    fn warn_of_ejection(&self, member: &Member, reason: Reason) {
        let endpoint = member.peer.endpoint();
        tracing::warn!(
            upstream = %self.name,
            peer = %endpoint.name,
            address = %endpoint.address,
            reason = reason.word(),
            "peer is out because it does worse than the others"
        );
    }

    /// The head of an answer came; `took` is how long it was waited for.
    pub(super) fn heard(&self, index: usize, is_failure: bool, took: Option<Duration>, now: Instant) {
        let mut members = self.members.lock();
        members[index].vigil.heard(is_failure, took, now);
        if let Some(took) = took {
            self.gate.heard(took, || under_way(&members), now);
        }
        drop(members);
        if let (Some((_, season)), Some(took)) = (&self.outlier, took) {
            season.lock().note(took);
        }
    }
}
