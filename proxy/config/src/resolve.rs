//! Raw → plan: fills in defaults, looks up names, checks what types cannot say, and notes every problem on the way.
//!
//! Nothing stops at a problem: what cannot be resolved is left out or stands for its default, and whoever called
//! throws the plan away when the report has errors. This file holds what all parts share.

mod action;
mod address;
mod ask;
mod bandwidth;
mod balance;
mod cached;
mod compress;
mod edge;
mod error_page;
mod keeping;
mod limit;
mod named;
mod path;
mod protect;
mod protocol;
mod peers;
mod reach;
mod redis;
mod route;
mod session;
mod shared;
mod slice;

use std::{
    collections::HashSet,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    Outside, defaults,
    plan::{self, Action, Plan},
    raw::{self, Named, Raw, Word},
    report::Report,
    secret::Secret,
    span::{Place, Placed},
    units::Span,
};

/// Makes the plan; it counts only if the report has no errors afterwards.
pub(crate) fn resolve(raw: &Raw, outside: &dyn Outside, report: &mut Report) -> Plan {
    let mut resolver = Resolver { raw, outside, report, names: Names::of(raw) };
    resolver.version();
    let mut plan = Plan {
        threads: resolver.threads(),
        listeners: resolver.listeners(),
        admin: resolver.admin(),
        clients: resolver.clients(),
        redis: resolver.redis(),
        identity: resolver.identity(),
        resolver: resolver.resolver(),
        upstreams: resolver.upstreams(),
        sessions: resolver.sessions(),
        limits: resolver.limits(),
        caches: resolver.caches(),
        routes: resolver.routes(),
        log: resolver.log(),
        shutdown: resolver.shutdown(),
        express: raw.express.or(defaults::EXPRESS),
    };
    let connect = plan.routes.iter().any(|route| matches!(route.action, Action::Tunnel(_)));
    plan.listeners.iter_mut().for_each(|listener| listener.bounds.connect = connect);
    resolver.sessions_can_be_looked_up(&plan);
    resolver.limits_can_be_shared(&plan);
    resolver.caches_can_be_shared(&plan);
    resolver.addresses_are_free(&plan);
    // What follows compares parts of the plan, and would be misled by those that are missing for another reason.
    if !resolver.report.has_errors() {
        resolver.routes_can_be_reached(&plan.routes);
        resolver.names_are_used(&plan);
    }
    plan
}

/// Resolves the servers of an upstream as they would be after a change while running.
pub(crate) fn servers(
    raw: &raw::Upstream,
    name: &str,
    balance: &plan::Balance,
    report: &mut Report,
) -> Vec<plan::Server> {
    let whole = Raw::default();
    let mut resolver = Resolver { raw: &whole, outside: &|_: &str| None, report, names: Names::of(&whole) };
    resolver.servers(name, raw, balance, Place::default())
}

/// A path where it was written.
fn placed_path<P: Into<PathBuf>>((path, place): (P, Place)) -> Placed<PathBuf> {
    Placed::new(path.into(), place)
}

struct Resolver<'a> {
    raw: &'a Raw,
    outside: &'a dyn Outside,
    report: &'a mut Report,
    names: Names<'a>,
}

/// The names that can be referred to, in the order of the file.
struct Names<'a> {
    upstreams: Vec<&'a str>,
    sessions: Vec<&'a str>,
    limits: Vec<&'a str>,
    caches: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn of(raw: &'a Raw) -> Self {
        fn names<T>(word: &Word<Named<T>>) -> Vec<&str> {
            word.get().into_iter().flat_map(|named| named.0.iter().map(|(name, _)| name.as_str())).collect()
        }
        Self {
            upstreams: names(&raw.upstreams),
            sessions: names(&raw.sessions),
            limits: names(&raw.limits),
            caches: names(&raw.caches),
        }
    }
}

impl<'a> Resolver<'a> {
    fn version(&mut self) {
        if let Some((version, place)) = self.raw.version.placed().filter(|(version, _)| **version != 1) {
            self.report
                .error(place, format!("version {version} is not known"))
                .help("this program reads version 1");
        }
    }

    /// A word that has no default; its absence is a problem of the `owner`.
    fn required<'w, T>(&mut self, word: &'w Word<T>, key: &str, owner: Place) -> Option<(&'w T, Place)> {
        if word.is_absent() {
            self.report.error(owner, format!("`{key}` is missing"));
        }
        word.placed()
    }

    /// A time that must pass: zero would refuse everything.
    fn time(&mut self, word: &Word<Span>, default: Duration) -> Duration {
        match word.placed() {
            Some((span, place)) if span.get().is_zero() => {
                self.report.error(place, "a time of zero leaves no time at all");
                default
            }
            Some((span, _)) => span.get(),
            None => default,
        }
    }

    /// A number of at least one.
    fn count(&mut self, word: &Word<u32>, default: u32) -> u32 {
        match word.placed() {
            Some((0, place)) => {
                self.report.error(place, "this must be at least 1");
                default
            }
            Some((count, _)) => *count,
            None => default,
        }
    }

    /// A span that may be zero.
    fn span(word: &Word<Span>, default: Duration) -> Duration {
        word.get().map_or(default, |span| span.get())
    }

    /// The position of a name; one that does not exist is a problem.
    fn look_up(&mut self, what: &str, name: &str, place: Place, known: &[&str]) -> Option<u32> {
        let position = known.iter().position(|known| *known == name);
        if position.is_none() {
            let problem = self.report.error(place, format!("there is no {what} `{name}`"));
            problem.suggest(name, known.iter().copied());
            if known.is_empty() {
                problem.help(format!("define it under `{what}s`"));
            }
        }
        position.and_then(|position| u32::try_from(position).ok())
    }

    /// A secret, given as itself or as a file that holds it.
    fn secret(&mut self, word: &Word<Secret>, file: &Word<String>, key: &str) -> Option<(Secret, Place)> {
        if let (Some((secret, place)), Some(file)) = (word.placed(), file.place()) {
            self.report
                .error(file, format!("`{key}` is given twice: as itself and as a file"))
                .help(format!("remove `{key}` or `{key}_file`"));
            return Some((secret.clone(), place));
        }
        if let Some((path, place)) = file.placed() {
            return match self.outside.read(Path::new(path)) {
                Ok(text) => Some((Secret::new(text.trim_end()), place)),
                Err(error) => {
                    self.report.error(place, format!("`{path}` cannot be read: {error}"));
                    None
                }
            };
        }
        word.placed().map(|(secret, place)| (secret.clone(), place))
    }

    fn sessions_can_be_looked_up(&mut self, plan: &Plan) {
        let raw = self.raw;
        if plan.redis.is_some() || raw.redis.get().is_some_and(|redis| !redis.url_file.is_absent()) {
            return;
        }
        for (name, _, place) in raw
            .sessions
            .entries()
            .filter(|(_, session, _)| session.ask.is_absent() && session.jwt.is_absent())
        {
            let message = format!("session `{name}` has nowhere to look: there is no `redis` and no `ask`");
            self.report
                .error(place, message)
                .help("add `ask: { upstream: …, path: /auth/session }`, or a Redis");
        }
        for (_, session, _) in raw.sessions.entries() {
            let jwt = session.jwt.get();
            let lists = [jwt.map(|jwt| &jwt.revoked), jwt.map(|jwt| &jwt.revoked_before)];
            let keys = lists.into_iter().chain([Some(&session.roles_key)]);
            for at in keys.flatten().filter_map(Word::place) {
                let problem = self.report.error(at, "there is no `redis` to look this up in");
                problem.help("add `redis: { url: … }`");
            }
        }
    }

    fn addresses_are_free(&mut self, plan: &Plan) {
        let named = |what: &str, place: Place, unwritten: &str| match place.line {
            0 => unwritten.to_owned(),
            line => format!("{what} in line {line}"),
        };
        let mut taken: Vec<(SocketAddr, String)> = Vec::new();
        if let Some(plan::Admin { address, .. }) = &plan.admin {
            let by_default = "the admin listener, whose default it is";
            taken.push((**address, named("the admin listener", address.place, by_default)));
        }
        for plan::Listener { address, place, .. } in &plan.listeners {
            let clash = taken.iter().find(|(other, _)| {
                let is_wild = address.ip().is_unspecified() || other.ip().is_unspecified();
                (address.port() != 0 && address.port() == other.port())
                    && (address.ip() == other.ip() || (is_wild && address.is_ipv4() == other.is_ipv4()))
            });
            if let Some((other, who)) = clash {
                let by = if other == address { String::new() } else { format!("{other}, ") };
                let problem = self.report.error(*place, format!("{address} is taken by {by}{who}"));
                if other != address {
                    problem.help("0.0.0.0 and [::] stand for every address of this machine");
                }
            }
            taken.push((*address, named("the listener", *place, "another listener")));
        }
    }

    fn names_are_used(&mut self, plan: &Plan) {
        let forwards = plan.routes.iter().filter_map(|route| match &route.action {
            Action::Forward(forward) => Some(forward.upstream.index()),
            Action::Tunnel(upstream) => Some(upstream.index()),
            _ => None,
        });
        let asked = plan.sessions.iter().filter_map(|session| Some(session.ask.as_ref()?.upstream.index()));
        let keys = plan.sessions.iter().filter_map(|session| match session.jwt.as_ref()?.keys {
            plan::JwtKeys::Asked { upstream, .. } => Some(upstream.index()),
            _ => None,
        });
        let mirrors = plan.routes.iter().filter_map(|route| match &route.action {
            Action::Forward(forward) => Some(forward.mirror?.upstream.index()),
            _ => None,
        });
        let upstreams = forwards.chain(asked).chain(keys).chain(mirrors);
        self.unused("upstream", &plan.upstreams, |it| (&it.name, it.place), upstreams);
        let sessions = plan.routes.iter().filter_map(|route| Some(route.session.as_ref()?.session.index()));
        self.unused("session", &plan.sessions, |it| (&it.name, it.place), sessions);
        let limits = plan.routes.iter().flat_map(|route| route.limits.iter().map(|used| used.limit.index()));
        self.unused("limit", &plan.limits, |it| (&it.name, it.place), limits);
        let caches = plan.routes.iter().filter_map(|route| Some(route.cache.as_ref()?.cache.index()));
        self.unused("cache", &plan.caches, |it| (&it.name, it.place), caches);
    }

    fn unused<T>(
        &mut self,
        what: &str,
        all: &[T],
        label: impl Fn(&T) -> (&Arc<str>, Place),
        used: impl Iterator<Item = usize>,
    ) {
        let used: HashSet<usize> = used.collect();
        for (_, item) in all.iter().enumerate().filter(|(index, _)| !used.contains(index)) {
            let (name, place) = label(item);
            self.report.warning(place, format!("{what} `{name}` is used by no route"));
        }
    }

    fn threads(&mut self) -> Option<usize> {
        match self.raw.threads.placed()? {
            (0, place) => {
                self.report.error(place, "0 threads do no work").help("leave it out to follow the cores");
                None
            }
            (threads, _) => usize::try_from(*threads).ok(),
        }
    }

    fn shutdown(&self) -> plan::Shutdown {
        let grace = self.raw.shutdown.get().map(|shutdown| &shutdown.grace);
        plan::Shutdown {
            grace: grace.map_or(defaults::SHUTDOWN_GRACE, |it| Self::span(it, defaults::SHUTDOWN_GRACE)),
        }
    }
}
