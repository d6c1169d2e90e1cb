//! The life of the process: start, listen, reload, drain.
//!
//! - *start*: everything is built and every socket bound before the first client is accepted.
//! - HUP: the next generation is built beside the running one; listeners come, go and change their certificates; a
//!   configuration that cannot be had changes nothing and says why.
//! - USR1: the access log is opened anew, as nginx does for whoever rotates its logs.
//! - TERM, QUIT, Ctrl-C: not ready any more, listeners closed, requests in flight end, and then the process, at once
//!   or when `shutdown.grace` is over. A second one ends it without waiting.

mod fronts;

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use weir_config::{Report, plan};

use self::fronts::Fronts;
use crate::{
    accept::listener,
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
    let mut fronts = Fronts::new(edge, Arc::clone(&state));
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
