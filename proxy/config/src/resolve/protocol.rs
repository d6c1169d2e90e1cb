//! What is spoken to the servers of an upstream, whether it goes with its TLS, and what clients may switch to.

use super::Resolver;
use crate::{
    defaults as d,
    plan::Protocol,
    raw::{self, List, Word},
};

impl Resolver<'_> {
    pub(super) fn protocol(&mut self, raw: &raw::Upstream) -> Protocol {
        let Some((written, at)) = raw.protocol.placed() else { return d::PROTOCOL };
        match (written, raw.tls.is_absent()) {
            (raw::Protocol::H2, true) => {
                let problem = self.report.error(at, "`h2` is agreed upon in TLS, and this upstream has none");
                problem.help("add `tls: {}`, or write `h2c` for servers that speak HTTP/2 in plain text");
            }
            (raw::Protocol::H2c, false) => {
                let problem =
                    self.report.error(at, "`h2c` is HTTP/2 in plain text, and this upstream has `tls`");
                problem.help("write `h2`, or remove `tls`");
            }
            _ => {}
        }
        match written {
            raw::Protocol::Http1 => Protocol::Http1,
            raw::Protocol::H2 => Protocol::H2,
            raw::Protocol::H2c => Protocol::H2c,
        }
    }

    /// Names of protocols for `Upgrade`, in lower case.
    pub(super) fn upgrades(&mut self, word: &Word<List<String>>) -> Vec<String> {
        if word.is_absent() {
            return vec![d::UPGRADE.to_owned()];
        }
        let mut names = Vec::new();
        for (name, place) in word.items() {
            let name = name.to_ascii_lowercase();
            let (protocol, version) = name.split_once('/').unwrap_or((&name, "0"));
            let is_token = |text: &str| text.parse::<http::HeaderName>().is_ok();
            if matches!(protocol, "h2c" | "h2" | "http" | "tls") {
                let problem =
                    self.report.error(place, format!("`{name}` would lead past every rule of this file"));
                problem.help("speak it to the listener itself");
            } else if !is_token(protocol) || !is_token(version) {
                let problem = self.report.error(place, format!("`{name}` is not the name of a protocol"));
                problem.help("such as `websocket`, `tcp` or `spdy/3.1`");
            }
            names.push(name);
        }
        names
    }
}
