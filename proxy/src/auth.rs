//! Who may pass: by address ([`access`]), by session ([`token`] → [`claim`] → [`session`] through `memory`, or `jwt`), by role
//! ([`roles`]).
//!
//! What passed is told to the origin in one signed header ([`identity`]); a token itself is never written down, its
//! SHA-256 names it inside ([`token::Digest`]).

pub mod access;
pub mod claim;
mod grants;
pub mod identity;
mod jwt;
mod lookup;
mod memory;
pub mod roles;
pub mod session;
mod sessions;
pub mod source;
pub mod token;
mod touch;
mod tracking;

pub use claim::{Claim, No, Whose};
pub use jwt::BadKeys;
pub use roles::{Caller, Denied};
pub use session::Session;
pub use sessions::{Sessions, Sources};
pub use source::{Ask, Form, Question, Source, Unavailable};
pub use token::{Presented, Token};
