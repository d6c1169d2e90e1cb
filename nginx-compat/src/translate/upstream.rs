//! `upstream` blocks → groups of servers, and the groups that a bare `proxy_pass http://host:port` implies.

use weir_config::raw::{Balance, Server, Short, Upstream, Word};

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
        let written = scope.all("server");
        if written.is_empty() {
            self.problems.add(&block.at, "no servers are inside upstream");
        }
        let servers: Vec<Server> =
            written.into_iter().filter_map(|server| self.server_of(server, balance)).collect();
        let keepalive = scope.own("keepalive").and_then(|keepalive| {
            let count = self.value(keepalive, number)?;
            self.ledger.approximated(keepalive, "so many for each server, not for each worker");
            Some(count)
        });
        let timeout = self.said(&scope, "keepalive_timeout", span);
        let tries = servers.iter().filter(|server| server.down.get() != Some(&true)).count();
        let base = Upstream {
            balance: maybe(balance),
            servers: list(servers.into_iter().map(Short)),
            keepalive: maybe(keepalive),
            keepalive_timeout: maybe(timeout),
            ..Upstream::default()
        };
        Group { block, base, tries: u32::try_from(tries).unwrap_or(u32::MAX).max(1) }
    }

    /// How a server is chosen; `None` is round robin.
    fn balance(&mut self, scope: &Scope<'a>) -> Option<Balance> {
        const METHODS: [&str; 6] = ["least_conn", "ip_hash", "hash", "random", "least_time", "sticky"];
        let mut chosen = None;
        for name in METHODS {
            let Some(method) = scope.own(name) else { continue };
            let (balance, how) = match (name, method.arg(0)) {
                ("least_conn", _) => (Some(Balance::LeastConn), None),
                ("ip_hash", _) => (Some(Balance::IpHash), None),
                ("hash", "$remote_addr" | "$binary_remote_addr") => {
                    (Some(Balance::IpHash), Some("as ip_hash, without consistent hashing"))
                }
                ("hash", _) => (None, Some("round robin: no other hash key than the client's address")),
                ("random", "two") => {
                    (Some(Balance::LeastConn), Some("as least_conn over all servers, not over two"))
                }
                ("random", _) => (None, Some("round robin, which spreads as evenly")),
                ("least_time", _) => {
                    (Some(Balance::LeastConn), Some("as least_conn: slow servers have more open requests"))
                }
                _ => (
                    Some(Balance::IpHash),
                    Some("as ip_hash: a client sticks by its address, not by a cookie"),
                ),
            };
            match how {
                None => self.ledger.exact(method),
                Some(how) => self.ledger.approximated(method, how),
            }
            chosen = chosen.or(balance);
        }
        chosen
    }

    /// `server ADDRESS [parameters]`; `None` where it has to be left out.
    fn server_of(&mut self, directive: &'a Directive, balance: Option<Balance>) -> Option<Server> {
        let written = directive.arg(0);
        if written.starts_with("unix:") {
            self.ledger
                .refused(directive, "have the server listen on a loopback port: peers are reached by TCP");
            return None;
        }
        let Some(address) = with_port(written, 80) else {
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
                ("backup", "") if balance == Some(Balance::IpHash) => {
                    self.problems.add(&word.at, "balancing method does not support parameter \"backup\"");
                }
                ("backup", "") => server.backup = Word::new(true),
                ("down", "") => server.down = Word::new(true),
                ("resolve", "") => {
                    self.ledger.approximated(
                        directive,
                        "its name is resolved at start and reload, not while running",
                    );
                }
                ("slow_start", _) => {
                    self.ledger.approximated(directive, "without slow_start: it gets its full share at once");
                }
                ("service" | "route" | "drain", _) => {
                    self.ledger
                        .approximated(directive, format!("without `{name}`: only its address is used"));
                }
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
                let address = with_port(authority, if tls { 443 } else { 80 })
                    .ok_or_else(|| format!("`{authority}` is not a host and port: write one"))?;
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

/// `host:port` with the port filled in; `None` where the port is not one.
fn with_port(text: &str, default: u16) -> Option<String> {
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
