//! What Pingora wants to know of a connection besides its bytes.

use std::{os::fd::AsRawFd, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::io::AsyncWriteExt;

use super::{FrontIo, Raw};

/// Made once for a connection.
#[derive(Debug)]
pub(super) struct Digests {
    socket: Option<Arc<SocketDigest>>,
    tls: Option<Arc<SslDigest>>,
    established: SystemTime,
}

impl Digests {
    pub(super) fn of(raw: &Raw) -> Self {
        let socket = raw.tcp().map(|tcp| {
            let digest = SocketDigest::from_raw_fd(tcp.as_raw_fd());
            let _ = digest.peer_addr.set(tcp.peer_addr().ok().map(Into::into));
            Arc::new(digest)
        });
        let tls = match raw {
            Raw::Tls(tls) => {
                let session = tls.get_ref().1;
                let cipher =
                    session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("");
                let version = session.protocol_version().and_then(|version| version.as_str()).unwrap_or("");
                Some(Arc::new(SslDigest::new(cipher, version, None, None, Vec::new())))
            }
            Raw::Tcp(_) | Raw::Gone => None,
        };
        Self { socket, tls, established: SystemTime::now() }
    }
}

#[async_trait]
impl Shutdown for FrontIo {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for FrontIo {
    fn id(&self) -> UniqueIDType {
        self.raw.tcp().map_or(-1, AsRawFd::as_raw_fd)
    }
}

impl Ssl for FrontIo {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.digests.tls.clone()
    }
}

impl GetTimingDigest for FrontIo {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        vec![Some(TimingDigest { established_ts: self.digests.established, ..TimingDigest::default() })]
    }
}

impl GetProxyDigest for FrontIo {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for FrontIo {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.digests.socket.clone()
    }
}

impl Peek for FrontIo {}
