//! Who the caller is.
//!
//! The origin believes one thing: the edge's signed header, a short-lived JWT (HS256). Only the questions about a session itself
//! also take the session's token, because the edge asks them before it knows an identity.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde::Deserialize;
use uuid::Uuid;

use crate::{app::App, database::Moment, refusal::Refusal, sessions, token::Token};

/// Clocks of edge and origin may differ by so many seconds.
const LEEWAY: u64 = 5;
/// Who signs.
const ISSUER: &str = "weir";

/// The proven caller; a handler that takes it cannot run without one.
#[derive(Debug, Clone, Deserialize)]
pub struct Caller {
    /// Whose data may be seen.
    #[serde(rename = "sub")]
    pub user_id: Uuid,
    /// By which session, if the edge says.
    #[serde(rename = "sid", default)]
    pub session_id: Option<String>,
    /// What they might do when the identity was signed, at most a minute ago; statements ask the table again.
    #[serde(default)]
    pub roles: Vec<String>,
}

/// Checks the edge's signature.
pub struct Identities {
    header: HeaderName,
    key: DecodingKey,
    validation: Validation,
}

impl Identities {
    /// For the header that the edge sets and the secret it shares.
    #[must_use]
    pub fn new(header: HeaderName, secret: &str) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY;
        validation.set_issuer(&[ISSUER]);
        // Without this, a token that leaves `iss` out would pass.
        validation.set_required_spec_claims(&["exp", "iss", "sub"]);
        Self { header, key: DecodingKey::from_secret(secret.as_bytes()), validation }
    }

    /// The caller named by the header; `None` when there is no such header.
    ///
    /// # Errors
    /// 401 when it is forged, expired, garbled, or there twice.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Option<Caller>, Refusal> {
        let mut values = headers.get_all(&self.header).iter();
        let Some(value) = values.next() else { return Ok(None) };
        if values.next().is_some() {
            return Err(Refusal::Unauthenticated);
        }
        decode::<Caller>(value.as_bytes(), &self.key, &self.validation)
            .map(|token| Some(token.claims))
            .map_err(|_| Refusal::Unauthenticated)
    }
}

impl FromRequestParts<Arc<App>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        app.identities.caller(&parts.headers)?.ok_or(Refusal::Unauthenticated)
    }
}

/// The caller by the signed header or, without it, by a session token. For the pages about oneself.
#[derive(Debug)]
pub struct CallerOrBearer(pub Caller);

impl FromRequestParts<Arc<App>> for CallerOrBearer {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refusal> {
        if let Some(caller) = app.identities.caller(&parts.headers)? {
            return Ok(Self(caller));
        }
        let token = bearer(&parts.headers).ok_or(Refusal::Unauthenticated)?;
        let session = sessions::find(app, &token, Moment::now()).await?;
        Ok(Self(Caller {
            user_id: session.user_id,
            session_id: Some(session.session_id),
            roles: session.roles.0,
        }))
    }
}

/// The token of `Authorization: Bearer TOKEN` (RFC 6750 §2.1); the scheme is case-insensitive.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<Token> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Token::parse(token.trim())).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "a secret of at least thirty-two bytes";

    fn ask(header: &Header, secret: &str, claims: Value) -> Result<Option<Caller>, Refusal> {
        let jwt = encode(header, &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-id"), jwt.parse().unwrap())]);
        Identities::new(HeaderName::from_static("x-id"), SECRET).caller(&headers)
    }

    fn claims() -> Value {
        json!({ "sub": Uuid::now_v7(), "iss": "weir", "exp": get_current_timestamp() + 30,
                "sid": "s", "email": "a@b", "roles": ["user"], "iat": get_current_timestamp() })
    }

    #[test]
    fn a_header_signed_by_the_edge_names_the_caller() {
        let claims = claims();
        let caller = ask(&Header::default(), SECRET, claims.clone()).unwrap().unwrap();
        assert_eq!(claims["sub"], json!(caller.user_id));
    }

    #[test]
    fn a_header_that_lacks_anything_names_nobody() {
        let with = |name: &str, value: Value| {
            let mut claims = claims();
            claims[name] = value;
            claims
        };
        let without = |name: &str| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().remove(name);
            claims
        };
        let expired = with("exp", json!(get_current_timestamp() - 10));
        for claims in [
            expired,
            with("iss", json!("other")),
            with("sub", json!("nobody")),
            without("iss"),
            without("sub"),
            without("exp"),
        ] {
            assert!(ask(&Header::default(), SECRET, claims.clone()).is_err(), "{claims}");
        }
        assert!(ask(&Header::default(), "another secret of thirty-two bytes!", claims()).is_err());
        assert!(ask(&Header::new(Algorithm::HS512), SECRET, claims()).is_err());
    }
}
