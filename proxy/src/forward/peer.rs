//! A picked address as Pingora's type: the only file of this stage that names Pingora.
//!
//! Always from a `SocketAddr` (a name would be resolved blocking, and unwrapped), always with every timeout set
//! (Pingora's defaults are none at all).
//!
//! The waits for an answer and between its reads are not set here: Pingora has one timeout for both, the plan has two, and
//! the exchange keeps them itself.
//!
//! TLS is Pingora's. Its authorities and certificate are those of a connector, not of a peer: set at a peer they would be
//! parsed for every connection, and no session could be resumed. So each upstream with TLS has a connector of its own.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    os::unix,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt;
use nix::{
    errno::Errno,
    sys::socket::{MsgFlags, recv},
};
use pingora::{
    BError, ErrorType, OrErr,
    connectors::{ConnectorOptions, L4Connect, TransportConnector, http::Connector, l4::BindTo},
    protocols::{ALPN, Stream, l4},
    upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, Peer},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, UnixStream},
};
use weir_config::plan::{Protocol, ProxyProtocol, Timeouts, TlsVersion, Upstream, UpstreamTls};

use super::{
    idle::Quiet,
    proxy_protocol::{self, Ends},
};
use crate::http_client::Address;

/// Idle HTTP/2 connections of one upstream with TLS; those of HTTP/1 are in [`super::idle`].
const HTTP2_CONNECTIONS: usize = 128;

/// Streams at once on one HTTP/2 connection to a peer, unless it takes fewer: what a browser's connection to us may have.
const STREAMS: usize = 100;

/// How far a peer may run ahead of a client that reads slowly. 64 MiB a second at a distance of 2 ms; a hundred slow readers
/// hold 12.5 MiB (Pingora's default would be 8 MiB for each).
const STREAM_WINDOW: u32 = 128 << 10;

/// All the streams' windows: with less, a few slow readers would stop every other answer on their connection.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;

/// A connection whose peer vanished without a word would get every new request; it is asked so often whether it lives.
const PING: Duration = Duration::from_secs(15);

/// What connects to peers.
pub struct Connectors {
    /// For HTTP/1.1; its connections are kept in [`super::idle`].
    pub http1: TransportConnector,
    /// Where the handshake decides; keeps its HTTP/2 connections itself.
    pub negotiated: Connector,
}

impl Connectors {
    /// For upstreams that need none of their own; keeps up to `idle` HTTP/2 connections.
    #[must_use]
    pub fn new(idle: usize) -> Self {
        Self::with(ConnectorOptions::new(idle))
    }

    fn with(options: ConnectorOptions) -> Self {
        Self {
            http1: TransportConnector::new(Some(options.clone())),
            negotiated: Connector::new(Some(options)),
        }
    }
}

/// How to connect to the peers of one upstream, prepared once for all of its requests.
#[derive(Clone)]
pub struct Dial {
    template: HttpPeer,
    proxy_protocol: Option<ProxyProtocol>,
    bind: Option<SocketAddr>,
    min_version: Option<TlsVersion>,
    /// Of an upstream with TLS: its authorities, its certificate, and the sessions to resume are nobody else's.
    own: Option<Arc<Connectors>>,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dial").field("template", &self.template).finish_non_exhaustive()
    }
}

/// An HTTP/1 connection that nobody uses now.
#[derive(Debug)]
pub struct Line(pub Stream);

impl Quiet for Line {
    fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        // Without the budget of the task, which would make a socket look quiet that is not.
        let is_pending = tokio::task::unconstrained(self.0.read(&mut byte)).now_or_never().is_none();
        // The runtime may not have heard yet of what came; the kernel has.
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        is_pending && recv(self.0.id(), &mut byte, flags) == Err(Errno::EAGAIN)
    }
}

impl Dial {
    /// The way to the peers of `upstream`; `files` tells what the files of its TLS hold ([`crate::http_client::Files`]).
    ///
    /// Shape: reads those files again, with Pingora's eyes, on a thread that may wait; what `old` has for the same words
    ///        and the same files is kept, with the sessions that can be resumed.
    /// Errors: in words, when Pingora cannot use what was checked before, because somebody changed it in between.
    pub async fn new(upstream: &Upstream, files: u64, old: Option<&Self>) -> Result<Self, String> {
        let mut dial = Self::plain(upstream, files);
        let Some(tls) = upstream.tls.clone() else { return Ok(dial) };
        let same = old.filter(|old| old.template.group_key == dial.template.group_key);
        dial.own = match same.and_then(|old| old.own.clone()) {
            Some(own) => Some(own),
            None => {
                let built = tokio::task::spawn_blocking(move || Connectors::with(options(&tls)));
                Some(Arc::new(built.await.map_err(|_| "the files changed while they were read".to_owned())?))
            }
        };
        Ok(dial)
    }

    fn plain(upstream: &Upstream, files: u64) -> Self {
        let Timeouts { connect, write, .. } = upstream.timeouts;
        let tls = upstream.tls.as_ref();
        let sni = tls.map_or("", |tls| tls.name.as_str()).to_owned();
        let mut template = HttpPeer::new(SocketAddr::from(([0, 0, 0, 0], 0)), tls.is_some(), sni);
        template.group_key = group_key(upstream, files);
        let options = &mut template.options;
        options.connection_timeout = Some(connect);
        options.total_connection_timeout = Some(connect);
        options.write_timeout = Some(write);
        options.idle_timeout = Some(upstream.keepalive.idle_timeout);
        options.alpn = match upstream.protocol {
            Protocol::Http1 => ALPN::H1,
            Protocol::H2 => ALPN::H2H1,
            Protocol::H2c => ALPN::H2,
        };
        options.max_h2_streams = STREAMS;
        options.h2_stream_window_size = Some(STREAM_WINDOW);
        options.h2_connection_window_size = Some(CONNECTION_WINDOW);
        options.h2_ping_interval = Some(PING);
        options.http_upstream_request_policy = HttpUpstreamRequestPolicy::standard();
        let verify = tls.is_none_or(|tls| tls.verify);
        options.verify_cert = verify;
        options.verify_hostname = verify;
        options.bind_to = upstream.bind.map(|address| {
            let mut bind = BindTo::default();
            bind.addr = Some(address);
            bind
        });
        Self {
            template,
            proxy_protocol: upstream.proxy_protocol,
            bind: upstream.bind,
            min_version: tls.map(|tls| tls.min_version),
            own: None,
        }
    }

    /// The peer at `address`, for a client whose connection has these `ends`.
    #[must_use]
    pub fn peer(&self, address: &Address, ends: Ends) -> HttpPeer {
        let mut peer = self.template.clone();
        peer._address = match address {
            Address::Inet(address) => (*address).into(),
            Address::Unix(path) => match unix::net::SocketAddr::from_pathname(path) {
                Ok(socket) => l4::socket::SocketAddr::Unix(socket),
                // The plan takes no path that is too long; an address that nobody has fails as the socket would.
                Err(_) => SocketAddr::from(([0, 0, 0, 0], 0)).into(),
            },
        };
        if let Some(version) = self.proxy_protocol {
            let header = proxy_protocol::header(version, ends);
            peer.group_key = hash(&(peer.group_key, &header));
            peer.options.custom_l4 = Some(Arc::new(Announcing { header, bind: self.bind }));
        }
        peer
    }

    /// The same, in HTTP/1.1 where TLS lets us choose: only that has upgrades.
    #[must_use]
    pub fn upgrading(&self, address: &Address, ends: Ends) -> HttpPeer {
        let mut peer = self.peer(address, ends);
        if peer.is_tls() {
            peer.options.alpn = ALPN::H1;
        }
        peer
    }

    /// Who connects: the upstream's own connectors, where it has some.
    #[must_use]
    pub fn connectors<'a>(&'a self, shared: &'a Connectors) -> &'a Connectors {
        self.own.as_deref().unwrap_or(shared)
    }

    /// Whether a connection may be used over which this version of TLS is spoken (`TLSv1_3`).
    #[must_use]
    pub fn accepts(&self, version: Option<&str>) -> bool {
        // Pingora offers 1.2 and 1.3, and cannot be told otherwise.
        self.min_version != Some(TlsVersion::V13) || version == Some("TLSv1_3")
    }

    /// Equal keys: a connection made for one may be used for the other.
    #[must_use]
    pub fn key(peer: &HttpPeer) -> u64 {
        peer.reuse_hash()
    }
}

fn options(tls: &UpstreamTls) -> ConnectorOptions {
    let text = |path: &PathBuf| path.to_string_lossy().into_owned();
    let mut options = ConnectorOptions::new(HTTP2_CONNECTIONS);
    options.ca_file = tls.ca.as_deref().map(text);
    options.cert_key_file = tls.certificate.as_ref().map(|own| (text(&own.chain), text(&own.key)));
    options
}

/// Keeps connections of one upstream from being reused by another, or by the same one after a reload that changed how
/// it connects: Pingora's own hash knows neither, nor the files of TLS or the address that is bound to.
fn group_key(upstream: &Upstream, files: u64) -> u64 {
    let Timeouts { connect, write, .. } = upstream.timeouts;
    let tls = upstream.tls.as_ref().map(|tls| (&tls.name, tls.verify, tls.min_version, files));
    hash(&(&upstream.name, tls, upstream.protocol, connect, write, &upstream.proxy_protocol, upstream.bind))
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Connects and says who the client is; TLS and HTTP come after that.
#[derive(Debug)]
struct Announcing {
    header: Vec<u8>,
    bind: Option<SocketAddr>,
}

#[async_trait]
impl L4Connect for Announcing {
    async fn connect(&self, address: &l4::socket::SocketAddr) -> Result<l4::stream::Stream, BError> {
        let connected = async {
            match address {
                l4::socket::SocketAddr::Inet(address) => {
                    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                    if let Some(bind) = self.bind {
                        socket.bind(bind)?;
                    }
                    let mut stream = socket.connect(*address).await?;
                    stream.write_all(&self.header).await?;
                    Ok(stream.into())
                }
                l4::socket::SocketAddr::Unix(address) => {
                    let mut stream =
                        UnixStream::connect(address.as_pathname().unwrap_or(Path::new(""))).await?;
                    stream.write_all(&self.header).await?;
                    Ok::<_, std::io::Error>(stream.into())
                }
            }
        };
        connected.await.or_err(ErrorType::ConnectError, "connecting to announce a client")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn dial(words: &str) -> Dial {
        Dial::plain(&upstream(words), 0)
    }

    fn upstream(words: &str) -> Upstream {
        let yaml = format!(
            "listeners: [127.0.0.1:0]\nupstreams: {{ api: {{ servers: [127.0.0.1:1]{words} }} }}\nroutes: [{{ to: api }}]\n"
        );
        weir_config::load("config.yaml", &yaml, &|_: &str| None).unwrap().plan.upstreams.remove(0)
    }

    fn address(port: u16) -> Address {
        ([127, 0, 0, 1], port).into()
    }

    fn ends(port: u16) -> Ends {
        Ends { client: ([192, 0, 2, 7], port).into(), local: ([10, 0, 0, 1], 443).into() }
    }

    #[test]
    fn every_timeout_is_set() {
        let words = ", timeouts: { connect: 1s, write: 4s }, keepalive: { idle_timeout: 5s }";
        let peer = dial(words).peer(&address(3001), ends(1));
        assert_eq!(peer.connection_timeout(), Some(Duration::from_secs(1)));
        assert_eq!(peer.total_connection_timeout(), Some(Duration::from_secs(1)));
        assert_eq!(peer.options.write_timeout, Some(Duration::from_secs(4)));
        assert_eq!(peer.idle_timeout(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn the_address_is_the_picked_one_and_http_1_is_spoken() {
        let peer = dial("").peer(&address(3001), ends(1));
        assert_eq!(peer.address().as_inet(), address(3001).inet().as_ref());
        assert!(!peer.tls());
        assert_eq!(peer.options.alpn, ALPN::H1);
        let socket = dial("").peer(&Address::unix("/run/api.sock"), ends(1));
        assert_eq!(socket.address().to_string(), "/run/api.sock");
    }

    #[test]
    fn http_2_is_offered_in_tls_and_known_without_it() {
        let tls = dial(", protocol: h2, tls: { name: origin.test }");
        assert_eq!(tls.peer(&address(1), ends(1)).options.alpn, ALPN::H2H1);
        assert_eq!(tls.upgrading(&address(1), ends(1)).options.alpn, ALPN::H1, "an upgrade needs HTTP/1.1");
        let plain = dial(", protocol: h2c");
        assert_eq!(plain.peer(&address(1), ends(1)).options.alpn, ALPN::H2);
        assert_eq!(plain.upgrading(&address(1), ends(1)).options.alpn, ALPN::H2, "it knows nothing else");
    }

    #[test]
    fn tls_carries_the_name_and_verifies_unless_told_not_to() {
        let strict = dial(", tls: { name: origin.test }").peer(&address(1), ends(1));
        assert!(strict.tls() && strict.verify_cert() && strict.verify_hostname());
        assert_eq!(strict.sni(), "origin.test");
        let lax = dial(", tls: { name: origin.test, verify: false }").peer(&address(1), ends(1));
        assert!(lax.tls() && !lax.verify_cert() && !lax.verify_hostname());
    }

    #[test]
    fn an_older_tls_than_wanted_is_not_used() {
        let both = dial(", tls: { name: a }");
        assert!(both.accepts(Some("TLSv1_2")) && both.accepts(Some("TLSv1_3")));
        let new = dial(", tls: { name: a, min_version: \"1.3\" }");
        assert!(new.accepts(Some("TLSv1_3")) && !new.accepts(Some("TLSv1_2")) && !new.accepts(None));
        assert!(dial("").accepts(None));
    }

    #[test]
    fn connections_are_shared_only_within_one_upstream_as_it_is_now() {
        let key =
            |words: &str, files| Dial::key(&Dial::plain(&upstream(words), files).peer(&address(1), ends(1)));
        let api = key("", 0);
        assert_eq!(api, key("", 0), "an unchanged upstream keeps its connections over a reload");
        let tls = key(", tls: { name: origin.test }", 1);
        for other in [
            tls,
            key(", timeouts: { write: 9s }", 0),
            key(", bind: 127.0.0.2", 0),
            key(", proxy_protocol: v1", 0),
        ] {
            assert_ne!(api, other);
        }
        assert_ne!(tls, key(", tls: { name: origin.test }", 2), "a file changed");
        assert_ne!(tls, key(", tls: { name: origin.test, min_version: \"1.3\" }", 1));
    }

    #[test]
    fn a_connection_that_was_announced_is_one_clients_own() {
        let (told, untold) = (dial(", proxy_protocol: v2"), dial(""));
        let key = |dial: &Dial, port| Dial::key(&dial.peer(&address(1), ends(port)));
        assert_eq!(key(&told, 1), key(&told, 1));
        assert_ne!(key(&told, 1), key(&told, 2));
        assert_eq!(key(&untold, 1), key(&untold, 2));
    }
}
