//! The meaning of a checked file in the words of config.yaml.
//!
//! Top-down: what is said once for the process, then `http`, its upstreams and servers. The parts:
//! [`upstream`] groups of peers · [`listen`] sockets and names · [`server`] which locations become which routes, in what order ·
//! [`location`] one route · [`forward`] `proxy_pass` and what tunes it · [`peers`] how peers are found and connected to ·
//! [`guard`] who may pass, [`auth_request`] who is asked about that, [`limit`] how often · [`cache`] what is kept, and for how long.

mod auth_request;
mod balance;
mod bandwidth;
mod cache;
mod compress;
mod error_page;
mod forward;
mod guard;
mod limit;
mod listen;
mod location;
mod peers;
mod server;
mod slice;
mod upstream;

use weir_config::raw::{
    AccessFormat, AccessLog, Cache, Clients, ForwardedBy, Level, Limit, List, Listener, Log, Named, Raw,
    Route, Session, Short, Shutdown, Switch, Upstream, Word,
};

use crate::{
    fidelity::Ledger,
    place::Problems,
    scope::Scope,
    tree::Directive,
    value::{number, span},
};

/// What has been translated so far, and where to note what became of each directive.
struct Translator<'a, 'n> {
    ledger: &'n mut Ledger,
    problems: &'n mut Problems,
    /// The `upstream` blocks, by name.
    groups: Vec<upstream::Group<'a>>,
    /// The `limit_req_zone` directives, by name.
    zones: Vec<limit::Zone<'a>>,
    /// Whether somebody is trusted to tell a client's address.
    has_hops: bool,
    listeners: Vec<Listener>,
    upstreams: Vec<(String, Upstream)>,
    limits: Vec<(String, Limit)>,
    /// The services of `auth_request`, by the paths of their locations.
    sessions: Vec<(String, Session)>,
    /// The `proxy_cache_path` directives, by the names of their zones.
    caches: Vec<(String, Cache)>,
    routes: Vec<Route>,
}

/// Translates a file that has passed the check.
pub(crate) fn translate(directives: &[Directive], ledger: &mut Ledger, problems: &mut Problems) -> Raw {
    let mut translator = Translator {
        ledger,
        problems,
        groups: Vec::new(),
        zones: Vec::new(),
        has_hops: false,
        listeners: Vec::new(),
        upstreams: Vec::new(),
        limits: Vec::new(),
        sessions: Vec::new(),
        caches: Vec::new(),
        routes: Vec::new(),
    };
    translator.file(directives)
}

impl<'a> Translator<'a, '_> {
    fn file(&mut self, directives: &'a [Directive]) -> Raw {
        let main = Scope::default().inner(directives);
        for include in all_named(directives, "include") {
            self.ledger.exact(include);
        }
        let mut raw = Raw { version: Word::new(1), ..Raw::default() };
        self.process(&main, &mut raw);
        let Some(http) = main.own("http") else {
            return raw;
        };
        let scope = main.inner(http.inside());
        self.groups(http.inside());
        self.zones(http.inside());
        self.caches = self.caches(http.inside());
        self.maps(http.inside());
        raw.clients = self.clients(&scope);
        self.has_hops = !raw.clients.is_absent();
        raw.resolver = self.resolver(&scope);
        raw.log = self.log(&scope);
        self.servers(&scope, http.inside());
        self.unused_groups(&scope);
        raw.listeners = list(self.listeners.drain(..).map(Short));
        raw.upstreams = named(self.upstreams.drain(..));
        raw.sessions = named(self.sessions.drain(..));
        raw.limits = named(self.limits.drain(..));
        raw.caches = named(self.caches.drain(..));
        raw.routes = list(self.routes.drain(..));
        raw
    }

    /// What is said outside of `http`.
    fn process(&mut self, main: &Scope<'a>, raw: &mut Raw) {
        if let Some(workers) = main.own("worker_processes") {
            match (workers.arg(0), number(workers.arg(0))) {
                ("auto", _) => self.ledger.exact(workers),
                (_, Some(threads @ 1..)) => {
                    raw.threads = Word::new(threads);
                    self.ledger.exact(workers);
                }
                (text, _) => self
                    .problems
                    .add(&workers.args[0].at, format!("invalid number of worker processes \"{text}\"")),
            }
        }
        if let Some(grace) = main.own("worker_shutdown_timeout")
            && let Some(span) = self.value(grace, span)
        {
            raw.shutdown = Word::new(Shutdown { grace: Word::new(span) });
            self.ledger.exact(grace);
        }
    }

    /// Whom to believe about a client's address.
    fn clients(&mut self, scope: &Scope<'a>) -> Word<Clients> {
        let mut clients = Clients::default();
        let trusted = scope.all("set_real_ip_from");
        let mut networks = Vec::new();
        for directive in &trusted {
            match guard::network(directive.arg(0)) {
                Some(network) => networks.push(network.to_string()),
                None => {
                    self.ledger.refused(directive, "name the trusted hop by address or network");
                    continue;
                }
            }
            self.ledger.exact(directive);
        }
        if let Some(header) = scope.one("real_ip_header") {
            match header.arg(0).to_ascii_lowercase().as_str() {
                "x-forwarded-for" => {
                    clients.header = Word::new(ForwardedBy::XForwardedFor);
                    self.ledger.exact(header);
                }
                "proxy_protocol" => {
                    self.ledger.approximated(header, "the address it tells is used wherever it is sent");
                }
                _ => self
                    .ledger
                    .refused(header, "have the hop in front append to X-Forwarded-For or Forwarded"),
            }
        }
        if let Some(recursive) = scope.one("real_ip_recursive") {
            match recursive.arg(0) {
                "on" => self.ledger.exact(recursive),
                _ => self.ledger.approximated(recursive, "as if on: trusted hops are skipped from the right"),
            }
        }
        if networks.is_empty() {
            return Word::Absent;
        }
        clients.trusted = list(networks);
        Word::new(clients)
    }

    /// The access log and the importance of events; there is one of each.
    fn log(&mut self, http: &Scope<'a>) -> Word<Log> {
        let mut log = Log::default();
        if let Some(directive) = http.one("access_log") {
            log.access = Word::new(Short(self.access_log(directive)));
        }
        if let Some(directive) = http.one("error_log") {
            let level = match directive.arg(1) {
                "debug" => Level::Debug,
                "info" | "notice" => Level::Info,
                "warn" => Level::Warn,
                _ => Level::Error,
            };
            log.level = Word::new(level);
            self.ledger.approximated(directive, "events of this level go to standard error, not to a file");
        }
        if log == Log::default() { Word::Absent } else { Word::new(log) }
    }

    fn access_log(&mut self, directive: &'a Directive) -> Switch<AccessLog> {
        let path = directive.arg(0);
        if path == "off" {
            self.ledger.exact(directive);
            return Switch::Off;
        }
        let mut access = AccessLog { format: Word::new(AccessFormat::Combined), ..AccessLog::default() };
        if path.starts_with("syslog:") || path.contains('$') {
            self.ledger.approximated(directive, "written to standard output");
        } else {
            if path != "/dev/stdout" {
                access.path = Word::new(path.to_owned());
            }
            match directive.arg(1) {
                "" | "combined" => self.ledger.exact(directive),
                name => {
                    let how = format!("written as `combined`, not as `{name}`; `format: json` has more");
                    self.ledger.approximated(directive, how);
                }
            }
        }
        Switch::On(access)
    }

    /// The one `map` that everybody copies is not needed; others are.
    fn maps(&mut self, http: &'a [Directive]) {
        for map in http.iter().filter(|directive| directive.name == "map") {
            if map.arg(0) == "$http_upgrade" {
                let why = "connections are upgraded when client and origin agree";
                self.ledger.ignored(map, why);
                map.inside().iter().for_each(|line| self.ledger.ignored(line, why));
            } else {
                let what_to_do = "write a route with `headers:` for each case";
                self.ledger.refused(map, what_to_do);
                map.inside().iter().for_each(|line| self.ledger.refused(line, what_to_do));
            }
        }
        for format in http.iter().filter(|directive| directive.name == "log_format") {
            self.ledger.ignored(format, "log lines are `combined` or JSON");
        }
    }

    /// The only argument as a value of nginx's grammar, or a problem.
    fn value<T>(&mut self, directive: &Directive, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let value = parse(directive.arg(0));
        if value.is_none() {
            // nginx says "directive invalid value" and leaves the value out.
            let message =
                format!("invalid value \"{}\" in \"{}\" directive", directive.arg(0), directive.name);
            let at = directive.args.first().map_or(&directive.at, |word| &word.at);
            self.problems.add(at, message);
        }
        value
    }

    /// The value of the directive of this name that holds in `scope`; it fits exactly.
    fn said<T>(&mut self, scope: &Scope<'a>, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let directive = scope.one(name)?;
        let value = self.value(directive, parse)?;
        self.ledger.exact(directive);
        Some(value)
    }
}

/// Every directive of this name, at any depth.
fn all_named<'a>(directives: &'a [Directive], name: &str) -> Vec<&'a Directive> {
    let mut found = Vec::new();
    for directive in directives {
        if directive.name == name {
            found.push(directive);
        }
        found.extend(all_named(directive.inside(), name));
    }
    found
}

/// A list, not written when it is empty.
fn list<T>(items: impl IntoIterator<Item = T>) -> Word<List<T>> {
    let items: List<T> = items.into_iter().collect();
    if items.0.is_empty() { Word::Absent } else { Word::new(items) }
}

/// Named values, not written when there are none.
fn named<N: Into<String>, T>(entries: impl IntoIterator<Item = (N, T)>) -> Word<Named<T>> {
    let entries: Named<T> = entries.into_iter().collect();
    if entries.0.is_empty() { Word::Absent } else { Word::new(entries) }
}

/// A word, not written when there is nothing to say.
fn maybe<T>(value: Option<T>) -> Word<T> {
    value.map_or(Word::Absent, Word::new)
}
