//! Session tokens: made here, known to the client, stored only as a hash.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

/// A bearer token as the client knows it: 256 random bits as 43 characters of base64url. Never logged or stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new one, from the thread's cryptographic generator.
    #[must_use]
    pub fn random() -> Self {
        Self(URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
    }

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

    /// What is stored. A plain hash is enough: 256 random bits cannot be guessed, unlike a password. It is also what
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
        let token = Token::random();
        assert_eq!(Token::parse(token.expose()), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "Token(***)");
        assert_ne!(token, Token::random());
    }

    #[test]
    fn what_cannot_be_a_token_is_refused() {
        for text in ["", "short", "!!!!", &"A".repeat(44), &"=".repeat(43)] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
