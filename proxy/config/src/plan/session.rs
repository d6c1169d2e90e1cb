//! Who callers are, as planned: signed tokens, roles kept apart from sessions, and what happens where nobody is known.

use std::{sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::UpstreamId;
use crate::{secret::Secret, span::Placed, template::Template};

/// How tokens that are JWTs are checked (RFC 7519, RFC 8725).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Jwt {
    /// What they are signed with.
    pub keys: JwtKeys,
    /// By which algorithms; the keys are good for all of them.
    pub algorithms: Vec<Algorithm>,
    /// Any of these; empty asks for none.
    pub issuer: Vec<String>,
    /// Any of these; empty takes only tokens that name nobody (RFC 7519 §4.1.3).
    pub audience: Vec<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Claims that must be there.
    pub required: Vec<String>,
    /// The Redis key that revokes a token; its one variable is a field of the session.
    pub revoked: Option<Template>,
    /// The Redis key that holds since when tokens count; its one variable is a field of the session.
    pub revoked_before: Option<Template>,
}

/// What JWTs are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JwtKeys {
    /// A secret that is shared with whoever signs.
    Secret(Secret),
    /// Public keys, as the text of a JWK Set (RFC 7517 §5).
    Set(Placed<Arc<str>>),
    /// Public keys that an upstream tells.
    Asked {
        /// Whom to ask.
        upstream: UpstreamId,
        /// What for.
        path: String,
        /// How often.
        refresh: Duration,
    },
}

/// An algorithm of JWS (RFC 7518 §3.1, RFC 8037), under its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// HMAC with SHA-384.
    HS384,
    /// HMAC with SHA-512.
    HS512,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    RS256,
    /// RSA (PKCS #1 v1.5) with SHA-384.
    RS384,
    /// RSA (PKCS #1 v1.5) with SHA-512.
    RS512,
    /// RSA (PSS) with SHA-256.
    PS256,
    /// RSA (PSS) with SHA-384.
    PS384,
    /// RSA (PSS) with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// Bytes that its secret must have at least (RFC 7518 §3.2); `None` of those with public keys.
    #[must_use]
    pub fn secret_bytes(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            _ => None,
        }
    }
}
