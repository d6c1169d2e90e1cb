//! Session tokens: made here, known to the client, stored only as a hash.
//!
//! A token is HMAC-SHA256 over a random *seed*, with a key derived from the shared secret. The seed is stored, so that a session can be taken
//! back from Redis, where its token is the key, without the client showing it; neither the table nor the secret alone gives a token away.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Makes tokens.
#[derive(Clone)]
pub struct Tokens(Hmac<Sha256>);

/// What a token is made of; useless without the secret.
pub type Seed = [u8; 32];

impl Tokens {
    /// Derives a key of its own from the shared secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let derived = keyed(secret.as_bytes()).chain_update("weir-origin session tokens").finalize();
        Self(keyed(&derived.into_bytes()))
    }

    /// A new token, and its seed from the thread's cryptographic generator.
    #[must_use]
    pub fn make(&self) -> (Token, Seed) {
        let seed: Seed = rand::random();
        (self.of(&seed), seed)
    }

    /// The token of a seed.
    #[must_use]
    pub fn of(&self, seed: &[u8]) -> Token {
        Token(URL_SAFE_NO_PAD.encode(self.0.clone().chain_update(seed).finalize().into_bytes()))
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens(***)")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// A bearer token as the client knows it: 256 bits that cannot be guessed, as 43 characters of base64url. Never logged or stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Reads what a client sent; `None` when it cannot be one of ours, which spares the store a look-up.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Self(text.to_owned()))
    }

    /// The text for its owner, and for the session's key in Redis.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is stored. A plain hash is enough: 256 such bits cannot be guessed, unlike a password. It is also what
    /// makes the look-up safe against timing: an attacker does not choose the hash that is compared.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(&self.0).into())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(***)")
    }
}

/// SHA-256 of a token's text: names a session without giving it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The column's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Back from [`TokenHash::bytes`]; `None` when there are not 32 of them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().map(Self).ok()
    }

    /// Reads [`TokenHash::session_id`] back.
    #[must_use]
    pub fn parse(session_id: &str) -> Option<Self> {
        Self::from_bytes(&URL_SAFE_NO_PAD.decode(session_id).ok()?)
    }

    /// The session's public id: base64url, 43 characters.
    #[must_use]
    pub fn session_id(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_parsing_and_is_never_shown() {
        let tokens = Tokens::new("secret");
        let (token, seed) = tokens.make();
        assert_eq!(Token::parse(token.expose()), Some(token.clone()));
        assert_eq!(TokenHash::parse(&token.hash().session_id()), Some(token.hash()));
        assert_eq!(format!("{token:?}"), "Token(***)");
        assert_ne!(token, tokens.make().0);
        assert_eq!(token, tokens.of(&seed));
        assert_ne!(token, Tokens::new("another").of(&seed), "a seed alone makes no token");
    }

    #[test]
    fn what_cannot_be_a_token_is_refused() {
        for text in ["", "short", "!!!!", &"A".repeat(44), &"=".repeat(43)] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
