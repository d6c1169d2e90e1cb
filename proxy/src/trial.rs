//! What a plan needs of the machine, tried before anything is changed: certificates, keys, authorities, folders, error
//! pages, the log, Redis' address and its certificates. `weir check`, a start and a reload all come through here, and so refuse the same
//! things, all of them at once, each at the key that names it.
//!
//! What is read here is read again by whoever uses it; a file that changes in between is refused there.
//! [`elsewhere`] tries what a start finds out by doing it (names, addresses to listen on), for `weir check` alone.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime},
};

use futures_util::future::join_all;
use tokio::time::timeout;
use weir_config::{
    Plan, Report,
    plan::{self, Action, Page},
    span::{Place, Placed},
};

use crate::{
    accept::{listener, tls::Certificates},
    balance::{names::Names, resolve::resolve},
    cache,
    causes::Causes,
    fleet::Redis,
    pem::Expiry,
    record::access,
    running::{self, CannotRun},
    source::Source,
};

/// An operator who hears of the end of a certificate now has time to do something about it.
const SOON: i64 = 14;
/// For one name, in a check; the system's own resolver may take longer, and people watch.
const NAME_PATIENCE: Duration = Duration::from_secs(5);

/// A configuration for which everything is there.
#[derive(Debug)]
pub struct Tried {
    /// What it means.
    pub plan: Plan,
    /// What its operator should know nevertheless.
    pub warnings: Report,
    /// What became of an nginx.conf, in one line.
    pub translated: Option<String>,
    /// How long its certificates are good for.
    pub certificates: Vec<Expiry>,
}

/// Reads a configuration and tries what it needs.
///
/// # Errors
/// Every problem of the file, or, if it has none, everything that cannot be had.
pub fn load(source: &Source, now: SystemTime) -> Result<Tried, Report> {
    let loaded = source.load()?;
    let (plan, mut report) = (loaded.plan, loaded.warnings);
    let mut trial = Trial { report: &mut report, certificates: Vec::new() };
    plan.listeners.iter().for_each(|listener| trial.listener(listener, now));
    plan.upstreams.iter().for_each(|upstream| trial.upstream(upstream, now));
    plan.routes.iter().for_each(|route| trial.route(route));
    plan.caches.iter().for_each(|cache| trial.cache(cache));
    trial.redis(plan.redis.as_ref());
    trial.log(plan.log.access.as_ref());
    let mut certificates = trial.certificates;
    certificates.sort_by(|a, b| a.file.cmp(&b.file));
    certificates.dedup();
    report.sort();
    if report.has_errors() {
        return Err(report);
    }
    Ok(Tried { plan, warnings: report, translated: loaded.translated, certificates })
}

/// Looks every server up and tries every address to listen on. What an operator may want so is a warning: a name that the
/// name servers of another network know, a port that this user may not have. An address that is taken is not said at
/// all, as with `nginx -t`: the edge itself may be running.
pub async fn elsewhere(plan: &Plan, report: &mut Report) {
    let names = Names::new(&plan.resolver);
    let servers =
        plan.upstreams.iter().flat_map(|upstream| upstream.servers.iter().map(move |it| (upstream, it)));
    let looked_up = servers.map(async |(upstream, server)| {
        let why = match timeout(NAME_PATIENCE, resolve(server, &names)).await {
            Ok(Ok(_)) => return None,
            Ok(Err(problem)) => Causes(&problem).to_string(),
            Err(_) => format!("{} cannot be resolved within {NAME_PATIENCE:?}", server.address),
        };
        Some((server, format!("upstream {}: {why}", upstream.name)))
    });
    for (server, problem) in join_all(looked_up).await.into_iter().flatten() {
        let help = if server.resolve {
            "it gets no requests until its name has an address"
        } else {
            "a start or reload is refused while that is so; `resolve: true` goes on without it"
        };
        report.warning(server.place, problem).help(help);
    }
    let admin = plan.admin.iter().map(|admin| (*admin.address, admin.address.place));
    for (address, place) in plan.listeners.iter().map(|it| (it.address, it.place)).chain(admin) {
        let Err(problem) = listener::try_bind(address) else { continue };
        let said = Causes(&problem).to_string();
        match problem.source.kind() {
            io::ErrorKind::AddrInUse => continue,
            io::ErrorKind::PermissionDenied => report
                .warning(place, said)
                .help("this user may not; another one, or CAP_NET_BIND_SERVICE, may"),
            _ => report.error(place, said),
        };
    }
    report.sort();
}

struct Trial<'a> {
    report: &'a mut Report,
    certificates: Vec<Expiry>,
}

impl Trial<'_> {
    fn listener(&mut self, listener: &plan::Listener, now: SystemTime) {
        let Some(tls) = &listener.tls else { return };
        let named = || tls.certificates.iter().flat_map(|pair| [&pair.chain, &pair.key]);
        match Certificates::of(tls) {
            Ok(certificates) => {
                for expiry in certificates.expiries() {
                    self.expires(expiry, place_of(named(), &expiry.file).unwrap_or(listener.place), now);
                }
            }
            Err(bad) => {
                for bad in bad {
                    let place = place_of(named(), &bad.file).unwrap_or(listener.place);
                    self.report.error(place, format!("listener {}: {bad}", listener.address));
                }
            }
        }
    }

    fn upstream(&mut self, upstream: &plan::Upstream, now: SystemTime) {
        let Some(tls) = &upstream.tls else { return };
        match running::secured(upstream, tls) {
            Ok((files, _)) => {
                if let Some((expiry, own)) = files.expiry().zip(tls.certificate.as_ref()) {
                    self.expires(expiry, own.chain.place, now);
                }
            }
            Err(problems) => CannotRun::note(problems, self.report),
        }
    }

    fn expires(&mut self, expiry: &Expiry, place: Place, now: SystemTime) {
        let (file, left) = (expiry.file.display(), expiry.days_left(now));
        let said = match left {
            ..0 => format!("{file} has expired: nobody who checks it will believe it"),
            0 => format!("{file} expires within a day"),
            1 => format!("{file} expires in a day"),
            2..SOON => format!("{file} expires in {left} days"),
            _ => String::new(),
        };
        if !said.is_empty() {
            self.report.warning(place, said).help("renew it, and reload");
        }
        self.certificates.push(expiry.clone());
    }

    fn route(&mut self, route: &plan::Route) {
        if let Action::Files(files) = &route.action {
            CannotRun::note(running::folder(route, files).err(), self.report);
        }
        for page in &route.error_pages {
            let Page::File(file) = &page.page else { continue };
            if let Err(problem) = running::page(file) {
                let said = format!(
                    "route {}: the error page {} cannot be read: {problem}",
                    route.name,
                    file.display()
                );
                self.report.warning(file.place, said).help("our own text is shown instead");
            }
        }
    }

    fn cache(&mut self, cache: &plan::Cache) {
        let Some(disk) = &cache.disk else { return };
        if let Err(problem) = cache::can_keep(&disk.path) {
            let said =
                format!("cache {}: the folder {} cannot be used: {problem}", cache.name, disk.path.display());
            self.report
                .error(disk.path.place, said)
                .help("it must be writable, or its parent exist, so that it can be made");
        }
    }

    fn redis(&mut self, redis: Option<&plan::Redis>) {
        CannotRun::note(redis.and_then(|redis| Redis::new(redis).err()).map(CannotRun::from), self.report);
    }

    fn log(&mut self, log: Option<&plan::AccessLog>) {
        let Some(path) = log.and_then(|log| log.path.as_ref()) else { return };
        if let Err(problem) = access::can_open(path) {
            self.report.error(path.place, problem.to_string());
        }
    }
}

/// Where the plan names a file.
fn place_of<'a, P: AsRef<Path> + 'a>(
    mut named: impl Iterator<Item = &'a Placed<P>>,
    file: &Path,
) -> Option<Place> {
    named.find(|it| it.as_ref() == file).map(|it| it.place)
}
