//! `Idempotency-Key`: a POST that is sent again makes nothing twice (draft-ietf-httpapi-idempotency-key-header).
//!
//! A key reserves the *id* of what will be made, before it is made. A repetition gets the same id, and inserting it again does nothing:
//! whatever crashed in between, or runs at the same time, there is no state in which a second thing could appear and none to wait for.
//! When the thing is made the key is done, so that a repetition after its removal does not bring it back.

pub mod sql;

use axum::{
    extract::FromRequestParts,
    http::{HeaderName, request::Parts},
};
use uuid::Uuid;

use crate::{
    app::App,
    database::Moment,
    refusal::{Refusal, owner_gone},
};

/// The header's name.
const HEADER: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a request, if it has one.
#[derive(Debug)]
pub struct IdempotencyKey(Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let mut values = parts.headers.get_all(HEADER).iter();
        let Some(value) = values.next() else { return Ok(Self(None)) };
        let key = value.to_str().ok().filter(|key| (1..=255).contains(&key.len()) && values.next().is_none());
        key.map(|key| Self(Some(key.to_owned()))).ok_or(Refusal::NotAKey)
    }
}

/// What is to be made, and under which id.
#[derive(Debug)]
pub struct Slot {
    /// New, or that of the first request with this key.
    pub id: Uuid,
    /// Whether it was made before.
    pub done: bool,
    key: Option<String>,
}

impl Slot {
    /// Whether a key was given: then what is stored may be another request's work, and is read again.
    #[must_use]
    pub fn is_keyed(&self) -> bool {
        self.key.is_some()
    }

    /// Says that it is made.
    ///
    /// # Errors
    /// What the store said.
    pub async fn finish(&self, app: &App, user: Uuid) -> Result<(), Refusal> {
        match &self.key {
            Some(key) => Ok(sql::finish(&app.database, user, key).await?),
            None => Ok(()),
        }
    }
}

impl IdempotencyKey {
    /// Reserves an id for what `user` asks for; `fingerprint` tells whether a repetition asks for the same.
    ///
    /// # Errors
    /// 422 when the key was used for something else; 401 when there is no such user (any more).
    pub async fn reserve(self, app: &App, user: Uuid, fingerprint: [u8; 32]) -> Result<Slot, Refusal> {
        let fresh = Uuid::now_v7();
        let Some(key) = self.0 else { return Ok(Slot { id: fresh, done: false, key: None }) };
        let reserved = sql::reserve(&app.database, user, &key, &fingerprint, fresh, Moment::now());
        let reserved = reserved.await.map_err(owner_gone)?;
        if reserved.fingerprint != fingerprint {
            return Err(Refusal::KeyOfAnother);
        }
        Ok(Slot { id: reserved.resource, done: reserved.done, key: Some(key) })
    }
}
