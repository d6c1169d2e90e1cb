//! One token, checked: its form, its signature, its claims. Pure: the keys and the time are arguments.
//!
//! Nothing that a token says of itself is believed before its signature holds, and never where its key is (`jwk`, `jku` and
//! `x5u` are not looked at). An object with a name twice is none: which of the two counts is anybody's guess.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use weir_config::plan::{self, Algorithm};

use super::keys::KeySet;
use crate::auth::session::{Fields, Lists, Session};

/// Why a token is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// It is no JWS of three parts, or asks for what we do not know (`crit`).
    Form,
    /// It is signed by none of the algorithms of the plan.
    Algorithm,
    /// No key made this signature.
    Signature,
    /// Its end is past.
    Expired,
    /// It begins later, or was issued later.
    NotYet,
    /// Somebody else issued it.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// A claim is missing, or is not what it should be.
    Claim,
}

/// A token whose form is right.
pub(super) struct Parts<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    signed: &'t str,
    claims: &'t str,
    signature: Vec<u8>,
}

/// What a token says, once its signature holds.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) session: Session,
    /// In seconds of Unix time.
    pub(super) issued_at: Option<u64>,
    /// Its end, and the leeway after it.
    pub(super) until: Option<SystemTime>,
}

impl<'t> Parts<'t> {
    /// Takes a token apart (RFC 7515 §5.2, compact serialization).
    pub(super) fn of(token: &'t str, plan: &plan::Jwt) -> Result<Self, Invalid> {
        let (signed, signature) = token.rsplit_once('.').ok_or(Invalid::Form)?;
        let (head, claims) = signed.split_once('.').ok_or(Invalid::Form)?;
        let head = object(head).ok_or(Invalid::Form)?;
        // An extension that must be understood, and we understand none (RFC 7515 §4.1.11).
        if head.contains_key("crit") {
            return Err(Invalid::Form);
        }
        let name = head.get("alg").and_then(Value::as_str).ok_or(Invalid::Form)?;
        let algorithm = plan.algorithms.iter().find(|algorithm| format!("{algorithm:?}") == name);
        let key_id = match head.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(Invalid::Form),
        };
        Ok(Self {
            algorithm: *algorithm.ok_or(Invalid::Algorithm)?,
            key_id,
            signed,
            claims,
            signature: URL_SAFE_NO_PAD.decode(signature).map_err(|_| Invalid::Form)?,
        })
    }

    /// What it says, if one of these keys signed it and all of it is as the plan asks (RFC 7519 §7.2).
    pub(super) fn check(
        &self,
        keys: &KeySet,
        plan: &plan::Jwt,
        fields: &Fields,
        now: SystemTime,
    ) -> Result<Claims, Invalid> {
        let id = self.key_id.as_deref();
        if !keys.verify(id, self.algorithm, self.signed.as_bytes(), &self.signature) {
            return Err(Invalid::Signature);
        }
        let mut claims = object(self.claims).ok_or(Invalid::Form)?;
        if plan.required.iter().any(|name| matches!(claims.get(name), None | Some(Value::Null))) {
            return Err(Invalid::Claim);
        }
        let [expires_at, not_before, issued_at] = ["exp", "nbf", "iat"].map(|name| date(claims.get(name)));
        let (expires_at, not_before, issued_at) = (expires_at?, not_before?, issued_at?);
        // A mark of revocation may end with the token: it is not believed any longer than that then.
        let is_revocable = plan.revoked.is_some() || plan.revoked_before.is_some();
        let leeway = if is_revocable { Duration::ZERO } else { plan.leeway };
        let until = expires_at.map(|end| at(end).and_then(|end| end.checked_add(leeway)));
        let until = until.map(|end| end.ok_or(Invalid::Claim)).transpose()?;
        if until.is_some_and(|end| end <= now) {
            return Err(Invalid::Expired);
        }
        let latest = now + plan.leeway;
        if [not_before, issued_at].into_iter().flatten().any(|from| at(from).is_none_or(|from| latest < from))
        {
            return Err(Invalid::NotYet);
        }
        if !plan.issuer.is_empty() && !names(claims.get("iss"), &plan.issuer) {
            return Err(Invalid::Issuer);
        }
        // RFC 7519 §4.1.3: a token for others is none for us, also where we have no name.
        if (claims.contains_key("aud") || !plan.audience.is_empty())
            && !names(claims.get("aud"), &plan.audience)
        {
            return Err(Invalid::Audience);
        }
        claims.remove("expires_at");
        if let Some(until) = until.and_then(|until| until.duration_since(SystemTime::UNIX_EPOCH).ok()) {
            claims.insert("expires_at".to_owned(), until.as_secs().into());
        }
        let session =
            Session::of(claims, fields, Lists::Texts).and_then(Session::named).map_err(|_| Invalid::Claim)?;
        Ok(Claims { session, issued_at, until })
    }
}

/// Whether a claim is, or has among others, one of these.
fn names(claim: Option<&Value>, known: &[String]) -> bool {
    let is_known = |value: &Value| value.as_str().is_some_and(|name| known.iter().any(|known| known == name));
    match claim {
        Some(Value::Array(several)) => several.iter().any(is_known),
        one => one.is_some_and(is_known),
    }
}

/// A NumericDate (RFC 7519 §2); a part of a second is left out.
fn date(claim: Option<&Value>) -> Result<Option<u64>, Invalid> {
    let Some(claim) = claim else { return Ok(None) };
    let whole = claim.as_f64().filter(|date| (0.0..9e15).contains(date));
    let part = whole.map(|date| date as u64);
    claim.as_u64().or(part).map(Some).ok_or(Invalid::Claim)
}

fn at(seconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// An object in base64url whose names are different.
fn object(part: &str) -> Option<Map<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice::<Distinct>(&json).ok().map(|Distinct(object)| object)
}

struct Distinct(Map<String, Value>);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Distinct;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Distinct, A::Error> {
                let mut object = Map::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if object.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name stands twice"));
                    }
                }
                Ok(Distinct(object))
            }
        }
        deserializer.deserialize_map(Names)
    }
}

#[cfg(test)]
mod tests;
