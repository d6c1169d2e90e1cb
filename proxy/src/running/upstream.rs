//! One upstream, alive: its peers, how requests connect to them, and the checks that watch them.

use std::{sync::Arc, time::Instant};

use rand::Rng;
use tokio_util::sync::CancellationToken;
use weir_config::plan;

use super::{CannotRun, Running};
use crate::{
    balance::{Pool, probe, resolve, sticky::Sticky},
    forward::peer::Dial,
    http_client::Tls,
};

/// One upstream, alive.
#[derive(Debug)]
pub struct Upstream {
    /// As planned.
    pub plan: plan::Upstream,
    /// Whose turn it is.
    pub pool: Arc<Pool>,
    /// What brings the requests of a session to its peer.
    pub sticky: Option<Arc<Sticky>>,
    /// How requests connect.
    pub dial: Dial,
    /// How the edge's own questions connect, where the peers speak TLS.
    pub tls: Option<Tls>,
}

impl Upstream {
    pub(super) async fn build(
        plan: &plan::Upstream,
        old: Option<&Running>,
        stop: &CancellationToken,
    ) -> Result<Self, CannotRun> {
        let endpoints = resolve::resolve(plan).await.map_err(|problems| CannotRun::Unresolved {
            upstream: Arc::clone(&plan.name),
            problems: problems
                .iter()
                .map(|problem| format!("{} (at {}): {}", problem.name, problem.place, problem.source))
                .collect::<Vec<_>>()
                .join("; "),
        })?;
        let before = old.and_then(|old| old.upstreams.iter().find(|other| other.plan.name == plan.name));
        let pool = Pool::rebuild(before.map(|before| &*before.pool), plan, endpoints);
        let sticky = plan.sticky.as_ref();
        let sticky =
            sticky.map(|plan| Sticky::rebuild(before.and_then(|before| before.sticky.as_ref()), plan));
        let tls = plan.tls.as_ref().map(|tls| own_tls(plan, tls)).transpose()?;
        if let Some(health) = &plan.health {
            let check = probe::Check::new(health, tls.clone());
            for sight in pool.sight(Instant::now()).into_iter().filter(|sight| !sight.peer.endpoint().down) {
                let random = || rand::rng().random::<f64>();
                let watch =
                    probe::watch(Arc::clone(&plan.name), sight.peer, check.clone(), stop.clone(), random);
                tokio::spawn(watch);
            }
        }
        Ok(Self { plan: plan.clone(), pool, sticky, dial: Dial::new(plan), tls })
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
