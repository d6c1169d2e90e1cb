//! Tokens that prove who reads the mail of an address.
//!
//! Nothing is stored: the token is the account, the address and an expiry, signed with a key derived from the shared secret. It can
//! be made when the mail is sent, however late that is, and again when it is sent again; an address that changed makes it void.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use jiff::SignedDuration;
use sha2::Sha256;
use uuid::Uuid;

use crate::database::Moment;

/// So long a mail may lie unread.
const GOOD_FOR: SignedDuration = SignedDuration::from_hours(48);
/// Bytes of account, expiry and signature, between which the address stands.
const ID: usize = 16;
const EXPIRY: usize = 8;
const SIGNATURE: usize = 32;

/// Makes and opens such tokens.
#[derive(Clone)]
pub struct Verifications(Hmac<Sha256>);

/// What a token proves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proven {
    /// Whose address it is.
    pub user: Uuid,
    /// The address.
    pub email: String,
}

impl Verifications {
    /// Derives a key of its own from the shared secret.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let derived = keyed(secret.as_bytes()).chain_update("weir-origin e-mail verification").finalize();
        Self(keyed(&derived.into_bytes()))
    }

    /// The token to mail to `email`, good for two days from `now`.
    #[must_use]
    pub fn seal(&self, user: Uuid, email: &str, now: Moment) -> String {
        let expiry = Moment::cut(now.timestamp() + GOOD_FOR).microseconds();
        let mut bytes = [user.as_bytes(), &expiry.to_be_bytes()[..], email.as_bytes()].concat();
        let signature = self.0.clone().chain_update(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&signature);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token proves; `None` when it is garbled, forged or too old.
    #[must_use]
    pub fn open(&self, token: &str, now: Moment) -> Option<Proven> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (said, signature) = bytes.split_at_checked(bytes.len().checked_sub(SIGNATURE)?)?;
        // Compares in constant time.
        self.0.clone().chain_update(said).verify_slice(signature).ok()?;
        let (user, rest) = said.split_at_checked(ID)?;
        let (expiry, email) = rest.split_first_chunk::<EXPIRY>()?;
        let alive = Moment::from_microseconds(i64::from_be_bytes(*expiry))? > now;
        let email = String::from_utf8(email.to_vec()).ok()?;
        alive.then(|| Some(Proven { user: Uuid::from_slice(user).ok()?, email })).flatten()
    }
}

impl std::fmt::Debug for Verifications {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifications(***)")
    }
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_token_proves_its_address_until_it_is_too_old() {
        let (sealer, user, now) = (Verifications::new("secret"), Uuid::now_v7(), Moment::now());
        let token = sealer.seal(user, "ada@example.org", now);
        let proven = Proven { user, email: "ada@example.org".into() };
        assert_eq!(sealer.open(&token, now), Some(proven));
        assert_eq!(sealer.open(&token, Moment::cut(now.timestamp() + GOOD_FOR)), None);
        assert_eq!(Verifications::new("another").open(&token, now), None);
        for garbled in ["", "x", "%%%", &token[1..], &"A".repeat(43), &"A".repeat(1000)] {
            assert_eq!(sealer.open(garbled, now), None, "{garbled}");
        }
    }
}
