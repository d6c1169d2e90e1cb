//! What tokens are signed with, and whether a signature holds. The arithmetic is ring's.
//!
//! A key is good for the algorithms of its own kind and for no others, whatever a token says of itself: a public key is never
//! a secret (RFC 8725 §3.1).

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{hmac, signature};
use serde::Deserialize;
use serde_json::Value;
use weir_config::plan::Algorithm;

/// Keys of one set; a provider has two or three.
const MOST: usize = 64;

/// The keys of one issuer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeySet(Box<[Key]>);

#[derive(PartialEq, Eq)]
pub(super) struct Key {
    id: Option<String>,
    /// The one algorithm it is for, where it says so.
    algorithm: Option<String>,
    kind: Kind,
}

#[derive(PartialEq, Eq)]
enum Kind {
    Secret(Box<[u8]>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// Why a text is no set of keys.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BadKeys {
    /// It is not what RFC 7517 §5 says.
    #[error("this is not a JWK Set")]
    NotASet(#[source] Arc<serde_json::Error>),
    /// None of its keys can be used.
    #[error("the JWK Set has no key that signs by RSA, on P-256 or P-384, or by Ed25519")]
    Empty,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// A key as it is written (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    pub(super) fn secret(secret: &str) -> Self {
        let kind = Kind::Secret(secret.as_bytes().into());
        Self([Key { id: None, algorithm: None, kind }].into())
    }

    /// Reads a JWK Set; keys of other kinds and for other uses are passed over (RFC 7517 §5), secrets among them.
    pub(super) fn parse(json: &[u8]) -> Result<Self, BadKeys> {
        let set: Set = serde_json::from_slice(json).map_err(|error| BadKeys::NotASet(Arc::new(error)))?;
        let keys = set.keys.into_iter().filter_map(|key| Key::of(serde_json::from_value(key).ok()?));
        let keys: Box<[Key]> = keys.take(MOST).collect();
        if keys.is_empty() { Err(BadKeys::Empty) } else { Ok(Self(keys)) }
    }

    /// Whether there is a key of this name; without a name any key may be the one.
    pub(super) fn has(&self, id: Option<&str>) -> bool {
        self.named(id).next().is_some()
    }

    /// Whether one of the keys of this name made this signature.
    pub(super) fn verify(&self, id: Option<&str>, by: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        self.named(id).any(|key| key.verify(by, signed, signature))
    }

    fn named<'k>(&'k self, id: Option<&'k str>) -> impl Iterator<Item = &'k Key> {
        self.0.iter().filter(move |key| id.is_none() || key.id.is_none() || key.id.as_deref() == id)
    }
}

impl Key {
    fn of(jwk: Jwk) -> Option<Self> {
        let verifies = |operations: &Vec<String>| operations.iter().any(|operation| operation == "verify");
        if jwk.usage.as_deref().is_some_and(|usage| usage != "sig")
            || !jwk.key_ops.as_ref().is_none_or(verifies)
        {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_deref()?).ok();
        let of_length = |text, length| bytes(text).filter(|bytes| bytes.len() == length);
        // A point as SEC 1 §2.3.3 writes it, uncompressed.
        let point = |length| Some([vec![4], of_length(&jwk.x, length)?, of_length(&jwk.y, length)?].concat());
        let kind = match (&*jwk.kty, jwk.crv.as_deref()) {
            ("RSA", _) => Kind::Rsa { n: without_zeros(bytes(&jwk.n)?), e: without_zeros(bytes(&jwk.e)?) },
            ("EC", Some("P-256")) => Kind::P256(point(32)?),
            ("EC", Some("P-384")) => Kind::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Kind::Ed25519(of_length(&jwk.x, 32)?),
            _ => return None,
        };
        Some(Self { id: jwk.kid, algorithm: jwk.alg, kind })
    }

    fn verify(&self, by: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        use Algorithm as By;
        if self.algorithm.as_ref().is_some_and(|algorithm| *algorithm != format!("{by:?}")) {
            return false;
        }
        let public = |algorithm: &'static dyn signature::VerificationAlgorithm, key: &[u8]| {
            signature::UnparsedPublicKey::new(algorithm, key).verify(signed, signature).is_ok()
        };
        match (&self.kind, by) {
            (Kind::Secret(secret), By::HS256 | By::HS384 | By::HS512) => {
                let hash = match by {
                    By::HS384 => hmac::HMAC_SHA384,
                    By::HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::verify(&hmac::Key::new(hash, secret), signed, signature).is_ok()
            }
            (Kind::Rsa { n, e }, by) => {
                // All of them ask for 2048 bits at least (RFC 7518 §3.3).
                let parameters = match by {
                    By::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    By::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    By::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    By::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
                    By::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
                    By::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                signature::RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok()
            }
            (Kind::P256(point), By::ES256) => public(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Kind::P384(point), By::ES384) => public(&signature::ECDSA_P384_SHA384_FIXED, point),
            (Kind::Ed25519(key), By::EdDSA) => public(&signature::ED25519, key),
            _ => false,
        }
    }
}

/// Some write a zero in front, which is no part of the number (RFC 7518 §6.3.1.1).
fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// Names the key; a secret is not shown.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}
