//! Who may pass: by address ([`access`]), by session ([`token`] → [`session`] through `memory`), by role ([`roles`]).
//!
//! What passed is told to the origin in one signed header ([`identity`]); a token itself is never written down, its
//! SHA-256 names it inside ([`token::Digest`]).

pub mod access;
pub mod identity;
mod lookup;
mod memory;
pub mod roles;
pub mod session;
mod sessions;
pub mod source;
pub mod token;
mod tracking;

pub use roles::{Caller, Denied};
pub use session::Session;
pub use sessions::Sessions;
pub use source::{Ask, Source, Unavailable};
pub use token::{Presented, Token};
