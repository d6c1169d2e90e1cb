//! One upstream, alive: its peers, how requests connect to them, and the checks that watch them.

use std::{fmt, path::Path, sync::Arc, time::Instant};

use tokio_util::sync::CancellationToken;
use weir_config::plan;

use super::{CannotRun, Running, roster::Roster};
use crate::{
    balance::{Pool, names::Names, probe::Check, resolve::Unresolved, sticky::Sticky},
    causes::Causes,
    forward::{
        budget::Budget,
        hedge::Hedge,
        idle::{self, Idle},
        peer::{Dial, Line},
        proxy_protocol,
    },
    http_client::{Files, Tls, Way},
    pem::BadFile,
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
    ) -> Result<Self, Vec<CannotRun>> {
        let (files, tls) = plan.tls.as_ref().map(|tls| secured(plan, tls)).transpose()?.unzip();
        let way =
            Way { bind: plan.bind, preface: plan.proxy_protocol.map_or(b"", proxy_protocol::own_header) };
        let check = plan.health.as_ref().map(|health| Check::new(health, tls.as_ref(), way));
        let before = old.and_then(|old| old.upstreams.iter().find(|other| other.plan.name == plan.name));
        let roster =
            Roster::build(plan, before.map(|before| &*before.roster), check, Arc::clone(names), stop);
        let unknown = |problem: &Unresolved| CannotRun::new(problem.place, of(plan, problem));
        let roster = roster.await.map_err(|problems| problems.iter().map(unknown).collect::<Vec<_>>())?;
        let digest = files.map_or(0, |files| files.digest());
        let dial = Dial::new(plan, digest, before.map(|before| &before.dial)).await;
        let dial = dial.map_err(|problem| vec![CannotRun::new(plan.place, of(plan, &problem))])?;
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

/// What the files of an upstream's TLS hold, and how the edge's own questions speak it.
///
/// Errors: every file that cannot be used, at the key that names it.
pub(crate) fn secured(
    plan: &plan::Upstream,
    tls: &plan::UpstreamTls,
) -> Result<(Files, Tls), Vec<CannotRun>> {
    let named = tls.certificate.iter().flat_map(|own| [&own.chain, &own.key]).chain(&tls.ca);
    let files = Files::read(tls).map_err(|bad| {
        let place = |file: &Path| named.clone().find(|it| it.as_path() == file).map(|it| it.place);
        let blame = |bad: &BadFile| CannotRun::new(place(&bad.file).unwrap_or(plan.place), of(plan, bad));
        bad.iter().map(blame).collect::<Vec<_>>()
    })?;
    let own = Tls::new(tls, &files);
    let own = own.map_err(|problem| vec![CannotRun::new(tls.name.place, of(plan, &Causes(&problem)))])?;
    Ok((files, own))
}

fn of(plan: &plan::Upstream, problem: &dyn fmt::Display) -> String {
    format!("upstream {}: {problem}", plan.name)
}
