//! The one table from "no" to status, code and sentence.
//!
//! Every error body has one shape: `{"error": {"code", "message", "fields"?}}`. The client's words are here; the operator's words
//! (the cause) go to the log and never into the body.

use std::{collections::BTreeMap, error::Error as StdError};

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

/// Field name → what is wrong with it, in the client's words.
pub type Problems = BTreeMap<String, String>;

/// Why a request is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The body is not a JSON object.
    #[error("the body is not a JSON object")]
    Malformed,
    /// Query parameters are wrong; each is named.
    #[error("invalid query")]
    InvalidQuery(Problems),
    /// No valid identity.
    #[error("not authenticated")]
    Unauthenticated,
    /// The e-mail is unknown or the password is wrong; which of them is not said.
    #[error("wrong credentials")]
    WrongCredentials,
    /// Known, but without the role that this needs.
    #[error("forbidden")]
    Forbidden,
    /// No such thing, or not the caller's.
    #[error("not found")]
    NotFound,
    /// The path exists, the method does not.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// Somebody has this e-mail.
    #[error("e-mail taken")]
    EmailTaken,
    /// Others kept changing the same thing.
    #[error("changed by others meanwhile")]
    Contended,
    /// It was made by an earlier request with this key, and removed since.
    #[error("made and removed")]
    Gone,
    /// `If-Match` names another version (RFC 9110 §13.1.1).
    #[error("precondition failed")]
    PreconditionFailed,
    /// The body is larger than [`crate::app::BODY_LIMIT`].
    #[error("body too large")]
    TooLarge,
    /// The body is not declared as JSON.
    #[error("unsupported media type")]
    NotJson,
    /// Fields of the body are wrong; each is named.
    #[error("invalid fields")]
    Invalid(Problems),
    /// The key belongs to another request.
    #[error("idempotency key of another request")]
    KeyOfAnother,
    /// `Idempotency-Key` is none.
    #[error("not an idempotency key")]
    NotAKey,
    /// Too often; the seconds until another try is worth it.
    #[error("too many attempts, again in {0} s")]
    TooMany(u64),
    /// Our fault.
    #[error("internal error")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
    /// Something we need is away or overloaded; worth another try.
    #[error("unavailable")]
    Unavailable(#[source] Box<dyn StdError + Send + Sync>),
}

impl Refusal {
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::Malformed => (S::BAD_REQUEST, "malformed", "the body must be a JSON object"),
            Self::InvalidQuery(_) => (S::BAD_REQUEST, "invalid_query", "some query parameters are not valid"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "log in first"),
            Self::WrongCredentials => (S::UNAUTHORIZED, "wrong_credentials", "e-mail or password is wrong"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "your role does not allow this"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "there is nothing here"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "not with this method"),
            Self::EmailTaken => (S::CONFLICT, "email_taken", "this e-mail is already registered"),
            Self::Contended => (S::CONFLICT, "contended", "it was changed meanwhile, read it again"),
            Self::Gone => (S::GONE, "gone", "it was made with this key, and removed since"),
            Self::PreconditionFailed => {
                (S::PRECONDITION_FAILED, "precondition_failed", "there is another version")
            }
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than 1 MiB"),
            Self::NotJson => (S::UNSUPPORTED_MEDIA_TYPE, "not_json", "send application/json"),
            Self::Invalid(_) => (S::UNPROCESSABLE_ENTITY, "invalid", "some fields are not valid"),
            Self::KeyOfAnother => {
                (S::UNPROCESSABLE_ENTITY, "key_of_another", "this Idempotency-Key belongs to another request")
            }
            Self::NotAKey => {
                (S::BAD_REQUEST, "not_a_key", "Idempotency-Key has 1 to 255 visible characters, once")
            }
            Self::TooMany(_) => (S::TOO_MANY_REQUESTS, "too_many", "too many attempts, try again later"),
            Self::Internal(_) => (S::INTERNAL_SERVER_ERROR, "internal", "this is our fault"),
            Self::Unavailable(_) => (S::SERVICE_UNAVAILABLE, "unavailable", "try again in a moment"),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, code, message) = self.row();
        match &self {
            Self::Internal(cause) => tracing::error!(cause, "internal error"),
            Self::Unavailable(cause) => tracing::warn!(cause, "unavailable"),
            _ => {}
        }
        let mut error = json!({ "code": code, "message": message });
        if let Self::Invalid(problems) | Self::InvalidQuery(problems) = &self {
            error["fields"] = json!(problems);
        }
        let mut response = (status, Json(json!({ "error": error }))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match status {
            // RFC 9110 §11.6.1: a 401 names a way in.
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if let Self::TooMany(seconds) = self {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        if crate::database::is_passing(&error) {
            Self::Unavailable(error.into())
        } else {
            Self::Internal(error.into())
        }
    }
}

/// For a write whose owner may be gone: the identity is a few seconds older than the account's end.
pub fn owner_gone(error: sqlx::Error) -> Refusal {
    match &error {
        sqlx::Error::Database(cause) if cause.is_foreign_key_violation() => Refusal::Unauthenticated,
        _ => error.into(),
    }
}
