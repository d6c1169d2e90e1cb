//! The listeners of the plan in force: bound before anything changes, then opened, changed and closed together.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio::{net::TcpListener, task::JoinHandle};
use weir_config::{Plan, plan, units::Bytes};

use super::announce;
use crate::{
    accept::{
        counters::Counters,
        listener::{self, Listener, Settings},
        stop::{Stopper, stop},
        tls::{Certificates, Tls},
    },
    causes::Causes,
    edge::Edge,
    running::CannotRun,
    state::State,
};

/// The open listeners, by the address in the plan.
pub(super) struct Fronts {
    edge: Arc<Edge>,
    state: Arc<State>,
    open: HashMap<SocketAddr, Front>,
    /// Closed by a reload, with requests that may still be in flight.
    closing: Vec<JoinHandle<()>>,
}

struct Front {
    listener: Arc<Listener<Edge>>,
    stop: Stopper,
    task: JoinHandle<()>,
}

/// What a plan's listeners need, had before anything is changed.
pub(super) struct Prepared {
    settings: Vec<(SocketAddr, Settings)>,
    sockets: HashMap<SocketAddr, TcpListener>,
}

impl Fronts {
    /// None yet.
    pub(super) fn new(edge: Arc<Edge>, state: Arc<State>) -> Self {
        Self { edge, state, open: HashMap::new(), closing: Vec::new() }
    }

    /// Binds what is new and reads every certificate.
    pub(super) fn prepare(&self, plan: &Plan) -> Result<Prepared, Vec<CannotRun>> {
        let mut prepared = Prepared { settings: Vec::new(), sockets: HashMap::new() };
        let mut problems = Vec::new();
        for wanted in &plan.listeners {
            let had = settings(plan, wanted).and_then(|settings| Ok((settings, self.socket(wanted)?)));
            match had {
                Ok((settings, socket)) => {
                    prepared.sockets.extend(socket.map(|socket| (wanted.address, socket)));
                    prepared.settings.push((wanted.address, settings));
                }
                Err(problem) => problems.push(CannotRun::new(wanted.place, problem)),
            }
        }
        if problems.is_empty() { Ok(prepared) } else { Err(problems) }
    }

    /// A socket for a listener that has none yet.
    fn socket(&self, wanted: &plan::Listener) -> Result<Option<TcpListener>, String> {
        if self.open.contains_key(&wanted.address) {
            return Ok(None);
        }
        listener::bind(wanted.address).map(Some).map_err(|problem| Causes(&problem).to_string())
    }

    /// Closes what is gone, changes what stays, opens what is new.
    pub(super) fn put_in_force(&mut self, mut prepared: Prepared) {
        let wanted: Vec<SocketAddr> = prepared.settings.iter().map(|(address, _)| *address).collect();
        self.closing.retain(|task| !task.is_finished());
        for (address, front) in self.open.extract_if(|address, _| !wanted.contains(address)) {
            front.stop.stop();
            self.closing.push(front.task);
            tracing::info!(%address, "listener closed");
        }
        for (address, settings) in prepared.settings {
            match (self.open.get(&address), prepared.sockets.remove(&address)) {
                (Some(front), _) => front.listener.settings.store(Arc::new(settings)),
                (None, Some(socket)) => self.begin(address, settings, socket),
                (None, None) => tracing::error!(%address, "a listener without a socket"),
            }
        }
    }

    fn begin(&mut self, address: SocketAddr, settings: Settings, socket: TcpListener) {
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let bound = socket.local_addr().unwrap_or(address);
        // For people, and for whoever asked for port 0.
        announce(&format!("listening on {scheme}://{bound}"));
        tracing::info!(address = %bound, scheme, "listening");
        let counters = Arc::new(Counters::default());
        self.state.watch_listener(bound, settings.tls.is_some(), Arc::clone(&counters));
        let listener = Arc::new(Listener {
            address,
            settings: ArcSwap::from_pointee(settings),
            service: Arc::clone(&self.edge),
            counters,
        });
        let (stop, stopped) = stop();
        let task = tokio::spawn(listener::serve(Arc::clone(&listener), socket, stopped));
        self.open.insert(address, Front { listener, stop, task });
    }

    /// Stops accepting everywhere and waits for the connections to end.
    pub(super) async fn close_all(self) {
        for front in self.open.values() {
            front.stop.stop();
        }
        for task in self.open.into_values().map(|front| front.task).chain(self.closing) {
            let _ = task.await;
        }
    }
}

fn settings(plan: &Plan, wanted: &plan::Listener) -> Result<Settings, String> {
    let named = |problem: &dyn std::fmt::Display| format!("listener {}: {problem}", wanted.address);
    let tls = wanted.tls.as_ref().map(|tls| {
        // They were read a moment ago; the first that has changed since then is enough to say.
        let certificates = Certificates::of(tls).map_err(|bad| named(&bad[0]))?;
        Tls::new(certificates, tls.http2).map(Arc::new).map_err(|problem| named(&problem))
    });
    Ok(Settings {
        bounds: Arc::new(bounds(plan, wanted)),
        tls: tls.transpose()?,
        hops: wanted.proxy_protocol.then(|| plan.clients.trusted.as_slice().into()),
    })
}

/// The listener's bounds; its bound on bodies is the widest of its own and every route's, which narrow it later.
fn bounds(plan: &Plan, listener: &plan::Listener) -> plan::Bounds {
    let mut bounds = listener.bounds.clone();
    let of_routes = plan.routes.iter().filter_map(|route| route.body_bytes);
    bounds.body_bytes = of_routes.fold(bounds.body_bytes, |widest, bytes| {
        if widest.is_empty() || bytes.is_empty() { Bytes::new(0) } else { widest.max(bytes) }
    });
    bounds
}
