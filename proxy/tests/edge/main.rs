//! The whole edge: the real binary, configured by each test, between raw clients and scripted origins on loopback.
#![allow(clippy::unwrap_used, reason = "a test's panic is its report")]

mod support;

mod attacks;
mod balancing;
mod caching;
mod changing;
mod checks;
mod choosing;
mod commands;
mod coherence;
mod connections;
mod counting;
mod desync;
mod encoding;
mod errors;
mod explaining;
mod faults;
mod forwarding;
mod guards;
mod http2_clients;
mod http2_origins;
mod keeping;
mod lanes;
mod leaks;
mod life;
mod mirrors;
mod operating;
mod partial;
mod protection;
mod protocols;
mod purging;
mod queries;
mod refreshing;
mod routes;
mod sessions;
mod slicing;
mod streaming;
mod telling;
mod trouble;
mod tunnels;
mod unpacking;
mod warming;
