//! How peers are found and connected to: `resolver`, `keepalive`, `proxy_bind`, `proxy_ssl_*`.

use std::net::{IpAddr, SocketAddr};

use weir_config::raw::{Keepalive, Resolver, TlsVersion, UpstreamTls, Word};

use super::{Translator, list, maybe};
use crate::{
    scope::Scope,
    value::{number, span},
    variable,
};

impl<'a> Translator<'a, '_> {
    /// Who is asked for names; one for the whole file.
    pub(super) fn resolver(&mut self, http: &Scope<'a>) -> Word<Resolver> {
        let mut resolver =
            Resolver { timeout: maybe(self.said(http, "resolver_timeout", span)), ..Resolver::default() };
        if let Some(directive) = http.one("resolver") {
            let mut addresses = Vec::new();
            self.ledger.exact(directive);
            for word in &directive.args {
                let text = word.text.as_str();
                match text.split_once('=') {
                    Some(("valid", value)) if span(value).is_some() => resolver.valid = maybe(span(value)),
                    Some(("ipv4" | "ipv6", "off")) => {
                        self.ledger.approximated(directive, "both families are asked for");
                    }
                    Some(("ipv4" | "ipv6", "on")) => {}
                    Some(("status_zone", _)) => {}
                    None if text.parse::<IpAddr>().is_ok() || text.parse::<SocketAddr>().is_ok() => {
                        addresses.push(text.to_owned());
                    }
                    None if text.starts_with('[') && text.ends_with(']') => {
                        addresses.push(text.trim_matches(['[', ']']).to_owned());
                    }
                    None => self
                        .ledger
                        .approximated(directive, format!("without `{text}`: a name server is an IP address")),
                    Some(_) => self.problems.add(&word.at, format!("invalid parameter \"{text}\"")),
                }
            }
            resolver.addresses = list(addresses);
        }
        if resolver == Resolver::default() { Word::Absent } else { Word::new(resolver) }
    }

    /// Without any of these words ours are nginx's: they are its defaults.
    pub(super) fn keepalive(&mut self, scope: &Scope<'a>) -> Option<Keepalive> {
        let idle = scope.own("keepalive").and_then(|keepalive| {
            let count = self.value(keepalive, number)?;
            self.ledger.approximated(keepalive, "so many in all, not for each worker");
            Some(count)
        });
        let keepalive = Keepalive {
            idle: maybe(idle),
            requests: maybe(self.said(scope, "keepalive_requests", number).map(u64::from)),
            time: maybe(self.said(scope, "keepalive_time", span)),
            idle_timeout: maybe(self.said(scope, "keepalive_timeout", span)),
        };
        (keepalive != Keepalive::default()).then_some(keepalive)
    }

    /// The local address to connect from.
    pub(super) fn bind(&mut self, scope: &Scope<'a>) -> Word<String> {
        let Some(directive) = scope.one("proxy_bind") else { return Word::Absent };
        let address = directive.arg(0);
        if directive.args.len() > 1 || !variable::is_constant(address) {
            self.ledger.refused(directive, "tell the client's address with `proxy_protocol` or in a header");
            return Word::Absent;
        }
        self.ledger.exact(directive);
        if address == "off" { Word::Absent } else { Word::new(address.to_owned()) }
    }

    /// What TLS to peers reads from files, and how old it may be.
    pub(super) fn peer_tls_files(&mut self, scope: &Scope<'a>, tls: &mut UpstreamTls) {
        if let Some(ca) = scope.one("proxy_ssl_trusted_certificate") {
            if tls.verify.get() == Some(&true) {
                tls.ca = Word::new(ca.arg(0).to_owned());
                self.ledger.exact(ca);
            } else {
                self.ledger.ignored(ca, "proxy_ssl_verify is off: nobody is checked");
            }
        }
        if let (Some(certificate), Some(key)) =
            (scope.one("proxy_ssl_certificate"), scope.one("proxy_ssl_certificate_key"))
        {
            for (directive, word) in [(certificate, &mut tls.certificate), (key, &mut tls.key)] {
                if variable::is_constant(directive.arg(0)) && !directive.arg(0).starts_with("engine:") {
                    *word = Word::new(directive.arg(0).to_owned());
                    self.ledger.exact(directive);
                } else {
                    self.ledger.refused(directive, "name a PEM file");
                }
            }
        }
        if let Some(protocols) = scope.one("proxy_ssl_protocols") {
            let (new, old): (Vec<&str>, Vec<&str>) =
                protocols.texts().partition(|version| matches!(*version, "TLSv1.2" | "TLSv1.3"));
            if new == ["TLSv1.3"] {
                tls.min_version = Word::new(TlsVersion::V13);
            }
            if old.is_empty() && new.contains(&"TLSv1.3") {
                self.ledger.exact(protocols);
            } else {
                self.ledger
                    .approximated(protocols, "TLS 1.2 and 1.3, neither older nor one without the other");
            }
        }
    }
}
