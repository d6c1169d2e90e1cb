//! The whole edge: the real binary, configured by each test, between raw clients and scripted origins on loopback.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

mod balancing;
mod caching;
mod changing;
mod connections;
mod choosing;
mod desync;
mod errors;
mod forwarding;
mod guards;
mod http2_origins;
mod life;
mod mirrors;
mod operating;
mod protocols;

mod refreshing;
mod routes;
mod sessions;
mod streaming;
mod trouble;
