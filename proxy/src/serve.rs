//! The life of the process: start, listen, reload, drain.
//!
//! - *start*: everything is built and every socket bound before the first client is accepted.
//! - HUP: the next generation is built beside the running one; listeners come, go and change their certificates; a
//!   configuration that cannot be had changes nothing and says why.
//! - USR1: the access log is opened anew, as nginx does for whoever rotates its logs.
//! - TERM, QUIT, Ctrl-C: not ready any more, listeners closed, requests in flight end, and then the process, at once
//!   or when `shutdown.grace` is over. A second one ends it without waiting.

use std::{
    collections::HashMap,
    io::Write,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use weir_config::{Plan, Report, plan};

use crate::{
    accept::{
        counters::Counters,
        listener::{self, Listener, Settings},
        stop::{Stopper, stop},
        tls::{Certificates, Tls},
    },
    admin,
    cache::Cache,
    causes::Causes,
    edge::Edge,
    metrics::Metrics,
    running::CannotRun,
    source::Source,
    state::{Snapshot, State, descriptors, threads},
    trial::Tried,
};

/// Idle HTTP/2 connections to peers without TLS, in all; those of HTTP/1 are bounded by each upstream's `keepalive`.
const PEER_CONNECTIONS: usize = 4096;
/// For the last lines of the access log, at the end.
const LAST_LINES: Duration = Duration::from_secs(2);

/// Serves what `source` said until a signal ends the process.
///
/// # Errors
/// What could not be had at the start: a [`Report`] where the configuration asks for it, an address or
/// a name.
pub fn serve(source: Source, tried: Tried) -> Result<End, Box<dyn std::error::Error>> {
    let threads = threads::count(tried.plan.threads);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("weir")
        .enable_all()
        .build()?;
    let ended = runtime.block_on(run(source, tried, threads));
    // Connections that outlived the grace period end here.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

async fn run(source: Source, tried: Tried, threads: usize) -> Result<End, Box<dyn std::error::Error>> {
    let mut signals = Signals::new()?;
    let (granted, wanted) = (descriptors::raise(), descriptors::wanted(&tried.plan));
    if granted < wanted {
        tracing::warn!(
            granted,
            wanted,
            "fewer descriptors than full listeners need: raise the limit, or lower `connections`"
        );
    }
    let metrics = Metrics::new()?;
    // The warnings have been said.
    let (first, report) = Snapshot::build(tried, None, &metrics).await.map_err(Report::errors)?;
    let mut report = report.errors();
    let plan = Arc::clone(&first.running.plan);
    let state = State::new(source, first, metrics);
    let edge = Arc::new(Edge::new(Arc::clone(&state), PEER_CONNECTIONS));
    let mut fronts = Fronts { edge, state: Arc::clone(&state), open: HashMap::new(), closing: Vec::new() };
    let (prepared, admin) = (fronts.prepare(&plan), plan.admin.as_ref().map(bind_admin).transpose());
    let (prepared, admin) = match (prepared, admin) {
        (Ok(prepared), Ok(admin)) => (prepared, admin),
        (prepared, admin) => {
            let problems = prepared.err().into_iter().flatten().chain(admin.err());
            CannotRun::note(problems, &mut report);
            return Err(report.into());
        }
    };
    fronts.put_in_force(prepared);
    if let Some((socket, allow)) = admin {
        announce(&format!("admin on http://{}", socket.local_addr()?));
        tokio::spawn(admin::serve(socket, allow, Arc::clone(&state)));
    }
    state.set_ready(true);
    tracing::info!(threads, listeners = plan.listeners.len(), routes = plan.routes.len(), "serving");
    loop {
        match signals.next().await {
            Heard::Reload => reload(&state, &mut fronts).await,
            Heard::Reopen => reopen(&state),
            Heard::Stop => break,
        }
    }
    Ok(drain(&state, fronts, &mut signals).await)
}

fn bind_admin(admin: &plan::Admin) -> Result<(TcpListener, Vec<IpNet>), CannotRun> {
    let socket = listener::bind(*admin.address);
    let socket = socket
        .map_err(|problem| CannotRun::new(admin.address.place, format_args!("admin: {}", Causes(&problem))));
    Ok((socket?, admin.allow.clone()))
}

async fn reload(state: &Arc<State>, fronts: &mut Fronts) {
    let _alone = state.changing().await;
    let next = async {
        let (next, mut report) = state.prepare().await?;
        match fronts.prepare(&next.running.plan) {
            Ok(prepared) => Ok((next, prepared, report)),
            Err(problems) => {
                CannotRun::note(problems, &mut report);
                Err(report)
            }
        }
    };
    match next.await {
        Ok((next, prepared, warnings)) => {
            for problem in warnings.problems() {
                let help = problem.help.as_deref().unwrap_or_default();
                tracing::warn!(at = warnings.at(problem), path = problem.path, help, "{}", problem.message);
            }
            let before = state.snapshot();
            let (old, new) = (&before.running.plan, Arc::clone(&next.running.plan));
            if old.threads != new.threads || old.admin != new.admin || old.log.level != new.log.level {
                tracing::warn!(
                    "`threads`, `admin` and `log.level` change only with a restart; everything else is in force"
                );
            }
            state.swap(next);
            fronts.put_in_force(prepared);
            state.count_reload(true);
            tracing::info!(generation = state.generation(), routes = new.routes.len(), "configuration taken");
        }
        Err(report) => {
            state.count_reload(false);
            tracing::error!("configuration refused, the old one stays in force:\n{report}");
        }
    }
}

/// After a rotation: as a reload does, and nothing else.
fn reopen(state: &State) {
    if let Some(access) = state.snapshot().recorder.access() {
        access.reopen();
    }
    tracing::info!("access log opened anew");
}

async fn drain(state: &Arc<State>, fronts: Fronts, signals: &mut Signals) -> End {
    state.set_ready(false);
    let started = Instant::now();
    let grace = state.snapshot().running.plan.shutdown.grace;
    tracing::info!(in_flight = state.in_flight(), grace_s = grace.as_secs(), "draining");
    let end = tokio::select! {
        () = fronts.close_all() => End::Drained,
        () = tokio::time::sleep(grace) => End::GraceOver,
        () = signals.second_stop(state) => End::CutShort,
    };
    let left = state.in_flight();
    let took_ms = started.elapsed().as_millis();
    match end {
        End::Drained => tracing::info!(took_ms, "drained"),
        End::GraceOver => tracing::warn!(took_ms, in_flight = left, "ended with requests in flight"),
        End::CutShort => tracing::warn!(took_ms, in_flight = left, "ended at once by a second signal"),
    }
    if let Some(access) = state.snapshot().recorder.access().cloned() {
        let _ = tokio::task::spawn_blocking(move || access.flush(LAST_LINES)).await;
    }
    let disks = state.snapshot().running.caches.iter().filter_map(Cache::disk).collect::<Vec<_>>();
    for disk in disks {
        let _ = tokio::task::spawn_blocking(move || disk.finish()).await;
    }
    end
}

/// Says a line on standard output. Whoever read that may be gone, which is no reason to go, too.
fn announce(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The open listeners, by the address in the plan.
struct Fronts {
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
struct Prepared {
    settings: Vec<(SocketAddr, Settings)>,
    sockets: HashMap<SocketAddr, TcpListener>,
}

impl Fronts {
    /// Binds what is new and reads every certificate.
    fn prepare(&self, plan: &Plan) -> Result<Prepared, Vec<CannotRun>> {
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
    fn put_in_force(&mut self, mut prepared: Prepared) {
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
    async fn close_all(self) {
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
        if widest.is_empty() || bytes.is_empty() {
            weir_config::units::Bytes::new(0)
        } else {
            widest.max(bytes)
        }
    });
    bounds
}

/// How it came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Every request was answered.
    Drained,
    /// `shutdown.grace` was over.
    GraceOver,
    /// A second signal came.
    CutShort,
}

#[derive(Debug)]
enum Heard {
    Reload,
    Reopen,
    Stop,
}

struct Signals {
    hup: Signal,
    usr1: Signal,
    term: Signal,
    quit: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.hup.recv() => Heard::Reload,
            _ = self.usr1.recv() => Heard::Reopen,
            _ = self.term.recv() => Heard::Stop,
            _ = self.quit.recv() => Heard::Stop,
            _ = self.int.recv() => Heard::Stop,
        }
    }

    /// Waits, once it drains, for somebody who cannot wait.
    async fn second_stop(&mut self, state: &State) {
        loop {
            match self.next().await {
                Heard::Reload => tracing::warn!("no reload: the edge is draining, and ends soon"),
                Heard::Reopen => reopen(state),
                Heard::Stop => return,
            }
        }
    }
}
