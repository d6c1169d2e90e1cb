//! What is spoken to the servers of an upstream, and whether it goes with its TLS.

use super::Resolver;
use crate::{defaults as d, plan::Protocol, raw};

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
}
