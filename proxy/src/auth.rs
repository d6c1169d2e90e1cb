//! Who may pass: by address, by session, by role.
//!
//! What passed is told to the origin in one signed header; a token itself is never written down, its SHA-256 names it
//! inside ([`token::Digest`]). In the order of the path:
//!
//! - [`access`]: which addresses may pass.
//! - [`token`]: the session token of a request.
//! - [`claim`]: what a request claims, mostly a token, and what may be said of that.
//! - [`sessions`]: from a claim to whose it is.
//! - [`lookup`]: memory first, then one question for all who wait.
//! - [`memory`]: what this process remembers, within bounds.
//! - [`tracking`]: memory kept true by what Redis tells.
//! - [`source`]: where memory asks: Redis, or the origin.
//! - [`touch`]: sessions that live as long as they are used.
//! - [`jwt`]: tokens that are signed, and need nobody to be asked.
//! - [`grants`]: roles and permissions that are kept apart from sessions.
//! - [`session`]: what is known of a caller.
//! - [`roles`]: what a route asks of whoever comes.
//! - [`identity`]: what the origin is told about the caller.

pub mod access;
pub mod token;
pub mod claim;
mod sessions;
mod lookup;
mod memory;
mod tracking;
pub mod source;
mod touch;
mod jwt;
mod grants;
pub mod session;
pub mod roles;
pub mod identity;

pub use claim::{Claim, No, Whose};
pub use jwt::BadKeys;
pub use roles::{Caller, Denied};
pub use session::Session;
pub use sessions::{Sessions, Sources};
pub use source::{Ask, Form, Question, Source, Unavailable};
pub use token::{Presented, Token};
