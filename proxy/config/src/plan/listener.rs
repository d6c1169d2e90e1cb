//! Where clients connect, and what a connection may ask of us.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    defaults,
    span::{Place, Placed},
    units::Bytes,
};

/// A socket that accepts clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Listener {
    /// Address and port; port 0 asks the system for a free one.
    pub address: SocketAddr,
    /// TLS, when the socket speaks it.
    pub tls: Option<Tls>,
    /// Bounds on what one connection may ask of us.
    pub bounds: Bounds,
    /// Whether every connection begins with a PROXY header, from one of `clients.trusted`.
    pub proxy_protocol: bool,
    /// Where it was written.
    pub place: Place,
}

/// TLS of one listener: certificates by name, the first one for clients that send none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Tls {
    /// At least one; names are read from the certificates themselves.
    pub certificates: Vec<Certificate>,
    /// Whether `h2` is offered in ALPN.
    pub http2: bool,
}

/// A certificate chain and its key, both PEM files, read again at a reload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Certificate {
    /// Leaf first.
    pub chain: Placed<PathBuf>,
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: Placed<PathBuf>,
}

/// Bounds of one listener; each default is argued in `defaults.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Bounds {
    /// From the first byte (or the accept) to the end of the head; 408 afterwards.
    pub header_timeout: Duration,
    /// Between requests of a kept-alive connection.
    pub idle_timeout: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// Slowest acceptable request body, bytes per second averaged after the first `body_timeout`; 0 is no bound.
    pub body_min_rate: Bytes,
    /// Between two writes to a client that does not read.
    pub send_timeout: Duration,
    /// Request line and fields together; 431 beyond.
    pub head_bytes: Bytes,
    /// Request target; 414 beyond.
    pub uri_bytes: Bytes,
    /// Number of fields; 431 beyond.
    pub head_fields: usize,
    /// Request body; 413 beyond. 0 is no bound.
    pub body_bytes: Bytes,
    /// Connections accepted at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Requests served by one connection before it is closed; 0 is no bound.
    pub requests_per_connection: u64,
    /// Concurrent HTTP/2 streams of one connection.
    pub http2_streams: u32,
    /// Whether a bare LF may end a line of the head (normalised, never passed on).
    pub bare_lf: BareLf,
    /// Whether some route takes CONNECT; otherwise it is refused before anything is asked.
    pub connect: bool,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            header_timeout: defaults::HEADER_TIMEOUT,
            idle_timeout: defaults::IDLE_TIMEOUT,
            body_timeout: defaults::BODY_TIMEOUT,
            body_min_rate: defaults::BODY_MIN_RATE,
            send_timeout: defaults::SEND_TIMEOUT,
            head_bytes: defaults::HEAD_BYTES,
            uri_bytes: defaults::URI_BYTES,
            head_fields: defaults::HEAD_FIELDS as usize,
            body_bytes: defaults::BODY_BYTES,
            connections: defaults::CONNECTIONS as usize,
            requests_per_connection: defaults::REQUESTS_PER_CONNECTION,
            http2_streams: defaults::HTTP2_STREAMS,
            bare_lf: BareLf::Refuse,
            connect: false,
        }
    }
}

/// What a line of a request head that ends in LF without CR means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BareLf {
    /// 400: two parsers on the path may disagree about it.
    Refuse,
    /// As RFC 9112 §2.2 allows and nginx does.
    Accept,
}
