//! `upstream` blocks → groups of servers, and the groups that a bare `proxy_pass http://host:port` implies.

use weir_config::{
    raw::{Balance, Method, Queue, Server, Short, Upstream, Word},
    units::Span,
};

use super::{
    Translator,
    forward::{Module, Tuning},
    list, maybe,
};
use crate::{
    scope::Scope,
    tree::Directive,
    value::{number, span},
};

/// An `upstream` block, and what it says before any location tunes it.
pub(super) struct Group<'a> {
    block: &'a Directive,
    base: Upstream,
    /// Servers that may be asked: without a word, nginx tries each once.
    tries: u32,
}

impl<'a> Translator<'a, '_> {
    /// Reads every `upstream` of `http`.
    pub(super) fn groups(&mut self, http: &'a [Directive]) {
        for block in http.iter().filter(|directive| directive.name == "upstream") {
            if self.groups.iter().any(|group| group.block.arg(0) == block.arg(0)) {
                self.problems.add(&block.at, format!("duplicate upstream \"{}\"", block.arg(0)));
                continue;
            }
            let group = self.group(block);
            self.groups.push(group);
        }
    }

    fn group(&mut self, block: &'a Directive) -> Group<'a> {
        let scope = Scope::default().inner(block.inside());
        let balance = self.balance(&scope);
        let sticky = self.sticky(&scope);
        let written = scope.all("server");
        if written.is_empty() {
            self.problems.add(&block.at, "no servers are inside upstream");
        }
        let servers: Vec<Server> =
            written.into_iter().filter_map(|server| self.server_of(server, balance.as_ref())).collect();
        let keepalive = self.keepalive(&scope);
        let rests = |server: &&Server| server.down.or(false) || server.drain.or(false);
        let tries = servers.iter().filter(|server| !rests(server)).count();
        let base = Upstream {
            balance: maybe(balance.map(Short)),
            sticky: maybe(sticky),
            servers: list(servers.into_iter().map(Short)),
            keepalive: maybe(keepalive.map(Short)),
            queue: maybe(self.queue(&scope)),
            ..Upstream::default()
        };
        Group { block, base, tries: u32::try_from(tries).unwrap_or(u32::MAX).max(1) }
    }

    /// `queue NUMBER [timeout=TIME]`.
    fn queue(&mut self, scope: &Scope<'a>) -> Option<Queue> {
        const NGINX_TIMEOUT: Span = Span::new(std::time::Duration::from_secs(60));
        let directive = scope.own("queue")?;
        let length = self.value(directive, |text| number(text).filter(|length| *length > 0))?;
        let timeout = match directive.args.get(1) {
            None => NGINX_TIMEOUT,
            Some(word) => match word.text.strip_prefix("timeout=").and_then(span) {
                Some(timeout) => timeout,
                None => {
                    self.problems.add(&word.at, format!("invalid parameter \"{}\"", word.text));
                    return None;
                }
            },
        };
        self.ledger
            .approximated(directive, "503 instead of 502 when it is full or late, and clients take turns");
        Some(Queue { length: Word::new(length), timeout: Word::new(timeout) })
    }

    /// `server ADDRESS [parameters]`; `None` where it has to be left out.
    fn server_of(&mut self, directive: &'a Directive, balance: Option<&Balance>) -> Option<Server> {
        let written = directive.arg(0);
        let has_service = directive.args[1..].iter().any(|word| word.text.starts_with("service="));
        let address = match written {
            // The port of a service is what the answer says.
            _ if has_service || written.starts_with("unix:") => Some(written.to_owned()),
            _ => with_port(written, 80),
        };
        let Some(address) = address else {
            self.problems.add(&directive.args[0].at, format!("invalid port in upstream \"{written}\""));
            return None;
        };
        let mut server = Server { address: Word::new(address), ..Server::default() };
        self.ledger.exact(directive);
        for word in &directive.args[1..] {
            let (name, value) = word.text.split_once('=').unwrap_or((&word.text, ""));
            let counts = |least: u32| number(value).filter(|count| *count >= least);
            match (name, value) {
                ("weight", _) if counts(1).is_some() => server.weight = maybe(counts(1)),
                ("max_conns", _) if counts(0).is_some() => server.max_conns = maybe(counts(0)),
                ("max_fails", _) if counts(0).is_some() => server.max_fails = maybe(counts(0)),
                ("fail_timeout", _) if span(value).is_some() => server.fail_timeout = maybe(span(value)),
                ("backup" | "slow_start", _) if balance.is_some_and(fixes_shares) => {
                    let problem = format!("balancing method does not support parameter \"{name}\"");
                    self.problems.add(&word.at, problem);
                }
                ("backup", "") => server.backup = Word::new(true),
                ("down", "") => server.down = Word::new(true),
                ("resolve", "") => server.resolve = Word::new(true),
                ("service", name) if !name.is_empty() => server.service = Word::new(name.to_owned()),
                ("slow_start", _) if span(value).is_some() => server.slow_start = maybe(span(value)),
                ("drain", "") => server.drain = Word::new(true),
                ("route", "") => self.problems.add(&word.at, "route is empty"),
                ("route", _) if value.len() > 32 => self.problems.add(&word.at, "route is longer than 32"),
                ("route", _) => server.route = Word::new(value.to_owned()),
                _ => self.problems.add(&word.at, format!("invalid parameter \"{}\"", word.text)),
            }
        }
        Some(server)
    }

    /// The name under which a route finds `authority` with this tuning.
    ///
    /// In nginx timeouts and retries belong to the location, here to the upstream: locations that differ in them get an
    /// upstream each.
    pub(super) fn upstream(&mut self, authority: &str, tls: bool, tuning: Tuning) -> Result<String, String> {
        let position = self.groups.iter().position(|group| group.block.arg(0) == authority);
        let (base, tries) = match position {
            Some(position) => (self.groups[position].base.clone(), self.groups[position].tries),
            None => {
                let address = if authority.starts_with("unix:") {
                    authority.to_owned()
                } else {
                    with_port(authority, if tls { 443 } else { 80 })
                        .ok_or_else(|| format!("`{authority}` is not a host and port: write one"))?
                };
                let server = Server { address: Word::new(address), ..Server::default() };
                (Upstream { servers: list([Short(server)]), ..Upstream::default() }, 1)
            }
        };
        let upstream = tuning.apply(base, tries);
        let mut name = authority.to_owned();
        let mut copies = 1;
        while let Some((_, taken)) = self.upstreams.iter().find(|(taken, _)| *taken == name) {
            if *taken == upstream {
                return Ok(name);
            }
            copies += 1;
            name = format!("{authority}-{copies}");
        }
        if let (Some(position), 2..) = (position, copies) {
            let how = "once for each way its locations tune it; connections and failures are counted apart";
            self.ledger.approximated(self.groups[position].block, how);
        }
        self.upstreams.push((name.clone(), upstream));
        Ok(name)
    }

    /// Upstreams that no location uses are kept: an operator who has them wants them.
    pub(super) fn unused_groups(&mut self, http: &Scope<'a>) {
        let unused: Vec<&str> = self
            .groups
            .iter()
            .map(|group| group.block.arg(0))
            .filter(|name| !self.upstreams.iter().any(|(used, _)| used == name))
            .collect();
        for name in unused {
            let tuning = self.tuning(http, Module::Proxy, None);
            // It is a group, so its address needs no parsing.
            let _ = self.upstream(name, false, tuning);
        }
    }
}

/// Whether the method keeps shares as they are, and knows no backups.
fn fixes_shares(balance: &Balance) -> bool {
    let fixed = |method: &Method| matches!(method, Method::IpHash | Method::Random | Method::RandomTwo);
    !balance.hash.is_absent() || !balance.random_two.is_absent() || balance.method.get().is_some_and(fixed)
}

/// `host:port` with the port filled in; `None` where the port is not one.
pub(super) fn with_port(text: &str, default: u16) -> Option<String> {
    let port_at = match text.rfind(']') {
        Some(end) => text[end..].find(':').map(|colon| end + colon),
        None => text.rfind(':'),
    };
    match port_at {
        Some(colon) => {
            let port: u16 = text[colon + 1..].parse().ok()?;
            (colon > 0 && port > 0).then(|| text.to_owned())
        }
        None => (!text.is_empty()).then(|| format!("{text}:{default}")),
    }
}
