//! One upstream, alive: its peers, how requests connect to them, and the checks that watch them.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;
use weir_config::plan;

use super::{CannotRun, Running, roster::Roster};
use crate::{
    balance::{Pool, names::Names, probe::Check},
    forward::peer::Dial,
    http_client::Tls,
};

/// One upstream, alive.
#[derive(Debug)]
pub struct Upstream {
    /// As planned.
    pub plan: plan::Upstream,
    /// Who serves.
    pub roster: Arc<Roster>,
    /// How requests connect.
    pub dial: Dial,
    /// How the edge's own questions connect, where the peers speak TLS.
    pub tls: Option<Tls>,
}

impl Upstream {
    pub(super) async fn build(
        plan: &plan::Upstream,
        old: Option<&Running>,
        names: &Arc<Names>,
        stop: &CancellationToken,
    ) -> Result<Self, CannotRun> {
        let tls = plan.tls.as_ref().map(|tls| own_tls(plan, tls)).transpose()?;
        let check = plan.health.as_ref().map(|health| Check::new(health, tls.clone()));
        let before = old.and_then(|old| old.upstreams.iter().find(|other| other.plan.name == plan.name));
        let roster =
            Roster::build(plan, before.map(|before| &*before.roster), check, Arc::clone(names), stop);
        let roster = roster.await.map_err(|problems| CannotRun::Unresolved {
            upstream: Arc::clone(&plan.name),
            problems: problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
        })?;
        Ok(Self { plan: plan.clone(), roster, dial: Dial::new(plan), tls })
    }

    /// Whose turn it is: the generation that is in force, to be kept for all attempts of a request.
    #[must_use]
    pub fn pool(&self) -> Arc<Pool> {
        self.roster.pool()
    }
}

/// TLS for the edge's own questions, as strict as the plan wants requests to be.
fn own_tls(plan: &plan::Upstream, tls: &plan::UpstreamTls) -> Result<Tls, CannotRun> {
    let roots = tls.verify.then(|| {
        let mut roots = rustls::RootCertStore::empty();
        // What the system holds and cannot be read is the system's affair; an empty store verifies nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().unwrap_or_default());
        Arc::new(roots)
    });
    Tls::new(&tls.name, roots)
        .map_err(|problem| CannotRun::Tls { upstream: Arc::clone(&plan.name), problem: problem.to_string() })
}
