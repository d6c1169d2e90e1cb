//! Everything that looks at the two programs from outside: the reference workload and the comparisons with peers.
//!
//! Nothing here links `weir` or `weir-origin`; they are started as processes and asked over HTTP, as users do.
//! In the order a run meets them:
//! - [`system`]: starts the origins and the edge on free ports, and stops them whatever happens.
//! - [`client`]: one keep-alive connection that speaks HTTP/1.1 from an address of its own.
//! - [`api`]: the origin's API as a client sees it: targets, bodies, and what comes back.
//! - [`account`]: what a user knows to be true, so that every answer can be held against it.
//! - [`scenario`]: honest devices and abusers, and the mix of what they do.
//! - [`flow`]: an API's load at its own rate, or of a crowd of people.
//! - [`tally`]: what was measured.
//! - [`promises`]: what was promised, how often it was checked, and where it broke.
//! - [`table`]: numbers as columns.
//! - [`report`]: the page that a run prints.
//! - [`contest`]: what the benches ask of Weir and its peers.
//! - [`rival`]: Weir, nginx, HAProxy and Varnish with equal set-ups.
//! - [`measure`]: load and latency of whoever runs.
//! - [`plain`]: a connection for programs that ask a million times.

pub mod account;
pub mod api;
pub mod client;
pub mod contest;
pub mod flow;
pub mod measure;
pub mod plain;
pub mod promises;
pub mod report;
pub mod rival;
pub mod scenario;
pub mod system;
pub mod table;
pub mod tally;
