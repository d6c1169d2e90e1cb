//! A picked address as Pingora's type: the only file of this stage that names Pingora.
//!
//! Always from a `SocketAddr` (a name would be resolved blocking, and unwrapped), always with every timeout set
//! (Pingora's defaults are none at all).
//!
//! The waits for an answer and between its reads are not set here: Pingora has one timeout for both, the plan has two, and
//! the exchange keeps them itself.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    os::unix,
    time::Duration,
};

use pingora::{
    protocols::ALPN,
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy},
};
use weir_config::plan::{Timeouts, Upstream};

use crate::http_client::Address;

/// How to connect to the peers of one upstream, prepared once for all of its requests.
#[derive(Debug, Clone)]
pub struct Dial {
    template: HttpPeer,
}

impl Dial {
    /// The way to the peers of `upstream`.
    #[must_use]
    pub fn new(upstream: &Upstream) -> Self {
        let Timeouts { connect, write, .. } = upstream.timeouts;
        let idle = match upstream.keepalive.idle {
            // Pingora's pool is shared by all upstreams and has no bound of its own for each: off or on is all there is.
            0 => Duration::ZERO,
            _ => upstream.keepalive.idle_timeout,
        };
        let tls = upstream.tls.as_ref().map(|tls| (tls.name.as_str(), tls.verify));
        Self::build(&upstream.name, tls, &Patience { connect, write, idle })
    }

    /// The peer at `address`.
    #[must_use]
    pub fn peer(&self, address: &Address) -> HttpPeer {
        let mut peer = self.template.clone();
        peer._address = match address {
            Address::Inet(address) => (*address).into(),
            Address::Unix(path) => match unix::net::SocketAddr::from_pathname(path) {
                Ok(socket) => pingora::protocols::l4::socket::SocketAddr::Unix(socket),
                // The plan takes no path that is too long; an address that nobody has fails as the socket would.
                Err(_) => SocketAddr::from(([0, 0, 0, 0], 0)).into(),
            },
        };
        peer
    }

    fn build(name: &str, tls: Option<(&str, bool)>, patience: &Patience) -> Self {
        let sni = tls.map_or("", |(name, _)| name).to_owned();
        let mut template = HttpPeer::new(SocketAddr::from(([0, 0, 0, 0], 0)), tls.is_some(), sni);
        template.group_key = group_key(name, tls, patience);
        let options = &mut template.options;
        options.connection_timeout = Some(patience.connect);
        options.total_connection_timeout = Some(patience.connect);
        options.write_timeout = Some(patience.write);
        options.idle_timeout = Some(patience.idle);
        options.alpn = ALPN::H1;
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
        let verify = tls.is_none_or(|(_, verify)| verify);
        options.verify_cert = verify;
        options.verify_hostname = verify;
        Self { template }
    }
}

/// The plan's timeouts, as far as a connection knows them.
#[derive(Debug, Hash)]
struct Patience {
    connect: Duration,
    write: Duration,
    idle: Duration,
}

/// Keeps connections of one upstream from being reused by another, or by the same one after a reload that changed how
/// it connects: Pingora's own hash knows neither.
fn group_key(name: &str, tls: Option<(&str, bool)>, patience: &Patience) -> u64 {
    let mut hasher = DefaultHasher::new();
    (name, tls, patience).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use pingora::upstreams::peer::Peer;

    use super::*;

    const PATIENCE: Patience = Patience {
        connect: Duration::from_secs(1),
        write: Duration::from_secs(4),
        idle: Duration::from_secs(5),
    };

    fn address(port: u16) -> Address {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn every_timeout_is_set() {
        let peer = Dial::build("api", None, &PATIENCE).peer(&address(3001));
        assert_eq!(peer.connection_timeout(), Some(PATIENCE.connect));
        assert_eq!(peer.total_connection_timeout(), Some(PATIENCE.connect));
        assert_eq!(peer.options.write_timeout, Some(PATIENCE.write));
        assert_eq!(peer.idle_timeout(), Some(PATIENCE.idle));
    }

    #[test]
    fn the_address_is_the_picked_one_and_http_1_is_spoken() {
        let peer = Dial::build("api", None, &PATIENCE).peer(&address(3001));
        assert_eq!(peer.address().as_inet(), address(3001).inet().as_ref());
        assert!(!peer.tls());
        assert_eq!(peer.options.alpn, ALPN::H1);
    }

    #[test]
    fn tls_carries_the_name_and_verifies_unless_told_not_to() {
        let strict = Dial::build("api", Some(("origin.test", true)), &PATIENCE).peer(&address(1));
        assert!(strict.tls() && strict.verify_cert() && strict.verify_hostname());
        assert_eq!(strict.sni(), "origin.test");
        let lax = Dial::build("api", Some(("origin.test", false)), &PATIENCE).peer(&address(1));
        assert!(lax.tls() && !lax.verify_cert() && !lax.verify_hostname());
    }

    #[test]
    fn connections_are_shared_only_within_one_upstream_as_it_is_now() {
        let hash =
            |name, tls, patience: &Patience| Dial::build(name, tls, patience).peer(&address(1)).reuse_hash();
        let api = hash("api", None, &PATIENCE);
        assert_eq!(
            api,
            hash("api", None, &PATIENCE),
            "an unchanged upstream keeps its connections over a reload"
        );
        assert_ne!(api, hash("web", None, &PATIENCE));
        assert_ne!(api, hash("api", Some(("origin.test", true)), &PATIENCE));
        assert_ne!(api, hash("api", None, &Patience { write: Duration::from_secs(9), ..PATIENCE }));
    }
}
