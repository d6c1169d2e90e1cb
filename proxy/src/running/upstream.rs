//! One upstream, alive: its peers, how requests connect to them, and the checks that watch them.

use std::{sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;
use weir_config::plan;

use super::{CannotRun, Running, roster::Roster};
use crate::{
    balance::{Pool, names::Names, probe::Check, sticky::Sticky},
    forward::{
        budget::Budget,
        hedge::Hedge,
        idle::{self, Idle},
        peer::{Dial, Line},
        proxy_protocol,
    },
    http_client::{Files, Tls, Way},
};

/// One upstream, alive.
#[derive(Debug)]
pub struct Upstream {
    /// As planned.
    pub plan: plan::Upstream,
    /// Who serves.
    pub roster: Arc<Roster>,
    /// What brings the requests of a session to its peer.
    pub sticky: Option<Arc<Sticky>>,
    /// How many requests may be repeated.
    pub budget: Arc<Budget>,
    /// When a second peer is asked for a slow answer.
    pub hedge: Option<Arc<Hedge>>,
    /// How requests connect.
    pub dial: Dial,
    /// Connections that nobody uses now.
    pub idle: Arc<Idle<Line>>,
    /// How the edge's own questions connect, where the peers speak TLS.
    pub tls: Option<Tls>,
    /// How they get there.
    pub way: Way,
}

impl Upstream {
    pub(super) async fn build(
        plan: &plan::Upstream,
        old: Option<&Running>,
        names: &Arc<Names>,
        stop: &CancellationToken,
    ) -> Result<Self, CannotRun> {
        let unusable = |problem: String| CannotRun::Tls { upstream: Arc::clone(&plan.name), problem };
        let files = plan.tls.as_ref().map(Files::read).transpose();
        let files = files.map_err(|problem| unusable(problem.to_string()))?;
        let tls = plan.tls.as_ref().zip(files.as_ref()).map(|(tls, files)| Tls::new(tls, files)).transpose();
        let tls = tls.map_err(|problem| unusable(problem.to_string()))?;
        let way =
            Way { bind: plan.bind, preface: plan.proxy_protocol.map_or(b"", proxy_protocol::own_header) };
        let check = plan.health.as_ref().map(|health| Check::new(health, tls.as_ref(), way));
        let before = old.and_then(|old| old.upstreams.iter().find(|other| other.plan.name == plan.name));
        let roster =
            Roster::build(plan, before.map(|before| &*before.roster), check, Arc::clone(names), stop);
        let roster = roster.await.map_err(|problems| CannotRun::Unresolved {
            upstream: Arc::clone(&plan.name),
            problems: problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })?;
        let digest = files.map_or(0, |files| files.digest());
        let dial = Dial::new(plan, digest, before.map(|before| &before.dial)).await.map_err(unusable)?;
        let idle =
            idle::carried_over(before.map(|before| &before.idle), &plan.keepalive).unwrap_or_else(|| {
                let idle = Arc::new(Idle::new(plan.keepalive.clone()));
                tokio::spawn(idle::watch(Arc::downgrade(&idle)));
                idle
            });
        let sticky = plan.sticky.as_ref();
        let sticky =
            sticky.map(|plan| Sticky::rebuild(before.and_then(|before| before.sticky.as_ref()), plan));
        // What was spent stays spent over a reload.
        let budget =
            before.map_or_else(|| Arc::new(Budget::new(Instant::now())), |old| Arc::clone(&old.budget));
        let hedge = plan.hedge.as_ref().map(|rules| {
            let same = before.filter(|old| old.plan.hedge.as_ref() == Some(rules));
            let same = same.and_then(|old| old.hedge.as_ref());
            same.map_or_else(|| Arc::new(Hedge::new(rules, Instant::now())), Arc::clone)
        });
        Ok(Self { plan: plan.clone(), roster, sticky, budget, hedge, dial, idle, tls, way })
    }

    /// Whose turn it is: the generation that is in force, to be kept for all attempts of a request.
    #[must_use]
    pub fn pool(&self) -> Arc<Pool> {
        self.roster.pool()
    }
}
