//! Sessions: log in, log out, and the edge's question "who is this?".
//!
//! The table is the truth. With Redis configured a session is also published there under `session:{token}`, where every edge
//! reads it; without, the edges ask `GET /auth/session`. Both give the same flat JSON ([`Session`]).

pub mod published;
pub mod sql;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::{get, post},
};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    accounts,
    app::{App, PRIVATE},
    database::{Moment, Words},
    fields::{Fields, rule},
    identity::bearer,
    refusal::Refusal,
    token::Token,
};

/// A session as the edge knows it, from Redis or from us; its names are the edge's, not camelCase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// Whose session it is.
    pub user_id: Uuid,
    /// Names the session without giving its token away.
    pub session_id: String,
    /// For the edge's identity header.
    pub email: String,
    /// For the edge's `roles`.
    pub roles: Words,
    /// Seconds since 1970.
    pub expires_at: i64,
}

/// The routes of this resource.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/auth/login", post(login))
        .route("/auth/logout", post(logout))
        .route("/auth/session", get(session))
}

async fn login(State(app): State<Arc<App>>, mut fields: Fields) -> Result<impl IntoResponse, Refusal> {
    let email = fields.required("email", None, rule::email);
    let password = fields.required("password", None, rule::text(1..=256));
    let (email, password) = fields.finish((email, password)).map_err(Refusal::Invalid)?;

    let credentials = accounts::sql::credentials(&app.database, &email).await?;
    let hash = credentials.as_ref().map(|known| known.password_hash.clone());
    let matches = app.passwords.verify(password, hash).await?;
    let Some(owner) = credentials.filter(|_| matches) else { return Err(Refusal::WrongCredentials) };

    let token = Token::random();
    let now = Moment::now();
    let expires = Moment::cut(now.timestamp() + app.session_ttl);
    let session = Session {
        user_id: owner.id,
        session_id: token.hash().session_id(),
        email,
        roles: owner.roles,
        expires_at: expires.unix_seconds(),
    };
    sql::insert(&app.database, token.hash(), owner.id, now, expires).await?;
    if let Some(redis) = &app.redis
        && let Err(error) = published::put(redis, &token, &session, app.session_ttl).await
    {
        // Slower, but right: while Redis is away the edges ask us.
        tracing::warn!(%error, "session not published");
    }
    let user = accounts::sql::find(&app.database, owner.id).await?.ok_or(Refusal::WrongCredentials)?;
    Ok((PRIVATE, Json(json!({ "token": token.expose(), "expiresAt": expires, "user": user }))))
}

/// Ends the session of the token that is shown. The token itself is needed, also behind the edge: it names the key in Redis, which
/// its hash in the identity header cannot.
async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, Refusal> {
    let token = bearer(&headers).or_else(|| sid_cookie(&headers)).ok_or(Refusal::Unauthenticated)?;
    // Redis first: if that fails nothing has changed and the client can try again; the other way round the edges would go
    // on believing a session that can no longer be ended.
    if let Some(redis) = &app.redis {
        published::remove(redis, &token).await.map_err(|e| Refusal::Unavailable(e.into()))?;
    }
    if !sql::delete(&app.database, token.hash()).await? {
        return Err(Refusal::Unauthenticated);
    }
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

/// The edge's question, when it has no Redis.
async fn session(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, Refusal> {
    let token = bearer(&headers).ok_or(Refusal::Unauthenticated)?;
    Ok((PRIVATE, Json(find(&app, &token, Moment::now()).await?)))
}

/// The live session of a token.
///
/// # Errors
/// 401 when there is none or it has expired.
pub async fn find(app: &App, token: &Token, now: Moment) -> Result<Session, Refusal> {
    let row = sql::find(&app.database, token.hash(), now).await?.ok_or(Refusal::Unauthenticated)?;
    Ok(Session {
        user_id: row.user_id,
        session_id: token.hash().session_id(),
        email: row.email,
        roles: row.roles,
        expires_at: row.expires_at.unix_seconds(),
    })
}

/// The token of browsers, which keep it in the cookie `sid` that the edge also reads.
fn sid_cookie(headers: &HeaderMap) -> Option<Token> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == "sid").and_then(|(_, value)| Token::parse(value))
}
