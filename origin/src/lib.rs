//! The thin API behind the edge: accounts, sessions, vault items, notes and posts over Postgres or SQLite.
//!
//! One direction: **handle → resource → sql**. A handler reads the request into checked values, asks the resource's `sql`, and
//! answers; nothing else is in between.
//!
//! - [`app`]: the running service: what is shared, the routes, the start and the graceful stop
//! - [`config`]: what can be set, each with its default and the reason for it
//! - [`accounts`], [`sessions`], [`admin`], [`items`], [`notes`], [`posts`], [`health`]: the resources, each with its SQL in `<name>/sql.rs`
//! - [`jobs`], [`mail`]: what requests leave for later, and who does it
//! - [`metrics`]: what Prometheus is told
//! - [`openapi`]: the document of it all, made from the types
//! - [`identity`]: who the caller is: the edge's signed header, or a session token
//! - [`fields`]: reads bodies and queries, and names every problem at once
//! - [`refusal`]: the one table from "no" to status, code and sentence
//! - [`conditions`], [`idempotency`]: what makes writes safe to race and to repeat
//! - [`trace`]: which request of the edge's a line of the log belongs to
//! - [`cursor`], [`password`], [`token`], [`verification`]: the small cryptographic nouns
//! - [`fleet`]: the Redis that instances and edges share
//! - [`cache`]: reads that Redis keeps until the next write
//! - [`throttle`]: how often one may guess
//! - [`database`]: one enum over both stores, and the two column types they do not share
//! - [`seed`]: demo users and items, the same in every run

pub mod accounts;
pub mod admin;
pub mod app;
pub mod cache;
pub mod conditions;
pub mod config;
pub mod cursor;
pub mod database;
pub mod fields;
pub mod fleet;
pub mod health;
pub mod idempotency;
pub mod identity;
pub mod items;
pub mod jobs;
pub mod mail;
pub mod metrics;
pub mod notes;
pub mod openapi;
pub mod password;
pub mod posts;
pub mod refusal;
pub mod seed;
pub mod sessions;
pub mod throttle;
pub mod token;
pub mod trace;
pub mod verification;
