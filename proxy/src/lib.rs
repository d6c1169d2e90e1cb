//! stub

pub mod cache;
