//! config.yaml for Weir: text → [`raw`] (as written) → [`plan`] (as meant), or a [`report`] with every problem at once.
//!
//! Pure: no socket, no clock, no Pingora. Read in this order:
//! - [`text`]: YAML → a tree in which every node knows its line and column; the only file that names the YAML library.
//! - [`span`]: the places of that tree.
//! - [`raw`]: the words of config.yaml as types; JSON Schema comes from them.
//! - [`units`], [`template`], [`secret`]: values with a grammar of their own.
//! - [`defaults`]: every default with its reason.
//! - [`resolve`]: raw → plan.
//! - [`plan`]: what the rest of the house reads.
//! - [`report`]: problems with place, cause and suggestion.

pub mod plan;
pub mod secret;
pub mod span;
pub mod template;
pub mod units;

pub use plan::Plan;
