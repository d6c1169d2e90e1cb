//! `listen` and `server_name` → listeners and hosts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use weir_config::{
    raw::{BareLf, Bounds, Certificate, Listener, Tls, Word},
    units::Bytes,
};

use super::{Translator, list, maybe};
use crate::{
    scope::Scope,
    tree::Directive,
    value::{bytes, number, span},
};

/// nginx's `client_max_body_size` when nothing is said.
const NGINX_BODY: Bytes = Bytes::new(1 << 20);

/// One `listen` that can be translated.
#[derive(Debug, Clone)]
pub(super) struct Listen<'a> {
    pub(super) directive: Option<&'a Directive>,
    pub(super) address: SocketAddr,
    pub(super) default: bool,
    ssl: bool,
    http2: bool,
    proxy_protocol: bool,
}

impl<'a> Listen<'a> {
    /// Plain, and nobody's default.
    fn on(directive: Option<&'a Directive>, address: SocketAddr) -> Self {
        Self { directive, address, default: false, ssl: false, http2: false, proxy_protocol: false }
    }
}

impl<'a> Translator<'a, '_> {
    /// The sockets of a server.
    pub(super) fn listens(&mut self, scope: &Scope<'a>) -> Vec<Listen<'a>> {
        let written: Vec<_> = match scope.own("listen") {
            Some(_) => scope.all("listen"),
            // nginx listens on port 80 when nothing is said.
            None => {
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
                return vec![Listen::on(None, address)];
            }
        };
        let mut listens = Vec::new();
        for directive in written {
            match self.listen(directive) {
                Ok(listen) => listens.extend(listen),
                Err(what_to_do) => self.ledger.refused(directive, what_to_do),
            }
        }
        listens
    }

    fn listen(&mut self, directive: &'a Directive) -> Result<Option<Listen<'a>>, String> {
        let text = directive.arg(0);
        if text.starts_with("unix:") {
            return Err("listen on a loopback port: clients come by TCP".to_owned());
        }
        let Some(address) = socket(text)? else {
            self.problems.add(
                &directive.args[0].at,
                format!("invalid host or port in \"{text}\" of the \"listen\" directive"),
            );
            return Ok(None);
        };
        let mut listen = Listen::on(Some(directive), address);
        self.ledger.exact(directive);
        for word in &directive.args[1..] {
            match word.text.split('=').next().unwrap_or_default() {
                "default_server" | "default" => listen.default = true,
                "ssl" => listen.ssl = true,
                "http2" => listen.http2 = true,
                "reuseport" | "backlog" | "bind" | "deferred" | "so_keepalive" | "fastopen" | "rcvbuf"
                | "sndbuf" | "setfib" | "accept_filter" | "ipv6only" | "multipath" => {
                    self.ledger.approximated(directive, "socket options are the same for every listener");
                }
                "proxy_protocol" if self.has_hops => {
                    listen.proxy_protocol = true;
                    self.ledger.approximated(directive, "only the hops of set_real_ip_from may connect");
                }
                "proxy_protocol" => return Err("name the hops that send it with set_real_ip_from".to_owned()),
                "quic" => return Err("HTTP/3 is not offered; clients use HTTP/2".to_owned()),
                _ => self.problems.add(&word.at, format!("invalid parameter \"{}\"", word.text)),
            }
        }
        Ok(Some(listen))
    }

    /// Adds the listeners of a server, or its certificates to those that are there.
    pub(super) fn listeners(&mut self, scope: &Scope<'a>, listens: &[Listen<'a>]) {
        self.tls_versions(scope);
        if let Some(http2) = scope.one("http2") {
            self.ledger.exact(http2);
        }
        for listen in listens {
            let address = listen.address.to_string();
            let there = self.listeners.iter().position(|it| it.address.get() == Some(&address));
            let position = there.unwrap_or_else(|| {
                let bounds = Word::new(self.bounds(scope));
                self.listeners.push(Listener { address: Word::new(address), bounds, ..Listener::default() });
                self.listeners.len() - 1
            });
            if listen.proxy_protocol {
                self.listeners[position].proxy_protocol = Word::new(true);
            }
            if listen.ssl {
                let new = self.certificates(scope, listen);
                let mut tls = self.listeners[position].tls.or(Tls::default());
                let mut certificates: Vec<Certificate> =
                    tls.certificates.items().map(|(it, _)| it.clone()).collect();
                certificates
                    .extend(new.into_iter().filter(|it| !tls.certificates.items().any(|(old, _)| old == it)));
                tls.certificates = list(certificates);
                tls.http2 = Word::new(tls.http2.or(false) || listen.http2 || scope.is_on("http2"));
                self.listeners[position].tls = Word::new(tls);
            }
        }
    }

    fn certificates(&mut self, scope: &Scope<'a>, listen: &Listen<'a>) -> Vec<Certificate> {
        let (chains, keys) = (scope.all("ssl_certificate"), scope.all("ssl_certificate_key"));
        if let (Some(directive), true) = (listen.directive, chains.is_empty() || chains.len() != keys.len()) {
            let missing = if chains.is_empty() { "ssl_certificate" } else { "ssl_certificate_key" };
            self.problems.add(
                &directive.at,
                format!("no \"{missing}\" is defined for the \"listen ... ssl\" directive"),
            );
        }
        let pairs = chains.into_iter().zip(keys).map(|(chain, key)| {
            self.ledger.exact(chain);
            self.ledger.exact(key);
            Certificate { chain: Word::new(chain.arg(0).to_owned()), key: Word::new(key.arg(0).to_owned()) }
        });
        pairs.collect()
    }

    fn tls_versions(&mut self, scope: &Scope<'a>) {
        let Some(versions) = scope.one("ssl_protocols") else { return };
        let exact =
            versions.args.len() == 2 && versions.texts().all(|it| matches!(it, "TLSv1.2" | "TLSv1.3"));
        if exact {
            self.ledger.exact(versions);
        } else {
            self.ledger.approximated(versions, "TLS 1.2 and 1.3, neither more nor less");
        }
    }

    /// What one connection may ask: in nginx of the server, which is only known once the head is read; here of the socket.
    fn bounds(&mut self, scope: &Scope<'a>) -> Bounds {
        let mut bounds = Bounds {
            bare_lf: Word::new(BareLf::Accept),
            body_bytes: Word::new(NGINX_BODY),
            header_timeout: maybe(self.said(scope, "client_header_timeout", span)),
            body_timeout: maybe(self.said(scope, "client_body_timeout", span)),
            send_timeout: maybe(self.said(scope, "send_timeout", span)),
            requests_per_connection: maybe(self.said(scope, "keepalive_requests", number).map(u64::from)),
            http2_streams: maybe(self.said(scope, "http2_max_concurrent_streams", number)),
            ..Bounds::default()
        };
        match self.said(scope, "keepalive_timeout", span) {
            Some(idle) if idle.get().is_zero() => bounds.requests_per_connection = Word::new(1),
            idle => bounds.idle_timeout = maybe(idle),
        }
        if let Some(buffers) = scope.one("large_client_header_buffers") {
            match number(buffers.arg(0)).zip(bytes(buffers.arg(1))) {
                Some((count, size)) => {
                    bounds.uri_bytes = Word::new(size);
                    bounds.head_bytes = Word::new(Bytes::new(size.get().saturating_mul(count.into())));
                    self.ledger.exact(buffers);
                }
                None => self
                    .problems
                    .add(&buffers.at, "invalid value in \"large_client_header_buffers\" directive"),
            }
        }
        bounds
    }

    /// Notes words about the socket that stand where they cannot decide about it.
    pub(super) fn socket_words(&mut self, level: &'a [Directive]) {
        const WORDS: [&str; 7] = [
            "client_header_timeout",
            "client_body_timeout",
            "send_timeout",
            "keepalive_timeout",
            "keepalive_requests",
            "large_client_header_buffers",
            "http2_max_concurrent_streams",
        ];
        for directive in level.iter().filter(|directive| WORDS.contains(&directive.name.as_str())) {
            if !self.ledger.has(directive) {
                let what_to_do = "bounds belong to the socket: say it in its first server";
                self.ledger.refused(directive, what_to_do);
            }
        }
    }

    /// The hosts of a server, in the order of the file.
    pub(super) fn names(&mut self, scope: &Scope<'a>) -> Vec<String> {
        let mut names = Vec::new();
        for directive in scope.all("server_name").into_iter().filter(|_| scope.own("server_name").is_some()) {
            self.ledger.exact(directive);
            for word in &directive.args {
                let name = word.text.to_ascii_lowercase();
                let labels = name.trim_start_matches("*.").trim_start_matches('.');
                if matches!(name.as_str(), "" | "_" | "-" | "--") {
                    continue;
                } else if !labels.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
                    self.ledger.refused(
                        directive,
                        format!("`{name}` has no counterpart: list its names, or write `*.NAME`"),
                    );
                } else if name.starts_with('.') {
                    names.extend([labels.to_owned(), format!("*.{labels}")]);
                } else {
                    names.push(name);
                }
            }
        }
        names
    }
}

/// The address of a `listen`; `None` where it is none, and what to do where it needs a resolver.
fn socket(text: &str) -> Result<Option<SocketAddr>, String> {
    let any = IpAddr::from(Ipv4Addr::UNSPECIFIED);
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(text.parse::<u16>().ok().filter(|port| *port > 0).map(|port| (any, port).into()));
    }
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Some(address));
    }
    if let Ok(host) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(Some((host, 80).into()));
    }
    let (host, port) = text.split_once(':').unwrap_or((text, "80"));
    let port = port.parse::<u16>().ok().filter(|port| *port > 0);
    match (host, port) {
        (_, None) => Ok(None),
        ("*" | "", Some(port)) => Ok(Some((any, port).into())),
        ("localhost", Some(port)) => Ok(Some((Ipv4Addr::LOCALHOST, port).into())),
        _ => Err("write the address: names are not resolved for listeners".to_owned()),
    }
}
