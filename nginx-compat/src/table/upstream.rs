//! Rows of `upstream` blocks.

use super::*;

// A row is a line, however long its sentence.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    block("upstream", HTTP, ONE, Body::Of(UPSTREAM), Means),
    often("server", UPSTREAM, SOME, Means),
    once("least_conn", UPSTREAM, NONE, Means),
    once("ip_hash", UPSTREAM, NONE, Means),
    once("keepalive", UPSTREAM, Args::Between(1, 2), Means),
    once("keepalive_timeout", UPSTREAM, ONE, Means),
    once("hash", UPSTREAM, ONE_OR_TWO, Means),
    once("random", UPSTREAM, Args::Between(0, 2), Means),
    once("least_time", UPSTREAM, ONE_OR_TWO, Means),
    once("sticky", UPSTREAM, SOME, Means),
    once("keepalive_requests", UPSTREAM, ONE, Means),
    once("keepalive_time", UPSTREAM, ONE, Means),
    once("zone", UPSTREAM, ONE_OR_TWO, Ignored("all threads share one state already")),
    once("queue", UPSTREAM, ONE_OR_TWO, Means),
    once("resolver", UPSTREAM, SOME, Ignored("all upstreams ask the resolver of http")),
    once("resolver_timeout", UPSTREAM, ONE, Ignored("all upstreams ask the resolver of http")),
    once("state", UPSTREAM, ONE, Refused("list the servers in the file and reload")),
    once("ntlm", UPSTREAM, NONE, Refused("NTLM binds a login to a connection, and connections are shared; use tokens")),
];
