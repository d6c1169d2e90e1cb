//! The edge, in the order a request meets it.

pub mod auth;
pub mod limit;
pub mod route;
