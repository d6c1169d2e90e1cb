//! Addresses, networks, hosts and header names: text that operators get wrong in known ways.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

use super::Resolver;
use crate::{
    raw::{List, Word},
    span::Place,
};

impl Resolver<'_> {
    /// An address of this machine to listen on.
    pub(super) fn socket(&mut self, text: &str, place: Place) -> Option<SocketAddr> {
        if let Ok(address) = text.parse() {
            return Some(address);
        }
        let problem = self.report.error(place, format!("`{text}` is not an address to listen on"));
        let port = |text: &str| text.parse::<u16>().is_ok();
        match text.rsplit_once(':') {
            None if port(text) => problem.help(format!("did you mean `0.0.0.0:{text}`?")),
            Some(("" | "*", number)) if port(number) => {
                problem.help(format!("did you mean `0.0.0.0:{number}`?"))
            }
            Some(("localhost", number)) if port(number) => {
                problem.help(format!("a listener needs an address: did you mean `127.0.0.1:{number}`?"))
            }
            _ if text.parse::<Ipv6Addr>().is_ok() => problem.help(format!("add the port: `[{text}]:8080`")),
            _ if text.parse::<IpAddr>().is_ok() => problem.help(format!("add the port: `{text}:8080`")),
            _ => problem.help("write an IP address and a port: `0.0.0.0:8080`, `[::1]:8080`"),
        };
        None
    }

    /// The `host:port` of a server; the host is resolved later, by whoever connects.
    pub(super) fn server_address(&mut self, text: &str, place: Place) -> Option<String> {
        let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host_is_good = match bare {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
            None => is_host(host),
        };
        if host_is_good && port.parse::<u16>().is_ok_and(|port| port > 0) {
            return Some(text.to_owned());
        }
        let problem = self.report.error(place, format!("`{text}` is not the address of a server"));
        match text.split_once("://") {
            Some((_, rest)) => {
                let rest = rest.split('/').next().unwrap_or_default();
                problem.help(format!("write host and port only: `{rest}`; TLS is the upstream's `tls`"))
            }
            None if text.parse::<Ipv6Addr>().is_ok() => problem.help(format!("write `[{text}]:80`")),
            None if is_host(text) => problem.help(format!("add the port: `{text}:80`")),
            None => problem.help("write host and port: `10.0.0.5:3000`, `api.internal:3000`, `[::1]:3000`"),
        };
        None
    }

    /// Networks as CIDR; a single address is a network of one.
    pub(super) fn networks(&mut self, word: &Word<List<String>>) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (text, place) in word.items() {
            match text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)) {
                Ok(network) => {
                    if network.trunc() != network {
                        let meant = network.trunc();
                        let problem =
                            self.report.warning(place, format!("`{text}` has bits beyond its prefix"));
                        problem.help(format!("it is read as `{meant}`"));
                    }
                    networks.push(network.trunc());
                }
                Err(_) => {
                    let problem = self.report.error(place, format!("`{text}` is not a network"));
                    problem.help("write an address or a CIDR: `10.0.0.0/8`, `192.0.2.7`, `2001:db8::/32`");
                }
            }
        }
        networks
    }

    /// The name of a header.
    pub(super) fn header_name(&mut self, text: &str, place: Place) -> Option<http::HeaderName> {
        let name = text.parse().ok();
        if name.is_none() {
            let problem = self.report.error(place, format!("`{text}` cannot be the name of a header"));
            problem.help("letters, digits and `-`; no spaces, no colon");
        }
        name
    }
}

/// Whether this can be a host: an IPv4 address or labels of letters, digits, `-` and `_`.
pub(super) fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}
