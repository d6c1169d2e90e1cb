//! The words about tokens that are signed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::word::{List, Word};
use crate::{plan::Algorithm, secret::Secret, template::Template, units::Span};

/// How tokens that are JWTs are checked. One of `secret`, `secret_file`, `jwks` and `jwks_file`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwt {
    /// Public keys that an upstream tells.
    pub jwks: Word<Jwks>,
    /// A file with public keys: a JWK Set.
    pub jwks_file: Word<String>,
    /// What is shared with whoever signs.
    pub secret: Word<Secret>,
    /// A file that holds it.
    pub secret_file: Word<String>,
    /// By which algorithms. Default: HS256 with a secret, otherwise RS256, ES256 and EdDSA.
    pub algorithms: Word<List<Algorithm>>,
    /// Who may have issued it, any of these. Default: anybody with the key.
    pub issuer: Word<List<String>>,
    /// Whom it must be for, any of these. Default: it names nobody.
    pub audience: Word<List<String>>,
    /// How far clocks may be apart; not counted behind the `exp` of tokens that can be revoked.
    pub leeway: Word<Span>,
    /// Claims that must be there. Default: exp.
    pub required: Word<List<String>>,
    /// The Redis key whose existence revokes a token: `jwt:revoked:${session.jti}`. Default: none.
    pub revoked: Word<Template>,
    /// The Redis key with the Unix time up to which tokens are revoked: `user:revoked:${session.user_id}`. Default: none.
    pub revoked_before: Word<Template>,
}

/// Public keys that an upstream tells: GET, answered with a JWK Set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Jwks {
    /// Whom to ask.
    pub upstream: Word<String>,
    /// What to ask for.
    pub path: Word<String>,
    /// How often. An unknown key is asked for at once.
    pub refresh: Word<Span>,
}
