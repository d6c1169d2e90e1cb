//! The API over real sockets, each promise kept on SQLite and on Postgres.
#![allow(clippy::unwrap_used, reason = "tests")]

#[macro_use]
mod harness;
mod accounts;
mod admin;
mod cache;
mod items;
mod jobs;
mod metrics;
mod notes;
mod openapi;
mod pgbouncer;
mod plans;
mod posts;
mod refusals;
mod replicas;
mod sessions;
