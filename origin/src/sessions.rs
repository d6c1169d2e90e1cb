//! Sessions: log in, log out, see and end one's own, and the edge's question "who is this?".
//!
//! The table is the truth. With Redis configured a session is also published there under `session:{token}`, where every edge
//! reads it; without, the edges ask `GET /auth/session`. Both give the same flat JSON ([`Session`]).

pub mod published;
pub mod sql;

use std::{num::NonZeroU32, sync::Arc, time::Instant};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::IntoResponse,
    routing::{delete, get, post},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::{
    accounts::{self, sql::Credentials},
    app::{App, PRIVATE},
    cursor::Walk,
    database::{Moment, Scope, Words, read},
    fields::{Fields, QueryFields, rule},
    fleet::Redis,
    identity::{Caller, CallerOrBearer, bearer},
    refusal::Refusal,
    token::{Token, TokenHash},
};

/// A session as the edge knows it, from Redis or from us; its names are the edge's, not camelCase.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
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
        .route("/auth/sessions", get(list).delete(end_others))
        .route("/auth/sessions/{id}", delete(end))
}

async fn login(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<impl IntoResponse, Refusal> {
    let email = fields.required("email", None, rule::email);
    let password = fields.required("password", None, rule::text(1..=256));
    let (email, password) = fields.finish((email, password)).map_err(Refusal::Invalid)?;

    // Charged before the password is looked at: guesses that are sent at once count all the same.
    let attempt = app.throttle.charge(&email, &headers, Instant::now()).await?;
    let checked = check(&app, &email, password).await;
    // What failed for another reason is no guess either.
    if !matches!(checked, Ok(None)) {
        app.throttle.refund(attempt).await;
    }
    let owner = checked?.ok_or(Refusal::WrongCredentials)?;

    let (token, seed) = app.tokens.make();
    let now = Moment::now();
    let row = sql::Row {
        token: token.hash(),
        seed,
        user_agent: user_agent(&headers),
        created_at: now,
        expires_at: Moment::cut(now.timestamp() + app.session_ttl),
    };
    // Only while that password is the account's: one that is changed at the same moment lets nobody in any more.
    if !sql::insert(&app.database, owner.id, &owner.password_hash, &row).await? {
        return Err(Refusal::WrongCredentials);
    }
    // With Redis away they stay until the next log-in.
    if let Err(error) = end_all(&app, owner.id, Which::AllButNewest(app.sessions_most)).await {
        tracing::warn!(?error, "the oldest sessions are not ended");
    }
    if let Some(redis) = &app.redis {
        publish(&app, redis, &token, &row, now).await?;
    }
    let user = accounts::sql::find(&app.database, owner.id).await?.ok_or(Refusal::WrongCredentials)?;
    let body = json!({ "token": token.expose(), "expiresAt": row.expires_at, "user": user });
    Ok((PRIVATE, Json(body)))
}

/// Whose address and password these are.
async fn check(app: &App, email: &str, password: String) -> Result<Option<Credentials>, Refusal> {
    let known = accounts::sql::credentials(&app.database, email).await?;
    let hash = known.as_ref().map(|known| known.password_hash.clone());
    Ok(if app.passwords.verify(password, hash).await? { known } else { None })
}

/// Tells the edges of a new session. Whoever ends sessions takes them from Redis before and after they end in the table; one that ended
/// before we published is found gone here, one that ends later is taken back by whoever ends it.
async fn publish(
    app: &App,
    redis: &Redis,
    token: &Token,
    row: &sql::Row,
    now: Moment,
) -> Result<(), Refusal> {
    // Read after it was written, and from the primary: whoever changes roles ends the sessions that are there by then.
    let live = async || sql::find(&app.database, row.token, now).await;
    let session = Session::of(token, live().await?.ok_or(Refusal::WrongCredentials)?);
    if let Err(error) = published::put(redis, token, &session, app.session_ttl).await {
        // Slower, but right: while Redis is away the edges ask us.
        tracing::warn!(%error, "session not published");
    }
    if live().await?.is_some() {
        return Ok(());
    }
    let removed = published::remove(redis, std::slice::from_ref(token)).await;
    removed.map_err(|error| Refusal::Unavailable(error.into()))?;
    Err(Refusal::WrongCredentials)
}

/// Ends the session of the token that is shown. The token itself is needed, also behind the edge: it names the key in Redis, which
/// its hash in the identity header cannot.
async fn logout(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<impl IntoResponse, Refusal> {
    let token = bearer(&headers).or_else(|| sid_cookie(&headers)).ok_or(Refusal::Unauthenticated)?;
    // Redis first: if that fails nothing has changed and the client can try again; the other way round the edges would go
    // on believing a session that can no longer be ended.
    if let Some(redis) = &app.redis {
        published::remove(redis, std::slice::from_ref(&token))
            .await
            .map_err(|e| Refusal::Unavailable(e.into()))?;
    }
    if !sql::delete(&app.database, token.hash()).await? {
        return Err(Refusal::Unauthenticated);
    }
    Ok((StatusCode::NO_CONTENT, PRIVATE))
}

/// The caller's sessions, newest first.
async fn list(
    State(app): State<Arc<App>>,
    CallerOrBearer(caller): CallerOrBearer,
    QueryFields(mut query): QueryFields,
) -> Result<impl IntoResponse, Refusal> {
    let walk = Walk::take(&mut query, &app.cursors, format!("sessions {}", caller.user_id));
    let walk = query.finish(walk).map_err(Refusal::InvalidQuery)?;
    let (user, after, count, now) = (caller.user_id, walk.after, walk.count(), Moment::now());
    let rows = read!(app, Scope::Of(user), |db| sql::page(db, user, after, count, now))?;
    let own = rows.into_iter().filter_map(|row| Own::of(row, caller.session_id.as_deref())).collect();
    Ok((PRIVATE, Json(walk.page("sessions", own, |own: &Own| (own.created_at, own.token)))))
}

/// Ends one of the caller's sessions.
async fn end(
    State(app): State<Arc<App>>,
    CallerOrBearer(caller): CallerOrBearer,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Refusal> {
    let token = TokenHash::parse(&id).ok_or(Refusal::NotFound)?;
    match end_all(&app, caller.user_id, Which::Only(token)).await? {
        0 => Err(Refusal::NotFound),
        _ => Ok((StatusCode::NO_CONTENT, PRIVATE)),
    }
}

/// Ends all of the caller's sessions but the one that asks.
async fn end_others(
    State(app): State<Arc<App>>,
    CallerOrBearer(caller): CallerOrBearer,
) -> Result<impl IntoResponse, Refusal> {
    let ended = end_all(&app, caller.user_id, caller.but_this_session()).await?;
    Ok((PRIVATE, Json(json!({ "ended": ended }))))
}

/// Ends sessions of a user, in the table and in Redis, and says how many.
///
/// # Errors
/// 503 when Redis does not confirm it: the edges could still believe a session that is called ended.
pub async fn end_all(app: &App, user: Uuid, which: Which) -> Result<usize, Refusal> {
    let take_back = async |seeds: &[Vec<u8>]| {
        let Some(redis) = &app.redis else { return Ok(()) };
        let tokens: Vec<_> = seeds.iter().map(|seed| app.tokens.of(seed)).collect();
        published::remove(redis, &tokens).await.map_err(|error| Refusal::Unavailable(error.into()))
    };
    // Before, so that nothing has changed if it fails; after, for logins that published in between (see `publish`).
    let seeds = sql::seeds(&app.database, user, which).await?;
    // Every log-in asks, and hardly ever there are too many.
    if seeds.is_empty() && matches!(which, Which::AllButNewest(_)) {
        return Ok(0);
    }
    take_back(&seeds).await?;
    let ended = sql::delete_of(&app.database, user, which).await?;
    take_back(&ended).await?;
    Ok(ended.len())
}

/// Which sessions of a user.
#[derive(Debug, Clone, Copy)]
pub enum Which {
    /// Each.
    All,
    /// This one.
    Only(TokenHash),
    /// All the others.
    AllBut(TokenHash),
    /// All but so many that began last.
    AllButNewest(NonZeroU32),
}

/// A session as its owner sees it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Own {
    /// Its public id.
    pub id: String,
    /// Whether it is the one that asks.
    pub current: bool,
    /// As the client called itself.
    pub user_agent: String,
    /// When it began.
    pub created_at: Moment,
    /// When it ends.
    pub expires_at: Moment,
    #[serde(skip)]
    token: TokenHash,
}

impl Own {
    fn of(row: sql::Listed, current: Option<&str>) -> Option<Self> {
        let token = TokenHash::from_bytes(&row.token_hash)?;
        let id = token.session_id();
        Some(Self {
            current: current == Some(&id),
            id,
            user_agent: row.user_agent,
            created_at: row.created_at,
            expires_at: row.expires_at,
            token,
        })
    }
}

impl Session {
    fn of(token: &Token, live: sql::Live) -> Self {
        Self {
            user_id: live.user_id,
            session_id: token.hash().session_id(),
            email: live.email,
            roles: live.roles,
            expires_at: live.expires_at.unix_seconds(),
        }
    }
}

impl Caller {
    /// The other sessions; all of them when the edge does not say by which one the caller asks.
    #[must_use]
    pub fn but_this_session(&self) -> Which {
        self.session_id.as_deref().and_then(TokenHash::parse).map_or(Which::All, Which::AllBut)
    }
}

/// What the client calls itself, as far as it fits.
fn user_agent(headers: &HeaderMap) -> String {
    let said = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    said.chars().take(200).collect()
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
    let mut row = read!(app, Scope::Nobody, |db| sql::find(db, token.hash(), now))?;
    if row.is_none() && !app.replicas.is_empty() {
        // Perhaps it is newer than the replica's last word.
        row = sql::find(&app.database, token.hash(), now).await?;
    }
    Ok(Session::of(token, row.ok_or(Refusal::Unauthenticated)?))
}

/// The token of browsers, which keep it in the cookie `sid` that the edge also reads.
fn sid_cookie(headers: &HeaderMap) -> Option<Token> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == "sid").and_then(|(_, value)| Token::parse(value))
}
