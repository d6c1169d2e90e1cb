//! What the origin is told about a caller: a JWT in one header, signed with a secret that only the fleet knows.
//!
//! The origin trusts this header alone, never the network it came from. Signing costs two microseconds and a few
//! allocations, so a session keeps its header for half of its life: whatever the origin receives is good
//! for at least the other half.

use std::{
    fmt,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use ring::hmac;
use serde::Serialize;
use weir_config::plan;

use super::session::Session;

/// `{"alg":"HS256","typ":"JWT"}` in base64url: the only head we write.
const HEAD: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Signs identities.
pub struct Signer {
    header: HeaderName,
    key: hmac::Key,
    ttl: Duration,
    /// Tells this signer's headers from those of an earlier plan, whose sessions live on.
    number: u64,
}

/// A header as it was signed.
#[derive(Debug)]
pub(super) struct Signed {
    signer: u64,
    from: SystemTime,
    until: SystemTime,
    value: HeaderValue,
}

#[derive(Serialize)]
struct Claims<'s> {
    iss: &'static str,
    sub: &'s str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<&'s str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'s str>,
    roles: &'s [String],
    iat: u64,
    exp: u64,
}

impl Signer {
    /// A signer for a plan.
    #[must_use]
    pub fn new(identity: &plan::Identity) -> Self {
        Self::with(identity.header.clone(), identity.secret.expose().as_bytes(), identity.ttl)
    }

    fn with(header: HeaderName, secret: &[u8], ttl: Duration) -> Self {
        static SIGNERS: AtomicU64 = AtomicU64::new(0);
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self { header, key, ttl, number: SIGNERS.fetch_add(1, Ordering::Relaxed) }
    }

    /// The header to set; whatever a client sends under this name must be removed, caller or not.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        &self.header
    }

    /// The header's value for a session: signed now, or kept from a moment ago.
    ///
    /// Source: RFC 7515 (JWS), RFC 7519 (JWT).
    #[must_use]
    pub fn sign(&self, session: &Session, now: SystemTime) -> HeaderValue {
        if let Some(signed) = &*session.signed.load()
            && signed.signer == self.number
            && (signed.from..signed.until).contains(&now)
        {
            return signed.value.clone();
        }
        let value = self.sign_anew(session, now);
        let signed = Signed { signer: self.number, from: now, until: now + self.ttl / 2, value: value.clone() };
        session.signed.store(Some(Arc::new(signed)));
        value
    }

    fn sign_anew(&self, session: &Session, now: SystemTime) -> HeaderValue {
        let iat = unix(now);
        // At least a second, or a short `ttl` would round to a header that is born expired.
        let exp = unix(now + self.ttl).max(iat + 1);
        let claims = Claims {
            iss: "weir",
            sub: session.user_id(),
            sid: session.field("session_id"),
            email: session.field("email"),
            roles: session.roles(),
            iat,
            exp: session.expires_at().map_or(exp, |end| exp.min(unix(end))),
        };
        let claims = serde_json::to_vec(&claims).expect("claims are strings and numbers");
        let mut token = format!("{HEAD}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        let mut value = HeaderValue::try_from(token).expect("base64url is visible ASCII");
        value.set_sensitive(true);
        value
    }
}

fn unix(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("header", &self.header).field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test's panic is its report")]
    use super::*;

    fn signer(secret: &str) -> Signer {
        Signer::with(HeaderName::from_static("x-weir-identity"), secret.as_bytes(), Duration::from_secs(60))
    }

    fn session() -> Session {
        let json = r#"{"user_id":"u","session_id":"s","email":"a@b","roles":["user"],"expires_at":1100}"#;
        Session::parse(json).unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn claims(value: &HeaderValue) -> serde_json::Value {
        let claims = value.to_str().unwrap().split('.').nth(1).unwrap().to_owned();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
    }

    #[test]
    fn the_head_says_what_it_should() {
        assert_eq!(URL_SAFE_NO_PAD.decode(HEAD).unwrap(), br#"{"alg":"HS256","typ":"JWT"}"#);
    }

    #[test]
    fn the_signature_holds_for_this_secret_and_no_other() {
        let value = signer("secret").sign(&session(), at(1000));
        let (signed, signature) = value.to_str().unwrap().rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(hmac::verify(&signer("secret").key, signed.as_bytes(), &signature).is_ok());
        assert!(hmac::verify(&signer("other").key, signed.as_bytes(), &signature).is_err());
        let expected = r#"{"iss":"weir","sub":"u","sid":"s","email":"a@b","roles":["user"],"iat":1000,"exp":1060}"#;
        assert_eq!(claims(&value), serde_json::from_str::<serde_json::Value>(expected).unwrap());
        assert!(value.is_sensitive());
    }

    #[test]
    fn a_header_is_kept_for_half_its_life_and_never_outlives_the_session() {
        let (signer, session) = (signer("secret"), session());
        let first = signer.sign(&session, at(1000));
        assert_eq!(signer.sign(&session, at(1029)), first);
        let second = signer.sign(&session, at(1030));
        assert_ne!(second, first);
        assert_eq!(claims(&signer.sign(&session, at(1090)))["exp"], 1100);
    }

    #[test]
    fn a_new_secret_or_a_clock_set_back_signs_anew() {
        let session = session();
        let old = signer("old");
        let first = old.sign(&session, at(1000));
        assert_ne!(signer("new").sign(&session, at(1000)), first);
        let again = old.sign(&session, at(900));
        assert_eq!(claims(&again)["iat"], 900);
    }
}
