//! The words about the edge itself: listeners, operators, clients, Redis, identity, log, shutdown.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word::{FromShort, List, Short, Switch, Switched, Word};
use crate::{
    secret::Secret,
    units::{Bytes, Span},
};

/// A socket that accepts clients.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Address and port: `0.0.0.0:8080`, `[::]:443`. Port 0 asks the system for a free one.
    pub address: Word<String>,
    /// TLS; without it the socket speaks plain HTTP.
    pub tls: Word<Tls>,
    /// What one connection may ask of us.
    pub bounds: Word<Bounds>,
    /// Whether every connection begins with a PROXY header; only `clients.trusted` may connect then.
    pub proxy_protocol: Word<bool>,
}

impl FromShort for Listener {
    const SHORT_FORM: &'static str = "address and port";

    fn from_short(text: &str) -> Result<Self, String> {
        Ok(Self { address: Word::new(text.to_owned()), ..Self::default() })
    }
}

/// TLS of one listener.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Chosen by the name a client asks for; the first one for clients that ask for none we know.
    pub certificates: Word<List<Certificate>>,
    /// Whether HTTP/2 is offered. Default: true.
    pub http2: Word<bool>,
}

/// A certificate chain and its key, read again at a reload.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Certificate {
    /// PEM file, leaf first.
    pub chain: Word<String>,
    /// PEM file: PKCS#8, PKCS#1 or SEC1.
    pub key: Word<String>,
}

/// Bounds on what one connection may ask of us.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// To send a whole request head; 408 afterwards.
    pub header_timeout: Word<Span>,
    /// Between two requests of a kept-alive connection.
    pub idle_timeout: Word<Span>,
    /// Between two reads of a request body; 408 afterwards.
    pub body_timeout: Word<Span>,
    /// Slowest request body, bytes per second on average after the first `body_timeout`. 0: no bound.
    pub body_min_rate: Word<Bytes>,
    /// Between two writes to a client that does not read.
    pub send_timeout: Word<Span>,
    /// Request line and fields together; 431 beyond.
    pub head_bytes: Word<Bytes>,
    /// Request target; 414 beyond.
    pub uri_bytes: Word<Bytes>,
    /// Number of fields; 431 beyond.
    pub head_fields: Word<u32>,
    /// Request body; 413 beyond. 0: no bound.
    pub body_bytes: Word<Bytes>,
    /// Connections accepted at once; further ones wait in the kernel's queue.
    pub connections: Word<u32>,
    /// Requests that one connection may carry before it is closed. 0: no bound.
    pub requests_per_connection: Word<u64>,
    /// Streams that one HTTP/2 connection may have open.
    pub http2_streams: Word<u32>,
    /// What a bare LF at the end of a header line means: `refuse` or `accept`.
    pub bare_lf: Word<BareLf>,
}

/// What a bare LF at the end of a header line means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BareLf {
    /// 400.
    Refuse,
    /// The end of the line, as nginx reads it.
    Accept,
}

/// The operators' listener: health, metrics.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Address and port.
    pub address: Word<String>,
    /// Networks that may ask, as CIDR.
    pub allow: Word<List<String>>,
}

impl Switched for Admin {
    const SHORT_FORM: &'static str = "address and port, `on`, `off`";

    fn from_word(text: &str) -> Option<Self> {
        text.contains(':').then(|| Self { address: Word::new(text.to_owned()), ..Self::default() })
    }
}

/// Whom to believe about a client's address.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Clients {
    /// Networks of the hops in front of us, as CIDR. Default: nobody is believed.
    pub trusted: Word<List<String>>,
    /// The field to which those hops append: `x-forwarded-for` or `forwarded`.
    pub header: Word<ForwardedBy>,
}

/// The field in which trusted hops tell the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedBy {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The Redis that the fleet shares.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://[user:password@]host[:port][/db]`; empty: no Redis.
    pub url: Word<Secret>,
    /// A file that holds the URL, for a password that must not be in the environment.
    pub url_file: Word<String>,
    /// To connect.
    pub connect_timeout: Word<Span>,
    /// For one command; a slower Redis counts as down.
    pub timeout: Word<Span>,
    /// The ACL user, instead of one in the URL. Default: Redis' `default` user.
    pub username: Word<String>,
    /// Its password, instead of one in the URL.
    pub password: Word<Secret>,
    /// A file that holds the password.
    pub password_file: Word<String>,
    /// How TLS is spoken: with `rediss://` in the URL, or with every node of `sentinel` or `cluster`.
    pub tls: Word<RedisTls>,
    /// Instead of a URL: the sentinels that know where the master is.
    pub sentinel: Word<RedisSentinel>,
    /// Instead of a URL: some nodes of a Redis Cluster, `host:port`; the others are learnt from them.
    pub cluster: Word<List<String>>,
    /// What the names of the edge's own keys begin with. Default: `weir:`.
    pub prefix: Word<String>,
    /// Whether a purge at one edge is one at all of them. Default: true.
    pub purges: Word<bool>,
}

/// TLS to Redis.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisTls {
    /// PEM file of the authorities to believe. Default: the system's.
    pub ca: Word<String>,
    /// PEM file of the certificate that we show, leaf first.
    pub certificate: Word<String>,
    /// PEM file of its key.
    pub key: Word<String>,
}

/// Redis behind sentinels, which say who is the master.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RedisSentinel {
    /// The master's name, as in `sentinel monitor`.
    pub master: Word<String>,
    /// The sentinels, `host:port`.
    pub nodes: Word<List<String>>,
}

/// Who is asked for the addresses of servers that `resolve`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Resolver {
    /// Name servers, with or without a port. Default: those of `/etc/resolv.conf`.
    pub addresses: Word<List<String>>,
    /// How long an answer is believed, instead of its own time to live.
    pub valid: Word<Span>,
    /// For one question.
    pub timeout: Word<Span>,
}

/// The signed header (a JWT, HS256) that tells the origin who the caller is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Identity {
    /// Its name; whatever a client sends under it is removed.
    pub header: Word<String>,
    /// Shared with the origin, at least 32 bytes.
    pub secret: Word<Secret>,
    /// A file that holds the secret.
    pub secret_file: Word<String>,
    /// How long the origin may believe it.
    pub ttl: Word<Span>,
}

/// What is written down.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// One line for each request, or `off`.
    pub access: Word<Short<Switch<AccessLog>>>,
    /// Slower requests get a warning.
    pub slow: Word<Span>,
    /// The least important event written: error, warn, info, debug or trace.
    pub level: Word<Level>,
}

/// The importance of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Something failed.
    Error,
    /// Something an operator may act on.
    Warn,
    /// Events of the process's life.
    Info,
    /// For the curious.
    Debug,
    /// Everything.
    Trace,
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AccessLog {
    /// `json`, or `combined` as nginx writes it.
    pub format: Word<AccessFormat>,
    /// A file, opened anew at a reload and at USR1. Default: standard output.
    pub path: Word<String>,
    /// Lines that may wait for a slow disk; further ones are dropped and counted.
    pub queue: Word<u32>,
}

impl Switched for AccessLog {}

/// The form of an access-log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AccessFormat {
    /// An object with the words of the metrics.
    Json,
    /// nginx's `combined`.
    Combined,
}

/// How the process ends.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long requests in flight may take after TERM or QUIT.
    pub grace: Word<Span>,
}
