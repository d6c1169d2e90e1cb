//! Forward: what is said to the origin, what of its answer is believed, and when a failed attempt goes to the next peer.
//!
//! On the path it stands after balance, which picked the peer, and before record. [`peer`] connects and [`http1`]
//! speaks, [`idle`] holds the connections that nobody uses, [`budget`] and [`hedge`] count for an upstream; the rest is pure:
//! functions over `http`'s heads. All are called by `edge`. It leaves to others: waits (the exchange's), who
//! the client is (accept), which route's fields are set (they come rendered), and what the client hears (refusal).
//!
//! Clients *and* origins are untrusted: a head is cleaned in both directions before anyone else reads it.
//!
//! - [`hop_by_hop`]: what belongs to one connection ends here.
//! - [`headers`]: what the origin is told about the client.
//! - [`trace`]: the request's id and its place in a trace.
//! - [`http1`]: a request written and an answer read, on any stream.
//! - [`http2`]: the same head for a peer that speaks HTTP/2.
//! - [`grpc`]: what a gRPC client hears when the answer is ours.
//! - [`limit_rate`]: how fast an answer goes.
//! - [`upgrade`]: upgrades to another protocol.
//! - [`response`]: which answers are refused.
//! - [`retry`]: the next peer, or the end.
//! - [`budget`]: how many requests may be repeated.
//! - [`hedge`]: a second peer for a slow answer.
//! - [`peer`]: a picked address as Pingora's type.
//! - [`idle`]: connections that nobody uses now.
//! - [`proxy_protocol`]: the client's address, said to the peer before everything else.

pub mod budget;
pub mod grpc;
pub mod headers;
pub mod hedge;
pub mod hop_by_hop;
pub mod http1;
pub mod http2;
pub mod limit_rate;
pub mod idle;
mod list;
pub mod peer;
pub mod proxy_protocol;
pub mod response;
pub mod retry;
pub mod trace;
pub mod upgrade;
