//! How an upstream's servers are named, found and connected to.

use std::net::{IpAddr, SocketAddr};

use super::{Resolver, address::is_host, placed_path};
use crate::{
    defaults as d,
    plan::{self, TlsVersion},
    raw::{self, Word},
    span::{Place, Placed},
};

/// As long as Linux lets the path of a socket be (`sun_path`, with its final NUL).
const SOCKET_PATH_BYTES: usize = 107;

impl Resolver<'_> {
    /// What a server is called, and the SRV name it has instead of a port.
    pub(super) fn server_name(
        &mut self,
        raw: &raw::Server,
        text: &str,
        place: Place,
    ) -> Option<(String, Option<String>)> {
        if let Some((service, at)) = raw.service.placed() {
            return self.service(raw, service, text, at);
        }
        let is_socket = text.starts_with("unix:");
        let address =
            if is_socket { self.socket_path(text, place)? } else { self.server_address(text, place)? };
        let is_name = !is_socket && address.parse::<SocketAddr>().is_err();
        if let Some(at) = raw.resolve.place().filter(|_| raw.resolve.or(false) && !is_name) {
            self.report.warning(at, format!("`{text}` is no name: there is nothing to look up again"));
        }
        Some((address, None))
    }

    fn socket_path(&mut self, text: &str, place: Place) -> Option<String> {
        let path = text.strip_prefix("unix:")?;
        if path.starts_with('/') && path.len() <= SOCKET_PATH_BYTES && !path.contains('\0') {
            return Some(text.to_owned());
        }
        let problem = self.report.error(place, format!("`{text}` is not the path of a socket"));
        problem.help(format!(
            "write `unix:/run/api.sock`: an absolute path of at most {SOCKET_PATH_BYTES} bytes"
        ));
        None
    }

    /// nginx's rule: a service without a dot is a word of RFC 2782, one with dots is put before the name as it is.
    fn service(
        &mut self,
        raw: &raw::Server,
        service: &str,
        host: &str,
        place: Place,
    ) -> Option<(String, Option<String>)> {
        if !raw.resolve.or(false) {
            let problem = self.report.error(place, "`service` needs `resolve: true`");
            problem.help("where a service runs, and for how long, is what the answers say");
        }
        if !is_host(host) || host.parse::<IpAddr>().is_ok() {
            let problem =
                self.report.error(place, format!("with `service` an address is a name alone, not `{host}`"));
            problem.help("the port comes with the answer: write `api.internal`");
            return None;
        }
        let name = if service.contains('.') {
            format!("{service}.{host}")
        } else {
            format!("_{}._tcp.{host}", service.trim_start_matches('_'))
        };
        if !is_host(&name) {
            let problem = self.report.error(place, format!("`{service}` is not the name of a service"));
            problem.help("write `http`, or `_http._tcp`");
            return None;
        }
        Some((host.to_owned(), Some(name)))
    }

    pub(super) fn keepalive(&mut self, raw: &raw::Keepalive) -> plan::Keepalive {
        plan::Keepalive {
            idle: raw.idle.or(d::KEEPALIVE) as usize,
            requests: raw.requests.or(d::KEEPALIVE_REQUESTS),
            time: self.time(&raw.time, d::KEEPALIVE_TIME),
            idle_timeout: self.time(&raw.idle_timeout, d::KEEPALIVE_TIMEOUT),
        }
    }

    /// A local address to connect from, of a family that some server has.
    pub(super) fn bind(&mut self, word: &Word<String>, servers: &[plan::Server]) -> Option<SocketAddr> {
        let (text, place) = word.placed()?;
        let parsed = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0)).or_else(|_| text.parse());
        let Ok(bind) = parsed else {
            let problem = self.report.error(place, format!("`{text}` is not an address of this machine"));
            problem.help(if text.contains("transparent") || text.contains('$') {
                "a client's own address cannot be borrowed; tell it with `proxy_protocol` or in a header"
            } else {
                "write an IP address, with or without a port: `10.0.0.2`"
            });
            return None;
        };
        let other = |server: &&plan::Server| {
            server.address.parse().is_ok_and(|it: SocketAddr| it.is_ipv4() != bind.is_ipv4())
        };
        if let Some(server) = servers.iter().find(other) {
            let message = format!("`{}` cannot be reached from {}", server.address, bind.ip());
            self.report.error(place, message).help("one is IPv4, the other IPv6");
        }
        Some(bind)
    }

    pub(super) fn upstream_tls(
        &mut self,
        raw: &raw::UpstreamTls,
        servers: &[plan::Server],
        place: Place,
    ) -> plan::UpstreamTls {
        let host = |server: &plan::Server| {
            let host = server.address.rsplit_once(':').map(|(host, _)| host);
            // The name of an IPv6 address is the address without its brackets.
            host.map(|host| host.trim_matches(['[', ']']).to_owned())
        };
        let verify = raw.verify.or(true);
        if let Some(place) = raw.verify.place().filter(|_| !verify) {
            let problem = self
                .report
                .warning(place, "without a check of the certificate anybody can pose as the server");
            problem.help("give the `name` that the certificate carries, or the `ca` that signed it");
        }
        if let Some(place) = raw.ca.place().filter(|_| !verify) {
            self.report.error(place, "`ca` without `verify` checks nothing").help("remove one of them");
        }
        let first = servers
            .first()
            .map(|first| if first.service.is_some() { Some(first.address.clone()) } else { host(first) });
        let is_socket = servers.first().is_some_and(|first| first.address.starts_with("unix:"));
        if is_socket && raw.name.is_absent() {
            let problem = self.report.error(place, "a socket has no name that a certificate could carry");
            problem.help("add `name: api.internal`");
        }
        plan::UpstreamTls {
            name: match raw.name.placed() {
                Some((name, place)) => Placed::new(name.clone(), place),
                None => Placed::new(first.flatten().unwrap_or_default(), place),
            },
            verify,
            ca: raw.ca.placed().map(placed_path),
            certificate: self.own_certificate(&raw.certificate, &raw.key),
            min_version: match raw.min_version.get() {
                Some(raw::TlsVersion::V13) => TlsVersion::V13,
                Some(raw::TlsVersion::V12) => TlsVersion::V12,
                None => d::UPSTREAM_TLS_MIN,
            },
        }
    }

    pub(super) fn own_certificate(
        &mut self,
        certificate: &Word<String>,
        key: &Word<String>,
    ) -> Option<plan::Certificate> {
        match (certificate.placed(), key.placed()) {
            (Some(chain), Some(key)) => {
                Some(plan::Certificate { chain: placed_path(chain), key: placed_path(key) })
            }
            (Some((_, place)), None) if key.is_absent() => {
                self.report.error(place, "`key` is missing beside `certificate`");
                None
            }
            (None, Some((_, place))) if certificate.is_absent() => {
                self.report.error(place, "`certificate` is missing beside `key`");
                None
            }
            _ => None,
        }
    }

    pub(super) fn resolver(&mut self) -> plan::Resolver {
        let default = raw::Resolver::default();
        let raw = self.raw.resolver.get().unwrap_or(&default);
        let mut addresses = Vec::new();
        for (text, place) in raw.addresses.items() {
            match text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)).or_else(|_| text.parse()) {
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let problem =
                        self.report.error(place, format!("`{text}` is not the address of a name server"));
                    problem.help("write an IP address, with or without a port: `10.0.0.53`, `[::1]:5353`");
                }
            }
        }
        plan::Resolver {
            addresses,
            valid: raw.valid.get().map(|_| self.time(&raw.valid, d::RESOLVER_TIMEOUT)),
            timeout: self.time(&raw.timeout, d::RESOLVER_TIMEOUT),
        }
    }

    /// Who may put words into a client's mouth has to be said.
    pub(super) fn listens_behind_proxies(&mut self, word: &Word<bool>) -> bool {
        let on = word.or(false);
        let trusted = self.raw.clients.get().is_some_and(|clients| !clients.trusted.is_absent());
        if let Some(place) = word.place().filter(|_| on && !trusted) {
            let problem = self.report.error(place, "nobody is trusted to send a PROXY header");
            problem.help("name the hops in front of us: `clients: { trusted: [10.0.0.0/8] }`");
        }
        on
    }
}
